"""A row that comes again with other values is told, and becomes a version where it is known later."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.features.offline.join import join_views
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Total, WindowView

NOW = datetime(2024, 6, 1, tzinfo=UTC)
EVENTS = Contract(
    (Column("event", "integer"), Column("at", "time"), Column("total", "number"), Column("shop", "text")),
    key=("event",),
)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def events(*rows, contract=EVENTS, **more):
    """Rows of event, day and total."""
    frame = pl.DataFrame(
        {
            "event": [row[0] for row in rows],
            "at": [f"2024-05-{row[1]:02}T12:00:00Z" for row in rows],
            "total": [float(row[2]) for row in rows],
            "shop": ["x"] * len(rows),
        }
    )
    return Table("events", frame, contract, available_at="at", limit=0.5, **more)


def kept(home):
    return sorted(Lake(home.lake).scan("events").select("event", "total").collect().rows())


def last(home):
    return sorted(Lake(home.lake).read("events", columns=["event", "total"]).rows())


def told(report):
    return report.appended, report.skipped, report.changed, report.revised


def test_a_known_key_with_other_values_is_told_and_the_first_is_kept(home):
    ingest(events((7, 1, 10), (8, 1, 5)), home=home, now=NOW)
    report = ingest(events((7, 1, 11), (8, 1, 5)), home=home, now=NOW)
    assert told(report) == (0, 1, 1, 0)
    words = "0 new, 1 already there, 1 changed (kept the first: event 7, total 10 kept, 11 dropped)"
    assert words in report.line()
    assert json.loads(json.dumps(report.to_dict()))["changed"] == 1
    assert kept(home) == [(7, 10.0), (8, 5.0)]


def test_a_correction_that_is_known_later_is_a_new_version_of_the_row(home):
    ingest(events((7, 1, 10), (8, 1, 5)), home=home, now=NOW)
    report = ingest(events((7, 3, 11), (8, 1, 5)), home=home, now=NOW + timedelta(hours=1))
    assert told(report) == (0, 1, 1, 1)
    assert "1 changed (1 new version: event 7, total 10, now 11)" in report.line()
    assert kept(home) == [(7, 10.0), (7, 11.0), (8, 5.0)]
    assert last(home) == [(7, 11.0), (8, 5.0)]
    rows = Lake(home.lake).scan("events").filter(pl.col("event") == 7).sort("available_at").collect()
    assert rows["ingested_at"].to_list() == [NOW, NOW + timedelta(hours=1)]
    for again in (events((7, 1, 10), (8, 1, 5)), events((7, 3, 11), (8, 1, 5))):
        assert told(ingest(again, home=home, now=NOW)) == (0, 2, 0, 0), "either file once more brings nothing"
    assert told(ingest(events((7, 5, 12)), home=home, now=NOW)) == (0, 0, 1, 1)
    assert last(home) == [(7, 12.0), (8, 5.0)]


def test_a_correction_that_is_known_earlier_is_told_and_not_taken(home):
    ingest(events((7, 3, 11)), home=home, now=NOW)
    assert told(ingest(events((7, 1, 10)), home=home, now=NOW)) == (0, 0, 1, 0)
    assert kept(home) == [(7, 11.0)]


def test_a_new_stamp_on_the_same_values_changes_nothing(home):
    ingest(events((7, 1, 10)), home=home, now=NOW)
    assert told(ingest(events((7, 9, 10)), home=home, now=NOW)) == (0, 1, 0, 0)
    assert Lake(home.lake).version("events") == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_history_in_one_file_is_kept_whole_in_any_order(home, order):
    rows = [(7, 1, 10), (7, 2, 11), (7, 3, 12)]
    report = ingest(events(*(rows[place] for place in order), (8, 1, 5)), home=home, now=NOW)
    assert told(report) == (2, 0, 2, 2)
    assert kept(home) == [(7, 10.0), (7, 11.0), (7, 12.0), (8, 5.0)]
    assert last(home) == [(7, 12.0), (8, 5.0)]
    assert told(ingest(events(*rows, (8, 1, 5)), home=home, now=NOW)) == (0, 4, 0, 0)


def test_a_folder_comes_to_the_same_table_as_its_files_one_by_one(home, tmp_path):
    files = [events((7, 1, 10), (8, 1, 5)), events((7, 2, 11), (9, 2, 6)), events((8, 1, 7), (9, 3, 8))]
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for place, table in enumerate(files):
        table.source.write_csv(inbox / f"{place}.csv")
        ingest(table, home=home, now=NOW)
    other = Home.open(tmp_path / "other")
    whole = replace(files[0], source=inbox)
    assert told(ingest(whole, home=other, now=NOW)) == (3, 0, 3, 2)
    assert told(ingest(whole, home=other, now=NOW)) == (0, 5, 1, 0)
    assert (kept(home), last(home)) == (kept(other), last(other))


def test_a_contradiction_within_one_file_goes_to_quarantine_as_before(home):
    report = ingest(events((7, 1, 10), (7, 1, 11), (8, 1, 1)), home=home, now=NOW)
    assert (told(report), report.quarantined) == ((2, 0, 0, 0), 1)


def test_a_row_that_was_refused_and_comes_corrected_is_new(home):
    strict = replace(EVENTS, columns=tuple(replace(c, upper=100) if c.name == "total" else c for c in EVENTS.columns))
    first = ingest(events((7, 1, 999), (8, 1, 5), contract=strict), home=home, now=NOW)
    assert (first.appended, first.quarantined) == (1, 1)
    second = ingest(events((7, 1, 99), (8, 1, 5), contract=strict), home=home, now=NOW)
    assert told(second) == (1, 1, 0, 0)


def test_values_of_persons_are_not_told(home):
    columns = tuple(replace(c, personal=c.name in ("event", "total")) for c in EVENTS.columns)
    for total in (4711, 4712):
        report = ingest(events((1234567, 1, total), contract=replace(EVENTS, columns=columns)), home=home, now=NOW)
    assert report.changed == 1
    assert not any(value in str(report.to_dict()) + report.line() for value in ("4711", "4712", "1234567"))


def test_views_answer_as_it_was_known_then_and_the_online_store_agrees(home, tmp_path):
    ingest(events((7, 1, 10), (8, 1, 5)), home=home, now=NOW)
    ingest(events((7, 3, 11)), home=home, now=NOW)
    newest = AsOfView("newest", "events", ("event",), ("total",))
    window = WindowView(
        "week", "events", {"shop": "shop"}, timedelta(days=7), {"n": Total("count"), "s": Total("sum", "total", 1)}
    )
    days = [datetime(2024, 5, day, tzinfo=UTC) for day in (2, 4)]
    asked = pl.DataFrame(
        {"event": [7, 7], "shop": ["x", "x"], "prediction_time": pl.Series(days).dt.cast_time_unit("us")}
    )
    offline = join_views(asked, [newest, window], Lake(home.lake))
    assert offline["total"].to_list() == [10.0, 11.0]
    assert offline["n"].to_list() == [2, 2], "a correction is no second event"
    assert offline["s"].to_list() == [15.0, 15.0], "a window sees an event as it was first known"
    with OnlineStore(tmp_path / "online.sqlite") as store:
        materialize([newest, window], Lake(home.lake), store)
        times = np.array([int(day.timestamp() * 1e6) for day in days])
        online = store.lookup([newest, window], {"event": np.array([7, 7]), "shop": np.array(["x", "x"])}, times)
    assert {name: values.tolist() for name, values in online.items()} == {n: offline[n].to_list() for n in online}


def test_a_query_that_brings_a_correction_makes_a_version(home, tmp_path):
    place = tmp_path / "shop.db"
    source = SqlSource(f"sqlite:///{place}", "SELECT * FROM events", cursor="number")
    contract = replace(EVENTS, columns=(*EVENTS.columns, Column("number", "integer")))
    table = Table("events", source, contract, available_at="at")
    with sqlite3.connect(place) as database:
        database.execute("CREATE TABLE events (event, at, total, shop, number)")
        database.execute("INSERT INTO events VALUES (7, '2024-05-01T12:00:00Z', 10.0, 'x', 1)")
    ingest(table, home=home, now=NOW)
    with sqlite3.connect(place) as database:
        database.execute("UPDATE events SET total = 11.0, at = '2024-05-03T12:00:00Z', number = 2")
    assert told(ingest(table, home=home, now=NOW)) == (0, 0, 1, 1)
    assert told(ingest(table, home=home, now=NOW)) == (0, 1, 0, 0)
    assert last(home) == [(7, 11.0)]


def test_new_values_of_an_open_category_are_told_with_their_share(home):
    shops = tuple(replace(c, kind="category", categories=("x",)) if c.name == "shop" else c for c in EVENTS.columns)
    table = events(*((number, 1, 1) for number in range(100)), contract=replace(EVENTS, columns=shops))
    table = replace(table, source=table.source.with_columns(shop=pl.Series(["x"] * 97 + ["YY", "YY", "ZZ"])))
    report = ingest(table, home=home, now=NOW)
    assert report.new_values == {"shop": {"values": ["YY", "ZZ"], "rows": 3, "share": 0.03}}
    assert "; shop: 2 new values in 3 % of rows: 'YY', 'ZZ'" in report.line()


def test_a_learned_rule_that_rows_break_is_told(home):
    columns = tuple(replace(c, upper=100, learned=True) if c.name == "total" else c for c in EVENTS.columns)
    report = ingest(events((7, 1, 999), (8, 1, 5), contract=replace(EVENTS, columns=columns)), home=home, now=NOW)
    assert (report.appended, report.flagged) == (2, {"total: usually at most 100": 1})
    assert "; flagged: 1 row (50 %) - total: usually at most 100 (row 0" in report.line()


def test_any_history_cut_into_files_comes_to_the_same_versions(tmp_path):
    random = np.random.default_rng(3)
    rows = [
        (int(e), day, int(random.integers(3)))
        for e in range(12)
        for day in sorted(random.choice(25, 3, replace=False) + 1)
    ]
    expected = set()
    for event in range(12):
        before = None
        for _, _, total in sorted(row for row in rows if row[0] == event):
            expected |= {(event, float(total))} if total != before else set()
            before = total
    homes = [Home.open(tmp_path / f"home{place}") for place in range(2)]
    ingest(events(*(rows[place] for place in random.permutation(len(rows)))), home=homes[0], now=NOW)
    for first in range(0, 26, 5):  # files as they come day by day
        some = [row for row in rows if first <= row[1] < first + 5]
        if some:
            ingest(events(*some), home=homes[1], now=NOW)
    assert kept(homes[0]) == kept(homes[1])
    assert set(kept(homes[0])) == expected


def test_rows_that_say_nothing_but_their_key_are_known(home):
    contract = Contract(EVENTS.columns[:2], key=("event",))
    table = events((7, 1, 10), (8, 1, 10))
    table = replace(table, source=table.source.select("event", "at"), contract=contract)
    assert told(ingest(table, home=home, now=NOW)) == (2, 0, 0, 0)
    assert told(ingest(table, home=home, now=NOW)) == (0, 2, 0, 0)


def test_two_processes_at_once_make_one_version(home, tmp_path):
    """Another machine commits between the decision and the commit: the decision is made again."""
    from mlworkbench.data.ingest import ingest as module

    ingest(events((7, 1, 10)), home=home, now=NOW)
    decide, raced = module.decide, []

    def slow(gathered, lake):
        found = decide(gathered, lake)
        if not raced:
            raced.append(True)
            other = Home(tmp_path / "another_machine")
            other.path.mkdir()
            (other.path / "locks").mkdir()
            for name in ("lake", "quarantine"):
                (other.path / name).symlink_to(home.path / name)
            assert told(ingest(events((7, 3, 11)), home=other, now=NOW)) == (0, 0, 1, 1)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "decide", slow)
        assert told(ingest(events((7, 3, 11)), home=home, now=NOW)) == (0, 1, 0, 0)
    assert kept(home) == [(7, 10.0), (7, 11.0)]
