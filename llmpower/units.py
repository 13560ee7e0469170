"""Units that bills are written in."""

from __future__ import annotations

J_PER_KWH = 3.6e6
