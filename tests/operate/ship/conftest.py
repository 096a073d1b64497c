"""A home with one model that compiles and one that does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlworkbench import register
from mlworkbench.core.home import Home


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home and a model store that hold the models line (compiled) and near (reference)."""
    folder = tmp_path_factory.mktemp("shop")
    draws = np.random.default_rng(1)
    rows = pd.DataFrame({"distance": draws.uniform(100, 2500, 120), "carrier": draws.choice(["AA", "UA"], 120)})
    late = pd.Series(np.where(rows["distance"] + draws.normal(0, 300, 120) > 1300, "late", "fine"), name="state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.chdir(folder)
        home = Home.open(folder / "home")
        for name, last in (
            ("line", LogisticRegression(max_iter=3000)),
            ("near", KNeighborsClassifier(algorithm="brute")),
        ):
            encode = make_column_transformer((OneHotEncoder(), ["carrier"]), remainder="passthrough")
            register(make_pipeline(encode, last).fit(rows, late), rows, late, name=name, home=home)
    return folder


@pytest.fixture
def shop(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home with its two models; shared, so never altered."""
    monkeypatch.setenv("BENTOML_HOME", str(filled / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(filled / "home"))
    monkeypatch.chdir(filled)
    return Home.open(filled / "home")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "image"
