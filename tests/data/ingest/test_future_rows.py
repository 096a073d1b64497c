"""A row that becomes available in the future waits, is named, and moves no mark."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.core.settings_file import read_setting
from mlworkbench.data.ingest import ingest as module
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.errors import IngestError, SettingsError

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONTRACT = Contract((Column("pump", "text"), Column("at", "time"), Column("flow", "number")), key=("pump", "at"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("MLWORKBENCH_INGEST_FUTURE", raising=False)
    return Home.open(tmp_path / "home")


def flows(*times, contract=CONTRACT, flow=1.0, **more):
    rows = {"pump": ["p"] * len(times), "at": list(times), "flow": [flow] * len(times)}
    kinds = {"pump": pl.String, "at": pl.Datetime("us", "UTC"), "flow": pl.Float64}
    return Table("flows", pl.DataFrame(rows, schema=kinds), contract, available_at="at", **more)


def times(home):
    return sorted(Lake(home.lake).read("flows")["at"]) if Lake(home.lake).exists("flows") else []


def counts(report):
    refused, waiting = report.quarantined + report.still_refused, report.held + report.dropped
    assert report.read + report.taken_up == report.appended + report.skipped + report.changed + refused + waiting
    return report.appended, report.skipped, report.held, report.taken_up


@pytest.mark.parametrize("key", [("pump", "at"), ()])
def test_a_row_of_the_future_is_held_named_and_enters_when_its_time_has_come(home, key):
    later = NOON + 2 * HOUR
    table = flows(NOON - HOUR, later, NEVER, contract=replace(CONTRACT, key=key))
    first = ingest(table, home=home, now=NOON)
    assert counts(first) == (1, 0, 2, 0)
    assert ", 2 held until their time (row 1, available 2024-06-01 14:00 UTC)" in first.line()
    assert json.loads(json.dumps(first.to_dict()))["held"] == 2
    assert counts(ingest(table, home=home, now=NOON)) == (0, 1, 2, 0)
    assert Lake(home.held).read("flows").height == 2, "each is held once"
    other = flows(NOON, contract=table.contract)
    second = ingest(other, home=home, now=later)
    assert counts(second) == (2, 0, 0, 1), "the next ingest of the table takes it, whatever it reads"
    assert "1 taken in whose time has come" in second.line()
    assert times(home) == [NOON - HOUR, NOON, later]
    row = Lake(home.lake).read("flows").filter(pl.col("at") == later).to_dicts()[0]
    assert (row["ingested_at"], row["source_row"]) == (later, 1)
    assert counts(ingest(table, home=home, now=later)) == (0, 2, 1, 0)
    assert times(home) == [NOON - HOUR, NOON, later]


@pytest.mark.parametrize("key", [("pump", "at"), ()])
def test_a_held_row_that_its_own_file_brings_again_enters_once(home, key):
    table = flows(NOON - HOUR, NOON + HOUR, contract=replace(CONTRACT, key=key))
    ingest(table, home=home, now=NOON)
    assert counts(ingest(table, home=home, now=NOON + HOUR)) == (1, 1, 0, 0)
    assert counts(ingest(table, home=home, now=NOON + HOUR)) == (0, 2, 0, 0)
    assert times(home) == [NOON - HOUR, NOON + HOUR]
    assert Lake(home.held).read("flows").is_empty()


def test_ten_minutes_are_what_two_clocks_may_differ(home):
    table = flows(NOON + timedelta(minutes=10), NOON + timedelta(minutes=10, seconds=1))
    assert counts(ingest(table, home=home, now=NOON)) == (1, 0, 1, 0)


def test_where_the_future_begins_is_a_setting(home, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_INGEST_FUTURE_AFTER", "2 hours")
    table = flows(NOON + timedelta(minutes=11), NOON + timedelta(hours=2), NOON + timedelta(hours=2, seconds=1))
    assert counts(ingest(table, home=home, now=NOON)) == (2, 0, 1, 0)
    monkeypatch.setenv("MLWORKBENCH_INGEST_FUTURE_AFTER", "3 hours")
    assert counts(ingest(table, home=home, now=NOON)) == (1, 2, 0, 0), "what was held comes in, once"


def test_event_times_may_lie_in_the_future(home):
    contract = Contract((Column("at", "time"), Column("departs", "time")))
    rows = pl.DataFrame({"at": [NOON], "departs": [NEVER]}).cast(pl.Datetime("us", "UTC"))
    assert ingest(Table("plans", rows, contract, available_at="at"), home=home, now=NOON).appended == 1


def test_a_row_of_the_future_does_not_keep_a_source_fresh(home):
    table = flows(NOON - 9 * HOUR, NEVER, max_age=HOUR)
    with pytest.raises(IngestError, match="got 9 h "):
        ingest(table, home=home, now=NOON)
    assert not Lake(home.held).exists("flows"), "nothing was written"
    Lake(home.lake).append("flows", pl.DataFrame(_whole(NEVER)).to_arrow())  # a lake of before
    with pytest.raises(IngestError, match="got 9 h "):
        ingest(table, home=home, now=NOON)


def _whole(time):
    stamp = pl.Series([time]).dt.cast_time_unit("us")
    row = {"pump": ["q"], "at": stamp, "flow": [1.0], "available_at": stamp, "ingested_at": stamp}
    return row | {"source": ["f00d"], "source_row": [0]}


def test_taken_at_once_where_the_settings_say_so_and_still_no_mark_of_freshness(home, monkeypatch, tmp_path):
    (tmp_path / "settings.ini").write_text("[workbench]\n[ingest]\nfuture = take\n")
    monkeypatch.chdir(tmp_path)
    table = flows(NOON, NEVER)
    assert counts(ingest(table, home=home, now=NOON)) == (2, 0, 0, 0)
    with pytest.raises(IngestError, match="got 9 h "):
        ingest(replace(table, max_age=HOUR), home=home, now=NOON + 9 * HOUR)
    (tmp_path / "settings.ini").write_text("[workbench]\n[ingest]\nfuture = keep\n")
    with pytest.raises(SettingsError, match="one of hold, take; got 'keep'"):
        ingest(table, home=home, now=NOON)
    monkeypatch.setenv("MLWORKBENCH_INGEST_FUTURE", "hold")
    assert read_setting("ingest.future").value == "hold"


def test_what_was_held_enters_at_once_when_the_settings_change(home, monkeypatch):
    ingest(flows(NEVER), home=home, now=NOON)
    monkeypatch.setenv("MLWORKBENCH_INGEST_FUTURE", "take")
    assert counts(ingest(flows(NOON), home=home, now=NOON)) == (2, 0, 0, 1)


def test_a_held_correction_becomes_a_version_at_its_time(home):
    contract = Contract(CONTRACT.columns, key=("pump",))
    ingest(flows(NOON, contract=contract), home=home, now=NOON)
    ingest(flows(NOON + HOUR, contract=contract, flow=2.0), home=home, now=NOON)
    assert Lake(home.lake).read("flows")["flow"].to_list() == [1.0]
    report = ingest(flows(contract=contract), home=home, now=NOON + HOUR)
    assert (report.changed, report.revised, report.taken_up) == (1, 1, 1)
    assert Lake(home.lake).read("flows")["flow"].to_list() == [2.0]


def shop(tmp_path, *rows):
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS flows (pump, at, flow, changed)")
        database.executemany("INSERT INTO flows VALUES (?, ?, 1.0, ?)", rows)


@pytest.mark.parametrize("cursor", ["at", "changed"])
def test_a_held_row_moves_no_cursor(home, tmp_path, cursor):
    source = SqlSource(f"sqlite:///{tmp_path / 'shop.db'}", "SELECT * FROM flows", cursor=cursor)
    contract = Contract((*CONTRACT.columns, Column("changed", "integer")), key=("pump",))
    table = Table("flows", source, contract, available_at="at")
    shop(tmp_path, ("a", "2024-06-01T10:00:00Z", 1), ("b", "9999-12-31T00:00:00Z", 2))
    assert counts(ingest(table, home=home, now=NOON)) == (1, 0, 1, 0)
    shop(tmp_path, ("c", "2024-06-01T11:00:00Z", 3))
    report = ingest(table, home=home, now=NOON)
    assert report.appended == 1
    assert sorted(Lake(home.lake).read("flows")["pump"]) == ["a", "c"]
    assert Lake(home.held).read("flows")["pump"].to_list() == ["b"]


def test_a_mark_of_the_future_that_an_older_ingest_left_is_none():
    from mlworkbench.data.sources.sql import write_mark

    source = SqlSource("sqlite:///shop.db", "SELECT * FROM flows", cursor="at")
    for value in (NEVER, NEVER.replace(tzinfo=None), NEVER.date()):
        assert source.since(write_mark(value, source.identity), home, latest=NOON).after is None
    assert source.since(write_mark(NOON, source.identity), home, latest=NOON).after == NOON


@pytest.mark.parametrize("step", ["hold_rows", "release_rows"])
def test_a_process_that_dies_between_the_tables_loses_and_doubles_nothing(home, monkeypatch, step):
    table = flows(NOON, NOON + HOUR)
    moment = NOON if step == "hold_rows" else NOON + HOUR
    if step == "release_rows":
        ingest(table, home=home, now=NOON)

    class Killed(BaseException):
        pass

    def die(*args, **more):
        if step == "hold_rows":
            hold(*args, **more)
        raise Killed

    hold = module.hold_rows
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, step, die)
        ingest(table, home=home, now=moment)
    for _ in range(2):
        ingest(table, home=home, now=NOON)
        ingest(flows(), home=home, now=NOON + HOUR)
        ingest(table, home=home, now=NOON + HOUR)
    assert times(home) == [NOON, NOON + HOUR]
    assert Lake(home.held).read("flows").is_empty()


def test_the_time_of_a_person_is_not_told(home):
    contract = replace(CONTRACT, columns=tuple(replace(c, personal=c.name == "at") for c in CONTRACT.columns))
    report = ingest(flows(NEVER, contract=contract), home=home, now=NOON)
    assert report.held == 1
    assert "9999" not in report.line()
