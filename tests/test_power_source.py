"""The page that shows how a power source is written: its two files are compiled as it says, and read real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pages import ROOT, blocks, commands

PAGE = list(blocks(ROOT / "docs" / "power_source.md"))
FILES = {block.mark.removeprefix("file: "): block.text for block in PAGE if block.mark.startswith("file: ")}


def test_the_source_reads_what_a_driver_shows(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "csrc").symlink_to(ROOT / "csrc")
    root = tmp_path / "hwmon"
    for number, (name, files) in enumerate(
        [
            ("nvme", {"power1_input": "1"}),
            ("amdgpu", {"power1_input": "93000000", "power1_average": "90000000"}),
            ("amdgpu", {"power1_average": "41500000"}),
            ("amdgpu", {"power1_input": "0"}),
            ("amdgpu", {"power1_input": "none"}),
            ("amdgpu", {}),
        ]
    ):
        (root / f"hwmon{number}").mkdir(parents=True)
        for file, text in {"name": name, **files}.items():
            (root / f"hwmon{number}" / file).write_text(f"{text}\n")
    (block,) = [block for block in PAGE if block.mark == "run by test_power_source.py"]
    compiler, program = commands(block)
    subprocess.run(["bash", "-c", compiler], cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run(
        [program.split()[0], root], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert {line.partition(" ")[2] for line in lines if "hwmon1" in line} == {"status 0 93.000 W"}
    assert {line.partition(" ")[2] for line in lines if "hwmon2" in line} == {"status 0 41.500 W"}
    assert {line.split()[2] for line in lines if "hwmon3" in line} == {"-100001"}
    assert {line.split()[2] for line in lines if "hwmon4" in line} == {"-22"}
    assert {line.split()[0] for line in lines} == {f"amdgpu:hwmon{number}" for number in range(1, 5)}
    assert len(lines) > 20


def test_it_is_in_the_project_s_style(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    style = f"--style=file:{ROOT / '.clang-format'}"
    tool = Path(sys.executable).with_name("clang-format")
    subprocess.run([tool, "--dry-run", "--Werror", style, *FILES], cwd=tmp_path, check=True, timeout=60)
