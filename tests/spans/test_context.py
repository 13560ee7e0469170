from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmpower
from llmpower.spans import SpanClient, span
from llmpower.spans.context import is_open
from llmpower.spans.wire import Begin, Cancel


def test_a_block_becomes_a_span(client: SpanClient, receiver: Any) -> None:
    with llmpower.span(model_name="llama", input_tokens=12, device_uuids=["GPU-1"], client=client) as call:
        call.first_token()
        first = call.first_token_ns
        call.first_token()
        call.output_tokens += 7
        call.batch_size = np.int64(2)
        call.attributes["request"] = "r1"
    begin, sent = receiver.wait(2)
    assert begin == Begin(sent.span_id, sent.start_ns)
    assert sent.start_ns <= sent.first_token_ns == first <= sent.end_ns
    assert (sent.model_name, sent.input_tokens, sent.output_tokens, sent.batch_size) == ("llama", 12, 7, 2)
    assert (sent.device_uuids, sent.pid, sent.attributes) == (("GPU-1",), os.getpid(), {"request": "r1"})


def test_a_device_may_be_named_without_a_list(client: SpanClient, receiver: Any) -> None:
    with span(model_name="llama", device_uuids="GPU-1", client=client):
        pass
    assert receiver.wait(2)[1].device_uuids == ("GPU-1",)


def test_values_may_be_of_numpy_and_of_tables_with_gaps(client: SpanClient, receiver: Any) -> None:
    names: Any = np.array(["llama", "GPU-1"])
    with span(model_name=names[0], input_tokens=12.0, device_uuids=names[1:], client=client) as call:  # type: ignore[arg-type]
        call.output_tokens = np.float64(7.0)  # type: ignore[assignment]
    sent = receiver.wait(2)[1]
    assert (sent.model_name, sent.input_tokens, sent.device_uuids, sent.output_tokens) == ("llama", 12, ("GPU-1",), 7)


def test_an_exception_withdraws_the_span_and_goes_on(client: SpanClient, receiver: Any) -> None:
    with pytest.raises(KeyboardInterrupt), span(model_name="llama", client=client):
        raise KeyboardInterrupt
    begin, cancel = receiver.wait(2)
    assert cancel == Cancel(begin.span_id)
    assert not is_open()


class CollectingPath(type(Path())):  # type: ignore[misc] # the platform's own kind of path
    """A path at whose use the garbage collector happens to run."""

    def with_suffix(self, suffix: str) -> Any:
        gc.collect()
        return super().with_suffix(suffix)


def test_a_forgotten_generator_is_withdrawn_wherever_the_collector_runs(receiver: Any) -> None:
    client = SpanClient(CollectingPath(receiver.path), retry_after_s=0)

    def stream() -> Iterator[None]:
        with span(model_name="llama", client=client):
            yield

    def forget_one() -> None:
        stream_of_itself: list[Any] = [stream()]
        next(stream_of_itself[0])
        stream_of_itself.append(stream_of_itself)

    gc.collect()
    contextvars.copy_context().run(forget_one)
    thread = threading.Thread(target=client.begin, args=("b", 1), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    begun, *rest = receiver.wait(3)
    assert rest == [Cancel(begun.span_id), Begin("b", 1)]
    client.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("output_tokens", "many"), ("output_tokens", 1.5), ("attributes", None), ("attributes", "chat")],
)
def test_a_value_that_is_none_costs_the_span_and_not_the_program(
    client: SpanClient, receiver: Any, field: str, value: Any
) -> None:
    with span(model_name="llama", client=client) as call:
        setattr(call, field, value)
    begin, cancel = receiver.wait(2)
    assert cancel == Cancel(begin.span_id)


def test_a_span_is_open_in_its_own_thread_and_task_only(client: SpanClient) -> None:
    seen = []

    async def neighbour() -> None:
        seen.append(is_open())

    async def both() -> None:
        task = asyncio.create_task(neighbour())
        with span(model_name="llama", client=client):
            await task
            thread = threading.Thread(target=lambda: seen.append(is_open()))
            thread.start()
            thread.join()
            seen.append(is_open())

    asyncio.run(both())
    assert seen == [False, False, True]


def test_a_generator_resumed_in_other_contexts_ends_its_span(client: SpanClient, receiver: Any) -> None:
    def stream() -> Iterator[str]:
        with span(model_name="llama", client=client) as call:
            for token in ("a", "b"):
                call.output_tokens += 1
                yield token

    tokens = stream()
    seen = []
    for _ in range(3):
        contextvars.copy_context().run(lambda: seen.append(next(tokens, None)))
    assert seen == ["a", "b", None]
    assert receiver.wait_for_spans(1)[0].output_tokens == 2


def test_a_child_forked_in_the_block_does_not_end_its_parents_span(client: SpanClient, receiver: Any) -> None:
    with span(model_name="llama", client=client):
        child = os.fork()
        if child == 0:
            # The child leaves the block as the parent will.
            pass
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if child == 0:
        os._exit(client.sent - 1)
    begin, sent = receiver.wait(2)
    assert sent.span_id == begin.span_id
    assert len(receiver.messages) == 2
