"""Problems of a form's size against SciPy's and NumPy's answers, and rows' errors against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from llmpower.modelling.regressing.solving import gram, inverse, judge, solve

TERMS = st.integers(min_value=1, max_value=16)
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)


@given(TERMS, SEEDS)
def test_solutions_are_those_of_scipy_whatever_the_scale_of_columns(n_terms: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scale = 10.0 ** generator.uniform(-6, 6, n_terms)
    x, y = generator.normal(size=(3 * n_terms, n_terms)) + 0.5, generator.normal(size=3 * n_terms)
    matrix, moment, (least, greatest) = gram(np.ascontiguousarray((x * scale).T), np.ones(len(y)), y)
    unit = np.sqrt(np.diag(matrix))
    ends = np.linalg.eigvalsh(matrix / (unit[:, np.newaxis] * unit))[[0, -1]]
    np.testing.assert_allclose((least, greatest), ends, rtol=1e-9, atol=1e-12)
    free, bounded = (solve(matrix, moment, non_negative=bound) * scale for bound in (False, True))
    conditioned = 1e-12 * greatest / least
    np.testing.assert_allclose(free, np.linalg.lstsq(x, y)[0], rtol=1e-9, atol=conditioned)
    np.testing.assert_allclose(bounded, nnls(x, y)[0], rtol=1e-9, atol=conditioned)
    inverted = np.linalg.inv(x.T @ x)
    found = scale[:, np.newaxis] * inverse(matrix) * scale
    np.testing.assert_allclose(found, inverted, rtol=1e-9, atol=conditioned * np.abs(inverted).max())


def test_a_stack_is_solved_one_by_one() -> None:
    matrix, moment = np.array([[[2.0, 0], [0, 4]], [[1, 0], [0, 1]]]), np.array([[2.0, 4], [3, -5]])
    assert solve(matrix, moment, non_negative=False).tolist() == [[1, 1], [3, -5]]
    assert solve(matrix, moment, non_negative=True).tolist() == [[1, 1], [3, 0]]


@pytest.mark.parametrize("matrix", [[[1.0, 2], [2, 4]], [[0.0, 0], [0, 1]]], ids=["alike", "empty"])
def test_what_has_no_solution_is_no_answer(matrix: list[list[float]]) -> None:
    with pytest.raises(np.linalg.LinAlgError):
        solve(np.array(matrix), np.ones(2), non_negative=True)
    with pytest.raises(np.linalg.LinAlgError):
        inverse(np.array(matrix))


@given(st.integers(min_value=0, max_value=40), SEEDS)
def test_errors_are_those_of_rows_whose_prediction_is_known(n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    β, columns = generator.normal(size=(5, 3)), generator.normal(size=(3, n))
    cells, y = generator.integers(0, 5, n), generator.lognormal(size=n)
    β[generator.integers(0, 5)] = np.nan
    predicted = (columns.T * β[cells]).sum(axis=1)
    known = ~np.isnan(predicted)
    expected = np.abs(predicted[known] / y[known] - 1)
    errors, missed = judge(y, cells, β, list(columns))
    np.testing.assert_allclose(errors, expected, rtol=1e-12, atol=1e-12)
    assert (missed.n, missed.negative) == (known.sum(), (predicted[known] <= 0).sum())
    assert missed.greatest == errors.max(initial=0)
    assert missed.errors == pytest.approx(expected.sum())
    assert missed.predicted == pytest.approx(predicted[known].sum())
    assert missed.measured == pytest.approx(y[known].sum())
    np.testing.assert_array_equal(judge(y, np.arange(n), predicted)[0], errors)


def test_a_row_of_no_cell_is_refused() -> None:
    for cell in (-1, 2):
        with pytest.raises(AssertionError, match="cell"):
            judge(np.ones(1), np.array([cell]), np.ones(2))
