"""``llmpower daemon``: sample power, receive spans, store joules, serve metrics."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; its keys are these options' names.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "nvml", "simulated"]),
    help="Where GPU power comes from; auto simulates where no driver is installed.  [default: auto]",
)
@click.option("--nvml-library", metavar="PATH", help="NVML by another path or name than libnvidia-ml.so.1.")
@click.option(
    "--powercap-root",
    type=click.Path(),
    help="Where the kernel shows CPU energy; empty: take none.  [default: /sys/class/powercap]",
)
@click.option("--store", type=click.Path(path_type=Path), help="Database of measurements.")
@click.option("--socket", type=click.Path(path_type=Path), help="Unix socket on which spans arrive.")
@click.option(
    "--web.listen-address",
    "web_listen_address",
    metavar="HOST:PORT",
    help="Serve /metrics there.  [default: 127.0.0.1:10450]",
)
@click.option(
    "--web.config.file",
    "web_config_file",
    type=click.Path(path_type=Path),
    help="TLS and passwords for /metrics, in the schema of the Prometheus exporter-toolkit.",
)
@click.option(
    "--web.dcgm-aliases",
    "web_dcgm_aliases",
    is_flag=True,
    default=None,
    help="Serve GPU power and energy under dcgm-exporter's names too, for boards made for it.",
)
@click.option("--rate", type=float, metavar="HZ", help="Reads of each GPU per second.  [default: 100]")
@click.option(
    "--max-read-share",
    "max_read_share",
    type=float,
    metavar="F",
    help="Part of wall time that driver calls may take; slow ones are made less often to keep it.  [default: 0.02]",
)
@click.option(
    "--hold",
    type=float,
    metavar="SECONDS",
    help="How long samples are kept, and so how long a request may last.  [default: 600]",
)
@click.option(
    "--otlp.listen-address",
    "otlp_listen_address",
    metavar="HOST:PORT",
    help="Take OpenTelemetry spans, such as vLLM's, there at /v1/traces; empty: nowhere.  [default: 127.0.0.1:10451]",
)
@click.option(
    "--otlp.hold",
    "otlp_hold",
    type=float,
    metavar="SECONDS",
    help="A request that began longer than this before its span arrives has no joules. Joules come this much later "
    "while somebody sends.  [default: 120]",
)
@click.option(
    "--otlp.model-name",
    "otlp_model_name",
    metavar="NAME",
    help="For OpenTelemetry spans that name neither a model nor a service.",
)
@click.option(
    "--otlp.count-calls",
    "otlp_count_calls",
    is_flag=True,
    default=None,
    help="Count the spans of clients too, where the servers that they call send none.",
)
@click.option(
    "--otlp.any-user",
    "otlp_any_user",
    is_flag=True,
    default=None,
    help="Take OpenTelemetry spans from every user of this machine, not only from those who may open the socket.",
)
@click.option(
    "--retention.time",
    "retention_time",
    metavar="AGE",
    help="Delete spans older than this, such as 90d or 1y26w; 0 keeps them.  [default: 0]",
)
@click.option(
    "--retention.size",
    "retention_size",
    metavar="SIZE",
    help="Delete the spans stored first when the database holds more, such as 2GB; 0 keeps them.  [default: 10GB]",
)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    help="Compare what requests cost with this models.json and report drift; read again when it changes.",
)
def command(
    config: Path | None,
    backend: str | None,
    nvml_library: str | None,
    powercap_root: str | None,
    store: Path | None,
    socket: Path | None,
    web_listen_address: str | None,
    web_config_file: Path | None,
    web_dcgm_aliases: bool | None,
    rate: float | None,
    max_read_share: float | None,
    hold: float | None,
    otlp_listen_address: str | None,
    otlp_hold: float | None,
    otlp_model_name: str | None,
    otlp_count_calls: bool | None,
    otlp_any_user: bool | None,
    retention_time: str | None,
    retention_size: str | None,
    models: Path | None,
) -> None:
    """Sample power, receive spans, store joules, serve metrics.

    Runs in the foreground until SIGTERM or Ctrl-C, then stores the spans that have ended. Root's daemon serves the
    system: socket /run/llmpower/llmpower.sock, store /var/lib/llmpower/spans.db. Any other user's serves that user,
    below $XDG_RUNTIME_DIR and $XDG_STATE_HOME. Options beat the file, the file beats the defaults.

    \b
    Example:
      llmpower daemon
      llmpower daemon --backend simulated --store spans.db --socket /tmp/llmpower.sock
      curl http://127.0.0.1:10450/metrics
    """
    # Before NumPy comes: these matrices are small, and a thread that its BLAS keeps spins after each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from llmpower.daemon.config import load_config, make_directories
    from llmpower.daemon.logs import set_up as set_up_logs
    from llmpower.daemon.loop import run

    options = {
        "backend": backend,
        "nvml-library": nvml_library,
        "powercap-root": powercap_root,
        "store": store,
        "socket": socket,
        "web.listen-address": web_listen_address,
        "web.config.file": web_config_file,
        "web.dcgm-aliases": web_dcgm_aliases,
        "rate": rate,
        "max-read-share": max_read_share,
        "hold": hold,
        "otlp.listen-address": otlp_listen_address,
        "otlp.hold": otlp_hold,
        "otlp.model-name": otlp_model_name,
        "otlp.count-calls": otlp_count_calls,
        "otlp.any-user": otlp_any_user,
        "retention.time": retention_time,
        "retention.size": retention_size,
        "models": models,
    }
    settings = load_config(options, config)
    make_directories(settings)
    set_up_logs()
    run(settings)
