from __future__ import annotations

import gzip
import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from llmpower.exceptions import InputError
from llmpower.metrics import LlmpowerCollector, MetricsServer, Snapshot


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
