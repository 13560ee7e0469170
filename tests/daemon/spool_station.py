"""A spool with its writers and a book of what it handed on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from llmpower.daemon.receiving.spool import Key, Spool
from llmpower.spans.clocks import boot_id
from llmpower.spans.spool import SpoolWriter
from llmpower.spans.wire import SenderClock, encode, encode_head
from llmpower.types import Span

BEGAN_NS = 1000
OFFSET_NS = 5_000_000_000
UID = os.getuid()
NOBODY = 65534


def a_span(span_id: str = "a", **fields: Any) -> Span:
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": (),
        "start_ns": 2000,
        "first_token_ns": None,
        "end_ns": 3000,
        "input_tokens": 3,
        "output_tokens": 4,
        "batch_size": 1,
        "hostname": "host",
        "pid": os.getpid(),
        "uid": UID,
    }
    return Span(span_id, **(values | fields))


class Book:
    """An inbox that writes down what it gets, and a store that answers when it is told to."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.running: dict[str, tuple[int, int]] = {}
        self.rejected: Counter[str] = Counter()
        self.failed: list[str] = []
        self.rooms: dict[int, int] = {}
        self.takes = True
        self.in_store: set[Key] = set()
        self.questions: list[tuple[Sequence[Key], Future[set[Key]]]] = []

    def begin(self, span_id: str, start_ns: int, uid: int) -> bool:
        self.running[span_id] = start_ns, uid
        return True

    def cancel(self, span_id: str, uid: int) -> None:
        if span_id in self.running:
            assert self.running.pop(span_id)[1] == uid

    def finish(self, span: Span) -> bool:
        self.running.pop(span.span_id, None)
        self.spans.append(span)
        self.rooms[span.uid or 0] = self.room(span.uid or 0) - 1
        return self.takes

    def room(self, uid: int) -> int:
        return self.rooms.get(uid, 1_000_000)

    def reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def fail(self, error: str, *, detail: str = "") -> None:
        self.failed.append(f"{error}: {detail}" if detail else error)

    def known(self, spans: Sequence[Key]) -> Future[set[Key]]:
        self.questions.append((spans, Future()))
        return self.questions[-1][1]

    def answer(self) -> None:
        spans, future = self.questions.pop()
        future.set_result(self.in_store & set(spans))

    @property
    def ids(self) -> list[str]:
        return [span.span_id for span in self.spans]


class Station:
    """A spool, its directory, and programs that write there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.book = Book()
        self.writers: list[SpoolWriter] = []
        self.spool = self.open()

    def open(self) -> Spool:
        clock = SenderClock(boot_id(), OFFSET_NS, 0)
        return Spool(self.directory, self.book, self.book.known, began_ns=BEGAN_NS, clock=lambda: clock)

    def write(self, *spans: Span) -> SpoolWriter:
        """A program has finished these, and goes on."""
        writer = SpoolWriter(self.directory)
        for span in spans:
            assert writer.append(encode(span))
        self.writers.append(writer)
        return writer

    def lay(self, *lines: bytes, name: str = "left-00000001.spans", head: bytes | None = None) -> Path:
        """A file that a program has left, with such lines."""
        path = self.directory / name
        first = encode_head(SenderClock(boot_id(), OFFSET_NS, 0)) if head is None else head
        path.write_bytes(b"\n".join((first, *lines)) + b"\n")
        return path

    def step(self, **options: Any) -> None:
        self.spool.look()
        self.spool.read(**options)

    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())
