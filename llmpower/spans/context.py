"""A span drawn by hand: around any code that runs a model, whatever library it uses.

::

    with llmpower.span(model_name="llama-2-7b", input_tokens=512) as call:
        for token in engine.stream(prompt):
            call.first_token()
            call.output_tokens += 1

One request is one span. The joules of two spans that overlap on a device are shared out between them, so a span that
is opened inside another would take half of its own request's energy away: while a span is open in this context,
instrumented calls below it stay silent (:func:`is_open`).

When it has ended the span can say what it cost, whoever measures it, a daemon or a :class:`llmpower.Monitor`::

    call.energy_j, call.energy_std_j, call.quality

That waits until the counters have moved past its end, most of a second, and gives ``None`` where nobody knows. Of a
call that somebody else's code makes, such as ``generate()``, :func:`last_span` is the span: its result stays untouched,
and a thread sees its own calls and no other's.
"""

from __future__ import annotations

import operator
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from llmpower import phrases
from llmpower.spans.client import SpanSink
from llmpower.spans.sink import MeasuringSink, current_sink
from llmpower.types import Measurement, Quality, Span

WAIT_S = 5.0
"""How long a span's figures are waited for: a daemon that rests has them in under 3 s."""

_open: ContextVar[bool] = ContextVar("llmpower_span_open", default=False)
_last: ContextVar[OpenSpan | None] = ContextVar("llmpower_last_span", default=None)


def is_open() -> bool:
    """Whether a span is open, or measuring is off, in this thread or task."""
    return _open.get()


def last_span() -> OpenSpan | None:
    """The span that ended last in this thread or task, of an instrumented call or a block; ``None`` before the first.

    Example:
        ``answer = model.generate(**inputs)`` and then ``print(llmpower.last_span())``
    """
    return _last.get()


class unmeasured:  # noqa: N801 (used as a function, and made a class because that is cheaper)
    """Keep instrumented calls in the block silent, such as those that only warm a model up."""

    def __enter__(self) -> None:
        self._token = _open.set(True)

    def __exit__(self, *_: object) -> None:
        try:
            _open.reset(self._token)
        except ValueError:
            # A generator that is resumed in another context (as web servers do) ends there: nothing is open in it.
            _open.set(False)


class OpenSpan:
    """A span under way, begun now or at ``start_ns``.

    Counts may be set until it ends; they are those of the whole batch, without padding. Once it has ended,
    ``energy_j``, ``energy_std_j`` and ``quality`` say what it cost, and ``print()`` in one line.
    """

    def __init__(
        self,
        client: SpanSink,
        *,
        model_name: str,
        input_tokens: int = 0,
        device_uuids: str | Sequence[str] | None = None,
        start_ns: int | None = None,
    ) -> None:
        self.span_id = os.urandom(16).hex()
        self.model_name = model_name
        self.device_uuids = (
            (device_uuids,) if isinstance(device_uuids, str) else None if device_uuids is None else tuple(device_uuids)
        )
        self.input_tokens = input_tokens
        self.output_tokens = 0
        self.batch_size = 1
        self.attributes: dict[str, str] = {}
        self.first_token_ns: int | None = None
        self._client: SpanSink | None = client
        self._span: Span | None = None
        self._measurement: Measurement | None = None
        self._patience_s = WAIT_S
        self._pid = _pid
        self.start_ns = time.monotonic_ns() if start_ns is None else start_ns
        client.begin(self.span_id, self.start_ns)

    def first_token(self) -> None:
        """The first token is there now; later calls change nothing."""
        if self.first_token_ns is None:
            self.first_token_ns = time.monotonic_ns()

    def finish(self, end_ns: int | None = None) -> None:
        """Send the span, ended now or at ``end_ns``."""
        if end_ns is None:
            end_ns = time.monotonic_ns()
        if not self._is_ours() or self._client is None:
            return
        span = Span(
            span_id=self.span_id,
            model_name=_plain_text(self.model_name),
            device_uuids=None if self.device_uuids is None else tuple(map(_plain_text, self.device_uuids)),
            start_ns=self.start_ns,
            first_token_ns=self.first_token_ns,
            end_ns=end_ns,
            input_tokens=_plain(self.input_tokens),
            output_tokens=_plain(self.output_tokens),
            batch_size=_plain(self.batch_size),
            hostname=_hostname(),
            pid=self._pid,
            attributes=self.attributes,
        )
        self._client.finish(span)
        self._span = span
        _last.set(self)

    def cancel(self) -> None:
        """Withdraw the span: what it measured failed."""
        if self._is_ours() and self._client is not None:
            self._client.cancel(self.span_id)
            self._client = None

    def measurement(self, timeout_s: float = WAIT_S) -> Measurement | None:
        """All that was measured of the span, once it is; ``None`` before its end, and where that is not known in time.

        Whoever measures is asked again by each call, until there is an answer; it is kept.
        """
        if self._measurement is None and self._span is not None and isinstance(self._client, MeasuringSink):
            self._measurement = self._client.measurement(self._span, timeout_s)
            if self._measurement is not None:
                # A monitor lives for as long as somebody may ask it.
                self._client = None
        return self._measurement

    @property
    def energy_j(self) -> float | None:
        """Joules of GPUs and CPU, as far as measured here; waits for them, ``None`` where they are not known."""
        return None if (found := self._waited_for()) is None else found.energy_j

    @property
    def energy_std_j(self) -> float | None:
        """Standard deviation of :attr:`energy_j`; the card's own gain error comes on top and cannot be seen."""
        return None if (found := self._waited_for()) is None else found.energy_std_j

    @property
    def quality(self) -> Quality:
        """How :attr:`energy_j` came about; ``unavailable`` where it is ``None``."""
        return "unavailable" if (found := self._waited_for()) is None else found.quality

    def __str__(self) -> str:
        """``1.23 ± 0.02 J (measured)``; waits as :attr:`energy_j` does."""
        return self._phrase(self._waited_for())

    def __repr__(self) -> str:
        # A debugger or a log must not wait.
        return f"<span of {self.model_name}: {self._phrase(self._measurement)}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What a notebook shows: somebody wants to see it, and waits."""
        printer.text(str(self))

    def _waited_for(self) -> Measurement | None:
        if self._span is None:
            return None
        # Where waiting brought nothing, the next property does not wait again.
        timeout_s, self._patience_s = self._patience_s, 0.0
        return self.measurement(timeout_s)

    def _phrase(self, found: Measurement | None) -> str:
        if found is None or found.energy_j is None:
            if self._span is None:
                return "still running" if self._client is not None else "withdrawn"
            return "no joules yet" if found is None and self._patience_s else "no joules (unavailable)"
        notes = (found.quality, "allocated" if found.allocated else "", "SIMULATED" if found.simulated else "")
        return f"{phrases.joules(found.energy_j, found.energy_std_j)} ({', '.join(filter(None, notes))})"

    def _is_ours(self) -> bool:
        """A child forked inside the block leaves it too, and must not end its parent's span."""
        return self._pid == _pid


@contextmanager
def span(
    *,
    model_name: str,
    input_tokens: int = 0,
    device_uuids: str | Sequence[str] | None = None,
    client: SpanSink | None = None,
) -> Iterator[OpenSpan]:
    """Measure the block as one span; it is sent when the block ends well and withdrawn when it raises.

    Work that a GPU still has queued at either end belongs to neither side: synchronise inside the block, before its
    first and after its last line, where the library does not.

    Args:
        model_name: the LLM's name, under which its measurements are fitted.
        input_tokens: prompt tokens of the whole batch, padding excluded; may be set later on the yielded object.
        device_uuids: the GPUs that it runs on (``GPU-…``), or one, empty for none, ``None`` for not known.
        client: where the span goes; by default to the :class:`llmpower.Monitor` that is open, else to the daemon.

    Example:
        >>> import llmpower
        >>> with llmpower.Monitor(backend="simulated"):  # or the daemon, and no such line
        ...     with llmpower.span(model_name="llama", input_tokens=512) as call:
        ...         call.output_tokens = 128  # whatever runs the model says how many there were
        ...     measured = call.measurement()
        >>> measured.span.input_tokens, measured.span.output_tokens, measured.simulated
        (512, 128, True)
    """
    with unmeasured():
        opened = OpenSpan(
            client or current_sink(), model_name=model_name, input_tokens=input_tokens, device_uuids=device_uuids
        )
        try:
            yield opened
        except BaseException:
            opened.cancel()
            raise
        opened.finish()


def _plain(count: int) -> int:
    """A count as Python's own int, where it came as NumPy's, a tensor's or, of a table with gaps, as a whole float.

    Anything else is the wire's to refuse.
    """
    try:
        return int(operator.index(count))
    except TypeError:
        return int(count) if isinstance(count, float) and float(count).is_integer() else count


def _plain_text(text: str) -> str:
    """A text as Python's own, where it came as NumPy's; anything else is the wire's to refuse."""
    return str(text) if isinstance(text, str) else text


@cache
def _hostname() -> str:
    return socket.gethostname()


_pid = os.getpid()
"""This process's id: asked once, because the kernel takes longer to say it than Python to remember it."""


def _after_fork_in_child() -> None:
    global _pid
    _pid = os.getpid()


os.register_at_fork(after_in_child=_after_fork_in_child)
