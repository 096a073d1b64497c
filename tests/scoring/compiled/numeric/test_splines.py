"""Splines in numpy: the bits of scipy's, inside and beyond the knots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import prove_alike
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer
from test_compile import FRAME, fitted, rows
from transforming import compile_steps, refuse_alike, table, transform_alike, with_holes

from mlworkbench.scoring.compiled.base.rules import NoRuleError

TABLE, UNSEEN = table(), np.concatenate([table(1, spread=2.0), table()[:20]])


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("beyond", ["constant", "linear", "continue", "periodic"])
def test_splines_have_the_bits_of_scipy(beyond: str, degree: int) -> None:
    for options in ({}, {"include_bias": False, "knots": "quantile"}, {"sparse_output": True}, {"n_knots": degree + 3}):
        chosen: dict[str, Any] = {"extrapolation": beyond, "degree": degree, "n_knots": 7, **options}
        splines = SplineTransformer(**chosen).fit(TABLE)
        transform_alike(splines, UNSEEN)
        refuse_alike(splines, UNSEEN[0])


@pytest.mark.parametrize("beyond", ["constant", "linear", "continue", "periodic"])
def test_a_missing_value_has_no_hump(beyond: str) -> None:
    splines = SplineTransformer(4, extrapolation=beyond, handle_missing="zeros").fit(with_holes(TABLE))
    transform_alike(splines, with_holes(UNSEEN))
    refuse_alike(splines, UNSEEN[0])


def test_values_beyond_the_knots_are_refused_where_it_was_asked_for() -> None:
    splines = SplineTransformer(4, extrapolation="error").fit(np.abs(TABLE))
    refuse_alike(splines, np.abs(TABLE[3]))


def test_steps_are_evaluated_where_scikit_learn_can() -> None:
    transform_alike(SplineTransformer(5, degree=0, extrapolation="linear").fit(TABLE), UNSEEN)
    with pytest.raises(NoRuleError, match="degree 0"):
        compile_steps(SplineTransformer(5, degree=0).fit(TABLE), 4)
    with pytest.raises(NoRuleError, match="more knots"):
        compile_steps(SplineTransformer(2, degree=1, extrapolation="linear").fit(TABLE), 4)
    with pytest.raises(NoRuleError, match="periods"):
        compile_steps(SplineTransformer(5, extrapolation="periodic").fit(np.ones((9, 1))), 1)


KNOWN = [SplineTransformer(5, extrapolation=beyond).fit(TABLE) for beyond in ("constant", "linear", "periodic")]
KNOTS = sorted({float(knot) for spline in KNOWN[0].bsplines_ for knot in spline.t})
NEAR = [value for knot in KNOTS for value in (knot, np.nextafter(knot, -np.inf), np.nextafter(knot, np.inf))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(NEAR), st.floats(-1e9, 1e9)), min_size=4, max_size=4))
def test_any_row_has_the_same_humps(row: list[float]) -> None:
    for splines in KNOWN:
        transform_alike(splines, np.array([row]))


def test_a_pipeline_with_splines_is_proved() -> None:
    for beyond in ("constant", "periodic"):
        prepared = make_column_transformer((SplineTransformer(5, extrapolation=beyond), ["distance", "minute"]))
        prove_alike(fitted(make_pipeline(prepared, Ridge()), "regression"), FRAME, rows(seed=7, n=100), alone=5)
