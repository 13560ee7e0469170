"""A span drawn by hand: around any code that runs a model, whatever library it uses.

::

    with llmpower.span(model_name="llama-2-7b", input_tokens=512) as call:
        for token in engine.stream(prompt):
            call.first_token()
            call.output_tokens += 1

One request is one span. The joules of two spans that overlap on a device are shared out between them, so a span that
is opened inside another would take half of its own request's energy away: while a span is open in this context,
instrumented calls below it stay silent (:func:`is_open`).
"""

from __future__ import annotations

import operator
import os
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from llmpower.spans.client import SpanSink, default_client
from llmpower.types import Span

_open: ContextVar[bool] = ContextVar("llmpower_span_open", default=False)


def is_open() -> bool:
    """Whether a span is open, or measuring is off, in this thread or task."""
    return _open.get()


@contextmanager
def unmeasured() -> Iterator[None]:
    """Keep instrumented calls in the block silent, such as those that only warm a model up."""
    token = _open.set(True)
    try:
        yield
    finally:
        try:
            _open.reset(token)
        except ValueError:
            # A generator that is resumed in another context (as web servers do) ends there: nothing is open in it.
            _open.set(False)


class OpenSpan:
    """A span under way. Counts may be set until it ends; they are those of the whole batch, without padding."""

    def __init__(
        self, client: SpanSink, *, model_name: str, input_tokens: int = 0, device_uuids: Sequence[str] | None = None
    ) -> None:
        self.span_id = uuid.uuid4().hex
        self.model_name = model_name
        self.device_uuids = None if device_uuids is None else tuple(device_uuids)
        self.input_tokens = input_tokens
        self.output_tokens = 0
        self.batch_size = 1
        self.attributes: dict[str, str] = {}
        self.first_token_ns: int | None = None
        self._client = client
        self._pid = os.getpid()
        self.start_ns = time.monotonic_ns()
        client.begin(self.span_id, self.start_ns)

    def first_token(self) -> None:
        """The first token is there now; later calls change nothing."""
        if self.first_token_ns is None:
            self.first_token_ns = time.monotonic_ns()

    def finish(self, end_ns: int | None = None) -> None:
        """Send the span, ended now or at ``end_ns``."""
        if end_ns is None:
            end_ns = time.monotonic_ns()
        if not self._is_ours():
            return
        span = Span(
            span_id=self.span_id,
            model_name=self.model_name,
            device_uuids=self.device_uuids,
            start_ns=self.start_ns,
            first_token_ns=self.first_token_ns,
            end_ns=end_ns,
            input_tokens=_plain(self.input_tokens),
            output_tokens=_plain(self.output_tokens),
            batch_size=_plain(self.batch_size),
            hostname=_hostname(),
            pid=self._pid,
            attributes=self.attributes,
        )
        self._client.finish(span)

    def cancel(self) -> None:
        """Withdraw the span: what it measured failed."""
        if self._is_ours():
            self._client.cancel(self.span_id)

    def _is_ours(self) -> bool:
        """A child forked inside the block leaves it too, and must not end its parent's span."""
        return os.getpid() == self._pid


@contextmanager
def span(
    *,
    model_name: str,
    input_tokens: int = 0,
    device_uuids: Sequence[str] | None = None,
    client: SpanSink | None = None,
) -> Iterator[OpenSpan]:
    """Measure the block as one span; it is sent when the block ends well and withdrawn when it raises.

    Work that a GPU still has queued at either end belongs to neither side: synchronise inside the block, before its
    first and after its last line, where the library does not.

    Args:
        model_name: the LLM's name, under which its measurements are fitted.
        input_tokens: prompt tokens of the whole batch, padding excluded; may be set later on the yielded object.
        device_uuids: the GPUs that it runs on (``GPU-…``), empty for none, ``None`` for not known.
        client: where the span goes; the process's own client by default.
    """
    with unmeasured():
        opened = OpenSpan(
            client or default_client(), model_name=model_name, input_tokens=input_tokens, device_uuids=device_uuids
        )
        try:
            yield opened
        except BaseException:
            opened.cancel()
            raise
        opened.finish()


def _plain(count: int) -> int:
    """A count as Python's own int, where it came as NumPy's or a tensor's; anything else is the wire's to refuse."""
    try:
        return int(operator.index(count))
    except TypeError:
        return count


@cache
def _hostname() -> str:
    return socket.gethostname()
