"""A program that generates with a model until it is ended; it knows nothing of llmpower.

Usage: generate.py DIRECTORY TOKENS
"""

from __future__ import annotations

import itertools
import sys

import torch
from transformers import LlamaForCausalLM

torch.set_num_threads(1)
model = LlamaForCausalLM.from_pretrained(sys.argv[1]).eval()
tokens = int(sys.argv[2])
for number in itertools.count():
    prompt = torch.randint(3, 128, (1, 16 + number % 64))
    model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
