"""``llmpower service``: the daemon as a system service, installed and removed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import UNCUT, aligned, echo_lines
from llmpower.cli.options import json_option
from llmpower.exceptions import InputError, LlmpowerError
from llmpower.phrases import plural

if TYPE_CHECKING:
    from llmpower.service import Installation, Step

PATIENCE_S = 30.0
"""How long systemd may take to answer."""

_PROPERTIES = ("ActiveState", "SubState", "UnitFileState", "StatusText", "MainPID", "NRestarts", "FragmentPath")


def _root(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/"),
        show_default=True,
        help="The system's root directory; any other than / is written to and not run.",
    )(function)


def _program(function: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--program", metavar="PATH", help="What the service runs.  [default: the llmpower of this Python]"
    )(function)


def _asking(function: Callable[..., None]) -> Callable[..., None]:
    function = click.option("--yes", is_flag=True, help="Do not ask; for scripts.")(function)
    return click.option("--dry-run", is_flag=True, help="Show the steps and take none; anybody may.")(function)


@click.group()
def command() -> None:
    """Install the daemon as a systemd service, show it, remove it.

    \b
    Example:
      sudo /opt/llmpower/bin/llmpower service install
      llmpower service show
      sudo /opt/llmpower/bin/llmpower service uninstall
    """


@command.command()
@_root
@_program
@click.option("--start/--no-start", default=True, show_default=True, help="Start it now, not at the next boot.")
@_asking
def install(root: Path, program: str | None, start: bool, dry_run: bool, yes: bool) -> None:
    """Put unit, user, permissions and settings in place and start the daemon.

    Every step is shown first, and one question asked. Settings that you have edited stay as they are, so this is also
    the way to upgrade.

    \b
    Example:
      sudo /opt/llmpower/bin/llmpower service install
      llmpower service install --root image/ --program /opt/llmpower/bin/llmpower --yes
    """
    from llmpower.service import default_program, look, plan_install

    runs = PurePosixPath(program) if program else default_program()
    done = _carry_out(plan_install(look(root, runs), runs, start=start), root, dry_run, yes)
    if done and root == Path("/"):
        print("Programs may send spans if their user is in the group: usermod -aG llmpower USER")


@command.command()
@_root
@click.option("--purge", is_flag=True, help="Also edited settings, drop-ins, measurements, the user and the groups.")
@_asking
def uninstall(root: Path, purge: bool, dry_run: bool, yes: bool) -> None:
    """Stop the daemon and undo what install did.

    What you or the daemon have made stays, unless --purge is given; it is listed.

    \b
    Example:
      sudo /opt/llmpower/bin/llmpower service uninstall
      sudo /opt/llmpower/bin/llmpower service uninstall --purge --yes
    """
    from llmpower.service import default_program, look, plan_uninstall

    _carry_out(plan_uninstall(look(root, default_program()), purge=purge), root, dry_run, yes)


@command.command()
@_root
@_program
@click.option(
    "--file", "name", metavar="NAME", help="Print this file as it would be installed, such as llmpower.service."
)
@json_option
def show(root: Path, program: str | None, name: str | None, as_json: bool) -> None:
    """Show which files are in place, whether they were edited, and what systemd says.

    \b
    Example:
      llmpower service show
      llmpower service show --json | jq .unit.ActiveState
      llmpower service show --file llmpower.service
    """
    from llmpower.service import SHIPPED, content, default_program, look

    runs = PurePosixPath(program) if program else default_program()
    if name is not None:
        found = [shipped for shipped in SHIPPED if shipped.name == name]
        if not found:
            raise InputError("--file", name, f"no such file; they are {', '.join(shipped.name for shipped in SHIPPED)}")
        print(content(found[0], runs), end="")
        return
    installation = look(root, runs)
    unit, silence = _unit() if root == Path("/") else (None, "")
    if as_json:
        print(json.dumps(_document(installation, unit), indent=2))
        return
    print(_headline(installation))
    print()
    # A package has its unit and rules elsewhere; only settings are where ours would be.
    rows = [
        (state, str(shipped.below(root)), shipped.purpose)
        for shipped, state in installation.files.items()
        if state != "absent" or not installation.packaged
    ]
    echo_lines(aligned(("state", "file", "purpose"), rows, columns=UNCUT))
    if unit:
        enabled = unit["UnitFileState"] or "not installed"
        print()
        restarts = plural(int(unit["NRestarts"] or 0), "restart")
        print(f"{unit['ActiveState']} ({unit['SubState']}), {enabled}, {restarts}")
        print(unit["StatusText"] or "no status")
    elif silence:
        print(f"\nsystemd does not say whether it runs: {silence}")


def _carry_out(steps: Sequence[Step], root: Path, dry_run: bool, yes: bool) -> bool:
    """Show the plan, ask, and do it; whether it was done."""
    from llmpower.service import check_permission

    if not dry_run:
        check_permission(root)
        if not yes and not sys.stdin.isatty():
            raise InputError(
                "--yes", "not given", "there is no terminal to ask at; give it, or --dry-run to see the steps"
            )
    echo_lines(aligned(("step", "what", "why"), [(step.verb, step.what, step.why) for step in steps], columns=UNCUT))
    if dry_run:
        return False
    if not yes:
        click.confirm("\nDo this?", abort=True)
    for step in steps:
        step.apply()
    print("done")
    return True


def _unit() -> tuple[dict[str, str] | None, str]:
    """What systemd says of the unit; ``None`` where it does not run or does not answer, and then what it said."""
    from llmpower.service import call

    if shutil.which("systemctl") is None:
        return None, "no systemctl here"
    words = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "llmpower.service")
    try:
        lines = call(*words, timeout_s=PATIENCE_S).splitlines()
    except LlmpowerError as error:
        return None, str(error)
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    return {name: found.get(name, "") for name in _PROPERTIES}, ""


def _headline(installation: Installation) -> str:
    if installation.packaged:
        return f"installed by a package: {installation.packaged}"
    if installation.version:
        return f"installed by llmpower {installation.version}, runs {installation.program}"
    return "not installed"


def _document(installation: Installation, unit: dict[str, str] | None) -> dict[str, Any]:
    return {
        "root": str(installation.root),
        "version": installation.version,
        "program": None if installation.program is None else str(installation.program),
        "packaged": None if installation.packaged is None else str(installation.packaged),
        "files": [
            {"name": shipped.name, "path": str(shipped.path), "state": state, "purpose": shipped.purpose}
            for shipped, state in installation.files.items()
        ],
        "unit": unit,
    }
