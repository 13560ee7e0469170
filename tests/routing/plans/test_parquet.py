"""Parquet to Parquet says what the same rows say through pandas, whatever the row groups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel, save_models
from llmpower.routing import Workload, route, rows_table
from llmpower.routing.plans.rows import Rows

Models = list[WorkloadModel]
SHARES = {"small": 0.3, "medium": 0.3, "large": 0.4}
row = st.tuples(st.sampled_from([8, 100, 900]), st.sampled_from([8, 50]), st.integers(1, 5), st.sampled_from("abc"))


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(row, min_size=1, max_size=12),
    group=st.integers(1, 5),
    routed=st.integers(0, 2),
    keep=st.booleans(),
)
def test_rows_are_those_of_pandas(
    tmp_path_factory: pytest.TempPathFactory,
    models: Models,
    accuracy: dict[str, float],
    rows: list[tuple[int, int, int, str]],
    group: int,
    routed: int,
    keep: bool,
) -> None:
    directory = tmp_path_factory.mktemp("parquet")
    frame = pd.DataFrame(rows, columns=["prompt", "output_tokens", "count", "who"])
    # As from a file that was routed before, once or twice.
    for name in ("model_name", "workload_model_name")[:routed]:
        frame[name] = f"old {name}"
    frame.set_index(np.arange(len(frame)) + 7).to_parquet(directory / "in.parquet", row_group_size=group)
    read = Rows(directory / "in.parquet", {"input_tokens": "prompt"})
    named = frame.rename(columns={"prompt": "input_tokens"})
    plan = route(models, read.workload(keep=keep), accuracy, shares=SHARES)
    assert plan.workload.count.tolist() == Workload.from_frame(named).count.tolist()
    read.save(plan, directory / "out.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(directory / "out.parquet"), rows_table(plan, named))


def test_other_formats_go_through_pandas(tmp_path: Path, models: Models, accuracy: dict[str, float]) -> None:
    pd.DataFrame({"input_tokens": [9, 8], "output_tokens": [4, 4], "when": ["x", "y"]}).to_parquet(
        tmp_path / "a.parquet"
    )
    read = Rows(tmp_path / "a.parquet", {})
    plan = route(models, read.workload(), accuracy)
    for suffix in (".csv", ".jsonl"):
        read.save(plan, tmp_path / f"plan{suffix}")
        again = Rows(tmp_path / f"plan{suffix}", {}).workload()
        assert again.input_tokens.tolist() == plan.workload.input_tokens.tolist()
    with pytest.raises(InputError, match=r"-o = .*: cannot tell the format"):
        read.save(plan, tmp_path / "plan.txt")


def test_columns_of_other_types_are_read_as_pandas_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    classes = pd.Categorical(["chat", None, "code"])
    pd.DataFrame(
        {"input_tokens": [1.0, 2.0, 2.0], "output_tokens": np.uint8([3, 4, 4]), "query_class": classes}
    ).to_parquet(path)
    workload = Rows(path, {}).workload()
    assert workload.classes == ("", "chat", "code")
    assert workload.input_tokens.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"input_tokens": [1, None], "output_tokens": [1, 2]}, "input_tokens = empty: row 2 needs"),
        ({"input_tokens": pd.array([1, None], "Int64"), "output_tokens": [1, 2]}, "input_tokens = empty: row 2 needs"),
        ({"input_tokens": [1, 2], "output_tokens": ["3", "many"]}, "output_tokens = many: row 2 needs"),
        ({"input_tokens": [], "output_tokens": []}, "workload = 0 rows"),
        ({"input_tokens": [1]}, "column = output_tokens: "),
    ],
    ids=["nan", "null", "text", "nothing", "missing"],
)
def test_refusals_name_column_row_and_value(tmp_path: Path, columns: dict[str, list[object]], complaint: str) -> None:
    pd.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        Rows(tmp_path / "a.parquet", {}).workload()
    assert str(caught.value).startswith(complaint)


def test_a_file_that_cannot_be_read_or_has_changed(tmp_path: Path, models: Models, accuracy: dict[str, float]) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"--workload = .*: no such file"):
        Rows(path, {})
    path.write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"--workload = .*: cannot be read as parquet"):
        Rows(path, {})
    frame = pd.DataFrame({"input_tokens": [9, 8], "output_tokens": [4, 4]})
    frame.to_parquet(path)
    read = Rows(path, {})
    plan = route(models, read.workload(), accuracy)
    frame.head(1).to_parquet(path)
    with pytest.raises(InputError, match=r"--workload = .*: has changed since it was read"):
        read.save(plan, tmp_path / "plan.parquet")
    assert not (tmp_path / "plan.parquet").exists()


def test_pandas_is_not_loaded(tmp_path: Path, models: Models) -> None:
    pd.DataFrame({"input_tokens": [9], "output_tokens": [4]}).to_parquet(tmp_path / "a.parquet")
    save_models(models, tmp_path / "models.json")
    code = (
        "import sys; from pathlib import Path; from llmpower.modelling import load_models;"
        " from llmpower.routing import route; from llmpower.routing.plans.rows import Rows;"
        " folder = Path(sys.argv[1]); rows = Rows(folder / 'a.parquet', {});"
        " rows.save(route(load_models(folder / 'models.json'), rows.workload(), zeta=1), folder / 'plan.parquet');"
        " print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_plan_that_is_refused_leaves_no_file(tmp_path: Path, models: Models) -> None:
    pd.DataFrame({"input_tokens": [9, 900], "output_tokens": [4, 90_000]}).to_parquet(tmp_path / "a.parquet")
    read = Rows(tmp_path / "a.parquet", {})
    out = tmp_path / "plan.parquet"
    with pytest.raises(InputError, match="--max-extrapolation"), read.saving(out) as solved:
        route(models, read.workload(), zeta=1, max_extrapolation=0.1, solved=solved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet"]
    with read.saving(out) as solved:
        plan = route(models, read.workload(), zeta=1, solved=solved)
        assert not out.exists()
    read.save(plan, tmp_path / "again.parquet")
    assert out.read_bytes() == (tmp_path / "again.parquet").read_bytes()
