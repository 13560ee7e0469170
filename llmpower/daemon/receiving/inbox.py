"""What receivers of spans need from whoever accounts for them."""

from __future__ import annotations

from typing import Protocol

from llmpower.spans.packets import WireError
from llmpower.types import Span


class Inbox(Protocol):
    """Who gets what comes in."""

    def begin(self, span_id: str, start_ns: int, uid: int) -> bool:
        """A user's span has started; false when it was not opened."""

    def finish(self, span: Span) -> bool:
        """It has ended; whether it was taken, so that the store will be given it."""

    def cancel(self, span_id: str, uid: int) -> None:
        """It failed, or whoever ran it is gone."""

    def room(self, uid: int) -> int:
        """How many more of this user's spans can be taken now."""

    def reject(self, reason: str) -> None:
        """Something was refused, for a reason from a small fixed set."""

    def fail(self, error: str, *, detail: str = "") -> None:
        """Something went wrong that people should know of; the same of another ``detail`` is no news."""


def refuse(inbox: Inbox, uid: int, error: WireError) -> None:
    """Count what a user has sent and nobody understands, and say whose it is and what is wrong with it."""
    inbox.reject(error.reason)
    inbox.fail(f"spans of user {uid} are refused as {error.reason}", detail=error.detail)
