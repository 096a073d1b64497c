"""Predictions come out again, and where one does not, the first step and column are named."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import deltalake
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.batch import Job, score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.streaming.events import Event
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.errors import LogError
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView
from mlworkbench.operate.replay.passport import format_passport, replay
from mlworkbench.operate.replay.replay import replay_many
from mlworkbench.operate.trace.lake_references import find_lake_references
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version

START = datetime(2024, 5, 1, tzinfo=UTC)
EARLY = datetime(2024, 7, 1, tzinfo=UTC)
CODE = """
import numpy as np


def miles(km, detour):
    return {"miles": km / 1.609344, "longer": np.where(detour, km * 0.1, 0.0)}
"""
COUNT = 120


def weather(wind: list[float], arrived: datetime = EARLY) -> pl.DataFrame:
    hours = [START + timedelta(hours=n) for n in range(len(wind))]
    count = len(wind)
    rows = {"place": ["A"] * count, "wind": wind, "available_at": hours, "ingested_at": [arrived] * count}
    return pl.DataFrame({**rows, "source": ["9f3c"] * count, "source_row": range(count)})


def arrivals() -> pl.DataFrame:
    draws = np.random.default_rng(5)
    moments = [START + timedelta(minutes=7 * n) for n in range(600)]
    rows = {"tail": draws.choice(["N1", "N2"], 600), "delay": draws.normal(5, 9, 600), "available_at": moments}
    origin = {"ingested_at": [EARLY] * 600, "source": ["77aa"] * 600, "source_row": range(600)}
    return pl.DataFrame({**rows, **origin})


def requests() -> pl.DataFrame:
    draws = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(COUNT)],
            "at": [START + timedelta(minutes=20 * n) for n in range(COUNT)],
            "place": draws.choice(["A", "B"], COUNT),
            "tail": pl.Series(draws.choice(["N1", "N2", "N3"], COUNT)),
            "detour": draws.choice([True, False], COUNT),
            "km": draws.uniform(100, 2500, COUNT),
        }
    )


@pytest.fixture
def miles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RowFunction]:
    (tmp_path / "replay_features.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("replay_features", None)
    import replay_features

    yield RowFunction(replay_features.miles)
    sys.modules.pop("replay_features", None)


@pytest.fixture
def definition(miles: RowFunction) -> ModelDefinition:
    views = (
        AsOfView("weather", "weather", ("place",), {"wind": "number"}, ttl=timedelta(hours=3)),
        WindowView(
            "recent",
            "arrivals",
            ("tail",),
            timedelta(hours=3),
            {"delay": Total("mean", "delay", 3), "n": Total("count"), "worst": Recent("max", "delay")},
        ),
        miles,
    )
    data = requests().with_columns(late=pl.Series(np.random.default_rng(9).integers(0, 2, COUNT)))
    return ModelDefinition(
        "late",
        HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3),
        data,
        "late",
        entity=("flight",),
        prediction_time="at",
        views=views,
        features=("km", "wind", "delay", "n", "worst", "miles", "longer"),
        deployments=("one_off", "batch", "realtime", "streaming"),
    )


@pytest.fixture
def version(definition: ModelDefinition, home: Home, made_once: Callable[..., None]) -> Version:
    def make() -> None:
        lake = Lake(home.lake)
        lake.append("weather", weather(np.random.default_rng(1).uniform(0, 30, 30).round(2).tolist()).to_arrow())
        lake.append("arrivals", arrivals().to_arrow())
        train(definition, home=home)

    made_once("replay", home, make)
    return Registry(home).open("late")


def in_a_file(version: Version, home: Home, tmp_path: Path, rows: pl.DataFrame | None = None) -> None:
    path = tmp_path / "requests.parquet"
    (requests() if rows is None else rows).write_parquet(path)
    score_file(version, path, home=home, out=tmp_path / "out.parquet")


def records() -> list[dict[str, object]]:
    return [{**row, "at": row["at"].isoformat()} for row in requests().to_dicts()]


def in_real_time(version: Version, home: Home) -> None:
    with OnlineStore(home.online) as store, PredictionLog(home.log("late")) as log:
        materialize(version.views, Lake(home.lake), store)
        service = Realtime(version, log, store=store)
        for first in range(0, 40, 8):
            assert (
                len(
                    json.loads(service.respond(json.dumps(records()[first : first + 8]).encode(), f"list-{first}").body)
                )
                == 8
            )
        assert service.respond(json.dumps(records()[3]).encode(), "single").status == 200


def in_a_stream(version: Version, home: Home, carried: dict[str, object] | None = None) -> None:
    with OnlineStore(home.online) as store, PredictionLog(home.log("late")) as log:
        materialize(version.views, Lake(home.lake), store)
        lines = [json.dumps({**record, **(carried or {})}).encode() for record in records()[:20]]
        events = [Event(100 * n, n + 1, line, len(line)) for n, line in enumerate(lines)]
        outcomes = Streaming(version, log, store=store).outcomes(events, "carried" if carried else "looked-up")
        assert all(outcome.good for outcome in outcomes)


def change(home: Home, assignment: str, model: str = "late") -> None:
    with sqlite3.connect(home.log(model)) as connection:
        connection.execute(f"UPDATE predictions SET {assignment}")


def rewrite(home: Home, table: pl.DataFrame, name: str = "weather") -> None:
    shutil.rmtree(home.lake / name)
    Lake(home.lake).append(name, table.to_arrow())


def test_every_deployment_comes_out_again_bit_for_bit(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    score_batch(version, requests(), home=home, job=Job(run_id="test"))
    in_real_time(version, home)
    in_a_stream(version, home)
    in_a_stream(version, home, {"wind": 3.25, "delay": None, "n": 4, "worst": 30.5})
    report = replay_many("late", home=home)
    rows = COUNT + COUNT + 41 + 40
    assert report.counts == {
        "replayed": rows, "equal": rows, "erased": 0, "differ": 0, "undecided": 0, "exact": rows,
    }  # fmt: skip
    assert set(read_log(home.log("late"))["deployment"]) == {"one_off", "batch", "realtime", "streaming"}


def test_predictions_come_out_again_after_retraining_promotion_and_rollback(
    definition: ModelDefinition, version: Version, home: Home, tmp_path: Path
) -> None:
    from dataclasses import replace

    in_a_file(version, home, tmp_path)
    newer = replace(definition, estimator=HistGradientBoostingClassifier(max_iter=9, min_samples_leaf=3))
    later = Registry(home).open("late", train(newer, home=home).tag)
    assert later.version != version.version
    registry = Registry(home)
    for tag in (version.version, later.version):
        registry.promote("late", tag, who="test", why="test", override="a test")
    in_a_file(later, home, tmp_path)
    registry.rollback("late", who="test", why="test", override="a test")
    assert replay_many("late", home=home).counts["exact"] == 2 * COUNT


def test_rows_that_came_after_the_prediction_change_nothing(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    late = pl.DataFrame({"place": ["A"], "wind": [99.0], "available_at": [START + timedelta(hours=1, minutes=30)]})
    late = late.with_columns(
        ingested_at=pl.lit(datetime.now(UTC)), source=pl.lit("new"), source_row=pl.lit(0).cast(pl.Int64)
    )
    Lake(home.lake).append("weather", late.to_arrow())
    assert replay_many("late", home=home).counts["exact"] == COUNT
    in_a_file(version, home, tmp_path, requests().with_columns(flight=pl.col("flight") + " again"))
    assert replay_many("late", home=home).counts["exact"] == 2 * COUNT


def test_an_altered_row_of_the_lake_is_found_by_view_and_column(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    table = Lake(home.lake).read("weather").sort("available_at")
    rewrite(
        home, table.with_columns(wind=pl.when(pl.int_range(pl.len()) == 4).then(pl.col("wind") + 1).otherwise("wind"))
    )
    report = replay_many("late", home=home)
    found = [row for row in report.rows if row.verdict == "differ"]
    asked = requests().filter((pl.col("place") == "A") & (pl.col("at").dt.hour() == 4) & (pl.col("at").dt.day() == 1))
    assert len(found) == asked.height > 0
    assert {(row.step, row.column) for row in found} == {("view weather", "wind")}
    assert all(
        row.recomputed == row.logged + 1 and "logged features give the logged score" in row.reason for row in found
    )
    assert report.counts["equal"] == COUNT - len(found)


def test_rows_that_are_gone_from_the_lake_are_erased_and_not_different(
    version: Version, home: Home, tmp_path: Path
) -> None:
    in_a_file(version, home, tmp_path)
    path = str(home.lake / "weather")
    deltalake.DeltaTable(path).delete("wind > 15")
    assert replay_many("late", home=home).counts["exact"] == COUNT
    deltalake.DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    report = replay_many("late", home=home)
    erased = [row for row in report.rows if row.verdict == "erased"]
    assert erased
    assert report.counts["equal"] == COUNT - len(erased)
    assert {row.step for row in erased} == {"view weather"}
    assert "no longer in the lake" in erased[0].reason
    shutil.rmtree(home.lake / "weather")
    counts = replay_many("late", home=home).counts
    assert counts["differ"] == 0
    assert counts["erased"] >= len(erased)


@pytest.mark.parametrize(
    ("assignment", "step", "column"),
    [
        ("features = json_set(features, '$.wind', 77.5)", "view weather", "wind"),
        ("features = json_set(features, '$.n', 1234)", "view recent", "n"),
        ("features = json_set(features, '$.km', 1)", "row function miles", "miles"),
        ("features = json_set(features, '$.longer', -1)", "row function miles", "longer"),
        ("features = json_remove(features, '$.wind')", "log", ""),
        ("features = json_set(features, '$.wind', 'strong')", "log", ""),
        ("features = 'no json'", "log", ""),
        ("request = json_set(request, '$.detour', json(iif(json_extract(request, '$.detour'), 'false', 'true')))",
         "row function miles", "longer"),
        ("scores = '[0.123]'", "scorer", ""),
        ("decision = '7'", "decision", ""),
    ],
)  # fmt: skip
def test_an_altered_log_is_found_by_step_and_column(
    version: Version, home: Home, tmp_path: Path, assignment: str, step: str, column: str
) -> None:
    in_a_file(version, home, tmp_path)
    one = read_log(home.log("late"))["prediction_id"][17]
    change(home, f"{assignment} WHERE prediction_id = '{one}'")
    report = replay_many("late", home=home)
    assert [
        (row.prediction_id, row.verdict, row.step, row.column) for row in report.rows if row.verdict != "equal"
    ] == [(one, "differ", step, column)]
    assert report.counts["equal"] == COUNT - 1


def test_erased_features_in_the_log_are_erased(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    change(home, "features = '{}', request = '{}' WHERE rowid <= 3")
    assert replay_many("late", home=home).counts["erased"] == 3


def test_altered_code_of_a_version_is_a_difference_of_the_version(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    code = version.folder / "code" / "replay_features.py"
    code.chmod(0o644)
    code.write_text(CODE.replace("1.609344", "1.6"))
    report = replay_many("late", home=home)
    assert report.counts["differ"] == COUNT
    assert {row.step for row in report.rows} == {"version"}
    assert "was altered" in report.rows[0].reason


def test_an_edit_of_the_module_here_changes_nothing_and_is_shown(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    (tmp_path / "replay_features.py").write_text(CODE.replace("1.609344", "1.6"))
    one = read_log(home.log("late"))["prediction_id"][0]
    facts = replay(one, home=home)
    assert (facts["verdict"], facts["exact"]) == ("equal", True)
    assert facts["functions"][0]["here"] == "edited"


def test_a_removed_version_leaves_its_predictions_undecided(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    Registry(home).remove("late", version.version)
    report = replay_many("late", home=home, limit=2)
    assert report.counts["undecided"] == report.counts["replayed"] == 2
    assert "was removed" in report.rows[0].reason
    facts = replay(report.rows[0].prediction_id, home=home)
    assert facts["verdict"] == "undecided"
    assert {one["name"] for one in facts["features"]} == {"km", "wind", "delay", "n", "worst", "miles", "longer"}
    assert "was removed" in format_passport(facts)[-1]


def test_rows_of_an_older_log_without_an_input_are_undecided_unless_the_score_is_another(
    version: Version, home: Home, tmp_path: Path
) -> None:
    in_a_file(version, home, tmp_path)
    change(home, "request = '', schema_version = 1 WHERE rowid <= 4")
    change(home, "scores = '[0.9]' WHERE rowid = 1")
    report = replay_many("late", home=home)
    assert [row.verdict for row in report.rows[:5]] == ["differ", "undecided", "undecided", "undecided", "equal"]
    assert "the log does not keep place, tail, detour" in report.rows[1].reason


def test_a_registered_model_without_time_or_views_comes_out_again(home: Home, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"speed": draws.uniform(5, 30, 200), "load": draws.uniform(0, 1, 200)})
    late = X.speed + draws.normal(0, 8, 200) > 15
    tag = register(LogisticRegression().fit(X, late), X, late, name="cars", home=home).tag
    X.to_csv(tmp_path / "cars.csv", index=False)
    score_file(Registry(home).open("cars", tag), tmp_path / "cars.csv", home=home, out=tmp_path / "out.csv")
    assert replay_many("cars", home=home).counts["exact"] == 200
    change(home, "features = json_set(features, '$.speed', 17) WHERE rowid = 5", "cars")
    assert [row.step for row in replay_many("cars", home=home).rows if row.verdict == "differ"] == ["scorer"]


def test_since_and_limit_choose_the_newest(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    change(home, "logged_at = logged_at - 86400000000 WHERE rowid <= 100")
    newest = read_log(home.log("late"))["logged_at"].max()
    assert replay_many("late", home=home, since=newest.isoformat()).counts["replayed"] == 20
    assert replay_many("late", home=home, limit=7).counts["replayed"] == 7


def test_a_passport_names_rows_times_and_sources(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    log = read_log(home.log("late"))
    place = next(
        n for n, row in enumerate(requests().to_dicts()) if row["place"] == "A" and row["tail"] != "N3" and n > 12
    )
    facts = replay(log["prediction_id"][place][:8], home=home)
    assert (facts["model"], facts["verdict"], facts["exact"]) == ("late", "equal", True)
    asked = requests().row(place, named=True)
    assert facts["entity"] == {"flight": asked["flight"]}
    sources = {one["name"]: one["from"] for one in facts["features"]}
    assert sources == {
        "km": "request", "wind": "view weather", "delay": "view recent", "n": "view recent",
        "worst": "view recent", "miles": "row function miles", "longer": "row function miles",
    }  # fmt: skip
    wind, recent = facts["views"]
    hour = int((asked["at"] - START).total_seconds() // 3600)
    assert wind["row"]["source_row"] == hour
    assert wind["row"]["source"] == "9f3c"
    assert wind["row"]["ingested_at"] == "2024-07-01T00:00:00+00:00"
    values = {one["name"]: one["value"] for one in facts["features"]}
    assert wind["row"]["values"]["wind"] == values["wind"]
    assert recent["rows"] == values["n"]
    assert recent["totals"]["end"]["rows"] - recent["totals"]["start"]["rows"] == values["n"]
    came = arrivals()[recent["recent"]["worst"]["row"]["source_row"]]
    assert came["delay"][0] == values["worst"] and recent["recent"]["worst"]["rows"] == values["n"]
    told = facts["explanation"]
    assert {one["column"] for one in told["reasons"]} == {*sources} and told["kind"] == "exact"
    assert abs(told["base"] + sum(one["contribution"] for one in told["reasons"]) - told["margin"]) < 1e-9
    text = "\n".join(format_passport(facts))
    assert "reasons, exact: log-odds of 1" in text
    assert f"worst: {recent['rows']} rows hold a value" in text
    assert "replay: equal, bit for bit" in text
    assert f"source 9f3c, row {hour}" in text
    json.dumps(facts)


def test_a_passport_of_what_an_event_carried_says_so(version: Version, home: Home) -> None:
    in_a_stream(version, home, {"wind": 3.25, "delay": None, "n": 4, "worst": 30.5})
    facts = replay(read_log(home.log("late"))["prediction_id"][0], home=home)
    sources = {one["name"]: one["from"] for one in facts["features"]}
    assert sources["wind"] == "carried by the event"
    assert facts["views"] == []
    assert facts["verdict"] == "equal"


def test_an_unknown_or_short_id_is_refused(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    with pytest.raises(LogError) as raised:
        replay("0" * 32, home=home)
    assert raised.value.code == "log.prediction_unknown"
    with pytest.raises(LogError, match="at least its first 8 digits"):
        replay("0", home=home)
    with pytest.raises(LogError) as raised:
        replay_many("late", home=home, ids=["0" * 32])
    assert raised.value.code == "log.prediction_unknown"


def test_nothing_to_replay_and_a_model_without_a_log_are_refused(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    with pytest.raises(LogError, match="since 2100") as raised:
        replay_many("late", home=home, since="2100-01-01T00:00:00+00:00")
    assert raised.value.code == "log.no_rows"
    one = read_log(home.log("late"))["prediction_id"][0]
    with pytest.raises(LogError, match="known: late") as raised:
        replay(one, home=home, model="nosuch")
    assert raised.value.code == "log.missing"
    assert replay(one, home=home, model="late")["verdict"] == "equal"


def test_a_row_emptied_in_part_alone_is_altered_and_not_erased(version: Version, home: Home, tmp_path: Path) -> None:
    in_a_file(version, home, tmp_path)
    change(home, "features = '{}' WHERE rowid = 1")
    counts = replay_many("late", home=home).counts
    assert (counts["erased"], counts["equal"]) == (0, COUNT - 1)


def test_what_left_the_log_for_delta_comes_out_again(version, home, tmp_path, monkeypatch) -> None:
    in_a_file(version, home, tmp_path)
    in_real_time(version, home)
    change(home, "logged_at = logged_at - 3 * 86400000000 WHERE deployment = 'one_off'")
    one, before = read_log(home.log("late"))["prediction_id"][17], read_log(home.log("late"))
    passport = replay(one[:12], home=home)
    assert move_log("late", home=home).rows == COUNT
    assert read_log(home.log("late")).sort("prediction_id").equals(before.sort("prediction_id"))
    report = replay_many("late", home=home)
    assert report.counts["exact"] == report.counts["replayed"] == COUNT + 41
    assert replay(one[:12], home=home) == passport
    assert replay_many("late", home=home, limit=41).counts["equal"] == 41
    assert find_lake_references(home)["weather"]
