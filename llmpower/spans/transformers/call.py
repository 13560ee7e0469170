"""One ``generate`` call as one span.

``generate`` is wrapped where all models inherit it, or on one model. Methods that it calls are watched beside it
for good, and not for the length of a call: two threads may generate with one model at the same time, so what belongs
to a call lives in a context variable and nothing on the model changes.

- ``_get_logits_processor`` is called once everything about the prompt is decided, in every mode: its arguments tell
  what is padding, which ids end a sequence, and how often each row was copied.
- ``_get_stopping_criteria``, only where rows of a batch may end otherwise than by an id, gives the criteria that tell.
- ``_prefill`` returns when the prompt is through the model: what remains of the first token is a choice among its
  logits. Sampling and beams call it.
- ``_update_model_kwargs_for_generation`` is what the other loops (assisted decoding, most custom ones) call after a
  forward pass: its first call by the model itself is the first token's moment there.

A call inside another belongs to the outer one: the drafts of an assistant model, a recipe that generates with a part
of itself. Nobody's first token is an assistant's.
"""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch

from llmpower.spans.context import OpenSpan, is_open, unmeasured
from llmpower.spans.transformers.counting import Prompt, RowEnds
from llmpower.spans.transformers.observing import Settings, say_once
from llmpower.spans.transformers.placement import name_for, placement_of


class MeasuredGenerate:
    """``generate``, each outermost call of which is a span; it keeps its name, signature and docstring.

    Args:
        original: the function in whose place this one stands.
        settings: of the spans; ``None`` later on, when this was removed, for those who still hold it.
        previous: what stood on the instance before, where it is a single model's.
    """

    def __init__(self, original: Callable[..., Any], settings: Settings, previous: Any = None) -> None:
        functools.update_wrapper(self, original)
        self.original = original
        self.settings: Settings | None = settings
        self.previous = previous

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, model: Any, /, *args: Any, **kwargs: Any) -> Any:
        """What the original returns, or raises."""
        generate = functools.partial(self.original, model) if self.previous is None else self.previous
        if is_open():
            return (
                _draft(generate, args, kwargs)
                if _is_draft(kwargs.get("generation_config"))
                else generate(*args, **kwargs)
            )
        call = None
        # With a paged cache generate() hands its rows to generate_batch(), where each is a request of its own.
        if self.settings is not None and kwargs.get("cache_implementation") != "paged":
            call = Call.begin(self.settings, model, args, kwargs)
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


def _is_draft(config: Any) -> bool:
    """Whether a generation config is that of an assistant at work."""
    return bool(getattr(config, "is_assistant", False))


def _draft(generate: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Draft tokens for the call that is under way, unseen by it."""
    token = _current.set(None)
    try:
        return generate(*args, **kwargs)
    finally:
        _current.reset(token)


def watch_prompt(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_get_logits_processor``, by whose arguments the call's tokens are counted."""

    @functools.wraps(original)
    def observed(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        call = _current.get()
        if call is not None and call.prompt is None and kwargs.get("encoder_input_ids") is not None:
            call.see_prompt(model, kwargs)
        return original(model, *args, **kwargs)

    return observed


def watch_ends(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_get_stopping_criteria``, whose result is asked where rows end if the result of the call will not tell."""

    @functools.wraps(original)
    def observed(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        criteria = original(model, *args, **kwargs)
        call = _current.get()
        if call is not None and call.ends is None and call.prompt is not None and call.prompt.ends_are_hidden:
            call.ends = criteria = RowEnds(criteria)
        return criteria

    return observed


def watch_prefill(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_prefill``, whose return is the first token's moment."""

    @functools.wraps(original)
    def observed(model: Any, /, *args: Any, **kwargs: Any) -> Any:
        outputs = original(model, *args, **kwargs)
        call = _current.get()
        if call is not None and not _is_draft(args[1] if len(args) > 1 else kwargs.get("generation_config")):
            call.see_first_token()
        return outputs

    return observed


def watch_steps(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_update_model_kwargs_for_generation``, the first call of which ends the prefill of loops without one."""

    @functools.wraps(original)
    def observed(*args: Any, **kwargs: Any) -> Any:
        # This runs once a token: it takes nothing apart that it passes on, and asks one thing as a rule.
        call = _current.get()
        if call is not None and call.is_prefilling and args[0] is call.model:
            call.see_first_token()
        return original(*args, **kwargs)

    return observed


class Call:
    """One outermost ``generate`` under way."""

    def __init__(self, settings: Settings, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        placement = placement_of(model)
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.prompt: Prompt | None = None
        self.ends: RowEnds | None = None
        self.is_prefilling = True
        self.synchronise_ns = 0
        self.cuda = placement.cuda if settings.synchronise else ()
        if self.cuda:
            # What the start waits for is earlier work, and no cost of this call's.
            self.synchronise()
            self.synchronise_ns = 0
        self.span = OpenSpan(settings.sink, model_name=name_for(settings, model), device_uuids=placement.device_uuids)

    @classmethod
    def begin(cls, *arguments: Any) -> Call | None:
        """The call, begun; ``None`` when it cannot be measured."""
        try:
            return cls(*arguments)
        except Exception as error:
            say_once(error)
            return None

    def see_prompt(self, model: Any, prepared: Mapping[str, Any]) -> None:
        """Keep what generate decided about the prompt, unless it is an assistant's."""
        try:
            config = prepared["generation_config"]
            if not config.is_assistant:
                criteria = self.args[3] if len(self.args) > 3 else self.kwargs.get("stopping_criteria")
                self.prompt = Prompt.prepared(
                    model,
                    prepared["encoder_input_ids"],
                    prepared["input_ids_seq_length"],
                    config,
                    prepared["model_kwargs"],
                    stops_rows=bool(criteria),
                )
        except Exception as error:
            say_once(error)

    def see_first_token(self) -> None:
        """The prompt is through the model; later calls change nothing."""
        if self.is_prefilling:
            self.is_prefilling = False
            try:
                self.synchronise()
                self.span.first_token()
            except Exception as error:
                say_once(error)

    def finish(self, result: Any) -> None:
        """End the span, then count; the counting is no part of it."""
        try:
            self.synchronise()
            end_ns = time.monotonic_ns()
            prompt = self.prompt or Prompt.of_call(self.model, self.args, self.kwargs)
            span, read, written = self.span, prompt.input_tokens(), prompt.output_tokens(result, self.ends)
            span.input_tokens, span.output_tokens, span.batch_size = read or 0, written or 0, prompt.rows
            if read is None or written is None:
                counts = {"input_tokens": read, "output_tokens": written}
                span.attributes["unknown"] = ",".join(name for name, count in counts.items() if count is None)
            if self.cuda:
                span.attributes["synchronise_s"] = f"{self.synchronise_ns / 1e9:.6f}"
            span.finish(end_ns)
        except Exception as error:
            self.span.cancel()
            say_once(error)

    def synchronise(self) -> None:
        """Wait until the model's GPUs have done what they were given, and keep what the waiting took."""
        if self.cuda:
            before_ns = time.monotonic_ns()
            for device in self.cuda:
                torch.cuda.synchronize(device)
            self.synchronise_ns += time.monotonic_ns() - before_ns


_current: ContextVar[Call | None] = ContextVar("llmpower_generate", default=None)
