"""Rows of any number, kept as sums: of each cell of a model, and of its strata, one for each class of certainty.

Least squares needs of rows that share a design row no more than a few sums, and sums of two portions of rows add up. So
a table, the batches of a data set and the shares of several workers all come down to the same thing, which is as large
as there are distinct lengths, not rows. C makes the sums, in one pass over the rows (``csrc/modelling``).

**Certainty.** What a row counts for depends on (s/y)², the variance of its error relative to its energy
(:mod:`~llmpower.modelling.regressing.weights`). Rows whose variances lie within the same power of two share a stratum
and count alike, by their mean: weights that are off by less than √2 either way cost 4 % of the estimate's efficiency at
most.

**Bands.** A campaign has a hundred cells; traffic has as many as rows, and then nothing collapses. A model with more
than :data:`MOST_CELLS` has its lengths rounded down to so many leading binary digits that it has no more, the most of 8
and fewer that do: with four, lengths from 256 to 511 fall in eight bands of 32. Numbers of requests keep two digits
more than those of tokens, whose weighted means and variances in each band are summed beside the rest: what a band says
of coefficients is then what its rows say, to the third order of its width
(:mod:`~llmpower.modelling.regressing.designs`). How many digits that takes depends on all rows together and not on
their order, so portions agree on it however they were cut. The fit says so in its warnings.

**Judged rows.** Coefficients are found from all rows. How far predictions are off is an average, and what 8192 rows
of a model say of it is true within a percent of itself; medians need the rows themselves, which a data set of a hundred
million has no room for. A row's number is a hash of its own values, and those with the smallest numbers stay: a set
that does not depend on order, portions or workers, so that every way to fit the same rows judges by the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray

Codes = NDArray[np.int64]

LENGTHS = ("input_tokens", "output_tokens", "batch_size", "sharing")
"""What makes a cell: token counts of the row, its requests, and the requests that a decode step served."""

TOKENS = LENGTHS[:2]

PHASES = ("energy_prefill", "energy_decode", "runtime_prefill", "runtime_decode")
"""Parts of energy and runtime, where rows have them."""

SPANNED = (*LENGTHS, "input_tokens_each", "output_tokens_each")
"""Of what the lowest and highest are kept; the last two are those of one request of a batch."""

SUMS = (
    *LENGTHS,
    "input_tokens²",
    "output_tokens²",
    *(f"{of}/{power}" for power in ("w", "wy", "y", "yy") for of in ("energy_j", "runtime_s")),
    "runtime_s/wτin",
    "runtime_s/wτout",
    *(f"{phase}/{power}" for of in (PHASES[:2], PHASES[2:]) for power in ("n", "w", "wy", "wτin") for phase in of),
    # No prefill depends on the tokens that follow it.
    *(f"{phase}/wτout" for phase in PHASES if "decode" in phase),
    "n",
)
"""Names of a cell's sums in C's order, which adds two beside each other as one; w is 1/y², so that wy is 1/y."""

SURE_SUMS = ("n", "variance", "w", "wy", "wτin", "wτout")
"""Names of a stratum's sums: those of (s/y)² and of energy."""

JUDGED = ("energy_j", "runtime_s", *LENGTHS, "certainty", *PHASES)
"""Names of a judged row's values in C's order."""

MOST_CELLS = 1024
JUDGED_ROWS = 8192
EXACT, FINER = 53, 2
"""Binary digits of lengths that are kept as they are, and how many fewer tokens are kept to than requests."""

UNKNOWN = -2000
"""The class of rows whose variance is not known; that of 0 is one above it, all others are exponents of two."""


def token_digits(digits: int) -> int:
    """How many binary digits tokens are kept to where requests are to ``digits``."""
    return digits if digits == EXACT else max(1, digits - FINER)


@dataclass(frozen=True, slots=True)
class Strata:
    """One model's cells in the order of their lengths, its strata in that of their cells and certainty, judged rows.

    ``digits`` is how many binary digits numbers of requests are kept to, and tokens :func:`token_digits`; ``sums`` are
    those of each cell by the names of :data:`SUMS`, and energy's Σwτin and Σwτout. ``cells`` is the cell of each
    stratum, ``certainty`` its class, ``sure_sums`` its sums by the names of :data:`SURE_SUMS`. ``judged`` has the
    values of :data:`JUDGED` of each judged row, ``judged_strata`` its stratum.
    """

    digits: int
    sums: Mapping[str, FloatArray]
    cells: Codes
    certainty: Codes
    sure_sums: Mapping[str, FloatArray]
    judged: Mapping[str, FloatArray]
    judged_strata: Codes
