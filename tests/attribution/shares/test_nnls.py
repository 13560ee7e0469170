from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import nnls

from llmpower.attribution.shares.nnls import nonnegative


@given(seed=st.integers(0, 10_000), size=st.integers(1, 12), rows=st.integers(12, 40), digits=st.integers(-6, 6))
@settings(max_examples=200, deadline=None)
def test_it_finds_what_scipy_finds_with_all_rows(seed: int, size: int, rows: int, digits: int) -> None:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(rows, size)) + chance.uniform(0, 2)
    y = 10.0**digits * chance.normal(size=rows)
    found = nonnegative(x.T @ x, x.T @ y)
    expected, residual = nnls(x, y)
    assert (found >= 0).all()
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * 10.0**digits)
    assert np.linalg.norm(y - x @ found) <= residual * (1 + 1e-9) + 1e-12


def test_nothing_to_explain_is_nothing() -> None:
    assert nonnegative(np.eye(3), np.zeros(3)).tolist() == [0, 0, 0]
    assert nonnegative(np.eye(3), -np.ones(3)).tolist() == [0, 0, 0]
