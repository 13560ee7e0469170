"""Tables as programs have them: one figure whatever pandas keeps a column in, and a refusal where it is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from grids import measured

from llmpower.exceptions import InputError
from llmpower.modelling import anova, fit, screen

Frame = pd.DataFrame


ALIKE: dict[str, Callable[[Frame], Frame]] = {
    "nullable": lambda rows: rows.convert_dtypes(),
    "arrow": lambda rows: rows.convert_dtypes(dtype_backend="pyarrow"),
    "texts": lambda rows: rows.astype(str),
    "categories": lambda rows: rows.assign(model_name=rows["model_name"].astype("category")),
    "no system is a category": lambda rows: rows.assign(system=pd.Categorical([None] * len(rows))),
    "gaps in the index": lambda rows: rows.set_index(np.arange(len(rows)) * 3 + 7),
    "one index for all": lambda rows: rows.set_index(np.zeros(len(rows))),
    "small integers": lambda rows: rows.astype({"input_tokens": "uint16", "output_tokens": "uint16"}),
    "big endian": lambda rows: rows.astype({"input_tokens": ">i8", "gpu_energy_j": ">f8"}),
}


@pytest.mark.parametrize("convert", ALIKE.values(), ids=ALIKE.keys())
def test_figures_are_those_of_plain_columns(convert: Callable[[Frame], Frame]) -> None:
    rows = measured(noise=0.02)
    assert fit(convert(rows), form="cached") == fit(rows, form="cached")
    assert screen(convert(rows)).findings == screen(rows).findings


def test_nan_in_arrow_is_not_measured() -> None:
    """Arrow tells a NaN from what is missing, and a quotient of pandas' is the former."""
    rows = measured(noise=0.02)
    holed = rows.assign(gpu_energy_j=rows["gpu_energy_j"].where(rows.index != 3))
    arrow = holed.assign(gpu_energy_j=pd.array(pa.array(holed["gpu_energy_j"].to_numpy()), dtype="double[pyarrow]"))
    assert not arrow["gpu_energy_j"].isna().any()
    assert fit(arrow, form="cached") == fit(holed, form="cached")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("runtime_s", lambda seconds: pd.to_timedelta(seconds, unit="s")),
        ("runtime_s", lambda seconds: pd.to_timedelta(seconds, unit="s").astype("duration[ns][pyarrow]")),
        ("gpu_energy_j", lambda joules: pd.to_datetime(joules, unit="s")),
        ("gpu_energy_j", lambda joules: joules.astype(complex)),
    ],
    ids=["durations", "durations of Arrow", "times", "complex"],
)
def test_what_only_passes_for_a_number_is_refused(column: str, values: Callable[[Any], Any]) -> None:
    rows = measured()
    rows[column] = values(rows[column])
    with pytest.raises(
        InputError, match=rf"{column} = .*row 1 .*is not a plain number; give seconds, joules or tokens"
    ):
        fit(rows)
    assert all(finding.n_rows == len(rows) for finding in screen(rows).findings)
    assert screen(rows).findings


def test_a_name_is_one_whether_it_is_a_number_or_a_text() -> None:
    rows = measured()
    (model,) = fit(pd.concat([rows.assign(model_name=7), rows.assign(model_name="7")]), form="cached")
    assert (model.model_name, model.energy.n_obs) == ("7", 2 * len(rows))
    nodes = pd.concat([rows.assign(node=name) for name in ("x", 7)])
    names = [model.model_name for model in fit(nodes, form="cached", group_by=["model_name", "node"])]
    assert names == ["a [node=7]", "a [node=x]"]


@pytest.mark.parametrize("table", ["rows.csv", None, {"model_name": ["a"]}, [{"model_name": "a"}]], ids=type)
@pytest.mark.parametrize("function", [fit, screen, anova])
def test_what_is_no_table_is_refused(function: Callable[[Any], object], table: object) -> None:
    with pytest.raises(InputError, match=f"measurements = {type(table).__name__}: is not a pandas table"):
        function(table)


@pytest.mark.parametrize("function", [fit, screen, anova])
@pytest.mark.parametrize("column", ["model_name", "input_tokens", "gpu_energy_j"])
def test_a_column_twice_is_refused(function: Callable[[Any], object], column: str) -> None:
    rows = measured()
    with pytest.raises(InputError, match=f"column = {column}: appears twice in the measurements"):
        function(pd.concat([rows, rows[[column]]], axis=1))
