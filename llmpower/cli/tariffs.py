"""What a kWh costs and emits by hour, as ``llmpower route`` and ``report`` take it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.routing.problem.tariff import Tariff

WEIGHS = ("energy", "money", "carbon")

OPTIONS = (
    click.option(
        "--tariff",
        "tariff_path",
        type=click.Path(path_type=Path),
        help="A kWh by hour or timestamp: eur_per_kwh, g_co2_per_kwh, or both.",
    ),
    click.option(
        "--tariff-zone",
        metavar="ZONE",
        help="Where its hours are local ones: Europe/Berlin. A workload's times without offset are then of UTC.",
    ),
    click.option(
        "--weigh",
        type=click.Choice(WEIGHS),
        help="Pursue this; with a --tariff money by default, or carbon where it has no prices.",
    ),
)


def tariff_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options, in this order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def tariff_of(path: Path | None, zone: str | None) -> Tariff | None:
    """What was given, if anything was; errors as :func:`~llmpower.routing.read_tariff`."""
    if path is None:
        if zone is not None:
            raise InputError("--tariff-zone", zone, "says where hours of a --tariff are; give that too")
        return None
    from llmpower.routing import read_tariff

    return read_tariff(path, zone)
