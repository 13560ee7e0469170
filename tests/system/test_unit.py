"""What lies in systemd/ is what systemd, udev and the daemon make of it, asked of themselves."""

from __future__ import annotations

import grp
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmpower.daemon.config import default_settings, load_config

SYSTEMD = Path(__file__).parents[2] / "systemd"
DROP_INS = sorted(path.name for path in (SYSTEMD / "drop-ins").iterdir())
UNIT = (SYSTEMD / "llmpower.service").read_text("utf-8")

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it would be installed, except that its program is one that exists here."""
    path = tmp_path / "llmpower.service"
    path.write_text(UNIT.replace("ExecStart=/usr/bin/llmpower ", f"ExecStart={sys.executable} "), "utf-8")
    return path


def add_drop_in(unit: Path, name: str, text: str | None = None) -> None:
    directory = unit.with_suffix(".service.d")
    directory.mkdir(exist_ok=True)
    written = (SYSTEMD / "drop-ins" / name).read_text("utf-8") if text is None else text
    directory.joinpath(name).write_text(written, "utf-8")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def exposure(unit: Path) -> float:
    """systemd's own figure for how much a service could do: 0 is nothing, 10 is everything."""
    done = analyze("security", "--offline=true", "--threshold=100", str(unit))
    found = re.search(r"Overall exposure level for llmpower.service: (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize("name", ["llmpower-export.service", "llmpower-export.timer"])
def test_systemd_has_nothing_to_say_against_the_export(name: str, tmp_path: Path) -> None:
    for each in ("llmpower-export.service", "llmpower-export.timer"):
        text = (SYSTEMD / each).read_text("utf-8")
        (tmp_path / each).write_text(
            text.replace("ExecStart=/usr/bin/llmpower ", f"ExecStart={sys.executable} "), "utf-8"
        )
    done = analyze("verify", str(tmp_path / name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_the_export_can_do_little(tmp_path: Path) -> None:
    path = tmp_path / "llmpower-export.service"
    path.write_text((SYSTEMD / path.name).read_text("utf-8"), "utf-8")
    done = analyze("security", "--offline=true", "--threshold=100", str(path))
    found = re.search(r"Overall exposure level for \S+: (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < 2.5


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
def test_systemd_has_nothing_to_say_against_the_unit(unit: Path, drop_in: str | None) -> None:
    if drop_in:
        add_drop_in(unit, drop_in)
    done = analyze("verify", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_a_mistake_in_a_drop_in_would_be_heard(unit: Path) -> None:
    add_drop_in(unit, "mistake.conf", "[Service]\nIPAdressAllow=10.0.0.0/8\n")
    assert "IPAdressAllow" in analyze("verify", str(unit)).stderr


@needs_systemd
def test_the_sandbox_is_tight(unit: Path) -> None:
    assert exposure(unit) <= 2.0
    done = analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert done.returncode == 0
    unit.write_text(re.sub("(?m)^(ProtectSystem|CapabilityBoundingSet|SystemCallFilter)=.*$", "", UNIT), "utf-8")
    assert exposure(unit) > 2.0


@needs_systemd
@pytest.mark.parametrize("drop_in", DROP_INS)
def test_each_drop_in_leaves_the_rest_of_the_sandbox_as_it_is(unit: Path, drop_in: str) -> None:
    before = exposure(unit)
    add_drop_in(unit, drop_in)
    assert before <= exposure(unit) <= 2.0


def test_the_settings_file_has_every_setting_with_its_default() -> None:
    text = (SYSTEMD / "llmpower.toml").read_text("utf-8")
    assert tomllib.loads(text) == {}
    defaults = default_settings({}, 0)
    written = tomllib.loads(re.sub(r"(?m)^#(?=\S)", "", text))
    for key, default in defaults.items():
        value: object = written
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        assert value == (str(default) if isinstance(default, Path) else default), key
        assert re.search(rf"(?m)^# ?(Not set; to set it: )?{re.escape(key)} = ", text), key


def test_the_settings_file_with_everything_uncommented_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "llmpower.toml"
    file.write_text(re.sub(r"(?m)^#(?=\S)", "", (SYSTEMD / "llmpower.toml").read_text("utf-8")), "utf-8")
    assert load_config({}, file, environ={}, uid=0) == load_config({}, environ={}, uid=0)


def test_the_units_user_has_the_systems_places() -> None:
    (line,) = re.findall(r"(?m)^Environment=(XDG.*)$", UNIT)
    # %S and %t are what systemd calls a system's state and runtime directories.
    environ = dict(word.split("=") for word in line.replace("%S", "/var/lib").replace("%t", "/run").split())
    assert load_config({}, environ=environ, uid=997) == load_config({}, environ={}, uid=0)
    assert "\nStateDirectory=llmpower\n" in UNIT
    assert "\nRuntimeDirectory=llmpower\n" in UNIT


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd is not installed")
def test_the_users_that_the_unit_names_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(SYSTEMD / "llmpower.sysusers")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    users = [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text("utf-8").splitlines()]
    groups = [line.split(":")[0] for line in (tmp_path / "etc/group").read_text("utf-8").splitlines()]
    assert set(re.findall(r"(?m)^User=(.*)$", UNIT)) == set(users) == {"llmpower"}
    assert set(re.findall(r"(?m)^(?:Supplementary)?Groups?=(.*)$", UNIT)) == set(groups)


def test_the_udev_rule_gives_a_zones_counter_to_the_group_and_to_nobody_else(tmp_path: Path) -> None:
    counter = tmp_path / "devices/virtual/powercap/intel-rapl/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.touch(0o400)
    rule = (SYSTEMD / "llmpower.udev").read_text("utf-8")
    commands = re.findall(r'RUN\+="([^"]+)"', rule)
    assert len(commands) == 2
    for command in commands:
        # As udev expands it; the group is one that exists here.
        here = command.replace("%S%p", str(counter.parent)).replace("llmpower-rapl", grp.getgrgid(os.getgid()).gr_name)
        subprocess.run(here.split(), check=True, timeout=60)
    assert counter.stat().st_mode & 0o777 == 0o440
