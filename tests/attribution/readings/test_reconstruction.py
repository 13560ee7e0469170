"""The course of the power from readings: what it says of parts, and whose processor time it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from llmpower.attribution.readings.parts import FORM, Parts, mixed, parts
from llmpower.attribution.readings.reconstruction import Known, Reconstruction, reconstruct
from llmpower.attribution.readings.sensor import Sensor


def test_parts_vary_as_the_covariance_of_the_stretches_in_them_says() -> None:
    sensor, bounds_s = Sensor(0.1, 0.05), np.linspace(0.0, 3.0, 151)
    shown_s = np.arange(0.2, 3.0, 0.1)
    kinds = np.repeat([0, 1, 0], 50)
    known = Known(*(np.full(150, each) for each in (200.0, 900.0, 400.0, 0.5, 100.0)))
    seen = reconstruct(sensor, bounds_s, kinds, known, shown_s, np.zeros(28), 0.005, np.full(28, 200.0))
    cuts = [20, 50, 70, 100, 130]
    found = parts(seen, bounds_s, bounds_s[cuts], caution=1.0)

    covariance_w2 = seen.prior_w2 - seen.told_w.T @ seen.told_w
    energies = np.zeros((len(cuts) + 1, 150))  # of each part, the first and the last outside the cuts, as sums
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, 150], strict=True)):
        energies[number, start:end] = 3.0 / 150
    joint_j2 = energies @ covariance_w2 @ energies.T
    edge_j2 = np.maximum(-np.diag(joint_j2, 1), 0.0)
    assert edge_j2.min() > 0
    # Nothing surprised, so all is enlarged alike.
    assert found.edge_j2 == pytest.approx(FORM * edge_j2)
    var_j2 = np.diag(joint_j2)[1:-1]
    assert found.own_j2 == pytest.approx(FORM * np.maximum(var_j2 - edge_j2[:-1] - edge_j2[1:], 0.1 * var_j2))


def test_parts_in_a_row_have_the_variance_of_their_sum_and_none_is_free_of_any() -> None:
    # Four stretches of a second; the two in the middle are asked for.
    covariance_w2 = np.array(
        [[9.0, -1.0, 0.0, 0.0], [-1.0, 4.0, -2.0, 0.0], [0.0, -2.0, 5.0, -1.0], [0.0, 0.0, -1.0, 9.0]]
    )
    # One reading of each, none of which surprised; variances are enlarged by FORM, 1.2.
    seen = Reconstruction(np.full(4, 100.0), covariance_w2, np.zeros((4, 4)), np.zeros(4), np.zeros(4), np.eye(4))
    found = parts(seen, np.arange(5.0), np.array([1.0, 2.0, 3.0]), 1.0)
    assert found.energy_j.tolist() == [0.0, 100.0, 200.0]
    both_j2 = found.own_j2.sum() + found.edge_j2[0] + found.edge_j2[-1]
    assert both_j2 == pytest.approx(1.2 * (4 + 5 - 2 * 2))
    # A part that errs as little as its neighbours make up for still errs.
    covariance_w2[1, 2] = covariance_w2[2, 1] = -3.5
    seen = Reconstruction(np.full(4, 100.0), covariance_w2, np.zeros((4, 4)), np.zeros(4), np.zeros(4), np.eye(4))
    assert parts(seen, np.arange(5.0), np.array([1.0, 2.0, 3.0]), 1.0).own_j2[0] == pytest.approx(0.1 * 1.2 * 4)


def test_what_opinions_differ_by_is_uncertain_too() -> None:
    one, other = (Parts(np.array([0.0, e]), np.array([1.0, 1.0]), np.array([v])) for e, v in ((10.0, 2.0), (14.0, 4.0)))
    found = mixed(np.array([0.25, 0.75]), [one, other])
    assert found.energy_j == pytest.approx([0.0, 13.0])
    assert found.edge_j2 == pytest.approx([1.0, 1.0])
    # Law of total variance: the mean of the variances, and the variance of the means.
    assert found.own_j2 == pytest.approx([0.25 * 2 + 0.75 * 4 + 0.25 * 3.0**2 + 0.75 * 1.0**2])


def test_what_readings_tell_is_kriging() -> None:
    """K·H·C with K written out as in the books."""
    sensor, bounds_s = Sensor(0.025, 0.025), np.linspace(0.0, 7.0, 281)
    shown_s, kinds = np.arange(0.1, 7.0, 0.1), np.zeros(280, np.int64)
    known = Known(*(np.full(280, each) for each in (200.0, 900.0, 400.0, 0.5, 100.0)))
    read_w = 200 + 30 * np.sin(shown_s)
    seen = reconstruct(sensor, bounds_s, kinds, known, shown_s, np.zeros(69), 0.005, read_w)
    c, h = seen.prior_w2, sensor.shares(shown_s, bounds_s)
    r = (0.001 * read_w) ** 2 + 0.05**2 + (sensor.rates(shown_s, bounds_s) @ seen.power_w * 0.005) ** 2
    k = c @ h.T @ np.linalg.inv(h @ c @ h.T + np.diag(r))
    assert seen.power_w == pytest.approx(known.mean_w + k @ (read_w - h @ known.mean_w), rel=1e-3)
    assert seen.told_w.T @ seen.told_w == pytest.approx(k @ h @ c, rel=1e-2, abs=1.0)


@pytest.mark.parametrize("period_s", [0.1, 0.02])
def test_no_other_thread_computes(period_s: float) -> None:
    """Those of a BLAS spin while they wait, at the cost of the program in which it runs, and of the figures' time."""
    program = """
        import time
        import numpy as np
        from llmpower.attribution.readings.parts import parts
        from llmpower.attribution.readings.reconstruction import Known, reconstruct
        from llmpower.attribution.readings.sensor import Sensor

        # Four seconds around a chunk of two.
        bounds_s, shown_s = np.linspace(0.0, 6.0, 241), np.arange(0.1, 6.0, PERIOD_S)
        known = Known(*(np.full(240, each) for each in (200.0, 900.0, 400.0, 0.5, 100.0)))
        time.sleep(0.3)  # threads that begin spin too
        own_s, all_s = time.thread_time(), time.process_time()
        while time.thread_time() < own_s + 0.5:
            kinds = np.repeat([0, 1], 120)
            seen = reconstruct(Sensor(0.1, 0.05), bounds_s, kinds, known, shown_s, shown_s, 0.005, shown_s)
            parts(seen, bounds_s, bounds_s[[20, 120, 200]], 1.0)
        own_s, all_s = time.thread_time() - own_s, time.process_time() - all_s
        print(all_s / own_s)
    """
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).replace("PERIOD_S", str(period_s))],
        env=environ | {"OPENBLAS_NUM_THREADS": "4"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 1.1
