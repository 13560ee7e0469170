"""What a campaign has done so far, on disk, so that a killed one goes on where it was.

JSON lines, appended as things happen: a first line with the settings, one with what was asked for, then one line a
trial, one for its joules once they are known, one for a cell that had to be left out, one for anything else worth
keeping (idle power before and after), and one when the campaign is complete. The measurements are in the daemon's
store; what stands here decides which cells still want trials. It grows by appending, not by rename: a kill can tear its
last line and nothing else, and a torn last line is one trial to repeat. A lock keeps two campaigns from writing to the
same file.
"""

from __future__ import annotations

import fcntl
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmpower.exceptions import InputError
from llmpower.phrases import plural
from llmpower.profiling.grid import Cell
from llmpower.profiling.readings import Joules
from llmpower.types import Span

SCHEMA = "llmpower.journal/1"
BEGINS = json.dumps({"schema": SCHEMA}).removesuffix("}").encode()
OPTION = "--journal"


@dataclass(frozen=True, slots=True)
class Kept:
    """A trial of an earlier run; its joules where they had become known."""

    cell: Cell
    runtime_s: float
    joules: Joules | None = None


class Journal:
    """A journal that is open for appending. ``trials`` (by span id), ``skipped`` and ``notes`` are what it held
    when it was opened.

    Without ``resume`` a complete journal is started over, and an incomplete one is not touched. ``asked`` is what the
    campaign is asked for from here on, JSON types by name, for :func:`asked_before`.

    Raises:
        InputError: the file cannot be written, is no journal, is incomplete and ``resume`` is off, was made with
            other ``settings``, or another campaign is writing to it.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        *,
        resume: bool = False,
        asked: Mapping[str, object] | None = None,
    ) -> None:
        self.path = path
        self.trials: dict[str, Kept] = {}
        self.skipped: dict[Cell, str] = {}
        self.notes: dict[str, float | None] = {}
        self._complete = False
        try:
            self._file = path.open("a+", encoding="utf-8")
        except OSError as error:
            advice = f"cannot be written ({error.strerror}); give a file in a directory that exists and is writable"
            raise InputError(OPTION, path, advice) from error
        try:
            self._lock()
            self._read(settings, resume)
            if asked is not None:
                self._append({"asked": dict(asked)})
        except BaseException:
            self._file.close()
            raise

    def trial(self, cell: Cell, span: Span) -> None:
        """One trial of ``cell`` has been run."""
        self._complete = False
        self._append({"span_id": span.span_id, **_fields(cell), "runtime_s": span.runtime_s})

    def joules(self, span_id: str, joules: Joules) -> None:
        """What a trial cost is known now."""
        self._append({"joules_of": span_id, "energy_j": joules.energy_j, "energy_std_j": joules.std_j})

    def note(self, name: str, value: float | None) -> None:
        """A figure of the campaign as a whole; ``None`` is not known."""
        self.notes[name] = value
        self._append({"note": name, "value": value})

    def skip(self, cell: Cell, reason: str) -> None:
        """``cell`` cannot be measured."""
        self._complete = False
        self._append({"skipped": reason, **_fields(cell)})

    def complete(self) -> None:
        """Every cell has had its trials."""
        if not self._complete:
            self._append({"complete": True})
            self._complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            advice = "another campaign is writing to it; wait for that one, or give another --journal"
            raise InputError(OPTION, self.path, advice) from error

    def _read(self, settings: Mapping[str, object], resume: bool) -> None:
        self._file.seek(0)
        held = bytes(self._file.buffer.read())
        whole = held[: held.rfind(b"\n") + 1]
        if not whole and not (held.startswith(BEGINS) or BEGINS.startswith(held)):
            raise self._no_journal(1)
        try:
            lines = [self._parsed(number, line) for number, line in enumerate(whole.decode().split("\n")[:-1], start=1)]
        except UnicodeDecodeError as error:
            raise self._no_journal(1) from error
        if lines and lines[0].get("schema") != SCHEMA:
            raise self._no_journal(1)
        self._complete = bool(lines) and any("complete" in line for line in _since_the_last_trial(lines))
        # A campaign that was asked for, and planned, and never began.
        if all("schema" in line or "asked" in line for line in lines) or (self._complete and not resume):
            self._start({"schema": SCHEMA, "settings": dict(settings)})
            return
        if not resume:
            trials = sum("span_id" in line for line in lines)
            done = f"a campaign with {plural(trials, 'trial')} done"
            advice = f"{done} is unfinished there; add --resume, or delete the file"
            raise InputError(OPTION, self.path, advice)
        if lines[0].get("settings") != dict(settings):
            advice = f"that campaign was run with {_shown(lines[0].get('settings'))}, this one has {_shown(settings)}"
            raise InputError(OPTION, self.path, f"{advice}; give the same options, or another --journal")
        for number, line in enumerate(lines[1:], start=2):
            self._take(number, line)
        self._file.truncate(len(whole))

    def _start(self, header: Mapping[str, object]) -> None:
        self._file.truncate(0)
        self._complete = False
        self._append(header)

    def _parsed(self, number: int, line: str) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._no_journal(number) from error
        if not isinstance(value, dict):
            raise self._no_journal(number)
        return value

    def _take(self, number: int, line: Mapping[str, Any]) -> None:
        if "complete" in line or "asked" in line:
            return
        try:
            if "note" in line:
                self.notes[str(line["note"])] = None if line["value"] is None else float(line["value"])
                return
            if "joules_of" in line:
                kept = self.trials[str(line["joules_of"])]
                joules = Joules(_finite(line["energy_j"]), _finite(line["energy_std_j"]))
                self.trials[str(line["joules_of"])] = replace(kept, joules=joules)
                return
            # Journals of before there was concurrency have none.
            lengths = (line["input_tokens"], line["output_tokens"], line["batch_size"], line.get("concurrency", 1))
            cell = Cell(*map(int, lengths))
            if "skipped" in line:
                self.skipped[cell] = str(line["skipped"])
            else:
                self.trials[str(line["span_id"])] = Kept(cell, _finite(line["runtime_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._no_journal(number) from error

    def _append(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def _no_journal(self, number: int) -> InputError:
        return InputError(OPTION, self.path, f"line {number} is not a campaign's journal; give another file")


def asked_before(path: Path) -> dict[str, Any]:
    """What the campaign of a journal was last asked for; nothing where there is none, or no journal."""
    asked: dict[str, Any] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return asked
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("asked"), dict):
            asked = found["asked"]
    return asked


def _finite(value: Any) -> float:
    """A number ≥ 0 as JSON has it; Python's reader also takes NaN and Infinity."""
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def _since_the_last_trial(lines: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Notes may follow the line that says that all is done, and what a campaign was asked for that then had no more."""
    for line in reversed(lines):
        yield line
        if "note" not in line and "asked" not in line:
            return


def _fields(cell: Cell) -> dict[str, int]:
    return {
        "input_tokens": cell.input_tokens,
        "output_tokens": cell.output_tokens,
        "batch_size": cell.batch_size,
        "concurrency": cell.concurrency,
    }


def _shown(settings: object) -> str:
    return json.dumps(settings, ensure_ascii=False, sort_keys=True)
