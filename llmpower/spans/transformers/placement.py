"""Where a model's weights are, and what the model is called.

Asking every weight of a model where it is takes as long as all else that a short call is measured by, so the answer is
kept until something moves: all that ``.to()``, ``.cuda()`` and the like do goes through ``Module._apply``, which is
watched while anything is instrumented, and what accelerate does leaves another ``hf_device_map``. Weights that somebody
puts elsewhere by hand are seen at once where the first is among them, and within :data:`REMEMBERED_S` where it is not.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llmpower.spans.packets import MAX_STRING_CHARS
from llmpower.spans.transformers.observing import Settings

REMEMBERED_S = 1.0
"""After so long all weights are asked again, whatever was or was not seen to move."""

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


class Placement(NamedTuple):
    """Where a model's weights are: the cards that CUDA knows, and all GPUs by the names that NVML has for them."""

    cuda: tuple[torch.device, ...]
    device_uuids: tuple[str, ...] | None


class _Known:
    """A module's placement, and by what one sees that it still is that."""

    __slots__ = ("_device_map", "_model", "_moves", "_until_s", "_weight", "_weight_device", "placement")

    def __init__(self, model: torch.nn.Module, forget: Callable[[Any], None]) -> None:
        # Read before the weights are looked at: what moves meanwhile makes this one old.
        self._until_s = time.monotonic() + REMEMBERED_S
        self._moves = _moves
        self._device_map = vars(model).get("hf_device_map")
        weight = next(model.parameters(), None)
        self._weight = None if weight is None else weakref.ref(weight)
        self._weight_device = None if weight is None else weight.device
        self._model = weakref.ref(model, forget)
        self.placement = _placement_now(model)

    def holds_for(self, model: torch.nn.Module) -> bool:
        """Whether it is this model's, fresh, and nothing has moved since."""
        if self._moves != _moves or self._model() is not model or self._weight is None:
            return False
        if time.monotonic() >= self._until_s:
            return False
        weight = self._weight()
        return (
            weight is not None
            and weight.device == self._weight_device
            and vars(model).get("hf_device_map") is self._device_map
        )


_known: dict[int, _Known] = {}
"""By the module's ``id``, for as long as it lives."""

_moves = 0
"""How often weights were moved, of any module."""


def placement_of(model: Any) -> Placement:
    """Where the model is now; what torch does not know as a module is asked each time."""
    key = id(model)
    known = _known.get(key)
    if known is None or not known.holds_for(model):
        if not isinstance(model, torch.nn.Module):
            return _placement_now(model)
        known = _known[key] = _Known(model, lambda _: _forget(key))
    return known.placement


def _forget(key: int) -> None:
    _known.pop(key, None)


def _placement_now(model: Any) -> Placement:
    devices = devices_of(model)
    return Placement(tuple(device for device in devices if device.type == "cuda"), uuids_of(devices))


def note_move() -> None:
    """Ask all models again: weights have moved, or may have while nobody watched."""
    global _moves
    _moves += 1


def watch_moves(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Module._apply``, by which ``.to()`` and the like move a module's weights."""

    @functools.wraps(original)
    def observed(module: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(module, *args, **kwargs)
        finally:
            note_move()

    return observed


def devices_of(model: Any) -> list[torch.device]:
    """Where the model's weights are. Weights that accelerate moves in for each call are where it computes with them."""
    devices = _weights_devices(model) if isinstance(model, torch.nn.Module) else {p.device for p in model.parameters()}
    for place in (getattr(model, "hf_device_map", None) or {}).values():
        if place != "disk":
            devices.add(torch.device("cuda", place) if isinstance(place, int) else torch.device(place))
    devices.discard(_NOWHERE)
    return sorted(devices, key=str) if len(devices) > 1 else list(devices)


def _weights_devices(model: torch.nn.Module) -> set[torch.device]:
    """As from ``model.parameters()``, which makes names on its way that would take twice as long."""
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
    """As of a whole GPU: CUDA does not say whether it is an instance of MIG, which the sampler knows."""
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"
