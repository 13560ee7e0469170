"""Checks of what a file says of its own rows: digits that were copied, outputs that ended early, nominal counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.order import Mask, typical
from llmpower.modelling.screening.rows import Rows, numbers
from llmpower.phrases import plural

ASKED = ("requested_output_tokens", "max_new_tokens")
SHORT_SHARE = 0.01
RETOKENISED = 4
"""A text that was tokenized again after it was written may have this many fewer tokens, and none is missing."""

MEASURED = "measured"
PLACES = 6
FINE_SHARE = 0.9
MOST_S = 2.0**31
COINCIDENCES = 1.0
"""Where chance alone makes more pairs of equal digits than this, pairs say nothing."""


def check_claims(rows: Rows, sound: Mask) -> Iterator[Checked]:
    """Checks of the runtimes' digits, against what was asked for and ``total_tokens``, and of ``provenance``."""
    yield _copied(rows, sound)
    yield from _ended(rows, sound)
    yield _provenance(rows)


def _ended(rows: Rows, sound: Mask) -> Iterator[Checked]:
    """Outputs shorter than asked, and input counts that are nominal.

    Where a file has the total, total − output is what the prompt really had. It is the same for all rows of one
    nominal length (their median); what a row lacks of it, its output lacks of what was asked for.
    """
    nothing = np.full(len(rows), np.nan)
    asked = next((numbers(rows.frame, name) for name in ASKED if rows.has(name)), nothing)
    total = np.where(sound, numbers(rows.frame, "total_tokens"), np.nan)
    untold, uncounted = bool(np.isnan(asked).all()), bool(np.isnan(total).all())
    prompt = total - rows.output_tokens
    short = nothing if uncounted else typical(prompt, rows.prompt) - prompt
    wanted = np.where(np.isnan(asked), rows.output_tokens, asked)
    lacking = np.where(sound, np.fmax(asked - rows.output_tokens, np.where(short > RETOKENISED, short, 0.0)), 0.0)
    early = lacking > SHORT_SHARE * wanted
    if untold and uncounted:
        yield Unasked("early_stop", f"there is no column {', '.join(ASKED)} or total_tokens")
    else:
        share = np.divide(lacking, wanted, out=np.zeros(len(rows)), where=wanted > 0)
        yield Mark("early_stop", early, share, lambda at: f"{lacking[at]:.0f} of {wanted[at]:.0f} tokens are missing")
    if uncounted:
        yield Unasked("nominal_tokens", "there is no column total_tokens")
    else:
        off = np.where(early | np.isnan(total), 0.0, np.abs(total - rows.input_tokens - rows.output_tokens))
        yield Mark("nominal_tokens", off > 0, off, lambda at: _sum(rows, total[at], at))


def _copied(rows: Rows, sound: Mask) -> Checked:
    """Runtimes measured to the microsecond share their last six digits by chance alone in n²/2 of a million pairs.

    A figure that was made from another by arithmetic on its whole seconds keeps the rest. A few pairs in a few
    hundred rows are no coincidence; in many thousand rows they are.
    """
    good = np.flatnonzero(sound & (rows.runtime_s < MOST_S))
    by_chance = len(good) * (len(good) - 1) / 2 / 10**PLACES
    if by_chance > COINCIDENCES:
        return Unasked("copied_digits", f"among {plural(len(good), 'row')} equal digits are a coincidence")
    digits = {int(at): round(float(rows.runtime_s[at]) * 10**PLACES) for at in good}
    # Digits that end in zeros were rounded, or not measured so finely.
    fine = [at for at, number in digits.items() if number % 1000]
    if len(fine) < FINE_SHARE * len(good) or not fine:
        return Unasked("copied_digits", f"runtimes have fewer than {PLACES} digits after the point")
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for at in fine:
        alike[digits[at] % 10**PLACES].append(at)
    # The same runtime twice is a row that stands there twice, which is another matter.
    pairs = [(a, b) for ats in alike.values() for a, b in combinations(ats, 2) if digits[a] != digits[b]]
    partners = dict([*pairs, *((b, a) for a, b in pairs)])
    found = np.zeros(len(rows), dtype=bool)
    if len(pairs) > by_chance + 5 * by_chance**0.5 + 1:
        found[list(partners)] = True

    def says(at: int) -> str:
        other = partners[at]
        return f"{rows.runtime_s[at]} s has the digits of {rows.place(other)}, {rows.runtime_s[other]} s"

    return Mark("copied_digits", found, rows.runtime_s, says)


def _provenance(rows: Rows) -> Checked:
    if not rows.has("provenance"):
        return Unasked("not_measured", "there is no column provenance")
    said = rows.frame["provenance"].astype("string").fillna("empty")
    other = np.asarray(said != MEASURED, dtype=bool)
    return Mark("not_measured", other, np.ones(len(rows)), lambda at: f"provenance is {said.iloc[at]}")


def _sum(rows: Rows, total: float, at: int) -> str:
    return f"{rows.input_tokens[at]:.0f} + {rows.output_tokens[at]:.0f} tokens are {total:.0f} in total"
