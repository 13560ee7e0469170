"""Screening of rows as they pass: what a row shows by itself, counted by model with the worst of each kind.

Checks that compare rows with each other need all of them at once; they are named as not looked for, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.screening.alone import LEAST_CPU_W, check_rows
from llmpower.modelling.screening.kinds import KINDS
from llmpower.modelling.screening.marks import Mark
from llmpower.modelling.screening.rows import ENERGIES, PHASES, rows_of
from llmpower.modelling.screening.screening import Finding, Screening
from llmpower.modelling.screening.watts import LEAST_W, MOST_DEVICES, MOST_W, SENSOR, device_count, tdp_w
from llmpower.modelling.streaming.arrays import Batch

ALONE = (
    *("no_model_name", "impossible_tokens", "impossible_runtime"),
    *("negative_energy", "impossible_unit", "above_tdp"),
)
"""Kinds that a row shows by itself."""


@dataclass
class _Found:
    """Rows of one model with one kind of finding, and the worst."""

    rows: int
    severity: float
    place: str
    example: str


class Doubts:
    """What was found so far; ``left_out`` are kinds whose rows are not fitted."""

    def __init__(self, left_out: Sequence[str], design_power_w: float | None) -> None:
        self._left_out = frozenset(left_out)
        self._tdp_w = design_power_w
        self._found: dict[tuple[str, str], _Found] = {}
        self._rows: dict[str, int] = {}
        self.n_left_out = 0

    def look(self, batch: Batch, energies: Sequence[str]) -> NDArray[np.bool_] | None:
        """Note what is wrong with rows of a batch; which rows stay, ``None`` where all do."""
        _, values = batch.words("model_name")
        for value, n in zip(values, batch.rows_of_words("model_name").tolist(), strict=True):
            name = "(no name)" if value is None else str(value)
            self._rows[name] = self._rows.get(name, 0) + n
        suspects = self._suspects(batch, energies)
        if suspects is None:
            return None
        some = batch.take(suspects)
        rows = rows_of(some.placed_frame(), self._tdp_w)
        out = np.zeros(len(suspects), dtype=bool)
        for mark in check_rows(rows):
            if isinstance(mark, Mark) and mark.rows.any():
                self._note(mark, rows.model, rows.model_names, some)
                if mark.kind in self._left_out:
                    out |= mark.rows
        if not out.any():
            return None
        self.n_left_out += int(out.sum())
        stay = np.ones(len(batch), dtype=bool)
        stay[suspects[out]] = False
        return stay

    def merge(self, other: Doubts) -> None:
        """What was found elsewhere."""
        for name, n in other._rows.items():
            self._rows[name] = self._rows.get(name, 0) + n
        for key, found in other._found.items():
            self._keep(key, found)
        self.n_left_out += other.n_left_out

    def screening(self) -> Screening:
        """All of it, as that of a table is."""
        findings = tuple(
            Finding(kind, model, found.rows, self._rows[model], found.place, found.example)
            for kind in KINDS
            for (of_kind, model), found in self._found.items()
            if of_kind == kind
        )
        reason = "a data set is read row by row, and this takes all rows of a model at once"
        unasked = {kind: reason for kind in KINDS if kind not in ALONE}
        return Screening(sum(self._rows.values()), findings, unasked, {}, self.n_left_out)

    def _note(self, mark: Mark, model: NDArray[np.intp], model_names: Sequence[str], batch: Batch) -> None:
        for number in np.unique(model[mark.rows]):
            own = np.flatnonzero(mark.rows & (model == number))
            severity = np.nan_to_num(mark.severity[own], nan=-np.inf)
            worst = int(own[severity.argmax()])
            source, row = batch.place(worst)
            found = _Found(len(own), float(severity.max()), f"row {row} of {source}", mark.says(worst))
            self._keep((mark.kind, model_names[number]), found)

    def _keep(self, key: tuple[str, str], found: _Found) -> None:
        known = self._found.get(key)
        if known is None:
            self._found[key] = found
        else:
            worse = found if found.severity > known.severity else known
            self._found[key] = _Found(known.rows + found.rows, worse.severity, worse.place, worse.example)

    def _suspects(self, batch: Batch, energies: Sequence[str]) -> NDArray[np.intp] | None:
        """Rows that may have a finding: all that have one are among them."""
        found = np.zeros(len(batch), dtype=bool)
        if (impossible := batch.impossible(energies)) is not None:
            found[impossible] = True
        τin, τout, runtime_s = batch.counts("input_tokens"), batch.counts("output_tokens"), batch.numbers("runtime_s")
        if τin.min() <= 0:
            found |= (τin == 0) & (τout == 0)
        for name in (*ENERGIES, *PHASES):
            if name not in batch:
                continue
            energy_j = batch.numbers(name)
            if name in PHASES:
                if np.fmin.reduce(energy_j) < 0:
                    found |= energy_j < 0
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                power_w = energy_j / runtime_s
            least_w = LEAST_CPU_W if name == "cpu_energy_j" else LEAST_W
            if np.fmin.reduce(power_w) < least_w:
                found |= power_w < least_w
            if (beyond := self._beyond(batch, power_w, gpu=name != "cpu_energy_j")) is not None:
                found |= beyond
            if (unread := batch.unread(name)) is not None:
                found |= unread
        return np.flatnonzero(found) if found.any() else None

    def _beyond(self, batch: Batch, power_w: FloatArray, *, gpu: bool) -> NDArray[np.bool_] | None:
        """Rows that draw more than theirs can without a finding, ``None`` where none does."""
        systems, names = batch.words("system")
        design_w = np.array([(self._tdp_w or tdp_w(str(name or "")) or np.nan) if gpu else np.nan for name in names])
        devices = np.array([device_count(str(name or "")) or np.nan for name in names])
        by_row = "tdp_w" in batch or "num_gpus" in batch
        if by_row:
            # What rows say themselves goes before what their system's name says.
            design_w, devices = design_w[systems], devices[systems]
            design_w = _said(batch, "tdp_w", design_w) if gpu else design_w
            devices = _said(batch, "num_gpus", devices)
        some_w = MOST_W * np.where(np.isnan(devices), MOST_DEVICES, devices)
        most_w = np.where(np.isnan(design_w), some_w, design_w * SENSOR * np.where(np.isnan(devices), 1, devices))
        if np.fmax.reduce(power_w) <= most_w.min():
            return None
        return power_w > (most_w if by_row else most_w[systems])


def _said(batch: Batch, name: str, otherwise: FloatArray) -> FloatArray:
    """A column where it says something, ``otherwise`` elsewhere."""
    if name not in batch:
        return otherwise
    said = batch.numbers(name)
    return np.where(said > 0, said, otherwise)
