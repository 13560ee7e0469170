"""Pictures of residuals: one a target and model, whatever the rows are."""

from __future__ import annotations

import pandas as pd

from llmpower.modelling import fit
from llmpower.modelling.forms import Batched
from llmpower.report import residual_plots

LENGTHS = [8, 64, 512]


def batches() -> pd.DataFrame:
    rows = []
    for τin in LENGTHS:
        for τout in LENGTHS:
            for size in (1, 2, 8):
                joules = size * float(Batched().design(τin, τout, size) @ [60, 0.2, 1e-5, 15, 0.5, 0.01])
                rows.append((size * τin, size * τout, size, joules / 300, joules))
    columns = ["input_tokens", "output_tokens", "batch_size", "runtime_s", "gpu_energy_j"]
    return pd.DataFrame(rows, columns=columns).assign(model_name="org/a", system="1× card")


def test_each_target_of_each_model_has_a_picture() -> None:
    rows = pd.concat([batches(), batches().assign(model_name="b", simulated=True)])
    plots = dict(residual_plots(fit(rows), rows))
    assert list(plots) == [
        "residuals-b-1-card-energy",
        "residuals-b-1-card-runtime",
        "residuals-org-a-1-card-energy",
        "residuals-org-a-1-card-runtime",
    ]
    assert all(svg.startswith("<svg") for svg in plots.values())
    assert "SIMULATED" in plots["residuals-b-1-card-energy"]
    assert "SIMULATED" not in plots["residuals-org-a-1-card-energy"]
    assert "predicted energy [J]" in plots["residuals-b-1-card-energy"]


def test_the_same_rows_give_the_same_picture() -> None:
    rows = batches()
    models = fit(rows, group_by=["model_name", "batch_size"], form="cached")
    options = {"group_by": ["model_name", "batch_size"]}
    assert list(residual_plots(models, rows, **options)) == list(residual_plots(models, rows, **options))


def test_models_without_rows_have_none() -> None:
    rows = batches()
    assert list(residual_plots(fit(rows), rows.assign(model_name="other"))) == []
