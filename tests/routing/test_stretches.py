"""Long arrays in stretches: every element once, in order, on any number of processors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.routing.stretches import in_stretches, stretches


@given(st.integers(0, 300), st.integers(1, 40))
def test_every_element_once_and_in_order(length: int, size: int) -> None:
    assert [number for cells in stretches(length, size) for number in range(length)[cells]] == list(range(length))
    assert in_stretches(lambda cells: (cells.start, cells.stop), length, size) == [
        (cells.start, cells.stop) for cells in stretches(length, size)
    ]


def test_what_fails_in_a_stretch_fails() -> None:
    def work(cells: slice) -> None:
        if cells.start == 50:
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        in_stretches(work, 100, 1)
