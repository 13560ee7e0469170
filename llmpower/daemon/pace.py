"""When whoever drives an engine does what: the daemon's loop, or a program that measures itself."""

from __future__ import annotations

STEP_S = 0.25
"""How often samples are drained and spans settled; a scrape is at most this much behind."""

RESTING_STEP_S = 1.5
"""The same while no span runs, and nobody says that one begins."""

REST_AFTER_S = 2.0
"""So long after the last span nothing needs to be known closely: ticks after a span show how to divide its last one."""

READY_S = 2.0
"""How long start-up waits for every device to have shown something."""

FINISH_S = 3.0
"""Longer than a device may show nothing before it counts as stalled, so everything is settled within it."""

FINISH_STEP_S = 0.05
