"""Columns of less than 64 bits: rounded where scikit-learn rounds, refused by name where nothing follows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import prove_alike, refuse_alike
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.base.rules import TRANSFORMERS, NoRuleError, Site, find_site, full_name
from mlworkbench.scoring.compiled.base.types import FLOATS, array_type, float_type, narrow_columns
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.data_frame import frame_to_pandas, frame_to_polars
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

pytestmark = pytest.mark.filterwarnings("ignore")
N = 250


def frame(seed: int = 0) -> FeatureFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "single": np.where(random.random(N) < 0.1, np.nan, random.normal(3, 2, N)),
        "half": random.normal(0, 30, N),
        "seats": random.integers(-100, 120, N),
        "code": np.where(random.random(N) < 0.1, np.nan, random.integers(0, 5, N)),
        "wide": random.normal(1e3, 5, N),
        "on": random.random(N) < 0.5,
        "word": random.choice(np.array(["a", "b", "c"], dtype=object), N),
    }
    return FeatureFrame(columns)


TRAINING, UNSEEN = frame(), frame(1)
LATE = np.nan_to_num(TRAINING.columns["single"]) + TRAINING.columns["half"] / 20 > 3
PANDAS = Contract(
    (
        Column("single", "number", nullable=True, dtype="float32"),
        Column("half", "number", dtype="float16"),
        Column("seats", "integer", dtype="int8"),
        Column("code", "number", nullable=True, dtype="Int32", missing="na"),
        Column("wide", "number"),
        Column("on", "boolean", dtype="bool"),
        Column("word", "category", dtype="string"),
    )
)
ARROW = Contract(
    (
        *PANDAS.columns[1:3],
        Column("single", "number", nullable=True, dtype="Float32", missing="na"),
        Column("code", "number", nullable=True, dtype="int16[pyarrow]", missing="na"),
        *PANDAS.columns[4:],
    )
)
POLARS = Contract(
    (
        Column("single", "number", nullable=True, dtype="Float32"),
        Column("seats", "integer", dtype="UInt8"),
        Column("code", "number", nullable=True, dtype="Int8"),
        Column("on", "boolean", dtype="Boolean"),
        Column("word", "category", dtype="String"),
        Column("half", "number", dtype="Float32"),
    )
)


def given_by(contract: Contract, of: FeatureFrame = TRAINING) -> FeatureFrame:
    columns = {name: of.columns[name] for name in contract.names}
    lowest = min((0, *(int(columns["seats"].min()) for c in contract.columns if c.dtype == "UInt8")))
    return FeatureFrame({**columns, "seats": columns["seats"] - lowest} if "seats" in columns else columns)


def reference_of(contract: Contract, pipeline: Any, input: str = "frame") -> ReferenceScorer:
    rows = given_by(contract)
    table: Any = frame_to_polars(rows, contract) if input == "polars" else frame_to_pandas(rows, contract)
    table = table.to_numpy() if input == "array" else table
    return ReferenceScorer(pipeline.fit(table, LATE), contract, "binary", [False, True], input=input)


def prepared(numbers: Any = None, words: bool = True) -> Any:
    groups = [
        (numbers or make_pipeline(SimpleImputer(), StandardScaler()), ["single", "half", "seats"]),
        (
            OrdinalEncoder(encoded_missing_value=-2, handle_unknown="use_encoded_value", unknown_value=-1),
            ["code", "on"],
        ),
        *([(OneHotEncoder(handle_unknown="ignore"), ["word"])] if words else []),
    ]
    return make_column_transformer(*groups)


LINE = LogisticRegression(max_iter=2000)
FOREST = RandomForestClassifier(8, random_state=0)


FRAMES = {"pandas": (PANDAS, "frame"), "arrow": (ARROW, "frame"), "polars": (POLARS, "polars")}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("last", [LINE, FOREST], ids=["line", "forest"])
def test_a_frame_of_narrow_columns_compiles(name: str, last: Any) -> None:
    contract, input = FRAMES[name]
    reference = reference_of(contract, make_pipeline(prepared(), last), input)
    compiled = prove_alike(reference, given_by(contract), given_by(contract, UNSEEN), alone=8)
    odd = given_by(contract).take(range(12))
    odd.columns["half"][:4] = [70000.0, 65519.0, 1e39, -0.0]
    odd.columns["seats"][4:7] = [128, 255, -129]
    odd.columns["code"][7:10] = [2.0**31, 99, np.nan]
    odd.columns["single"][10] = 3e38
    refuse_alike(reference, compiled, odd)


SCALERS = {
    "standard": StandardScaler(),
    "robust": RobustScaler(),
    "range": MinMaxScaler((-0.3, 0.7), clip=True),
    "largest": MaxAbsScaler(),
    "one after the other": make_pipeline(RobustScaler(), MinMaxScaler(), StandardScaler()),
    "filled": make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
    "filled by a number": SimpleImputer(strategy="constant", fill_value=0.1),
}  # fmt: skip
SINGLE = Column("a", "number", nullable=True, dtype="float32")
SHORT = {
    "single": (SINGLE, Column("b", "number", dtype="float32")),
    "single and eight bits": (SINGLE, Column("b", "integer", dtype="int8")),
    "half": (Column("a", "number", nullable=True, dtype="float16"), Column("b", "number", dtype="float16")),
    "single and 32 bits": (SINGLE, Column("b", "integer", dtype="int32")),
}


@pytest.mark.parametrize("types", SHORT)
@pytest.mark.parametrize("name", SCALERS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_a_scaler_computes_in_the_bits_that_scikit_learn_computes_in(name: str, types: str, seed: int) -> None:
    random, contract = np.random.default_rng(seed), Contract(SHORT[types])
    values = [np.where(random.random(80) < 0.1, np.nan, random.normal(5, 9, 80)), random.uniform(-120, 120, 80)]
    values[1] = values[1].astype(int) if contract.columns[1].kind == "integer" else values[1]
    rows = FeatureFrame(dict(zip("ab", values, strict=True)))
    table = frame_to_pandas(rows, contract)
    transformer, steps, site = SCALERS[name].fit(table.iloc[:40]), narrow_columns(find_site(contract, "frame")), None
    site = find_site(contract, "frame")
    for one in getattr(transformer, "steps", [("", transformer)]):
        more, site = TRANSFORMERS[full_name(one[1])](one[1], site, None)
        steps += more
    found: Any = [*rows.columns.values()]
    for entry in steps:
        found = ProgramMaker().step(entry)(found)
    expected = transformer.transform(table)
    assert np.array_equal(found.T, expected, equal_nan=True)
    assert float_type(site) == str(expected.dtype)


def test_an_array_of_32_bits_compiles_where_no_product_is_made_in_32_bits() -> None:
    contract = Contract(SHORT["single"])
    random = np.random.default_rng(0)
    rows = FeatureFrame({"a": random.normal(size=N), "b": random.normal(size=N)})
    array = frame_to_pandas(rows, contract).to_numpy()
    late = rows.columns["a"] + rows.columns["b"] > 0
    for last in (FOREST, HistGradientBoostingClassifier(max_iter=5, random_state=0)):
        pipeline = make_pipeline(StandardScaler(), last).fit(array, late)
        prove_alike(ReferenceScorer(pipeline, contract, "binary", [False, True], input="array"), rows, rows, alone=5)
    line = make_pipeline(StandardScaler(), Ridge()).fit(array, rows.columns["a"])
    with pytest.raises(NoRuleError, match="Ridge was fitted on numbers of 32 bits"):
        compile_scorer(ReferenceScorer(line, contract, "regression", [], input="array"))


def test_what_computes_in_32_bits_without_a_rule_is_refused_by_name() -> None:
    log = make_column_transformer((FunctionTransformer(np.log1p), ["half"]), ("passthrough", ["wide"]))
    with pytest.raises(NoRuleError, match=r"FunctionTransformer of float16 numbers .* astype\('float64'\)"):
        compile_scorer(reference_of(PANDAS, make_pipeline(log, FOREST)))
    dates = Contract((Column("a", "number", dtype="decimal"),))
    with pytest.raises(NoRuleError, match="column 'a' is decimal, which has no rule; convert it"):
        find_site(dates, "frame")


def test_an_output_of_pandas_keeps_32_bits_by_column() -> None:
    scaler = make_pipeline(SimpleImputer(), StandardScaler())
    first = make_column_transformer((scaler, ["single"]), (StandardScaler(), ["wide"]), verbose_feature_names_out=False)
    second = make_column_transformer((RobustScaler(), ["single"]), (RobustScaler(), ["wide"]))
    pipeline = make_pipeline(first, second, FOREST).set_output(transform="pandas")
    prove_alike(reference_of(PANDAS, pipeline), TRAINING, UNSEEN, alone=5)


TYPES = [
    ("float32", "float32", "float32", "float32"),
    ("float32", "int8", "float32", "float32"),
    ("float32", "int32", "float64", "float64"),
    ("float32", "bool", "float32", "object"),
    ("Float32", "Float32", "float64", "object"),
    ("int8", "int16", "float64", "int16"),
    ("float16", "float32", "float32", "float32"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "two", "checked", "made"), TYPES)
def test_the_types_are_those_that_scikit_learn_and_numpy_make(one: str, two: str, checked: str, made: str) -> None:
    kinds = {"float": "number", "int": "integer", "bool": "boolean", "Float": "number"}
    kind = [kinds[dtype.rstrip("0123456789")] for dtype in (one, two)]
    site = Site((Column("a", kind[0], dtype=one), Column("b", kind[1], dtype=two)))
    assert float_type(site) == checked and array_type(site) == made
    table = pd.DataFrame({"a": pd.Series([1]).astype(one), "b": pd.Series([1]).astype(two)})
    assert str(np.asarray(table).dtype) == made and FLOATS[0] == "float64"


def test_a_type_that_depends_on_what_is_missing_is_refused_by_name() -> None:
    contract = Contract(
        (Column("code", "number", nullable=True, dtype="Int8"), Column("half", "number", dtype="Float64"))
    )
    rows = given_by(contract)
    filled = (make_pipeline(SimpleImputer(strategy="constant"), StandardScaler()), ["code"])
    for first in (filled, ("passthrough", ["code"])):
        pipeline = make_pipeline(make_column_transformer(first), HistGradientBoostingClassifier(max_iter=2))
        pipeline.fit(frame_to_polars(rows, contract), LATE)
        with pytest.raises(NoRuleError, match=r"numbers are float32 or .*, as a value of their rows is missing or not"):
            compile_scorer(ReferenceScorer(pipeline, contract, "binary", [False, True], input="polars"))


def test_polars_gives_64_bits_to_a_scaler_and_32_to_a_line() -> None:
    site = find_site(Contract((Column("a", "number", dtype="Float32"),)), "polars")
    assert (float_type(site), float_type(site, "numeric")) == ("float64", "float32")
    assert pl.DataFrame({"a": pl.Series([1.0], dtype=pl.Float32)}).to_numpy().dtype == np.float32
