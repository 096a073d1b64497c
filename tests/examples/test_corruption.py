"""Fifty ways to spoil the rows of flights and weather, and the good rows of later months: who is refused.

Relations learned from January to August beside the stated contracts, asked about September to December. Run
``pytest -s tests/examples/test_corruption.py`` for the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.check import check_columns, check_key, check_records
from mlworkbench.contract.contract import Contract
from mlworkbench.contract.learn_relations import enforce_rules, learn_relations
from mlworkbench.contract.record_check import FLAGGED, REFUSED, RowCheck
from mlworkbench.contract.table_check import check_shares
from mlworkbench.contract.times import NO_TIME, format_time, parse_time
from mlworkbench.examples.flights_tables import (
    FLIGHTS_CONTRACT,
    WEATHER_CONTRACT,
    prepare_flights,
    prepare_weather,
    raw_table,
)
from mlworkbench.operate.training.request_contract import to_contract_array

SEPTEMBER = datetime(2013, 9, 1, tzinfo=UTC)
SAMPLE = 300
CAUGHT = 0.9  # of the rows that a kind spoils, at least so many are refused

Record = dict[str, Any]
Spoil = Callable[[Record, Record], Record]


class Side(NamedTuple):
    """What is known of one table."""

    contract: Contract
    later: dict[str, np.ndarray]
    records: list[Record]
    earlier: dict[str, np.ndarray]


def columns_of(table: pl.DataFrame, contract: Contract) -> dict[str, np.ndarray]:
    kinds = {column.name: column.kind for column in contract.columns}
    times = {name: table[name].cast(pl.Int64).fill_null(NO_TIME).to_numpy() for name in kinds if kinds[name] == "time"}
    return {name: times[name] if name in times else to_contract_array(table[name]) for name in contract.names}


def records_of(table: pl.DataFrame, contract: Contract) -> list[Record]:
    whole = table.drop_nulls()
    rows = whole[np.sort(np.random.default_rng(0).choice(whole.height, SAMPLE, replace=False))]
    times = [column.name for column in contract.columns if column.kind == "time"]
    texts = [pl.col(name).cast(pl.Int64).map_elements(format_time, return_dtype=pl.String) for name in times]
    return rows.with_columns(texts).select(contract.names).to_dicts()


def side(table: pl.DataFrame, contract: Contract, time: str) -> Side:
    """Learn from the months before September; a person closes the carriers and leaves the destinations open."""
    before, later = table.filter(pl.col(time) < SEPTEMBER), table.filter(pl.col(time) >= SEPTEMBER)
    rows = columns_of(before, contract)
    for name, closed in (("carrier", True), ("dest", False)):
        if name in contract.names:
            contract = contract.edited(name, categories=tuple(sorted(set(rows[name].tolist()))), closed=closed)
    learned = enforce_rules(learn_relations(rows, contract))
    return Side(learned, columns_of(later, learned), records_of(later, learned), columns_of(before, learned))


@pytest.fixture(scope="module")
def sides() -> dict[str, Side]:
    flights = prepare_flights(raw_table("flights"))
    weather = prepare_weather(raw_table("weather"))
    return {
        "flights": side(flights, FLIGHTS_CONTRACT, "scheduled_at"),
        "weather": side(weather, WEATHER_CONTRACT, "observed_at"),
    }


def put(name: str, change: Callable[[Any], Any]) -> Spoil:
    return lambda row, other: {**row, name: change(row[name])}


def shifted(text: str, hours: float) -> str:
    return format_time(parse_time(text) + round(hours * 3_600_000_000))


def exchanged(one: str, two: str) -> Spoil:
    return lambda row, other: {**row, one: row[two], two: row[one]}


def without(name: str, spelt: str = "") -> Spoil:
    def spoil(row: Record, other: Record) -> Record:
        rest = {key: value for key, value in row.items() if key != name}
        return {**rest, spelt: row[name]} if spelt else rest

    return spoil


KINDS: list[tuple[str, str, Spoil]] = [
    ("flights", "carrier with a blank", put("carrier", lambda v: f"{v} ")),
    ("flights", "carrier in small letters", put("carrier", lambda v: v.lower() if v.lower() != v else f" {v}")),
    ("flights", "carrier unknown", put("carrier", lambda v: "XX")),
    ("flights", "carrier missing", put("carrier", lambda v: None)),
    ("flights", "origin as ICAO code", put("origin", lambda v: f"K{v}")),
    ("flights", "origin of another town", put("origin", lambda v: "PHL")),
    ("flights", "origin and destination exchanged", exchanged("origin", "dest")),
    ("flights", "destination in small letters", put("dest", lambda v: v.lower())),
    ("flights", "destination as ICAO code", put("dest", lambda v: f"K{v}")),
    ("flights", "destination of another row", lambda row, other: {**row, "dest": other["dest"]}),
    ("flights", "distance in kilometres", put("distance", lambda v: v * 1.609344)),
    ("flights", "distance in nautical miles", put("distance", lambda v: v * 0.868976)),
    ("flights", "distance as text", put("distance", lambda v: f"{v:,.0f}")),
    ("flights", "distance zero", put("distance", lambda v: 0.0)),
    ("flights", "distance 9999 for unknown", put("distance", lambda v: 9999.0)),
    ("flights", "distance with a digit lost", put("distance", lambda v: v // 10)),
    ("flights", "distance infinite", put("distance", lambda v: float("inf"))),
    ("flights", "distance of another row", lambda row, other: {**row, "distance": other["distance"]}),
    ("flights", "air time in seconds", put("air_time", lambda v: v * 60)),
    ("flights", "air time in hours", put("air_time", lambda v: v / 60)),
    ("flights", "air time missing after a landing", put("air_time", lambda v: None)),
    ("flights", "departure delay in seconds", put("dep_delay", lambda v: (v or 1) * 60)),
    ("flights", "departure delay in hours", put("dep_delay", lambda v: (v or 1) / 60)),
    ("flights", "departure delay missing after a landing", put("dep_delay", lambda v: None)),
    ("flights", "arrival delay with its unit", put("arr_delay", lambda v: f"{v:.0f} min")),
    ("flights", "arrival delay -999 for unknown", put("arr_delay", lambda v: -999.0)),
    ("flights", "departure as a clock time (1725)", put("sched_dep_minute", lambda v: v // 60 * 100 + v % 60)),
    ("flights", "departure at minute 1440", put("sched_dep_minute", lambda v: 1440)),
    ("flights", "arrival with half a minute", put("sched_arr_minute", lambda v: v + 0.5)),
    ("flights", "Sunday as day 0", put("weekday", lambda v: 0)),
    ("flights", "weekday by name", put("weekday", lambda v: "Mon")),
    ("flights", "schedule without a zone", put("scheduled_at", lambda v: v[:19])),
    ("flights", "schedule on New York's clock", put("scheduled_at", lambda v: shifted(v, -4))),
    ("flights", "schedule as seconds since 1970", put("scheduled_at", lambda v: parse_time(v) // 1_000_000)),
    ("flights", "asked after the departure", put("prediction_time", lambda v: shifted(v, 3))),
    ("flights", "label 2", put("late", lambda v: 2.0)),
    ("flights", "label as true or false", put("late", bool)),
    ("flights", "label missing after a landing", put("late", lambda v: None)),
    ("flights", "tail number as a number", put("tailnum", lambda v: 14228)),
    ("flights", "a column gone", without("distance")),
    ("flights", "a column misspelt", without("carrier", "carier")),
    ("weather", "temperature in Celsius", put("temp", lambda v: (v - 32) * 5 / 9)),
    ("weather", "temperature in kelvin", put("temp", lambda v: (v + 459.67) * 5 / 9)),
    ("weather", "temperature -9999 for unknown", put("temp", lambda v: -9999.0)),
    ("weather", "temperature and dew point exchanged", exchanged("temp", "dewp")),
    ("weather", "humidity as a share", put("humid", lambda v: v / 100)),
    ("weather", "pressure in inches of mercury", put("pressure", lambda v: v / 33.8639)),
    ("weather", "wind from 370 degrees", put("wind_dir", lambda v: v + 370)),
    ("weather", "wind 999.9 for unknown", put("wind_speed", lambda v: 999.9)),
]


def spoilt(rows: list[Record], spoil: Spoil) -> list[Record]:
    others = rows[1:] + rows[:1]
    found = [spoil(row, other) for row, other in zip(rows, others, strict=True)]
    return [new for new, row in zip(found, rows, strict=True) if repr(new) != repr(row)]


def test_at_least_nine_in_ten_of_fifty_kinds_of_corruption_are_caught(sides: dict[str, Side]) -> None:
    lines, caught, caught_by_rows = [], 0, 0
    for table, name, spoil in KINDS:
        contract = sides[table].contract
        rows = spoilt(sides[table].records, spoil)
        check = RowCheck(contract)
        verdicts = [check.verdict(row) for row in rows]
        refused, flagged = [verdict == REFUSED for verdict in verdicts], [verdict == FLAGGED for verdict in verdicts]
        columns, found = check_records(rows, contract)
        faults = [fault for fault in found if fault.severe]
        of_table = [fault for fault in check_shares(columns, contract, faults) if fault.severe]
        assert {fault.row for fault in faults} == set(np.flatnonzero(refused).tolist()), name
        hint = next((fault.hint for fault in faults if "looks" in fault.hint or "mean" in fault.hint), "")
        told = hint or (f"{faults[0].column}: {faults[0].rule}"[:60] if faults else "")
        told = told or ("not refused, flagged" if np.mean(flagged) >= CAUGHT else "")
        caught_by_rows += np.mean(refused) >= CAUGHT
        caught += np.mean(refused) >= CAUGHT or bool(of_table)
        if of_table and np.mean(refused) < CAUGHT:
            told = f"the table: {of_table[0].column}: {of_table[0].rule}; {of_table[0].hint}"[:110]
        lines.append(f"{table:8} {name:42} {np.mean(refused):7.1%} of {len(rows):3}  {told}")
    side = sides["flights"]
    rows = {name: np.concatenate([values[:50], values[:50]]) for name, values in side.later.items()}
    repeated = len(check_key(rows, side.contract)) / 50
    caught += repeated >= CAUGHT
    caught_by_rows += repeated >= CAUGHT
    lines.append(f"{'flights':8} {'rows sent twice':42} {repeated:7.1%} of  50  flight_id: each key once")
    rule = f"at least {CAUGHT:.0%} of the spoilt rows refused: {caught_by_rows}; or the table as a whole"
    print(f"\n{caught} of {len(lines)} kinds caught ({rule})", *lines, sep="\n")
    assert len(lines) == 50
    assert caught_by_rows >= 45
    assert caught >= 48


def test_no_good_table_of_a_day_a_week_or_a_month_is_refused_as_a_whole(sides: dict[str, Side]) -> None:
    print()
    for name, rows in [(name, rows) for name, side in sides.items() for rows in (side.later, side.earlier)]:
        time, contract = rows["scheduled_at" if name == "flights" else "observed_at"], sides[name].contract
        for size, days in (("days", 1), ("weeks", 7), ("months", 30)):
            part = (time - parse_time("2013-09-01T00:00:00Z")) // (days * 86_400_000_000)
            tables = [{key: values[part == number] for key, values in rows.items()} for number in np.unique(part)]
            found = [check_shares(table, contract, check_columns(table, contract)) for table in tables]
            refused = [fault for faults in found for fault in faults[:1]]
            print(f"{name}: {len(refused)} of {len(tables)} good {size} refused as tables")
            print(*(f"  {fault.line()}" for fault in refused[:5]), sep="\n")
            assert not refused


def test_at_most_one_in_a_thousand_good_rows_of_later_months_is_refused(sides: dict[str, Side]) -> None:
    print()
    for name, (contract, later, records, _) in sides.items():
        count = len(next(iter(later.values())))
        faults = check_columns(later, contract)
        refused, flagged = {f.row for f in faults if f.severe}, {f.row for f in faults if not f.severe}
        print(f"{name}: {len(refused)} of {count:,} good rows from September on refused ({len(refused) / count:.4%}),")
        print(f"  {len(flagged)} flagged; {len(contract.relations)} relations learned from January to August")
        for fault in [fault for fault in faults if fault.severe][:5]:
            print(f"  {fault.line()}")
        assert len(refused) <= count / 1000
        assert all(RowCheck(contract).verdict(record) < REFUSED for record in records)


def test_the_hints_name_the_causes_that_the_page_promises(sides: dict[str, Side]) -> None:
    contract = sides["flights"].contract
    row = sides["flights"].records[0]
    wrong = [{**row, "carrier": f" {row['carrier'].lower()}"}, {**row, "distance": row["distance"] * 1.609344}]
    lines = [fault.line() for fault in check_records(wrong, contract)[1] if fault.severe]
    assert any(f"did you mean {row['carrier']!r}? (blank" in line for line in lines)
    assert any(f"looks like kilometres of {row['distance']:.6g} miles" in line for line in lines)
