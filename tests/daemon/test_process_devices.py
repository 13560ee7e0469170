"""The daemon with cards that lack something, fail, or rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemon_process import Daemon, running

from llmpower.spans.client import SpanClient
from llmpower.store import iter_rows, read_measurements


def test_a_card_without_counter_is_integrated_and_says_so(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="no_energy")
    with running(SpanClient(daemon.socket), "a"):
        time.sleep(1.0)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    assert daemon.end() == 0
    (row,) = read_measurements(daemon.store).to_dict("records")
    assert row["method"] == "power"
    assert row["quality"] == "interpolated"
    assert 90 < row["gpu_energy_j"] / row["runtime_s"] < 320


def test_calibration_goes_on_beside_sampling_and_outlives_the_daemon(start: Callable[..., Daemon]) -> None:
    daemon = start()

    def calibrated(status: dict[str, Any]) -> bool:
        return all(field["period_s"] is not None for field in status["devices"][0]["fields"].values())

    assert not calibrated(daemon.status())
    status = daemon.wait_until(calibrated)
    assert status["devices"][0]["fields"]["energy"]["period_s"] == pytest.approx(0.1, rel=0.05)
    uuid = status["devices"][0]["uuid"]
    period_s = daemon.total(daemon.scrape(), "llmpower_device_update_period_seconds", gpu_uuid=uuid, field="energy")
    assert period_s == pytest.approx(0.1, rel=0.05)
    assert f"INFO calibrated Simulated A100-SXM4-80GB ({uuid}): " in daemon.log()
    assert daemon.end() == 0
    second = start()
    second.wait_until(calibrated)
    assert "calibrated" not in second.log()


def test_a_span_across_a_lost_card_has_no_joules_and_the_next_one_has(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="lost:3,1")
    client = SpanClient(daemon.socket)
    with running(client, "across"):
        daemon.wait_until(lambda status: "GPU is lost" in (status["last_error"] or ""))
        daemon.wait_until(lambda _: "is back after a break" in daemon.log())
    time.sleep(0.5)
    with running(client, "after"):
        time.sleep(0.5)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 2)
    assert daemon.total(daemon.scrape(), "llmpower_sampler_read_errors_total", code="15") > 0
    assert daemon.end() == 0
    joules = dict(iter_rows(daemon.store, columns=("span_id", "gpu_energy_j")))
    assert joules["across"] is None
    assert isinstance(joules["after"], float)


def test_a_card_that_was_lost_when_the_daemon_started_is_told_of_and_the_others_keep_their_numbers(
    start: Callable[..., Daemon],
) -> None:
    daemon = start(LLMPOWER_SIM_GPUS="3", LLMPOWER_SIM_FAULT="lost:0@1")
    assert "ERROR GPU 1 cannot be opened, so it is not sampled: GPU is lost (NVML code 15)" in daemon.log()
    (problem,) = daemon.status()["problems"]
    assert problem["what"].startswith("GPU 1 could not be opened")
    assert [device["number"] for device in daemon.status()["devices"]] == [0, 2]
    samples = daemon.scrape()
    assert daemon.total(samples, "llmpower_gpus_unopened") == 1
    assert {dict(labels)["gpu"] for name, labels in samples if name == "llmpower_gpu_energy_joules_total"} == {"0", "2"}


def test_at_its_end_cards_are_read_once_more_however_far_apart_their_reads_are(start: Callable[..., Daemon]) -> None:
    """A node of eight cards whose counters take three milliseconds to read."""
    daemon = start(LLMPOWER_SIM_PRESET="h100-sxm", LLMPOWER_SIM_GPUS="8", LLMPOWER_SIM_LATENCY="preset")
    daemon.wait_until(
        lambda status: all(device["fields"]["energy"]["effective_hz"] < 2 for device in status["devices"])
    )
    with running(SpanClient(daemon.socket), "a"):
        time.sleep(1.0)
    assert daemon.end() == 0
    (joules,) = iter_rows(daemon.store, columns=("gpu_energy_j",))
    assert joules != (None,)
    assert "could not be measured" not in daemon.log()


def test_a_driver_call_that_hangs_does_not_hang_the_daemon(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="hang:2,6")
    status = daemon.wait_until(lambda status: status["devices"][0]["stalled_s"] > 0)
    assert "is stalled: a driver call on it does not return" in status["last_error"]
    assert daemon.total(daemon.scrape(), "llmpower_device_stalled_seconds") >= 3
    daemon.wait_until(lambda status: status["devices"][0]["stalled_s"] == 0)
    assert daemon.log().count("is stalled") == 1
    assert daemon.log().count("answers again") == 1
    assert daemon.end() == 0


def test_cpu_packages_are_measured_beside_the_card(start: Callable[..., Daemon], tmp_path: Path) -> None:
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0\n"), ("max_energy_range_uj", "65532610987\n"), ("energy_uj", "1000000\n")):
        (zone / name).write_text(text)
    daemon = start()
    client = SpanClient(daemon.socket)
    counter_uj = 1_000_000
    # Written in place and at one length: truncated first, the file would be empty whenever the reader is unlucky.
    counter = os.open(zone / "energy_uj", os.O_WRONLY)

    def draw_ten_watts(seconds: float) -> None:
        nonlocal counter_uj
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            counter_uj += 200_000
            os.pwrite(counter, b"%020d\n" % counter_uj, 0)
            time.sleep(0.02)

    draw_ten_watts(1.0)
    with running(client, "a"):
        before_uj = counter_uj
        draw_ten_watts(1.0)
        drawn_j = (counter_uj - before_uj) / 1e6
    draw_ten_watts(1.0)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    os.close(counter)
    samples = daemon.scrape()
    assert daemon.end() == 0
    ((cpu_j, cpu_std_j),) = iter_rows(daemon.store, columns=("cpu_energy_j", "cpu_energy_std_j"))
    assert isinstance(cpu_j, float)
    assert isinstance(cpu_std_j, float)
    # The counter moves in steps of 0.2 J, and one each may fall to either side of the span's ends.
    assert cpu_j == pytest.approx(drawn_j, abs=0.5)
    assert daemon.total(samples, "llmpower_cpu_energy_joules_total", zone="intel-rapl:0") >= cpu_j
    assert daemon.total(samples, "llmpower_inference_energy_joules_total", device_kind="cpu") == pytest.approx(cpu_j)


def test_after_a_rest_a_span_is_measured_as_before(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_LOAD="square:200,200,1")
    daemon.wait_until(lambda status: status["sampler"]["effective_hz"]["gpu_energy"] == 25.0)
    client = SpanClient(daemon.socket)
    start_ns = time.monotonic_ns()
    with running(client, "first"):
        daemon.wait_until(lambda status: status["sampler"]["effective_hz"]["gpu_energy"] == 100.0)
        time.sleep(1.5)
    runtime_s = (time.monotonic_ns() - start_ns) / 1e9
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    ((joules, quality),) = iter_rows(daemon.store, columns=("gpu_energy_j", "quality"))
    assert quality in ("measured", "interpolated")
    assert joules == pytest.approx(200 * runtime_s, rel=0.1)
    client.close()
