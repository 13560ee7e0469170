from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.attribution.series import IDLE, Regime
from llmpower.attribution.ticks.division import Used, divide
from llmpower.attribution.ticks.tick import Around, Level, Piece

WIDTH_S = 0.001
BUSY, PROMPT, OTHER = Regime("busy"), Regime("prefill"), Regime("busy", ("another model",))


def piece(duration_s: float, power_w: float | None = None, regime: Regime = BUSY, *, edge: bool = True) -> Piece:
    level = None if power_w is None else Level(power_w, 0.007 * power_w, 0.01 * power_w)
    return Piece(duration_s, regime, level, WIDTH_S if edge else 0.0)


def used(pieces: list[Piece], total_j: float, around: Around | None = None) -> list[Used]:
    return divide(pieces, total_j, around or Around()).used


def test_a_span_that_begins_in_a_tick_gets_what_idle_leaves() -> None:
    idle_w, busy_w = 60.0, 400.0
    total_j = 0.03 * idle_w + 0.07 * busy_w
    first, last = used([piece(0.03, 60, IDLE), piece(0.07)], total_j)
    assert first.energy_j == pytest.approx(0.03 * idle_w, rel=0.001)
    assert last.energy_j == pytest.approx(total_j)
    # Idle power is known to a percent or so, and the edge to a millisecond: that is all that is uncertain of the span.
    assert 0.02 < first.var_j2**0.5 < 0.1


def test_a_short_span_within_one_tick_is_the_total_less_idle() -> None:
    total_j = 0.07 * 60 + 0.03 * 500
    pieces = [piece(0.02, 60, IDLE), piece(0.03, edge=False), piece(0.05, 60, IDLE)]
    found = used(pieces, total_j, Around(60.0, 60.0))
    assert found[1].energy_j - found[0].energy_j == pytest.approx(0.03 * 500, rel=0.001)


def test_what_was_not_foretold_makes_work_unsure_and_not_idle_time() -> None:
    usual, odd = (used([piece(0.03, 60, IDLE), piece(0.07, 400)], total_j)[0] for total_j in (29.8, 45.0))
    assert odd.var_j2 == pytest.approx(usual.var_j2, rel=0.1)
    # Where one kind of work ends and another begins, nobody knows which of them it was.
    usual, odd = (used([piece(0.03, 60, OTHER), piece(0.07, 400)], total_j)[0] for total_j in (29.8, 45.0))
    assert odd.var_j2 > 10 * usual.var_j2


def test_no_piece_draws_less_than_the_device_at_least_does() -> None:
    # The work before and after went on drawing 320 W by what is known; the total says that it did not, all the while.
    pieces = [piece(0.02, 320), piece(0.05, 60, OTHER, edge=False), piece(0.03, 320)]
    first, second, third = used(pieces, 9.0, Around(320, 320, least_w=30.0))
    powers_w = [first.energy_j / 0.02, (second.energy_j - first.energy_j) / 0.05]
    assert min(powers_w) > 30 - 1e-9
    assert third.energy_j == pytest.approx(9.0)
    # A tick that drew less than ever before is divided evenly.
    first, second, third = used(pieces, 2.0, Around(320, 320, least_w=30.0))
    assert [first.energy_j, second.energy_j, third.energy_j] == pytest.approx([0.4, 1.4, 2.0])


def test_idle_time_that_is_known_to_draw_little_is_believed_over_what_was_idle_before() -> None:
    # Another program's work, which nobody reported, passed for idle time until now.
    idle_j, busy_j = 0.17 * 20, 0.13 * 680
    first, _ = used([piece(0.17, 20, IDLE), piece(0.13)], idle_j + busy_j, Around(20, 680, least_w=90.0))
    assert first.energy_j == pytest.approx(idle_j, rel=0.01)


def test_a_short_prompt_gets_what_is_usual_for_prompts_and_the_total_confirms_it() -> None:
    pieces = [piece(0.03, 200), piece(0.01, 350, PROMPT, edge=False), piece(0.06, 200)]
    division = divide(pieces, 0.09 * 200 + 0.01 * 350, Around())
    assert division.used[1].energy_j - division.used[0].energy_j == pytest.approx(3.5, rel=0.001)
    assert division.surprise == pytest.approx(0, abs=1e-6)
    assert divide(pieces, 0.09 * 200 + 0.01 * 1000, Around()).surprise == pytest.approx(400, rel=0.99)


@pytest.mark.parametrize("step", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_step_elsewhere_than_at_the_cut_is_found_by_the_total(step: float) -> None:
    a_w, b_w, cut = 500.0, 100.0, 0.4
    total_j = 0.1 * (a_w * step + b_w * (1 - step))
    true_j = 0.1 * (a_w * min(cut, step) + b_w * max(cut - step, 0))
    division = divide([piece(0.04, a_w), piece(0.06, b_w)], total_j, Around(a_w, b_w, elsewhere=0.5))
    first = division.used[0]
    assert abs(first.energy_j - true_j) < 2.5 * first.var_j2**0.5
    assert first.var_j2**0.5 < 0.5
    assert division.elsewhere is not None
    assert division.elsewhere > 0.9


def test_a_step_at_the_cut_is_told_from_one_elsewhere() -> None:
    division = divide([piece(0.04, 500), piece(0.06, 100)], 0.04 * 500 + 0.06 * 100, Around(500, 100))
    assert division.used[0].energy_j == pytest.approx(20, abs=0.2)
    assert division.elsewhere is not None
    assert division.elsewhere < 0.1


def test_between_different_kinds_of_work_a_step_is_where_the_work_changes() -> None:
    division = divide([piece(0.04, 500), piece(0.06, 100, OTHER)], 0.05 * 500 + 0.05 * 100, Around(500, 100))
    assert division.elsewhere is None


def test_the_same_step_is_found_where_no_level_is_known() -> None:
    a_w, b_w, step = 500.0, 100.0, 0.3
    total_j = 0.1 * (a_w * step + b_w * (1 - step))
    found = used([piece(0.05), piece(0.01, edge=False), piece(0.04)], total_j, Around(a_w, b_w))
    assert found[0].energy_j == pytest.approx(0.03 * a_w + 0.02 * b_w, rel=0.01)


def test_what_known_pieces_are_unsure_of_the_unknown_take_up() -> None:
    vague = Piece(0.05, IDLE, Level(100, 20, 1), 0.0)
    found = used([vague, piece(0.05)], 0.05 * 100 + 0.05 * 100)
    # 20 W over 50 ms, whatever the unknown piece claims by itself.
    assert found[0].var_j2 ** 0.5 == pytest.approx(1.0, rel=0.15)


lengths = st.floats(0.001, 0.1)
powers = st.floats(0, 1000)
pieces = st.lists(
    st.builds(
        Piece,
        lengths,
        st.sampled_from([IDLE, PROMPT, BUSY]),
        st.none() | st.builds(Level, powers, st.floats(0, 300), st.floats(0, 100)),
        st.floats(0, 0.01),
    ),
    min_size=2,
    max_size=6,
)
arounds = st.builds(
    Around,
    st.none() | powers,
    st.none() | powers,
    st.floats(0.002, 0.1),
    st.floats(0, 1),
    st.floats(0.02, 0.98),
    st.floats(0, 300),
)


@given(pieces=pieces, total_j=st.floats(0, 100), around=arounds)
def test_energy_never_goes_back_and_ends_at_the_total(pieces: list[Piece], total_j: float, around: Around) -> None:
    division = divide(pieces, total_j, around)
    energies_j = [0.0, *(each.energy_j for each in division.used)]
    assert len(division.used) == len(pieces)
    assert energies_j == sorted(energies_j)
    assert energies_j[-1] == pytest.approx(total_j, abs=1e-9)
    variances_j2 = [each.before_j2 for each in division.used]
    assert variances_j2 == sorted(variances_j2)
    assert variances_j2[-1] == pytest.approx(division.used[0].within_j2)
    assert all(each.var_j2 >= 0 for each in division.used)
    assert division.elsewhere is None or 0 <= division.elsewhere <= 1
