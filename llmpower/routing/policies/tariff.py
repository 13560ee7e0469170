"""What a joule counts while a policy decides: the current rate, as a fraction of the highest that its plan knew.

A plan that pursues money or carbon weighs each query's joules by f/f_max of the rate at which it came
(:mod:`~llmpower.routing.problem.rates`). Who decides one query at a time takes the rate of now, over the same f_max,
since that is what the scaling and the prices of the plan are in.

A tariff of timestamps ends. What comes when there is no rate is weighted by the tariff's mean: a request must be
answered, and the mean is what is right of an hour of which nothing is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from math import inf
from typing import Any, NamedTuple

from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.rates import UNITS, Weigh
from llmpower.routing.problem.tariff import HOUR_S, Tariff
from llmpower.units import J_PER_KWH

QUARTER_S = 900
"""Offsets of time zones are multiples of it, so no hour begins within."""


class Stretch(NamedTuple):
    """From ``start_s`` until before ``end_s``, in seconds since 1970, a joule counts ``part``."""

    part: float
    start_s: float
    end_s: float


ALWAYS = Stretch(1.0, -inf, inf)
"""Where joules count as they are."""


@dataclass(frozen=True, eq=False)
class PolicyTariff:
    """The rates of what is pursued: ``rates`` has that column alone; ``highest_per_kwh`` is f_max."""

    weighs: Weigh
    rates: Tariff
    highest_per_kwh: float

    @cached_property
    def per_kwh(self) -> FloatArray:
        """Of the tariff's rows (n_rows,)."""
        return self.rates.per_kwh[UNITS[self.weighs].column]

    @cached_property
    def mean_part(self) -> float:
        """Where no rate is known."""
        return float(self.per_kwh.mean() / self.highest_per_kwh)

    def stretch(self, at_s: float) -> Stretch:
        """What holds at a moment, in seconds since 1970 of UTC, and for how long it is sure to."""
        if self.rates.day:
            hour = datetime.fromtimestamp(at_s, self.rates.zone or UTC).hour
            begun_s = at_s // QUARTER_S * QUARTER_S
            return Stretch(self._of_hour[hour], begun_s, begun_s + QUARTER_S)
        starts = self._starts
        row = bisect_right(starts, at_s) - 1
        next_s = starts[row + 1] if row + 1 < len(starts) else inf
        ends_s = starts[row] + HOUR_S if row >= 0 else -inf
        if at_s < ends_s:
            return Stretch(float(self.per_kwh[row]) / self.highest_per_kwh, starts[row], min(ends_s, next_s))
        return Stretch(self.mean_part, ends_s, next_s)

    def parts(self, times_s: Iterable[float | None]) -> list[float]:
        """What joules counted at each of these times; ``None`` is not known."""
        found, here = [], self.stretch(0.0)
        for at_s in times_s:
            if at_s is not None and not here.start_s <= at_s < here.end_s:
                here = self.stretch(at_s)
            found.append(self.mean_part if at_s is None else here.part)
        return found

    def parts_of_trace(self, times_s: NDArray[Any]) -> FloatArray:
        """As :meth:`parts`, of times (n_queries,) that the tariff must know.

        Raises:
            InputError: it has no rate for one of them.
        """
        try:
            rates, of_row = self.rates.rates(times_s)
        except InputError as error:
            raise InputError(error.field, error.value, f"{error.advice}, and make the policy again") from error
        return rates.by_kind[self.weighs].per_kwh[of_row] / self.highest_per_kwh

    def amount(self, weighed_j: float) -> float:
        """Euros or grams of joules that are weighted so."""
        return weighed_j * self.highest_per_kwh / J_PER_KWH

    @cached_property
    def _starts(self) -> list[float]:
        return [float(start_s) for start_s in self.rates.start]

    @cached_property
    def _of_hour(self) -> list[float]:
        parts = dict(zip(self.rates.start.tolist(), (self.per_kwh / self.highest_per_kwh).tolist(), strict=True))
        return [parts.get(hour, self.mean_part) for hour in range(24)]
