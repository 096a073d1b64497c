"""scikit-learn's gradient boosting, compiled: its losses, its constants, its refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from proving import answer, prove_alike, refuse_alike
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from test_compile import CONTRACT, DELAY, FRAME, fitted, one_hot, rows

from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

CLASSIFIERS = {
    "two classes": ("binary", {}),
    "the exponential loss": ("binary", {"loss": "exponential"}),
    "from zero": ("binary", {"init": "zero"}),
    "a share of the rows and columns": ("binary", {"subsample": 0.5, "max_features": 2}),
    "three classes": ("multiclass", {}),
    "three classes from zero": ("multiclass", {"init": "zero", "learning_rate": 1.0}),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier(name: str) -> None:
    task, options = CLASSIFIERS[name]
    model = GradientBoostingClassifier(n_estimators=12, random_state=0, **options)
    prove_alike(fitted(make_pipeline(one_hot(), model), task), FRAME, rows(7, 300), bound=1e-15)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
def test_a_regressor_gives_the_same_bits(loss: str) -> None:
    model = GradientBoostingRegressor(loss=loss, n_estimators=12, random_state=0)
    prove_alike(fitted(make_pipeline(one_hot(), model), "regression"), FRAME, rows(7, 300), bound=0.0)


def test_a_tree_that_is_one_leaf_and_values_that_are_refused() -> None:
    contract = CONTRACT.select(["distance", "minute"])
    frame = FeatureFrame({name: FRAME.columns[name] for name in contract.names})
    model = GradientBoostingRegressor(n_estimators=3, min_samples_leaf=len(FRAME)).fit(
        frame_to_pandas(frame, contract), DELAY
    )
    reference = ReferenceScorer(model, contract, "regression", [])
    compiled = prove_alike(reference, frame, frame, bound=0.0)
    odd = np.array([np.nan, np.inf, -np.inf, 1e300, 3e38, 0.0, -0.0])
    refuse_alike(reference, compiled, FeatureFrame({"distance": odd, "minute": np.arange(7)}))


def test_a_first_model_that_is_no_constant_is_refused_by_name() -> None:
    for model, task in (
        (GradientBoostingRegressor(init=LinearRegression(), n_estimators=2), "regression"),
        (GradientBoostingClassifier(init=DummyClassifier(strategy="uniform"), n_estimators=2), "binary"),
    ):
        with pytest.raises(NoRuleError, match=r"first model \((LinearRegression|DummyClassifier)\).*leave init"):
            compile_scorer(fitted(make_pipeline(one_hot(), model), task))


def test_margins_are_the_sums() -> None:
    reference: Any = fitted(
        make_pipeline(one_hot(), GradientBoostingClassifier(n_estimators=5, random_state=0)), "binary"
    )
    compiled = compile_scorer(reference)
    margins = reference.pipeline.decision_function(reference.model_input(FRAME))
    assert np.array_equal(compiled._model(compiled._prepared(FRAME))[:, 0], margins)  # type: ignore[attr-defined]


def test_a_margin_of_zero_is_the_second_class_alone_and_among_others() -> None:
    contract = CONTRACT.select(["distance", "minute"])
    frame = FeatureFrame({name: FRAME.columns[name] for name in contract.names})
    labels = np.where(np.arange(len(FRAME)) % 2, "no", "yes")
    model = GradientBoostingClassifier(n_estimators=2, min_samples_leaf=len(FRAME), init="zero", learning_rate=1e-300)
    model = model.fit(frame_to_pandas(frame, contract), labels)
    reference = ReferenceScorer(model, contract, "binary", ["no", "yes"])
    ruling = settle(reference, [frame])
    assert ruling.decision == {"rule": "argmax", "of": "decision_function", "tied": "second"}
    reference = replace(reference, positive=ruling.positive, decision=ruling.decision)
    compiled = prove_alike(reference, frame, frame, bound=0.0)
    assert set(answer(compiled, frame)[1]) == set(model.predict(frame_to_pandas(frame, contract))) == {"yes"}
    assert answer(compiled, frame.take([0]))[1][0] == "yes"
