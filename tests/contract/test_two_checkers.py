"""Two checkers of one contract, arrays and single records: whatever is sent, both say the same of it."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlworkbench.contract.check import check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.record_check import FLAGGED, GOOD, REFUSED, RowCheck
from mlworkbench.contract.relation import Relation

BOUNDS = st.none() | st.sampled_from([-2.0, 0.0, 3.0, 250.0, 1e39])
NARROW = st.sampled_from(["", "float16", "float32", "int8", "uint16", "Int64", "int32[pyarrow]"])
NUMBERS = st.floats() | st.integers(-300, 70_000) | st.sampled_from([2**53, -(2**63), 2**63, 1e300, -0.0])
WORDS = st.sampled_from(["AA", "UA", "aa", " UA", "ZZ", "", "\ud83d", "\x00"])
TIMES = st.sampled_from(["2013-10-01T12:00:00Z", "2013-10-01T12:00:00", "1969-12-31T23:00:00-05:00", "noon"])
ANYTHING = NUMBERS | WORDS | TIMES | st.booleans() | st.none() | st.lists(NUMBERS | st.none(), max_size=3)


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    """A column of any kind, with any of the rules that go with it."""
    kind = draw(st.sampled_from(["number", "integer", "boolean", "category", "text", "vector", "time"]))
    said: dict[str, Any] = {"learned": draw(st.booleans())}
    if kind in ("number", "vector", "category", "text", "time"):
        said["nullable"] = draw(st.booleans())
    if kind == "boolean" and draw(st.booleans()):
        said |= {"nullable": True, "missing": "none"}
    if kind in ("number", "vector"):
        said["infinite"] = draw(st.booleans())
    if kind in ("number", "integer", "vector", "time"):
        bound = BOUNDS if kind != "time" else BOUNDS.filter(lambda value: value != 1e39)
        lower, upper = draw(bound), draw(bound)
        ordered = lower is None or upper is None or lower <= upper
        said |= {"lower": lower, "upper": upper} if ordered else {"lower": upper, "upper": lower}
    if kind in ("number", "integer"):
        said["dtype"] = draw(NARROW)
    if kind in ("category", "text"):
        known = draw(st.sampled_from([None, ("AA", "UA"), ("UA", "")]))
        said |= {"categories": known, "closed": known is not None and draw(st.booleans())}
    if kind == "vector":
        said["size"] = 2
    return Column(name, kind, **said)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Some columns, and what each of them may miss together with another."""
    found = tuple(draw(columns(name)) for name in "abc"[: draw(st.integers(1, 3))])
    names = [column.name for column in found]
    pairs = [(one, other) for one in names for other in names if one != other]
    drawn = draw(st.lists(st.sampled_from(pairs), max_size=2, unique=True)) if pairs else []
    return Contract(found, relations=tuple(Relation("missing", pair, learned=draw(st.booleans())) for pair in drawn))


RECORDS = st.lists(st.dictionaries(st.sampled_from("abc"), ANYTHING) | st.just("no record"), min_size=1, max_size=40)


@settings(max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contracts(), RECORDS)
def test_the_check_of_arrays_and_the_check_of_a_record_give_one_verdict(contract: Contract, records: list[Any]) -> None:
    row_check, arrays = RowCheck(contract), [GOOD] * len(records)
    for fault in check_records(records, contract)[1]:
        arrays[fault.row] = max(arrays[fault.row], REFUSED if fault.severe else FLAGGED)
    assert [row_check.verdict(record) for record in records] == arrays
    for record in records:
        assert repr(row_check.faults(record)) == repr(check_records([record], contract)[1])


@given(st.lists(st.fixed_dictionaries({"a": st.sampled_from([1.5, None, math.nan]), "b": WORDS}), min_size=33))
def test_many_records_are_judged_as_one_by_one(records: list[dict[str, Any]]) -> None:
    contract = Contract((Column("a", "number", nullable=True), Column("b", "text", categories=("AA", "UA"))))
    alone = [[fault.rule for fault in check_records([record], contract)[1]] for record in records]
    faults = check_records(records, contract)[1]
    assert [[fault.rule for fault in faults if fault.row == row] for row in range(len(records))] == alone
