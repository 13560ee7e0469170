"""What is fitted, joules or seconds: the sums of all rows, and the rows that errors are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.moments import Sums
from llmpower.modelling.rows.strata import EXACT, SURE_SUMS, TOKENS, UNKNOWN, Strata


@dataclass(frozen=True, slots=True)
class Target:
    """What is fitted: joules or seconds.

    ``raw`` and ``relative`` are the sums of all rows by cell, each row counting 1 or w = 1/y²; ``sure`` is there where
    measurements bring standard deviations. ``y`` holds the rows that errors are judged by, all > 0. ``phases`` are the
    prefill's and the decode's part, ``phase_columns`` says where they would come from.
    """

    name: str
    unit: str
    y: FloatArray
    raw: Sums
    relative: Sums
    sure: Sure | None
    phases: tuple[Phase, Phase] | None
    phase_columns: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sure:
    """Sums by stratum with w = 1/y², and the mean of (s/y)² in each, NaN where its rows have none."""

    sums: Sums
    variance: FloatArray


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a target: its sums by cell with w = 1/y², of the rows that have it, and ``y`` of the judged rows."""

    sums: Sums
    y: FloatArray


def target_of(name: str, unit: str, strata: Strata, rows: Mapping[str, FloatArray]) -> Target:
    """``energy`` or ``runtime`` of rows in strata; ``rows`` are columns of those that errors are judged by."""
    sums, column = strata.sums, "energy_j" if name == "energy" else "runtime_s"
    lengths = np.stack([sums[length] for length in TOKENS]) if strata.digits < EXACT else None
    sure = None
    known = strata.certainty != UNKNOWN
    if name == "energy" and known.any():
        n, variance, w, wy, *wτ = (strata.sure_sums[key] for key in SURE_SUMS)
        of_strata = Sums(n, w, wy, n, np.stack(wτ) if strata.digits < EXACT else None)
        sure = Sure(of_strata, np.where(known, variance / n, np.nan))
    phases = None
    if f"{name}_prefill/n" in sums and all(sums[f"{name}_{phase}/n"].any() for phase in ("prefill", "decode")):
        prefill, decode = (
            Phase(_relative(strata, f"{name}_{phase}"), rows[f"{name}_{phase}"]) for phase in ("prefill", "decode")
        )
        phases = prefill, decode
    return Target(
        name=name,
        unit=unit,
        y=rows[column],
        raw=Sums(sums["n"], sums["n"], sums[f"{column}/y"], sums[f"{column}/yy"], lengths),
        relative=_relative(strata, column),
        sure=sure,
        phases=phases,
        phase_columns="prefill_energy_j, decode_energy_j" if name == "energy" else "time_to_first_token_s",
        warnings=(),
    )


def _relative(strata: Strata, name: str) -> Sums:
    """Those with w = 1/y² of a target's column or a phase; of bands with the lengths that they are weighted by."""
    sums = strata.sums
    n, w, wy = sums.get(f"{name}/n", sums["n"]), sums[f"{name}/w"], sums[f"{name}/wy"]
    if strata.digits == EXACT:
        return Sums(n, w, wy, n)
    # No prefill asks for its output tokens: any mean of them does.
    wτout = sums.get(f"{name}/wτout")
    wτout = w * sums["output_tokens"] / sums["n"] if wτout is None else wτout
    return Sums(n, w, wy, n, np.stack([sums[f"{name}/wτin"], wτout]))
