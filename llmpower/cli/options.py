"""Options that several commands take alike, and a kind of number that Click lacks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

socket_option = click.option(
    "--socket", type=click.Path(path_type=Path), help="The daemon's socket.  [default: where it is]"
)

powercap_option = click.option(
    "--powercap-root",
    type=click.Path(),
    default="/sys/class/powercap",
    show_default=True,
    help="Where the kernel shows CPU energy; empty: take none.",
)


class FiniteRange(click.FloatRange):
    """Finite numbers of a range. Click compares with its ends alone, and ``nan`` is neither below nor above any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; refused as others outside of the range are."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
