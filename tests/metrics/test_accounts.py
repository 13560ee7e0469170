from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from llmpower.metrics import ModelAccounts
from llmpower.metrics.accounts import MAX_MODEL_NAMES
from llmpower.types import Measurement

Make = Callable[..., Measurement]


def test_joules_are_booked_by_phase_and_device_and_requests_counted_apart(make_measurement: Make) -> None:
    accounts = ModelAccounts()
    accounts.book("llama", "prefill", "gpu", 30.0)
    accounts.book("llama", "prefill", "gpu", 1.0)
    accounts.book("llama", "unsplit", "cpu", 5.0)
    assert accounts.freeze()["llama"].requests == {}
    accounts.add(make_measurement(1, gpu_energy_j=100.0, cpu_energy_j=5.0))
    accounts.add(make_measurement(2, gpu_energy_j=8.0))
    state = accounts.freeze()["llama"]
    assert state.energy_j == {("prefill", "gpu"): 31.0, ("unsplit", "cpu"): 5.0}
    assert state.tokens == {"input": 20, "output": 40}
    assert state.request_energy_j.total == 113.0


def test_what_was_not_measured_counts_as_a_request_and_not_as_zero_joules(make_measurement: Make) -> None:
    accounts = ModelAccounts()
    accounts.add(
        make_measurement(gpu_energy_j=None, prefill_energy_j=None, decode_energy_j=None, quality="unavailable")
    )
    state = accounts.freeze()["llama"]
    assert state.requests == {"unavailable": 1}
    assert state.energy_j == {}
    assert sum(state.request_energy_j.counts) == 0
    assert sum(state.duration_s.counts) == 1


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.005, 0), (0.01, 0), (0.011, 1), (0.02, 1), (655.36, 16), (656.0, 17)]
)
def test_a_value_lies_in_the_first_bucket_whose_bound_is_not_below_it(
    seconds: float, bucket: int, make_measurement: Make
) -> None:
    accounts = ModelAccounts()
    accounts.add(make_measurement(start_ns=0, end_ns=round(seconds * 1e9)))
    histogram = accounts.freeze()["llama"].duration_s
    assert histogram.counts.index(1) == bucket
    assert len(histogram.counts) == len(histogram.bounds) + 1


def test_names_beyond_the_bound_are_summed_under_other(make_measurement: Make) -> None:
    accounts = ModelAccounts()
    for number in range(3 * MAX_MODEL_NAMES):
        accounts.add(make_measurement(number, model_name=f"model-{number}"))
    accounts.add(make_measurement(1, model_name="model-1"))
    states = accounts.freeze()
    assert len(states) == MAX_MODEL_NAMES + 1
    assert states["model-1"].requests == {"measured": 2}
    assert states["other"].requests == {"measured": 2 * MAX_MODEL_NAMES}


def test_each_bucket_keeps_the_latest_span_as_its_exemplar(make_measurement: Make) -> None:
    accounts = ModelAccounts()
    for number, joules in ((1, 15.0), (3, 18.0), (2, 16.0), (4, 40.0)):
        accounts.add(make_measurement(number, gpu_energy_j=joules))
    accounts.add(make_measurement(5, gpu_energy_j=17.0, span_id="x" * 122))
    histogram = accounts.freeze()["llama"].request_energy_j
    kept = {histogram.bounds[bucket]: exemplar for bucket, exemplar in enumerate(histogram.exemplars) if exemplar}
    assert {bound: (exemplar.span_id, exemplar.value) for bound, exemplar in kept.items()} == {
        20.0: ("span-3", 18.0),
        50.0: ("span-4", 40.0),
    }
    # It began 3 minutes into 2026 and took 2 s.
    assert kept[20.0].ended_s == datetime(2026, 1, 1, 0, 3, 2, tzinfo=UTC).timestamp()


def test_a_frozen_state_does_not_move(make_measurement: Make) -> None:
    accounts = ModelAccounts()
    accounts.add(make_measurement(1))
    before = accounts.freeze()
    accounts.add(make_measurement(2))
    assert before["llama"].requests == {"measured": 1}
    assert sum(before["llama"].duration_s.counts) == 1
