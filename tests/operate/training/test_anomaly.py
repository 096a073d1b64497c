"""Outlier detectors, with labels and without: registered, certified in five deployments, watched, trained anew."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlworkbench
from mlworkbench.cli.app import run
from mlworkbench.client import Client
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.errors import DefinitionError, RefusedError, ScoringError, WorkbenchError
from mlworkbench.evaluation.log.label_writer import read_label_file, write_labels
from mlworkbench.evaluation.monitoring.evaluate import evaluate
from mlworkbench.examples.penguins import MEASUREMENTS, penguins_data
from mlworkbench.operate.certify.certificate import certify
from mlworkbench.operate.loop.monitor import monitor
from mlworkbench.operate.loop.retrain import train_beside
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.artifacts.manifest import read_document
from mlworkbench.scoring.definition import DEPLOYMENTS, ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

PENGUINS = penguins_data().drop(columns="species")


def forest() -> Any:
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((words, ["island", "sex"]), (SimpleImputer(), list(MEASUREMENTS)))
    return make_pipeline(columns, IsolationForest(n_estimators=10, contamination=0.05, random_state=0))


@pytest.fixture
def penguins(home: Home, made_once: Any) -> Home:
    """Penguins among whom some are odd; nobody knows which."""

    def make() -> None:
        result = mlworkbench.register(forest().fit(PENGUINS), PENGUINS, name="penguins", home=home)
        Registry(home).promote("penguins", result.tag, who="Ada", why="first", override="a test")

    made_once("penguins without labels", home, make)
    return home


def test_a_detector_without_labels_becomes_a_version_that_compiles(penguins: Home) -> None:
    version = Registry(penguins).open("penguins", "champion")
    told, last = version.declaration, forest().fit(PENGUINS)[-1]
    assert (told["task"], told["classes"], told["positive"], told["label"]) == ("anomaly", [-1, 1], 1, None)
    assert (told["method"], told["threshold"]) == ("score_samples", float(last.offset_))
    assert told["decision"] == {"rule": "threshold", "strict": False} and told["deployments"] == list(DEPLOYMENTS)
    assert version.scorer.kind == "compiled" and version.manifest["compiled"]["max_difference"] == 0.0
    assert version.manifest["metrics"] == {} and version.manifest["verdict"] == "undecided"
    blocks = read_document(version.folder, "profile.json")["blocks"]
    assert sum(block["counts"]["decisions"].get("-1", 0) for block in blocks) == 18
    assert Lake(penguins.lake).read("penguins_rows").columns == list(PENGUINS.columns)


def test_its_card_says_what_the_classes_are_and_why_nothing_was_measured(penguins: Home, capsys: Any) -> None:
    assert run(["models", "show", "penguins"]) == 0
    card = capsys.readouterr().out
    assert "Nothing was measured: the rows have no label." in card and "Gates: **undecided**." in card
    assert "| classes | -1 (an anomaly), 1 (normal) |" in card and "| task | anomaly |" in card


@pytest.mark.system
def test_five_deployments_give_the_scores_and_decisions_of_the_pipeline(penguins: Home) -> None:
    certificate = certify(Registry(penguins).open("penguins", "champion"), home=penguins)
    assert (certificate.summary["verdict"], certificate.summary["rows"]) == ("equal", 344)
    for row in certificate.summary["deployments"]:
        assert (row["verdict"], row["rows"], row["mismatches"], row["max_difference"]) == ("equal", 344, 0, 0.0)


@pytest.mark.system
def test_a_service_answers_minus_one_and_one(penguins: Home) -> None:
    pipeline = forest().fit(PENGUINS)
    odd = np.flatnonzero(pipeline.predict(PENGUINS) == -1)[:2].tolist()
    few = PENGUINS.iloc[[0, 1, *odd]]
    records = json.loads(few.to_json(orient="records"))
    with start_service("penguins", home=penguins) as service, Client(service.url) as client:
        told = client.score(records)
        described = client.invoke({"dataframe_records": records})
    assert [one["score"] for one in told] == pipeline.score_samples(few).tolist()
    assert [one["decision"] for one in told] == pipeline.predict(few).tolist() == [1, 1, -1, -1]
    assert described["predictions"] == [1, 1, -1, -1]


def test_a_day_without_labels_is_judged_by_its_rows_scores_and_decisions(penguins: Home) -> None:
    version, file = Registry(penguins).open("penguins", "champion"), penguins.path.parent / "day.csv"
    PENGUINS.sample(120, random_state=3).to_csv(file, index=False)
    score_file(version, str(file), out=str(file.with_name("out.csv")), home=penguins)
    found = evaluate("penguins", home=penguins)
    assert found.verdict == "undecided" and found.drift["verdict"] == "none"
    assert "no label: the version was made without; rows, scores and decisions are judged" in found.lines
    assert {one["reason"] for one in found.metrics["one_off"].values()} == {"no labelled rows"}
    lines = monitor("penguins", home=penguins, clock=lambda: time.time_ns() + 10**9).lines
    assert any("performance: no label: the version was made without" in line for line in lines)
    assert lines[0].startswith("verdict: pass")


def test_labels_that_come_later_are_measured_and_odd_ones_refused(penguins: Home, capsys: Any) -> None:
    version, file = Registry(penguins).open("penguins", "champion"), penguins.path.parent / "day.csv"
    PENGUINS.to_csv(file, index=False)
    score_file(version, str(file), out=str(file.with_name("out.csv")), home=penguins)
    out = pl.read_csv(file.with_name("out.csv"))
    known = out.select("prediction_id", "score", label="decision", available_at=pl.lit("2026-01-01T00:00:00+00:00"))
    known.with_columns(label=pl.col("label") + 1).write_csv(file)
    assert run(["label", str(file), "--model", "penguins"]) == 2
    assert "is none of -1 or 1, true or false (and 343 more such labels); none was written" in capsys.readouterr().err
    known.write_csv(file)
    assert run(["label", str(file), "--model", "penguins"]) == 0
    found = evaluate("penguins", home=penguins)
    assert {name: one["value"] for name, one in found.metrics["one_off"].items()} == {
        "roc_auc": 1.0, "f1": 1.0, "average_precision": 1.0,
    }  # fmt: skip
    assert not any("no label" in line for line in found.lines)


def numbers(count: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    draws = np.random.default_rng(0)
    odd = draws.random(count) < 0.1
    return pd.DataFrame({"a": draws.normal(size=count) + 6 * odd, "b": draws.normal(size=count)}), odd


def test_labels_of_either_form_judge_a_registered_detector_alike(home: Home) -> None:
    X, odd = numbers()
    detector = EllipticEnvelope(contamination=0.1, random_state=0).fit(X)
    values = []
    for labels in (np.where(odd, -1, 1), odd):
        result = register(detector, X, pd.Series(labels, name="odd"), name="odd", home=home)
        values.append({name: one["value"] for name, one in result.metrics.items()})
    assert values[0] == values[1] and values[0]["roc_auc"] > 0.95
    assert Registry(home).open("odd", result.tag).declaration["label_form"] == "flags"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda X: (EllipticEnvelope().fit(X), np.arange(300)), "label is 2.0 in row 2: -1 for an anomaly and 1 for"),
        (lambda X: (Ridge().fit(X, X["a"]), None), "no labels: only an outlier detector goes without; got Ridge;"),
        (lambda X: (LocalOutlierFactor().fit(X), None), "LocalOutlierFactor has none for new rows; set novelty=True"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_in_one_line(home: Home, given: Any, message: str) -> None:
    X = numbers()[0]
    pipeline, labels = given(X)
    with pytest.raises((DefinitionError, ScoringError)) as caught:
        register(pipeline, X, labels, name="odd", home=home)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_rows_needs_no_label_for_a_detector(home: Home, tmp_path: Any, capsys: Any) -> None:
    X = numbers(80)[0]
    X.to_csv(tmp_path / "rows.csv", index=False)
    skops.io.dump(EllipticEnvelope(random_state=0).fit(X), tmp_path / "odd.skops")
    assert run(["register", str(tmp_path / "odd.skops"), "--data", str(tmp_path / "rows.csv")]) == 0, (
        capsys.readouterr().err
    )
    assert Registry(home).open("odd", None).declaration["label"] is None


def defined(**fields: Any) -> ModelDefinition:
    X, odd = numbers()
    detector = make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, contamination=0.1))
    data = X.assign(at=pd.date_range("2026-01-01", periods=len(X), freq="2h", tz="UTC"), odd=odd)
    data = data if fields.get("label") else data.drop(columns="odd")
    named = {"task": "anomaly", "prediction_time": "at", "gates": {"roc_auc": (">=", 0.8)}, **fields}
    return ModelDefinition("odd", detector, data, **named)


def test_a_detector_is_trained_and_retrained_without_labels_and_its_gates_stay_undecided(home: Home) -> None:
    result = train(defined(), home=home)
    assert (result.gates["verdict"], result.metrics) == ("undecided", {})
    assert result.rows == {"train": 240, "validation": 60, "unlabelled": 0, "unknown_at_cut": 0}
    Registry(home).promote("odd", result.tag, who="Ada", why="first", override="a test")
    anew = train_beside(defined(seed=1), home=home)
    assert anew.before == result.tag and anew.trained.created
    assert {one["reason"] for found in anew.compared.values() for one in found.values()} == {"no labelled rows"}
    with pytest.raises(RefusedError):
        Registry(home).promote("odd", anew.trained.tag, who="Ada", why="second")


def test_flags_judge_a_trained_detector_whose_rows_all_teach(home: Home) -> None:
    result = train(defined(label="odd"), home=home)
    assert result.gates["verdict"] == "pass" and set(result.metrics) == {"roc_auc", "f1", "average_precision"}
    assert result.rows["train"] + result.rows["validation"] == 300
    version = Registry(home).open("odd", result.tag)
    assert version.declaration["label_form"] == "flags" and version.scorer.kind == "compiled"


def test_a_threshold_is_not_stated_for_a_detector(home: Home) -> None:
    with pytest.raises(WorkbenchError, match="threshold: an outlier detector has its own, offset_"):
        train(defined(label="odd", task=None, gates={}, threshold=-0.5), home=home)


def days(count: int, start: str, every: str, *, draws: np.random.Generator, apart: float = 3.0) -> pd.DataFrame:
    odd = draws.random(count) < 0.2
    at = pd.date_range(start, periods=count, freq=every, tz="UTC")
    values = {"a": draws.normal(size=count) + apart * odd, "b": draws.normal(size=count)}
    return pd.DataFrame({**values, "at": at, "odd": odd.astype(int)})


def test_a_day_on_which_anomalies_are_missed_is_told_by_its_labels(home: Home) -> None:
    draws = np.random.default_rng(0)
    detector = EllipticEnvelope(contamination=0.2, random_state=0)
    past = days(5000, "2026-01-01", "10min", draws=draws)
    named = {"task": "anomaly", "prediction_time": "at", "split": 0.4}
    result = train(ModelDefinition("odd", detector, past, "odd", **named), home=home)
    version = Registry(home).open("odd", result.tag)
    found = []
    for start, apart in (("2026-03-01", 3.0), ("2026-03-05", 0.5)):
        day, file = days(400, start, "3min", draws=draws, apart=apart), home.path.parent / f"{start}.csv"
        day.drop(columns="odd").to_csv(file, index=False)
        score_file(version, str(file), out=str(file.with_name("out.csv")), home=home)
        known = day[["odd"]].assign(prediction_id=pd.read_csv(file.with_name("out.csv"))["prediction_id"])
        known.assign(available_at=f"{start}T23:30:00+00:00").to_csv(file, index=False)
        write_labels(version, read_label_file(str(file), version), home=home)
        until = pd.Timestamp(f"{start}T23:45:00+00:00")
        now = int(until.timestamp() + 60) * 10**9
        told = monitor(
            "odd", home=home, start=f"{start}T00:00:00+00:00", end=until.isoformat(), clock=lambda now=now: now
        )
        found.append("\n".join(told.lines))
    assert found[0].startswith("verdict: pass")
    assert found[1].startswith("verdict: fail") and "wrong ranking" in found[1] and "loss" not in found[1]
