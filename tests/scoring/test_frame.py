"""The feature frame: kinds, order, refusals, and rows that come back bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError
from mlworkbench.scoring.frame import FeatureFrame, column_array, frame_from_columns


def words(*values: object) -> np.ndarray:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


ALL = Contract(
    (
        Column("distance", "number", nullable=True),
        Column("stops", "integer"),
        Column("late", "boolean"),
        Column("carrier", "category", nullable=True),
        Column("note", "text", nullable=True),
        Column("image", "vector", nullable=True),
    )
)


def all_kinds() -> FeatureFrame:
    columns = {
        "image": np.array([[1.0, math.nan], [0.1, 2.0]]),
        "note": words("a\nb", None),
        "carrier": words("UA", None),
        "late": np.array([True, False]),
        "stops": np.array([0, 2**53 + 1]),
        "distance": np.array([0.1 + 0.2, math.nan]),
        "not asked for": np.array([1, 2]),
    }
    return frame_from_columns(columns, ALL)


def test_columns_come_in_the_order_of_the_contract_and_others_are_left_behind() -> None:
    assert all_kinds().names == ALL.names


def test_each_kind_has_its_dtype() -> None:
    dtypes = {name: values.dtype for name, values in all_kinds().columns.items()}
    assert dtypes == {
        "distance": np.float64,
        "stops": np.int64,
        "late": np.bool_,
        "carrier": np.dtype(object),
        "note": np.dtype(object),
        "image": np.float64,
    }


def test_rows_of_every_kind_come_back_bit_for_bit() -> None:
    frame = all_kinds()
    again = FeatureFrame.from_rows(frame.rows(), ALL)
    for name, values in frame.columns.items():
        assert again.columns[name].dtype == values.dtype
        assert np.array_equal(again.columns[name], values, equal_nan=values.dtype.kind == "f"), name


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=1))
def test_any_double_survives_json(values: list[float]) -> None:
    contract = Contract((Column("x", "number", nullable=True, infinite=True),))
    frame = frame_from_columns({"x": np.array(values)}, contract)
    again = FeatureFrame.from_rows(frame.rows(), contract)
    assert np.array_equal(again.columns["x"], frame.columns["x"], equal_nan=True)


def test_take_keeps_order_and_repeats() -> None:
    frame = all_kinds()
    assert frame.take([1, 0, 1]).rows() == [frame.rows()[k] for k in (1, 0, 1)]
    assert len(frame.take([])) == 0 and frame.take([]).names == frame.names
    assert frame.take(slice(0, 1)).rows() == frame.rows()[:1]


def test_an_empty_frame_of_every_kind_is_possible() -> None:
    empty = {n: v[:0] for n, v in all_kinds().columns.items()}
    frame = frame_from_columns(empty, ALL)
    assert len(frame) == 0 and frame.rows() == []


def test_whole_doubles_are_integers_without_loss() -> None:
    assert column_array(np.array([1.0, -3.0]), Column("n", "integer")).dtype == np.int64
    assert column_array(np.array([3], dtype=np.uint64), Column("n", "integer")).tolist() == [3]


def test_a_text_array_of_numpy_becomes_plain_strings() -> None:
    values = column_array(np.array(["UA", "AA"]), Column("carrier", "category"))
    assert [type(v) for v in values] == [str, str]


def test_nan_among_texts_is_missing() -> None:
    assert column_array(words("UA", math.nan, None), Column("c", "text")).tolist() == ["UA", None, None]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (Column("x", "number"), np.array([1.0, np.inf]), "finite or missing; got 'inf in row 1'"),
        (Column("x", "number"), words(1.0, "2"), "a number, not text"),
        (Column("x", "number"), np.array(["1"]), "a number, not text"),
        (Column("x", "number"), words(object()), "a number"),
        (Column("x", "integer"), np.array([1.0, np.nan]), "never missing; got 'nan in row 1'"),
        (Column("x", "integer"), np.array([1.5]), "a whole number"),
        (Column("x", "integer"), np.array([2.0**60]), "a whole number"),
        (Column("x", "boolean"), np.array([0, 1]), "true or false"),
        (Column("x", "boolean"), words(True, None), "never missing; got 'None in row 1'"),
        (Column("x", "category"), words("a", 3), "text or missing; got 3"),
        (Column("x", "category"), np.array([1, 2]), "text or missing"),
        (Column("x", "number"), np.array(["2013-01-01"], dtype="datetime64[us]"), "derive numbers"),
        (Column("x", "time"), np.array([0]), "no dates in a feature frame"),
        (Column("x", "vector"), np.array([1.0]), "dimension 2"),
        (Column("x", "number"), np.array([[1.0]]), "dimension 1"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused_in_one_line(column: Column, values: np.ndarray, message: str) -> None:
    with pytest.raises(ScoringError) as caught:
        column_array(values, column)
    line = str(caught.value)
    assert message in line and "'x'" in line and ";" in line and "\n" not in line


def test_a_missing_column_names_the_nearest_one() -> None:
    with pytest.raises(ScoringError, match=r"'distance'.*did you mean 'distanze'"):
        frame_from_columns({"distanze": np.array([1.0])}, Contract((Column("distance", "number"),)))


def test_columns_of_two_lengths_are_refused() -> None:
    with pytest.raises(ScoringError) as raised:
        FeatureFrame({"a": np.zeros(2), "b": np.zeros(3)})
    assert raised.value.code == "scoring.frame_length"


def test_a_stored_row_without_a_column_is_refused() -> None:
    with pytest.raises(ScoringError) as raised:
        FeatureFrame.from_rows([{}], Contract((Column("x", "number"),)))
    assert raised.value.code == "scoring.frame_column"
