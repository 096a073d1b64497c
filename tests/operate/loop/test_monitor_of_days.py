"""A model whose training has days: alarms fail within the budget, and name the column and the labels."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import append_labels
from mlworkbench.operate.loop.alerts import list_alerts
from mlworkbench.operate.loop.history import read_history
from mlworkbench.operate.loop.monitor import monitor
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

BEGIN, DAYS, ROWS = datetime(2024, 1, 1, tzinfo=UTC), 150, 60


def draw_days(first: int, count: int, rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Draw days of trips; the weather of a day moves all of them."""
    random = np.random.default_rng((first, seed))
    day = np.repeat(np.arange(first, first + count), rows)
    wind = random.normal(10, 3, len(day)) + np.repeat(random.normal(0, 0.5, count), rows)
    minutes = np.tile(np.arange(rows) * 1440 // rows, count)
    at = [BEGIN + timedelta(days=int(d), minutes=int(m)) for d, m in zip(day, minutes, strict=True)]
    late = np.where(wind + random.normal(0, 2, len(day)) > 11, "late", "on time").astype(object)
    trip = [f"{d}-{m}" for d, m in zip(day, minutes, strict=True)]
    return pd.DataFrame({"at": at, "trip": trip, "wind": wind, "late": late})


@pytest.fixture
def made(home: Home, made_once: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")
    named = {"label": "late", "prediction_time": "at", "entity": ("trip",)}
    definition = ModelDefinition(name="trips", estimator=LogisticRegression(), data=draw_days(0, DAYS), **named)
    made_once("monitored_days", home, lambda: train(definition, home=home))
    return home


def serve(home: Home, day: int, rows: pd.DataFrame, *, labels: bool = True) -> None:
    asked = pl.from_pandas(rows.drop(columns="late")).with_columns(pl.col("at").dt.cast_time_unit("us"))
    score_batch(Registry(home).open("trips"), asked, home=home)
    if labels:
        log = read_log(home.log("trips"), start=moment(day), end=moment(day + 1)).sort("prediction_time")
        known = int((BEGIN + timedelta(days=day, hours=23) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
        append_labels(home.log("trips"), [
            {"model": "trips", "prediction_id": name, "value": value, "available_at": known}
            for name, value in zip(log["prediction_id"], rows["late"], strict=True)
        ])  # fmt: skip


def moment(day: float) -> str:
    return (BEGIN + timedelta(days=day)).isoformat()


def look(home: Home, day: int) -> Any:
    return monitor("trips", home=home, start=moment(day), end=moment(day + 1))


def test_usual_days_pass_a_unit_and_turned_labels_fail_at_once_and_it_ends(made: Home) -> None:
    kinds = ["usual", "usual", "unit", "turned", "usual"]
    found = []
    for place, kind in enumerate(kinds):
        day = DAYS + place
        rows = draw_days(day, 1, 600)
        if kind == "unit":
            rows["wind"] *= 1.609
        if kind == "turned":
            rows["late"] = np.where(rows["late"] == "late", "on time", "late")
        serve(made, day, rows)
        found.append(look(made, day))
        if kind == "unit":
            told = {alert.finding.subject: alert.finding for alert in list_alerts(home=made)}
            assert told["scores"].state == "fail" and "'wind'" in told["scores"].cause
            assert told["scores"].sure.startswith("without a change once in")
        if kind == "turned":
            told = {alert.finding.subject: alert.finding for alert in list_alerts(home=made)}
            assert [*told] == ["performance"] and told["performance"].state == "fail"
            assert told["performance"].since == moment(day - 1), "the other unit had cost it already"
    assert [one.verdict for one in found] == ["pass", "pass", "fail", "fail", "pass"], [one.lines for one in found]
    assert found[-1].told == 0 and not found[-1].parts[0]["reasons"]
    assert len(read_history("trips", home=made)) == 5


def test_days_of_few_rows_and_no_labels_are_judged_over_a_week(made: Home) -> None:
    for day in range(DAYS, DAYS + 9):
        rows = draw_days(day, 1, 80, seed=1)
        rows["wind"] += 4 if day >= DAYS + 7 else 0
        serve(made, day, rows, labels=False)
        found = look(made, day)
    (part,) = found.parts
    assert found.verdict == "fail" and part["rows"] == 80
    assert any(reason.startswith("performance: 0 of") for reason in part["reasons"])


def test_an_alarm_about_labels_stays_open_until_labels_say_otherwise(made: Home) -> None:
    opened = []
    for place, kind in enumerate(("turned", "unlabelled", "usual")):
        rows = draw_days(DAYS + place, 1, 600)
        if kind == "turned":
            rows["late"] = np.where(rows["late"] == "late", "on time", "late")
        serve(made, DAYS + place, rows, labels=kind != "unlabelled")
        look(made, DAYS + place)
        opened.append([(alert.number, alert.finding.subject) for alert in list_alerts(home=made)])
    assert opened == [[(1, "performance")], [(1, "performance")], []]
