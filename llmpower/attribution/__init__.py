"""Samples and spans in, joules out: pure, no I/O, nothing but NumPy.

A :class:`Timeline` knows how much energy one device had used at any moment it has seen; a :class:`Ledger` cuts time
at the boundaries of spans and books every joule to exactly one account.
"""

from llmpower.attribution.joules import Joules
from llmpower.attribution.ledger import BookingKey, DeviceTotals, Ledger
from llmpower.attribution.series import Reading
from llmpower.attribution.timeline import Timeline

__all__ = ["BookingKey", "DeviceTotals", "Joules", "Ledger", "Reading", "Timeline"]
