"""Models side by side, stacked, searched for and frozen: each as its pipeline answers and decides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few_columns import FEW, TRAINING, codes, hold, only, refer, words
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from test_compile import FRAME, WITHOUT, rows

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import open_version


def line() -> LogisticRegression:
    return LogisticRegression(max_iter=2000)


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(4, max_depth=4, random_state=0)


def boosting() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=4, random_state=0)


def stack(**options: Any) -> StackingClassifier:
    members = [("margin", make_pipeline(words(), LinearSVC())), ("forest", make_pipeline(codes(), forest()))]
    return StackingClassifier(members, cv=2, **options)


CASES: dict[str, tuple[str, Any, bool]] = {
    "pipelines with words, side by side": (
        "multiclass",
        lambda: VotingClassifier(
            [("line", make_pipeline(words(), line())), ("forest", make_pipeline(codes(), forest()))], voting="soft"
        ),
        False,
    ),
    "weights": (
        "binary",
        lambda: make_pipeline(
            codes(),
            VotingClassifier(
                [("forest", forest()), ("out", "drop"), ("boosting", boosting()), ("tree", DecisionTreeClassifier())],
                voting="soft",
                weights=[1, 7, 2.5, 0.1],
            ),
        ),
        True,
    ),
    "numbers with weights": (
        "regression",
        lambda: make_pipeline(
            words(),
            VotingRegressor([("line", Ridge()), ("forest", RandomForestRegressor(3))], weights=[3, 0.1]),
        ),
        False,
    ),
    "a search, a threshold and a vote inside a vote": (
        "binary",
        lambda: make_pipeline(
            words(),
            VotingClassifier(
                [
                    ("search", GridSearchCV(line(), {"C": [0.1, 1.0]}, cv=2)),
                    ("threshold", FixedThresholdClassifier(forest(), threshold=0.3)),
                    ("vote", VotingClassifier([("tree", DecisionTreeClassifier(max_depth=3))], voting="soft")),
                ],
                voting="soft",
            ),
        ),
        False,
    ),
    "a stack of pipelines with words": ("multiclass", stack, False),
    "a stack that hands the table on, with a forest at the end": (
        "multiclass",
        lambda: make_pipeline(
            codes(),
            StackingClassifier([("forest", forest()), ("boosting", boosting())], forest(), cv=2, passthrough=True),
        ),
        True,
    ),
    "a stack of what its members say, with boosting at the end": (
        "multiclass",
        lambda: make_pipeline(
            codes(),
            StackingClassifier(
                [("forest", forest()), ("tree", DecisionTreeClassifier(max_depth=3)), ("boosting", boosting()),
                 ("margin", make_pipeline(LinearSVC())), ("number", DecisionTreeRegressor(max_depth=3))],
                boosting(),
                cv=2,
                stack_method="predict",
            ),
        ),
        True,
    ),
    "a stack of numbers": (
        "regression",
        lambda: make_pipeline(
            words(), StackingRegressor([("line", Ridge()), ("least", LinearRegression())], cv=2, passthrough=True)
        ),
        False,
    ),
    "a search that is the last step": (
        "multiclass",
        lambda: make_pipeline(
            codes(), RandomizedSearchCV(forest(), {"max_depth": [2, 3]}, n_iter=2, cv=2, random_state=0)
        ),
        True,
    ),
    "one that taught itself": ("binary", lambda: make_pipeline(words(), SelfTrainingClassifier(line())), False),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:y contains no unlabeled")
@pytest.mark.parametrize("name", CASES)
def test_it_answers_and_decides_as_its_pipeline(name: str) -> None:
    task, make, trees = CASES[name]
    hold(refer(make(), task), same_bits=trees)


def test_what_is_frozen_is_what_was_frozen() -> None:
    inside = make_pipeline(words(), FrozenEstimator(line()))
    fitted = refer(make_pipeline(words(), line()), "binary").pipeline
    inside.steps[0] = ("words", FrozenEstimator(fitted[0]))
    inside.steps[1] = ("line", FrozenEstimator(fitted[1]))
    reference = refer(FrozenEstimator(inside), "binary")
    frame = only(rows(seed=3, n=100), FEW)
    assert reference.decision == {"rule": "argmax", "of": "decision_function"}
    assert np.abs(compile_scorer(reference).score(frame) - reference.score(frame)).max() < 1e-14


def test_a_tie_of_members_is_decided_as_the_pipeline_decides_it() -> None:
    members = [(f"tree{k}", DecisionTreeClassifier(max_features=1, random_state=k)) for k in range(4)]
    reference = refer(make_pipeline(codes(), VotingClassifier(members, voting="soft")), "binary")
    for tree in reference.pipeline[-1].estimators_:
        tree.tree_.value[:] = np.round(tree.tree_.value)
    compiled, frame = compile_scorer(reference), only(rows(seed=5, n=600), FEW)
    scores, decisions = compiled.answer(frame)
    assert (scores == 0.5).sum() > 2
    assert decisions is not None and decisions.tolist() == reference.predict(frame).tolist()
    assert scores.tobytes() == reference.score(frame).tobytes()


def test_a_hard_vote_has_no_scores() -> None:
    vote = make_pipeline(codes(), VotingClassifier([("forest", forest()), ("tree", DecisionTreeClassifier())]))
    with pytest.raises(ScoringError, match="has neither"):
        refer(vote, "binary")


def test_a_member_that_decides_by_a_rule_of_its_own_is_refused() -> None:
    own = FixedThresholdClassifier(forest(), threshold=0.3)
    said = StackingClassifier([("own", own)], line(), cv=2, stack_method="predict")
    with pytest.raises(NoRuleError, match="FixedThresholdClassifier inside another model decides by a rule of its own"):
        compile_scorer(refer(make_pipeline(codes(), said), "binary"))


def test_words_are_not_handed_on() -> None:
    reference = refer(stack(), "binary")
    reference.pipeline.passthrough = True
    with pytest.raises(NoRuleError, match="text column"):
        compile_scorer(reference)


def test_a_version_of_a_stack_answers_where_no_library_is(tmp_path: Path) -> None:
    reference, few = refer(stack(), "binary"), only(FRAME.take(range(12)), FEW)
    parts: dict[str, Any] = {"model": "late", "pipeline": reference.pipeline, "task": "binary", "request": FEW}
    parts |= {"classes": reference.classes, "frame": FEW, "golden": (few.columns, {}, few)}
    parts |= {"training": only(FRAME.take(range(TRAINING)), FEW), "labels": np.array([True, False] * 80)}
    build_version(tmp_path / "v", **parts)
    assert open_version(tmp_path / "v").scorer.kind == "compiled"
    code = f"""
from pathlib import Path
import numpy as np
from mlworkbench.scoring.version.version import open_version, predict
version = open_version(Path({str(tmp_path / "v")!r}))
columns = {{"carrier": np.array(["AA", "ZZ"], dtype=object), "distance": np.array([500.0, 7.0]),
           "wind": np.array([np.nan, 3.0])}}
print(predict(version, columns, {{}}).scores.tolist())
"""
    program = WITHOUT.format(blocked=["sklearn", "pandas", "scipy", "skops", "polars", "pyarrow", "onnx"], code=code)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    carriers = np.array(["AA", "ZZ"], dtype=object)
    asked = {"carrier": carriers, "distance": np.array([500.0, 7.0]), "wind": np.array([np.nan, 3.0])}
    expected = reference.score(type(few)(asked))
    assert np.allclose(json.loads(run.stdout), expected, rtol=0, atol=1e-14)
