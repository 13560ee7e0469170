"""Where a data set lies and what its files hold: a directory or a URL of Parquet files, found and looked at once.

The footers of all files are read before anything else, so that a file with other columns is named before hours of work
and not after, and so that there is a total to show progress against. Directories called ``name=value`` are columns, as
Hive has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.rows.measurements import REQUIRED
from llmpower.places import failures, file_system, first_line, is_url, matches

if TYPE_CHECKING:
    import pyarrow as pa

SOURCE = "SOURCE"

LOOKERS = 16
"""Footers that are read at once; each is a round trip where files lie elsewhere."""


@dataclass(frozen=True)
class Portion:
    """Some row groups of one file: ``fragment`` is pyarrow's, and goes to another process as it is.

    ``option`` is what the file was given with.
    """

    name: str
    fragment: Any
    first_row: int
    rows: int
    option: str = SOURCE


@dataclass(frozen=True)
class Dataset:
    """Files of measurements that share ``schema``, under their own headers."""

    schema: pa.Schema
    portions: tuple[Portion, ...]

    @property
    def rows(self) -> int:
        """How many rows all files have by their footers."""
        return sum(portion.rows for portion in self.portions)

    def split(self, rows: int) -> Iterator[list[Portion]]:
        """Portions by about this many rows, cut between row groups of files that would be too much."""
        some: list[Portion] = []
        held = 0
        for portion in self.portions:
            pieces = [portion] if held + portion.rows <= rows else _by_row_group(portion)
            for piece in pieces:
                if some and held + piece.rows > rows:
                    yield some
                    some, held = [], 0
                some.append(piece)
                held += piece.rows
        if some:
            yield some


def open_datasets(
    sources: Sequence[str], columns: Mapping[str, str], required: Sequence[str] = REQUIRED, option: str = SOURCE
) -> Dataset:
    """Look at the files of all sources: directories, URLs, Parquet files and globs of them.

    ``columns`` maps our names to the files' headers; ``required`` are our names that every file must have, and
    ``option`` is what the sources were given with.

    Raises:
        InputError: a source cannot be reached or holds no Parquet, or a file lacks a required column.
        FitError: there are no rows.
    """
    # Each once, however many sources find it.
    looked = {found[0].name: found for source in sources for found in _looked(source, option)}.values()
    import pyarrow as pa

    portions: list[Portion] = []
    schemas: list[pa.Schema] = []
    for portion, schema in looked:
        _check_headers(portion.name, schema, columns, required)
        portions.append(portion)
        schemas.append(schema)
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _different(portions, schemas, error) from error
    dataset = Dataset(schema, tuple(portion for portion in portions if portion.rows))
    if not dataset.rows:
        raise FitError(option, ", ".join(sources), "holds no rows; measure first, or give another data set")
    return dataset


def _looked(source: str, option: str) -> list[tuple[Portion, pa.Schema]]:
    with ThreadPoolExecutor(LOOKERS) as pool:
        return list(pool.map(lambda found: _look(found[0], found[1], option), _fragments(source, option)))


def _fragments(source: str, option: str) -> list[tuple[str, Any]]:
    """Every Parquet file of a source by its name, with the values that its directories say."""
    from pyarrow import dataset as pads
    from pyarrow.fs import FileType

    filesystem, path = file_system(source, option)
    names = matches(source)
    if not names:
        raise InputError(option, source, "no file matches; check the pattern")
    paths: Any = path if names == [source] else [str(Path(name).absolute()) for name in names]
    try:
        if paths == path and filesystem.get_file_info(path).type == FileType.NotFound:
            raise InputError(option, source, "there is no such place; check the path or URL")
        found = pads.dataset(paths, format="parquet", filesystem=filesystem, partitioning="hive")
        fragments = sorted(found.get_fragments(), key=lambda fragment: str(fragment.path))
    except failures(ValueError) as error:
        # The first file is looked at to find the columns, so it may be the first to be named.
        raise InputError(option, source, f"cannot be read as Parquet ({first_line(error)}); check it") from error
    if not fragments:
        raise InputError(option, source, "holds no Parquet file; give a directory that llmpower export wrote")
    scheme = f"{source.partition('://')[0]}://" if is_url(source) else ""
    return [(f"{scheme}{fragment.path}", fragment) for fragment in fragments]


def _look(name: str, fragment: Any, option: str) -> tuple[Portion, pa.Schema]:
    """A file's rows and columns, those that its directories name included."""
    import pyarrow as pa
    from pyarrow import dataset as pads

    try:
        schema = fragment.physical_schema
        rows = fragment.metadata.num_rows
    except failures() as error:
        advice = f"is not a Parquet file that can be read ({first_line(error)}); write it again, or move it elsewhere"
        raise InputError(option, name, advice) from error
    for column, value in pads.get_partition_keys(fragment.partition_expression).items():
        if column not in schema.names:
            schema = schema.append(pa.field(column, pa.scalar(value).type))
    return Portion(name, fragment, 1, rows, option), schema.remove_metadata()


def _check_headers(name: str, schema: pa.Schema, columns: Mapping[str, str], required: Sequence[str]) -> None:
    for ours in dict.fromkeys((*required, *columns)):
        header = columns.get(ours, ours)
        if header in schema.names:
            if ours != header and ours in schema.names:
                advice = f"{name} has a column {ours} already; leave the option out, or rename one of the two"
                raise InputError("--column", f"{ours}={header}", advice)
            continue
        there = ", ".join(schema.names)
        if ours in columns:
            raise InputError("--column", f"{ours}={header}", f"{name} has no such header; it has: {there}")
        advice = f"{name} lacks this column (it has: {there}); name its header with --column {ours}=HEADER"
        raise InputError("column", ours, advice)


def _different(portions: Sequence[Portion], schemas: Sequence[pa.Schema], error: Exception) -> InputError:
    """Names the first file that does not go with those before it."""
    import pyarrow as pa

    together = schemas[0]
    for portion, schema in zip(portions, schemas, strict=True):
        try:
            together = pa.unify_schemas([together, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            advice = f"its columns do not match the other files' ({first_line(error)}); move it elsewhere"
            return InputError(portion.option, portion.name, advice)
    return InputError(portion.option, portions[0].name, f"files do not match ({first_line(error)})")


def _by_row_group(portion: Portion) -> list[Portion]:
    pieces, first = [], portion.first_row
    for fragment in portion.fragment.split_by_row_group():
        rows = sum(group.num_rows for group in fragment.row_groups)
        pieces.append(replace(portion, fragment=fragment, first_row=first, rows=rows))
        first += rows
    return pieces
