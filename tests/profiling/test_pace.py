from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.profiling import Cell
from llmpower.profiling.pace import Pace

cells = st.builds(Cell, st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 64), st.integers(1, 8))


def test_nothing_is_expected_before_the_first_run() -> None:
    assert Pace().expected_s([Cell(8, 8)]) is None
    assert Pace().expected_s([]) == []


def test_two_probes_tell_a_prompt_from_a_step() -> None:
    pace = Pace()
    for cell, runtime_s in ((Cell(8, 1), 0.1), (Cell(8, 8), 0.8), (Cell(2048, 1), 1.1), (Cell(2048, 8), 1.8)):
        pace.saw(cell, runtime_s)
    found = pace.expected_s([Cell(8, 512), Cell(2048, 64)])
    assert found == [pytest.approx(51.2, rel=0.05), pytest.approx(7.4, rel=0.05)]


def test_sequences_side_by_side_share_their_steps_and_not_their_prompts() -> None:
    pace = Pace()
    for cell in (Cell(100, 1), Cell(100, 50), Cell(1000, 1), Cell(1000, 50), Cell(100, 50, 4), Cell(1000, 50, 1, 8)):
        pace.saw(cell, 0.001 * cell.sequences * cell.input_tokens + 0.02 * cell.output_tokens)
    assert pace.expected_s([Cell(500, 20, 2, 2)]) == [pytest.approx(2.4, rel=0.01)]


def test_where_runtimes_scatter_their_sum_is_expected_and_not_less() -> None:
    pace = Pace()
    for number, τout in enumerate((16, 64, 256) * 4):
        pace.saw(Cell(8, τout), 0.1 * τout * (0.5, 1.5)[number % 2])
    found = pace.expected_s([Cell(8, 16), Cell(8, 64), Cell(8, 256)])
    assert found is not None
    assert sum(found) == pytest.approx(0.1 * (16 + 64 + 256), rel=1e-6)


@given(st.lists(st.tuples(cells, st.floats(1e-3, 1e4)), min_size=1, max_size=8), cells)
def test_whatever_was_seen_a_trial_takes_some_time(seen: list[tuple[Cell, float]], asked: Cell) -> None:
    pace = Pace()
    for cell, runtime_s in seen:
        pace.saw(cell, runtime_s)
    found = pace.expected_s([asked])
    assert found is not None
    assert 0 <= found[0] < float("inf")
