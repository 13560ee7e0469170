"""Reading and writing the tables that users bring and take away: CSV, Parquet, JSON lines.

The suffix decides the format. Foreign headers are renamed on the way in (``NAME=HEADER``), so nobody has to edit
a file to use it. pandas is imported on first use: the daemon and the light commands load this module without it, and
:func:`write_rows` and :func:`read_records` do without where they can.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError
from llmpower.files import replacing
from llmpower.places import first_line

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet", ".jsonl")
COLUMN = "--column"
"""The option by which most commands are told headers."""

WORDS = ("model_name", "system", "query_class")
"""Columns whose values name something, and must read the same in every file."""

NO_NUMBERS = "mMc"
"""Kinds of columns that would pass as numbers, and as wrong ones: durations, times, complex numbers."""

SEPARATORS = {";": "semicolons", "\t": "tabs"}
"""What other programs write between cells, and call a CSV all the same."""

STREAMED = (".csv", ".jsonl")
"""What :func:`write_rows` writes."""


def parse_columns(pairs: Iterable[str], option: str = COLUMN) -> dict[str, str]:
    """``["input_tokens=ContextTokens"]`` → ``{"input_tokens": "ContextTokens"}`` (our name → their header).

    ``option`` is what they were given by.

    Raises:
        InputError: an entry is not of the form NAME=HEADER, or has the name or the header of an earlier one.
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        name, separator, header = pair.partition("=")
        if not (separator and name and header):
            raise InputError(option, pair, "write NAME=HEADER, such as input_tokens=ContextTokens")
        if name in columns or header in columns.values():
            raise InputError(option, pair, "an earlier one has the same name or header; give each once")
        columns[name] = header
    return columns


def read_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    required: Sequence[str] = (),
    what: str = "table",
    option: str | None = COLUMN,
) -> pd.DataFrame:
    """Read one file into a frame whose columns bear our names.

    ``columns`` maps our name to the header found in the file; ``required`` are our names that must be there
    afterwards; ``what`` names the kind of file in errors, and ``option`` what ``columns`` are given by, ``None`` where
    nothing gives any.

    Raises:
        InputError: no such file, unknown suffix, unreadable content, or a column that is missing or there twice.
    """
    import pandas as pd

    if not (columns is None or hasattr(columns, "items")):
        raise InputError("columns", type(columns).__name__, "are not headers by our names of columns; give a dict")
    with refusing(path, what):
        match path.suffix:
            case ".csv":
                # "None", "NA" and "007" can be names of models; only the empty cell means absent.
                words = dict.fromkeys(((columns or {}).get(name, name) for name in WORDS), str)
                frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"], dtype=words)
                # pandas calls the second one so; others may too.
                if any(f"{name}.1" in frame.columns for name in frame.columns):
                    _refuse_twice(_header(path), path)
            case ".parquet":
                frame = pd.read_parquet(path)
            case ".jsonl":
                frame = _read_lines(path)
            case suffix:
                raise InputError(what, path, f"files ending in {suffix!r} are not read; use one of {_formats()}")
    renamed = our_names(list(frame.columns), columns or {}, required, path, option)
    return frame.rename(columns=renamed)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(row for row in csv.reader(file) if row)


def _read_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_json(path, lines=True)
    except (TypeError, AttributeError) as error:  # what pandas does of lines that have no keys
        raise ValueError("a line is not a JSON object") from error


def read_records(path: Path, *, required: Sequence[str] = (), what: str = "table") -> list[dict[str, object]]:
    """A small table as one dict per row, ``None`` where a cell is empty; a CSV's cells are text, and pandas is not
    loaded.

    Raises:
        InputError: as :func:`read_table`.
    """
    if path.suffix != ".csv":
        frame = read_table(path, required=required, what=what, option=None)
        return [
            {str(name): None if value is None or value != value else value for name, value in record.items()}
            for record in frame.astype(object).to_dict("records")
        ]
    with refusing(path, what), path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
        if not rows:
            raise ValueError("No columns to parse from file")
        header, *body = rows
        our_names(header, {}, required, path, None)
        if wrong := [number for number, row in enumerate(body, start=1) if len(row) > len(header)]:
            raise ValueError(f"row {wrong[0]} has more cells than the header")
    absent = dict.fromkeys(header)
    return [
        absent | {name: None if cell in ("", "nan", "NaN") else cell for name, cell in zip(header, row, strict=False)}
        for row in body
    ]


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """What goes wrong while a file is read, in our words: an :class:`InputError`, as :func:`read_table` raises."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(what, path, "no such file; check the path") from error
    except ImportError as error:
        raise InputError(what, path, "Parquet needs pyarrow; pip install 'llmpower[parquet]'") from error
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        fix = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "check the file"
        raise InputError(what, path, f"cannot be read as {path.suffix[1:]} ({first_line(error)}); {fix}") from error


def our_names(
    found: Sequence[str],
    columns: Mapping[str, str],
    required: Sequence[str],
    path: Path,
    option: str | None = COLUMN,
) -> dict[str, str]:
    """Our name for each header that ``columns`` (name → header) gives another one.

    Raises:
        InputError: a header is not there, or is or would be there twice, or a ``required`` name is missing.
    """
    _refuse_twice(found, path)
    for name, header in columns.items():
        if header not in found:
            raise InputError(
                option or "column", f"{name}={header}", f"{path} has no such header; it has: {_listed(found)}"
            )
        if name != header and name in found:
            advice = f"{path} has a column {name} already; leave the option out, or rename one of the two"
            raise InputError(option or "column", f"{name}={header}", advice)
    renamed = {header: name for name, header in columns.items()}
    names = [renamed.get(name, name) for name in found]
    missing = [name for name in required if name not in names]
    if missing and len(found) == 1 and (sign := next((sign for sign in SEPARATORS if sign in str(found[0])), None)):
        advice = f"{path} has its cells separated by {SEPARATORS[sign]}; save it with commas"
        raise InputError("column", missing[0], advice)
    if missing:
        fix = f"name its header with {option} {missing[0]}=HEADER" if option else "rename the one that is meant"
        advice = f"{path} lacks this column (it has: {_listed(names) or 'none'}); {fix}"
        raise InputError("column", missing[0], advice)
    return renamed


def _refuse_twice(header: Sequence[str], path: Path) -> None:
    # Spreadsheets leave columns without a name behind.
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise InputError("column", twice[0], f"{path} has this column twice; keep the one that is meant")


def _listed(names: Sequence[object]) -> str:
    """Names as they are; in quotes where blanks around one are part of it and would not be seen."""
    return ", ".join(repr(name) if name != name.strip() else name for name in map(str, names))


def write_table(frame: pd.DataFrame, path: Path, option: str = "-o") -> None:
    """Write a frame by rename, in the format that the suffix names; errors as :func:`read_table`."""
    check_suffix(path, option)
    with replacing(path, option) as temporary:
        match path.suffix:
            case ".csv":
                frame.to_csv(temporary, index=False)
            case ".jsonl":
                frame.to_json(temporary, orient="records", lines=True, date_format="iso")
            case _:
                try:
                    frame.to_parquet(temporary, index=False)
                except ImportError as error:
                    advice = "Parquet needs pyarrow; pip install 'llmpower[parquet]'"
                    raise InputError(option, path, advice) from error


def write_rows(header: Sequence[str], rows: Iterable[Sequence[object]], path: Path, option: str = "-o") -> int:
    """Write rows as they come, by rename, to ``.csv`` or ``.jsonl``; how many they were.

    However many there are, one is in memory at a time. ``None`` is an empty cell, or null.

    Raises:
        InputError: another suffix, or a place that cannot be written to.
    """
    if path.suffix not in STREAMED:
        raise InputError(option, path, f"rows are streamed to {' and '.join(STREAMED)} only")
    count = 0
    with replacing(path, option) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if path.suffix == ".csv":
            table.writerow(header)
        for row in rows:
            count += 1
            if path.suffix == ".csv":
                table.writerow(row)
            else:
                record = dict(zip(header, row, strict=True))
                file.write(f"{json.dumps(record, ensure_ascii=False, allow_nan=False)}\n")
    return count


def check_frame(frame: object, what: str, required: Sequence[str] = ()) -> None:
    """Refuse what is not a pandas table, and one that has a column twice or lacks a ``required`` one."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(what, type(frame).__name__, "is not a pandas table; give a DataFrame")
    if twice := frame.columns[frame.columns.duplicated()].tolist():
        raise InputError("column", twice[0], f"appears twice in the {what}; keep the one that is meant")
    if missing := [name for name in required if name not in frame.columns]:
        raise InputError("column", missing[0], f"is missing from the {what} (columns: {_listed(list(frame.columns))})")


def number_of(value: object) -> float:
    """A cell's number, or NaN where it holds none."""
    try:
        return float(value)  # type: ignore[arg-type]  # whatever is not a number raises, which is the question
    except (OverflowError, TypeError, ValueError):
        return nan


def whole_number(value: object, least: int) -> int | None:
    """A whole number of any kind as an ``int``; ``None`` where it is none, below ``least``, or has no exact float."""
    number = number_of(value)
    return int(number) if least <= number < 2**53 and number.is_integer() else None


def shown_cell(value: Any) -> object:
    """A cell as complaints name it: ``empty`` where it holds nothing, be that ``None``, NaN or pandas' NA."""
    import pandas as pd

    return "empty" if pd.api.types.is_scalar(value) and pd.isna(value) else value


def check_suffix(path: Path, option: str) -> None:
    """Refuse a name that says no format in which tables are written."""
    if path.suffix not in FORMATS:
        raise InputError(option, path, f"cannot tell the format from the name; end it in one of {_formats()}")


def _formats() -> str:
    return ", ".join(FORMATS)
