"""Sampler, timelines and ledger in one process, as the daemon puts them together; spans arrive by a method call."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from llmpower.attribution import DeviceTotals, Joules, Ledger, Timeline
from llmpower.daemon.accounting.engine import HOLD_S, SETTLE_DELAY_S
from llmpower.daemon.pace import STEP_S
from llmpower.sampling import Sampler
from llmpower.types import Span


class Meter:
    """Measures spans on GPU 0 while the context lasts; a sink for :func:`llmpower.instrument`.

    Args:
        sampler: opened; GPU 0 and whatever else it has.
        keep: hold on to all samples.
    """

    def __init__(self, sampler: Sampler, *, keep: bool = False) -> None:
        self.sampler = sampler
        self.joules: list[Joules] = []
        self.kept: list[NDArray[np.void]] = []
        self._keep = keep
        self._timelines = {device.uuid: Timeline(device, HOLD_S) for device in sampler.devices}
        self._ledger = Ledger(self._timelines, HOLD_S)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def totals(self) -> DeviceTotals:
        """The books of GPU 0."""
        return self._ledger.totals[self.sampler.devices[0].uuid]

    def begin(self, span_id: str, start_ns: int) -> None:
        """A call has begun."""
        with self._lock:
            self._ledger.begin(span_id, start_ns)

    def finish(self, span: Span) -> None:
        """It has ended."""
        with self._lock:
            # The model may run on the CPU of a machine whose card is simulated: its joules are the simulated card's.
            self._ledger.add(structs.replace(span, device_uuids=(self.sampler.devices[0].uuid,)))

    def cancel(self, span_id: str) -> None:
        """It has failed."""
        with self._lock:
            self._ledger.cancel(span_id)

    def wait(self, count: int, timeout_s: float = 10.0) -> list[Joules]:
        """The joules of ``count`` spans, once they are settled."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.joules) < count and time.monotonic() < deadline_s:
            time.sleep(STEP_S)
        return list(self.joules)

    def __enter__(self) -> Self:
        self.sampler.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.sampler.stop()
        self._step()

    def _run(self) -> None:
        while not self._ended.wait(STEP_S):
            self._step()

    def _step(self) -> None:
        now_ns = time.monotonic_ns()
        samples = self.sampler.drain()
        if self._keep:
            self.kept.append(samples)
        with self._lock:
            for device in self.sampler.devices:
                own = samples[samples["device"] == device.index]
                columns: Any = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
                self._timelines[device.uuid].extend(*columns)
            self.joules += self._ledger.settle(now_ns - round(SETTLE_DELAY_S * 1e9))
