"""Coverage-guided fuzzing of the spans' codec: whatever the bytes, a message within its bounds or one WireError.

    python tests/fuzz/codec.py [-atheris_runs=N] [CORPUS]

A message that was accepted must come out of encode() and decode() as it went in: what one side lets pass the other
must be able to say. The packets of the tests are the first of the corpus.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["llmpower.spans.packets", "llmpower.spans.wire"]):
    from llmpower.spans.packets import WireError
    from llmpower.spans.wire import (
        Begin,
        Cancel,
        MeasurementRequest,
        SenderClock,
        decode,
        decode_head,
        encode,
        encode_head,
    )
    from llmpower.types import Span


def one_input(data: bytes) -> None:
    """What the fuzzer calls."""
    try:
        message = decode(data)
    except WireError:
        pass
    else:
        assert decode(encode(message)) == message
    try:
        head = decode_head(data)
    except WireError:
        return
    assert decode_head(encode_head(head)) == head


def main() -> None:
    """Fuzz until told to stop, or something breaks."""
    span = Span("a", "llama", ("GPU-0",), 1, 2, 3, 4, 5, 6, "host", 7, {"k": "é"})
    ask, clock = MeasurementRequest("a", 5), SenderClock("boot", 1, 2)
    with tempfile.TemporaryDirectory() as corpus:
        for number, message in enumerate((Begin("a", 1), Cancel("a"), span, ask, clock)):
            Path(corpus, str(number)).write_bytes(encode(message))
        Path(corpus, "head").write_bytes(encode_head(clock))
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
