"""Where the daemon's settings come from: the command line, then the file, then the defaults.

The file is TOML and its keys are the options' names. It is read strictly: a key that means nothing is a typing error
that would otherwise be found weeks later, in the measurements.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmpower.daemon.storing.retention import AGE_OPTION, SIZE_OPTION, Retention, parse_age, parse_size
from llmpower.exceptions import InputError
from llmpower.spans.daemon_socket import SYSTEM_SOCKET, check_socket_path, default_socket_path
from llmpower.spans.packets import MAX_STRING_CHARS

Backend = Literal["auto", "nvml", "simulated"]
BACKENDS: tuple[Backend, ...] = ("auto", "nvml", "simulated")
SYSTEM_STORE = Path("/var/lib/llmpower/spans.db")
LISTEN_ADDRESS = "127.0.0.1:10450"
OTLP_LISTEN_ADDRESS = "127.0.0.1:10451"
POWERCAP_ROOT = Path("/sys/class/powercap")
HOLD_S = 600.0
OTLP_HOLD_S = 120.0
MIN_HOLD_S, MAX_HOLD_S = 10.0, 7200.0
MIN_OTLP_HOLD_S = 1.0
RETENTION_TIME = "0"
RETENTION_SIZE = "10GB"
"""Some 25 million spans: what nobody watches must not fill a disk, and nobody should miss what it deletes."""


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """How spans of OpenTelemetry are received; not at all where there is no address."""

    listen_address: tuple[str, int] | None
    hold_s: float
    model_name: str | None
    count_calls: bool
    any_user: bool


@dataclass(frozen=True, slots=True)
class Config:
    """The daemon's settings, complete and checked."""

    backend: Backend
    nvml_library: str | None
    powercap_root: Path | None
    store: Path
    socket: Path
    listen_address: tuple[str, int]
    web_config_file: Path | None
    dcgm_aliases: bool
    rate_hz: float
    max_read_share: float
    hold_s: float
    otlp: OtlpConfig
    retention: Retention
    models: Path | None = None


def load_config(
    options: Mapping[str, Any],
    file: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    uid: int | None = None,
) -> Config:
    """Merge what the command line gives (``options``, by option name; ``None`` is not given) with a TOML file.

    Defaults are those of the user ``uid``: root's daemon serves the whole system, anyone else's only its user.

    Raises:
        InputError: the file cannot be read, a key is unknown, or a value cannot be used.
    """
    settings = default_settings(environ, os.getuid() if uid is None else uid)
    # Where programs are told to look is where the daemon had better be.
    settings |= {"socket": environ["LLMPOWER_SOCKET"]} if environ.get("LLMPOWER_SOCKET") else {}
    settings |= _from_file(file) if file is not None else {}
    settings |= {name: value for name, value in options.items() if value is not None}
    config = Config(
        backend=_backend(settings["backend"]),
        nvml_library=None if settings["nvml-library"] is None else str(_path("nvml-library", settings["nvml-library"])),
        powercap_root=powercap_root_of("powercap-root", settings["powercap-root"]),
        store=_path("store", settings["store"]).absolute(),
        socket=_path("socket", settings["socket"]).absolute(),
        listen_address=_listen_address("web.listen-address", settings["web.listen-address"], LISTEN_ADDRESS),
        web_config_file=_optional_path("web.config.file", settings["web.config.file"]),
        dcgm_aliases=_switch("web.dcgm-aliases", settings["web.dcgm-aliases"]),
        rate_hz=_number("rate", settings["rate"], "reads per second"),
        max_read_share=_number("max-read-share", settings["max-read-share"], "the part of wall time, such as 0.02"),
        hold_s=_hold("hold", settings["hold"], MIN_HOLD_S, MAX_HOLD_S, "the longest time for which samples are kept"),
        otlp=_otlp(settings),
        retention=Retention(parse_age(settings[AGE_OPTION]), parse_size(settings[SIZE_OPTION])),
        models=_optional_path("models", settings["models"]),
    )
    check_socket_path(config.socket)
    return config


def make_directories(config: Config, *, environ: Mapping[str, str] = os.environ, uid: int | None = None) -> None:
    """Create the directories of the default store and socket, a user's own for that user alone.

    A directory that was named by somebody is that one's to make: creating it would hide a typing error.

    Raises:
        InputError: it cannot be created, or it is another user's.
    """
    uid = os.getuid() if uid is None else uid
    defaults = default_settings(environ, uid)
    for name, path in (("store", config.store), ("socket", config.socket)):
        if path == defaults[name]:
            _make_directory(f"--{name}", path.parent, uid)


def powercap_root_of(name: str, value: object) -> Path | None:
    """The directory that ``name`` gives; ``None`` for an empty one, by which CPU energy is turned off.

    Raises:
        InputError: it is none. Where the kernel has its own there may be nothing, as in most virtual machines.
    """
    if value == "":
        return None
    root = _path(name, value)
    if root != POWERCAP_ROOT and not root.is_dir():
        raise InputError(name, root, "is not a directory; check the path, or leave it empty to take no CPU energy")
    return root


def default_store_path(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """Where this user's daemon keeps its measurements."""
    if (os.getuid() if uid is None else uid) == 0:
        return SYSTEM_STORE
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or Path.home(), ".local/state")
    return Path(state, "llmpower", SYSTEM_STORE.name)


def find_store_path(
    environ: Mapping[str, str] = os.environ, uid: int | None = None, system_store: Path = SYSTEM_STORE
) -> Path:
    """Where measurements are looked for: the system's store if there is one, else the user's own.

    A system's store that is closed to this user is none if they have one of their own; if not, opening it says what to
    do about that.
    """
    own = default_store_path(environ, uid)
    try:
        there = system_store.exists()
    except PermissionError:
        there = not own.exists()
    return system_store if there else own


def default_settings(environ: Mapping[str, str], uid: int) -> dict[str, Any]:
    """Every setting by its key in the file, with what user ``uid`` has when nobody sets it; ``None`` is not set."""
    # A user's own socket is where that user's programs look when there is no daemon of the system to find.
    runtime = {name: value for name, value in environ.items() if name == "XDG_RUNTIME_DIR"}
    nowhere = Path("/nonexistent", SYSTEM_SOCKET.name)
    return {
        "backend": "auto",
        "nvml-library": None,
        "powercap-root": POWERCAP_ROOT,
        "store": default_store_path(environ, uid),
        "socket": SYSTEM_SOCKET if uid == 0 else default_socket_path(runtime, system_socket=nowhere),
        "web.listen-address": LISTEN_ADDRESS,
        "web.config.file": None,
        "web.dcgm-aliases": False,
        "rate": 100.0,
        "max-read-share": 0.02,
        "hold": HOLD_S,
        "otlp.listen-address": OTLP_LISTEN_ADDRESS,
        "otlp.hold": OTLP_HOLD_S,
        "otlp.model-name": None,
        "otlp.count-calls": False,
        "otlp.any-user": False,
        AGE_OPTION: RETENTION_TIME,
        SIZE_OPTION: RETENTION_SIZE,
        "models": None,
    }


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError("--config", file, f"cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError("--config", file, f"is not TOML ({error}); fix that line") from error
    known = default_settings({}, 0).keys()
    settings = dict(_flat(content))
    for key, value in settings.items():
        if key not in known:
            raise InputError(key, value, f"{file} has an unknown key; the keys are {', '.join(sorted(known))}")
    return settings


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """``{"web": {"listen-address": …}}`` → ``[("web.listen-address", …)]``."""
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return flat


def _backend(value: object) -> Backend:
    for backend in BACKENDS:
        if value == backend:
            return backend
    raise InputError("backend", value, f"there is no such backend; use one of {', '.join(BACKENDS)}")


def _path(name: str, value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(name, value, "is not a path; give one as text")
    return Path(value)


def _optional_path(name: str, value: object) -> Path | None:
    return None if value is None else _path(name, value).absolute()


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(name, value, "is neither true nor false; write one of them, without quotes")
    return value


def _number(name: str, value: object, what: str) -> float:
    # Which ones can be kept, the sampler knows.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(name, value, f"is not a number; give {what}")
    return float(value)


def _hold(name: str, value: object, least_s: float, most_s: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least_s <= value <= most_s:
        advice = f"is not a number of seconds from {least_s:g} to {most_s:g}, {what}; give one"
        raise InputError(name, value, advice)
    return float(value)


def _otlp(settings: Mapping[str, Any]) -> OtlpConfig:
    address, name = settings["otlp.listen-address"], settings["otlp.model-name"]
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= MAX_STRING_CHARS):
        raise InputError("otlp.model-name", name, f"is not a name of a model; give 1 to {MAX_STRING_CHARS} characters")
    # A span may arrive when nearly all of this time has passed, and its samples must still be there.
    most_s = settings["hold"] / 2
    return OtlpConfig(
        listen_address=None if address == "" else _listen_address("otlp.listen-address", address, OTLP_LISTEN_ADDRESS),
        hold_s=_hold("otlp.hold", settings["otlp.hold"], MIN_OTLP_HOLD_S, most_s, "half of hold"),
        model_name=name,
        count_calls=_switch("otlp.count-calls", settings["otlp.count-calls"]),
        any_user=_switch("otlp.any-user", settings["otlp.any-user"]),
    )


def _listen_address(name: str, value: object, example: str) -> tuple[str, int]:
    """``"127.0.0.1:10450"``, ``"[::1]:10450"``, or ``":10450"`` for every address of the machine."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host.removeprefix("[").removesuffix("]")
    # int() also takes other scripts' digits, and no more than 4,300 of them.
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or (":" in bare and bare == host):
        raise InputError(name, value, f"is not an address; write HOST:PORT, such as {example}")
    return bare or "0.0.0.0", int(port)


def _make_directory(option: str, directory: Path, uid: int) -> None:
    mode = 0o755 if uid == 0 else 0o700
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        owner = directory.stat().st_uid
    except OSError as error:
        advice = f"this directory cannot be created ({error.strerror}); name another place with {option}"
        raise InputError(option, directory, advice) from error
    # Under /tmp anyone may have made it first, and would then read along.
    if owner != uid and uid != 0:
        raise InputError(option, directory, f"this directory belongs to user {owner}; name another place with {option}")
