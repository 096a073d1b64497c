"""Decisions are the pipeline's own: none of 500 fresh rows is decided otherwise than `predict` decides it."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.metrics import fbeta_score, make_scorer
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.decision import decide
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

CONTRACT = Contract((Column("a", "number"), Column("b", "number")))
CUT = TunedThresholdClassifierCV(LogisticRegression(), scoring=make_scorer(fbeta_score, beta=2, pos_label=0))


class Distant(ClassifierMixin, BaseEstimator):
    """An estimator of one's own: probabilities of one kind, decisions of another."""

    def fit(self, X, y):
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_, self.threshold = self.inner_.classes_, 0.9
        return self

    def predict_proba(self, X):
        return self.inner_.predict_proba(X)

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.7).astype(int)]


class Last(Distant):
    """Of equal scores it takes the last class."""

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] >= 0.5).astype(int)]


class Bold(StackingClassifier):
    """A stack with a decision of its own."""

    def predict(self, X):
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.3).astype(int)]


def rows(count: int, seed: int) -> tuple[pd.DataFrame, FeatureFrame]:
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"a": random.normal(size=count), "b": random.normal(size=count)})
    return table, FeatureFrame({name: table[name].to_numpy() for name in table})


X, TAUGHT = rows(400, 0)
FRESH, ASKED = rows(500, 1)
NOISY = X.a + np.random.default_rng(2).normal(size=400)
TWO = (NOISY > 0).to_numpy()


def several(count: int) -> np.ndarray:
    return np.array([f"k{k}" for k in pd.qcut(NOISY, count, labels=False)])


def settled(estimator: object, labels: np.ndarray, **fields: object) -> tuple[object, object, dict, ReferenceScorer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = estimator.fit(X, labels)
    classes = fitted.classes_.tolist()
    task = "binary" if len(classes) == 2 else "multiclass"
    ruling = settle(ReferenceScorer(fitted, CONTRACT, task, classes), [TAUGHT], **fields)
    declaration = {"task": task, "classes": classes, **ruling.fields}
    return (
        fitted,
        ruling,
        declaration,
        ReferenceScorer(fitted, CONTRACT, task, classes, ruling.positive, decision=ruling.decision),
    )


def decisions(scorer: object, frame: FeatureFrame, declaration: dict) -> list:
    scores, decided = scorer.answer(frame)
    return (decide(scores, declaration) if decided is None else decided).tolist()


CASES = [
    (RandomForestClassifier(10, random_state=0), TWO, "argmax"),
    (RandomForestClassifier(20, random_state=0), TWO, "argmax"),
    (RandomForestClassifier(100, random_state=0), TWO, "argmax"),
    (RandomForestClassifier(10, min_samples_leaf=2, random_state=0), TWO, "argmax"),
    (RandomForestClassifier(4, random_state=0), several(3), "argmax"),
    (ExtraTreesClassifier(10, random_state=0, class_weight="balanced", min_samples_leaf=2), TWO, "argmax"),
    (DecisionTreeClassifier(min_samples_leaf=2, random_state=0), TWO.astype(int), "argmax"),
    (DecisionTreeClassifier(min_samples_leaf=2, random_state=0), several(4), "argmax"),
    (CUT, TWO.astype(int), "threshold"),
    (make_pipeline(StandardScaler(), FixedThresholdClassifier(LogisticRegression(), threshold=0.3)), TWO, "threshold"),
    (FixedThresholdClassifier(LinearSVC(), threshold=0.2, pos_label=False), TWO, "threshold"),
    (SelfTrainingClassifier(LogisticRegression()), TWO, "argmax"),
    (SVC(decision_function_shape="ovo"), several(3), "predict"),
    (SVC(decision_function_shape="ovo"), several(4), "predict"),
    (make_pipeline(StandardScaler(), NuSVC(nu=0.2, decision_function_shape="ovo")), several(4), "predict"),
    (SVC(), TWO, "predict"),
    (SVC(), several(3), "predict"),
    (NearestCentroid(), TWO, "predict"),
    (Distant(), TWO, "predict"),
    (Last(), TWO, "predict"),
    (GaussianProcessClassifier(max_iter_predict=5), TWO, None),
    (GaussianNB(), several(3), None),
    (CalibratedClassifierCV(LinearSVC(), cv=2), TWO, "argmax"),
    (OneVsOneClassifier(LinearSVC()), several(3), None),
    (OneVsRestClassifier(RandomForestClassifier(4, random_state=0)), several(3), "argmax"),
    (OneVsRestClassifier(LogisticRegression()), several(3), "argmax"),
    (OneVsRestClassifier(LinearSVC()), TWO, "argmax"),
    (OneVsRestClassifier(GaussianNB()), TWO, "argmax"),
    (LinearSVC(), TWO, "argmax"),
    (Perceptron(), several(3), "argmax"),
    (RidgeClassifier(), TWO, None),
    (SGDClassifier(loss="log_loss", random_state=0), TWO, "argmax"),
    (LogisticRegression(), several(3), "argmax"),
    (LogisticRegression(solver="liblinear"), TWO, "argmax"),
    (HistGradientBoostingClassifier(max_iter=3), TWO, "argmax"),
    (HistGradientBoostingClassifier(max_iter=3), several(3), "argmax"),
    (GradientBoostingClassifier(n_estimators=3), TWO, "argmax"),
    (KNeighborsClassifier(4), TWO, None),
    (BaggingClassifier(DecisionTreeClassifier(), 4, random_state=0), TWO, "argmax"),
    (VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"), TWO, "argmax"),
    (StackingClassifier([("a", GaussianNB())], LogisticRegression(), cv=2), TWO, "argmax"),
    (StackingClassifier([("a", GaussianNB())], RandomForestClassifier(4, random_state=0), cv=2), several(3), "argmax"),
    (make_pipeline(StandardScaler(), GridSearchCV(RandomForestClassifier(4), {"max_depth": [2]}, cv=2)), TWO, "argmax"),
    (StackingClassifier([("a", GaussianNB())], FixedThresholdClassifier(GaussianNB(), threshold=0.3)), TWO, "predict"),
    (Bold([("a", GaussianNB())], LogisticRegression(), cv=2), TWO, "predict"),
]


@pytest.mark.parametrize(("estimator", "labels", "rule"), CASES, ids=lambda v: type(v).__name__)
def test_no_label_differs_from_predict_with_the_pipeline_and_compiled(estimator, labels, rule) -> None:
    fitted, ruling, declaration, scorer = settled(estimator, labels)
    wanted = fitted.predict(FRESH).tolist()
    assert decisions(scorer, ASKED, declaration) == wanted and ruling.differs == 0
    assert {type(label) for label in decisions(scorer, ASKED, declaration)} == {type(label) for label in wanted}
    assert rule in (None, ruling.decision["rule"])
    compiled, proof = compile_and_prove(scorer, TAUGHT.take(range(20)), TAUGHT, threshold=ruling.threshold)
    if compiled is not None:
        assert decisions(compiled, ASKED, declaration) == wanted
    elif ruling.decision["rule"] == "predict":
        assert re.search("decides by a rule of its own|has no rule", proof["reason"])


@pytest.mark.parametrize("count", [3, 4])
def test_scores_of_pairs_become_scores_of_classes_as_scikit_learn_makes_them(count: int) -> None:
    fitted, _, _, scorer = settled(SVC(decision_function_shape="ovo"), several(count))
    expected = SVC(decision_function_shape="ovr").fit(X, several(count)).decision_function(FRESH)
    assert np.array_equal(scorer.score(ASKED), expected) and fitted.decision_function_shape == "ovo"


def test_a_forest_that_compiles_decides_rows_at_exactly_one_half_as_the_pipeline_does() -> None:
    fitted, _, declaration, scorer = settled(RandomForestClassifier(10, random_state=0), TWO)
    many, frame = rows(4000, 3)
    scores = fitted.predict_proba(many)[:, 1]
    assert (scores == 0.5).sum() > 50  # else it shows nothing
    assert decisions(compile_scorer(scorer), frame, declaration) == fitted.predict(many).tolist()


def test_shares_that_tie_but_for_rounding_are_decided_by_both_sides() -> None:
    model = RandomForestClassifier(10, min_samples_leaf=2, class_weight="balanced", random_state=0)
    fitted, _, declaration, scorer = settled(model, TWO)
    many, frame = rows(20_000, 1)
    wanted = fitted.predict(many).tolist()
    assert decide(scorer.score(frame), declaration).tolist() != wanted  # the score alone does not say
    assert decisions(scorer, frame, declaration) == decisions(compile_scorer(scorer), frame, declaration) == wanted


def test_a_margin_too_small_for_its_probability_still_decides() -> None:
    fitted, _, declaration, scorer = settled(LogisticRegression(), TWO)
    fitted.coef_, fitted.intercept_ = np.array([[1.0, 0.0]]), np.array([0.0])
    frame = FeatureFrame({"a": np.array([1e-20, 0.0, -1e-20, 1.0]), "b": np.zeros(4)})
    assert scorer.score(frame)[:3].tolist() == [0.5, 0.5, 0.5]
    for one in (scorer, compile_scorer(scorer)):
        assert decisions(one, frame, declaration) == [True, False, False, True]


def test_a_stated_threshold_is_the_users_word_and_its_differences_are_counted() -> None:
    fitted, ruling, declaration, _ = settled(LogisticRegression(), TWO, threshold=0.3)
    turned = (fitted.predict_proba(X)[:, 1] >= 0.3) != fitted.predict(X)
    assert (ruling.threshold, ruling.differs, ruling.rows) == (0.3, turned.sum(), 400) and turned.any()
    assert decide(np.array([0.3, np.nextafter(0.3, 0)]), declaration).tolist() == [True, False]


def test_scores_alone_cannot_be_decided_where_the_pipeline_decides() -> None:
    _, _, declaration, _ = settled(NearestCentroid(), TWO)
    with pytest.raises(ScoringError) as raised:
        decide(np.array([0.5]), declaration)
    assert raised.value.code == "scoring.needs_rows"


def test_a_version_of_before_decides_as_it_did() -> None:
    before = {"task": "binary", "classes": ["n", "y"], "positive": "y", "threshold": 0.5}
    assert decide(np.array([0.5, 0.4]), before).tolist() == ["y", "n"]


@pytest.mark.parametrize("values", [[1, 2], ["101", "12"], [False, True], [1.0, 2.0]])
def test_classes_keep_their_types(values: list) -> None:
    labels = np.array(values)[TWO.astype(int)]
    for model in (LogisticRegression(), NearestCentroid(), RandomForestClassifier(4, random_state=0)):
        _, _, declaration, scorer = settled(model, labels)
        found = decisions(scorer, ASKED, declaration)
        assert {type(value) for value in found} == {type(values[0])} and set(found) == set(values)


class Odd(Distant):
    """Gives its labels as a column, and truths as text, as some boosters do."""

    def predict(self, X):
        return np.array([[str(value)] for value in super().predict(X)])

    def __copy__(self):
        raise TypeError("cannot be copied")


def test_labels_as_a_column_or_as_text_are_the_classes_that_were_taught() -> None:
    _, ruling, declaration, scorer = settled(Odd(), TWO)
    assert ruling.decision == {"rule": "predict"}
    assert decisions(scorer, ASKED, declaration) == Distant().fit(X, TWO).predict(FRESH).tolist()
