"""Student's t, for one number: scipy has it too, in 192 modules that take most of a second to load.

The probability within ±t of ν degrees of freedom is an integral over an angle,

    P = 2·Γ((ν+1)/2) / (√π·Γ(ν/2)) · ∫₀^θ cos^(ν−1) x dx,      t = √ν·tan θ

whose integrand is smooth on 0 … θ and falls, so P is concave and Newton's method climbs to its root from 0.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, pi, sin, sqrt, tan

STRIPS = 256
# From here on the quotient's series is exact, and a difference of logarithms is less and less.
MANY = 1000


def student_t(confidence: float, degrees: float) -> float:
    """The t with probability ``confidence``, in 0..1, within ±t of this many ``degrees`` of freedom, at least 1.

    Eight digits of it for a ``confidence`` of at most 0.95, whose angles keep away from 90°.
    """
    ν = degrees
    quotient = log(ν / 2) / 2 - 1 / (4 * ν) + 1 / (24 * ν**3) if ν > MANY else lgamma((ν + 1) / 2) - lgamma(ν / 2)
    density = 2 * exp(quotient) / sqrt(pi)
    θ, step = 0.0, 1.0
    while step > 1e-12 * θ:  # steps shrink until rounding is all that is left of them
        step = (confidence - density * _integral(θ, ν - 1)) / (density * _power_of_cos(θ, ν - 1))
        θ += step
    return sqrt(ν) * tan(θ)


def _integral(θ: float, power: float) -> float:
    """∫₀^θ cos^power x dx by Simpson's rule."""
    h = θ / STRIPS
    inner = sum((4 if number % 2 else 2) * _power_of_cos(number * h, power) for number in range(1, STRIPS))
    return (1 + inner + _power_of_cos(θ, power)) * h / 3


def _power_of_cos(x: float, power: float) -> float:
    """cos^power x, right for powers of millions as well: 1 − cos x = 2·sin²(x/2) cancels nothing."""
    return exp(power * log1p(-2 * sin(x / 2) ** 2))
