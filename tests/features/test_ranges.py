"""Folds over ranges, and spans that are read once: against the plain reading of each."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.data.lake.lake import Lake
from mlworkbench.features import windows as recent
from mlworkbench.features.checks import lineage
from mlworkbench.features.offline import join as offline
from mlworkbench.features.offline.join import TIME, join_views
from mlworkbench.features.online import lookup as online
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import Recent, WindowView
from mlworkbench.features.windows import RangeQuery, count_below, count_distinct, find_expired, find_extremes

VIEW = WindowView("v", "t", ("k",), timedelta(1), {"most": Recent("max", "x")})
numbers = st.lists(st.one_of(st.just(math.nan), st.floats(allow_nan=False).map(lambda x: x + 0.0)), max_size=40)


@st.composite
def ranges(draw, values):
    held = draw(values)
    pairs = draw(st.lists(st.tuples(st.integers(0, len(held)), st.integers(0, len(held))), max_size=12))
    first, last = (np.array([pair[end] for pair in pairs], dtype=np.int64) for end in (0, 1))
    return held, first, last


@given(drawn=ranges(numbers))
def test_extremes_are_those_of_each_range_alone_and_missing_where_it_holds_none(drawn):
    held, first, last = drawn
    for largest, fold in ((False, min), (True, max)):
        found = find_extremes(np.array(held, dtype=np.float64), first, last, largest=largest)
        for begin, end, value in zip(first, last, found.tolist(), strict=True):
            known = [one for one in held[begin:end] if one == one]
            assert math.isnan(value) if not known else value == fold(known)


@given(drawn=ranges(st.lists(st.integers(-3, 9), max_size=60)))
def test_different_values_are_counted_as_a_set_counts_them(drawn):
    held, first, last = drawn
    found = count_distinct(np.array(held, dtype=np.int64), first, last)
    assert found.tolist() == [len(set(held[begin:end])) for begin, end in zip(first, last, strict=True)]


@given(drawn=ranges(st.lists(st.integers(0, 2**40), max_size=40)), bound=st.integers(0, 2**41))
def test_values_below_a_bound_are_counted_in_each_range(drawn, bound):
    held, first, last = drawn
    first, last = np.minimum(first, last), np.maximum(first, last)
    found = count_below(np.array(held, dtype=np.int64), np.full(len(first), bound), first, last)
    expected = [sum(value < bound for value in held[begin:end]) for begin, end in zip(first, last, strict=True)]
    assert found.tolist() == expected


def test_long_arrays_are_folded_without_a_look_at_each_range():
    generator = np.random.default_rng(4)
    codes, first = generator.integers(0, 50, 300_000), generator.integers(0, 150_000, 300_000)
    last = first + 150_000
    assert (count_distinct(codes, first, last) == 50).all()
    found = find_extremes(codes.astype(np.float64), first, last, largest=True)
    assert (found == 49).all()


asked = st.tuples(st.sampled_from(["[1]", "[2]", None]), st.integers(0, 30), st.integers(0, 6))


@given(
    requests=st.lists(asked, max_size=12),
    moments=st.sets(st.tuples(st.sampled_from(["[1]", "[2]"]), st.integers(0, 40))),
)
def test_each_request_gets_its_own_rows_and_no_row_is_read_twice(requests, moments):
    keys, starts, widths = zip(*requests, strict=True) if requests else ((), (), ())
    question = RangeQuery(VIEW, keys, starts, [start + width for start, width in zip(starts, widths, strict=True)])
    read = [[(t, [t]) for key, t in sorted(moments) if key == k and a <= t <= b] for k, a, b in question.spans]
    assert sum(map(len, read)) == len(
        {row for row in moments for k, a, b in question.spans if row[0] == k and a <= row[1] <= b}
    )
    for (key, start, width), (rows, first, last) in zip(requests, question.between(read), strict=True):
        expected = sorted(t for k, t in moments if k == key and start <= t <= start + width)
        assert [t for t, _ in rows[first:last]] == expected


def test_one_function_says_what_is_too_old_wherever_a_view_is_read():
    assert all(module.find_expired is find_expired for module in (lineage, offline, online, recent))


def test_infinity_is_a_value_and_survives_the_store(tmp_path):
    keys, low, high = ("k",), float("-inf"), float("inf")
    columns = {"least": Recent("min", "x"), "most": Recent("max", "x"), "last": Recent("last", "x")}
    view = WindowView("v", "t", keys, timedelta(microseconds=9), columns | {"n": Recent("distinct", "x")})
    moments = pl.Series([1, 2, 3]).cast(TIME)
    lake = Lake(tmp_path / "lake")
    lake.append("t", pl.DataFrame({"k": [1, 1, 1], "available_at": moments, "x": [high, 2.5, low]}).to_arrow())
    expected = {"least": low, "most": high, "last": low, "n": 3}
    with OnlineStore(tmp_path / "online.sqlite") as store:
        materialize([view], lake, store)
        assert store.get(view, (1,), 5) == expected
    asked = pl.DataFrame({"k": [1], "prediction_time": pl.Series([5]).cast(TIME)})
    assert join_views(asked, [view], lake).select(view.outputs).row(0, named=True) == expected
