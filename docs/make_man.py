"""Writes man pages from the commands' own help: one for llmpower, one for each command below it.

Run it as `make man`, or `python docs/make_man.py DIRECTORY`. Nothing is written by hand but what no command says:
files and exit codes. The markup is man(7), which man-db, mandoc and groff read alike.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path

import click

from llmpower import __version__
from llmpower.cli.main import COMMANDS, PROGRAM, cli

FILES = (
    ("/etc/llmpower/llmpower.toml", "settings of the daemon, each with its default"),
    ("/etc/default/llmpower", "its environment, which beats the settings"),
    ("/var/lib/llmpower/spans.db", "the measurements"),
    ("/run/llmpower/llmpower.sock", "where spans arrive; open to members of the group llmpower"),
)
EXIT_STATUS = (
    ("0", "done"),
    ("1", "the work failed"),
    ("2", "the input was wrong; one line says which, and what to do"),
    ("130", "ended by Ctrl-C"),
)


def pages() -> Iterator[tuple[str, str]]:
    """Every page: the name of its file, and what stands in it."""
    with click.Context(cli, info_name=PROGRAM, auto_envvar_prefix="LLMPOWER") as root:
        yield f"{PROGRAM}.1", _root_page(root)
        for name in sorted(COMMANDS):
            command = cli.get_command(root, name)
            assert command is not None
            yield from _pages_of(name, command, root)


def _pages_of(name: str, command: click.Command, parent: click.Context) -> Iterator[tuple[str, str]]:
    with click.Context(command, info_name=name, parent=parent) as context:
        page = context.command_path.replace(" ", "-")
        yield f"{page}.1", _joined(_command_page(page, context))
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                yield from _pages_of(below, command.commands[below], context)


def _root_page(context: click.Context) -> str:
    lines = [*_head(PROGRAM, "joules per LLM request: measure them, model them, route by them")]
    lines += [".SH SYNOPSIS", f".B {PROGRAM}", r"\fICOMMAND\fR [\fIOPTION\fR]\.\.\."]
    lines += [".SH DESCRIPTION", *_paragraphs(context.command)]
    lines += [
        ".PP",
        "A daemon samples the power of GPUs and CPUs and receives the spans of instrumented programs;",
        "the other commands ask it, or work with what it has stored.",
    ]
    lines.append(".SH COMMANDS")
    for name, said in sorted(COMMANDS.items()):
        lines += [".TP", rf"\fB{PROGRAM}\-{_text(name)}\fR(1)", _line(said)]
    lines += [*_examples(context.command), *_list("FILES", FILES, r"\fI{}\fR"), *_exit_status(), ".SH SEE ALSO"]
    lines.append(r"\fBsystemctl\fR(1), \fI/usr/share/doc/llmpower/service.md\fR")
    return _joined(lines)


def _command_page(page: str, context: click.Context) -> Iterator[str]:
    command = context.command
    yield from _head(page, command.get_short_help_str(200).rstrip("."))
    yield ".SH SYNOPSIS"
    yield f".B {_text(context.command_path)}"
    yield " ".join(rf"\fI{_text(piece)}\fR" for piece in command.collect_usage_pieces(context))
    yield ".SH DESCRIPTION"
    yield from _paragraphs(command)
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        # Click knows how it says an option itself: its names with its metavar, and its meaning with its default.
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)) is not None:
            names, meaning = record
            yield ".TP"
            yield rf"\fB{_text(names)}\fR"
            yield _line(meaning)
            if parameter.envvar:
                yield ".br"
                yield rf"Also \fB{_text(str(parameter.envvar))}\fR in the environment."
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for name in command.list_commands(context):
            yield ".TP"
            yield rf"\fB{_text(page)}\-{_text(name)}\fR(1)"
            yield _line(command.commands[name].get_short_help_str(200))
    yield from _examples(command)
    yield from _exit_status()
    yield ".SH SEE ALSO"
    yield rf"\fB{PROGRAM}\fR(1)"


def _head(page: str, said: str) -> Iterator[str]:
    # Debian's builds name a time, so that two builds of the same sources are the same.
    date = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    yield f'.TH {_text(page.upper())} 1 {date} "llmpower {__version__}" "User Commands"'
    yield ".SH NAME"
    yield rf"{_text(page)} \- {_line(said)}"


def _paragraphs(command: click.Command) -> Iterator[str]:
    r"""The help but for its examples; what stands after ``\b`` keeps its lines."""
    for paragraph in _help(command).split("\n\n"):
        if paragraph.startswith("\b"):
            if "Example:" not in paragraph:
                yield from _verbatim(paragraph.splitlines()[1:])
        else:
            yield ".PP"
            yield _line(" ".join(paragraph.split()))


def _examples(command: click.Command) -> Iterator[str]:
    _, found, examples = _help(command).partition("Example:\n")
    if found:
        yield ".SH EXAMPLES"
        yield from _verbatim(re.sub(r"^  ", "", examples, flags=re.MULTILINE).splitlines())


def _verbatim(lines: list[str]) -> Iterator[str]:
    yield ".PP"
    yield ".nf"
    yield from map(_line, lines)
    yield ".fi"


def _list(title: str, entries: tuple[tuple[str, str], ...], form: str) -> Iterator[str]:
    yield f".SH {title}"
    for name, said in entries:
        yield ".TP"
        yield form.format(_text(name))
        yield _line(said)


def _exit_status() -> Iterator[str]:
    return _list("EXIT STATUS", EXIT_STATUS, r"\fB{}\fR")


def _help(command: click.Command) -> str:
    return cleandoc(command.help or "")


def _joined(lines: Iterable[str]) -> str:
    """A page of lines; a heading begins a paragraph already."""
    return re.sub(r"^(\.SH .*)\n\.PP$", r"\1", "\n".join(lines), flags=re.MULTILINE) + "\n"


def _line(text: str) -> str:
    """A line of text, of which none is taken for a request."""
    text = _text(text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _text(text: str) -> str:
    """Text with what means something to roff escaped; a hyphen is the character that people copy."""
    return text.replace("\\", r"\e").replace("-", r"\-")


if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "build/man")
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in pages():
        directory.joinpath(name).write_text(page, encoding="utf-8")
