"""The daemon's engine in a thread of this program.

The same samples, ledger and rules as in the daemon, and so the same figures; what falls away is the way between two
processes. Whoever begins or ends a span puts a message into a queue and goes on: the thread takes them before it looks
at the time, so none is behind what is settled. Measurements stay in memory, the latest :data:`MAX_KEPT`.

The sampler's C threads need no GIL. This thread does, four times a second for some milliseconds, and every second and
a half while nothing runs; a program that holds the GIL for long only waits longer for its figures.

A forked child has the memory and not the threads: its copy measures nothing and says so once. The parent's goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from llmpower.daemon.accounting.engine import SETTLE_DELAY_S, Engine
from llmpower.daemon.accounting.host import read_cpu_name
from llmpower.daemon.pace import FINISH_S, FINISH_STEP_S, READY_S, REST_AFTER_S, RESTING_STEP_S, STEP_S
from llmpower.sampling import Sampler
from llmpower.spans.clocks import read_utc_offset_ns
from llmpower.spans.packets import WireError
from llmpower.spans.wire import Begin, Cancel, encode
from llmpower.store import Appended
from llmpower.types import Measurement, Span

MAX_KEPT = 10_000
"""Measurements: some 10 MB."""

ASKED_STEP_S = 0.05
"""While somebody waits for a figure."""

JOIN_S = 1.0
"""How long letting go waits for the thread; a driver call that hangs holds up nobody's end."""

_FORKED = "this Monitor was opened before the process forked and measures nothing here; open another in the child"
_CLOSED = "this Monitor is closed and measures nothing any more; open another"

_logger = logging.getLogger("llmpower")


class Meter:
    """Measures with ``sampler``, which is started, until :meth:`end`; closes it then.

    Waits until every device has shown something, two seconds at most: a span that began before would get no joules.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._engine = Engine(
            sampler.devices,
            self._keep,
            backend=sampler.backend,
            cpu_name=read_cpu_name(),
            device_of=sampler.device_of,
            unopened=sampler.unopened,
        )
        self._messages: deque[Begin | Span | Cancel] = deque()
        self._kept: dict[str, Measurement] = {}
        self._awaited: set[str] = set()
        self._waiting = 0
        self._ending = self._finishing = False
        self._said = self._said_stranger = False
        self._why_not: str | None = None
        self._busy_s = time.monotonic()
        self._changed = threading.Condition()
        ready_s = time.monotonic() + READY_S
        while not self._engine.knowing and time.monotonic() < ready_s:
            time.sleep(FINISH_STEP_S)
            self._step(SETTLE_DELAY_S)
        self._thread = threading.Thread(target=self._run, name="llmpower", daemon=True)
        self._thread.start()
        _meters.add(self)

    @property
    def power_w(self) -> float | None:
        """What all GPUs draw now; ``None`` where one does not say."""
        powers_w = [each.power_w for each in self._engine.snapshot.devices if each.device.kind == "gpu"]
        known_w = [power_w for power_w in powers_w if power_w is not None]
        return sum(known_w) if known_w and len(known_w) == len(powers_w) else None

    def begin(self, span_id: str, start_ns: int) -> None:
        """A span has started."""
        self._tell(Begin(span_id, start_ns))

    def finish(self, span: Span) -> None:
        """It has ended; one with a value that cannot be is withdrawn, and that is said."""
        try:
            # What the daemon would refuse is no better here.
            encode(span)
        except WireError as error:
            _logger.warning("llmpower: a span is not measured, %s", error)
            self.cancel(span.span_id)
            return
        self._tell(span)

    def cancel(self, span_id: str) -> None:
        """It has failed."""
        self._tell(Cancel(span_id))

    def measurement(self, span: Span, timeout_s: float) -> Measurement | None:
        """What was measured of a span that has ended, once it is; ``None`` where that is not known in time."""
        with self._changed:
            self._wait(lambda: span.span_id not in self._awaited, timeout_s)
            return self._kept.get(span.span_id)

    def measurements(self, timeout_s: float) -> list[Measurement]:
        """Those kept, in the order in which they were measured, once all spans that have ended are."""
        with self._changed:
            self._wait(lambda: not self._awaited, timeout_s)
            return list(self._kept.values())

    def end(self, *, finish: bool, timeout_s: float) -> None:
        """Measure no more; with ``finish``, once what has ended is measured. Waits for the thread; may be repeated."""
        with self._changed:
            self._why_not = self._why_not or _CLOSED
            self._ending, self._finishing = True, finish
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _tell(self, message: Begin | Span | Cancel) -> None:
        with self._changed:
            if self._why_not is None:
                resting = not self._messages and self._is_resting()
                if isinstance(message, Span):
                    self._awaited.add(message.span_id)
                self._messages.append(message)
                if resting:
                    self._changed.notify_all()
                return
            if self._said:
                return
            self._said = True
        _logger.warning("llmpower: %s", self._why_not)

    def _wait(self, is_there: Callable[[], bool], timeout_s: float) -> None:
        if timeout_s > 0 and not is_there():
            self._waiting += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(is_there, min(timeout_s, threading.TIMEOUT_MAX))
            finally:
                self._waiting -= 1

    def _run(self) -> None:
        try:
            while not self._ending:
                self._turn(SETTLE_DELAY_S)
                with self._changed:
                    if not self._ending:
                        self._changed.wait(self._pause_s())
            deadline_s = time.monotonic() + FINISH_S
            self._turn(0.0)
            while self._finishing and self._awaited and time.monotonic() < deadline_s:
                # Where reads are slow, the next one may be ten seconds away.
                self._sampler.read_now()
                until_s = time.monotonic() + STEP_S
                while self._awaited and time.monotonic() < until_s:
                    time.sleep(FINISH_STEP_S)
                    self._turn(0.0)
        except Exception:
            _logger.exception("llmpower: measuring in this process has failed and ends")
        finally:
            with self._changed:
                self._why_not = self._why_not or _CLOSED
                self._awaited.clear()
                self._changed.notify_all()
            self._sampler.close()

    def _turn(self, settle_delay_s: float) -> None:
        began_s = time.monotonic()
        if self._messages:
            self._busy_s = began_s
            self._sampler.rest(False)
        while self._messages:
            self._take(self._messages.popleft())
        # What came since the look at the messages is not settled past.
        self._step(settle_delay_s + (time.monotonic() - began_s if settle_delay_s else 0.0))
        snapshot = self._engine.snapshot
        if snapshot.spans_running or snapshot.spans_pending:
            self._busy_s = time.monotonic()
        if snapshot.spans_of_strangers and not self._said_stranger:
            self._said_stranger = True
            _logger.warning(
                "llmpower: a span names %s, which is the UUID of no GPU here, and has no joules of it; there are: %s",
                ascii(snapshot.latest_stranger)[:80],
                ", ".join(device.uuid for device in self._sampler.devices if device.kind == "gpu"),
            )
        self._sampler.rest(self._is_resting())

    def _take(self, message: Begin | Span | Cancel) -> None:
        match message:
            case Begin(span_id, start_ns):
                self._engine.begin(span_id, start_ns)
            case Cancel(span_id):
                self._engine.cancel(span_id)
            case Span():
                if not self._engine.finish(message):
                    with self._changed:
                        self._awaited.discard(message.span_id)
                        self._changed.notify_all()

    def _step(self, settle_delay_s: float) -> None:
        sampler = self._sampler
        self._engine.step(
            sampler.drain(),
            sampler.statistics(),
            read_utc_offset_ns(),
            channels=sampler.channels(),
            settle_delay_s=settle_delay_s,
        )

    def _keep(self, measurements: Sequence[Measurement]) -> Future[Appended]:
        """Be the engine's store."""
        with self._changed:
            for measurement in measurements:
                self._kept[measurement.span.span_id] = measurement
                self._awaited.discard(measurement.span.span_id)
            while len(self._kept) > MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._changed.notify_all()
        future: Future[Appended] = Future()
        future.set_result(Appended(len(measurements)))
        return future

    def _is_resting(self) -> bool:
        return time.monotonic() - self._busy_s > REST_AFTER_S

    def _pause_s(self) -> float:
        if self._waiting:
            return ASKED_STEP_S
        return RESTING_STEP_S if self._is_resting() and not self._messages else STEP_S

    def _forget(self) -> None:
        """Measure nothing, in a forked child; its copy of the lock may be held by a thread that only the parent has."""
        self._changed = threading.Condition()
        self._why_not = _FORKED
        self._awaited.clear()
        self._messages.clear()


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for meter in list(_meters):
        meter._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
