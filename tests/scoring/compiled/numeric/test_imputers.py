"""Imputers of numbers: what they fill, what they leave out, and what they say was missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import prove_alike
from proving import refuse_alike as refuse_rows_alike
from sklearn.compose import make_column_transformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_compile import FRAME, NUMBERS, fitted, rows
from transforming import compile_steps, refuse_alike, table, transform_alike, with_holes

from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.frame import FeatureFrame

HOLES, UNSEEN = with_holes(table()), with_holes(table(1))
EMPTY = HOLES.copy()
EMPTY[:, 1] = np.nan


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("indicator", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_an_imputer_fills_drops_and_flags_as_it_was_told(strategy: str, keep: bool, indicator: bool) -> None:
    options: dict[str, Any] = {"strategy": strategy, "keep_empty_features": keep, "add_indicator": indicator}
    for training in (HOLES, EMPTY):
        imputer = SimpleImputer(**options).fit(training)
        transform_alike(imputer, UNSEEN)
        refuse_alike(imputer, UNSEEN[0])
    marked = SimpleImputer(missing_values=-1, **options).fit(np.where(np.isnan(HOLES), -1.0, HOLES))
    transform_alike(marked, np.where(np.isnan(UNSEEN), -1.0, UNSEEN))
    refuse_alike(marked, np.nan_to_num(UNSEEN[0]))


def test_a_constant_of_whole_numbers_is_filled_as_one() -> None:
    whole = np.arange(12).reshape(4, 3)
    transform_alike(SimpleImputer(strategy="constant", fill_value=7, missing_values=4).fit(whole), whole.astype(float))


@pytest.mark.parametrize("features", ["missing-only", "all"])
def test_an_indicator_says_what_is_missing_and_refuses_what_it_never_missed(features: str) -> None:
    training = HOLES.copy()
    training[:, 0] = 0.0
    unseen = UNSEEN.copy()
    unseen[:, 0] = 1.0
    indicator = MissingIndicator(features=features).fit(training)
    transform_alike(indicator, unseen)
    refuse_alike(indicator, unseen[0])
    lenient = MissingIndicator(error_on_new=False).fit(training)
    transform_alike(lenient, UNSEEN)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_infinity=False), min_size=4, max_size=4))
def test_any_row_is_filled_alike(row: list[float]) -> None:
    transform_alike(FILLED, np.array([row]))


FILLED = SimpleImputer(add_indicator=True).fit(EMPTY)


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_with_an_indicator_is_proved() -> None:
    imputer = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    reference = fitted(make_pipeline(make_column_transformer((imputer, NUMBERS)), LogisticRegression()), "binary")
    compiled = prove_alike(reference, FRAME, rows(seed=7))
    odd = rows(seed=8, n=6).columns
    odd["wind"][:4] = [np.nan, np.inf, 1e308, -0.0]
    refuse_rows_alike(reference, compiled, FeatureFrame(odd))


@pytest.mark.filterwarnings("ignore")
def test_what_is_neither_nan_nor_a_number_has_no_rule() -> None:
    marked = SimpleImputer().fit(HOLES).set_params(missing_values=None)
    with pytest.raises(NoRuleError, match="NaN or a number"):
        compile_steps(marked, 4)
    mixed = SimpleImputer(strategy="constant").fit(np.array([[1, True], [2, False]], dtype=object))
    with pytest.raises(NoRuleError, match="state fill_value"):
        compile_steps(mixed, 2)
    with pytest.raises(NoRuleError, match="hold some value"):
        compile_steps(SimpleImputer().fit(EMPTY[:, 1:2]), 1)
