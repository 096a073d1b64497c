"""Boosters and samplers outside scikit-learn: registered, opened and asked without a word in settings.ini."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlworkbench
from mlworkbench.core.home import Home
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame(RANDOM.normal(size=(300, 2)), columns=["weight", "power"]).assign(
    maker=pd.Categorical(RANDOM.choice(["ford", "fiat", "seat"], 300))
)
ROWS.loc[::7, "power"] = np.nan
LABELS = ROWS.weight > 0.3


def lightgbm() -> Any:
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=8, verbose=-1)


def xgboost() -> Any:
    return pytest.importorskip("xgboost").XGBClassifier(n_estimators=8, enable_categorical=True)


def catboost() -> Any:
    options = {"iterations": 8, "verbose": 0, "allow_writing_files": False, "cat_features": ["maker"]}
    return pytest.importorskip("catboost").CatBoostClassifier(**options)


@pytest.mark.parametrize("make", [lightgbm, xgboost, catboost])
def test_a_booster_answers_as_it_did_in_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    model = make().fit(ROWS, LABELS)
    home = Home.open(tmp_path / "home")
    tag = mlworkbench.register(model, ROWS, LABELS, name="cars", home=home).tag
    version = Registry(home).open("cars", tag)
    columns = {"weight": ROWS.weight, "power": ROWS.power, "maker": ROWS.maker.astype(object)}
    frame = FeatureFrame({name: values.to_numpy() for name, values in columns.items()})
    assert np.abs(version.score(frame) - model.predict_proba(ROWS)[:, 1]).max() < 1e-12


NOWHERE = """
import runpy, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("lightgbm", "sklearn", "pandas", "scipy", "skops", "pyarrow", "polars", "onnx"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_lightgbm_pipeline_compiles_and_answers_on_a_device_without_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    rows = ROWS.copy()
    rows.loc[::5, "maker"] = np.nan
    model = make_pipeline(lightgbm().set_params(min_child_samples=5)).fit(rows, LABELS)
    home = Home.open(tmp_path / "home")
    version = Registry(home).open("cars", mlworkbench.register(model, rows, LABELS, name="cars", home=home).tag)
    assert version.scorer.kind == "compiled", version.manifest["compiled"]
    device = export_edge(version, tmp_path / "device").folder
    asked = rows.assign(maker=rows.maker.cat.add_categories("saab"))
    asked.loc[::11, "maker"] = "saab"
    lines = [{name: None if v != v else v for name, v in row.items()} for row in asked.to_dict("records")]
    events = tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    program = [sys.executable, "-c", NOWHERE, str(device / "score.py"), str(events)]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = [json.loads(line)["score"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(got) == len(rows)
    assert np.abs(np.array(got) - model.predict_proba(asked)[:, 1]).max() <= 1e-15


def test_a_sampler_before_the_estimator_needs_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pytest.importorskip("imblearn.pipeline")
    sampler = pytest.importorskip("imblearn.over_sampling").SMOTE(random_state=0)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    rows = ROWS[["weight"]]
    model = pipeline.make_pipeline(StandardScaler(), sampler, LogisticRegression()).fit(rows, LABELS)
    home = Home.open(tmp_path / "home")
    mlworkbench.register(model, rows, LABELS, name="cars", home=home)
    version = Registry(home).open("cars")
    scores = version.score(FeatureFrame({"weight": rows.weight.to_numpy()}))
    assert np.abs(scores - model.predict_proba(rows)[:, 1]).max() < 1e-12
