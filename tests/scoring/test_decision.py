"""One rule from score to decision, and the tolerance within which scores are equal."""

from __future__ import annotations

import numpy as np
import pytest

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.decision import class_names, compute_tolerance, decide, measure_scale, score_names

BINARY = {"task": "binary", "classes": ["no", "yes"], "positive": "yes", "threshold": 0.5}
THREE = {"task": "multiclass", "classes": ["a", "b", "c"]}


def test_a_score_equal_to_the_threshold_is_positive() -> None:
    below = np.nextafter(0.5, 0)
    assert decide(np.array([0.5, below]), BINARY).tolist() == ["yes", "no"]


def test_the_first_class_can_be_the_positive_one() -> None:
    assert decide(np.array([0.9, 0.1]), {**BINARY, "positive": "no"}).tolist() == ["no", "yes"]


def test_of_equal_scores_the_first_class_wins() -> None:
    assert decide(np.array([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]]), THREE).tolist() == ["a", "b"]


def test_regression_has_no_decision() -> None:
    assert decide(np.array([1.0, 2.0]), {"task": "regression"}).tolist() == [None, None]


@pytest.mark.parametrize(
    ("scores", "rule"), [(np.empty(0), BINARY), (np.empty((0, 3)), THREE), (np.empty(0), {"task": "regression"})]
)
def test_no_rows_give_no_decisions(scores: np.ndarray, rule: dict) -> None:
    assert decide(scores, rule).shape == (0,)


def test_decisions_keep_the_type_of_the_class() -> None:
    assert [type(v) for v in decide(np.array([0.9, 0.1]), {**BINARY, "classes": [0, 1], "positive": 1})] == [int, int]


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ScoringError) as raised:
        decide(np.zeros((2, 2)), BINARY)
    assert raised.value.code == "scoring.score_shape"
    with pytest.raises(ScoringError) as raised:
        decide(np.zeros(2), THREE)
    assert raised.value.code == "scoring.score_shape"


def test_a_declaration_without_its_positive_class_is_refused() -> None:
    with pytest.raises(ScoringError) as raised:
        decide(np.zeros(2), {**BINARY, "positive": "maybe"})
    assert raised.value.code == "scoring.declaration"


def test_tolerance_follows_its_formula() -> None:
    assert compute_tolerance(0.0) == 1e-12
    assert compute_tolerance(2e-13) == 2e-12
    assert compute_tolerance(0.0, 50.0) == 50 * 1e-12
    assert compute_tolerance(0.0, 50.0, compiled=True) == 50 * 1e-9
    assert compute_tolerance(0.0, 50.0, compiled=True, single=True) == 50 * 1e-6
    assert compute_tolerance(1e-6, compiled=True) == pytest.approx(1e-5)


def test_scale_is_one_for_probabilities_and_the_largest_score_otherwise() -> None:
    scores = np.array([-3.0, 2.0])
    assert measure_scale(scores, "predict_proba") == 1
    assert measure_scale(scores, "decision_function") == measure_scale(scores, "predict") == 3
    assert measure_scale(np.zeros(2), "predict") == 1


def test_scores_of_several_classes_are_named_by_class() -> None:
    assert score_names({**THREE, "classes": [1, 2.5, True]}) == ["score_1", "score_2.5", "score_True"]
    assert score_names(BINARY) == score_names({"task": "regression", "classes": []}) == ["score"]


def test_two_classes_of_one_text_are_refused_since_their_scores_could_not_be_told_apart() -> None:
    with pytest.raises(ScoringError, match=r"alike as text: 1, '1'; rename one"):
        class_names([1, "1", "x"])
