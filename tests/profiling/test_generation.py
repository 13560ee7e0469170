from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmpower.exceptions import DaemonUnreachableError
from llmpower.profiling import Cell, CellTooLargeError, Generation, Joules
from llmpower.profiling.generation import ordinary_ids
from llmpower.spans import SpanClient, instrument, uninstrument
from llmpower.types import Measurement


@pytest.fixture
def client(receiver: Any) -> SpanClient:
    return SpanClient(receiver.path, retry_after_s=0)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_trial_has_exactly_the_lengths_asked_for(
    tiny_llama: Any, client: SpanClient, receiver: Any, use_cache: bool
) -> None:
    # A model that would end at once, and whose own settings would sample: neither may shorten a trial.
    tiny_llama.generation_config.eos_token_id = list(range(2, 120))
    tiny_llama.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    with Generation(tiny_llama, client, model_name="tiny", use_cache=use_cache) as generation:
        generation.warm_up(Cell(5, 4, 1))
        span = generation.measure(Cell(5, 9, 3))
    assert receiver.wait_for_spans(1) == [span]
    assert (span.model_name, span.input_tokens, span.output_tokens, span.batch_size) == ("tiny", 15, 27, 3)
    assert len(receiver.messages) == 2


def test_probes_are_timed_and_measured_by_nobody(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    with Generation(tiny_llama, client, model_name="tiny") as generation:
        assert generation.probe(Cell(4, 3, 1)) > 0
    assert receiver.messages == []


def test_the_joules_of_a_trial_are_what_the_daemon_has_measured(
    tiny_llama: Any, client: SpanClient, receiver: Any, make_measurement: Callable[..., Measurement]
) -> None:
    with Generation(tiny_llama, client, model_name="tiny") as generation:
        span = generation.measure(Cell(4, 2, 1))
        receiver.wait_for_spans(1)
        assert generation.joules(span, 0.0) is None
        receiver.measured = lambda _: make_measurement(cpu_energy_j=20.0, cpu_energy_std_j=0.0)
        assert generation.joules(span, 1.0) == Joules(120.0, 1.0)


def test_a_trial_is_one_span_when_the_whole_process_is_instrumented(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    instrument(client=client)
    try:
        with Generation(tiny_llama, client, model_name="tiny") as generation:
            generation.warm_up(Cell(4, 4, 1))
            generation.measure(Cell(4, 2, 1))
            generation.measure(Cell(4, 3, 1))
    finally:
        uninstrument()
    assert [span.output_tokens for span in receiver.wait_for_spans(2)] == [2, 3]
    assert len(receiver.messages) == 4


def test_without_the_cache_every_step_reads_its_whole_context(tiny_llama: Any, client: SpanClient) -> None:
    widths: list[int] = []
    tiny_llama.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for use_cache in (True, False):
        with Generation(tiny_llama, client, model_name="tiny", use_cache=use_cache) as generation:
            generation.measure(Cell(6, 3, 1))
    assert widths == [6, 1, 1, 6, 7, 8]


def test_prompts_follow_from_the_seed_and_leave_the_global_generator_alone(tiny_llama: Any, client: SpanClient) -> None:
    prompts: list[torch.Tensor] = []
    tiny_llama.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: prompts.append(kwargs["input_ids"]), with_kwargs=True
    )
    state = torch.get_rng_state()
    for seed in (1, 1, 2):
        with Generation(tiny_llama, client, model_name="tiny", seed=seed) as generation:
            generation.measure(Cell(12, 1, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(prompts[0], prompts[1])
    assert not torch.equal(prompts[0], prompts[2])


def test_special_ids_are_no_prompt(tiny_llama: Any) -> None:
    tiny_llama.config.image_token_id = 9
    tiny_llama.generation_config.eos_token_id = [2, 7]
    tiny_llama.generation_config.pad_token_id = 0
    assert ordinary_ids(tiny_llama).tolist() == [3, 4, 5, 6, 8, *range(10, 128)]


def test_a_daemon_that_went_away_ends_the_campaign(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    with Generation(tiny_llama, client, model_name="tiny") as generation:
        generation.measure(Cell(4, 2, 1))
        receiver.close()
        with pytest.raises(DaemonUnreachableError, match="--resume"):
            generation.measure(Cell(4, 2, 1))


def test_a_cell_that_does_not_fit_on_the_gpu_is_too_large(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    def allocate(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[1] > 8:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    tiny_llama.model.register_forward_pre_hook(allocate, with_kwargs=True)
    with Generation(tiny_llama, client, model_name="tiny") as generation:
        with pytest.raises(CellTooLargeError, match="GPU memory"):
            generation.measure(Cell(9, 2, 1))
        assert generation.measure(Cell(8, 2, 1)).output_tokens == 2
    assert len(receiver.wait_for_spans(1)) == 1


def test_the_model_is_left_as_it_was(tiny_llama: Any, client: SpanClient, tmp_path: Path) -> None:
    with Generation(tiny_llama, client, model_name="tiny") as generation:
        generation.measure(Cell(4, 2, 1))
    assert "generate" not in vars(tiny_llama)
    tiny_llama.save_pretrained(tmp_path)
