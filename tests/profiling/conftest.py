"""Puts the system tests' programs on the path: a campaign is killed beside a real daemon."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
