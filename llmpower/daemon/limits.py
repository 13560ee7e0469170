"""Above which power each GPU slows itself down, for those who watch.

An operator may change it at any time, so it is asked for again; but only while somebody wants to know, no oftener than
every :data:`ASKED_S`, and in a thread of its own, since a driver that hangs must not hold up the loop. A daemon that
nobody watches never asks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread

from llmpower.exceptions import LlmpowerError
from llmpower.types import Device

ASKED_S = 10.0


class Limits:
    """Power limits by UUID, as they were when last asked for.

    Args:
        devices: of the sampler.
        limit_w: asks the driver, see :meth:`Sampler.power_limit_w`.
        now_s: CLOCK_MONOTONIC.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        limit_w: Callable[[Device], float | None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = [device for device in devices if device.kind == "gpu"]
        self._limit_w = limit_w
        self._now_s = now_s
        self._asked_s = -ASKED_S
        self._asking: Thread | None = None
        self._known: Mapping[str, float | None] = {}

    def look(self) -> Mapping[str, float | None]:
        """Watts by UUID, ``None`` where the driver does not tell; nothing before it has been asked for the first time.

        What is old is asked for again meanwhile.
        """
        waited = self._asking is not None and self._asking.is_alive()
        if self._gpus and not waited and self._now_s() - self._asked_s >= ASKED_S:
            self._asked_s = self._now_s()
            self._asking = Thread(target=self._ask, name="llmpower-limits", daemon=True)
            self._asking.start()
        return self._known

    def _ask(self) -> None:
        # At the end the sampler may have been closed just now.
        with contextlib.suppress(LlmpowerError):
            self._known = {gpu.uuid: self._limit_w(gpu) for gpu in self._gpus}
