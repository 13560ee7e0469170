"""Screening: what is wrong with measurements, named and counted before anything is fitted to them.

A mean hides a wrong row, and an optimiser finds it again. Each kind of finding has a name and a rule
(:data:`~llmpower.modelling.screening.kinds.KINDS`); nothing is dropped here: whoever fits decides which kinds to leave
out, which to refuse, and the rest is reported. A check that a file does not allow (no times, no totals) is named with
the reason, since "not looked for" is not the same as "not found".
"""

from __future__ import annotations

from llmpower.modelling.screening.kinds import ALL, KINDS, Kind, parse_kinds
from llmpower.modelling.screening.screening import Finding, Screening, screen

__all__ = ["ALL", "KINDS", "Finding", "Kind", "Screening", "parse_kinds", "screen"]
