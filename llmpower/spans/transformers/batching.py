"""Every request of continuous batching as a span of its own.

A manager's thread works on many requests at once: ``generate_batch``, a manager that a program keeps
(``init_continuous_batching``), ``transformers serve --continuous-batching``. All end in one loop, which is watched at
the requests themselves:

- *start*: the request leaves the queue. Waiting costs no joules of its own; what it took is the attribute ``queue_s``.
- *first token*: the first token of it that is accepted, after the forward pass that computed it.
- *end*: it is finished, by the library's own stamp; one that failed or was cancelled is withdrawn.

Start and end are the library's stamps (``GenerationOutput.lifespan``), so the span says what the caller reads there.
A request that was thrown out of a full cache and started over keeps its first start. A request that was added while a
span was open belongs to that span, as a ``generate`` call would. Nothing is synchronised: the loop waits for the
device before it accepts a token. Requests overlap, so the daemon allocates their joules.

With several sequences to a prompt (``num_return_sequences``) the library forks requests; the prompt is counted once,
with the one that the caller added.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from llmpower.spans.context import OpenSpan, is_open
from llmpower.spans.packets import MAX_STRING_CHARS
from llmpower.spans.transformers.observing import Settings, say_once
from llmpower.spans.transformers.placement import devices_of, name_for, uuids_of

_SILENT = "_llmpower_silent"
_FINISHED, _FAILED = 3, 4
_CHILD = "__child#"


class Session:
    """The run of one manager's loop: its requests that are under way, by their ids."""

    def __init__(self, settings: Settings, model: Any) -> None:
        self._settings = settings
        self._model_name = name_for(settings, model)
        self._device_uuids = uuids_of(devices_of(model))
        self._clock_offset_ns = perf_counter_offset_ns()
        self._open: dict[str, OpenSpan | None] = {}

    def see_status(self, state: Any) -> None:
        """The request's status has changed; what it was before does not matter."""
        request_id = state.request_id
        if state.status < _FINISHED:
            if request_id not in self._open:
                self._open[request_id] = None if hasattr(state, _SILENT) else self._begin(state)
            return
        span = self._open.pop(request_id, None)
        if span is None:
            return
        if state.status == _FAILED:
            span.cancel()
            return
        # A request that was started over has what it had generated before in its prompt.
        given = state._true_initial_tokens or len(state.initial_tokens)
        span.input_tokens = 0 if _CHILD in request_id else given
        span.output_tokens = len(state.initial_tokens) - given + len(state.generated_tokens)
        span.finish(self._monotonic_ns(state.lifespan[1]))

    def see_token(self, request_id: str) -> None:
        """A token of the request has arrived."""
        span = self._open.get(request_id)
        if span is not None and span.first_token_ns is None:
            span.first_token()

    def withdraw(self, request_id: str) -> None:
        """Nobody waits for the request any longer."""
        span = self._open.pop(request_id, None)
        if span is not None:
            span.cancel()

    def close(self) -> None:
        """The loop has ended; what it has not finished never will be."""
        for request_id in list(self._open):
            self.withdraw(request_id)

    def _begin(self, state: Any) -> OpenSpan:
        span = OpenSpan(
            self._settings.sink,
            model_name=self._model_name,
            device_uuids=self._device_uuids,
            start_ns=self._monotonic_ns(state.lifespan[0]),
        )
        span.attributes["request_id"] = state.request_id[:MAX_STRING_CHARS]
        span.attributes["queue_s"] = f"{max(state.lifespan[0] - state.created_time, 0.0):.6f}"
        return span

    def _monotonic_ns(self, perf_counter_s: float) -> int:
        return round(perf_counter_s * 1e9) + self._clock_offset_ns


def perf_counter_offset_ns() -> int:
    """``time.monotonic`` less ``time.perf_counter``: 0 where both read the same clock, as on Linux, else measured."""
    clocks = [time.get_clock_info(name).implementation for name in ("monotonic", "perf_counter")]
    if clocks[0] == clocks[1]:
        return 0
    before_ns = time.monotonic_ns()
    perf_counter_ns = time.perf_counter_ns()
    return (before_ns + time.monotonic_ns()) // 2 - perf_counter_ns


_session: ContextVar[Session | None] = ContextVar("llmpower_batch", default=None)


def _tell(observe: Callable[..., None], *arguments: Any) -> None:
    try:
        observe(*arguments)
    except Exception as error:
        say_once(error)


def measured_loop(settings_of: Callable[[Any], Settings | None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``ContinuousBatchingManager._run_generation_loop``, the requests of which are spans.

    Args:
        settings_of: what a model's spans are to be like; ``None`` where it is not instrumented.
    """

    def begin(model: Any) -> Session | None:
        try:
            settings = settings_of(model)
            return None if settings is None else Session(settings, model)
        except Exception as error:
            say_once(error)
            return None

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def observed(manager: Any) -> Any:
            session = begin(manager.model)
            token = _session.set(session)
            try:
                return original(manager)
            finally:
                _session.reset(token)
                if session is not None:
                    _tell(session.close)

        return observed

    return wrap


def watch_creation(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RequestState.__post_init__``: a request that is added inside a span is part of that."""

    @functools.wraps(original)
    def observed(state: Any) -> None:
        original(state)
        if is_open():
            setattr(state, _SILENT, True)

    return observed


def watch_status(original: property) -> property:
    """``RequestState.status``, each change of which is seen."""
    change = original.fset
    assert change is not None

    def observed(state: Any, value: Any) -> None:
        change(state, value)
        session = _session.get()
        if session is not None:
            _tell(session.see_status, state)

    return property(original.fget, observed, original.fdel, original.__doc__)


def watch_tokens(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RequestState.update_and_check_completion``, which takes each token as it arrives."""

    @functools.wraps(original)
    def observed(state: Any, *args: Any, **kwargs: Any) -> Any:
        session = _session.get()
        if session is not None:
            session.see_token(state.request_id)
        return original(state, *args, **kwargs)

    return observed


def watch_fork(original: Callable[..., Any]) -> Callable[..., Any]:
    """``RequestState.fork``, by which a request begins that never was in the queue."""

    @functools.wraps(original)
    def observed(state: Any, *args: Any, **kwargs: Any) -> Any:
        child = original(state, *args, **kwargs)
        session = _session.get()
        if session is not None:
            _tell(session.see_status, child)
        return child

    return observed


def watch_cancellation(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Scheduler.clear_cancelled_requests``, which returns the requests that it took out."""

    @functools.wraps(original)
    def observed(scheduler: Any) -> Any:
        cancelled = original(scheduler)
        session = _session.get()
        if session is not None:
            for state in cancelled:
                _tell(session.withdraw, state.request_id)
        return cancelled

    return observed
