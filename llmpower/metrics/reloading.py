"""A web config that follows its files: certificates are renewed while the daemon runs, and passwords are changed.

Every connection looks whether a file has changed, which is one ``stat`` a file, and takes the new state when it is
whole. One that cannot be used is reported once, and the last good one stays in force: a half-copied certificate must
neither lock everybody out nor let anybody in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from llmpower.exceptions import InputError
from llmpower.files import file_state
from llmpower.metrics.web_config import WebConfig, load_web_config


class ReloadingWebConfig:
    """The web config of ``file``; without a file, one that asks for nothing.

    Raises:
        InputError: the file cannot be used now, at the start.
    """

    def __init__(self, file: Path | None, on_error: Callable[[str], None]) -> None:
        self._file = file
        self._on_error = on_error
        self._lock = Lock()
        self._config = WebConfig() if file is None else load_web_config(file)
        self._seen, self._said = _states(self._config.files), ""

    def current(self) -> WebConfig:
        """What is in force for a connection that comes now."""
        if self._file is None:
            return self._config
        with self._lock:
            if _states(self._config.files) != self._seen:
                self._reload(self._file)
            return self._config

    def _reload(self, file: Path) -> None:
        try:
            self._config = load_web_config(file)
        except InputError as error:
            # What it names and lacks is in no list of files; it is read again for every connection until all is there.
            self._seen = ()
            if str(error) != self._said:
                self._said = str(error)
                self._on_error(f"{error}; until then the former web config stays in force")
        else:
            self._seen, self._said = _states(self._config.files), ""


def _states(files: tuple[Path, ...]) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(file_state(file) for file in files)
