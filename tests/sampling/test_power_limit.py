"""Above which power a card slows itself down, as its driver reports it now."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpower.exceptions import LlmpowerError
from llmpower.sampling import Sampler, library_without, simulation


def test_each_card_has_its_own_and_a_processor_none(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "10")):
        (zone / name).write_text(f"{text}\n")
    with simulation(gpus=2), Sampler(backend="simulated", powercap_root=tmp_path) as sampler:
        assert [sampler.power_limit_w(device) for device in sampler.devices] == [400.0, 400.0, None]


def test_a_driver_without_the_call_does_not_tell(tmp_path: Path) -> None:
    library = library_without(("nvmlDeviceGetEnforcedPowerLimit",), tmp_path)
    with simulation(), Sampler(nvml_library=str(library), powercap_root=None) as sampler:
        assert sampler.power_limit_w(sampler.devices[0]) is None


def test_after_the_end_nobody_is_asked() -> None:
    sampler = Sampler(backend="simulated", powercap_root=None)
    sampler.close()
    with pytest.raises(LlmpowerError, match="closed"):
        sampler.power_limit_w(sampler.devices[0])
