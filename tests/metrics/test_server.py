from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from scraping import get

from llmpower.exceptions import InputError
from llmpower.metrics import MetricsServer
from llmpower.metrics.server import MAX_CONNECTIONS


@pytest.fixture
def server(registry: CollectorRegistry) -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1", 0, registry) as server:
        yield server


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


def test_out_of_descriptors_it_rests_and_then_serves_who_waited(server: MetricsServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as peer:
        peer.settimeout(30)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            began_s = time.process_time()
            peer.connect((server.host, server.port))
            peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            time.sleep(1.0)
            assert time.process_time() - began_s < 0.2
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert peer.recv(12) == b"HTTP/1.0 200"


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
