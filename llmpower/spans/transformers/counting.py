"""How many tokens went into one ``generate`` call of transformers, and how many came out.

Padding is not work that anyone asked for, so it is counted on neither side. What is padding depends on settings that
``generate`` merges from five places (arguments, the call's and the model's generation config, the inputs' type, the
decoding mode). Instead of merging them a second time, :meth:`Prompt.prepared` reads what ``generate`` itself had
decided before it began to decode: the mask (``None`` when it found no padding), the end-of-sequence ids, and how
often it copied each row. :meth:`Prompt.of_call` is for a ``generate`` of a model's own, which decides differently, and
goes by the arguments alone.

Everything here is counted over the sequences that the caller passed and got back. Beams that were searched and
discarded cost energy and delivered nothing: they are in the joules and not in the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import StoppingCriteriaList

_FEW = 256
"""Up to this many values are faster read and counted one by one than by one torch operation on all of them."""


@dataclass(slots=True)
class Prompt:
    """What a call was given: enough to count it once it is over. Tensors are kept, not read, while it runs.

    Args:
        rows: sequences that the caller passed.
        copies: how often each row was repeated before decoding (beams, sampled sequences).
        columns: tokens of each row that the result repeats before the new ones.
        mask: 1 for a token and 0 for padding, (rows·copies, tokens); ``None`` when nothing was padded.
        width: tokens per row when ``mask`` is ``None``; ``None`` when the input was not made of tokens.
        eos: ids that end a sequence, empty when none does.
        pad: the id that fills a row after its end.
        stops_rows: whether a row can end before the others without an end-of-sequence id.
        has_beams: whether rows change places while they grow.
    """

    rows: int
    copies: int
    columns: int
    mask: Tensor | None
    width: int | None
    eos: tuple[int, ...]
    pad: int | None
    stops_rows: bool
    has_beams: bool = False

    @classmethod
    def prepared(
        cls,
        model: Any,
        inputs: Tensor,
        columns: int,
        config: Any,
        model_kwargs: Mapping[str, Any],
        *,
        stops_rows: bool,
    ) -> Prompt:
        """Read it off what ``generate`` has decided before it decodes.

        Args:
            model: the one that generates.
            inputs: its main input, one row per sequence: ids, embeddings, or what an encoder reads.
            columns: tokens of each row that the result repeats.
            config: the generation config with everything merged into it.
            model_kwargs: what the forward pass gets, each row copied as often as it will be.
            stops_rows: whether the caller has stopping criteria of his own.
        """
        width: int | None = getattr(config, "_mask_length", 0) or inputs.shape[1]
        mask = model_kwargs.get("attention_mask")
        has_encoder = "encoder_outputs" in model_kwargs and model.config.is_encoder_decoder
        if has_encoder and _encoder_input(model) != "input_ids":
            # Frames of sound or patches of an image, which are not tokens; the mask, if any, counts those.
            mask, width = None, None
        return cls(
            rows=inputs.shape[0],
            copies=max(config.num_beams or 1, config.num_return_sequences or 1),
            columns=columns,
            mask=mask if mask is not None and mask.ndim == 2 else None,
            width=width,
            eos=_ids(config.eos_token_id),
            pad=config.pad_token_id,
            stops_rows=stops_rows or bool(config.stop_strings),
            has_beams=(config.num_beams or 1) > 1,
        )

    @classmethod
    def of_call(cls, model: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Prompt:
        """Infer it from what the caller passed to ``generate``; what the arguments do not tell stays unknown."""
        named = (keywords.get(name) for name in ("inputs", "input_ids", "inputs_embeds"))
        ids: Any = next((given for given in (*arguments[:1], *named) if given is not None), None)
        is_tokens = getattr(ids, "ndim", 0) == 2 and not ids.is_floating_point()
        is_encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        config = keywords.get("generation_config") or getattr(model, "generation_config", None)
        mask = keywords.get("attention_mask")
        return cls(
            rows=ids.shape[0] if hasattr(ids, "shape") and len(ids.shape) else 1,
            copies=1,
            columns=1 if is_encoder_decoder else ids.shape[1] if is_tokens else 0,
            mask=mask if is_tokens and getattr(mask, "ndim", 0) == 2 else None,
            width=ids.shape[1] if is_tokens else None,
            eos=_ids(keywords.get("eos_token_id", getattr(config, "eos_token_id", None))),
            pad=None,
            stops_rows=False,
        )

    def input_tokens(self) -> int | None:
        """Tokens of all rows, without padding; ``None`` when the input was not made of tokens."""
        if self.mask is not None:
            return _nonzero(self.mask) // self.copies
        return None if self.width is None else self.rows * self.width

    @property
    def ends_are_hidden(self) -> bool:
        """Whether the result alone may not tell where a row ended, and :class:`RowEnds` would see it."""
        return self.stops_rows and self.rows * self.copies > 1 and not self.has_beams

    def output_tokens(self, result: Any, ends: RowEnds | None = None) -> int | None:
        """New tokens of all returned rows; ``None`` when the result holds none (sound, a custom loop's own type).

        A row ends with its first end-of-sequence id, which counts: it was computed. A row that something else ended
        (a stop string) ends where ``ends`` has seen it. Beams cannot be seen so: such a one is cut at its trailing
        padding, which an id that also ends sequences cannot be told from.
        """
        sequences = getattr(result, "sequences", result)
        if getattr(sequences, "ndim", 0) != 2 or sequences.is_floating_point():
            return None
        if ends is not None and ends.lengths is not None and len(ends.lengths) == len(sequences):
            return int(ends.lengths.sum())
        first = self.columns
        if not self.eos:
            return len(sequences) * max(int(sequences.shape[1]) - first, 0)
        # A dozen operations on tensors would cost a short call more than all else that measuring it does. To cut a
        # short prompt off is one more.
        if first > _FEW:
            sequences, first = sequences[:, first:], 0
        return sum([self._row_tokens(row[first:]) for row in sequences.tolist()])

    def _row_tokens(self, row: list[int]) -> int:
        """How many of a row's new tokens are no filling."""
        length = len(row)
        for end in self.eos:
            if end in row:
                length = min(length, row.index(end) + 1)
        if self.stops_rows and self.pad is not None and self.pad not in self.eos:
            while length and row[length - 1] == self.pad:
                length -= 1
        return length


class RowEnds(StoppingCriteriaList):
    """The same criteria, which remember how many tokens each row had when they ended it."""

    def __init__(self, criteria: StoppingCriteriaList) -> None:
        super().__init__(criteria)
        self.lengths: Tensor | None = None
        self._running: Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """Ask each criterion; True for the rows that end here."""
        done = super().__call__(input_ids, scores, **kwargs)
        if self._running is None or self.lengths is None:
            self._running = ~done
            self.lengths = done.new_ones(done.shape, dtype=input_ids.dtype)
        else:
            self.lengths += self._running
            self._running &= ~done
        return done


def _encoder_input(model: Any) -> str:
    """The name of the encoder's input, found as ``GenerationMixin._prepare_model_inputs`` finds it."""
    return str(getattr(getattr(model, "encoder", model), "main_input_name", "input_ids"))


def _nonzero(mask: Tensor) -> int:
    """How many of the mask's values are not 0."""
    if mask.numel() > _FEW:
        return int(mask.count_nonzero())
    return sum([len(row) - row.count(0) for row in mask.tolist()])


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
