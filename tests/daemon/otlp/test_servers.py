"""On which GPUs a server computes: found where everything agrees, and else unknown with the reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shown_processes import show

from llmpower.daemon.otlp.servers import FOUND_S, LISTING_S, MISSED_S, Place, Servers
from llmpower.exceptions import LlmpowerError
from llmpower.types import Device

S = 1_000_000_000
USER, SERVER, ENGINES = 1000, 300, (301, 302)
LATE_NS = 100 * S


def gpu(index: int, simulated: bool = True) -> Device:
    return Device(f"GPU-{index}", index, "card", "gpu", simulated, True, True, "1")


class Machine:
    """Four GPUs, a server with an engine on each of the first two, and a stranger on the third."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.computing: dict[int, Any] = {0: (0, {301}), 1: (0, {302}), 2: (0, {400}), 3: (0, set())}
        self.now_s = 1000.0
        self.asked = 0
        show(proc, 1, parent=0, uid=0)
        show(proc, SERVER)
        for pid in ENGINES:
            show(proc, pid, parent=SERVER)
        show(proc, 400)
        self.servers = self.of(4)

    def of(self, gpus: int, **options: Any) -> Servers:
        options = {"list_processes": self._list, "now_s": lambda: self.now_s} | options
        devices = [gpu(index) for index in range(gpus)]
        return Servers(devices, proc=self.proc, boot_ns=lambda: round(self.now_s * S), **options)

    def _list(self, device: Device) -> tuple[int, frozenset[int]]:
        self.asked += 1
        status, pids = self.computing[device.index]
        return status, frozenset(pids)

    def place(self, pid: int = SERVER, uid: int | None = USER, start_ns: int = LATE_NS) -> Place:
        return self.servers.place(pid, uid, start_ns)

    def unknown(self, **arguments: Any) -> str:
        place = self.place(**arguments)
        assert place.device_uuids is None
        return place.reason


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    return Machine(tmp_path)


def test_a_server_is_where_it_and_its_children_compute(machine: Machine) -> None:
    assert machine.place() == Place(("GPU-0", "GPU-1"))
    assert machine.place(pid=301) == Place(("GPU-0",))
    assert machine.place(pid=400) == Place(("GPU-2",))


def test_one_gpu_is_no_question(machine: Machine) -> None:
    machine.servers = machine.of(1)
    assert machine.place() == Place(None)
    assert machine.asked == 0


def test_in_a_container_it_is_found_by_the_number_that_it_calls_itself(machine: Machine) -> None:
    show(machine.proc, 900, own_pid=7)
    show(machine.proc, 901, own_pid=8, parent=900)
    machine.computing[3] = (0, {901})
    assert machine.place(pid=7) == Place(("GPU-3",))
    assert "sees no process that calls itself 900" in machine.unknown(pid=900)


def test_the_first_of_a_container_is_not_taken_for_the_machines_or_anothers(machine: Machine) -> None:
    # Everything descends from the machine's own, which would be on every GPU.
    assert "sees no process that calls itself 1, of user 0" in machine.unknown(pid=1, uid=0)
    machine.now_s += MISSED_S
    show(machine.proc, 900, own_pid=1, uid=0)
    machine.computing[3] = (0, {900})
    assert machine.place(pid=1, uid=0) == Place(("GPU-3",))
    machine.now_s += FOUND_S
    show(machine.proc, 950, own_pid=1, uid=0)
    assert "several processes call themselves 1" in machine.unknown(pid=1, uid=0)


def test_whoever_sends_for_another_users_process_is_not_believed(machine: Machine) -> None:
    assert "sees no process that calls itself 300, of user 1001" in machine.unknown(uid=1001)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"pid": 0}, "their spans name no process"),
        ({"uid": None}, "they do not come from a process of this machine"),
        ({"pid": 555}, "sees no process that calls itself 555"),
        ({"start_ns": 3 * S}, "their process 300 began after they did"),
    ],
)
def test_what_is_not_known_is_said(machine: Machine, arguments: dict[str, Any], reason: str) -> None:
    assert reason in machine.unknown(**arguments)


def test_a_server_that_computes_nowhere_is_not_known_to(machine: Machine) -> None:
    machine.computing = {index: (0, set()) for index in range(4)}
    assert "neither their process 300 nor a child of it computes" in machine.unknown()


def test_while_one_gpu_does_not_tell_nobody_knows_all_of_a_servers(machine: Machine) -> None:
    machine.computing[3] = (3, set())
    assert machine.unknown() == "GPU-3 does not say who computes on it: Not Supported (NVML code 3)"


@pytest.mark.parametrize("status", [6, 15])
def test_on_a_gpu_that_is_lost_nobody_computes(machine: Machine, status: int) -> None:
    machine.computing[3] = (status, set())
    assert machine.place() == Place(("GPU-0", "GPU-1"))


def test_an_answer_is_kept_for_a_while_and_no_longer_than_its_process(machine: Machine) -> None:
    machine.place()
    machine.computing[3] = (0, {302})
    machine.now_s += FOUND_S - 1
    assert machine.place() == Place(("GPU-0", "GPU-1"))
    assert machine.asked == 4
    machine.now_s += 1
    assert machine.place() == Place(("GPU-0", "GPU-1", "GPU-3"))
    machine.now_s += LISTING_S
    show(machine.proc, SERVER, parent=400)  # another, by the same number
    machine.computing = {index: (0, {SERVER} if index == 2 else set()) for index in range(4)}
    assert machine.place() == Place(("GPU-2",))


def test_what_was_not_found_is_looked_for_again(machine: Machine) -> None:
    computing, machine.computing = machine.computing, {index: (0, set()) for index in range(4)}
    machine.unknown()
    machine.computing = computing
    machine.now_s += MISSED_S - 1
    machine.unknown()
    assert machine.asked == 4
    machine.now_s += 1
    assert machine.place() == Place(("GPU-0", "GPU-1"))


def test_a_driver_that_hangs_holds_nobody_up(machine: Machine) -> None:
    goes_on = threading.Event()

    def hang(device: Device) -> tuple[int, frozenset[int]]:
        goes_on.wait(60)
        return machine._list(device)

    machine.servers = machine.of(4, list_processes=hang, patience_s=0.01)
    assert "it hangs" in machine.unknown()
    assert "it hangs" in machine.unknown(pid=400)
    goes_on.set()
    machine.now_s += MISSED_S
    deadline_s = time.monotonic() + 30
    while machine.place().device_uuids is None:
        assert time.monotonic() < deadline_s
        machine.now_s += MISSED_S
    assert machine.place() == Place(("GPU-0", "GPU-1"))


def test_a_sampler_that_was_closed_meanwhile_is_no_error_of_the_thread_that_asks_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)

    def closed(_: Device) -> tuple[int, frozenset[int]]:
        raise LlmpowerError("this sampler is closed")

    machine.servers = machine.of(4, list_processes=closed)
    assert "does not say who computes" in machine.unknown()
    assert errors == []


def test_a_machine_that_has_slept_has_processes_that_began_before_their_requests(machine: Machine) -> None:
    # The server began four seconds after the machine, which slept right then; requests are timed without that hour.
    asleep_s = 3600.0
    machine.servers = Servers(
        [gpu(index) for index in range(4)],
        machine._list,
        proc=machine.proc,
        now_s=lambda: machine.now_s,
        boot_ns=lambda: round((machine.now_s + asleep_s) * S),
    )
    assert machine.place(start_ns=1 * S) == Place(("GPU-0", "GPU-1"))


def test_a_daemon_in_a_container_does_not_know_the_machines_numbers(tmp_path: Path) -> None:
    servers = Servers(
        [gpu(0, simulated=False), gpu(1, simulated=False)], lambda _: (0, frozenset((SERVER,))), proc=tmp_path
    )
    show(tmp_path, SERVER)
    place = servers.place(SERVER, USER, LATE_NS)
    assert place == Place(None, "the daemon runs in a container and does not see the machine's processes")
