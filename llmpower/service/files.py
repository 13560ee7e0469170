"""What is installed where.

Files that come by hand go below ``/etc``, a package's below ``/usr/lib``: the two never write the same one, and systemd
lets the former win.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

UNIT = "llmpower.service"
UNITS_DIRECTORY = PurePosixPath("/etc/systemd/system")
UNIT_PATH = UNITS_DIRECTORY / UNIT
EXPORT_TIMER = "llmpower-export.timer"
DROP_INS = PurePosixPath(f"{UNIT_PATH}.d")
ENABLED = UNITS_DIRECTORY / "multi-user.target.wants" / UNIT
EXPORT_ENABLED = UNITS_DIRECTORY / "timers.target.wants" / EXPORT_TIMER
SETTINGS_DIRECTORY = PurePosixPath("/etc/llmpower")
STATE_DIRECTORY = PurePosixPath("/var/lib/llmpower")
RUNTIME_DIRECTORY = PurePosixPath("/run/llmpower")
PACKAGED_UNITS = (PurePosixPath("/usr/lib/systemd/system", UNIT), PurePosixPath("/lib/systemd/system", UNIT))
USER = "llmpower"
GROUPS = ("llmpower", "llmpower-rapl")
PACKAGED_PROGRAM = "/usr/bin/llmpower"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A file that comes with the program.

    ``name`` is its name in systemd/, ``path`` where it goes, ``setting`` whether it is the operator's to edit.
    """

    name: str
    path: PurePosixPath
    purpose: str
    setting: bool = False

    def below(self, root: Path) -> Path:
        """Where it goes in the system whose root directory is ``root``."""
        return below(root, self.path)


SHIPPED = (
    Shipped("llmpower.sysusers", PurePosixPath("/etc/sysusers.d/llmpower.conf"), "the daemon's user and groups"),
    Shipped("llmpower.udev", PurePosixPath("/etc/udev/rules.d/60-llmpower.rules"), "who may read CPU energy"),
    Shipped("llmpower.toml", SETTINGS_DIRECTORY / "llmpower.toml", "its settings", setting=True),
    Shipped("llmpower.default", PurePosixPath("/etc/default/llmpower"), "its environment", setting=True),
    Shipped("llmpower-export.service", UNITS_DIRECTORY / "llmpower-export.service", "what adds to a fleet's data set"),
    Shipped(EXPORT_TIMER, UNITS_DIRECTORY / EXPORT_TIMER, "when it does, once the timer is enabled"),
    Shipped(UNIT, UNIT_PATH, "the service"),
)


def content(shipped: Shipped, program: PurePosixPath) -> str:
    """The file's text, for a service that runs ``program``."""
    text = resources.files("llmpower.service").joinpath("systemd", shipped.name).read_text("utf-8")
    return text.replace(f"ExecStart={PACKAGED_PROGRAM} ", f"ExecStart={program} ")


def below(root: Path, path: PurePosixPath) -> Path:
    """``path`` in the system whose root directory is ``root``."""
    return root / path.relative_to("/")
