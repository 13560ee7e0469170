"""One trial: a ``generate`` call of exactly τin tokens in and τout out, whose span goes to the daemon.

The paper's runs asked for lengths and got others: prompts were text, and outputs stopped early. Here the prompt is
random token ids, none of them special, and the output may neither stop before τout nor pass it. Decoding is greedy;
random prompts cost what real ones do, as far as the model does not route by content. With ``use_cache`` off every
decode step reads its whole context again, as in the paper's measurements.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch
from transformers import GenerationConfig

from llmpower.exceptions import LlmpowerError
from llmpower.profiling.grid import Cell
from llmpower.profiling.keeping import Keeper
from llmpower.profiling.readings import Joules, as_joules
from llmpower.profiling.workload import CellTooLargeError
from llmpower.spans import SpanClient, instrument, uninstrument, unmeasured
from llmpower.spans.context import WAIT_S
from llmpower.types import Span

_WARM_UP_TOKENS = 2


class Generation:
    """A model under measurement; instrumented as long as the context lasts.

    Args:
        model: a causal language model of transformers.
        client: to the daemon.
        model_name: what the spans are called.
        use_cache: keep keys and values of earlier tokens.
        pause_s: rest before each trial, in seconds: a span with idle time on both sides is measured best.
        seed: of the prompts.
    """

    patience_s = WAIT_S

    def __init__(
        self,
        model: Any,
        client: SpanClient,
        *,
        model_name: str,
        use_cache: bool = True,
        pause_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._model = model
        self._sink = Keeper(client)
        self._model_name = model_name
        self._use_cache = use_cache
        self._pause_s = pause_s
        # A generator of its own leaves the global one, which sampling would use, as it is.
        self._random = torch.Generator().manual_seed(seed)
        self._ids = ordinary_ids(model)

    def __enter__(self) -> Self:
        instrument(self._model, client=self._sink, model_name=self._model_name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        uninstrument(self._model)

    def warm_up(self, cell: Cell) -> None:
        """Read a prompt of the cell's shape and decode a little, unmeasured."""
        with unmeasured():
            self._generate(cell.input_tokens, min(cell.output_tokens, _WARM_UP_TOKENS), cell.batch_size)

    def probe(self, cell: Cell) -> float:
        """Run the cell once, unmeasured; seconds that it took."""
        started_s = time.monotonic()
        with unmeasured():
            self._generate(cell.input_tokens, cell.output_tokens, cell.batch_size)
        return time.monotonic() - started_s

    def joules(self, span: Span, wait_s: float) -> Joules | None:
        """What the daemon has measured of the span; ``None`` where it does not say by then."""
        return as_joules(self._sink.measurement(span, wait_s))

    def joules_of(self, span_id: str) -> Joules | None:
        """The same of a trial of an earlier run, as long as the daemon keeps it."""
        return as_joules(self._sink.measurement_of(span_id))

    def measure(self, cell: Cell) -> Span:
        """Run one trial.

        Raises:
            CellTooLargeError: the GPU has not memory enough.
            DaemonUnreachableError: the daemon went away, or does not keep up.
            LlmpowerError: the model did not generate the length asked for.
        """
        time.sleep(self._pause_s)
        span = self._sink.span_of(cell, lambda: self._generate(cell.input_tokens, cell.output_tokens, cell.batch_size))
        found = (span.input_tokens, span.output_tokens)
        if found != (cell.input_tokens * cell.batch_size, cell.output_tokens * cell.batch_size):
            raise LlmpowerError(f"the trial {cell} came out as {found[0]} tokens in and {found[1]} out of the batch")
        return span

    def _generate(self, input_tokens: int, output_tokens: int, batch_size: int) -> None:
        chosen = torch.randint(len(self._ids), (batch_size, input_tokens), generator=self._random)
        prompt = self._ids[chosen].to(self._model.device)
        config = GenerationConfig(  # type: ignore[no-untyped-call] # transformers leaves it untyped
            min_new_tokens=output_tokens,
            max_new_tokens=output_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=self._use_cache,
            # Nothing is ever padded; naming one keeps transformers from warning about it.
            pad_token_id=int(self._ids[0]),
        )
        try:
            self._model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise CellTooLargeError("out of GPU memory") from error


def ordinary_ids(model: Any) -> torch.Tensor:
    """The ids of the vocabulary that its configuration gives no special meaning, ascending, shape (n,)."""
    config = model.config.get_text_config()
    size = min(config.vocab_size, model.get_input_embeddings().num_embeddings)
    special = set(_special_ids(model.config.to_dict())) | set(_special_ids(model.generation_config.to_dict()))
    return torch.tensor([token for token in range(size) if token not in special])


def _special_ids(settings: dict[Any, Any]) -> Iterator[int]:
    """Every number under a key such as ``eos_token_id`` or ``image_token_index``, nested ones too."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _special_ids(value)
        elif str(key).endswith(("_token_id", "_token_index")):
            yield from (token for token in (value if isinstance(value, list) else [value]) if isinstance(token, int))
