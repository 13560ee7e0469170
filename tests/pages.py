"""Pages of documentation as tests see them: their blocks of code, what is said of them, and whether outputs agree.

A block is told what to do with it by an HTML comment above it, which no reader sees:

- ``<!-- not run: why -->``: its commands are looked at and not run;
- ``<!-- file: NAME -->``: a reader writes it to a file of that name;
- ``<!-- output varies -->``: numbers in the output that follows depend on the machine, and any do.

A block of ``text`` right after one of ``sh`` is its output. In it … stands for anything on its line, and a line of …
alone for any lines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]*) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    output: str | None = None

    @property
    def name(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether the page does not say otherwise."""
        return not self.mark.startswith("not run")


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order; outputs belong to the block before them."""
    source = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(source))
    for match, after in zip(found, [*found[1:], None], strict=False):
        if match["language"] == "text":
            continue
        indent = len(match["indent"])
        text = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        follows = after is not None and after["language"] == "text" and not source[match.end() : after.start()].strip()
        output = after["text"] if after is not None and follows else None
        yield Block(
            page, source.count("\n", 0, match.start("indent")) + 1, match["language"], text, match["mark"] or "", output
        )


def commands(block: Block) -> list[str]:
    """The lines of a block of sh, continued ones joined, without comments and documents that stand in it."""
    text = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", block.text, flags=re.DOTALL | re.MULTILINE).replace("\\\n", " ")
    return [line.strip() for line in re.sub(r"(?<!\S)#.*", "", text).splitlines() if line.strip()]


def words(block: Block) -> Iterator[list[str]]:
    """The words of each single command of a block of sh, without what is set for it and where its output goes."""
    lexer = shlex.shlex("\n".join(commands(block)) + "\n", posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    command: list[str] = []
    aside = False  # the word is where output goes
    for word in lexer:
        if set(word) <= set("<>&") and set(word) & set("<>"):
            aside = True
            if command and command[-1].isdigit():
                del command[-1]
        elif set(word) <= set("();|&\n"):
            yield from [command] if command else []
            command = []
        elif not aside and (command or not re.fullmatch(r"sudo|until|do|done|\w+=.*", word)):
            command.append(word)
        else:
            aside = False


def agrees(shown: str, seen: str, *, varies: bool) -> bool:
    """Whether an output is as the page shows it."""
    pattern = ""
    for line in shown.splitlines(keepends=True):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            # Columns are as wide as what stands in them.
            words = re.sub(r"(?:\\ )+", r" +", re.escape(line.rstrip())).replace("…", ".*")
            pattern += (re.sub(r"\d[\d,\\.]*", r"[\\d,.]+", words) if varies else words) + r" *\n"
    return re.fullmatch(pattern, seen) is not None
