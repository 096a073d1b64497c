"""Boosters and samplers outside scikit-learn: registered, opened and asked without a word in settings.ini."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import mlworkbench
from mlworkbench.core.home import Home
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
