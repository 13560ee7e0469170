"""The held-out error of a form that is chosen: what choosing and fitting without each cell give, from the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import Fit, HeldOut, fit, update
from llmpower.modelling.fitted.models import NESTED
from llmpower.modelling.fitting import forms_of
from llmpower.modelling.forms import Cached, RecomputeCall
from llmpower.modelling.judging.choosing import Candidate, choose
from llmpower.modelling.judging.heldout import predict_held_out
from llmpower.modelling.judging.nesting import FEW_CELLS, MOST_CELLS, nested
from llmpower.modelling.regressing.designs import Designs
from llmpower.modelling.regressing.regression import regress
from llmpower.modelling.rows.grouping import group_rows
from llmpower.modelling.rows.groups import Group

LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def measured(n_cells: int, seed: int, *, trials: int = 2, sigma: float = 0.1) -> pd.DataFrame:
    """Some cells of the grid, whose constant a call is small enough for two forms to compete."""
    generator = np.random.default_rng(seed)
    grid = np.array([(τin, τout) for τin in LENGTHS for τout in LENGTHS])
    τin, τout = np.repeat(generator.choice(grid, n_cells, replace=False), trials, axis=0).T
    joules = RecomputeCall().design(τin, τout) @ [10, 4, 0.03, 4e-6]
    joules *= np.repeat(generator.lognormal(sigma=sigma, size=n_cells), trials) * generator.lognormal(0, 0.02, len(τin))
    columns = {"input_tokens": τin, "output_tokens": τout, "runtime_s": joules / 300, "gpu_energy_j": joules}
    return pd.DataFrame({"model_name": "a", **columns})


def cells_of(rows: pd.DataFrame) -> Any:
    return rows.groupby(["input_tokens", "output_tokens"], sort=False).ngroup().to_numpy()


def from_rows(rows: pd.DataFrame, **options: Any) -> tuple[np.ndarray, set[str]]:
    """|ŷ − y|/y of each row by a fit to all other cells, and the forms that these chose."""
    cells, errors, forms = cells_of(rows), np.empty(len(rows)), set()
    for cell in np.unique(cells):
        out = cells == cell
        (model,) = fit(rows[~out], **options)
        row = rows[out].iloc[0]
        ŷ = float(model.energy.predict(row.input_tokens, row.output_tokens))
        errors[out] = abs(ŷ / rows.gpu_energy_j[out] - 1)
        forms.add(model.energy.label)
    return errors, forms


def with_phases(rows: pd.DataFrame) -> pd.DataFrame:
    """With a KV cache, prefill and decode apart, neither of them known of the first cell."""
    noise = np.random.default_rng(1).lognormal(0, 0.15, (2, len(rows)))
    design = Cached().design(rows.input_tokens, rows.output_tokens)
    prefill, decode = design @ [20, 0.2, 1e-5, 0, 0] * noise[0], design @ [0, 0, 0, 4, 0.002] * noise[1]
    known = cells_of(rows) > 0
    parts = {"prefill_energy_j": np.where(known, prefill, np.nan), "decode_energy_j": np.where(known, decode, np.nan)}
    return rows.assign(gpu_energy_j=prefill + decode, **parts)


@pytest.mark.parametrize("match_total", [False, True])
@pytest.mark.parametrize(
    ("n_cells", "seed", "phased"), [(12, 1, False), (20, 5, False), (FEW_CELLS, 4, False), (14, 1, True)]
)
def test_few_cells_are_each_chosen_for_and_fitted_without(
    n_cells: int, seed: int, phased: bool, match_total: bool
) -> None:
    rows = measured(n_cells, seed)
    if phased:
        rows = with_phases(rows)
    errors, forms = from_rows(rows, match_total=match_total)
    (model,) = fit(rows, match_total=match_total)
    assert len(forms) > 1, "nothing is told by forms that all agree"
    found = model.energy.nested
    assert found is not None
    assert found.scheme == NESTED
    assert found.mape == pytest.approx(errors.mean(), rel=1e-6)
    assert found.median_ape == pytest.approx(np.median(errors), rel=1e-6)
    assert found.worst_ape == pytest.approx(errors.max(), rel=1e-6)


def candidates_of(group: Group) -> list[Candidate]:
    """Each form with the errors that fitting it gives."""
    found = []
    for form in forms_of("auto")[:-2]:
        regression = regress(group, group.energy, form, designs=Designs(group))
        held_out = predict_held_out(regression)
        assert held_out is not None
        predicted, folds = held_out
        errors = abs(predicted[group.cells] / group.energy.y - 1)
        heldout = HeldOut(float(errors.mean()), None, None, int((predicted <= 0).sum()))
        found.append(Candidate(regression, heldout, errors, folds))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_of_many_cells_each_is_chosen_for_by_the_errors_on_the_others(seed: int) -> None:
    (group,) = group_rows(measured(FEW_CELLS + 1 + 5 * seed, seed, sigma=0.15), None, "gpu")
    candidates, errors = candidates_of(group), np.empty(len(group.cells))
    for cell in range(group.n_cells):
        kept = group.cells != cell
        others = group.cells[kept] - (group.cells[kept] > cell)
        narrowed = []
        for candidate in candidates:
            negative = np.delete(candidate.regression.predict(candidate.folds) <= 0, cell).sum()
            mape = float(candidate.errors[kept].mean())
            heldout = replace(candidate.heldout, mape=mape, negative_predictions=int(negative))
            narrowed.append(replace(candidate, heldout=heldout, errors=candidate.errors[kept]))
        chosen = candidates[narrowed.index(choose(narrowed, others)[0])]
        errors[~kept] = chosen.errors[~kept]
    found = nested(candidates, group, group.energy.y)
    assert found is not None
    assert found.mape == pytest.approx(errors.mean(), rel=1e-9)
    assert found.worst_ape == pytest.approx(errors.max(), rel=1e-9)


def test_choosing_without_the_cell_is_less_sure_of_itself() -> None:
    fits = [model.energy for seed in range(20) for model in fit(measured(16, seed))]
    plain, within = (np.array([float(f.mape) for f in kind]) for kind in ([f.heldout for f in fits], _nested(fits)))
    assert (within - plain).mean() > 0.002


def _nested(fits: list[Fit]) -> list[HeldOut]:
    return [found.nested for found in fits if found.nested is not None]


def test_nothing_is_said_where_nothing_was_chosen() -> None:
    (model,) = fit(measured(20, 1), form="recompute")
    assert model.energy.nested is None


def test_nothing_is_said_of_more_cells_than_are_asked() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.choice(np.array([(i, o) for i in range(1, 40) for o in range(1, 40)]), MOST_CELLS + 1, False)
    joules = RecomputeCall().design(*lengths.T) @ [10, 4, 0.03, 4e-6]
    columns = {"input_tokens": lengths.T[0], "output_tokens": lengths.T[1], "gpu_energy_j": joules}
    rows = pd.DataFrame({"model_name": "a", "runtime_s": joules / 300, **columns})
    assert fit(rows)[0].energy.nested is None
    assert fit(rows[1:])[0].energy.nested is not None


def test_what_was_said_does_not_outlive_an_update() -> None:
    rows = measured(20, 1)
    models = fit(rows)
    assert models[0].energy.nested is not None
    assert update(models, rows)[0].energy.nested is None


def test_cells_that_others_cannot_do_without_are_no_failure() -> None:
    """Joules known to 1 in 100,000 beside some known to half: what two cells leave cannot be solved in floats."""
    columns = ("input_tokens", "output_tokens", "gpu_energy_j", "runtime_s", "gpu_energy_std_j")
    rows = [
        (3, 68, 0.0005, 0.000706, 9e-08),
        (11, 4668, 0.03, 0.0347, 0.0006),
        (40, 130, 0.003, 0.00377, 0.0004),
        (6, 1, 0.0003, 0.000431, 6e-07),
        (40, 1, 0.002, 0.00283, 3e-08),
        (6, 130, 0.001, 0.00137, 0.001),
        (11, 4668, 0.03, 0.0347, 7e-07),
        (6, 1, 0.0003, 0.000431, 1e-08),
        (11, 4668, 0.03, 0.0347, 0.001),
    ]
    (model,) = fit(pd.DataFrame(rows, columns=columns).assign(model_name="m"))
    assert np.isfinite(model.energy.coefficients).all()
    assert model.energy.heldout.mape is None or np.isfinite(model.energy.heldout.mape)
