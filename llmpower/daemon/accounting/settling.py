"""How far behind the present energy is accounted for.

What has begun is known a moment later where programs say so. OpenTelemetry reports a request when it is over, and then
in batches, so while somebody sends by it, settling waits for as long as a request and its batch may take. What waits
meanwhile is kept in memory: where requests come so fast that it would be too much, the wait gets shorter, and what is
lost are the joules of the longest requests and no request.
"""

from __future__ import annotations

from llmpower.daemon.accounting.admission import PRESSING
from llmpower.daemon.accounting.engine import SETTLE_DELAY_S


def settle_delay_s(hold_s: float, pending: int) -> float:
    """The wait, when it should be ``hold_s`` and this many spans wait: the whole of it up to half of what may wait."""
    share = min(2 * (1 - pending / PRESSING), 1.0)
    return max(hold_s * share, SETTLE_DELAY_S)
