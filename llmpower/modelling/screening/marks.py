"""What one check has found: which rows, how badly, and what to say of the worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.screening.order import Mask


@dataclass(frozen=True)
class Mark:
    """Rows with one kind of finding.

    ``severity`` orders the rows, the largest is the worst; ``says`` has what is wrong with the row at a position.
    """

    kind: str
    rows: Mask
    severity: FloatArray
    says: Callable[[int], str]


@dataclass(frozen=True)
class Unasked:
    """Why a kind could not be looked for."""

    kind: str
    reason: str


Checked = Mark | Unasked
