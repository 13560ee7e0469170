"""What docs/keeping.md says of a store beside a daemon that writes to it, as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pages import ROOT, blocks

from llmpower.store import Store, iter_rows
from llmpower.types import Measurement

Make = Callable[..., Measurement]

BLOCKS = [block for block in blocks(ROOT / "docs" / "keeping.md") if block.language == "sh" and block.is_run]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 (Debian: apt-get install sqlite3)")
def test_the_page_copies_reads_and_deletes_under_a_writer(tmp_path: Path, make_measurement: Make) -> None:
    copy, look, delete = BLOCKS
    (tmp_path / "llmpower").write_text(f'#!/bin/sh\nexec {sys.executable} -m llmpower.cli.main "$@"\n')
    (tmp_path / "llmpower").chmod(0o755)

    def run(text: str) -> str:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    store = Store(tmp_path / "spans.db")
    now = datetime.now(UTC)
    store.append([make_measurement(n, uid=4242 if n % 2 else 1, started_at=now) for n in range(10)])
    run(copy.text)
    assert len((tmp_path / "copy.csv").read_text().splitlines()) == 11
    assert "requests" in run(look.text)
    run(delete.text)
    assert [uid for (uid,) in iter_rows(tmp_path / "spans.db", columns=("uid",))] == [1] * 5
    assert len(list(iter_rows(tmp_path / "copy.db"))) == 10
    assert store.append([make_measurement(10)]) == (1, 0)
    store.close()
