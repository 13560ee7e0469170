"""What becomes of spans in the engine: joules, rows, refusals, and their time of day."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from engine_bench import GPU, START_NS, STATISTICS, UTC_OFFSET_NS, Bench, S
from models_file import make_model, write_models

from llmpower.attribution.ledger import AT_ONCE_S
from llmpower.daemon.accounting.engine import HOLD_S, SETTLING_S, Engine
from llmpower.daemon.comparing.comparison import Comparison
from llmpower.daemon.comparing.drift import MIN_BLOCKS
from llmpower.daemon.health import problems_of
from llmpower.metrics import StoreState
from llmpower.sampling import SAMPLE_DTYPE
from llmpower.store import Appended
from llmpower.types import Measurement, Span


def test_a_span_becomes_a_row(bench: Bench) -> None:
    bench.engine.begin("a", bench.now_ns)
    bench.pass_time(2.0)
    span = bench.span("a", 2.0, first_token_ns=bench.now_ns - S)
    bench.engine.finish(span)
    assert bench.engine.snapshot.spans_running == 1
    bench.pass_time(1.0)
    (row,) = bench.stored
    assert row.span == span
    assert row.started_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert row.gpu_energy_j == pytest.approx(600.0, rel=1e-6)
    assert row.prefill_energy_j == pytest.approx(300.0, rel=1e-6)
    assert row.decode_energy_j == pytest.approx(300.0, rel=1e-6)
    assert row.gpu_energy_std_j is not None
    assert 0 < row.gpu_energy_std_j < 10
    assert (row.cpu_energy_j, row.cpu_energy_std_j) == (None, None)
    assert (row.quality, row.method, row.allocated, row.simulated) == ("measured", "counter", False, True)
    assert row.system == "1× card (simulated)"


def test_the_snapshot_says_what_happened(bench: Bench) -> None:
    bench.engine.finish(bench.span("a", 0.4))
    assert bench.engine.pending == 1
    before = bench.engine.snapshot
    bench.pass_time(1.0)
    after = bench.engine.snapshot
    assert before.models == {}
    assert after.models["llama"].requests == {"interpolated": 1}
    assert after.models["llama"].tokens == {"input": 10, "output": 20}
    assert after.spans_stored == 1
    assert after.spans_pending == bench.engine.pending == 0
    assert after.devices[0].power_w == 300.0
    assert after.backend == "simulated"
    assert after.sampler.dropped == 1
    assert after.sampler.read_errors == {("gpu", 15): 2}
    assert after.sampler.lateness_s.counts == (3, 1)


def test_it_knows_when_every_device_has_shown_something(bench: Bench) -> None:
    assert bench.engine.knowing
    assert not Engine((GPU,), bench.append, backend="simulated").knowing
    assert Engine((), bench.append, backend="nvml").knowing


def test_every_joule_is_in_one_account(bench: Bench) -> None:
    for number in range(20):
        bench.engine.begin(f"failed-{number}", bench.now_ns)
        bench.pass_time(0.7)
        bench.engine.finish(bench.span(f"long-{number}", 0.6))
        bench.engine.finish(bench.span(f"short-{number}", 0.3, ended_s_ago=0.1))
        bench.engine.cancel(f"failed-{number}")
        bench.pass_time(0.5)
    bench.pass_time(2.0)
    (state,) = bench.engine.snapshot.devices
    assert state.inference_j + state.idle_j + sum(state.unattributed_j.values()) == pytest.approx(state.energy_j)
    assert sum(bench.engine.snapshot.models["llama"].energy_j.values()) == pytest.approx(state.inference_j)
    assert sum(row.gpu_energy_j or 0.0 for row in bench.stored) == pytest.approx(state.inference_j)
    assert len(bench.stored) == 40
    assert state.inference_j == pytest.approx(20 * 0.6 * 300, rel=1e-3)
    assert {row.allocated for row in bench.stored} == {True}


def test_a_running_span_holds_the_settling_back_until_it_ends_or_is_cancelled(bench: Bench) -> None:
    bench.engine.begin("long", bench.now_ns)
    bench.pass_time(5.0)
    bench.engine.finish(bench.span("short", 1.0))
    bench.pass_time(5.0)
    assert bench.stored == []
    bench.engine.cancel("long")
    bench.pass_time(0.25)
    assert [row.span.span_id for row in bench.stored] == ["short"]


def test_a_step_ends_when_settling_takes_long_and_the_next_ones_go_on(bench: Bench) -> None:
    bench.engine.begin("long", bench.now_ns)
    for second in range(1, 21):
        bench.pass_time(AT_ONCE_S / 5)
        bench.engine.finish(bench.span(str(second), 1.0))
    bench.pass_time(2.0)
    bench.engine.cancel("long")

    def slowly(_: Measurement) -> None:
        bench.now_ns += round(SETTLING_S / 4 * S)

    bench.engine.on_measured = slowly
    bench.pass_time(0.0)
    assert 4 <= 20 - bench.engine.pending < 10
    bench.engine.on_measured = lambda _: None
    bench.pass_time(0.0)
    assert bench.engine.pending == 0


def test_a_span_that_never_ends_is_let_go_of(bench: Bench) -> None:
    bench.engine.begin("stuck", bench.now_ns)
    bench.pass_time(HOLD_S - 1)
    bench.engine.finish(bench.span("short", 1.0))
    bench.pass_time(0.5)
    assert bench.stored == []
    for _ in range(1 + round(HOLD_S / AT_ONCE_S)):
        bench.pass_time(0.25)
    assert [row.span.span_id for row in bench.stored] == ["short"]
    assert bench.engine.snapshot.spans_rejected == {"abandoned": 1}
    assert bench.engine.snapshot.spans_running == 0
    # Should it end after all, its time is booked already.
    bench.engine.finish(bench.span("stuck", HOLD_S + 1))
    bench.pass_time(1.0)
    assert (bench.stored[-1].gpu_energy_j, bench.stored[-1].quality) == (None, "unavailable")


def test_a_span_reported_too_late_is_stored_without_joules(bench: Bench) -> None:
    bench.pass_time(10.0)
    bench.engine.finish(bench.span("late", 2.0, ended_s_ago=5.0))
    bench.pass_time(0.25)
    (row,) = bench.stored
    assert (row.gpu_energy_j, row.quality, row.method) == (None, "unavailable", "none")
    assert bench.engine.snapshot.models["llama"].requests == {"unavailable": 1}


def test_a_span_on_a_card_that_is_not_sampled_has_no_gpu_energy(bench: Bench) -> None:
    bench.engine.finish(bench.span("a", 1.0, device_uuids=("GPU-elsewhere",)))
    bench.engine.finish(bench.span("b", 1.0, device_uuids=("GPU-a", "GPU-elsewhere")))
    bench.pass_time(1.0)
    assert [(row.gpu_energy_j, row.quality) for row in bench.stored] == [(None, "unavailable")] * 2


def test_on_two_cards_a_span_gets_the_joules_of_both() -> None:
    bench = Bench((GPU, replace(GPU, uuid="GPU-b", index=1)))
    bench.engine.finish(bench.span("a", 0.5, device_uuids=None))
    bench.pass_time(1.0)
    assert bench.stored[0].gpu_energy_j == pytest.approx(300.0, rel=1e-6)
    assert bench.stored[0].system == "2× card (simulated)"


def test_when_the_latest_error_was_is_known(bench: Bench) -> None:
    bench.pass_time(1.0)
    before_ns = bench.engine.last_error_ns
    bench.engine.fail("what went wrong")
    assert bench.engine.last_error_ns is not None
    assert before_ns is None or bench.engine.last_error_ns > before_ns


def test_the_same_with_other_figures_is_logged_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for minute in range(2):
        for number in range(50):
            bench.engine.fail(f"a clock is {number}.{number} s from ours")
        bench.engine.fail("a card hangs", "GPU-a")
        bench.engine.fail("a card hangs", "GPU-b")
        assert len(caplog.records) == 3 * (minute + 1)
        bench.now_ns += 60 * S
    assert bench.engine.last_error == "a card hangs"


def test_the_state_of_an_hour_ago_is_kept_and_no_older_one(bench: Bench) -> None:
    assert bench.engine.hour_ago.taken_ns == bench.now_ns - 1 * S, "the daemon's begin"
    for _ in range(60 * 5):
        bench.pass_time(60.0)
        age_s = (bench.now_ns - bench.engine.hour_ago.taken_ns) / S
        assert age_s <= 4201
    assert age_s >= 3600


def test_what_is_wrong_in_detail_is_logged_once_a_minute_whatever_it_is(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for detail in ("model_name = 'a'", "model_name = 'b'"):
        bench.engine.fail("spans are refused", detail=detail)
    assert [record.message for record in caplog.records] == ["spans are refused: model_name = 'a'"]
    assert bench.engine.last_error == "spans are refused: model_name = 'b'"


def test_without_devices_spans_are_stored_without_joules() -> None:
    now_ns = START_NS
    rows: list[Measurement] = []

    def append(measurements: Sequence[Measurement]) -> Future[Appended]:
        rows.extend(measurements)
        future: Future[Appended] = Future()
        future.set_result(Appended(len(measurements)))
        return future

    engine = Engine((), append, backend="nvml", cpu_name="EPYC", now=lambda: now_ns)
    nothing = np.zeros(0, SAMPLE_DTYPE)
    engine.step(nothing, STATISTICS, UTC_OFFSET_NS)
    now_ns += 2 * S
    engine.finish(Span("a", "llama", None, now_ns - S, None, now_ns, 1, 1, 1, "host", 1))
    now_ns += S
    engine.step(nothing, STATISTICS, UTC_OFFSET_NS)
    assert [(row.gpu_energy_j, row.quality, row.system) for row in rows] == [(None, "unavailable", "1× EPYC")]


def test_when_a_span_began_is_what_the_clock_showed_then(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number, step_s in enumerate((3600, -7200, 0)):
        bench.engine.begin(f"across-{number}", bench.now_ns)
        bench.pass_time(1.0)
        bench.utc_offset_ns += step_s * S
        bench.pass_time(1.0)
        bench.engine.finish(bench.span(f"across-{number}", 2.0))
        bench.pass_time(1.0)
        bench.engine.finish(bench.span(f"after-{number}", 0.5))
    bench.pass_time(1.0)
    new_year = datetime(2026, 1, 1, tzinfo=UTC)
    assert {row.span.span_id: (row.started_at - new_year).total_seconds() for row in bench.stored} == {
        "across-0": 1.0,
        "after-0": 3.5 + 3600,
        "across-1": 4.0 + 3600,
        "after-1": 6.5 - 3600,
        "across-2": 7.0 - 3600,
        "after-2": 9.5 - 3600,
    }
    assert [record.message for record in caplog.records if "clock" in record.message] == [
        "the wall clock stepped forward by 3600 s",
        "the wall clock stepped back by 7200 s",
    ]


def test_how_long_a_span_ran_is_no_matter_of_the_wall_clock(bench: Bench) -> None:
    bench.engine.begin("a", bench.now_ns)
    bench.utc_offset_ns -= 10**9 * S
    bench.pass_time(2.0)
    bench.engine.finish(bench.span("a", 2.0))
    bench.pass_time(1.0)
    (row,) = bench.stored
    assert row.span.runtime_s == 2.0
    assert row.gpu_energy_j == pytest.approx(600.0, rel=1e-6)


@pytest.mark.parametrize("uptime_ns", [2**31 * 1_000_000, 2**53, 10 * 365 * 86_400 * S])
def test_a_machine_that_has_run_for_years_measures_as_on_its_first_day(uptime_ns: int, bench: Bench) -> None:
    # On a tick of the counter, and then across the number at which an integer or a float of that unit ends.
    old = Bench(start_ns=uptime_ns // S * S - 3 * S)
    for each in (bench, old):
        each.pass_time(1.0)
        each.engine.begin("a", each.now_ns)
        each.pass_time(3.0)
        each.engine.finish(each.span("a", 2.95, ended_s_ago=0.01, first_token_ns=each.now_ns - S))
        each.pass_time(1.0)
    (young_row,), (old_row,) = bench.stored, old.stored
    assert young_row.gpu_energy_j == pytest.approx(885.0, rel=0.01)
    for name in ("gpu_energy_j", "gpu_energy_std_j", "prefill_energy_j", "decode_energy_j"):
        assert getattr(old_row, name) == pytest.approx(getattr(young_row, name), rel=1e-6)
    assert old_row.quality == young_row.quality == "measured"
    assert old_row.span.runtime_s == young_row.span.runtime_s


def test_what_the_store_says_of_itself_is_in_the_snapshot(bench: Bench) -> None:
    state = StoreState(errors=2, faults=1, last_fault="spans.db is damaged", corruptions=1)
    engine = Engine((GPU,), bench.append, backend="nvml", store_state=lambda: state)
    assert engine.last_error == "spans.db is damaged", "as when it was so at the start"
    engine.step(np.zeros(0, SAMPLE_DTYPE), STATISTICS, UTC_OFFSET_NS)
    state = replace(state, errors=3, faults=2, last_fault="the disk is full; make room")
    engine.step(np.zeros(0, SAMPLE_DTYPE), STATISTICS, UTC_OFFSET_NS)
    assert engine.last_error == "the disk is full; make room"
    assert (engine.snapshot.store_errors, engine.snapshot.store.corruptions) == (3, 1)


def test_whoever_waits_for_it_is_told_what_is_committed(bench: Bench) -> None:
    committed: list[str] = []
    bench.engine.outbox.on_stored = lambda spans: committed.extend(span.span_id for span in spans)
    bench.broken = "the disk is full; make room"
    bench.engine.finish(bench.span("a", 0.1))
    bench.pass_time(1.0)
    assert committed == []
    bench.broken = None
    bench.pass_time(1.25)
    bench.engine.finish(bench.span("a", 0.1))
    bench.pass_time(1.0)
    assert committed == ["a", "a"], "also what was there already"


def test_what_is_measured_is_held_against_models(bench: Bench, tmp_path: Path) -> None:
    """A card of 300 W, requests of 2 s and 20 tokens: 600 J where 24 J a token are 480 J."""
    model = make_model(joules_per_token=24.0, system="1× card (simulated)")
    comparison = Comparison(write_models(tmp_path, model), now_s=lambda: bench.now_ns / S)
    bench.engine.compare, bench.engine.drift_state = comparison.add, comparison.state
    for number in range(3):
        bench.engine.begin(str(number), bench.now_ns)
        bench.pass_time(2.0)
        bench.engine.finish(bench.span(str(number), 2.0))
        bench.pass_time(1.0)
    bench.pass_time(1.0)
    drift = bench.engine.snapshot.drift
    assert {name: count for name, count in drift.outcomes.items() if count} == {"compared": 3}
    (chart,) = drift.charts
    assert chart.ratio == pytest.approx(1.25, rel=1e-6)


def test_requests_that_cost_more_than_their_model_says_are_told_of(bench: Bench, tmp_path: Path) -> None:
    """Twenty-odd minutes of requests of 6 s at 300 W, of about 17 tokens where the model expects 20 for such joules."""
    model = make_model(joules_per_token=90.0, system="1× card (simulated)")
    comparison = Comparison(write_models(tmp_path, model), now_s=lambda: bench.now_ns / S)
    bench.engine.compare, bench.engine.drift_state = comparison.add, comparison.state
    rng = np.random.default_rng(1)
    for number in range(11 * MIN_BLOCKS):
        assert not bench.engine.snapshot.drift.charts or not bench.engine.snapshot.drift.charts[0].drifted, "too soon"
        bench.engine.begin(str(number), bench.now_ns)
        bench.pass_time(6.0)
        bench.engine.finish(bench.span(str(number), 6.0, output_tokens=int(rng.choice((16, 17, 18)))))
    bench.pass_time(1.0)
    (chart,) = bench.engine.snapshot.drift.charts
    assert (chart.ratio, chart.drifted) == (pytest.approx(20 / 17, abs=0.02), True)
    *_, problem = problems_of(bench.engine.snapshot)
    assert problem.what.startswith("requests of llama (alone, 1× card (simulated), SIMULATED) cost 1.1")
