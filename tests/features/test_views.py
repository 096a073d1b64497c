"""Declarations: what is refused, how they are written down, what they share."""

import json
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest

from mlworkbench.errors import FeatureError
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView
from mlworkbench.features.windows import (
    check_lag,
    find_expired,
    view_from_declaration,
    view_to_declaration,
    window_values,
)

HOUR = timedelta(hours=1)


def as_of(**changes):
    return AsOfView(**{"name": "v", "table": "t", "keys": ("k",), "columns": {"x": "number"}} | changes)


def window(**changes):
    return WindowView(
        **{"name": "v", "table": "t", "keys": ("k",), "window": HOUR, "columns": {"n": Total("count")}} | changes
    )


@pytest.mark.parametrize("kind", ["integer", "boolean"])
def test_kinds_that_cannot_be_missing_are_refused_with_the_reason(kind):
    with pytest.raises(FeatureError, match=f"{kind} cannot say that a request has no row, use number"):
        as_of(columns={"x": kind})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: as_of(columns={"x": "vector"}), "number, category, text"),
        (lambda: as_of(columns={}), "at least one column"),
        (lambda: as_of(name="Bad name"), "rename it"),
        (lambda: as_of(keys="origin"), r"\('origin',\)"),
        (lambda: as_of(columns={"k": "number"}), "'k' is also a key"),
        (lambda: as_of(columns={"available_at": "number"}), "available_at"),
        (lambda: as_of(source={"y": "x"}), "source names 'y'"),
        (lambda: as_of(ttl=timedelta(hours=-1)), "ttl"),
        (lambda: as_of(ttl=3600), "timedelta"),
        (lambda: window(window=timedelta(0)), "window"),
        (lambda: window(window=None), "window"),
        (lambda: window(columns={"n": "count"}), "neither a Total"),
        (lambda: Total("median", "x"), "not one of"),
        (lambda: Total("sum"), "needs a column"),
        (lambda: Total("sum", "x", 10), "decimals"),
        (lambda: Total("max", "x"), r"write Recent\('max', 'delay'\)"),
        (lambda: Recent("sum", "x"), r"write Total\('sum', 'delay'\)"),
        (lambda: Recent("median", "x"), "not one of min, max, distinct, last, time_since_last"),
        (lambda: Recent("distinct"), "needs a column"),
        (lambda: Recent("max", "x", kind="text"), "only last has a kind to choose"),
        (lambda: Recent("last", "x", kind="integer"), "kind 'integer', only number, category, text"),
    ],
)
def test_wrong_declarations_are_refused_in_one_line(make, words):
    with pytest.raises(FeatureError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert caught.value.code in ("features.view_invalid", "features.aggregate_invalid")


@pytest.mark.parametrize(
    "view",
    [
        as_of(),
        as_of(keys={"dest": "airport"}, source={"x": "wind"}, ttl=timedelta(microseconds=7), max_lag=HOUR),
        as_of(keys=(), columns=("b", "a")),
        as_of(keys={"z": "x", "a": "y"}, columns={"q": "text", "p": "number"}),
        window(max_lag=HOUR, columns={"n": Total("count"), "m": Total("mean", "x", 2)}),
        window(columns={"b": Recent("last", "x", "text"), "n": Total("count"), "a": Recent("time_since_last")}),
    ],
)
def test_a_declaration_survives_json(view):
    again = view_from_declaration(json.loads(json.dumps(view_to_declaration(view), sort_keys=True)))
    assert again == view and again.storage == view.storage
    assert again.outputs == view.outputs and list(again.key_columns) == list(view.key_columns)


def test_broken_declarations_are_refused():
    for broken in ({}, {"view": "as_of"}, {"view": "window", "name": "v"}, {**view_to_declaration(as_of()), "new": 1}):
        with pytest.raises(FeatureError) as refused:
            view_from_declaration(broken)
        assert refused.value.code == "features.declaration_invalid"


def test_stored_rows_are_shared_only_where_they_are_the_same():
    assert as_of(ttl=HOUR, keys={"other": "k"}).storage == as_of().storage
    assert window(window=2 * HOUR).storage == window().storage
    different = [as_of(table="u"), as_of(columns={"x": "text"}), as_of(source={"x": "y"}), as_of(keys=("j",)), window()]
    assert len({view.storage for view in [as_of(), *different]}) == 6
    last = window(columns={"x": Recent("last", "x"), "age": Recent("time_since_last", "x")})
    assert last.stored == ("since:x", "last:x:number")
    assert window(window=2 * HOUR, columns=last.columns).storage == last.storage
    texts, most = window(columns={"x": Recent("last", "x", "text")}), window(columns={"x": Recent("max", "x")})
    assert len({view.storage for view in (last, texts, most, window())}) == 4


def test_totals_alone_are_stored_under_the_name_that_older_stores_gave_them():
    assert window().storage == "v_21fe74739a49"


def test_the_bound_of_ttl_is_inside():
    assert find_expired(np.array([10, 11, 5]), np.array([0, 0, 5]), timedelta(microseconds=10)).tolist() == [
        False,
        True,
        False,
    ]
    assert not find_expired(np.array([10**15]), np.array([0]), None).any()
    assert find_expired(np.array([5, 6]), np.array([5, 5]), timedelta(0)).tolist() == [False, True]


def test_a_window_with_nothing_counts_zero_and_has_no_mean():
    view = window(
        columns={"n": Total("count"), "s": Total("sum", "x"), "m": Total("mean", "x"), "p": Total("share", "x")}
    )
    nothing = {name: np.array([4]) for name in view.totals}
    found = window_values(view, nothing, nothing)
    assert found["n"].dtype == np.int64 and found["n"][0] == 0 and found["s"][0] == 0.0
    assert np.isnan(found["m"][0]) and np.isnan(found["p"][0])


def test_lag_is_refused_beyond_its_bound():
    view = as_of(max_lag=timedelta(microseconds=5))
    mark = {"v": {"lake_version": 0, "newest": 10}}
    assert check_lag(view, mark, 15) == 5 and check_lag(view, mark, 3) == 0
    with pytest.raises(FeatureError) as refused:
        check_lag(view, mark, 16)
    assert refused.value.code == "features.store_behind" and "mlworkbench features materialize" in str(refused.value)
    with pytest.raises(FeatureError) as refused:
        check_lag(view, {}, 16)
    assert refused.value.code == "features.store_behind" and "without a row" in str(refused.value)
    assert check_lag(as_of(), {}, 16) is None


@pytest.mark.parametrize(
    "module", ["features.views", "features.online.lookup", "features.online.store", "features.windows"]
)
def test_what_a_service_imports_is_light(module):
    heavy = ["pandas", "sklearn", "polars", "pyarrow", "pandera", "deltalake", "evidently", "nbdev", "skops", "IPython"]
    code = f"import sys, mlworkbench.{module}; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
