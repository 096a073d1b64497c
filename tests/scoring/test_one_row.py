"""A record kept as its values gives the frame, the features and the log's text that its arrays give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.record_check import OneRow, RowCheck
from mlworkbench.core.jsontext import encode_rows
from mlworkbench.errors import ScoringError
from mlworkbench.features.row_functions import apply_row_functions
from mlworkbench.scoring.frame import FeatureFrame, frame_from_columns

REQUEST = Contract(
    (
        Column("carrier", "category", nullable=True),
        Column("gate", "text"),
        Column("distance", "number", nullable=True),
        Column("wind", "number", infinite=True),
        Column("minute", "integer"),
        Column("weekend", "boolean"),
        Column("late", "boolean"),
        Column("asked", "time"),
    )
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "carrier": st.sampled_from(["AA", "", "Zürich", None]),
    "gate": st.sampled_from(["01", "x"]),
    "distance": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60)),
    "wind": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just("Infinity")),
    "minute": st.integers(-(2**63), 2**63 - 1),
    "weekend": st.booleans(),
    "late": st.booleans(),
    "asked": st.just("2013-10-01T12:00:00Z"),
}
FRAMES = [
    REQUEST.select([name for name in REQUEST.names if name != "asked"]),
    Contract((Column("wind", "number"), Column("minute", "integer"))),
    Contract((Column("minute", "number", nullable=True), Column("carrier", "text", nullable=True))),
    Contract((Column("weekend", "boolean"), Column("late", "boolean"))),
    Contract((Column("weekend", "number"), Column("distance", "number", nullable=True))),
    Contract((Column("gate", "integer"),)),
    Contract((Column("asked", "integer"),)),
]


def made(columns: Any, contract: Contract) -> Any:
    try:
        frame = frame_from_columns(columns, contract)
    except ScoringError as error:
        return str(error)
    return [(n, v.dtype, repr(v.tolist())) for n, v in frame.columns.items()], encode_rows(frame.columns, len(frame))


@settings(max_examples=200, deadline=None)
@given(record=st.fixed_dictionaries(VALUES))
def test_the_frame_of_a_record_is_that_of_its_arrays(record: dict[str, Any]) -> None:
    kept = RowCheck(REQUEST).good_columns([record])
    if kept is None:
        return
    assert isinstance(kept, OneRow)
    arrays = {name: np.array([kept.row[name]], dtype=kept.types[name]) for name in kept}
    assert encode_rows(OneRow(kept.row, kept.types), 1) == encode_rows(arrays, 1)
    for contract in FRAMES:
        assert made(OneRow(kept.row, kept.types), contract) == made(arrays, contract)


def speed_of(distance, minute):
    return {"speed": distance / (minute + 1.0), "far": distance > 1000, "side": np.where(distance > 9, "a", "b")}


def both_of(distance):
    return {"pair": np.column_stack([distance, -distance])}


@pytest.mark.parametrize("functions", [[speed_of], [speed_of, both_of]])
def test_row_functions_read_a_record_as_they_read_arrays(functions: list[Any]) -> None:
    kept = OneRow({"distance": 1500.0, "minute": 59}, {"distance": np.float64, "minute": np.int64})
    found, expected = apply_row_functions(kept, functions), apply_row_functions({**kept}, functions)
    assert list(found) == list(expected) and set(kept) == {"distance", "minute"}
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and np.array_equal(found[name], values)
    assert isinstance(found, OneRow) == (len(functions) == 1)


def test_a_record_makes_no_array_before_somebody_asks() -> None:
    kept = OneRow({"distance": 1500.0, "carrier": "AA"}, {"distance": np.float64, "carrier": object})
    frame = frame_from_columns(kept, Contract((Column("carrier", "category"), Column("distance", "number"))))
    assert isinstance(frame, FeatureFrame) and len(frame) == 1 and frame.names == ("carrier", "distance")
    assert encode_rows(frame.columns, 1) == ['{"carrier":"AA","distance":1500.0}']
    assert not kept._made and not frame.columns._made  # type: ignore[attr-defined]


def test_columns_of_views_join_a_record() -> None:
    kept = OneRow({"distance": 1500.0}, {"distance": np.float64})
    joined = kept.joined({"wind": np.array([math.nan]), "sky": np.array([None], dtype=object)})
    assert isinstance(joined, OneRow) and joined["sky"].tolist() == [None] and math.isnan(joined["wind"][0])
    assert joined["wind"].dtype == np.float64 and joined["sky"].dtype == object
