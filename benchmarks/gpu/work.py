"""What keeps the card busy: bursts of matrix products, and a Llama with random weights.

Without CUDA the same calls drive nothing but time: the simulated card follows a script of its own, and the model is a
small one on the CPU.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from llmpower.profiling.samples import TINY, random_llama

SIZES: Mapping[str, Mapping[str, int]] = {
    "tiny": TINY,
    **{
        name: {
            "vocab_size": 32000,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": 2048,
        }
        for name, hidden, intermediate, layers, heads in (
            ("1b", 2048, 5632, 22, 32),
            ("3b", 3072, 8192, 28, 24),
            ("7b", 4096, 11008, 32, 32),
        )
    },
}
"""As :func:`~llmpower.profiling.samples.random_llama` takes them."""


class Bursts:
    """Matrix products on the GPU, on and off for random times, for as long as the context lasts."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if not self._cuda:
            return
        import torch

        chance = random.Random(1)
        matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
        while not self._ended.is_set():
            until_s = time.monotonic() + chance.uniform(0.2, 0.8)
            while time.monotonic() < until_s and not self._ended.is_set():
                matrix @ matrix
                torch.cuda.synchronize()
            self._ended.wait(chance.uniform(0.1, 0.5))


def make_unit(seconds: float, cuda: bool) -> Callable[[], None]:
    """Matrix products that take about so long, always the same number of them, and are done when the call returns."""
    if not cuda:
        return lambda: time.sleep(seconds)
    import torch

    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    product = torch.empty_like(matrix)

    def multiply(times: int) -> None:
        for _ in range(times):
            torch.mm(matrix, matrix, out=product)
        torch.cuda.synchronize()

    multiply(100)
    began_s = time.monotonic()
    multiply(200)
    times = max(1, round(seconds * 200 / (time.monotonic() - began_s)))
    return lambda: multiply(times)


def make_llama(size: str, cuda: bool) -> Any:
    """A Llama of that size with random weights: what it says is nonsense, what it costs is not."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)
    try:
        with torch.device("cuda" if cuda else "cpu"):
            return random_llama(SIZES[size])
    finally:
        torch.set_default_dtype(before)


def generate(model: Any, batch_size: int, input_tokens: int, output_tokens: int) -> None:
    """One greedy call of exactly this many tokens."""
    import torch

    ids = torch.randint(10, model.config.vocab_size, (batch_size, input_tokens), device=model.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=output_tokens,
        max_new_tokens=output_tokens,
        do_sample=False,
        pad_token_id=0,
    )
