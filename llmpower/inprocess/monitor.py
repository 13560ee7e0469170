"""What a notebook holds: joules of spans in this process, without a daemon.

::

    monitor = llmpower.Monitor()
    with monitor.span(model_name="llama", input_tokens=512) as call:
        ...
    print(call)                      # 1.23 ± 0.02 J (measured)

While it is open, ``llmpower.span()`` and instrumented ``generate()`` calls go to it too. It does not pass them on: a
daemon that runs beside it books their energy as idle. Without a Monitor the same lines give the daemon's figures.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from llmpower.daemon.config import POWERCAP_ROOT
from llmpower.daemon.pace import FINISH_S
from llmpower.inprocess.meter import JOIN_S, Meter
from llmpower.sampling import MAX_READ_SHARE, Backend, Sampler
from llmpower.spans import OpenSpan, install, span, uninstall
from llmpower.spans.context import WAIT_S
from llmpower.types import Device, Measurement, Span

_logger = logging.getLogger("llmpower")


class Monitor:
    """Measures spans of this process until :meth:`close`, the end of a ``with`` block, or nobody holding it any more.

    Several may be open in a process, and beside a daemon; a GPU is then read by each of them.

    Args:
        backend: ``nvml`` for the driver's GPUs, ``simulated`` for a simulated one; ``auto`` is the first where a driver
            is installed, and where none is the second, which it says.
        nvml_library: NVML by another path or name than ``libnvidia-ml.so.1``.
        powercap_root: where the kernel shows CPU energy. Where it may not be read CPU joules are ``None``.
        rate_hz: reads of each GPU a second.
        max_read_share: of wall time that may pass inside the driver; slow calls are made less often to keep it.

    Raises:
        DeviceError: the driver's library is missing or refuses to start, or ``rate_hz`` or
            ``max_read_share`` cannot be kept.

    Example:
        >>> import time
        >>> with Monitor(backend="simulated") as monitor:
        ...     with monitor.span(model_name="llama", input_tokens=512) as call:
        ...         time.sleep(0.2)
        ...         call.output_tokens = 128
        >>> print("it took", call)
        it took ... ± ... J (..., SIMULATED)
        >>> [measurement.span.output_tokens for measurement in monitor.measurements()]
        [128]
    """

    def __init__(
        self,
        *,
        backend: Backend = "auto",
        nvml_library: str | PathLike[str] | None = None,
        powercap_root: Path | None = POWERCAP_ROOT,
        rate_hz: float = 100.0,
        max_read_share: float = MAX_READ_SHARE,
    ) -> None:
        sampler = Sampler(
            backend=backend,
            nvml_library=nvml_library,
            powercap_root=powercap_root,
            rate_hz=rate_hz,
            max_read_share=max_read_share,
        )
        try:
            self.devices: tuple[Device, ...] = sampler.devices
            """What is measured, GPUs by their UUID and CPU packages."""
            self.simulated = sampler.backend == "simulated"
            """Whether the GPU is simulated, and none of its joules real."""
            sampler.start()
            self._meter = Meter(sampler)
        except BaseException:
            sampler.close()
            raise
        if self.simulated and backend != "simulated":
            _logger.warning(
                "llmpower: SIMULATED: no NVIDIA driver is installed here, so the GPU is simulated and none of its "
                "joules are real; Monitor(backend='nvml') would refuse"
            )
        self._said = False
        # Younger than the sampler's own, so first at the interpreter's end: the thread goes before what it reads from.
        self._finalizer = weakref.finalize(self, self._meter.end, finish=False, timeout_s=JOIN_S)
        install(self)

    def span(
        self, *, model_name: str, input_tokens: int = 0, device_uuids: str | Sequence[str] | None = None
    ) -> AbstractContextManager[OpenSpan]:
        """Measure the block as one span, see :func:`llmpower.span`."""
        return span(model_name=model_name, input_tokens=input_tokens, device_uuids=device_uuids, client=self)

    def measurements(self, timeout_s: float = WAIT_S) -> list[Measurement]:
        """The spans so far, the latest 10,000, once all that have ended are measured."""
        return self._meter.measurements(timeout_s)

    def begin(self, span_id: str, start_ns: int) -> None:
        """A span has started, at ``start_ns`` of CLOCK_MONOTONIC."""
        self._meter.begin(span_id, start_ns)

    def finish(self, span: Span) -> None:
        """It has ended well."""
        gpus = [device.uuid for device in self.devices if device.kind == "gpu"]
        if span.device_uuids is None and len(gpus) > 1 and not self.simulated and not self._said:
            self._said = True
            _logger.warning(
                "llmpower: a span does not say on which of %d GPUs it ran and has no joules of theirs; give it "
                "device_uuids=[…], of %s",
                len(gpus),
                ", ".join(gpus),
            )
        self._meter.finish(span)

    def cancel(self, span_id: str) -> None:
        """It has failed."""
        self._meter.cancel(span_id)

    def measurement(self, span: Span, timeout_s: float = WAIT_S) -> Measurement | None:
        """What was measured of a span that has ended, once it is; ``None`` where that is not known in time."""
        return self._meter.measurement(span, timeout_s)

    def close(self) -> None:
        """Measure what has ended, and stop; figures can still be asked for. May be repeated."""
        uninstall(self)
        self._meter.end(finish=True, timeout_s=FINISH_S + JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(device.name for device in self.devices) or "no devices"
        power_w = self._meter.power_w
        now = "power not known" if power_w is None else f"{power_w:.0f} W"
        return f"<llmpower.Monitor: {'SIMULATED, ' if self.simulated else ''}{names}; {now}>"
