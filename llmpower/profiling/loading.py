"""The model to be profiled: found, checked against the grid, then loaded.

Its configuration is read first, which is quick, so that a grid that the model cannot hold is refused before minutes
go into its weights. Whatever a foreign file does to the libraries that read it comes out as one line for the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.logging import set_verbosity_error as quieten_hub
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM
from transformers.utils.logging import set_verbosity_error

from llmpower.exceptions import InputError
from llmpower.profiling.grid import Cell

OPTION = "MODEL"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: a name on the Hugging Face hub or a folder, and a GGUF file in that folder."""

    location: str
    name: str
    gguf_file: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether it is no folder here, and the hub is asked for it."""
        return not Path(self.location).is_dir()


def find_model(reference: str) -> Source:
    """Tell a folder, a GGUF file and a name on the hub apart.

    Raises:
        InputError: it looks like a path and there is nothing usable.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise InputError(OPTION, reference, "give a .gguf file, a model's folder, or a name on the hub")
        return Source(str(path.parent), path.stem, path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(OPTION, reference, "this folder has no config.json; give the folder of a saved model")
        return Source(str(path), path.resolve().name)
    if path.is_absolute() or path.suffix == ".gguf" or reference.startswith((".", "~")) or reference.count("/") > 1:
        raise InputError(OPTION, reference, "no such file or folder; check the path")
    return Source(reference, reference)


def read_config(source: Source) -> Any:
    """The model's configuration, without its weights.

    Raises:
        InputError: there is none that transformers can read.
    """
    with _one_line(source):
        return AutoConfig.from_pretrained(source.location, **_file(source))


def check_lengths(cells: Iterable[Cell], config: Any) -> None:
    """Refuse a grid that goes beyond the positions that the model was made for.

    Raises:
        InputError: τin + τout of a cell is more than ``max_position_embeddings``.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return
    longest = max(cells, key=lambda cell: cell.input_tokens + cell.output_tokens)
    if longest.input_tokens + longest.output_tokens > positions:
        advice = f"the model has {positions} positions, which both share; end one of the two lists earlier"
        value = f"{longest.input_tokens} and {longest.output_tokens}"
        raise InputError("--input-tokens and --output-tokens", value, advice)


def load_model(source: Source, *, device: str = "auto", dtype: str = "auto") -> Any:
    """Load the weights for inference.

    Args:
        source: from :func:`find_model`.
        device: ``cpu``, ``cuda`` (over all GPUs that are needed), or ``auto``: CUDA where there is any.
        dtype: a torch dtype's name; ``auto`` is the one that the weights were saved in. GGUF weights are dequantised
            and have none: bfloat16 on CUDA, float32 on a CPU.

    Raises:
        InputError: CUDA is asked for and not there, or the weights cannot be read.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device", device, "PyTorch sees no GPU here; use --device cpu, or install PyTorch for CUDA")
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if dtype == "auto" and source.gguf_file is not None:
        dtype = "bfloat16" if on_cuda else "float32"
    placement = {"device_map": "auto"} if on_cuda else {}
    with _one_line(source):
        kind = _kind_of(AutoConfig.from_pretrained(source.location, **_file(source)))
        model: Any = kind.from_pretrained(source.location, dtype=dtype, **placement, **_file(source))
    return model.eval()


def quieten_transformers() -> None:
    """Keep libraries' advice on decoding and downloads out of a campaign's own words, for the whole process.

    The hub's client would log every request that it retries; the last one's failure is reported as our own error.
    """
    set_verbosity_error()  # type: ignore[no-untyped-call] # transformers leaves it untyped
    quieten_hub()  # type: ignore[no-untyped-call] # the same


def _kind_of(config: Any) -> Any:
    """What generates text from text: a decoder, one behind an encoder, or one that would read pictures too.

    Of a model behind an encoder the decoder could be loaded alone, and would answer nothing. Code that comes with a
    model is nobody's kind here, and is loaded as a decoder.
    """
    decoders = (AutoModelForCausalLM, AutoModelForImageTextToText)
    kinds = (AutoModelForSeq2SeqLM, *decoders) if getattr(config, "is_encoder_decoder", False) else decoders
    return next((kind for kind in kinds if type(config) in kind._model_mapping), AutoModelForCausalLM)


def _file(source: Source) -> dict[str, str]:
    return {} if source.gguf_file is None else {"gguf_file": source.gguf_file}


@contextmanager
def _one_line(source: Source) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # transformers, safetensors, gguf and the hub's client each raise their own; to the user it is one thing.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        advice = f"cannot be loaded ({reason.rstrip('.')}); check the name or the files, and that the hub is reachable"
        raise InputError(OPTION, source.name, advice) from error
