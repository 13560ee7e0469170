"""The analysis of variance against statsmodels, and what cannot be analysed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from llmpower.exceptions import FitError
from llmpower.modelling import anova

SMALL = ["Falcon-7B", "Llama-2-7B", "Mistral-7B"]


def test_the_published_row(paper_data: Path) -> None:
    grid = pd.read_csv(paper_data / "paper" / "grid.csv")
    energy, runtime = anova(grid[grid["model_name"].isin(SMALL)])
    assert energy.n_obs == 243
    assert [f"{effect.f_statistic:.2f}" for effect in energy.effects] == ["15.86", "126.63", "4.53"]
    assert [f"{effect.f_statistic:.2f}" for effect in runtime.effects] == ["12.97", "104.98", "3.88"]


def unbalanced(seed: int) -> pd.DataFrame:
    """A 3 × 4 grid with repeats, some of them missing, one cell altogether."""
    generator = np.random.default_rng(seed)
    cells = generator.choice([(i, o) for i in (8, 64, 512) for o in (8, 16, 64, 256) if (i, o) != (8, 16)], 60)
    energy = 10 + cells[:, 0] * 0.1 + cells[:, 1] + 1e-3 * cells.prod(axis=1) + generator.normal(scale=5, size=60)
    columns = {"input_tokens": cells[:, 0], "output_tokens": cells[:, 1], "gpu_energy_j": energy}
    return pd.DataFrame({"model_name": "a", **columns, "runtime_s": energy / 300})


def test_figures_are_those_of_statsmodels() -> None:
    rows = unbalanced(1)
    rows = rows[rows["input_tokens"] != 8]  # statsmodels wants every cell
    expected = anova_lm(ols("gpu_energy_j ~ C(input_tokens) * C(output_tokens)", rows).fit(), typ=2)
    energy, _ = anova(rows)
    for effect, (_, line) in zip(energy.effects, expected.iloc[:3].iterrows(), strict=True):
        assert effect.sum_of_squares == pytest.approx(line["sum_sq"])
        assert effect.degrees == line["df"]
        assert effect.f_statistic == pytest.approx(line["F"])
        assert effect.f_pvalue == pytest.approx(line["PR(>F)"])
    assert energy.residual_sum_of_squares == pytest.approx(expected["sum_sq"]["Residual"])
    assert energy.residual_degrees == expected["df"]["Residual"]


def test_a_missing_cell_costs_the_interaction_a_degree() -> None:
    energy, _ = anova(unbalanced(2))
    assert [effect.degrees for effect in energy.effects] == [2, 3, 5]
    assert energy.residual_degrees == 60 - 11


def test_without_noise_or_a_degree_of_freedom_there_is_no_f() -> None:
    rows = unbalanced(2).drop_duplicates(["input_tokens", "output_tokens"])
    energy, _ = anova(pd.concat([rows, rows]))
    assert energy.residual_sum_of_squares == 0
    assert all(np.isnan([effect.f_statistic, effect.f_pvalue]).all() for effect in energy.effects)
    # Three cells of four: the interaction has nothing left to be told by.
    corner = rows[rows["input_tokens"].isin([8, 64]) & rows["output_tokens"].isin([16, 64])]
    energy, _ = anova(pd.concat([corner, corner.assign(gpu_energy_j=corner["gpu_energy_j"] + 1)]))
    *_, both = energy.effects
    assert both.degrees == 0
    assert np.isnan(both.f_statistic)


def test_rows_without_energy_are_left_out() -> None:
    rows = unbalanced(3)
    rows.loc[:9, "gpu_energy_j"] = np.nan
    assert anova(rows)[0].n_obs == 50


@pytest.mark.parametrize(
    ("choose", "complaint"),
    [
        (lambda rows: rows.drop_duplicates(["input_tokens", "output_tokens"]), "no cell has two rows"),
        (lambda rows: rows[rows["input_tokens"] == 64], "one length alone has no effect"),
    ],
    ids=["no-repeats", "one-length"],
)
def test_refusals(choose: object, complaint: str) -> None:
    with pytest.raises(FitError, match=complaint):
        anova(choose(unbalanced(4)))  # type: ignore[operator]
