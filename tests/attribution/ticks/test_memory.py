"""What is remembered of ticks."""

from __future__ import annotations

import pytest

from llmpower.attribution.ticks.edges import Edges
from llmpower.attribution.ticks.memory import Memory
from llmpower.attribution.ticks.tick import Shown


def test_idle_power_is_no_lower_because_ticks_are_taken_to_be_too_long_or_too_short() -> None:
    memory = Memory(Edges())
    assert memory.idle_w is None
    # Of 70 W for 0.2 s each, with edges that are known to some 50 ms.
    for off_s in (-0.06, 0.06, -0.03, 0.03, -0.08, 0.08):
        duration_s = 0.2 + off_s
        power_w = 70 * 0.2 / duration_s
        memory.idle.append(Shown(power_w, power_w * 0.05 / duration_s, duration_s))
    assert memory.idle_w == pytest.approx(70.0, rel=0.001)
    # One whose edges are known to a millisecond says more than all of them.
    memory.idle.append(Shown(80.0, 80.0 * 0.001 / 0.2, 0.2))
    assert memory.idle_w == pytest.approx(80.0, rel=0.01)
