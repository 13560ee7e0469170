from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.attribution.division import Piece, divide

WIDTH_S = 0.001


def piece(duration_s: float, *levels_w: float, regime: str = "busy", edge: bool = True) -> Piece:
    return Piece(duration_s, levels_w, regime, WIDTH_S if edge else 0.0)  # type: ignore[arg-type]  # literal words


def test_a_span_that_begins_in_a_tick_gets_what_idle_leaves() -> None:
    idle_w, busy_w = 60.0, 400.0
    total_j = 0.03 * idle_w + 0.07 * busy_w
    first, last = divide([piece(0.03, 60, 60, 60, regime="idle"), piece(0.07)], total_j)
    assert first.energy_j == pytest.approx(0.03 * idle_w, rel=0.02)
    assert last.energy_j == pytest.approx(total_j)
    assert abs(first.energy_j - 0.03 * idle_w) < 2 * first.var_j2**0.5 < 1


def test_a_short_span_within_one_tick_is_the_total_less_idle() -> None:
    idle = [60.0] * 3
    total_j = 0.07 * 60 + 0.03 * 500
    used = divide(
        [piece(0.02, *idle, regime="idle"), piece(0.03, edge=False), piece(0.05, *idle, regime="idle")],
        total_j,
        60.0,
        60.0,
    )
    assert used[1].energy_j - used[0].energy_j == pytest.approx(0.03 * 500, rel=0.03)


@pytest.mark.parametrize("step", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_step_elsewhere_than_at_the_cut_is_found_by_the_total(step: float) -> None:
    a_w, b_w, cut = 500.0, 100.0, 0.4
    total_j = 0.1 * (a_w * step + b_w * (1 - step))
    true_j = 0.1 * (a_w * min(cut, step) + b_w * max(cut - step, 0))
    first, _ = divide([piece(0.04, a_w, a_w), piece(0.06, b_w, b_w)], total_j, a_w, b_w)
    assert first.energy_j == pytest.approx(true_j, abs=0.5)


def test_the_same_step_is_found_where_no_level_is_known() -> None:
    a_w, b_w, step = 500.0, 100.0, 0.3
    total_j = 0.1 * (a_w * step + b_w * (1 - step))
    used = divide([piece(0.05), piece(0.01, edge=False), piece(0.04)], total_j, a_w, b_w)
    assert used[0].energy_j == pytest.approx(0.03 * a_w + 0.02 * b_w, rel=0.01)


def test_a_tick_next_to_a_step_is_no_level() -> None:
    # The tick after stepped just behind its beginning: its mean, 126 W, is not what our short last piece drew.
    first, _ = divide([piece(0.096, 499, 502), piece(0.004, 126, 101)], 49.8, 499.0, 126.0)
    assert abs(first.energy_j - 0.096 * 500) < 2 * first.var_j2**0.5


lengths = st.floats(0.001, 0.1)
powers = st.floats(0, 1000)
pieces = st.lists(
    st.builds(
        Piece,
        lengths,
        st.lists(powers, max_size=3).map(tuple),
        st.sampled_from(["idle", "prefill", "busy"]),
        st.floats(0, 0.01),
    ),
    min_size=2,
    max_size=6,
)


@given(pieces=pieces, total_j=st.floats(0, 100), before_w=st.none() | powers, after_w=st.none() | powers)
def test_energy_never_goes_back_and_ends_at_the_total(
    pieces: list[Piece], total_j: float, before_w: float | None, after_w: float | None
) -> None:
    used = divide(pieces, total_j, before_w, after_w)
    energies_j = [0.0, *(each.energy_j for each in used)]
    assert len(used) == len(pieces)
    assert energies_j == sorted(energies_j)
    assert energies_j[-1] == pytest.approx(total_j, abs=1e-9)
    assert all(each.var_j2 >= 0 for each in used)
