"""How joules are split among spans that run on one device at the same time.

Nobody can measure the share of one among several; it is allocated by a rule, and the rule must know the phases: a
decoded token costs many times what a prefilled one does, because it reads every weight of the model for itself. The
weight of a span at a moment is the rate at which it processes tokens in the phase it is in, in prefill-equivalent
tokens a second: decoded tokens count :data:`DECODE_COST` times. Where the first token's moment is unknown the whole
span counts as decode. A span's share is its weight in the sum of all that run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.types import Span

Floats = NDArray[np.float64]

DECODE_COST = 20.0
"""Energy of a decoded token relative to a prefilled one; measured ratios begin at about this."""


def prefill_weight(span: Span) -> float:
    """Relative demand before the first token."""
    first_token_ns = span.start_ns if span.first_token_ns is None else span.first_token_ns
    return _rate(float(span.input_tokens), first_token_ns - span.start_ns)


def decode_weight(span: Span) -> float:
    """Relative demand from the first token on."""
    first_token_ns = span.start_ns if span.first_token_ns is None else span.first_token_ns
    return _rate(DECODE_COST * span.output_tokens, span.end_ns - first_token_ns)


def share_std(share: Floats) -> Floats:
    """Standard deviation of allocated shares: share·(1 − share)/2.

    A prior, not a measurement: half of what moves if the rule gives the other spans' part to this one. It vanishes
    where nothing is shared.
    """
    return share * (1 - share) / 2


def _rate(tokens: float, duration_ns: int) -> float:
    # A span without tokens still ran; one token keeps its share above nothing.
    return max(tokens, 1.0) / max(duration_ns / 1e9, 1e-9)
