"""When two deployments are equal."""

import json

import numpy as np
import pytest

from mlworkbench.errors import ProfileError
from mlworkbench.evaluation.equivalence import Comparison, compare, find_ties, measure_differences


def test_equal_predictions_in_any_order_are_equal():
    draws = np.random.default_rng(0)
    names, scores = [f"r{i}" for i in range(1000)], draws.random(1000)
    order = draws.permutation(1000)
    decisions = (scores >= 0.5).astype(int)
    found = compare(
        names, scores, decisions, [names[i] for i in order], scores[order], decisions[order], tolerance=0, threshold=0.5
    )
    assert (found.verdict, found.rows, found.max_difference, found.mismatches) == ("equal", 1000, 0.0, 0)


@pytest.mark.parametrize(
    ("ids", "field"),
    [(["a"], "missing"), (["a", "b", "b"], "duplicated"), (["a", "b", "c"], "unexpected")],
)
def test_a_missing_a_doubled_and_a_foreign_row_each_refuse(ids, field):
    found = compare(["a", "b"], [0.1, 0.1], None, ids, [0.1] * len(ids), None, tolerance=0)
    assert (getattr(found, field), found.mismatches, found.verdict) == (1, 0, "refused")


def test_the_tolerance_is_the_last_difference_that_is_none():
    at, beyond = (compare(["a"], [0.5], None, ["a"], [0.5 + d], None, tolerance=0.25) for d in (0.25, 0.2501))
    assert (at.verdict, at.max_difference, beyond.verdict) == ("equal", 0.25, "refused")


def test_another_decision_is_a_mismatch_even_when_scores_are_equal():
    assert compare(["a"], [0.9], [1], ["a"], [0.9], [0], tolerance=1e-9, threshold=0.5).mismatches == 1


def depends_on_batch(*rows):
    return lambda asked: np.isin(asked, rows)


def test_another_decision_beside_the_threshold_is_excused_where_the_reference_is_of_two_minds():
    case = (["a", "b"], [0.9, 0.5 + 1e-13], [1, 1], ["b", "a"], [0.5 - 1e-13, 0.9], [0, 1])
    found = compare(*case, tolerance=1e-12, threshold=0.5, alone_differs=depends_on_batch(1))
    assert (found.ties, found.mismatches, found.verdict, found.excused) == (1, 0, "equal", ("b",))
    for minds in (None, depends_on_batch(0)):
        found = compare(*case, tolerance=1e-12, threshold=0.5, alone_differs=minds)
        assert (found.ties, found.mismatches, found.verdict) == (0, 1, "refused")


@pytest.mark.parametrize(
    ("scores", "decisions", "edge"),
    [([0.5], ["n"], 0.5), ([[0.4, 0.4, 0.2]], ["a"], None)],
    ids=["threshold", "largest"],
)
def test_an_exact_tie_is_never_excused_since_a_rule_decides_it(scores, decisions, edge):
    case = (["a"], scores, decisions, ["a"], scores, ["b"])
    found = compare(*case, tolerance=1e-6, threshold=edge, alone_differs=depends_on_batch(0))
    assert (found.ties, found.mismatches, found.verdict) == (0, 1, "refused")


def test_two_classes_that_lead_within_the_tolerance_are_excused_as_a_threshold_is():
    near = [[0.4, 0.4 + 1e-9, 0.2 - 1e-9]]
    case = (["a"], near, ["b"], ["a"], [[0.4 + 1e-9, 0.4, 0.2 - 1e-9]], ["a"])
    assert compare(*case, tolerance=1e-8, alone_differs=depends_on_batch(0)).verdict == "equal"
    assert compare(*case, tolerance=1e-10, alone_differs=depends_on_batch(0)).verdict == "refused"


def test_the_reference_is_asked_about_turned_decisions_near_the_edge_alone():
    asked = []
    compare(
        ["a", "b", "c"], [0.5 + 1e-13, 0.5 + 1e-13, 0.9], [1, 1, 1], ["a", "b", "c"], [0.5, 0.5, 0.9], [1, 0, 0],
        tolerance=1e-12, threshold=0.5, alone_differs=lambda rows: [asked.extend(rows.tolist()), rows == rows][1],
    )  # fmt: skip
    assert asked == [1]


def test_a_tie_does_not_excuse_a_score_beyond_tolerance():
    assert compare(["a"], [0.5], [1], ["a"], [0.6], [1], tolerance=1e-12, threshold=0.5).mismatches == 1


def test_multiclass_rows_differ_by_their_largest_class_difference():
    found = compare(["a"], [[0.2, 0.3, 0.5]], ["c"], ["a"], [[0.2, 0.35, 0.45]], ["c"], tolerance=0.01)
    assert found.max_difference == pytest.approx(0.05) and found.mismatches == 1


def test_a_missing_score_is_equal_to_a_missing_score_alone():
    assert compare(["a"], [np.nan], None, ["a"], [np.nan], None, tolerance=0).verdict == "equal"
    found = compare(["a"], [np.nan], None, ["a"], [0.5], None, tolerance=1)
    assert found.verdict == "refused" and json.loads(json.dumps(found.to_dict()))["max_difference"] == "Infinity"


def test_decisions_on_one_side_only_are_mismatches():
    assert compare(["a"], [0.5], [1], ["a"], [0.5], None, tolerance=0).mismatches == 1


def test_decisions_compare_across_numpy_and_json_types():
    found = compare(
        ["a", "b"], [0.9, 0.1], np.array([1, 0]), ["a", "b"], [0.9, 0.1], np.array([1, 0], object), tolerance=0
    )
    assert found.verdict == "equal"
    nothing = np.array([None, None], dtype=object)
    assert compare(["a", "b"], [1, 2], nothing, ["a", "b"], [1, 2], nothing, tolerance=0).verdict == "equal"
    gone = np.array([np.nan])
    assert compare(["a"], [1], gone, ["a"], [1], gone, tolerance=0).verdict == "equal"


def test_no_rows_prove_nothing_and_no_answers_refuse():
    assert compare([], np.empty(0), None, [], [], None, tolerance=0).verdict == "undecided"
    found = compare(["a", "b"], [[0.5, 0.5]] * 2, ["x", "x"], [], [], [], tolerance=0)
    assert (found.missing, found.verdict, found.max_difference) == (2, "refused", 0.0)


def test_a_reference_that_names_a_row_twice_is_refused():
    with pytest.raises(ProfileError, match="each row once"):
        compare(["a", "a"], [1, 2], None, ["a"], [1], None, tolerance=0)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ProfileError, match="one shape"):
        compare(["a"], [[0.5, 0.5]], None, ["a"], [0.5], None, tolerance=0)
    with pytest.raises(ProfileError):
        measure_differences([1, 2], [1])


def test_without_a_threshold_a_single_score_has_no_ties():
    assert find_ties([0.5, 0.5], tolerance=1.0).tolist() == [False, False]
    assert find_ties([[0.6, 0.4], [0.5 + 1e-10, 0.5]], tolerance=1e-9).tolist() == [False, True]


def test_a_comparison_is_json_and_carries_its_verdict():
    found = Comparison(rows=1, missing=0, duplicated=0, max_difference=0.0, mismatches=0, ties=0, tolerance=1e-12)
    assert json.loads(json.dumps(found.to_dict()))["verdict"] == "equal"
