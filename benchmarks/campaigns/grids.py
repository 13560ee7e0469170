"""Trials that were made: grids in full, and the campaigns with chosen cells beside them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from campaigns.turns import FORM

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("LLMPOWER_REFERENCE_DATA", ROOT.parent / "shared" / "data")) / "paper" / "grid.csv"
EXAMPLES = ROOT / "examples"
LENGTHS = ["input_tokens", "output_tokens"]


@dataclass(frozen=True)
class Grid:
    """All trials of one model, and the form that cells are chosen for."""

    source: str
    model_name: str
    form: str
    rows: pd.DataFrame

    @property
    def per_cell(self) -> int:
        """Trials of the cell that has most."""
        return int(self.rows.groupby(LENGTHS).size().max())


@dataclass(frozen=True)
class Real:
    """A campaign with chosen cells that was run, and the grid that it is compared with.

    ``together``: their trials were interleaved (:mod:`.together`), so that drift of the machine affects both.
    """

    grid: Grid
    chosen: pd.DataFrame
    together: bool

    @property
    def share(self) -> float:
        """The campaign's part of the grid's trials."""
        return len(self.chosen) / len(self.grid.rows)


def read_grids() -> Iterator[Grid]:
    """One grid a model and source; says which sources are not there."""
    if REFERENCE.is_file():
        frame = pd.read_csv(REFERENCE)
        frame = frame[frame["provenance"] == "measured"]
        # "Batch 32" of these runs was one prompt.
        frame["batch_size"] = 1
        for name, rows in frame.groupby("model_name"):
            yield Grid("paper", str(name), "recompute+call", rows)
    else:
        print(f"no reference data at {REFERENCE}: the paper's grids are left out", file=sys.stderr)
    for path in sorted(EXAMPLES.glob("grid-*.csv")):
        for name, rows in pd.read_csv(path).groupby("model_name"):
            yield Grid("examples", str(name), FORM, rows)
    for real in read_real():
        if real.together:
            yield real.grid


def read_real() -> Iterator[Real]:
    """Those that were interleaved with their grid, and those that were run apart from it."""
    for path in sorted(EXAMPLES.glob("together-*.csv")):
        rows = pd.read_csv(path)
        (name,) = rows["model_name"].unique()
        of = {campaign: part.reset_index(drop=True) for campaign, part in rows.groupby("campaign")}
        yield Real(Grid("together", str(name), FORM, of["grid"]), of["chosen"], together=True)
    for path in sorted(EXAMPLES.glob("chosen-*.csv")):
        rows = pd.read_csv(path.with_name(path.name.replace("chosen-", "grid-")))
        (name,) = rows["model_name"].unique()
        yield Real(Grid("examples", str(name), FORM, rows), pd.read_csv(path), together=False)
