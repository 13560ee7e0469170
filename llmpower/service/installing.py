"""The plan that puts the service in place, and what must hold before there can be one."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path, PurePosixPath

from llmpower import __version__
from llmpower.exceptions import InputError
from llmpower.service import step
from llmpower.service.files import ENABLED, SHIPPED, UNIT, UNIT_PATH, Shipped, below, content
from llmpower.service.state import MANIFEST, Installation, manifest
from llmpower.service.step import Step

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What ProtectHome= and PrivateTmp= in the unit hide from it."""

_BOOTED = Path("/run/systemd/system")


def default_program() -> PurePosixPath:
    """The ``llmpower`` that stands beside the Python that runs this."""
    return PurePosixPath(sys.executable).with_name("llmpower")


def plan_install(installation: Installation, program: PurePosixPath, *, start: bool = True) -> list[Step]:
    """The steps that install the service, or bring an installed one up to date.

    Below another root than ``/`` only files are written: users, permissions and the start come when that system boots.

    Args:
        installation: what is there now.
        program: what the service runs.
        start: whether it is started now; if not, at the next boot.

    Raises:
        InputError: a distribution's package has installed it, or the program cannot serve.
    """
    root = installation.root
    if installation.packaged:
        advice = "the service came with a package, which upgrades it; settings are in /etc/llmpower"
        raise InputError("service", installation.packaged, advice)
    check_program(program, root)
    steps, texts = [], {}
    for shipped in SHIPPED:
        texts[shipped] = content(shipped, program)
        steps += _write(installation, shipped, texts[shipped])
    note = manifest(__version__, program, texts)
    steps.append(step.write(below(root, MANIFEST), note, "what was installed, so that it can be undone"))
    if root != Path("/"):
        return [*steps, step.link(below(root, ENABLED), str(UNIT_PATH), "it starts at boot")]
    steps.append(step.run("systemd-sysusers", str(SHIPPED[0].path), why="make the user and the groups"))
    steps += reload_udev("give CPU energy to the group")
    steps.append(step.run("systemctl", "daemon-reload", why="read the unit"))
    steps.append(step.run("systemctl", "enable", "--quiet", UNIT, why="start it at boot"))
    if start:
        steps.append(step.run("systemctl", "restart", UNIT, why="start it now, and wait until it measures"))
    return steps


def check_permission(root: Path) -> None:
    """Raise InputError unless this process may change the system below ``root`` and, for ``/``, systemd runs it.

    Plans are made without, so that anybody may look at one.
    """
    if not root.is_dir():
        raise InputError("--root", root, "there is no such directory; create it first")
    if root != Path("/"):
        return
    if os.geteuid() != 0:
        advice = "only root may do that; use sudo, or --root DIR to write the files into a directory"
        raise InputError("user", os.geteuid(), advice)
    if not _BOOTED.is_dir() or shutil.which("systemctl") is None:
        advice = "systemd does not run this machine; start 'llmpower daemon' with what does, or use --root DIR"
        raise InputError("systemd", "not running", advice)


def check_program(program: PurePosixPath, root: Path = Path("/")) -> None:
    """Raise InputError unless a service could run ``program``: seen through its sandbox, by a user who is nobody."""
    fix = "python3 -m venv /opt/llmpower && /opt/llmpower/bin/pip install llmpower"
    if not program.is_absolute() or " " in str(program):
        raise InputError("--program", program, "give an absolute path without blanks")
    hidden = [program, *(_behind(Path(program)) if root == Path("/") else [])]
    for path in hidden:
        if str(path).startswith(tuple(f"{directory}/" for directory in HIDDEN)):
            where = "" if path == program else f"; it needs {path}, which is there"
            advice = f"the service cannot see {', '.join(HIDDEN)}{where}: install llmpower elsewhere ({fix})"
            raise InputError("--program", program, advice)
    if root != Path("/"):
        return
    path = Path(program)
    if not path.is_file() or not os.access(path, os.X_OK):
        raise InputError("--program", program, f"there is no such program; name one, or install it ({fix})")
    for part in (path, *path.parents, path.resolve(), *path.resolve().parents):
        if not part.stat().st_mode & stat.S_IXOTH:
            raise InputError("--program", program, f"other users may not enter {part}; chmod o+rx it")


def reload_udev(why: str) -> list[Step]:
    """The steps that have udev read its rules again and apply them; none where no udev runs."""
    if shutil.which("udevadm") is None or not Path("/run/udev/control").exists():
        return []
    return [
        step.run("udevadm", "control", "--reload", why="read the rule"),
        step.run("udevadm", "trigger", "--subsystem-match=powercap", "--action=change", why=why),
    ]


def _write(installation: Installation, shipped: Shipped, text: str) -> list[Step]:
    path, state = shipped.below(installation.root), installation.files[shipped]
    if state == "absent":
        return [step.write(path, text, shipped.purpose)]
    if state == "edited" and shipped.setting:
        return [step.keep(path, f"{shipped.purpose}: edited, so it stays as it is")]
    if state == "edited":
        aside = step.set_aside(path, "edited, and not meant to be: changes belong in 'systemctl edit llmpower'")
        return [aside, step.write(path, text, shipped.purpose)]
    return [] if path.read_text("utf-8") == text else [step.write(path, text, f"{shipped.purpose}: a newer version")]


def _behind(program: Path) -> list[Path]:
    """What a script needs beside itself: where it really lies, and the interpreter of its first line."""
    needed = [program.resolve()]
    try:
        first = program.read_bytes().split(b"\n", 1)[0]
    except OSError:
        return needed
    if first.startswith(b"#!") and (words := first[2:].split()):
        interpreter = Path(os.fsdecode(words[0]))
        needed += [interpreter, interpreter.resolve()]
    return needed
