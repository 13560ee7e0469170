"""Which cell teaches the model most: cells chosen for the form that will be fitted to them.

A grid spends most of its trials where the form has long been pinned down. With r_g = x_g/ŷ_g the row of cell g in the
form's design matrix, relative to what it is predicted to cost, least squares on relative error estimates the
coefficients from the trials T as (R_TᵀR_T)⁻¹R_Tᵀ·(1 + error), so the relative error of a prediction at g is

    h_gᵀ(δ_T + ε_T) − δ_g,   h_gᵀ = r_gᵀ (R_TᵀR_T)⁻¹ R_Tᵀ

where ε is a trial's noise and δ what the form cannot say of a cell. The next trial is the one that makes the mean of
its square over all cells of the grid smallest (I-optimal, with the mean squared error in place of the variance):

    V(T) = 1/G Σ_g [ h_gᵀ (K_TT + σ²·1) h_g − 2 h_gᵀ K_Tg + K_gg ]
    K_cd = τ² · exp(−‖u_c − u_d‖/ℓ)          u: logarithms of a cell's lengths, each axis scaled to 0..1

K says that neighbours are misjudged alike. Without it (D- or I-optimality as in textbooks) trials gather at the
extremes, where a form that is only nearly right is wrong in the same way each time, and the middle is predicted badly.
See Sacks, Welch, Mitchell and Wynn, Statistical Science 4 (1989) 409, for such designs; `benchmarks/campaign.py` for
what they save here.

It stops when the whole grid, each cell as often as the stopping rule's minimum, would lower √V by no more than
``tolerance``, or when the budget is used up. τ and σ are scaled so that they explain the residuals seen so far.
"""

from __future__ import annotations

import math
import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.phrases import plural
from llmpower.profiling.grid import Cell
from llmpower.profiling.least_squares import FloatArray, relative_fit, unit_columns
from llmpower.profiling.readings import Readings

MISFIT, NOISE, REACH, PRIOR = 0.05, 0.03, 0.5, 10
"""τ0, σ0, ℓ and ν: a good form is off by 5 %, replicates by 3 %, and it takes ten residuals to say otherwise."""

SHARE = 0.25
"""Of the whole grid's trials, as a budget."""

TOLERANCE = 0.0025

_RIDGE = 1e-9
_RANK = 1e-9
_DRAW = 1e-3
_LEAST = 1e-3


@dataclass(frozen=True)
class Design:
    """The cells of a grid and how a form sees them.

    Args:
        cells: the candidates.
        rows: the form's design matrix for all sequences of a cell's trial, shape (n_cells, n_terms).
        seed: decides between cells that are as good as each other, and the order of the first ones.
        per_cell: trials that the whole grid would give each cell.
        most_per_cell: trials of one cell, at most.
        budget: trials, at most; by default a quarter of the whole grid's, and enough to determine the form.
        tolerance: what the whole grid may still be better by, as root mean square of the relative error.

    Raises:
        InputError: the cells cannot tell the form's terms apart.
    """

    cells: Sequence[Cell]
    rows: FloatArray
    seed: int = 0
    per_cell: int = 3
    most_per_cell: int = 25
    budget: int | None = None
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        scaled = unit_columns(self.rows / np.linalg.norm(self.rows, axis=1, keepdims=True))
        singular = np.linalg.svd(scaled, compute_uv=False)
        if len(self.cells) < self.rows.shape[1] or singular[-1] < _RANK * singular[0]:
            advice = f"its cells cannot tell the {self.rows.shape[1]} terms of the form apart; give more lengths"
            raise InputError("--cells chosen", plural(len(self.cells), "cell"), advice)

    @property
    def needs_energy(self) -> bool:
        """It decides by joules."""
        return True

    @property
    def limit(self) -> int:
        """Trials at most."""
        if self.budget is not None:
            return self.budget
        return max(int(SHARE * self.per_cell * len(self.cells)), int(self.rows.shape[1]) + 1)

    def wanted(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> list[Cell]:
        """The cell of the next trial, alone in a list; an empty list when there have been enough."""
        done = [len(readings[cell]) for cell in self.cells]
        trials = np.repeat(np.arange(len(self.cells)), done)
        there = np.array([number for number, cell in enumerate(self.cells) if cell not in left_out], dtype=np.intp)
        candidates = np.array([number for number in there if done[number] < self.most_per_cell], dtype=np.intp)
        if len(trials) >= self.limit or not len(candidates):
            return []
        for first in self._first():
            if first in candidates and not done[first]:
                return [self.cells[first]]
        found = self._fitted(readings)
        if found is None:
            return []
        ŷ, residual = found
        scale = residual / math.hypot(MISFIT, NOISE)
        error = _Error(unit_columns(self.rows / ŷ[:, np.newaxis]), self._covariance() * scale**2, NOISE * scale)
        gain = math.sqrt(error.of(trials)) - math.sqrt(error.of(np.repeat(there, self.per_cell)))
        if gain <= self.tolerance:
            return []
        V = error.with_one_more(trials, candidates)
        # Equals are drawn by the seed and the number of trials, so that a resumed campaign draws the same.
        draw = np.random.default_rng([abs(self.seed), len(trials)]).random(len(V))
        return [self.cells[candidates[np.argmin(V * (1 + _DRAW * draw))]]]

    def choose(self, wanted: Sequence[Cell], _readings: Mapping[Cell, Readings]) -> Cell:
        """There is one."""
        return wanted[0]

    def expected(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """What is left of the budget; on which cells is not known, so each has the same part of it."""
        if not self.wanted(readings, left_out):
            return {}
        there = [cell for cell in self.cells if cell not in left_out]
        left = self.limit - sum(len(readings[cell]) for cell in self.cells)
        return dict.fromkeys(there, left / len(there))

    def most(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """The same: the budget is what is expected."""
        return self.expected(readings, left_out)

    def _first(self) -> list[int]:
        """The corners of the grid and its middle, in an order of the seed: nothing is known before them."""
        u = self._places()
        axes = [axis for axis in range(u.shape[1]) if np.ptp(u[:, axis]) > 0]
        ends = [np.zeros(u.shape[1])]
        for axis in axes:
            ends += [end + np.eye(u.shape[1])[axis] for end in ends]
        ends.append(np.full(u.shape[1], 0.5))
        chosen = dict.fromkeys(int(np.argmin(((u - end) ** 2).sum(axis=1))) for end in ends)
        order = list(chosen)
        random.Random(f"{self.seed} first").shuffle(order)
        # More corners than half of the budget would leave nothing to choose: with four axes there are seventeen.
        return order[: max(self.limit // 2, self.rows.shape[1])]

    def _places(self) -> FloatArray:
        """U of shape (n_cells, 4): logarithms of the lengths, each axis scaled to 0..1."""
        lengths = [(cell.input_tokens, cell.output_tokens, cell.batch_size, cell.concurrency) for cell in self.cells]
        u = np.log(np.array(lengths, dtype=np.float64))
        width = np.ptp(u, axis=0)
        scaled: FloatArray = (u - u.min(axis=0)) / np.where(width > 0, width, 1)
        return scaled

    def _covariance(self) -> FloatArray:
        u = self._places()
        apart = np.linalg.norm(u[:, np.newaxis] - u[np.newaxis], axis=-1)
        covariance: FloatArray = MISFIT**2 * np.exp(-apart / REACH)
        return covariance

    def _fitted(self, readings: Mapping[Cell, Readings]) -> tuple[FloatArray, float] | None:
        """ŷ of all cells [J, or s where no joules are known], and √(τ² + σ²) by the relative residuals.

            τ² + σ² = (ν·(τ0² + σ0²) + Σ (ŷ/y − 1)²) / (ν + n − p)

        A few residuals may be small by chance; they begin with the weight of n − p beside the prior's ν. ``None``
        before the first trial.
        """
        costs = [readings[cell].energies_j for cell in self.cells]
        if not any(costs):
            costs = [readings[cell].runtimes_s for cell in self.cells]
        numbers = np.repeat(np.arange(len(costs)), [len(each) for each in costs])
        if not len(numbers):
            return None
        y = np.concatenate([each for each in costs if each])
        β = relative_fit(self.rows[numbers], y)
        # A cell that would cost nothing by what is known so far would weigh infinitely.
        ŷ = np.maximum(self.rows @ β, _LEAST * y.min())
        squares = PRIOR * (MISFIT**2 + NOISE**2) + float(np.sum((ŷ[numbers] / y - 1) ** 2))
        return ŷ, math.sqrt(squares / (PRIOR + max(len(y) - self.rows.shape[1], 0)))


class _Error:
    """V of any set of trials. ``R`` has shape (n_cells, n_terms), ``K`` (n_cells, n_cells); ``noise`` is σ."""

    def __init__(self, R: FloatArray, K: FloatArray, noise: float) -> None:
        self._R, self._K, self._noise = R, K, noise
        self._G = R.T @ R / len(R)
        self._KR = K @ R / len(R)
        self._K_mean = float(np.diag(K).mean())

    def of(self, trials: NDArray[np.intp]) -> float:
        """V of these trials, cells by number."""
        return float(self._of_each(trials[np.newaxis])[0])

    def with_one_more(self, trials: NDArray[np.intp], candidates: NDArray[np.intp]) -> FloatArray:
        """V of the trials and one of each candidate, shape of ``candidates``."""
        return self._of_each(np.column_stack([np.tile(trials, (len(candidates), 1)), candidates]))

    def _of_each(self, T: NDArray[np.intp]) -> FloatArray:
        """V of sets of trials, shape (n_sets, n_trials), by traces of matrices of the size of the form."""
        R_T = self._R[T]
        n_terms = R_T.shape[2]
        A = np.linalg.solve(np.einsum("snp,snq->spq", R_T, R_T) + _RIDGE * np.eye(n_terms), np.swapaxes(R_T, 1, 2))
        K_TT = self._K[T[:, :, np.newaxis], T[:, np.newaxis, :]] + self._noise**2 * np.eye(T.shape[1])
        spread = np.einsum("spn,spn->s", self._G @ A, A @ K_TT)
        V: FloatArray = spread - 2 * np.einsum("spn,snp->s", A, self._KR[T]) + self._K_mean
        return np.maximum(V, 0.0)
