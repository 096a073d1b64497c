"""Profiles, the comparison with live rows, and pictures."""

import json

import numpy as np
import pytest

from mlworkbench.errors import ProfileError
from mlworkbench.evaluation.monitoring.drift import compare_profile, stability_index
from mlworkbench.evaluation.monitoring.profile import SAMPLE_ROWS, profile_column, profile_frame, quantile_edges
from mlworkbench.evaluation.plots.curves import draw_calibration
from mlworkbench.evaluation.plots.histograms import compute_shares, draw_bins, draw_histograms, draw_scores
from mlworkbench.scoring.frame import FeatureFrame


def make_frame(count=5000, seed=0, shift=0.0):
    draws = np.random.default_rng(seed)
    wind = draws.normal(10 + shift, 3, count)
    wind[::10] = np.nan
    carrier = draws.choice(["AA", "UA", "DL"], count).astype(object)
    carrier[::7] = None
    return FeatureFrame({
        "wind": wind,
        "month": draws.integers(1, 9, count),
        "late": draws.random(count) < 0.3,
        "carrier": carrier,
        "tailnum": np.array([f"N{i}" for i in range(count)], dtype=object),
        "image": draws.normal(size=(count, 4)),
    })  # fmt: skip


def test_a_profile_is_json_and_holds_every_column():
    frame = make_frame()
    profile = profile_frame(frame, np.linspace(0, 1, 5000), np.arange(5000) % 2)
    again = json.loads(json.dumps(profile, allow_nan=False))
    assert again == profile
    assert set(profile["columns"]) == set(frame.names)
    assert profile["columns"]["wind"]["missing"] == pytest.approx(0.1)


def test_skipped_columns_and_rare_categories_leave_no_trace():
    frame = make_frame()
    text = json.dumps(profile_frame(frame, np.zeros(5000), skip=("carrier",)))
    assert "carrier" not in text and "UA" not in text
    assert '"N17"' not in text


def test_shares_sum_to_one_and_bins_are_about_equal():
    profile = profile_frame(make_frame(), np.zeros(5000))
    wind, carrier = profile["columns"]["wind"], profile["columns"]["carrier"]
    assert sum(wind["shares"]) == pytest.approx(1) and max(wind["shares"]) < 0.11
    assert sum(carrier["shares"].values()) + carrier["rest"] == pytest.approx(1)


def test_at_most_fifty_categories_are_named():
    values = np.array([f"c{i % 80}" for i in range(8000)], dtype=object)
    column = profile_column(values)
    assert len(column["shares"]) == 50 and column["rest"] == pytest.approx(30 / 80)


def test_columns_with_nothing_in_them_are_described_too():
    empty = FeatureFrame({"a": np.full(10, np.nan), "b": np.array([None] * 10, dtype=object)})
    profile = profile_frame(empty, np.zeros(10))
    assert profile["columns"]["a"]["missing"] == profile["columns"]["b"]["missing"] == 1
    again = compare_profile(profile, empty)
    assert [column["psi"] for column in again["columns"].values()] == [0, 0]


def test_the_sample_keeps_the_order_of_rows_and_is_the_same_every_time():
    frame = FeatureFrame({"time": np.arange(10_000.0)})
    sample = profile_frame(frame, np.arange(10_000.0))["sample"]
    assert sample == profile_frame(frame, np.arange(10_000.0))["sample"]
    assert len(sample["columns"]["time"]) == SAMPLE_ROWS
    assert sample["columns"]["time"] == sorted(sample["columns"]["time"]) == sample["scores"][0]


def test_multiclass_scores_are_profiled_by_class():
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], 5000)
    profile = profile_frame(make_frame(), scores)
    assert len(profile["scores"]) == len(profile["sample"]["scores"]) == 3
    assert len(compare_profile(profile, make_frame(), scores)["scores"]) == 3


@pytest.mark.parametrize("reference", [[], [1.0, np.nan], [np.inf]])
def test_edges_need_finite_values(reference):
    with pytest.raises(ProfileError, match="finite"):
        quantile_edges(reference)


def test_rows_without_scores_are_refused():
    with pytest.raises(ProfileError, match="5000 rows, 3 scores"):
        profile_frame(make_frame(), [1, 2, 3])


def test_the_training_rows_themselves_have_not_moved():
    frame = make_frame()
    found = compare_profile(profile_frame(frame, np.zeros(5000)), frame, np.zeros(5000))
    assert max(column["psi"] for column in found["columns"].values()) == pytest.approx(0, abs=1e-12)
    assert found["scores"][0]["psi"] == 0 and found["rows"] == found["rows_reference"] == 5000


def test_other_rows_of_the_same_kind_have_hardly_moved_and_shifted_ones_have():
    profile = profile_frame(make_frame(), np.zeros(5000), skip=("tailnum",))
    same = compare_profile(profile, make_frame(seed=1))["columns"]
    moved = compare_profile(profile, make_frame(seed=1, shift=3))["columns"]
    assert max(column["psi"] for column in same.values()) < 0.02
    assert moved["wind"]["psi"] > 0.25 and moved["month"]["psi"] < 0.02


def test_missing_values_that_were_not_there_before_count():
    frame = make_frame()
    profile = profile_frame(frame, np.zeros(5000))
    gone = FeatureFrame({**frame.columns, "wind": np.where(np.arange(5000) % 2, np.nan, frame.columns["wind"])})
    found = compare_profile(profile, gone)["columns"]["wind"]
    assert found["missing"] > found["missing_reference"] + 0.3 and found["psi"] > 0.25


def test_unseen_values_are_counted():
    profile = profile_frame(make_frame(), np.zeros(5000))
    frame = make_frame(seed=2)
    frame.columns["month"][:50] = 12
    frame.columns["carrier"][:100] = "XX"
    found = compare_profile(profile, frame)["columns"]
    assert (found["month"]["unseen"], found["carrier"]["unseen"]) == (0.01, 0.02)


def test_live_rows_that_lack_a_column_or_change_its_kind_are_refused():
    profile = profile_frame(make_frame(), np.zeros(5000))
    for frame, code in (
        (FeatureFrame({"wind": np.array([1.0])}), "profile.column_missing"),
        (make_frame().take([]), "profile.no_rows"),
        (FeatureFrame({**make_frame(2).columns, "wind": np.array(["a", "b"], dtype=object)}), "profile.not_numeric"),
    ):
        with pytest.raises(ProfileError, match="'month'" if code == "profile.column_missing" else "") as raised:
            compare_profile(profile, frame)
        assert raised.value.code == code


def test_the_index_is_never_negative_and_finite_for_empty_bins():
    draws = np.random.default_rng(0)
    for _ in range(100):
        assert stability_index(draws.dirichlet([1] * 5), draws.dirichlet([1] * 5)) >= 0
    assert np.isfinite(stability_index([1.0, 0.0], [0.0, 1.0]))


def test_pictures_are_small_and_well_formed():
    from xml.etree import ElementTree

    draws = np.random.default_rng(0)
    for picture in (
        draw_scores("<&>", {"before": draws.random(100), "<a>": draws.random(10)}),
        draw_scores("one value", {"before": [0.5], "now": [0.5, np.nan]}),
        draw_calibration(draws.random(100), draws.random(100) < 0.5),
        draw_bins("none", {"before": [0, 0], "now": [0, 0]}, ticks=[(0.5, "<b>")], across="nothing"),
        draw_histograms("<&>", {"<a>": compute_shares(draws.random(9), 0, 1), "b": np.zeros(30)}, low=0.0, high=1.0),
    ):
        assert ElementTree.fromstring(picture).tag.endswith("svg") and len(picture) < 9000


NAMES = ("stroke", "stroke-dasharray")


def test_sides_differ_by_line_and_by_colour_and_the_rows_of_each_bin_are_told():
    picture = draw_bins("carrier", {"training": [60, 40], "live": [1, 12_345]}, ticks=[(0.25, "AA")], across="carrier")
    lines = [line for line in picture.splitlines() if "stroke-dasharray" in line]
    drawn = [{part.partition('"')[0] for line in lines for part in line.split(f'{name}="')[1:]} for name in NAMES]
    assert drawn == [{"#0072b2", "#d55e00"}, {"none", "7 4"}]
    for text in (
        ">60<",
        ">12.3k<",
        "training, 100 rows",
        "live, 12,346 rows",
        ">100<",
        "share of the side&#39;s rows, %",
    ):
        assert text in picture
