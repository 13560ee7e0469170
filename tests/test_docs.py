"""The pages say what the program says; a gap fails the build."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from pages import ROOT, Block, blocks, words

from llmpower.cli.main import cli

DOCS = ROOT / "docs"
MAKE = {**runpy.run_path(str(DOCS / "make_reference.py")), **runpy.run_path(str(DOCS / "make_files.py"))}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md", *sorted(DOCS.rglob("*.md"))]
COMMANDS_OF_OTHERS = {
    *(
        "apt",
        "apt-cache",
        "cat",
        "cd",
        "chgrp",
        "chmod",
        "cp",
        "curl",
        "cut",
        "dask",
        "docker",
        "echo",
        "export",
        "gcc",
        "getent",
        "git",
        "install",
        "journalctl",
        "kill",
        "kubectl",
        "ldconfig",
    ),
    *(
        "litellm",
        "ls",
        "mkdir",
        "nvidia-smi",
        "podman",
        "promtool",
        "python",
        "python3",
        "rm",
        "sbatch",
        "setfacl",
        "srun",
        "sleep",
        "sqlite3",
        "sudoedit",
    ),
    *("systemctl", "tee", "udevadm", "usermod", "vllm", "wait"),
}
"""First words of commands that pages may use, beside ours: a typing error is none of them."""


@pytest.mark.parametrize("page", ["commands", "metrics", "settings", "files"])
def test_the_reference_is_up_to_date(page: str) -> None:
    written = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert written == MAKE[f"{page}_page"](), f"docs/{page}.md is out of date; run python docs/make_reference.py"


def test_the_settings_file_is_up_to_date() -> None:
    written = DOCS.parent.joinpath("systemd/llmpower.toml").read_text(encoding="utf-8")
    assert written == MAKE["config_file"](), "systemd/llmpower.toml is out of date; run python docs/make_reference.py"


def test_every_link_within_the_docs_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))]
    assert links
    broken = [
        (page.name, target) for page, target in links if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", (DOCS / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md", "index.md"}
    assert pages - set(listed) == set(), "name them in docs/README.md, from which the site's navigation is made"
    assert len(listed) == len(set(listed))


SHELL = [block for page in PAGES for block in blocks(page) if block.language == "sh"]


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_every_command_of_a_page_is_one(block: Block) -> None:
    for command in words(block):
        check_command(command, f"{block.name}: {shlex.join(command)}")


CODE = [block for page in PAGES for block in blocks(page) if block.language in ("python", "yaml", "json", "toml")]


@pytest.mark.parametrize("block", CODE, ids=lambda block: block.name)
def test_code_of_a_page_is_spelled_right(block: Block) -> None:
    if block.language == "python":
        compile(block.text, block.name, "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)
    else:  # JSON is YAML too
        list(yaml.safe_load_all(block.text))


def check_command(command: list[str], where: str) -> None:
    """That a command exists; ours takes these options, and what is installed of us has such an extra."""
    name = Path(command[0]).name
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
        unknown = [word for word in command[1:] if "=" not in word and word not in targets]
        assert not unknown, f"{where}: no such target"
    elif name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = [extra for word in command for found in re.findall(r"\[(.*)\]", word) for extra in found.split(",")]
        assert set(named) <= set(extras), f"{where}: no such extra"
    elif name == "llmpower":
        parse(command[1:], where)
    elif not command[0].startswith("./"):  # what the page itself has made
        assert name in COMMANDS_OF_OTHERS or (ROOT / command[0]).exists(), f"{where}: {name} is no command known here"


def parse(arguments: list[str], where: str) -> None:
    """Have Click read a command line, all but looking at files."""
    command: click.Command = cli
    context = click.Context(cli, info_name="llmpower")
    while isinstance(command, click.Group) and arguments and arguments[0] not in ("--help", "--version"):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"{where}: there is no command {arguments[0]}"
        command, arguments = found, arguments[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    if isinstance(command, click.Group):
        return
    try:
        command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        pytest.fail(f"{where}: {error.format_message()}")


METHOD = (DOCS / "method.md").read_text("utf-8")
FORMULAS = re.findall(r"^    (\S.*)\n(?=[\s\S]*?\*\[[\w.]+\]\(\.\./([\w/.]+)\))", METHOD, flags=re.MULTILINE)


def test_formulas_of_the_method_stand_above_the_code_that_computes_them() -> None:
    assert len(re.findall(r"^    \S", METHOD, flags=re.MULTILINE)) == len(FORMULAS) > 20
    for formula, file in FORMULAS:
        source = " ".join((ROOT / file).read_text("utf-8").split())
        assert " ".join(formula.split()).rstrip(",.") in source, f"{file} does not have {formula}"
