"""Every joule of every device in exactly one account.

The ledger cuts each device's time at the boundaries of spans (start, first token, end). Inside such a piece the set of
running spans does not change: with none the piece's energy is idle, with one it is that span's, with several it is
split (:mod:`~llmpower.attribution.shares.sharing`). Energies of pieces are differences of one running total, so
whatever the spans, inference + idle + unattributed is the total's increase, exactly.

Each device is settled up to a watermark that only moves forward. It stays behind every span that has begun and not
ended, and at moments whose reading no later sample can change (an edge of the counter), so that nothing booked needs
correcting. A span that arrives after its time was settled cannot be booked any more: its joules are unknown
(``None``), and it is called late. A stalled device is passed over: what ran on it then is unknown, and what its counter
says of that time once it is back is unattributed.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmpower.attribution.course import course
from llmpower.attribution.entry import Entry
from llmpower.attribution.joules import Joules, add_up, common, worst
from llmpower.attribution.pieces import Phase, cuts, regimes
from llmpower.attribution.series import Reading
from llmpower.attribution.shares.costs import Costs
from llmpower.attribution.shares.sharing import share_out
from llmpower.attribution.timeline import Timeline
from llmpower.types import DeviceKind, Span

BookingKey = tuple[str, Phase, DeviceKind]
"""Model name, phase, kind of device."""

AT_ONCE_S = 30.0
"""So much of a device's time is booked at a call, if it has shown a moment in it: a long request may have held up ten
minutes of eight devices, and the service manager waits for a sign of life."""

MOST_PIECES = 500
"""So many pieces are booked at once: each takes up to a millisecond where the power says what lies between ticks."""

STALLED = "stalled"
"""Why joules belong to nobody: they came to light after a device had not been read for a while."""


@dataclass(slots=True)
class DeviceTotals:
    """One device's accounts since the ledger was opened, in joules: energy = inference + idle + Σ unattributed.

    Of the inference, ``allocated_j`` was shared by several spans at a time, and ``residual_j`` of that is what the
    costs by which it was shared do not explain, added up between edges of the counter, whatever its sign.
    """

    energy_j: float = 0.0
    inference_j: float = 0.0
    idle_j: float = 0.0
    unattributed_j: dict[str, float] = field(default_factory=lambda: {STALLED: 0.0})
    allocated_j: float = 0.0
    residual_j: float = 0.0


@dataclass(slots=True)
class _Account:
    """A span waiting for its devices."""

    span: Span
    gpus: tuple[str, ...]
    late: bool
    entries: dict[str, Entry]
    running: int  # entries that are not closed


def _start_ns(account: _Account) -> int:
    return account.span.start_ns


class Ledger:
    """Books the energy of devices to spans.

    Args:
        timelines: every device by uuid; CPU packages are charged to all spans, GPUs to the spans that name them.
        hold_s: an open span older than this no longer holds the watermark back.
    """

    def __init__(self, timelines: Mapping[str, Timeline], hold_s: float = 600.0) -> None:
        self._timelines = timelines
        self._packages = tuple(uuid for uuid, timeline in timelines.items() if timeline.device.kind == "cpu_package")
        self._hold_ns = round(hold_s * 1e9)
        self._open: dict[str, int] = {}
        self._waiting = 0
        self._nowhere: list[_Account] = []  # those on no device that is known here
        self._done: list[_Account] = []
        self._on: dict[str, list[_Account]] = {uuid: [] for uuid in timelines}  # not settled there yet, by start
        self._watermark_ns: dict[str, int] = {}
        self._settled: dict[str, Reading] = {}  # the last known reading of each device, at or before the watermark
        self._booked: defaultdict[BookingKey, float] = defaultdict(float)
        self.costs: Mapping[str, Costs] = {uuid: Costs() for uuid in timelines}
        """What work costs on each device, by what it has shown."""
        self.totals: dict[str, DeviceTotals] = {uuid: DeviceTotals() for uuid in timelines}
        self.behind = False
        """Whether the latest call of :meth:`settle` left something for the next that it could have booked."""

    @property
    def pending(self) -> int:
        """Spans that have begun or ended and are not settled."""
        return len(self._open) + self._waiting

    @property
    def watermark_ns(self) -> Mapping[str, int]:
        """By device, the moment before which everything is booked; nothing for a device that has shown nothing."""
        return self._watermark_ns

    def begin(self, span_id: str, start_ns: int) -> None:
        """A span has begun: nothing after ``start_ns`` is settled until it is added or cancelled."""
        self._open[span_id] = start_ns

    def cancel(self, span_id: str) -> None:
        """A span that began will not be added."""
        self._open.pop(span_id, None)

    def add(self, span: Span) -> None:
        """Take a finished span; ``device_uuids`` of ``None`` counts as no GPU known."""
        self._open.pop(span.span_id, None)
        gpus = tuple(dict.fromkeys(span.device_uuids or ()))
        devices = (*(uuid for uuid in gpus if uuid in self._timelines), *self._packages)
        late = any(self._watermark_ns.get(uuid, span.start_ns) > span.start_ns for uuid in devices)
        entries = {} if late else {uuid: Entry() for uuid in devices}
        account = _Account(span, gpus, late, entries, len(entries))
        self._waiting += 1
        if late:
            self._done.append(account)
        elif not entries:
            self._nowhere.append(account)
        for uuid in entries:
            insort(self._on[uuid], account, key=_start_ns)

    def settle(self, until_ns: int) -> list[Joules]:
        """Book everything up to ``until_ns``, or as far as open spans and the devices allow; return what is done.

        Of what has been held up, a call books a part (:meth:`_part_ns`), and the calls after it the rest.

        Args:
            until_ns: CLOCK_MONOTONIC; the present, or a little less so that reports of spans may still arrive.
        """
        horizon_ns = until_ns - self._hold_ns
        self._open = {span_id: start_ns for span_id, start_ns in self._open.items() if start_ns > horizon_ns}
        target_ns = min((until_ns, *self._open.values()))
        self.behind = False
        for uuid, timeline in self._timelines.items():
            self._settle_device(uuid, timeline, target_ns, stalled=timeline.stalled(until_ns))
        self._done += [account for account in self._nowhere if account.span.end_ns <= target_ns]
        self._nowhere = [account for account in self._nowhere if account.span.end_ns > target_ns]
        done, self._done = self._done, []
        self._waiting -= len(done)
        return [self._joules(account) for account in done]

    def take_booked(self) -> dict[BookingKey, float]:
        """Joules booked to spans since this was last asked, by model, phase and kind of device.

        Unlike the spans' own figures these are complete at any moment: they include spans that are settled in part,
        and what was booked to a span whose energy as a whole stays unknown. Over GPUs they sum to the increase of
        ``inference_j``.
        """
        booked, self._booked = dict(self._booked), defaultdict(float)
        return booked

    def _settle_device(self, uuid: str, timeline: Timeline, target_ns: int, *, stalled: bool) -> None:
        """Move the device's watermark to the latest moment up to ``target_ns`` that can be booked for good."""
        known_ns = timeline.known_until_ns
        # What lies between two moments that the device has shown is settled as a whole, also while it shows no others.
        if not stalled or (known_ns is not None and target_ns <= known_ns):
            floor_ns = timeline.floor_ns(target_ns)
            if floor_ns is None:
                return
            target_ns = floor_ns
        since_ns = timeline.known_since_ns
        low_ns = self._watermark_ns.get(uuid, target_ns if since_ns is None else min(since_ns, target_ns))
        if target_ns < low_ns or target_ns == self._watermark_ns.get(uuid):
            return
        on = self._on[uuid]
        part_ns = self._part_ns(on, timeline, low_ns, target_ns)
        self.behind |= part_ns < target_ns
        self._watermark_ns[uuid] = target_ns = part_ns
        # The others wait for a later watermark. At thousands of spans a second they are most of them.
        reached = bisect_right(on, target_ns, key=_start_ns)
        accounts = on[:reached]
        next_ns = self._next_cut_ns(timeline, [account.span for account in on[: reached + 1]], target_ns)
        spans, entries = [account.span for account in accounts], [account.entries[uuid] for account in accounts]
        cuts_ns = cuts(spans, low_ns, target_ns, timeline.borders(low_ns, target_ns))
        where = course(spans, cuts_ns)
        doing = regimes(spans, where, len(cuts_ns) - 1)
        readings = timeline.readings(cuts_ns, doing, next_ns)
        for start, end, running in zip(readings[:-1], readings[1:], where.running.tolist(), strict=True):
            self._settle_piece(uuid, start, end, busy=running > 0)
        told = timeline.told(low_ns, target_ns)
        shared = share_out(spans, entries, where, cuts_ns, readings, timeline.idle_w, self.costs[uuid], told)
        self.totals[uuid].allocated_j += shared.together_j
        self.totals[uuid].residual_j = self.costs[uuid].residual_j
        kind = timeline.device.kind
        at = dict(zip(cuts_ns, readings, strict=True))
        for account, prefill_j, rest_j in zip(accounts, shared.prefill_j.tolist(), shared.rest_j.tolist(), strict=True):
            span, entry = account.span, account.entries[uuid]
            if prefill_j:
                self._booked[span.model_name, "prefill", kind] += prefill_j
            if rest_j:
                phase: Phase = "unsplit" if span.first_token_ns is None else "decode"
                self._booked[span.model_name, phase, kind] += rest_j
            # A span from before the device first appeared has a part that nobody saw.
            entry.known &= span.start_ns >= low_ns or entry.seen
            entry.seen = True
            if span.end_ns <= target_ns:
                entry.close(at.get(span.end_ns))
                # Other devices of the span may be behind; this one is done with it.
                account.running -= 1
                if not account.running:
                    self._done.append(account)
        on[:reached] = [account for account in accounts if account.span.end_ns > target_ns]

    @staticmethod
    def _part_ns(on: Sequence[_Account], timeline: Timeline, low_ns: int, target_ns: int) -> int:
        """Up to when a call books: :data:`AT_ONCE_S`, or as much work as takes no longer, and a tick at least."""
        near_ns = min(target_ns, low_ns + round(AT_ONCE_S * 1e9))
        running = bisect_right(on, low_ns, key=_start_ns)
        if running + MOST_PIECES < len(on):
            # Each that begins makes a piece: more of them need not be looked at.
            near_ns = min(near_ns, on[running + MOST_PIECES].span.start_ns)
        spans = [account.span for account in on[: bisect_right(on, near_ns, key=_start_ns)]]
        near_ns = cuts(spans, low_ns, near_ns)[: MOST_PIECES + 1][-1]
        while near_ns < target_ns:
            floor_ns = timeline.floor_ns(near_ns)
            if floor_ns is not None and floor_ns > low_ns:
                return floor_ns
            near_ns = low_ns + max(2 * (near_ns - low_ns), 1)
        return target_ns

    def _next_cut_ns(self, timeline: Timeline, spans: Sequence[Span], target_ns: int) -> int:
        """When what runs at ``target_ns`` changes next, or until when the device has shown that it has not.

        Of spans that begin later, the first is enough.
        """
        next_ns = max(timeline.known_until_ns or 0, target_ns)
        for start_ns in self._open.values():
            if target_ns < start_ns < next_ns:
                next_ns = start_ns
        for span in spans:
            for moment_ns in (span.start_ns, span.first_token_ns, span.end_ns):
                if moment_ns is not None and target_ns < moment_ns < next_ns:
                    next_ns = moment_ns
        return next_ns

    def _settle_piece(self, uuid: str, start: Reading | None, end: Reading | None, *, busy: bool) -> None:
        """Book one piece of one device's time, from one reading to the next, to inference if it is busy."""
        if start is not None:
            self._reach(uuid, start)
        if start is None or end is None or start.epoch != end.epoch:
            if end is not None:
                self._reach(uuid, end)
            return
        energy_j = end.energy_j - start.energy_j
        totals = self.totals[uuid]
        totals.energy_j += energy_j
        self._settled[uuid] = end
        if busy:
            totals.inference_j += energy_j
        else:
            totals.idle_j += energy_j

    def _reach(self, uuid: str, reading: Reading) -> None:
        """Take ``reading`` as settled; what it is ahead of the one before was used while the device was away."""
        settled = self._settled.get(uuid)
        if settled is not None and settled.epoch == reading.epoch and settled.energy_j != reading.energy_j:
            totals = self.totals[uuid]
            gap_j = reading.energy_j - settled.energy_j
            totals.energy_j += gap_j
            totals.unattributed_j[STALLED] += gap_j
        self._settled[uuid] = reading

    def _joules(self, account: _Account) -> Joules:
        span, entries = account.span, account.entries
        gpu = add_up([entries.get(uuid) for uuid in account.gpus])
        cpu = add_up([entries.get(uuid) for uuid in self._packages])
        # What its figure rests on is said of the GPUs, and of the processor only for a span that used none.
        told = account.gpus if gpu.known else self._packages if cpu.known and not account.gpus else ()
        timelines = [self._timelines[uuid] for uuid in told]
        split = gpu.known and span.first_token_ns is not None
        return Joules(
            span=span,
            gpu_energy_j=gpu.energy_j,
            gpu_energy_std_j=gpu.std_j,
            cpu_energy_j=cpu.energy_j,
            cpu_energy_std_j=cpu.std_j,
            prefill_energy_j=gpu.prefill_j if split else None,
            decode_energy_j=gpu.decode_j if split else None,
            gpu_idle_energy_j=gpu.idle_j,
            cpu_idle_energy_j=cpu.idle_j,
            quality=worst([timeline.quality(span.start_ns, span.end_ns) for timeline in timelines]),
            method=common([timeline.method for timeline in timelines]),
            allocated=any(entry.allocated for entry in entries.values()),
            late=account.late,
        )
