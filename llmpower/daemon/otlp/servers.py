"""On which GPUs a server computes that reports its requests by OpenTelemetry, where it does not say so itself.

The driver knows which processes compute on each GPU, the server's spans name a process, and the kernel knows whose
child is whose: vLLM's engines are children of the server that reports. All three have to agree, and what is not certain
is not known, because a guess would take joules from others:

- the process has the number that the spans name, in the container that it may run in, belongs to the user at the
  other end of the connection, had begun before the request, and is the only such one;
- every GPU has answered who computes on it (one that is lost computes for nobody);
- one of those is the process or descends from it.

A driver that hangs must not hold up senders of spans, so it is asked in a thread of its own and waited for only
briefly. Asking costs milliseconds of a lock that sampling needs too: an answer is kept for a while, and one GPU is
asked about by nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from llmpower.daemon.otlp.processes import (
    PROC,
    Process,
    counts_as_the_machine,
    is_within,
    processes_called,
    read_process,
)
from llmpower.exceptions import LlmpowerError
from llmpower.sampling import describe_status
from llmpower.types import Device

FOUND_S = 60.0
"""For so long a server's GPUs stay what they were found to be, while its process lives."""

MISSED_S = 15.0
"""After so long one whose GPUs were not found is looked at again."""

LISTING_S = 5.0
"""Drivers are asked no more often than this."""

PATIENCE_S = 1.0
"""So long who sends spans waits for a driver."""

_GONE = frozenset((6, 15))
"""NVML: not found, lost. Nobody computes on it."""

ListProcesses = Callable[[Device], tuple[int, frozenset[int]]]


@dataclass(frozen=True, slots=True)
class Place:
    """The GPUs, or ``None`` with the reason."""

    device_uuids: tuple[str, ...] | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    place: Place
    process: Process | None
    until_s: float


class Servers:
    """Finds the GPUs of servers; for one thread at a time.

    Args:
        devices: of the sampler.
        list_processes: status and ids of those who compute on a GPU, see :meth:`Sampler.processes`.
        proc: where processes are shown.
        patience_s: for how long a driver is waited for.
        now_s: CLOCK_MONOTONIC.
        boot_ns: CLOCK_BOOTTIME, which processes' starts are timed by.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        list_processes: ListProcesses,
        *,
        proc: Path = PROC,
        patience_s: float = PATIENCE_S,
        now_s: Callable[[], float] = time.monotonic,
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self._gpus = [device for device in devices if device.kind == "gpu"]
        self._list_processes = list_processes
        self._proc = proc
        self._patience_s = patience_s
        self._now_s = now_s
        self._boot_ns = boot_ns
        # The simulated driver counts as its user does.
        self._counts = all(gpu.simulated for gpu in self._gpus) or counts_as_the_machine(proc)
        self._known: dict[tuple[int, int], _Known] = {}
        self._asking: Thread | None = None
        self._listing: Mapping[str, tuple[int, frozenset[int]]] = {}
        self._listed_s = -LISTING_S

    def place(self, pid: int, uid: int | None, start_ns: int) -> Place:
        """The GPUs of the process that calls itself ``pid``, of user ``uid``, for a request begun at ``start_ns``.

        ``pid`` is 0 where the spans name none, ``uid`` is ``None`` where the kernel does not say it. ``start_ns`` is
        of CLOCK_MONOTONIC.
        """
        if len(self._gpus) < 2:
            # What it runs on is no question, and the engine's to answer.
            return Place(None)
        if pid == 0:
            return Place(None, "their spans name no process (process.pid)")
        if uid is None:
            return Place(None, "they do not come from a process of this machine")
        if not self._counts:
            return Place(None, "the daemon runs in a container and does not see the machine's processes")
        known = self._known.get((pid, uid))
        if known is None or self._now_s() >= known.until_s or not self._lives(known.process):
            known = self._find(pid, uid)
            self._known = {key: each for key, each in self._known.items() if self._now_s() < each.until_s}
            self._known[pid, uid] = known
        if known.process is not None and not self._precedes(known.process, start_ns):
            return Place(None, f"their process {pid} began after they did")
        return known.place

    def _find(self, pid: int, uid: int) -> _Known:
        found = processes_called(pid, uid, self._proc)
        if len(found) != 1:
            why = "several processes call themselves" if found else "the daemon sees no process that calls itself"
            return self._missed(f"{why} {pid} and belong to user {uid}" if found else f"{why} {pid}, of user {uid}")
        (server,) = found
        if not self._refresh():
            return self._missed("the driver does not say who computes on its GPUs: it hangs", server)
        uuids = []
        for gpu in self._gpus:
            status, pids = self._listing[gpu.uuid]
            if status and status not in _GONE:
                reason = f"{gpu.uuid} does not say who computes on it: {describe_status(status)}"
                return self._missed(reason, server)
            if any(is_within(each, server.pid, self._proc) for each in pids):
                uuids.append(gpu.uuid)
        if not uuids:
            return self._missed(f"neither their process {pid} nor a child of it computes on a GPU", server)
        return _Known(Place(tuple(uuids)), server, self._now_s() + FOUND_S)

    def _missed(self, reason: str, process: Process | None = None) -> _Known:
        return _Known(Place(None, reason), process, self._now_s() + MISSED_S)

    def _lives(self, process: Process | None) -> bool:
        return process is None or read_process(process.pid, self._proc) == process

    def _precedes(self, process: Process, start_ns: int) -> bool:
        """Whether it had begun by then; a machine that has slept since makes it look older, never younger."""
        asleep_ns = self._boot_ns() - round(self._now_s() * 1e9)
        return process.started_ns - asleep_ns <= start_ns

    def _refresh(self) -> bool:
        """Whether the drivers have answered, lately or in time."""
        if self._asking is None or not self._asking.is_alive():
            if self._now_s() - self._listed_s < LISTING_S:
                return True
            self._asking = Thread(target=self._ask, name="llmpower-processes", daemon=True)
            self._asking.start()
        self._asking.join(self._patience_s)
        return self._now_s() - self._listed_s < LISTING_S

    def _ask(self) -> None:
        # At the end the sampler may have been closed just now.
        with suppress(LlmpowerError):
            self._listing = {gpu.uuid: self._list_processes(gpu) for gpu in self._gpus}
            self._listed_s = self._now_s()
