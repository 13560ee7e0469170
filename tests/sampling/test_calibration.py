from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpower.sampling import (
    SAMPLE_DTYPE,
    Calibrator,
    calibrate,
    read_calibrations,
    with_periods,
    write_calibrations,
)
from llmpower.sampling.calibrator import WINDOW_S
from llmpower.types import Device, Field

S = 1_000_000_000
MS = 1_000_000
GPU = Device("GPU-a", 0, "card", "gpu", False, True, True, "550.1")
PACKAGE = Device("intel-rapl:0", 1, "package-0", "cpu_package", False, True, False, "")


def reads(
    seconds: float,
    period_ms: float,
    *,
    every_ms: float = 1.0,
    jitter_ms: float = 0.0,
    field: Field = Field.ENERGY,
    start_ns: int = 0,
    device: int = 0,
) -> NDArray[np.void]:
    """What polling at even distances sees of a counter whose update k comes at k·T + e_k; each call takes 10 µs."""
    before_ns = start_ns + np.arange(0, round(seconds * S), round(every_ms * MS))
    number = np.arange(0, before_ns[-1] / (period_ms * MS) + 2)
    moments_ns = (number * period_ms + np.random.default_rng(1).normal(0.0, jitter_ms, len(number))) * MS
    samples = np.zeros(len(before_ns), SAMPLE_DTYPE)
    samples["before_ns"], samples["after_ns"] = before_ns, before_ns + 10_000
    samples["value"] = np.searchsorted(moments_ns, before_ns + 5_000) * 1000
    samples["field"], samples["device"] = field, device
    return samples


@pytest.mark.parametrize(("period_ms", "jitter_ms"), [(100.0, 1.5), (101.0, 0.0), (20.0, 0.4)])
def test_period_and_jitter_are_those_of_the_card(period_ms: float, jitter_ms: float) -> None:
    found = calibrate(reads(20.0, period_ms, jitter_ms=jitter_ms), 0, Field.ENERGY)
    assert found.period_s == pytest.approx(period_ms / 1e3, rel=1e-3)
    assert found.jitter_s == pytest.approx(jitter_ms / 1e3, rel=0.25, abs=2e-4)
    assert found.latency_p50_s == found.latency_p99_s == pytest.approx(10e-6)
    assert found.edge_width_s == pytest.approx(1.01e-3)


def test_what_polling_leaves_open_is_no_jitter() -> None:
    # Reads 13 ms apart leave open 3.8 ms, as a standard deviation, of an update that keeps to its grid exactly.
    found = calibrate(reads(60.0, 97.0, every_ms=13.0), 0, Field.ENERGY)
    assert found.jitter_s is not None
    assert found.jitter_s < 1e-3


def test_updates_that_were_seen_badly_say_nothing_of_the_grid() -> None:
    samples = reads(20.0, 100.0)
    # The sampler was held up from 5 ms before every tenth update to 45 ms behind it.
    held_up = (samples["before_ns"] + 5 * MS) % (1000 * MS) < 50 * MS
    found = calibrate(samples[~held_up], 0, Field.ENERGY)
    assert found.period_s == pytest.approx(0.1, rel=1e-3)
    assert found.jitter_s is not None
    assert found.jitter_s < 1e-3


def test_coarse_polling_still_finds_the_period_and_says_how_closely() -> None:
    found = calibrate(reads(10.0, 100.0, every_ms=13.0), 0, Field.ENERGY)
    assert found.period_s == pytest.approx(0.1, rel=5e-3)
    assert found.edge_width_s == pytest.approx(13e-3, rel=0.01)


def test_a_value_that_moves_with_every_read_shows_no_period() -> None:
    assert calibrate(reads(5.0, 1.0, every_ms=20.0), 0, Field.ENERGY).period_s is None


def test_a_skipped_update_does_not_move_the_grid() -> None:
    samples = reads(10.0, 100.0)
    late = (samples["value"] % 20_000 == 0) & (samples["value"] > 0)
    samples["value"][late] -= 1000
    assert calibrate(samples, 0, Field.ENERGY).period_s == pytest.approx(0.1, rel=1e-3)


def test_a_device_is_calibrated_after_three_seconds_of_samples() -> None:
    calibrator = Calibrator([GPU, PACKAGE])
    power = {"field": Field.POWER_INSTANT}
    assert calibrator.take(reads(2.0, 100.0)) == []
    assert calibrator.take(reads(2.0, 100.0, start_ns=2 * S)) == ["GPU-a"]
    assert calibrator.found["GPU-a"][Field.ENERGY].period_s == pytest.approx(0.1, rel=1e-3)
    # A power that does not move is waited for, and found when it does.
    assert calibrator.take(reads(9.0, 1e9, start_ns=4 * S, **power)) == []
    assert calibrator.take(reads(9.0, 101.0, start_ns=13 * S, **power)) == ["GPU-a"]
    device = with_periods(GPU, calibrator.found["GPU-a"])
    assert device.energy_period_s == pytest.approx(0.1, rel=1e-3)
    assert device.power_period_s == pytest.approx(0.101, rel=1e-3)
    assert calibrator.take(reads(9.0, 1.0, every_ms=20.0, device=1)) == [], "a CPU package shows no period"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    calibrator = Calibrator([GPU])
    calibrator.take(reads(4.0, 100.0))
    write_calibrations(tmp_path / "calibration.json", [GPU], calibrator.found)
    return tmp_path / "calibration.json"


def test_what_was_found_outlives_a_restart(file: Path) -> None:
    kept = read_calibrations(file, [GPU])
    assert kept["GPU-a"][Field.ENERGY].period_s == pytest.approx(0.1, rel=1e-3)
    assert Calibrator([GPU], kept).take(reads(9.0, 50.0)) == [], "and is not asked for again"


@pytest.mark.parametrize("change", [{"driver_version": "560"}, {"uuid": "GPU-b"}, {"name": "another card"}])
def test_another_driver_or_card_is_calibrated_anew(change: dict[str, str], file: Path) -> None:
    changed: Any = replace(GPU, **change)  # type: ignore[arg-type]  # of fields that are all text
    assert read_calibrations(file, [changed]) == {}
    assert Calibrator([changed], {}).take(reads(4.0, 100.0)) == [changed.uuid]


def test_a_card_that_is_away_keeps_its_entry_and_a_new_driver_replaces_it(file: Path) -> None:
    other, updated = replace(GPU, uuid="GPU-b"), replace(GPU, driver_version="560")
    calibrator = Calibrator([other])
    calibrator.take(reads(4.0, 20.0))
    write_calibrations(file, [other], calibrator.found)
    assert read_calibrations(file, [GPU, other]).keys() == {"GPU-a", "GPU-b"}
    write_calibrations(file, [updated], {"GPU-a": calibrator.found["GPU-b"]})
    assert read_calibrations(file, [GPU, updated]).keys() == {"GPU-a"}
    assert len(json.loads(file.read_text("utf-8"))["devices"]) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"schema": "llmpower.calibration/9", "devices": []}',
        '{"schema": "llmpower.calibration/1", "devices": [{"uuid": "GPU-a"}]}',
        '{"schema": "llmpower.calibration/1", "devices": [{"uuid": "GPU-a", "name": "card", "driver_version": "550.1", '
        '"fields": {"energy": {"period_s": -1, "updates": 9, "latency_p50_s": 0, "latency_p99_s": 0}}}]}',
        '{"schema": "llmpower.calibration/1", "devices": [{"uuid": "GPU-a", "name": "card", "driver_version": "550.1", '
        '"fields": {"energy": {"period_s": 1, "updates": 9, "latency_p50_s": 0, "latency_p99_s": 0, '
        '"edge_width_s": "1"}}}]}',
    ],
    ids=["empty", "torn", "list", "deep", "another version", "no fields", "below 0", "text"],
)
def test_a_file_that_cannot_be_used_is_reported_and_redone(
    content: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = read_calibrations(file, [GPU])
    file.write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert read_calibrations(file, [GPU]) == {}
    assert "calibrated again" in caplog.text
    assert str(file) in caplog.text
    write_calibrations(file, [GPU], kept)
    assert read_calibrations(file, [GPU]) == kept


def test_no_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_calibrations(tmp_path / "none.json", [GPU]) == {}
    assert caplog.text == ""


def test_a_value_that_never_moves_is_watched_for_hours_without_filling_the_memory() -> None:
    calibrator = Calibrator([GPU])
    still = reads(5.0, 100.0)
    still["value"] = 7
    for number in range(100):
        later = still.copy()
        for column in ("before_ns", "after_ns"):
            later[column] += number * 5 * S
        assert calibrator.take(later) == []
    kept = sum(len(samples) for samples in calibrator._samples.values())
    assert kept <= (WINDOW_S + 5.0) * 1000
