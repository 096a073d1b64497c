"""Encoders with all their options, and imputers before them: each value there can be, asked of the encoder itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from proving import prove_alike, refuse_alike
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
from test_compile import CONTRACT, FRAME, LABELS, TABLE, WORDS, N, fitted, rows

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

pytestmark = pytest.mark.filterwarnings("ignore")
UNSEEN = rows(seed=7, n=200)
UNSEEN.columns["carrier"][:5] = "ZZ"
ODD = rows(seed=8, n=6)
ODD.columns["carrier"][:2], ODD.columns["origin"][2:4], ODD.columns["wind"][4] = "ZZ", "ZZ", np.nan


def one_hot(**options: Any) -> Any:
    return OneHotEncoder(**{"handle_unknown": "ignore", **options})


def codes(**options: Any) -> Any:
    return OrdinalEncoder(**{"handle_unknown": "use_encoded_value", "unknown_value": -1, **options})


LAST_TWO = np.array(["WN", np.nan], dtype=object)
LISTED = [["AA", "WN", "UA", "B6", "DL"], ["LGA", "EWR", "JFK", None]]
ENCODERS = {
    "one-hot": one_hot(),
    "dense": one_hot(sparse_output=False),
    "the first left out": one_hot(drop="first"),
    "one of two left out": one_hot(drop="if_binary"),
    "named ones left out": one_hot(drop=LAST_TWO),
    "rare ones as one": one_hot(handle_unknown="infrequent_if_exist", min_frequency=85),
    "a share for rare ones": one_hot(min_frequency=0.2, handle_unknown="infrequent_if_exist"),
    "at most three": one_hot(max_categories=3, handle_unknown="infrequent_if_exist", drop="first"),
    "warned of": one_hot(handle_unknown="warn", max_categories=3),
    "half codes": codes(dtype=np.float16, encoded_missing_value=-4),
    "single numbers": one_hot(dtype=np.float32, drop="first"),
    "whole numbers": one_hot(dtype=np.int8),
    "codes": codes(),
    "codes of missing ones": codes(encoded_missing_value=7, unknown_value=np.nan),
    "codes of rare ones": codes(min_frequency=90, encoded_missing_value=-3),
    "at most three codes": codes(max_categories=3, dtype=np.float32, encoded_missing_value=-2),
    "whole codes": codes(dtype=np.int32, encoded_missing_value=-2),
    "listed codes": codes(categories=LISTED, encoded_missing_value=9),
    "means of the target": TargetEncoder(random_state=0),
    "smooth means": TargetEncoder(smooth=20.0, random_state=0),
}  # fmt: skip


def behind(encoder: Any, *more: Any, words: Any = WORDS) -> Any:
    return make_pipeline(make_column_transformer((encoder, words), ("passthrough", ["distance"])), *more)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_with_its_options_compiles(name: str) -> None:
    fill = SimpleImputer(strategy="constant", fill_value=-9)
    model = LogisticRegression(max_iter=3000)
    model = make_pipeline(fill, model) if "codes" in name else model
    reference = fitted(behind(ENCODERS[name], model), "binary")
    refuse_alike(reference, prove_alike(reference, FRAME, UNSEEN, alone=5), ODD)


def test_unseen_values_that_an_encoder_refuses_are_refused() -> None:
    for encoder in (OneHotEncoder(), OrdinalEncoder(encoded_missing_value=-1)):
        reference = fitted(behind(encoder, LogisticRegression(max_iter=3000)), "binary")
        refuse_alike(reference, compile_scorer(reference), ODD)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_means_of_the_target_compile_for_every_task(task: str) -> None:
    last = Ridge() if task == "regression" else HistGradientBoostingClassifier(max_iter=5, random_state=0)
    columns = make_column_transformer((TargetEncoder(random_state=0), [*WORDS, "minute", "weekend"]))
    reference = fitted(make_pipeline(columns, last), task)
    refuse_alike(reference, prove_alike(reference, FRAME, UNSEEN, alone=5), ODD)


IMPUTERS = {
    "most frequent, with an indicator": SimpleImputer(strategy="most_frequent", add_indicator=True),
    "a word, with an indicator": SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
    "a word": SimpleImputer(strategy="constant", fill_value="none"),
    "a word that means missing": SimpleImputer(strategy="constant", fill_value="AA", missing_values="WN"),
    "one after the other": make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", add_indicator=True),
        SimpleImputer(strategy="most_frequent", missing_values="none"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPUTERS)
@pytest.mark.parametrize("encoder", [one_hot(), codes(encoded_missing_value=-5)], ids=["one-hot", "codes"])
def test_an_imputer_of_words_before_an_encoder_compiles(name: str, encoder: Any) -> None:
    chain = make_pipeline(IMPUTERS[name], encoder)
    words = ["carrier"] if "means" in name else WORDS
    reference = fitted(behind(chain, LogisticRegression(max_iter=3000), words=words), "binary")
    refuse_alike(reference, prove_alike(reference, FRAME, UNSEEN, alone=5), ODD)


def test_words_and_numbers_in_one_encoder_compile() -> None:
    encoder = make_pipeline(SimpleImputer(strategy="most_frequent", add_indicator=True), one_hot(max_categories=9))
    columns = make_column_transformer((encoder, ["carrier", "minute", "weekend", "origin"]))
    reference = fitted(make_pipeline(columns, LogisticRegression(max_iter=3000)), "binary")
    refuse_alike(reference, prove_alike(reference, FRAME, UNSEEN, alone=5), ODD)


def test_every_value_of_an_eight_bit_column_may_be_known() -> None:
    contract = Contract((Column("k", "integer", dtype="uint8"), Column("j", "integer", dtype="int8")))
    random = np.random.default_rng(0)
    frame = FeatureFrame({"k": np.arange(N) % 256, "j": random.integers(-128, 127, N)})
    pipeline = make_pipeline(one_hot(max_categories=6), Ridge())
    pipeline.fit(frame_to_pandas(frame, contract), LABELS["regression"])
    reference = ReferenceScorer(pipeline, contract, "regression", [])
    beyond = FeatureFrame({"k": np.array([0, 255, 256, -1]), "j": np.array([127, -128, 0, 128])})
    refuse_alike(reference, prove_alike(reference, frame, frame, alone=5), beyond)


def test_numbers_that_are_categories_compile() -> None:
    table = pd.DataFrame({"seats": pd.Categorical(FRAME.columns["minute"] % 7), "wind": FRAME.columns["wind"]})
    contract = Contract((Column("seats", "integer", dtype="category"), Column("wind", "number", nullable=True)))
    columns = make_column_transformer((codes(), ["seats"]), ("passthrough", ["wind"]))
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    pipeline = make_pipeline(columns, trees).fit(table, LABELS["binary"])
    frame = FeatureFrame({"seats": FRAME.columns["minute"] % 9, "wind": FRAME.columns["wind"]})
    prove_alike(ReferenceScorer(pipeline, contract, "binary", list_classes(pipeline)), frame, frame, alone=5)


def test_the_contract_of_these_tests_has_both_kinds_of_missing() -> None:
    assert CONTRACT.column("origin").dtype == "category" and TABLE["origin"].isna().any()
