"""Where spans lie among the cuts: counted, not visited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.types import Span

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """Where the spans lie among the cuts: span i runs in pieces ``first[i]`` to ``end[i]`` - 1, and has shown its first
    token from piece ``token[i]`` on; shapes (spans,). ``running`` counts them by piece.
    """

    first: Integers
    token: Integers
    end: Integers
    running: Integers

    def any(self, pieces: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each span runs in any of the pieces for which it is true."""
        sums = np.concatenate(([0], np.cumsum(pieces)))
        found: NDArray[np.bool_] = sums[self.end] > sums[self.first]
        return found


def course(spans: Sequence[Span], cuts_ns: Sequence[int]) -> Course:
    """Find the spans among ascending cuts, at which they begin and end as far as they lie between them."""
    cuts = np.array(cuts_ns, np.int64)
    starts = np.array([span.start_ns for span in spans], np.int64)
    ends = np.array([span.end_ns for span in spans], np.int64)
    tokens = np.array([s.start_ns if s.first_token_ns is None else s.first_token_ns for s in spans], np.int64)
    last = len(cuts_ns) - 1
    first = np.minimum(np.searchsorted(cuts, starts), last)
    end = np.maximum(np.minimum(np.searchsorted(cuts, ends), last), first)
    running = np.cumsum(np.bincount(first, minlength=last + 1) - np.bincount(end, minlength=last + 1))[:last]
    return Course(first, np.searchsorted(cuts, tokens), end, running)


def present(values: Floats, begin: Integers, end: Integers, pieces: int) -> Floats:
    """Σ of the values of those present in each piece, each from ``begin`` to ``end`` - 1; shape (pieces,)."""
    # Who comes and goes at once would leave rounding behind, of a rate without bound.
    values = np.where(end > begin, values, 0.0)
    changes = np.bincount(begin, values, pieces + 1) - np.bincount(end, values, pieces + 1)
    return np.cumsum(changes)[:pieces]
