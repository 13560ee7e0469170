"""How long a trial will take, by what has been seen of this model on this machine so far.

    r = s0 + s1·B·τin + s2·τout + s3·B·τout·(τin + τout/2)        [s], coefficients ≥ 0, B sequences side by side

A call, its prefill, its steps, and their attention over the context of each sequence. It serves plans and progress,
which may be off by tens of percent: two short probes at either end of the lengths are enough to begin with. A fit to
relative errors lies below the mean of runtimes that scatter, by a quarter where a busy machine has them scatter by
half. So it is scaled to what the runs so far have taken in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llmpower.profiling.grid import Cell
from llmpower.profiling.least_squares import FloatArray, relative_fit


class Pace:
    """Learns from runs, whatever their lengths."""

    def __init__(self) -> None:
        self._cells: list[Cell] = []
        self._runtimes_s: list[float] = []

    def saw(self, cell: Cell, runtime_s: float) -> None:
        """A run of this shape took so long."""
        self._cells.append(cell)
        self._runtimes_s.append(runtime_s)

    def expected_s(self, cells: Iterable[Cell]) -> list[float] | None:
        """Seconds that each cell's trial will take; ``None`` before the first run."""
        cells = list(cells)
        if not self._cells or not cells:
            return None if cells else []
        seen, r = _columns(self._cells), np.array(self._runtimes_s)
        s = relative_fit(seen, r)
        s *= r.sum() / (seen @ s).sum()
        expected: list[float] = (_columns(cells) @ s).tolist()
        return expected


def _columns(cells: Sequence[Cell]) -> FloatArray:
    return np.array(
        [
            (
                1.0,
                cell.sequences * cell.input_tokens,
                cell.output_tokens,
                cell.sequences * cell.output_tokens * (cell.input_tokens + cell.output_tokens / 2),
            )
            for cell in cells
        ]
    )
