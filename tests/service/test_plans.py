"""Plans, carried out in a directory that stands for a machine's root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.service import SHIPPED, FileState, Installation, Step, content, look, plan_install, plan_uninstall
from llmpower.service.installing import check_program
from llmpower.service.step import run

SYSTEMD = Path(__file__).parents[2] / "systemd"
PROGRAM = PurePosixPath("/opt/llmpower/bin/llmpower")
SETTINGS = next(shipped for shipped in SHIPPED if shipped.name == "llmpower.toml")
SERVICE = next(shipped for shipped in SHIPPED if shipped.name == "llmpower.service")


def apply(steps: Sequence[Step]) -> list[str]:
    for step in steps:
        step.apply()
    return [f"{step.verb} {step.what}" for step in steps]


def install(root: Path, program: PurePosixPath = PROGRAM) -> list[str]:
    return apply(plan_install(look(root, program), program))


def uninstall(root: Path, purge: bool = False) -> list[str]:
    return apply(plan_uninstall(look(root, PROGRAM), purge=purge))


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.fixture
def narrow_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_what_is_shipped_is_what_lies_in_systemd() -> None:
    assert {shipped.name for shipped in SHIPPED} == {path.name for path in SYSTEMD.iterdir() if path.is_file()}
    for shipped in SHIPPED:
        assert content(shipped, PurePosixPath("/usr/bin/llmpower")) == (SYSTEMD / shipped.name).read_text("utf-8")


def test_the_unit_runs_the_program_that_it_was_installed_for() -> None:
    assert f"\nExecStart={PROGRAM} daemon --config {SETTINGS.path}\n" in content(SERVICE, PROGRAM)


@pytest.mark.usefixtures("narrow_umask")
def test_an_installation_is_readable_by_the_daemon_and_starts_at_boot(tmp_path: Path) -> None:
    install(tmp_path)
    installation = look(tmp_path, PROGRAM)
    assert set(installation.files.values()) == {"installed"}
    assert (installation.program, installation.found) == (PROGRAM, True)
    for shipped in SHIPPED:
        path = shipped.below(tmp_path)
        assert path.read_text("utf-8") == content(shipped, PROGRAM)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert path.parent.stat().st_mode & stat.S_IXOTH
    if shutil.which("systemctl"):
        command = ["systemctl", f"--root={tmp_path}", "is-enabled", "llmpower.service"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "enabled\n"


def test_installing_again_writes_no_file_that_is_right(tmp_path: Path) -> None:
    install(tmp_path)
    before = {shipped: shipped.below(tmp_path).stat().st_ino for shipped in SHIPPED}
    install(tmp_path)
    assert {shipped: shipped.below(tmp_path).stat().st_ino for shipped in SHIPPED} == before


def test_a_program_elsewhere_brings_the_unit_up_to_date(tmp_path: Path) -> None:
    install(tmp_path)
    elsewhere = PurePosixPath("/srv/llmpower/bin/llmpower")
    assert f"write {SERVICE.below(tmp_path)}" in install(tmp_path, elsewhere)
    assert f"ExecStart={elsewhere} " in SERVICE.below(tmp_path).read_text("utf-8")


def test_edited_settings_survive_everything_but_a_purge(tmp_path: Path) -> None:
    install(tmp_path)
    edited = SETTINGS.below(tmp_path)
    edited.write_text("rate = 50\n", "utf-8")
    assert f"keep {edited}" in install(tmp_path)
    assert f"keep {edited}" in install(tmp_path, PurePosixPath("/srv/bin/llmpower"))
    assert f"keep {edited}" in uninstall(tmp_path)
    assert files(tmp_path) == {"etc/llmpower/llmpower.toml"}
    assert edited.read_text("utf-8") == "rate = 50\n"
    assert f"keep {edited}" in install(tmp_path)
    assert f"remove {edited}" in uninstall(tmp_path, purge=True)
    assert files(tmp_path) == set()


def test_an_edited_unit_is_set_aside_and_not_lost(tmp_path: Path) -> None:
    install(tmp_path)
    unit = SERVICE.below(tmp_path)
    unit.write_text("[Service]\n", "utf-8")
    install(tmp_path)
    assert unit.read_text("utf-8") == content(SERVICE, PROGRAM)
    assert unit.with_name("llmpower.service.old").read_text("utf-8") == "[Service]\n"


def test_uninstalling_sets_an_edited_unit_aside_and_keeps_no_settings_that_are_gone(tmp_path: Path) -> None:
    install(tmp_path)
    unit = SERVICE.below(tmp_path)
    unit.write_text("[Service]\n", "utf-8")
    SETTINGS.below(tmp_path).unlink()
    assert not [step for step in uninstall(tmp_path) if step.startswith("keep")]
    assert files(tmp_path) == {"etc/systemd/system/llmpower.service.old"}
    assert uninstall(tmp_path, purge=True) == []


def test_uninstalling_leaves_what_others_made(tmp_path: Path) -> None:
    install(tmp_path)
    others = {"etc/systemd/system/llmpower.service.d/mine.conf", "var/lib/llmpower/spans.db", "etc/llmpower/web.yml"}
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    # What enabling the timer makes is the service's own.
    timer = tmp_path / "etc/systemd/system/timers.target.wants/llmpower-export.timer"
    timer.parent.mkdir(parents=True)
    timer.symlink_to("../llmpower-export.timer")
    uninstall(tmp_path)
    assert not os.path.lexists(timer)
    assert files(tmp_path) == others
    uninstall(tmp_path, purge=True)
    assert files(tmp_path) == set()


def test_what_is_not_recorded_can_be_undone(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "etc/llmpower/installed.json").unlink()
    uninstall(tmp_path)
    assert files(tmp_path) == set()


def test_there_must_be_something_to_undo(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to undo"):
        plan_uninstall(look(tmp_path, PROGRAM))


def test_a_package_keeps_its_service(tmp_path: Path) -> None:
    unit = tmp_path / "usr/lib/systemd/system/llmpower.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    installation = look(tmp_path, PROGRAM)
    with pytest.raises(InputError, match="came with a package"):
        plan_install(installation, PROGRAM)
    with pytest.raises(InputError, match="apt remove llmpower"):
        plan_uninstall(installation)


def test_what_was_installed_beside_a_package_can_be_undone(tmp_path: Path) -> None:
    install(tmp_path)
    packaged = tmp_path / "usr/lib/systemd/system/llmpower.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    uninstall(tmp_path)
    assert files(tmp_path) == {"usr/lib/systemd/system/llmpower.service"}


def on_this_machine(state: FileState) -> Installation:
    version, program = (None, None) if state == "absent" else ("0", PROGRAM)
    return Installation(Path("/"), version, program, None, dict.fromkeys(SHIPPED, state))


@pytest.fixture
def program() -> Iterator[PurePosixPath]:
    """A program that a service could run; only root can make one, everything else lies under /tmp or /home."""
    if os.geteuid() != 0:
        pytest.skip("only root can put a program where services see it")
    directory = Path("/opt") / f"llmpower-test-{os.getpid()}"
    directory.mkdir()
    path = directory / "llmpower"
    path.write_text("#!/bin/sh\n", "utf-8")
    path.chmod(0o755)
    yield PurePosixPath(path)
    shutil.rmtree(directory)


def test_on_a_running_system_the_service_is_started_when_everything_is_there(program: PurePosixPath) -> None:
    steps = [f"{step.verb} {step.what}" for step in plan_install(on_this_machine("absent"), program)]
    order = ["write /etc/systemd/system/llmpower.service", "run systemctl daemon-reload"]
    starts = ["run systemctl enable --quiet llmpower.service", "run systemctl restart llmpower.service"]
    order = [f"run systemd-sysusers {SHIPPED[0].path}", *order[1:], *starts]
    assert [step for step in steps if step in order] == order
    assert steps.index("write /etc/llmpower/installed.json") < steps.index(order[0])
    later = plan_install(on_this_machine("absent"), program, start=False)
    assert not [step for step in later if "restart" in step.what]


def test_on_a_running_system_the_service_is_stopped_before_anything_goes(tmp_path: Path) -> None:
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.touch(0o440)
    plan = plan_uninstall(on_this_machine("installed"), powercap=tmp_path)
    assert plan[0].what == "systemctl disable --now --quiet llmpower.service"
    removed = [step.what for step in plan]
    assert removed.index("systemctl daemon-reload") > removed.index(str(SERVICE.path))
    commands = [step.what for step in plan_uninstall(on_this_machine("absent"), purge=True) if step.verb == "run"]
    assert "systemctl disable --now --quiet llmpower.service" not in commands, "systemctl fails where there is no unit"
    (back,) = [step for step in plan if step.what == str(counter)]
    if os.geteuid() == 0:
        back.apply()
        assert stat.S_IMODE(counter.stat().st_mode) == 0o400


def test_a_program_that_no_service_could_run_is_refused(tmp_path: Path, program: PurePosixPath) -> None:
    check_program(program)
    with pytest.raises(InputError, match="absolute path"):
        check_program(PurePosixPath("bin/llmpower"))
    for hidden in ("/root/bin/llmpower", "/home/me/.venv/bin/llmpower", f"{tmp_path}/llmpower"):
        with pytest.raises(InputError, match="the service cannot see /home"):
            check_program(PurePosixPath(hidden), tmp_path)
        with pytest.raises(InputError, match="the service cannot see /home"):
            plan_install(look(tmp_path, PROGRAM), PurePosixPath(hidden))
    with pytest.raises(InputError, match="there is no such program"):
        check_program(program.with_name("none"))
    Path(program).write_text("#!/root/python3\n", "utf-8")
    with pytest.raises(InputError, match="it needs /root/python3"):
        check_program(program)
    check_program(program, tmp_path)  # what another system has of that name is not known here
    for unscripted in (b"\x7fELF /root/x\n", b"#!\n", b""):
        Path(program).write_bytes(unscripted)
        check_program(program)
    Path(program).write_text("#!/bin/sh\n", "utf-8")
    Path(program).parent.chmod(0o700)
    with pytest.raises(InputError, match="other users may not enter"):
        check_program(program)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.parent.mkdir(parents=True)
    wants.touch()
    with pytest.raises(InputError, match=r"wants/llmpower.service = write: failed \(File exists\)"):
        install(tmp_path)


def test_a_command_that_fails_or_does_not_end_is_named() -> None:
    with pytest.raises(LlmpowerError, match=r"^false failed with 1"):
        run("false", why="").apply()
    with pytest.raises(LlmpowerError, match=r"no such unit"):
        run("sh", "-c", "echo no such unit >&2; exit 5", why="").apply()
    with pytest.raises(LlmpowerError, match=r"^sleep 60 did not end within 0.1 s$"):
        run("sleep", "60", why="", timeout_s=0.1).apply()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/default").touch()
    with pytest.raises(InputError, match=r"etc/default/llmpower = unreadable: Not a directory"):
        look(tmp_path, PROGRAM)


@given(st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b"null", b'{"version": 1, "program": 2, "files": 3}']))
def test_a_manifest_that_is_none_is_named(noted: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "etc/llmpower/installed.json")
        path.parent.mkdir(parents=True)
        path.write_bytes(noted)
        with pytest.raises(InputError, match="remove it and install again"):
            look(Path(directory), PROGRAM)
