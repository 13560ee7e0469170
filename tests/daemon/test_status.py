from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpower.daemon.comparing.comparison import OUTCOMES
from llmpower.daemon.config import load_config
from llmpower.daemon.receiving.refusals import REASONS
from llmpower.daemon.status import MAX_CHARTS, MAX_MODELS, MAX_PROBLEMS, MAX_WORK, status_of
from llmpower.metrics import (
    DeviceState,
    DriftState,
    FieldState,
    Histogram,
    ModelAccounts,
    ModelDrift,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.spans.replies import decode_status, encode_status
from llmpower.types import Device, Measurement, WorkCost

FIELDS = {
    name: FieldState("GPU is lost (NVML code 15)", 99.9876543210987, 12.3456789012345, *(0.123456789012345,) * 6)
    for name in ("energy", "power_instant")
}
"""As many as the sampler reads of a card, which has 32 of them at most."""


def status(snapshot: Snapshot, **values: Any) -> dict[str, Any]:
    config = load_config({"store": Path("/var/lib/llmpower/spans.db")}, environ={}, uid=0)
    given: dict[str, Any] = {
        "metrics_url": "http://127.0.0.1:10450/metrics",
        "uptime_s": 100.0,
        "cpu_s": 1.0,
        "last_error": None,
        "last_error_ns": None,
    }
    return dict(status_of(snapshot, config, **given | values))


def card(number: int, **fields: Any) -> DeviceState:
    uuid = f"GPU-{number:08x}-0000-4000-8000-000000000000"
    device = Device(
        uuid, number, "NVIDIA GH200 480GB", "gpu", False, True, True, "550.1", None, None, "00000000:07:00.0"
    )
    state = DeviceState(device, 1 / 3, 1e9 / 3, 1e9 / 7, 1e9 / 9, {"stalled": 1e8 / 3}, FIELDS)
    return replace(state, **fields)


def test_the_answer_of_the_largest_node_on_its_worst_day_fits_in_a_packet(
    make_measurement: Callable[..., Measurement],
) -> None:
    accounts = ModelAccounts()
    for number in range(101):
        name = f"{number:04}" + "\N{GRINNING FACE}" * 252
        accounts.add(make_measurement(number, model_name=name))
        accounts.book(name, "decode", "gpu", 1e9 / 3)
    figures = dict.fromkeys(("prompt", "attention", "step", "decode", "context"), 1.23456789e-12)
    work = (WorkCost("\N{GRINNING FACE}" * 253, figures, figures, 10**9, 1 / 3, 1 / 7),) * 4
    snapshot = Snapshot(
        version="1.2.3",
        backend="nvml",
        devices=tuple(
            card(number, stalled_s=12345.678, work=work, booked_ns=2**62, requests=2**60, output_tokens=2**60)
            for number in range(40)
        ),
        models=accounts.freeze(),
        spans_rejected=dict.fromkeys(REASONS, 2**60),
        store_errors=1,
        store_waiting=1,
        store_lost=1,
        store=StoreState(last_fault="x" * 500),
        sampler=SamplerState(2**60, 2**60, 2**60, 2**60, Histogram((1 / 3,) * 11, (2**60,) * 12, 0.0)),
        taken_ns=2**62,
        drift=DriftState(
            "/" + "x" * 4000,
            101,
            dict.fromkeys(OUTCOMES, 2**60),
            tuple(
                ModelDrift("\N{GRINNING FACE}" * 252, "x" * 200, "shared", True, *(1 / 3,) * 3, 2**60, drifted=True)
                for _ in range(101)
            ),
        ),
    )
    limits = {state.device.uuid: 1e3 / 3 for state in snapshot.devices}
    told = status(snapshot, last_error="x" * 500, last_error_ns=1, power_limits_w=limits)
    assert json.loads(json.dumps(told)) == decode_status(encode_status(told))
    assert len(told["problems"]) == MAX_PROBLEMS + 1
    assert told["problems"][-1]["what"].startswith("and ")
    assert len(told["models"]) == MAX_MODELS
    assert len(told["work"]) == MAX_WORK


def test_what_a_model_costs_is_told_most_expensive_first(make_measurement: Callable[..., Measurement]) -> None:
    accounts = ModelAccounts()
    accounts.add(make_measurement(1, model_name="cheap", gpu_energy_j=10.0))
    accounts.book("cheap", "decode", "gpu", 10.0)
    accounts.add(make_measurement(2, model_name="costly", gpu_energy_j=60.0))
    accounts.add(make_measurement(3, model_name="costly", gpu_energy_j=20.0))
    accounts.book("costly", "decode", "gpu", 80.0)
    accounts.add(make_measurement(4, model_name="unknown", gpu_energy_j=None, quality="unavailable", output_tokens=0))
    assert status(Snapshot(version="1", backend="nvml", models=accounts.freeze()))["models"] == [
        {
            "model_name": "costly",
            "requests": 2,
            "energy_j": 80.0,
            "known_requests": 2,
            "request_energy_j": 80.0,
            "output_tokens": 40,
            "energy_per_request_j": 40.0,
            "energy_per_output_token_j": 2.0,
        },
        {
            "model_name": "cheap",
            "requests": 1,
            "energy_j": 10.0,
            "known_requests": 1,
            "request_energy_j": 10.0,
            "output_tokens": 20,
            "energy_per_request_j": 10.0,
            "energy_per_output_token_j": 0.5,
        },
        {
            "model_name": "unknown",
            "requests": 1,
            "energy_j": 0.0,
            "known_requests": 0,
            "request_energy_j": 0.0,
            "output_tokens": 0,
            "energy_per_request_j": None,
            "energy_per_output_token_j": None,
        },
    ]


def test_sums_come_with_their_moments_and_limits_with_their_cards() -> None:
    served = card(1, booked_ns=7, requests=3, output_tokens=60)
    sampler = SamplerState(ticks=9, missed_ticks=1, lateness_s=Histogram((0.1, 1.0), (5, 3, 1), 2.0))
    snapshot = Snapshot(version="1", backend="nvml", devices=(served, card(2)), sampler=sampler, taken_ns=8)
    told = status(snapshot, power_limits_w={served.device.uuid: 400.0}, temperatures_c={served.device.uuid: 61.0})
    assert told["taken_ns"] == 8
    first, second = told["devices"]
    assert (first["booked_ns"], first["requests"], first["output_tokens"]) == (7, 3, 60)
    assert (first["temperature_c"], second["temperature_c"]) == (61.0, None)
    assert (first["power_limit_w"], second["power_limit_w"], second["booked_ns"]) == (400.0, None, None)
    assert (told["sampler"]["ticks"], told["sampler"]["missed_ticks"]) == (9, 1)
    assert decode_status(encode_status(told))["sampler"]["lateness_counts"] == [5, 3, 1]
    assert told["sampler"]["lateness_bounds_s"] == (0.1, 1.0)


def test_what_work_costs_is_told_by_device_and_model() -> None:
    work = WorkCost("llama", {"prompt": 0.0212345, "step": 1.8}, {"prompt": 0.001, "step": 0.2}, 600, 0.0412345, 0.1)
    told = status(Snapshot(version="1", backend="nvml", devices=(card(1, work=(work,), allocated_j=2.0),)))
    assert told["work"] == [
        {
            "device_uuid": "GPU-00000001-0000-4000-8000-000000000000",
            "model_name": "llama",
            "energy_j": {"prompt": 0.02123, "step": 1.8},
            "std_j": {"prompt": 0.001, "step": 0.2},
            "observations": 600,
            "misfit": 0.04123,
            "spread": 0.1,
        }
    ]
    assert told["devices"][0]["allocated_j"] == 2.0


def test_charts_are_told_the_furthest_off_first_and_few_of_them() -> None:
    charts = tuple(
        ModelDrift(f"model-{number}", "1× card", "alone", False, 1 + number / 123, 0.0123456, 0.05, 40, number == 3)
        for number in range(30)
    )
    drift = DriftState("m.json", 30, {"compared": 9}, charts)
    told = status(Snapshot(version="1", backend="nvml", devices=(card(0, unattributed_j={}),), drift=drift))
    assert (told["drift"]["models_file"], told["drift"]["models"]) == ("m.json", 30)
    assert [chart["model_name"] for chart in told["drift"]["charts"][:3]] == ["model-3", "model-29", "model-28"]
    assert len(told["drift"]["charts"]) == MAX_CHARTS
    assert told["drift"]["charts"][0]["std_error"] == 0.01235
    (problem,) = told["problems"]
    assert problem["what"] == (
        "requests of model-3 (alone, 1× card) cost 1.02 times what its model predicts, which claims to be within 5 %"
    )
