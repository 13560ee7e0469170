"""The documentation as a site: ``make docs`` builds it into build/docs, and any warning fails.

The pages are the Markdown files of this folder as they read on GitHub; nothing in them is there for the generator
alone. What the site needs beyond them is made here: its navigation follows from the lists of README.md, so that there
is one table of contents, and files of the project's root join it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
os.environ["NO_COLOR"] = "1"  # what commands print stands on pages

import llmpower  # noqa: E402 # from this checkout, whatever is installed

project = "llmpower"
author = "The llmpower authors"
copyright = "the llmpower authors, Apache-2.0"  # noqa: A001 # Sphinx's name
version = release = llmpower.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "index"

html_theme = "furo"
html_title = "llmpower"
html_static_path = ["_static"]
html_css_files = ["llmpower.css"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
html_theme_options = {"navigation_with_keys": True}

# Headings may be linked to as on GitHub: page.md#a-heading.
myst_heading_anchors = 4
highlight_language = "none"  # a block without a language is not a program

autodoc_mock_imports = ["torch", "transformers"]  # ten seconds for the docstrings of two functions
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # and not the twenty types that it stands for
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"
python_display_short_literal_types = True
python_use_unqualified_type_names = True
toc_object_entries = False

FILES_OF_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "site/contributing.md",
    "CHANGELOG.md": "site/changelog.md",
    "examples/README.md": "site/examples.md",
}
"""Which page of the site shows a file of the project that does not lie in this folder."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def contents() -> str:
    """A toctree for each list of README.md, under its heading."""
    sections = re.split(r"^## ", DOCS.joinpath("README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    trees = [toctree("", ["README"])]
    for section in sections:
        caption, _, text = section.partition("\n")
        links = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", text, flags=re.MULTILINE)
        trees.append(toctree(caption, [f"{title} <{on_site(DOCS / link, DOCS)}>" for title, link in links]))
    return "\n".join(trees)


def toctree(caption: str, entries: list[str], *options: str) -> str:
    """A list of pages for the navigation, which the page itself does not show."""
    options = (":hidden:", *options, *([f":caption: {caption}"] if caption else []))
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def on_site(target: Path, directory: Path) -> str:
    """How a page in ``directory`` links to a file of the project."""
    path = os.path.relpath(target, ROOT)
    page = DOCS / FILES_OF_THE_ROOT[path] if path in FILES_OF_THE_ROOT else target
    return os.path.relpath(page, directory)


def on_read(_: Sphinx, page: str, source: list[str]) -> None:
    """Show the file that a page stands for, lead links to the site, and give it its part of the navigation."""
    shown = next((ROOT / file for file, of in FILES_OF_THE_ROOT.items() if of == f"{page}.md"), DOCS / f"{page}.md")
    if not shown.exists():
        return
    directory = (DOCS / page).parent
    text = shown.read_text(encoding="utf-8")
    source[0] = LINK.sub(lambda match: on_site(shown.parent / match[1], directory), text)
    if page == "index":
        source[0] += "\n" + contents()
    elif page == "decisions/README":
        source[0] += "\n" + toctree("", ["[0-9]*"], ":glob:")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", on_read)
