"""What an operator installs with the daemon says what the daemon says."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "grafana" / "llmpower.json"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(ROOT / "grafana"))
    before = set(sys.modules)
    text: str = runpy.run_path(str(ROOT / "grafana" / "make_dashboard.py"))["make"]()
    for name in set(sys.modules) & {"queries", "panels", "usage", "operations"} - before:
        del sys.modules[name]
    return text


def test_the_dashboard_is_what_its_program_makes(made: str) -> None:
    assert FILE.read_text(encoding="utf-8") == made, "run python grafana/make_dashboard.py"


def test_every_panel_has_a_number_a_title_and_a_word_of_explanation() -> None:
    panels = json.loads(FILE.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]


def test_panels_lie_side_by_side_and_not_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(FILE.read_text(encoding="utf-8"))["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in own) < 24
        assert not own & taken, panel["title"]
        taken |= own


@pytest.mark.parametrize("file", [FILE, *sorted((ROOT / "prometheus").glob("*.yml"))], ids=lambda file: file.name)
def test_every_metric_that_is_asked_for_is_documented(file: Path) -> None:
    known = set(re.findall(r"^\| `(llmpower_\w+)` ", (ROOT / "docs" / "metrics.md").read_text("utf-8"), re.MULTILINE))
    # A name after a colon is part of a recorded one; one before a colon is the namespace of a factor.
    asked = set(re.findall(r"(?<![\w:])(llmpower_[a-z_]+)\b(?!:)", file.read_text(encoding="utf-8")))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} - known == set()
