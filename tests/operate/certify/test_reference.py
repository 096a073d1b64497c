"""The same rows through every deployment, held against the answer computed the training way."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.errors import DeploymentError
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView
from mlworkbench.operate.certify.deployments import ask_batch
from mlworkbench.operate.certify.examine import compare_deployments, examine_deployment
from mlworkbench.operate.certify.reference import predict_reference
from mlworkbench.operate.certify.requests import draw_requests
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

UTC = timezone.utc  # noqa: UP017
START = datetime(2013, 1, 1, tzinfo=UTC)


def landings(lake: Lake, count: int = 400) -> None:
    draws = np.random.default_rng(2)
    landed = [START + timedelta(minutes=11 * n) for n in range(count)]
    table = {"origin": draws.choice(["JFK", "LGA"], count), "available_at": landed, "delay": draws.normal(5, 9, count)}
    gates = draws.choice(["B4", "C1", "C2"], count).tolist()
    table |= {"late": table["delay"] > 9, "gate": [None if n % 9 == 0 else gate for n, gate in enumerate(gates)]}
    lake.append("landings", pl.DataFrame(table).to_arrow(), transaction=None)
    hours = [START + timedelta(hours=n) for n in range(80)]
    wind = {"origin": ["JFK"] * 80, "available_at": hours, "wind": draws.uniform(0, 30, 80)}
    wind["sky"] = ["clear", None] * 40
    lake.append("weather", pl.DataFrame(wind).to_arrow(), transaction=None)


GATE = {"gate": Recent("last", "gate", kind="category")}


def timed() -> ModelDefinition:
    draws = np.random.default_rng(3)
    count = 260
    data = pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(count)],
            "at": [START + timedelta(minutes=15 * n) for n in range(count)],
            "origin": draws.choice(["JFK", "LGA"], count),
            "distance": draws.uniform(100, 2500, count),
            "late": draws.integers(0, 2, count),
        }
    )
    recent = {
        "recent": Total("mean", "delay", 3),
        "flights": Total("count", ""),
        "delays": Total("sum", "delay", 1),
        "late_share": Total("share", "late"),
        "least": Recent("min", "delay"),
        "most": Recent("max", "delay"),
        "gates": Recent("distinct", "gate"),
        "last": Recent("last", "delay"),
        "quiet": Recent("time_since_last"),
    }
    views = (
        AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=3)),
        WindowView("landings", "landings", ("origin",), timedelta(hours=3), recent | GATE),
    )
    return ModelDefinition(
        "late",
        HistGradientBoostingClassifier(max_iter=5),
        data,
        "late",
        entity=("flight",),
        prediction_time="at",
        views=views,
        features=("distance", "wind", *recent),
    )


def asked_in(home, version, asked):
    """The verdicts of the deployments that a version declares, asked in the home itself."""
    return [one for one in compare_deployments(version, asked, home=home)[1] if one.verdict != "not_declared"]


@pytest.mark.system
def test_a_model_with_time_and_views_answers_alike_in_all_deployments(home) -> None:
    landings(Lake(home.lake))
    definition = timed()
    version = Registry(home).open("late", train(definition, home=home).tag)
    asked = draw_requests(definition, Lake(home.lake), start="2013-01-02T00:00:00+00:00")
    rows = asked_in(home, version, asked)
    assert [(row.deployment, row.rows, row.mismatches, row.missing) for row in rows] == [
        (name, asked.height, 0, 0) for name in ("one_off", "batch", "realtime")
    ]
    assert all(row.verdict == "equal" and row.max_difference <= version.tolerance for row in rows)
    assert all(row.rows_per_second for row in rows)
    again = asked_in(home, version, asked)
    assert [(row.verdict, row.rows) for row in again] == [("equal", asked.height)] * 3


@pytest.mark.system
def test_a_regression_without_time_or_entity_answers_alike_in_all_deployments(home) -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    twice = pd.concat([X, X.head(5)], ignore_index=True)
    target = pd.concat([y, y.head(5)], ignore_index=True)
    ridge = make_pipeline(StandardScaler(), Ridge()).fit(twice, target)
    version = Registry(home).open("diabetes", register(ridge, twice, target, name="diabetes", home=home).tag)
    rows = asked_in(home, version, pl.DataFrame(pl.from_pandas(twice)))
    assert [(row.verdict, row.rows, row.mismatches, row.missing) for row in rows] == [("equal", 447, 0, 0)] * 5


def test_a_deployment_that_answers_otherwise_is_a_mismatch_and_one_that_forgets_is_missing(home) -> None:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, 50)})
    model = LogisticRegression().fit(X, X["distance"] > 0.5)
    version = Registry(home).open("late", register(model, X, X["distance"] > 0.5, name="late", home=home).tag)
    asked = pl.DataFrame(pl.from_pandas(X))
    reference = predict_reference(version, asked, home=home)

    def compared(way):
        return examine_deployment(version, asked, home, deployment="batch", way=(way, reference))

    row = compared(lambda version, table, home: ask_batch(version, table[:40], home=home))
    assert (row.rows, row.missing, row.mismatches, row.verdict) == (50, 10, 0, "refused")

    def rewritten(version, table, home):
        answered = ask_batch(version, table, home=home)
        with sqlite3.connect(home.log("late")) as connection:
            connection.execute("UPDATE predictions SET scores = '[0.123]' WHERE prediction_id = ?", [answered.ids[2]])
        connection.close()
        return answered

    row = compared(rewritten)
    assert (row.missing, row.mismatches, row.verdict) == (0, 1, "refused")


def test_rows_of_a_day_that_nobody_asks_about_stay_in_its_partition(home) -> None:
    landings(Lake(home.lake))
    definition = timed()
    version = Registry(home).open("late", train(definition, home=home).tag)
    asked = draw_requests(definition, Lake(home.lake), end="2013-01-02T00:00:00+00:00")
    score_batch(version, asked, home=home)
    (path,) = (home.model("late") / "predictions").rglob("*.parquet")
    before = pl.read_parquet(path).drop("prediction_id", "row")
    answered = ask_batch(version, asked[10:20], home=home)
    assert answered.rows == list(range(10))
    assert pl.read_parquet(path).drop("prediction_id", "row").equals(before) and before.height == 96


def test_the_reference_predicts_all_rows_at_once_and_leaves_out_what_the_contract_refuses(home) -> None:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, 50)})
    model = LogisticRegression().fit(X, X["distance"] > 0.5)
    version = Registry(home).open("late", register(model, X, X["distance"] > 0.5, name="late", home=home).tag)
    asked = pl.DataFrame({"distance": [0.2, None, 0.9]})
    reference = predict_reference(version, asked, home=home)
    good = pd.DataFrame({"distance": [0.2, 0.9]})
    assert np.array_equal(reference.scores, model.predict_proba(good)[:, 1])
    assert reference.rejected == 1


def test_requests_are_drawn_by_interval_and_seed(home) -> None:
    definition = timed()
    lake = Lake(home.lake)
    day = draw_requests(definition, lake, start="2013-01-02T00:00:00+00:00", end="2013-01-03T00:00:00+00:00")
    assert day.height == 96
    assert "late" not in day.columns
    assert draw_requests(definition, lake, limit=7).equals(draw_requests(definition, lake, limit=7))
    with pytest.raises(DeploymentError) as raised:
        draw_requests(definition, lake, start="2014-01-01T00:00:00+00:00")
    assert raised.value.code == "definition.no_rows"
