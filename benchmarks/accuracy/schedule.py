"""What the simulated cards do, and when: the steps of a preset's load, and the windows that are to be measured in it.

The load is known in advance, so a window is a choice of two moments. Four kinds of it:

- *isolated*: one piece of work between idle time, ``square`` at one power, ``llm`` as a prefill and a decode. The idle
  time has a random length, so that work begins anywhere between two updates of the counter.
- *back to back*: for ``llm`` one request follows the next without a pause, each window is one request; for ``square``
  the power alternates for ever and windows follow each other without regard to it.

A window lasts its nominal span ± 10 %, because 1 s is a whole number of counter periods and would see one phase only.
Power flickers by 2 % every 50 ms, on each GPU in its own way: a load without it repeats readings to the last digit,
which no card does and which tools that ignore repeated readings would suffer for. Each block of back-to-back windows
begins and ends with one that is measured and not counted, so that every counted one has neighbours on both sides.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SPANS_S = (0.03, 0.1, 0.3, 1.0, 5.0)
SHAPES = ("square", "llm")
ARRANGEMENTS = ("isolated", "back to back")

GAP_S = (0.4, 0.6)
"""Idle time between isolated windows: uniform."""

REST_S = 0.5
"""Idle time between blocks."""

LEAD_S = 12.0
"""Idle time before the first window. Until the load begins power does not flicker; a tool that learns how much a card's
power flickers has unlearnt that by then."""

EDGE_S = 0.3
"""Windows at the ends of a block that are not counted."""

OFTEN_S = 1.0
"""Of windows up to this long there are twice as many: 400 know a share to a point, and these cost little time."""

ROUND = 10
"""Windows of a cell in a row; the cells take turns, so that a busy minute of the machine spoils no single one."""

WAVE_S = 0.731
"""Period of the square wave: no multiple of any sensor's."""

FLICKER_S, FLICKER = 0.05, 0.02


@dataclass(frozen=True)
class Board:
    """Watts of one preset's load; idle and limit as in the preset itself."""

    idle_w: float
    limit_w: float

    def watts(self, level: str) -> float:
        """Power at a level of work. Prefill against decode as 620 W to 340 W on a card of 700 W."""
        share = {"idle": 0.0, "low": 0.3, "decode": 0.43, "prefill": 0.87, "high": 0.9}[level]
        return self.idle_w + share * (self.limit_w - self.idle_w)


BOARDS = {
    "v100": Board(40, 300),
    "a100": Board(55, 400),
    "h100": Board(50, 350),
    "rtx4090": Board(25, 450),
}


@dataclass(frozen=True)
class Window:
    """One thing to be measured; times in seconds since the schedule began."""

    shape: str
    arrangement: str
    span_s: float
    start_s: float
    end_s: float
    first_token_s: float | None
    counted: bool


@dataclass(frozen=True)
class Schedule:
    """Steps of the load, without flicker, and windows, both in order of time."""

    steps: tuple[tuple[float, float], ...]
    windows: tuple[Window, ...]

    @property
    def duration_s(self) -> float:
        """How long the load lasts."""
        return sum(duration_s for duration_s, _ in self.steps)


class _Writer:
    """Appends steps and windows; ``now_s`` is where it has got to."""

    def __init__(self, board: Board, chance: random.Random) -> None:
        self.board = board
        self.chance = chance
        self.now_s = 0.0
        self.steps: list[tuple[float, float]] = []
        self.windows: list[Window] = []

    def run(self, level: str, duration_s: float) -> None:
        """Work at ``level`` for so long."""
        count = max(1, round(duration_s / FLICKER_S))
        self.steps += [(duration_s / count, self.board.watts(level))] * count
        self.now_s += duration_s

    def request(self, duration_s: float) -> float:
        """A prefill and a decode; returns when the first token came."""
        prefill_s = duration_s * self.chance.uniform(0.1, 0.4)
        self.run("prefill", prefill_s)
        first_token_s = self.now_s
        self.run("decode", duration_s - prefill_s)
        return first_token_s

    def wave(self, duration_s: float) -> None:
        """High and low power in turn for so long."""
        end_s = self.now_s + duration_s
        for level in itertools.cycle(("high", "low")):
            left_s = end_s - self.now_s
            if left_s < 1e-6:
                break
            self.run(level, min(WAVE_S / 2, left_s))

    def isolated(self, shape: str, span_s: float, count: int) -> None:
        """Pieces of work with idle time before and after each."""
        for _ in range(count):
            self.run("idle", self.chance.uniform(*GAP_S))
            start_s, first_token_s = self.now_s, None
            duration_s = self._about(span_s)
            if shape == "llm":
                first_token_s = self.request(duration_s)
            else:
                self.run("high", duration_s)
            self.windows.append(Window(shape, "isolated", span_s, start_s, self.now_s, first_token_s, True))
        self.run("idle", REST_S)

    def back_to_back(self, shape: str, span_s: float, count: int) -> None:
        """Windows without a pause between them, and one more at each end."""
        # Where in the wave the first counted window begins is left to chance.
        edge_s = EDGE_S + self.chance.uniform(0, WAVE_S)
        durations_s = [edge_s, *(self._about(span_s) for _ in range(count)), EDGE_S]
        start_s = self.now_s
        if shape == "square":
            self.wave(sum(durations_s))
        for number, duration_s in enumerate(durations_s):
            first_token_s = self.request(duration_s) if shape == "llm" else None
            counted = 0 < number <= count
            window = Window(shape, "back to back", span_s, start_s, start_s + duration_s, first_token_s, counted)
            self.windows.append(window)
            start_s += duration_s
        self.run("idle", REST_S)

    def _about(self, span_s: float) -> float:
        return span_s * self.chance.uniform(0.9, 1.1)


def make_schedule(preset: str, count: int, seed: int, *, spans_s: tuple[float, ...] = SPANS_S) -> Schedule:
    """The load of one preset: ``count`` windows in each cell of the longest windows, twice as many in the others."""
    writer = _Writer(BOARDS[preset], random.Random(f"{preset}/{seed}"))
    writer.run("idle", LEAD_S)
    for done in range(0, count, ROUND):
        for arrangement, shape, span_s in itertools.product(ARRANGEMENTS, SHAPES, spans_s):
            write = writer.isolated if arrangement == "isolated" else writer.back_to_back
            write(shape, span_s, min(ROUND, count - done) * (2 if span_s <= OFTEN_S else 1))
    writer.run("idle", REST_S)
    return Schedule(tuple(writer.steps), tuple(writer.windows))


def write_load(schedule: Schedule, path: Path, begin_ns: int, seed: str) -> None:
    """One GPU's script for ``LLMPOWER_SIM_LOAD``: idle from CLOCK_MONOTONIC zero until ``begin_ns``, then the load."""
    chance = random.Random(seed)
    idle_w = schedule.steps[0][1]
    steps = [(seconds, watts * chance.gauss(1.0, FLICKER)) for seconds, watts in schedule.steps]
    lines = [f"{seconds:.9f} {watts:.3f}" for seconds, watts in [(begin_ns / 1e9, idle_w), *steps, (3600.0, idle_w)]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_windows(schedule: Schedule, path: Path, begin_ns: int) -> None:
    """What a worker is told: when the schedule begins on CLOCK_MONOTONIC, and its windows."""
    document = {"begin_ns": begin_ns, "windows": [asdict(window) for window in schedule.windows]}
    path.write_text(json.dumps(document), encoding="utf-8")


Moments = tuple[int, int, int | None]
"""Start, end and first token of a window in nanoseconds of CLOCK_MONOTONIC."""


def read_windows(path: Path) -> Iterator[Moments]:
    """What :func:`write_windows` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))

    def moment_ns(seconds: float) -> int:
        return int(document["begin_ns"] + round(seconds * 1e9))

    for each in document["windows"]:
        first_token_s = each["first_token_s"]
        first_token_ns = None if first_token_s is None else moment_ns(first_token_s)
        yield moment_ns(each["start_s"]), moment_ns(each["end_s"]), first_token_ns
