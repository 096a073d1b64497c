"""One against the rest, one against one: scores and decisions are those of the pipeline, on ties as well."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from few_columns import FEW, WIDE, codes, hold, only, refer, words
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import refuse_alike
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.multiclass import _ovr_decision_function
from test_compile import rows

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.base.links import LINKS
from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer
from mlworkbench.scoring.compiled.meta.votes import make_duels
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.frame import FeatureFrame


def line() -> LogisticRegression:
    return LogisticRegression(max_iter=2000)


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(4, max_depth=4, random_state=0)


def boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=3, random_state=0)


CASES: dict[str, tuple[str, Any, bool]] = {
    "pipelines against the rest": ("multiclass", lambda: OneVsRestClassifier(make_pipeline(words(), line())), False),
    "lines against the rest": ("multiclass", lambda: make_pipeline(words(), OneVsRestClassifier(line())), False),
    "one line for two classes": ("binary", lambda: make_pipeline(words(), OneVsRestClassifier(line())), False),
    "boosting against the rest": ("multiclass", lambda: make_pipeline(codes(), OneVsRestClassifier(boosting())), True),
    "forests against the rest": ("multiclass", lambda: make_pipeline(codes(), OneVsRestClassifier(forest())), True),
    "one forest for two classes": ("binary", lambda: make_pipeline(codes(), OneVsRestClassifier(forest())), True),
    "margins against the rest": ("multiclass", lambda: make_pipeline(words(), OneVsRestClassifier(LinearSVC())), False),
    "duels of lines": ("multiclass", lambda: make_pipeline(words(), OneVsOneClassifier(line())), False),
    "duels of forests": ("multiclass", lambda: make_pipeline(codes(), OneVsOneClassifier(forest())), True),
    "one duel of boosting": ("binary", lambda: make_pipeline(codes(), OneVsOneClassifier(boosting())), True),
}


@pytest.mark.parametrize("name", CASES)
def test_it_answers_and_decides_as_its_pipeline(name: str) -> None:
    task, make, trees = CASES[name]
    reference = refer(make(), task)
    assert (reference.decision or {}).get("rule") == "argmax"
    hold(reference, same_bits=trees)


def test_lines_against_the_rest_are_one_product() -> None:
    program = compile_scorer(refer(CASES["lines against the rest"][1](), "multiclass")).program
    assert program["model"]["kind"] == "linear" and len(program["model"]["intercepts"]) == 3


def test_shares_that_rounding_makes_equal_are_decided_before_they_are_divided() -> None:
    reference = refer(make_pipeline(codes(), OneVsRestClassifier(DecisionTreeClassifier(max_depth=2))), "multiclass")
    for member, share in zip(reference.pipeline[-1].estimators_, (0.92, np.nextafter(0.92, 1), 0.5), strict=True):
        member.tree_.value[:] = [1.0 - share, share]
    frame, compiled = only(rows(seed=2, n=4), FEW), compile_scorer(reference)
    wanted = reference.pipeline.predict(reference.model_input(frame)).tolist()
    assert wanted == [reference.classes[1]] * 4
    for scorer in (reference, compiled):
        scores, decisions = scorer.answer(frame)
        assert (scores[:, 0] == scores[:, 1]).all()
        assert decisions is not None and decisions.tolist() == wanted


def test_no_member_is_one_against_the_rest_of_several_classes() -> None:
    inside = OneVsRestClassifier(forest())
    stack = StackingClassifier([("rest", inside)], line(), cv=2, stack_method="predict")
    with pytest.raises(NoRuleError, match="OneVsRestClassifier inside another model decides by a rule of its own"):
        compile_scorer(refer(make_pipeline(codes(), stack), "multiclass"))


def test_ties_are_decided_as_the_pipeline_decides_them() -> None:
    reference = refer(CASES["forests against the rest"][1](), "multiclass")
    for member in reference.pipeline[-1].estimators_:
        for tree in member.estimators_:
            tree.tree_.value[:] = np.round(tree.tree_.value)
    compiled, frame = compile_scorer(reference), only(rows(seed=9, n=500), FEW)
    scores, decisions = compiled.answer(frame)
    ordered = np.sort(scores, axis=1)
    assert (ordered[:, -1] == ordered[:, -2]).sum() > 5
    assert decisions is not None and decisions.tolist() == reference.predict(frame).tolist()
    assert np.array_equal(scores, reference.score(frame))


REFUSED = {
    "margins that do not make the probabilities": (
        lambda: make_pipeline(codes(), OneVsRestClassifier(AdaBoostClassifier(n_estimators=3, random_state=0))),
        "no logistic function of its margins",
    ),
    "one duel of forests": (lambda: make_pipeline(codes(), OneVsOneClassifier(forest())), "a rule of its own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    make, reason = REFUSED[name]
    reference = refer(make(), "binary")
    frame = only(rows(n=5), FEW)
    scorer, facts = compile_and_prove(reference, frame, frame)
    assert scorer is None and reason in facts["reason"]


def test_codes_and_chains_have_no_scores_or_no_rule() -> None:
    with pytest.raises(ScoringError, match="OutputCodeClassifier has neither"):
        refer(make_pipeline(codes(), OutputCodeClassifier(line(), random_state=0)), "multiclass")
    with pytest.raises(NoRuleError, match=r"ClassifierChain .* has no rule"):
        ProgramCompiler().answers(ClassifierChain(line()), Question("predict_proba"), Site((None,)))


def test_rows_of_several_classes_are_refused() -> None:
    table, labels = np.arange(20.0).reshape(-1, 1), np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 5)
    several = OneVsRestClassifier(line()).fit(table, labels)
    with pytest.raises(NoRuleError, match="several classes"):
        ProgramCompiler().answers(several, Question("predict_proba"), Site((None,)))


@pytest.mark.parametrize("make", [OneVsRestClassifier, OneVsOneClassifier])
def test_the_same_values_are_refused_and_shares_that_vanish_stay_0(make: Any) -> None:
    reference = refer(make(line()), "multiclass", WIDE)
    odd = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e300, -1e300, 0.0]
    frame = FeatureFrame({"distance": np.array(odd), "minute": np.full(len(odd), 600.0)})
    refuse_alike(reference, compile_scorer(reference), frame)


def test_no_share_above_0_is_no_share() -> None:
    assert LINKS["each against rest"](np.array([[-800.0, -900.0]])).tolist() == [[0.0, 0.0]]


MARGIN = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.25, -0.25, 1e300, -1e-300])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(MARGIN, min_size=6, max_size=6), min_size=1, max_size=5))
def test_duels_are_counted_as_the_library_counts_them(table: list[list[float]]) -> None:
    confidences = np.array(table)
    step = make_duels({"classes": 4, "widths": [1] * 6}, None)  # type: ignore[arg-type]
    expected = _ovr_decision_function((confidences > 0).astype(int), confidences, 4)
    assert len([*combinations(range(4), 2)]) == 6
    assert np.array_equal(step(confidences.T).T, expected)
