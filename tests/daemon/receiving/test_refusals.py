from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import llmpower.daemon
from llmpower.daemon.otlp.spans import MisplacedReason
from llmpower.daemon.receiving.refusals import REASONS
from llmpower.spans.packets import WireReason

DAEMON = Path(llmpower.daemon.__file__).parent
RUNBOOK = Path(__file__).parents[3] / "docs" / "runbook.md"


def test_every_reason_in_the_code_is_listed_and_no_other() -> None:
    text = "".join(file.read_text("utf-8") for file in DAEMON.rglob("*.py"))
    given = set(re.findall(r'(?:reject\(|refuse\(segment, |\breason = )"(\w+)"', text))
    given |= set(re.findall(r'refused\["(\w+)"\]', text)) | set(get_args(MisplacedReason))
    given |= set(re.findall(r"(\w+)=outbox\.", text.split("self._rejected + Counter(")[1].split(")")[0]))
    assert given | set(get_args(WireReason)) == set(REASONS)


def test_the_runbook_says_what_to_do_about_each() -> None:
    section = RUNBOOK.read_text("utf-8").split("## LlmpowerSpansRejected")[1].split("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", section.split("\n- ", 1)[1])) >= set(REASONS)
