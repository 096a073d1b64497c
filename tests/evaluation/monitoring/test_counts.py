"""Counts of rows against a profile: exact, mergeable, and never a traceback."""

import json
from functools import reduce

import numpy as np
import pytest

from mlworkbench.errors import ProfileError
from mlworkbench.evaluation.monitoring.counts import (
    FINENESS,
    count_column,
    count_labels,
    count_rows,
    merge_counts,
    order_classes,
)
from mlworkbench.evaluation.monitoring.drift import compare_column
from mlworkbench.evaluation.monitoring.profile import profile_column, profile_frame
from mlworkbench.metrics.bootstrap import measure
from mlworkbench.scoring.frame import FeatureFrame

BINARY = {"task": "binary", "classes": ["no", "yes"], "positive": "yes"}


def make_rows(count=3000, seed=0):
    draws = np.random.default_rng(seed)
    wind = draws.normal(10, 3, count)
    wind[::10] = np.nan
    carrier = draws.choice(["AA", "UA", "DL"], count).astype(object)
    carrier[::7] = None
    carrier[:2] = "rare"
    frame = FeatureFrame({
        "wind": wind,
        "month": draws.integers(1, 9, count),
        "late": draws.random(count) < 0.3,
        "carrier": carrier,
        "image": draws.normal(size=(count, 4)),
    })  # fmt: skip
    scores = draws.random(count)
    labels = np.where(draws.random(count) < scores, "yes", "no").astype(object)
    return frame, scores, labels, np.where(scores >= 0.5, "yes", "no").astype(object)


def count_all(profile, rows, where, declaration=BINARY):
    frame, scores, labels, decisions = rows[0].take(where), *(part[where] for part in rows[1:])
    counts = count_rows(profile, frame, scores, decisions)
    return counts | {"labels": count_labels(profile, scores, labels, decisions, declaration=declaration)}


@pytest.fixture(scope="module")
def rows():
    return make_rows()


@pytest.fixture(scope="module")
def profile(rows):
    return profile_frame(rows[0], rows[1], rows[2])


def test_days_add_up_to_the_month_exactly_in_any_order_and_grouping(rows, profile):
    other = make_rows(seed=1)
    days = [count_all(profile, other, np.flatnonzero(np.arange(3000) % 7 == day)) for day in range(7)]
    whole = count_all(profile, other, slice(None))
    assert reduce(merge_counts, days) == reduce(merge_counts, days[::-1]) == whole
    assert merge_counts(merge_counts(days[0], days[1]), merge_counts(days[2], days[3])) == reduce(
        merge_counts, days[:4]
    )
    assert merge_counts({}, whole) == merge_counts(whole, {}) == whole


def test_merging_leaves_both_sides_as_they_were(rows, profile):
    first, second = (count_all(profile, rows, slice(k, k + 100)) for k in (0, 100))
    before = json.dumps([first, second])
    merge_counts(first, second)
    assert json.dumps([first, second]) == before


def test_counts_are_whole_numbers_in_json(rows, profile):
    counts = count_all(profile, rows, slice(None))
    assert json.loads(json.dumps(counts, allow_nan=False)) == counts


def test_the_counts_of_the_training_rows_are_the_shares_of_the_profile(rows, profile):
    counts = count_rows(profile, *rows[:2])
    for name, column in profile["columns"].items():
        found = counts["columns"][name]
        present = sum(found["bins"])
        shares = column["shares"] if column["kind"] == "number" else [*column["shares"].values(), column["rest"]]
        assert np.allclose(np.array(found["bins"]) / present, shares)
        assert found["missing"] / 3000 == pytest.approx(column["missing"]) and present + found["missing"] == 3000


@pytest.mark.parametrize("seed", range(5))
def test_one_column_counts_as_the_comparison_of_columns_does(seed):
    draws = np.random.default_rng(seed)
    values = np.round(draws.standard_t(2, 500), 1)
    column = profile_column(values)
    live = np.round(draws.standard_t(1, 300), 1)
    live[:4] = [np.nan, np.inf, -np.inf, column["edges"][0]]
    found, known = count_column(live, column), compare_column(live, column)
    assert np.allclose(np.array(found["bins"]) / sum(found["bins"]), known["shares"])
    assert found["missing"] == 3 and found["unseen"] == round(known["unseen"] * 300)


def test_numbers_beyond_the_training_range_and_unknown_categories_are_unseen():
    number, text = profile_column(np.arange(100.0)), profile_column(np.array(["a"] * 9 + ["b"], dtype=object))
    assert count_column(np.array([-1.0, 50.0, 100.0]), number)["unseen"] == 2
    assert count_column(np.array(["a", "b", "c", None], dtype=object), text) == {
        "bins": [1, 2],
        "missing": 1,
        "unseen": 2,
    }


def test_a_column_that_was_empty_or_constant_in_training_counts_too():
    empty, constant = profile_column(np.full(9, np.nan)), profile_column(np.full(9, 3.0))
    assert count_column(np.array([1.0, np.nan]), empty) == {"bins": [1], "missing": 1, "unseen": 1}
    found = count_column(np.array([3.0, 3.0, 4.0]), constant)
    assert sum(found["bins"]) == 3 and found["unseen"] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_are_counted(rows, profile, count):
    counts = count_all(profile, rows, slice(0, count))
    assert counts["rows"] == counts["labels"]["n"] == count
    assert sum(counts["scores"][0]["bins"]) == count


def test_metrics_follow_from_the_counts(rows, profile):
    _, scores, labels, decisions = rows
    found = count_labels(profile, scores, labels, decisions, declaration=BINARY)
    metrics = measure(scores, labels, "binary", ["no", "yes"], decisions=decisions, repeats=0)
    assert found["squared"] / FINENESS / found["n"] == pytest.approx(metrics["brier"]["value"], abs=1e-9)
    assert sum(found["decided"]) / found["n"] == metrics["accuracy"]["value"]
    assert [sum(bins[0]) for bins in found["scored"]] == found["bins"] == [sum(labels == "no"), sum(labels == "yes")]


def test_only_labelled_rows_count_as_labelled(rows, profile):
    labels = rows[2].copy()
    labels[::2] = None
    assert count_labels(profile, rows[1], labels, declaration=BINARY)["n"] == 1500
    none = count_labels(profile, rows[1], np.full(3000, None), declaration=BINARY)
    assert none["n"] == none["squared"] == 0 and none["bins"] == [0, 0] and none["decided"] == []


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_errors_of_a_regression_are_exact_in_its_own_scale(scale):
    draws = np.random.default_rng(0)
    truth = draws.normal(size=999) * scale
    guess = truth + draws.normal(size=999) * scale / 10
    frame = FeatureFrame({"x": truth})
    profile = profile_frame(frame, guess, truth)
    parts = [
        count_labels(profile, guess[k::3], truth[k::3], declaration={"task": "regression", "classes": None})
        for k in range(3)
    ]
    found = reduce(merge_counts, parts)
    metrics = measure(guess, truth, "regression", repeats=0)
    mae = found["absolute"] / FINENESS * found["scale"] / found["n"]
    rmse = (found["squared"] / FINENESS / found["n"]) ** 0.5 * found["scale"]
    assert mae == pytest.approx(metrics["mae"]["value"], rel=1e-6)
    assert rmse == pytest.approx(metrics["rmse"]["value"], rel=1e-6)
    assert sum(found["bins"]) == 999


def test_several_classes_are_counted_by_class():
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], 600)
    labels, classes = np.array(["a", "b", "c"] * 200, dtype=object), ["a", "b", "c"]
    profile = profile_frame(FeatureFrame({"x": np.zeros(600)}), scores, labels)
    rule = {"task": "multiclass", "classes": classes}
    found = count_labels(profile, scores, labels, labels, declaration=rule)
    assert found["bins"] == found["decided"] == [200, 200, 200]
    assert [len(bins) for bins in found["scored"]] == [3, 3, 3]
    assert found["squared"] / FINENESS == pytest.approx(((scores - np.tile(np.eye(3), (200, 1))) ** 2).sum())


def test_the_positive_class_stands_last():
    assert order_classes({"task": "binary", "classes": [True, False], "positive": False}) == [True, False]
    assert order_classes({"task": "binary", "classes": ["yes", "no"], "positive": "yes"}) == ["no", "yes"]
    assert order_classes({"task": "regression"}) == []


def test_labels_that_are_not_finite_are_not_labelled():
    profile = profile_frame(FeatureFrame({"x": np.zeros(3)}), np.zeros(3), np.ones(3))
    found = count_labels(profile, [0.0, 0.0, 0.0], [1.0, np.inf, np.nan], declaration={"task": "regression"})
    assert found["n"] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda frame: FeatureFrame({"wind": frame.columns["wind"]}), "profile.column_missing"),
        (lambda frame: FeatureFrame({**frame.columns, "wind": frame.columns["carrier"]}), "profile.not_numeric"),
        (lambda frame: frame.take(slice(0, 5)), "profile.length"),
    ],
)
def test_rows_that_are_not_of_the_profile_are_refused_in_one_line(rows, profile, change, code):
    with pytest.raises(ProfileError) as raised:
        count_rows(profile, change(rows[0]), rows[1])
    assert raised.value.code == code and "\n" not in str(raised.value)


def test_counts_of_two_profiles_are_not_added(rows, profile):
    other = profile_frame(FeatureFrame({**rows[0].columns, "wind": np.zeros(3000)}), rows[1], rows[2])
    with pytest.raises(ProfileError) as raised:
        merge_counts(count_rows(profile, *rows[:2]), count_rows(other, *rows[:2]))
    assert raised.value.code == "profile.other_bins"


def test_names_of_people_s_columns_and_classes_are_never_taken_for_a_part(rows):
    names = ("scale", "rows", "bins", "n")
    frame = FeatureFrame({name: rows[0].columns["wind"] for name in names})
    profile = profile_frame(frame, rows[1])
    decisions = np.array([names[k % 4] for k in range(3000)], dtype=object)
    counts = count_rows(profile, frame, rows[1], decisions)
    assert merge_counts(counts, counts)["decisions"] == dict.fromkeys(names, 1500)
