"""Long arrays a stretch at a time: as much as a processor's cache holds, and on as many processors as there are.

What is computed of a stretch stays in the cache until it is used. NumPy and the kernels let go of the interpreter while
they compute, so threads are enough. Every stretch is computed alike whoever does it: the results are the same bits on
any number of processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

MOST_THREADS = 8
# Below this many stretches a thread takes longer to start than to be of use.
WORTH_THREADS = 8


def stretches(length: int, size: int) -> Iterator[slice]:
    """0 … length in slices of ``size``, the last one shorter."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def in_stretches(work: Callable[[slice], T], length: int, size: int) -> list[T]:
    """What ``work`` returns for each stretch, in their order."""
    slices = list(stretches(length, size))
    n_threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    if n_threads == 1 or len(slices) < WORTH_THREADS:
        return [work(cells) for cells in slices]
    # A thread takes neighbouring stretches: memory that is used for the first time is taken in order.
    share = -(-len(slices) // n_threads)
    parts = [slices[start : start + share] for start in range(0, len(slices), share)]
    with ThreadPoolExecutor(n_threads) as pool:
        return [found for part in pool.map(lambda part: [work(cells) for cells in part], parts) for found in part]
