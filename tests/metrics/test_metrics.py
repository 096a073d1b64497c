"""Metrics against scikit-learn, their intervals, and gates."""

from statistics import mean

import numpy as np
import pytest
import sklearn.metrics as peer
from sklearn.linear_model import LinearRegression

from mlworkbench.errors import DefinitionError, ProfileError
from mlworkbench.metrics.bootstrap import check_gates, measure
from mlworkbench.metrics.catalogue import METRICS, NEEDS, Metric, list_metrics
from mlworkbench.metrics.functions import calibration_error, f1_macro, r2, roc_auc, weighted_mean
from mlworkbench.scoring.definition import ModelDefinition

GATE = {"roc_auc": (">=", 0.72)}


def binary(count=3000, seed=0, steps=50):
    draws = np.random.default_rng(seed)
    scores = np.round(draws.random(count) * steps) / steps  # with many ties
    return scores, (draws.random(count) < scores).astype(int)


def values(metrics):
    return {name: found["value"] for name, found in metrics.items()}


def gated(task, **gates):
    return ModelDefinition("price", LinearRegression(), [], "late", task=task, gates=gates)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_definition_takes_the_metrics_of_its_task_and_no_others(task):
    for name, metric in METRICS.items():
        assert metric.name == name and set(metric.needs) <= set(NEEDS)
        if task in metric.tasks:
            assert gated(task, **{name: (">=", 0.5)}).gates
        else:
            with pytest.raises(DefinitionError, match=f"gates: one of {', '.join(list_metrics(task))}; got '{name}'"):
                gated(task, **{name: (">=", 0.5)})


def test_one_entry_in_the_catalogue_is_all_that_a_new_metric_needs(monkeypatch):
    entry = Metric(
        name="bias",
        tasks=("regression",),
        needs=("labels that vary",),
        higher_is_better=False,
        function=lambda sample, weights: weighted_mean(sample.scores - sample.labels, weights),
    )
    monkeypatch.setitem(METRICS, "bias", entry)
    assert list_metrics("regression")[-1] == "bias" and "bias" not in list_metrics("binary")
    assert gated("regression", bias=("<=", 1.0)).gates
    found = measure(np.arange(50) + 0.5, np.arange(50.0), "regression")
    assert found["bias"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 50}
    assert check_gates(found, {"bias": ("<=", 1.0)})["verdict"] == "pass"
    assert measure(np.arange(3.0), np.ones(3), "regression")["bias"]["reason"] == "labels do not vary"


def calibration_by_the_book(scores, labels):
    """Over 15 bins: the share of rows in it, times how far the mean claim lies from the share that came true."""
    bins = [[k for k, score in enumerate(scores) if b / 15 <= score < (b + 1) / 15 + (b == 14)] for b in range(15)]
    gaps = [abs(mean(scores[rows]) - mean(labels[rows].tolist())) * len(rows) for rows in bins if rows]
    return sum(gaps) / len(scores)


def test_binary_metrics_equal_scikit_learn():
    scores, labels = binary()
    decisions = (scores >= 0.5).astype(int)
    found = values(measure(scores, labels, "binary", [0, 1], decisions=decisions, repeats=0))
    assert found == pytest.approx({
        "roc_auc": peer.roc_auc_score(labels, scores),
        "average_precision": peer.average_precision_score(labels, scores),
        "brier": peer.brier_score_loss(labels, scores),
        "log_loss": peer.log_loss(labels, scores),
        "accuracy": peer.accuracy_score(labels, decisions),
        "f1_macro": peer.f1_score(labels, decisions, average="macro"),
        "expected_calibration_error": calibration_by_the_book(scores, labels),
    })  # fmt: skip


def test_multiclass_metrics_equal_scikit_learn():
    draws = np.random.default_rng(1)
    scores = draws.dirichlet([1, 2, 3], 2000)
    classes = ["Adelie", "Chinstrap", "Gentoo"]
    labels = np.array(classes)[[draws.choice(3, p=row) for row in scores]]
    decisions = np.array(classes)[scores.argmax(axis=1)]
    found = values(measure(scores, labels, "multiclass", classes, decisions=decisions, repeats=0))
    assert found["roc_auc"] == pytest.approx(peer.roc_auc_score(labels, scores, multi_class="ovr", average="macro"))
    assert found["log_loss"] == pytest.approx(peer.log_loss(labels, scores))
    assert found["accuracy"] == pytest.approx(peer.accuracy_score(labels, decisions))
    assert found["f1_macro"] == pytest.approx(peer.f1_score(labels, decisions, average="macro"))


def test_regression_metrics_equal_scikit_learn():
    draws = np.random.default_rng(2)
    labels = draws.normal(150, 70, 500)
    scores = labels + draws.normal(0, 20, 500)
    found = values(measure(scores, labels, "regression", repeats=0))
    expected = (peer.mean_absolute_error, peer.root_mean_squared_error, peer.r2_score)
    assert list(found.values()) == pytest.approx([function(labels, scores) for function in expected])


def test_a_weight_is_a_row_drawn_that_often():
    scores, labels = binary(200, steps=10)
    drawn = np.random.default_rng(0).integers(0, 200, 200)
    weights = np.bincount(drawn, minlength=200)[None, :].astype(float)
    assert roc_auc(scores, labels == 1, weights)[0] == pytest.approx(peer.roc_auc_score(labels[drawn], scores[drawn]))
    ones = np.ones((1, 200))
    for function in (calibration_error, lambda s, p, w: f1_macro((s > 0.5).astype(int), p.astype(int), w), r2):
        truth = (labels == 1) if function is calibration_error else labels.astype(float)
        assert function(scores, truth, weights) == pytest.approx(function(scores[drawn], truth[drawn], ones))


def test_calibration_error_by_hand():
    claimed = np.array([0.1, 0.1, 0.9, 0.9])
    true = np.array([False, True, True, True])
    assert calibration_error(claimed, true, np.ones((1, 4)))[0] == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert calibration_error(np.array([1.0]), np.array([True]), np.ones((1, 1)))[0] == 0


def test_unlabelled_rows_are_left_out_and_n_says_how_many_count():
    scores, labels = binary(100)
    with_gaps = labels.astype(object)
    with_gaps[::2] = None
    found = measure(scores, with_gaps, "binary", [0, 1], decisions=labels)
    whole = measure(scores[1::2], labels[1::2], "binary", [0, 1], decisions=labels[1::2])
    assert found == whole and found["brier"]["n"] == 50
    as_nan = np.where(np.arange(100) % 2, labels.astype(float), np.nan)
    assert measure(scores, as_nan, "binary", [0, 1], decisions=labels) == whole


def test_one_class_leaves_ranking_undefined_and_the_gate_undecided():
    found = measure([0.2, 0.9], [1, 1], "binary", [0, 1], decisions=[0, 1])
    assert found["roc_auc"]["value"] is None and "class 0" in found["roc_auc"]["reason"]
    assert found["brier"]["value"] is not None
    assert check_gates(found, GATE)["verdict"] == "undecided"


def test_nothing_labelled_leaves_everything_undefined():
    found = measure([0.2, 0.9], [None, None], "binary", [0, 1], decisions=[0, 1], blocks=[1, 2])
    assert set(values(found).values()) == {None}
    assert {metric["reason"] for metric in found.values()} == {"no labelled rows"}


def test_a_decision_function_has_a_ranking_and_no_calibration():
    found = measure([-2.0, 3.0, 1.0], [0, 1, 1], "binary", [0, 1], decisions=[0, 1, 1])
    assert found["roc_auc"]["value"] == 1.0
    assert found["expected_calibration_error"]["reason"] == "scores are not probabilities"


def test_scores_that_are_not_finite_have_no_metrics():
    assert "1 scores" in measure([np.nan, 0.5], [0, 1], "binary", [0, 1])["roc_auc"]["reason"]


def test_labels_match_classes_by_value_across_json_and_numpy():
    scores = [0.2, 0.9, 0.4]
    assert values(measure(scores, [False, True, None], "binary", [0, 1])) == values(
        measure(scores, np.array([0.0, 1.0, np.nan]), "binary", [False, True])
    )


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [(["late", "no"], "binary", "'late'"), ([0], "binary", "2 scores, 1 labels"), ([0, 1], "binry", "did you mean")],
)
def test_wrong_input_is_refused_in_one_line(labels, task, message):
    with pytest.raises(ProfileError, match=message):
        measure([0.1, 0.2], labels, task, [0, 1])


def test_intervals_are_seeded_and_hold_the_value():
    scores, labels = binary(500)
    first, second, other = (measure(scores, labels, "binary", [0, 1], seed=seed) for seed in (3, 3, 4))
    assert first == second != other
    for metric in ("roc_auc", "brier", "log_loss"):
        assert first[metric]["low"] < first[metric]["value"] < first[metric]["high"]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(100):
        labels = (np.random.default_rng(seed).random(200) < 0.3).astype(float)
        found = measure(np.zeros(200), labels, "regression", seed=seed)["mae"]
        inside += found["low"] <= 0.3 <= found["high"]
    assert 88 <= inside <= 100


def test_rows_of_a_block_are_drawn_together():
    draws = np.random.default_rng(0)
    days = np.repeat(np.arange(30), 50)
    labels = draws.normal(size=30)[days]
    alone = measure(np.zeros(1500), labels, "regression")["mae"]
    by_day = measure(np.zeros(1500), labels, "regression", blocks=days)["mae"]
    assert by_day["value"] == alone["value"]
    assert by_day["high"] - by_day["low"] > 4 * (alone["high"] - alone["low"])


def test_fewer_than_five_blocks_carry_no_interval():
    found = measure(np.zeros(100), np.ones(100), "regression", blocks=np.arange(100) % 4)["mae"]
    assert (found["value"], found["low"], found["high"]) == (1.0, None, None) and "5 blocks" in found["reason"]


def test_rows_are_sorted_once_for_all_repeats(monkeypatch):
    scores, labels = binary(3_000)
    sorts, real = [], np.argsort

    def counted(*args, **kwargs):
        sorts.append(len(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(np, "argsort", counted)
    counts = []
    for repeats in (20, 200):
        sorts.clear()
        measure(scores, labels, "binary", [0, 1], decisions=labels, repeats=repeats)
        counts.append(sorts.count(3_000))
    assert counts[0] == counts[1] <= 6


def test_gates_pass_fail_and_stay_undecided():
    metrics = {"mae": {"value": 0.5, "n": 3}, "r2": {"value": None, "n": 3, "reason": "labels do not vary"}}
    verdict = lambda gates: check_gates(metrics, gates)["verdict"]  # noqa: E731
    assert verdict({"mae": ("<=", 0.5)}) == verdict({"mae": [">=", 0.5]}) == "pass"
    assert verdict({"mae": ("<", 0.5)}) == verdict({"mae": (">", 0.5), "r2": (">=", 0)}) == "fail"
    assert verdict({"mae": ("<=", 0.5), "r2": (">=", 0)}) == verdict({"rmse": ("<=", 1)}) == verdict({}) == "undecided"


def test_a_gate_that_nobody_can_hold_is_refused():
    with pytest.raises(ProfileError) as caught:
        check_gates({}, {"mae": ("==", 1)})
    assert caught.value.code == "profile.gate_operator"
