"""How old the newest row of a source may be."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import IngestError

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def landings(hours, **more):
    times = [NOON + timedelta(hours=hour) for hour in hours]
    rows = pl.DataFrame({"at": times}, schema={"at": pl.Datetime("us", "UTC")})
    return Table("landings", rows, Contract((Column("at", "time"),), key=("at",)), available_at="at", **more)


def test_a_stale_source_is_refused_by_name_and_nothing_is_written(home):
    table = landings([0, -5], max_age=timedelta(hours=1))
    words = r"'landings' is stale: newest row at most 1 h old; got 1 h 30 min \(2013-10-01 12:00 UTC\); nothing was"
    with pytest.raises(IngestError, match=words):
        ingest(table, home=home, now=NOON + timedelta(minutes=90))
    assert not Lake(home.lake).exists("landings")


def test_a_source_exactly_as_old_as_allowed_is_taken(home):
    assert ingest(landings([0], max_age=timedelta(hours=1)), home=home, now=NOON + timedelta(hours=1)).appended == 1
    ahead = landings([1 / 6], max_age=timedelta(hours=1))
    assert ingest(ahead, home=home, now=NOON).appended == 1, "two clocks may differ by ten minutes"


def test_a_warning_takes_the_rows_and_stands_in_report_and_line(home):
    table = landings([0], max_age=timedelta(hours=1), stale="warn")
    report = ingest(table, home=home, now=NOON + timedelta(days=2))
    assert report.appended == 1
    assert report.warning == "table 'landings' is stale: newest row at most 1 h old; got 2 d (2013-10-01 12:00 UTC)"
    assert report.line().endswith(f"; warning: {report.warning}")
    assert report.to_dict()["warning"] == report.warning


def test_what_the_table_has_already_counts(home):
    ingest(landings([0]), home=home)
    fresh = landings([-9], max_age=timedelta(hours=1))
    assert ingest(fresh, home=home, now=NOON + timedelta(minutes=30)).appended == 1


def test_a_source_without_rows_is_stale(home):
    with pytest.raises(IngestError, match="got no row"):
        ingest(landings([], max_age=timedelta(hours=1)), home=home, now=NOON)


@pytest.mark.parametrize("wrong", [{"max_age": timedelta(0)}, {"stale": "ignore"}])
def test_a_wrong_declaration_is_refused(wrong):
    with pytest.raises(IngestError, match="correct it"):
        landings([0], **wrong)
