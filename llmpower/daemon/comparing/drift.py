"""Whether what a model's requests cost is still what was predicted: a control chart that runs beside the traffic.

Each request gives x = ln(measured / predicted). Requests that follow each other err together: they share ticks, a
batch, a temperature. So they are gathered into blocks of at least :data:`BLOCK_S` and :data:`BLOCK_SPANS`, and a
block's mean y is one observation. The chart is the exponentially weighted moving average of S. W. Roberts (*Control
chart tests based on geometric moving averages*, Technometrics 1, 1959), which starts as a plain mean:

    m ← m + w·(y − m),          w = max(λ, 1/n)
    v ← (1 − w)²·v + w²         so that Var(m) = v·ω²

ω² is the long-run variance of the blocks. It is taken from first differences d = y − y₋₁ (J. von Neumann, *Distribution
of the ratio of the mean square successive difference to the variance*, 1941), which a shift of the mean enters once and
a slow drift hardly at all, so that what is to be detected does not hide itself in the noise. With A and B the moving
averages of d² and d·d₋₁, an autoregressive process of first order has

    ρ̂ = 1 + 2B/A  held to 0…ρmax,   ρ = ρ̂ + 2(1 − ρ̂)/√n,   γ = A / (2(1 − ρ)),   ω² = γ·(1 + ρ)/(1 − ρ)

n differences are remembered, outliers as if at three deviations. ρ is ρ̂ and two of its standard errors, for too small
a ρ is what makes false alarms.

The chart does not ask whether m is 0: no form is right to the last percent, and live requests are of other lengths than
the cells it was fitted to. It asks whether m is further off than the model itself claims to be, its held-out error:

    drifted:  |m| − tolerance > t·se,   se = √(v·ω²)

with t the Student quantile that corresponds to :data:`SIGMAS` normal deviations at the degrees of freedom that ω² has.
``docs/drift.md`` says how often that is a false alarm, by simulation, and how soon a true one comes.
"""

from __future__ import annotations

import math

BLOCK_S = 60.0
BLOCK_SPANS = 10

WEIGHT = 0.05
"""λ: some 40 blocks count, of which the latest counts a twentieth."""

NOISE_WEIGHT = 0.01
"""Noise is remembered five times longer than the mean."""

MIN_BLOCKS = 20
"""Before this many blocks there is no verdict on drift: the noise is not known."""

MIN_NOISE_BLOCKS = 4
"""Before this many there is no standard error."""

MIN_NOISE_DIFFERENCES = 10
OUTLIER = 3.0

SIGMAS = 5.0
MAX_CORRELATION = 0.95


class Chart:
    """The course of one model's energy against its prediction.

    ``mean`` is of the logarithm; ``spans`` counts all requests compared, ``blocks`` those that they fill.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.spans = 0
        self.blocks = 0
        self._mean = 0.0
        self._v = 0.0
        self._open_sum = 0.0
        self._open_spans = 0
        self._open_since_ns = 0
        self._last: float | None = None
        self._last_difference: float | None = None
        self._squares = self._products = 0.0
        self._differences = 0

    def add(self, log_ratio: float, end_ns: int) -> None:
        """One request, that ended then (CLOCK_MONOTONIC)."""
        if not self._open_spans:
            self._open_since_ns = end_ns
        self.spans += 1
        self._open_sum += log_ratio
        self._open_spans += 1
        if self._open_spans >= BLOCK_SPANS and end_ns - self._open_since_ns >= BLOCK_S * 1e9:
            self.add_block(self._open_sum / self._open_spans)
            self._open_sum, self._open_spans = 0.0, 0

    def add_block(self, y: float) -> None:
        """The mean of a block."""
        self.blocks += 1
        w = max(WEIGHT, 1 / self.blocks)
        self._mean += w * (y - self._mean)
        self._v = (1 - w) ** 2 * self._v + w**2
        if self._last is not None:
            d = self._bounded(y - self._last)
            self._differences += 1
            self._squares += max(NOISE_WEIGHT, 1 / self._differences) * (d**2 - self._squares)
            if self._last_difference is not None:
                w = max(NOISE_WEIGHT, 1 / (self._differences - 1))
                self._products += w * (d * self._last_difference - self._products)
            self._last_difference = d
        self._last = y

    def _bounded(self, d: float) -> float:
        """A difference, as three deviations where it is more: a shift is one such, and is not noise."""
        if self._differences < MIN_NOISE_DIFFERENCES:
            return d
        most = OUTLIER * math.sqrt(self._squares)
        return min(max(d, -most), most)

    @property
    def mean(self) -> float | None:
        """m; before the first block is full, the mean of what it has."""
        if self.blocks:
            return self._mean
        return self._open_sum / self._open_spans if self._open_spans else None

    @property
    def std_error(self) -> float | None:
        """se; ``None`` before the noise is known."""
        if self.blocks < MIN_NOISE_BLOCKS or self._squares <= 0:
            return None
        ρ = min(max(1 + 2 * self._products / self._squares, 0.0), MAX_CORRELATION)
        ρ = min(ρ + 2 * (1 - ρ) / math.sqrt(self._remembered), MAX_CORRELATION)
        γ = self._squares / (2 * (1 - ρ))
        return math.sqrt(self._v * γ * (1 + ρ) / (1 - ρ))

    @property
    def drifted(self) -> bool:
        """Whether the energy is further off than the model claims, beyond doubt."""
        std_error = self.std_error
        if std_error is None or self.blocks < MIN_BLOCKS:
            return False
        return abs(self._mean) - self.tolerance > self._limit() * std_error

    def _limit(self) -> float:
        """The Student quantile t at ν degrees of freedom for the normal deviate z: Cornish and Fisher's first terms.

            t = z + (z³ + z)/4ν + (5z⁵ + 16z³ + 3z)/96ν²       (Abramowitz and Stegun 26.7.5)

        A mean over n squared differences has about n/2 degrees of freedom.
        """
        z, ν = SIGMAS, self._remembered / 2
        return z + (z**3 + z) / (4 * ν) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * ν**2)

    @property
    def _remembered(self) -> float:
        """How many differences the noise is known from."""
        return min(self._differences, 2 / NOISE_WEIGHT)
