"""Columns that a table does not have yet: refused, or merged in the commit of their rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.errors import IngestError
from mlworkbench.features.checks.consistency import check_views
from mlworkbench.features.offline.as_known import join_views_as_known
from mlworkbench.features.offline.join import join_views
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
COLUMNS = (Column("flight", "text"), Column("at", "time"), Column("delay", "number", upper=100))
CONTRACT = Contract(COLUMNS, key=("flight",))
GATE = Column("gate", "text", nullable=True)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def rows(flights, **more):
    at = [NOON + timedelta(minutes=minute) for minute in range(len(flights))]
    return pl.DataFrame({"flight": list(flights), "at": at, "delay": [1.0] * len(flights), **more})


def landings(source, contract=CONTRACT, new_columns="merge", **more):
    return Table("landings", source, contract, available_at="at", new_columns=new_columns, limit=1.0, **more)


def wider(*columns, key=("flight",)):
    return Contract((*COLUMNS, *columns), key=key)


def read(home, *columns):
    return Lake(home.lake).read("landings", columns=columns).sort("flight").rows()


def test_a_new_column_is_refused_unless_the_table_says_merge(home):
    ingest(landings(rows("A"), new_columns="refuse"), home=home)
    for table in (landings(rows("B", gate=["x"])), landings(rows("B", gate=["x"]), wider(GATE))):
        with pytest.raises(IngestError, match="column 'gate' is new"):
            ingest(replace(table, new_columns="refuse"), home=home)
    with pytest.raises(IngestError, match="new_columns must be 'refuse' or 'merge'; got 'take'"):
        landings(rows("A"), new_columns="take")


@pytest.mark.parametrize("contract", [CONTRACT, wider(GATE)])
def test_a_merged_column_comes_in_the_commit_of_its_rows_and_older_rows_lack_it(home, contract):
    ingest(landings(rows("A")), home=home)
    report = ingest(landings(rows("BC", gate=["B12", None]), contract), home=home)
    assert report.new_columns == ["gate (text)" if "gate" in contract.names else "gate (text, undeclared)"]
    assert f"; new columns: {report.new_columns[0]}" in report.line()
    assert (report.appended, report.version) == (2, 1)
    assert read(home, "flight", "gate") == [("A", None), ("B", "B12"), ("C", None)]
    again = ingest(landings(rows("BC", gate=["B12", None]), contract), home=home)
    assert (again.appended, again.skipped, again.version, again.new_columns) == (0, 2, 1, [])


def test_a_column_of_known_rows_alone_is_not_added(home):
    ingest(landings(rows("A")), home=home)
    report = ingest(landings(rows("A", gate=["x"])), home=home)
    assert (report.appended, report.new_columns, report.version) == (0, [], 0)
    assert "gate" not in Lake(home.lake).schema("landings").names


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (Column("gate", "text"), "older rows have none; got one that is never missing; declare it nullable"),
        (Column("gate", "integer"), "declare it a number, nullable"),
        (Column("gate", "boolean"), "declare it a category, nullable"),
    ],
)
def test_a_declared_column_that_older_rows_cannot_lack_is_refused(home, column, words):
    ingest(landings(rows("A")), home=home)
    with pytest.raises(IngestError, match=f"table 'landings': column 'gate' is new; {words}|{words}") as caught:
        ingest(landings(rows("B", gate=["x"]), wider(column)), home=home)
    assert "\n" not in str(caught.value)
    assert Lake(home.lake).version("landings") == 0


def test_a_new_key_column_is_refused(home):
    ingest(landings(rows("A")), home=home)
    with pytest.raises(IngestError, match="take it out of the key"):
        ingest(landings(rows("B", gate=["x"]), wider(GATE, key=("flight", "gate"))), home=home)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (rows("C", gate=[7]), "column 'gate' must be text; got int64"),
        (rows("C"), "column 'gate' is missing"),
        (rows("C", gate=["x"]).drop("delay"), "column 'delay' of the contract is missing"),
        (rows("C", gate=["x"]).with_columns(delay=pl.lit("1")), "column 'delay' must be number; got string"),
        (rows("C", gate=["x"], open=[True]), "column 'open' is new, and of a type that older rows can lack; got bool"),
        (rows("C", gate=["x"], t=[NOON.date()]), "column 't' is new, and of a type that older rows can lack; got date"),
    ],
)
def test_changed_and_missing_columns_are_refused_by_name_under_merge_too(home, source, words):
    ingest(landings(rows("A", gate=["x"])), home=home)
    with pytest.raises(IngestError, match=words) as caught:
        ingest(landings(source), home=home)
    assert "\n" not in str(caught.value)
    assert Lake(home.lake).version("landings") == 0


def test_a_contract_that_declares_another_type_than_was_merged_is_refused(home):
    ingest(landings(rows("A", gate=["x"])), home=home)
    with pytest.raises(IngestError, match="column 'gate' is string; got double"):
        ingest(landings(rows("B", gate=[7.0]), wider(Column("gate", "number", nullable=True))), home=home)


def test_a_declaration_takes_over_what_was_merged(home):
    ingest(landings(rows("A", gate=["x"])), home=home)
    closed = replace(GATE, categories=("x", "y"), closed=True)
    report = ingest(landings(rows("BC", gate=["y", "z"]), wider(closed), new_columns="refuse"), home=home)
    assert (report.appended, report.quarantined, report.new_columns) == (1, 1, [])


def test_a_first_ingest_tells_what_nobody_declared(home):
    assert ingest(landings(rows("A", gate=["x"], size=[3])), home=home).new_columns == [
        "gate (text, undeclared)",
        "size (number, undeclared)",
    ]


def test_a_source_without_rows_changes_nothing(home):
    ingest(landings(rows("A", gate=["x"])), home=home)
    assert ingest(landings(rows("A")[:0]), home=home).read == 0


def test_a_column_made_by_the_transform_is_merged(home):
    ingest(landings(rows("A")), home=home)
    ingest(landings(rows("B"), transform=lambda frame: frame.with_columns(half=pl.col("delay") / 2)), home=home)
    assert read(home, "flight", "half") == [("A", None), ("B", 0.5)]


def test_digits_of_a_csv_file_stay_text_where_the_lake_holds_text(home, tmp_path):
    ingest(landings(rows("A", gate=["B12"])), home=home)
    path = tmp_path / "more.csv"
    path.write_text("flight,at,delay,gate\nB,2013-10-01T12:00:00Z,3,012\n")
    ingest(landings(path), home=home)
    assert read(home, "flight", "gate") == [("A", "B12"), ("B", "012")]


def test_a_query_that_returns_a_new_column_merges_it_and_keeps_its_cursor(home, tmp_path):
    import sqlite3

    database = sqlite3.connect(tmp_path / "shop.db")
    database.execute("CREATE TABLE landings (flight TEXT, at TEXT, delay REAL)")
    database.execute("INSERT INTO landings VALUES ('A', '2013-10-01T12:00:00Z', 1)")
    database.commit()
    source = SqlSource(f"sqlite:///{tmp_path / 'shop.db'}", "SELECT * FROM landings", cursor="at")
    assert ingest(landings(source), home=home).appended == 1
    database.execute("ALTER TABLE landings ADD COLUMN gate TEXT")
    database.execute("INSERT INTO landings VALUES ('B', '2013-10-01T12:01:00Z', 1, 'B12')")
    database.commit()
    report = ingest(landings(source), home=home)
    assert (report.read, report.appended, report.new_columns) == (2, 1, ["gate (text, undeclared)"])
    assert read(home, "flight", "gate") == [("A", None), ("B", "B12")]
    assert ingest(landings(source), home=home).read == 1


def test_quarantine_limit_and_freshness_hold_for_a_growing_table(home):
    ingest(landings(rows("A")), home=home)
    bad = rows("BC", gate=["x", "y"]).with_columns(delay=pl.Series([1.0, 999.0]))
    with pytest.raises(IngestError, check=lambda error: error.code == "ingest.too_many_bad"):
        ingest(replace(landings(bad), limit=0.1), home=home)
    with pytest.raises(IngestError, check=lambda error: error.code == "ingest.stale"):
        ingest(landings(bad, max_age=timedelta(hours=1)), home=home, now=NOON + timedelta(days=1))
    assert "gate" not in Lake(home.lake).schema("landings").names
    report = ingest(landings(bad), home=home)
    assert (report.appended, report.quarantined) == (1, 1)
    assert '"gate": "y"' in Lake(home.quarantine).read("landings")["record"][0]


def test_views_read_across_the_change_offline_online_and_as_known_then(home, tmp_path):
    lake = Lake(home.lake)
    ingest(landings(rows("A")), home=home, now=NOON + timedelta(hours=1))
    old = AsOfView("late", "landings", ("flight",), ["delay"])
    both = AsOfView("both", "landings", ("flight",), {"delay": "number", "gate": "text"})
    requests = pl.DataFrame({"flight": ["A", "B"], "prediction_time": [NOON + timedelta(hours=2)] * 2})
    with OnlineStore(tmp_path / "online.sqlite") as store:
        assert materialize([old], lake, store) == {"late": 1}
        ingest(landings(rows("B", gate=["B12"])), home=home, now=NOON + timedelta(hours=3))
        assert materialize([old, both], lake, store) == {"late": 1, "both": 2}
        assert materialize([old, both], lake, store) == {"late": 0, "both": 0}
        joined = join_views(requests, [both], lake)
        assert joined.select("delay", "gate").rows() == [(1.0, None), (1.0, "B12")]
        found = check_views(requests, [both], lake, store)
        assert found.mismatches == 0
    known = pl.DataFrame(
        {"logged_at": [NOON + timedelta(hours=2)] * 2, "watermark": ['{"both": {"lake_version": 0}}'] * 2}
    )
    then = join_views_as_known(requests, [both], lake, known=known)
    assert then.select(pl.col("delay").fill_nan(None), "gate").rows() == [(1.0, None), (None, None)]
