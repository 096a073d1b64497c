"""Isolation forests: the same bits as the library's, whatever comes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from detectors import hold, settled
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from test_compile import FRAME, one_hot, ordinal

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.frame import FeatureFrame

FORESTS: dict[str, Any] = {
    "as it comes": {},
    "of a stated share": {"contamination": 0.1},
    "of some columns each": {"max_features": 2, "contamination": 0.05},
    "of a share of the columns": {"max_features": 0.5, "bootstrap": True},
    "of few rows": {"max_samples": 3, "contamination": 0.1},
    "of many rows": {"max_samples": 1.0, "n_estimators": 20},
}


@pytest.mark.parametrize("name", FORESTS)
def test_scores_are_the_librarys_to_the_bit_and_decisions_those_of_predict(name: str) -> None:
    options = {"n_estimators": 25, "random_state": 0, **FORESTS[name]}
    hold(IsolationForest(**options), one_hot() if "columns" in name else ordinal(-1))


def test_a_forest_of_single_rows_scores_all_rows_alike() -> None:
    frame = FRAME.take(range(50))
    numbers = Contract((Column("distance", "number"), Column("wind", "number", nullable=True)))
    table = pd.DataFrame({name: frame.columns[name] for name in numbers.names})
    forest = IsolationForest(max_samples=1, n_estimators=5, random_state=0).fit(table)
    reference, ruling = settled(forest, numbers, frame)
    assert (ruling.threshold, ruling.decision) == (-0.5, {"rule": "threshold", "strict": False})  # the edge is normal
    assert compile_scorer(reference).score(frame).tolist() == reference.score(frame).tolist() == [-0.5] * 50


NUMBERS = Contract(tuple(Column(name, "number", nullable=True, infinite=True) for name in "abc"))
WILD = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -0.0, 1e39, -1e39, 5e-324, np.nan, np.inf])
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WILD, WILD, WILD), min_size=1, max_size=5))
def test_any_number_takes_the_librarys_way(given_rows: list[tuple[float, ...]]) -> None:
    columns = np.array(given_rows, dtype=np.float64).T
    frame = FeatureFrame(dict(zip("abc", columns, strict=True)))
    reference, compiled = _forest()
    with np.errstate(all="ignore"):
        expected = reference.score(frame)
        assert compiled.score(frame).tolist() == expected.tolist()
        assert [compiled.score(frame.take([row])).item() for row in range(len(frame))] == expected.tolist()


def test_a_threshold_of_a_tree_and_its_neighbours_go_the_librarys_way() -> None:
    reference, compiled = _forest()
    tree = reference.pipeline[-1].estimators_[0].tree_
    edges = tree.threshold[tree.children_left != -1]
    values = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)])
    wide = np.concatenate([values, np.nextafter(values.astype(np.float32), np.float32(np.inf)).astype(np.float64)])
    frame = FeatureFrame({name: wide for name in "abc"})
    assert compiled.score(frame).tolist() == reference.score(frame).tolist()


_MADE: list[Any] = []


def _forest() -> Any:
    """Fit one forest on missing and infinite numbers, and compile it, once."""
    if not _MADE:
        random = np.random.default_rng(0)
        values = random.normal(size=(300, 3))
        values[random.random((300, 3)) < 0.1] = np.nan
        frame = FeatureFrame(dict(zip("abc", values.T, strict=True)))
        forest = make_pipeline(IsolationForest(n_estimators=30, random_state=0)).fit(pd.DataFrame(frame.columns))
        reference, _ = settled(forest, NUMBERS, frame)
        _MADE.append((reference, compile_scorer(reference)))
    return _MADE[0]
