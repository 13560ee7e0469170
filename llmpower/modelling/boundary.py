"""What the joules of a model cover: which devices, and whether what they draw idle is among it.

``gpu``, ``cpu`` and ``gpu+cpu`` are gross: all that the devices drew while the request ran, as their counters have it.
``-idle`` behind it takes away what they would have drawn with nothing to do, so that ``gpu-idle`` is what the request
added. Joules of different boundaries are different quantities; a plan refuses to compare them, and every figure is
printed with its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.measurements import BOUNDARIES as DEVICES
from llmpower.modelling.measurements import energy_columns

IDLE = "-idle"
BOUNDARIES = (*DEVICES, *(f"{devices}{IDLE}" for devices in DEVICES))
"""Every boundary by its name."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A boundary by its ``name``, with the device parts that it sums."""

    name: str

    @classmethod
    def parse(cls, name: str) -> Boundary:
        """The boundary called ``name``.

        Raises:
            InputError: there is none.
        """
        if name not in BOUNDARIES:
            raise InputError("--boundary", name, f"unknown; use one of {', '.join(BOUNDARIES)}")
        return cls(name)

    @property
    def parts_name(self) -> str:
        """The devices alone: ``gpu+cpu`` of ``gpu+cpu-idle``."""
        return self.name.removesuffix(IDLE)

    @property
    def net(self) -> bool:
        """Whether the idle share is taken away."""
        return self.name.endswith(IDLE)

    def consulted(self) -> set[str]:
        """Columns that its energy is made of, where a table has them."""
        parts = self.parts_name.split("+")
        names = [f"{part}_{kind}_j" for part in parts for kind in ("energy", "energy_std", "idle_energy")]
        return {*names, "energy_j", "prefill_energy_j", "decode_energy_j"}

    def energy(self, model_name: str, rows: Mapping[str, FloatArray]) -> tuple[FloatArray, str | None]:
        """Joules per row, NaN where not measured, and what they cover.

        A sum takes the parts that any of the model's rows has; a row that lacks one of them is not measured, lest sums
        of different things be fitted together.

        Raises:
            FitError: no row has any part measured, or none its idle share where that is asked for.
        """
        columns = [column for column in energy_columns(self.parts_name) if column in rows]
        present = [column for column in columns if (~np.isnan(rows[column])).any()]
        if not present:
            return self._bare(model_name, rows, columns)
        energy_j = _sum(rows, present)
        parts = [column.removesuffix("_energy_j") for column in present]
        if not self.net:
            return energy_j, "+".join(parts)
        idle = [f"{part}_idle_energy_j" for part in parts]
        for column in idle:
            if column not in rows or np.isnan(rows[column]).all():
                advice = f"no row of {model_name} has it to take away; choose --boundary {'+'.join(parts)}"
                raise FitError(column, "missing", advice)
        return energy_j - _sum(rows, idle), "+".join(parts) + IDLE

    def std(self, rows: Mapping[str, FloatArray]) -> FloatArray | None:
        """Standard deviation of the energy per row [J], NaN where unknown; ``None`` where no row has one.

        Devices err independently, so variances add. What is subtracted as idle is a mean power and adds nothing here.
        """
        columns = [column for column in energy_columns(self.parts_name) if column in rows]
        present = [column for column in columns if (~np.isnan(rows[column])).any()]
        names = [column.replace("_energy_j", "_energy_std_j") for column in present]
        if not names or any(name not in rows for name in names):
            return None
        values = np.stack([rows[name] for name in names])
        usable = np.where((values >= 0) & np.isfinite(values), values, np.nan)
        return None if np.isnan(usable).all() else np.sqrt((usable**2).sum(axis=0))

    def _bare(
        self, model_name: str, rows: Mapping[str, FloatArray], columns: list[str]
    ) -> tuple[FloatArray, str | None]:
        if not columns and not self.net and (~np.isnan(rows["energy_j"])).any():
            return rows["energy_j"], None
        column = columns[0] if columns else "energy_j"
        advice = f"no row of {model_name} has it measured; choose another --boundary, or leave it out with --where"
        raise FitError(column, "empty", advice)


def _sum(rows: Mapping[str, FloatArray], columns: list[str]) -> FloatArray:
    return np.asarray(sum(rows[column] for column in columns))
