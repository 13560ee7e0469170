"""When sequences decode: how the steps of a span are spread over its time.

Of a span only the mean is known, so many steps in so much time. But the sequences of a batch step together, and they
stop together while a prompt runs: wherever spans that went slowly overlap, the device was slow. So there is one pace a
model, a function of time that all its spans share, and a span's steps are spread over its time in proportion to it.
The pace has to give every span its number of steps. It starts from what is known beforehand (little while prompts run)
and is multiplied in each piece by the mean, over the sequences present, of how many times too few steps it gave them:
the multiplicative form of algebraic reconstruction (R. Gordon, R. Bender and G. T. Herman, "Algebraic reconstruction
techniques", Journal of Theoretical Biology 29, 1970). Spans that do not step together have nothing in common to be
found, and keep about the pace that they started from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.course import present

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

BESIDE = 0.05
"""Pace while prompts run, to start from: they go first, or make a step that also decodes several times as long."""

TURNS = 4
"""Multiplications; more would follow the accidents of single spans."""

LEAST_S = 1e-6


class Decoding(NamedTuple):
    """Spans and what they decode between the cuts, each of shape (spans,).

    Span i of model ``model[i]`` decodes in pieces ``token[i]`` to ``end[i]`` - 1 of these, and for ``later_s[i]``
    behind the last cut, in ``sequences[i]`` sequences, ``steps[i]`` for each in all of that time.
    """

    model: Integers
    token: Integers
    end: Integers
    later_s: Floats
    sequences: Floats
    steps: Floats


class Pace(NamedTuple):
    """The pace of each model, shape (models, pieces); of each span its steps by paced second, and the part that is done
    before the last cut; and paced time at the cuts, shape (models, pieces + 1).
    """

    pace: Floats
    rate: Floats
    done: Floats
    paced_s: Floats


def find_pace(spans: Decoding, durations_s: Floats, prompting: Floats, models: int) -> Pace:
    """The pace that gives every span about its steps.

    Args:
        spans: with decoding that is still to come at the first cut.
        durations_s: of the pieces.
        prompting: sequences whose prompt runs in each piece.
        models: how many there are.
    """
    pieces = len(durations_s)
    pace = np.tile(np.where(prompting > 0.5, BESIDE, 1.0), (models, 1))
    weights = [np.where(spans.model == number, spans.sequences, 0.0) for number in range(models)]
    counts = [present(weight, spans.token, spans.end, pieces) for weight in weights]
    found = _spread(spans, pace, durations_s)
    for _ in range(TURNS):
        for number, (weight, count) in enumerate(zip(weights, counts, strict=True)):
            mean = present(weight * found.rate, spans.token, spans.end, pieces) / np.maximum(count, 0.5)
            pace[number] *= np.where((count > 0.5) & (mean > 0), mean, 1.0)
            pace[number] *= float(durations_s.sum()) / max(float(pace[number] @ durations_s), LEAST_S)
        found = _spread(spans, pace, durations_s)
    return found


def _spread(spans: Decoding, pace: Floats, durations_s: Floats) -> Pace:
    """Every span's steps over its paced time; behind the last cut its pace is taken to be its mean before it."""
    paced_s = np.zeros((len(pace), len(durations_s) + 1))
    np.cumsum(pace * durations_s, axis=1, out=paced_s[:, 1:])
    real_s = np.concatenate(([0.0], np.cumsum(durations_s)))
    now_s = real_s[spans.end] - real_s[spans.token]
    here_s = paced_s[spans.model, spans.end] - paced_s[spans.model, spans.token]
    mean = np.where(now_s > 0, here_s / np.maximum(now_s, LEAST_S), 1.0)
    left_s = np.maximum(here_s + spans.later_s * mean, LEAST_S)
    return Pace(pace, spans.steps / left_s, here_s / left_s, paced_s)
