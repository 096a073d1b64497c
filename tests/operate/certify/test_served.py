"""What was served is computed again the training way: by what was available, and by what had arrived."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.contract.pseudonym import open_pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import DeploymentError, IngestError
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.certify.deployments import refresh_online_store
from mlworkbench.operate.certify.served import certify_served, format_live_metrics, read_served_rows
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version

UTC = timezone.utc  # noqa: UP017
START = datetime(2013, 1, 1, tzinfo=UTC)
SINCE = "2013-01-01T00:00:00+00:00"
HOURS = 60


def micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)


def weather(
    lake: Lake, hours: range, wind: float, *, arrived: datetime, dated: bool = True, origin: str = "JFK"
) -> None:
    moments = [START + timedelta(hours=hour) for hour in hours]
    rows = {"origin": [origin] * len(hours), "available_at": moments, "wind": [wind + hour for hour in hours]}
    if dated:
        rows["ingested_at"] = [arrived] * len(hours)
    lake.append("weather", pl.DataFrame(rows).to_arrow())


def definition() -> ModelDefinition:
    draws = np.random.default_rng(3)
    moments = [START + timedelta(minutes=30 * n) for n in range(2 * HOURS)]
    data = pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(2 * HOURS)],
            "at": moments,
            "origin": ["JFK"] * (2 * HOURS),
            "distance": draws.uniform(100, 2500, 2 * HOURS),
            "late": draws.integers(0, 2, 2 * HOURS),
        }
    )
    view = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6))
    model = LogisticRegression()
    fields = {"entity": ("flight",), "prediction_time": "at", "views": (view,), "features": ("distance", "wind")}
    return ModelDefinition("late", model, data, "late", **fields)


def far(distance: np.ndarray) -> dict[str, np.ndarray]:
    return {"far": (distance > 1000).astype(np.float64)}


FAR = RowFunction(far)


@pytest.fixture
def trained(home: Home, made_once: Callable[..., None]) -> Version:
    def make() -> None:
        weather(Lake(home.lake), range(HOURS), 3.0, arrived=START + timedelta(hours=HOURS))
        refresh_online_store(Registry(home).open("late", train(definition(), home=home).tag), home=home)

    made_once("live", home, make)
    return Registry(home).open("late")


def ask(version: Version, home: Home, *, at: datetime, logged: datetime, name: str = "one") -> None:
    record = {"flight": "UA 900", "at": at.isoformat(), "origin": "JFK", "distance": 900.0}
    store = OnlineStore(home.online, read_only=True)
    service = Realtime(version, PredictionLog(home.log("late")), store=store, clock=lambda: micros(logged))
    reply = service.respond(json.dumps([record] * 3).encode(), name)
    service.close()
    assert reply.status == 200, reply.body


NOON = START + timedelta(hours=50)
NIGHT = START + timedelta(hours=HOURS + 12)


def test_what_was_served_rightly_is_equal_by_version_and_deployment(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    asked = definition().data.drop("late").with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    score_batch(trained, asked, home=home)
    found = certify_served("late", home=home, since=SINCE)
    assert (found.verdict, found.count, found.refusal) == ("equal", 3 + 2 * HOURS, "")
    assert [(row["deployment"], row["rows"], row["version"]) for row in found.rows] == [
        ("batch", 2 * HOURS, trained.version),
        ("realtime", 3, trained.version),
    ]
    assert list(found.summary) == ["verdict", "rows", "since", "deployments"]


def test_a_store_behind_the_lake_is_found(home, trained) -> None:
    weather(Lake(home.lake), range(HOURS, HOURS + 10), 9.0, arrived=NIGHT - timedelta(hours=1))
    ask(trained, home, at=START + timedelta(hours=HOURS + 4), logged=NIGHT)
    found = certify_served("late", home=home, since=SINCE)
    assert found.verdict == "refused"
    assert found.rows[0]["feature_mismatches"] == {"wind": 3}
    assert "3 feature values of wind" in found.refusal
    refresh_online_store(trained, home=home)
    ask(trained, home, at=START + timedelta(hours=HOURS + 4), logged=NIGHT + timedelta(hours=1), name="two")
    later = certify_served("late", home=home, since=(NIGHT + timedelta(minutes=1)).isoformat())
    assert (later.verdict, later.count) == ("equal", 3)


def test_a_row_that_arrived_later_could_not_have_been_known(home, trained) -> None:
    ask(trained, home, at=START + timedelta(hours=HOURS + 4), logged=NIGHT)
    weather(Lake(home.lake), range(HOURS, HOURS + 10), 9.0, arrived=NIGHT + timedelta(seconds=1))
    assert certify_served("late", home=home, since=SINCE).verdict == "equal"


def test_a_table_that_does_not_say_when_rows_arrived_is_read_at_the_version_of_the_log(home) -> None:
    weather(Lake(home.lake), range(HOURS), 3.0, arrived=START, dated=False)
    version = Registry(home).open("late", train(definition(), home=home).tag)
    refresh_online_store(version, home=home)
    ask(version, home, at=START + timedelta(hours=HOURS + 4), logged=NIGHT)
    weather(Lake(home.lake), range(HOURS, HOURS + 10), 9.0, arrived=START, dated=False)
    assert certify_served("late", home=home, since=SINCE).verdict == "equal"


def test_a_score_a_decision_and_a_feature_that_are_wrong_in_the_log_are_found(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    edit(home, "UPDATE predictions SET scores = '[0.999]' WHERE rowid = 1")
    edit(home, "UPDATE predictions SET decision = CASE decision WHEN '1' THEN '0' ELSE '1' END WHERE rowid = 2")
    edit(home, "UPDATE predictions SET features = replace(features, '900.0', '1448.4') WHERE rowid = 3")
    (row,) = certify_served("late", home=home, since=SINCE).rows
    assert (row["verdict"], row["mismatches"]) == ("refused", 3)


def edit(home: Home, statement: str) -> None:
    with sqlite3.connect(home.log("late")) as log:
        log.execute(statement)
    log.close()


def test_only_what_was_served_since_then_is_looked_at(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT, name="early")
    edit(home, "UPDATE predictions SET scores = '[0.999]'")
    ask(trained, home, at=NOON, logged=NIGHT + timedelta(hours=2), name="shadow")
    edit(home, "UPDATE predictions SET role = 'shadow', scores = '[0.5]' WHERE request_id = 'shadow'")
    ask(trained, home, at=NOON, logged=NIGHT + timedelta(hours=1), name="later")
    found = certify_served("late", home=home, since=(NIGHT + timedelta(hours=1)).isoformat())
    assert (found.verdict, found.count) == ("equal", 3)
    with pytest.raises(DeploymentError, match=r"since 2100.*; the last was at 2013") as raised:
        read_served_rows("late", home=home, since="2100-01-01T00:00:00+00:00")
    assert raised.value.code == "log.no_rows"


ERASED = "UPDATE predictions SET features = '{}', request = '{}'"


def test_rows_that_were_erased_are_counted_and_left_out(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    edit(home, f"{ERASED} WHERE rowid = 1")
    found = certify_served("late", home=home, since=SINCE)
    assert (found.verdict, found.count, found.rows[0]["left_out"]) == ("equal", 2, 1)
    assert "1 of 3 rows were left out" in found.remarks[0]
    assert 'deployment="realtime"} 1\n' in found.metric.read_text().partition("TYPE mlworkbench_live_left_out")[2]
    edit(home, "UPDATE predictions SET scores = '[0.999]' WHERE rowid = 2")
    wrong = certify_served("late", home=home, since=SINCE).refusal
    assert "1 mismatches, 1 of 3 rows were left out" in wrong
    edit(home, ERASED)
    nothing = certify_served("late", home=home, since=SINCE)
    assert nothing.verdict == "undecided" and "3 of 3 rows" in nothing.refusal


@pytest.mark.parametrize(
    "assignment",
    ["features = '{}'", "request = '{}'", "request = 'no json'", "features = json_remove(features, '$.distance')"],
)
def test_a_row_that_lost_a_part_of_its_line_is_refused_and_named(home, trained, assignment) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    edit(home, f"UPDATE predictions SET {assignment} WHERE rowid = 2")
    one = read_served_rows("late", home=home, since=SINCE)["prediction_id"][1]
    found = certify_served("late", home=home, since=SINCE)
    assert (found.verdict, found.count) == ("refused", 2)
    assert f"1 of 3 rows are not whole in the log, the first is {one}" in found.refusal
    assert "mlworkbench_live_equal" in found.metric.read_text() and "} 0\n" in found.metric.read_text()


def test_a_personal_column_that_is_not_kept_leaves_its_rows_out(home) -> None:
    weather(Lake(home.lake), range(HOURS), 3.0, arrived=START + timedelta(hours=HOURS))
    told = replace(definition(), personal=("distance",), features=("wind", "far"), views=(*definition().views, FAR))
    version = Registry(home).open("late", train(told, home=home).tag)
    refresh_online_store(version, home=home)
    ask(version, home, at=NOON, logged=NIGHT)
    found = certify_served("late", home=home, since=SINCE)
    assert (found.verdict, found.rows[0]["left_out"]) == ("undecided", 3)


def test_a_personal_key_is_kept_by_its_pseudonym_and_its_rows_are_computed_again(home) -> None:
    named = open_pseudonyms(home, create=True)
    weather(Lake(home.lake), range(HOURS), 3.0, arrived=START + timedelta(hours=HOURS), origin=named.of("JFK"))
    version = Registry(home).open("late", train(replace(definition(), personal=("origin",)), home=home).tag)
    refresh_online_store(version, home=home)
    ask(version, home, at=NOON, logged=NIGHT)
    found = certify_served("late", home=home, since=SINCE)
    assert (found.verdict, found.count, found.rows[0]["left_out"]) == ("equal", 3, 0)
    kept = json.loads(read_served_rows("late", home=home, since=SINCE)["request"][0])
    assert kept == {"origin": named.of("JFK")}


def test_a_view_over_plain_names_is_refused_before_it_teaches_anything(home) -> None:
    weather(Lake(home.lake), range(HOURS), 3.0, arrived=START + timedelta(hours=HOURS))
    with pytest.raises(IngestError, match="table 'weather': column 'origin' must hold pseudonyms; got plain values"):
        train(replace(definition(), personal=("origin",)), home=home)
    assert Registry(home).models() == []


def test_a_version_that_was_removed_leaves_its_answers_undecided_and_the_others_are_judged(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    other = Registry(home).open("late", train(replace(definition(), threshold=0.2), home=home).tag)
    ask(other, home, at=NOON, logged=NIGHT, name="other")
    Registry(home).remove("late", trained.version)
    found = certify_served("late", home=home, since=SINCE)
    assert [(row["version"], row["verdict"]) for row in found.rows] == [
        (trained.version, "undecided"),
        (other.version, "equal"),
    ]
    assert found.verdict == "undecided" and f"{trained.version} was removed" in found.refusal
    card = other.folder / "card.md"
    card.chmod(0o644)
    card.write_text("altered")
    again = certify_served("late", home=home, since=SINCE)
    assert again.verdict == "refused" and "card.md was altered" in again.refusal


def test_answers_of_two_versions_are_held_each_against_its_own(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    other = Registry(home).open("late", train(replace(definition(), threshold=0.2), home=home).tag)
    ask(other, home, at=NOON, logged=NIGHT, name="other")
    found = certify_served("late", home=home, since=SINCE)
    assert found.verdict == "equal"
    assert {row["version"] for row in found.rows} == {trained.version, other.version}


def test_a_model_without_entity_or_time_is_held_too(home) -> None:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, 50)})
    y = pd.Series(X["distance"] > 0.5, name="far")
    version = Registry(home).open("far", register(LogisticRegression().fit(X, y), X, y, name="far", home=home).tag)
    score_batch(version, pl.DataFrame(pl.from_pandas(X)), home=home)
    assert certify_served("far", home=home, since=SINCE).count == 50


def test_the_metric_says_the_same_in_the_format_of_prometheus(home, trained) -> None:
    ask(trained, home, at=NOON, logged=NIGHT)
    found = certify_served("late", home=home, since=SINCE)
    text = found.metric.read_text()
    assert text == format_live_metrics(found) and found.metric == home.model("late") / "live.prom"
    labels = f'{{model="late",version="{trained.version}",deployment="realtime"}}'
    assert f"mlworkbench_live_equal{labels} 1\n" in text and f"mlworkbench_live_rows{labels} 3\n" in text
    assert text.count("# TYPE") == 6
    assert not list(home.model("late").glob(".live*"))


def test_what_left_the_log_for_delta_is_certified_with_what_did_not(home, trained, monkeypatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")
    ask(trained, home, at=NOON, logged=NIGHT, name="early")
    edit(home, "UPDATE predictions SET scores = '[0.999]' WHERE rowid = 2")
    assert move_log("late", home=home).rows == 3
    ask(trained, home, at=NOON, logged=NIGHT + timedelta(hours=1), name="later")
    (row,) = certify_served("late", home=home, since=SINCE).rows
    assert (row["rows"], row["verdict"], row["mismatches"]) == (6, "refused", 1)
    later = (NIGHT + timedelta(minutes=1)).isoformat()
    assert certify_served("late", home=home, since=later).count == 3
    assert certify_served("late", home=home, since=SINCE, until=later).refusal
