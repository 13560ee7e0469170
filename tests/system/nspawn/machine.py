"""What the tests do with a guest: its daemon, an inference server that sends spans, a second machine."""

from __future__ import annotations

import json
import time

from guest import Guest, wait_for

PYTHON = "/usr/lib/llmpower/bin/python3"
STORE = "/var/lib/llmpower/spans.db"
UNIT = "llmpower.service"
SPANS_PER_SECOND = 1000


def wait_until_active(guest: Guest) -> None:
    wait_for(lambda: guest.unit(UNIT, "ActiveState") == "active", guest.journal(UNIT), 60)


def add_drop_in(guest: Guest, name: str, text: str) -> None:
    directory = guest.root / "etc/systemd/system/llmpower.service.d"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text, "utf-8")
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "restart", UNIT)


def plug_in_another_machine(guest: Guest) -> None:
    """10.9.0.2: a network namespace of its own behind a cable; the guest is 10.9.0.1 there."""
    for line in (
        "ip netns add elsewhere",
        "ip link add cable type veth peer name end netns elsewhere",
        "ip address add 10.9.0.1/24 dev cable",
        "ip link set cable up",
        "ip -n elsewhere address add 10.9.0.2/24 dev end",
        "ip -n elsewhere link set end up",
    ):
        guest.run(*line.split())


class Load:
    """Alice's inference server: a unit that sends spans from when it is started to when it is stopped.

    It is ordered after the daemon, as the operator's page says, so at a shutdown it ends before.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._notes = guest.root / "home/alice/notes"
        properties = [f"--property={name}" for name in ("User=alice", "Type=exec", f"After={UNIT}")]
        program = [PYTHON, "/opt/load.py", "/home/alice/notes", str(SPANS_PER_SECOND)]
        guest.run("systemd-run", "--unit=inference", "--quiet", *properties, *program)
        self.wait_for_more(50)

    @property
    def acknowledged(self) -> set[str]:
        """The spans whose sending call has returned and that the client knows to be safe."""
        return self._noted("acknowledged")

    @property
    def dropped(self) -> set[str]:
        """The spans that the client could not hand over."""
        return self._noted("dropped")

    def wait_for_more(self, count: int) -> None:
        """Wait until this many more have been acknowledged."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) >= before + count, f"none is acknowledged after {before}", 60)

    def stop(self) -> set[str]:
        """End the server; all that has been acknowledged."""
        self._guest.run("systemctl", "stop", "inference")
        return self.acknowledged

    def _noted(self, state: str) -> set[str]:
        lines = self._notes.read_text("ascii").splitlines() if self._notes.exists() else []
        return {line.split()[0] for line in lines if line.endswith(f" {state}")}


def stored(guest: Guest, store: str = STORE) -> set[str]:
    """The spans in the daemon's database."""
    query = f"sqlite3.connect('{store}').execute('select span_id from measurements')"
    return set(guest.run("python3", "-c", f"import sqlite3; print(*(row[0] for row in {query}))").stdout.split())


def assert_all_stored(guest: Guest, acknowledged: set[str], store: str = STORE) -> None:
    """Wait until the database has them all."""
    assert acknowledged
    deadline_s = time.monotonic() + 30
    while missing := acknowledged - stored(guest, store):
        assert time.monotonic() < deadline_s, f"{len(missing)} of {len(acknowledged)} acknowledged spans are lost"
        time.sleep(0.5)


def status(guest: Guest) -> dict[str, object]:
    answer = json.loads(guest.run("llmpower", "status", "--json").stdout)
    assert isinstance(answer, dict)
    return answer


def files(guest: Guest) -> set[str]:
    """Every path of the guest's root file system, but for what any package leaves in dpkg's and systemd's own books."""
    books = ("/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/systemd", "/var/tmp", "/tmp", "/opt")
    command = "find / -xdev -not -path '/run/*' -not -path '/proc/*'"
    paths = guest.run("sh", "-c", command).stdout.splitlines()
    return {path for path in paths if not path.startswith(books)}
