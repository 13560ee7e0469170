"""Shares kept while queries come one by one.

A share is promised over a **period** of N queries: at its end each model has had whole numbers of them within its
limits, for an exact share to the query, as a plan of N queries would have it (:func:`query_limits`). Then the next
period begins. Where the number of queries to come is known, that is the period; where it is not, periods follow each
other. Within one, no model is further from its share's line than ``SLACK`` of the period, give or take
:data:`~llmpower.routing.online.router.REFRESH` queries: so much it may be, as requests of one kind come in waves and an
optimum over the period goes along with them.

Two rules suffice. A model whose limit is reached is closed; and when as many queries are left in the period as models
still need, only those that need some are open. From the first query on

    Σ_K max(0, low_K − s_K) ≤ N − t ≤ Σ_K (high_K − s_K)

so a model is always open, and the period always ends within its limits.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmpower.exceptions import InputError
from llmpower.routing.policies.policy import RoutingPolicy
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.tables import whole_number

SLACK = 0.1
"""Of the period: how far from its share's line a model may be within it."""


def check_period(period: int) -> int:
    """Queries over which shares are kept.

    Raises:
        InputError: ``period`` is not a whole number from 1 up.
    """
    if (whole := whole_number(period, 1)) is None:
        raise InputError("period", period, "shares are kept over a number of queries; give 1 or more")
    return whole


class Quotas:
    """Counts of one period; ``ranges`` are the lowest and highest share of each model, in 0..1, ``names`` what errors
    call them, by default their numbers.

    Attributes:
        served: queries that each model has had in this period.
        remaining: queries to come in it.
        open: the models that the next query may go to, as numbers; never empty.

    Raises:
        InputError: ``period`` is not a whole number from 1 up.
        InfeasibleError: no division of that many queries meets the shares.
    """

    def __init__(self, ranges: Sequence[tuple[float, float]], period: int, names: Sequence[str] = ()) -> None:
        self.period = period = check_period(period)
        names = names or [str(number) for number in range(len(ranges))]
        # Twelve digits are what a quotient of two counts of queries means by its sixteen.
        shares: dict[str, Share] = {
            name: (round(low, 12), round(high, 12))
            for name, (low, high) in zip(names, ranges, strict=True)
            if low > 0 or high < 1
        }
        low, high = query_limits(shares, names, period)
        self._low: list[int] = low.tolist()
        self._high: list[int] = high.tolist()
        self._low_share = [limit / period for limit in self._low]
        self._high_share = [limit / period for limit in self._high]
        self.begin()

    def begin(self, served: Sequence[int] | None = None, still_open: Sequence[int] | None = None) -> None:
        """Start a period, or take one up where ``served`` were its counts and ``still_open`` the models it had open."""
        self.served = list(served) if served is not None else [0] * len(self._low)
        self.remaining = self.period - sum(self.served)
        self._needed = sum(max(0, low - count) for low, count in zip(self._low, self.served, strict=True))
        self._last_call = self._needed >= self.remaining
        self._keep_open(range(len(self._low)) if still_open is None else still_open)

    @property
    def limits(self) -> tuple[list[int], list[int]]:
        """Lowest and highest number of queries a model in a period."""
        return list(self._low), list(self._high)

    @property
    def shares(self) -> dict[int, float]:
        """The middle of each model's limits, in 0..1, of the models that have some, by number."""
        return {
            number: (low + high) / 2 / self.period
            for number, (low, high) in enumerate(zip(self._low, self._high, strict=True))
            if low > 0 or high < self.period
        }

    def deviations(self) -> list[float]:
        """Queries that each model has had beyond its line: above 0 too many, below too few, 0 within a band."""
        t = self.period - self.remaining
        return [
            count - high * t if count > high * t else count - low * t if count < low * t else 0.0
            for count, low, high in zip(self.served, self._low_share, self._high_share, strict=True)
        ]

    def refresh(self, deviations: Sequence[float]) -> None:
        """Close models that have run away from their lines, and open those again that have come back."""
        slack, free = SLACK * self.period, self._free()
        behind = tuple(model for model in free if deviations[model] < -slack)
        self.open = behind or tuple(model for model in free if deviations[model] < slack) or free

    def count(self, model: int) -> bool:
        """Enter a query, which must go to an open model; whether the period is over with it."""
        served = self.served
        served[model] += 1
        self.remaining -= 1
        if served[model] <= self._low[model]:
            self._needed -= 1
        last_call = self._needed >= self.remaining
        if served[model] >= self._high[model] or last_call != self._last_call or (last_call and self._done(model)):
            self._last_call = last_call
            self._keep_open(self.open)
        return not self.remaining

    def _keep_open(self, models: Sequence[int]) -> None:
        """Of these, those that the limits leave open; all of those if it is none of these."""
        free = self._free()
        self.open = tuple(number for number in models if number in free) or free

    def _done(self, model: int) -> bool:
        return self.served[model] >= self._low[model]

    def _free(self) -> tuple[int, ...]:
        """The models that the limits leave open."""
        limits = self._low if self._last_call else self._high
        return tuple(model for model, count in enumerate(self.served) if count < limits[model])


def quotas_of(policy: RoutingPolicy, period: int) -> Quotas:
    """Those of a policy's models.

    Raises:
        InputError: ``period`` is not a whole number from 1 up.
        InfeasibleError: no division of that many queries meets the shares.
    """
    return Quotas([model.share_range for model in policy.models], period, [model.name for model in policy.models])
