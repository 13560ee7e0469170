"""The daemon's end of the spool: takes what programs have written there, and removes what is stored.

No user gets more than a fair share of a step, or of the room there is for spans; who leaves too many files, or too
large ones, loses those too many. While there is no room nothing is read, and spans wait where they are safe.

A file is removed when its writer has let go of it and the store has committed every span that came out of it. After a
crash some of those are in the store already: spans that ended before this daemon began are looked up there first. When
a program has let go of its last file, whatever it had begun goes with it: one that dies in the middle of a call must
not hold its joules open for ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

from llmpower.daemon.receiving.inbox import Inbox, refuse
from llmpower.daemon.receiving.segment import Segment
from llmpower.daemon.receiving.segments import Segments
from llmpower.exceptions import StoreError
from llmpower.spans.clocks import read_clock
from llmpower.spans.packets import WireError
from llmpower.spans.wire import Begin, Cancel, SenderClock
from llmpower.types import Span

MAX_LINES_A_STEP = 5000
"""10,000 spans a second, each of which begins and ends; to read so many takes some 70 ms."""

Key = tuple[str, int | None]
"""A span's id and its sender's uid."""

Program = tuple[str, int]
"""What its files are called, and whose they are."""

Known = Callable[[Sequence[Key]], "Future[set[Key]]"]


class Spool:
    """Reads the segments in ``directory``, which it creates.

    Args:
        directory: the daemon's own.
        inbox: who gets the spans.
        known: begins to look up which of some spans the store has.
        began_ns: CLOCK_MONOTONIC when this daemon began to take spans.
        clock: ours.

    Raises:
        InputError: the directory cannot be made, or is another user's.
    """

    def __init__(
        self,
        directory: Path,
        inbox: Inbox,
        known: Known,
        *,
        began_ns: int,
        clock: Callable[[], SenderClock] = read_clock,
    ) -> None:
        self._segments = Segments(directory, inbox, clock)
        self._inbox = inbox
        self._known = known
        self._began_ns = began_ns
        self._begun: defaultdict[Program, set[str]] = defaultdict(set)
        self._owed: dict[Key, Segment] = {}  # a file that was refused is not waited for; what it owes is stored
        self._old: list[tuple[Span, Segment]] = []
        self._asked: Future[set[Key]] | None = None
        self.on_finished: Callable[[Span], None] = lambda _: None
        """Called with each span that was taken."""

    @property
    def waiting_bytes(self) -> int:
        """What was seen there and is not taken yet."""
        return sum(segment.unread_bytes for segment in self._segments)

    def look(self) -> None:
        """See what is there; :meth:`read` goes so far and no further."""
        self._segments.look()

    def read(self, held_up: Callable[[int], bool] = lambda _: False) -> None:
        """Take what :meth:`look` has seen, as far as there is room, of nobody for whom ``held_up`` is true."""
        if not self._take_old():
            return
        segments: defaultdict[int, list[Segment]] = defaultdict(list)
        for segment in self._segments:
            segments[segment.uid].append(segment)
        waiting = {uid: sum(segment.unread_bytes for segment in own) for uid, own in segments.items()}
        left = MAX_LINES_A_STEP
        # Those with little first: what they leave of their share goes to the others.
        for number, uid in enumerate(sorted(segments, key=waiting.__getitem__)):
            if waiting[uid] and not held_up(uid):
                share = min(left // (len(segments) - number), self._inbox.room(uid))
                # A program numbers its files in the order in which it wrote them.
                own = sorted(segments[uid], key=lambda segment: segment.path.name)
                left -= self._read_user(own, share) if share > 0 else 0
        self._ask_old()
        alive = set()
        for segment in self._segments:
            if not segment.unread_bytes:
                segment.see_if_left()
            if not segment.left:
                alive.add(_program(segment))
            elif not segment.unstored:
                if segment.torn:
                    self._inbox.reject("torn_line")
                self._segments.drop(segment)
        self._give_up(self._begun.keys() - alive)

    def end(self) -> None:
        """Take nothing more: what runs now is given up, as its end can no longer be told to us."""
        self._give_up(set(self._begun))

    def is_read(self, uid: int) -> bool:
        """Whether all that was seen of this user's is taken."""
        return not any(segment.unread_bytes for segment in self._segments if segment.uid == uid)

    def stored(self, spans: Iterable[Span]) -> None:
        """These are committed, or nobody can ever commit them."""
        for span in spans:
            if (segment := self._owed.pop((span.span_id, span.uid), None)) is not None:
                segment.unstored -= 1

    def close(self) -> None:
        """Let go of the files; what is not stored is found by the next daemon."""
        self._segments.close()

    def _read_user(self, segments: Sequence[Segment], most: int) -> int:
        """Take at most this many; return how many lines it were."""
        taken = 0
        for segment in segments:
            messages = list(islice(segment.take(), most - taken))
            taken += len(messages)
            # Most requests are over before this is read. That one has begun need not be known, when it has ended.
            ended = {message.span_id for message in messages if type(message) is Span}
            for message in messages:
                if type(message) is not Begin or message.span_id not in ended:
                    self._act(message, segment)
            if segment.spoilt:
                self._segments.refuse(segment, "spool_file")
            if taken >= most:
                break
        return taken

    def _act(self, message: Begin | Span | Cancel | WireError, segment: Segment) -> None:
        begun = self._begun[_program(segment)]
        match message:
            case Span():
                begun.discard(message.span_id)
                if message.end_ns < self._began_ns:
                    self._old.append((message, segment))
                    segment.unstored += 1
                else:
                    self._finish(message, segment)
            case WireError():
                refuse(self._inbox, segment.uid, message)
            case Begin(span_id, start_ns):
                if self._inbox.begin(span_id, start_ns, segment.uid):
                    begun.add(span_id)
            case Cancel(span_id):
                # Only its own: a program must not be able to cancel another's.
                if span_id in begun:
                    begun.discard(span_id)
                    self._inbox.cancel(span_id, segment.uid)

    def _finish(self, span: Span, segment: Segment) -> None:
        self.on_finished(span)
        # Of one that stands there twice, the file that came first is waited for.
        if self._inbox.finish(span) and (span.span_id, span.uid) not in self._owed:
            self._owed[span.span_id, span.uid] = segment
            segment.unstored += 1

    def _ask_old(self) -> None:
        if self._old:
            self._asked = self._known([(span.span_id, span.uid) for span, _ in self._old])

    def _take_old(self) -> bool:
        """Take spans from before this daemon that the store does not have; whether that is done with."""
        if self._asked is None:
            return True
        if not self._asked.done():
            return False
        try:
            known = self._asked.result()
        except StoreError:
            # Whoever stores says so already.
            self._ask_old()
            return False
        old, self._old, self._asked = self._old, [], None
        for span, segment in old:
            segment.unstored -= 1
            if (span.span_id, span.uid) in known:
                self._inbox.cancel(span.span_id, segment.uid)
            else:
                self._finish(span, segment)
        return True

    def _give_up(self, programs: set[Program]) -> None:
        for program in programs:
            for span_id in self._begun.pop(program):
                self._inbox.cancel(span_id, program[1])


def _program(segment: Segment) -> Program:
    return segment.path.name.rpartition("-")[0], segment.uid
