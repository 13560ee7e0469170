"""What screening found, as ``llmpower fit`` shows it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from llmpower.cli.layout import aligned
from llmpower.phrases import plural

if TYPE_CHECKING:
    from llmpower.modelling.screening import Screening


def screening_lines(screening: Screening, left_out: Collection[str]) -> Iterator[str]:
    """The table of findings, what was done about them, and what could not be looked for."""
    if screening.findings:
        yield from aligned(
            ("FOUND", "MODEL", "ROWS", "OF", "FIT", "THE WORST"),
            [
                (
                    *(finding.kind, finding.model_name, str(finding.n_rows), str(finding.of_rows)),
                    "left out" if finding.kind in left_out else "kept",
                    f"{finding.place}: {finding.example}",
                )
                for finding in screening.findings
            ],
            right=("ROWS", "OF"),
        )
    yield in_short(screening, left_out)
    reasons: dict[str, list[str]] = {}
    for kind, reason in screening.not_looked_for.items():
        reasons.setdefault(reason, []).append(kind)
    for reason, kinds in reasons.items():
        yield f"Not looked for: {', '.join(kinds)} ({reason})."


def in_short(screening: Screening, left_out: Collection[str]) -> str:
    """One line: how many rows have findings of which kinds, and how many of them are fitted nevertheless."""
    from llmpower.modelling.screening import KINDS

    counts = {finding.kind: screening.count(finding.kind) for finding in screening.findings}
    if not counts:
        return f"Screening of {plural(screening.n_rows, 'row')} found nothing."
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    out = screening.left_out(left_out)
    rest = [kind for kind in counts if kind not in left_out and KINDS[kind].of_rows]
    others = f"; --leave-out {','.join(rest)} leaves the others out" if rest else ""
    rows = f"Screening of {plural(screening.n_rows, 'row')}: {kinds}"
    return f"{rows}. Left out of the fit: {plural(out, 'row')}{others}."
