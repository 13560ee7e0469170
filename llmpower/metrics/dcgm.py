"""Two metrics under the names that dcgm-exporter gives them, so that boards made for it show these cards too.

Off unless asked for: beside a dcgm-exporter each card would appear twice. Names, labels and units are that program's,
millijoules among them; ``rate()`` does not mind that the counter begins with this daemon and not with the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from llmpower.metrics.snapshot import DeviceState, Snapshot

POWER = "DCGM_FI_DEV_POWER_USAGE"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


class DcgmCollector(Collector):
    """Collects :data:`POWER` (W) and :data:`ENERGY` (mJ) of every GPU in the snapshot of that moment."""

    def __init__(self, get_snapshot: Callable[[], Snapshot], hostname: str) -> None:
        self._get_snapshot = get_snapshot
        self._hostname = hostname

    def collect(self) -> Iterator[Metric]:
        """The two families."""
        power = Metric(POWER, "Power draw (in W).", "gauge")
        # A counter by nature; as one, the formats would want another name of it.
        energy = Metric(ENERGY, "Total energy consumption since the daemon began (in mJ).", "unknown")
        for state in self._get_snapshot().devices:
            if state.device.kind != "gpu":
                continue
            labels = self._labels(state)
            if state.power_w is not None:
                power.add_sample(POWER, labels, state.power_w)
            energy.add_sample(ENERGY, labels, state.energy_j * 1e3)
        yield power
        yield energy

    def _labels(self, state: DeviceState) -> dict[str, str]:
        device = state.device
        return {
            "gpu": str(device.number),
            "UUID": device.uuid,
            "pci_bus_id": device.pci_bus_id,
            "device": f"nvidia{device.number}",
            "modelName": device.name,
            "Hostname": self._hostname,
            "DCGM_FI_DRIVER_VERSION": device.driver_version,
        }
