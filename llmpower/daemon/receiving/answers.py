"""Questions about what a span cost, and their answers.

A program asks as soon as its span has ended, which is before the counters have moved past that end: the question waits
and is answered in the step that settles the span. For who asks a little later the latest measurements of each user are
kept; older ones are in the store. A user gets answers about their own spans only, by the kernel's word on who they are,
and every bound is a number, so that questions cost the daemon little whoever asks them.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable

from llmpower.types import Measurement

MAX_KEPT_OF_USER = 256
MAX_USERS = 16
"""Of whom measurements are kept, the latest: 4 MB in all."""

MAX_WAITING_OF_USER = 256

Answer = Callable[[Measurement | None], None]


class Answers:
    """Takes what is measured and tells those who ask.

    Args:
        now_s: a clock for how long they wait.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._kept: OrderedDict[int | None, OrderedDict[str, Measurement]] = OrderedDict()
        self._waiting: defaultdict[int | None, dict[str, list[tuple[float, Answer]]]] = defaultdict(dict)

    def measured(self, measurement: Measurement) -> None:
        """A span is measured: keep that, and tell who waits for it."""
        span = measurement.span
        kept = self._kept.setdefault(span.uid, OrderedDict())
        self._kept.move_to_end(span.uid)
        kept[span.span_id] = measurement
        if len(kept) > MAX_KEPT_OF_USER:
            kept.popitem(last=False)
        if len(self._kept) > MAX_USERS:
            self._kept.popitem(last=False)
        if span.uid in self._waiting:
            for _, answer in self._waiting[span.uid].pop(span.span_id, ()):
                answer(measurement)

    def ask(self, span_id: str, uid: int, wait_s: float, answer: Answer) -> None:
        """Have ``answer`` called with what is measured of a user's span: now, once it is, or with ``None``."""
        kept = self._kept[uid].get(span_id) if uid in self._kept else None
        waiting = sum(map(len, self._waiting[uid].values())) if uid in self._waiting else 0
        if kept is not None or wait_s <= 0 or waiting >= MAX_WAITING_OF_USER:
            answer(kept)
        else:
            self._waiting[uid].setdefault(span_id, []).append((self._now_s() + wait_s, answer))

    def step(self) -> None:
        """Tell those who have waited long enough that nothing is known."""
        now_s = self._now_s()
        late: list[Answer] = []
        for uid, asked in list(self._waiting.items()):
            for span_id, questions in list(asked.items()):
                late += [answer for until_s, answer in questions if until_s <= now_s]
                questions[:] = [question for question in questions if question[0] > now_s]
                if not questions:
                    del asked[span_id]
            if not asked:
                del self._waiting[uid]
        for answer in late:
            answer(None)
