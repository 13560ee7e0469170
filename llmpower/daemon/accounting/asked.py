"""What a driver says about its GPUs only when asked: power limits, temperatures. For those who watch.

It may change at any time, so it is asked for again; but only while somebody wants to know, no more often than it is
worth, and in a thread of its own, since a driver that hangs must not hold up the loop. A daemon that nobody watches
never asks.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread

from llmpower.exceptions import LlmpowerError
from llmpower.types import Device

LIMIT_S = 10.0
"""An operator changes a power limit once in a while."""

TEMPERATURE_S = 1.0
TEMPERATURE_KEPT_S = 10.0
"""A card is warm for a minute; how warm it was then says nothing of now."""


class Asked:
    """One figure of each GPU by UUID, as it was when last asked for.

    Args:
        devices: of the sampler.
        ask: the driver, see :meth:`Sampler.power_limit_w` and :meth:`Sampler.temperature_c`.
        every_s: how old it grows before it is asked for again.
        kept_s: how old it grows before it is no longer told.
        now_s: CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        ask: Callable[[Device], float | None],
        every_s: float,
        kept_s: float = math.inf,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = [device for device in devices if device.kind == "gpu"]
        self._ask = ask
        self._every_s, self._kept_s = every_s, kept_s
        self._now_s = now_s
        self._asked_s = -math.inf
        self._asking: Thread | None = None
        self._known: tuple[float, Mapping[str, float | None]] = (-math.inf, {})

    def look(self) -> Mapping[str, float | None]:
        """Figures by UUID, ``None`` where the driver does not say; nothing before it was asked for the first time.

        What is old is asked for again meanwhile.
        """
        now_s = self._now_s()
        waited = self._asking is not None and self._asking.is_alive()
        if self._gpus and not waited and now_s - self._asked_s >= self._every_s:
            self._asked_s = now_s
            self._asking = Thread(target=self._answer, args=(now_s,), name="llmpower-asked", daemon=True)
            self._asking.start()
        known_s, known = self._known
        return known if now_s - known_s <= self._kept_s else {}

    def _answer(self, asked_s: float) -> None:
        # At the end the sampler may have been closed just now.
        with contextlib.suppress(LlmpowerError):
            self._known = (asked_s, {gpu.uuid: self._ask(gpu) for gpu in self._gpus})
