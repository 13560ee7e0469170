"""Times by a sender's clock, brought to the daemon's own.

In a time namespace, or from another boot, CLOCK_MONOTONIC is another clock, and what it times would be given the joules
of another moment. Nothing is assumed of it: a sender names its clock (:class:`~llmpower.spans.wire.SenderClock`), and
one whose clock cannot be related to ours is refused.

What the kernel says about a namespace is exact. UTC less either clock shows the same difference, to the noise of
reading them, unless the wall clock was set between the two readings; so it decides only where the kernel is silent, or
where the boot is another. A container may have a boot id of its own making (systemd-nspawn gives it one), so clocks
that agree are one clock whatever their ids.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from llmpower.spans.packets import WireError
from llmpower.spans.wire import Begin, SenderClock
from llmpower.types import Span

AGREE_NS = 100_000_000
"""Two readings of one clock are within this: a process may have to wait between the calls. No boot takes so short."""

MOST_APART_NS = 1 << 62
"""146 years. What a clock further away times is no moment, nor does it fit into 64 bits."""

_Timed = TypeVar("_Timed")


def shift_ns(sender: SenderClock, own: SenderClock) -> int:
    """What to add to a sender's CLOCK_MONOTONIC so that it is one's own, in nanoseconds.

    Raises:
        WireError: nobody can say, reason ``other_clock``.
    """
    # UTC = t + offset for both, and t = machine's + namespace's for both.
    by_utc_ns = sender.utc_offset_ns - own.utc_offset_ns
    told = sender.namespace_offset_ns is not None and own.namespace_offset_ns is not None
    by_kernel_ns = (own.namespace_offset_ns or 0) - (sender.namespace_offset_ns or 0) if told else 0
    if max(abs(by_utc_ns), abs(by_kernel_ns)) > MOST_APART_NS:
        raise WireError("other_clock", "what it says about its clock is impossible")
    if abs(by_utc_ns - by_kernel_ns) <= AGREE_NS:
        return by_kernel_ns
    if sender.boot_id != own.boot_id:
        return by_utc_ns
    if told:
        # The wall clock was set between the two readings.
        return by_kernel_ns
    raise WireError(
        "other_clock",
        f"its clock is {by_utc_ns / 1e9:.3f} s from ours, and its kernel does not say why (a time namespace?); "
        "have /proc mounted where it runs",
    )


def shifted(message: _Timed, by_ns: int) -> _Timed:
    """A message with its times shifted, if it has any."""
    if by_ns and isinstance(message, Begin):
        return replace(message, start_ns=message.start_ns + by_ns)
    if by_ns and isinstance(message, Span):
        first_ns = message.first_token_ns
        return replace(
            message,
            start_ns=message.start_ns + by_ns,
            first_token_ns=None if first_ns is None else first_ns + by_ns,
            end_ns=message.end_ns + by_ns,
        )
    return message
