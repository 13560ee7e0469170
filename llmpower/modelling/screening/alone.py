"""Checks of each row by itself: what no measurement can be, whatever the others are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.rows.measurements import MOST_COUNT
from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.order import Mask
from llmpower.modelling.screening.rows import ENERGIES, PHASES, Rows
from llmpower.modelling.screening.watts import (
    FAR_ABOVE,
    LEAST_W,
    MOST_DEVICES,
    MOST_W,
    SENSOR,
    likely_units,
)
from llmpower.tables import shown_cell

LEAST_CPU_W = 0.05
"""A processor that waits for a GPU is nearly idle."""


def check_rows(rows: Rows) -> Iterator[Checked]:
    """Every check that needs no other row, in the order of :data:`~llmpower.modelling.screening.KINDS`."""
    yield _names(rows)
    yield _tokens(rows)
    yield _runtime(rows)
    yield _negative(rows)
    yield from _power(rows)


def _names(rows: Rows) -> Mark:
    empty = np.array([name == "(no name)" for name in rows.model_names])[rows.model]
    return Mark("no_model_name", empty, np.ones(len(rows)), lambda _: "model_name is empty")


def _tokens(rows: Rows) -> Mark:
    def possible(tokens: FloatArray) -> Mask:
        return np.asarray((tokens >= 0) & (tokens < MOST_COUNT) & (tokens == np.floor(tokens)))

    wrong = ~(possible(rows.input_tokens) & possible(rows.output_tokens))
    wrong |= (rows.input_tokens == 0) & (rows.output_tokens == 0)
    return Mark(
        "impossible_tokens",
        wrong,
        np.ones(len(rows)),
        lambda at: (
            f"input_tokens {_shown(rows, 'input_tokens', at)}, output_tokens {_shown(rows, 'output_tokens', at)}"
        ),
    )


def _runtime(rows: Rows) -> Mark:
    wrong = ~((rows.runtime_s > 0) & np.isfinite(rows.runtime_s))
    return Mark(
        "impossible_runtime", wrong, np.ones(len(rows)), lambda at: f"runtime_s {_shown(rows, 'runtime_s', at)}"
    )


def _negative(rows: Rows) -> Mark:
    """A whole that is 0 was not measured, for which the empty cell stands; a phase may be too short to cost."""
    worst = np.full(len(rows), np.nan)
    wrong = np.zeros(len(rows), dtype=bool)
    for name, energy_j in rows.energies.items():
        below = ((energy_j < 0) if name in PHASES else (energy_j <= 0)) | np.isinf(energy_j) | _unread(rows, name)
        wrong |= below
        worst = np.where(below, np.fmin(worst, energy_j), worst)
    return Mark("negative_energy", wrong, np.nan_to_num(-worst), lambda at: _energies(rows, at))


def _power(rows: Rows) -> Iterator[Checked]:
    """The two kinds that power tells: beyond any device, and beyond this one."""
    n = len(rows)
    unit, above = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    severity, watts = np.zeros(n), np.full(n, np.nan)
    devices = rows.devices
    least_devices = np.where(np.isnan(devices), 1.0, devices)
    with np.errstate(over="ignore"):
        limit_w = np.where(
            np.isnan(rows.tdp_w),
            MOST_W * FAR_ABOVE * np.where(np.isnan(devices), MOST_DEVICES / FAR_ABOVE, devices),
            rows.tdp_w * FAR_ABOVE * least_devices,
        )
    known = ~np.isnan(rows.tdp_w)
    for name in ENERGIES:
        energy_j = rows.energies.get(name)
        if energy_j is None:
            continue
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            power_w = np.where((rows.runtime_s > 0) & (energy_j > 0), energy_j / rows.runtime_s, np.nan)
        least_w = LEAST_CPU_W if name == "cpu_energy_j" else LEAST_W
        # A processor's package has no design power here, and it is no GPU's.
        most_w = np.full(n, MOST_W * MOST_DEVICES) if name == "cpu_energy_j" else limit_w
        wrong = (power_w < least_w) | (power_w > most_w)
        unit |= wrong
        watts = np.where(wrong, power_w / least_devices, watts)
        if name != "cpu_energy_j":
            over = power_w / (rows.tdp_w * least_devices)
            beyond = (over > SENSOR) & ~wrong
            above |= beyond
            severity = np.where(beyond, np.fmax(severity, over), severity)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.nan_to_num(np.abs(np.log(watts / 300.0)))
    yield Mark("impossible_unit", unit, distance, lambda at: _unit(float(watts[at])))
    if not known.any():
        yield Unasked("above_tdp", "no design power is known; give --tdp, or a column tdp_w")
        return

    def says(at: int) -> str:
        most = f"{least_devices[at]:.0f} × {rows.tdp_w[at]:.0f} W × {rows.runtime_s[at]:.3g} s"
        return f"{severity[at]:.2f} times {most}"

    yield Mark("above_tdp", above, severity, says)


def _unread(rows: Rows, name: str) -> Mask:
    """Where there is something in the column that is not a number."""
    return np.asarray(np.isnan(rows.energies[name]) & rows.frame[name].notna(), dtype=bool)


def _unit(watts: float) -> str:
    units = likely_units(watts)
    return f"{watts:.3g} W per device" + (f", as with {' or '.join(units)}" if units else "")


def _energies(rows: Rows, at: int) -> str:
    def wrong(name: str) -> bool:
        value = rows.energies[name][at]
        return bool(value < 0 or (value == 0 and name not in PHASES) or np.isinf(value) or _unread(rows, name)[at])

    return ", ".join(f"{name} {_shown(rows, name, at)}" for name in rows.energies if wrong(name))


def _shown(rows: Rows, column: str, at: int) -> str:
    if column not in rows.frame.columns:
        return "missing"
    return str(shown_cell(rows.frame[column].iloc[at]))
