"""Tariffs: what holds when, and every file and time that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.routing import Workload, read_tariff, read_workload
from llmpower.routing.problem.tariff import Tariff

NIGHT_AND_DAY = "hour,eur_per_kwh\n" + "".join(f"{hour},{0.1 if hour < 8 else 0.3}\n" for hour in range(24))
MARKET = """timestamp,eur_per_kwh,g_co2_per_kwh
2026-03-29T01:00:00+01:00,0.2,300
2026-03-29T03:00:00+02:00,0.1,50
2026-03-29T01:15:00Z,0.4,200
"""


def tariff_of(text: str, folder: Path) -> Tariff:
    (folder / "tariff.csv").write_text(text)
    return read_tariff(folder / "tariff.csv")


def euros(tariff: Tariff, times: object) -> list[float]:
    rates, of_row = tariff.rates(times)
    return rates.by_kind["money"].per_kwh[of_row].tolist()


def test_hours_of_the_day_hold_on_every_day(tmp_path: Path) -> None:
    tariff = tariff_of(NIGHT_AND_DAY, tmp_path)
    times = ["2023-11-16 07:59:59.9999999", "2023-11-17T08:00:00", "1969-12-31T23:30:00Z", "2024-01-01T09:30:00+02:00"]
    assert euros(tariff, times) == [0.1, 0.3, 0.3, 0.1]
    # Numbers are seconds since 1970, or since some midnight.
    assert euros(tariff, np.array([0, 28_799.9, 28_800.0, 86_400 * 3 + 5])) == [0.1, 0.1, 0.3, 0.1]
    rates, _ = tariff.rates(times)
    assert rates.number == 2
    assert rates.by_kind["money"].mean_per_kwh == pytest.approx((8 * 0.1 + 16 * 0.3) / 24)


def test_rates_by_the_hour_of_the_day(tmp_path: Path) -> None:
    of_day = tariff_of("hour,eur_per_kwh\n3,0.1\n12,0.3\n", tmp_path).by_hour()
    assert list(of_day) == ["money"]
    assert [each[[3, 12]].tolist() for each in of_day["money"]] == [[0.1, 0.3]] * 3
    assert np.isnan(of_day["money"][0]).sum() == 22
    # Days have their own rates of an hour, and here so have quarters: 00:00Z, 01:00Z and 01:15Z.
    market = tariff_of(MARKET, tmp_path)
    least, mean, most = (each[:2].tolist() for each in market.by_hour()["money"])
    assert (least, mean, most) == ([0.2, 0.1], [0.2, pytest.approx(0.25)], [0.2, 0.4])
    assert market.hours(["2026-03-29T00:59:59Z", "2026-03-29T03:15:00+02:00"]).tolist() == [0, 1]


def test_timestamps_hold_until_the_next_and_for_an_hour_at_most(tmp_path: Path) -> None:
    tariff = tariff_of(MARKET, tmp_path)
    assert euros(tariff, ["2026-03-29T00:59:59Z", "2026-03-29 01:00", "2026-03-29T03:15:00+02:00"]) == [0.2, 0.1, 0.4]
    for time in ("2026-03-28T23:59:59Z", "2026-03-29T02:15:00Z"):
        with pytest.raises(
            InputError, match=r"timestamp = .*Z: 1 of 2 rows of the workload came when the tariff has no"
        ):
            tariff.rates(["2026-03-29T00:00:00Z", time])


def test_hours_of_a_zone_are_local_ones_in_summer_too(tmp_path: Path) -> None:
    (tmp_path / "tariff.csv").write_text("hour,eur_per_kwh\n" + "".join(f"{h},{h + 1}\n" for h in range(24)))
    berlin = read_tariff(str(tmp_path / "tariff.csv"), "Europe/Berlin")
    hours = {
        "2026-01-15T12:00:00": 13,  # of UTC, as nothing else is said
        "2026-07-15T12:00:00Z": 14,
        "2026-07-15T23:30:00+02:00": 23,
        "2026-03-29T00:59:59Z": 1,
        "2026-03-29T01:00:00Z": 3,  # summer begins
        "2026-10-25T00:30:00Z": 2,
        "2026-10-25T01:30:00Z": 2,  # the hour that is there twice
    }
    assert euros(berlin, list(hours)) == [hour + 1 for hour in hours.values()]
    assert euros(read_tariff(tmp_path / "tariff.csv", "Asia/Kolkata"), ["2026-01-01T18:29:59Z"]) == [24]
    night = tariff_of("hour,eur_per_kwh\n1,0.2\n", tmp_path)
    assert euros(night, ["2026-01-15T01:00:00"]) == [0.2]
    with pytest.raises(InputError, match=r"hour = 2: .* add a row for this hour \(Europe/Berlin\) to --tariff"):
        read_tariff(tmp_path / "tariff.csv", "Europe/Berlin").rates(["2026-01-15T01:00:00Z"])


@pytest.mark.parametrize("zone", ["Europe/Belrin", "Europe", "", "../etc/passwd", "a\0b"])
def test_zones_that_there_are_not(tmp_path: Path, zone: str) -> None:
    (tmp_path / "tariff.csv").write_text(NIGHT_AND_DAY)
    with pytest.raises(InputError, match=r"--tariff-zone = .*: no time zone of this name"):
        read_tariff(tmp_path / "tariff.csv", zone)


def test_timestamps_need_no_zone(tmp_path: Path) -> None:
    (tmp_path / "tariff.csv").write_text(MARKET)
    with pytest.raises(InputError, match=r"--tariff-zone = Europe/Berlin: .*has timestamps"):
        read_tariff(tmp_path / "tariff.csv", "Europe/Berlin")


@settings(max_examples=25)
@given(order=st.permutations(range(24)), hours=st.lists(st.integers(0, 23), min_size=1, max_size=40))
def test_neither_order_of_rows_changes_anything(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], hours: list[int]
) -> None:
    per_kwh = [round(0.1 + (hour % 5) / 10, 1) for hour in range(24)]
    text = "hour,eur_per_kwh\n" + "".join(f"{hour},{per_kwh[hour]}\n" for hour in order)
    tariff = tariff_of(text, tmp_path_factory.getbasetemp())
    assert euros(tariff, np.array(hours) * 3600) == [per_kwh[hour] for hour in hours]
    tokens = np.array(hours) + 1
    cells = [
        Workload.from_tokens(tokens[rows], tokens[rows], row_rates=tariff.rates(np.array(hours)[rows] * 3600))
        for rows in (np.arange(len(hours)), np.arange(len(hours))[::-1])
    ]
    assert cells[0].cell_rate is not None
    assert cells[1].cell_rate is not None
    assert cells[0].cell_rate.tolist() == cells[1].cell_rate.tolist()
    assert cells[0].rates.by_kind["money"].per_kwh.tolist() == cells[1].rates.by_kind["money"].per_kwh.tolist()


def test_cells_are_told_apart_by_what_a_kwh_costs_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "input_tokens": 8,
            "output_tokens": 8,
            "query_class": ["chat", "code", "chat", "chat"],
            "timestamp": ["2024-01-01T00:00", "2024-01-01T01:00", "2024-01-01T07:00", "2024-01-01T12:00"],
        }
    )
    (tmp_path / "workload.csv").write_text(frame.to_csv(index=False))
    workload = read_workload(tmp_path / "workload.csv", tariff=tariff_of(NIGHT_AND_DAY, tmp_path))
    assert workload.cell_rate is not None
    cells = zip(workload.cell_class.tolist(), workload.cell_rate.tolist(), workload.count.tolist(), strict=True)
    assert list(cells) == [(0, 0, 2), (0, 1, 1), (1, 0, 1)]
    with pytest.raises(InputError, match="timestamp = missing: a tariff needs the time of each query"):
        Workload.from_frame(frame.drop(columns="timestamp"), tariff_of(NIGHT_AND_DAY, tmp_path))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hour,eur_per_kwh\n", "--tariff = .*: holds no rows"),
        ("hour,eur_per_mwh\n0,100\n", "column = eur_per_mwh: .* may have hour, timestamp, eur_per_kwh, g_co2_per_kwh"),
        ("eur_per_kwh\n1\n", "column = neither: .* needs one of hour"),
        ("hour,timestamp,eur_per_kwh\n0,2024-01-01,1\n", "column = hour and timestamp: "),
        ("hour\n0\n", "column = neither: .* needs eur_per_kwh or g_co2_per_kwh"),
        ("hour,eur_per_kwh\n24,1\n", "hour = 24: row 1 of .* needs a whole number from 0 to 23"),
        ("hour,eur_per_kwh\n,1\n", "hour = empty: "),
        ("hour,eur_per_kwh\n1.5,1\n", r"hour = 1\.5: "),
        ("hour,eur_per_kwh\n3,1\n4,1\n3,2\n", "hour = 3: row 3 of .* repeats it"),
        ("timestamp,eur_per_kwh\n2024-01-01T01:00Z,1\n2024-01-01T02:00+01:00,1\n", r"timestamp = 2024-.*: row 2 of"),
        ("timestamp,eur_per_kwh\nnoon,1\n", "timestamp = noon: row 1 needs of --tariff the time from which it holds"),
        (
            "hour,eur_per_kwh\n3,-0.01\n",
            r"eur_per_kwh = -0\.01: row 1 of .* above 0, as below it the least cost is the m",
        ),
        ("hour,g_co2_per_kwh\n3,0\n", r"g_co2_per_kwh = 0: row 1 of .* needs a number above 0, as below"),
        ("hour,eur_per_kwh\n3,\n", "eur_per_kwh = empty: row 1 of .* needs a number above 0$"),
        ("hour,eur_per_kwh\n3,inf\n", "eur_per_kwh = inf: "),
    ],
)
def test_refusals(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=complaint):
        tariff_of(text, tmp_path)


def test_an_hour_without_a_rate_is_named(tmp_path: Path) -> None:
    tariff = tariff_of("hour,eur_per_kwh\n5,1\n6,1\n", tmp_path)
    with pytest.raises(
        InputError, match=r"hour = 4: 2 of 3 rows of the workload came when .*; add a row for this hour"
    ):
        tariff.rates(["2024-01-01T04:00", "2024-01-01T05:00", "2024-01-01T07:00"])
    with pytest.raises(InputError, match="timestamp = soon: row 1 needs the time of arrival"):
        tariff.rates(["soon"])
