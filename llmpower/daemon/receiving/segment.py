"""One file of the spool, read as it grows: lines in, messages and reasons out.

An untrusted program writes the file, so it is read with ``pread(2)`` and never mapped (who cuts a mapped file kills its
reader), never further than was seen, and a line at a time: one that is torn, too long or no message costs itself alone.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from llmpower.daemon.receiving.shifting import shift_ns, shifted
from llmpower.spans.packets import MAX_PACKET_BYTES, WireError
from llmpower.spans.wire import Begin, Cancel, MeasurementRequest, SenderClock, StatusRequest, decode, decode_head
from llmpower.types import Span

READ_BYTES = 128 << 10


class Segment:
    """Reads the file behind ``descriptor``, which is closed by :meth:`close`.

    Args:
        path: where it lies.
        descriptor: open for reading.
        uid: whose it is.
        clock: ours, now, to place spans that another has timed.
    """

    def __init__(self, path: Path, descriptor: int, uid: int, clock: Callable[[], SenderClock]) -> None:
        self.path = path
        self.descriptor = descriptor
        self.uid = uid
        self.unstored = 0
        """Spans that came out of it and are not committed."""
        self.seen_bytes = 0
        """How large it was at the latest look."""
        self.left = False
        """Its writer has let go of it."""
        self.spoilt = False
        """It has no head that we understand, and nobody can say when its spans ran."""
        self._clock = clock
        self._shift_ns: int | None = None
        self._offset = 0
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._skipping = False

    @property
    def unread_bytes(self) -> int:
        """What was seen and is not taken yet; 0 when all of it is."""
        return max(self.seen_bytes - self._offset, 0) + sum(map(len, self._lines))

    @property
    def torn(self) -> bool:
        """Whether the last line has no end."""
        return bool(self._rest)

    def look(self) -> int:
        """See how large it is now; return that."""
        self.seen_bytes = os.fstat(self.descriptor).st_size
        return self.seen_bytes

    def take(self) -> Iterator[Begin | Span | Cancel | WireError]:
        """What is seen and not taken yet, and why a line is not a message; whoever stops early goes on later."""
        while not self.spoilt and (self._lines or self._read()):
            while self._lines:
                line = self._lines.popleft()
                try:
                    if self._shift_ns is None:
                        self._shift_ns = shift_ns(decode_head(line), self._clock())
                    else:
                        yield self._message(line, self._shift_ns)
                except WireError as error:
                    self.spoilt = self._shift_ns is None
                    yield error
                    if self.spoilt:
                        return

    def see_if_left(self) -> None:
        """Look whether its writer has let go of it, and nothing was written since it was last seen.

        The lock is kept from there on: a writer that has made the file and not yet locked it finds it taken.
        """
        if not self.left:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            self.left = os.fstat(self.descriptor).st_size == self.seen_bytes
            if not self.left:
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def remove(self) -> None:
        """Delete it and let go of it."""
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    def _read(self) -> bool:
        """Read a little more; whether there may be lines, or more to read."""
        wanted = min(self.seen_bytes - self._offset, READ_BYTES)
        try:
            data = os.pread(self.descriptor, wanted, self._offset) if wanted > 0 else b""
        except OSError:
            data = b""
        if not data:
            # Also where it was cut: what was seen is no longer there.
            self._offset = max(self._offset, self.seen_bytes)
            return False
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines and self._skipping:
            # The end of a line that was too long: it was counted when that was found.
            lines, self._skipping = lines[1:], False
        if len(self._rest) > MAX_PACKET_BYTES:
            if not self._skipping:
                lines.append(self._rest)
            self._rest, self._skipping = b"", True
        self._lines.extend(lines)
        return True

    def _message(self, line: bytes, by_ns: int) -> Begin | Span | Cancel:
        message = decode(line, uid=self.uid)
        if isinstance(message, StatusRequest | MeasurementRequest | SenderClock):
            raise WireError("type", "nobody is there to be answered")
        return shifted(message, by_ns)
