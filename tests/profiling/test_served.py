from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from llmpower.profiling import Cell, ClientSpans, Endpoint, Joules, Requests, ServerSpans, is_heard
from llmpower.spans import SpanClient
from llmpower.store import Store
from llmpower.types import Measurement

Serve = Callable[..., Any]
MakeMeasurement = Callable[..., Measurement]


def test_without_instrumentation_a_trial_is_one_span_around_all_of_its_requests(serve: Serve, receiver: Any) -> None:
    server = serve()
    requests = Requests(Endpoint(server.url))
    trials = ClientSpans(requests, SpanClient(receiver.path, retry_after_s=0), "tiny")
    trials.warm_up(Cell(16, 8, 1, 2))
    assert server.bodies[-1]["max_tokens"] == 2, "a prompt of that shape, and little of an answer"
    assert trials.probe(Cell(16, 8, 1, 2)) > 0
    assert receiver.messages == []
    # The barrier lets requests go in fours: they are four at a time, or it breaks.
    server.gate = threading.Barrier(4)
    span = trials.measure(Cell(16, 8, 1, 4))
    assert receiver.wait_for_spans(1) == [span]
    assert (span.model_name, span.input_tokens, span.output_tokens, span.batch_size) == ("tiny", 64, 32, 4)
    assert span.first_token_ns is not None
    assert requests.strays == 0


def test_what_its_span_cost_is_asked_of_the_daemon(
    serve: Serve, receiver: Any, make_measurement: MakeMeasurement
) -> None:
    trials = ClientSpans(Requests(Endpoint(serve().url)), SpanClient(receiver.path, retry_after_s=0), "tiny")
    span = trials.measure(Cell(16, 8))
    receiver.wait_for_spans(1)
    receiver.measured = lambda _: make_measurement()
    assert trials.joules(span, 1.0) == Joules(100.0, 1.0)
    nothing = {"gpu_energy_j": None, "gpu_energy_std_j": None, "prefill_energy_j": None, "decode_energy_j": None}
    for fields in (nothing | {"quality": "unavailable"}, {"gpu_energy_j": 0.0}):
        receiver.measured = lambda _, fields=fields: make_measurement(**fields)
        assert trials.joules(span, 1.0) is None


def test_answers_of_other_lengths_are_counted_as_they_are(serve: Serve, receiver: Any) -> None:
    requests = Requests(Endpoint(serve(knows="neither").url))
    trials = ClientSpans(requests, SpanClient(receiver.path, retry_after_s=0), "tiny")
    assert trials.measure(Cell(16, 8)).output_tokens == 2
    trials.measure(Cell(16, 2))
    assert requests.strays == 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "spans.db")
    yield store
    store.close()


def test_an_instrumented_servers_own_spans_are_joined_by_time_and_tokens(
    serve: Serve, store: Store, tmp_path: Path, make_measurement: MakeMeasurement
) -> None:
    trials = ServerSpans(Requests(Endpoint(serve().url)), tmp_path / "spans.db", behind_s=0.5)
    before = datetime.now(UTC) - timedelta(seconds=5)
    span = trials.measure(Cell(16, 8, 1, 2))
    now = datetime.now(UTC)

    def stored(number: int, started_at: datetime, **fields: Any) -> Measurement:
        return structs.replace(
            make_measurement(number, model_name="served", input_tokens=16, **fields), started_at=started_at
        )

    # Of before, and of others' lengths.
    store.append([stored(0, before, output_tokens=8), stored(1, now, output_tokens=9), stored(2, now, output_tokens=8)])
    assert trials.joules(span, 0.0) is None, "the second request is still to come"
    store.append([stored(3, now, output_tokens=8, cpu_energy_j=7.0)])
    assert trials.joules(span, 0.0) == Joules(207.0, 2.0)
    assert trials.names == {"served"}


def test_a_request_whose_joules_are_not_known_leaves_the_trial_without(
    serve: Serve, store: Store, tmp_path: Path, make_measurement: MakeMeasurement
) -> None:
    trials = ServerSpans(Requests(Endpoint(serve().url)), tmp_path / "spans.db", behind_s=0.5)
    span = trials.measure(Cell(16, 8))
    unknown = make_measurement(
        input_tokens=16, output_tokens=8, gpu_energy_j=None, gpu_energy_std_j=None, quality="unavailable"
    )
    store.append([structs.replace(unknown, started_at=datetime.now(UTC))])
    assert trials.joules(span, 0.0) is None


def test_a_server_that_runs_on_its_processors_alone_has_their_joules(
    serve: Serve, store: Store, tmp_path: Path, make_measurement: MakeMeasurement
) -> None:
    trials = ServerSpans(Requests(Endpoint(serve().url)), tmp_path / "spans.db", behind_s=0.5)
    span = trials.measure(Cell(16, 8))
    energies = {"gpu_energy_j": None, "gpu_energy_std_j": None, "cpu_energy_j": 40.0, "cpu_energy_std_j": 0.5}
    measurement = make_measurement(input_tokens=16, output_tokens=8, **energies)
    store.append([structs.replace(measurement, started_at=datetime.now(UTC))])
    assert trials.joules(span, 0.0) == Joules(40.0, 0.5)


def test_a_daemon_that_hears_of_a_request_by_itself_is_noticed(serve: Serve) -> None:
    server = serve()
    endpoint = Endpoint(server.url)
    asked = len(server.bodies)

    def status() -> dict[str, Any]:
        return {"spans": {"stored": 7, "pending": len(server.bodies) - asked, "running": 0}}

    assert is_heard(status, endpoint)
    assert not is_heard(lambda: {"spans": {"stored": 7, "pending": 0, "running": 0}}, endpoint, within_s=0.5)
