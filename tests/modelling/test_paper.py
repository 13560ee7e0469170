"""The published table, to its printed digits, and what it looks like on cells that were not seen.

All rows of the published grid are used, whatever their provenance, as the authors did.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import pytest

from llmpower.modelling import FORM_NAMES, WorkloadModel, fit
from llmpower.modelling.forms import make_form

Fitted = Callable[..., dict[str, WorkloadModel]]

# model, n, intercept, R², F, p, F of the runtime
TABLE = [
    ("Falcon-7B", 81, True, "0.964", "681.2", "2.53e-55", "651.1"),
    ("Falcon-40B", 81, False, "0.972", "904.5", "1.78e-60", "1073"),
    ("Llama-2-7B", 81, False, "0.973", "942.3", "3.76e-61", "1032"),
    ("Llama-2-13B", 81, False, "0.972", "887.8", "3.60e-60", "907.0"),
    ("Llama-2-70B", 80, False, "0.976", "1022", "6.66e-62", "1230"),
    ("Mistral-7B", 81, True, "0.975", "997.0", "1.70e-61", "1039"),
    ("Mixtral-8x7B", 81, True, "0.980", "1238", "4.97e-65", "3139"),
]


@pytest.fixture(scope="module")
def grid(paper_data: Path) -> pd.DataFrame:
    return pd.read_csv(paper_data / "paper" / "grid.csv")


@pytest.fixture(scope="module")
def fitted(grid: pd.DataFrame) -> Fitted:
    known: dict[tuple[str, bool], dict[str, WorkloadModel]] = {}

    def fit_once(form: str, intercept: bool = False) -> dict[str, WorkloadModel]:
        if (form, intercept) not in known:
            models = fit(grid, form=form, intercept=intercept)
            known[form, intercept] = {model.model_name: model for model in models}
        return known[form, intercept]

    return fit_once


@pytest.mark.parametrize(("name", "n", "intercept", "r_squared", "f", "p", "runtime_f"), TABLE)
def test_table(
    fitted: Fitted, name: str, n: int, intercept: bool, r_squared: str, f: str, p: str, runtime_f: str
) -> None:
    model = fitted("paper", intercept)[name]
    assert model.energy.n_obs == n
    assert f"{model.energy.r_squared:.3f}" == r_squared
    assert f"{model.energy.f_statistic:#.4g}".rstrip(".") == f
    assert f"{model.energy.f_pvalue:.2e}" == p
    assert f"{model.runtime.f_statistic:#.4g}".rstrip(".") == runtime_f


@pytest.mark.parametrize(
    ("name", "target", "printed"),
    [
        ("Llama-2-7B", "energy", ("-3.894991", "31.522735", "0.042712")),
        ("Llama-2-13B", "energy", ("-6.794323", "56.008311", "0.072861")),
        ("Llama-2-70B", "energy", ("-12.0294", "414.8197", "0.3145")),
        ("Llama-2-7B", "runtime", ("-0.010021", "0.083515", "0.000107")),
    ],
)
def test_coefficients(fitted: Fitted, name: str, target: str, printed: tuple[str, ...]) -> None:
    coefficients = getattr(fitted("paper")[name], target).coefficients
    digits = [len(number.partition(".")[2]) for number in printed]
    assert tuple(f"{value:.{d}f}" for value, d in zip(coefficients, digits, strict=True)) == printed


def test_measured_rows_alone_weaken_the_largest_model(grid: pd.DataFrame) -> None:
    rows = grid[(grid["model_name"] == "Llama-2-70B") & (grid["provenance"] == "measured")]
    (model,) = fit(rows, form="paper")
    assert f"{model.energy.r_squared:.3f}" == "0.946"
    assert f"{model.energy.f_statistic:.1f}" == "421.8"


def test_without_intercept_the_printed_r_squared_is_the_uncentred_one(fitted: Fitted) -> None:
    for model in fitted("paper").values():
        assert model.energy.r_squared == pytest.approx(model.energy.r_squared_uncentered)
        assert model.energy.r_squared_centered < model.energy.r_squared
    for model in fitted("paper", intercept=True).values():
        assert model.energy.r_squared == pytest.approx(model.energy.r_squared_centered)


def test_paper_form_fails_on_cells_it_has_not_seen(fitted: Fitted) -> None:
    heldout = [model.energy.heldout for model in fitted("paper").values()]
    assert median(errors.mape for errors in heldout) == pytest.approx(2.386, abs=5e-4)
    assert min(errors.mape for errors in heldout) == pytest.approx(1.085, abs=5e-4)
    assert max(errors.mape for errors in heldout) == pytest.approx(3.835, abs=5e-4)
    assert sorted(errors.negative_predictions for errors in heldout) == [5, 11, 13, 13, 13, 13, 17]
    assert all("at or below zero" in " ".join(model.energy.warnings) for model in fitted("paper").values())


def test_recompute_form_predicts_cells_it_has_not_seen(fitted: Fitted) -> None:
    energies = [model.energy for model in fitted("recompute").values()]
    assert median(energy.heldout.mape for energy in energies) == pytest.approx(0.0601, abs=5e-5)
    assert median(energy.r_squared_centered for energy in energies) == pytest.approx(0.9990, abs=5e-5)
    assert [energy.heldout.negative_predictions for energy in energies] == [0] * 7


@pytest.mark.parametrize("target", ["energy", "runtime"])
def test_auto_takes_the_least_held_out_error_or_fewer_terms(fitted: Fitted, target: str) -> None:
    for name, model in fitted("auto").items():
        chosen = getattr(model, target)
        others = {other.form: other.heldout for other in chosen.alternatives}
        assert chosen.heldout == getattr(fitted(chosen.form)[name], target).heldout
        assert set(others) | {chosen.form} == set(FORM_NAMES) - {"batched", "phases"}
        best = min(others, key=lambda form: others[form].mape)
        if chosen.heldout.mape > others[best].mape:
            assert len(chosen.terms) < len(make_form(best).terms)
            assert f"behind {best} with" in chosen.choice
        assert [other.form for other in chosen.alternatives][-2:] == ["paper", "paper+intercept"]


def test_measured_rows_meet_the_bars(grid: pd.DataFrame) -> None:
    models = fit(grid[grid["provenance"] == "measured"])
    energies, runtimes = [model.energy for model in models], [model.runtime for model in models]
    assert len(models) == 7
    assert median(energy.heldout.mape for energy in energies) <= 0.05
    assert max(energy.heldout.mape for energy in energies) <= 0.08
    assert min(energy.r_squared_centered for energy in energies) >= 0.98
    assert [fit.heldout.negative_predictions for fit in (*energies, *runtimes)] == [0] * 14
    assert median(runtime.heldout.mape for runtime in runtimes) <= 0.042
    assert median(energy.nested.mape for energy in energies) == pytest.approx(0.0505, abs=5e-5)
    assert max(energy.nested.mape for energy in energies) <= 0.08
    assert median(runtime.nested.mape for runtime in runtimes) <= 0.042
