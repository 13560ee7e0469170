"""Portions on many workers: each brings its rows down to sums or counts where it reads them, and those alone travel.

Dask runs the tasks: on a cluster that there is already (SLURM, Kubernetes, some machines), by its scheduler's address,
or on processes of this machine. Results are merged on the workers, some at a time, until a few are left, which are
merged here as they come. A worker that is lost takes its portions with it; they are read again by others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.modelling.streaming.dataset import Dataset, Portion
from llmpower.modelling.streaming.reading import KEEPING, keeps_pages
from llmpower.modelling.streaming.scanners import Scanner, T, Work

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
TASKS_A_WORKER = 4
LEAST_ROWS = 1 << 25
"""Of one task, some five seconds, where there are as many for each worker. A task starts its sums from zero and has
them sent and merged, which costs as much as summing a million rows or two."""

AT_ONCE = 4
"""Results that are merged together, once and not once for every two of them."""

CONNECT_S = 20
KEPT_BYTES = {"MALLOC_TRIM_THRESHOLD_": 1 << 28, "MALLOC_MMAP_THRESHOLD_": 1 << 25}
"""Memory that the C library of a local worker does not give back between two arrays, of up to the second size. Dask has
it give all back, and the kernel clears it again: for sums that was a sixth of a worker's time."""

KEPT_READS = {"ARROW_DEFAULT_MEMORY_POOL": KEEPING}
"""What files are read into comes of pyarrow's default pool, which gives back what was not asked for in 10 ms. One
process reads as often; each of several workers does not, and a twentieth of its time went into clearing pages."""

UNWATCHED = {
    "distributed.diagnostics.nvml": False,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""What Dask would look at many times a second for a dashboard that there is none of: a fifteenth of a processor,
stacks not counted. Memory, which a nanny stops a worker for, is that of a few batches, and a second soon enough."""

PRELOADED = ("pyarrow.dataset", "pandas", "llmpower.modelling.streaming")
"""What a local worker has imported when it is there: that takes longer than to sum some million rows."""


@contextmanager
def on_workers(
    address: str, tell: Callable[[int, int], None] | None = None, *, connect_s: float = CONNECT_S
) -> Iterator[Scanner]:
    """A scanner on the workers of the scheduler at ``address``, or of ``local`` ones that end with it.

    ``tell`` hears how many rows were read, of how many; ``connect_s`` is how long a scheduler may take to answer.

    Raises:
        InputError: Dask is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("--dask", address, "needs Dask; pip install 'llmpower[fleet]'") from error
    if address == LOCAL:
        with local_client() as client:
            yield scanner_of(client, tell)
        return
    try:
        client = Client(address, timeout=connect_s)
    except (OSError, ValueError) as error:
        advice = "no Dask scheduler answers there; start one (dask scheduler), or use local"
        raise InputError("--dask", address, advice) from error
    with client:
        yield scanner_of(client, tell)


@contextmanager
def local_client(workers: int | None = None) -> Iterator[Client]:
    """A client of this many processes of this machine, by default one per processor, which end with it.

    Dask would watch the GPUs meanwhile, this process's too, and keep NVML initialised in it ever after: a client that
    nobody asked for, which outlives all of ours.
    """
    import dask
    from distributed import Client, LocalCluster

    kept = KEPT_BYTES | KEPT_READS if keeps_pages() else KEPT_BYTES
    # One thread each: sums are made one after another, and pyarrow reads ahead by itself.
    cluster = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
        # Without a dashboard the scheduler's pages of its state would still be on 8787, or say that others are there.
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},
        "preload": list(PRELOADED),
    }
    with (
        dask.config.set(UNWATCHED),
        dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in kept.items()}),
        LocalCluster(**cluster) as processes,
        # Results come from the workers themselves: by way of the scheduler they would be sent and unpacked twice.
        Client(processes, direct_to_workers=True) as client,
    ):
        yield client


def scanner_of(
    client: Client, tell: Callable[[int, int], None] | None = None, *, least_rows: int = LEAST_ROWS
) -> Scanner:
    """A scanner on the workers of a client that there is, in tasks of ``least_rows`` or more."""

    def scanner(work: Work[T], dataset: Dataset, /) -> T:
        from distributed import as_completed

        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        tasks = workers * min(TASKS_A_WORKER, max(1, dataset.rows // (workers * least_rows)))
        portions = list(dataset.split(dataset.rows // tasks + 1))
        shared = client.scatter(work, broadcast=True)
        futures = [client.submit(_scan, shared, each, pure=False) for each in portions]
        sizes = dict(zip((future.key for future in futures), map(_rows, portions), strict=True))

        last = _merged(client, shared, futures)

        def parts(coming: deque[Future[T]]) -> Iterator[T]:
            """What the last few are, in the order of their rows, so that sums are the same every time."""
            read = 0
            for future in as_completed({future.key: future for future in (*futures, *last)}.values()):
                if future.status == "error":
                    _result(future)
                if tell is not None and future.key in sizes:
                    read += sizes[future.key]
                    tell(read, dataset.rows)
                while coming and coming[0].done():
                    yield coming.popleft().result()
            # A worker that was lost may have had some of them, which are made again.
            yield from (each.result() for each in coming)

        # Each is fetched when it is there: workers are done at about the same time, and send beside each other.
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                return work.merge(parts(deque(pool.submit(_result, future) for future in last)))
            except BaseException:
                # What others are still reading is for nothing.
                client.cancel([*futures, *last])
                raise

    return scanner


def _merged(client: Client, work: Any, futures: list[Any]) -> list[Any]:
    """A few futures of all that these come down to, merged some at a time."""
    while len(futures) > AT_ONCE:
        some = [futures[at : at + AT_ONCE] for at in range(0, len(futures), AT_ONCE)]
        futures = [client.submit(_merge, work, each, pure=False) for each in some]
    return futures


def _scan(work: Work[T], portions: Sequence[Portion]) -> T:
    return work.scan(portions)


def _merge(work: Work[T], parts: list[T]) -> T:
    return work.merge(parts)


def _rows(portions: list[Any]) -> int:
    return sum(portion.rows for portion in portions)


def _result(future: Any) -> Any:
    """What came of it; errors that a worker met are the user's as they would be here."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise LlmpowerError(f"workers were lost again and again while they read the same rows ({error})") from error
