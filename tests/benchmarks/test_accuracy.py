"""The accuracy benchmark: its loads, its arithmetic, and one small run of the real thing."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest


def test_windows_lie_where_the_load_is(schedule: ModuleType) -> None:
    made = schedule.make_schedule("a100", 3, 1)
    board = schedule.BOARDS["a100"]
    bounds_s = [0.0]
    for duration_s, _ in made.steps:
        bounds_s.append(bounds_s[-1] + duration_s)
    for window in made.windows:
        if window.arrangement != "isolated":
            continue
        inside = [
            power_w
            for (start_s, end_s), (_, power_w) in zip(pairwise(bounds_s), made.steps, strict=True)
            if start_s >= window.start_s - 1e-9 and end_s <= window.end_s + 1e-9
        ]
        assert inside
        assert min(inside) > 2 * board.idle_w
    assert bounds_s[-1] == pytest.approx(made.duration_s)


def test_back_to_back_means_without_a_pause(schedule: ModuleType) -> None:
    made = schedule.make_schedule("v100", 5, 1)
    for shape in schedule.SHAPES:
        for span_s in schedule.SPANS_S:
            own = [w for w in made.windows if (w.shape, w.arrangement, w.span_s) == (shape, "back to back", span_s)]
            assert [window.counted for window in own] == [False, *[True] * (5 if span_s == 5.0 else 10), False]
            assert all(before.end_s == pytest.approx(after.start_s) for before, after in pairwise(own))
            assert all((window.first_token_s is not None) == (shape == "llm") for window in own)


def test_a_seed_means_one_schedule(schedule: ModuleType) -> None:
    assert schedule.make_schedule("h100", 2, 7) == schedule.make_schedule("h100", 2, 7)
    assert schedule.make_schedule("h100", 2, 7) != schedule.make_schedule("h100", 2, 8)


def test_figures_of_a_cell(figures: ModuleType) -> None:
    cell = figures.Cell("a100", "llm", "isolated", 1.0)
    ours = [
        figures.Result(100.0, 101.0, 1.0, "measured"),
        figures.Result(100.0, 97.0, 1.0, "measured"),
        figures.Result(100.0, None, None, "unavailable"),
    ]
    zeus = [figures.Result(100.0, 90.0, None, None), figures.Result(100.0, 110.0, None, None)]
    (row,) = figures.summarise({"llmpower": {cell: ours}, "ZeusMonitor": {cell: zeus}})
    found = row["tools"]["llmpower"]
    assert found["error"] == pytest.approx(0.02)
    assert found["bias"] == pytest.approx(-0.01)
    assert found["rmse"] == pytest.approx((5e-4) ** 0.5)
    assert found["coverage"] == 0.5
    assert found["width_ratio"] == pytest.approx(0.01 / (5e-4) ** 0.5)
    assert (found["windows"], found["unavailable"]) == (3, 1)
    assert row["ratio_to_zeus_monitor"] == pytest.approx(0.2)
    assert row["best_peer"] == "ZeusMonitor"
    assert row["bars"] == {
        "error": False,
        "a third of ZeusMonitor": True,
        "below every peer": True,
        "coverage": False,
        "width": True,
    }


def test_a_tool_without_a_figure_has_no_error(figures: ModuleType) -> None:
    cell = figures.Cell("v100", "llm", "isolated", 1.0)
    ours = [figures.Result(100.0, 100.5, 1.0, "measured")]
    (row,) = figures.summarise({"llmpower": {cell: ours}, "nvitop": {cell: [figures.Result(100.0, None, None, None)]}})
    assert row["tools"]["nvitop"]["error"] is None
    assert row["best_peer"] is None
    assert row["bars"]["below every peer"] is None


def test_a_small_run_beside_the_counter(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(benchmarks / "accuracy.py"), "--count", "2", "--machines", "1", "--spans", "0.3"]
    command += ["--presets", "a100", "--gpus", "4", "--peers", "nvidia-ml-py", "--peers-python", sys.executable]
    command += ["--start-after", "0.01", "--keep", str(tmp_path / "kept"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not ready in 0.01 s: " in done.stderr, "a tool that starts in a hundredth of a second"
    found = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))
    assert found["quick"]
    cells = {(row["shape"], row["arrangement"]): row for row in found["rows"]}
    assert len(cells) == 4
    for row in cells.values():
        assert row["tools"]["llmpower"]["windows"] == 16  # twice 2 moments on 4 GPUs
        # A peer that is still busy with the window before when the next begins is not asked for that one.
        assert row["tools"].get("nvidia-ml-py", {"windows": 0})["windows"] <= 16
        assert row["tools"]["llmpower"]["unavailable"] == 0
        assert set(row["tools"]["llmpower"]["qualities"]) <= {"measured", "interpolated", "modelled"}
    # A counter that moves every 100 ms misses up to a third of 300 ms of work; its interpolation does not.
    isolated = [cells[shape, "isolated"]["tools"] for shape in ("square", "llm")]
    asked = [tools for tools in isolated if "nvidia-ml-py" in tools]
    (about,) = found["tools"]["nvidia-ml-py"].values()
    assert asked or about["missed_windows"], "a peer is asked for each window that it is not too late for"
    for tools in asked:
        assert tools["llmpower"]["error"] < tools["nvidia-ml-py"]["error"]
    assert "<svg" in (tmp_path / "accuracy.svg").read_text(encoding="utf-8")

    command = [sys.executable, str(benchmarks / "accuracy" / "replay.py"), str(tmp_path / "kept")]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    # The same samples and spans give the same joules, whenever they are settled.
    assert done.stdout.startswith(again.stdout)

    alone = subprocess.run([*command, "--without-counter"], capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    assert done.stdout.endswith(alone.stdout)
    assert all(row["tools"]["llmpower"]["unavailable"] == 0 for row in found["without_counter"]["rows"])


def test_a_folder_without_a_run_is_refused(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(benchmarks / "accuracy" / "replay.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "holds no run" in done.stderr


def test_without_the_peers_one_line_says_how_to_get_them(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(benchmarks / "accuracy.py"), "--peers-python", str(tmp_path / "python")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "pip install -r benchmarks/requirements.txt" in done.stderr.splitlines()[-1]
