"""Bags: trees in one graph, members of any kind, columns and classes that a member never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from few_columns import FEW, WIDE, codes, hold, refer, words
from proving import refuse_alike
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import ExtraTreeClassifier

from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, find_site
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer
from mlworkbench.scoring.frame import FeatureFrame

LINE = make_pipeline(StandardScaler(), LogisticRegression())
CASES: dict[str, tuple[str, Any, int | None]] = {
    "trees": ("binary", lambda: BaggingClassifier(random_state=0), 1),
    "trees of two columns": (
        "multiclass",
        lambda: BaggingClassifier(max_features=2, n_estimators=4, random_state=0),
        1,
    ),
    "trees of columns drawn twice": (
        "regression",
        lambda: BaggingRegressor(max_features=0.9, bootstrap_features=True, random_state=0),
        1,
    ),
    "trees of few rows": (
        "multiclass",
        lambda: BaggingClassifier(ExtraTreeClassifier(random_state=0), max_samples=3, random_state=0),
        1,
    ),
    "lines that lack classes": (
        "multiclass",
        lambda: BaggingClassifier(LINE, max_samples=5, max_features=2, n_estimators=5, random_state=7),
        0,
    ),
    "votes of margins": ("multiclass", lambda: BaggingClassifier(LinearSVC(), n_estimators=4, random_state=0), 0),
    "margins that are calibrated": (
        "binary",
        lambda: CalibratedClassifierCV(BaggingClassifier(LinearSVC(), n_estimators=3, random_state=0), cv=2),
        0,
    ),
    "lines of numbers": ("regression", lambda: BaggingRegressor(Ridge(), n_estimators=5, random_state=0), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bag_answers_as_its_pipeline(name: str) -> None:
    task, make, graphs = CASES[name]
    preparation = words() if name == "votes of margins" else codes()
    compiled = hold(refer(make_pipeline(preparation, make()), task), same_bits=bool(graphs))
    assert len(compiled.graphs) == graphs


def test_members_really_lacked_classes() -> None:
    bag = refer(make_pipeline(codes(), CASES["lines that lack classes"][1]()), "multiclass").pipeline[-1]
    assert {len(one.classes_) for one in bag.estimators_} == {2, 3}


@pytest.mark.parametrize("features", [1, 2])
def test_a_column_that_no_tree_was_given_may_hold_anything(features: int) -> None:
    bag = BaggingClassifier(ExtraTreeClassifier(random_state=0), max_features=features, n_estimators=1, random_state=1)
    reference = refer(bag, "binary", WIDE)
    odd = np.array([np.nan, np.inf, -np.inf, 1e39, 3.0])
    compiled, usual = compile_scorer(reference), np.full(5, 600.0)
    refuse_alike(reference, compiled, FeatureFrame({"distance": odd, "minute": usual}))
    refuse_alike(reference, compiled, FeatureFrame({"distance": usual, "minute": odd}))


def test_the_cover_of_trees_is_kept() -> None:
    trees: list[Any] = []

    class Kept(ProgramCompiler):
        def add_trees(self, more: Any, outputs: int) -> int:
            trees.extend(more)
            return super().add_trees(more, outputs)

    bag = refer(BaggingRegressor(n_estimators=2, random_state=0), "regression", WIDE).pipeline
    Kept().answers(bag, Question("predict"), find_site(WIDE, "frame"))
    assert [tree.cover[0] for tree in trees] == [one.tree_.weighted_n_node_samples[0] for one in bag.estimators_]


def test_words_do_not_reach_a_bag() -> None:
    bag = refer(BaggingClassifier(n_estimators=1, random_state=0), "binary", WIDE).pipeline
    with pytest.raises(NoRuleError, match="BaggingClassifier of the text column 'carrier'"):
        ProgramCompiler().answers(bag, Question("predict_proba"), find_site(FEW, "frame"))
