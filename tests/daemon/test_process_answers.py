"""A program that asks the daemon what its spans cost, as its users write it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from daemon_process import Daemon

import llmpower
from llmpower.sampling import simulation
from llmpower.spans.client import SpanClient
from llmpower.store import iter_rows


def test_a_span_knows_what_the_daemon_stored(daemon: Daemon) -> None:
    client = SpanClient(daemon.socket)
    with llmpower.span(model_name="llama", input_tokens=5, client=client) as call:
        time.sleep(0.5)
    found = call.measurement()
    assert found is not None
    assert (call.energy_j, call.energy_std_j, call.quality) == (found.energy_j, found.energy_std_j, found.quality)
    assert str(call).endswith(" J (interpolated, SIMULATED)")
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    columns = ("span_id", "gpu_energy_j", "gpu_energy_std_j", "quality", "system", "runtime_s", "device_uuids")
    (row,) = iter_rows(daemon.store, columns=columns)
    assert found.span.device_uuids is not None
    assert row == (
        call.span_id,
        found.gpu_energy_j,
        found.gpu_energy_std_j,
        found.quality,
        found.system,
        found.span.runtime_s,
        ";".join(found.span.device_uuids),
    )


def test_a_span_that_was_never_sent_is_not_known(daemon: Daemon) -> None:
    client = SpanClient(daemon.socket)
    with llmpower.span(model_name="llama", client=client) as call:
        call.input_tokens = -1
    assert call.measurement(0.2) is None


def test_a_monitor_measures_beside_a_daemon(daemon: Daemon) -> None:
    with simulation(load="constant:100"), llmpower.Monitor(backend="simulated", powercap_root=None) as monitor:
        with monitor.span(model_name="here") as here:
            time.sleep(0.3)
        with llmpower.span(model_name="there", client=SpanClient(daemon.socket)) as there:
            time.sleep(0.3)
        assert here.energy_j is not None
        assert there.energy_j is not None
        assert [measurement.span.model_name for measurement in monitor.measurements()] == ["here"]
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)


def test_where_no_daemon_is_there_is_no_figure_and_the_program_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llmpower"):
        with llmpower.span(model_name="llama", client=SpanClient(tmp_path / "s.sock")) as call:
            pass
        assert (call.energy_j, call.energy_std_j, call.quality) == (None, None, "unavailable")
    assert caplog.text.count("the joules of a span are not known") == 1
    assert "llmpower daemon" in caplog.text
