"""The thread that writes to the disk, so that the loop never waits for one.

A commit that waits for a disk takes milliseconds, or half a minute where somebody else copies a model's weights to the
same disk, or for ever where the disk hangs. The loop hands over a batch and gets a future; between batches the thread
does upkeep.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from llmpower.daemon.storing.keeper import FAILED_S, Keeper
from llmpower.exceptions import StoreError, StoreUnavailableError
from llmpower.metrics import StoreState
from llmpower.store import Appended, schema
from llmpower.types import Measurement

CLOSE_S = 4.0
"""How long closing waits for a write under way. A thread that hangs in the kernel holds up nobody's end."""

Key = tuple[str, int | None]
_Result = TypeVar("_Result")

logger = logging.getLogger("llmpower.daemon")


class StoreThread:
    """Runs a keeper in a thread of its own, from here on the only one that may touch it."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Not waited for at the interpreter's end: a thread that hangs in the kernel would keep the process.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def append(self, measurements: Sequence[Measurement]) -> Future[Appended]:
        """Begin to store them; the future gives what has become of them, or raises StoreError."""
        return self._do(lambda: self._keeper.append(measurements))

    def known(self, spans: Sequence[Key]) -> Future[set[Key]]:
        """Begin to look up which of the spans (id, uid) are stored; the future gives them or raises StoreError."""
        return self._do(lambda: self._keeper.known(spans))

    def _do(self, work: Callable[[], _Result]) -> Future[_Result]:
        future: Future[_Result] = Future()
        self._jobs.put(lambda: self._finish(work, future))
        return future

    def state(self) -> StoreState:
        """What the store says of itself."""
        return self._keeper.state

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Store what was handed over, close the store and end the thread; false when that takes longer."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("the store does not answer; its disk hangs, and what it was given may be lost")
        return not self._thread.is_alive()

    def _run(self) -> None:
        next_s = time.monotonic()
        while True:
            try:
                job = self._jobs.get(timeout=max(next_s - time.monotonic(), 0.0))
            except queue.Empty:
                next_s = time.monotonic() + self._upkeep()
                continue
            if job is None:
                break
            job()
        self._keeper.close()

    @staticmethod
    def _finish(work: Callable[[], _Result], future: Future[_Result]) -> None:
        try:
            future.set_result(work())
        except StoreError as error:
            future.set_exception(error)
        except Exception as error:
            # A fault of ours must not end the thread, and with it all storing, in silence.
            logger.exception("storing measurements failed unexpectedly")
            future.set_exception(StoreUnavailableError(schema.OPTION, "?", f"storing failed: {error!r}; see the log"))

    def _upkeep(self) -> float:
        try:
            return self._keeper.upkeep()
        except Exception:
            logger.exception("the upkeep of the store failed unexpectedly")
            return FAILED_S
