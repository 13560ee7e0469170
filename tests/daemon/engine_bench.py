"""An engine with a clock and cards of its own, which a test drives through time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.daemon.accounting.engine import Engine
from llmpower.exceptions import StoreError
from llmpower.sampling import SAMPLE_DTYPE, SamplerStatistics
from llmpower.store import Appended
from llmpower.types import Device, Field, Measurement, Span

S = 1_000_000_000
START_NS = 1000 * S
UTC_OFFSET_NS = 1_767_225_600 * S - START_NS  # 2026-01-01T00:00:00Z at START_NS
STATISTICS = SamplerStatistics(
    samples_total=5,
    dropped_total=1,
    ticks_total=4,
    missed_ticks_total=0,
    lateness_bounds_s=(0.001,),
    lateness_counts=(3, 1),
    lateness_sum_s=0.01,
    read_errors={("gpu", 15): 2},
    effective_hz={"gpu_energy": 100.0},
    read_time_s=0.1,
    running_time_s=1.0,
    cpu_time_s=0.2,
)
GPU = Device(
    uuid="GPU-a",
    index=0,
    name="card",
    kind="gpu",
    simulated=True,
    has_energy_counter=True,
    has_power=True,
    driver_version="550",
)


class Bench:
    """An engine with a clock of its own and cards of a constant power, whose counters move every 100 ms."""

    def __init__(self, devices: Sequence[Device] = (GPU,), power_w: float = 300.0, start_ns: int = START_NS) -> None:
        self.now_ns = start_ns
        self.utc_offset_ns = UTC_OFFSET_NS
        self.stored: list[Measurement] = []
        self.broken: str | None = None
        self.power_w = power_w
        self.devices = devices
        self.engine = Engine(devices, self.append, backend="simulated", now=lambda: self.now_ns)
        self.pass_time(1.0)

    def append(self, measurements: Sequence[Measurement]) -> Future[Appended]:
        """A store that answers at once."""
        future: Future[Appended] = Future()
        if self.broken is not None:
            future.set_exception(StoreError("--store", "spans.db", self.broken))
            return future
        known = {measurement.span.span_id for measurement in self.stored}
        new = [measurement for measurement in measurements if measurement.span.span_id not in known]
        self.stored += new
        future.set_result(Appended(len(new)))
        return future

    def pass_time(self, seconds: float, **options: Any) -> None:
        """One step after so long, with all samples of that time."""
        end_ns = self.now_ns + round(seconds * S)
        parts = [self.samples(device.index, end_ns) for device in self.devices]
        self.now_ns = end_ns
        self.engine.step(np.concatenate(parts), STATISTICS, self.utc_offset_ns, **options)

    def samples(self, index: int, end_ns: int) -> NDArray[np.void]:
        """What a device shows from now until then, of the same power all the time."""
        times_ns = np.arange(self.now_ns, end_ns, S // 100)
        samples = np.zeros(2 * len(times_ns), SAMPLE_DTYPE)
        samples["device"] = index
        for offset, field in enumerate((Field.ENERGY, Field.POWER_INSTANT)):
            part = samples[offset::2]
            part["before_ns"], part["after_ns"], part["field"] = times_ns, times_ns + 1000, field
        samples["value"][0::2] = times_ns // (S // 10) * round(self.power_w * 1e5)
        samples["value"][1::2] = round(self.power_w * 1e6)
        return samples

    def span(self, span_id: str, seconds: float, ended_s_ago: float = 0.0, **fields: Any) -> Span:
        end_ns = self.now_ns - round(ended_s_ago * S)
        values: dict[str, Any] = {
            "model_name": "llama",
            "device_uuids": ("GPU-a",),
            "start_ns": end_ns - round(seconds * S),
            "first_token_ns": None,
            "end_ns": end_ns,
            "input_tokens": 10,
            "output_tokens": 20,
            "batch_size": 1,
            "hostname": "host",
            "pid": 5,
        }
        return Span(span_id=span_id, **values | fields)
