"""Contract, faults and times: declarations that hold together, and lines that give nothing away."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.contract.contract import KINDS, Column, Contract
from mlworkbench.contract.faults import NOTHING, Fault, merge_faults
from mlworkbench.contract.relation import Relation
from mlworkbench.contract.times import NO_TIME, format_time, parse_time
from mlworkbench.errors import ContractError


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "", "kind": "text"}, "name"),
        ({"name": "a", "kind": "bool"}, "did you mean 'boolean'?"),
        ({"name": "a", "kind": "integer", "nullable": True}, "declare it number"),
        ({"name": "a", "kind": "boolean", "nullable": True}, "declare it category"),
        ({"name": "a", "kind": "integer", "infinite": True}, "infinite"),
        ({"name": "a", "kind": "text", "lower": 0}, "no bounds"),
        ({"name": "a", "kind": "number", "lower": 2, "upper": 1}, "lower is at most upper"),
        ({"name": "a", "kind": "number", "upper": float("nan")}, "a bound is a number"),
        ({"name": "a", "kind": "number", "categories": ("x",)}, "no categories"),
        ({"name": "a", "kind": "category", "categories": ("x", "x")}, "each once"),
        ({"name": "a", "kind": "category", "categories": (1, 2)}, "categories are texts"),
        ({"name": "a", "kind": "category", "closed": True}, "list them"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(ContractError, match="contract, column") as caught:
        Column(**fields)
    assert words in str(caught.value)


def test_a_contract_refuses_a_name_twice_and_a_key_that_is_no_column() -> None:
    with pytest.raises(ContractError) as caught:
        Contract((Column("a", "text"), Column("a", "number")))
    assert caught.value.code == "contract.duplicate_column" and "'a' 2 times" in str(caught.value)
    with pytest.raises(ContractError) as caught:
        Contract((Column("origin", "text"),), key=("orign",))
    assert caught.value.code == "contract.unknown_column" and "did you mean 'origin'" in str(caught.value)


columns = st.builds(
    Column,
    name=st.text(min_size=1, max_size=5),
    kind=st.sampled_from(("number", "vector")),
    nullable=st.booleans(),
    lower=st.none() | st.floats(-10, 0),
    upper=st.none() | st.floats(0, 10),
    learned=st.booleans(),
    infinite=st.booleans(),
    personal=st.booleans(),
    unit=st.text(max_size=3),
    size=st.integers(0, 3),
) | st.builds(
    Column,
    name=st.text(min_size=1, max_size=5),
    kind=st.sampled_from(("category", "text")),
    categories=st.lists(st.text(max_size=3), unique=True, min_size=1, max_size=3).map(tuple),
    closed=st.booleans(),
)


@given(st.lists(columns, max_size=4, unique_by=lambda column: column.name))
def test_a_contract_goes_to_json_text_and_back_without_loss(declared: list[Column]) -> None:
    contract = Contract(tuple(declared), key=tuple(column.name for column in declared[:1]))
    assert Contract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


def test_a_field_that_a_written_contract_should_not_have_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        Contract.from_dict({"columns": [{"name": "a", "kind": "text", "nulable": True}]})
    assert caught.value.code == "contract.unknown_field" and "did you mean 'nullable'" in str(caught.value)


def test_selecting_keeps_the_order_asked_for_and_the_key_only_whole() -> None:
    contract = Contract(tuple(Column(name, "text") for name in "abc"), key=("a", "b"))
    assert contract.select(["b", "a"]) == Contract((Column("b", "text"), Column("a", "text")), key=("a", "b"))
    assert contract.select(["a"]).key == ()
    with pytest.raises(ContractError) as caught:
        contract.select(["zz"])
    assert caught.value.code == "contract.unknown_column" and "known: a, b, c" in str(caught.value)


def test_a_contract_is_hashable_and_takes_lists() -> None:
    contract = Contract([Column("a", "category", categories=["x"])], key=["a"])  # type: ignore[arg-type]
    assert contract == Contract((Column("a", "category", categories=("x",)),), key=("a",))
    assert len({contract, Contract.from_dict(contract.to_dict())}) == 1


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"text", "category"}))
def test_a_pseudonym_is_made_of_text_and_the_way_out_says_so(kind: str) -> None:
    with pytest.raises(ContractError, match=f"made of text.*got .kind {kind}.; declare text, no categories"):
        Column("customer", kind, pseudonym=True)


def test_a_contract_lists_no_persons_and_knows_nothing_by_them() -> None:
    with pytest.raises(ContractError, match="persons are not listed; got 'categories'") as refused:
        Column("customer", "text", pseudonym=True, categories=("Ada", "Bob"))
    assert "Ada" not in str(refused.value)
    columns = (Column("fare", "number"), Column("customer", "text", pseudonym=True))
    known = Relation("depends", ("fare", "customer"), known=(("Ada", 1.0, 2.0),))
    with pytest.raises(ContractError) as caught:
        Contract(columns, relations=(known,))
    assert caught.value.code == "contract.relation_kind" and "'customer' of kind pseudonym" in str(caught.value)


def test_a_pseudonym_column_is_personal_and_stays_one_on_its_way_through_json() -> None:
    contract = Contract((Column("customer", "text", pseudonym=True), Column("fare", "number")))
    again = Contract.from_dict(json.loads(json.dumps(contract.to_dict())))
    assert again == contract and again.columns[0].personal and again.columns[0].pseudonym
    assert "pseudonym" not in contract.to_dict()["columns"][1], "an older package opens contracts without one"
    assert Contract.from_dict({"columns": [{"name": "a", "kind": "text"}]}).columns[0].pseudonym is False


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_declared(kind: str) -> None:
    assert Column("a", kind).kind == kind


def test_bounds_of_a_time_are_said_as_times() -> None:
    text = Column("t", "time", lower=0).range_text
    assert text == "at least 1970-01-01T00:00:00+00:00"


# faults -------------------------------------------------------------------------------------------------------------


def test_a_fault_of_a_personal_column_repeats_no_value_and_no_hint() -> None:
    column = Column("passport", "category", categories=("X1", "X2"), closed=True, personal=True)
    fault = column.fault(0, column.categories_text, "x1", "did you mean 'X1'?")
    text = fault.line() + json.dumps(fault.to_dict()) + repr(fault)
    assert "x1" not in text.lower()
    assert "one of 2 known values" in text


def test_a_missing_personal_value_is_still_named_missing() -> None:
    column = Column("passport", "text", personal=True)
    assert "got null; send" in column.fault(0, "not null", None, "send a value").line()
    assert "got nothing; add" in column.fault(0, "in every record", NOTHING, "add it").line()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), b"x", [1, 2], {"a": 1}, 10**30, None, "text", True])
def test_a_fault_is_always_json(value: object) -> None:
    assert json.loads(json.dumps(Fault(0, "a", "rule", value).to_dict(), allow_nan=False))["rule"] == "rule"


def test_a_fault_is_one_short_line_whatever_the_value_holds() -> None:
    line = Fault(0, "a", "rule", "x\n" * 10_000, "hint\n").line()
    assert "\n" not in line
    assert len(line) < 140


def test_a_fault_names_the_row_only_where_there_is_one() -> None:
    assert Fault(-1, "a", "rule", 1).line() == "column 'a': rule; got 1"
    assert Fault(2, "", "an object", "list").line() == "row 2: an object; got 'list'"


def test_an_error_of_many_faults_shows_the_first_severe_one_and_counts_the_rest() -> None:
    faults = [Fault(0, "a", "usually", 1, severe=False), Fault(3, "b", "must", 2), Fault(4, "c", "must", 3)]
    assert str(merge_faults(faults, "file.csv")) == "file.csv: row 3, column 'b': must; got 2 (and 2 more)"


# times --------------------------------------------------------------------------------------------------------------


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_time_survives_text_on_any_clock(moment: datetime, minutes: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    us = parse_time(utc.astimezone(timezone(timedelta(minutes=minutes))).isoformat())
    assert parse_time(format_time(us)) == us
    assert datetime.fromisoformat(format_time(us)) == utc


@pytest.mark.parametrize(
    "text", ["2013-10-01T12:00:00", "2013-10-01", "12:00:00+00:00", "", "noon", None, 5, "2013-02-30T00:00:00Z"]
)
def test_a_time_without_offset_or_sense_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ContractError, match=r'write it like "2013-10-01T12:00:00\+00:00"'):
        parse_time(text)  # type: ignore[arg-type]


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ContractError) as caught:
        format_time(NO_TIME)
    assert caught.value.code == "contract.time"
