"""``llmpower service`` where no package is: a Python environment in /opt, and the command that makes it a service."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from guest import Guest
from machine import UNIT, files, status, wait_until_active

LLMPOWER = "/opt/llmpower/bin/llmpower"


@pytest.fixture
def guest(bare: Guest, package: Path, tmp_path: Path) -> Guest:
    """With the package's Python environment where ``python3 -m venv /opt/llmpower`` would have put one."""
    subprocess.run(["dpkg-deb", "--extract", str(package), str(tmp_path / "package")], check=True)
    shutil.copytree(tmp_path / "package/usr/lib/llmpower", bare.root / "opt/llmpower", symlinks=True)
    program = bare.root / LLMPOWER.lstrip("/")
    first, rest = program.read_text("utf-8").split("\n", 1)
    program.write_text(f"{first.replace('/usr/lib/', '/opt/')}\n{rest}", "utf-8")
    bare.run("ln", "-s", LLMPOWER, "/usr/local/bin/llmpower")
    return bare


def test_it_makes_a_service_brings_it_up_to_date_and_leaves_nothing(guest: Guest) -> None:
    before = files(guest)
    refused = guest.run("runuser", "-u", "alice", "--", "llmpower", "service", "install", "--yes", check=False)
    assert refused.returncode == 2
    assert "use sudo" in refused.stderr
    assert files(guest) == before

    guest.run(LLMPOWER, "service", "install", "--yes")
    assert guest.unit(UNIT, "ActiveState") == "active"
    assert status(guest)["simulated"] is True
    shown = json.loads(guest.run("llmpower", "service", "show", "--json").stdout)
    assert {file["state"] for file in shown["files"]} == {"installed"}
    assert (shown["program"], shown["unit"]["ActiveState"]) == (LLMPOWER, "active")
    assert guest.run("systemd-analyze", "verify", UNIT).stderr == ""

    settings = guest.root / "etc/llmpower/llmpower.toml"
    settings.write_text("rate = 50\n", "utf-8")
    assert "keep " in guest.run(LLMPOWER, "service", "install", "--yes").stdout
    assert settings.read_text("utf-8") == "rate = 50\n"
    wait_until_active(guest)

    guest.run(LLMPOWER, "service", "uninstall", "--yes")
    assert guest.unit(UNIT, "ActiveState") == "inactive"
    left = {path for path in files(guest) - before if not path.endswith("-")}
    assert left >= {str(settings).removeprefix(str(guest.root)), "/var/lib/llmpower/spans.db"}
    assert not [path for path in left if "systemd" in path or "udev" in path]
    guest.run(LLMPOWER, "service", "uninstall", "--purge", "--yes")
    # The backups of the user database are the tools' own.
    assert {path for path in files(guest) - before if not path.endswith("-")} <= {"/etc/sysusers.d", "/etc/default"}
    assert guest.run("getent", "passwd", "llmpower", check=False).returncode != 0
    assert guest.run("getent", "group", "llmpower-rapl", check=False).returncode != 0
