"""A span as tests send it."""

from __future__ import annotations

import os
from typing import Any

from llmpower.types import Span


def a_span(span_id: str = "a", **fields: Any) -> Span:
    values: dict[str, Any] = {
        "model_name": "llama\n2",
        "device_uuids": (),
        "start_ns": 1,
        "first_token_ns": None,
        "end_ns": 2,
        "input_tokens": 3,
        "output_tokens": 4,
        "batch_size": 1,
        "hostname": "host",
        "pid": os.getpid(),
    }
    return Span(span_id, **(values | fields))
