"""Records: read by the letter, every mistake named, cheap for one."""

from __future__ import annotations

import json
import math
import time
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.contract.check import check_records
from mlworkbench.contract.contract import KINDS, Column, Contract
from mlworkbench.contract.record_check import RowCheck
from mlworkbench.contract.times import NO_TIME
from mlworkbench.contract.values import convert_records, read_column


def one(kind: str, value: object, **fields: object) -> tuple[object, list[str]]:
    columns, faults = convert_records([{"a": value}], Contract((Column("a", kind, **fields),)))  # type: ignore[arg-type]
    return columns["a"].tolist()[0], [f"{fault.rule}; {fault.hint}" for fault in faults]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("number", 3, 3.0),
        ("number", 3.5, 3.5),
        ("number", 2**60, float(2**60)),
        ("number", np.float32(0.5), 0.5),
        ("number", np.int64(7), 7.0),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", -(2**63), -(2**63)),
        ("integer", np.int32(7), 7),
        ("boolean", True, True),
        ("boolean", np.False_, False),
        ("category", "AA", "AA"),
        ("text", "", ""),
        ("text", "NaN", "NaN"),
        ("time", "1970-01-01T00:00:01Z", 1_000_000),
        ("time", datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        ("vector", [1, 2.5], [1.0, 2.5]),
        ("vector", np.array([1.0, 2.0]), [1.0, 2.0]),
    ],
)
def test_a_value_of_its_kind_is_taken(kind: str, value: object, expected: object) -> None:
    got, faults = one(kind, value)
    assert faults == []
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("number", "12.5", "a number; send it without quotes"),
        ("number", "NaN", "a number"),
        ("number", "", "a number"),
        ("number", True, "a number; send 1 or 0"),
        ("number", [1], "a number"),
        ("number", math.inf, "a finite number"),
        ("number", -math.inf, "a finite number"),
        ("number", 10**400, "a finite number"),
        ("number", None, "not null"),
        ("number", math.nan, "not null"),
        ("integer", 2.5, "a whole number"),
        ("integer", True, "a whole number"),
        ("integer", "3", "a whole number; send it without quotes"),
        ("integer", 2**63, "64 bits"),
        ("integer", 1e300, "64 bits"),
        ("integer", math.inf, "a whole number"),
        ("integer", None, "not null"),
        ("boolean", 1, "true or false; send true or false"),
        ("boolean", "true", "true or false"),
        ("boolean", None, "not null"),
        ("category", 12, 'text; send "12"'),
        ("category", True, "text"),
        ("category", None, "not null"),
        ("text", 1.0, 'text; send "1.0"'),
        ("text", math.nan, "not null"),
        ("time", "2013-10-01T12:00:00", "a time with an offset; write it like"),
        ("time", datetime(2013, 10, 1), "a time with an offset"),
        ("time", 1380628800, "a time with an offset"),
        ("time", None, "not null"),
        ("vector", 1.0, "a list of numbers"),
        ("vector", [1, "2"], "a number; send it without quotes"),
        ("vector", [1, None], "a number"),
        ("vector", [1, math.inf], "a finite number"),
        ("vector", None, "not null"),
    ],
)
def test_a_value_that_would_have_to_be_guessed_is_refused(kind: str, value: object, words: str) -> None:
    _, faults = one(kind, value)
    assert len(faults) == 1
    assert words in faults[0]


BLANKS = {"number": math.nan, "category": None, "text": None, "time": NO_TIME}


@pytest.mark.parametrize("missing", [None, math.nan])
@pytest.mark.parametrize(("kind", "blank"), BLANKS.items())
def test_a_missing_value_becomes_the_kinds_own_where_it_may(kind: str, blank: object, missing: object) -> None:
    got, faults = one(kind, missing, nullable=True)
    assert faults == []
    assert got == blank or (got != got and blank != blank)


def test_a_missing_vector_is_a_row_of_nan() -> None:
    values, faults = read_column(Column("a", "vector", nullable=True), [None, [1, 2]])
    assert faults == []
    assert values.shape == (2, 2)
    assert np.isnan(values[0]).all()


def test_vectors_of_other_length_are_refused() -> None:
    _, faults = read_column(Column("a", "vector"), [[1, 2], [1, 2, 3]])
    assert "a list of 2 numbers" in faults[0].rule
    _, faults = read_column(Column("a", "vector", size=3), [[1, 2]])
    assert faults[0].hint == "it has 2"


def test_infinity_is_taken_where_the_contract_allows_it() -> None:
    got, faults = one("number", math.inf, infinite=True)
    assert (got, faults) == (math.inf, [])


def test_a_column_left_out_is_a_fault_even_where_it_may_be_null() -> None:
    contract = Contract((Column("carrier", "category", nullable=True), Column("hour", "number")))
    _, faults = convert_records([{"carier": "AA", "hour": 1}, {}], contract)
    assert [fault.row for fault in faults] == [0, 1, 1]
    assert faults[0].line().endswith("got nothing; the record has 'carier': rename it")
    assert faults[1].hint == "add it, null where it is unknown"


def test_what_is_no_record_is_one_fault_and_not_one_for_each_column() -> None:
    contract = Contract((Column("a", "text"), Column("b", "number")))
    columns, faults = convert_records([["x", 1], {"a": "x", "b": 1}, None], contract)  # type: ignore[list-item]
    assert [(fault.row, fault.column) for fault in faults] == [(0, ""), (2, "")]
    assert columns["b"].tolist()[1] == 1
    assert len(check_records([5], contract)[1]) == 1  # type: ignore[list-item]


def test_columns_that_the_contract_does_not_know_are_left_alone_and_order_is_kept() -> None:
    contract = Contract((Column("b", "number"), Column("a", "number")))
    columns, faults = convert_records([MappingProxyType({"a": 1, "x": {}, "b": 2})], contract)
    assert list(columns) == ["b", "a"]
    assert faults == []


def test_no_records_give_empty_columns_of_the_right_kind() -> None:
    kinds = {"number": "f", "integer": "i", "boolean": "b", "text": "O", "time": "i"}
    columns, faults = convert_records([], Contract(tuple(Column(kind, kind) for kind in kinds)))
    assert faults == []
    assert {name: values.dtype.kind for name, values in columns.items()} == kinds
    assert all(len(values) == 0 for values in columns.values())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=2)
)


@given(st.sampled_from(KINDS), st.lists(anything, max_size=4))
def test_whatever_is_sent_gives_an_array_of_its_kind_and_a_fault_for_each_other_value(kind: str, sent: list) -> None:
    contract = Contract((Column("a", kind),))
    columns, faults = check_records([{"a": value} for value in sent], contract)
    assert len(columns["a"]) == len(sent)
    assert len({fault.row for fault in faults}) == len(faults)
    json.dumps([fault.to_dict() for fault in faults], allow_nan=False)


@given(st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.none(), max_size=6), st.booleans())
def test_the_quick_way_and_the_slow_way_read_the_same(sent: list, nullable: bool) -> None:
    """A text among the values forces the slow way for all of them."""
    column = Column("a", "number", nullable=nullable)
    quick, found = read_column(column, sent)
    slow, others = read_column(column, [*sent, "x"])
    np.testing.assert_array_equal(quick, slow[:-1])
    assert found == others[:-1]


def test_one_record_of_twenty_columns_costs_less_than_three_hundred_json_digits() -> None:
    """A generous bound, as a ratio to work of the same kind, so that only a change of order is found."""
    contract = Contract(tuple(Column(f"n{number}", "number", lower=-10, upper=100) for number in range(20)))
    record = {f"n{number}": float(number) for number in range(20)}
    text = json.dumps(record)

    def best(work: object) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(20):
                work()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    check = RowCheck(contract)
    assert best(lambda: check.good_columns([record])) < 40 * best(lambda: json.loads(text))
