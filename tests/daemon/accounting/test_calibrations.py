"""What calibrations take of the loop's time."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

from engine_bench import GPU, Bench, S

from llmpower.daemon.accounting.calibrations import Calibrations
from llmpower.sampling.calibrator import WATCH_S


def test_a_disk_that_hangs_does_not_hold_up_who_calibrates(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    bench = Bench()
    calibrations = Calibrations(path, (GPU,), bench.engine)
    # Whoever opens it waits until somebody opens its other end.
    os.mkfifo(path)
    samples = bench.samples(GPU.index, bench.now_ns + round(2 * WATCH_S * S))
    taking = Thread(target=calibrations.take, args=(samples,), daemon=True)
    taking.start()
    taking.join(30.0)
    assert not taking.is_alive()
    assert bench.engine._devices[0].energy_period_s is not None, "it is known before it is written"
    path.open("wb").close()
    assert calibrations._keeping is not None
    calibrations._keeping.join(30.0)
    assert bench.engine.last_error is not None
    assert bench.engine.last_error.startswith("calibrations cannot be kept"), "a pipe is no file to replace"
