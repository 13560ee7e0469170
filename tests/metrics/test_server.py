from __future__ import annotations

import contextlib
import gzip
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llmpower.exceptions import InputError
from llmpower.metrics import LlmpowerCollector, MetricsServer, Snapshot
from llmpower.metrics.server import MAX_CONNECTIONS


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LlmpowerCollector(lambda: Snapshot(version="1.2.3", backend="nvml")))
    return registry


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1", 0, registry) as server:
        yield server


def get(server: MetricsServer, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_metrics_are_served_as_text(server: MetricsServer) -> None:
    response, body = get(server, "/metrics")
    assert response.status == 200
    assert str(response.getheader("Content-Type")).startswith("text/plain; version=0.0.4")
    assert b'llmpower_build_info{backend="nvml",version="1.2.3"} 1.0\n' in body


def test_metrics_are_served_as_openmetrics_when_asked(server: MetricsServer) -> None:
    response, body = get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert str(response.getheader("Content-Type")).startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


def test_metrics_are_compressed_when_asked(server: MetricsServer) -> None:
    response, body = get(server, "/metrics", Accept_Encoding="gzip")
    assert response.getheader("Content-Encoding") == "gzip"
    assert b"llmpower_spans_pending 0.0\n" in gzip.decompress(body)


def test_the_front_page_leads_to_the_metrics_and_nothing_else_exists(server: MetricsServer) -> None:
    response, body = get(server, "/")
    assert response.status == 200
    assert b'<a href="metrics">' in body
    assert get(server, "/../etc/passwd")[0].status == 404
    assert get(server, "/metrics?name[]=llmpower_spans_pending")[1].count(b"# HELP") == 1


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    request=st.binary(max_size=300)
    | st.builds(
        lambda path, header, value: b"GET " + path + b" HTTP/1.1\r\n" + header + b": " + value + b"\r\n\r\n",
        st.binary(max_size=40) | st.sampled_from([b"http://[", b"/metrics?name[]=%ff", b"/metrics", b"//["]),
        st.binary(max_size=20) | st.sampled_from([b"Accept", b"Accept-Encoding", b"Authorization"]),
        st.binary(max_size=40) | st.sampled_from([b"application/openmetrics-text; version=x", b"gzip;q=0"]),
    )
)
def test_whatever_a_peer_sends_ends_in_an_answer_or_nothing_and_in_no_log(
    request: bytes, server: MetricsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection((server.host, server.port), 10) as peer:
        peer.sendall(request)
        with contextlib.suppress(OSError):  # it may have read enough to know, and closed
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass
    assert "".join(capfd.readouterr()) == ""


def test_a_silent_peer_holds_up_neither_scrapes_nor_the_end(server: MetricsServer) -> None:
    with socket.create_connection((server.host, server.port)) as silent:
        silent.send(b"GET /metr")
        assert get(server, "/metrics")[0].status == 200
        server.close()


def test_a_port_in_use_says_so(server: MetricsServer, registry: CollectorRegistry) -> None:
    with pytest.raises(InputError, match="another program listens there") as caught:
        MetricsServer("127.0.0.1", server.port, registry)
    assert caught.value.field == "--web.listen-address"
    assert caught.value.value == f"127.0.0.1:{server.port}"


def test_a_port_is_free_again_at_once(registry: CollectorRegistry) -> None:
    first = MetricsServer("127.0.0.1", 0, registry)
    assert get(first, "/metrics")[0].status == 200
    first.close()
    with MetricsServer("127.0.0.1", first.port, registry) as second:
        assert get(second, "/metrics")[0].status == 200


def test_addresses_of_other_machines_are_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(InputError, match="this machine has no such address"):
        MetricsServer("192.0.2.1", 0, registry)


def test_ipv6_is_served(registry: CollectorRegistry) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with MetricsServer("::1", 0, registry) as server:
        assert get(server, "/metrics")[0].status == 200


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
    assert errors[0].startswith(f"--web.config.file = {file}: basic_auth_users.prometheus is no bcrypt hash")
    assert errors[0].endswith("the former web config stays in force")
    file.unlink()
    assert get_tls(server, authority.trusting(), "right")[0] == 200
    assert len(errors) == 2
    file.write_text(USERS)
    assert get(server, "/metrics", Authorization=basic("prometheus", "right"))[0].status == 200
    assert len(errors) == 2


def test_peers_that_stay_are_shown_out(registry: CollectorRegistry) -> None:
    with MetricsServer("127.0.0.1", 0, registry, connection_timeout_s=1.0) as server:
        dripping = [socket.create_connection((server.host, server.port), 10) for _ in range(MAX_CONNECTIONS)]
        beyond = socket.create_connection((server.host, server.port), 10)
        assert beyond.recv(1) == b""
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.1):
                for peer in dripping:
                    try:
                        peer.send(b"G")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        deadline_s = time.monotonic() + 30
        while True:
            try:
                if get(server, "/metrics")[0].status == 200:
                    break
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
        stop.set()
        thread.join()
        for peer in [*dripping, beyond]:
            peer.close()


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
