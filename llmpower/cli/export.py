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
from llmpower.phrases import plural

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
        advice = "is not a time; write 2026-01-31T12:00 or, for that long ago, 30m, 2h, 7d"
        raise InputError(param.opts[0], text, advice) from error


@click.command()
@click.option("--store", type=click.Path(path_type=Path), help="The daemon's database.  [default: where it keeps it]")
@click.option("--since", callback=_moment, metavar="T", help="Leave out spans that began before T.")
@click.option("--until", callback=_moment, metavar="T", help="Leave out spans that began at T or later.")
@click.option("--model", metavar="NAME", shell_complete=models_of_daemon, help="Take this model's spans only.")
@click.option("--with-uid", is_flag=True, help="Add a column uid: the user whose program sent the span.")
@click.option("--partition", is_flag=True, help="Add what is new to a data set of many hosts (docs/fleet.md).")
@click.option("-o", "--out", required=True, metavar="FILE|DIR|URL", help="FILE.csv, .parquet or .jsonl; or a data set.")
def command(
    store: Path | None,
    since: datetime | None,
    until: datetime | None,
    model: str | None,
    with_uid: bool,
    partition: bool,
    out: str,
) -> None:
    """Write measurements from a store to CSV, Parquet or JSON lines, or add them to a data set.

    One row a span, in order of start; an empty cell was not measured. It works while the daemon runs. T is a time as
    ISO 8601 (without an offset: this machine's time zone) or a span back from now: 45s, 30m, 2h, 7d, 1w.

    With --partition OUT is a directory, or a URL that fsspec knows, of a Parquet data set that many hosts may share:
    host=NAME/date=DAY/. What it lacks of this store is added, whole files at a time; run it as often as you like.

    \b
    Example:
      llmpower export --since 2h -o measurements.csv
      llmpower export --since 2026-01-01 --model llama-7b -o january.parquet
      llmpower export --partition -o s3://measurements/fleet
    """
    from llmpower.cli.outputs import check_places
    from llmpower.daemon.config import find_store_path
    from llmpower.places import is_url
    from llmpower.store import count_rows, iter_rows, write_parquet
    from llmpower.tables import STREAMED, check_suffix, write_rows
    from llmpower.types import MEASUREMENT_COLUMNS

    if since is not None and until is not None and until <= since:
        advice = f"must come after --since = {since.isoformat(timespec='seconds')}; swap them, or leave one out"
        raise InputError("--until", until.isoformat(timespec="seconds"), advice)
    store = store or find_store_path()
    if partition:
        given = {"--since": since, "--until": until, "--model": model, "--with-uid": with_uid or None}
        for option, value in given.items():
            if value is not None:
                raise InputError(option, value, "a data set takes all that is new; leave it out, or write a file")
        _add(store, out)
        return
    columns = (*MEASUREMENT_COLUMNS, "uid") if with_uid else MEASUREMENT_COLUMNS
    path = Path(out)
    if is_url(out):
        raise InputError("-o", out, "is a URL, where only data sets are written; add --partition, or give a file")
    check_suffix(path, "-o")
    check_places({"-o": path}, [store])
    rows = iter_rows(store, columns=columns, since=since, until=until, model=model)
    with shown("export") as progress:
        if progress is not None:
            rows = told(rows, count_rows(store, since=since, until=until, model=model), progress)
        # Where the daemon lives there may be no pandas, and years of spans need not fit into memory.
        count = (write_rows if path.suffix in STREAMED else write_parquet)(columns, rows, path)
    print(f"{plural(count, 'row')} from {store} to {out}", file=sys.stderr)


def _add(store: Path, place: str) -> None:
    from llmpower.store import export_partitions

    with shown("export") as progress:
        added = export_partitions(store, place, progress)
    files = plural(added.files, "new file")
    print(f"{plural(added.rows, 'new row')} from {store} to {place}, in {files}", file=sys.stderr)
