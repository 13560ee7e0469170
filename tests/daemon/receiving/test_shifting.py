from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.daemon.receiving.shifting import AGREE_NS, shift_ns, shifted
from llmpower.spans.packets import WireError
from llmpower.spans.wire import MAX_NS, Begin, Cancel, SenderClock

S = 1_000_000_000
OWN = SenderClock("boot", 100 * S, 0)
NOISE = st.integers(-AGREE_NS, AGREE_NS)


@given(noise_ns=NOISE, boot=st.sampled_from(["boot", "another", ""]), told=st.sampled_from([0, None]))
def test_clocks_that_agree_are_one_whatever_is_told_of_them(noise_ns: int, boot: str, told: int | None) -> None:
    assert shift_ns(SenderClock(boot, OWN.utc_offset_ns + noise_ns, told), OWN) == 0


@given(
    noise_ns=NOISE,
    boot=st.sampled_from(["boot", "another"]),
    theirs=st.integers(-(10**17), 10**17),
    ours=st.integers(-(10**17), 10**17),
)
def test_a_namespace_is_corrected_to_the_nanosecond(noise_ns: int, boot: str, theirs: int, ours: int) -> None:
    # On the machine's own clock a moment m has UTC m + 100 s, and shows as m + theirs, or m + ours.
    sender = SenderClock(boot, 100 * S - theirs + noise_ns, theirs)
    moment_ns = 12345
    by_ns = shift_ns(sender, SenderClock("boot", 100 * S - ours, ours))
    assert moment_ns + theirs + by_ns == moment_ns + ours


def test_a_wall_clock_that_was_set_does_not_move_a_clock_that_the_kernel_vouches_for() -> None:
    assert shift_ns(SenderClock("boot", OWN.utc_offset_ns - 3600 * S, 0), OWN) == 0
    assert shift_ns(SenderClock("boot", OWN.utc_offset_ns - 3607 * S, 7 * S), OWN) == -7 * S


def test_another_boot_is_placed_by_the_time_of_day() -> None:
    for told in (0, None):
        assert shift_ns(SenderClock("another", OWN.utc_offset_ns - 50 * S, told), OWN) == -50 * S


@pytest.mark.parametrize("own", [OWN, SenderClock("boot", 100 * S, None)])
def test_a_clock_that_differs_and_nobody_knows_why_is_refused(own: SenderClock) -> None:
    with pytest.raises(WireError, match="have /proc mounted") as caught:
        shift_ns(SenderClock("boot", OWN.utc_offset_ns - 5 * S, None), own)
    assert caught.value.reason == "other_clock"


@pytest.mark.parametrize(
    "sender",
    [
        SenderClock("another", -MAX_NS, None),
        SenderClock("another", MAX_NS, 0),
        SenderClock("boot", 100 * S, MAX_NS),
        SenderClock("boot", 100 * S, -MAX_NS),
    ],
)
def test_a_clock_that_none_can_be_is_refused(sender: SenderClock) -> None:
    """Times by it would not fit into the integers that spans are reckoned with."""
    with pytest.raises(WireError, match="is impossible") as caught:
        shift_ns(sender, OWN)
    assert caught.value.reason == "other_clock"


def test_only_what_has_times_is_shifted() -> None:
    assert shifted(Begin("a", 5), 2) == Begin("a", 7)
    assert shifted(Cancel("a"), 2) == Cancel("a")
