"""A data set that is read batch by batch against the same rows in one table; and what is said of wrong files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmpower.exceptions import FitError, InputError
from llmpower.modelling import WorkloadModel, fit
from llmpower.modelling.forms import Cached
from llmpower.modelling.rows import strata
from llmpower.modelling.screening import screen
from llmpower.modelling.streaming import fit_datasets, open_datasets, reading
from llmpower.modelling.streaming.doubts import ALONE

Make = Callable[..., pd.DataFrame]
Write = Callable[..., Path]


def assert_same(ours: Sequence[WorkloadModel], theirs: Sequence[WorkloadModel]) -> None:
    assert [(model.model_name, model.system) for model in ours] == [(m.model_name, m.system) for m in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert (our.simulated, our.boundary) == (their.simulated, their.boundary)
        for one, other in ((our.energy, their.energy), (our.runtime, their.runtime)):
            assert (one.label, one.n_obs, one.n_cells, one.warnings) == (
                *(other.label, other.n_obs, other.n_cells),
                other.warnings,
            )
            np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-9)
            np.testing.assert_allclose(one.std_errors, other.std_errors, rtol=1e-6)
            assert (one.input_range, one.output_range) == (other.input_range, other.output_range)
            assert one.heldout.mape == pytest.approx(other.heldout.mape, rel=1e-9)
            assert one.heldout.median_ape == pytest.approx(other.heldout.median_ape, rel=1e-9)


@pytest.mark.parametrize("traffic", [False, True])
def test_a_data_set_gives_what_its_rows_in_one_table_give(traffic: bool, make: Make, write: Write) -> None:
    tables = [make(8000, seed=seed, traffic=traffic) for seed in (1, 2, 3)]
    # What some files lack, others may have; a row without energy is not fitted.
    tables[0].loc[::7, "gpu_energy_j"] = np.nan
    tables[1]["gpu_energy_std_j"] = np.nan
    tables[2] = tables[2].drop(columns="time_to_first_token_s")
    streamed = fit_datasets([str(write(*tables))])
    assert streamed.rows == 24000
    assert_same(streamed.models, fit(pd.concat(tables)))
    # As many cells as rows would be too many: bands of them are said to be.
    assert in_bands(streamed.models[0]) == traffic


def in_bands(model: WorkloadModel) -> bool:
    return any("bands (lengths to" in warning for warning in model.energy.warnings)


def test_bands_cost_less_than_a_thousandth(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make(60000, seed=5, traffic=True)
    model, _ = fit(rows, form="cached")
    assert in_bands(model)
    monkeypatch.setattr(strata, "MOST_CELLS", len(rows))
    whole, _ = fit(rows, form="cached")
    assert not in_bands(whole)
    lengths = np.meshgrid([20, 300, 5000], [10, 200, 2000])
    np.testing.assert_allclose(model.energy.predict(*lengths), whole.energy.predict(*lengths), rtol=1e-3)
    # Rows that miss by 5 % and count by 1/y² pull a fit down by 0.05² whatever the cells are.
    expected = Cached().design(*lengths) @ [60, 0.2, 1e-5, 15, 0.01]
    np.testing.assert_allclose(model.energy.predict(*lengths) * (1 + 0.05**2), expected, rtol=0.01)


def test_a_source_given_twice_is_read_once(make: Make, write: Write) -> None:
    root = str(write(make(2000, seed=1)))
    assert fit_datasets([root, root]).rows == 2000


@pytest.mark.parametrize("boundary", ["cpu", "gpu+cpu", "gpu-idle"])
def test_boundaries_are_those_of_a_table(boundary: str, make: Make, write: Write) -> None:
    tables = [make(2000, seed=seed) for seed in (1, 2)]
    for table in tables:
        table["cpu_energy_j"] = table["gpu_energy_j"] / 10
        table["gpu_idle_energy_j"] = table["gpu_energy_j"] / 4
    tables[0].loc[:50, "cpu_energy_j"] = np.nan
    tables[1].loc[:50, "gpu_energy_j"] = np.nan
    streamed = fit_datasets([str(write(*tables))], boundary=boundary, form="cached")
    assert_same(streamed.models, fit(pd.concat(tables), boundary=boundary, form="cached"))


def test_conditions_headers_and_groups_are_those_of_a_table(make: Make, write: Write) -> None:
    tables = [make(1500, seed=seed) for seed in (1, 2)]
    root = write(*(table.rename(columns={"input_tokens": "ContextTokens"}) for table in tables))
    options: dict[str, Any] = {"form": "cached", "group_by": ["model_name", "host"]}
    streamed = fit_datasets(
        [str(root)],
        columns={"input_tokens": "ContextTokens"},
        where="output_tokens < 1000 and model_name != 'org/b' and host >= 'node-0'",
        **options,
    )
    together = pd.concat([table.assign(host=f"node-{number}") for number, table in enumerate(tables)])
    chosen = together[(together["output_tokens"] < 1000) & (together["model_name"] != "org/b")]
    assert_same(streamed.models, fit(chosen, **options))
    assert [model.model_name for model in streamed.models] == ["org/a [host=node-0]", "org/a [host=node-1]"]
    with pytest.raises(FitError, match="no row satisfies it"):
        fit_datasets([str(root)], columns={"input_tokens": "ContextTokens"}, where="output_tokens < 0")


@pytest.mark.parametrize("as_nan", [False, True])
def test_an_empty_cell_is_one_group_in_all_batches_as_in_a_table(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_nan: bool
) -> None:
    table = make(2000).drop(columns="system").assign(temperature=np.tile([1.0, np.nan], 1000))
    # pandas writes an empty cell as null, other programs as NaN.
    written = pa.Table.from_pandas(table, preserve_index=False)
    if as_nan:
        column = pa.array(table["temperature"].to_numpy())
        written = written.set_column(written.column_names.index("temperature"), "temperature", column)
    pq.write_table(written, tmp_path / "a.parquet")
    monkeypatch.setattr(reading, "BATCH_ROWS", 500)
    options: dict[str, Any] = {"form": "cached", "group_by": ["model_name", "temperature"]}
    streamed = fit_datasets([str(tmp_path / "a.parquet")], **options).models
    assert_same(streamed, fit(table, **options))
    assert [model.model_name for model in streamed[:2]] == ["org/a [temperature=1]", "org/a [temperature=nan]"]


def test_a_data_set_may_lie_behind_a_url(make: Make) -> None:
    table = make(1000)
    table.to_parquet("memory://bucket/fleet/host=a/1.parquet", index=False)
    (streamed, _), (whole, _) = fit_datasets(["memory://bucket/fleet"]).models, fit(table)
    np.testing.assert_allclose(streamed.energy.coefficients, whole.energy.coefficients, rtol=1e-9)


def test_a_row_shows_by_itself_what_is_wrong_with_it(make: Make, write: Write) -> None:
    good, bad = make(2000, seed=1), make(2000, seed=2)
    bad.loc[[5, 9], "gpu_energy_j"] /= 1e6
    root = write(good, bad)
    streamed = fit_datasets([str(root)])
    (finding,) = [found for found in streamed.screening.findings if found.model_name == bad["model_name"][5]]
    assert finding.kind == "impossible_unit"
    assert "host=node-1/date=2026-01-01/1.parquet" in finding.place
    assert finding.place.startswith(("row 6 ", "row 10 "))
    assert streamed.screening.not_looked_for.keys() >= {"overlap", "warm_up"}
    assert streamed.screening.n_rows == 4000
    left = fit_datasets([str(root)], leave_out=["impossible_unit"])
    assert left.screening.document(["impossible_unit"])["rows_left_out"] == 2
    assert_same(left.models, fit(pd.concat([good, bad.drop(index=[5, 9])])))
    with pytest.raises(FitError, match="impossible_unit"):
        fit_datasets([str(root)], refuse=["impossible_unit"])
    with pytest.raises(InputError, match="takes all rows at once"):
        fit_datasets([str(root)], leave_out=["warm_up"])


def test_what_rows_show_by_themselves_is_what_a_table_shows_whoever_reads_them(make: Make, write: Write) -> None:
    table = make(900, system="1× NVIDIA T4", model_name="org/a")
    table["gpu_energy_j"] /= 5  # of 60 W
    table.loc[[3, 600], ["input_tokens", "output_tokens"]] = 0
    table.loc[[11, 850], "prefill_energy_j"] = -1.0
    table.loc[20, "runtime_s"] = 0.0
    table.loc[30, "model_name"] = None
    table.loc[[40, 400, 890], "gpu_energy_j"] *= [1e-6, 1e3, 1e6]
    table.loc[[50, 500, 880], "gpu_energy_j"] *= [1.5, 1.7, 1.6]

    def one_by_one(work: Any, dataset: Any) -> Any:
        return work.merge([work.scan([portion]) for some in dataset.split(1) for portion in some])

    root = str(write(table))
    for scanner in (None, one_by_one):
        streamed = fit_datasets([root], form="cached", leave_out=ALONE, scanner=scanner).screening
        found = {(found.kind, found.model_name, found.n_rows, found.example) for found in streamed.findings}
        whole = [found for found in screen(table).findings if found.kind in ALONE]
        assert found == {(found.kind, found.model_name, found.n_rows, found.example) for found in whole}
        assert {kind for kind, *_ in found} == set(ALONE)
        assert streamed.n_left_out == 12


def test_to_leave_all_out_is_refused_with_what_was_found(make: Make, write: Write) -> None:
    table = make(2000)
    table["gpu_energy_j"] *= 1000
    with pytest.raises(
        FitError, match=r"all rows have such a finding: [\d,]+ of [\d,]+ rows of .* as with the energy in mJ\)"
    ):
        fit_datasets([str(write(table))], leave_out=["impossible_unit"])


@pytest.mark.parametrize("says", [{}, {"num_gpus": 2}, {"tdp_w": 150.0}, {"num_gpus": 4, "tdp_w": 150.0}])
def test_devices_draw_what_they_may_in_a_table(says: dict[str, float], make: Make, write: Write) -> None:
    # Of 300 W each, with two devices by the system's name, and one row of many times as much.
    table = make(300, system="2× NVIDIA T4", **says)
    table.loc[7, "gpu_energy_j"] *= 3
    table.loc[8, "gpu_energy_j"] *= 1000
    for name in says:
        # A row that does not say is as its system's name says.
        table[name] = table[name].where(table.index % 10 != 8)
    whole = screen(table)
    streamed = fit_datasets([str(write(table))], form="cached").screening
    shown = {(found.kind, found.model_name, found.n_rows) for found in streamed.findings}
    assert shown == {
        (found.kind, found.model_name, found.n_rows)
        for found in whole.findings
        if found.kind in ("above_tdp", "impossible_unit")
    }
    assert shown


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("input_tokens", 2.5, "token counts are whole numbers"),
        ("runtime_s", 0.0, "a runtime is a number of seconds > 0"),
        ("runtime_s", 1e300, "a runtime is a number of seconds > 0"),
        ("gpu_energy_j", -1.0, "an energy is a number of joules > 0"),
        ("gpu_energy_j", 1e160, "an energy is a number of joules > 0"),
        ("gpu_energy_std_j", -1.0, "a standard deviation is a number of joules ≥ 0"),
        ("gpu_energy_std_j", np.inf, "a standard deviation is a number of joules ≥ 0"),
        ("gpu_idle_energy_j", -1.0, "an idle share is a number of joules ≥ 0"),
        ("time_to_first_token_s", -0.1, "a time to the first token is a number of seconds ≥ 0"),
        ("batch_size", 0, "requests at the same time are a number ≥ 1"),
        ("concurrency", -2.0, "requests at the same time are a number ≥ 1"),
        ("model_name", None, "every row needs a model's name"),
        ("model_name", "", "every row needs a model's name"),
    ],
)
def test_a_row_that_cannot_be_stops_the_fit_and_is_named(
    column: str, value: object, said: str, make: Make, write: Write
) -> None:
    bad = make(300, seed=2).astype({"input_tokens": float})
    bad.loc[7, column] = value
    with pytest.raises(FitError, match=said) as caught:
        fit_datasets([str(write(make(300), bad))])
    assert caught.value.field == column
    assert "row 8 of " in caught.value.advice
    assert "host=node-1/date=2026-01-01/1.parquet" in caught.value.advice


@pytest.mark.parametrize("column", ["runtime_s", "gpu_energy_j"])
def test_durations_are_no_numbers(column: str, make: Make, write: Write) -> None:
    rows = make(300)
    rows[column] = pd.to_timedelta(rows[column], unit="s")
    with pytest.raises(FitError, match="is not a plain number; give seconds, joules or tokens") as caught:
        fit_datasets([str(write(rows))])
    assert caught.value.field == column


def test_of_several_models_that_mix_the_files_are_those_of_the_one_that_is_named(make: Make, write: Write) -> None:
    later, earlier = (
        make(200).assign(model_name=name, simulated=np.arange(200) % 2 == 0) for name in ("org/z", "org/a")
    )
    with pytest.raises(FitError, match=r"org/a: real and simulated .*node-1\S+ has simulated rows, \S+node-1"):
        fit_datasets([str(write(later, earlier))])


def test_simulated_and_real_files_do_not_mix(make: Make, write: Write) -> None:
    root = write(make(500, simulated=False), make(500, seed=2))
    with pytest.raises(FitError, match="real and simulated rows do not mix") as caught:
        fit_datasets([str(root)])
    for name in ("host=node-0/date=2026-01-01/0.parquet real", "host=node-1/date=2026-01-01/1.parquet has simulated"):
        assert name in caught.value.advice


def refusal(source: object, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        fit_datasets([str(source)], **options)
    return caught.value


def test_places_and_files_that_are_none_are_named(make: Make, write: Write, tmp_path: Path) -> None:
    assert "names no place" in refusal("").advice
    assert "no such place" in refusal(tmp_path / "nowhere").advice
    assert "check the URL" in refusal("nonsense://bucket/fleet").advice
    assert "no such place" in refusal("memory://bucket/nowhere").advice
    (tmp_path / "empty").mkdir()
    assert "holds no Parquet file" in refusal(tmp_path / "empty").advice
    assert "holds no rows" in refusal(write(make(10).iloc[:0], name="rowless")).advice

    lacking = write(make(300), make(300).drop(columns="output_tokens"), name="lacking")
    error = refusal(lacking)
    assert (error.field, error.value) == ("column", "output_tokens")
    assert "host=node-1/date=2026-01-01/1.parquet lacks this column" in error.advice

    other = write(make(300), make(300).assign(gpu_energy_j="many"), name="other")
    error = refusal(other)
    assert "host=node-1/date=2026-01-01/1.parquet" in f"{error.value} {error.advice}"

    root = write(make(300), name="broken")
    (root / "host=node-0" / "date=2026-01-01" / "z.parquet").write_bytes(b"no Parquet at all")
    error = refusal(root)
    assert "z.parquet" in str(error.value)
    assert error.advice.endswith("; write it again, or move it elsewhere")


def test_files_that_are_being_written_are_passed_over(make: Make, write: Write) -> None:
    root = write(make(300))
    (root / "host=node-0" / "date=2026-01-01" / ".half.parquet").write_bytes(b"half a file")
    assert open_datasets([str(root)], {}).rows == 300
