"""What a reading of a power sensor covers.

A sensor follows the power with a lag τ, and shows at an update u the mean of that over a window W before it. So the
reading is ∫ h(u − t)·P(t) dt, h being an exponential of mean τ folded with a box of width W, and a stretch of time from
a to b has the share G(u − a) − G(u − b) in it, with

    F(x) = x − τ·(1 − e^(−x/τ)) for x > 0, else 0
    G(x) = (F(x) − F(x − W)) / W
    h(x) = G'(x)

What cards have (arXiv 2312.02741) is not asked of the card's name, which may be one that nobody measured:
:data:`SENSORS` are compared by how well each predicts the readings.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

THETAS_S = np.geomspace(0.015, 5.0, 16)
"""Times over which power may forget itself, from a tenth of an update to fifty of them."""


class Sensor(NamedTuple):
    """A window W and a lag τ, in seconds."""

    window_s: float
    rise_s: float

    @property
    def reach_s(self) -> float:
        """Of what is older than this a reading holds less than 2 %: W + 4·τ."""
        return self.window_s + 4 * self.rise_s

    def shares(self, shown_s: Floats, bounds_s: Floats) -> Floats:
        """Share of each stretch between bounds, shape (m + 1,), in readings shown then, shape (n,); shape (n, m).

        What lies before the first bound is taken to be as what lies behind it.
        """
        younger = self._younger(shown_s[:, None] - bounds_s)
        younger[:, 0] = 1.0
        return -np.diff(younger, axis=1)

    def weights(self, shown_s: Floats, moments_s: Floats) -> Floats:
        """The weight h of moments in each reading, per second; shape (n, m)."""
        age_s = shown_s[:, None] - moments_s
        since_s = np.exp(-np.maximum(age_s - self.window_s, 0.0) / self.rise_s)
        return np.where(age_s > 0, since_s - np.exp(-np.maximum(age_s, 0.0) / self.rise_s), 0.0) / self.window_s

    def rates(self, shown_s: Floats, bounds_s: Floats) -> Floats:
        """How fast the shares change with the moment of the update, per second; shape (n, m)."""
        return -np.diff(self.weights(shown_s, bounds_s), axis=1)

    def _younger(self, age_s: Floats) -> Floats:
        """G: what is younger than this."""
        return (self._ramp(age_s) - self._ramp(age_s - self.window_s)) / self.window_s

    def _ramp(self, age_s: Floats) -> Floats:
        age_s = np.maximum(age_s, 0.0)
        return age_s + self.rise_s * np.expm1(-age_s / self.rise_s)


_WINDOWS_S = (0.025, 0.01, 0.1)
_RISES_S = (0.025, 0.03, 0.02, 0.04, 0.015, 0.06, 0.09, 0.005)
SENSORS = (*(Sensor(window_s, rise_s) for window_s in _WINDOWS_S for rise_s in _RISES_S), Sensor(1.0, 0.005))
"""What has been seen, the likeliest first: W of 25 ms (A100, H100), 10 (V100) and 100 (GeForce), τ from 5 to 90 ms; and
the one-second mean that Ampere and later cards show as well."""

JITTERS = ((0.005, 0.0), (0.01, 0.0), (0.001, -10.0))
"""By how much what a sensor shows may be off in time, as a standard deviation in seconds, and how likely that is before
anything was read, as a logarithm. Windows and lags are not just those above, nor always the same: it is 5 to 10 ms for
the H100 of docs/h100.md. The simulated card has less than 1 ms; a sensor has to show that."""


@lru_cache(maxsize=64)
def through(sensor: Sensor, period_s: float) -> tuple[Floats, Floats]:
    """How power that forgets itself as e^(−t/θ) looks through a sensor, for each of :data:`THETAS_S`.

    Returns:
        The correlation of a reading with the next one, a period later; and the variance of readings relative to that
        of the power itself, ∫∫ h(s)·h(t)·e^(−|s − t|/θ) ds dt.
    """
    edges_s = np.linspace(0.0, sensor.reach_s, 61)
    age_s = (edges_s[1:] + edges_s[:-1]) / 2
    h = sensor.weights(np.zeros(1), -age_s)[0]
    h /= h.sum()
    apart_s = age_s[:, None] - age_s
    kept = np.array([h @ np.exp(-np.abs(apart_s) / theta_s) @ h for theta_s in THETAS_S])
    next_one = np.array([h @ np.exp(-np.abs(apart_s + period_s) / theta_s) @ h for theta_s in THETAS_S])
    return next_one / kept, kept
