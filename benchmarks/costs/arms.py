"""The same tiny Llama, called by an unmeasured program, by one that llmpower measures, and inside a Zeus window.

Every arm has a class of its own over the same weights, so that nothing is replaced between two calls: replacing a
method empties the caches in which Python keeps what it knows of a class, and the next call would pay for that. The
classes of unmeasured arms hold the library's own methods, taken before :func:`llmpower.instrument` replaced them where
all models inherit them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.generation.utils import GenerationMixin

from llmpower.profiling.samples import TINY, random_llama
from llmpower.spans import SpanClient, instrument

PLAIN, AGAIN, OURS, ZEUS = "plain", "plain again", "llmpower", "zeus"
PROMPT_TOKENS = 32
WATCHED = (
    "generate",
    "_get_logits_processor",
    "_get_stopping_criteria",
    "_prefill",
    "_update_model_kwargs_for_generation",
)


def tiny_llama() -> Any:
    """A model that ends at an id which it never chooses, so by its length alone."""
    model = random_llama({**TINY, "eos_token_id": 2, "pad_token_id": 0})
    with torch.no_grad():
        model.lm_head.weight[2] = 0.0
    model.generation_config.do_sample = False
    return model


def twin(model: Any, name: str, methods: Mapping[str, Any]) -> Any:
    """The same model, weights and all, with these methods."""
    other = object.__new__(type(name, (type(model),), dict(methods)))
    other.__dict__ = model.__dict__
    return other


class Arms:
    """Models by arm, and how each is called.

    Args:
        socket: the daemon's.
        peers: a folder of packages that has Zeus; ``None`` for no such arm.
    """

    def __init__(self, socket: Path, peers: Path | None) -> None:
        model = tiny_llama()
        self.ids = torch.randint(3, 128, (1, PROMPT_TOKENS))
        own = {name: vars(GenerationMixin)[name] for name in WATCHED}
        self._models = {arm: twin(model, "Unmeasured", own) for arm in (PLAIN, AGAIN)}
        self.client = SpanClient(socket)
        instrument(client=self.client, model_name="tiny")
        self._models[OURS] = twin(model, "Measured", {})
        assert all(vars(GenerationMixin)[name] is not own[name] for name in WATCHED), "a method is not watched"
        self.measured = self._models[OURS]
        if peers is not None:
            self._models[ZEUS] = twin(model, "Windowed", own)
            sys.path.append(str(peers))
            from zeus.monitor import ZeusMonitor

            self._monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])

    def calls(self, tokens: int) -> dict[str, Callable[[Any], Any]]:
        """A call of this many new tokens for each arm, to be given a logits processor."""
        return {arm: self._call(arm, model, tokens) for arm, model in self._models.items()}

    def check(self) -> None:
        """Make sure that each arm does what it is called by: all generate the same, and one of them is measured."""
        before = self.client.spooled
        results = {arm: call(lambda _input_ids, scores: scores) for arm, call in self.calls(64).items()}
        assert all(torch.equal(result, results[PLAIN]) for result in results.values())
        assert results[PLAIN].shape[1] == PROMPT_TOKENS + 64, "it has ended before its length did"
        assert self.client.spooled == before + 1, "one arm is measured, once a call"

    def _call(self, arm: str, model: Any, tokens: int) -> Callable[[Any], Any]:
        ids = self.ids

        def plain(processor: Any) -> Any:
            return model.generate(ids, max_new_tokens=tokens, logits_processor=LogitsProcessorList([processor]))

        def in_window(processor: Any) -> Any:
            self._monitor.begin_window("call", sync_execution=False)
            result = plain(processor)
            self._monitor.end_window("call", sync_execution=False)
            return result

        return in_window if arm == ZEUS else plain
