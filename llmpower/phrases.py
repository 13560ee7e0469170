"""Figures as people say them, for logs, ``status`` and tables."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``2 h 3 min``, ``4 d 7 h``."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{seconds:.0f} s"
