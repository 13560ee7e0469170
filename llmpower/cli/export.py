"""``llmpower export``: measurements out of a daemon's store, into a file that everything else reads."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from llmpower.cli.progress import shown, told
from llmpower.cli.values import models_of_daemon
from llmpower.exceptions import InputError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(_: click.Context, param: click.Parameter, text: str | None) -> datetime | None:
    """ISO 8601, in this machine's time zone where it names none, or so long ago (``2h``)."""
    if text is None:
        return None
    try:
        if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text, re.ASCII):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        advice = "is no time; write 2026-01-31T12:00 or, for so long ago, 30m, 2h, 7d"
        raise InputError(param.opts[0], text, advice) from error


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="The daemon's database.  [default: where it keeps it]")
@click.option("--since", callback=_moment, metavar="T", help="Leave out spans that began before T.")
@click.option("--until", callback=_moment, metavar="T", help="Leave out spans that began at T or later.")
@click.option("--model", metavar="NAME", shell_complete=models_of_daemon, help="Take this model's spans only.")
@click.option("--with-uid", is_flag=True, help="Add a column uid: the user whose program sent the span.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="FILE.csv, .parquet or .jsonl.")
def command(
    store: Path | None, since: datetime | None, until: datetime | None, model: str | None, with_uid: bool, out: Path
) -> None:
    """Write measurements from a store to CSV, Parquet or JSON lines.

    One row a span, in order of start; an empty cell was not measured. It works while the daemon runs. T is a time as
    ISO 8601 (without an offset: this machine's time zone) or a span back from now: 45s, 30m, 2h, 7d, 1w.

    \b
    Example:
      llmpower export --since 2h -o measurements.csv
      llmpower export --since 2026-01-01 --model llama-7b -o january.parquet
    """
    from llmpower.daemon.config import find_store_path
    from llmpower.store import count_rows, iter_rows, read_measurements
    from llmpower.tables import STREAMED, write_rows, write_table
    from llmpower.types import MEASUREMENT_COLUMNS

    store = store or find_store_path()
    columns = (*MEASUREMENT_COLUMNS, "uid") if with_uid else MEASUREMENT_COLUMNS
    if out.suffix in STREAMED:
        # Where the daemon lives there may be no pandas, and years of spans need not fit into memory.
        rows = iter_rows(store, columns=columns, since=since, until=until, model=model)
        with shown("export") as progress:
            if progress is not None:
                rows = told(rows, count_rows(store, since=since, until=until, model=model), progress)
            count = write_rows(columns, rows, out)
    else:
        frame = read_measurements(store, columns=columns, since=since, until=until, model=model)
        write_table(frame, out)
        count = len(frame)
    print(f"{count} rows from {store} to {out}", file=sys.stderr)
