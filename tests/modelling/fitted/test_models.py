"""A fit evaluated: predictions, intervals, the fitted range."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

from llmpower.modelling import Fit, fit
from llmpower.modelling.forms import Paper

TIN, TOUT = (grid.reshape(-1).astype(float) for grid in np.meshgrid([8, 64, 512], [8, 64, 512]))
Y = Paper().design(TIN, TOUT) @ [1.0, 30.0, 0.04] + np.random.default_rng(2).normal(scale=50, size=9)


@pytest.fixture(scope="module")
def fitted() -> Fit:
    tokens = {"input_tokens": TIN, "output_tokens": TOUT}
    (model,) = fit(pd.DataFrame({"model_name": "a", **tokens, "runtime_s": Y / 300, "gpu_energy_j": Y}), form="paper")
    return model.energy


def test_interval_is_that_of_statsmodels(fitted: Fit) -> None:
    expected = OLS(Y, Paper().design(TIN, TOUT)).fit().get_prediction(Paper().design([16, 32], [128, 256]))
    low, high = fitted.interval([16, 32], [128, 256])
    np.testing.assert_allclose(fitted.predict([16, 32], [128, 256]), expected.predicted_mean)
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected.conf_int(alpha=0.05))


def test_a_term_held_at_zero_counts_as_known(fitted: Fit) -> None:
    free = [1, 2]
    results = OLS(Y, Paper().design(TIN, TOUT)[:, free]).fit()
    covariance = np.full((3, 3), np.nan)
    covariance[np.ix_(free, free)] = results.cov_params()
    bound = replace(
        fitted,
        coefficients=np.array([0.0, *results.params]),
        std_errors=np.array([np.nan, *results.bse]),
        covariance=covariance,
    )
    expected = results.get_prediction(Paper().design(16, 128)[np.newaxis, free]).conf_int(alpha=0.1)
    np.testing.assert_allclose([bound.interval(16, 128, confidence=0.9)], expected)


def test_no_degree_of_freedom_leaves_no_interval(fitted: Fit) -> None:
    assert np.isnan(replace(fitted, n_obs=3).interval(16, 128)).all()


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_shapes_are_kept(fitted: Fit, shape: tuple[int, ...]) -> None:
    lengths = np.full(shape, 16)
    assert fitted.predict(lengths, lengths).shape == shape
    assert fitted.inside(lengths, lengths).shape == shape
    assert fitted.interval(lengths, lengths)[0].shape == shape


def test_inside_includes_the_ends(fitted: Fit) -> None:
    inside = fitted.inside([7, 8, 512, 513, 64, 64], [64, 8, 512, 64, 7, 513])
    assert inside.tolist() == [False, True, True, False, False, False]


def test_a_fit_cannot_be_changed(fitted: Fit) -> None:
    with pytest.raises(FrozenInstanceError):
        fitted.n_obs = 1  # type: ignore[misc]  # the point of the test
    with pytest.raises(ValueError, match="read-only"):
        fitted.coefficients[0] = 1


def test_fits_are_equal_by_value(fitted: Fit) -> None:
    unknown = replace(fitted, std_errors=np.full(3, np.nan))
    assert fitted == replace(fitted, coefficients=fitted.coefficients.copy())
    assert unknown == replace(unknown)
    assert fitted != unknown
    assert fitted != "paper"
