"""The contract of a request: learned from rows, stated rules first."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.relation import Relation
from mlworkbench.data.ingest.table import Table
from mlworkbench.errors import DefinitionError
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.training.request_contract import (
    find_source_contract,
    learn_request_relations,
    request_contract,
    to_contract_array,
)
from mlworkbench.scoring.definition import ModelDefinition

STATED = Contract(
    (
        Column("distance", "number", lower=0, upper=12500, unit="miles"),
        Column("seats", "number", lower=1),
        Column("late", "number"),
    )
)


def rows() -> pl.DataFrame:
    count, first, last = 60, pl.datetime(2013, 1, 1), pl.datetime(2013, 1, 3, 11)
    return pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(count)],
            "at": pl.datetime_range(first, last, "1h", time_zone="UTC", eager=True),
            "carrier": ["AA", "UA", "B6"] * 20,
            "gate": list(range(count)),
            "distance": np.linspace(100, 2500, count),
            "seats": list(range(count)),
            "late": [0, 1] * 30,
        }
    )


def definition(**fields: object) -> ModelDefinition:
    views = (
        AsOfView("carriers", "carriers", ("carrier",), {"age": "number"}, ttl=timedelta(days=1)),
        AsOfView("gates", "gates", ("gate",), {"size": "number"}),
    )
    given = {"name": "late", "estimator": LogisticRegression(), "data": rows, "label": "late", "views": views}
    return ModelDefinition(**{**given, "entity": ("flight",), "prediction_time": "at", **fields})


def table(name: str, contract: Contract) -> Table:
    return Table(name, rows, contract, available_at="at")


def test_stated_rules_go_before_learned_ones_of_the_same_kind() -> None:
    contract = request_contract(definition(tables=(table("flights", STATED),)), rows(), {})
    distance, seats = contract.column("distance"), contract.column("seats")
    assert (distance.upper, distance.unit, distance.learned) == (12500, "miles", False)
    assert (seats.kind, seats.learned) == ("integer", True)
    assert contract.names == ("flight", "at", "carrier", "gate", "distance", "seats")


def test_entities_and_numeric_keys_are_not_described_by_their_values_but_texts_that_come_back_are() -> None:
    contract = request_contract(definition(), rows(), {})
    assert contract.column("flight").categories is None
    assert contract.column("gate").upper is None
    assert contract.column("carrier").categories == ("AA", "B6", "UA")
    assert contract.column("at").kind == "time"


def test_the_source_is_the_table_with_the_label_else_with_the_entity() -> None:
    other = Contract((Column("flight", "text"),))
    both = definition(tables=(table("other", other), table("flights", STATED)))
    assert find_source_contract(both) is STATED
    assert find_source_contract(definition(tables=(table("other", other),))) is other
    assert find_source_contract(definition()) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series("a", [1, None]), np.array([1.0, np.nan])),
        (pl.Series("a", [True, None]), np.array([True, None], dtype=object)),
        (pl.Series("a", [True, False]), np.array([True, False])),
        (pl.Series("a", [None, None]), np.array([np.nan, np.nan])),
        (pl.Series("a", ["x", None], dtype=pl.Categorical), np.array(["x", None], dtype=object)),
        (pl.Series("a", [[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])),
    ],
)
def test_columns_become_the_few_kinds_of_a_contract(values: pl.Series, expected: np.ndarray) -> None:
    found = to_contract_array(values)
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist() or np.array_equal(found, expected, equal_nan=True)


def test_a_time_without_offset_is_refused_by_name() -> None:
    naive = pl.Series("seen", ["2013-01-01"]).str.to_datetime()
    with pytest.raises(DefinitionError, match=r"'seen'.*offset.*convert or drop it"):
        to_contract_array(naive)


def test_stated_relations_hold_in_a_request_that_has_their_columns() -> None:
    known = Relation("depends", ("distance", "carrier"), known=(("AA", 100, 200),))
    others = (Relation("ratio", ("distance", "late"), 1), Relation("ratio", ("distance", "seats"), 1))
    stated = Contract((*STATED.columns, Column("carrier", "text")), relations=(known, *others))
    request = request_contract(definition(tables=(table("flights", stated),)), rows(), {})
    assert request.relations == ()  # carrier is learned as a category, seats as whole numbers, late is the label
    stated = Contract((*STATED.columns, Column("carrier", "category")), relations=(known, *others))
    assert request_contract(definition(tables=(table("flights", stated),)), rows(), {}).relations == (known,)


def related(count: int = 2000) -> tuple[dict[str, np.ndarray], Contract]:
    draws = np.random.default_rng(0)
    wing, gone = draws.normal(200, 15, count), draws.random(count) < 0.02
    bill, depth = np.where(gone, np.nan, draws.normal(40, 3, count)), np.where(gone, np.nan, draws.normal(17, 1, count))
    columns = {"wing": wing, "mass": 20 * wing + draws.normal(0, 30, count), "bill": bill, "depth": depth}
    kinds = [Column(name, "number", nullable=name in ("bill", "depth"), learned=True) for name in columns]
    return columns, Contract(tuple(kinds)).edited("wing", lower=0.0, upper=400.0)


def test_a_version_learns_what_its_columns_promise_each_other_as_flags_with_the_evidence() -> None:
    columns, request = related()
    found = learn_request_relations(columns, request)
    assert {(r.rule, r.columns) for r in found.relations} == {
        ("ratio", ("wing", "mass")),
        ("missing", ("bill", "depth")),
        ("missing", ("depth", "bill")),
    }
    assert all(relation.learned for relation in found.relations)
    assert set(found.evidence) == {"wing", *(relation.name for relation in found.relations)}
    assert found.columns == request.columns
    again = learn_request_relations(columns, request)
    assert again.to_dict() == found.to_dict()


def test_no_relation_holds_the_values_of_a_key() -> None:
    columns, request = related()
    found = learn_request_relations(columns, request, keys=["mass"])
    assert {relation.rule for relation in found.relations} == {"missing"}
    assert not found.column("mass").personal
