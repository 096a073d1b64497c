"""Run in a process of its own: a model of persons from its sources through every deployment, by the command line."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import skops.io
from persons import PERSON, STRANGER, asked, events, rides
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.cli.app import run
from mlworkbench.client import Client
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import batch_requests, score_batch
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.errors import WorkbenchError
from mlworkbench.evaluation.log.label_writer import write_labels
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry


def told(*words: str, codes: tuple[int, ...] = (0,)) -> None:
    print("$", " ".join(words).replace(PERSON, "PERSON"), flush=True)
    code = run(list(words))
    assert code in codes, f"{words[0]} ended with {code}"


def ask_service(home: Home) -> None:
    with start_service("tips", home=home) as service, Client(service.url) as client:
        print(client.score([asked(), asked(rider=STRANGER)], request_id="persons"))
        for wrong in (asked(fare=-1), asked(rider=7), {**asked(rider=None), "ridr": PERSON}):
            try:
                client.score(wrong)
            except WorkbenchError as error:
                print("refused:", error)


def register_fares(home: Home) -> None:
    """Register a pipeline that was fitted in a notebook, and ask it everywhere by name."""
    table = rides().to_pandas()
    rows, tips = table[["rider", "fare"]], table["tip"]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[["fare"]], tips)
    register(pipeline, rows, tips, name="fares", personal=("rider",), home=home)
    skops.io.dump(pipeline, "fares.skops")
    table[["rider", "fare", "tip"]].to_csv("asked.csv", index=False)
    words = ("--name", "fares2", "--data", "asked.csv", "--label", "tip", "--personal", "rider")
    told("register", "fares.skops", *words)
    for model in ("fares", "fares2"):
        told("score", "asked.csv", "--model", model, "--out", f"{model}.csv", codes=(0, 1))
        told("batch", "--model", model)
        told("certify", model, "--rows", "60")
        told("replay", "log", "--model", model)
    with start_service("fares", home=home) as service, Client(service.url) as client:
        print(client.score([{"rider": PERSON, "fare": 7.0}, {"rider": STRANGER, "fare": 7.0}], request_id="fares"))
        for wrong in ({"rider": PERSON}, {"rider": 7, "fare": 7.0}, {"ridr": PERSON, "fare": 7.0}):
            try:
                client.score(wrong)
            except WorkbenchError as error:
                print("refused:", error)
    ids = read_log(home.log("fares"))["prediction_id"].head(40)
    known = pl.lit("2024-06-01T00:00:00+00:00")
    pl.DataFrame({"prediction_id": ids, "tip": [0, 1] * 20}).with_columns(available_at=known).write_csv("known.csv")
    told("label", "known.csv", "--model", "fares")
    told("label", "asked.csv", "--model", "fares", codes=(2,))
    told("evaluate", "--model", "fares")


def label_from_python(home: Home) -> None:
    asked_at = datetime.fromisoformat(rides(1)["asked"][0])
    at = int(asked_at.timestamp() * 1_000_000)
    row = {"entity": {"rider": PERSON}, "prediction_time": at, "value": 1, "available_at": at + 1}
    print(write_labels(Registry(home).open("tips"), [row], home=home), "label from Python")


def main() -> None:
    home = Home.open(Path("home"))
    told("ingest")
    told("train")
    told("features", "materialize")
    told("features", "get", f"rider={PERSON}", "--view", "rides", "--at", "2024-03-09T12:00:00+00:00", "--json")
    told("features", "check")
    told("features", "leaks", codes=(0, 1))
    rows = pl.concat([rides(30), rides(2).with_columns(fare=pl.lit(-5.0))])
    rows.write_csv("asked.csv")
    rows.write_parquet("asked.parquet")
    told("score", "asked.csv", "--out", "scored.csv", codes=(1,))  # more rows refused than max_refused
    told("score", "asked.parquet", "--out", "scored.parquet", codes=(1,))
    version = Registry(home).open("tips")
    score_batch(version, batch_requests("tips", home=home), home=home)
    score_batch(version, rides().with_columns(pl.col("asked").str.to_datetime("%+", time_unit="us")), home=home)
    ask_service(home)
    Path("events.jsonl").write_bytes(events())
    told("stream", "events.jsonl", "--once", "--out", "streamed.jsonl")
    labels = rides(30).select("rider", "asked", "tip", available_at=pl.lit("2024-06-01T00:00:00+00:00"))
    labels.write_csv("labels.csv")
    told("label", "labels.csv")
    label_from_python(home)
    told("certify", "--rows", "60")
    told("certify", "served", "--start", "2020-01-01T00:00:00+00:00")
    told("replay", "log")
    log = read_log(home.log("tips"))
    told("replay", log["prediction_id"][0])
    told("models", "show", "--json", codes=(0, 2))
    register_fares(home)
    print(json.dumps({"rows": log.height, "deployments": sorted(log["deployment"].unique().to_list())}))


if __name__ == "__main__":
    sys.path.insert(0, ".")
    main()
