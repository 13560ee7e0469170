"""What was running: programs measure their own calls and tell the daemon, without ever waiting for it.

Importing this package imports neither torch nor transformers; :func:`instrument` does, when it is called.
"""

from __future__ import annotations

from typing import Any

from llmpower.spans.client import SpanClient, SpanSink, default_client
from llmpower.spans.context import OpenSpan, last_span, span, unmeasured
from llmpower.spans.daemon_socket import SYSTEM_SOCKET, check_socket_path, default_socket_path, request_status
from llmpower.spans.sink import MeasuringSink, current_sink, install, uninstall

__all__ = [
    "SYSTEM_SOCKET",
    "MeasuringSink",
    "OpenSpan",
    "SpanClient",
    "SpanSink",
    "check_socket_path",
    "current_sink",
    "default_client",
    "default_socket_path",
    "install",
    "instrument",
    "last_span",
    "request_status",
    "span",
    "uninstall",
    "uninstrument",
    "unmeasured",
]


def __getattr__(name: str) -> Any:
    if name in ("instrument", "uninstrument"):
        from llmpower.spans import transformers

        return getattr(transformers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
