"""Where two models part is told by columns and ranges, and noise is told nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.operate.certify.wire import ModelAnswers
from mlworkbench.operate.loop.comparison_page import draw_sides
from mlworkbench.operate.loop.parting import (
    PLACES,
    count_turned,
    cut_column,
    find_places,
    split_by_group,
    summarize_differences,
)

VALUES = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=False, width=32), st.sampled_from([1.0, 2.0]))


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=80))
def test_every_number_is_in_one_piece_and_what_is_missing_in_one_of_its_own(values) -> None:
    column = np.array([np.nan if value is None else value for value in values])
    pieces = cut_column(column)
    counts = np.sum([piece.rows for piece in pieces], axis=0)
    assert (counts == 1).all() and len({piece.name for piece in pieces}) <= len(pieces)
    missing = [piece.rows for piece in pieces if piece.name == "missing"]
    assert np.array_equal(missing[0] if missing else np.zeros(len(column)), np.isnan(column))


def test_texts_truth_values_and_embeddings_are_cut_by_what_they_are() -> None:
    names = [piece.name for piece in cut_column(np.array([True, False, None, True], dtype=object))]
    assert names == ["True", "False", "missing"]
    assert cut_column(np.zeros((4, 3))) == []
    many = np.array([f"flight {k}" for k in range(100)], dtype=object)
    assert cut_column(many) == []
    assert [piece.name for piece in cut_column(np.array([3, 1, 3]))] == ["3", "1"]


def test_the_columns_that_explain_are_told_in_order_and_noise_is_not() -> None:
    draws = np.random.default_rng(3)
    columns = {f"noise {k}": draws.normal(size=3000) for k in range(8)}
    columns |= {"carrier": draws.choice(["AA", "UA"], 3000).astype(object), "distance": draws.uniform(0, 100, 3000)}
    parted = (columns["carrier"] == "UA") & (columns["distance"] > 75)
    places = find_places(columns, parted * 0.5, parted)
    assert [place["column"] for place in places] == ["distance", "carrier"]
    assert places[0]["measured"] == "share of rows that differ" and places[0]["where"].startswith(
        ("from 74", "from 75")
    )
    assert places[1]["where"] == "UA" and places[1]["elsewhere"] == 0.0
    assert find_places(columns, np.zeros(3000), np.zeros(3000, bool)) == []
    lucky = draws.uniform(size=3000) < 0.3
    assert find_places(columns, lucky * 1.0, lucky) == []
    assert find_places({}, parted * 0.5, parted) == []


def test_where_all_rows_differ_the_size_of_the_difference_tells() -> None:
    draws = np.random.default_rng(4)
    columns = {name: draws.uniform(0, 100, 2000) for name in "abcdef"}
    apart = 1e-6 + 0.3 * ((columns["c"] > 25) & (columns["c"] < 50)) + 0.1 * (columns["a"] > 50)
    places = find_places(columns, apart, apart > 0)
    assert [place["column"] for place in places] == ["c", "a"] and len(places) <= PLACES
    assert places[0]["measured"] == "mean difference"
    low, high = (float(end) for end in places[0]["where"].split(" to "))
    assert abs(low - 25) < 3 and abs(high - 50) < 3  # neighbouring ranges are joined
    assert places[0]["inside"] > 0.3 > 0.1 > places[0]["elsewhere"]


def test_what_is_missing_can_be_where_they_part() -> None:
    wind = np.where(np.arange(900) % 9 == 0, np.nan, np.random.default_rng(5).uniform(0, 40, 900))
    places = find_places({"wind": wind}, np.isnan(wind) * 0.2, np.isnan(wind))
    assert [(place["where"], place["rows"], place["inside"]) for place in places] == [("missing", 100, 1.0)]


def test_groups_are_told_whatever_comes_out() -> None:
    column = np.array(["JFK", "JFK", "LGA", None], dtype=object)
    found = split_by_group({"origin": column}, np.array([0.0, 0.5, 0.0, 0.1]), column == "JFK", tolerance=0.2)
    told = [(one["group"], one["rows"], one["differing"], one["turned"], one["largest"]) for one in found]
    assert told == [("JFK", 2, 1, 2, 0.5), ("LGA", 1, 0, 0, 0.0), ("missing", 1, 0, 0, 0.1)]


@pytest.mark.parametrize(("count", "half"), [(1, 0.0), (2, 0.0), (10, 4.0)])
def test_differences_are_summarized_by_values_that_occur(count, half) -> None:
    found = summarize_differences(np.arange(float(count)), tolerance=0.5)
    assert (found["rows"], found["differing"], found["50 %"]) == (count, count - 1, half)
    assert found["largest"] == count - 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("first", "second", "drawn"),
    [
        ([0.1, 0.2], [0.1, 0.3], [True, True]),
        ([0.1, 0.2], [0.1, 1e308], [False]),
        ([-1e308, 1e308], [1e308, -1e308], [False]),
        ([1.0, 1.0], [1.0, 1.0 + 2**-52], [True, True]),
        ([1e17, 1e17], [1e17, 1e17], [True]),
        ([0.0, 0.0], [0.0, 5e-324], [False]),
    ],
)
def test_what_no_axis_has_room_for_is_a_line_instead(first, second, drawn) -> None:
    one, other = (ModelAnswers([0, 1], np.array(scores), None) for scores in (first, second))
    pictures = [picture for picture, _ in draw_sides(("a", "b"), one, other)]
    assert ["no axis holds" not in picture for picture in pictures] == drawn
    wide = (ModelAnswers([0], side.scores.reshape(1, 2), None) for side in (one, other))
    assert len(draw_sides(("a", "b"), *wide)) <= 1


def test_nothing_compared_has_no_size() -> None:
    found = summarize_differences(np.empty(0), tolerance=0.5)
    assert (found["rows"], found["differing"], found["largest"], found["50 %"]) == (0, 0, None, None)
    assert count_turned([], []) == []
