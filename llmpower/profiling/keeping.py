"""A span client that also keeps the last span: a trial's, which the campaign decides by."""

from __future__ import annotations

from collections.abc import Callable

from llmpower.exceptions import DaemonUnreachableError, LlmpowerError
from llmpower.profiling.grid import Cell
from llmpower.spans import SpanClient
from llmpower.types import Measurement, Span


class Keeper:
    """Passes spans on to ``client``."""

    def __init__(self, client: SpanClient) -> None:
        self.client = client
        self._last: Span | None = None

    def begin(self, span_id: str, start_ns: int) -> None:
        """A span has started."""
        self.client.begin(span_id, start_ns)

    def finish(self, span: Span) -> None:
        """It has ended well."""
        self._last = span
        self.client.finish(span)

    def cancel(self, span_id: str) -> None:
        """It has failed."""
        self.client.cancel(span_id)

    def measurement(self, span: Span, timeout_s: float) -> Measurement | None:
        """What the daemon has measured of it."""
        return self.client.measurement(span, timeout_s)

    def measurement_of(self, span_id: str) -> Measurement | None:
        """What the daemon has measured of an earlier process's span, if it still keeps that; without waiting."""
        # Only the id is asked for; what else a span has comes back as it is here.
        forgotten = Span(span_id, "", None, 0, None, 0, 0, 0, 1, "", 0)
        return self.client.measurement(forgotten, 0.0)

    def span_of(self, cell: Cell, run: Callable[[], object]) -> Span:
        """The span of a trial of ``cell``, which ``run`` runs.

        Raises:
            DaemonUnreachableError: the daemon went away, or does not keep up.
            LlmpowerError: no span came of it.
        """
        dropped = self.client.dropped
        self._taken()
        run()
        if self.client.dropped > dropped:
            advice = "the daemon no longer takes spans; start it again and go on with --resume"
            raise DaemonUnreachableError("--socket", self.client.socket_path, advice)
        span = self._taken()
        if span is None:
            raise LlmpowerError(f"the trial {cell} was not recorded; the line before says why")
        return span

    def _taken(self) -> Span | None:
        span, self._last = self._last, None
        return span
