"""A home with a model of birds and a model with views, and some rows scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
