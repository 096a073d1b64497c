"""The user's own key passes through every deployment: it stands in output, answer and log, and is no feature."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.edge.collect import collect
from mlworkbench.deploy.edge.device import open_export, score_source
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.deploy.realtime.openapi import read_schemas
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.streaming.checkpoint import Writer
from mlworkbench.deploy.streaming.jsonl import JsonLines, Places
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.errors import ContractError, LogError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version

ASKED = [{"order_id": 2**53 + 1 + k, "size": float(k)} for k in range(4)]
KEYS = [row["order_id"] for row in ASKED]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Home:
    folder = tmp_path_factory.mktemp("key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bento"))
        made = Home.open(folder / "home")
        add(made, folder / "version")
        yield made


def add(home: Home, folder: Path) -> None:
    frame = FeatureFrame({"size": np.arange(60.0) % 7})
    contract = Contract((Column("size", "number"),))
    labels = (frame.columns["size"] > 3).astype(int)
    build_version(
        folder, model="orders", pipeline=LogisticRegression().fit(frame_to_pandas(frame, contract), labels),
        task="binary", classes=(0, 1), request=Contract((Column("order_id", "integer"), *contract.columns)),
        frame=contract, golden=({"size": np.arange(4.0)}, {}, frame.take(np.arange(4))),
        training=frame, labels=labels, extras={"key": "order_id"},
        deployments=("one_off", "batch", "realtime", "streaming", "edge"),
    )  # fmt: skip
    content = json.loads((folder / "manifest.json").read_text())["content_id"]
    Registry(home).add(folder, "orders", content)


@pytest.fixture(scope="module")
def version(home: Home) -> Version:
    return Registry(home).open("orders")


def lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ASKED))
    return path


def logged(home: Home, deployment: str) -> list[str]:
    return read_log(home.log("orders"), deployment=deployment)["key"].to_list()


def test_the_key_is_no_feature_and_no_golden_row_holds_it(version: Version) -> None:
    assert version.frame.names == ("size",)
    assert "order_id" not in json.dumps(version.golden) and version.declaration["key"] == "order_id"


def test_a_file_of_predictions_names_each_row_by_the_key_and_so_does_the_log(version, home, tmp_path) -> None:
    report = score_file(version, lines(tmp_path / "orders.jsonl"), home=home, out=tmp_path / "out.csv")
    assert (report.scored, pl.read_csv(tmp_path / "out.csv").columns[2]) == (4, "order_id")
    assert pl.read_csv(tmp_path / "out.csv")["order_id"].to_list() == KEYS
    assert logged(home, "one_off") == [str(key) for key in KEYS]


def test_a_batch_names_each_row_by_the_key(version: Version, home: Home) -> None:
    report = score_batch(version, pl.DataFrame(ASKED), home=home)
    assert pl.read_parquet(report.partitions)["order_id"].to_list() == KEYS
    assert logged(home, "batch") == [str(key) for key in KEYS]


def test_an_answer_over_http_names_the_key_and_needs_it(version: Version, home: Home) -> None:
    with closing(Realtime(version, PredictionLog(home.log("orders")))) as service:
        for _ in range(2):
            told = json.loads(service.respond(json.dumps(ASKED).encode(), "r-1").body)
            assert [row["key"] for row in told] == KEYS
        other = service.respond(json.dumps([{**ASKED[0], "order_id": 5}, *ASKED[1:]]).encode(), "r-1")
        assert (other.status, other.code) == (409, "request.request_id")
        for record in ({"size": 1.0}, {"size": 1.0, "order_id": None}):
            (told,) = json.loads(service.respond(json.dumps([record]).encode(), "r-2").body)
            assert told["faults"][0]["column"] == "order_id"
    assert logged(home, "realtime") == [str(key) for key in KEYS]


def test_the_schema_of_a_service_says_so(version: Version) -> None:
    asked, told = read_schemas(version.folder)
    assert "order_id" in asked["oneOf"][0]["required"] and "key" in told["oneOf"][0]["required"]


def test_a_stream_names_the_key_and_the_same_place_with_another_key_is_another_event(version, home, tmp_path) -> None:
    source = lines(tmp_path / "orders.jsonl")

    def run(out: str, path: Path = source) -> list[dict]:
        places = Places(str(path), str(tmp_path / out), once=True, name="till")
        channel = JsonLines(places, Writer("orders", version.version))
        with closing(Streaming(version, PredictionLog(home.log("orders")))) as worker, closing(channel):
            worker.run(channel)
        return [json.loads(line) for line in (tmp_path / out).read_text().splitlines()]

    first = run("out.jsonl")
    assert [row["key"] for row in first] == KEYS
    assert run("again.jsonl") == first, "read from the log"
    assert logged(home, "streaming") == [str(key) for key in KEYS]
    source.write_text(source.read_text().replace(str(KEYS[0]), str(KEYS[0] + 7)))
    with pytest.raises(Exception, match="another at the same place"):
        run("third.jsonl")


def test_a_device_writes_the_key_and_it_comes_home(version: Version, home: Home, tmp_path: Path) -> None:
    device = open_export(export_edge(version, tmp_path / "device").folder / "model")
    out = tmp_path / "predictions.jsonl"
    score_source(device, lines(tmp_path / "orders.jsonl").read_bytes(), out)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["key"] for line in written] == KEYS
    forged = tmp_path / "forged.jsonl"
    forged.write_text(out.read_text().replace(f'"key":"{KEYS[0]}"', '"key":"5"', 1))
    assert forged.read_text() != out.read_text()
    with pytest.raises(LogError, match="line 1, key"):
        collect(forged, home=home)
    assert collect(out, home=home).new == 4
    assert logged(home, "edge") == [str(key) for key in KEYS]


def test_a_file_without_the_key_is_refused_by_its_name(version: Version, home: Home, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("size\n1\n")
    with pytest.raises(ContractError, match="order_id"):
        score_file(version, tmp_path / "orders.csv", home=home)
