"""A time in UTC and a local clock differ by few values; a local time marked as UTC differs by another."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.check import check_columns
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.learn_relations import enforce_rules, learn_relations
from mlworkbench.contract.record_check import FLAGGED, GOOD, RowCheck
from mlworkbench.contract.relation import Relation
from mlworkbench.contract.times import format_time
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.errors import ContractError, IngestError

DAY = 86_400_000_000
START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def departures(count=2_000, days=365, zone="America/New_York", first=0, seed=0):
    """Scheduled times in UTC with what the local clock shows."""
    random = np.random.default_rng(seed)
    minutes = np.sort(random.integers(first * 1440, (first + days) * 1440, count))
    utc = START + minutes * 60_000_000
    local = [datetime.fromtimestamp(time / 1e6, tz=UTC).astimezone(ZoneInfo(zone)) for time in utc.tolist()]
    return {
        "scheduled": utc,
        "minute": np.array([one.hour * 60 + one.minute for one in local], dtype=np.int64),
        "hour": np.array([float(one.hour) for one in local]),
        "digits": np.array([one.hour * 100 + one.minute for one in local], dtype=np.int64),
        "wall": np.array([int(one.replace(tzinfo=UTC).timestamp()) * 1_000_000 for one in local]),
        "delay": random.normal(10, 30, count).round(),
    }


CONTRACT = Contract(
    (
        Column("scheduled", "time"), Column("minute", "integer"), Column("hour", "number"), Column("digits", "integer"),
        Column("wall", "time"), Column("delay", "number"),
    )
)  # fmt: skip


def offsets(contract):
    return {r.columns[1]: r for r in contract.relations if r.rule == "offset" and r.columns[0] == "scheduled"}


def marked_as_utc(rows):
    """The same file with the local time written as if it were UTC."""
    return {**rows, "scheduled": rows["wall"]}


@pytest.fixture(scope="module")
def learned():
    return learn_relations(departures(), CONTRACT)


def test_the_offsets_of_a_year_are_learned_exactly_by_every_clock(learned):
    found = offsets(learned)
    assert {name: relation.clock for name, relation in found.items()} == {
        "minute": "minutes", "hour": "hours", "digits": "hhmm", "wall": "",
    }  # fmt: skip
    assert {relation.known for relation in found.values()} == {((240.0,), (300.0,))}
    assert found["minute"].text == "scheduled - minute is 240 or 300 minutes"
    assert learned.evidence[found["minute"].name]["broken"] == 0
    assert not any("delay" in relation.columns for relation in learned.relations if relation.rule == "offset")


def test_local_time_marked_as_utc_breaks_each_of_them_in_every_row(learned):
    later = departures(500, days=30, first=400, seed=1)
    assert not [fault for fault in check_columns(later, learned) if "minutes" in fault.rule]
    faults = [fault for fault in check_columns(marked_as_utc(later), learned) if "scheduled -" in fault.rule]
    for name in ("minute", "hour", "digits"):
        told = [fault for fault in faults if fault.rule == f"scheduled - {name} is 240 or 300 minutes"]
        assert len(told) == 500
        assert not told[0].severe
        assert (told[0].value, told[0].hint) == (0.0, "it looks like local time marked as UTC")
    assert all(fault.severe for fault in check_columns(marked_as_utc(later), enforce_rules(learned)) if fault in faults)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"])
def test_other_zones_are_learned_and_good_rows_of_another_year_pass(zone):
    contract = learn_relations(departures(zone=zone), CONTRACT)
    assert {"minute", "digits"} <= set(offsets(contract))
    later = departures(1_000, zone=zone, first=365, seed=2)
    ruled = {relation.text for relation in offsets(contract).values()}
    assert not [fault for fault in check_columns(later, contract) if fault.rule in ruled]
    wrong = [fault for fault in check_columns(marked_as_utc(later), contract) if fault.rule in ruled]
    assert len({fault.row for fault in wrong}) == 1_000


def test_training_of_one_summer_allows_the_winter_and_not_another_zone():
    contract = learn_relations(departures(days=60, first=150), CONTRACT)
    assert offsets(contract)["minute"].known == ((180.0,), (240.0,), (300.0,))
    winter = departures(500, days=60, first=330, seed=3)
    ruled = {relation.text for relation in offsets(contract).values()}
    assert not [fault for fault in check_columns(winter, contract) if fault.rule in ruled]
    assert len({fault.row for fault in check_columns(marked_as_utc(winter), contract) if fault.rule in ruled}) == 500


def test_numbers_that_are_no_clock_of_the_time_have_no_offset():
    random = np.random.default_rng(5)
    midnight = START + np.arange(2_000) % 365 * DAY
    columns = {
        "scheduled": midnight,
        "minute": random.integers(0, 12, 2_000),
        "hour": random.choice([15.0, 30, 45], 2_000),
    }
    columns |= {"wall": midnight + random.choice([15, 30, 45, 60], 2_000) * 60_000_000}
    contract = Contract(tuple(column for column in CONTRACT.columns if column.name in columns))
    assert not offsets(learn_relations(columns, contract)), "shifts, gates and durations are none"


def test_single_records_and_columns_agree(learned):
    rows = departures(200, first=365, seed=4)
    for columns in (rows, marked_as_utc(rows)):
        flagged = {
            fault.row for fault in check_columns(columns, replace(learned, relations=tuple(offsets(learned).values())))
        }
        check = RowCheck(replace(learned, relations=tuple(offsets(learned).values())))
        for row in range(200):
            record = {name: values[row].item() for name, values in columns.items()}
            record |= {name: format_time(record[name]) for name in ("scheduled", "wall")}
            assert check.verdict(record) == (FLAGGED if row in flagged else GOOD)


def table(rows, contract):
    times = [pl.Series(name, rows[name]).cast(pl.Datetime("us", "UTC")) for name in ("scheduled", "wall")]
    numbers = [pl.Series(name, rows[name]) for name in ("minute", "hour", "digits", "delay")]
    return Table("departures", pl.DataFrame([*times, *numbers]), contract, available_at="scheduled", limit=1.0)


def test_a_file_that_breaks_it_is_told_at_ingest_and_refused_where_it_is_stated(tmp_path, learned):
    home = Home.open(tmp_path / "home")
    assert not ingest(table(departures(500, first=365, seed=6), learned), home=home).flagged
    wrong = marked_as_utc(departures(500, first=366, seed=7))
    report = ingest(table(wrong, learned), home=home)
    assert report.flagged["scheduled - minute is 240 or 300 minutes"] == 500
    assert "flagged: 500 rows (100 %) - scheduled - minute is 240 or 300 minutes (row 0" in report.line()
    with pytest.raises(IngestError, match="scheduled - minute is 240 or 300 minutes"):
        ingest(replace(table(wrong, enforce_rules(learned)), limit=0.05), home=Home.open(tmp_path / "other"))


def test_an_offset_is_kept_as_json_and_a_wrong_one_refused():
    relation = Relation("offset", ("scheduled", "minute"), known=((240.0,),), clock="minutes")
    assert Relation.from_dict(relation.to_dict()) == relation
    assert Contract.from_dict(replace(CONTRACT, relations=(relation,)).to_dict()).relations == (relation,)
    for wrong in ({"known": ()}, {"clock": "sundial"}, {"rule": "missing"}):
        with pytest.raises(ContractError) as caught:
            replace(relation, **wrong)
        assert caught.value.code == "contract.relation"
    with pytest.raises(ContractError) as caught:
        replace(CONTRACT, relations=(replace(relation, clock=""),))
    assert caught.value.code == "contract.relation_kind"
