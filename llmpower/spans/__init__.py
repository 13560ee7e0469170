"""What was running: programs measure their own calls and tell the daemon, without ever waiting for it.

Importing this package imports neither torch nor transformers; :func:`instrument` does, when it is called.
"""

from __future__ import annotations

from typing import Any

from llmpower.spans.client import (
    SYSTEM_SOCKET,
    SpanClient,
    SpanSink,
    check_socket_path,
    default_client,
    default_socket_path,
    request_status,
)
from llmpower.spans.context import OpenSpan, span, unmeasured

__all__ = [
    "SYSTEM_SOCKET",
    "OpenSpan",
    "SpanClient",
    "SpanSink",
    "check_socket_path",
    "default_client",
    "default_socket_path",
    "instrument",
    "request_status",
    "span",
    "uninstrument",
    "unmeasured",
]


def __getattr__(name: str) -> Any:
    if name in ("instrument", "uninstrument"):
        from llmpower.spans import transformers

        return getattr(transformers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
