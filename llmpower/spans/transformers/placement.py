"""Where a model's weights are, and what the model is called."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llmpower.spans.transformers.observing import Settings
from llmpower.spans.wire import MAX_STRING_CHARS

_NOWHERE = torch.device("meta")
_KNOWN_TYPES = frozenset(("cpu", "cuda"))


def name_for(settings: Settings, model: Any) -> str:
    """The name that the model's spans bear: as asked for, or of what it was loaded from."""
    return (settings.model_name or model_name_of(model))[:MAX_STRING_CHARS]


def model_name_of(model: Any) -> str:
    """What the model was loaded from: ``org/name`` on the hub, the folder's name on disk, else its class.

    A folder inside the hub's cache stands for the model that it caches.
    """
    source = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    return _name_of(source) if source else type(model).__name__


@functools.lru_cache(maxsize=256)
def _name_of(source: str) -> str:
    path = Path(source)
    cached = next((part for part in path.parts if part.startswith("models--")), None)
    if cached is not None:
        return cached.removeprefix("models--").replace("--", "/")
    if path.is_absolute() or path.is_dir():
        return path.resolve().name
    return source


def devices_of(model: Any) -> list[torch.device]:
    """Where the model's weights are. Weights that accelerate moves in for each call are where it computes with them."""
    devices = _weights_devices(model) if isinstance(model, torch.nn.Module) else {p.device for p in model.parameters()}
    for place in (getattr(model, "hf_device_map", None) or {}).values():
        if place != "disk":
            devices.add(torch.device("cuda", place) if isinstance(place, int) else torch.device(place))
    devices.discard(_NOWHERE)
    return sorted(devices, key=str) if len(devices) > 1 else list(devices)


def _weights_devices(model: torch.nn.Module) -> set[torch.device]:
    """As from ``model.parameters()``, which makes names on its way that would be most of what a span costs.

    They are looked at for each span: nothing that is cheaper to look at tells that none of them has moved.
    """
    devices: set[torch.device] = set()
    modules: list[torch.nn.Module | None] = [model]
    # The list grows while it is walked.
    for module in modules:
        if module is not None:
            if weights := module._parameters:
                devices.update([weight.device for weight in weights.values() if weight is not None])
            if children := module._modules:
                modules.extend(children.values())
    return devices


def uuids_of(devices: Sequence[torch.device]) -> tuple[str, ...] | None:
    """The GPUs as NVML names them; none on a CPU, ``None`` on hardware that NVML does not know."""
    types = {device.type for device in devices}
    if not types <= _KNOWN_TYPES or torch.version.hip is not None:
        return None
    if "cuda" not in types:
        return ()
    indices = {_index(device) for device in devices if device.type == "cuda"}
    return tuple(_uuid(index) for index in sorted(indices))


def _index(device: torch.device) -> int:
    """CUDA's number of the device; one that was asked for without a number is the current one."""
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def _uuid(index: int) -> str:
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
