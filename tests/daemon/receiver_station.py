"""A receiver with the peers of a test, and a book of what it handed on."""

from __future__ import annotations

import os
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.receiver import Receiver
from llmpower.spans.clocks import boot_id
from llmpower.spans.wire import SenderClock
from llmpower.types import Span


def span(span_id: str = "a", **fields: Any) -> Span:
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": None,
        "start_ns": 1,
        "first_token_ns": None,
        "end_ns": 2,
        "input_tokens": 3,
        "output_tokens": 4,
        "batch_size": 1,
        "hostname": "host",
        "pid": 5,
        "uid": os.getuid(),
    }
    return Span(span_id=span_id, **values | fields)


class Book:
    """An inbox that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.rejected: Counter[str] = Counter()
        self.failed: list[str] = []
        self.opens = True

    def begin(self, span_id: str, start_ns: int, uid: int) -> bool:
        assert uid == os.getuid()
        self.heard.append(("begin", span_id, start_ns))
        return self.opens

    def finish(self, span: Span) -> bool:
        self.heard.append(span)
        return True

    def cancel(self, span_id: str, uid: int) -> None:
        assert uid == os.getuid()
        self.heard.append(("cancel", span_id))

    def reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def fail(self, error: str, *, detail: str = "") -> None:
        self.failed.append(f"{error}: {detail}" if detail else error)


def status() -> Mapping[str, object]:
    return {"spans_stored": 7}


class Station:
    """A receiver with its selector and the peers of a test."""

    def __init__(self, path: Path, answer: Callable[[], Mapping[str, object]] = status) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.book = Book()
        self.answers = Answers()
        self.clock = SenderClock(boot_id(), 0, 0)
        self.receiver = Receiver(path, self.selector, self.book, answer, self.answers, lambda: self.clock)

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(self.path))
        return peer

    def turn(self) -> None:
        """A step: serve until nothing more is waiting, or allowed; who is gone has left nothing elsewhere."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()
        self.receiver.resume()
        self.receiver.release(lambda _: True)

    def close(self) -> None:
        self.receiver.close()
        self.selector.close()
