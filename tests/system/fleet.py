"""A small fleet: a busy host behind TLS and a password, a sick one beside it, and a Prometheus that scrapes both.

The rules are those of ``prometheus/``, evaluated every second, without the waiting of ``for:`` and with less patience
with a card that stalls or is lost, so that a minute shows what else takes hours.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import numpy as np
import trustme
import yaml
from servers import LLMPOWER, Daemon, Program, Prometheus, wait_until

from llmpower.modelling import Fit, HeldOut, WorkloadModel, save_models
from llmpower.profiling.samples import TINY, random_llama
from llmpower.spans.client import SpanClient
from llmpower.types import Span

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery staple"
RULES = ("llmpower-factors.yml", "llmpower-rules.yml", "llmpower-alerts.yml")
MODEL_NAMES = 120
"""More than the daemon keeps apart."""


class Fleet:
    """What runs, and what was made for it, in ``directory``."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self.flooded = False
        self.hash = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
        self.ca = directory / "ca.pem"
        web = self._web_config()
        _powercap(directory / "powercap", 1_000_000)
        self.busy: Daemon = self._start(
            Daemon(
                "busy",
                directory,
                f"--web.config.file={web}",
                f"--powercap-root={directory / 'powercap'}",
                f"--models={_models(directory)}",
                LLMPOWER_SIM_GPUS="2",
                LLMPOWER_SIM_LOAD="square:150,400,0.7",
            )
        )
        self.sick: Daemon = self._start(
            Daemon(
                "sick",
                directory,
                "--web.dcgm-aliases",
                "--powercap-root=",
                LLMPOWER_SIM_GPUS="2",
                LLMPOWER_SIM_LOAD="square:150,400,0.7",
                LLMPOWER_SIM_FAULT="not_supported:0.3@0,hang:20,8,lost:32@1",
            )
        )
        self.prometheus: Prometheus = self._start(Prometheus(directory, self._prometheus_config()))
        self._model = directory / "tiny-llama"
        random_llama({**TINY, "max_position_embeddings": 2048}).save_pretrained(self._model)

    def generate(self, model_name: str, tokens: int) -> None:
        """Start a program that answers on the busy host, each time with this many tokens, until the fleet ends."""
        command = [*LLMPOWER, "run", f"--model-name={model_name}", f"--socket={self.busy.socket}", "--"]
        program = [sys.executable, str(Path(__file__).with_name("generate.py")), str(self._model), str(tokens)]
        self._start(Program(model_name, self.directory, command + program, HF_HUB_OFFLINE="1"))

    @property
    def url(self) -> str:
        """Where the busy host's metrics are."""
        return f"https://127.0.0.1:{self.busy.port}/metrics"

    def disturb(self, number: int) -> None:
        """One turn of what goes on beside the requests: CPU energy, rubbish, spans that cannot be measured."""
        _powercap(self.directory / "powercap", 1_000_000 + number * 4_000_000)
        for daemon in (self.busy, self.sick):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect(os.fspath(daemon.socket))
                peer.send(b"rubbish")
        # The first hundred names are kept apart: the models' own are to be among them.
        if self.flooded:
            client = SpanClient(self.busy.socket)
            for name in range(MODEL_NAMES):
                _report(client, f"flood-{number}-{name}", f"flood-{name:03}", ("GPU-of-another-machine",))
            client.close()
        time.sleep(0.5)

    def _start(self, program: Any) -> Any:
        self._stack.callback(program.end)
        return program

    def _web_config(self) -> Path:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(self.directory / "server.pem")
        issued.private_key_pem.write_to_path(self.directory / "server.key")
        web = self.directory / "web.yml"
        tls = {"cert_file": "server.pem", "key_file": "server.key"}
        web.write_text(yaml.safe_dump({"tls_server_config": tls, "basic_auth_users": {"prometheus": self.hash}}))
        return web

    def _prometheus_config(self) -> Path:
        for name in RULES:
            text = (ROOT / "prometheus" / name).read_text()
            text = re.sub(r"(?m)^ +for: .*\n", "", text)
            for limit in ("silent_seconds > 120", "stalled_seconds > 30"):
                text = text.replace(limit, f"{limit.split(' > ')[0]} > 2")
            # A fleet a minute old has no ten minutes to take a mean over.
            (self.directory / name).write_text(text.replace("[10m]", "[1m]"))
        config = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (plain,) = config["scrape_configs"]
        plain["static_configs"] = [{"targets": [f"127.0.0.1:{self.sick.port}"], "labels": {"instance": "sick"}}]
        (self.directory / "password").write_text(PASSWORD)
        guarded = {
            "job_name": "guarded",
            "scheme": "https",
            "tls_config": {"ca_file": str(self.ca)},
            "basic_auth": {"username": "prometheus", "password_file": str(self.directory / "password")},
            "static_configs": [
                {"targets": [f"127.0.0.1:{self.busy.port}"], "labels": {"instance": "busy", "job": "llmpower"}}
            ],
        }
        # The example's relabelling names a host by its address; these two share one.
        del plain["relabel_configs"]
        config["scrape_configs"].append(guarded)
        file = self.directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        return file


@contextmanager
def running_fleet(directory: Path) -> Iterator[Fleet]:
    """A fleet that has run until Prometheus has seen some of everything, and goes on."""
    with ExitStack() as stack:
        fleet = Fleet(directory, stack)
        ended = threading.Event()

        def disturb() -> None:
            number = 0
            while not ended.is_set():
                number += 1
                fleet.disturb(number)

        thread = threading.Thread(target=disturb)
        thread.start()
        stack.callback(thread.join)
        stack.callback(ended.set)
        ask = fleet.prometheus.value
        # Held against its model is only what is measured well: answers of several ticks of the counter, that run alone.
        # Beside others, on cards whose watts come and go as they are told to, a request's share is a guess.
        fleet.generate("long-writer", 1000)
        wait_until(
            lambda: ask('llmpower_model_energy_ratio{sharing="alone"}'), "a request is compared with its model", 240
        )
        fleet.generate("small-chat", 24)
        for model_name in ("small-chat", "long-writer"):
            ended_requests = f'rate(llmpower_inference_requests_total{{model_name="{model_name}"}}[15s]) > 0'
            wait_until(lambda expr=ended_requests: ask(f"sum({expr})"), f"{model_name} has answered", 240)
        fleet.flooded = True
        wait_until(
            lambda: ask('sum(rate(llmpower_inference_requests_total{model_name="other"}[15s]))'), "it is flooded"
        )
        wait_until(lambda: "no energy for" in str(fleet.sick.status()["problems"]), "the lost card is missed", 120)
        # Two more scrapes and evaluations of whatever was the last to come.
        now_s = time.time()
        wait_until(lambda: ask("min(timestamp(up))") > now_s + 4, "all of it was scraped")
        yield fleet


def _models(directory: Path) -> Path:
    """Of the two models that answer: this many joules a token, on whatever simulated system."""

    def fit(per_token: float) -> Fit:
        return Fit(
            form="recompute",
            terms=("e0", "a", "b"),
            coefficients=np.array([per_token, 0.0, 0.0]),
            std_errors=np.full(3, np.nan),
            covariance=np.full((3, 3), np.nan),
            n_obs=10,
            r_squared=None,
            r_squared_centered=None,
            r_squared_uncentered=None,
            f_statistic=None,
            f_pvalue=None,
            heldout=HeldOut(0.1, 0.1, 0.2, 0),
            input_range=(1, 10_000),
            output_range=(1, 10_000),
        )

    file = directory / "models.json"
    names = ("small-chat", "long-writer")
    save_models(
        [WorkloadModel(name, "", simulated=True, energy=fit(5), runtime=fit(0.01), boundary="gpu") for name in names],
        file,
    )
    return file


def _report(client: SpanClient, span_id: str, model_name: str, device_uuids: tuple[str, ...]) -> None:
    now_ns = time.monotonic_ns()
    client.finish(
        Span(
            span_id=span_id,
            model_name=model_name,
            device_uuids=device_uuids,
            start_ns=now_ns - 1_000_000,
            first_token_ns=None,
            end_ns=now_ns,
            input_tokens=1,
            output_tokens=1,
            batch_size=1,
            hostname="host",
            pid=os.getpid(),
        )
    )


def _powercap(root: Path, energy_uj: int) -> None:
    zone = root / "intel-rapl:0"
    zone.mkdir(parents=True, exist_ok=True)
    for name, text in (("name", "package-0\n"), ("max_energy_range_uj", "65532610987\n")):
        (zone / name).write_text(text)
    # Written in place and at one length: truncated first, the file would be empty whenever the reader is unlucky.
    descriptor = os.open(zone / "energy_uj", os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, b"%020d\n" % energy_uj, 0)
    os.close(descriptor)
