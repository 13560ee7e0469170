from __future__ import annotations

import time
from pathlib import Path

import pytest

from llmpower.spans.clocks import read_clock, read_namespace_offset_ns, read_utc_offset

UTC_OFFSET_NS = 1_767_225_600 * 10**9


def process(directory: Path, own: str, children: str, offsets: str | None) -> Path:
    """A process as /proc shows it."""
    (directory / "ns").mkdir()
    (directory / "stat").touch()
    for name, target in (("time", own), ("time_for_children", children)):
        (directory / "ns" / name).symlink_to(target)
    if offsets is not None:
        (directory / "timens_offsets").write_text(offsets)
    return directory


def test_this_process_tells_its_clock() -> None:
    clock = read_clock()
    assert clock.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert clock.utc_offset_ns == pytest.approx(time.time_ns() - time.monotonic_ns(), abs=10**9)


def test_the_kernel_tells_by_how_much_a_namespace_shifts_the_clock(tmp_path: Path) -> None:
    text = "monotonic       -86400  500000000\nboottime         7 0\n"
    assert read_namespace_offset_ns(process(tmp_path, "time:[1]", "time:[1]", text)) == -86_399_500_000_000


@pytest.mark.parametrize("text", [None, "", "monotonic x y\n", "boottime 7 0\n", "monotonic 1\n"])
def test_what_the_kernel_does_not_tell_is_not_known(tmp_path: Path, text: str | None) -> None:
    assert read_namespace_offset_ns(process(tmp_path, "time:[1]", "time:[1]", text)) is None


def test_a_process_that_left_its_childrens_namespace_is_not_told_its_own(tmp_path: Path) -> None:
    found = process(tmp_path, "time:[1]", "time:[2]", "monotonic 5 0\n")
    assert read_namespace_offset_ns(found) is None


def test_a_kernel_without_time_namespaces_has_one_clock(tmp_path: Path) -> None:
    assert read_namespace_offset_ns(tmp_path) is None, "nor is there a /proc"
    (tmp_path / "stat").touch()
    assert read_namespace_offset_ns(tmp_path) == 0


def test_what_the_offset_can_be_off_by_is_half_of_what_the_closest_reading_took() -> None:
    ticks = iter([0, 1000, 5000, 5100, 9000, 9900])
    offset = read_utc_offset(lambda: next(ticks), lambda: UTC_OFFSET_NS)
    assert offset == (UTC_OFFSET_NS - 5050, 50)
    now = read_utc_offset()
    assert 0 <= now.error_ns < 10**9
