"""The metrics behind TLS, certificates and passwords, and what a changed web config does while it serves."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from certificates import Authority
from prometheus_client import CollectorRegistry
from scraping import get

from llmpower.metrics import MetricsServer

TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"

USERS = f"basic_auth_users:\n  prometheus: {bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n"

Guard = Callable[..., MetricsServer]


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def guard(authority: Authority, registry: CollectorRegistry, errors: list[str]) -> Iterator[Guard]:
    """Starts servers behind a web config; ``server.pem`` is for 127.0.0.1."""
    started = []
    authority.issue("server", "127.0.0.1")

    def start(text: str, host: str = "127.0.0.1") -> MetricsServer:
        file = authority.directory / "web.yml"
        file.write_text(text)
        started.append(MetricsServer(host, 0, registry, web_config_file=file, on_error=errors.append))
        return started[-1]

    yield start
    for server in started:
        server.close()


def get_tls(server: MetricsServer, context: ssl.SSLContext, password: str | None = None) -> tuple[int, bytes, bytes]:
    """Status, body, and the certificate that the server showed."""
    connection = http.client.HTTPSConnection(server.host, server.port, timeout=10, context=context)
    headers = {} if password is None else {"Authorization": basic("prometheus", password)}
    connection.request("GET", "/metrics", headers=headers)
    shown = connection.sock.getpeercert(binary_form=True)
    response = connection.getresponse()
    return response.status, response.read(), shown


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_tls_is_spoken_and_nothing_else(guard: Guard, authority: Authority) -> None:
    server = guard(TLS)
    assert server.url == f"https://127.0.0.1:{server.port}/metrics"
    status, body, _ = get_tls(server, authority.trusting())
    assert (status, b"llmpower_build_info" in body) == (200, True)
    with pytest.raises(ssl.SSLCertVerificationError):
        get_tls(server, ssl.create_default_context())
    with pytest.raises((http.client.BadStatusLine, ConnectionError)):
        get(server, "/metrics")


def test_an_answer_over_tls_ends_as_tls_wants_it(guard: Guard, authority: Authority) -> None:
    server = guard(TLS)
    with (
        socket.create_connection((server.host, server.port), 10) as plain,
        authority.trusting().wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False) as connection,
    ):
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        while connection.recv(65536):  # a missing close_notify would raise here
            pass


def test_a_client_without_the_right_certificate_is_refused(guard: Guard, authority: Authority) -> None:
    assert authority.file.is_file()
    server = guard(
        TLS + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
        "  client_allowed_sans: [prometheus.example]\n"
    )
    with_none, with_another, with_right = (authority.trusting() for _ in range(3))
    with_another.load_cert_chain(*authority.issue("another", "grafana.example"))
    with_right.load_cert_chain(*authority.issue("client", "prometheus.example"))
    assert get_tls(server, with_right)[0] == 200
    for context in (with_none, with_another):
        with pytest.raises((OSError, http.client.BadStatusLine)):
            get_tls(server, context)


def test_a_password_is_asked_for_on_every_path(guard: Guard) -> None:
    server = guard(USERS)
    for path in ("/", "/metrics", "/other"):
        response, body = get(server, path)
        assert (response.status, body) == (401, b"Unauthorized\n")
        assert response.getheader("WWW-Authenticate") == 'Basic realm="llmpower"'
    assert get(server, "/metrics", Authorization=basic("prometheus", "wrong"))[0].status == 401
    response, body = get(server, "/metrics", Authorization=basic("prometheus", "right"))
    assert (response.status, b"llmpower_build_info" in body) == (200, True)


def test_who_may_be_answered_unasked_is_known(guard: Guard, registry: CollectorRegistry) -> None:
    with MetricsServer("0.0.0.0", 0, registry) as server:
        assert server.open_to_all
    with MetricsServer("127.0.0.1", 0, registry) as server:
        assert not server.open_to_all
    assert not guard(TLS).open_to_all
    for text, everyone in ((TLS, True), (USERS, False)):
        assert guard(text, host="0.0.0.0").open_to_all == everyone


def test_a_wrong_password_stands_in_no_log(
    guard: Guard, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, errors: list[str]
) -> None:
    server = guard(USERS)
    get(server, "/metrics", Authorization=basic("prometheus", "hunter2"))
    get(server, "/metrics", Authorization=basic("prometheus", "right"))
    assert "".join(capfd.readouterr()) + caplog.text + "".join(errors) == ""


def test_headers_of_the_web_config_come_with_every_answer(guard: Guard) -> None:
    server = guard("http_server_config: {headers: {X-Frame-Options: deny}}")
    for path in ("/", "/metrics", "/other"):
        assert get(server, path)[0].getheader("X-Frame-Options") == "deny"


def test_renewed_certificates_and_changed_passwords_are_taken_while_serving(
    guard: Guard, authority: Authority, errors: list[str]
) -> None:
    server = guard(TLS + USERS)
    status, _, first = get_tls(server, authority.trusting(), "right")
    assert status == 200
    authority.issue("server", "127.0.0.1")
    status, _, second = get_tls(server, authority.trusting(), "right")
    assert (status, first != second) == (200, True)
    changed = bcrypt.hashpw(b"changed", bcrypt.gensalt(4)).decode()
    (authority.directory / "web.yml").write_text(f"{TLS}basic_auth_users:\n  prometheus: {changed}\n")
    assert get_tls(server, authority.trusting(), "right")[0] == 401
    assert get_tls(server, authority.trusting(), "changed")[0] == 200
    assert errors == []


def test_a_web_config_that_was_broken_later_is_reported_once_and_the_former_stays(
    guard: Guard, authority: Authority, errors: list[str]
) -> None:
    server = guard(TLS + USERS)
    file = authority.directory / "web.yml"
    file.write_text("basic_auth_users: {prometheus: hunter2}")
    for _ in range(3):
        assert get_tls(server, authority.trusting(), "right")[0] == 200
        assert get_tls(server, authority.trusting(), "hunter2")[0] == 401
    assert len(errors) == 1
    assert errors[0].startswith(f"--web.config.file = {file}: basic_auth_users.prometheus is not a bcrypt hash")
    assert errors[0].endswith("the former web config stays in force")
    file.unlink()
    assert get_tls(server, authority.trusting(), "right")[0] == 200
    assert len(errors) == 2
    file.write_text(USERS)
    assert get(server, "/metrics", Authorization=basic("prometheus", "right"))[0].status == 200
    assert len(errors) == 2


def test_a_certificate_that_comes_after_the_config_that_names_it_is_taken(
    guard: Guard, authority: Authority, errors: list[str]
) -> None:
    server = guard(TLS)
    *_, first = get_tls(server, authority.trusting())
    (authority.directory / "web.yml").write_text(TLS.replace("server.", "renewed."))
    for _ in range(2):
        assert get_tls(server, authority.trusting())[2] == first
    assert ["cannot be read (No such file" in error for error in errors] == [True]
    authority.issue("renewed", "127.0.0.1")
    assert get_tls(server, authority.trusting())[2] != first
    assert len(errors) == 1


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_silent_peers_of_tls_leave_no_thread_and_no_file_behind(guard: Guard, authority: Authority) -> None:
    server = guard(TLS)
    get_tls(server, authority.trusting())
    files, threads = open_files(), threading.active_count()
    for _ in range(20):
        with socket.create_connection((server.host, server.port), 10) as peer:
            peer.send(b"\x16\x03\x01")
    deadline_s = time.monotonic() + 20
    while open_files() > files or threading.active_count() > threads:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
