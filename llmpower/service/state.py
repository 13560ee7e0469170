"""What of a service is there, and what an operator has made of it.

``installed.json`` beside the settings remembers the digest of every file as it was installed; a file that has another
one has been edited. Only root can write there: were it in the daemon's own directory, a daemon that was taken over
could have root remove what it likes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from llmpower.exceptions import InputError
from llmpower.service.files import PACKAGED_UNITS, SETTINGS_DIRECTORY, SHIPPED, Shipped, below, content

MANIFEST = SETTINGS_DIRECTORY / "installed.json"

FileState = Literal["absent", "installed", "edited"]


@dataclass(frozen=True, slots=True)
class Installation:
    """What lies below ``root``: who put it there, and the state of each file of :data:`SHIPPED`."""

    root: Path
    version: str | None
    """Of the llmpower that installed it; ``None`` when none did."""
    program: PurePosixPath | None
    packaged: PurePosixPath | None
    """The unit of a distribution's package, if there is one."""
    files: dict[Shipped, FileState]

    @property
    def found(self) -> bool:
        """Whether anything was installed here by this command."""
        return self.version is not None or any(
            state != "absent" and not shipped.setting for shipped, state in self.files.items()
        )


def look(root: Path, program: PurePosixPath) -> Installation:
    """What is installed below ``root``; ``program`` is what an installation of today would run.

    Raises:
        InputError: what the last installation noted cannot be read.
    """
    version, installed_program, digests = _read_manifest(below(root, MANIFEST))
    packaged = next((path for path in PACKAGED_UNITS if below(root, path).exists()), None)
    files = {shipped: _state(shipped, root, program, digests) for shipped in SHIPPED}
    return Installation(root, version, installed_program, packaged, files)


def manifest(version: str, program: PurePosixPath, written: dict[Shipped, str]) -> str:
    """The text of ``installed.json`` for files with these texts."""
    digests = {str(shipped.path): _digest(text.encode()) for shipped, text in written.items()}
    return json.dumps({"version": version, "program": str(program), "files": digests}, indent=2) + "\n"


def _state(shipped: Shipped, root: Path, program: PurePosixPath, digests: dict[str, str]) -> FileState:
    try:
        found = shipped.below(root).read_bytes()
    except FileNotFoundError:
        return "absent"
    except OSError as error:
        raise InputError(
            str(shipped.below(root)), "unreadable", f"{error.strerror}; fix that, or ask as root"
        ) from error
    ours = found == content(shipped, program).encode() or digests.get(str(shipped.path)) == _digest(found)
    return "installed" if ours else "edited"


def _read_manifest(path: Path) -> tuple[str | None, PurePosixPath | None, dict[str, str]]:
    try:
        noted = json.loads(path.read_text("utf-8"))
        return str(noted["version"]), PurePosixPath(noted["program"]), dict(noted["files"])
    except FileNotFoundError:
        return None, None, {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        advice = f"cannot be read as the record of the last installation ({error}); remove it and install again"
        raise InputError("manifest", path, advice) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
