"""Rows gathered into points: none is lost, and quantiles are those of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.report.gathering import gather

ROWS = st.lists(
    st.tuples(st.integers(0, 4096), st.integers(0, 4096), st.floats(1e-3, 1e6, allow_nan=False)),
    min_size=1,
    max_size=60,
)


@given(ROWS, st.integers(1, 40))
def test_points_are_of_all_rows(rows: list[tuple[int, int, float]], most: int) -> None:
    τin, τout, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = gather([τin, τout], most)
    assert found.count().sum() == len(rows)
    assert (found.count() > 0).all()
    distinct = len({(a, b) for a, b, _ in rows})
    assert found.n_points <= distinct
    if distinct <= most:
        assert (found.n_points, found.rule) == (distinct, "equal lengths")
    quantiles, mean = found.quantiles(y, (0.1, 0.5, 0.9)), found.mean(y)
    for point in range(found.n_points):
        own = y[found.points == point]
        np.testing.assert_allclose(quantiles[:, point], np.quantile(own, (0.1, 0.5, 0.9)), rtol=1e-9)
        assert mean[point] == pytest.approx(own.mean())
        # What is together is alike: within an octave to either side, and zeros by themselves.
        for lengths in (τin, τout):
            low, high = lengths[found.points == point].min(), lengths[found.points == point].max()
            assert high == low == 0 or 0 < low <= high <= 2 * low * (1 + 1e-9)
