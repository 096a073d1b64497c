"""Two keys beyond 2**53 stay two rows, or are a fault that says why."""

from __future__ import annotations

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake

KEYS = [2**53, 2**53 + 1, 2**53 - 1, 7]
WRITERS = {"parquet": "write_parquet", "jsonl": "write_ndjson", "csv": "write_csv"}


def written(tmp_path, ending, keys=KEYS):
    path = tmp_path / f"events.{ending}"
    table = pl.DataFrame({"key": keys, "at": ["2013-10-01T12:00:00Z"] * len(keys)})
    getattr(table, WRITERS[ending])(path)
    return path


def events(source, kind):
    contract = Contract((Column("key", kind), Column("at", "time")), key=("key",))
    return Table("events", source, contract, available_at="at", limit=1.0)


@pytest.mark.parametrize("ending", WRITERS)
def test_a_key_of_kind_number_that_a_double_blurs_is_a_fault(tmp_path, ending):
    home = Home.open(tmp_path / "home")
    report = ingest(events(written(tmp_path, ending), "number"), home=home)
    assert (report.appended, report.skipped, report.quarantined) == (2, 0, 2)
    assert sorted(Lake(home.lake).read("events")["key"]) == [7.0, 2.0**53 - 1]
    held = Lake(home.quarantine).read("events").sort("source_row")
    assert set(held["rule"]) == {
        "a number below 2**53, since it is a key and a double may not tell it from its neighbours"
    }
    assert set(held["hint"]) == {"declare the column integer or text"}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_key_of_kind_integer_is_exact(tmp_path, ending):
    home = Home.open(tmp_path / "home")
    report = ingest(events(written(tmp_path, ending), "integer"), home=home)
    assert (report.appended, report.quarantined) == (4, 0)
    assert sorted(Lake(home.lake).read("events")["key"]) == sorted(KEYS)


def test_whole_numbers_written_as_text_with_a_point_are_not_guessed(tmp_path):
    home = Home.open(tmp_path / "home")
    path = tmp_path / "events.csv"
    path.write_text("key,at\n9007199254740992.0,2013-10-01T12:00:00Z\n9007199254740993.0,2013-10-01T12:00:00Z\n")
    report = ingest(events(path, "integer"), home=home)
    assert (report.appended, report.quarantined) == (0, 2)
