from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling.forms import make_form
from llmpower.profiling import Cell, Design, Joules, Readings, make_grid
from llmpower.profiling.design import NOISE, _Error

LENGTHS = (8, 32, 128, 512)
GRID = make_grid(LENGTHS, LENGTHS)
TRUE = {"p0": 2.0, "p1": 0.05, "p2": 1e-5, "d0": 0.8, "d1": 1e-4}


def rows_of(cells: tuple[Cell, ...], form: str = "cached") -> np.ndarray:
    return make_form(form).design([cell.input_tokens for cell in cells], [cell.output_tokens for cell in cells])


def true_j(cell: Cell) -> float:
    return float(rows_of((cell,))[0] @ list(TRUE.values()))


def readings_of(cells: tuple[Cell, ...], trials: list[Cell], noise: float = 0.0, seed: int = 0) -> dict[Cell, Readings]:
    random = np.random.default_rng(seed)
    readings = {cell: Readings() for cell in cells}
    for cell in trials:
        energy_j = true_j(cell) * (1 + noise * random.standard_normal())
        readings[cell].runtimes_s.append(energy_j / 100)
        readings[cell].joules.append(Joules(energy_j))
    return readings


def run(design: Design, noise: float = 0.03, left_out: tuple[Cell, ...] = ()) -> list[Cell]:
    trials: list[Cell] = []
    while wanted := design.wanted(readings_of(tuple(design.cells), trials, noise), left_out):
        assert len(wanted) == 1
        trials += wanted
        assert len(trials) <= 1000
    return trials


def test_the_ends_of_the_grid_and_its_middle_come_first() -> None:
    first = run(Design(GRID, rows_of(GRID)))[:5]
    assert set(first) >= {Cell(8, 8), Cell(8, 512), Cell(512, 8), Cell(512, 512)}
    assert first[-1].input_tokens in (32, 128) or any(cell.input_tokens in (32, 128) for cell in first)


def test_a_quarter_of_the_grids_trials_is_the_most() -> None:
    assert len(run(Design(GRID, rows_of(GRID), tolerance=0))) == 12 == len(GRID) * 3 // 4
    assert len(run(Design(GRID, rows_of(GRID), tolerance=0, budget=20))) == 20


def test_it_ends_before_where_the_rest_of_the_grid_would_teach_little() -> None:
    assert len(run(Design(GRID, rows_of(GRID), budget=200), noise=0.001)) < 30
    assert len(run(Design(GRID, rows_of(GRID), budget=200, tolerance=0.1))) < 12


def test_what_it_chooses_determines_the_form_better_than_as_many_cells_by_chance() -> None:
    trials = run(Design(GRID, rows_of(GRID), tolerance=0))
    R = rows_of(GRID) / np.array([[true_j(cell)] for cell in GRID])

    def variance(cells: list[Cell]) -> float:
        chosen = R[[GRID.index(cell) for cell in cells]]
        return float(np.einsum("gp,pq,gq->g", R, np.linalg.pinv(chosen.T @ chosen), R).mean())

    random = np.random.default_rng(0)
    by_chance = [variance([GRID[number] for number in random.integers(len(GRID), size=len(trials))]) for _ in range(50)]
    assert variance(trials) < np.median(by_chance) / 2


def test_trials_spread_over_cells_instead_of_gathering_where_the_variance_is_least() -> None:
    assert len(set(run(Design(GRID, rows_of(GRID), tolerance=0)))) >= 10


def test_the_same_trials_lead_to_the_same_next_one_and_another_seed_may_lead_elsewhere() -> None:
    assert run(Design(GRID, rows_of(GRID), seed=3)) == run(Design(GRID, rows_of(GRID), seed=3))
    assert len({tuple(run(Design(GRID, rows_of(GRID), seed=seed))) for seed in range(5)}) > 1


def test_cells_that_are_left_out_or_have_had_enough_are_not_wanted() -> None:
    without = (Cell(512, 512), Cell(8, 8))
    trials = run(Design(GRID, rows_of(GRID), tolerance=0, most_per_cell=1), left_out=without)
    assert not set(trials) & set(without)
    assert len(trials) == len(set(trials)) == 12
    assert Design(GRID, rows_of(GRID)).wanted(readings_of(GRID, []), GRID) == []


def test_runtimes_do_where_no_joules_are_known() -> None:
    readings = readings_of(GRID, list(GRID[:12]))
    for each in readings.values():
        each.joules[:] = [None] * len(each)
    assert Design(GRID, rows_of(GRID), budget=100, tolerance=0).wanted(readings) != []


def test_what_is_expected_is_what_is_left_of_the_budget() -> None:
    design = Design(GRID, rows_of(GRID), tolerance=0)
    assert sum(design.expected(readings_of(GRID, [])).values()) == pytest.approx(12)
    assert sum(design.most(readings_of(GRID, list(GRID[:5]))).values()) == pytest.approx(7)
    assert design.expected(readings_of(GRID, list(GRID))) == {}


@pytest.mark.parametrize("cells", [make_grid((8,), LENGTHS), make_grid((8, 16), (8, 16)), (Cell(8, 8),)])
def test_a_grid_that_cannot_tell_the_terms_apart_is_refused(cells: tuple[Cell, ...]) -> None:
    with pytest.raises(InputError, match="give more lengths"):
        Design(cells, rows_of(cells))


@given(st.data())
def test_the_error_by_traces_is_the_error_cell_by_cell(data: st.DataObject) -> None:
    """V as the formula has it, over every cell, against the traces of matrices of the form's size."""
    numbers = np.array(data.draw(st.lists(st.integers(0, len(GRID) - 1), min_size=8, max_size=14)))
    R = rows_of(GRID) / np.array([[true_j(cell)] for cell in GRID])
    R = R / np.linalg.norm(R, axis=0)
    if np.linalg.svd(R[numbers], compute_uv=False)[-1] < 0.01:
        return  # where some term can hardly be told, the ridge is seen
    K = Design(GRID, rows_of(GRID))._covariance()
    h = R @ np.linalg.pinv(R[numbers])
    noise = NOISE**2 * np.eye(len(numbers))
    K_TT = K[np.ix_(numbers, numbers)] + noise
    each = [h[g] @ K_TT @ h[g] - 2 * h[g] @ K[numbers, g] + K[g, g] for g in range(len(GRID))]
    error = _Error(R, K, NOISE)
    assert error.of(numbers) == pytest.approx(np.mean(each), rel=1e-3)
    assert error.with_one_more(numbers[:-1], numbers[-1:])[0] == pytest.approx(error.of(numbers), rel=1e-9)
