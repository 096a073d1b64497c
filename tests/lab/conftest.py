"""A home with a model of birds and a model with views, and some rows scored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.table_request import columns_of_table
from mlworkbench.deploy.table_scoring import view_values
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Total, WindowView
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import frame_from_columns
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=6))
LANDED = {"landed": Total("count"), "delay": Total("mean", "delay", 1)}
LANDINGS = WindowView("landings", "flights", ("origin",), timedelta(hours=3), LANDED)
TRIPS = Contract(
    (
        Column("trip", "text"),
        Column("origin", "category", categories=("JFK", "LGA"), closed=True),
        Column("asked", "time"),
        Column("distance", "number", lower=0, upper=3000, unit="miles"),
    )
)
FRAME = Contract(
    (
        Column("distance", "number"),
        Column("wind", "number", nullable=True, lower=0, upper=40, learned=True),
        Column("landed", "integer"),
        Column("delay", "number", nullable=True),
    )
)


@dataclass(frozen=True)
class Rooms:
    """A home, and where its files are."""

    home: Home
    folder: Path

    def open(self, model: str) -> Version:
        return Registry(self.home).open(model)


def add_birds(home: Home) -> pd.DataFrame:
    random = np.random.default_rng(7)
    bill = random.normal(44, 5, 90).round(1)
    bill[::9] = np.nan
    island = pd.Series(random.choice(["Biscoe", "Dream", "Torgersen"], 90))
    rows = pd.DataFrame({"bill": bill, "island": island, "ringed": random.random(90) > 0.5})
    filled = np.nan_to_num(bill, nan=40)
    kinds = pd.Series(np.select([filled > 47, filled > 42], ["Gentoo", "Chinstrap"], "Adelie"))
    encode = make_column_transformer((OneHotEncoder(), ["island"]), remainder="passthrough")
    pipeline = make_pipeline(encode, RandomForestClassifier(12, random_state=0)).fit(rows, kinds)
    result = register(pipeline, rows, kinds.rename("kind"), name="birds", home=home)
    Registry(home).promote("birds", result.tag, who="test", why="first", override="a test")
    return rows


def add_trips(home: Home, folder: Path) -> None:
    lake, hours = Lake(home.lake), [NOON + timedelta(hours=k) for k in range(-6, 30)]
    places = ["JFK", "LGA"] * 18
    wind = [float(k) if place == "JFK" else 40.0 - k for k, place in enumerate(places)]
    weather = pl.DataFrame({"origin": places, "available_at": hours, "wind": wind, "sky": ["clear"] * 36})
    minutes = [NOON + timedelta(minutes=11 * k) for k in range(-40, 160)]
    late = [float(k % 37) for k in range(200)]
    flights = pl.DataFrame({"origin": ["JFK", "LGA"] * 100, "available_at": minutes, "delay": late})
    for name, table in (("weather", weather), ("flights", flights)):
        timed = table.with_columns(pl.col("available_at").dt.cast_time_unit("us"))
        lake.append(name, timed.to_arrow(), transaction=None)
    trips = pl.DataFrame(
        {
            "trip": [f"T{k}" for k in range(50)],
            "origin": ["JFK" if k % 3 else "LGA" for k in range(50)],
            "asked": [NOON + timedelta(minutes=31 * k) for k in range(50)],
            "distance": [300.0 + 17 * k for k in range(50)],
        }
    )
    columns = columns_of_table(trips, TRIPS)
    values = view_values(columns, (WEATHER, LANDINGS), lake, columns["asked"])
    frame = frame_from_columns({**columns, **values}, FRAME)
    labels = frame.columns["wind"] > 18
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=5000))
    pipeline.fit(frame_to_pandas(frame, FRAME), labels)
    few = np.arange(20, 28)
    golden = [{name: v[few] for name, v in part.items()} for part in (columns, values)]
    identity = build_version(
        folder, model="trips", pipeline=pipeline, task="binary", classes=(False, True), request=TRIPS, frame=FRAME,
        golden=(*golden, frame.take(few)), training=frame, labels=labels, entity=("trip",), views=(WEATHER, LANDINGS),
        prediction_time="asked", threshold=0.5,
    )  # fmt: skip
    registry = Registry(home)
    registry.promote("trips", registry.add(folder, "trips", identity), who="test", why="first", override="a test")
    store = OnlineStore(home.online)
    materialize((WEATHER, LANDINGS), lake, store)
    store.close()


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """Models birds (three classes, 40 rows scored) and trips (views); shared, so never altered."""
    folder = tmp_path_factory.mktemp("rooms")
    variables = {"BENTOML_HOME": str(folder / "bentoml"), "MLWORKBENCH_HOME": str(folder / "home")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        home = Home.open(folder / "home")
        birds = add_birds(home)
        birds.head(40).to_parquet(folder / "birds.parquet")
        score_file(Registry(home).open("birds"), folder / "birds.parquet", home=home)
        add_trips(home, folder / "build")
        yield Rooms(home, folder)


def late_rows(rows: int = 300) -> tuple[pd.DataFrame, pd.Series]:
    draws = np.random.default_rng(3)
    flights = pd.DataFrame({"distance": draws.uniform(0, 25, rows), "wind": draws.uniform(0, 40, rows)})
    return flights, pd.Series(flights["distance"] + flights["wind"] > 33, name="late")


def fill_late(home: Home, folder: Path) -> None:
    """Two versions of one model, of which the first is champion and has answered forty rows."""
    flights, late = late_rows()
    tags = [
        register(LogisticRegression().fit(flights[:n], late[:n]), flights, late, name="late", home=home).tag
        for n in (300, 30)
    ]
    Registry(home).promote("late", tags[0], who="test", why="first", override="a test")
    flights.head(40).to_parquet(folder / "flights.parquet")
    score_file(Registry(home).open("late"), folder / "flights.parquet", home=home)


@pytest.fixture(scope="session")
def made_late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home of two versions, to be copied."""
    folder = tmp_path_factory.mktemp("late")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("MLWORKBENCH_HOME", str(folder / "home"))
        patch.chdir(folder)
        fill_late(Home.open(folder / "home"), folder)
    return folder


@pytest.fixture
def late(made_late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of one's own with two versions of one model; the champion has answered forty rows."""
    shutil.copytree(made_late, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Home.open()


def read_widget(widget: Any) -> str:
    """Give all text that a widget shows, from top to bottom."""
    own = [str(getattr(widget, name, "") or "") for name in ("description", "value")]
    return "\n".join([*own, *(read_widget(child) for child in getattr(widget, "children", ()))])


def run_notebook(name: str) -> dict[str, Any]:
    """Run the cells of an explore page one after the other, as Jupyter does with each as it is."""
    names: dict[str, Any] = {}
    file = Path(__file__).parents[2] / "nbs" / "explore" / f"{name}.ipynb"
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, name, "exec"), names)
    return names
