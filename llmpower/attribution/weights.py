"""How joules are split among spans that run on one device at the same time.

Nobody can measure the share of one among several; it is allocated by a rule, and the rule must know the phases: a
decoded token costs many times what a prefilled one does, because it reads every weight of the model for itself. The
weight of a span at a moment is the rate at which it processes tokens in the phase it is in, decoded tokens counted
:data:`DECODE_COST` times. Where the first token's moment is unknown the whole span counts as decode.
"""

from __future__ import annotations

from llmpower.types import Span

DECODE_COST = 20.0
"""Energy of a decoded token relative to a prefilled one; measured ratios begin at about this."""


def weight(span: Span, time_ns: int) -> float:
    """Relative demand of ``span`` at ``time_ns``, in prefill-equivalent tokens a second."""
    first_token_ns = span.start_ns if span.first_token_ns is None else span.first_token_ns
    if time_ns < first_token_ns:
        tokens, start_ns, end_ns = float(span.input_tokens), span.start_ns, first_token_ns
    else:
        tokens, start_ns, end_ns = DECODE_COST * span.output_tokens, first_token_ns, span.end_ns
    # A span without tokens still ran; one token keeps its share above nothing.
    return max(tokens, 1.0) / max((end_ns - start_ns) / 1e9, 1e-9)


def shares(spans: list[Span], time_ns: int) -> list[float]:
    """Shares of the spans running at ``time_ns``, in their order; they sum to 1."""
    if len(spans) == 1:
        return [1.0]
    weights = [weight(span, time_ns) for span in spans]
    total = sum(weights)
    return [each / total for each in weights]


def share_std(share: float) -> float:
    """Standard deviation of an allocated share: share·(1 − share)/2.

    A prior, not a measurement: half of what moves if the rule gives the other spans' part to this one. It vanishes
    where nothing is shared.
    """
    return share * (1 - share) / 2
