"""How warm a card is, as its driver reports it now."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llmpower.exceptions import LlmpowerError
from llmpower.sampling import Sampler, library_without, simulation

CALLS = ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")


def test_a_card_has_one_and_a_processor_none(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "10")):
        (zone / name).write_text(f"{text}\n")
    settings = {"gpus": 2, "load": "constant:240", "fault": "no_temperature@1"}
    with simulation(**settings), Sampler(backend="simulated", powercap_root=tmp_path) as sampler:
        # Air of 25 °C and 45 more at the A100's 400 W, in whole degrees.
        assert [sampler.temperature_c(device) for device in sampler.devices] == [52.0, None, None]


def test_it_follows_the_power(tmp_path: Path) -> None:
    load = tmp_path / "load"
    load.write_text("0.1 0\n3600 400\n")  # nearly always at full power, which says nothing yet of how warm it is
    with simulation(load=f"file:{load}", thermal_s=0.05), Sampler(backend="simulated", powercap_root=None) as sampler:
        deadline_s = time.monotonic() + 30
        while sampler.temperature_c(sampler.devices[0]) != 70.0:
            assert time.monotonic() < deadline_s


@pytest.mark.parametrize(("absent", "found"), [(CALLS[:1], 52.0), (CALLS[1:], 52.0), (CALLS, None)])
def test_either_call_will_do(tmp_path: Path, absent: tuple[str, ...], found: float | None) -> None:
    library = library_without(absent, tmp_path)
    with simulation(load="constant:240"), Sampler(nvml_library=str(library), powercap_root=None) as sampler:
        assert sampler.temperature_c(sampler.devices[0]) == found


def test_after_the_end_nobody_is_asked() -> None:
    sampler = Sampler(backend="simulated", powercap_root=None)
    sampler.close()
    with pytest.raises(LlmpowerError, match="closed"):
        sampler.temperature_c(sampler.devices[0])
