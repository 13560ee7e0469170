"""What a campaign measures, and in which order.

A cell is one (τin, τout, batch size, concurrency). Trials go in rounds: each round gives every unfinished cell one
trial, in an order of its own drawn from the seed. A card that warms up, or a neighbour that comes and goes, then falls
on all cells alike, and a campaign that is broken off leaves every cell about equally well measured. The order of round
k depends on the seed and k alone, so a resumed campaign goes on as if it had never stopped.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmpower.exceptions import InputError


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One kind of query: ``input_tokens`` and ``output_tokens`` are those of each of its sequences.

    ``batch_size`` sequences go in one call, ``concurrency`` calls run at the same time.
    """

    input_tokens: int
    output_tokens: int
    batch_size: int = 1
    concurrency: int = 1

    @property
    def sequences(self) -> int:
        """How many run side by side."""
        return self.batch_size * self.concurrency

    def __str__(self) -> str:
        beside = "" if self.concurrency == 1 else f", {self.concurrency} at a time"
        return f"{self.input_tokens}×{self.output_tokens} batch {self.batch_size}{beside}"


def parse_lengths(option: str, text: str) -> tuple[int, ...]:
    """``"8,16,32"`` as written, ``"8..2048"`` by doubling; both may be mixed. Ascending, each once.

    Raises:
        InputError: a part is not a positive integer, or a range that doubling does not end exactly.
    """
    lengths: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _positive(option, text, first)
        high = _positive(option, text, last) if dots else low
        steps = (high // low).bit_length() - 1 if high >= low else 0
        if low << steps != high:
            advice = f"{low} doubled does not reach {high}; end at {low << steps} or {low << steps + 1}, or list them"
            raise InputError(option, text, advice)
        lengths.update(low << step for step in range(steps + 1))
    return tuple(sorted(lengths))


def make_grid(
    input_tokens: Iterable[int],
    output_tokens: Iterable[int],
    batch_sizes: Iterable[int] = (1,),
    concurrencies: Iterable[int] = (1,),
) -> tuple[Cell, ...]:
    """Every combination, once, in ascending order."""
    lengths = itertools.product(input_tokens, output_tokens, batch_sizes, concurrencies)
    return tuple(sorted(set(itertools.starmap(Cell, lengths))))


def next_cell(unfinished: Sequence[Cell], trials: Mapping[Cell, int], seed: int) -> Cell:
    """The cell whose turn it is: the first of the current round that has not had it.

    Args:
        unfinished: the cells that still want trials, at least one.
        trials: how many each cell has had.
        seed: of the campaign.
    """
    current = min(trials[cell] for cell in unfinished)
    waiting = sorted(cell for cell in unfinished if trials[cell] == current)
    return min(waiting, key=lambda cell: random.Random(f"{seed} {current} {cell}").random())


def _positive(option: str, text: str, word: str) -> int:
    digits = word.strip()
    # int() also takes "+8", "1_000" and other scripts' digits, which nobody means here.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
        raise InputError(option, text, "write positive numbers with commas (8,16,32) or a doubling range (8..2048)")
    return int(digits)
