"""Which sink a span goes to when its program names none.

The daemon's, as a rule. What measures in the program's own process (:class:`llmpower.Monitor`) installs itself here,
and ``llmpower.span()`` and instrumented calls go to it while it is open: the latest one, if there are several. Only
weak references are kept, so a monitor that nobody holds any more ends as a file does.
"""

from __future__ import annotations

import weakref
from typing import Protocol, runtime_checkable

from llmpower.spans.client import SpanSink, default_client
from llmpower.types import Measurement, Span


@runtime_checkable
class MeasuringSink(SpanSink, Protocol):
    """A sink that can say what came of a span."""

    def measurement(self, span: Span, timeout_s: float) -> Measurement | None:
        """What was measured of a span that has ended, once it is; ``None`` where that is not known in time."""


_installed: list[weakref.ref[SpanSink]] = []


def install(sink: SpanSink) -> None:
    """Have spans that name no sink go to this one."""
    _installed.append(weakref.ref(sink))


def uninstall(sink: SpanSink) -> None:
    """Undo :func:`install`; without effect where it is not installed."""
    _installed[:] = [reference for reference in _installed if reference() not in (sink, None)]


def current_sink() -> SpanSink:
    """Where a span goes that begins now: the sink installed last that is still there, else the process's own client."""
    for reference in reversed(_installed):
        if (sink := reference()) is not None:
            return sink
    return default_client()
