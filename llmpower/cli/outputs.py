"""Where a command writes, checked before it works: nothing that it reads may be lost, and no work be wasted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmpower.exceptions import InputError
from llmpower.files import no_place, refuse_no_file
from llmpower.places import matches


def check_places(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output, by its option, that cannot be written or would take the place of something else.

    ``inputs`` are files, globs, directories and URLs that the command reads; what is ``None`` was not given.

    Raises:
        InputError: the place is a directory, a device, an input or another output, or no file can be made there.
    """
    read = {path.resolve() for place in inputs if place is not None for path in map(Path, matches(str(place)))}
    written: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if path.resolve() in read:
            raise InputError(option, path, "is read by this command and would be lost; give another file")
        if (other := written.setdefault(path.resolve(), option)) != option:
            raise InputError(option, path, f"is where {other} is written; give another file")
        try:
            refuse_no_file(path, option)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise no_place(path, option, error) from error
