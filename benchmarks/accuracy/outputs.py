"""The folder of one run: where each tool writes what it found, and how that becomes results by cell."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from .figures import OURS, Cell, Result


class Machine(NamedTuple):
    """Some GPUs of one preset that share a load."""

    preset: str
    number: int

    def __str__(self) -> str:
        return f"{self.preset}-{self.number}"


def windows_path(folder: Path, machine: Machine) -> Path:
    """The windows of one machine, as schedule.py writes them."""
    return folder / f"{machine}.windows.json"


def samples_path(folder: Path, machine: Machine) -> Path:
    """What llmpower sampled on it."""
    return folder / f"{machine}.samples.npz"


def output_path(folder: Path, machine: Machine, tool: str) -> Path:
    """What one tool said, a line of JSON a window."""
    return folder / f"{machine}.{tool}.jsonl"


def machines(folder: Path) -> list[Machine]:
    """The machines of the run in this folder."""
    names = sorted(path.name.split(".")[0] for path in folder.glob("*.windows.json"))
    return [Machine(preset, int(number)) for preset, number in (name.rsplit("-", 1) for name in names)]


Windows = dict[int, list[dict[str, Any]]]
"""By number of the window, what a tool said of each GPU."""


def collect(folder: Path, ours: dict[Machine, Windows] | None = None) -> tuple[Results, dict[str, Any]]:
    """Join what the tools said by window and GPU, and what each said of itself; the truth comes from llmpower's worker.

    Args:
        folder: of the run.
        ours: to be taken instead of what llmpower's worker found.
    """
    results: Results = {}
    about: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for machine in machines(folder):
        described = json.loads(windows_path(folder, machine).read_text(encoding="utf-8"))["windows"]
        truth, _ = _read(output_path(folder, machine, OURS))
        for path in sorted(folder.glob(f"{machine}.*.jsonl")):
            tool = path.name.removeprefix(f"{machine}.").removesuffix(".jsonl")
            found, about[tool][str(machine)] = _read(path)
            if tool == OURS and ours is not None:
                found = ours[machine]
            cells = results.setdefault(tool, {})
            for number, window in enumerate(described):
                if not window["counted"] or number not in found:
                    continue
                cell = Cell(machine.preset, window["shape"], window["arrangement"], window["span_s"])
                for gpu, true in zip(found[number], truth[number], strict=True):
                    result = Result(true["true_j"], gpu["energy_j"], gpu.get("std_j"), gpu.get("quality"))
                    cells.setdefault(cell, []).append(result)
    return results, dict(about)


Results = dict[str, dict[Cell, list[Result]]]
"""Tool → cell → its windows."""


def _read(path: Path) -> tuple[Windows, dict[str, Any]]:
    windows: Windows = {}
    about: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        message = json.loads(line)
        if "window" in message:
            windows[message["window"]] = message["gpus"]
        about.update(message.get("about", {}))
    return windows, about
