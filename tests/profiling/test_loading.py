from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from llmpower.exceptions import InputError
from llmpower.profiling import Cell, Generation, check_lengths, find_model, load_model, read_config
from llmpower.profiling.loading import Source
from llmpower.spans import SpanClient


def test_a_folder_loads_and_is_called_by_its_name(tiny_llama_directory: Path) -> None:
    source = find_model(str(tiny_llama_directory))
    assert source.name == "tiny-llama"
    model = load_model(source, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert not model.training


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_model_with_an_encoder_is_loaded_whole_and_measured(family: str, tmp_path: Path, receiver: Any) -> None:
    if family == "bart":
        made: Any = BartForConditionalGeneration(
            BartConfig(
                vocab_size=64,
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                forced_eos_token_id=None,
            )
        )
    else:
        made = T5ForConditionalGeneration(
            T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
        )
    made.save_pretrained(tmp_path / family)
    model = load_model(find_model(str(tmp_path / family)), device="cpu")
    assert type(model) is type(made)
    with Generation(model, SpanClient(receiver.path, retry_after_s=0), model_name=family) as generation:
        span = generation.measure(Cell(7, 5, 2))
    assert (span.input_tokens, span.output_tokens) == (14, 10)


def test_a_hub_name_is_taken_as_it_is() -> None:
    source = find_model("meta-llama/Llama-2-7b-hf")
    assert source == Source("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf")
    assert source.on_hub


def test_a_gguf_file_is_its_folder_and_its_name(tmp_path: Path) -> None:
    file = tmp_path / "model.Q4_1.gguf"
    file.touch()
    assert find_model(str(file)) == Source(str(tmp_path), "model.Q4_1", "model.Q4_1.gguf")
    assert not find_model(str(file)).on_hub


@pytest.mark.parametrize("reference", ["/no/such/folder", "./nothing", "~/nothing-here", "a/b/c", "model.gguf"])
def test_a_path_to_nothing_is_not_looked_for_on_the_hub(reference: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_model(reference)


def test_files_and_folders_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(InputError, match=r"\.gguf file"):
        find_model(str(tmp_path / "weights.bin"))
    with pytest.raises(InputError, match=r"config\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "nonesuch"}', "\xff"])
def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        read_config(find_model(str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_read_are_one_line(tiny_llama_directory: Path) -> None:
    (tiny_llama_directory / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_model(find_model(str(tiny_llama_directory)), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_gguf_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="cannot be loaded"):
        read_config(find_model(str(tmp_path / "model.gguf")))


def read_from_hub(**environ: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from llmpower.profiling import find_model, quieten_transformers, read_config\n"
        "from llmpower.exceptions import InputError\n"
        "quieten_transformers()\n"
        "try:\n"
        "    read_config(find_model('nobody/nothing'))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=True)


def test_a_name_that_the_hub_does_not_give_is_one_line_when_offline(tmp_path: Path) -> None:
    result = read_from_hub(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "none"))
    assert result.stdout.startswith("MODEL = nobody/nothing: cannot be loaded")
    assert result.stdout.count("\n") == 1


class BusyHub(BaseHTTPRequestHandler):
    """Too busy when it is first asked for a file, at once and again, and without the model at all other times."""

    asked = 0

    def do_HEAD(self) -> None:
        BusyHub.asked += 1
        self.answer(503 if BusyHub.asked <= 2 else 404)

    def do_GET(self) -> None:
        self.answer(404)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_what_the_hub_is_asked_again_is_not_told(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyHub) as hub:
        threading.Thread(target=hub.serve_forever).start()
        result = read_from_hub(HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", HF_HOME=str(tmp_path))
        hub.shutdown()
    assert BusyHub.asked > 2
    assert result.stdout.startswith("MODEL = nobody/nothing: cannot be loaded")
    assert result.stderr == ""


def test_cuda_that_is_not_there_is_refused(tiny_llama_directory: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(InputError, match="--device"):
        load_model(find_model(str(tiny_llama_directory)), device="cuda")


def test_a_grid_beyond_the_models_positions_is_refused(tiny_llama_directory: Path) -> None:
    config = read_config(find_model(str(tiny_llama_directory)))
    check_lengths([Cell(400, 112, 1), Cell(112, 400, 1)], config)
    with pytest.raises(InputError, match=r"400 and 113: the model has 512 positions"):
        check_lengths([Cell(8, 8, 1), Cell(400, 113, 1)], config)
