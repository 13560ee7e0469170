from __future__ import annotations

import errno
import time
from pathlib import Path

import numpy as np
import pytest

from llmpower.exceptions import DeviceError
from llmpower.sampling import EPOCH, Sampler, simulation

RANGE_UJ = 65_532_610_987


def make_zone(root: Path, zone: str, name: str, energy_uj: int) -> Path:
    directory = root / zone
    directory.mkdir(parents=True)
    (directory / "name").write_text(f"{name}\n")
    (directory / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (directory / "energy_uj").write_text(f"{energy_uj}\n")
    return directory / "energy_uj"


def open_on(root: Path) -> Sampler:
    with simulation(load="constant:100"):
        return Sampler(backend="simulated", powercap_root=root, rate_hz=200)


def test_packages_and_dram_are_taken_and_their_parts_are_not(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    make_zone(tmp_path, "intel-rapl:0:0", "core", 1)
    make_zone(tmp_path, "intel-rapl:0:1", "dram", 1)
    make_zone(tmp_path, "intel-rapl:1", "package-1", 1)
    make_zone(tmp_path, "intel-rapl:2", "psys", 1)
    sampler = open_on(tmp_path)
    kinds = {device.uuid: device.kind for device in sampler.devices if device.kind != "gpu"}
    sampler.close()
    assert kinds == {"intel-rapl:0": "cpu_package", "intel-rapl:0:1": "dram", "intel-rapl:1": "cpu_package"}


def test_a_counter_that_wraps_goes_on_growing(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 1_000_000)
    with open_on(tmp_path) as sampler:
        time.sleep(0.15)
        counter.write_text("500000\n")
        time.sleep(0.15)
        samples = sampler.drain()
    package = samples[(samples["device"] == 1) & (samples["status"] == 0)]
    assert package["value"][0] == 0
    assert package["value"][-1] == 1_500_000


def test_a_counter_that_goes_back_by_more_than_its_range_begins_anew(tmp_path: Path) -> None:
    """As where its range is not known: how far it had gone is lost, and the reads on both sides are apart."""
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 3_000_000)
    (counter.parent / "max_energy_range_uj").unlink()
    with open_on(tmp_path) as sampler:
        time.sleep(0.1)
        counter.write_text("1000000\n")
        time.sleep(0.1)
        counter.write_text("1500000\n")
        time.sleep(0.1)
        samples = sampler.drain()
    package = samples[samples["device"] == 1]
    assert np.count_nonzero(package["status"] == EPOCH) == 1
    assert set(package["status"]) == {0, EPOCH}
    assert package["value"][-1] == 500_000


def test_more_zones_than_are_kept_are_refused_and_none_is_left_out(tmp_path: Path) -> None:
    for number in range(32):
        make_zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", 1)
    sampler = open_on(tmp_path)
    assert len(sampler.devices) == 1 + 32
    sampler.close()
    make_zone(tmp_path, "intel-rapl:32", "package-32", 1)
    with pytest.raises(DeviceError, match=r"more than 32 RAPL zones in .*; --powercap-root= leaves"):
        open_on(tmp_path)


def test_a_counter_that_cannot_be_opened_is_a_status_and_not_a_zero(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    counter.unlink()
    counter.symlink_to(counter)  # not even root can open this one
    with open_on(tmp_path) as sampler:
        time.sleep(0.1)
        errors = sampler.statistics().read_errors
    assert errors.keys() == {("cpu_package", -errno.ELOOP)}


def test_a_counter_that_holds_no_number_is_a_status(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("nonsense\n")
    with open_on(tmp_path) as sampler:
        time.sleep(0.1)
        errors = sampler.statistics().read_errors
    assert errors.keys() == {("cpu_package", -errno.EINVAL)}


def test_the_same_package_by_another_path_is_not_counted_twice(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    make_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1)
    make_zone(tmp_path, "intel-rapl:1", "package-0-die-1", 1)
    sampler = open_on(tmp_path)
    assert [device.uuid for device in sampler.devices[1:]] == ["intel-rapl:0", "intel-rapl:1"]
    sampler.close()


def test_a_zone_that_vanishes_and_comes_back_is_read_on_in_a_new_epoch(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    with open_on(tmp_path) as sampler:
        time.sleep(0.1)
        counter.rename(tmp_path / "old")
        (tmp_path / "old").write_text("")  # as a zone that is gone reads: not at all
        time.sleep(0.1)
        counter.write_text("7\n")
        samples = sampler.drain()
        deadline_s = time.monotonic() + 60
        while not (samples["status"] == EPOCH).any():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
            samples = np.concatenate((samples, sampler.drain()))
    package = samples[samples["device"] == 1]
    (mark,) = np.flatnonzero(package["status"] == EPOCH)
    assert (package["status"][:mark] < 0).any()
    assert (package["status"][mark + 1 :] == 0).all()


def test_a_permission_that_is_given_later_shows_at_once(tmp_path: Path) -> None:
    counter = make_zone(tmp_path, "intel-rapl:0", "package-0", 5)
    counter.rename(tmp_path / "real")
    counter.symlink_to(counter)  # root may read everything: stands for what only root may read
    with open_on(tmp_path) as sampler:
        time.sleep(0.1)
        counter.unlink()
        (tmp_path / "real").rename(counter)
        deadline_s = time.monotonic() + 60
        while not ((samples := sampler.drain())["status"][samples["device"] == 1] == 0).any():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert EPOCH not in samples["status"], "there was nothing before it to be compared with"


def test_no_powercap_is_no_failure(tmp_path: Path) -> None:
    sampler = open_on(tmp_path / "absent")
    assert [device.kind for device in sampler.devices] == ["gpu"]
    sampler.close()
