"""One step of a plan: words for the operator, and what they stand for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmpower.exceptions import InputError
from llmpower.files import write_text
from llmpower.service.commands import call

Verb = Literal["write", "keep", "move", "remove", "run"]
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to what, and why; :meth:`apply` does it."""

    verb: Verb
    what: str
    why: str
    action: Callable[[], None] = lambda: None

    def apply(self) -> None:
        """Do it.

        Raises:
            InputError: a file cannot be written or removed.
            LlmpowerError: a command failed, or did not end in time.
        """
        try:
            self.action()
        except OSError as error:
            raise InputError(self.what, self.verb, f"failed ({error.strerror}); fix that and start again") from error


def write(path: Path, text: str, why: str) -> Step:
    """Write a file that every user may read, whatever root's umask is, and make its directory."""

    def action() -> None:
        made = [directory for directory in path.parents if not directory.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        for directory in made:
            directory.chmod(0o755)
        write_text(path, text, str(path))
        path.chmod(0o644)

    return Step("write", str(path), why, action)


def link(path: Path, target: str, why: str) -> Step:
    """Make a symbolic link, in place of whatever link lies there."""

    def action() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return Step("write", str(path), why, action)


def keep(path: Path, why: str) -> Step:
    """Leave alone, and say so."""
    return Step("keep", str(path), why)


def set_aside(path: Path, why: str) -> Step:
    """Rename to ``….old``, a name that neither systemd nor udev reads."""

    def action() -> None:
        path.rename(f"{path}.old")

    return Step("move", f"{path} to {path.name}.old", why, action)


def remove(path: Path, why: str) -> Step:
    """Remove a file, a link, or a directory with all that is in it; it may be gone already."""

    def action() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    return Step("remove", str(path), why, action)


def remove_if_empty(path: Path, why: str) -> Step:
    """Remove a directory unless somebody has put something into it."""
    return Step("remove", str(path), why, lambda: None if any(path.iterdir()) else path.rmdir())


def run(*words: str, why: str, timeout_s: float = _TIMEOUT_S) -> Step:
    """Run a command of the system, and end it if it takes longer than ``timeout_s``."""

    def action() -> None:
        call(*words, timeout_s=timeout_s)

    return Step("run", " ".join(words), why, action)
