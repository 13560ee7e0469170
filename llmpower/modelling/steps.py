"""Forms of decoding without a KV cache: every step processes its whole context c again, and costs accordingly.

That is how the published measurements were made (``use_cache=False``), and what an engine does that lost its cache.

Symbols: τin input tokens, τout output tokens, c = τin + k the context of step k. With n = τout the sums close to

    Σ 1  = n
    Σ c  = n·τin + n(n−1)/2
    Σ c² = n·τin² + n(n−1)·τin + (n−1)n(2n−1)/6
    Σ max(0, c − c*) = m·u + m(m−1)/2,   u = max(0, τin − c*),   m = min(n, max(0, τin + n − c*))

where m counts the steps whose context has come to c* or beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llmpower.modelling.linear import FloatArray, Form, contexts, ones, positive_part, smaller

# Tokens a step must process before arithmetic takes longer than reading the weights: peak 16-bit FLOP/s over bytes/s
# of memory, since a weight of two bytes does two FLOP a token. By the vendors' sheets 153 on an A100 80 GB, 201 on its
# 40 GB sister, 295 on an H100 SXM, 206 on an H200, 281 on a B200. Fits change little between 160 and 384, so it is no
# parameter: one that followed the data would be one more thing to overfit.
RIDGE_TOKENS = 256


@dataclass(frozen=True)
class Recompute(Form):
    """A step costs a constant, something per token of its context, and something per pair of them.

    E = Σ_{k<τout} (e0 + a·c + b·c²),   c = τin + k
    """

    name: ClassVar[str] = "recompute"

    @property
    def formula(self) -> str:
        """As above."""
        return "Σ_{k<τout} (e0 + a·c + b·c²), c = τin + k"

    @property
    def terms(self) -> tuple[str, ...]:
        """e0 per step, a per token of context, b per pair of tokens of context."""
        return ("e0", "a", "b")

    @property
    def within(self) -> tuple[Form, slice] | None:
        """``roofline``."""
        return Roofline(), slice(1, 4)

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """Σ 1, Σ c, Σ c²."""
        return _sums(τin, τout)


@dataclass(frozen=True)
class RecomputeCall(Recompute):
    """The same, and a constant per call: tokenizing, launching, what the device draws before the first step.

    E = p0 + Σ_{k<τout} (e0 + a·c + b·c²),   c = τin + k
    """

    name: ClassVar[str] = "recompute+call"

    @property
    def formula(self) -> str:
        """As above."""
        return f"p0 + {super().formula}"

    @property
    def terms(self) -> tuple[str, ...]:
        """p0 a call, then as ``recompute``."""
        return ("p0", *super().terms)

    @property
    def within(self) -> tuple[Form, slice] | None:
        """``roofline``."""
        return Roofline(), slice(0, 4)

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """1, Σ 1, Σ c, Σ c²."""
        return (ones(τin), *_sums(τin, τout))


@dataclass(frozen=True)
class Roofline(RecomputeCall):
    """The same in the two regimes of the roofline: beyond the ridge c* a token of context costs more than before it.

        E = p0 + Σ_{k<τout} (e0 + a·c + a′·max(0, c − c*) + b·c²),   c = τin + k,   c* = 256 tokens

    Up to the ridge a step takes as long as reading the weights does, however many tokens it processes, and arithmetic
    is almost free; beyond it the arithmetic units are busy and every token costs its time (Williams, Waterman and
    Patterson, "Roofline", CACM 2009).
    """

    name: ClassVar[str] = "roofline"

    @property
    def formula(self) -> str:
        """As above."""
        return f"p0 + Σ_{{k<τout}} (e0 + a·c + b·c² + a′·max(0, c − {RIDGE_TOKENS})), c = τin + k"

    @property
    def terms(self) -> tuple[str, ...]:
        """As ``recompute+call``, then a′ a token of context beyond the ridge."""
        return (*super().terms, "a′")

    @property
    def within(self) -> None:
        """No other."""

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """1, Σ 1, Σ c, Σ c², Σ max(0, c − c*)."""
        u = positive_part(τin - RIDGE_TOKENS)
        m = smaller(τout, positive_part(τin + τout - RIDGE_TOKENS))
        return (ones(τin), *_sums(τin, τout), contexts(u, m))

    def features(self, input_tokens: float, output_tokens: float) -> Sequence[float]:
        """The same of one query, written out: half of the time goes into calls, and routers wait for it."""
        τin, n = float(input_tokens), float(output_tokens)
        pairs, beyond = n * (n - 1), τin + n - RIDGE_TOKENS
        u = τin - RIDGE_TOKENS if τin > RIDGE_TOKENS else 0.0
        m = 0.0 if beyond <= 0 else min(n, beyond)
        c = n * τin + pairs / 2
        return 1.0, n, c, n * (τin * τin) + pairs * τin + pairs * (2 * n - 1) / 6, m * u + m * (m - 1) / 2


def _sums(τin: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Σ 1, Σ c, Σ c² over n steps."""
    pairs = n * (n - 1)
    return n, n * τin + pairs / 2, n * (τin * τin) + pairs * τin + pairs * (2 * n - 1) / 6
