from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmpower.daemon.config import (
    Config,
    OtlpConfig,
    default_store_path,
    find_store_path,
    load_config,
    make_directories,
)
from llmpower.daemon.storing.retention import Retention
from llmpower.exceptions import InputError
from llmpower.spans.daemon_socket import default_socket_path

USER = 1000


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "llmpower.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_roots_daemon_serves_the_system() -> None:
    assert load_config({}, environ={}, uid=0) == Config(
        backend="auto",
        nvml_library=None,
        powercap_root=Path("/sys/class/powercap"),
        store=Path("/var/lib/llmpower/spans.db"),
        socket=Path("/run/llmpower/llmpower.sock"),
        listen_address=("127.0.0.1", 10450),
        web_config_file=None,
        dcgm_aliases=False,
        rate_hz=100.0,
        max_read_share=0.02,
        hold_s=600.0,
        otlp=OtlpConfig(
            listen_address=("127.0.0.1", 10451), hold_s=120.0, model_name=None, count_calls=False, any_user=False
        ),
        retention=Retention(age_s=None, size_bytes=10 << 30),
    )


def test_a_users_daemon_keeps_to_that_users_places() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000", "XDG_STATE_HOME": "/home/u/state", "HOME": "/home/u"}
    config = load_config({}, environ=environ, uid=USER)
    assert config.store == Path("/home/u/state/llmpower/spans.db")
    assert config.socket == Path("/run/user/1000/llmpower/llmpower.sock")
    assert default_store_path({"HOME": "/home/u"}, USER) == Path("/home/u/.local/state/llmpower/spans.db")


def test_measurements_are_looked_for_in_the_systems_store_first(tmp_path: Path) -> None:
    system_store = tmp_path / "spans.db"
    environ = {"XDG_STATE_HOME": "/home/u/state"}
    own = Path("/home/u/state/llmpower/spans.db")
    assert find_store_path(environ, USER, system_store) == own
    system_store.touch()
    assert find_store_path(environ, USER, system_store) == system_store


@pytest.mark.parametrize("environ", [{"XDG_RUNTIME_DIR": "/run/user/9"}, {}, {"LLMPOWER_SOCKET": "/tmp/x/s.sock"}])
def test_the_daemon_listens_where_programs_look(environ: dict[str, str], tmp_path: Path) -> None:
    looked_for = default_socket_path(environ, system_socket=tmp_path / "llmpower.sock")
    assert load_config({}, environ=environ, uid=USER).socket == looked_for


def test_the_command_line_beats_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        backend = "simulated"
        nvml-library = "/opt/libnvidia-ml.so.1"
        rate = 50
        store = "/data/spans.db"
        retention = { time = "90d", size = "2GB" }
        [web]
        listen-address = "[::1]:9000"
        config.file = "/etc/llmpower/web.yml"
        dcgm-aliases = true
        [otlp]
        listen-address = ""
        hold = 60
        model-name = "llama"
        any-user = true
        """,
    )
    config = load_config(
        {"rate": 200.0, "retention.size": "500MB", "store": None, "socket": tmp_path / "s"}, file, environ={}, uid=0
    )
    assert (config.backend, config.nvml_library) == ("simulated", "/opt/libnvidia-ml.so.1")
    assert config.rate_hz == 200.0
    assert config.retention == Retention(age_s=90 * 86_400, size_bytes=500 << 20)
    assert config.store == Path("/data/spans.db")
    assert config.socket == tmp_path / "s"
    assert config.listen_address == ("::1", 9000)
    assert config.web_config_file == Path("/etc/llmpower/web.yml")
    assert config.dcgm_aliases
    assert config.otlp == OtlpConfig(None, 60.0, "llama", False, True)
    assert config.powercap_root == Path("/sys/class/powercap")


@pytest.mark.parametrize(
    ("text", "field", "advice"),
    [
        ("raet = 50", "raet", "unknown key; the keys are backend, .*web.listen-address"),
        ('[web]\nlisten = ":1"', "web.listen", "unknown key"),
        ("web = 3", "web", "unknown key"),
        ('web.dcgm-aliases = "yes"', "web.dcgm-aliases", "neither true nor false"),
        ('backend = "nvlm"', "backend", "use one of auto, nvml, simulated"),
        ('backend = ["nvml"]', "backend", "use one of"),
        ('rate = "fast"', "rate", "is not a number; give reads per second"),
        ("rate = true", "rate", "is not a number; give reads per second"),
        ('max-read-share = "2 %"', "max-read-share", "give the part of wall time, such as 0.02"),
        ("store = 3", "store", "is not a path"),
        ('socket = ""', "socket", "is not a path"),
        ('powercap-root = "/dev/null/none"', "powercap-root", "is not a directory; check the path, or leave it empty"),
        ("powercap-root = 3", "powercap-root", "is not a path"),
        ("nvml-library = false", "nvml-library", "is not a path"),
        ("retention.time = 90", "retention.time", "such as 90d"),
        ('retention.time = "6m"', "retention.time", "such as 90d"),
        ('retention.size = "2"', "retention.size", "such as 2GB"),
        ('hold = "long"', "hold", "number of seconds from 10 to 7200"),
        ("hold = 9", "hold", "number of seconds from 10 to 7200"),
        ("otlp.hold = 301", "otlp.hold", "from 1 to 300, half of hold"),
        ("otlp.hold = nan", "otlp.hold", "from 1 to 300, half of hold"),
        ("otlp.hold = true", "otlp.hold", "number of seconds"),
        ('otlp.model-name = ""', "otlp.model-name", "not a name of a model"),
        ("otlp.model-name = 3", "otlp.model-name", "not a name of a model"),
        ("otlp.count-calls = 1", "otlp.count-calls", "neither true nor false"),
        ('otlp.listen-address = "4318"', "otlp.listen-address", "such as 127.0.0.1:10451"),
        ("rate = ", "--config", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, field: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=advice) as caught:
        load_config({}, written(tmp_path, text), environ={}, uid=0)
    assert caught.value.field == field


def test_cpu_energy_is_turned_off_by_a_path_that_is_empty(tmp_path: Path) -> None:
    assert load_config({}, written(tmp_path, 'powercap-root = ""'), environ={}, uid=0).powercap_root is None
    assert load_config({"powercap-root": ""}, environ={}, uid=0).powercap_root is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_config({}, tmp_path / "none.toml", environ={}, uid=0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::]:0", ("::", 0)),
        (":10450", ("0.0.0.0", 10450)),
    ],
)
def test_listen_addresses(text: str, address: tuple[str, int]) -> None:
    assert load_config({"web.listen-address": text}, environ={}, uid=0).listen_address == address


@pytest.mark.parametrize(
    "text",
    ["10450", "localhost", "::1:80", "host:65536", "host:-1", "host:8o", "host:", "host:٣", f"host:{'9' * 5000}"],
    ids=lambda text: text[:10],
)
def test_what_is_no_listen_address(text: str) -> None:
    with pytest.raises(InputError, match="write HOST:PORT") as caught:
        load_config({"web.listen-address": text}, environ={}, uid=0)
    assert caught.value.field == "web.listen-address"


def test_a_socket_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 107 bytes"):
        load_config({"socket": tmp_path / ("x" * 107)}, environ={}, uid=0)


def test_a_store_of_the_system_that_is_closed_is_none_to_whom_has_one(user: int, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    own = default_store_path(environ, user)
    closed.chmod(0)
    assert find_store_path(environ, user, closed / "spans.db") == closed / "spans.db"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_store_path(environ, user, closed / "spans.db") == own


@pytest.fixture
def user(tmp_path: Path) -> Iterator[int]:
    """A user who is not root, and may write in ``tmp_path``."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o777)
    os.seteuid(65534)
    yield 65534
    os.seteuid(0)


def test_a_users_directories_are_made_for_that_user_alone(user: int, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    config = load_config({}, environ=environ, uid=user)
    make_directories(config, environ=environ, uid=user)
    for path in (config.store, config.socket):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    make_directories(config, environ=environ, uid=user)


def test_another_users_directory_is_not_trusted(user: int, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    config = load_config({}, environ=environ, uid=user + 1)
    with pytest.raises(InputError, match=f"belongs to user {user}"):
        make_directories(config, environ=environ, uid=user + 1)


def test_a_directory_that_somebody_named_is_not_made(user: int, tmp_path: Path) -> None:
    config = load_config({"store": tmp_path / "a" / "b.db", "socket": tmp_path / "c" / "d"}, environ={}, uid=user)
    make_directories(config, environ={}, uid=user)
    assert list(tmp_path.iterdir()) == []


def test_models_are_given_by_the_file_or_the_command_line(tmp_path: Path) -> None:
    file = written(tmp_path, 'models = "/etc/llmpower/models.json"')
    assert load_config({}, file, environ={}, uid=0).models == Path("/etc/llmpower/models.json")
    given = load_config({"models": Path("models.json")}, file, environ={}, uid=0).models
    assert given == Path("models.json").absolute()
    assert load_config({}, environ={}, uid=0).models is None
    with pytest.raises(InputError, match="models = 7: is not a path"):
        load_config({"models": 7}, environ={}, uid=0)
