"""Threads, tasks and processes, interruptions and re-entrance: programs as they come."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted import Raise, prompt, tiny_bart
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor
from transformers.generation.utils import GenerationMixin

from llmpower.spans import SpanClient, instrument, span, uninstrument
from llmpower.spans.wire import Cancel


def exactly(count: int, **settings: Any) -> dict[str, Any]:
    return {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, **settings}


def test_several_models_at_once_keep_their_names_and_counts(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    other = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_diff_dict() | {"num_hidden_layers": 1})).eval()
    models = {"one": tiny_llama, "two": other, "three": tiny_bart()}
    for name, model in models.items():
        model.config._name_or_path = f"org/{name}"
    instrument(client=client)
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(model.generate, prompt(1, 5 + number) % 64, **exactly(3 + number))
            for number in range(4)
            for model in models.values()
        ]
        for job in jobs:
            job.result()
    counts = {(one.model_name, one.input_tokens, one.output_tokens) for one in receiver.wait_for_spans(12)}
    assert counts == {(f"org/{name}", 5 + number, 3 + number) for number in range(4) for name in models}
    assert all(one.start_ns < one.first_token_ns < one.end_ns for one in receiver.spans)


def test_tasks_of_an_event_loop(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    async def ask(length: int) -> None:
        await asyncio.to_thread(tiny_llama.generate, prompt(1, length), **exactly(length))

    async def within(length: int) -> None:
        with span(model_name="by hand", client=client):
            await ask(length)

    async def everything() -> None:
        await asyncio.gather(ask(3), within(4), ask(5))
        tiny_llama.generate(prompt(1, 6), **exactly(6))

    instrument(client=client)
    asyncio.run(everything())
    found = [(one.model_name, one.output_tokens) for one in receiver.wait_for_spans(4)]
    assert sorted(found) == [("LlamaForCausalLM", count) for count in (3, 5, 6)] + [("by hand", 0)]


def generate_in_child(directory: Path, socket: Path, length: int) -> None:
    """What a spawned process runs."""
    client = SpanClient(socket)
    instrument(client=client)
    LlamaForCausalLM.from_pretrained(directory).eval().generate(prompt(1, length), **exactly(length))
    client.close()


def test_a_process_that_is_spawned_and_instruments_itself(
    tiny_llama_directory: Path, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child imports this file, and needs what it imports.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_programs as importable

    child = multiprocessing.get_context("spawn").Process(
        target=importable.generate_in_child, args=(tiny_llama_directory, receiver.path, 5)
    )
    child.start()
    child.join(120)
    assert child.exitcode == 0
    (one,) = receiver.wait_for_spans(1)
    assert (one.model_name, one.input_tokens, one.output_tokens, one.pid) == ("tiny-llama", 5, 5, child.pid)


def test_processes_that_are_forked_report_for_themselves(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    def generate() -> None:
        torch.set_num_threads(1)  # OpenMP's threads are not in the child
        tiny_llama.generate(prompt(1, 4), **exactly(4))

    instrument(client=client)
    torch.set_num_threads(1)
    tiny_llama.generate(prompt(1, 4), **exactly(4))
    children = [multiprocessing.get_context("fork").Process(target=generate) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    pids = [one.pid for one in receiver.wait_for_spans(3)]
    assert pids[1:] != [pids[0]] * 2
    assert set(pids[1:]) == {child.pid for child in children}


class Interrupt(LogitsProcessor):
    """A person presses Ctrl-C while a token is chosen."""

    def __call__(self, _input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        signal.raise_signal(signal.SIGINT)
        return scores


def test_ctrl_c_in_the_middle_ends_the_call_and_withdraws_its_span(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    instrument(client=client)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            tiny_llama.generate(prompt(1, 4), logits_processor=[Interrupt()], **exactly(4))
    finally:
        signal.signal(signal.SIGINT, previous)
    begin, cancel = receiver.wait(2)
    assert cancel == Cancel(begin.span_id)
    tiny_llama.generate(prompt(1, 4), **exactly(4))
    assert receiver.wait_for_spans(1)[0].output_tokens == 4


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}])
@pytest.mark.parametrize("error", [RuntimeError("no memory"), SystemExit(3), GeneratorExit()], ids=repr)
def test_what_the_program_raises_is_what_it_gets(
    tiny_llama: Any, client: SpanClient, receiver: Any, settings: dict[str, Any], error: BaseException
) -> None:
    instrument(client=client)
    with pytest.raises(type(error)) as caught:
        tiny_llama.generate(prompt(1, 4), logits_processor=[Raise(error, after=2)], **exactly(6, **settings))
    assert caught.value is error
    begin, cancel = receiver.wait(2)
    assert cancel == Cancel(begin.span_id)


class Nested(LogitsProcessor):
    """Asks the same model, and another one, while a token is chosen."""

    def __init__(self, *models: Any) -> None:
        self.models = models

    def __call__(self, _input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        for model in self.models:
            model.generate(prompt(1, 3), **exactly(2))
        return scores


def test_a_call_inside_a_call_is_part_of_it(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    other = LlamaForCausalLM(tiny_llama.config).eval()
    instrument(client=client)
    instrument(other, client=client)
    tiny_llama.generate(prompt(1, 7), logits_processor=[Nested(tiny_llama, other)], **exactly(4))
    (one,) = receiver.wait_for_spans(1)
    assert (one.input_tokens, one.output_tokens) == (7, 4)
    assert len(receiver.messages) == 2
    uninstrument(other)  # or the library's hooks stay until the garbage collector comes by


class Instruments(LogitsProcessor):
    """Instruments, or takes it back, while a call is under way."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def __call__(self, _input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.steps:
            self.steps.pop(0)()
        return scores


def test_instrumenting_and_taking_it_back_in_the_middle_of_a_call(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    plain = dict(vars(GenerationMixin))
    steps = Instruments(uninstrument, lambda: instrument(client=client, model_name="later"), uninstrument)
    instrument(client=client, model_name="first")
    tiny_llama.generate(prompt(1, 7), logits_processor=[steps], **exactly(5))
    (one,) = receiver.wait_for_spans(1)
    assert (one.model_name, one.input_tokens, one.output_tokens) == ("first", 7, 5)
    assert dict(vars(GenerationMixin)) == plain
    tiny_llama.generate(prompt(1, 7), **exactly(2))
    assert len(receiver.messages) == 2


def test_a_method_that_was_kept_falls_silent_with_the_rest(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    instrument(tiny_llama, client=client)
    kept = tiny_llama.generate
    uninstrument(tiny_llama)
    uninstrument()
    kept(prompt(1, 7), **exactly(2))
    instrument(client=client)
    tiny_llama.generate(prompt(1, 7), **exactly(3))
    assert [one.output_tokens for one in receiver.wait_for_spans(1)] == [3]


def test_somebody_elses_wrapper_above_ours_stays_and_ours_falls_silent(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    plain = GenerationMixin.generate
    instrument(client=client)
    ours = GenerationMixin.generate

    def theirs(model: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(model, *args, **kwargs)

    GenerationMixin.generate = theirs
    try:
        tiny_llama.generate(prompt(1, 7), **exactly(2))
        assert receiver.wait_for_spans(1)[0].output_tokens == 2
        instrument(client=client, model_name="again")
        tiny_llama.generate(prompt(1, 7), **exactly(3))
        assert receiver.wait_for_spans(2)[1].model_name == "again"
        assert len(receiver.messages) == 4
    finally:
        uninstrument()
        GenerationMixin.generate = plain


def test_instrumenting_from_many_threads_at_once_wraps_once(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    gc.collect()  # models that other tests instrumented by themselves
    uninstrument()
    plain = dict(vars(GenerationMixin))
    threads = [threading.Thread(target=instrument, kwargs={"client": client}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tiny_llama.generate(prompt(1, 7), **exactly(2))
    receiver.wait_for_spans(1)
    uninstrument()
    assert dict(vars(GenerationMixin)) == plain
