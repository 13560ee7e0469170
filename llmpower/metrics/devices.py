"""What was sampled, in Prometheus's words: cards, how they are read, and CPU packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from llmpower.metrics.snapshot import DeviceState


def device_families(devices: Sequence[DeviceState], unopened: int) -> Iterator[Metric]:
    """The families, each device under its number and UUID or the name of its zone."""
    gpus = [state for state in devices if state.device.kind == "gpu"]
    yield from _gpus(gpus)
    yield GaugeMetricFamily(
        "llmpower_gpus_unopened",
        "Cards that the driver counts and would not open when the daemon started; they are not sampled.",
        unopened,
    )
    yield from _reading(gpus)
    yield from _packages([state for state in devices if state.device.kind == "cpu_package"])


def _gpus(gpus: list[DeviceState]) -> Iterator[Metric]:
    labels = ("gpu", "gpu_uuid")
    info = InfoMetricFamily(
        "llmpower_gpu", "The cards sampled; join with the other metrics on gpu_uuid.", labels=("gpu", "gpu_uuid")
    )
    power = GaugeMetricFamily("llmpower_gpu_power_watts", "Power of the card, latest reading.", labels=labels)
    energy = CounterMetricFamily(
        "llmpower_gpu_energy_joules",
        "Energy of the card since the daemon began, up to the last moment accounted for (about a second ago).",
        labels=labels,
    )
    inference = CounterMetricFamily(
        "llmpower_gpu_inference_energy_joules",
        "The part of llmpower_gpu_energy_joules_total that went to measured spans.",
        labels=labels,
    )
    idle = CounterMetricFamily(
        "llmpower_idle_energy_joules",
        "The part of llmpower_gpu_energy_joules_total that the card drew while no span ran.",
        labels=("gpu_uuid",),
    )
    unattributed = CounterMetricFamily(
        "llmpower_unattributed_energy_joules",
        "The part of llmpower_gpu_energy_joules_total that belongs to no span and is not idle, by reason.",
        labels=("gpu_uuid", "reason"),
    )
    allocated = CounterMetricFamily(
        "llmpower_allocated_energy_joules",
        "The part of llmpower_gpu_inference_energy_joules_total that several spans shared, by what their work costs.",
        labels=("gpu_uuid",),
    )
    residual = CounterMetricFamily(
        "llmpower_allocation_residual_joules",
        "What these costs leave unexplained of llmpower_allocated_energy_joules_total, tick by tick, over or under; it "
        "is in the spans' energies, in proportion.",
        labels=("gpu_uuid",),
    )
    for state in gpus:
        device = state.device
        key = (str(device.number), device.uuid)
        details = {
            "gpu_name": device.name,
            "driver_version": device.driver_version,
            "simulated": str(device.simulated).lower(),
        }
        info.add_metric(key, details)
        if state.power_w is not None:
            power.add_metric(key, state.power_w)
        energy.add_metric(key, state.energy_j)
        inference.add_metric(key, state.inference_j)
        idle.add_metric((device.uuid,), state.idle_j)
        for reason, joules in sorted(state.unattributed_j.items()):
            unattributed.add_metric((device.uuid, reason), joules)
        allocated.add_metric((device.uuid,), state.allocated_j)
        residual.add_metric((device.uuid,), state.residual_j)
    yield from (info, power, energy, inference, idle, unattributed, allocated, residual)


def _reading(gpus: list[DeviceState]) -> Iterator[Metric]:
    period = GaugeMetricFamily(
        "llmpower_device_update_period_seconds",
        "How often the card refreshes what it shows, by calibration.",
        labels=("gpu_uuid", "field"),
    )
    width = GaugeMetricFamily(
        "llmpower_device_update_width_seconds",
        "How closely the moments of these refreshes are known.",
        labels=("gpu_uuid", "field"),
    )
    stalled = GaugeMetricFamily(
        "llmpower_device_stalled_seconds",
        "How long a driver call that does not return has kept the card from being read; 0 when none does.",
        labels=("gpu_uuid",),
    )
    silent = GaugeMetricFamily(
        "llmpower_device_silent_seconds",
        "How long the card has shown nothing or its energy counter has failed; more than some seconds when it is lost.",
        labels=("gpu_uuid",),
    )
    for state in gpus:
        for name, reading in sorted(state.fields.items()):
            if reading.period_s is not None:
                period.add_metric((state.device.uuid, name), reading.period_s)
            if reading.edge_width_s is not None:
                width.add_metric((state.device.uuid, name), reading.edge_width_s)
        stalled.add_metric((state.device.uuid,), state.stalled_s)
        if state.silent_s is not None:
            silent.add_metric((state.device.uuid,), state.silent_s)
    yield from (period, width, stalled, silent)


def _packages(packages: list[DeviceState]) -> Iterator[Metric]:
    energy = CounterMetricFamily(
        "llmpower_cpu_energy_joules",
        "Energy of the CPU package since the daemon began (RAPL).",
        labels=("zone",),
    )
    for state in packages:
        energy.add_metric((state.device.uuid,), state.energy_j)
    yield energy
