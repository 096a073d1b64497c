"""Checking columns: every rule, refused or flagged."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from mlworkbench.contract.check import check_columns, check_key, check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.faults import Fault, suggest_category
from mlworkbench.contract.times import NO_TIME


def check(column: Column, values: object) -> list[Fault]:
    array = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
    return check_columns({column.name: array}, Contract((column,)))


@pytest.mark.parametrize("many", [1, 33])
@pytest.mark.parametrize(
    ("column", "good", "bad", "rule"),
    [
        (Column("a", "number"), 1.0, math.nan, "not null"),
        (Column("a", "number"), 1.0, math.inf, "a finite number"),
        (Column("a", "number", nullable=True), math.nan, -math.inf, "a finite number"),
        (Column("a", "number", lower=0), 0.0, -0.5, "at least 0"),
        (Column("a", "number", upper=5, nullable=True), math.nan, 5.5, "at most 5"),
        (Column("a", "number", infinite=True, upper=5), -math.inf, 6.0, "at most 5"),
        (Column("a", "integer", lower=1, upper=12), 12, 13, "from 1 to 12"),
        (Column("a", "time", lower=0), 0, -1, "at least 1970-01-01T00:00:00+00:00"),
        (Column("a", "time"), 0, NO_TIME, "not null"),
    ],
)
def test_a_number_that_breaks_a_rule_is_found(column: Column, good: float, bad: float, rule: str, many: int) -> None:
    faults = check(column, np.array([good] * many + [bad]))
    assert [(fault.row, fault.rule, fault.severe) for fault in faults] == [(many, rule, True)]


def test_a_missing_time_is_nothing_where_it_may_be_missing() -> None:
    assert check(Column("t", "time", nullable=True, lower=0), np.array([NO_TIME, 5])) == []
    assert check(Column("t", "time", lower=10), np.array([5]))[0].value == "1970-01-01T00:00:00.000005+00:00"


@pytest.mark.parametrize("many", [1, 33])
def test_text_that_breaks_a_rule_is_found(many: int) -> None:
    closed = Column("a", "category", categories=("AA", "UA"), closed=True)
    values = np.array(["AA"] * many + ["UA ", None, 5, math.nan], dtype=object)
    faults = sorted(check(closed, values), key=lambda fault: fault.row)
    assert [fault.rule for fault in faults] == ["one of AA, UA", "not null", "text", "not null"]
    assert faults[0].hint == "did you mean 'UA'? (blank)"
    assert check(Column("a", "text", nullable=True), values[: many + 2]) == []


def test_learned_ranges_and_open_categories_flag_and_stated_ones_refuse() -> None:
    def severe(column: Column, value: object) -> bool:
        return check(column, np.array([value], dtype=object if isinstance(value, str) else float))[0].severe

    assert severe(Column("a", "number", upper=1), 2.0)
    assert not severe(Column("a", "number", upper=1, learned=True), 2.0)
    assert severe(Column("a", "category", categories=("x",), closed=True), "y")
    assert not severe(Column("a", "category", categories=("x",)), "y")
    assert not severe(Column("a", "category", categories=("x",), learned=True), "y")
    assert severe(Column("a", "number", learned=True), math.nan)  # missing where training never was


def test_an_absent_column_and_a_wrong_array_are_one_fault_of_the_whole_column() -> None:
    contract = Contract((Column("carrier", "category"), Column("hour", "number"), Column("late", "boolean")))
    columns = {"carier": np.array(["AA"], dtype=object), "hour": np.array(["1"]), "late": np.array([1, 0])}
    faults = check_columns(columns, contract)
    assert [fault.row for fault in faults] == [-1, -1, -1]
    assert faults[0].line() == "column 'carrier': a column of the table; got nothing; did you mean 'carier'?"
    assert "an array for kind number" in faults[1].rule


def test_python_objects_in_a_column_of_numbers_are_read_one_by_one() -> None:
    column = Column("hour", "number", nullable=True, upper=24)
    faults = check(column, ["7", 7, None, 31, math.inf])
    assert sorted((fault.row, fault.rule) for fault in faults) == [
        (0, "a number"),
        (3, "at most 24"),
        (4, "a finite number"),
    ]


def test_narrow_numbers_are_as_good_as_wide_ones() -> None:
    contract = Contract((Column("a", "number", upper=5), Column("b", "integer")))
    assert check_columns({"a": np.array([1], dtype=np.float32), "b": np.array([1], dtype=np.uint8)}, contract) == []
    assert check_columns({"a": np.array([1], dtype=np.int16), "b": np.array([1], dtype=np.int32)}, contract) == []


def test_vectors_are_checked_by_row() -> None:
    column = Column("image", "vector", size=2, lower=0, upper=1)
    values = np.array([[0, 1], [np.nan, 1], [0, 2], [np.inf, 0]])
    assert [(fault.row, fault.rule) for fault in check(column, values)] == [
        (1, "not null"),
        (3, "a finite number"),
        (2, "from 0 to 1"),
    ]
    assert check(column, np.zeros((3, 5)))[0].row == -1


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("AA ", "did you mean 'AA'? (blank)"),
        (" aa", "did you mean 'AA'? (blank, case)"),
        ("aa", "did you mean 'AA'? (case)"),
        ("San  Juan", "did you mean 'San Juan'? (blank)"),
        ("Adelei", "did you mean 'Adelie'?"),
        ("zzz", ""),
    ],
)
def test_the_category_that_was_meant_is_named(value: str, hint: str) -> None:
    assert suggest_category(value, ["AA", "UA", "San Juan", "Adelie"]) == hint


def test_a_personal_value_is_nowhere_in_any_fault() -> None:
    secret = "SECRET7"
    contract = Contract(
        (
            Column("a", "category", categories=("secret7",), closed=True, personal=True),
            Column("b", "number", personal=True, upper=1),
            Column("c", "time", personal=True),
            Column("d", "text", personal=True),
        ),
        key=("d",),
    )
    record = {"a": secret, "b": 7777777, "c": secret, "d": 7777777}
    columns, faults = check_records([record, {**record, "b": secret}], contract)
    columns["d"][:] = secret
    faults += check_key(columns, contract)
    text = " ".join(fault.line() + str(fault.to_dict()) + repr(fault) for fault in faults)
    assert len(faults) == 9
    assert secret.lower() not in text.lower()
    assert "7777777" not in text


def test_a_value_that_cannot_be_read_is_reported_once() -> None:
    contract = Contract((Column("hour", "integer", lower=1), Column("t", "time"), Column("x", "number")))
    records = [{"hour": "7", "t": "now", "x": None}, {"hour": 0, "t": "2013-01-01T00:00Z", "x": 1}]
    _, faults = check_records(records, contract)
    assert [(fault.row, fault.column) for fault in faults] == [(0, "hour"), (0, "t"), (0, "x"), (1, "hour")]


def test_a_key_may_not_repeat_and_the_first_row_keeps_it() -> None:
    contract = Contract((Column("day", "text"), Column("flight", "integer")), key=("day", "flight"))
    columns = {"day": np.array(["a", "a", "a", "b"], dtype=object), "flight": np.array([1, 2, 1, 1])}
    faults = check_key(columns, contract)
    assert [(fault.row, fault.column, fault.hint) for fault in faults] == [(2, "day, flight", "row 0 has it")]
    assert check_key(columns, Contract(contract.columns)) == []


def test_a_table_of_a_hundred_thousand_rows_costs_less_than_a_hundred_sums_of_it() -> None:
    rows = 100_000
    rng = np.random.default_rng(0)
    columns = {f"n{number}": rng.normal(size=rows) for number in range(10)}
    contract = Contract(tuple(Column(name, "number", nullable=True, lower=-9, upper=9) for name in columns))
    start = time.perf_counter()
    assert check_columns(columns, contract) == []
    took = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(100):
        for values in columns.values():
            values.sum()
    assert took < time.perf_counter() - start


def test_very_many_unknown_categories_do_not_cost_a_search_each() -> None:
    column = Column("tail", "category", categories=tuple(f"N{number}" for number in range(60)))
    faults = check(column, np.array([f"X{number}" for number in range(20_000)], dtype=object))
    assert len(faults) == 20_000
    assert not any(fault.hint for fault in faults[100:])
