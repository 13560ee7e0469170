"""What each span asks of a device in each piece of its time: the weights by which the piece's energy is shared.

Nobody can measure the share of one among several; it is allocated by a rule, and the rule has to know what the joules
are spent on. A device that serves language models takes turns at two kinds of step. A step of prompts computes: so much
a token, and so much a token and token before it (attention). A step of decoding moves memory: the weights, read once
for all sequences in the step; what each sequence costs by itself; and its cache, so much a token of context. What the
device draws whatever it does belongs to the time that all of these take, and so to them. A piece costs

    prompt·Σ τ_i + attention·Σ τ_i·c_i + step·Σ k_i/N + decode·Σ δ_i + context·Σ δ_i·C_i

τ_i and δ_i are span i's prompt tokens and decoded tokens in the piece, c_i and C_i the contexts that they look back on,
k_i the steps that decoded δ_i (one for each token of each of its sequences), N the sequences that decode at the same
time, so that Σ k_i/N counts the steps. One more step is every prompt's own. The coefficients are the model's on this
device, found out from the device itself (:mod:`~llmpower.attribution.shares.costs`).

What is fair is the Shapley value of this cost: what a span adds, averaged over all orders in which those present could
have come (L. S. Shapley, "A value for n-person games", 1953). The value of a sum of costs is the sum of their values.
What only i causes is i's; what is the same however many take part is shared equally by those who do, as the airport
game has it for equal demands (S. C. Littlechild and G. Owen, "A simple expression for the Shapley value in a special
case", Management Science 20, 1973): each of N sequences pays step/N of a step. So i's demand is the sum's part with i
in it. The players are sequences, and a span of a batch is as many of them as it has: whether a batch decodes as one
span or as many changes nobody's share. The piece's energy is divided in proportion to the demands, so it is conserved
whatever the coefficients, and what they do not explain follows what they do.

When a sequence decodes is found out by :mod:`~llmpower.attribution.shares.pace`. Where the moment of the first token is
unknown, prompt and decoded tokens are both spread over the whole span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.course import Course, present
from llmpower.attribution.entry import Entry
from llmpower.attribution.shares.pace import Decoding, find_pace
from llmpower.types import Span

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

FEATURES = ("prompt", "attention", "step", "decode", "context")
"""What a model's coefficients are of, in their order."""


BASIS = 4
"""Functions of time that demands are sums of: 1, pace, pace·time and pace/N."""

PRESENCE = 1e-3
"""What a sequence asks for being there, of the device's mean power: little beside any work, and equal shares where none
asks for anything else."""

LEAST_S = 1e-6
"""Prompts take at least so long."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The parts of spans by phase, two a span (prompt, rest), in order of span and then of time.

    Segment g lies in pieces ``first[g]`` to ``end[g]`` - 1. There it does of feature k what the scalar product of
    ``parts[g, k]`` and the piece's row of the model's basis says. ``sequences`` are those of its span.
    """

    first: Integers
    end: Integers
    model: Integers
    sequences: Floats
    parts: Floats


class Work:
    """What runs between the cuts, before it has a price.

    Args:
        spans: those that run.
        entries: theirs; what of its decoding a span has behind it is kept there.
        where: they lie.
        cuts_ns: ascending, shape (pieces + 1,).
        models: the number of each span's model, shape (spans,).
    """

    def __init__(
        self, spans: Sequence[Span], entries: Sequence[Entry], where: Course, cuts_ns: Sequence[int], models: Integers
    ) -> None:
        cuts = np.array(cuts_ns, np.int64)
        start_ns = np.array([span.start_ns for span in spans], np.int64)
        first_ns = np.array([s.start_ns if s.first_token_ns is None else s.first_token_ns for s in spans], np.int64)
        end_ns = np.array([span.end_ns for span in spans], np.int64)
        inputs = np.array([span.input_tokens for span in spans], float)
        outputs = np.array([span.output_tokens for span in spans], float)
        decoded = np.array([entry.decoded for entry in entries], float)
        self.sequences = np.array([max(span.batch_size, 1) for span in spans], float)
        self.first, self.token, self.end = where.first, np.clip(where.token, where.first, where.end), where.end
        self.model, self.models = models, int(models.max(initial=-1)) + 1
        self.pieces, self.durations_s, self.running = len(cuts_ns) - 1, np.diff(cuts) / 1e9, where.running

        split = first_ns > start_ns
        prompt_s = np.maximum(np.where(split, first_ns, end_ns) - start_ns, 1e9 * LEAST_S) / 1e9
        self.prompt_rate = np.where(split, inputs, 0.0) / prompt_s
        self.unsplit_rate = np.where(split, 0.0, inputs) / prompt_s
        self.pairs = inputs / (2 * self.sequences)  # tokens before it that a prompt's token looks back on
        self.step_rate = np.where(split, 1 / prompt_s, 0.0)
        self.prompting = self._present(np.where(split, self.sequences, 0.0), ahead=True)
        self.decoding = np.array(
            [self._present(np.where(models == number, self.sequences, 0.0)) for number in range(self.models)]
        ).reshape(self.models, self.pieces)

        # The prompt's own step decodes the first token.
        steps = np.maximum(outputs / self.sequences - split, 0.0)
        later_s = np.maximum(end_ns - cuts[-1], 0) / 1e9
        ahead = Decoding(models, self.token, self.end, later_s, self.sequences, steps * (1 - decoded))
        self.pace, self.rate, done, paced_s = find_pace(ahead, self.durations_s, self.prompting, self.models)
        self.decoded = decoded + (1 - decoded) * done
        """The part of its decoding that each span has behind it at the last cut."""
        self.context = inputs / self.sequences + steps * decoded - self.rate * paced_s[models, self.token]
        self.middle_s = (paced_s[:, :-1] + paced_s[:, 1:]) / 2

        columns = [self._features(number) for number in range(self.models)]
        self.done: Floats = np.concatenate(columns, axis=1) if columns else np.zeros((self.pieces, 0))
        """What is done in each piece a second: the features of each model, shape (pieces, 5·models)."""

    def basis(self) -> Floats:
        """The functions of time that every demand is a sum of: shape (models, pieces, 4)."""
        alone = self.pace / np.maximum(self.decoding, 1.0)
        return np.stack((np.ones_like(self.pace), self.pace, self.pace * self.middle_s, alone), axis=2)

    def segments(self) -> Segments:
        """The spans' parts by phase."""
        tokens = self.sequences * self.rate
        parts = np.zeros((len(tokens), 2, len(FEATURES), BASIS))
        for phase, rate in enumerate((self.prompt_rate, self.unsplit_rate)):
            parts[:, phase, 0, 0] = rate
            parts[:, phase, 1, 0] = rate * self.pairs
        parts[:, 0, 2, 0] = self.step_rate
        parts[:, 1, 2, 3] = tokens
        parts[:, 1, 3, 1] = tokens
        parts[:, 1, 4, 1] = tokens * self.context
        parts[:, 1, 4, 2] = tokens * self.rate
        first, end = np.stack((self.first, self.token), 1).ravel(), np.stack((self.token, self.end), 1).ravel()
        model, sequences = np.repeat(self.model, 2), np.repeat(self.sequences, 2)
        return Segments(first, end, model, sequences, parts.reshape(-1, len(FEATURES), BASIS))

    def _features(self, number: int) -> Floats:
        """What all spans of a model do in each piece, a second: shape (pieces, 5)."""
        mine = self.model == number
        prompt, unsplit, tokens = (
            np.where(mine, each, 0.0) for each in (self.prompt_rate, self.unsplit_rate, self.sequences * self.rate)
        )
        decode = self.pace[number] * self._present(tokens)
        steps = decode / np.maximum(self.decoding[number], 1.0)
        known, grown = self._present(tokens * self.context), self._present(tokens * self.rate)
        columns = (
            self._present(prompt, ahead=True) + self._present(unsplit),
            self._present(prompt * self.pairs, ahead=True) + self._present(unsplit * self.pairs),
            self._present(np.where(mine, self.step_rate, 0.0), ahead=True) + steps,
            decode,
            self.pace[number] * (known + grown * self.middle_s[number]),
        )
        return np.stack(columns, axis=1)

    def _present(self, values: Floats, *, ahead: bool = False) -> Floats:
        """Σ in each piece over the spans whose prompt runs (``ahead``), or which are behind it."""
        first, end = (self.first, self.token) if ahead else (self.token, self.end)
        return present(values, first, end, self.pieces)
