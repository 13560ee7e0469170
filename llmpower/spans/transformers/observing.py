"""Watching a library from outside: methods of ours in the place of its own, and what is said when that fails.

The result is never touched. What goes wrong in here costs the measurement of that request, is said once, and is never
the program's concern.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmpower.spans.client import SpanSink
from llmpower.spans.sink import current_sink

_logger = logging.getLogger("llmpower")


@dataclass(frozen=True, slots=True)
class Settings:
    """What :func:`~llmpower.spans.transformers.instrument` was asked for."""

    client: SpanSink | None
    model_name: str | None
    synchronise: bool

    @property
    def sink(self) -> SpanSink:
        """Where a span that begins now goes."""
        return self.client or current_sink()


class Patch:
    """One attribute of a class that is replaced while something is instrumented.

    Args:
        owner: the class that has the attribute itself.
        name: the attribute's name.
        wrap: makes what stands there from what stood there.
    """

    def __init__(self, owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
        self.owner = owner
        self.name = name
        self._wrap = wrap
        self._original: Any = None
        self._replacement: Any = None

    def apply(self) -> None:
        """Replace the attribute; without effect where it is replaced, or where this version has none."""
        if self._replacement is None:
            if self.name not in vars(self.owner):
                say_once(AttributeError(f"this version of transformers has no {self.owner.__name__}.{self.name}"))
                return
            self._original = vars(self.owner)[self.name]
            self._replacement = self._wrap(self._original)
            setattr(self.owner, self.name, self._replacement)

    def remove(self) -> None:
        """Put back what stood there, unless somebody else has replaced ours meanwhile: it stays below theirs."""
        if self._replacement is not None and vars(self.owner).get(self.name) is self._replacement:
            setattr(self.owner, self.name, self._original)
            self._original = self._replacement = None


def say_once(error: Exception) -> None:
    """Warn of a request that is not recorded, once for each kind of error."""
    kind = type(error).__name__
    if kind not in _said:
        _said.add(kind)
        _logger.warning("llmpower: a request to a model is not recorded: %s: %s", kind, error)


_said: set[str] = set()
