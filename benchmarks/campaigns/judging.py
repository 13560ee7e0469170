"""How far off fits are on trials that they have not seen; all errors are MAPE as fractions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from campaigns.grids import LENGTHS, Grid, Real
from llmpower.exceptions import FitError
from llmpower.modelling import fit
from llmpower.modelling.regressing.weights import huber


@dataclass(frozen=True)
class Judged:
    """A campaign that was run for real, on the trials of its grid, none of which it has seen.

    Every trial of the grid is predicted without its cell, by the campaign's other trials (``error``) and by the grid's
    (``grid_error``); ``excess`` is the difference and ``excess_std`` its standard error, cell by cell. ``error_new``
    and ``grid_error_new`` are those on the cells that the campaign has not measured. ``noise`` is that of one trial
    about its cell's mean; ``drift`` by how much the campaign's model predicts more than the grid's trials cost, on
    average.
    """

    model_name: str
    together: bool
    trials: int
    grid_trials: int
    share: float
    form: str
    error: float
    grid_error: float
    excess: float
    excess_std: float
    error_new: float
    grid_error_new: float
    noise: float
    drift: float


def judge(real: Real) -> Judged:
    """The campaign's model on the grid's trials, beside the grid's own."""
    rows, chosen = real.grid.rows, real.chosen
    energy = fitted(chosen).energy
    ape, of_grid = _foretold(rows, chosen, robust=True), held_out(real.grid)
    lengths = pd.MultiIndex.from_frame(rows[LENGTHS])
    new = ~lengths.isin(pd.MultiIndex.from_frame(chosen[LENGTHS]))
    by_cell = pd.Series(ape - of_grid).groupby(lengths).mean()
    predicted = energy.predict(rows["input_tokens"], rows["output_tokens"])
    return Judged(
        model_name=real.grid.model_name,
        together=real.together,
        trials=len(chosen),
        grid_trials=len(rows),
        share=real.share,
        form=energy.form,
        error=float(ape.mean()),
        grid_error=float(of_grid.mean()),
        excess=float((ape - of_grid).mean()),
        excess_std=float(by_cell.std(ddof=1) / np.sqrt(len(by_cell))),
        error_new=float(ape[new].mean()),
        grid_error_new=float(of_grid[new].mean()),
        noise=float(fitted(rows, robust=False).energy.replicate_noise),
        drift=float(np.mean(predicted / rows["gpu_energy_j"].to_numpy()) - 1),
    )


def held_out(grid: Grid) -> Any:
    """|ŷ − y|/y of every trial, shape (n,), by the grid's form fitted to all other cells.

    With ``--robust`` or without it, whichever has the lower mean.
    """
    return min((_foretold(grid.rows, grid.rows, robust=robust) for robust in (False, True)), key=np.mean)


@dataclass(frozen=True)
class Errors:
    """MAPE of a campaign on all cells, those that it has measured left out of its fit in turn, and on the others.

    ``grid_new`` is the grid's own on the latter.
    """

    everywhere: float
    new: float
    grid_new: float


def errors(grid: Grid, of_grid: Any, labels: Sequence[Any], *, robust: bool = True) -> Errors:
    """Of the trials that a campaign was given; what cannot be fitted, or not without a cell, is off by all of it.

    ``of_grid`` is what :func:`held_out` gives.
    """
    lengths = pd.MultiIndex.from_frame(grid.rows[LENGTHS])
    new = ~lengths.isin(lengths[grid.rows.index.isin(labels)])
    share = len(lengths[new].unique()) / len(lengths.unique())
    error, own = 1.0, 1.0
    with suppress(FitError):
        energy = fitted(grid.rows.loc[labels], robust=robust).energy
        error = float(_ape(energy, grid.rows[new]).mean())
        own = 1.0 if energy.heldout.mape is None else float(energy.heldout.mape)
    return Errors(share * error + (1 - share) * own, error, float(of_grid[new].mean()))


def fitted(rows: pd.DataFrame, *, form: str = "auto", robust: bool = True) -> Any:
    """The only model of the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (model,) = fit(rows, form=form, robust=robust)
    return model


def anew(grid: Grid, labels: Sequence[Any]) -> float:
    """MAPE of a campaign on every trial of its grid, as a campaign that was run is judged (:func:`judge`).

    Of cells that it has measured, :func:`errors` takes its own trials, by which it has also chosen its form.
    """
    return float(_foretold(grid.rows, grid.rows.loc[labels], robust=True).mean())


def one_factor(grid: Grid, labels: Sequence[Any]) -> float:
    """The same for a campaign that knows the grid's own model but for one factor, by its trials of other cells.

    Least squares on relative error has c = Σux / Σux² with x = ŷ/y, and u are Huber's weights. What this is off by more
    than the grid is the price of noise with one number to learn; a form has several.
    """
    rows = grid.rows
    x = fitted(rows).energy.predict(rows["input_tokens"], rows["output_tokens"]) / rows["gpu_energy_j"].to_numpy()
    given, ape = rows.index.isin(labels), np.empty(len(rows))
    for numbers in rows.groupby(LENGTHS).indices.values():
        others = given.copy()
        others[numbers] = False
        ape[numbers] = np.abs(x[numbers] * _factor(x[others]) - 1)
    return float(ape.mean())


def _factor(x: Any) -> float:
    def least_squares(u: Any) -> float:
        return float(u @ x / (u @ x**2))

    return least_squares(huber(lambda u: 1 - least_squares(u) * x, np.ones(len(x))))


def _foretold(rows: pd.DataFrame, by: pd.DataFrame, *, robust: bool) -> Any:
    """|ŷ − y|/y of ``rows``, shape (n,), by a fit to ``by`` without what is of the same cell.

    What cannot be fitted, or not without a cell, is off by all of it.
    """
    ape, of = np.ones(len(rows)), by.groupby(LENGTHS).indices
    with suppress(FitError):
        whole = fitted(by, robust=robust).energy
        for cell, numbers in rows.groupby(LENGTHS).indices.items():
            with suppress(FitError):
                rest = by.drop(by.index[of[cell]]) if cell in of else None
                energy = whole if rest is None else fitted(rest, form=whole.label, robust=robust).energy
                ape[numbers] = _ape(energy, rows.iloc[numbers])
    return ape


def _ape(energy: Any, rows: pd.DataFrame) -> Any:
    return np.abs(energy.predict(rows["input_tokens"], rows["output_tokens"]) / rows["gpu_energy_j"].to_numpy() - 1)
