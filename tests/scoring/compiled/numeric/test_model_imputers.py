"""Imputers that predict: by linear models in rounds, and by the nearest rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import prove_alike
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_compile import FRAME, NUMBERS, fitted, rows
from transforming import compile_steps, refuse_alike, table, transform_alike, with_holes

from mlworkbench.scoring.compiled.base.costs import refuse_costly
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.numeric.neighbours import count_filling

SCALES = np.array([1.0, 100.0, 3.0, 1e4])
HOLES, UNSEEN = with_holes(table() / SCALES), with_holes(table(1) / SCALES)
EMPTY = HOLES.copy()
EMPTY[:, 1] = np.nan
MARKED, MARKED_UNSEEN = (np.where(np.isnan(values), -1.0, values) for values in (HOLES, UNSEEN))

ROUNDS: list[dict[str, Any]] = [
    {},
    {"n_nearest_features": 2},
    {"imputation_order": "roman", "skip_complete": True},
    {"max_iter": 0},
    {"min_value": -1, "max_value": 2},
    {"estimator": Ridge(), "add_indicator": True},
    {"estimator": make_pipeline(StandardScaler(), Ridge())},
    {"initial_strategy": "median", "imputation_order": "random"},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", ROUNDS, ids=str)
def test_rounds_of_predictions_are_repeated(options: dict[str, Any]) -> None:
    chosen: dict[str, Any] = {"max_iter": 3, "random_state": 0, **options}
    imputer = IterativeImputer(**chosen).fit(HOLES)
    transform_alike(imputer, UNSEEN, bound=1e-12, alone=1e-12)
    refuse_alike(imputer, UNSEEN[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("make", [IterativeImputer, KNNImputer])
def test_columns_without_values_are_left_out_or_kept(make: Any, keep: bool) -> None:
    imputer = make(keep_empty_features=keep, add_indicator=True).fit(EMPTY)
    transform_alike(imputer, UNSEEN, bound=1e-12, alone=1e-12)
    marked = make(missing_values=-1).fit(MARKED)
    transform_alike(marked, MARKED_UNSEEN, bound=1e-12, alone=1e-12)
    refuse_alike(marked, MARKED_UNSEEN[0])


@pytest.mark.filterwarnings("ignore")
def test_a_row_of_nothing_is_filled_as_scikit_learn_fills_it_alone_and_among_others() -> None:
    imputer = IterativeImputer(random_state=0).fit(HOLES)
    nothing = np.full((2, 4), np.nan)
    transform_alike(imputer, nothing)
    steps, _ = compile_steps(imputer, 4)
    together = np.concatenate([nothing[:1], UNSEEN])
    assert np.abs(steps[0](together.T).T - imputer.transform(together)).max() < 1e-12


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_the_nearest_rows_fill_what_is_missing(count: int, weights: str) -> None:
    imputer = KNNImputer(n_neighbors=count, weights=weights).fit(HOLES)
    same = np.concatenate([UNSEEN, HOLES[:20], np.full((1, 4), np.nan)])
    transform_alike(imputer, same, bound=1e-12, alone=1e-12)
    refuse_alike(imputer, UNSEEN[0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_of_rows_that_are_equally_far_the_same_are_taken_alone_and_among_others(order: Any) -> None:
    random = np.random.default_rng(0)
    close = with_holes(np.column_stack([random.choice([0.1, 1.7, 2.3], 900) for _ in range(3)] + [random.random(900)]))
    for weights in ("uniform", "distance"):
        imputer = KNNImputer(weights=weights).fit(np.array(close[:600], order=order))
        transform_alike(imputer, close[600:], bound=1e-12, alone=1e-12)


NUMBER = st.one_of(st.just(np.nan), st.floats(-3, 3))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBER, min_size=4, max_size=4))
def test_any_row_is_imputed_alike(row: list[float]) -> None:
    for imputer in IMPUTERS:
        transform_alike(imputer, np.array([row, row]), bound=1e-12, alone=1e-12)


IMPUTERS = [IterativeImputer(max_iter=2, tol=1e9, random_state=0).fit(HOLES), KNNImputer().fit(HOLES)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [IterativeImputer, KNNImputer])
def test_a_pipeline_with_a_predicting_imputer_is_proved(make: Any) -> None:
    prepared = make_column_transformer((make_pipeline(StandardScaler(), make()), NUMBERS))
    reference = fitted(make_pipeline(prepared, LogisticRegression(max_iter=2000)), "binary")
    prove_alike(reference, FRAME, rows(seed=7, n=100), bound=1e-10, alone=10)


@pytest.mark.filterwarnings("ignore")
def test_what_draws_grows_or_costs_too_much_is_refused_by_name() -> None:
    drawn = IterativeImputer(sample_posterior=True, max_iter=1).fit(HOLES)
    forest = IterativeImputer(RandomForestRegressor(2, max_depth=2), max_iter=1).fit(HOLES)
    own = KNNImputer(weights=lambda distances: np.ones_like(distances)).fit(HOLES)
    for imputer, words in ((drawn, "at random"), (forest, "take a linear one"), (own, "one's own")):
        with pytest.raises(NoRuleError, match=words):
            compile_steps(imputer, 4)
    refuse_costly(KNNImputer(), count_filling(10_000, 12))
    for rows_, columns in ((30_000, 12), (10_000, 300)):
        with pytest.raises(NoRuleError, match="KNNImputer: at most 1000 us a row and 50 MB; got"):
            refuse_costly(KNNImputer(), count_filling(rows_, columns))
