"""What was told, what was logged and what the training way gives must be one; each way to fail is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from mlworkbench.operate.certify.answers import DeploymentAnswers, read_answer_records, read_answer_table
from mlworkbench.operate.certify.deployments import DEPLOYMENT_CALLERS, split_requests
from mlworkbench.operate.certify.reference import Reference
from mlworkbench.operate.certify.verdict import DeploymentVerdict, compare_answers, feature_differences
from mlworkbench.scoring.definition import DEPLOYMENTS

ROWS = 8
VERSION = SimpleNamespace(tolerance=1e-9, declaration={"threshold": 0.5, "task": "binary", "classes": [0, 1]})
SCORES = np.linspace(0.1, 0.9, ROWS)
FEATURES = [json.dumps({"origin": "JFK", "wind": wind}, separators=(",", ":")) for wind in np.arange(ROWS) / 3]


def reference(**fields: object) -> Reference:
    decisions = (SCORES >= 0.5).astype(object)
    return replace(Reference(SCORES, decisions, np.arange(ROWS), list(FEATURES)), **fields)


def told(**fields: object) -> DeploymentAnswers:
    ids, decisions = [f"p{row}" for row in range(ROWS)], (SCORES >= 0.5).tolist()
    return replace(DeploymentAnswers(list(range(ROWS)), ids, SCORES.copy(), decisions, ((ROWS, 0.5),)), **fields)


def log(scores: np.ndarray | None = None, **columns: list[object]) -> pl.DataFrame:
    scores = SCORES if scores is None else scores
    table = {
        "prediction_id": [f"p{row}" for row in range(ROWS)],
        "scores": [[score] for score in scores],
        "decision": [json.dumps(bool(score >= 0.5)) for score in scores],
        "features": list(FEATURES),
    }
    return pl.DataFrame({**table, **columns})


def held(
    answered: DeploymentAnswers | None = None, lines: pl.DataFrame | None = None, **fields: object
) -> DeploymentVerdict:
    answered, lines = told() if answered is None else answered, log() if lines is None else lines
    return compare_answers(VERSION, "batch", reference=reference(**fields), answered=answered, log=lines)


def changed(row: int, by: float) -> np.ndarray:
    scores = SCORES.copy()
    scores[row] += by
    return scores


def test_all_alike_is_equal_with_its_latency() -> None:
    found = held()
    assert (found.verdict, found.rows, found.mismatches, found.missing) == ("equal", ROWS, 0, 0)
    assert (found.latency_us, found.latency_rows, found.rows_per_second) == (5e5, ROWS, 16.0)
    assert found.feature_mismatches == found.feature_differences == {}


def test_a_score_that_was_rounded_on_its_way_is_a_mismatch_though_the_log_is_right() -> None:
    found = held(told(scores=changed(2, 0.01)))
    assert (found.verdict, found.mismatches) == ("refused", 1)
    assert found.max_difference == pytest.approx(0.01)


def test_a_score_that_is_wrong_in_the_log_alone_is_a_mismatch() -> None:
    assert held(lines=log(changed(2, 0.01))).mismatches == 1


def test_a_difference_below_tolerance_shows_as_a_difference_and_not_as_a_mismatch() -> None:
    found = held(told(scores=changed(2, 1e-10)))
    assert found.verdict == "equal" and found.mismatches == 0
    assert found.max_difference == pytest.approx(1e-10)


def test_another_decision_is_a_mismatch_unless_the_reference_is_of_two_minds() -> None:
    decisions = told().decisions
    flipped = [not decisions[0], *decisions[1:]]
    assert held(told(decisions=flipped)).mismatches == 1
    near = np.concatenate([[0.5 - 1e-10], SCORES[1:]])
    firm = held(told(decisions=flipped, scores=near), log(near), scores=near)
    assert (firm.verdict, firm.ties, firm.mismatches) == ("refused", 0, 1)
    minds = {"alone_differs": lambda rows: rows == 0}
    tied = held(told(decisions=flipped, scores=near), log(near), scores=near, **minds)
    assert (tied.verdict, tied.ties, tied.mismatches, tied.excused) == ("equal", 1, 0, ("0",))


def test_a_row_that_was_dropped_is_missing() -> None:
    whole = told()
    less = replace(
        whole, rows=whole.rows[:-1], ids=whole.ids[:-1], scores=whole.scores[:-1], decisions=whole.decisions[:-1]
    )
    found = held(less)
    assert (found.verdict, found.missing, found.duplicated) == ("refused", 1, 0)


def test_an_answer_that_was_never_logged_is_missing() -> None:
    assert (held(lines=log()[1:]).missing, held(lines=log()[1:]).verdict) == (1, "refused")


def test_an_answer_told_twice_is_doubled_and_so_is_one_logged_twice() -> None:
    whole = told()
    twice = replace(
        whole,
        rows=[*whole.rows, 0],
        ids=[*whole.ids, "p0"],
        scores=np.append(whole.scores, SCORES[0]),
        decisions=[*whole.decisions, whole.decisions[0]],
    )
    assert (held(twice).duplicated, held(twice).verdict) == (1, "refused")
    more = pl.concat([log(), log()[:1].with_columns(pl.lit("px").alias("prediction_id"))])
    assert (held(lines=more).duplicated, held(lines=more).verdict) == (1, "refused")


def test_an_answer_to_no_row_is_unexpected() -> None:
    found = held(told(rows=[-1, *range(1, ROWS)]))
    assert (found.unexpected, found.missing, found.verdict) == (1, 1, "refused")


def test_nothing_told_at_all_is_missing_and_not_an_error() -> None:
    nothing = DeploymentAnswers([], [], np.array([]), [])
    found = held(nothing, log()[:0])
    assert (found.missing, found.verdict, found.latency_us) == (ROWS, "refused", None)


@pytest.mark.parametrize(
    ("logged", "column"),
    [
        ('{"origin":"JFK ","wind":0.0}', "origin"),
        ('{"origin":"jfk","wind":0.0}', "origin"),
        ('{"origin":"JFK","wind":null}', "wind"),
        ('{"origin":"JFK","wind":"0.0"}', "wind"),
        ('{"origin":"JFK","wind":0.00001}', "wind"),
        ('{"origin":"JFK"}', "wind"),
        ('{"origin":"JFK","wind":0.0,"gust":1.0}', "gust"),
    ],
)
def test_a_feature_value_that_differs_refuses_although_scores_are_equal(logged: str, column: str) -> None:
    found = held(lines=log(features=[logged, *FEATURES[1:]]))
    assert (found.verdict, found.mismatches) == ("refused", 0)
    assert found.feature_mismatches == found.feature_differences == {column: 1}


def test_the_last_digit_of_a_float_is_a_difference_of_a_feature_and_no_mismatch() -> None:
    value = json.loads(FEATURES[1])["wind"]
    logged = json.dumps({"origin": "JFK", "wind": float(np.nextafter(value, 1))}, separators=(",", ":"))
    found = held(lines=log(features=[FEATURES[0], logged, *FEATURES[2:]]))
    assert (found.verdict, found.feature_mismatches, found.feature_differences) == ("equal", {}, {"wind": 1})


def test_a_single_precision_feature_is_a_mismatch() -> None:
    value = json.loads(FEATURES[1])["wind"]
    assert feature_differences([json.dumps({"w": value})], [json.dumps({"w": float(np.float32(value))})])[1] == {"w": 1}


def test_vectors_are_compared_value_by_value() -> None:
    first, near, far = '{"v":[0.1,0.2]}', '{"v":[0.1,0.20000000000000004]}', '{"v":[0.1,0.3]}'
    assert feature_differences([first], [near]) == ({"v": 1}, {})
    assert feature_differences([first], [far]) == ({"v": 1}, {"v": 1})
    assert feature_differences([first], ['{"v":[0.1]}'])[1] == {"v": 1}


def test_several_classes_and_regression_are_held_too() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    decisions = np.array(["a", "c"], object)
    expected = Reference(scores, decisions, np.arange(2), ["{}", "{}"])
    version = SimpleNamespace(tolerance=1e-9, declaration={"threshold": None})
    lines = pl.DataFrame(
        {"prediction_id": ["p", "q"], "scores": scores.tolist(), "decision": ['"a"', '"c"'], "features": ["{}", "{}"]}
    )
    answered = DeploymentAnswers([0, 1], ["p", "q"], scores + np.array([[0, 0, 0], [0, 1e-3, 0]]), ["a", "c"])
    found = compare_answers(version, "realtime", reference=expected, answered=answered, log=lines)
    assert (found.mismatches, found.rows) == (1, 2)
    none = np.array([None, None], object)
    plain = Reference(np.array([1e6, 2.0]), none, np.arange(2), ["{}", "{}"])
    numbers = lines.with_columns(
        pl.Series("scores", [[1e6], [2.0]]), pl.Series("decision", ["null", "null"], dtype=pl.String)
    )
    same = DeploymentAnswers([0, 1], ["p", "q"], np.array([1e6, 2.0]), [None, None])
    assert compare_answers(version, "batch", reference=plain, answered=same, log=numbers).verdict == "equal"


def test_a_score_that_is_no_number_is_infinitely_far() -> None:
    found = held(told(scores=changed(0, float("nan"))))
    assert found.to_dict()["max_difference"] == "Infinity" and found.verdict == "refused"


def test_a_table_and_records_come_into_one_form() -> None:
    version = SimpleNamespace(declaration={"task": "multiclass", "classes": ["a", "b", "c"]})
    table = pl.DataFrame(
        {"prediction_id": ["p"], "row": [4], "score_a": [0.1], "score_b": [0.7], "score_c": [0.2], "decision": ["b"]}
    )
    record = {"prediction_id": "p", "scores": {"c": 0.2, "a": 0.1, "b": 0.7}, "decision": "b"}
    one, other = read_answer_table(table, version), read_answer_records([record], version, rows=[4])
    assert (one.rows, one.ids, one.decisions) == (other.rows, other.ids, other.decisions) == ([4], ["p"], ["b"])
    assert np.array_equal(one.scores, other.scores)
    assert read_answer_records([], version).scores.shape == (0, 3)


def test_each_record_is_asked_once_some_alone_and_others_in_lists() -> None:
    for count in (1, 3, 10, 999, 2500):
        parts = split_requests([{"row": row} for row in range(count)])
        assert [record["row"] for part in parts for record in part] == list(range(count))
        assert max(map(len, parts)) <= 100
    assert sum(len(part) == 1 for part in split_requests([{}] * 5000)) == 200


def test_every_way_is_a_deployment() -> None:
    assert set(DEPLOYMENT_CALLERS) <= set(DEPLOYMENTS)
