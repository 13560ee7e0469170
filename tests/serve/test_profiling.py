"""A campaign over a real ``transformers serve``: its own spans where it is instrumented, the campaign's where not."""

from __future__ import annotations

import json
import string
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from servers import LLMPOWER, Daemon, wait_until
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers_server import Server

from llmpower.store import iter_rows

pytestmark = pytest.mark.usefixtures("serving")

CAMPAIGN = ("--input-tokens", "8,32", "--output-tokens", "4,16", "--concurrency", "1,2", "--idle", "0", "--settle", "0")
CAMPAIGN += ("--min-trials", "2", "--max-trials", "2", "--json")


@pytest.fixture
def model(tiny_llama: Any, tiny_llama_directory: Path) -> Path:
    """One that would end its answers early, and a tokenizer for which a letter is a token."""
    tiny_llama.generation_config.eos_token_id = list(range(3, 60))
    tiny_llama.save_pretrained(tiny_llama_directory)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "abcdef": 127}
    vocabulary |= {letter: number for number, letter in enumerate(string.ascii_lowercase, start=3)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "padding_side": "left"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tiny_llama_directory)
    return tiny_llama_directory


@pytest.mark.parametrize("is_instrumented", [True, False], ids=["instrumented", "as it is"])
def test_a_campaign_measures_a_server_by_one_span_a_request_or_one_a_trial(
    is_instrumented: bool, daemon: Daemon, model: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path, model, daemon if is_instrumented else None)
    try:
        command = [*LLMPOWER, "profile", str(model), "--endpoint", f"http://127.0.0.1:{server.port}", *CAMPAIGN]
        command += ["--model-name", "campaign", "--socket", str(daemon.socket), "--journal", str(tmp_path / "journal")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    finally:
        server.end()
    assert done.returncode == 0, done.stderr
    assert "speaks transformers, completions" in done.stderr
    assert ("the server's own spans" in done.stderr) is is_instrumented
    cells = json.loads(done.stdout)["cells"]
    assert [cell["trials"] for cell in cells] == [2] * 8
    assert all(cell["mean_energy_j"] > 0 for cell in cells)

    wait_until(lambda: daemon.status()["spans"]["pending"] == 0, "all are stored")
    columns = ("model_name", "input_tokens", "output_tokens", "batch_size")
    stored = Counter(iter_rows(daemon.store, columns=columns))
    for tokens_in in (8, 32):
        for tokens_out in (4, 16):
            if is_instrumented:
                # Two trials of one request and two of two; warm-ups and the search for lengths are the server's too.
                assert stored[("tiny-llama", tokens_in, tokens_out, 1)] >= 6
            else:
                assert stored[("campaign", tokens_in, tokens_out, 1)] == 2
                assert stored[("campaign", 2 * tokens_in, 2 * tokens_out, 2)] == 2
    assert not is_instrumented or "campaign" not in {name for name, *_ in stored}
