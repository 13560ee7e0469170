"""Shares of the queries: what the user asks for, as whole numbers of queries that are possible.

A share is a fraction F, met to the query, or a band LOW:HIGH. Fractions of N queries are rarely whole, so exact
shares are apportioned by largest remainder (Hamilton's method), with everything they leave over as one more party;
bands are rounded inwards. Fractions are taken as the decimals they are written as: 0.29 of 100 queries is 29.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, nan

import numpy as np

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.phrases import plural
from llmpower.routing.problem.workload import IntArray
from llmpower.tables import number_of

Share = float | tuple[float, float]

# Shares such as 1/3 + 1/3 + 1/3 do not sum to 1 in floating point; what a user means by 1 is nearer than this.
SUM_TOLERANCE = Fraction(1, 10**9)


def parse_shares(pairs: Iterable[str]) -> dict[str, Share]:
    """``["a=0.2", "b=0.1:0.5"]`` → ``{"a": 0.2, "b": (0.1, 0.5)}``; a model's name may itself contain ``=`` or ``:``.

    Raises:
        InputError: an entry is neither MODEL=F nor MODEL=LOW:HIGH, or names a model twice.
    """
    shares: dict[str, Share] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        try:
            low, *high = map(float, text.split(":"))
        except ValueError:
            low, high = 0.0, [0.0, 0.0]
        if not name or len(high) > 1:
            raise InputError("--share", pair, "write MODEL=F or MODEL=LOW:HIGH, such as Llama-2-7B=0.05")
        if name in shares:
            raise InputError("--share", pair, f"{name} has a share already; give one")
        shares[name] = (low, high[0]) if high else low
    return shares


def query_limits(
    shares: Mapping[str, Share] | None, model_names: Sequence[str], n_queries: int
) -> tuple[IntArray, IntArray]:
    """Lowest and highest number of queries of each model, each of shape (n_models,); 0 and N where it has no share.

    Raises:
        InputError: a share is not a fraction, a band is upside down, or a model is unknown.
        InfeasibleError: no division of the queries meets every share.
    """
    if not (shares is None or hasattr(shares, "items")):
        raise InputError("shares", type(shares).__name__, "are not shares by model; give a dict")
    bands = {} if shares is None else {name: _band(name, share) for name, share in shares.items()}
    for name in bands:
        if name not in model_names:
            known = ", ".join(model_names)
            raise InputError("--share", name, f"is not among the models that queries are routed to: {known}")
    _refuse_impossible(bands, model_names)
    low = dict.fromkeys(model_names, 0)
    high = dict.fromkeys(model_names, n_queries)
    exact = {name: ends[0] for name, ends in bands.items() if ends[0] == ends[1]}
    for name, queries in _apportion(exact, n_queries).items():
        low[name] = high[name] = queries
    for name, (lowest, highest) in bands.items():
        if name not in exact:
            low[name], high[name] = ceil(lowest * n_queries), floor(highest * n_queries)
            if low[name] > high[name]:
                advice = f"no whole number of {plural(n_queries, 'query')} lies in this band; widen it"
                raise InfeasibleError("--share", f"{name}={float(lowest)}:{float(highest)}", advice)
    if not sum(low.values()) <= n_queries <= sum(high.values()):
        asked = f"{sum(low.values()):,} to {plural(sum(high.values()), 'query')}"
        advice = f"whole numbers leave no room for {plural(n_queries, 'query')}; widen a band"
        raise InfeasibleError("--share", asked, advice)
    return np.array(list(low.values()), np.int64), np.array(list(high.values()), np.int64)


def share_ranges(shares: Mapping[str, Share] | None, model_names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Lowest and highest share of each model as they were asked for; 0 and 1 where nothing was.

    Raises:
        InputError: a share is not a fraction, or a band is upside down.
    """
    bands = {} if shares is None else {name: _band(name, share) for name, share in shares.items()}
    ends = {name: (float(low), float(high)) for name, (low, high) in bands.items()}
    return {name: ends.get(name, (0.0, 1.0)) for name in model_names}


def _band(name: str, share: Share) -> tuple[Fraction, Fraction]:
    ends = share if isinstance(share, tuple | list) else (share,)
    low, high = (number_of(end) for end in (ends[0], ends[-1])) if len(ends) in (1, 2) else (nan, nan)
    if not 0 <= low <= high <= 1:
        shown = ":".join(map(str, ends))
        raise InputError("--share", f"{name}={shown}", "shares are fractions from 0 to 1, and LOW is at most HIGH")
    # repr is the shortest decimal that reads back as the same float: what was written, not its binary neighbour.
    return Fraction(repr(low)), Fraction(repr(high))


def _refuse_impossible(bands: Mapping[str, tuple[Fraction, Fraction]], model_names: Sequence[str]) -> None:
    low = sum((low for low, _ in bands.values()), Fraction(0))
    all_named = set(bands) == set(model_names)
    high = sum((high for _, high in bands.values()), Fraction(0)) if all_named else Fraction(1)
    if low <= 1 + SUM_TOLERANCE and high >= 1 - SUM_TOLERANCE:
        return
    exact = all(low == high for low, high in bands.values())
    if low > 1:
        shown = f"a sum of {float(low):.6g}" if exact else f"a sum of at least {float(low):.6g}"
        advice = "shares cannot sum to more than 1; lower one of them"
    else:
        shown = f"a sum of {float(high):.6g}" if exact else f"a sum of at most {float(high):.6g}"
        advice = "every model has a share, so they must reach 1; raise one, or leave one model without a share"
    raise InfeasibleError("--share", shown, advice)


def _apportion(shares: Mapping[str, Fraction], n_queries: int) -> dict[str, int]:
    """Whole numbers of queries by largest remainder; of equal remainders the larger share, then the first name.

    What the shares leave over is the party without a name, and the last to be served.
    """
    total = sum(shares.values(), Fraction(0))
    parties: dict[str | None, Fraction] = dict(shares.items())
    if abs(total - 1) <= SUM_TOLERANCE:
        parties = {name: share / total for name, share in shares.items()}
    else:
        parties[None] = 1 - total
    queries = {name: floor(share * n_queries) for name, share in parties.items()}
    order = sorted(
        parties,
        key=lambda name: (queries[name] - parties[name] * n_queries, -parties[name], name is None, name or ""),
    )
    for name in order[: n_queries - sum(queries.values())]:
        queries[name] += 1
    return {name: queries[name] for name in shares}
