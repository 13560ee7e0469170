from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.profiling.grid import Cell, make_grid, next_cell, parse_lengths


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("8", (8,)),
        ("8,16,32", (8, 16, 32)),
        (" 32, 8 ,8", (8, 32)),
        ("8..64", (8, 16, 32, 64)),
        ("7..7", (7,)),
        ("100,8..32", (8, 16, 32, 100)),
    ],
)
def test_lists_and_doubling_ranges(text: str, lengths: tuple[int, ...]) -> None:
    assert parse_lengths("--input-tokens", text) == lengths


@pytest.mark.parametrize("text", ["", "8,,16", "8..", "..8", "0", "-8", "+8", "8.5", "1_000", "٣", "9" * 30, "8...64"])
def test_what_is_no_length_is_refused_by_option_and_value(text: str) -> None:
    with pytest.raises(InputError, match="--input-tokens = ") as caught:
        parse_lengths("--input-tokens", text)
    assert caught.value.value == text


@pytest.mark.parametrize(("text", "advice"), [("8..100", "end at 64 or 128"), ("16..8", "end at 16 or 32")])
def test_a_range_that_doubling_does_not_end_is_refused_with_those_that_do(text: str, advice: str) -> None:
    with pytest.raises(InputError, match=advice):
        parse_lengths("--input-tokens", text)


@given(st.text(max_size=20))
def test_any_text_gives_lengths_or_an_input_error(text: str) -> None:
    try:
        lengths = parse_lengths("--input-tokens", text)
    except InputError:
        return
    assert lengths == tuple(sorted(set(lengths)))
    assert min(lengths) > 0


def test_the_grid_holds_every_combination_once() -> None:
    grid = make_grid((8, 16), (4, 4, 2), (1,))
    assert grid == (Cell(8, 2, 1), Cell(8, 4, 1), Cell(16, 2, 1), Cell(16, 4, 1))
    assert make_grid((8,), (4,), (1, 2), (1, 4))[1:] == (Cell(8, 4, 1, 4), Cell(8, 4, 2, 1), Cell(8, 4, 2, 4))


def test_a_cell_says_what_runs_side_by_side() -> None:
    assert (str(Cell(8, 4, 2)), Cell(8, 4, 2).sequences) == ("8×4 batch 2", 2)
    assert (str(Cell(8, 4, 1, 16)), Cell(8, 4, 1, 16).sequences) == ("8×4 batch 1, 16 at a time", 16)


def rounds(cells: tuple[Cell, ...], seed: int, number: int) -> list[list[Cell]]:
    trials: Counter[Cell] = Counter()
    order = []
    for _ in range(number * len(cells)):
        cell = next_cell(cells, trials, seed)
        trials[cell] += 1
        order.append(cell)
    return [order[start : start + len(cells)] for start in range(0, len(order), len(cells))]


@given(st.integers())
def test_every_round_has_every_cell_once(seed: int) -> None:
    cells = make_grid((8, 16), (4, 8), (1, 2))
    assert all(sorted(one) == list(cells) for one in rounds(cells, seed, 3))


def test_the_order_differs_between_rounds_and_seeds_and_not_between_runs() -> None:
    cells = make_grid((8, 16, 32), (4, 8, 16))
    first, second = rounds(cells, 1, 2)
    assert first != second
    assert [first, second] == rounds(cells, 1, 2)
    assert first != rounds(cells, 2, 1)[0]
    assert first != list(cells)


def test_a_cell_that_has_had_enough_holds_nobody_up() -> None:
    a, b = Cell(1, 1, 1), Cell(2, 1, 1)
    assert next_cell([b], {a: 3, b: 9}, 0) == b
