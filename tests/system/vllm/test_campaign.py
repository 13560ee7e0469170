"""A campaign against the real vLLM through its API: a small grid, each trial one of vLLM's own spans, and its fit."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
from servers import LLMPOWER, Daemon, wait_until

INPUT_TOKENS, OUTPUT_TOKENS, TRIALS = (16, 64, 256), (4, 12, 32), 2
HOLD_S = 15.0
"""Longer than a request here, from its beginning until vLLM's sender tells of it."""


@pytest.mark.timeout(2400)
def test_a_grid_measured_through_the_api_is_fitted(
    request: pytest.FixtureRequest, endpoint: str, tmp_path: Path
) -> None:
    listen = f"--otlp.listen-address={urlsplit(endpoint).netloc}"
    daemon = Daemon("daemon", tmp_path, listen, f"--otlp.hold={HOLD_S}")
    try:
        vllm = request.getfixturevalue("vllm")
        document = campaign(vllm, daemon, tmp_path)
        assert [cell["trials"] for cell in document["cells"]] == [TRIALS] * len(INPUT_TOKENS) * len(OUTPUT_TOKENS)
        assert all(cell["mean_energy_j"] > 0 for cell in document["cells"])
        wait_until(lambda: daemon.status()["spans"]["pending"] == 0, "all are stored", 4 * HOLD_S)
        rows, models = fitted(daemon, tmp_path)
    finally:
        assert daemon.end() == 0, daemon.log
    # What was counted is vLLM's own word: the lengths asked for, to the token.
    found = Counter(zip(rows["input_tokens"], rows["output_tokens"], strict=True))
    assert all(found[τin, τout] >= TRIALS for τin in INPUT_TOKENS for τout in OUTPUT_TOKENS)
    assert set(rows["model_name"]) == {"smollm2"}
    # Each span's first token is vLLM's too, and divides its joules.
    phases_j = rows["prefill_energy_j"] + rows["decode_energy_j"]
    assert phases_j.to_numpy() == pytest.approx(rows["gpu_energy_j"].to_numpy())
    (model,) = models
    energy = model["energy"]
    assert energy["heldout"]["mape"] is not None
    assert energy["heldout"]["negative_predictions"] == 0
    print(f"\n{len(rows)} requests; energy by {energy['form']}, held-out MAPE {energy['heldout']['mape']:.1%}")  # noqa: T201 (the figures, for who runs it)


def campaign(vllm: Any, daemon: Daemon, directory: Path) -> dict[str, Any]:
    """The command's document."""
    command = [*LLMPOWER, "profile", "smollm2", "--endpoint", f"http://127.0.0.1:{vllm.port}", "--json"]
    command += [
        "--input-tokens",
        ",".join(map(str, INPUT_TOKENS)),
        "--output-tokens",
        ",".join(map(str, OUTPUT_TOKENS)),
    ]
    command += ["--min-trials", str(TRIALS), "--max-trials", str(TRIALS), "--idle", "0", "--settle", "0"]
    command += ["--socket", str(daemon.socket), "--journal", str(directory / "journal")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "speaks vLLM, completions" in done.stderr
    assert "the server's own spans" in done.stderr
    return dict(json.loads(done.stdout))


def fitted(daemon: Daemon, directory: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The trials, as they are exported, and what is fitted to them."""
    notes = [json.loads(line) for line in (directory / "journal").read_text().splitlines()]
    (began_s,) = [note["value"] for note in notes if note.get("note") == "began_unix_s"]
    since = datetime.fromtimestamp(began_s, UTC).isoformat()
    csv, json_file = directory / "measurements.csv", directory / "models.json"
    for command in (
        ["export", "--store", str(daemon.store), "--since", since, "-o", str(csv)],
        ["fit", str(csv), "-o", str(json_file)],
    ):
        subprocess.run([*LLMPOWER, *command], check=True, timeout=300)
    return pd.read_csv(csv), json.loads(json_file.read_text())["models"]
