"""The estimators against what they claim to solve, and their figures against statsmodels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.regression.linear_model import WLS

from llmpower.modelling.forms import Cached, Form, Paper, Recompute
from llmpower.modelling.judging.estimators import jackknife, ordinary_least_squares, weighted_statistics
from llmpower.modelling.regressing.cells import Cells
from llmpower.modelling.rows.moments import Moments, Sums

LENGTHS = np.array([8, 32, 128, 512, 2048], dtype=np.float64)
TIN, TOUT = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))
CELLS = np.arange(len(TIN))

coefficient = st.floats(min_value=1e-3, max_value=1e3)


def relative(design: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return Cells.of_sums(design, Sums.of_rows(np.arange(len(y)), y, y**-2, len(design))).solve(non_negative=True)


@given(truth=st.lists(coefficient, min_size=3, max_size=3))
def test_recompute_coefficients_are_recovered(truth: list[float]) -> None:
    # Each coefficient is in the unit that makes its term weigh as much as the first at 1000 tokens of context.
    scaled = np.array(truth) * [1, 1e-3, 1e-6]
    design = Recompute().design(TIN, TOUT)
    np.testing.assert_allclose(relative(design, design @ scaled), scaled, rtol=1e-6)


@given(truth=st.lists(coefficient, min_size=5, max_size=5))
def test_cached_coefficients_are_recovered(truth: list[float]) -> None:
    scaled = np.array(truth) * [1e2, 1e-1, 1e-4, 1, 1e-3]
    design = Cached().design(TIN, TOUT)
    np.testing.assert_allclose(design @ relative(design, design @ scaled), design @ scaled, rtol=1e-6)


def test_paper_coefficients_are_recovered() -> None:
    truth = np.array([-3.9, 31.5, 0.0427])
    design = Paper().design(TIN, TOUT)
    np.testing.assert_allclose(ordinary_least_squares(design, design @ truth)[0], truth, rtol=1e-9)


def test_long_queries_are_told_apart_as_short_ones_are() -> None:
    """What a token count is written in changes nothing: statsmodels by itself finds two terms of three here."""
    design = Paper().design(1e6 + 100 * TIN, 1e6 + 100 * TOUT)
    y = design @ [0.3, 30.0, 1e-5] * np.random.default_rng(1).lognormal(sigma=0.05, size=len(design))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        β, covariance, statistics = ordinary_least_squares(design, y)
        kilo, of_kilo, in_kilo = ordinary_least_squares(design / [1e3, 1e3, 1e6], y)
    np.testing.assert_allclose(β * [1e3, 1e3, 1e6], kilo, rtol=1e-6)
    np.testing.assert_allclose(np.diag(covariance) * np.array([1e6, 1e6, 1e12]), np.diag(of_kilo), rtol=1e-6)
    assert statistics.f_statistic == pytest.approx(in_kilo.f_statistic, rel=1e-9)
    missed, total = np.sum((y - design @ β) ** 2), np.sum(y**2)
    assert statistics.f_statistic == pytest.approx((total - missed) / 3 / (missed / (len(y) - 3)), rel=1e-6)


def noisy(form: Form, coefficients: list[float], seed: int) -> tuple[NDArray[np.float64], ...]:
    design = form.design(TIN, TOUT)
    return design, design @ coefficients * np.random.default_rng(seed).lognormal(sigma=0.05, size=len(design))


@pytest.mark.parametrize(
    ("form", "truth", "constant"),
    [(Cached(), [50.0, 0.0, 0.0, 15.0, 0.01], True), (Recompute(), [4.0, 0.03, 1e-5], False)],
    ids=["cached", "recompute"],
)
def test_free_terms_and_statistics_are_those_of_weighted_least_squares(
    form: Form, truth: list[float], constant: bool
) -> None:
    design, y = noisy(form, truth, seed=4)
    β = relative(design, y)
    free = β > 0
    results = WLS(y, design[:, free], weights=y**-2).fit()
    np.testing.assert_allclose(β[free], results.params, rtol=1e-7)
    statistics = weighted_statistics(
        Moments.of(design, Sums.of_rows(CELLS, y, y**-2, len(design))), β, constant=constant
    )
    assert statistics.r_squared == pytest.approx(results.rsquared)
    assert statistics.f_statistic == pytest.approx(results.fvalue)
    assert statistics.f_pvalue == pytest.approx(results.f_pvalue)


def test_a_term_is_held_at_zero_by_that_data() -> None:
    free = relative(*noisy(Cached(), [50.0, 0.0, 0.0, 15.0, 0.01], seed=4)) > 0
    assert 2 <= free.sum() < 5


@pytest.mark.parametrize("seed", range(5))
def test_relative_fit_satisfies_the_conditions_of_optimality(seed: int) -> None:
    design, y = noisy(Cached(), [50.0, 0.0, 0.0, 15.0, 0.01], seed)
    β = relative(design, y)
    scaled = design / y[:, np.newaxis]
    gradient = scaled.T @ (scaled @ β - 1) / np.linalg.norm(scaled, axis=0)
    assert (β >= 0).all()
    assert (gradient > -1e-8).all(), "raising a coefficient would help"
    np.testing.assert_allclose(gradient[β > 0], 0, atol=1e-8)


def test_jackknife_is_that_of_refits() -> None:
    design, y = noisy(Recompute(), [4.0, 0.03, 1e-5], seed=1)
    refits = np.stack([relative(np.delete(design, c, 0), np.delete(y, c)) for c in CELLS])
    m = len(refits)
    np.testing.assert_allclose(jackknife(refits, np.full(3, True)), np.cov(refits.T, bias=True) * (m - 1), rtol=1e-9)


def test_a_term_that_is_not_free_has_no_variance() -> None:
    covariance = jackknife(np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]), np.array([True, False]))
    assert np.isnan(covariance[1]).all()
    assert np.isnan(covariance[:, 1]).all()
    assert covariance[0, 0] > 0


def test_saturated_fit_has_no_errors_to_show() -> None:
    design = Paper().design([8, 8, 64], [8, 64, 8])
    _, covariance, statistics = ordinary_least_squares(design, np.array([33.0, 300.0, 20.0]))
    assert np.isnan(covariance).all()
    assert statistics.f_statistic is None
    assert statistics.f_pvalue is None


def test_raw_r_squared_of_both_kinds() -> None:
    y = np.array([1.0, 2.0, 3.0])
    moments = Moments.of(np.array([[1.0], [2.0], [4.0]]), Sums.of_rows(np.arange(3), y, np.ones(3), 3))
    assert moments.r_squared(np.ones(1), centered=True) == pytest.approx(1 - 1 / 2)
    assert moments.r_squared(np.ones(1), centered=False) == pytest.approx(1 - 1 / 14)
    flat = Moments.of(np.array([[2.0], [2.0]]), Sums.of_rows(np.arange(2), np.array([2.0, 2.0]), np.ones(2), 2))
    assert flat.r_squared(np.ones(1), centered=True) is None
    assert flat.r_squared(np.ones(1), centered=False) == 1.0


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_collapsing_trials_changes_nothing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    cells = np.concatenate([CELLS, generator.integers(0, len(CELLS), 60)])
    design = Cached().design(TIN, TOUT)
    y = (design @ [50.0, 0.2, 1e-5, 15.0, 0.01])[cells] * generator.lognormal(sigma=0.1, size=len(cells))
    collapsed = Cells.of_sums(design, Sums.of_rows(cells, y, y**-2, len(design))).solve(non_negative=True)
    np.testing.assert_allclose(design @ collapsed, design @ relative(design[cells], y), rtol=1e-7)
