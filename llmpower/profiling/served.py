"""Trials on a server: its own spans where it is instrumented, the campaign's where it is not.

One request must be one span. A server under ``llmpower run``, or vLLM that exports OpenTelemetry, reports each request
to the daemon by itself, with the moments at which the model really ran; a second span around the same time would take
half of its joules. So one request is sent alone first: if the daemon learns of it (:func:`is_heard`), trials are
:class:`ServerSpans`, looked up in the daemon's store. If it does not, they are :class:`ClientSpans`.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llmpower.profiling.endpoint import Endpoint, Usage
from llmpower.profiling.grid import Cell
from llmpower.profiling.keeping import Keeper
from llmpower.profiling.readings import Joules, as_joules
from llmpower.spans import SpanClient, span
from llmpower.spans.context import WAIT_S
from llmpower.store import iter_rows
from llmpower.types import Span

HEARD_S = 8.0
"""How long the daemon may take to learn of a request: OpenTelemetry's senders wait 5 s for more."""

_POLL_S = 0.2
_CLOCKS_S = 0.1
"""By how much a server's times may lie outside of ours: two readings of the wall clock, kept to the millisecond."""

_WARM_UP_TOKENS = 2
_ENERGIES = ("gpu_energy_j", "cpu_energy_j", "gpu_energy_std_j", "cpu_energy_std_j")


def is_heard(status: Callable[[], Mapping[str, Any]], endpoint: Endpoint, within_s: float = HEARD_S) -> bool:
    """Whether the daemon learns of a request by itself, within this many seconds, while nobody else is measured."""
    before = _spans(status())
    endpoint.complete(8, _WARM_UP_TOKENS)
    deadline_s = time.monotonic() + within_s
    while not (heard := _spans(status()) > before) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return heard


class Requests:
    """The requests of a trial, as many at a time as its concurrency.

    Args:
        endpoint: the server.
        pause_s: rest before each trial, in seconds.
    """

    def __init__(self, endpoint: Endpoint, pause_s: float = 0.0) -> None:
        self._endpoint = endpoint
        self._pause_s = pause_s
        self.strays = 0
        """Trials whose lengths were not those asked for."""

    def trial(self, cell: Cell) -> Callable[[Callable[[], object]], list[Usage]]:
        """Everything that comes before a trial; what is returned runs it, given whom to tell of the first token."""
        letters = self._endpoint.letters_for(cell.input_tokens)
        time.sleep(self._pause_s)

        def run(on_first_token: Callable[[], object]) -> list[Usage]:
            usages = self._all(cell, letters, cell.output_tokens, on_first_token)
            self.strays += any(usage != Usage(cell.input_tokens, cell.output_tokens) for usage in usages)
            return usages

        return run

    def warm_up(self, cell: Cell) -> None:
        """Read prompts of the cell's shape and decode a little."""
        letters = self._endpoint.letters_for(cell.input_tokens)
        self._all(cell, letters, min(cell.output_tokens, _WARM_UP_TOKENS))

    def probe(self, cell: Cell) -> float:
        """Run the cell once; seconds that it took."""
        letters = self._endpoint.letters_for(cell.input_tokens)
        started_s = time.monotonic()
        self._all(cell, letters, cell.output_tokens)
        return time.monotonic() - started_s

    def _all(
        self, cell: Cell, letters: int, output_tokens: int, on_first_token: Callable[[], object] = lambda: None
    ) -> list[Usage]:
        def one(_: int) -> Usage:
            return self._endpoint.complete(letters, output_tokens, on_first_token)

        if cell.concurrency == 1:
            return [one(0)]
        with ThreadPoolExecutor(cell.concurrency) as pool:
            return list(pool.map(one, range(cell.concurrency)))


class ClientSpans:
    """A trial is one span around all of its requests, with the tokens of their usage.

    Its joules are measured and not shared out, its batch size is the concurrency, and whatever else the device does
    meanwhile is in them.
    """

    patience_s = WAIT_S

    def __init__(self, requests: Requests, client: SpanClient, model_name: str) -> None:
        self._requests = requests
        self._sink = Keeper(client)
        self._model_name = model_name

    def warm_up(self, cell: Cell) -> None:
        """As :class:`Requests`."""
        self._requests.warm_up(cell)

    def probe(self, cell: Cell) -> float:
        """As :class:`Requests`."""
        return self._requests.probe(cell)

    def measure(self, cell: Cell) -> Span:
        """Run one trial.

        Raises:
            DaemonUnreachableError: the daemon went away, or does not keep up.
            EndpointRefusedError: the server did not answer.
        """
        run = self._requests.trial(cell)

        def measured() -> None:
            with span(model_name=self._model_name, client=self._sink) as call:
                usages = run(call.first_token)
                call.batch_size = cell.concurrency
                call.input_tokens = sum(usage.input_tokens for usage in usages)
                call.output_tokens = sum(usage.output_tokens for usage in usages)

        return self._sink.span_of(cell, measured)

    def joules(self, span: Span, wait_s: float) -> Joules | None:
        """What the daemon has measured of the span."""
        return as_joules(self._sink.measurement(span, wait_s))

    def joules_of(self, span_id: str) -> Joules | None:
        """The same of a trial of an earlier run, as long as the daemon keeps it."""
        return as_joules(self._sink.measurement_of(span_id))


class ServerSpans:
    """A trial is the spans that the server itself has sent of it, found in the daemon's store.

    Args:
        requests: to the server.
        store: the daemon's.
        behind_s: how far the daemon's books are behind the present.
    """

    def __init__(self, requests: Requests, store: Path, behind_s: float) -> None:
        self._requests = requests
        self._store = store
        self._expected: dict[str, tuple[datetime, datetime, Counter[Usage]]] = {}
        self.patience_s = behind_s + HEARD_S + WAIT_S
        self.names: set[str] = set()
        """What the server calls its spans."""

    def warm_up(self, cell: Cell) -> None:
        """As :class:`Requests`; the server measures it all the same."""
        self._requests.warm_up(cell)

    def probe(self, cell: Cell) -> float:
        """As :class:`Requests`; the server measures it all the same."""
        return self._requests.probe(cell)

    def measure(self, cell: Cell) -> Span:
        """Run one trial; the span returned is how the caller saw it, and is sent to nobody.

        Raises:
            EndpointRefusedError: the server did not answer.
        """
        run = self._requests.trial(cell)
        since, start_ns = datetime.now(UTC), time.monotonic_ns()
        usages = run(lambda: None)
        end_ns, until = time.monotonic_ns(), datetime.now(UTC)
        seen = Span(
            span_id=uuid.uuid4().hex,
            model_name="",
            device_uuids=None,
            start_ns=start_ns,
            first_token_ns=None,
            end_ns=end_ns,
            input_tokens=sum(usage.input_tokens for usage in usages),
            output_tokens=sum(usage.output_tokens for usage in usages),
            batch_size=cell.concurrency,
            hostname="",
            pid=0,
        )
        clocks = timedelta(seconds=_CLOCKS_S)
        self._expected[seen.span_id] = (since - clocks, until + clocks, Counter(usages))
        return seen

    def joules(self, span: Span, wait_s: float) -> Joules | None:
        """The sum of the server's spans that began inside this one and have its tokens, once all are there."""
        since, until, usages = self._expected[span.span_id]
        deadline_s = time.monotonic() + wait_s
        while (found := self._joined(since, until, usages)) is None and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return found

    def joules_of(self, _span_id: str) -> Joules | None:
        """Of a trial of an earlier run nobody knows when it was."""
        return None

    def _joined(self, since: datetime, until: datetime, usages: Counter[Usage]) -> Joules | None:
        columns = ("model_name", "input_tokens", "output_tokens", "quality", *_ENERGIES)
        total_j, std_j = 0.0, 0.0
        missing = usages.copy()
        for name, input_tokens, output_tokens, quality, *energies in iter_rows(
            self._store, columns=columns, since=since, until=until
        ):
            usage = Usage(int(str(input_tokens)), int(str(output_tokens)))
            if not missing[usage]:
                continue
            if quality == "unavailable":
                return None
            missing[usage] -= 1
            self.names.add(str(name))
            gpu_j, cpu_j, gpu_std_j, cpu_std_j = (each if isinstance(each, float) else 0.0 for each in energies)
            total_j += gpu_j + cpu_j
            # Shares of one trial's joules err together.
            std_j += math.hypot(gpu_std_j, cpu_std_j)
        return Joules(total_j, std_j) if not +missing and total_j > 0 else None


def _spans(status: Mapping[str, Any]) -> int:
    spans = status["spans"]
    return int(spans["stored"]) + int(spans["pending"]) + int(spans["running"])
