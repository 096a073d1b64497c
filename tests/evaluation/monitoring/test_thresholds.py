"""Thresholds of a budget, the judgement of windows, and what is undecided."""

import json

import numpy as np
import pytest

from mlworkbench.evaluation.monitoring.counts import Answered, count_answered, count_blocks, merge_counts
from mlworkbench.evaluation.monitoring.diagnosis import explain_by_season, explain_scores, list_shifts
from mlworkbench.evaluation.monitoring.gauges import draw_rows, fit_tail, make_gauge, tabulate_performance
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.thresholds import choose_window, judge_counts, make_thresholds
from mlworkbench.metrics.bootstrap import measure
from mlworkbench.scoring.frame import FeatureFrame

RULE = {"task": "binary", "classes": [0, 1], "positive": 1}
DAYS, JUDGED, ROWS = 200, 160, 500


def make_day(day, *, rows=ROWS, gain=1.0, airline=None):
    """Draw a day: its own weather and a weekday's traffic; the score follows the wind and the hour."""
    draws = np.random.default_rng(day)
    wind = draws.gamma(4.0, 3.0 * draws.lognormal(0, 0.15), rows) * gain
    hour = np.clip(draws.normal(13 + day % 7 / 4, 4, rows), 0, 24)
    carrier = draws.choice(["AA", "UA", "DL"], rows).astype(object)
    if airline is not None:
        carrier[: rows // 5] = airline
    scores = 1 / (1 + np.exp(4 - wind / 6 - hour / 12))
    frame = FeatureFrame({"wind": wind, "hour": hour, "carrier": carrier})
    labels = (draws.random(rows) < scores).astype(int)
    return Answered(frame=frame, scores=scores, decisions=(scores > 0.4).astype(int), labels=labels)


def join(parts):
    names = parts[0].frame.names
    frame = FeatureFrame({name: np.concatenate([one.frame.columns[name] for one in parts]) for name in names})
    fields = {name: np.concatenate([getattr(one, name) for one in parts]) for name in ("scores", "decisions", "labels")}
    return Answered(frame=frame, **fields)


@pytest.fixture(scope="module")
def profile():
    whole = join([make_day(day) for day in range(DAYS)])
    found = profile_frame(whole.frame, whole.scores, whole.labels)
    days = np.repeat(np.arange(DAYS), ROWS)
    return found | {"blocks": count_blocks(found, whole, declaration=RULE, days=days, judged=days >= JUDGED)}


@pytest.fixture(scope="module")
def thresholds(profile):
    return make_thresholds(profile, rows=ROWS)


def states(profile, thresholds, answered, **named):
    counts = count_answered(profile, answered, declaration=RULE)
    found = judge_counts(counts, profile, thresholds, **named)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [one["subject"] for one in found] == ["scores", "performance", "columns"]
    assert all(one["what"] for one in found)
    return {one["subject"]: one for one in found}


@pytest.mark.parametrize(
    ("rows", "days"), [([500] * 9, 1), ([499] * 9, 7), ([36] * 9, 14), ([20] * 9, 28), ([1], 28), ([], 28)]
)
def test_a_window_is_the_shortest_with_five_hundred_rows(rows, days):
    assert choose_window(rows) == days


def test_days_without_drift_alarm_less_often_than_the_budget(profile, thresholds):
    found = [states(profile, thresholds, make_day(day)) for day in range(1000, 1240)]
    alarms = sum(any(one["state"] in ("warn", "fail") for one in day.values()) for day in found)
    assert alarms <= 240 / 30 + 2.4 * np.sqrt(240 / 30)
    assert alarms < 240  # and every other day passes
    assert {one["state"] for day in found for one in day.values()} <= {"pass", "warn", "fail"}


def test_another_unit_moves_the_column_and_the_scores_and_is_named_as_the_cause(profile, thresholds):
    found = states(profile, thresholds, make_day(1001, gain=3.6))
    assert found["scores"]["state"] == "fail" and found["columns"]["state"] == "warn"
    assert found["columns"]["columns"][0] == "wind" and "'wind'" in found["scores"]["cause"]
    assert found["scores"]["measure"] > 1 and "once in" in found["scores"]["sure"]


def test_a_new_category_of_a_fifth_is_found_in_one_day_though_no_score_moves(profile, thresholds):
    found = states(profile, thresholds, make_day(1002, airline="ZZ"))
    assert found["columns"]["state"] == "warn" and found["columns"]["columns"] == ["carrier"]
    assert found["scores"]["state"] == found["performance"]["state"] == "pass"


def test_labels_turned_round_fail_performance_alone(profile, thresholds):
    day = make_day(1003)
    turned = Answered(frame=day.frame, scores=day.scores, decisions=day.decisions, labels=1 - day.labels)
    found = states(profile, thresholds, turned)
    assert found["performance"]["state"] == "fail" and "usually" in found["performance"]["what"]
    assert found["scores"]["state"] == found["columns"]["state"] == "pass"


def test_better_performance_is_no_alarm(profile, thresholds):
    day = make_day(1004)
    better = Answered(frame=day.frame, scores=day.scores, decisions=day.decisions, labels=day.decisions)
    assert states(profile, thresholds, better)["performance"]["state"] == "pass"


def test_a_column_that_is_missing_altogether_is_found(profile, thresholds):
    day = make_day(1005)
    frame = FeatureFrame({**day.frame.columns, "wind": np.full(ROWS, np.nan)})
    gone = Answered(frame=frame, scores=day.scores, decisions=day.decisions, labels=day.labels)
    assert states(profile, thresholds, gone)["columns"]["columns"] == ["wind"]


def spoil(kind):
    day = make_day(1006)
    frame = {"frame": day.frame, "scores": day.scores, "decisions": day.decisions, "labels": day.labels}
    nothing = FeatureFrame({
        "wind": np.full(ROWS, np.nan),
        "hour": np.full(ROWS, np.nan),
        "carrier": np.full(ROWS, None, dtype=object),
    })  # fmt: skip
    changed = {
        "empty": lambda: day.take(np.arange(0)),
        "tiny": lambda: day.take(np.arange(3)),
        "label-less": lambda: Answered(**{**frame, "labels": None}),
        "unlabelled": lambda: Answered(**{**frame, "labels": np.full(ROWS, np.nan)}),
        "one-class": lambda: Answered(**{**frame, "labels": np.zeros(ROWS)}),
        "all-missing": lambda: Answered(**{**frame, "frame": nothing}),
        "constant": lambda: Answered(**{**frame, "scores": np.full(ROWS, 0.5)}),
        "undecided": lambda: Answered(**{**frame, "decisions": None}),
    }
    return changed[kind]()


@pytest.mark.parametrize(
    ("kind", "undecided", "why"),
    [
        ("empty", {"scores", "performance", "columns"}, "0 rows"),
        ("tiny", {"scores", "performance", "columns"}, "needed"),
        ("label-less", {"performance"}, "0 of 500 rows labelled"),
        ("unlabelled", {"performance"}, "0 of 500 rows labelled"),
        ("one-class", {"performance"}, "one class"),
        ("undecided", {"performance"}, "not decided"),
        ("all-missing", set(), ""),
        ("constant", set(), ""),
    ],
)
def test_a_window_that_cannot_tell_is_undecided_with_the_reason(profile, thresholds, kind, undecided, why):
    found = states(profile, thresholds, spoil(kind), day=400)
    assert {name for name, one in found.items() if one["state"] == "undecided"} == undecided
    assert all(why in found[name]["what"] for name in undecided)
    assert kind in ("all-missing", "constant") or found["scores"]["state"] in ("pass", "undecided", "fail")


def test_a_version_without_counts_of_its_days_is_undecided_and_says_what_to_do(profile):
    old = {name: value for name, value in profile.items() if name != "blocks"}
    found = states(old, make_thresholds(old, rows=ROWS), make_day(1007))
    assert {one["state"] for one in found.values()} == {"undecided"}
    assert "train it again" in found["scores"]["what"]


def test_fewer_than_twenty_days_advise_and_promise_nothing(profile):
    few = profile | {"blocks": profile["blocks"][-12:]}
    thresholds = make_thresholds(few, rows=ROWS)
    assert "12 windows" in thresholds.advisory
    found = states(few, thresholds, make_day(1008, gain=3.6))
    assert found["scores"]["state"] == "warn" and "no rate" in found["scores"]["sure"]


def test_rows_without_time_are_cut_into_stretches_and_advise(profile):
    whole = join([make_day(day) for day in range(8)])
    blocks = count_blocks(profile, whole, declaration=RULE, judged=np.arange(4000) % 5 == 0)
    assert len(blocks) == 40 and {one["day"] for one in blocks} == {None}
    assert sum(one["judged"] for one in blocks) == 8 and sum(one["counts"]["rows"] for one in blocks) == 4000
    thresholds = make_thresholds(profile | {"blocks": blocks}, rows=300)
    assert "no time" in thresholds.advisory
    assert states(profile, thresholds, make_day(1009, gain=3.6))["scores"]["state"] == "warn"


def test_without_a_day_that_judged_performance_is_undecided(profile):
    taught = profile | {"blocks": [one for one in profile["blocks"] if not one["judged"]]}
    found = states(taught, make_thresholds(taught, rows=ROWS), make_day(1010))
    assert found["performance"]["state"] == "undecided" and "had not seen" in found["performance"]["what"]


def test_what_taught_flatters_no_threshold(profile, thresholds):
    judged = [one["counts"] for one in profile["blocks"] if one["judged"]]
    usual = tabulate_performance(judged)
    assert {name: values.mean() for name, values in usual.items()} == pytest.approx(thresholds.metrics)


def test_the_budget_is_shared_by_questions_and_deployments(profile):
    one, both = (make_thresholds(profile, rows=ROWS, deployments=count) for count in (1, 2))
    generous, week = make_thresholds(profile, rows=ROWS, false_alarms=0.5), make_thresholds(profile, rows=3500, days=7)
    assert one.chance == 2 * both.chance == 2 * generous.chance < 1 / 90
    assert week.chance == pytest.approx(0.05 / 6) and not week.advisory


def test_a_week_is_judged_by_weeks(profile):
    thresholds = make_thresholds(profile, rows=7 * ROWS, days=7)
    week = join([make_day(day) for day in range(1400, 1407)])
    assert {one["state"] for one in states(profile, thresholds, week).values()} == {"pass"}
    shifted = join([make_day(day, gain=1.4) for day in range(1400, 1407)])
    assert states(profile, thresholds, shifted)["columns"]["columns"][0] == "wind"


def test_a_window_with_fewer_rows_is_given_more_room(profile):
    small, large = make_thresholds(profile, rows=60), make_thresholds(profile, rows=ROWS)
    assert small.gauges["scores"].usual.mean() > 0
    assert np.diag(small.gauges["scores"].weights).sum() < np.diag(large.gauges["scores"].weights).sum()


def test_the_metrics_of_counts_are_those_of_rows(profile):
    day = make_day(1011, rows=4000)
    counts = count_answered(profile, day, declaration=RULE)
    found = {name: float(values[0]) for name, values in tabulate_performance([counts]).items()}
    rows = measure(day.scores, day.labels, "binary", [0, 1], decisions=day.decisions, repeats=0)
    assert found["loss"] == pytest.approx(rows["brier"]["value"])
    assert found["wrong decisions"] == pytest.approx(1 - rows["accuracy"]["value"])
    assert found["wrong ranking"] == pytest.approx(1 - rows["roc_auc"]["value"], abs=0.01)


def test_regressions_and_several_classes_are_judged_too():
    draws = np.random.default_rng(0)
    x = draws.normal(size=6000)
    frame, days = FeatureFrame({"x": x}), np.arange(6000) // 100
    probabilities = draws.dirichlet([2, 1, 1], 6000)
    classes = np.array(["a", "b", "c"], dtype=object)[probabilities.argmax(axis=1)]
    cases = [
        ({"task": "regression"}, x * 100, None, x * 100 + draws.normal(size=6000), ["loss"]),
        (
            {"task": "multiclass", "classes": ["a", "b", "c"]},
            probabilities,
            classes,
            classes,
            ["loss", "wrong decisions", "wrong ranking"],
        ),
    ]
    for rule, scores, decisions, labels, metrics in cases:
        whole = Answered(frame=frame, scores=scores, decisions=decisions, labels=labels)
        profile = profile_frame(frame, scores, labels)
        profile["blocks"] = count_blocks(profile, whole, declaration=rule, days=days, judged=days >= 40)
        thresholds = make_thresholds(profile, rows=100)
        assert list(thresholds.metrics) == metrics
        same = count_answered(profile, whole.take(np.arange(100)), declaration=rule)
        assert judge_counts(same, profile, thresholds)[1]["state"] == "pass"
        turned = Answered(frame=frame, scores=scores, decisions=decisions, labels=labels[::-1])
        worse = count_answered(profile, turned.take(np.arange(100)), declaration=rule)
        assert judge_counts(worse, profile, thresholds)[1]["state"] == "fail"


def test_what_the_season_explains_is_said_and_a_season_that_training_lacks_too(profile, thresholds):
    day = make_day(1012, gain=3.6)
    assert "no day of this season" in states(profile, thresholds, day, day=300)["scores"]["cause"]
    counts = count_answered(profile, day, declaration=RULE)
    assert explain_by_season(counts, profile, day=300) is None
    known = explain_by_season(profile["blocks"][50]["counts"], profile, day=50 + 2 * 365)
    assert set(known) == {"wind", "hour", "carrier"} and all(0 <= part <= 1 for part in known.values())


def test_a_move_is_explained_by_the_column_that_makes_it(profile):
    counts = count_answered(profile, make_day(1013, gain=2), declaration=RULE)
    found = explain_scores(counts, profile)
    assert next(iter(found)) == "wind" and found["wind"] > 0.6 and found["carrier"] < 0.2
    assert explain_scores(counts, {**profile, "sample": None}) == {} == explain_scores({}, profile)


def test_the_stability_index_stands_in_the_table_and_raises_nothing(profile, thresholds):
    day = make_day(1002, airline="ZZ")
    table = list_shifts(count_answered(profile, day, declaration=RULE), profile)
    assert table[0]["column"] == "carrier" and table[0]["index"] > 0.25
    assert table[0]["unseen"] == 0.2 and list_shifts({}, profile) == []


def test_a_merged_window_is_judged_as_its_days_read_together(profile):
    thresholds = make_thresholds(profile, rows=1000, days=2)
    first, second = make_day(1), make_day(2)
    merged = merge_counts(*(count_answered(profile, one, declaration=RULE) for one in (first, second)))
    whole = count_answered(profile, join([first, second]), declaration=RULE)
    assert judge_counts(merged, profile, thresholds) == judge_counts(whole, profile, thresholds)


def test_tails_are_never_thinner_than_what_was_seen():
    for seed in range(20):
        distances = np.random.default_rng(seed).chisquare(8, 300)
        tail = fit_tail(distances)
        assert tail.limit(0.02) >= np.quantile(distances, 0.975)
        assert tail.chance(tail.limit(0.003)) == pytest.approx(0.003)
    assert fit_tail(np.zeros(9)).limit(0.01) > 0


def test_a_gauge_of_windows_that_never_differ_measures_by_its_floor():
    gauge = make_gauge(np.tile([0.5, 0.5], (30, 1)), floor=0.01**2)
    assert gauge.measure(np.array([[0.52, 0.48]]))[0] == pytest.approx(8)


def test_rows_are_drawn_apart_for_each_distribution():
    drawn = draw_rows(np.tile([0.2, 0.8, 1.0, 0.0], (50, 1)), 40, cuts=[0, 2, 4])
    assert np.allclose(drawn[:, :2].sum(axis=1), 1) and np.allclose(drawn[:, 2], 1)
