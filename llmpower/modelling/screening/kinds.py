"""What is looked for in measurements, each kind of finding by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmpower.exceptions import InputError

ALL = "all"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding: its name and the rule that a row breaks.

    ``of_rows`` is false where the finding concerns how a file counts and not a row of it: leaving rows out does not
    fix it, so ``all`` does not include it.
    """

    name: str
    rule: str
    of_rows: bool = True


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("no_model_name", "the model's name is empty"),
            Kind("impossible_tokens", "token counts are whole numbers ≥ 0, and not both 0"),
            Kind("impossible_runtime", "a runtime is a number of seconds > 0"),
            Kind("negative_energy", "an energy is > 0, or empty where it was not measured"),
            Kind("impossible_unit", "the power that energy and runtime imply fits no device, but another unit"),
            Kind("above_tdp", "energy is at most TDP × runtime × devices, and 5 % for the sensor"),
            Kind("not_measured", "the row's own column provenance says that it was not measured"),
            Kind("copied_digits", "the runtime repeats another row's digits after the point"),
            Kind("early_stop", "fewer tokens came out than were asked for"),
            Kind("nominal_tokens", "input and output tokens do not add up to total_tokens", of_rows=False),
            Kind("duplicate_timestamp", "two trials of one model on one device began at the same time"),
            Kind("overlap", "two trials on one device ran at the same time, and are not marked as allocated"),
            Kind("unsettled", "the first trials of a program cost over 1.2 times what their cells do later"),
            Kind("warm_up", "a first call costs over 1.2 times what the others do, or a longer one"),
            Kind("dearer_than_longer", "a query costs over 1.2 times what a longer one does"),
            Kind("replicates_disagree", "a trial is over 1.25 times off the median of its cell, and 6 times its noise"),
        )
    }
)


def parse_kinds(values: str | Iterable[str], option: str) -> tuple[str, ...]:
    """``["warm_up,overlap", "early_stop"]`` → the three names; ``all`` is every kind that is of rows.

    Raises:
        InputError: there is no such kind; ``option`` is what it was given with.
    """
    chosen: dict[str, None] = {}
    for name in (
        part.strip() for value in ([values] if isinstance(values, str) else values) for part in value.split(",")
    ):
        if name == ALL:
            chosen |= dict.fromkeys(kind.name for kind in KINDS.values() if kind.of_rows)
        elif name in KINDS:
            chosen[name] = None
        else:
            raise InputError(option, name, f"no finding has this name; use {ALL} or some of {', '.join(KINDS)}")
    return tuple(chosen)
