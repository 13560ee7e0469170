"""Putting the watchers into transformers' places, and taking them out again.

A class that overrides ``generate`` is seen when its own calls ``super().generate``, as nearly all do; give such a model
to :func:`instrument` itself where one does not.
"""

from __future__ import annotations

import os
import threading
import types
import weakref
from typing import Any

from torch.nn import Module
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import RequestState
from transformers.generation.continuous_batching.scheduler import Scheduler
from transformers.generation.utils import GenerationMixin

from llmpower.exceptions import InputError
from llmpower.spans.client import SpanSink
from llmpower.spans.transformers import batching, call, placement
from llmpower.spans.transformers.call import MeasuredGenerate
from llmpower.spans.transformers.observing import Patch, Settings

_OFF = frozenset({"0", "false", "no", "off"})


def instrument(
    model: Any = None,
    *,
    client: SpanSink | None = None,
    model_name: str | None = None,
    synchronise: bool | None = None,
) -> None:
    """Measure every ``generate`` call and every batched request of ``model``, or of all models.

    Doing it again only replaces the settings. A call inside another (an assistant model, a model that generates with
    a part of itself) belongs to the outer one.

    Args:
        model: one model; ``None`` for every class built on transformers' ``GenerationMixin``.
        client: where spans go; by default to the :class:`llmpower.Monitor` that is open, else to the daemon.
        model_name: the name that spans bear; by default ``LLMPOWER_MODEL_NAME`` or what the model was loaded from.
        synchronise: wait for CUDA at start, first token and end, so that the times are those of the work and not of
            its queueing; by default yes, unless ``LLMPOWER_SYNCHRONISE`` is 0. What the waiting inside a span took is
            its attribute ``synchronise_s``.

    Raises:
        InputError: ``model`` has no ``generate``.
    """
    if synchronise is None:
        synchronise = os.environ.get("LLMPOWER_SYNCHRONISE", "1").lower() not in _OFF
    settings = Settings(client, model_name or os.environ.get("LLMPOWER_MODEL_NAME"), synchronise)
    with _lock:
        uninstrument(model)
        if model is None:
            _general.append(MeasuredGenerate(GenerationMixin.generate, settings))
            _put(GenerationMixin, _general[0])
        else:
            _instrument_one(model, settings)
        for patch in _WATCHERS:
            patch.apply()
        placement.note_move()


def _instrument_one(model: Any, settings: Settings) -> None:
    original = getattr(model, "generate", None)
    if original is None:
        raise InputError("model", type(model).__name__, "it has no generate(); give a model that can generate")
    previous = vars(model).get("generate")
    measured = MeasuredGenerate(getattr(original, "__func__", original), settings, previous)
    model.generate = types.MethodType(measured, model)
    _instances.add(model)


def uninstrument(model: Any = None) -> None:
    """Undo :func:`instrument` of the same argument; without effect where nothing is instrumented.

    A call that is under way is still measured. Whoever has kept our ``generate``, or put a wrapper of his own around
    it, keeps one that measures nothing.
    """
    with _lock:
        if model is None:
            if _general:
                measured = _general.pop()
                measured.settings = None
                if vars(GenerationMixin)["generate"] is measured:
                    _put(GenerationMixin, measured.original)
        elif (measured_here := _measured_on(model)) is not None:
            measured_here.settings = None
            del model.generate
            if measured_here.previous is not None:
                model.generate = measured_here.previous
            _instances.discard(model)
        if not _instances and not _general:
            for patch in _WATCHERS:
                patch.remove()


_lock = threading.RLock()

_general: list[MeasuredGenerate] = []
"""The one that measures all models, while there is one."""

_instances: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models that are instrumented by themselves."""


def _settings_of(model: Any) -> Settings | None:
    """What spans of this model are to be like, however they come about; ``None`` where it is not instrumented."""
    measured = _measured_on(model) or (_general[0] if _general else None)
    return None if measured is None else measured.settings


def _measured_on(model: Any) -> MeasuredGenerate | None:
    measured = getattr(getattr(model, "__dict__", {}).get("generate"), "__func__", None)
    return measured if isinstance(measured, MeasuredGenerate) else None


def _put(owner: Any, generate: Any) -> None:
    owner.generate = generate


_WATCHERS = (
    Patch(GenerationMixin, "_get_logits_processor", call.watch_prompt),
    Patch(GenerationMixin, "_get_stopping_criteria", call.watch_ends),
    Patch(GenerationMixin, "_prefill", call.watch_prefill),
    Patch(GenerationMixin, "_update_model_kwargs_for_generation", call.watch_steps),
    Patch(Module, "_apply", placement.watch_moves),
    Patch(ContinuousBatchingManager, "_run_generation_loop", batching.measured_loop(_settings_of)),
    Patch(RequestState, "__post_init__", batching.watch_creation),
    Patch(RequestState, "status", batching.watch_status),
    Patch(RequestState, "update_and_check_completion", batching.watch_tokens),
    Patch(RequestState, "fork", batching.watch_fork),
    Patch(Scheduler, "clear_cancelled_requests", batching.watch_cancellation),
)
"""What stands beside ``generate`` while anything is instrumented: silent where no call of ours is under way."""
