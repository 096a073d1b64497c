"""Families that a device takes: each exported, and equal to its pipeline on ten thousand real rows with numpy alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from bare import lines, run
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from mlworkbench.core.home import Home
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.deploy.reasons import compare_explanations
from mlworkbench.examples.flights_tables import prepare_flights, raw_table
from mlworkbench.operate.certify.deployments import DEPLOYMENT_CALLERS
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")
WORDS = ["carrier", "origin", "dest"]
NUMBERS = ["sched_dep_minute", "sched_arr_minute", "weekday", "distance", "wind_speed", "visib"]
FITTED, ASKED = 4_000, 10_000


def real_flights() -> pd.DataFrame:
    """Give flights with the weather of their hour and the names of airline, airports and plane; values are missing."""
    raw = raw_table("flights").to_pandas()
    kept = prepare_flights(raw_table("flights")).to_pandas()[[*WORDS, *NUMBERS[:4], "late"]]
    weather = raw_table("weather").to_pandas()[["origin", "time_hour", "wind_speed", "visib"]]
    found = raw[["origin", "time_hour"]].merge(weather, how="left", on=["origin", "time_hour"])
    kept["wind_speed"], kept["visib"] = found["wind_speed"].to_numpy(), found["visib"].to_numpy()
    airlines = raw_table("airlines").to_pandas().set_index("carrier")["name"]
    airports = raw_table("airports").to_pandas().set_index("faa")["name"]
    planes = raw_table("planes").to_pandas().set_index("tailnum")
    parts = [raw["carrier"].map(airlines), raw["origin"].map(airports), raw["dest"].map(airports)]
    parts += [raw["tailnum"].map(planes[name]) for name in ("manufacturer", "model", "type")]
    kept["text"] = parts[0].str.cat(parts[1:], sep=" ", na_rep="")
    kept = kept[kept["late"].notna()].sample(FITTED + ASKED, random_state=0, ignore_index=True)
    kept.loc[kept.index % 97 == 0, WORDS[2]] = None
    return kept


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Home.open(tmp_path / "home")


def boosted() -> Any:
    lightgbm = pytest.importorskip("lightgbm")
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    trees = lightgbm.LGBMClassifier(n_estimators=60, categorical_feature=[0, 1, 2], verbose=-1, random_state=0)
    return make_pipeline(make_column_transformer((codes, WORDS), ("passthrough", NUMBERS)), trees)


def stacked() -> Any:
    words = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    parts = [("trees", HistGradientBoostingClassifier(max_iter=20, random_state=0))]
    parts += [("line", LogisticRegression(max_iter=1000))]
    columns = make_column_transformer((words, WORDS), (numbers, NUMBERS), sparse_threshold=0)
    return make_pipeline(columns, StackingClassifier(parts, cv=3))


def worded() -> Any:
    text = TfidfVectorizer(ngram_range=(1, 2), min_df=5, sublinear_tf=True)
    return make_pipeline(make_column_transformer((text, "text")), LogisticRegression(max_iter=1000))


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "columns"),
    [(boosted, [*WORDS, *NUMBERS]), (stacked, [*WORDS, *NUMBERS]), (worded, ["text"])],
    ids=["lightgbm", "stacked", "tf-idf"],
)
def test_an_export_answers_ten_thousand_flights_as_its_pipeline_with_numpy_alone(
    make: Any, columns: list[str], home: Home, tmp_path: Path
) -> None:
    rows = real_flights()
    X, y, fresh = rows[columns][:FITTED], rows["late"][:FITTED] == 1, rows[columns][FITTED:]
    pipeline = make().fit(X, y)
    version = Registry(home).open("late", register(pipeline, X, y, name="late", home=home).tag)
    assert version.scorer.kind == "compiled", version.manifest["compiled"]
    needs = export_edge(version, tmp_path / "device").needs
    fresh.to_json(tmp_path / "events.jsonl", orient="records", lines=True, double_precision=15)
    done = run(tmp_path, tmp_path / "device", str(tmp_path / "events.jsonl"), "--json")
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "predictions.jsonl")
    expected = pipeline.predict_proba(fresh)[:, 1]
    assert [line["line"] for line in found] == list(range(1, ASKED + 1))
    apart = float(np.abs(np.array([line["score"] for line in found]) - expected).max())
    mismatches = int((np.array([line["decision"] for line in found]) != pipeline.predict(fresh)).sum())
    missing, seconds = int(fresh.isna().to_numpy().sum()), json.loads(done.stdout)["seconds"]
    name = os.environ.get("PYTEST_CURRENT_TEST", "").partition("[")[2].partition("]")[0]
    said = f"largest difference {apart:.2g}, {mismatches} mismatches, {ASKED / seconds:,.0f} rows a second"
    print(f"\n{name}: {ASKED:,} flights, {missing:,} values missing, with {', '.join(needs)}: {said}")
    assert apart <= 1e-9 and mismatches == 0


@pytest.mark.system
def test_the_reasons_of_one_flight_are_the_same_in_five_deployments(home: Home) -> None:
    rows = real_flights()
    X, y = rows[[*WORDS, *NUMBERS]][:FITTED], rows["late"][:FITTED] == 1
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    trees = HistGradientBoostingClassifier(max_iter=30, categorical_features=[0, 1, 2], random_state=0)
    model = make_pipeline(make_column_transformer((codes, WORDS), ("passthrough", NUMBERS)), trees).fit(X, y)
    tag = register(model, X, y, name="late", deployments=tuple(DEPLOYMENT_CALLERS), home=home).tag
    version, flight = Registry(home).open("late", tag), pl.from_pandas(rows[X.columns][FITTED : FITTED + 1])
    answers = {name: ask(version, flight, home=home, explain=True) for name, ask in DEPLOYMENT_CALLERS.items()}
    told = {name: one.explanations[0] for name, one in answers.items()}
    table = {name: {part["column"]: part["contribution"] for part in one["reasons"]} for name, one in told.items()}
    shown = pd.DataFrame(table).assign(largest=lambda t: t.max(axis=1) - t.min(axis=1))
    print(f"\n{flight.to_dicts()[0]}\n{shown.to_string()}")
    first = told["one_off"]
    assert (first["kind"], first["unit"], len(first["reasons"])) == ("exact", "log-odds", X.shape[1])
    assert list(told) == ["one_off", "batch", "realtime", "streaming", "edge"]
    assert max(compare_explanations(first, one) for one in told.values()) <= 1e-9
    margin = np.log(answers["edge"].scores / (1 - answers["edge"].scores))
    assert [abs(one["margin"] - margin[0]) < 1e-9 for one in told.values()] == [True] * 5
    assert all(abs(one["base"] + sum(table[name].values()) - one["margin"]) < 1e-9 for name, one in told.items())
