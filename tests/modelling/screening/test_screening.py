"""What may be done about findings, and that nothing in a file keeps it from being screened."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmpower
from llmpower.exceptions import FitError, InputError
from llmpower.modelling import fit, load_measurements, screen
from llmpower.modelling.screening import KINDS, parse_kinds
from llmpower.modelling.screening.order import Medians, by_code, first_of, typical
from llmpower.modelling.screening.rows import AT_ONCE
from llmpower.modelling.screening.watts import device_count, tdp_w

Campaign = Callable[..., pd.DataFrame]


@pytest.fixture
def faulty(campaign: Campaign) -> pd.DataFrame:
    rows = campaign()
    rows.loc[4, "provenance"] = "edited"
    rows.loc[7, "cpu_energy_j"] = -1.0
    rows["gpu_energy_j"] = rows["gpu_energy_j"].astype(object)
    rows.loc[9, "gpu_energy_j"] = "lots"
    return rows


def test_findings_are_left_out_on_request_and_counted(faulty: pd.DataFrame) -> None:
    screening = screen(faulty)
    left = screening.leave_out(faulty, ["negative_energy"])
    assert sorted(set(faulty.index) - set(left.index)) == [7, 9]
    assert len(screening.leave_out(faulty, [])) == len(faulty)
    document = screening.document(["negative_energy"])
    assert screening.document("negative_energy") == document
    assert screening.left_out("negative_energy") == 2
    with pytest.raises(InputError, match="kinds = negative: no finding has this name"):
        screening.left_out("negative")
    assert (document["rows"], document["rows_left_out"]) == (len(faulty), 2)
    assert {finding["kind"]: finding["left_out"] for finding in document["findings"]} == {
        "negative_energy": True,
        "not_measured": False,
    }
    assert json.loads(json.dumps(document)) == document


def test_times_are_read_wherever_in_a_long_table_they_stand(campaign: Campaign) -> None:
    rows = pd.concat([campaign().assign(started_at=None)] * (AT_ONCE // len(campaign()) + 1), ignore_index=True)
    assert "overlap" in screen(rows).not_looked_for
    rows.loc[AT_ONCE + 1 :, "started_at"] = "2026-01-01T00:00:00Z"
    rows.loc[AT_ONCE + 1 :, "hostname"] = "another"
    assert screen(rows).count("duplicate_timestamp") == len(rows) - AT_ONCE - 1


def test_rows_of_another_table_are_not_left_out(faulty: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="measurements = 5 rows: 96 rows were screened"):
        screen(faulty).leave_out(faulty.iloc[:5], "negative_energy")


def test_a_fit_that_a_row_would_have_stopped_goes_through_without_it(faulty: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="gpu_energy_j = lots"):
        fit(faulty, form="cached")
    models = fit(screen(faulty).leave_out(faulty, parse_kinds(["all"], "--leave-out")), form="cached")
    assert sum(model.energy.n_obs for model in models) == len(faulty) - 3


def test_to_leave_all_out_is_refused(campaign: Campaign) -> None:
    rows = campaign(provenance="edited")
    found = r"all rows have such a finding: 48 of 48 rows of \w+, such as row \d+ \(provenance is edited\)"
    with pytest.raises(FitError, match=f"--leave-out = not_measured: {found}; correct them"):
        screen(rows).leave_out(rows, ["not_measured", "overlap"])


def test_findings_are_refused_on_request(faulty: pd.DataFrame) -> None:
    screening = screen(faulty)
    screening.refuse(["overlap", "impossible_tokens"])
    with pytest.raises(FitError, match=r"--refuse = not_measured: 1 of 48 rows of \w+, such as row 5 \(provenance is"):
        screening.refuse(["not_measured"])
    with pytest.raises(FitError, match="--refuse = negative_energy"):
        screening.refuse(parse_kinds(["all"], "--refuse"))


def test_it_is_a_public_name() -> None:
    assert llmpower.screen is screen
    assert "screen" in llmpower.__all__


def test_screening_changes_nothing(faulty: pd.DataFrame) -> None:
    before = faulty.copy()
    screen(faulty)
    pd.testing.assert_frame_equal(faulty, before)


def test_what_a_file_does_not_allow_is_said(campaign: Campaign) -> None:
    columns = ["model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j"]
    screening = screen(campaign()[columns])
    assert screening.findings == ()
    assert set(screening.not_looked_for) == {
        *("above_tdp", "not_measured", "early_stop", "nominal_tokens", "duplicate_timestamp", "overlap", "unsettled")
    }


def test_the_design_power_is_given_or_known_by_name(campaign: Campaign) -> None:
    rows = campaign(system="4× Some New Card").assign(device_uuids="a;b;c;d", provenance="measured")
    assert "above_tdp" in screen(rows).not_looked_for
    assert screen(rows, tdp_w=300).findings == ()
    assert set(screen(rows, tdp_w=50).marks) == {"above_tdp"}
    assert set(screen(rows.assign(tdp_w=50)).marks) == {"above_tdp"}
    for watts in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"--tdp = .*: is not a design power"):
            screen(rows, tdp_w=watts)


@pytest.mark.parametrize(
    ("system", "watts", "count"),
    [
        ("1× NVIDIA A100-SXM4-80GB", 400.0, 1),
        ("2× NVIDIA H100 80GB HBM3 + 1× NVIDIA A10G", 700.0, 3),
        ("NVIDIA H100 PCIe", 350.0, None),
        ("Swing AMD+A100", 400.0, None),
        ("8x Tesla T4", 70.0, 8),
        ("1× NVIDIA GeForce RTX 3090 Ti", 450.0, 1),
        ("1× Simulated L4", 72.0, 1),
        ("Intel Xeon Gold 6430", None, None),
        ("", None, None),
    ],
)
def test_names_of_systems(system: str, watts: float | None, count: int | None) -> None:
    assert (tdp_w(system), device_count(system)) == (watts, count)


def test_places_name_the_source_where_there_are_several(faulty: pd.DataFrame, tmp_path: Path) -> None:
    half = len(faulty) // 2
    faulty.iloc[:half].to_csv(tmp_path / "a.csv", index=False)
    faulty.iloc[half:].to_csv(tmp_path / "b.csv", index=False)
    one = screen(load_measurements([str(tmp_path / "a.csv")]))
    both = screen(load_measurements([str(tmp_path / "*.csv")]))
    assert {finding.place for finding in one.findings} <= {"row 5", "row 8", "row 10"}
    assert all(finding.place.endswith("a.csv") for finding in both.findings)


def test_what_is_left_out_or_refused_must_be_a_kind(faulty: pd.DataFrame) -> None:
    screening = screen(faulty)
    with pytest.raises(InputError, match=r"^--leave-out = negative_enregy: no finding has this name"):
        screening.leave_out(faulty, ["negative_enregy"])
    with pytest.raises(InputError, match=r"^--refuse = negative_enregy: "):
        screening.refuse(["negative_enregy"])
    assert len(screening.leave_out(faulty, "negative_energy")) == len(faulty) - 2
    with pytest.raises(FitError, match=r"^--refuse = negative_energy: "):
        screening.refuse("all")


def test_numpy_does_not_warn_of_an_energy_beyond_all_bounds(campaign: Campaign) -> None:
    rows = campaign()
    rows.loc[3, "gpu_energy_j"] = 1e308
    rows.loc[3, "runtime_s"] = 0.1
    with warnings.catch_warnings(action="error"):
        assert screen(rows).count("impossible_unit") == 1


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(
        InputError, match="--refuse = warmup: no finding has this name; use all or some of no_model_name"
    ):
        parse_kinds(["overlap,warmup"], "--refuse")


@given(st.lists(st.lists(st.sampled_from([*KINDS, "all"]), min_size=1), max_size=3))
def test_kinds_are_read_once_each_in_any_writing(chosen: list[list[str]]) -> None:
    found = parse_kinds([" , ".join(names) for names in chosen], "--leave-out")
    assert len(found) == len(set(found))
    flat = {name for names in chosen for name in names}
    assert set(found) - {kind for kind in KINDS if KINDS[kind].of_rows and "all" in flat} <= flat


CELL = st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70), st.text(max_size=4), st.booleans())
COLUMNS = (
    *("model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j", "cpu_energy_j", "energy_j"),
    *("prefill_energy_j", "gpu_energy_std_j", "started_at", "hostname", "device_uuids", "system", "batch_size"),
    *("num_gpus", "tdp_w", "total_tokens", "requested_output_tokens", "provenance", "allocated", "simulated"),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(COLUMNS), unique=True, min_size=1).flatmap(
        lambda columns: st.lists(st.fixed_dictionaries(dict.fromkeys(columns, CELL)), min_size=1, max_size=6)
    )
)
def test_no_table_is_too_strange(rows: list[dict[str, Any]]) -> None:
    screening = screen(pd.DataFrame(rows, dtype=object))
    for finding in screening.findings:
        assert 0 < finding.n_rows <= finding.of_rows <= screening.n_rows
        assert finding.kind in KINDS
    json.dumps(screening.document())


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1e6, 1e6) | st.just(float("nan"))), min_size=1))
def test_typical_is_the_median(pairs: list[tuple[int, float]]) -> None:
    code, values = (np.array(column) for column in zip(*pairs, strict=True))
    for number, found in zip(code, typical(values.astype(float), code), strict=True):
        known = values[(code == number) & ~np.isnan(values)]
        assert found == pytest.approx(np.median(known), nan_ok=True) if len(known) else np.isnan(found)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 70_000, 70_001, 2**33]), st.booleans()), min_size=1, max_size=40))
def test_orders_are_stable_whatever_the_codes(pairs: list[tuple[int, bool]]) -> None:
    code = np.array([number for number, _ in pairs], dtype=np.intp)
    assert by_code(code).tolist() == sorted(range(len(code)), key=lambda row: code[row])
    backwards = np.arange(len(code))[::-1]
    assert by_code(code, backwards).tolist() == sorted(backwards.tolist(), key=lambda row: code[row])
    few = np.unique(code, return_inverse=True)[1].reshape(-1)
    assert first_of(few).tolist() == [few.tolist().index(number) for number in range(few.max() + 1)]
    chosen = np.array([flag for _, flag in pairs])
    values = np.arange(float(len(code)))
    for number, median in enumerate(Medians(values, few).of(chosen)):
        own = values[chosen & (few == number)]
        assert median == pytest.approx(np.median(own)) if len(own) else np.isnan(median)


def test_the_published_grid_has_the_faults_that_are_known_of_it(paper_data: Path) -> None:
    """First calls, edited and extrapolated rows, early ends and nominal counts; and one card beyond its 400 W."""
    grid = pd.read_csv(paper_data / "paper" / "grid.csv")
    screening = screen(grid)
    assert {kind: screening.count(kind) for kind in screening.marks} == {
        "above_tdp": 1,
        "not_measured": 8,
        "copied_digits": 8,
        "early_stop": 22,
        "nominal_tokens": 473,
        "warm_up": 4,
        "dearer_than_longer": 5,
    }
    assert set(screening.not_looked_for) == {"duplicate_timestamp", "overlap", "unsettled", "replicates_disagree"}
    # The first calls of the four models of which nobody edited the first call.
    edited = grid[grid["provenance"] == "edited"]
    assert (edited[["input_tokens", "output_tokens"]] == 8).all(axis=None)
    first = grid[screening.marks["warm_up"]]
    assert set(first["model_name"]) == set(grid["model_name"]) - set(edited["model_name"])
    assert (first[["input_tokens", "output_tokens"]] == 8).all(axis=None)
    # Rows without a source, told by their digits alone, without the column that admits it.
    copied = grid[screen(grid.drop(columns="provenance")).marks["copied_digits"]]
    sourceless = grid[grid["provenance"] == "no_raw_source"]
    assert len(sourceless) == 5
    assert set(sourceless.index) <= set(copied.index)


def test_every_kind_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "screening.md").read_text(encoding="utf-8")
    explained = [line.split("`")[1] for line in page.partition("## Kinds")[2].splitlines() if line.startswith("| `")]
    assert explained[: len(KINDS)] == list(KINDS)


def test_of_our_own_grids_those_have_a_beginning_that_a_busy_host_had() -> None:
    found = {}
    for path in sorted((Path(__file__).parents[3] / "examples").glob("together-*.csv")):
        trials = pd.read_csv(path).query("campaign == 'grid'")
        found[path.stem.removeprefix("together-")] = screen(trials).count("unsettled")
    assert found == {
        "SmolLM2-135M-Instruct": 0,
        "SmolLM2-135M-Instruct-2": 0,
        "random-llama-1b-h100": 10,
        "random-llama-34M": 4,
    }
    # As the page tells its readers to look.
    page = (Path(__file__).parents[3] / "docs" / "screening.md").read_text(encoding="utf-8")
    own = page.partition("## What it finds in this project's own trials")[2]
    assert """`--where "campaign == 'grid'"`""" in own
    assert {name: int(n) for name, n in re.findall(r"`together-(\S+)\.csv`.*? (\d+) of ", own)} == {
        name: n for name, n in found.items() if n
    }
