"""Three leaks planted in the flights model are found, and nothing is named in the model as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.cli.app import run
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import DefinitionError
from mlworkbench.examples.flights import REQUEST, flights
from mlworkbench.examples.flights_tables import FLIGHTS, PLANES, WEATHER, known_at, raw_table
from mlworkbench.operate.trace.leaks import LeakReport, find_leaks

ROWS = 20_000  # the first three weeks of the year


def landed_on_the_wrong_clock(rows: pl.DataFrame) -> pl.Series:
    """Landings as read on a clock of New York that shows the destination's time: hours early in the west."""
    zones = dict(raw_table("airports").select("faa", "tz").iter_rows())
    behind = pl.col("dest").replace_strict(zones, default=-5, return_dtype=pl.Int64) + 5
    local = rows.with_columns(known=known_at(rows)).with_columns(shifted=pl.col("known") + pl.duration(hours=behind))
    return local.select(pl.when(pl.col("arr_delay").is_null()).then("known").otherwise("shifted")).to_series()


def with_tables(home: Home, *tables: object) -> Lake:
    for table in tables:
        ingest(table, home=home, rows=ROWS, now=datetime(2026, 1, 1, tzinfo=UTC))
    return Lake(home.lake)


@pytest.fixture(scope="module")
def early_weather():
    return replace(WEATHER, available_at="observed_at")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    home = Home.open(tmp_path_factory.mktemp("clean"))
    return with_tables(home, PLANES, WEATHER, FLIGHTS)


def columns(report: LeakReport) -> set[str]:
    return {leak.column for leak in report.leaks}


def test_nothing_is_named_on_the_flights_model_as_it_is(clean: Lake) -> None:
    report = find_leaks(flights, clean)
    assert report.rows == ROWS
    assert report.leaks == ()
    assert report.unwitnessed == ()


def test_landings_read_on_the_clock_of_the_destination_are_named(tmp_path) -> None:
    shifted = replace(FLIGHTS, available_at=landed_on_the_wrong_clock)
    lake = with_tables(Home.open(tmp_path), PLANES, WEATHER, shifted)
    report = find_leaks(replace(flights, tables=(PLANES, WEATHER, shifted)), lake)
    assert {leak.origin for leak in report.leaks} >= {"view origin_landings", "view carrier_landings"}
    assert {"origin_late", "carrier_late", "origin_delay"} <= columns(report)
    assert not columns(report) & {"temp", "built", "tailnum"}
    assert "before they had happened" in report.leaks[0].line()


def test_weather_joined_on_its_own_hour_is_named(tmp_path, early_weather) -> None:
    lake = with_tables(Home.open(tmp_path), PLANES, early_weather, FLIGHTS)
    report = find_leaks(replace(flights, tables=(PLANES, early_weather, FLIGHTS)), lake)
    assert {leak.origin for leak in report.leaks} == {"view weather"}
    assert {"temp", "humid", "wind_speed", "pressure"} <= columns(report)
    assert "up to 1:00:00" in report.leaks[0].evidence


def rows_with_cancellations(lake: Lake) -> pl.DataFrame:
    rows = lake.read("flights", columns=[*REQUEST, "late", "available_at"])
    return rows.with_columns(missed=(pl.col("late").is_null() | (pl.col("late") == 1)).cast(pl.Float64)).drop("late")


def test_the_tail_number_of_cancelled_flights_is_named(clean: Lake) -> None:
    told = replace(flights, data=rows_with_cancellations, label="missed")
    report = find_leaks(told, clean)
    assert columns(report) == {"tailnum"}
    assert "where it is missing the label is always 1" in report.leaks[0].evidence


def rows_with_outcomes(lake: Lake) -> pl.DataFrame:
    return lake.read("flights", columns=[*REQUEST, "arr_delay", "dep_delay", "air_time", "late", "available_at"])


def test_an_outcome_among_the_request_is_named_by_its_contract_and_by_the_label(clean: Lake) -> None:
    told = replace(flights, data=rows_with_outcomes, features=None)
    report = find_leaks(told, clean)
    assert columns(report) == {"arr_delay", "dep_delay", "air_time"}
    evidence = [leak.evidence for leak in report.leaks if leak.column == "arr_delay"]
    assert len(evidence) == 2
    assert "known from available_at on" in evidence[0]
    assert "orders the labels" in evidence[1]


def rows_with_the_years_mean(lake: Lake) -> pl.DataFrame:
    rows = lake.read("flights", columns=[*REQUEST, "arr_delay", "late", "available_at"])
    return rows.with_columns(usual=pl.col("arr_delay").mean().over("carrier")).drop("arr_delay")


def test_a_mean_over_rows_of_the_future_is_named(clean: Lake) -> None:
    told = replace(flights, data=rows_with_the_years_mean, features=(*(flights.features or ()), "usual"))
    report = find_leaks(told, clean)
    assert columns(report) == {"usual"}
    assert "without the rows of the future" in report.leaks[0].evidence


def test_a_table_without_a_witness_is_named_as_believed(clean: Lake, early_weather) -> None:
    believed = replace(early_weather, happened_at=None)
    report = find_leaks(replace(flights, tables=(PLANES, believed, FLIGHTS)), clean)
    assert report.unwitnessed == ("weather",)
    assert "believed: weather" in report.lines()[0]


def test_a_model_without_a_prediction_time_is_refused(clean: Lake) -> None:
    timeless = replace(flights, prediction_time=None, views=(), label_available_at=None, split=None, until=None,
                       deployments=("one_off",), features=("distance",))  # fmt: skip
    with pytest.raises(DefinitionError) as raised:
        find_leaks(timeless, clean)
    assert raised.value.code == "definition.no_prediction_time"


def test_the_command_exits_with_one_where_a_column_is_named(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "early.py").write_text(
        "from dataclasses import replace\n"
        "from mlworkbench.examples.flights import flights\n"
        "from mlworkbench.examples.flights_tables import FLIGHTS, PLANES, WEATHER\n"
        "weather = replace(WEATHER, available_at='observed_at')\n"
        "early = replace(flights, name='early', tables=(PLANES, weather, FLIGHTS))\n"
    )
    (tmp_path / "settings.ini").write_text(
        "[workbench]\nhome = home\n[models]\nearly = early:early\nflights = mlworkbench.examples.flights:flights\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)  # another test's home would go before settings.ini
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["ingest", "--model", "early", "--rows", "3000"]) == 0
    capsys.readouterr()
    assert run(["features", "leaks", "--model", "early", "--json"]) == 1
    said = capsys.readouterr()
    assert {leak["origin"] for leak in json.loads(said.out)["leaks"]} == {"view weather"}
    assert "came from the future" in said.err


def test_rows_moved_to_one_time_leave_the_later_one(tmp_path) -> None:
    from mlworkbench.contract.contract import Column, Contract
    from mlworkbench.data.ingest.table import Table
    from mlworkbench.features.checks.leakage import find_clock_leaks
    from mlworkbench.features.views import AsOfView

    start = datetime(2024, 1, 1, tzinfo=UTC)
    hours = pl.Series([start, start + timedelta(minutes=10)]).dt.cast_time_unit("us")
    rows = pl.DataFrame({"k": ["a", "a"], "x": [1.0, 2.0], "available_at": hours})
    lake = Lake(tmp_path)
    lake.append("t", rows.to_arrow())
    contract = Contract((Column("k", "text"), Column("x", "number")))

    def over(frame: pl.DataFrame) -> pl.Series:
        return pl.Series([start + timedelta(hours=1)] * frame.height)

    table = Table("t", None, contract, happened_at=over)
    moments = [start + timedelta(minutes=5), start + timedelta(hours=2)]
    asked = pl.DataFrame({"k": ["a", "a"], "prediction_time": moments})
    found = find_clock_leaks(asked, [AsOfView("v", "t", ("k",), ("x",))], lake, tables=[table])
    assert [(leak.column, leak.rows) for leak in found] == [("x", 1)]
