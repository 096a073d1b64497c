"""Rules between columns: what they say, what they refuse, and three engines that give one verdict."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlworkbench.contract.check import check_columns, check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.faults import NEIGHBOURS, Fault, suggest_unit
from mlworkbench.contract.learn import learn_contract
from mlworkbench.contract.learn_relations import enforce_rules, learn_relations
from mlworkbench.contract.record_check import FLAGGED, GOOD, REFUSED, RowCheck
from mlworkbench.contract.relation import Relation
from mlworkbench.contract.relation_check import check_relations
from mlworkbench.contract.times import NO_TIME, format_time
from mlworkbench.data.ingest.conform import conform, stored_schema
from mlworkbench.errors import ContractError


def objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


TIMES = st.integers(-(10**15), 10**15)
NUMBERS = st.floats(width=32) | st.integers(-5, 5).map(float) | st.sampled_from([0.25, -0.25, 0.1, 0.3]) | st.none()
WORDS = st.sampled_from(["AA", "UA", "aa ", "zz", "", None])
BOUND = st.none() | st.integers(-4, 0).map(float)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Columns of every scalar kind, with drawn rules, and relations of every rule."""
    flag = st.booleans()

    def number(name: str, kind: str = "number") -> Column:
        lower, upper = draw(BOUND), draw(BOUND.map(lambda bound: None if bound is None else -bound))
        free = kind == "number"
        return Column(
            name, kind, nullable=free and draw(flag), lower=lower, upper=upper, learned=draw(flag),
            infinite=free and draw(flag),
        )  # fmt: skip

    known = draw(st.sampled_from([None, ("AA", "UA"), ("AA", "")]))
    closed = known is not None and draw(flag)
    columns = (
        number("a"), number("b"), number("n", "integer"),
        Column("w", "category", nullable=draw(flag), categories=known, closed=closed, learned=draw(flag)),
        Column("s", "time", nullable=draw(flag)), Column("t", "time", nullable=draw(flag), lower=0, learned=draw(flag)),
        Column("y", "boolean"),
    )  # fmt: skip
    relations = [
        Relation("difference", ("a", "b"), lower=draw(BOUND) or 0, learned=draw(flag)),
        Relation("difference", ("a", "b"), lower=-1.0, upper=1.0, learned=draw(flag)),
        Relation("difference", ("t", "s"), lower=0.0, learned=draw(flag)),
        Relation("difference", ("n", "a"), upper=2.0, learned=draw(flag)),
        Relation("ratio", ("a", "b"), lower=-1.0, upper=2.5, learned=draw(flag)),
        Relation("ratio", ("n", "b"), lower=0.5, learned=draw(flag)),
        Relation("depends", ("a", "w"), known=(("AA", -1.0, 1.0), ("", 0.0, 0.0)), learned=draw(flag)),
        Relation("missing", ("a", "w"), learned=draw(flag)),
        Relation("missing", ("w", "t"), learned=draw(flag)),
        Relation("offset", ("t", "s"), known=((0.0,), (60.0,)), learned=draw(flag)),
        Relation("offset", ("t", "a"), known=((0.0,), (1435.0,)), learned=draw(flag), clock="minutes"),
        Relation("offset", ("t", "n"), known=((0.0,), (60.0,), (300.0,)), learned=draw(flag), clock="hours"),
        Relation("offset", ("s", "b"), known=((0.0,), (-5.0,)), learned=draw(flag), clock="hhmm"),
    ]
    return Contract(columns, relations=tuple(draw(st.lists(st.sampled_from(relations), max_size=4, unique_by=id))))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": NUMBERS, "b": NUMBERS, "n": st.integers(-6, 6) | st.just(2**62), "w": WORDS,
            "s": TIMES | st.none(), "t": TIMES | st.none(), "y": st.booleans(),
        }
    ),
    min_size=1, max_size=40,
)  # fmt: skip


def verdicts(faults: list[Fault], count: int) -> list[int]:
    found = [GOOD] * count
    for fault in faults:
        found[fault.row] = max(found[fault.row], REFUSED if fault.severe else FLAGGED)
    return found


def as_columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    def numbers(name: str) -> np.ndarray:
        return np.array([math.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)

    def times(name: str) -> np.ndarray:
        return np.array([NO_TIME if row[name] is None else row[name] for row in rows], dtype=np.int64)

    return {
        "a": numbers("a"), "b": numbers("b"), "n": np.array([row["n"] for row in rows], dtype=np.int64),
        "w": objects([row["w"] for row in rows]), "s": times("s"), "t": times("t"),
        "y": np.array([row["y"] for row in rows], dtype=np.bool_),
    }  # fmt: skip


def as_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = ("s", "t")
    return [{k: format_time(v) if k in timed and v is not None else v for k, v in row.items()} for row in rows]


def as_batch(rows: list[dict[str, Any]], contract: Contract) -> pa.RecordBatch:
    schema = stored_schema(contract)
    arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema.names)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contracts(), ROWS)
def test_columns_records_ingest_and_the_compiled_row_check_give_one_verdict(
    contract: Contract, rows: list[dict[str, Any]]
) -> None:
    by_columns = verdicts(check_columns(as_columns(rows), contract), len(rows))
    by_records = verdicts(check_records(as_records(rows), contract)[1], len(rows))
    by_ingest = verdicts(conform(as_batch(rows, contract), contract, "rows").faults, len(rows))
    check = RowCheck(contract)
    by_row = [check.verdict(record) for record in as_records(rows)]
    assert by_columns == by_records == by_ingest == by_row


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(contracts(), ROWS, st.integers(1, 5))
def test_the_compiled_row_check_reads_good_records_into_the_same_columns_and_leaves_all_others(
    contract: Contract, rows: list[dict[str, Any]], count: int
) -> None:
    records = as_records(rows)[:count]
    columns, faults = check_records(records, contract)
    found = RowCheck(contract).good_columns(records)
    assert (found is None) == bool(faults)
    for name, values in (found or {}).items():
        assert values.dtype == columns[name].dtype
        assert repr(values.tolist()) == repr(columns[name].tolist())


ODD: list[Any] = [1, 1.0, True, "1", "AA", None, math.nan, math.inf, 2**70, -(2**63), 2.5, [1], {}]
ODD += ["2013-10-01T00:00:00Z", "2013-10-01T00:00:00", np.float64(2.5), np.int64(3), [1, 2], [1, None]]
KINDS = [
    Column("x", "number"), Column("x", "number", nullable=True, infinite=True), Column("x", "integer", upper=2),
    Column("x", "boolean"), Column("x", "category", categories=("AA",)), Column("x", "text", nullable=True),
    Column("x", "time", nullable=True), Column("x", "vector", size=2), Column("x", "vector", nullable=True, upper=1),
]  # fmt: skip


@pytest.mark.parametrize("column", KINDS, ids=lambda column: f"{column.kind}, null {column.nullable}")
def test_the_compiled_row_check_reads_odd_values_as_the_check_of_records_does(column: Column) -> None:
    contract = Contract((column,))
    for record in [*({"x": value} for value in ODD), {}, {"y": 1}, "x", None, 5]:
        faults = check_records([record], contract)[1]  # type: ignore[list-item]
        check = RowCheck(contract)
        assert check.verdict(record) == max(verdicts(faults, 1)), record
        assert repr(check.faults(record)) == repr(faults)
        found = check.good_columns([record])
        assert found is None or repr(found) == repr(check_records([record], contract)[0])


def test_a_vector_without_a_value_counts_as_missing_between_columns() -> None:
    columns = (Column("v", "vector", nullable=True, size=2), Column("w", "text", nullable=True))
    contract = Contract(columns, relations=(Relation("missing", ("v", "w")), Relation("missing", ("w", "v"))))
    records = [{"v": v, "w": w} for v in ([1.0, math.nan], [math.nan, math.nan], None) for w in ("a", None)]
    found = [RowCheck(contract).verdict(record) for record in records]
    assert found == verdicts(check_records(records, contract)[1], len(records))


def test_a_contract_with_relations_and_evidence_goes_to_json_and_back() -> None:
    rule = Relation("depends", ("distance", "dest"), known=(("MIA", 1096, 1096.0),), learned=True)
    columns = (Column("distance", "number"), Column("dest", "text"), Column("x", "number"))
    contract = Contract(columns, relations=(rule,), evidence={"distance": {"rows": 3}, rule.name: {"rows": 2}})
    again = Contract.from_dict(json.loads(json.dumps(contract.to_dict())))
    assert again == contract
    assert again.evidence == contract.evidence
    assert again.select(["distance", "dest"]).relations == (rule,)
    assert set(again.select(["distance"]).evidence) == {"distance"}
    assert again.select(["distance"]).relations == ()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Relation("sum", ("a", "b"), 1), "rule is one of"),
        (lambda: Relation("ratio", ("a", "b")), "a bound"),
        (lambda: Relation("ratio", ("a", "b"), 2, 1), "lower at most upper"),
        (lambda: Relation("ratio", ("a",), 2), "two different columns"),
        (lambda: Relation("ratio", ("a", "a"), 2), "two different columns"),
        (lambda: Relation("missing", ("a", "b", "c")), "two different columns"),
        (lambda: Relation("depends", ("a", "b"), known=(("x", 1),)), "known rows"),
        (lambda: Relation.from_dict({"role": "ratio"}), "did you mean 'rule'"),
    ],
)
def test_a_relation_that_says_nothing_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ContractError, match=words):
        make()


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        (Relation("ratio", ("x", "z"), 1), "unknown column 'z'"),
        (Relation("ratio", ("x", "w"), 1), "compares numbers"),
        (Relation("ratio", ("x", "t"), 1), "compares numbers"),
        (Relation("difference", ("x", "t"), 1), "two times or of two numbers"),
        (Relation("depends", ("x", "y"), known=((1, 1, 1),)), "a key is text"),
    ],
)
def test_a_relation_of_the_wrong_columns_is_refused(relation: Relation, words: str) -> None:
    columns = (Column("x", "number"), Column("y", "number"), Column("w", "text"), Column("t", "time"))
    with pytest.raises(ContractError, match=words):
        Contract(columns, relations=(relation,))


def flights(count: int = 4000) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(1)
    place = draws.integers(0, 4, count)
    miles = np.array([187.0, 760.0, 1096.0, 2475.0])[place]
    dest = np.array(["BOS", "ATL", "MIA", "LAX"], dtype=object)[place]
    departed = draws.normal(5, 20, count).round()
    cancelled = draws.random(count) < 0.02
    departed[cancelled] = np.nan
    arrived = departed + draws.normal(-3, 5, count).round()
    arrived[draws.random(count) < 0.01] = np.nan
    return {"dest": dest, "distance": miles, "dep_delay": departed, "arr_delay": arrived}


def learned() -> Contract:
    contract = learn_contract(flights())
    for name, unit in (("distance", "miles"), ("dep_delay", "minutes"), ("arr_delay", "minutes")):
        contract = contract.edited(name, unit=unit)
    return learn_relations(flights(), contract)


def test_relations_are_learned_with_their_evidence_and_nothing_is_learned_from_noise() -> None:
    contract = learned()
    assert {relation.name.split(" from ")[0] for relation in contract.relations} == {
        "distance: as known for dest",
        "dep_delay: dep_delay - arr_delay",
        "arr_delay: null where dep_delay is null",
    }
    assert all(relation.learned for relation in contract.relations)
    for relation in contract.relations:
        assert contract.evidence[relation.name]["rows"] == 4000
        assert contract.evidence[relation.name]["broken"] == 0
    assert contract.evidence["dep_delay"]["missing"] > 0
    noise = {name: np.random.default_rng(2).normal(50, 9, (500, 4))[:, k] for k, name in enumerate("abcd")}
    alone = learn_contract(noise)
    for name in noise:
        alone = alone.edited(name, unit="degrees")
    assert learn_relations(noise, alone).relations == ()


def test_learned_relations_flag_and_stated_ones_refuse() -> None:
    wrong = {name: values[:1] for name, values in flights().items()} | {"distance": np.array([4.0])}
    flagged = check_relations(wrong, learned())
    refused = check_relations(wrong, enforce_rules(learned()))
    assert [fault.severe for fault in flagged] == [False]
    assert [fault.severe for fault in refused] == [True]
    assert refused[0].hint.startswith("for dest ")


def test_kilometres_are_told_by_what_the_destination_says() -> None:
    contract = enforce_rules(learned())
    record = {"dest": "MIA", "distance": 1763.8, "dep_delay": 1.0, "arr_delay": 0.0}
    line = check_records([record], contract)[1][0].line()
    assert line == (
        "row 0, column 'distance': as known for dest; got 1763.8; 1763.8 looks like kilometres of 1096 miles"
    )


def test_a_known_category_misspelt_is_refused_and_a_new_one_is_flagged() -> None:
    contract = Contract((Column("carrier", "category", categories=("AA", "UA")),))
    faults = check_columns({"carrier": objects(["AA", "aa ", "HA"])}, contract)
    assert [(fault.row, fault.severe) for fault in faults] == [(2, False), (1, True)]
    assert faults[1].hint == "did you mean 'AA'? (blank, case)"
    told = Contract((Column("carrier", "category", categories=("AA", "UA"), learned=True),))
    assert not any(fault.severe for fault in check_columns({"carrier": objects(["aa "])}, told))


def test_no_relation_is_learned_of_a_personal_column_and_none_tells_its_value() -> None:
    rows = flights()
    contract = learn_relations(rows, learn_contract(rows, personal=["dest", "dep_delay"]))
    assert not [r for r in contract.relations if r.rule != "missing" and set(r.columns) & {"dest", "dep_delay"}]
    assert set(contract.evidence["dest"]) == {"rows", "missing", "broken"}
    secret = Contract(
        (Column("a", "number", personal=True), Column("b", "number")),
        relations=(Relation("difference", ("b", "a"), lower=0),),
    )
    faults = check_relations({"a": np.array([98765.0]), "b": np.array([1.0])}, secret)
    assert "98765" not in repr(faults)


@pytest.mark.parametrize("unit", sorted(NEIGHBOURS))
def test_a_value_in_another_unit_is_told_by_the_expected_one(unit: str) -> None:
    for name, factor, offset in NEIGHBOURS[unit]:
        sent = (1000.0 + offset) * factor
        assert name in suggest_unit(sent, unit, expected=1000.0)


def test_the_range_of_a_column_tells_the_unit_where_only_one_fits() -> None:
    column = Column("pressure", "number", lower=950, upper=1060, unit="millibars")
    line = check_columns({"pressure": np.array([29.92])}, Contract((column,)))[0].line()
    assert line.endswith("29.92 looks like inches of mercury of 1013.21 millibars")
