"""Pictures of residuals: one per target and model, whatever the rows are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from llmpower.modelling import fit
from llmpower.report import residual_charts, save_chart
from llmpower.report.judged import judge
from llmpower.report.residuals import LEAST_POINTS, MOST_POINTS, predicted_figures


def rows_of(name: str, simulated: bool = False, n: int = 81) -> pd.DataFrame:
    random = np.random.default_rng(0)
    τin, τout = random.integers(8, 2048, n), random.integers(8, 2048, n)
    joules = 5 + 0.1 * τin + 2.0 * τout
    columns = {"input_tokens": τin, "output_tokens": τout, "runtime_s": joules / 300, "gpu_energy_j": joules}
    return pd.DataFrame(columns).assign(model_name=name, system="1× card", simulated=simulated)


def test_each_target_of_each_model_has_a_picture(tmp_path: Path) -> None:
    rows = pd.concat([rows_of("org/a"), rows_of("b", simulated=True)])
    charts = dict(residual_charts(fit(rows, form="cached"), rows))
    assert list(charts) == [
        "residuals-b-1-card-energy",
        "residuals-b-1-card-runtime",
        "residuals-org-a-1-card-energy",
        "residuals-org-a-1-card-runtime",
    ]
    drawn = []
    for name in ("residuals-b-1-card-energy", "residuals-org-a-1-card-runtime"):
        save_chart(charts[name], tmp_path / "residuals.svg", "--report")
        drawn.append((tmp_path / "residuals.svg").read_text(encoding="utf-8"))
    assert "SIMULATED" in drawn[0]
    assert "SIMULATED" not in drawn[1]
    assert "predicted energy [J]" in drawn[0]
    assert "predicted runtime [s]" in drawn[1]


def test_models_without_rows_have_none() -> None:
    rows = rows_of("a")
    assert list(residual_charts(fit(rows, form="cached"), rows.assign(model_name="other"))) == []


def test_many_rows_become_few_points_and_none_is_lost() -> None:
    rows = pd.concat([rows_of(f"model {number}", n=3000) for number in range(3)])
    energy, _ = predicted_figures(judge(fit(rows, form="cached"), rows))
    points = energy.table.rows
    assert len(points) <= max(MOST_POINTS, 3 * LEAST_POINTS)
    assert sum(int(point[4]) for point in points) == len(rows)  # type: ignore[arg-type]
    assert f"({len(points):,} points of 9,000 rows)" in energy.caption
    # The form is the truth here, so each point's measured median is what is predicted.
    np.testing.assert_allclose([point[5] for point in points], [point[8] for point in points], rtol=1e-6)  # type: ignore[arg-type]


def test_the_band_is_where_errors_are_within_the_limit() -> None:
    random = np.random.default_rng(5)
    rows = rows_of("a", n=400)
    rows["gpu_energy_j"] *= random.lognormal(0, 0.4, len(rows))
    (model,) = fit(rows, form="cached")
    energy, _ = judge([model], rows)
    chart = next(predicted_figures([energy])).panels[0].chart.to_dict()
    band = pd.DataFrame(chart["datasets"][chart["layer"][0]["data"]["name"]])
    p95 = model.energy.heldout.p95_ape
    assert p95 is not None
    assert 0.5 < p95 < 1
    least, most = (np.interp(energy.predicted, band["predicted"], band[end]) for end in ("least", "most"))
    drawn = (least <= energy.measured) & (energy.measured <= most)
    # Of the ends of the band the picture shows a part.
    whole = (least > band["least"].min()) & (most < band["most"].max())
    assert whole.sum() > 100
    within = np.abs(energy.predicted - energy.measured) / energy.measured <= p95
    np.testing.assert_array_equal(drawn[whole], within[whole])
