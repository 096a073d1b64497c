"""Groups of columns, unions and sequences: however columns are named, whatever the output is set to."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import sklearn
from proving import prove_alike, refuse_alike
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from test_compile import CONTRACT, FRAME, LATE, NUMBERS, TABLE, WORDS, fitted, rows

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.data_frame import frame_to_pandas, frame_to_polars
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

pytestmark = pytest.mark.filterwarnings("ignore")
UNSEEN = rows(seed=7, n=150)
UNSEEN.columns["carrier"][:5] = "ZZ"


def one_hot() -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore")


def scaled() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler())


def words(table: Any) -> list[bool]:
    return [name in WORDS for name in table.columns]


NAMED: dict[str, tuple[Any, Any]] = {
    "by name": (NUMBERS, WORDS),
    "by index": ([1, 3, 4], [0, -4]),
    "by slice": (slice(3, 5), slice(0, 1)),
    "by a slice of names": (slice("wind", "minute"), slice("carrier", "carrier")),
    "by mask": ([False, True, False, True, True, False], [True, False, True, False, False, False]),
    "by selector": (
        make_column_selector(dtype_include=["float64", "int64"]),
        make_column_selector(dtype_include=[object, "category"]),
    ),
    "by function": (lambda table: [name for name in table.columns if name in NUMBERS], words),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_columns_may_be_named_in_any_way(name: str) -> None:
    numbers, texts = NAMED[name]
    columns = ColumnTransformer(
        [("n", scaled(), numbers), ("w", one_hot(), texts), ("none", MinMaxScaler(), [])],
        transformer_weights={"n": 0.1},
    )
    reference = fitted(make_pipeline(columns, LogisticRegression(max_iter=3000)), "binary")
    prove_alike(reference, FRAME, UNSEEN, alone=5)


def test_the_rest_may_have_a_transformer_of_its_own() -> None:
    rest = make_pipeline(SimpleImputer(strategy="most_frequent"), OrdinalEncoder(dtype=float))
    columns = make_column_transformer((one_hot(), WORDS), ("drop", ["wind"]), remainder=rest)
    within = ColumnTransformer([("inner", columns, [*WORDS, "weekend", "minute", "wind"])], remainder="passthrough")
    known = FeatureFrame({**UNSEEN.columns, "minute": FRAME.columns["minute"][:150]})
    reference = fitted(make_pipeline(within, StandardScaler(with_mean=False), LogisticRegression()), "binary")
    refuse_alike(reference, prove_alike(reference, FRAME, known, alone=5), UNSEEN.take(range(8)))


def test_a_number_that_passes_between_computed_ones_stays_in_its_place_in_a_row_alone() -> None:
    scaler = make_pipeline(MinMaxScaler(), RobustScaler())
    columns = make_column_transformer((scaled(), ["wind"]), ("passthrough", ["minute"]), (scaler, ["distance"]))
    prove_alike(fitted(make_pipeline(columns, LogisticRegression(max_iter=3000)), "binary"), FRAME, UNSEEN, alone=5)


@pytest.mark.parametrize("weights", [None, {"scaled": 3, "robust": 0.25}])
def test_a_union_gives_all_columns_to_each(weights: Any) -> None:
    parts = [("scaled", StandardScaler()), ("robust", RobustScaler()), ("none", "drop"), ("same", "passthrough")]
    numbers = make_pipeline(SimpleImputer(), FeatureUnion(parts, transformer_weights=weights))
    columns = make_column_transformer((numbers, NUMBERS), (make_union(one_hot(), one_hot()), WORDS))
    for last in (LogisticRegression(max_iter=3000), RandomForestClassifier(5, random_state=0)):
        prove_alike(fitted(make_pipeline(columns, last), "binary"), FRAME, UNSEEN, alone=5)


def later(first: Any, places: Any) -> Any:
    encoder = ColumnTransformer([("w", one_hot(), places)], remainder=StandardScaler())
    return make_pipeline(first, encoder, LogisticRegression(max_iter=3000))


def test_text_may_pass_through_to_an_encoder_that_follows() -> None:
    first = make_column_transformer((scaled(), NUMBERS), remainder="passthrough")
    pipeline = later(first, [3, 4, 5])
    reference = fitted(pipeline, "binary")
    prove_alike(reference, FRAME, UNSEEN, alone=10)
    nested = make_column_transformer((SimpleImputer(), ["wind"]), ("passthrough", ["origin", "carrier"]))
    alone = make_pipeline(nested, OneHotEncoder(handle_unknown="ignore", max_categories=7), LogisticRegression())
    prove_alike(fitted(alone, "binary"), FRAME, UNSEEN, alone=10)


def test_an_output_of_pandas_keeps_names_and_types_for_the_next() -> None:
    first = make_column_transformer((scaled(), NUMBERS), remainder="passthrough", verbose_feature_names_out=False)
    pipeline = later(first, ["carrier", "origin"])
    pipeline[1].set_params(w=OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    pipeline.set_output(transform="pandas")
    prove_alike(fitted(pipeline, "binary"), FRAME, UNSEEN, alone=10)
    prefixed = make_column_transformer((scaled(), NUMBERS), remainder="passthrough")
    fallback = SimpleImputer(strategy="most_frequent")
    coded = make_pipeline(fallback, OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))
    second = ColumnTransformer([("w", coded, make_column_selector("origin|carrier"))], remainder="passthrough")
    both = make_pipeline(prefixed, second, LogisticRegression(max_iter=3000)).set_output(transform="pandas")
    prove_alike(fitted(both, "binary"), FRAME, UNSEEN, alone=10)


def test_a_global_output_is_followed() -> None:
    first = make_column_transformer((scaled(), NUMBERS), remainder="passthrough", verbose_feature_names_out=False)
    pipeline = later(first, ["carrier", "origin"])
    pipeline[1].set_params(w=OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    with sklearn.config_context(transform_output="pandas"):
        pipeline.fit(TABLE, LATE)
    config = {"transform_output": "pandas"}
    prove_alike(ReferenceScorer(pipeline, CONTRACT, "binary", [False, True], config=config), FRAME, UNSEEN, alone=5)


POLARS = Contract(
    (
        Column("carrier", "category", dtype="String", nullable=True),
        Column("distance", "number", dtype="Float64"),
        Column("minute", "integer", dtype="Int64"),
    )
)


@pytest.mark.parametrize("output", ["default", "polars"])
def test_a_frame_of_polars_goes_through_columns_and_encoders(output: str) -> None:
    carriers = np.where(np.arange(400) % 9 == 0, None, FRAME.columns["carrier"])
    frame = FeatureFrame({"carrier": carriers, **{name: FRAME.columns[name] for name in ("distance", "minute")}})
    table = frame_to_polars(frame, POLARS)
    assert isinstance(table, pl.DataFrame)
    numbers = (scaled(), ["distance", "minute"])
    first = make_column_transformer(numbers, remainder="passthrough", verbose_feature_names_out=False)
    hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    second = ColumnTransformer([("w", hot, ["carrier"] if output == "polars" else [2])], remainder="passthrough")
    pipeline = make_pipeline(first, second, LogisticRegression()).set_output(transform=output).fit(table, LATE)
    reference = ReferenceScorer(pipeline, POLARS, "binary", [False, True], input="polars")
    unseen = FeatureFrame({name: UNSEEN.columns[name] for name in POLARS.names})
    prove_alike(reference, frame, unseen, alone=5)


def test_what_has_no_rule_is_refused_by_name() -> None:
    alone = FunctionTransformer(lambda one: one.to_frame())
    column = ColumnTransformer([("n", alone, "wind"), ("s", scaled(), NUMBERS)])
    pipeline = make_pipeline(column, RandomForestClassifier(2, random_state=0)).fit(TABLE, LATE)
    with pytest.raises(NoRuleError, match=r"one column 'wind' of numbers has no rule .*; list it"):
        compile_scorer(ReferenceScorer(pipeline, CONTRACT, "binary", [False, True]))
    weighed = ColumnTransformer([("n", "passthrough", ["wind"])], transformer_weights={"n": 2.0})
    narrow = Contract((Column("wind", "number", dtype="float32"),))
    frame = FeatureFrame({"wind": FRAME.columns["distance"]})
    pipeline = make_pipeline(weighed, RandomForestClassifier(2, random_state=0))
    pipeline.fit(frame_to_pandas(frame, narrow), LATE)
    with pytest.raises(NoRuleError, match="weights of doubles; group 'n'"):
        compile_scorer(ReferenceScorer(pipeline, narrow, "binary", [False, True]))
