"""Only like is compared with like, and every request is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_file import make_fit, make_model, write_models

from llmpower.daemon.comparing.comparison import LOOK_S, OUTCOMES, Comparison, tolerance_of
from llmpower.exceptions import InputError
from llmpower.metrics import MAX_MODEL_NAMES
from llmpower.modelling import HeldOut, save_models
from llmpower.types import Measurement

Make = Callable[..., Measurement]


def compare(file: Path, *measurements: Measurement) -> Comparison:
    comparison = Comparison(file)
    for measurement in measurements:
        comparison.add(measurement)
    return comparison


def outcomes(comparison: Comparison) -> dict[str, int]:
    return {name: count for name, count in comparison.state().outcomes.items() if count}


def test_the_ratio_is_measured_over_predicted(tmp_path: Path, make_measurement: Make) -> None:
    """20 output tokens at 5 J are 100 J; 110 and 121 J measured have a geometric mean of 1.1 · √1.1 times that."""
    comparison = compare(
        write_models(tmp_path), *(make_measurement(n, gpu_energy_j=joules) for n, joules in enumerate((110.0, 121.0)))
    )
    (chart,) = comparison.state().charts
    assert chart.ratio == pytest.approx(1.1 * math.sqrt(1.1))
    assert (chart.model_name, chart.sharing, chart.simulated, chart.system) == ("llama", "alone", True, "1× card")
    assert (chart.spans, chart.std_error, chart.drifted) == (2, None, False)
    assert chart.tolerance == pytest.approx(0.05)
    assert outcomes(comparison) == {"compared": 2}


def test_requests_that_shared_a_card_have_a_chart_of_their_own(tmp_path: Path, make_measurement: Make) -> None:
    alone, shared = make_measurement(1, gpu_energy_j=100.0), make_measurement(2, gpu_energy_j=60.0, allocated=True)
    charts = compare(write_models(tmp_path), alone, shared).state().charts
    assert {chart.sharing: round(chart.ratio, 6) for chart in charts} == {"alone": 1.0, "shared": 0.6}


def test_each_system_of_a_host_has_a_chart_of_its_own(tmp_path: Path, make_measurement: Make) -> None:
    """One model on two kinds of cards costs twice as much on the second, and both fits are right."""
    file = write_models(tmp_path, make_model(), make_model(joules_per_token=10.0, system="1× another card"))
    here, there = make_measurement(1), make_measurement(2, gpu_energy_j=220.0, system="1× another card")
    charts = compare(file, here, there).state().charts
    assert {chart.system: round(chart.ratio, 6) for chart in charts} == {"1× card": 1.0, "1× another card": 1.1}


def test_a_model_of_several_systems_is_one_of_each(tmp_path: Path, make_measurement: Make) -> None:
    file = write_models(tmp_path, make_model(system="1× another card + 1× card"))
    here, there, elsewhere = (
        make_measurement(n, system=f"1× {name}card") for n, name in enumerate(("", "another ", "a"))
    )
    assert outcomes(compare(file, here, there, elsewhere)) == {"compared": 2, "other_system": 1}


def test_a_model_of_the_system_comes_before_one_that_names_none(tmp_path: Path, make_measurement: Make) -> None:
    file = write_models(tmp_path, make_model(joules_per_token=10.0, system=""), make_model())
    (chart,) = compare(file, make_measurement(1)).state().charts
    assert (chart.system, chart.ratio) == ("1× card", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"model_name": "unheard-of"}, "no_model"),
        ({"simulated": False}, "simulated"),
        ({"system": "1× another card"}, "other_system"),
        ({"gpu_energy_j": None, "gpu_energy_std_j": None, "quality": "unavailable"}, "not_measured"),
        ({"gpu_energy_std_j": 30.0}, "uncertain"),
        ({"batch_size": 4}, "batch"),
        ({"input_tokens": 1001}, "outside_range"),
        ({"output_tokens": 0}, "outside_range"),
    ],
)
def test_what_is_not_compared_is_counted_with_its_reason(
    tmp_path: Path, make_measurement: Make, changes: dict[str, Any], outcome: str
) -> None:
    comparison = compare(write_models(tmp_path), make_measurement(1, **changes))
    assert outcomes(comparison) == {outcome: 1}
    assert comparison.state().charts == ()


def test_a_real_model_is_not_compared_with_a_simulated_card(tmp_path: Path, make_measurement: Make) -> None:
    file = write_models(tmp_path, make_model(simulated=False))
    assert outcomes(compare(file, make_measurement(1))) == {"simulated": 1}
    (chart,) = compare(file, make_measurement(1, simulated=False)).state().charts
    assert not chart.simulated


@pytest.mark.parametrize(
    ("boundary", "joules"),
    [("gpu", 100.0), ("cpu", 30.0), ("gpu+cpu", 130.0), ("gpu-idle", 80.0), ("gpu+cpu-idle", 105.0)],
)
def test_the_same_devices_stand_on_both_sides(
    tmp_path: Path, make_measurement: Make, boundary: str, joules: float
) -> None:
    file = write_models(tmp_path, make_model(boundary=boundary, joules_per_token=joules / 20))
    measurement = make_measurement(
        1, cpu_energy_j=30.0, cpu_energy_std_j=0.5, gpu_idle_energy_j=20.0, cpu_idle_energy_j=5.0
    )
    (chart,) = compare(file, measurement).state().charts
    assert chart.ratio == pytest.approx(1.0)
    incomplete = make_measurement(2, gpu_energy_j=None, cpu_energy_j=None, gpu_idle_energy_j=None)
    assert outcomes(compare(file, incomplete)) == {"not_measured": 1}


def test_an_energy_of_unknown_parts_is_not_compared(tmp_path: Path, make_measurement: Make) -> None:
    file = write_models(tmp_path, make_model(boundary=None))
    assert outcomes(compare(file, make_measurement(1))) == {"other_boundary": 1}


@pytest.mark.parametrize("joules_per_token", [-1.0, 0.0, 1e308, 5e-324])
def test_no_model_is_too_absurd(tmp_path: Path, make_measurement: Make, joules_per_token: float) -> None:
    """Nothing, less than nothing, more than a float holds: the daemon goes on."""
    file = write_models(tmp_path, make_model(joules_per_token=joules_per_token))
    state = compare(file, make_measurement(1), make_measurement(2)).state()
    assert state.outcomes["compared"] + state.outcomes["outside_range"] == 2
    assert all(math.isfinite(chart.ratio) for chart in state.charts)


def test_each_system_has_its_own_model(tmp_path: Path, make_measurement: Make) -> None:
    file = write_models(tmp_path, make_model(system="1× old"), make_model(system="1× new", joules_per_token=2.5))
    (chart,) = compare(file, make_measurement(1, system="1× new")).state().charts
    assert (chart.ratio, chart.system) == (pytest.approx(2.0), "1× new")


def test_a_model_without_a_system_is_taken_for_any(tmp_path: Path, make_measurement: Make) -> None:
    assert outcomes(compare(write_models(tmp_path, make_model(system="")), make_measurement(1))) == {"compared": 1}


def test_there_is_a_bound_to_what_metrics_tell_of(tmp_path: Path, make_measurement: Make) -> None:
    names = [f"model-{number}" for number in range(MAX_MODEL_NAMES + 5)]
    file = write_models(tmp_path, *map(make_model, names))
    comparison = compare(file, *(make_measurement(n, model_name=name) for n, name in enumerate(names)))
    assert outcomes(comparison) == {"compared": MAX_MODEL_NAMES, "too_many_models": 5}
    assert len(comparison.state().charts) == MAX_MODEL_NAMES


def test_a_model_on_many_systems_counts_as_many(tmp_path: Path, make_measurement: Make) -> None:
    systems = [f"{number}× card" for number in range(1, MAX_MODEL_NAMES + 6)]
    file = write_models(tmp_path, *(make_model(system=system) for system in systems))
    comparison = compare(file, *(make_measurement(n, system=system) for n, system in enumerate(systems)))
    assert outcomes(comparison) == {"compared": MAX_MODEL_NAMES, "too_many_models": 5}


def test_every_request_has_one_outcome(tmp_path: Path, make_measurement: Make) -> None:
    comparison = compare(write_models(tmp_path), *(make_measurement(n, input_tokens=n) for n in range(20)))
    assert sum(comparison.state().outcomes.values()) == 20
    assert tuple(comparison.state().outcomes) == OUTCOMES


def test_a_batch_is_compared_with_as_many_requests_in_one(tmp_path: Path, make_measurement: Make) -> None:
    """Steps of 8 J that four requests share, and 2 J a token: of 4 times 5 tokens 4 · 5 · (8/4 + 2) = 80 J."""
    batched = {
        "form": "batched",
        "terms": ("p0", "p1", "p2", "d0", "d2", "d1"),
        "coefficients": np.array([0.0, 0.0, 0.0, 8.0, 2.0, 0.0]),
        "std_errors": np.full(6, np.nan),
        "covariance": np.full((6, 6), np.nan),
        "batch_range": (1, 4),
    }
    file = write_models(tmp_path, make_model(energy=batched))
    comparison = compare(
        file, *(make_measurement(size, batch_size=size, input_tokens=16, gpu_energy_j=80.0) for size in (4, 8))
    )
    (chart,) = comparison.state().charts
    assert (chart.ratio, chart.spans) == (pytest.approx(1.0), 1)
    assert outcomes(comparison) == {"compared": 1, "outside_range": 1}


def test_a_model_claims_what_its_held_out_error_is() -> None:
    unknown = HeldOut(None, None, None, None)
    # Of an error of 5 %, replicates that scatter by 5 % explain the mean absolute value of a normal 5 %: √(2/π) of it.
    for mape, noise, tolerance in (
        (0.3, None, 0.3),
        (0.001, None, 0.02),
        (0.05, 0.05, 0.05 * math.sqrt(1 - 2 / math.pi)),
        (0.05, 0.2, 0.02),
        (1e308, 1e308, 1e6 * math.sqrt(1 - 2 / math.pi)),
    ):
        fit = make_fit(1.0, heldout=HeldOut(mape, mape, mape, 0), replicate_noise=noise)
        assert math.expm1(tolerance_of(fit)) == pytest.approx(tolerance)
    assert math.expm1(tolerance_of(make_fit(1.0, heldout=unknown))) == pytest.approx(0.1)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_changed_file_is_taken_and_what_stays_keeps_its_chart(tmp_path: Path, make_measurement: Make) -> None:
    clock = Clock()
    file = write_models(tmp_path, make_model("same"), make_model("refitted"))
    comparison = Comparison(file, now_s=clock)
    for name in ("same", "refitted"):
        comparison.add(make_measurement(1, model_name=name, gpu_energy_j=120.0))
    assert len(comparison.state().charts) == 2
    save_models([make_model("same"), make_model("refitted", joules_per_token=6.0)], file)
    clock.now_s = LOOK_S
    assert [chart.model_name for chart in comparison.state().charts] == ["same"]
    comparison.add(make_measurement(2, model_name="refitted", gpu_energy_j=120.0))
    assert {chart.model_name: round(chart.ratio, 6) for chart in comparison.state().charts} == {
        "same": 1.2,
        "refitted": 1.0,
    }


def test_a_file_that_cannot_be_read_leaves_the_former_models_in_force(tmp_path: Path, make_measurement: Make) -> None:
    clock, told = Clock(), list[str]()
    file = write_models(tmp_path)
    comparison = Comparison(file, told.append, clock)
    file.write_text("{")
    clock.now_s = LOOK_S
    comparison.add(make_measurement(1))
    assert outcomes(comparison) == {"compared": 1}
    (said,) = told
    assert "is not JSON" in said
    clock.now_s = 2 * LOOK_S
    comparison.state()
    assert len(told) == 1, "once is enough"
    file.unlink()
    clock.now_s = 3 * LOOK_S
    comparison.state()
    assert len(told) == 2


def test_at_the_start_a_file_must_be_sound(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--models = .*: cannot be read"):
        Comparison(tmp_path / "none.json")
