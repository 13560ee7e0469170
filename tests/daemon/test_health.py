from __future__ import annotations

from dataclasses import replace

import pytest

from llmpower.daemon.health import Problem, problems_of, summary_of
from llmpower.metrics import DeviceState, FieldState, ModelAccounts, OtlpState, SamplerState, Snapshot, StoreState
from llmpower.types import Device

GPU = Device("GPU-a", 0, "card", "gpu", False, True, True, "550")
CARD = DeviceState(
    GPU,
    300.0,
    10_000.0,
    6_000.0,
    3_990.0,
    {"stalled": 10.0},
    fields={"energy": FieldState("ok", 100.0, 99.0), "power_instant": FieldState("ok", 10.0, 10.0)},
    silent_s=0.25,
)
WELL = Snapshot(version="1", backend="nvml", devices=(CARD,), store=StoreState(size_bytes=4096))


def only(snapshot: Snapshot) -> Problem:
    (problem,) = problems_of(snapshot)
    assert problem.fix
    return problem


def with_card(**changes: object) -> Snapshot:
    return replace(WELL, devices=(replace(CARD, **changes),))  # type: ignore[arg-type] # any field


def test_when_all_is_well_there_is_nothing_to_say() -> None:
    assert problems_of(WELL) == []


def test_requests_that_name_no_card_of_this_machine_are_told_of() -> None:
    """By a number, as CUDA_VISIBLE_DEVICES may have it, by another host's UUID, or a new instance of MIG."""
    problem = only(replace(WELL, spans_of_strangers=7, latest_stranger="0"))
    assert problem.what == (
        "7 requests of the last hour without all GPU joules: what they name, such as '0', is the UUID of no card that "
        "is sampled here"
    )
    assert "nvidia-smi -L" in problem.fix


def test_cards_that_could_not_be_opened_are_told_of_and_so_is_their_restart() -> None:
    problem = only(replace(WELL, unopened={3: "GPU is lost (NVML code 15)"}))
    assert problem.what == (
        "GPU 3 could not be opened when the daemon started, so it is not sampled: GPU is lost (NVML code 15)"
    )
    assert "restart the daemon" in problem.fix
    assert only(replace(WELL, devices=(), unopened={0: "Unknown Error (NVML code 999)"})).what.startswith("GPU 0")


def test_a_daemon_without_any_device_is_not_well() -> None:
    assert only(replace(WELL, devices=())).fix == "llmpower doctor"


def test_a_stalled_card_is_named_with_since_when() -> None:
    problem = only(with_card(stalled_s=130.0, silent_s=130.0))
    assert problem.what == "card (GPU-a) has been stalled for 2 min 10 s: a driver call does not return"
    assert problem.fix.startswith("dmesg")


def test_a_card_is_named_as_the_kernel_names_it_too() -> None:
    device = replace(GPU, pci_bus_id="00000000:07:00.0")
    assert only(with_card(device=device, stalled_s=5.0)).what.startswith("card (GPU-a, 00000000:07:00.0) has been")


def test_a_lost_card_is_named_with_what_it_answers() -> None:
    fields = {"energy": FieldState("GPU is lost (NVML code 15)", 100.0, 99.0)}
    problem = only(with_card(power_w=None, silent_s=3600.0, fields=fields))
    assert problem.what == "card (GPU-a) has shown no energy for 1 h 0 min: GPU is lost (NVML code 15)"


def test_a_read_that_fails_now_and_then_is_no_problem() -> None:
    fields = {"energy": FieldState("Not Supported (NVML code 3)", 100.0, 99.0)}
    assert problems_of(with_card(fields=fields)) == []


def test_slow_driver_calls_are_said() -> None:
    fields = {"energy": FieldState("ok", 100.0, 20.0)}
    problem = only(with_card(fields=fields))
    assert problem.what.endswith("energy 20 instead of 100 times a second")
    assert "max-read-share" in problem.fix


def test_slow_calls_that_follow_the_counter_are_no_problem() -> None:
    assert problems_of(with_card(fields={"energy": FieldState("ok", 100.0, 4.2, locked=True)})) == []
    assert only(with_card(fields={"energy": FieldState("ok", 100.0, 1.2, locked=True)}))


def test_joules_that_belong_to_nobody_are_said_once_they_are_many() -> None:
    assert "12 % of what card (GPU-a)" in only(with_card(unattributed_j={"stalled": 1_200.0})).what
    assert problems_of(with_card(energy_j=100.0, unattributed_j={"stalled": 50.0})) == []


@pytest.mark.parametrize(
    "store",
    [StoreState(size_bytes=None, last_fault="the disk is gone"), StoreState(4096, last_fault="the disk is gone")],
)
def test_a_store_that_takes_nothing_is_said_with_its_reason(store: StoreState) -> None:
    waiting = 0 if store.size_bytes is None else 12
    problem = only(replace(WELL, store=store, store_errors=3, store_waiting=waiting))
    assert problem.what == f"the store takes nothing, {waiting} measured spans wait: the disk is gone"


def test_what_failed_once_and_is_over_is_no_problem() -> None:
    store = StoreState(size_bytes=4096, errors=2, corruptions=1, last_fault="the disk was full")
    assert problems_of(replace(WELL, store=store, store_errors=3)) == []


def test_what_is_lost_is_said() -> None:
    assert only(replace(WELL, store_lost=7)).what.startswith("7 measured spans were given up")
    assert only(replace(WELL, sampler=SamplerState(dropped=5))).what.startswith(
        "5 samples lost in the last hour because"
    )
    assert only(replace(WELL, sampler=SamplerState(dropped=1))).what.startswith(
        "1 sample lost in the last hour because"
    )


def test_refused_spans_are_said_when_they_are_more_than_a_few() -> None:
    accounts = ModelAccounts()
    accounts.book("m", "decode", "gpu", 1.0)
    model = replace(accounts.freeze()["m"], requests={"measured": 950})
    problem = only(replace(WELL, models={"m": model}, spans_rejected={"version": 40, "not_json": 10}))
    assert problem.what == (
        "5 % of the spans of the last hour were refused, most as version: another version of the protocol"
    )
    assert problems_of(replace(WELL, models={"m": model}, spans_rejected={"not_json": 5})) == []


def test_requests_that_were_told_of_too_late_are_said() -> None:
    accounts = ModelAccounts()
    accounts.book("m", "decode", "gpu", 1.0)
    models = {"m": replace(accounts.freeze()["m"], requests={"measured": 60, "unavailable": 40})}
    late = replace(WELL, models=models, spans_late=40, settle_delay_s=120.0)
    problem = only(late)
    assert problem.what.startswith("40 % of the requests of the last hour have no joules")
    assert "while no daemon" in problem.fix
    assert "otlp.hold" in only(replace(late, otlp=OtlpState(spans={"accepted": 100}))).fix
    assert problems_of(replace(WELL, models=models, spans_late=1)) == []


def test_requests_that_do_not_say_where_they_ran_are_said_where_there_is_a_choice() -> None:
    told = replace(WELL, otlp=OtlpState(unplaced=3))
    assert problems_of(told) == []
    problem = only(replace(told, devices=(CARD, CARD)))
    assert problem.what.startswith("3 requests of the last hour reported by OpenTelemetry without")
    assert problem.what.endswith("on which of the 2 GPUs they ran")
    assert "llmpower.device_uuids" in problem.fix
    why = replace(told, otlp=OtlpState(unplaced=3, unplaced_reason="nobody knows"), devices=(CARD, CARD))
    assert only(why).what.endswith("on which of the 2 GPUs they ran, and nobody knows")


def test_what_went_wrong_more_than_an_hour_ago_is_no_problem() -> None:
    """A daemon runs for a year, and what was lost in its first week must not hide what is lost now."""
    accounts = ModelAccounts()
    accounts.book("m", "decode", "gpu", 1.0)
    models = {"m": replace(accounts.freeze()["m"], requests={"measured": 60, "unavailable": 40})}
    bad = replace(
        with_card(unattributed_j={"stalled": 1_200.0}, energy_j=3_000.0),
        models=models,
        sampler=SamplerState(dropped=5),
        spans_rejected={"version": 40},
        spans_late=40,
        spans_of_strangers=9,
        store_lost=7,
        store_errors=3,
        store_waiting=2,
        otlp=OtlpState(unplaced=3),
    )
    two = replace(CARD, device=replace(GPU, uuid="GPU-b", index=1))
    then = replace(bad, devices=(*bad.devices, two))
    assert len(problems_of(then)) == 8
    assert problems_of(then, then) == []
    assert summary_of(then, then).endswith("spans stored")
    now = replace(then, spans_rejected={"version": 40, "type": 1}, models=models | {"n": models["m"]})
    assert problems_of(now, then) == [], "1 of 101"
    now = replace(now, spans_rejected={"version": 40, "type": 100})
    (problem,) = problems_of(now, then)
    assert problem.what.startswith("50 % of the spans of the last hour were refused, most as type")


def test_one_line_says_how_it_is_going() -> None:
    assert summary_of(replace(WELL, spans_stored=7)) == "1 device, 300 W, 7 spans stored"
    two = replace(CARD, device=replace(GPU, simulated=True), power_w=None)
    assert summary_of(replace(WELL, devices=(CARD, two))) == "SIMULATED, 2 devices, 300 W, 0 spans stored"
    assert summary_of(with_card(power_w=None)) == "1 device, no power reading, 0 spans stored"


def test_the_line_ends_in_the_worst_problem() -> None:
    stalled = with_card(stalled_s=130.0)
    assert summary_of(stalled).endswith("spans stored; " + only(stalled).what)
    worse = replace(stalled, store_lost=3)
    assert summary_of(worse).endswith(f"{only(stalled).what} (and 1 more: llmpower status)")
