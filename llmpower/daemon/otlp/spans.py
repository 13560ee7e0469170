"""Spans that other programs' OpenTelemetry sends: received, stored, and only then acknowledged, each with its fate.

A span counts as accepted once it stands in the spool, by the same means that programs with the client library use
(:mod:`llmpower.spans.spool`): from then on it is in the store, even if the daemon is killed before the answer is out.
The loop reads it there as it reads any other. When there is no room, the sender is told to try again, and nothing that
was not written is called accepted. One that comes again is known by its trace and span id.

A span is reported when it has ended and its batch is full or some seconds old, and nobody says that one begins. So
while there is such a sender the loop settles :attr:`OtlpReceiver.hold_s` behind the present, and what began longer ago
than that when it arrives has no joules. Whether there is one, a daemon that starts sees by what the one before has left
in the spool.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal

from llmpower.daemon.clock import STEP_NS, WallClock
from llmpower.daemon.otlp.servers import Servers
from llmpower.exceptions import LlmpowerError
from llmpower.metrics import OtlpState
from llmpower.phrases import plural
from llmpower.spans.clocks import Offset, read_utc_offset
from llmpower.spans.otlp.kin import Kin, innermost_first, parents_of
from llmpower.spans.otlp.records import OtlpSpan
from llmpower.spans.otlp.requests import is_call_elsewhere, is_request, read_request
from llmpower.spans.packets import WireError
from llmpower.spans.spool import SpoolWriter
from llmpower.spans.wire import encode
from llmpower.types import Span

PROGRAM = "otlp_"
"""How the names of our files in the spool begin."""

RETRY_S = 5
"""After which time a sender may come again when there was no room."""

FORGET_S = 86_400.0
"""A sender that has been silent for so long is taken to be gone."""

MAX_MESSAGE_CHARS = 1000
MAX_SHOWN = 3

MisplacedReason = Literal["before_boot", "in_the_future"]
Fate = Literal["accepted", "no_request", "call", "nested", "repeated", "refused"]
"""What became of a span: stored; none of a request; a call to another server; told by another of its trace; sent
before; refused."""

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 8, 14
"""gRPC's codes."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What HTTP is to answer: the status, a message in protobuf, and when to come again."""

    status: int
    body: bytes
    retry_after_s: int | None = None


class _MisplacedError(LlmpowerError):
    """A span at a time at which it cannot have been."""

    def __init__(self, reason: MisplacedReason, detail: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {detail}")


class OtlpReceiver:
    """Takes the bodies of OTLP requests, from any thread.

    Args:
        directory: the spool, where what is accepted is written.
        clock: what the wall clock showed when.
        hold_s: how far behind the present the loop settles while there is a sender.
        default_model_name: for spans that name neither a model nor a service.
        count_calls: count the spans of those who call a server, see :mod:`llmpower.spans.otlp.requests`.
        now: CLOCK_MONOTONIC in nanoseconds.
        utc_offset: UTC less CLOCK_MONOTONIC, measured now.
        servers: on which GPUs those compute that do not say so; ``None`` where nobody can tell.
    """

    def __init__(
        self,
        directory: Path,
        clock: WallClock,
        *,
        hold_s: float,
        default_model_name: str | None = None,
        count_calls: bool = False,
        now: Callable[[], int] = time.monotonic_ns,
        utc_offset: Callable[[], Offset] = read_utc_offset,
        servers: Servers | None = None,
    ) -> None:
        self.hold_s = hold_s
        """How far behind the present to settle while :attr:`sending`."""
        self._clock = clock
        self._default_model_name = default_model_name
        self._count_calls = count_calls
        self._now = now
        self._utc_offset = utc_offset
        self._servers = servers
        left = directory.is_dir() and any(path.name.startswith(PROGRAM) for path in directory.iterdir())
        self._sent_ns = now() if left else None
        self._spool = SpoolWriter(directory, program=PROGRAM + uuid.uuid4().hex)
        self._kin = Kin()
        self._taking = Lock()  # a body at a time, which may take seconds
        self._counting = Lock()  # of what the loop asks for, so held for moments only
        self._stopped = False
        self._answers: Counter[int] = Counter()
        self._fates: Counter[Fate] = Counter()
        self._refused: Counter[str] = Counter()
        self._unplaced, self._unplaced_reason = 0, ""
        self._error_ns = 0

    @property
    def sending(self) -> bool:
        """Whether there is somebody who sends, now and then."""
        sent_ns = self._sent_ns
        return sent_ns is not None and self._now() - sent_ns < FORGET_S * 1e9

    def state(self) -> OtlpState:
        """What it says of itself."""
        with self._counting:
            return OtlpState(
                answers=dict(self._answers),
                spans={str(fate): count for fate, count in self._fates.items()},
                refused=dict(self._refused),
                unplaced=self._unplaced,
                unplaced_reason=self._unplaced_reason,
                clock_error_s=self._error_ns / 1e9,
            )

    def count(self, status: int) -> None:
        """An answer was given."""
        with self._counting:
            self._answers[status] += 1

    def stop(self) -> None:
        """Accept nothing more: what is accepted from here on would wait for the next daemon."""
        with self._taking:
            self._stopped = True

    def close(self) -> None:
        """Let go of the spool. What lies there stays, by which the next daemon knows that there is a sender."""
        self.stop()
        with self._taking:
            self._spool.close()

    def take(self, body: bytes, uid: int | None = None) -> Answer:
        """Take one request's body, an ExportTraceServiceRequest in protobuf.

        ``uid`` is the user who sent it, ``None`` where the kernel does not say.
        """
        batch = _Batch(uid)
        with self._taking:
            answer = self._take(body, batch)
        with self._counting:
            self._fates += batch.fates
            self._refused += batch.refused
            self._unplaced += batch.unplaced
            self._unplaced_reason = batch.unplaced_reason or self._unplaced_reason
        return answer

    def _take(self, body: bytes, batch: _Batch) -> Answer:
        # Only who is sent something pays for protobuf: 3.4 MB.
        from llmpower.spans.otlp import wire

        if self._stopped:
            return Answer(503, wire.encode_error(UNAVAILABLE, "the daemon is stopping; send again"), RETRY_S)
        try:
            spans = wire.read_spans(body)
        except wire.UndecodableError as error:
            batch.refused["not_otlp"] += 1
            return Answer(400, wire.encode_error(INVALID_ARGUMENT, str(error)))
        except wire.TooManySpansError as error:
            batch.refused["too_large"] += 1
            return Answer(413, wire.encode_error(RESOURCE_EXHAUSTED, str(error)))
        if spans:
            self._sent_ns = self._now()
        for refused in spans:
            if isinstance(refused, WireError):
                batch.refuse(refused)
        kept = self._keep([span for span in spans if isinstance(span, OtlpSpan)], batch)
        if not kept:
            message = "no room for spans until the daemon has stored some of those it has; send again"
            return Answer(503, wire.encode_error(UNAVAILABLE, message), RETRY_S)
        return Answer(200, wire.encode_answer(batch.fates["refused"], batch.message()))

    def _keep(self, spans: list[OtlpSpan], batch: _Batch) -> bool:
        """Write what is to be counted into the spool; false where it had no room, and the rest is not looked at."""
        offset = self._utc_offset()
        self._clock.note(self._now(), offset.ns)
        self._error_ns = offset.error_ns + STEP_NS
        parents = parents_of(spans)
        requests = [span for span in spans if is_request(span)]
        batch.fates["no_request"] += len(spans) - len(requests)
        for span in innermost_first(requests):
            if is_call_elsewhere(span) and not self._count_calls:
                batch.fates["call"] += 1
                continue
            if (twin := self._kin.twin(span, parents)) is not None:
                batch.fates[twin] += 1
                continue
            try:
                placed = self._place(span, batch)
                packet = encode(placed)
            except (WireError, _MisplacedError) as error:
                batch.refuse(error)
                continue
            if not self._spool.append(packet):
                return False
            self._kin.accept(span, parents)
            batch.fates["accepted"] += 1
            batch.unplaced += placed.device_uuids is None
        return True

    def _place(self, span: OtlpSpan, batch: _Batch) -> Span:
        """The request as our span, by CLOCK_MONOTONIC.

        Raises:
            WireError: it says what cannot be.
            _MisplacedError: it cannot have been then.
        """
        request = read_request(span, self._default_model_name)
        now_ns = self._now()
        moment_ns = partial(self._clock.moment_ns, now_ns=now_ns)
        start_ns, end_ns = moment_ns(request.start_utc_ns), moment_ns(request.end_utc_ns)
        first_ns = None if request.first_token_utc_ns is None else moment_ns(request.first_token_utc_ns)
        if (began_ns := moment_ns(span.start_utc_ns)) < 0:
            raise _MisplacedError("before_boot", f"it started {-began_ns / 1e9:.0f} s before this machine did")
        if end_ns > now_ns + self._error_ns:
            raise _MisplacedError("in_the_future", f"it ends {(end_ns - now_ns) / 1e9:.3f} s from now")
        # What is within the error has happened by now, as the end has.
        start_ns, end_ns = min(start_ns, now_ns), min(end_ns, now_ns)
        first_ns = None if first_ns is None else min(first_ns, now_ns)
        if not start_ns <= (end_ns if first_ns is None else first_ns) <= end_ns:
            raise WireError("bad_value", "the wall clock was set while it ran, and nobody knows how long it took")
        device_uuids = request.device_uuids
        if device_uuids is None and self._servers is not None:
            place = self._servers.place(request.pid, batch.uid, start_ns)
            device_uuids, batch.unplaced_reason = place.device_uuids, place.reason or batch.unplaced_reason
        return Span(
            span_id=request.span_id,
            model_name=request.model_name,
            device_uuids=device_uuids,
            start_ns=start_ns,
            first_token_ns=first_ns,
            end_ns=end_ns,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            batch_size=1,
            hostname=request.hostname,
            pid=request.pid,
            attributes=request.attributes,
        )


class _Batch:
    """What becomes of the spans of one request, which this user has sent."""

    def __init__(self, uid: int | None) -> None:
        self.uid = uid
        self.fates: Counter[Fate] = Counter()
        self.refused: Counter[str] = Counter()
        self.unplaced, self.unplaced_reason = 0, ""
        self._shown: list[str] = []

    def refuse(self, error: WireError | _MisplacedError) -> None:
        self.fates["refused"] += 1
        self.refused[error.reason] += 1
        if len(self._shown) < MAX_SHOWN and str(error) not in self._shown:
            self._shown.append(str(error))

    def message(self) -> str:
        """What the sender should know; empty where all is well."""
        said = list(self._shown)
        if calls := self.fates["call"]:
            said.append(
                f"{plural(calls, 'span')} of kind CLIENT not counted: calls to a server, which reports them itself; "
                "where it does not, set otlp.count-calls"
            )
        return "; ".join(said)[:MAX_MESSAGE_CHARS]
