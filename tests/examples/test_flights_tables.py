from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import IngestError
from mlworkbench.examples import flights_tables
from mlworkbench.examples.flights_tables import (
    FLIGHTS,
    FLIGHTS_CONTRACT,
    PLANES,
    UNKNOWN_TAIL,
    WEATHER,
    known_at,
    minute_of_day,
    prepare_flights,
    raw_table,
)


@pytest.fixture(scope="module")
def raw():
    return raw_table("flights")


@pytest.fixture(scope="module")
def prepared(raw):
    return prepare_flights(raw)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def test_every_flight_has_a_name_of_its_own(prepared):
    assert prepared["flight_id"].n_unique() == prepared.height == 336_776


def test_without_the_origin_twenty_four_names_repeat(raw):
    named = raw.select("year", "month", "day", "carrier", "flight")
    assert named.height - named.n_unique() == 24


def test_prediction_time_is_an_hour_before_the_scheduled_departure_in_new_york(raw, prepared):
    local = prepared.select(at=pl.col("prediction_time").dt.convert_time_zone("America/New_York") + timedelta(hours=1))
    clock = local["at"].dt.hour().cast(pl.Int64) * 100 + local["at"].dt.minute()
    assert (clock == raw["sched_dep_time"]).all()


def test_no_outcome_is_known_at_its_own_prediction_time(prepared):
    assert (known_at(prepared) > prepared["prediction_time"]).all()


def test_a_flight_to_the_west_does_not_land_hours_early(raw, prepared):
    west = (raw["dest"] == "LAX") & raw["arr_delay"].is_not_null()
    flown = (known_at(prepared) - prepared["scheduled_at"]).filter(west)
    assert flown.min() > timedelta(hours=4)


def test_a_flight_that_never_landed_is_known_a_day_later_and_has_no_label(prepared):
    lost = prepared.filter(pl.col("arr_delay").is_null())
    assert lost.height == 9_430
    assert lost["late"].null_count() == 9_430
    assert ((known_at(lost) - lost["scheduled_at"]) == timedelta(hours=24)).all()


def test_late_means_more_than_fifteen_minutes(prepared):
    delays = prepared.filter(pl.col("arr_delay").is_in([15.0, 16.0])).group_by("arr_delay").agg(pl.col("late").mean())
    assert dict(delays.rows()) == {15.0: 0.0, 16.0: 1.0}


def test_midnight_may_be_written_as_2400():
    table = pl.DataFrame({"clock": [2400, 0, 517, 2359]}).select(minute_of_day("clock"))
    assert table["clock"].to_list() == [0, 0, 317, 1439]


def test_the_lake_has_no_column_that_the_contract_does_not_state(prepared):
    assert tuple(prepared.columns) == FLIGHTS_CONTRACT.names


def test_weather_sends_the_impossible_wind_to_quarantine_and_repeats_append_nothing(home):
    first, second = ingest(WEATHER, home=home), ingest(WEATHER, home=home)
    assert (first.read, first.appended, first.quarantined) == (26_115, 26_114, 1)
    assert second.appended == 0
    bad = Lake(home.quarantine).read("weather")
    assert bad["column"].to_list() == ["wind_speed"]
    assert float(bad["value"].item()) == pytest.approx(1048.36, abs=0.01)


def test_weather_is_available_an_hour_after_its_hour(home):
    ingest(WEATHER, home=home, rows=100)
    table = Lake(home.lake).read("weather")
    assert ((table["available_at"] - table["observed_at"]) == timedelta(hours=1)).all()


def test_planes_are_registered_before_the_year_began(home):
    report = ingest(PLANES, home=home)
    table = Lake(home.lake).read("planes")
    assert report.appended == 3_322
    assert table["available_at"].unique().to_list() == [datetime(2012, 1, 1, tzinfo=UTC)]


def test_flights_with_unknown_tails_are_allowed_and_counted(home):
    ingest(PLANES, home=home)
    report = ingest(FLIGHTS, home=home)
    assert (report.appended, report.quarantined) == (336_776, 0)
    assert report.allowed[UNKNOWN_TAIL] == 50_094


def test_a_missing_package_is_one_line_with_the_extra(monkeypatch):
    monkeypatch.setattr(flights_tables, "find_spec", lambda name: None)
    with pytest.raises(IngestError, match=r"pip install 'mlworkbench\[examples\]'"):
        raw_table("flights")


def test_an_unknown_table_is_refused_by_name():
    with pytest.raises(IngestError, match=r"'trains'.*airlines, airports, flights, planes, weather"):
        raw_table("trains")
