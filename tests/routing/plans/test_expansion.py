"""A plan read back into rows: nothing lost, nothing moved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, cells_table, models_per_query, route, rows_table

Models = list[WorkloadModel]
SHARES = {"small": 0.3, "medium": 0.3, "large": 0.4}
row = st.tuples(st.sampled_from([8, 100, 900]), st.sampled_from([8, 50]), st.integers(1, 5))


def queries_by_model(table: pd.DataFrame) -> Counter[tuple[int, int, str]]:
    columns = (table["input_tokens"], table["output_tokens"], table["model_name"], table["count"])
    found: Counter[tuple[int, int, str]] = Counter()
    for τin, τout, name, count in zip(*columns, strict=True):
        found[τin, τout, name] += count
    return found


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(row, min_size=1, max_size=12))
def test_rows_cells_and_queries_say_the_same(
    models: Models, accuracy: dict[str, float], rows: list[tuple[int, int, int]]
) -> None:
    frame = pd.DataFrame(rows, columns=["input_tokens", "output_tokens", "count"]).assign(row=range(len(rows)))
    plan = route(models, Workload.from_frame(frame), accuracy, shares=SHARES)
    by_row, by_cell = rows_table(plan, frame), cells_table(plan)
    assert queries_by_model(by_row) == queries_by_model(by_cell)
    assert by_row["row"].is_monotonic_increasing
    assert by_row.groupby("row")["count"].sum().tolist() == frame["count"].tolist()
    assert not by_row.duplicated(["row", "model_name"]).any()
    assert list(by_cell.columns) == ["input_tokens", "output_tokens", "model_name", "count"]
    per_query = models_per_query(plan)
    assert per_query == np.repeat(by_row["model_name"].to_numpy(), by_row["count"]).tolist()
    assert Counter(per_query) == {name: load.queries for name, load in plan.models.items() if load.queries}


def test_rows_keep_their_order_and_columns(models: Models, accuracy: dict[str, float]) -> None:
    frame = pd.DataFrame(
        {"id": list("abcd"), "input_tokens": [900, 8, 900, 8], "model_name": "old", "output_tokens": [8, 900, 8, 900]},
        index=[7, 7, 3, 1],
    )
    plan = route(models, Workload.from_frame(frame), accuracy, shares={"large": 0.25})
    table = rows_table(plan, frame)
    assert list(table.columns) == ["id", "input_tokens", "output_tokens", "workload_model_name", "model_name"]
    assert table["id"].tolist() == list("abcd")
    assert table["model_name"].tolist() == models_per_query(plan)
    assert (table["model_name"] == "large").sum() == 1
    assert (table["workload_model_name"] == "old").all()
    for other in (frame.iloc[::-1], frame.iloc[:2], frame.iloc[:0]):
        with pytest.raises(
            InputError, match=f"workload = {len(other)} rows: are not the 4 of the plan, in their order"
        ):
            rows_table(plan, other)
