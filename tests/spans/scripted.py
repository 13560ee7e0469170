"""Models whose tokens are known beforehand, so that a test can count them by hand."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BartConfig, BartForConditionalGeneration, LogitsProcessor, PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
VOCABULARY = 128


class Script(LogitsProcessor):
    """Makes row i generate the i-th list of tokens."""

    def __init__(self, rows: list[list[int]], prompt: int) -> None:
        self.rows = torch.tensor(rows)
        self.prompt = prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        step = input_ids.shape[1] - self.prompt
        scripted = torch.full_like(scores, -100.0)
        return scripted.scatter(1, self.rows[:, step, None], 0.0)


class Raise(LogitsProcessor):
    """Lets a few tokens through, then raises."""

    def __init__(self, error: BaseException, after: int) -> None:
        self.error = error
        self.left = after

    def __call__(self, _input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return scores


def prompt(rows: int, columns: int) -> torch.Tensor:
    """Ids that are neither padding nor special."""
    return torch.randint(3, VOCABULARY, (rows, columns))


def tiny_bart() -> Any:
    """A random encoder with a decoder, whose sequences nothing ends but their length."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config).eval()


def word_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    """A token a word: ``w3`` is 3, and so on; its chat template writes nothing between messages."""
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, **{f"w{n}": n for n in range(3, VOCABULARY - 1)}}
    vocabulary["abcdef"] = VOCABULARY - 1  # what transformers looks for when it learns how tokens are joined
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "padding_side": "left"}
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens | settings)
    made.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    return made
