"""AdaBoost: votes of trees to the bit, of any other member too, and the weighted median with its ties."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from few_columns import WIDE, codes, hold, refer, words
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import refuse_alike
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.meta.votes import make_median, make_votes
from mlworkbench.scoring.frame import FeatureFrame

CASES: dict[str, tuple[str, Any, bool]] = {
    "stumps": ("binary", lambda: AdaBoostClassifier(n_estimators=20, random_state=0), True),
    "trees of three classes": (
        "multiclass",
        lambda: AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=8, random_state=0),
        True,
    ),
    "lines": ("multiclass", lambda: AdaBoostClassifier(LogisticRegression(), n_estimators=4, random_state=0), False),
    "forests": (
        "binary",
        lambda: AdaBoostClassifier(
            RandomForestClassifier(2, max_depth=2, random_state=0), n_estimators=3, random_state=0
        ),
        True,
    ),
    "numbers": ("regression", lambda: AdaBoostRegressor(n_estimators=12, random_state=0), True),
    "lines of numbers": ("regression", lambda: AdaBoostRegressor(Ridge(), n_estimators=4, random_state=0), False),
}


@pytest.mark.parametrize("name", CASES)
def test_it_answers_and_decides_as_its_pipeline(name: str) -> None:
    task, make, trees = CASES[name]
    reference = refer(make_pipeline(codes() if trees else words(), make()), task)
    assert task == "regression" or reference.decision == {"rule": "argmax", "of": "decision_function"}
    compiled = hold(reference, same_bits=trees)
    if trees and name != "forests":
        assert len(compiled.graphs) == 1


def test_a_fit_that_ended_early_leaves_weights_without_members() -> None:
    boosted = AdaBoostClassifier(DecisionTreeClassifier(random_state=0), n_estimators=5, random_state=0)
    reference = refer(boosted, "binary", WIDE)
    assert len(reference.pipeline.estimators_) < 5
    frame = FeatureFrame({"distance": np.linspace(100, 2500, 50), "minute": np.linspace(0, 1439, 50)})
    assert compile_scorer(reference).score(frame).tobytes() == reference.score(frame).tobytes()


@pytest.mark.parametrize("name", ["stumps", "lines"])
def test_the_same_values_are_refused(name: str) -> None:
    reference = refer(CASES[name][1](), "binary", WIDE)
    odd = [np.nan, np.inf, -np.inf, 1e39, -1e308, 0.0, -0.0]
    frame = FeatureFrame({"distance": np.array(odd), "minute": np.full(len(odd), 600.0)})
    refuse_alike(reference, compile_scorer(reference), frame)


WEIGHT = st.sampled_from([0.5, 1.0, 2.0, 1.5, 0.1, 0.3])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 7.5]), min_size=6, max_size=6), min_size=1, max_size=5),
    st.lists(WEIGHT, min_size=6, max_size=6),
)
def test_a_median_with_ties_is_that_of_the_library(table: list[list[float]], weights: list[float]) -> None:
    block = np.array(table).T
    members = [SimpleNamespace(predict=lambda rows, row=row: row) for row in block]
    forged = SimpleNamespace(estimators_=members, estimator_weights_=np.array(weights))
    expected = AdaBoostRegressor._get_median_predict(forged, block.T, len(members))
    assert make_median({"weights": weights}, None)(block)[0].tolist() == expected.tolist()  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=5),
    st.lists(WEIGHT, min_size=4, max_size=4),
)
def test_votes_are_counted_in_the_order_of_the_library(table: list[list[int]], weights: list[float]) -> None:
    said = np.array(table, dtype=np.float64).T
    against = [-1 / 2 * weight for weight in weights]
    step = make_votes({"classes": 3, "weights": weights, "against": against}, None)  # type: ignore[arg-type]
    members = [SimpleNamespace(predict=lambda rows, row=row: row) for row in said]
    forged = SimpleNamespace(n_classes_=3, classes_=np.arange(3.0), estimators_=members, _check_X=lambda rows: rows)
    forged.estimator_weights_, forged.__sklearn_is_fitted__ = np.array(weights), lambda: True
    boosted = AdaBoostClassifier()
    vars(boosted).update(vars(forged))
    expected = boosted.decision_function(said.T) * np.array(weights).sum()
    assert np.allclose(step(said).T, expected, rtol=1e-15, atol=1e-15)
