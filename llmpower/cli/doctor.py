"""``llmpower doctor``: what can be measured here, what cannot, why, and the command that fixes it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import click

from llmpower import __version__
from llmpower.cli.layout import echo_labelled
from llmpower.cli.options import json_option, powercap_option, socket_option
from llmpower.exceptions import DaemonUnreachableError, DeviceError, NoDriverError
from llmpower.phrases import duration

EXTRAS = {
    "transformers": (("torch", "transformers"), "measure generate() calls and profile models"),
    "parquet": (("pyarrow",), "read and write Parquet"),
    "report": (("altair", "jinja2", "vl_convert"), "write the HTML report"),
    "fleet": (("distributed", "fsspec", "pyarrow"), "share measurements of many hosts in a data set"),
}
"""What the extra ``all`` has; ``litellm`` belongs into the environment of LiteLLM's proxy."""

METRICS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it works, what was found, and what to do if it does not."""

    check: str
    ok: bool
    found: str
    fix: str | None = None


@click.command()
@click.option("--nvml-library", metavar="PATH", default="libnvidia-ml.so.1", show_default=True, help="NVML to look at.")
@powercap_option
@socket_option
@json_option
def command(nvml_library: str, powercap_root: str, socket: Path | None, as_json: bool) -> None:
    """Say what can be measured here, what cannot, why, and how to fix it.

    \b
    Example:
      llmpower doctor
      llmpower doctor --json | jq '.findings[] | select(.ok | not)'
    """
    from llmpower.daemon.config import powercap_root_of

    root = powercap_root_of("--powercap-root", powercap_root)
    findings = [*_gpus(nvml_library), *_cpus(root), *_daemon(socket), *_extras()]
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
        return
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("look", fg="yellow")
        echo_labelled(f"{mark}  {finding.check:<18}  ", finding.found)
        if finding.fix:
            echo_labelled(f"{'':26}-> ", finding.fix)


def _gpus(library: str) -> Iterator[Finding]:
    from llmpower.sampling import Sampler, describe_status

    try:
        sampler = Sampler(backend="nvml", nvml_library=library, powercap_root=None)
    except DeviceError as error:
        fix = "nvidia-smi; dmesg -T | grep -i nvrm"
        if isinstance(error, NoDriverError):
            fix = "install the NVIDIA driver; until then the simulated GPU serves: llmpower daemon --backend simulated"
        yield Finding("NVML", ok=False, found=f"{error.value}: {error.advice}", fix=fix)
        return
    devices, unopened = sampler.devices, sampler.unopened
    sampler.close()
    for number, status in unopened.items():
        found = f"GPU {number} cannot be opened: {describe_status(status)}"
        yield Finding("GPU", ok=False, found=found, fix="nvidia-smi -L; dmesg -T | grep -i xid")
    if not devices and not unopened:
        yield Finding("NVML", ok=False, found=f"{library} answers and knows no GPU", fix="check nvidia-smi -L")
    for device in devices:
        name = f"{device.name} ({device.uuid}), driver {device.driver_version}"
        if device.has_energy_counter:
            yield Finding("GPU energy", ok=True, found=f"{name}: energy counter")
        elif device.has_power:
            yield Finding("GPU energy", ok=True, found=f"{name}: no energy counter, so power is integrated")
        else:
            fix = "nothing to be done: this board answers neither energy nor power"
            yield Finding("GPU energy", ok=False, found=f"{name}: no energy, no power", fix=fix)


def _cpus(root: Path | None) -> Iterator[Finding]:
    if root is None:
        return
    zones = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    packages = [zone for zone in zones if (zone / "name").is_file() and _name(zone).startswith("package-")]
    if not packages:
        fix = "sudo modprobe intel_rapl_msr (AMD too); most virtual machines have none"
        yield Finding("CPU energy", ok=False, found=f"no RAPL package zone in {root}", fix=fix)
    for zone in packages:
        counter = zone / "energy_uj"
        if os.access(counter, os.R_OK):
            yield Finding("CPU energy", ok=True, found=f"{_name(zone)} ({zone.name})")
        else:
            # Root-only since CVE-2020-8694: fine-grained power readings leak what the CPU computes.
            fix = f"sudo chgrp $(id -gn) {counter} && sudo chmod g+r {counter}, or run the daemon as a service"
            yield Finding("CPU energy", ok=False, found=f"{_name(zone)}: only root may read {counter}", fix=fix)


def _name(zone: Path) -> str:
    return (zone / "name").read_text(encoding="utf-8").strip()


def _daemon(socket: Path | None) -> Iterator[Finding]:
    from llmpower.spans.daemon_socket import default_socket_path, request_status

    path = socket or default_socket_path()
    try:
        status = request_status(path)
    except DaemonUnreachableError as error:
        fix = "systemctl status llmpower, or for a daemon of your own: llmpower daemon"
        yield Finding("daemon", ok=False, found=f"{path}: {error.advice}", fix=fix)
        return
    up = f"version {status['version']}, pid {status['pid']}, up {duration(status['uptime_s'])}"
    yield Finding("daemon", ok=True, found=f"{path}: {up}")
    yield _metrics(str(status["metrics_url"]))
    # What the daemon itself has to say of its devices, its store and its peers.
    for problem in status.get("problems", ()):
        yield Finding("daemon", ok=False, found=problem["what"], fix=problem["fix"])
    if status["version"] != __version__:
        found = f"runs version {status['version']}, and {__version__} is installed"
        yield Finding("daemon", ok=False, found=found, fix="sudo systemctl restart llmpower")


def _metrics(url: str) -> Finding:
    """Whether scrapes are answered; who may have the answer is not asked here."""
    import ssl
    from urllib.error import HTTPError
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    # It is this machine's own daemon, whose certificate bears the name that others call it by.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # Nor is it reached through a proxy of the environment.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=METRICS_TIMEOUT_S):
            return Finding("metrics", ok=True, found=f"{url} answers")
    except HTTPError as error:
        asks = " and asks for a password" if error.code == 401 else f" with {error.code}"
        return Finding("metrics", ok=error.code == 401, found=f"{url} answers{asks}")
    except OSError as error:
        # A client certificate that is asked for ends the handshake, and so is an answer.
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            return Finding("metrics", ok=True, found=f"{url} answers and asks for a certificate")
        found = f"{url} does not answer ({getattr(error, 'reason', error)})"
        return Finding("metrics", ok=False, found=found, fix="journalctl -u llmpower -p warning")


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            found = f"{', '.join(missing)} not installed, needed to {purpose}"
            yield Finding(f"extra {extra}", ok=False, found=found, fix=f"pip install 'llmpower[{extra}]'")
        else:
            yield Finding(f"extra {extra}", ok=True, found=f"can {purpose}")
