"""The plan that undoes an installation: without ``purge`` what an operator or the daemon has made stays."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from llmpower.exceptions import InputError
from llmpower.service import step
from llmpower.service.files import (
    DROP_INS,
    ENABLED,
    EXPORT_ENABLED,
    EXPORT_TIMER,
    GROUPS,
    RUNTIME_DIRECTORY,
    SETTINGS_DIRECTORY,
    SHIPPED,
    STATE_DIRECTORY,
    UNIT,
    UNIT_PATH,
    USER,
    below,
)
from llmpower.service.installing import reload_udev
from llmpower.service.state import MANIFEST, Installation
from llmpower.service.step import Step

POWERCAP = Path("/sys/class/powercap")


def plan_uninstall(installation: Installation, *, purge: bool = False, powercap: Path = POWERCAP) -> list[Step]:
    """The steps that remove the service.

    Args:
        installation: what is there now.
        purge: whether edited settings, drop-ins, measurements, the user and the groups go too.
        powercap: the kernel's zones, whose counters go back to root.

    Raises:
        InputError: nothing is installed, or a distribution's package has installed it.
    """
    root = installation.root
    if installation.packaged and not installation.found:
        raise InputError(
            "service", installation.packaged, "the service came with a package; remove that: apt remove llmpower"
        )
    if not installation.found and not purge:
        raise InputError("service", UNIT_PATH, f"none is installed below {root}; there is nothing to undo")
    live = root == Path("/")
    steps = []
    if live and installation.files[SHIPPED[-1]] != "absent":
        steps.append(step.run("systemctl", "disable", "--now", "--quiet", UNIT, why="stop it, once spans are stored"))
    elif os.path.lexists(below(root, ENABLED)):
        steps.append(step.remove(below(root, ENABLED), "it no longer starts at boot"))
    if os.path.lexists(timer := below(root, EXPORT_ENABLED)):
        why = "nothing is added to a fleet's data set any more"
        stop = step.run("systemctl", "disable", "--now", "--quiet", EXPORT_TIMER, why=why)
        steps.append(stop if live else step.remove(timer, why))
    steps += _files(installation, purge)
    if live:
        steps.append(step.run("systemctl", "daemon-reload", why="forget the unit"))
        steps += reload_udev("forget the rule")
        steps += [_back_to_root(path) for path in sorted(powercap.glob("intel-rapl:*/energy_uj"))]
        if below(root, RUNTIME_DIRECTORY).exists():
            why = "its socket, and the spool, which nobody would read"
            steps.append(step.remove(below(root, RUNTIME_DIRECTORY), why))
    return steps + _what_it_made(root, purge)


def _files(installation: Installation, purge: bool) -> list[Step]:
    root, steps = installation.root, []
    for shipped in reversed(SHIPPED):
        path, state = shipped.below(root), installation.files[shipped]
        if state == "installed" or (state == "edited" and purge):
            steps.append(step.remove(path, shipped.purpose))
        elif state == "edited" and shipped.setting:
            steps.append(step.keep(path, f"{shipped.purpose}: edited (--purge removes it)"))
        elif state == "edited":
            steps.append(step.set_aside(path, f"{shipped.purpose}: edited"))
    if below(root, MANIFEST).exists():
        steps.append(step.remove(below(root, MANIFEST), "what was installed"))
    settings = below(root, SETTINGS_DIRECTORY)
    if settings.is_dir():
        directory = step.remove if purge else step.remove_if_empty
        steps.append(directory(settings, "its settings' directory" + ("" if purge else ", if nothing is left in it")))
    return steps


def _what_it_made(root: Path, purge: bool) -> list[Step]:
    """What came after the installation: drop-ins, measurements, and who owns them."""
    steps = []
    for path, what in ((DROP_INS, "your drop-ins"), (STATE_DIRECTORY, "its measurements")):
        if below(root, path).exists():
            steps.append(
                step.remove(below(root, path), what) if purge else step.keep(below(root, path), f"{what} (--purge)")
            )
    if root != Path("/"):
        return steps
    if purge:
        if any(entry.pw_name == USER for entry in pwd.getpwall()):
            steps.append(step.run("userdel", USER, why="nothing of it is left that another could inherit"))
        # userdel takes the group of the same name along, unless it has members.
        groups = {entry.gr_name: entry.gr_mem for entry in grp.getgrall()}
        steps += [
            step.run("groupdel", name, why="the same")
            for name in GROUPS
            if name in groups and (name != USER or groups[name])
        ]
    return steps


def _back_to_root(counter: Path) -> Step:
    def action() -> None:
        os.chown(counter, 0, 0)
        counter.chmod(0o400)

    return Step("write", str(counter), "CPU energy is for root alone again", action)
