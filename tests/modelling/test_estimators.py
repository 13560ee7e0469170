"""The estimators against what they claim to solve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.regression.linear_model import WLS

from llmpower.modelling.estimators import ordinary_least_squares, r_squared_raw, relative_least_squares
from llmpower.modelling.forms import Cached, Paper, Recompute

LENGTHS = np.array([8, 32, 128, 512, 2048], dtype=np.float64)
TIN, TOUT = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))

coefficient = st.floats(min_value=1e-3, max_value=1e3)


@given(truth=st.lists(coefficient, min_size=3, max_size=3))
def test_recompute_coefficients_are_recovered(truth: list[float]) -> None:
    # Each coefficient is in the unit that makes its term weigh as much as the first at 1000 tokens of context.
    scaled = np.array(truth) * [1, 1e-3, 1e-6]
    design = Recompute().design(TIN, TOUT)
    np.testing.assert_allclose(relative_least_squares(design, design @ scaled).coefficients, scaled, rtol=1e-6)


@given(truth=st.lists(coefficient, min_size=5, max_size=5))
def test_cached_coefficients_are_recovered(truth: list[float]) -> None:
    scaled = np.array(truth) * [1e2, 1e-1, 1e-4, 1, 1e-3]
    design = Cached().design(TIN, TOUT)
    np.testing.assert_allclose(
        design @ relative_least_squares(design, design @ scaled).coefficients, design @ scaled, rtol=1e-6
    )


def test_paper_coefficients_are_recovered() -> None:
    truth = np.array([-3.9, 31.5, 0.0427])
    design = Paper().design(TIN, TOUT)
    np.testing.assert_allclose(ordinary_least_squares(design, design @ truth).coefficients, truth, rtol=1e-9)


def noisy(form: Recompute | Cached, coefficients: list[float], seed: int) -> tuple[NDArray[np.float64], ...]:
    design = form.design(TIN, TOUT)
    return design, design @ coefficients * np.random.default_rng(seed).lognormal(sigma=0.05, size=len(design))


def test_free_terms_have_the_coefficients_of_weighted_least_squares() -> None:
    design, y = noisy(Cached(), [50.0, 0.0, 0.0, 15.0, 0.01], seed=4)
    estimate = relative_least_squares(design, y)
    free = estimate.coefficients > 0
    assert 2 <= free.sum() < 5, "this data should hold a term at its bound"
    results = WLS(y, design[:, free], weights=y**-2).fit()
    np.testing.assert_allclose(estimate.coefficients[free], results.params, rtol=1e-7)
    np.testing.assert_allclose(estimate.std_errors[free], results.bse, rtol=1e-7)
    assert estimate.r_squared == pytest.approx(results.rsquared)
    assert estimate.f_statistic == pytest.approx(results.fvalue)
    assert estimate.f_pvalue == pytest.approx(results.f_pvalue)
    assert np.isnan(estimate.std_errors[~free]).all()


@pytest.mark.parametrize("seed", range(5))
def test_relative_fit_satisfies_the_conditions_of_optimality(seed: int) -> None:
    design, y = noisy(Cached(), [50.0, 0.0, 0.0, 15.0, 0.01], seed)
    β = relative_least_squares(design, y).coefficients
    relative = design / y[:, np.newaxis]
    gradient = relative.T @ (relative @ β - 1) / np.linalg.norm(relative, axis=0)
    assert (β >= 0).all()
    assert (gradient > -1e-8).all(), "raising a coefficient would help"
    np.testing.assert_allclose(gradient[β > 0], 0, atol=1e-8)


def test_interval_coverage_of_the_standard_errors() -> None:
    truth = np.array([4.0, 0.03, 1e-5])
    hits = 0
    for seed in range(200):
        design, y = noisy(Recompute(), list(truth), seed)
        estimate = relative_least_squares(design, y)
        hits += int(abs(estimate.coefficients[0] - truth[0]) < 2.07 * estimate.std_errors[0])  # t, 22 degrees
    assert hits >= 175, f"95 % intervals held the truth {hits} of 200 times"


def test_saturated_fit_has_no_errors_to_show() -> None:
    design = Paper().design([8, 8, 64], [8, 64, 8])
    estimate = ordinary_least_squares(design, np.array([33.0, 300.0, 20.0]))
    assert np.isnan(estimate.std_errors).all()
    assert estimate.f_statistic is None
    assert estimate.f_pvalue is None


def test_raw_r_squared_of_both_kinds() -> None:
    y, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    assert r_squared_raw(y, predicted) == (pytest.approx(1 - 1 / 2), pytest.approx(1 - 1 / 14))
    assert r_squared_raw(np.array([2.0, 2.0]), np.array([2.0, 2.0])) == (None, 1.0)
