"""A program that generates with a small model until it is ended; it knows nothing of llmpower."""

from __future__ import annotations

import itertools
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
).eval()
for number in itertools.count():
    prompt = torch.randint(3, 128, (1, 16 + number % 64))
    model.generate(prompt, max_new_tokens=int(sys.argv[1]), min_new_tokens=int(sys.argv[1]), do_sample=False)
