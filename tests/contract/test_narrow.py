"""What a number type cannot hold is refused, alike by the check of columns and by that of records."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.contract.check import check_columns, check_records
from mlworkbench.contract.contract import Column, Contract, find_limits
from mlworkbench.contract.record_check import GOOD, REFUSED, RowCheck
from mlworkbench.errors import ContractError

DTYPES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "float32", "float64"]
NULLABLE = [name.replace("int", "Int").replace("u", "U") for name in DTYPES] + ["Float32", "object[int]"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bounds_are_those_of_numpy(dtype: str) -> None:
    limits, info = find_limits(Column("a", "integer", dtype=dtype)), np.iinfo(dtype)
    if dtype == "int64":
        assert limits is None
    else:
        assert limits is not None
        assert (limits.lower, limits.upper) == (info.min, min(info.max, 2**63 - 1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_holds_what_rounds_to_something_finite(dtype: str) -> None:
    limits, largest = find_limits(Column("a", "number", dtype=dtype)), float(np.finfo(dtype).max)
    if dtype == "float64":
        assert limits is None
        return
    assert limits is not None
    assert limits.holds(largest) and limits.holds(0.1) and limits.holds(math.nan) and limits.holds(math.inf)
    with np.errstate(over="ignore"):
        assert np.isfinite(np.float64(limits.upper).astype(dtype))
        assert np.isinf(np.nextafter(limits.upper, np.inf).astype(dtype))
    assert not limits.holds(-largest * 2)


def test_whole_numbers_kept_as_doubles_end_where_two_look_alike() -> None:
    limits = find_limits(Column("a", "number", nullable=True, dtype="Int64"))
    assert limits is not None
    assert limits.holds(float(2**53 - 1)) and not limits.holds(float(2**53)) and not limits.holds(1.5)


@pytest.mark.parametrize("dtype", ["", "category", "object", "bool", "string", "datetime64[ns]", "float64"])
def test_other_types_have_no_limits(dtype: str) -> None:
    assert find_limits(Column("a", "number", dtype=dtype)) is None


@given(
    st.sampled_from([*DTYPES, *FLOATS, *NULLABLE]),
    st.lists(st.integers(-(2**64), 2**64) | st.floats() | st.integers(-300, 300), min_size=1, max_size=4),
)
def test_columns_and_records_agree(dtype: str, values: list[float]) -> None:
    kind = "integer" if dtype in DTYPES else "number"
    contract = Contract((Column("a", kind, nullable=kind == "number", dtype=dtype),))
    check = RowCheck(contract)
    _, faults = check_records([{"a": value} for value in values], contract)
    refused = {fault.row for fault in faults if fault.severe}
    assert [check.verdict({"a": value}) == REFUSED for value in values] == [
        row in refused for row in range(len(values))
    ]
    many, _ = check_records([{"a": value} for value in values * 20], contract)
    assert {fault.row % len(values) for fault in check_columns(many, contract) if fault.severe} <= refused


@given(st.lists(st.none() | st.booleans() | st.integers(0, 1) | st.just("true"), min_size=1, max_size=40))
def test_a_boolean_that_may_be_missing_is_true_false_or_null(values: list[object]) -> None:
    contract = Contract((Column("a", "boolean", nullable=True, missing="none"),))
    columns, faults = check_records([{"a": value} for value in values], contract)
    wrong = [row for row, value in enumerate(values) if not (value is None or isinstance(value, bool))]
    assert [fault.row for fault in faults] == wrong
    assert columns["a"].tolist() == [None if row in wrong else value for row, value in enumerate(values)]
    check = RowCheck(contract)
    assert [check.verdict({"a": value}) == GOOD for value in values] == [row not in wrong for row in range(len(values))]


def test_an_unknown_kind_of_missing_is_refused() -> None:
    with pytest.raises(ContractError, match="missing is one of none, nan, na, nat; got 'NA'"):
        Column("a", "text", missing="NA")


def test_pandas_itself_wraps_what_the_check_refuses() -> None:
    assert pd.Series([300]).astype("int8").tolist() == [44]  # the reason for all of this
