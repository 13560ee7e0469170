"""What several devices say of one span, added up."""

from __future__ import annotations

from math import hypot

import pytest

from llmpower.attribution.entry import Entry
from llmpower.attribution.joules import add_up, worst
from llmpower.types import Quality


def test_devices_err_independently_but_for_the_share_that_one_rule_gives_of_all() -> None:
    first = Entry(prefill_j=10.0, decode_j=20.0, idle_j=5.0, var_j2=9.0, share_std_j=1.0)
    second = Entry(prefill_j=1.0, decode_j=2.0, idle_j=1.0, var_j2=16.0, share_std_j=2.0)
    found = add_up([first, second])
    assert (found.energy_j, found.prefill_j, found.decode_j, found.idle_j) == (33.0, 11.0, 22.0, 6.0)
    assert found.std_j == pytest.approx(hypot(3.0, 4.0, 1.0 + 2.0))


def test_a_sum_is_known_where_all_of_it_is_and_idle_by_itself() -> None:
    known, unknown = Entry(decode_j=1.0), Entry(decode_j=1.0, known=False)
    assert not add_up([]).known
    assert not add_up([known, None]).known
    assert not add_up([known, unknown]).known
    found = add_up([known, Entry(decode_j=1.0, idle_j=None)])
    assert (found.energy_j, found.idle_j) == (2.0, None)


@pytest.mark.parametrize(
    ("qualities", "least"),
    [
        (["measured", "modelled", "interpolated"], "modelled"),
        (["measured", "interpolated"], "interpolated"),
        ([], "unavailable"),
    ],
)
def test_a_figure_is_as_good_as_the_worst_in_it(qualities: list[Quality], least: Quality) -> None:
    assert worst(qualities) == least
