"""From what a definition calls data to rows, and to an estimator that can be fitted twice alike."""

from __future__ import annotations

import sqlite3
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.times import parse_time
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.errors import DefinitionError, UserCodeError
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.training_data import fresh_estimator, read_dtypes, request_frame, resolve_data, unwrap_search

TABLE = pd.DataFrame({"distance": [500.0, None, 700.0], "carrier": ["UA", None, "AA"], "late": [1, 0, 1]})

PERSONAL = Contract((Column("carrier", "text", personal=True),))


def define(data: Any, **fields: Any) -> ModelDefinition:
    return ModelDefinition(
        **{"name": "late", "estimator": LogisticRegression(), "data": data, "label": "late", **fields}
    )


def test_every_form_of_data_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    TABLE.to_parquet(path)
    forms = [
        TABLE,
        pl.from_pandas(TABLE),
        pl.from_pandas(TABLE).lazy(),
        path,
        str(path),
        lambda: TABLE,
        lambda lake: lake,
    ]
    tables = [request_frame(define(form), TABLE) for form in forms]
    assert all(table.equals(tables[0]) for table in tables) and tables[0].height == 3


def test_a_query_and_an_object_of_a_store_are_data_of_a_definition(tmp_path: Path, s3: Any) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        TABLE.to_sql("landings", shop, index=False)
    query = SqlSource(f"sqlite:///{tmp_path}/shop.db", "SELECT * FROM landings")
    stored = s3.write("rows.csv", TABLE.to_csv(index=False).encode())
    expected = request_frame(define(TABLE))
    for data in (query, lambda: query, stored, lambda: stored):
        assert request_frame(define(data)).equals(expected)


@pytest.mark.parametrize("fails", [int, parse_time])
def test_an_error_in_a_data_function_repeats_nothing_of_a_person(fails: Any) -> None:
    def rows() -> pd.DataFrame:
        return fails("Zaphodia")

    for fields in ({"personal": ("carrier",)}, {"tables": (Table("rows", None, PERSONAL),)}):
        with pytest.raises(UserCodeError, match=r"Error: \(withheld: personal\); correct the data") as failure:
            resolve_data(define(rows, **fields))
        assert "Zaphodia" not in "".join(traceback.format_exception(failure.value))


def test_categories_that_are_no_text_are_told_by_their_type() -> None:
    with pytest.raises(DefinitionError, match="column 'rider': categories of type int64") as failure:
        read_dtypes(pd.DataFrame({"rider": pd.Categorical([7731])}))
    assert "7731" not in str(failure.value)


def test_an_error_in_a_data_function_names_its_line() -> None:
    def broken() -> pd.DataFrame:
        raise KeyError("month")

    with pytest.raises(UserCodeError, match=r"test_training_data\.py, line \d+, in broken: KeyError: 'month'"):
        request_frame(define(broken))


def test_a_missing_column_names_the_nearest_and_no_rows_are_refused() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'carrier'"):
        request_frame(define(TABLE, entity=("carier",)))
    with pytest.raises(DefinitionError) as raised:
        request_frame(define(TABLE.iloc[:0]))
    assert raised.value.code == "definition.no_rows"


def test_times_become_microseconds_in_utc_and_naive_ones_are_refused() -> None:
    texts = TABLE.assign(asked=["2013-10-01T12:00:00+02:00"] * 3)
    frame = request_frame(define(texts, prediction_time="asked"))
    assert frame.schema["asked"] == pl.Datetime("us", "UTC")
    assert frame["asked"].dt.hour().to_list() == [10, 10, 10]
    naive = TABLE.assign(asked=pd.Timestamp("2013-10-01"))
    with pytest.raises(DefinitionError) as raised:
        request_frame(define(naive, prediction_time="asked"))
    assert raised.value.code == "definition.naive_time"


def test_a_row_without_prediction_time_is_refused_since_nobody_could_look_anything_up_for_it() -> None:
    moments = pd.to_datetime(["2013-10-01", None, "2013-10-03"], utc=True)
    with pytest.raises(DefinitionError) as raised:
        request_frame(define(TABLE.assign(asked=moments), prediction_time="asked"))
    assert raised.value.code == "definition.prediction_time"


def test_dtypes_are_those_of_pandas_only() -> None:
    assert read_dtypes(pl.from_pandas(TABLE)) == {}
    assert read_dtypes(TABLE.astype({"carrier": "category"}))["carrier"] == "category"
    with pytest.raises(DefinitionError) as raised:
        read_dtypes(pd.DataFrame({"x": pd.Categorical([1, 2])}))
    assert raised.value.code == "definition.categories"


def test_open_seeds_are_set_on_a_copy_and_stated_ones_stay() -> None:
    estimator = make_pipeline(StandardScaler(), RandomForestClassifier())
    fresh = fresh_estimator(define(TABLE, estimator=estimator, seed=7))
    assert fresh[-1].random_state == 7 and estimator[-1].random_state is None
    stated = fresh_estimator(define(TABLE, estimator=RandomForestClassifier(random_state=3), seed=7))
    assert stated.random_state == 3
    assert isinstance(fresh_estimator(define(TABLE, estimator=lambda: LogisticRegression())), LogisticRegression)


def test_a_function_that_returns_no_estimator_is_refused() -> None:
    with pytest.raises(DefinitionError) as raised:
        fresh_estimator(define(TABLE, estimator=lambda: 3))
    assert raised.value.code == "definition.estimator"


@pytest.mark.parametrize("estimator", [make_pipeline(StandardScaler, LogisticRegression()), lambda: LogisticRegression])
def test_a_class_in_place_of_an_object_is_refused(estimator: object) -> None:
    with pytest.raises(DefinitionError) as raised:
        fresh_estimator(define(TABLE, estimator=estimator))
    assert raised.value.code == "definition.estimator"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_search_gives_its_best_pipeline_and_its_trials(wrapped: bool) -> None:
    X, y = np.arange(40.0).reshape(-1, 1), np.repeat([0, 1], 20)
    search = GridSearchCV(LogisticRegression(), {"C": np.array([0.1, 1.0])}, cv=2)
    fitted = (make_pipeline(StandardScaler(), search) if wrapped else search).fit(X, y)
    pipeline, trials = unwrap_search(fitted)
    assert trials is not None and [trial["parameters"]["C"] for trial in trials] == [0.1, 1.0]
    assert (pipeline.predict_proba(X) == fitted.predict_proba(X)).all()
    assert not hasattr(pipeline[-1] if wrapped else pipeline, "cv_results_")


def test_what_was_not_searched_is_left_as_it_is_and_no_refit_is_refused() -> None:
    line = LogisticRegression()
    assert unwrap_search(line) == (line, None)
    X, y = np.arange(40.0).reshape(-1, 1), np.repeat([0, 1], 20)
    search = RandomizedSearchCV(line, {"C": [0.1, 1.0]}, n_iter=2, cv=2, refit=False).fit(X, y)
    with pytest.raises(DefinitionError, match="set refit=True"):
        unwrap_search(search)
