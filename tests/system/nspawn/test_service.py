"""The Debian package on a machine that really boots: installed, killed, stopped, upgraded, rebooted, purged.

Needs root, systemd-nspawn and debootstrap; ``make test-nspawn`` builds the package and runs this. The guest has no
GPU: the daemon runs on the simulated one, everything around it is what an operator has.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from guest import Guest, wait_for
from machine import (
    STORE,
    UNIT,
    Load,
    add_drop_in,
    assert_all_stored,
    files,
    plug_in_another_machine,
    status,
    wait_until_active,
)

from llmpower.phrases import plural

CONTAINED = Path(__file__).parents[2] / "daemon" / "contained.py"


@pytest.fixture
def guest(bare: Guest) -> Guest:
    """The same with the package installed and alice allowed to send spans."""
    bare.run("dpkg", "-i", "/opt/llmpower.deb")
    bare.run("usermod", "-aG", "llmpower", "alice")
    wait_until_active(bare)
    return bare


def test_it_installs_and_is_active_when_it_says_so(guest: Guest) -> None:
    assert guest.unit(UNIT, "Type") == "notify"
    assert guest.unit(UNIT, "UnitFileState") == "enabled"
    assert re.match(r"SIMULATED, 1 device, \d+ W, 0 spans stored", guest.unit(UNIT, "StatusText"))
    # Active means that spans and scrapes are served, with no moment in between.
    for _ in range(3):
        guest.run("systemctl", "restart", UNIT)
        assert "llmpower_gpu_power_watts{" in guest.run("curl", "-s", "http://127.0.0.1:10450/metrics").stdout
        assert status(guest)["simulated"] is True
    assert guest.run("systemd-analyze", "verify", UNIT).stderr == ""
    guest.run("systemd-analyze", "security", "--threshold=20", "--no-pager", UNIT)
    # udev reads the rule, and has nothing to say against a line of it.
    said = guest.run("udevadm", "test", "/sys/class/net/lo").stderr.splitlines()
    assert [line.split(":")[0] for line in said if "60-llmpower.rules" in line] == ["Reading rules file"]


def test_members_of_the_group_may_speak_and_others_hear_why_not(guest: Guest) -> None:
    assert guest.run("runuser", "-u", "alice", "--", "llmpower", "status").stdout.startswith("llmpower ")
    done = guest.run("runuser", "-u", "bob", "--", "llmpower", "status", check=False)
    assert done.returncode == 2
    assert "join its group" in done.stderr
    assert guest.run("runuser", "-u", "bob", "--", "cat", STORE, check=False).returncode != 0
    done = guest.run("runuser", "-u", "bob", "--", "llmpower", "export", "-o", "/home/bob/m.csv", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--store = {STORE}: closed to this user" in done.stderr
    load = Load(guest)
    assert_all_stored(guest, load.stop())
    # What alice may send, she may take away, whether the daemon runs or not.
    export = ("runuser", "-u", "alice", "--", "llmpower", "export", "-o", "/home/alice/m.csv")
    running = guest.run(*export).stderr
    guest.run("systemctl", "stop", UNIT)
    assert guest.run(*export).stderr == running
    rows = (guest.root / "home/alice/m.csv").read_text("utf-8").splitlines()
    assert running.startswith(f"{plural(len(rows) - 1, 'row')} from {STORE}")
    assert len(rows) > len(load.acknowledged)


def test_a_rootless_container_that_keeps_its_groups_is_measured(guest: Guest) -> None:
    guest.copy_in(CONTAINED, "/opt")
    # The group has no name in there, so no file can be given to it. The daemon in its sandbox reads them all the same.
    inside = ("unshare", "--user", "--map-root-user", "--net", "/usr/lib/llmpower/bin/python", "/opt/contained.py")
    done = guest.run("runuser", "-u", "alice", "--", *inside, "/run/llmpower/llmpower.sock")
    found = json.loads(done.stdout)
    assert (found["uid"], found["spooled"], found["interfaces"], done.stderr) == (0, 1, ["lo"], "")
    assert found["energy_j"] > 0
    wait_for(lambda: status(guest)["spans"]["stored"] == 1, "it was not stored")
    guest.run("llmpower", "export", "--with-uid", "-o", "/root/m.csv")
    header, row = (guest.root / "root/m.csv").read_text("utf-8").splitlines()
    stored = dict(zip(header.split(","), row.split(","), strict=True))
    assert stored["uid"] == guest.run("id", "-u", "alice").stdout.strip()
    assert stored["span_id"] == found["span_id"]


def test_who_looks_finds_a_screen_a_manual_and_completion(guest: Guest) -> None:
    assert "SIMULATED" in guest.run("llmpower", "top", "--once").stdout
    # No man in this Debian; its files are what a man would read.
    for page in ("llmpower", "llmpower-top", "llmpower-service-install"):
        guest.run("test", "-s", f"/usr/share/man/man1/{page}.1.gz")
    for script in ("zsh/vendor-completions/_llmpower", "fish/vendor_completions.d/llmpower.fish"):
        guest.run("test", "-s", f"/usr/share/{script}")
    script = "source /usr/share/bash-completion/completions/llmpower; COMP_WORDS=(llmpower sta); COMP_CWORD=1"
    offered = guest.run("bash", "-c", f"{script}; _llmpower_completion llmpower; echo ${{COMPREPLY[*]}}").stdout
    assert offered == "status\n"


def test_the_journal_knows_how_grave_a_line_is(guest: Guest) -> None:
    said = guest.run("journalctl", f"--unit={UNIT}", "--priority=warning", "--output=json", "--no-pager").stdout
    (entry,) = [json.loads(line) for line in said.splitlines()]
    assert entry["MESSAGE"].startswith("SIMULATED")
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("4", "llmpower")


def test_the_sandbox_holds(guest: Guest) -> None:
    plug_in_another_machine(guest)
    devices = guest.root / "opt/devices"
    devices.mkdir()
    for name, major, minor in (("nvidia0", 195, 0), ("mem", 1, 1)):
        os.mknod(devices / name, 0o666 | 0o020000, os.makedev(major, minor))
        (devices / name).chmod(0o666)
    add_drop_in(guest, "probe.conf", "[Service]\nExecStartPost=/usr/bin/python3 /opt/probe.py %S/llmpower/probe.json\n")
    found = json.loads((guest.root / "var/lib/llmpower/probe.json").read_text("utf-8"))
    assert found == {
        "write /usr": "EROFS",
        "write /etc": "EROFS",
        "write the store's directory": "ok",
        "read /etc/shadow": "EACCES",
        "look into /home": "EACCES",
        # There is no such driver here, but the way to it is open.
        "open the NVIDIA driver's device": "ENXIO",
        "open the machine's memory": "EPERM",
        "open a raw socket": "EAFNOSUPPORT",
        "connect to another machine": "TimeoutError",
        "connect to itself": "ok",
        "become root": "EPERM",
        "make a user namespace": "EPERM",
        "change priority": "EPERM",
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "CapAmb": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


def test_one_drop_in_opens_the_metrics_to_a_prometheus_elsewhere(guest: Guest) -> None:
    plug_in_another_machine(guest)

    def scrape() -> int:
        command = "ip netns exec elsewhere curl -s -m 3 http://10.9.0.1:10450/metrics"
        return guest.run(*command.split(), check=False).returncode

    refused, timed_out = 7, 28
    assert scrape() == refused
    add_drop_in(guest, "port.conf", "[Service]\nEnvironment=LLMPOWER_DAEMON_WEB_LISTEN_ADDRESS=:10450\n")
    assert scrape() == timed_out  # bound, and still behind the unit's filter
    add_drop_in(guest, "port.conf", shipped_drop_in(guest, "metrics-port.conf"))
    assert scrape() == 0


def shipped_drop_in(guest: Guest, name: str) -> str:
    return (guest.root / "usr/share/doc/llmpower/drop-ins" / name).read_text("utf-8")


def test_one_drop_in_keeps_the_measurements_on_another_disk(guest: Guest) -> None:
    store = "/data/llmpower/spans.db"
    guest.run("install", "-d", "-o", "llmpower", "-g", "llmpower", "-m", "750", "/data/llmpower")
    (guest.root / "etc/llmpower/llmpower.toml").write_text(f'store = "{store}"\n', "utf-8")
    add_drop_in(guest, "store-elsewhere.conf", shipped_drop_in(guest, "store-elsewhere.conf"))
    load = Load(guest)
    assert_all_stored(guest, load.stop(), store)


def test_a_daemon_that_hangs_is_killed_by_its_watchdog_and_comes_back(guest: Guest) -> None:
    assert guest.unit(UNIT, "WatchdogUSec") == "30s"
    add_drop_in(guest, "watchdog.conf", "[Service]\nWatchdogSec=3\n")
    before = status(guest)["pid"]
    load = Load(guest)
    guest.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", UNIT)
    load.wait_for_more(1000)  # a stopped daemon holds no program up
    wait_for(lambda: guest.unit(UNIT, "NRestarts") == "1", "it was not restarted", 60)
    wait_until_active(guest)
    assert status(guest)["pid"] != before
    assert_all_stored(guest, load.stop())
    assert load.dropped == set()
    journal = guest.journal(UNIT)
    assert "Watchdog timeout" in journal
    assert "loop.py" in journal  # the stack says where it hung


def test_kill_9_under_load_loses_no_acknowledged_span(guest: Guest) -> None:
    load = Load(guest)
    for kills in range(1, 4):
        guest.run("systemctl", "kill", "--signal=KILL", UNIT)
        # Spans are acknowledged while nobody is there to take them.
        load.wait_for_more(1000)
        wait_for(lambda kills=kills: guest.unit(UNIT, "NRestarts") == str(kills), "it was not restarted", 60)
        wait_until_active(guest)
        load.wait_for_more(1000)
    assert_all_stored(guest, load.stop())
    assert load.dropped == set()


def test_a_program_that_starts_while_the_daemon_is_away_loses_nothing(guest: Guest) -> None:
    guest.run("systemctl", "stop", UNIT)
    load = Load(guest)
    guest.run("systemctl", "start", UNIT)
    assert_all_stored(guest, load.stop())
    assert load.dropped == set()


def test_an_upgrade_under_load_loses_no_acknowledged_span_and_no_setting(guest: Guest) -> None:
    settings = guest.root / "etc/llmpower/llmpower.toml"
    edited = 'backend = "simulated"\nrate = 50\n'
    settings.write_text(edited, "utf-8")
    load = Load(guest)
    guest.run("dpkg", "-i", "/opt/newer.deb")
    wait_until_active(guest)
    load.wait_for_more(1000)
    assert_all_stored(guest, load.stop())
    assert load.dropped == set()
    assert status(guest)["version"] == "99"
    assert settings.read_text("utf-8") == edited
    shown = guest.run("llmpower", "service", "show").stdout
    assert "installed by a package" in shown
    assert "edited     /etc/llmpower/llmpower.toml" in shown
    assert guest.run("llmpower", "service", "install", "--yes", check=False).returncode == 2
    assert guest.unit(UNIT, "NRestarts") == "0"


def test_a_reboot_under_load_loses_no_acknowledged_span(guest: Guest) -> None:
    load = Load(guest)
    load.wait_for_more(1000)
    guest.power_off()
    guest.boot()
    wait_until_active(guest)
    assert_all_stored(guest, load.acknowledged)


def test_a_wrong_setting_is_named_and_fixed_without_a_start(guest: Guest) -> None:
    settings = guest.root / "etc/llmpower/llmpower.toml"
    before = settings.read_text("utf-8")
    settings.write_text('raet = "50"\n', "utf-8")
    assert guest.run("systemctl", "restart", UNIT, check=False).returncode != 0

    def shown() -> str:
        return guest.run("journalctl", "--no-pager", "--unit", UNIT, check=False).stdout

    told = "raet = 50: /etc/llmpower/llmpower.toml has an unknown key"
    wait_for(lambda: told in shown(), shown(), 30)
    settings.write_text(before, "utf-8")
    wait_until_active(guest)


def test_removing_keeps_what_an_operator_has_and_purging_leaves_nothing(bare: Guest) -> None:
    before = files(bare)
    accounts = [(bare.root / "etc" / name).read_text("utf-8") for name in ("passwd", "group")]
    bare.run("dpkg", "-i", "/opt/llmpower.deb")
    wait_until_active(bare)
    add_drop_in(bare, "mine.conf", "[Service]\nNice=0\n")
    bare.run("dpkg", "--remove", "llmpower")
    assert bare.unit(UNIT, "ActiveState") == "inactive"
    for kept in (STORE, "/etc/llmpower/llmpower.toml", "/etc/default/llmpower"):
        assert (bare.root / kept.lstrip("/")).is_file()
    bare.run("dpkg", "--purge", "llmpower")
    backups = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"}
    assert files(bare) - before - backups == set()
    assert [(bare.root / "etc" / name).read_text("utf-8") for name in ("passwd", "group")] == accounts
    assert bare.run("systemctl", "--failed", "--quiet").stdout == ""
