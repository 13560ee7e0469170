"""What a reading covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.attribution.readings.sensor import SENSORS, THETAS_S, Sensor, through


@given(st.sampled_from(SENSORS), st.lists(st.floats(-2.0, 0.5), min_size=2, max_size=30, unique=True))
def test_shares_are_of_the_past_and_come_to_one(sensor: Sensor, bounds_s: list[float]) -> None:
    bounds = np.sort([-3.0, *bounds_s])
    shares = sensor.shares(np.array([0.0]), np.append(bounds, 0.6))[0]
    assert shares.sum() == pytest.approx(1.0)
    assert (shares >= -1e-12).all()
    assert shares[bounds >= 0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("sensor", SENSORS[:24:7])
def test_shares_are_the_weights_summed_and_their_age_is_half_the_window_and_the_lag(sensor: Sensor) -> None:
    bounds_s = np.linspace(-1.0, 0.0, 20_001)
    middles_s = (bounds_s[1:] + bounds_s[:-1]) / 2
    shares = sensor.shares(np.zeros(1), bounds_s)[0]
    # What lies before the first bound counts as the first stretch.
    assert shares[1:] == pytest.approx(sensor.weights(np.zeros(1), middles_s)[0, 1:] * 5e-5, abs=1e-7)
    assert shares @ -middles_s == pytest.approx(sensor.window_s / 2 + sensor.rise_s, rel=1e-3)


def test_a_step_is_seen_through_a_window_and_a_lag() -> None:
    sensor = Sensor(0.025, 0.03)
    rng_s = np.linspace(0.0, 0.5, 51)
    # A first-order lag answers a step with 1 − e^(−t/τ), of which the sensor shows the mean of W.
    grid_s = np.linspace(-0.025, 0.0, 2001)
    shown = [np.mean(np.where(t + grid_s > 0, -np.expm1(-np.maximum(t + grid_s, 0) / 0.03), 0.0)) for t in rng_s]
    bounds_s = np.array([-1.0, 0.0, 1.0])
    assert sensor.shares(rng_s, bounds_s)[:, 1] == pytest.approx(np.array(shown), abs=1e-3)


@pytest.mark.parametrize("sensor", SENSORS[:24:7])
def test_what_lasts_is_seen_wholly_and_flicker_is_not(sensor: Sensor) -> None:
    alike, kept = through(sensor, 0.1)
    assert (np.diff(alike) > 0).all()
    assert (np.diff(kept) > 0).all()
    assert kept[-1] == pytest.approx(1.0, abs=0.05)
    assert alike[0] < 0.5
    assert len(alike) == len(THETAS_S)
