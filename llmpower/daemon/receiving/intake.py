"""Where spans come in: the spool, and the socket for programs that have none, or for which it has no room.

A program may switch from one to the other while a span runs. So the spool's files are looked at first, then the socket
is emptied, and then the files are read as far as they were seen: no span is taken from the spool before the socket has
delivered its beginning. Where a user's packets are more than a step allows, that user's files wait too.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.inbox import Inbox
from llmpower.daemon.receiving.receiver import Receiver
from llmpower.daemon.receiving.spool import Known, Spool
from llmpower.spans.spool import spool_directory

_TURNS = 40  # of 64 packets: more than a step allows
LAST_S = 1.0
"""How long the end may take to read what programs have sent already."""

_LAST_STEP_S = 0.02


class Intake:
    """Listens at ``path``, and reads the spool beside it.

    Args:
        path: of the socket.
        selector: serves the socket, between steps too; its data are callbacks.
        inbox: who gets what comes in.
        known: begins to look up which of some spans the store has.
        status: gives the answer to a status request, as JSON without NaN.
        answers: tells those who ask what came of their spans.

    Raises:
        InputError: the socket or the spool cannot be made there.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        inbox: Inbox,
        known: Known,
        status: Callable[[], Mapping[str, object]],
        answers: Answers,
    ) -> None:
        self._selector = selector
        self._answers = answers
        self._receiver = Receiver(path, selector, inbox, status, answers)
        try:
            self._spool = Spool(spool_directory(path), inbox, known, began_ns=time.monotonic_ns())
        except BaseException:
            self._receiver.close()
            raise
        self._spool.on_finished = self._receiver.ended
        self.stored = self._spool.stored
        """To be told which spans are committed."""

    @property
    def knocks(self) -> int:
        """Grows when somebody wants the spool to be looked at soon."""
        return self._receiver.knocks

    @property
    def waiting_bytes(self) -> int:
        """What was seen in the spool and is not taken yet."""
        return self._spool.waiting_bytes

    def step(self) -> None:
        """Take what has come."""
        self._receiver.resume()
        self._spool.look()
        for _ in range(_TURNS):
            ready = self._selector.select(0)
            if not ready:
                break
            for key, _ in ready:
                key.data()
        self._spool.read(self._receiver.is_behind)
        self._receiver.release(self._spool.is_read)
        self._answers.step()

    def finish(self) -> None:
        """Take what was sent before now, as far as there is room, and listen no more."""
        deadline_s = time.monotonic() + LAST_S
        self.step()
        while self._spool.waiting_bytes and time.monotonic() < deadline_s:
            time.sleep(_LAST_STEP_S)
            self.step()
        self._receiver.close()
        self._spool.end()

    def close(self) -> None:
        """Let go of socket and spool; what is not stored waits in the spool for the next daemon."""
        self._receiver.close()
        self._spool.close()
