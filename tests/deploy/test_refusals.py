"""A bad row costs itself alone, and an unusual one is told, whichever way it came."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlworkbench.cli.serve.score import describe_scores
from mlworkbench.core.home import Home
from mlworkbench.core.settings import load_settings
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.batch import Job, score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.edge.collect import collect
from mlworkbench.deploy.edge.device import score_source
from mlworkbench.deploy.realtime.openapi import read_schemas
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.streaming.events import Event
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.errors import FeatureError, SettingsError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.replay.passport import format_passport, replay
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version, with_reference

START = datetime(2024, 5, 1, tzinfo=UTC)
EVERYWHERE = ("one_off", "batch", "realtime", "streaming", "edge")


def prices(count: int = 400) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    price = draws.uniform(5, 50, count).round(2)
    return pd.DataFrame({"price": price, "shop": draws.choice(["North", "South"], count)})


def view(name: str = "stock", **more: timedelta) -> AsOfView:
    return AsOfView(name, "stock", ("shop",), {"left": "number"}, **more)


@dataclass(frozen=True)
class Shop:
    """A home with three versions: compiled, refusing what it does not know, and with a view."""

    home: Home
    sums: Version
    strict: Version
    stock: Version
    waits: Version


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("MLWORKBENCH_HOME", str(folder / "home"))
        home, X = Home.open(folder / "home"), prices()
        y = X["price"] * 1e3
        mixed = [(OneHotEncoder(handle_unknown="ignore"), ["shop"]), (OneHotEncoder(), ["shop"])]
        for name, one in zip(("sums", "strict"), mixed, strict=True):
            pipeline = make_pipeline(make_column_transformer(one, remainder="passthrough"), LinearRegression())
            register(pipeline.fit(X, y), X, y, name=name, home=home)
        lake = Lake(home.lake)
        hours = [START + timedelta(hours=n) for n in range(200)]
        rows = {"shop": ["North", "South"] * 100, "left": np.arange(200.0), "available_at": hours}
        lake.append("stock", pl.DataFrame(rows).with_columns(pl.col("available_at").dt.cast_time_unit("us")).to_arrow())
        for name, more in (("stock", {}), ("waits", {"max_lag": timedelta(hours=4)})):
            train(stocked(name, view(**more)), home=home)
        with OnlineStore(home.online) as store:
            materialize((view(),), lake, store)
        registry = Registry(home)
        opened = {name: registry.open(name) for name in ("sums", "strict", "stock", "waits")}
        opened["sums"].declaration["deployments"] = EVERYWHERE
        yield Shop(home, **opened)


def stocked(name: str, stock: AsOfView) -> ModelDefinition:
    draws = np.random.default_rng(1)
    at = [START + timedelta(hours=3, minutes=59 * n) for n in range(190)]
    shops = draws.choice(["North", "South"], 190)
    rows = pl.DataFrame({"at": at, "order": [f"O{n}" for n in range(190)], "shop": shops})
    data = rows.with_columns(sold=pl.Series(draws.uniform(0, 9, 190)))
    model = HistGradientBoostingRegressor(max_iter=3)
    told = {"entity": ("order",), "prediction_time": "at", "views": (stock,), "features": ("left",)}
    return ModelDefinition(name, model, data, "sold", deployments=EVERYWHERE[:4], **told)


LIST = [{"price": 20.0, "shop": "North"}, {"price": 1.7e308, "shop": "North"}, {"price": 30.0, "shop": "South"}]
NEW = [LIST[0], {"price": 20.0, "shop": "West"}, LIST[2]]


def over_http(version: Version, folder: Path, records: list[dict], store: OnlineStore | None = None) -> list[dict]:
    with PredictionLog(folder / "http.sqlite") as log:
        service = Realtime(version, log, store=store)
        return json.loads(service.respond(json.dumps(records).encode()).body)


def as_events(version: Version, folder: Path, records: list[dict], store: OnlineStore | None = None) -> list[dict]:
    lines = [json.dumps(record).encode() for record in records]
    events = [Event(100 * n, n + 1, line, len(line)) for n, line in enumerate(lines)]
    with PredictionLog(folder / "stream.sqlite") as log:
        worker = Streaming(version, log, store=store)
        return [dict(outcome.body) for outcome in worker.outcomes(events, "shop")]


@pytest.mark.parametrize(("model", "records"), [("sums", LIST), ("strict", NEW)])
def test_one_row_without_a_score_costs_itself_alone_in_every_way(
    shop: Shop, tmp_path: Path, model: str, records: list[dict]
) -> None:
    version, elsewhere = getattr(shop, model), Home.open(tmp_path / "home")
    version.declaration["deployments"] = EVERYWHERE
    table = pl.DataFrame(records)
    table.write_parquet(tmp_path / "rows.parquet")
    filed = score_file(version, tmp_path / "rows.parquet", home=elsewhere)
    batch = score_batch(version, table, home=elsewhere)
    expected = pl.read_parquet(filed.out)
    assert (filed.scored, filed.rejected, expected["row"].to_list()) == (2, 1, [0, 2])
    assert json.loads(filed.rejected_path.read_text())["row"] == 1
    assert (batch.scored, batch.rejected) == (2, 1)
    answers = over_http(version, tmp_path, records)
    assert [sorted(one) for one in answers[1:2]] == [["faults", "index"]]
    fault = answers[1]["faults"][0]
    assert fault["severe"] and fault["row"] == 1
    assert "finite" in fault["rule"] or fault["value"].endswith("refuses it: it found an unknown category")
    streamed = as_events(version, tmp_path, records)
    assert ["score" in one for one in streamed] == [True, False, True]
    several = [answers, streamed]
    if model == "sums":
        report = score_source(version, b"\n".join(json.dumps(one).encode() for one in records), tmp_path / "edge.jsonl")
        assert (report.scored, report.rejected) == (2, 1) and "finite" in report.first
        lines = [json.loads(line) for line in (tmp_path / "edge.jsonl").read_text().splitlines()]
        several.append([lines[0], {}, lines[1]])
    for told in several:
        assert np.allclose([told[0]["score"], told[2]["score"]], expected["score"], atol=version.tolerance)
    assert read_log(tmp_path / "http.sqlite").height == 2


def test_what_the_pipeline_itself_says_of_a_row_is_told(shop: Shop, tmp_path: Path) -> None:
    told = over_http(with_reference(shop.strict), tmp_path, NEW)
    fault = told[1]["faults"][0]
    assert ["score" in one for one in told] == [True, False, True]
    assert "the pipeline refuses it: ValueError: Found unknown categories" in fault["value"]
    assert fault["hint"].startswith("correct the row")


def test_many_rows_that_the_pipeline_refuses_leave_all_others(shop: Shop, tmp_path: Path) -> None:
    table = pl.DataFrame({"price": np.linspace(6, 40, 400), "shop": ["North", "West", "East", "South"] * 100})
    table.write_csv(tmp_path / "rows.csv")
    report = score_file(shop.strict, tmp_path / "rows.csv", home=Home.open(tmp_path / "home"))
    assert (report.scored, report.rejected) == (200, 200)
    assert set(np.array(pl.read_csv(report.out)["row"]) % 4) == {0, 3}


def test_a_file_in_cents_and_one_in_another_case_are_flagged_in_every_row(shop: Shop, tmp_path: Path) -> None:
    rows = pl.DataFrame(pl.from_pandas(prices(20)))
    cents, upper = rows.with_columns(pl.col("price") * 100), rows.with_columns(pl.col("shop").str.to_uppercase())
    for name, table, said in (("cents", cents, "price above"), ("upper", upper, "shop unknown")):
        table.write_csv(tmp_path / f"{name}.csv")
        report = score_file(shop.sums, tmp_path / f"{name}.csv", home=Home.open(tmp_path / "home"))
        out = pl.read_csv(report.out)
        assert out.columns[-1] == "flags" and out["flags"].str.contains(said).all()
        assert report.flags.line().startswith("20 of 20 rows flagged, 100.0 %; training 0.0 %: ")
        assert f"{said}" in report.flags.line() and "the first: row 0, column" in report.flags.line()
    rows.write_csv(tmp_path / "good.csv")
    good = score_file(shop.sums, tmp_path / "good.csv", home=Home.open(tmp_path / "home"))
    assert good.flags.line() == "" and pl.read_csv(good.out)["flags"].null_count() == 20
    assert describe_scores("v", {"scored": 20, "out": "x", "rejected": 0}) == ["v: 20 rows scored, written to x"]


def test_the_few_cents_that_lie_inside_a_wide_range_are_told_with_the_others(shop: Shop, tmp_path: Path) -> None:
    cents = pl.DataFrame({"price": [1.0] * 2 + [900.0] * 18, "shop": ["North"] * 20})
    cents.write_csv(tmp_path / "cents.csv")
    report = score_file(shop.sums, tmp_path / "cents.csv", home=Home.open(tmp_path / "home"))
    assert report.flags.rows == 20
    assert pl.read_csv(report.out)["flags"][0] == "price doubtful, 18 of 20 rows here are unusual"
    cents[:8].write_csv(tmp_path / "few.csv")
    few = score_file(shop.sums, tmp_path / "few.csv", home=Home.open(tmp_path / "home"))
    assert (few.scored, few.flags.rows) == (8, 6)


UNUSUAL = [{"price": 20.0, "shop": "North"}, {"price": 2000.0, "shop": "NORTH"}]


def test_every_way_says_what_is_unusual(shop: Shop, tmp_path: Path) -> None:
    elsewhere = Home.open(tmp_path / "home")
    for told in (over_http(shop.sums, tmp_path, UNUSUAL), as_events(shop.sums, tmp_path, UNUSUAL)):
        assert "flags" not in told[0]
        assert [flag["column"] for flag in told[1]["flags"]] == ["price", "shop"]
        assert told[1]["flags"][1]["text"] == "shop unknown 'NORTH'" and "North" in told[1]["flags"][1]["hint"]
    data = b"\n".join(json.dumps(one).encode() for one in UNUSUAL)
    device = score_source(shop.sums, data, tmp_path / "edge.jsonl")
    assert device.flagged == 1 and device.flags.startswith("1 of 2 rows flagged")
    assert "flags" in json.loads((tmp_path / "edge.jsonl").read_text().splitlines()[1])
    assert collect(tmp_path / "edge.jsonl", home=shop.home).flagged == 1
    batch = score_batch(shop.sums, pl.DataFrame(UNUSUAL), home=elsewhere)
    assert batch.flags.rows == 1 and pl.read_parquet(batch.partitions[0])["flags"].null_count() == 1
    name = read_log(elsewhere.log("sums"))["prediction_id"].to_list()
    facts = [replay(one, home=elsewhere) for one in name]
    assert sorted(len(fact["flags"]) for fact in facts) == [0, 2]
    lines = "\n".join(format_passport(max(facts, key=lambda fact: len(fact["flags"]))))
    assert "unusual: price above" in lines and "shop unknown 'NORTH'" in lines


def test_the_schema_of_the_service_knows_flags_refused_records_and_problems(shop: Shop) -> None:
    _, answer = read_schemas(shop.sums.folder)
    one, many, problem = answer["oneOf"]
    assert "flags" in one["properties"] and "flags" not in one["required"]
    assert many["items"]["oneOf"][1]["required"] == ["index", "faults"]
    assert "code" in problem["required"]


def test_refuse_concerns_the_row_and_off_says_nothing(shop: Shop, tmp_path: Path) -> None:
    strict, silent = (replace(shop.sums, flags=flags) for flags in ("refuse", "off"))
    told = over_http(strict, tmp_path, UNUSUAL)
    assert "score" in told[0] and len(told[1]["faults"]) == 2
    assert ["score" in one for one in as_events(strict, tmp_path / "a", UNUSUAL)] == [True, False]
    assert all("flags" not in one for one in over_http(silent, tmp_path / "b", UNUSUAL))
    pl.DataFrame(UNUSUAL).write_parquet(tmp_path / "rows.parquet")
    for version, scored in ((strict, 1), (silent, 2)):
        report = score_file(version, tmp_path / "rows.parquet", home=Home.open(tmp_path / "home"))
        assert (report.scored, report.flags.rows) == (scored, 0)
        assert pl.read_parquet(report.out)["flags"].null_count() == scored


def test_the_policy_is_read_from_settings_and_a_wrong_word_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    file = tmp_path / "settings.ini"
    file.write_text("[workbench]\n[contract]\nflags = refuse\n")
    assert load_settings(tmp_path).contract_flags == "refuse"
    for text in ("[workbench]\n[contract]\nflags = refused\n", "[workbench]\n[contract]\nflag = off\n"):
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"did you mean|known"):
            load_settings(tmp_path)
    file.write_text("[workbench]\n")
    assert load_settings(tmp_path).contract_flags == "tell"


def ask(hours: float, shop: str = "North", **more: object) -> dict[str, object]:
    at = (START + timedelta(hours=hours)).isoformat()
    return {"at": at, "order": "O1", "shop": shop, **more}


def flags_of(told: list[dict]) -> list[list[str]]:
    return [[flag["text"] for flag in one.get("flags", ())] for one in told]


def test_a_view_that_finds_nothing_or_is_far_behind_is_told(shop: Shop, tmp_path: Path) -> None:
    records = [ask(150), ask(150, "West"), ask(24 * 365 * 16), ask(150, left=3.0)]
    with OnlineStore(shop.home.online, read_only=True) as store:
        http = flags_of(over_http(shop.stock, tmp_path, records, store))
        events = flags_of(as_events(shop.stock, tmp_path, records[:3], store))
    pl.DataFrame(records, infer_schema_length=9).write_csv(tmp_path / "rows.csv")
    report = score_file(shop.stock, tmp_path / "rows.csv", home=shop.home)
    filed = [text.split("; ") if text else [] for text in pl.read_csv(report.out)["flags"].to_list()]
    assert http == filed and events == http[:3]
    assert http[0] == [] and http[1] == ["shop unknown 'West'", "nothing was found for view stock"]
    assert http[2] == ["view stock: 15 y behind, usually at most 59 min"]
    assert http[3] == ["left is given by view stock, the value sent was not used"]
    assert shop.stock.usual["views"]["stock"]["nothing"] == 0.0


def test_beyond_its_max_lag_a_view_refuses_the_row(shop: Shop, tmp_path: Path) -> None:
    records = [ask(150), ask(300), ask(201)]
    with OnlineStore(shop.home.online, read_only=True) as store:
        told = over_http(shop.waits, tmp_path, records, store)
        with PredictionLog(tmp_path / "late.sqlite") as log:
            service = Realtime(shop.waits, log, store=store)
            assert service.respond(json.dumps(records[1]).encode()).status == 503  # the store is behind, not the record
        with pytest.raises(FeatureError, match="behind"):
            as_events(shop.waits, tmp_path, records, store)
    assert ["score" in one for one in told] == [True, False, True]
    assert told[1]["faults"][0]["rule"] == "view stock: at most 4 h behind"
    pl.DataFrame(records).write_csv(tmp_path / "rows.csv")
    report = score_file(shop.waits, tmp_path / "rows.csv", home=shop.home)
    assert (report.scored, report.rejected) == (2, 1) and "at most 4 h behind; got 4 d" in report.first_fault


@pytest.mark.parametrize("kind", ["sqlite", "delta", "folder"])
def test_a_table_that_was_made_without_flags_gets_the_column(shop: Shop, tmp_path: Path, kind: str) -> None:
    elsewhere, requests = Home.open(tmp_path / "home"), pl.DataFrame(UNUSUAL)
    places = {"sqlite": f"sqlite:///{tmp_path}/p.db?table=p", "delta": f"delta:{tmp_path}/p", "folder": f"{tmp_path}/p"}
    from mlworkbench.data.sinks.open_sink import open_sink

    first = score_batch(shop.sums, requests, home=elsewhere)
    old = pl.read_parquet(first.partitions[0]).drop("row", "flags").insert_column(1, pl.lit("v").alias("version"))
    name = f"{shop.sums.version.replace(':', '-')}-all"
    open_sink(places[kind], folder=tmp_path).write(name, old)
    for _ in range(2):
        score_batch(shop.sums, requests, home=elsewhere, job=Job(to=places[kind]))
    if kind == "sqlite":
        with sqlite3.connect(tmp_path / "p.db") as connection:
            found = [row[0] for row in connection.execute("SELECT flags FROM p ORDER BY flags IS NULL")]
    else:
        stored = pl.read_delta(str(tmp_path / "p")) if kind == "delta" else pl.read_parquet(f"{tmp_path}/p/*.parquet")
        found = stored["flags"].sort(nulls_last=True).to_list()
    assert found[0].startswith("price above") and found[1:] == [None]
