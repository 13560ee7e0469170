"""Record batches of a data set's files, read ahead, with the file and the row that each begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

DECAY_MS = 10_000


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
    import pyarrow as pa
    from pyarrow import dataset as pads

    fields = [schema.field(header) for header in headers.values()]
    words = [f.name for f in fields if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    # Words that repeat stay numbers of a dictionary, as they are in the file.
    numbered = pa.dictionary(pa.int32(), pa.string())
    read = pa.schema([f.with_type(numbered) if f.name in words else f for f in fields])
    form = pads.ParquetFileFormat(read_options=pads.ParquetReadOptions(dictionary_columns=words))
    for file, pieces in _by_file_system(portions):
        fragments = [
            form.make_fragment(
                piece.fragment.path,
                file,
                piece.fragment.partition_expression,
                row_groups=[group.id for group in piece.fragment.row_groups],
            )
            for piece in pieces
        ]
        dataset = pads.FileSystemDataset(fragments, read, form, file)
        places = {fragment.path: piece for fragment, piece in zip(reversed(fragments), reversed(pieces), strict=True)}
        rows_of = {path: piece.first_row for path, piece in places.items()}
        scanner = dataset.scanner(
            columns=list(headers.values()),
            batch_size=BATCH_ROWS,
            batch_readahead=READ_AHEAD,
            fragment_readahead=READ_AHEAD,
            use_threads=True,
            memory_pool=_pool(),
        )
        try:
            for tagged in scanner.scan_batches():
                path = tagged.fragment.path
                if len(tagged.record_batch):
                    yield places[path].name, rows_of[path], tagged.record_batch
                    rows_of[path] += len(tagged.record_batch)
        except failures() as error:
            reason = first_line(error)
            raise InputError(
                pieces[0].option, pieces[0].name, f"or a file beside it cannot be read ({reason})"
            ) from error


def _pool() -> Any:
    """Memory for batches, which come and go: a pool that keeps its pages spares the kernel clearing them anew."""
    import pyarrow as pa

    if "jemalloc" not in pa.supported_memory_backends():
        return pa.default_memory_pool()
    pa.jemalloc_set_decay_ms(DECAY_MS)
    return pa.jemalloc_memory_pool()


def _by_file_system(portions: Sequence[Portion]) -> Iterator[tuple[Any, list[Portion]]]:
    """Runs of portions that lie in one file system."""
    run: list[Portion] = []
    for portion in portions:
        if run and not run[-1].fragment.filesystem.equals(portion.fragment.filesystem):
            yield run[-1].fragment.filesystem, run
            run = []
        run.append(portion)
    if run:
        yield run[-1].fragment.filesystem, run
