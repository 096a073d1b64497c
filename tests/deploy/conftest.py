"""A small home with two versions: one plain, one with views and a row function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
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
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Total, WindowView
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import frame_from_columns
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version

BIRDS = Contract(
    (
        Column("bill", "number", lower=0, upper=100, unit="mm", nullable=True),
        Column("island", "category", categories=("Biscoe", "Dream", "Torgersen"), closed=True),
        Column("ring", "text", nullable=True, personal=True),
    )
)
NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)


def words(values: list[str | None]) -> np.ndarray:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Workshop:
    """A home with models in it."""

    home: Home
    folder: Path
    environment: dict[str, str]

    def open(self, model: str) -> Version:
        return Registry(self.home).open(model)

    def trips(self, count: int = 50) -> pl.DataFrame:
        return trips(count)


def register(home: Home, folder: Path, *, promoted: bool = True, **fields: object) -> str:
    registry = Registry(home)
    model = str(fields["model"])
    fields.setdefault("deployments", ("one_off", "batch", "realtime", "streaming"))
    tag = registry.add(folder, model, build_version(folder, **fields))
    if promoted:
        registry.promote(model, tag, who="test", why="first", override="a test")
    return tag


def bird_columns(count: int = 60) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    bill = random.normal(44, 5, count).round(1)
    bill[3] = np.nan
    island = words(random.choice(["Biscoe", "Dream", "Torgersen"], count).tolist())
    return {"bill": bill, "island": island, "ring": words([f"R{k:03}" for k in range(count)])}


def add_birds(
    home: Home,
    folder: Path,
    *,
    name: str = "birds",
    classes: tuple[str, ...] = ("Adelie", "Gentoo"),
    seed: int = 0,
    **more: object,
) -> str:
    columns = bird_columns()
    contract = BIRDS.select(["bill", "island"])
    frame = frame_from_columns(columns, contract)
    table = frame_to_pandas(frame, contract)
    filled = np.nan_to_num(columns["bill"], nan=40.0)
    labels = np.array([classes[min(int(b > 42) + int(b > 47), len(classes) - 1)] for b in filled])
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["island"]), remainder="passthrough")
    pipeline = make_pipeline(encode, RandomForestClassifier(12, random_state=seed)).fit(table, labels)
    few = np.arange(8)
    golden = ({name: values[few] for name, values in columns.items()}, {}, frame.take(few))
    task = "binary" if len(classes) == 2 else "multiclass"
    return register(
        home, folder, model=name, pipeline=pipeline, task=task, classes=classes, request=BIRDS, frame=contract,
        golden=golden, training=frame, labels=labels, entity=("ring",), personal=("ring",), **more,
    )  # fmt: skip


WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=6))
TOTALS = {"landed": Total("count"), "delay": Total("mean", "delay", 1)}
LANDINGS = WindowView("landings", "flights", ("origin",), timedelta(hours=3), TOTALS)
TRIPS = Contract(
    (
        Column("trip", "text"),
        Column("origin", "category"),
        Column("asked", "time"),
        Column("distance", "number", lower=0),
    )
)
DELAYS = Contract(
    (
        Column("distance", "number"),
        Column("wind", "number", nullable=True),
        Column("landed", "integer"),
        Column("delay", "number", nullable=True),
    )
)


def fill_lake(home: Home) -> Lake:
    lake = Lake(home.lake)
    hours = [NOON + timedelta(hours=k) for k in range(-6, 30)]
    wind = [float(k) for k in range(36)]
    weather = pl.DataFrame({"origin": ["JFK"] * 36, "available_at": hours, "wind": wind, "sky": ["clear"] * 36})
    minutes = [NOON + timedelta(minutes=11 * k) for k in range(-40, 160)]
    delay = [float(k % 37) for k in range(200)]
    flights = pl.DataFrame({"origin": ["JFK", "LGA"] * 100, "available_at": minutes, "delay": delay})
    for name, table in (("weather", weather), ("flights", flights)):
        exact = table.with_columns(pl.col("available_at").dt.cast_time_unit("us"))
        lake.append(name, exact.to_arrow(), transaction=None)
    return lake


def trips(count: int = 50) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "trip": [f"T{k}" for k in range(count)],
            "origin": ["JFK" if k % 3 else "LGA" for k in range(count)],
            "asked": [NOON + timedelta(minutes=31 * k) for k in range(count)],
            "distance": [300.0 + 17 * k for k in range(count)],
        }
    )


def add_delays(home: Home, folder: Path) -> str:
    from mlworkbench.deploy.table_request import columns_of_table
    from mlworkbench.deploy.table_scoring import view_values

    lake = fill_lake(home)
    columns = columns_of_table(trips(), TRIPS)
    values = view_values(columns, (WEATHER, LANDINGS), lake, columns["asked"])
    frame = frame_from_columns({**columns, **values}, DELAYS)
    table = frame_to_pandas(frame, DELAYS)
    labels = np.arange(50) % 2 == 0
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=2000)).fit(table, labels)
    few = np.arange(20, 28)
    golden = tuple({name: v[few] for name, v in part.items()} for part in (columns, values))
    tag = register(
        home, folder, model="delays", pipeline=pipeline, task="binary", classes=(False, True), request=TRIPS,
        frame=DELAYS, golden=(*golden, frame.take(few)), training=frame, labels=labels, entity=("trip",),
        views=(WEATHER, LANDINGS), prediction_time="asked", threshold=0.5,
    )  # fmt: skip
    store = OnlineStore(home.online)
    materialize((WEATHER, LANDINGS), lake, store)
    store.close()
    return tag


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A home with the models birds, species (three classes) and delays (views); shared, so never altered."""
    folder = tmp_path_factory.mktemp("workshop")
    places = {"BENTOML_HOME": str(folder / "bentoml"), "MLWORKBENCH_HOME": str(folder / "home")}
    environment = {**places, "BENTOML_DO_NOT_TRACK": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        home = Home.open(folder / "home")
        add_birds(home, folder / "build-birds")
        add_birds(home, folder / "build-species", name="species", classes=("Adelie", "Chinstrap", "Gentoo"))
        add_delays(home, folder / "build-delays")
        yield Workshop(home, folder, environment)


@pytest.fixture(scope="module", autouse=True)
def environment_of_the_workshop(workshop: Workshop) -> Iterator[None]:
    """Set the workshop's environment for each file anew: a test that set its own before the workshop put it away."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in workshop.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def elsewhere(workshop: Workshop, tmp_path: Path) -> Home:
    """A home of one's own that shares the model store: logs and outputs start empty."""
    home = Home.open(tmp_path / "home")
    registry = Registry(home)
    for model in ("birds", "species", "delays"):
        version = workshop.open(model)
        tag = registry.add(version.folder, model, version.content_id)
        registry.promote(model, tag, who="test", why="shared store", override="a test")
    return home
