"""One judgement of gates, drift and coverage: few labels and few rows decide nothing, what became empty is named."""

import json

import numpy as np
import pytest

from mlworkbench.evaluation.judgement import describe_gates, describe_verdict, judge_drift
from mlworkbench.evaluation.monitoring.drift import chance_index, compare_profile
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.report import ReportPlace, make_report_sides, read_drift, write_reports
from mlworkbench.metrics.bootstrap import check_gates, measure
from mlworkbench.scoring.frame import FeatureFrame


def rows(count=4000, *, seed=0, shift=0.0, sex=0.97):
    draws = np.random.default_rng(seed)
    texts = np.array(["female", "male"], dtype=object)[draws.integers(0, 2, count)]
    texts[draws.uniform(size=count) >= sex] = None
    bill = draws.normal(44 + shift, 5, count)
    return FeatureFrame({"bill": bill, "mass": draws.normal(4200, 800, count), "sex": texts}), np.tanh(bill / 100)


TRAINED, SCORES = rows()
PROFILE = profile_frame(TRAINED, SCORES)


def drift(count, **options):
    return judge_drift(compare_profile(PROFILE, *rows(count, seed=1, **options)))


def test_155_of_1291_rows_labelled_decide_no_gate_and_all_of_them_do():
    draws = np.random.default_rng(0)
    decisions = draws.integers(0, 2, 1291)
    labels = np.where(draws.uniform(size=1291) < 0.871, decisions, 1 - decisions).astype(object)
    few = np.where(np.arange(1291) < 155, labels, None)
    found = {}
    for name, known in (("few", few), ("all", labels)):
        metrics = measure(decisions * 1.0, known, "binary", [0, 1], decisions=decisions)
        metrics = {metric: {**value, "served": 1291} for metric, value in metrics.items()}
        found[name] = check_gates(metrics, {"accuracy": (">=", 0.8), "roc_auc": (">=", 0.99)})
    assert [gate["verdict"] for gate in found["few"]["gates"]] == ["undecided", "undecided"]
    assert found["few"]["gates"][0]["reason"] == "155 of 1,291 rows labelled; a gate needs 50 % of them"
    assert found["few"]["verdict"] == "undecided", "too few labels fail nothing, either"
    assert [gate["verdict"] for gate in found["all"]["gates"]] == ["pass", "fail"]


@pytest.mark.parametrize(
    ("labelled", "served", "verdict"), [(29, 29, "undecided"), (30, 60, "pass"), (30, 61, "undecided")]
)
def test_a_gate_is_decided_on_half_of_the_rows_and_on_thirty(labelled, served, verdict):
    metric = {"value": 0.9, "n": labelled, "served": served}
    assert check_gates({"accuracy": metric}, {"accuracy": (">=", 0.8)})["verdict"] == verdict


def test_training_knows_its_labels_and_is_not_asked_for_coverage():
    assert check_gates({"mae": {"value": 0.4, "n": 9}}, {"mae": ("<=", 0.5)})["verdict"] == "pass"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [30, 60, 300, 2000])
def test_rows_like_those_of_training_have_not_moved_however_few(count, seed):
    frame, scores = rows(count, seed=100 + seed)
    assert judge_drift(compare_profile(PROFILE, frame, scores))["verdict"] == "none"


@pytest.mark.parametrize("count", [1, 29])
def test_one_row_is_undecided_and_says_so(count):
    found = drift(count, shift=50.0)
    assert (found["verdict"], found["columns"]) == ("undecided", {})
    assert f"{count} row" in found["line"] and "at least 30" in found["line"]


def test_a_column_that_became_empty_is_named_with_the_share():
    found = drift(700, sex=0.0)
    assert found["columns"]["sex"] == {"finding": "empty", "why": "100 % missing, training 3 %"}
    assert "sex is empty now (100 % missing, training 3 %)" in found["line"]
    assert found["columns"]["bill"]["finding"] == "as before"


def test_a_share_of_missing_values_far_above_trainings_is_named():
    assert drift(700, sex=0.6)["columns"]["sex"]["finding"] == "missing"
    assert drift(700, sex=0.95)["columns"]["sex"]["finding"] == "as before"


def test_an_empty_column_of_training_is_no_news():
    empty = FeatureFrame({"gone": np.full(100, np.nan)})
    found = judge_drift(compare_profile(profile_frame(empty, np.zeros(100)), empty))
    assert found["verdict"] == "none"


def test_a_column_that_moved_is_found_and_both_measures_are_told():
    found = judge_drift(
        compare_profile(PROFILE, *rows(700, seed=1, shift=6.0)),
        {"bill": {"distance": 1.2, "threshold": 0.12, "method": "wasserstein", "drift": True}},
    )
    assert found["columns"]["bill"]["finding"] == "moved" and found["columns"]["score"]["finding"] == "moved"
    assert "distance 1.2, training's own stretches up to 0.12" in found["columns"]["bill"]["why"]


def test_a_distance_alone_does_not_move_a_column_and_with_a_small_index_it_does():
    shift = {"rows": 2000, "rows_reference": 4000, "scores": []}
    far = {"wind": {"distance": 0.2, "threshold": 0.1, "method": "wasserstein", "drift": True}}
    column = {"missing": 0.0, "missing_reference": 0.0, "chance": 0.02}
    for index, verdict in ((0.05, "none"), (0.15, "large")):
        found = judge_drift({**shift, "columns": {"wind": {**column, "psi": index}}}, far)
        assert found["verdict"] == verdict
    assert judge_drift({**shift, "columns": {"wind": {**column, "psi": 0.15}}})["verdict"] == "none"


def test_chance_shrinks_with_rows_on_both_sides():
    bins = [0.1] * 10
    assert chance_index(bins, 4000, 30) > chance_index(bins, 4000, 300) > chance_index(bins, 40000, 300)


def gate(verdict, value, **more):
    return {"metric": "accuracy", "rule": ">=", "bound": 0.9, "value": value, "verdict": verdict, "reason": "", **more}


def test_one_sentence_comes_first_then_the_gate_that_failed_then_drift():
    gates = {
        "batch": {"gates": [gate("pass", 0.95, n=90, served=90), gate("fail", 0.871, n=1291, served=1291)]},
        "one_off": {"gates": [gate("undecided", 0.938, n=155, served=1291, reason="155 of 1,291 rows labelled")]},
    }
    assert describe_verdict("penguins:1f", "fail", gates, drift(700)) == [
        "verdict: fail - worse answers to the same kind of rows; look at the labels and what they mean now, "
        "then retrain (penguins:1f)",
        "gate accuracy >= 0.9: fail, 0.871 (batch; 1,291 of 1,291 rows labelled)",
        "gate accuracy >= 0.9: undecided, 0.938 (one_off); 155 of 1,291 rows labelled",
        "gate accuracy >= 0.9: pass, 0.95 (batch; 90 of 90 rows labelled)",
        "drift: none in 4 columns over 700 rows",
    ]


def test_deployments_that_agree_share_a_line_and_one_that_differs_has_its_own():
    same, other = {"gates": [gate("pass", 0.95)]}, {"gates": [gate("fail", 0.8)]}
    assert describe_gates({"batch": same, "edge": other, "one_off": same}) == [
        "gate accuracy >= 0.9: fail, 0.8 (edge)",
        "gate accuracy >= 0.9: pass, 0.95 (batch, one_off)",
    ]


@pytest.mark.parametrize("verdict", ["pass", "fail", "undecided"])
@pytest.mark.parametrize("state", ["none", "large", "undecided"])
def test_every_pair_has_its_sentence(verdict, state):
    lines = describe_verdict("m:1", verdict, {}, {"verdict": state, "line": "drift: x"})
    assert lines[0].startswith(f"verdict: {verdict} - ")
    assert lines[1:] == ["gates: the version declares none", "drift: x"]


def test_gates_without_value_say_why():
    metric = {"value": None, "n": 0, "served": 9, "reason": "no labelled rows"}
    found = check_gates({"roc_auc": metric}, {"roc_auc": (">", 0)})
    assert describe_gates({"batch": found}) == ["gate roc_auc > 0: undecided (batch); no labelled rows"]


def strict(path):
    def refuse(name):
        raise AssertionError(f"{path.name} holds {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_reports_are_strict_json_and_say_nothing_of_the_whole_table(tmp_path):
    frame, scores = rows(200, seed=1, sex=0.0)
    before, after, kinds = make_report_sides(PROFILE, frame, scores)
    after["mass"] = np.nan
    files = write_reports(before, after, ReportPlace(folder=tmp_path / "reports", html=True), **kinds)
    for name in ("drift_json", "quality_json"):
        strict(files[name])
    assert set(read_drift(files["drift_json"])) == {"bill", "score"}
    html = files["drift_html"].read_text(encoding="utf-8")
    assert "Dataset Drift is" not in html


@pytest.mark.parametrize("seed", range(30))
def test_a_value_lies_inside_its_interval_or_a_note_says_why(seed):
    draws = np.random.default_rng(seed)
    count = int(draws.integers(8, 300))
    scores = draws.uniform(size=count)
    labels = (draws.uniform(size=count) < scores).astype(int)
    found = measure(scores, labels, "binary", [0, 1], decisions=(scores >= 0.5).astype(int))
    for metric in found.values():
        if metric["low"] is not None:
            assert metric["low"] <= metric["value"] <= metric["high"] or metric["interval_note"]
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert "interval_note" not in found["accuracy"]
