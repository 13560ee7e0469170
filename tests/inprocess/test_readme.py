"""What the README tells somebody to type in Python, typed."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from pages import blocks

import llmpower
from llmpower.sampling import simulation

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_notebook_runs(tiny_llama: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    section = README.read_text("utf-8").split("### In a notebook\n")[1].split("\n#")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {
        "run_my_model": lambda: time.sleep(0.3),
        "model": tiny_llama,
        "inputs": {"input_ids": torch.arange(3, 9).unsqueeze(0)},
    }
    with simulation(load="constant:200"):
        try:
            exec(compile(block, str(README), "exec"), names)
        finally:
            llmpower.uninstrument()
    first, second, third, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ J \(\w+(, SIMULATED)?\)", first)
    energy_j, energy_std_j, quality = second.split()
    assert float(energy_j) > float(energy_std_j) > 0
    assert first.split("(")[1].startswith(quality)
    assert " J (" in third
    assert [row.split()[0] for row in rows] == ["my-engine", llmpower_name(tiny_llama)]


def test_the_readmes_block_in_python_runs(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(README) if "# every generate() from here on" in block.text]
    with simulation(load="constant:200"), llmpower.Monitor(backend="simulated", powercap_root=tmp_path) as monitor:
        try:
            exec(compile(block.text, str(README), "exec"), {})
        finally:
            llmpower.uninstrument()
        (measured,) = monitor.measurements()
    assert (measured.span.model_name, measured.span.output_tokens) == ("my-engine", 128)


def llmpower_name(model: Any) -> str:
    from llmpower.spans.transformers import model_name_of

    return model_name_of(model)
