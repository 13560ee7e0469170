"""What ``llmpower route`` was asked for, from its options: files, a goal, and what waiting costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from llmpower.cli.outputs import check_places
from llmpower.exceptions import InputError
from llmpower.report.plan_plot import check_plot
from llmpower.routing import AccuracyTable
from llmpower.routing.costing.idle import Idle, parse_idle_watts
from llmpower.routing.tradeoffs.goals import (
    AccuracyFloor,
    AmountBudget,
    AmountPerPoint,
    EnergyBudget,
    Goal,
    JoulesPerPoint,
    Knee,
)
from llmpower.tables import check_suffix


def check_outputs(
    files: Mapping[str, Path | None],
    inputs: Iterable[str | Path | None],
    *,
    cells: bool,
    has_accuracy: bool,
    limits_seconds: bool,
) -> None:
    """Refuse a file, by its option, that cannot be written like that: before anything is solved for it."""
    given = {option: path for option, path in files.items() if path is not None}
    for option in ("-o", "--frontier"):
        if option in given:
            check_suffix(given[option], option)
    if cells and "-o" not in given:
        raise InputError("--cells", "without -o", "it says how the plan is written; name a file with -o")
    if "--plot" in given:
        check_plot(given["--plot"])
        if not has_accuracy:
            raise InputError("--plot", given["--plot"], "a frontier is of energy and accuracy; give --accuracy")
    for option in given:
        if limits_seconds and option != "-o":
            raise InputError(option, "with --gpu-seconds", "it knows no limits on sums of seconds; leave one out")
    check_places(files, inputs)


def goal_of(zeta: float | None, knee: bool, figures: Mapping[str, float | None]) -> float | Goal:
    """What ζ is chosen for: the one thing that was asked, by its option, or the knee."""
    goals: Mapping[str, Callable[[float], Goal]] = {
        "--energy-budget": EnergyBudget,
        "--accuracy-floor": AccuracyFloor,
        "--joules-per-point": JoulesPerPoint,
        "--cost-budget": partial(AmountBudget, "money"),
        "--carbon-budget": partial(AmountBudget, "carbon"),
        "--cost-per-point": partial(AmountPerPoint, "money"),
        "--carbon-per-point": partial(AmountPerPoint, "carbon"),
    }
    asked: dict[str, float | Goal] = {} if zeta is None else {"--zeta": zeta}
    asked |= {option: goals[option](figure) for option, figure in figures.items() if figure is not None}
    if knee:
        asked["--knee"] = Knee()
    if len(asked) > 1:
        first, second = list(asked)[:2]
        raise InputError(second, f"with {first}", "each chooses ζ by itself; leave one out")
    return next(iter(asked.values()), Knee())


def idle_of(watts: tuple[str, ...], horizon_s: float | None, table: AccuracyTable | None) -> Idle | None:
    """What is to be charged for waiting, if anything is."""
    if not watts:
        if horizon_s is not None:
            raise InputError("--horizon", horizon_s, "is for how long --idle-watts are charged; give those too")
        return None
    if horizon_s is None:
        raise InputError("--horizon", "missing", "--idle-watts are charged for a time; say for how many seconds")
    of_all, by_model = parse_idle_watts(watts)
    return Idle(horizon_s, of_all, by_model, {} if table is None else table.num_gpus)
