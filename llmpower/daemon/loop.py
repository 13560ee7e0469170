"""The one loop: a selector for what comes in, a deadline for what must be done anyway.

Between deadlines the process sleeps in the kernel. It ends on SIGTERM, SIGINT or SIGHUP, and then in order: no more
spans are taken, those that have ended are measured (for which the counters must move past them; it waits
:data:`FINISH_S` at most) and stored, the store is closed whole.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

from llmpower import __version__
from llmpower.daemon.accounting.asked import LIMIT_S, TEMPERATURE_KEPT_S, TEMPERATURE_S, Asked
from llmpower.daemon.accounting.calibrations import Calibrations, calibration_path
from llmpower.daemon.accounting.engine import SETTLE_DELAY_S, Engine
from llmpower.daemon.accounting.host import read_cpu_name
from llmpower.daemon.accounting.settling import settle_delay_s
from llmpower.daemon.config import Config
from llmpower.daemon.health import summary_of
from llmpower.daemon.notify import Notifier
from llmpower.daemon.otlp.endpoint import OtlpServer, receiving
from llmpower.daemon.otlp.servers import Servers
from llmpower.daemon.pace import FINISH_S, FINISH_STEP_S, READY_S, REST_AFTER_S, RESTING_STEP_S, STEP_S
from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.intake import Intake
from llmpower.daemon.receiving.refusals import REASONS
from llmpower.daemon.status import status_of
from llmpower.daemon.storing.keeper import Keeper
from llmpower.daemon.storing.thread import StoreThread
from llmpower.metrics import WEB_CONFIG_OPTION, DcgmCollector, LlmpowerCollector, MetricsServer
from llmpower.phrases import SIMULATED_GPU, plural
from llmpower.sampling import Sampler
from llmpower.spans.clocks import read_utc_offset_ns
from llmpower.types import Device

CALIBRATE_S = 8.0
"""At the start calibration wants to see every update."""

STORE_S = 5.0
"""How long the end waits for a store that is busy, or fails and may come back."""

GC_THRESHOLDS = (20_000, 20, 100)

_STATUS_S = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

logger = logging.getLogger("llmpower.daemon")


def run(config: Config) -> None:
    """Run the daemon in this (main) thread until a signal ends it.

    Raises:
        InputError: a device, the store, the socket or the address cannot be used.
    """
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        ending = stack.enter_context(_signals(selector))
        sampler = stack.enter_context(
            contextlib.closing(
                Sampler(
                    backend=config.backend,
                    nvml_library=config.nvml_library,
                    powercap_root=config.powercap_root,
                    rate_hz=config.rate_hz,
                    max_read_share=config.max_read_share,
                )
            )
        )
        # Who is refused for want of a device leaves no database.
        store = stack.enter_context(contextlib.closing(StoreThread(Keeper(config.store, config.retention))))
        engine = Engine(
            sampler.devices,
            store.append,
            backend=sampler.backend,
            cpu_name=read_cpu_name(),
            device_of=sampler.device_of,
            store_state=store.state,
            hold_s=config.hold_s,
            unopened=sampler.unopened,
        )
        if config.models is not None:
            _compare(engine, config.models)
        registry = CollectorRegistry(auto_describe=True)
        registry.register(LlmpowerCollector(lambda: engine.snapshot, REASONS))
        if config.dcgm_aliases:
            registry.register(DcgmCollector(lambda: engine.snapshot, socket.gethostname()))
        ProcessCollector(registry=registry)
        server = stack.enter_context(
            MetricsServer(
                *config.listen_address, registry, web_config_file=config.web_config_file, on_error=engine.fail
            )
        )
        if server.open_to_all:
            logger.warning(
                "whoever reaches %s may watch this machine's power; %s asks for a password",
                server.url,
                WEB_CONFIG_OPTION,
            )
        loop = Loop(config, sampler, engine, server.url)
        answers = Answers()
        engine.on_measured = answers.measured
        intake = stack.enter_context(
            contextlib.closing(Intake(config.socket, selector, engine, store.known, loop.status, answers))
        )
        engine.outbox.on_stored = intake.stored
        servers = Servers(sampler.devices, sampler.processes)
        loop.otlp = stack.enter_context(receiving(config, engine.clock, servers))
        engine.otlp_state = engine.otlp_state if loop.otlp is None else loop.otlp.receiver.state
        loop.run(selector, intake, ending)


class Loop:
    """Steps the engine in time, and reports.

    Args:
        config: the daemon's settings.
        sampler: opened, not yet started.
        engine: the books.
        metrics_url: where scrapes are answered.
        notifier: the service manager.
    """

    def __init__(
        self, config: Config, sampler: Sampler, engine: Engine, metrics_url: str, notifier: Notifier | None = None
    ) -> None:
        self._config = config
        self._sampler = sampler
        self._engine = engine
        self._metrics_url = metrics_url
        self._notifier = notifier or Notifier()
        self._limits = Asked(sampler.devices, sampler.power_limit_w, LIMIT_S)
        self._temperatures = Asked(sampler.devices, sampler.temperature_c, TEMPERATURE_S, TEMPERATURE_KEPT_S)
        self._calibrations = Calibrations(calibration_path(config.store), sampler.devices, engine)
        self.otlp: OtlpServer | None = None
        """Where spans come in by OpenTelemetry, if anywhere."""
        self._started_s = time.monotonic()
        self._cpu_before_s = time.process_time()
        self._resting = False
        self._busy_s = self._started_s + CALIBRATE_S

    def run(self, selector: selectors.BaseSelector, intake: Intake, ending: list[int]) -> None:
        """Serve until ``ending`` holds a signal, then finish."""
        # Spans come and go by the thousand and are in no cycles: looking for some took a fifteenth of settling.
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._sampler.start()
        report_s = min(self._notifier.watchdog_s / 3 or _STATUS_S, _STATUS_S)
        next_step_s = next_report_s = stepped_s = time.monotonic()
        ready, knocks = False, 0
        while not ending:
            for key, _ in selector.select(max(next_step_s - time.monotonic(), 0.0)):
                key.data()
            now_s = time.monotonic()
            if intake.knocks > knocks:
                # A program has something to send; the loop steps no more often for it than under load.
                knocks, next_step_s = intake.knocks, min(next_step_s, stepped_s + STEP_S)
            if now_s >= next_step_s:
                stepped_s, next_step_s = now_s, now_s + (RESTING_STEP_S if self._resting else STEP_S)
                intake.step()
                self._engine.spool_waiting_bytes = intake.waiting_bytes
                # What had begun before the look at the spool is known; what has since, is not.
                self._step(self._settle_delay_s() + time.monotonic() - now_s)
                self._rest()
            # A span that begins before its devices have shown anything would get no joules: not ready before that.
            if not ready and (self._engine.knowing or now_s - self._started_s > READY_S):
                ready = True
                self._announce()
                self._notifier.ready(summary_of(self._engine.snapshot, self._engine.hour_ago))
            if ready and now_s >= next_report_s:
                next_report_s = now_s + report_s
                self._notifier.alive(summary_of(self._engine.snapshot, self._engine.hour_ago))
        logger.info("%s: finishing", signal.Signals(ending[0]).name)
        self._notifier.stopping()
        if self.otlp is not None:
            self.otlp.receiver.stop()
        # What programs have sent already is served; what still runs can no longer be told to us.
        intake.finish()
        self._finish()

    def status(self) -> Mapping[str, object]:
        """The answer to a status request."""
        return status_of(
            self._engine.snapshot,
            self._config,
            hour_ago=self._engine.hour_ago,
            metrics_url=self._metrics_url,
            otlp_url=None if self.otlp is None else self.otlp.url,
            uptime_s=time.monotonic() - self._started_s,
            cpu_s=time.process_time() - self._cpu_before_s,
            last_error=self._engine.last_error,
            last_error_ns=self._engine.last_error_ns,
            power_limits_w=self._limits.look(),
            temperatures_c=self._temperatures.look(),
        )

    def _settle_delay_s(self) -> float:
        if self.otlp is None or not self.otlp.receiver.sending:
            return SETTLE_DELAY_S
        return settle_delay_s(self.otlp.receiver.hold_s, self._engine.pending)

    def _step(self, delay_s: float) -> None:
        samples = self._sampler.drain()
        self._calibrations.take(samples)
        self._engine.step(
            samples,
            self._sampler.statistics(),
            read_utc_offset_ns(),
            channels=self._sampler.channels(),
            settle_delay_s=delay_s,
        )

    def _rest(self) -> None:
        """Read and step less often while nothing runs: what a meter costs idle servers is paid all night."""
        now_s = time.monotonic()
        snapshot = self._engine.snapshot
        if snapshot.spans_running or snapshot.spans_pending:
            self._busy_s = now_s
        self._resting = now_s - self._busy_s > REST_AFTER_S
        self._sampler.rest(self._resting)

    def _finish(self) -> None:
        deadline_s = time.monotonic() + FINISH_S
        self._step(0.0)
        while self._engine.pending and time.monotonic() < deadline_s:
            # Where reads are slow, the next one may be ten seconds away.
            self._sampler.read_now()
            until_s = time.monotonic() + STEP_S
            while self._engine.pending and time.monotonic() < until_s:
                time.sleep(FINISH_STEP_S)
                self._step(0.0)
        deadline_s = time.monotonic() + STORE_S
        while self._engine.unstored and time.monotonic() < deadline_s:
            time.sleep(FINISH_STEP_S)
            self._step(0.0)
        left = self._engine.pending + self._engine.unstored
        if left:
            logger.error("%s could not be measured or stored before the end", plural(left, "span"))
        snapshot = self._engine.snapshot
        logger.info("stopped; %s stored in %s", plural(snapshot.spans_stored, "span"), self._config.store)

    def _announce(self) -> None:
        logger.info(
            "llmpower %s: backend %s, %s; socket %s; metrics %s; OpenTelemetry %s; store %s",
            __version__,
            self._sampler.backend,
            _names(self._sampler.devices),
            self._config.socket,
            self._metrics_url,
            "nowhere" if self.otlp is None else self.otlp.url,
            self._config.store,
        )
        if any(device.simulated for device in self._sampler.devices):
            logger.warning(SIMULATED_GPU)
        for number, why in self._engine.snapshot.unopened.items():
            self._engine.fail(f"GPU {number} cannot be opened, so it is not sampled: {why}")
        for uuid in sorted(self._sampler.of_module):
            logger.warning("%s answers for the whole module: its power includes the module's CPU and memory", uuid)


def _compare(engine: Engine, models: Path) -> None:
    """Hold what is measured against models, whose code is loaded for that alone."""
    from llmpower.daemon.comparing.comparison import Comparison

    comparison = Comparison(models, engine.fail)
    engine.compare, engine.drift_state = comparison.add, comparison.state
    named = [f"{model.model_name}{' (SIMULATED)' if model.simulated else ''}" for model in comparison.models]
    logger.info("requests are compared with %s: %s", models, ", ".join(named) or "no models")


@contextlib.contextmanager
def _signals(selector: selectors.BaseSelector) -> Iterator[list[int]]:
    """Signals wake the selector and are appended to the list yielded; the old handlers come back afterwards."""
    caught: list[int] = []
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno())
    selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(64))
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        selector.unregister(reader)
        reader.close()
        writer.close()


def _names(devices: tuple[Device, ...]) -> str:
    return ", ".join(device.name for device in devices) or "no devices"
