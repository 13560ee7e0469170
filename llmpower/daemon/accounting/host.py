"""This machine, as spans refer to it: which devices one ran on, and what that system is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from llmpower.types import Device, Span

MAX_SYSTEMS = 256
"""Sets of devices whose name is remembered; spans name them, and may name anything."""


class Host:
    """The devices that are sampled here.

    Args:
        devices: all of them, GPUs and CPU packages.
        cpu_name: what the processor is called, for spans in which no GPU took part.
        device_of: the device whose power a UUID stands for that is none of theirs: the parent of a MIG instance.
        complete: whether the machine has no other GPUs, of which one may have come back unsampled.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        cpu_name: str = "CPU",
        device_of: Callable[[str], Device | None] = lambda _: None,
        *,
        complete: bool = True,
    ) -> None:
        self._devices = {device.uuid: device for device in devices}
        self._gpus = tuple(device for device in devices if device.kind == "gpu")
        self._packages = sum(device.kind == "cpu_package" for device in devices)
        self._cpu_name = cpu_name
        self._device_of = device_of
        self._complete = complete
        self._systems: dict[tuple[str, ...], str] = {}
        self.strangers = 0
        """Spans that name a GPU which is not sampled here."""
        self.latest_stranger = ""
        """What the latest of them named."""

    def resolve(self, span: Span) -> Span:
        """The span with the GPUs that its energy is to be taken from.

        The simulated card stands for this machine's processor, so a span that ran on no GPU ran on it. With real
        ones, a span that does not know where it ran can only have run on the one GPU there is; where there are
        several, or where it knows that it used none, it has no GPU energy. Instances of a MIG have no power of their
        own: a span on some of them ran on their parent, once. A UUID may be cut short, as CUDA allows, where it is
        still that of one card only.
        """
        if span.device_uuids:
            if len(span.device_uuids) == 1 and span.device_uuids[0] in self._devices:
                return span
            uuids = tuple(dict.fromkeys(map(self._own_uuid, span.device_uuids)))
            if (stranger := next((uuid for uuid in uuids if uuid not in self._devices), None)) is not None:
                self.strangers += 1
                self.latest_stranger = stranger
            return span if uuids == span.device_uuids else replace(span, device_uuids=uuids)
        if self._gpus and all(gpu.simulated for gpu in self._gpus):
            return replace(span, device_uuids=tuple(gpu.uuid for gpu in self._gpus))
        if span.device_uuids is None and len(self._gpus) == 1 and self._complete:
            return replace(span, device_uuids=(self._gpus[0].uuid,))
        return span

    def system(self, span: Span) -> str:
        """What a resolved span ran on, in words, such as ``2× NVIDIA H100 80GB HBM3``."""
        if not span.device_uuids:
            return f"{max(self._packages, 1)}× {self._cpu_name}"
        if (system := self._systems.get(span.device_uuids)) is None:
            names = Counter(map(self._name, span.device_uuids))
            system = " + ".join(f"{count}× {name}" for name, count in sorted(names.items()))
            if len(self._systems) >= MAX_SYSTEMS:
                self._systems.clear()
            self._systems[span.device_uuids] = system
        return system

    def simulated(self, span: Span) -> bool:
        """Whether a resolved span's joules come from a simulated card, in part or in whole."""
        return any(self._devices[uuid].simulated for uuid in span.device_uuids or () if uuid in self._devices)

    def _own_uuid(self, uuid: str) -> str:
        if uuid in self._devices:
            return uuid
        device = self._device_of(uuid)
        if device is None and uuid.startswith("GPU-"):
            meant = [gpu for gpu in self._gpus if gpu.uuid.startswith(uuid)]
            device = meant[0] if len(meant) == 1 else None
        return uuid if device is None else device.uuid

    def _name(self, uuid: str) -> str:
        device = self._devices.get(uuid)
        if device is None:
            return "GPU not sampled here"
        said = not device.simulated or "simulated" in device.name.lower()
        return device.name if said else f"{device.name} (simulated)"


def read_cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the kernel gives it; ``CPU`` where it gives none."""
    try:
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return "CPU"
