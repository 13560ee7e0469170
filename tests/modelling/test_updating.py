"""A model that learns from new rows against one fitted to all of them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling import Fit, WorkloadModel, fit, load_models, save_models, update
from llmpower.modelling.fitted.models import PROSPECTIVE
from llmpower.modelling.forms import Cached, make_form
from llmpower.modelling.linear import FloatArray

LENGTHS = [8, 64, 256, 1024]


def rows(seed: int, shift: float = 1.0, lengths: list[int] = LENGTHS, **columns: object) -> pd.DataFrame:
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid(lengths, lengths))
    generator = np.random.default_rng(seed)
    prefill = 60 + 0.2 * τin + 1e-5 * τin**2
    energy = Cached().design(τin, τout) @ [60.0, 0.2, 1e-5, 15.0, 0.01]
    energy = energy * shift * generator.lognormal(sigma=0.05, size=len(τin))
    made = {
        "model_name": "a",
        "input_tokens": τin,
        "output_tokens": τout,
        "runtime_s": energy / 300,
        "gpu_energy_j": energy,
        "prefill_energy_j": prefill,
        "decode_energy_j": energy - prefill,
        "time_to_first_token_s": prefill / 300,
    }
    return pd.DataFrame(made).assign(**columns)


def test_rows_of_thousands_of_lengths_are_judged_at_their_own() -> None:
    """More cells than are kept apart: fitted in bands, whose mean lengths are not those of any row."""
    random = np.random.default_rng(1)
    τin, τout = random.integers(8, 2048, (2, 10_000))
    traffic = rows(1).iloc[[0] * len(τin)].reset_index(drop=True)
    exact = Cached().design(τin, τout) @ [60.0, 0.2, 1e-5, 15.0, 0.01]
    traffic = traffic.assign(input_tokens=τin, output_tokens=τout, gpu_energy_j=exact, runtime_s=exact / 300)
    (old,) = fit(rows(1), form="cached")
    error = np.abs(old.energy.predict(τin, τout) / exact - 1)
    (updated,) = update([old], traffic)
    assert old.energy.heldout.mape is not None
    expected = np.average([old.energy.heldout.mape, error.mean()], weights=[16, len(τin)])
    assert updated.energy.heldout.mape == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "form", ["paper", "paper+intercept", "quadratic", "recompute", "recompute+call", "roofline", "cached", "phases"]
)
def test_sums_give_what_all_rows_give(form: str) -> None:
    old, new = rows(1), rows(2, lengths=[16, 64, 2048])
    (updated,) = update(fit(old, form=form), new)
    (whole,) = fit(pd.concat([old, new]), form=form)
    for ours, theirs in ((updated.energy, whole.energy), (updated.runtime, whole.runtime)):
        τin, τout = np.array([16, 500]), np.array([500, 16])
        np.testing.assert_allclose(ours.predict(τin, τout), theirs.predict(τin, τout), rtol=1e-6)
        assert (ours.n_obs, ours.input_range, ours.output_range) == (25, (8, 2048), (8, 2048))
        assert ours.r_squared == pytest.approx(theirs.r_squared, rel=1e-6)
        assert ours.f_statistic == pytest.approx(theirs.f_statistic, rel=1e-5)
        assert ours.r_squared_centered == pytest.approx(theirs.r_squared_centered, rel=1e-6)
        free = ~np.isnan(theirs.std_errors)
        if form.startswith("paper"):
            np.testing.assert_allclose(ours.std_errors, theirs.std_errors, rtol=1e-6)
        else:
            # The jackknife and the sandwich estimate the same by different roads; no cell is new to an update.
            assert (ours.std_errors[free] < 4 * theirs.std_errors[free] + 1e-12).all()
            assert (ours.std_errors[free] + 1e-12 > theirs.std_errors[free] / 3).all()


def test_error_on_what_was_never_seen_is_the_held_out_error() -> None:
    (model,) = fit(rows(1), form="cached")
    new = rows(2, shift=1.5)
    (updated,) = update([model], new)
    expected = model.energy.predict(new["input_tokens"], new["output_tokens"])
    ape = np.abs(expected / new["gpu_energy_j"] - 1)
    before = model.energy.heldout
    assert before.mape is not None
    assert updated.energy.heldout.mape == pytest.approx((before.mape + ape.mean()) / 2)
    assert updated.energy.heldout.scheme == PROSPECTIVE
    assert updated.energy.heldout.median_ape is None
    (news,) = [warning for warning in updated.energy.warnings if warning.startswith("before it learnt")]
    assert "from 16 new rows the model was off by 3" in news


def test_what_was_true_of_the_old_rows_alone_is_not_said_of_all() -> None:
    (model,) = fit(rows(1), form="cached")
    assert model.energy.extrapolation is not None
    (updated,) = update([model], rows(2, shift=1.5))
    assert updated.energy.extrapolation is None
    (again,) = update([updated], rows(3))
    for fitted in (updated, again):
        assert fitted.energy.estimator == (
            "least squares on relative error, coefficients ≥ 0; standard errors by the delete-one-cell jackknife,"
            " of rows learnt since by the scores of their cells"
        )


def test_one_new_row_is_enough() -> None:
    models = fit(rows(1), form="cached")
    (updated,) = update(models, rows(2).iloc[[3]])
    assert updated.energy.n_obs == 17


def often(seed: int) -> pd.DataFrame:
    return pd.concat([rows(10 * seed + trial) for trial in range(6)], ignore_index=True)


def predicted(models: list[WorkloadModel]) -> FloatArray:
    return models[0].energy.predict([16, 500], [500, 16])


@pytest.mark.parametrize("form", ["cached", "recompute"])
def test_outliers_among_new_rows_count_as_little_as_among_all(form: str) -> None:
    old, new = often(1), often(2)
    clean = predicted(fit(pd.concat([old, new]), form=form))
    for table in (old, new):
        table.loc[5::17, ["gpu_energy_j", "runtime_s"]] /= 4
    whole = pd.concat([old, new])
    assert predicted(fit(whole, form=form)) / clean == pytest.approx([0.5, 0.5], abs=0.25)
    robust = predicted(fit(whole, form=form, robust=True))
    assert robust == pytest.approx(clean, rel=0.15)
    assert predicted(update(fit(old, form=form, robust=True), new)) == pytest.approx(robust, rel=0.02)


@pytest.mark.parametrize("n_new", [1, 2, 5])
def test_a_wrong_row_counts_for_little_however_few_come_with_it(n_new: int) -> None:
    """A single row tells no scale, and two of which one is wrong a wrong one."""
    new = rows(3).iloc[[5, 6, 9, 10, 12][:n_new]].reset_index(drop=True)
    sound = predicted(update(fit(often(1), form="cached", robust=True), new))
    new.loc[0, ["gpu_energy_j", "runtime_s"]] /= 10
    whole = predicted(fit(pd.concat([often(1), new]), form="cached", robust=True))
    learnt = predicted(update(fit(often(1), form="cached", robust=True), new))
    assert learnt == pytest.approx(whole, rel=0.03)
    assert learnt == pytest.approx(sound, rel=0.06)
    plain = predicted(update(fit(often(1), form="cached"), new))
    assert (plain < 0.9 * sound).all()


def test_where_most_rows_are_new_what_has_changed_is_learnt() -> None:
    model = fit(rows(1), form="cached", robust=True)
    changed = [rows(seed, shift=1.3) for seed in range(2, 12)]
    assert predicted(update(model, pd.concat(changed))) == pytest.approx(1.3 * predicted(model), rel=0.05)


def test_a_robust_fit_of_two_phases_does_not_learn() -> None:
    (model,) = fit(rows(1), form="phases", robust=True)
    with pytest.raises(InputError, match=r"estimator = Huber's weights: a: the sums of its phases hold outliers"):
        update([model], rows(2))


def test_rows_that_are_not_sure_count_less_in_an_update_too() -> None:
    def sure(table: pd.DataFrame) -> pd.DataFrame:
        doubtful = table.index % 2 == 0
        energy = table["gpu_energy_j"].where(~doubtful, table["gpu_energy_j"] * 0.7)
        return table.assign(gpu_energy_j=energy, gpu_energy_std_j=energy * np.where(doubtful, 0.4, 0.01))

    old, new = sure(often(1)), sure(often(2))
    whole = fit(pd.concat([old, new]), form="cached")
    assert "rows weighted by their standard deviations" in whole[0].energy.estimator
    assert predicted(update(fit(old, form="cached"), new)) == pytest.approx(predicted(whole), rel=0.01)
    unweighted = fit(pd.concat([old, new]).drop(columns="gpu_energy_std_j"), form="cached")
    assert (predicted(unweighted) < 0.95 * predicted(whole)).all()


def test_learning_in_two_steps_is_learning_in_one() -> None:
    models = fit(rows(1), form="cached")
    assert update(models, rows(2), group_by="model_name") == update(models, rows(2))
    assert update(iter(models), rows(2)) == update(models, rows(2))
    (twice,) = update(update(models, rows(2)), rows(3))
    (once,) = update(models, pd.concat([rows(2), rows(3)]))
    np.testing.assert_allclose(twice.energy.coefficients, once.energy.coefficients, rtol=1e-6)


def test_what_is_saved_learns_as_what_is_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / "models.json"
    models = fit(rows(1))
    save_models(models, path)
    assert update(load_models(path), rows(2)) == update(models, rows(2))


def test_a_model_that_is_new_is_fitted() -> None:
    models = update(fit(rows(1), form="cached"), pd.concat([rows(2), rows(3, model_name="b")]))
    assert [model.model_name for model in models] == ["a", "b"]
    assert models[1].energy.n_obs == 16


def test_models_without_news_stay_as_they_are() -> None:
    models = fit(pd.concat([rows(1), rows(2, model_name="b")]), form="cached")
    assert update(models, rows(3))[1] == models[1]


def forgetful(fitted: Fit) -> Fit:
    return replace(fitted, moments=None)


def test_refusals() -> None:
    (model,) = fit(rows(1), form="cached")
    with pytest.raises(InputError, match="moments = missing: a was fitted by a version that kept no sums"):
        update([replace(model, energy=forgetful(model.energy))], rows(2))
    with pytest.raises(FitError, match="simulated = true: a: simulated rows for a model of real ones"):
        update([model], rows(2, simulated=True))
    other: WorkloadModel = replace(model, model_name="b", boundary="gpu+cpu")
    with pytest.raises(InputError, match=r"boundary = gpu, gpu\+cpu: models of different boundaries"):
        update([model, other], rows(2))


def test_a_term_at_zero_may_come_alive() -> None:
    flat = rows(1)
    # A little less at long contexts, so that it is a bound that holds their terms, and not rounding.
    flat["gpu_energy_j"] = 10.0 * flat["output_tokens"] * (1 - 1e-5 * flat["input_tokens"])
    (model,) = fit(flat, form="recompute")
    new = rows(2)
    new["gpu_energy_j"] = make_form("recompute").design(new["input_tokens"], new["output_tokens"]) @ [10.0, 0.0, 1e-5]
    (updated,), (whole,) = update([model], new), fit(pd.concat([flat, new]), form="recompute")
    assert (updated.energy.coefficients > 0).sum() > (model.energy.coefficients > 0).sum()
    np.testing.assert_allclose(updated.energy.predict(64, 64), whole.energy.predict(64, 64), rtol=1e-6)


@pytest.mark.parametrize("apart", [2, 3, 8, 100])
def test_standard_errors_are_right_where_lengths_lie_close_together(apart: int) -> None:
    """Against the formula in fractions: C = G⁻¹·G_old·C_old·G_old·G⁻¹, as the new rows are just what was predicted."""
    lengths = list(range(1000, 1000 + 4 * apart, apart))
    first = rows(1, lengths=lengths)
    exact = Cached().design(first["input_tokens"], first["output_tokens"]) @ [60.0, 0.2, 1e-5, 15.0, 0.01]
    first["gpu_energy_j"] = exact * np.random.default_rng(1).lognormal(sigma=1e-8, size=len(exact))
    (old,) = fit(first, form="cached")
    (new,) = update([old], first.assign(gpu_energy_j=old.energy.predict(first["input_tokens"], first["output_tokens"])))
    assert old.energy.moments is not None
    assert new.energy.moments is not None
    kept, grown = (fractions(each.moments.estimate.gram) for each in (old.energy, new.energy))
    weighed = inverse(grown) @ kept
    variances = np.diag(weighed @ fractions(old.energy.covariance) @ weighed.T)
    np.testing.assert_allclose(new.energy.std_errors, np.sqrt(variances.astype(float)), rtol=0.1)


def test_what_a_form_misses_at_the_same_lengths_is_missed_again() -> None:
    """No number of copies of rows that are off the form makes its coefficients surer."""
    campaign = rows(3)
    (old,) = fit(campaign, form="cached")
    new = old
    for _ in range(20):
        (new,) = update([new], campaign)
    for before, after in ((old.energy, new.energy), (old.runtime, new.runtime)):
        np.testing.assert_allclose(after.coefficients, before.coefficients, rtol=1e-6)
        assert (after.std_errors > 0.6 * before.std_errors).all()
        assert (after.std_errors <= before.std_errors).all()


def test_noise_averages_out() -> None:
    """Trials that miss their cells' means by chance, and these do not miss the form."""
    campaigns = [pd.concat([rows(300 + 3 * number + trial) for trial in range(3)]) for number in range(9)]
    models = fit(campaigns[0], form="cached")
    for campaign in campaigns[1:]:
        models = update(models, campaign)
    (whole,) = fit(pd.concat(campaigns), form="cached")
    ratio = models[0].energy.std_errors / whole.energy.std_errors
    assert (ratio > 0.6).all()
    assert (ratio < 1.6).all()


@pytest.mark.parametrize("each", [1, 16])
def test_few_rows_often_are_as_good_as_many_once(each: int) -> None:
    models = fit(pd.concat([rows(seed) for seed in range(3)]), form="cached")
    news = pd.concat([rows(seed) for seed in range(3, 6)])
    (once,), often = update(models, news), models
    for start in range(0, len(news), each):
        often = update(often, news.iloc[start : start + each])
    np.testing.assert_allclose(often[0].energy.coefficients, once.energy.coefficients, rtol=1e-6)
    ratio = often[0].energy.std_errors / once.energy.std_errors
    assert (ratio[~np.isnan(ratio)] > 0.6).all()
    assert (ratio[~np.isnan(ratio)] < 1.6).all()


def fractions(values: FloatArray) -> NDArray[np.object_]:
    return np.array([[Fraction(value) for value in row] for row in values.tolist()], dtype=object)


def inverse(matrix: NDArray[np.object_]) -> NDArray[np.object_]:
    """By Gauss and Jordan; a positive definite matrix needs no pivots."""
    n = len(matrix)
    both = np.hstack([matrix, fractions(np.eye(n))])
    for k in range(n):
        both[k] /= both[k, k]
        others = np.arange(n) != k
        both[others] -= np.outer(both[others, k], both[k])
    return both[:, n:]
