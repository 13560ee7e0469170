"""Record batches of a data set's files, read ahead, with the file and the row that each begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError
from llmpower.modelling.streaming.arrays import Batch, batch_of
from llmpower.modelling.streaming.dataset import Portion
from llmpower.places import failures, first_line

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 18
READ_AHEAD = 1
"""Batches and files that are read while one is summed: what waits longer is in no processor's cache any more."""

RUN_ROWS = 1 << 21
"""That pyarrow is given at a time, or one file: it reads until a gigabyte waits, in memory that the kernel has to clear
first. The next ones are begun when half as many are left."""

KEEPING, DECAY_MS = "jemalloc", 10_000
"""The pool of pyarrow's that keeps pages, and for how long."""


def batches(schema: pa.Schema, headers: Mapping[str, str], portions: Sequence[Portion]) -> Iterator[Batch]:
    """Rows of portions under our names (those of ``headers``, our name → theirs), small batches joined.

    Raises:
        InputError: a file cannot be read.
    """
    waiting: list[tuple[str, int, Any]] = []
    rows = 0
    for name, first, record_batch in record_batches(schema, headers, portions):
        waiting.append((name, first, record_batch))
        rows += len(record_batch)
        # Columns of one batch are arrays as they stand; those of several have to be copied.
        if rows >= BATCH_ROWS // 2:
            yield batch_of(waiting, headers)
            waiting, rows = [], 0
    if waiting:
        yield batch_of(waiting, headers)


def record_batches(
    schema: pa.Schema, headers: Mapping[str, str], portions: Sequence[Portion]
) -> Iterator[tuple[str, int, Any]]:
    """Batches with the file that each is of and the number of its first row there."""
    begin = _beginner(schema, headers)
    runs = list(_runs(portions))
    begun: Iterator[Any] | None = None
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        places = {portion.fragment.path: portion for portion in reversed(run)}
        rows_of = {path: portion.first_row for path, portion in places.items()}
        left = sum(portion.rows for portion in run)
        with _named(run):
            tagged_batches, begun = begun or begin(run), None
            for tagged in tagged_batches:
                path, n = tagged.fragment.path, len(tagged.record_batch)
                left -= n
                if following and not begun and left <= RUN_ROWS // 2:
                    with _named(following):
                        begun = begin(following)
                if n:
                    yield places[path].name, rows_of[path], tagged.record_batch
                    rows_of[path] += n


def _beginner(schema: pa.Schema, headers: Mapping[str, str]) -> Callable[[Sequence[Portion]], Iterator[Any]]:
    """What has pyarrow begin to read a run of portions; it gives their batches, each with its file."""
    import pyarrow as pa
    from pyarrow import dataset as pads

    fields = [schema.field(header) for header in headers.values()]
    words = [f.name for f in fields if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    # Words that repeat stay numbers of a dictionary, as they are in the file.
    numbered = pa.dictionary(pa.int32(), pa.string())
    read = pa.schema([f.with_type(numbered) if f.name in words else f for f in fields])
    form = pads.ParquetFileFormat(read_options=pads.ParquetReadOptions(dictionary_columns=words))

    def begin(run: Sequence[Portion]) -> Iterator[Any]:
        file = run[0].fragment.filesystem
        fragments = [
            form.make_fragment(
                portion.fragment.path,
                file,
                portion.fragment.partition_expression,
                row_groups=[group.id for group in portion.fragment.row_groups],
            )
            for portion in run
        ]
        scanner = pads.FileSystemDataset(fragments, read, form, file).scanner(
            columns=list(headers.values()),
            batch_size=BATCH_ROWS,
            batch_readahead=READ_AHEAD,
            fragment_readahead=READ_AHEAD,
            use_threads=True,
            memory_pool=_pool(),
        )
        batches: Iterator[Any] = scanner.scan_batches()
        return batches

    return begin


@contextmanager
def _named(run: Sequence[Portion]) -> Iterator[None]:
    """What fails is one of these."""
    try:
        yield
    except failures() as error:
        reason = first_line(error)
        raise InputError(run[0].option, run[0].name, f"or a file beside it cannot be read ({reason})") from error


def keeps_pages() -> bool:
    """Whether pyarrow was built with the pool below."""
    import pyarrow as pa

    return KEEPING in pa.supported_memory_backends()


def _pool() -> Any:
    """Memory for batches, which come and go: a pool that keeps its pages spares the kernel clearing them again."""
    import pyarrow as pa

    if not keeps_pages():
        return pa.default_memory_pool()
    pa.jemalloc_set_decay_ms(DECAY_MS)
    return pa.jemalloc_memory_pool()


def _runs(portions: Sequence[Portion]) -> Iterator[list[Portion]]:
    """Portions that lie in one file system and have as many rows as a scanner is given, in their order."""
    run: list[Portion] = []
    rows = 0
    for portion in portions:
        rows += portion.rows
        if run and (rows > RUN_ROWS or not run[-1].fragment.filesystem.equals(portion.fragment.filesystem)):
            yield run
            run, rows = [], portion.rows
        run.append(portion)
    if run:
        yield run
