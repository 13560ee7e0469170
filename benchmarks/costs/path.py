"""What llmpower itself executes around and inside a call, timed without the call.

A ``generate`` that computes nothing calls what is watched, as often as the real one does, once through llmpower's
watchers and once not; the differences are begin, steps and finish. Before each the real model generates a little, so
that the processor has forgotten llmpower's code as it has when a request ends that took a while; without that, in a
loop, the same takes half as long, which no server sees and which is given as "in a loop".
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from costs.arms import PLAIN, PROMPT_TOKENS, Arms, twin
from costs.lockstep import median
from llmpower.spans.transformers import call as watching
from llmpower.spans.transformers.call import MeasuredGenerate
from llmpower.spans.transformers.observing import Settings

COOLING_TOKENS = 4
WARM_ROUNDS = 5


def measure_path(arms: Arms, tokens: int, seconds: float, shuffled: random.Random) -> dict[str, Any]:
    """Microseconds that each part takes, for a call of this many tokens."""
    bare, watched = _hollow(arms, tokens, watched=False), _hollow(arms, tokens, watched=True)
    generate = arms.calls(COOLING_TOKENS)[PLAIN]

    def cool() -> None:
        generate(lambda _input_ids, scores: scores)

    return {
        "tokens": tokens,
        "after_a_call": _parts(bare, watched, seconds * 0.8, shuffled, cool, tokens),
        "in_a_loop": _parts(bare, watched, seconds * 0.2, shuffled, lambda: None, tokens),
    }


def _parts(
    bare: Callable[[], list[int]],
    watched: Callable[[], list[int]],
    seconds: float,
    shuffled: random.Random,
    cool: Callable[[], Any],
    tokens: int,
) -> dict[str, Any]:
    moments: dict[Any, list[list[int]]] = {bare: [], watched: []}
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s or len(moments[bare]) < WARM_ROUNDS + 1:
        for arm in shuffled.sample([bare, watched], 2):
            cool()
            moments[arm].append(arm())
    took = {arm: np.diff(np.array(values[WARM_ROUNDS:]), axis=1) / 1e3 for arm, values in moments.items()}
    extra = took[watched] - took[bare]
    parts = {"begin_us": extra[:, 0], "steps_us": extra[:, 1], "finish_us": extra[:, 2], "all_us": extra.sum(axis=1)}
    parts["token_us"] = extra[:, 1] / tokens
    return {"calls": len(extra)} | {name: median(values).as_json() for name, values in parts.items()}


def _hollow(arms: Arms, tokens: int, *, watched: bool) -> Callable[[], list[int]]:
    """A call that gives four moments: before, at generate's own beginning and end, and after."""
    within: list[int] = []
    config = GenerationConfig(eos_token_id=2, pad_token_id=0)
    mask = torch.ones_like(arms.ids)
    result = torch.full((1, PROMPT_TOKENS + tokens), 5)
    prompt = {
        "generation_config": config,
        "input_ids_seq_length": PROMPT_TOKENS,
        "encoder_input_ids": arms.ids,
        "model_kwargs": {"attention_mask": mask},
    }

    def generate(model: Any, _ids: Any, **_settings: Any) -> Any:
        within.append(time.perf_counter_ns())
        model._get_logits_processor(**prompt)
        model._get_stopping_criteria()
        model._prefill(arms.ids, config, {}, is_first_iteration=True)
        for _ in range(tokens):
            model._update_model_kwargs_for_generation(None, {}, is_encoder_decoder=False)
        within.append(time.perf_counter_ns())
        return result

    def nothing(_model: Any, *_arguments: Any, **_settings: Any) -> None:
        return None

    methods: dict[str, Any] = dict.fromkeys(
        ("_get_logits_processor", "_get_stopping_criteria", "_prefill", "_update_model_kwargs_for_generation"), nothing
    ) | {"generate": generate}
    if watched:
        methods = {
            "generate": MeasuredGenerate(generate, Settings(arms.client, "tiny", synchronise=True)),
            "_get_logits_processor": watching.watch_prompt(nothing),
            "_get_stopping_criteria": watching.watch_ends(nothing),
            "_prefill": watching.watch_prefill(nothing),
            "_update_model_kwargs_for_generation": watching.watch_steps(nothing),
        }
    model = twin(arms.measured, "Hollow", methods)

    def call() -> list[int]:
        within.clear()
        before_ns = time.perf_counter_ns()
        model.generate(arms.ids, max_new_tokens=tokens)
        return [before_ns, *within, time.perf_counter_ns()]

    return call
