"""The key ``tariff`` of policy.json: which rates joules are weighted by, and when each of them holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from llmpower.documents import Node
from llmpower.exceptions import InputError
from llmpower.routing.policies.tariff import PolicyTariff
from llmpower.routing.problem.rates import UNITS, Weigh
from llmpower.routing.problem.tariff import HOURS, Tariff, zone_of


def dump_tariff(tariff: PolicyTariff) -> dict[str, Any]:
    """As JSON types."""
    rates = tariff.rates
    starts = rates.start.tolist() if rates.day else [_iso(start_s) for start_s in rates.start.tolist()]
    begins = "hour" if rates.day else "timestamp"
    return {
        "weighs": tariff.weighs,
        "highest_per_kwh": tariff.highest_per_kwh,
        "zone": None if rates.zone is None else rates.zone.key,
        "rates": [
            {begins: start, "per_kwh": per_kwh} for start, per_kwh in zip(starts, tariff.per_kwh.tolist(), strict=True)
        ],
    }


def load_tariff(node: Node) -> PolicyTariff:
    """What :func:`dump_tariff` writes; errors name the key."""
    node.only("weighs", "highest_per_kwh", "rates", optional=("zone",))
    weighs = _weighs(node.at("weighs"))
    highest, zone = _above_0(node.at("highest_per_kwh")), node.get("zone")
    rows = node.at("rates").items()
    if not rows:
        raise node.at("rates").refuse(f"holds no rate; {node.remedy}")
    day = isinstance(rows[0].value, dict) and "hour" in rows[0].value
    begins = "hour" if day else "timestamp"
    for row in rows:
        row.only(begins, "per_kwh")
    start = np.array([(_hour if day else _seconds)(row.at(begins)) for row in rows], np.int64)
    for row, step in zip(rows[1:], np.diff(start).tolist(), strict=True):
        if step <= 0:
            raise row.at(begins).refuse("does not come after the row before; sort the rows, and keep one of each")
    per_kwh = np.array([_above_0(row.at("per_kwh")) for row in rows])
    where = None
    if zone is not None:
        if not day:
            raise zone.refuse("is of hours of the day, and timestamps say their own offsets; remove it")
        try:
            where = zone_of(zone.text())
        except InputError as error:
            raise zone.refuse(error.advice) from error
    return PolicyTariff(weighs, Tariff(day, start, {UNITS[weighs].column: per_kwh}, where), highest)


def _iso(start_s: int) -> str:
    return datetime.fromtimestamp(start_s, UTC).isoformat().replace("+00:00", "Z")


def _weighs(node: Node) -> Weigh:
    for kind in ("money", "carbon"):
        if node.value == kind:
            return kind
    raise node.refuse("unknown; use one of money, carbon")


def _above_0(node: Node) -> float:
    if node.number() <= 0:
        raise node.refuse(f"is not above 0; {node.remedy}")
    return node.number()


def _hour(node: Node) -> int:
    if node.integer() >= HOURS:
        raise node.refuse(f"is not an hour of the day, 0 to {HOURS - 1}; {node.remedy}")
    return node.integer()


def _seconds(node: Node) -> int:
    try:
        time = datetime.fromisoformat(node.text())
    except ValueError as error:
        raise node.refuse(f"is not an ISO date, such as 2026-03-29T01:00:00Z; {node.remedy}") from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
