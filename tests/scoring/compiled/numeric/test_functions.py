"""Functions of numpy in a pipeline: of numbers, of whole numbers, and what a frame does with truths."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from proving import answer, prove_alike
from proving import refuse_alike as refuse_rows_alike
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeRegressor
from test_compile import FRAME, fitted, rows
from transforming import compile_steps, refuse_alike, table, transform_alike, with_holes

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.numeric.functions import _NAMES
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

UNSEEN = with_holes(table(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["abs", *_NAMES])
def test_a_function_of_numpy_gives_its_own_bits(name: str) -> None:
    function = FunctionTransformer(getattr(np, name)).fit(UNSEEN)
    transform_alike(function, UNSEEN)
    refuse_alike(function, UNSEEN[0], bound=0.0)
    checked = FunctionTransformer(getattr(np, name), validate=True).fit(np.nan_to_num(UNSEEN))
    refuse_alike(checked, np.nan_to_num(UNSEEN[0]), bound=0.0)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (np.clip, {"a_min": 0, "a_max": 3}),
        (np.clip, {"a_min": None, "a_max": 0.5}),
        (np.nan_to_num, {}),
        (np.nan_to_num, {"nan": 3.0, "posinf": 1.0}),
        (functools.partial(np.clip, a_min=0), {"a_max": 3}),
    ],
)
def test_numbers_that_a_function_is_told_are_kept(function: Any, options: dict[str, Any]) -> None:
    told = FunctionTransformer(function, kw_args=options).fit(UNSEEN)
    transform_alike(told, UNSEEN)
    refuse_alike(told, UNSEEN[0], bound=0.0)


@pytest.mark.parametrize("function", [np.square, np.reciprocal, np.negative, np.abs, np.log1p])
def test_whole_numbers_of_a_frame_stay_whole(function: Any) -> None:
    prepared = make_column_transformer((FunctionTransformer(function), ["minute", "distance"]))
    reference = fitted(make_pipeline(prepared, DecisionTreeRegressor(max_depth=4, random_state=0)), "regression")
    compiled = compile_scorer(reference)
    columns = rows(seed=7, n=8).columns
    columns["minute"][:] = [1, 2, -3, 2**31, 3_037_000_500, 2**40, -(2**53), 1000]
    refuse_rows_alike(reference, compiled, FeatureFrame(columns))
    together = FeatureFrame(columns).take([0, 1, 7])
    assert np.array_equal(answer(compiled, together)[0], answer(reference, together)[0])


def test_a_pipeline_with_a_function_of_whole_numbers_is_proved() -> None:
    prepared = make_column_transformer(
        (FunctionTransformer(np.sqrt), ["distance"]), (FunctionTransformer(np.sin), ["minute"])
    )
    prove_alike(fitted(make_pipeline(prepared, LinearRegression()), "regression"), FRAME, rows(seed=7, n=100), alone=5)


@pytest.mark.parametrize(
    ("transformer", "columns", "words"),
    [
        (FunctionTransformer(np.log1p), ["weekend"], "'weekend', true or false"),
        (FunctionTransformer(np.cumsum), ["distance"], "got cumsum"),
        (FunctionTransformer(np.log1p, kw_args={"dtype": "float32"}), ["distance"], "leave kw_args"),
        (FunctionTransformer(np.clip, kw_args={"a_min": [1.0], "a_max": [2.0]}), ["distance"], "leave kw_args"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_numpys_or_not_exact_is_refused(transformer: Any, columns: list[str], words: str) -> None:
    prepared = make_column_transformer((transformer, columns))
    reference = fitted(make_pipeline(prepared, LinearRegression()), "regression")
    with pytest.raises(NoRuleError, match=words):
        compile_scorer(reference)


def test_whole_numbers_that_may_lack_are_refused_where_they_stay_whole() -> None:
    contract = Contract((Column("seats", "number", nullable=True, dtype="Int64"),))
    seats = np.where(np.arange(40) % 5 == 0, np.nan, np.arange(40.0))
    for function, words in ((np.square, "may lack"), (np.sqrt, "")):
        pipeline = make_pipeline(FunctionTransformer(function), SimpleImputer(), LinearRegression())
        frame = frame_to_pandas(FeatureFrame({"seats": seats}), contract)
        reference = ReferenceScorer(pipeline.fit(frame, np.arange(40.0)), contract, "regression", [])
        if words:
            with pytest.raises(NoRuleError, match=words):
                compile_scorer(reference)
        else:
            compile_scorer(reference)


def test_a_step_that_only_checks_is_kept() -> None:
    checked = FunctionTransformer(validate=True).fit(np.nan_to_num(UNSEEN))
    refuse_alike(checked, np.nan_to_num(UNSEEN[0]))
    assert compile_steps(FunctionTransformer(), 4) == ([], 4)
