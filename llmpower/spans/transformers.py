"""Every ``generate`` call of transformers becomes a span, with no change to the program that makes it.

``generate`` is wrapped where all models inherit it, or on one model. ``_prefill``, which the sampling and beam loops
call once the prompt is ready, is wrapped beside it for good and not for the length of a call: two threads may
generate with one model at the same time, so what belongs to a call lives in a context variable and nothing on the
model changes. A class that overrides ``generate`` is seen when its own calls ``super().generate``, as nearly all do;
give such a model to :func:`instrument` itself where one does not. ``generate_batch`` is not seen.

The result is never touched. What goes wrong in here costs the measurement of that call, is said once, and is
never the program's concern.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import time
import types
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.generation.utils import GenerationMixin

from llmpower.exceptions import InputError
from llmpower.spans.client import SpanSink
from llmpower.spans.context import OpenSpan, is_open, unmeasured
from llmpower.spans.counting import Prompt
from llmpower.spans.sink import current_sink
from llmpower.spans.wire import MAX_STRING_CHARS

_OFF = frozenset({"0", "false", "no", "off"})

_logger = logging.getLogger("llmpower")


def instrument(
    model: Any = None,
    *,
    client: SpanSink | None = None,
    model_name: str | None = None,
    synchronise: bool | None = None,
) -> None:
    """Measure every ``generate`` call of ``model``, or of all models. Doing it again only replaces the settings.

    A call inside another (an assistant model, a model that generates with a part of itself) belongs to the outer one.

    Args:
        model: one model; ``None`` for every class built on transformers' ``GenerationMixin``.
        client: where spans go; by default to the :class:`llmpower.Monitor` that is open, else to the daemon.
        model_name: the name that spans bear; by default ``LLMPOWER_MODEL_NAME`` or what the model was loaded from.
        synchronise: wait for CUDA at start, first token and end, so that the times are those of the work and not of
            its queueing; by default yes, unless ``LLMPOWER_SYNCHRONISE`` is 0.

    Raises:
        InputError: ``model`` has no ``generate``.
    """
    if synchronise is None:
        synchronise = os.environ.get("LLMPOWER_SYNCHRONISE", "1").lower() not in _OFF
    settings = _Settings(client, model_name, synchronise)
    uninstrument(model)
    if model is None:
        _patch(GenerationMixin, "generate", _MeasuredGenerate(GenerationMixin.generate, settings))
    else:
        original = getattr(model, "generate", None)
        if original is None:
            raise InputError("model", type(model).__name__, "it has no generate(); give a model that can generate")
        previous = vars(model).get("generate")
        measured = _MeasuredGenerate(getattr(original, "__func__", original), settings, previous)
        model.generate = types.MethodType(measured, model)
        _instances.add(model)
    if not isinstance(GenerationMixin._prefill, _ObservedPrefill):
        _patch(GenerationMixin, "_prefill", _ObservedPrefill(GenerationMixin._prefill))


def uninstrument(model: Any = None) -> None:
    """Undo :func:`instrument` of the same argument; without effect where nothing is instrumented."""
    if model is None:
        if isinstance(GenerationMixin.generate, _MeasuredGenerate):
            _patch(GenerationMixin, "generate", GenerationMixin.generate.original)
    elif isinstance(measured := getattr(vars(model).get("generate"), "__func__", None), _MeasuredGenerate):
        del model.generate
        if measured.previous is not None:
            model.generate = measured.previous
        _instances.discard(model)
    watched = bool(_instances) or isinstance(GenerationMixin.generate, _MeasuredGenerate)
    if not watched and isinstance(GenerationMixin._prefill, _ObservedPrefill):
        _patch(GenerationMixin, "_prefill", GenerationMixin._prefill.original)


_instances: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models that are instrumented by themselves."""


def _patch(owner: type, name: str, method: Callable[..., Any]) -> None:
    setattr(owner, name, method)


@dataclass(frozen=True, slots=True)
class _Settings:
    client: SpanSink | None
    model_name: str | None
    synchronise: bool


class _Method(ABC):
    """A method in another's place, which keeps that one's name, signature and docstring."""

    def __init__(self, original: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self.original = original

    @abstractmethod
    def __call__(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Do what the original does, on the same model."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)


class _MeasuredGenerate(_Method):
    """``generate``, each outermost call of which is a span. ``previous`` is what stood on the instance before."""

    def __init__(self, original: Callable[..., Any], settings: _Settings, previous: Any = None) -> None:
        super().__init__(original)
        self.settings = settings
        self.previous = previous

    def __call__(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        generate = functools.partial(self.original, model) if self.previous is None else self.previous
        call = None if is_open() else _Call.begin(self.settings, model, args, kwargs)
        if call is None:
            return generate(*args, **kwargs)
        with unmeasured():
            token = _current.set(call)
            try:
                result = generate(*args, **kwargs)
            except BaseException:
                call.span.cancel()
                raise
            finally:
                _current.reset(token)
        call.finish(result)
        return result


class _ObservedPrefill(_Method):
    """``_prefill``, whose arguments tell what generate decided and whose return is the first token's moment."""

    def __init__(self, original: Callable[..., Any]) -> None:
        super().__init__(original)
        self.signature = inspect.signature(original)

    def __call__(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        call = _current.get()
        if call is None or call.prompt is not None:
            return self.original(model, *args, **kwargs)
        seen = call.see_prompt(model, lambda: self.signature.bind(model, *args, **kwargs).arguments)
        outputs = self.original(model, *args, **kwargs)
        if seen:
            call.see_first_token()
        return outputs


class _Call:
    """One outermost ``generate`` under way."""

    def __init__(self, settings: _Settings, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        devices = _devices(model)
        name = settings.model_name or os.environ.get("LLMPOWER_MODEL_NAME") or model_name_of(model)
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.prompt: Prompt | None = None
        self.synchronise_ns = 0
        self.cuda = [device for device in devices if device.type == "cuda"] if settings.synchronise else []
        # What the start waits for is earlier work, and no cost of this call's.
        self.synchronise()
        self.synchronise_ns = 0
        self.span = OpenSpan(
            settings.client or current_sink(), model_name=name[:MAX_STRING_CHARS], device_uuids=_uuids(devices)
        )

    @classmethod
    def begin(cls, *arguments: Any) -> _Call | None:
        """The call, begun; ``None`` when it cannot be measured."""
        try:
            return cls(*arguments)
        except Exception as error:
            _say_once(error)
            return None

    def see_prompt(self, model: Any, arguments: Callable[[], Mapping[str, Any]]) -> bool:
        """Keep what generate decided about the prompt; False when this prefill is an assistant's."""
        try:
            seen = arguments()
            config = seen["generation_config"]
            if not config.is_assistant:
                stops_rows = bool(self.args[3] if len(self.args) > 3 else self.kwargs.get("stopping_criteria"))
                self.prompt = Prompt.at_prefill(
                    model, seen["input_ids"], config, seen["model_kwargs"], stops_rows=stops_rows
                )
        except Exception as error:
            _say_once(error)
        return self.prompt is not None

    def see_first_token(self) -> None:
        """The prompt is through the model: what remains of the first token is a choice among its logits."""
        try:
            self.synchronise()
            self.span.first_token()
        except Exception as error:
            _say_once(error)

    def finish(self, result: Any) -> None:
        """End the span, then count; the counting is no part of it."""
        try:
            self.synchronise()
            end_ns = time.monotonic_ns()
            prompt = self.prompt or Prompt.of_call(self.model, self.args, self.kwargs)
            counts = {"input_tokens": prompt.input_tokens(), "output_tokens": prompt.output_tokens(result)}
            self.span.input_tokens = counts["input_tokens"] or 0
            self.span.output_tokens = counts["output_tokens"] or 0
            self.span.batch_size = prompt.rows
            if unknown := [name for name, count in counts.items() if count is None]:
                self.span.attributes["unknown"] = ",".join(unknown)
            if self.cuda:
                self.span.attributes["synchronise_s"] = f"{self.synchronise_ns / 1e9:.6f}"
            self.span.finish(end_ns)
        except Exception as error:
            self.span.cancel()
            _say_once(error)

    def synchronise(self) -> None:
        """Wait until the model's GPUs have done what they were given, and keep what the waiting took."""
        before_ns = time.monotonic_ns()
        for device in self.cuda:
            torch.cuda.synchronize(device)
        self.synchronise_ns += time.monotonic_ns() - before_ns


_current: ContextVar[_Call | None] = ContextVar("llmpower_generate", default=None)


def model_name_of(model: Any) -> str:
    """What the model was loaded from: ``org/name`` on the hub, the folder's name on disk, else its class.

    A folder inside the hub's cache stands for the model that it caches.
    """
    source = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if not source:
        return type(model).__name__
    path = Path(source)
    cached = next((part for part in path.parts if part.startswith("models--")), None)
    if cached is not None:
        return cached.removeprefix("models--").replace("--", "/")
    if path.is_absolute() or path.is_dir():
        return path.resolve().name
    return source


def _devices(model: Any) -> list[torch.device]:
    """Where the model's weights are. Weights that accelerate moves in for each call are where it computes with them."""
    devices = {parameter.device for parameter in model.parameters()}
    for place in (getattr(model, "hf_device_map", None) or {}).values():
        if place != "disk":
            devices.add(torch.device("cuda", place) if isinstance(place, int) else torch.device(place))
    return sorted((device for device in devices if device.type != "meta"), key=str)


def _uuids(devices: Sequence[torch.device]) -> tuple[str, ...] | None:
    """The GPUs as NVML names them; none on a CPU, ``None`` on hardware that NVML does not know."""
    if any(device.type not in ("cpu", "cuda") for device in devices) or torch.version.hip is not None:
        return None
    indices = [device.index for device in devices if device.type == "cuda"]
    return tuple(f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in indices)


@functools.cache
def _say(kind: str) -> None:
    _logger.warning("llmpower: a generate() call is not recorded: %s", kind)


def _say_once(error: Exception) -> None:
    _say(f"{type(error).__name__}: {error}")
