"""Learning a contract: robust, open, silent about people, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlworkbench.contract.check import check_columns
from mlworkbench.contract.contract import Contract
from mlworkbench.contract.learn import compute_robust_range, learn_column, learn_contract
from mlworkbench.errors import ContractError


def objects(values: list) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_a_wild_value_does_not_stretch_the_range() -> None:
    wind = np.append(np.random.default_rng(0).gamma(4, 2.5, 8760), 1048.36)
    lower, upper = compute_robust_range(wind)
    assert (lower, upper) == (0, pytest.approx(45, abs=10))


@pytest.mark.parametrize("name", ["normal", "exponential", "uniform", "lognormal"])
def test_hardly_anything_ordinary_is_flagged(name: str) -> None:
    rng = np.random.default_rng(1)
    past, future = getattr(rng, name)(size=20_000), getattr(rng, name)(size=20_000)
    lower, upper = compute_robust_range(past)
    assert ((future < lower) | (future > upper)).mean() < 0.002


def test_where_most_values_are_equal_the_rest_still_has_a_range() -> None:
    rain = np.where(np.arange(1000) % 20 == 0, 0.2, 0.0)
    lower, upper = compute_robust_range(rain)
    assert lower == 0
    assert 0.2 < upper < 1


@pytest.mark.parametrize("values", [np.arange(19), np.zeros(100), np.full(50, np.nan), np.array([])])
def test_too_few_or_equal_values_get_no_range(values: np.ndarray) -> None:
    assert compute_robust_range(values) is None


def test_values_that_are_not_finite_do_not_count() -> None:
    plain = np.arange(100.0)
    assert compute_robust_range(np.concatenate([plain, [np.nan, np.inf, -np.inf]])) == compute_robust_range(plain)


def test_a_column_that_was_negative_may_go_lower() -> None:
    assert compute_robust_range(np.arange(-50.0, 50))[0] < -50


@pytest.mark.parametrize(
    ("values", "kind", "nullable"),
    [
        (np.array([1.5, 2]), "number", False),
        (np.array([1.5, np.nan]), "number", True),
        (np.array([1, 2], dtype=np.int32), "integer", False),
        (np.array([1, 2], dtype=np.uint8), "integer", False),
        (np.array([True, False]), "boolean", False),
        (np.array(["a", "b"]), "text", False),
        (objects(["a", None]), "text", True),
        (objects(["a", np.nan]), "text", True),
        (objects([None, None]), "text", True),
        (objects([1, 2]), "integer", False),
        (objects([1, None]), "number", True),
        (objects([1.5, 2]), "number", False),
        (objects([True, False]), "boolean", False),
        (objects([True, None]), "boolean", True),
        (np.array(["2013-01-01"], dtype="datetime64[ns]"), "time", False),
        (np.array(["2013-01-01", "NaT"], dtype="datetime64[ns]"), "time", True),
        (np.zeros((2, 3)), "vector", False),
        (np.zeros((2, 3), dtype=np.uint8), "vector", False),
    ],
)
def test_the_kind_is_seen_from_the_values(values: np.ndarray, kind: str, nullable: bool) -> None:
    column = learn_column("a", values)
    assert (column.kind, column.nullable, column.learned) == (kind, nullable, True)


@pytest.mark.parametrize("values", [objects([1, "a"]), objects([True, 1.5]), objects([[1], [2]]), np.array([1j])])
def test_a_column_of_no_kind_is_refused_in_one_line(values: np.ndarray) -> None:
    with pytest.raises(ContractError) as caught:
        learn_column("a", values)
    assert caught.value.code == "contract.kind" and "column 'a'" in str(caught.value)


def test_categories_come_back_and_names_do_not() -> None:
    assert learn_column("a", objects(["x", "y"] * 10)).categories == ("x", "y")
    assert learn_column("a", objects([f"n{number}" for number in range(100)])).categories is None
    assert learn_column("a", objects([f"n{number % 300}" for number in range(3000)])).kind == "text"
    assert learn_column("a", objects(["x", "y"]), dtype="category").categories == ("x", "y")


def test_a_vector_keeps_its_size() -> None:
    assert learn_column("a", np.zeros((2, 3))).size == 3


def test_a_personal_column_teaches_neither_values_nor_bounds() -> None:
    contract = learn_contract({"name": objects(["Ada", "Bob"] * 20), "age": np.arange(40)}, personal=["name", "age"])
    assert "Ada" not in str(contract.to_dict())
    assert all(column.personal and column.lower is None and column.categories is None for column in contract.columns)


def test_what_data_cannot_show_is_taken_from_the_caller() -> None:
    columns = {"seats": np.arange(40), "month": np.arange(40) % 8, "origin": objects(["a", "b"] * 20)}
    contract = learn_contract(columns, nullable=["seats"], unranged=["month"], dtypes={"origin": "category"})
    assert (contract.column("seats").kind, contract.column("seats").nullable) == ("number", True)
    assert contract.column("month").upper is None
    assert contract.column("origin").dtype == "category"
    assert contract.names == tuple(columns)


def test_a_boolean_that_may_be_missing_is_refused_with_the_way_out() -> None:
    with pytest.raises(ContractError, match="declare it category"):
        learn_contract({"late": np.array([True])}, nullable=["late"])


@given(arrays.arrays(np.float64, st.integers(0, 60), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
def test_what_was_learned_refuses_none_of_the_rows_it_was_learned_from(values: np.ndarray) -> None:
    contract = learn_contract({"a": values})
    assert not any(fault.severe for fault in check_columns({"a": values}, contract))
    assert Contract.from_dict(contract.to_dict()) == contract
    assert learn_contract({"a": values}) == contract
