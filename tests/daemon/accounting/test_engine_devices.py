"""What the engine says of its cards: their calibration, their silence, their breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_bench import GPU, STATISTICS, UTC_OFFSET_NS, Bench, S

from llmpower.daemon.accounting.engine import Engine
from llmpower.sampling import EPOCH, SAMPLE_DTYPE, Calibration, Channel
from llmpower.types import Field


def test_reads_that_fail_are_the_last_error(bench: Bench) -> None:
    assert bench.engine.last_error == "reads of a gpu fail: GPU is lost (NVML code 15); see 'llmpower doctor'"
    bench.engine.last_error = None
    bench.pass_time(1.0)
    assert bench.engine.last_error is None, "an old error is no new one"


def test_a_mig_instance_is_charged_with_its_parents_joules() -> None:
    bench = Bench()
    engine = Engine(
        (GPU,),
        bench.append,
        backend="nvml",
        now=lambda: bench.now_ns,
        device_of=lambda uuid: GPU if uuid.startswith("MIG-") else None,
    )
    bench.engine = engine
    bench.pass_time(1.0)
    engine.finish(bench.span("a", 0.5, device_uuids=("MIG-1", "MIG-2")))
    bench.pass_time(1.0)
    assert bench.stored[0].gpu_energy_j == pytest.approx(150.0, rel=1e-6)
    assert bench.stored[0].span.device_uuids == ("GPU-a",)


def test_what_calibration_finds_is_in_the_snapshot(bench: Bench) -> None:
    assert bench.engine.snapshot.devices[0].device.energy_period_s is None
    bench.engine.learn("GPU-a", {Field.ENERGY: Calibration(0.1, 30, 3e-6, 9e-6, 0.0015, 0.001)})
    bench.pass_time(0.25, channels=[channel()])
    (state,) = bench.engine.snapshot.devices
    assert (state.device.energy_period_s, state.device.power_period_s) == (0.1, None)
    reading = state.fields["energy"]
    assert (reading.status, reading.period_s, reading.jitter_s) == ("ok", 0.1, 0.0015)
    assert (reading.effective_hz, reading.latency_p99_s) == (100.0, 9e-6)


def channel(**fields: Any) -> Channel:
    values: dict[str, Any] = {
        "device": 0,
        "field": Field.ENERGY,
        "requested_hz": 100.0,
        "effective_hz": 100.0,
        "reads": 1,
        "errors": 0,
        "latency_s": 1e-5,
        "status": 0,
        "silent_s": 0.01,
    }
    return Channel(**values | fields)


def test_a_call_that_hangs_is_said_once_and_shows_until_it_returns(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.engine.last_error = None
    for silent_s in (2.0, 4.0, 6.0):
        bench.pass_time(2.0, channels=[channel(in_call_s=silent_s, silent_s=silent_s)])
    assert bench.engine.snapshot.devices[0].stalled_s == 6.0
    assert bench.engine.last_error == "card (GPU-a) is stalled: a driver call on it does not return, see dmesg"
    bench.pass_time(0.25, channels=[channel()])
    assert bench.engine.snapshot.devices[0].stalled_s == 0.0
    said = [record.message for record in caplog.records if "GPU-a" in record.message]
    assert said == [bench.engine.last_error, "card (GPU-a) answers again"]
    marked = [record for record in caplog.records if getattr(record, "journal", None) == {"LLMPOWER_DEVICE": "GPU-a"}]
    assert [record.message for record in marked] == said


def test_how_long_a_card_has_shown_nothing_is_known() -> None:
    bench = Bench((GPU, replace(GPU, uuid="GPU-b", index=1)))
    bench.devices = (GPU,)  # of the other nothing more is sampled
    for _ in range(3):
        bench.pass_time(5.0)
    assert [state.silent_s for state in bench.engine.snapshot.devices] == [0.0, pytest.approx(15.0)]


def test_a_card_whose_counter_fails_is_silent_though_its_power_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Its joules come from the counter, so its requests get none."""
    bench = Bench((GPU, replace(GPU, uuid="GPU-b", index=1)))
    for second in range(1, 4):
        samples = np.concatenate([bench.samples(index, bench.now_ns + 5 * S) for index in range(2)])
        samples["status"][(samples["device"] == 1) & (samples["field"] == Field.ENERGY)] = 999
        bench.now_ns += 5 * S
        statistics = replace(STATISTICS, read_errors={("gpu", 999): second})
        channels = [channel(), channel(device=1, status=999), channel(device=1, field=Field.POWER_INSTANT)]
        bench.engine.step(samples, statistics, UTC_OFFSET_NS, channels=channels)
    first, second_card = bench.engine.snapshot.devices
    assert (first.silent_s, second_card.silent_s) == (0.0, pytest.approx(15.0))
    assert second_card.power_w == 300.0
    assert bench.engine.last_error == (
        "reads of card (GPU-b) fail: Unknown Error (NVML code 999); see 'llmpower doctor'"
    )
    said = [record for record in caplog.records if record.message == bench.engine.last_error]
    assert [getattr(record, "journal", None) for record in said] == [{"LLMPOWER_DEVICE": "GPU-b"}]


def test_a_card_whose_counter_is_slow_to_read_is_not_silent_between_its_reads() -> None:
    bench = Bench()
    for _ in range(3):
        samples = bench.samples(0, bench.now_ns + 5 * S)
        bench.now_ns += 5 * S
        power = samples[samples["field"] == Field.POWER_INSTANT]
        bench.engine.step(power, STATISTICS, UTC_OFFSET_NS, channels=[channel(effective_hz=0.05)])
        assert bench.engine.snapshot.devices[0].silent_s == 0.0


def test_a_card_without_a_counter_is_silent_when_its_power_fails() -> None:
    bench = Bench((replace(GPU, has_energy_counter=False),))
    bench.pass_time(5.0)
    assert bench.engine.snapshot.devices[0].silent_s == 0.0
    samples = bench.samples(0, bench.now_ns + 5 * S)
    samples["status"] = 15
    bench.now_ns += 5 * S
    bench.engine.step(samples, STATISTICS, UTC_OFFSET_NS)
    assert bench.engine.snapshot.devices[0].silent_s == pytest.approx(5.0)


def test_a_card_that_waits_behind_another_is_stalled_and_a_cpu_package_is_not() -> None:
    package = replace(GPU, uuid="intel-rapl:0", index=2, kind="cpu_package", simulated=False)
    bench = Bench((GPU, replace(GPU, uuid="GPU-b", index=1), package))
    hung = [channel(in_call_s=5.0, silent_s=5.0), channel(device=1, silent_s=5.1), channel(device=2)]
    bench.pass_time(0.25, channels=hung)
    stalled_s = {state.device.uuid: state.stalled_s for state in bench.engine.snapshot.devices}
    assert stalled_s == {"GPU-a": 5.0, "GPU-b": 5.1, "intel-rapl:0": 0.0}
    assert bench.engine.last_error is not None
    assert "waits behind another" in bench.engine.last_error


def test_a_card_is_stalled_since_the_latest_of_its_reads(bench: Bench) -> None:
    hung = [channel(field=Field.POWER_INSTANT, silent_s=4.0), channel(in_call_s=4.0, silent_s=9.0)]
    for channels in (hung, hung[::-1]):
        bench.pass_time(0.25, channels=channels)
        assert bench.engine.snapshot.devices[0].stalled_s == 4.0


def test_lower_rates_are_said_and_so_is_their_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(3):
        bench.pass_time(0.25, channels=[channel(effective_hz=8.3)])
    bench.pass_time(0.25, channels=[channel()])  # a moment later: not worth a line

    def said() -> list[str]:
        messages = [record.message for record in caplog.records]
        return [message for message in messages if "reads" in message and "fail" not in message]

    assert len(said()) == 1
    bench.pass_time(61.0, channels=[channel()])
    assert said() == [
        "driver calls are slow, so reads a second are fewer: gpu energy 8.3 instead of 100;"
        " a larger --max-read-share allows more",
        "reads come at the rate asked for again",
    ]


def test_a_rate_that_comes_and_goes_beside_one_that_stays_low_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """As of the power of eight cards whose counters are slow: else there would be a line a minute, for years."""
    caplog.set_level("INFO")
    for round_ in range(6):
        power = channel(field=Field.POWER_INSTANT, effective_hz=60.0 if round_ % 2 else 100.0)
        bench.pass_time(61.0, channels=[channel(effective_hz=0.2), power])
    said = [record.message for record in caplog.records if "driver calls are slow" in record.message]
    assert [message.count("instead of") for message in said] == [1, 2]
    bench.pass_time(61.0, channels=[channel(), channel(field=Field.POWER_INSTANT)])
    bench.pass_time(61.0, channels=[channel(effective_hz=0.2)])
    assert [record.message[:12] for record in caplog.records][-2:] == ["reads come a", "driver calls"]


def test_a_span_across_a_break_has_no_joules_and_the_log_says_why(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    mark = np.zeros(1, SAMPLE_DTYPE)
    mark["status"], mark["field"] = EPOCH, Field.ENERGY
    mark["before_ns"] = mark["after_ns"] = bench.now_ns
    bench.engine.step(mark, STATISTICS, UTC_OFFSET_NS)
    bench.pass_time(1.0)
    bench.engine.finish(bench.span("across", 1.5))
    bench.engine.finish(bench.span("after", 0.5))
    bench.pass_time(1.0)
    joules = {row.span.span_id: row.gpu_energy_j for row in bench.stored}
    assert joules == {"across": None, "after": pytest.approx(150.0, rel=1e-6)}
    assert any("is back after a break" in record.message for record in caplog.records)


def test_what_was_drawn_while_nobody_read_is_said_and_not_again_and_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a process that was stopped: no call hangs and none fails, and yet there is a hole."""

    def stop(seconds: float) -> None:
        bench.now_ns += round(seconds * 1e9)
        bench.engine.step(np.zeros(0, SAMPLE_DTYPE), STATISTICS, UTC_OFFSET_NS)
        bench.pass_time(3.0)

    def said() -> list[str]:
        return [record.message for record in caplog.records if "belong to no request" in record.message]

    stop(10.0)
    (message,) = said()
    assert message.startswith("card (GPU-a) has drawn 3.06 kJ")
    stop(10.0)
    assert len(said()) == 1
    bench.pass_time(60.0)
    assert len(said()) == 2
    bench.pass_time(60.0)
    assert len(said()) == 2


def test_what_is_drawn_between_reads_that_are_far_apart_is_idle_and_not_nobodys(bench: Bench) -> None:
    few = [channel(effective_hz=0.2)]
    for number in range(40):
        bench.now_ns += 1_000_000_000
        read = np.zeros(1 if number % 5 == 0 else 0, SAMPLE_DTYPE)
        read["before_ns"], read["after_ns"], read["field"] = bench.now_ns - 2000, bench.now_ns - 1000, Field.ENERGY
        read["value"] = bench.now_ns // 100_000_000 * round(bench.power_w * 1e5)
        bench.engine.step(read, STATISTICS, UTC_OFFSET_NS, channels=few)
    (state,) = bench.engine.snapshot.devices
    assert state.unattributed_j == {"stalled": 0.0}
    assert state.idle_j > 25 * bench.power_w


def test_an_empty_drain_is_no_event(bench: Bench) -> None:
    bench.engine.finish(bench.span("a", 0.5))
    bench.engine.step(np.zeros(0, SAMPLE_DTYPE), STATISTICS, UTC_OFFSET_NS)
    bench.pass_time(1.0)
    assert len(bench.stored) == 1


def test_requests_are_counted_where_they_ran_with_the_joules_of_that_card() -> None:
    other = replace(GPU, uuid="GPU-b", index=1)
    bench = Bench((GPU, other))
    bench.pass_time(1.0)
    bench.engine.finish(bench.span("both", 0.5, device_uuids=("GPU-a", "GPU-b"), output_tokens=30))
    bench.engine.finish(bench.span("one", 0.5, device_uuids=("GPU-b", "GPU-elsewhere"), output_tokens=12))
    bench.pass_time(1.0)
    first, second = bench.engine.snapshot.devices
    assert [(state.requests, state.output_tokens) for state in (first, second)] == [(1, 30), (2, 42)]
    assert bench.engine.snapshot.taken_ns == bench.now_ns
    # What is booked is what was drawn up to then.
    for state in (first, second):
        assert state.booked_ns is not None
        assert bench.now_ns - 1_000_000_000 < state.booked_ns <= bench.now_ns


def test_a_request_that_is_reported_late_is_none_of_the_cards_whose_joules_it_does_not_have(bench: Bench) -> None:
    bench.pass_time(2.0)
    bench.engine.finish(bench.span("late", 0.5, ended_s_ago=2.0))
    bench.pass_time(1.0)
    assert [row.gpu_energy_j for row in bench.stored] == [None]
    assert bench.engine.snapshot.spans_late == 1
    (state,) = bench.engine.snapshot.devices
    assert (state.requests, state.output_tokens) == (0, 0)
