"""The reference pages say what the program says; a gap fails the build."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
MAKE = runpy.run_path(str(DOCS / "make_reference.py"))


@pytest.mark.parametrize("page", ["commands", "metrics"])
def test_the_reference_is_up_to_date(page: str) -> None:
    written = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert written == MAKE[f"{page}_page"](), f"docs/{page}.md is out of date; run python docs/make_reference.py"


def test_the_settings_file_is_up_to_date() -> None:
    written = DOCS.parent.joinpath("systemd/llmpower.toml").read_text(encoding="utf-8")
    assert written == MAKE["config_file"](), "systemd/llmpower.toml is out of date; run python docs/make_reference.py"


def test_every_link_within_the_docs_leads_somewhere() -> None:
    pages = [DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))]
    assert links
    broken = [
        (page.name, target) for page, target in links if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
