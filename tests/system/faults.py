"""A small model in running deployments, and the faults that are planted in them, one at a time."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from flight_rows import speed_of
from planted_steps import STEPS, calls
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import list_log_files
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView, Total, View, WindowView
from mlworkbench.operate.certify.answers import DeploymentAnswers, DeploymentCaller
from mlworkbench.operate.certify.deployments import (
    ask_batch,
    ask_one_off,
    ask_service,
    ask_streaming,
    refresh_online_store,
)
from mlworkbench.operate.certify.examine import examine_deployment
from mlworkbench.operate.certify.fault_finder import FoundFault, ReferenceSteps, find_fault, trace_reference
from mlworkbench.operate.certify.reference import Reference, predict_reference
from mlworkbench.operate.certify.requests import draw_requests
from mlworkbench.operate.certify.verdict import DeploymentVerdict
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.artifacts.manifest import file_digests, json_text
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version

PLANTED = Path(__file__).parent / "planted"
START, HOURS, NEW_YORK = datetime(2013, 3, 8, tzinfo=UTC), 100, ZoneInfo("America/New_York")
ORIGINS = ("EWR", "JFK", "LGA")
WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=3))
RECENT = {"landed": Total("count"), "recent": Total("mean", "delay", 1)}
LANDINGS = WindowView("landings", "landings", ("origin",), window=timedelta(hours=1), columns=RECENT)
CATEGORIES = ["origin", "carrier", "gate", "sky"]
NUMBERS = ["distance", "air_time", "temp", "hour", "speed", "wind", "landed", "recent"]


def fill_lake(lake: Lake) -> None:
    """Landings every five minutes, on the minute of the requests; weather every hour, with a gap of twelve hours."""
    draws = np.random.default_rng(2)
    landed = [START + timedelta(minutes=5 * n) for n in range(12 * HOURS)]
    delay = draws.normal(8, 12, len(landed)).round(1)
    table = {"origin": draws.choice(ORIGINS, len(landed)), "available_at": landed, "delay": delay}
    lake.append("landings", pl.DataFrame(table).to_arrow(), transaction=None)
    rows = [(origin, n) for origin in ORIGINS for n in range(HOURS) if not (origin == "LGA" and 60 <= n < 72)]
    sky = ["clear" if n // 12 % 2 else None if n // 12 % 3 else "rain" for _, n in rows]
    hours = [START + timedelta(hours=n) for _, n in rows]
    wind = draws.uniform(0, 30, len(rows))
    weather = {"origin": [origin for origin, _ in rows], "available_at": hours, "wind": wind, "sky": sky}
    lake.append("weather", pl.DataFrame(weather).to_arrow(), transaction=None)


def flights(count: int = 600) -> pl.DataFrame:
    """Flights every ten minutes, over the night in which the clocks go forward."""
    draws = np.random.default_rng(3)
    at = [START + timedelta(minutes=10 * n) for n in range(count)]
    distance, temp = draws.uniform(100, 2500, count), draws.normal(9, 8, count)
    carrier = draws.choice(["AA", "B6", "DL", "UA"], count)
    hour = np.array([moment.astimezone(NEW_YORK).hour for moment in at])
    odds = distance / 900 - temp / 9 + (carrier == "UA") + hour / 9 + draws.normal(0, 1, count)
    return pl.DataFrame(
        {
            "flight": [f"{one} {n}" for n, one in enumerate(carrier)],
            "at": at,
            "origin": draws.choice(ORIGINS, count),
            "carrier": [None if n % 23 == 5 else str(one) for n, one in enumerate(carrier)],
            "gate": draws.choice(["01", "02", "03"], count),
            "distance": distance,
            "air_time": distance / 8 + draws.uniform(15, 40, count),
            "temp": [None if n % 19 == 7 else value for n, value in enumerate(temp.tolist())],
            "hour": hour,
            "late": (odds > 2.2).astype(int),
        }
    )


def definition(rows: pl.DataFrame) -> ModelDefinition:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = make_column_transformer((codes, CATEGORIES), ("passthrough", NUMBERS))
    trees = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=12, learning_rate=0.3, random_state=0)
    return ModelDefinition(
        "late",
        TunedThresholdClassifierCV(make_pipeline(columns, trees), cv=3, random_state=0),
        rows,
        "late",
        entity=("flight",),
        prediction_time="at",
        views=(WEATHER, LANDINGS, RowFunction(speed_of)),
        features=(*CATEGORIES, *NUMBERS),
        deployments=("one_off", "batch", "realtime", "streaming"),
    )


@dataclass(frozen=True, eq=False)
class World:
    """A model, its deployments up and running, and what they are held against."""

    home: Home
    version: Version
    old: str
    asked: pl.DataFrame
    reference: Reference
    trail: ReferenceSteps
    switch: Path
    urls: list[str] = field(default_factory=list)
    uncalled: list[str] = field(default_factory=list)

    def ask(self, records: list[dict[str, Any]] | None = None) -> DeploymentAnswers:
        """Ask the warm service; by default for the rows as they are."""
        names = self.version.request.names
        given = self.asked.select(names).to_dicts() if records is None else records
        return ask_service(self.urls[0], given, self.version)

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Switch a fault on inside the running processes; one whose faulty step nobody called is noted."""
        step, called = name.split()[0], calls(self.switch)
        assert step in STEPS, f"{step}: a name of the table of planted steps"
        called.unlink(missing_ok=True)
        self.switch.write_text(name, encoding="utf-8")
        try:
            yield
        finally:
            self.switch.unlink()
            if not called.exists() or step not in called.read_text(encoding="utf-8").split():
                self.uncalled.append(step)

    @contextmanager
    def store(self, view: View, change: Callable[[list[Row]], list[Row]]) -> Iterator[None]:
        """Alter the rows of a view in the online store, under the running service."""
        with OnlineStore(self.home.online) as store:
            right = store.stored(view)
            store.remove(view, [row[:2] for row in right])
            store.put(view, change(right))
            try:
                yield
            finally:
                store.remove(view, [row[:2] for row in store.stored(view)])
                store.put(view, right)

    @contextmanager
    def altered(self, change: Callable[[Path], None]) -> Iterator[None]:
        """Alter the files of the version in the model store."""
        folder = Registry(self.home).folder("late", self.version.version)
        copy = self.switch.parent / "kept"
        shutil.copytree(folder, copy)
        try:
            change(folder)
            yield
        finally:
            shutil.rmtree(folder)
            shutil.move(copy, folder)


Row = tuple[str, int, str]


def build_world(folder: Path) -> World:
    """Train two versions; the service is started by the caller."""
    home = Home.open(folder / "home")
    fill_lake(Lake(home.lake))
    data = flights()
    old = train(definition(data[:480]), home=home).tag
    version = Registry(home).open("late", train(definition(data), home=home).tag)
    asked = draw_requests(definition(data), Lake(home.lake), limit=150).select(version.request.names)
    refresh_online_store(version, home=home)
    reference = predict_reference(version, asked, home=home)
    return World(home, version, old, asked, reference, trace_reference(version, asked, home=home), folder / "fault")


# ---------------------------------------------------------------- the faults


Plant = Callable[[World], DeploymentAnswers]


@dataclass(frozen=True)
class Fault:
    """A fault, its size, what must catch it, and what the finder must name.

    `caught`: ``verdict``, ``refusal`` (of a request), ``load check``, ``configuration check``, or ``difference``: seen,
    and rightly no mismatch. `columns` holds several where one altered row alters several values.
    """

    name: str
    size: str
    caught: str
    step: str
    columns: tuple[str, ...]
    plant: Plant
    deployment: str = "realtime"


def sent(**changes: Callable[[dict[str, Any]], Any]) -> Plant:
    """Records altered on their way to the service."""

    def plant(world: World) -> DeploymentAnswers:
        records = world.asked.to_dicts()
        return world.ask([record | {name: change(record) for name, change in changes.items()} for record in records])

    return plant


def filed(ask: DeploymentCaller, *columns: pl.Expr) -> Plant:
    """A table altered on its way to file or batch."""
    return lambda world: ask(world.version, world.asked.with_columns(*columns), home=world.home)


def inside(name: str) -> Plant:
    """A faulty step in the running service."""

    def plant(world: World) -> DeploymentAnswers:
        higher = world.version.declaration["threshold"] + 0.1
        with world.on(name.format(world=world, higher=higher)):
            return world.ask()

    return plant


def stored(view: View, change: Callable[[list[Row]], list[Row]]) -> Plant:
    """Altered rows in the online store."""

    def plant(world: World) -> DeploymentAnswers:
        with world.store(view, change):
            return world.ask()

    return plant


def back(change: Callable[[World, DeploymentAnswers], DeploymentAnswers]) -> Plant:
    """Answers altered on their way back to the caller."""
    return lambda world: change(world, world.ask())


def started(change: Callable[[Path], None] | None = None, name: str = "") -> Plant:
    """A worker that starts with an altered version, or in an altered process."""

    def plant(world: World) -> DeploymentAnswers:
        with world.altered(change) if change else nullcontext(), world.on(name) if name else nullcontext():
            return ask_streaming(world.version, world.asked, home=world.home)

    return plant


def when(name: str, change: Callable[[Any], Any]) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Change a value where there is one."""
    return {name: lambda record: None if record[name] is None else change(record[name])}


def stale(rows: list[Row]) -> list[Row]:
    """Every sixth hour of weather did not arrive."""
    return [row for row in rows if row[1] // 3_600_000_000 % 6 != 5]


def delivered(rows: list[Row]) -> list[Row]:
    """Running totals as they come when every third landing is delivered after the next one."""
    totals: list[Row] = []
    for key in sorted({row[0] for row in rows}):
        own = [(row, json.loads(row[2])) for row in rows if row[0] == key]
        before = [0] * len(own[0][1])
        steps = []
        for row, after in own:
            steps.append((row, [b - a for a, b in zip(before, after, strict=True)]))
            before = after
        for k in range(0, len(steps) - 1, 3):
            steps[k], steps[k + 1] = steps[k + 1], steps[k]
        running = [0] * len(before)
        for row, step in steps:
            running = [a + b for a, b in zip(running, step, strict=True)]
            totals.append((row[0], row[1], json.dumps(running)))
    return totals


def cached(world: World, answered: DeploymentAnswers) -> DeploymentAnswers:
    """Every answer is that of the first request with the same origin, gate and hour."""
    kept: dict[tuple[Any, ...], int] = {}
    keys = world.asked.select("origin", "gate", "hour").rows()
    take = [kept.setdefault(key, k) for k, key in enumerate(keys)]
    return picked(answered, take)


def picked(answered: DeploymentAnswers, take: Sequence[int]) -> DeploymentAnswers:
    rows, ids = [answered.rows[k] for k in take], [answered.ids[k] for k in take]
    decisions = [answered.decisions[k] for k in take]
    return DeploymentAnswers(rows, ids, answered.scores[list(take)], decisions, answered.calls)


def truncate(folder: Path) -> None:
    graph = folder / "scorer.onnx"
    graph.write_bytes(graph.read_bytes()[:-200])


def convert_wrongly(folder: Path) -> None:
    """A graph that loads and answers, with its digest in order: a twentieth of its leaves has another sign."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(folder / "scorer.onnx"))
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "leaf_weights":
            weights = numpy_helper.to_array(attribute.t).copy()
            weights[::20] *= -1
            attribute.t.CopyFrom(numpy_helper.from_array(weights))
    (folder / "scorer.onnx").write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json_text(manifest | {"files": file_digests(folder)}))


def winter(record: dict[str, Any]) -> int:
    return int((record["at"] - timedelta(hours=5)).hour)


FAULTS = (
    Fault("float32 in one path", "3e-8 of the value", "verdict", "request", ("distance",),
          sent(distance=lambda r: float(np.float32(r["distance"])))),
    Fault("float32 in a row function", "3e-8 of the value", "verdict", "row function", ("speed",), inside("float32")),
    Fault("float32 in the feature frame", "3e-8 of the value", "verdict", "features", ("distance",), inside("frame32")),
    Fault("two columns swapped", "all rows", "verdict", "request", ("distance", "air_time"),
          filed(ask_batch, pl.col("distance").alias("air_time"), pl.col("air_time").alias("distance")), "batch"),
    Fault("miles for kilometres", "x 1.609", "verdict", "request", ("distance",),
          filed(ask_one_off, pl.col("distance") * 1.609344), "one_off"),
    Fault("knots for miles an hour", "x 0.869", "verdict", "row function", ("speed",), inside("knots")),
    Fault("Fahrenheit for Celsius", "x 1.8 + 32", "verdict", "request", ("temp",),
          sent(**when("temp", lambda v: v * 1.8 + 32))),
    Fault("trailing blank", "one category", "verdict", "request", ("carrier",),
          sent(**when("carrier", lambda v: v + " " if v == "UA" else v))),
    Fault("lower case", "one column", "verdict", "request", ("carrier",),
          filed(ask_one_off, pl.col("carrier").str.to_lowercase()), "one_off"),
    Fault("a category renamed", "one of two", "verdict", "view", ("sky",),
          stored(WEATHER, lambda rows: [(k, t, v.replace("clear", "sunny")) for k, t, v in rows])),
    Fault("a category's dtype lost", "01 became 1", "refusal", "request", ("gate",),
          sent(gate=lambda r: int(r["gate"]))),
    Fault("a category's codes shifted", "one column", "verdict", "scorer", ("score",), inside("codes")),
    Fault("codes shifted in the plan of a row", "one column", "verdict", "scorer", ("score",), inside("row-codes")),
    Fault("two places exchanged in the plan", "two columns", "verdict", "scorer", ("score",), inside("row-places")),
    Fault("null as 0", "1 row in 19", "verdict", "request", ("temp",), sent(temp=lambda r: r["temp"] or 0.0)),
    Fault("NaN as text", "1 row in 19", "refusal", "request", ("temp",),
          sent(temp=lambda r: "NaN" if r["temp"] is None else r["temp"])),
    Fault("a missing column defaulted", "all rows", "verdict", "request", ("air_time",), sent(air_time=lambda r: 0.0)),
    Fault("a stale weather row", "1 hour in 6", "verdict", "view", ("wind",), stored(WEATHER, stale)),
    Fault("TTL ignored", "a gap of 12 hours", "verdict", "view", ("wind", "sky"), inside("no-ttl")),
    Fault("hours of time zone", "4 or 5 hours", "verdict", "request", ("at",),
          sent(at=lambda r: r["at"].astimezone(NEW_YORK).replace(tzinfo=UTC))),
    Fault("daylight saving", "1 hour from one night on", "verdict", "request", ("hour",), sent(hour=winter)),
    Fault("a window with the current row", "1 row more", "verdict", "view", ("landed", "recent"), inside("current")),
    Fault("delivery order for availability order", "1 row in 3", "verdict", "view", ("landed", "recent"),
          stored(LANDINGS, delivered)),
    Fault("an old version in one worker", "every second request", "verdict", "version", ("version",),
          inside("old {world.old}")),
    Fault("another threshold", "0.1 higher", "verdict", "decision", ("decision",), inside("threshold {higher}")),
    Fault("a tuned threshold lost", "0.5 again", "verdict", "decision", ("decision",), inside("threshold 0.5")),
    Fault("a rounded score", "3 digits", "verdict", "answer", ("score",),
          back(lambda _, one: replace(one, scores=one.scores.round(3)))),
    Fault("a cached answer", "by 3 of 8 columns", "verdict", "answer", ("doubled",), back(cached)),
    Fault("a dropped row", "1 row", "verdict", "answer", ("missing",),
          back(lambda _, one: picked(one, [k for k in range(len(one)) if k != 77]))),
    Fault("a doubled row", "1 row", "verdict", "answer", ("doubled",),
          back(lambda _, one: picked(one, [*range(len(one)), 77]))),
    Fault("two ONNX threads", "1 thread more", "configuration check", "version", ("scorer.onnx",),
          started(name="threads"), "streaming"),
    Fault("a converted-but-wrong graph", "1 leaf in 20", "load check", "version", ("golden",),
          started(convert_wrongly), "streaming"),
    Fault("a truncated graph", "200 bytes", "load check", "version", ("scorer.onnx",), started(truncate), "streaming"),
    Fault("a score moved within tolerance", "1e-10", "difference", "scorer", ("score",), inside("tiny")),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a planted fault: verdict, place that was named, seconds to both, steps that nobody called."""

    fault: Fault
    verdict: DeploymentVerdict
    place: str
    seconds: float
    uncalled: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """Whether what must catch it did."""
        one = self.verdict
        if self.fault.caught == "difference":
            return one.verdict == "equal" and one.max_difference > 0 and not one.mismatches
        return one.verdict == "refused" and bool(one.reason) == (self.fault.caught != "verdict")

    @property
    def found(self) -> bool:
        """Whether the finder named step and column."""
        return self.place in {FoundFault(self.fault.step, column).place for column in self.fault.columns}

    def line(self) -> str:
        caught = self.fault.caught if self.caught else "NOT CAUGHT"
        wrong = "" if self.found else f"  (not {self.fault.step}: {' or '.join(self.fault.columns)})"
        return f"{self.fault.name:38} {self.fault.size:26} {caught:20} {self.place}{wrong}"


def examined(world: World, fault: Fault) -> Outcome:
    """Plant a fault, take the rows through the deployment, hold them, and read the place that is named."""
    forget(world.home)
    world.uncalled.clear()
    told: list[tuple[DeploymentAnswers, float]] = []

    def way(version: Version, asked: pl.DataFrame, *, home: Home) -> DeploymentAnswers:
        answered = fault.plant(world)
        told.append((answered, time.perf_counter()))
        return answered

    held = (way, world.reference)
    verdict = examine_deployment(world.version, world.asked, world.home, deployment=fault.deployment, way=held)
    seconds, place = time.perf_counter() - told[0][1] if told else 0.0, verdict.finding
    if told and not place:  # nothing was refused, and nobody looked
        found = find_fault(world.trail, told[0][0], log=read_log(world.home.log("late"), deployment=fault.deployment))
        place = found.place if found else ""
    return Outcome(fault, verdict, place, seconds, tuple(world.uncalled))


def forget(home: Home) -> None:
    """Empty the log, so that each fault is held against its own lines."""
    for file in list_log_files(home.log("late")):
        with sqlite3.connect(file, timeout=30) as connection:
            connection.execute("DELETE FROM predictions")
        connection.close()


def environment(folder: Path) -> dict[str, str]:
    """What processes of this world find: their homes, and the faults that can be switched on in them."""
    paths = [str(PLANTED), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "BENTOML_HOME": str(folder / "bentoml"),
        "MLWORKBENCH_HOME": str(folder / "home"),
        "MLWORKBENCH_TEST_FAULT": str(folder / "fault"),
        "PYTHONPATH": os.pathsep.join(paths),
        "BENTOML_DO_NOT_TRACK": "true",
    }


def draw(world: World, seed: int) -> tuple[pl.DataFrame, list[int]]:
    """Some rows in some order."""
    random = np.random.default_rng(seed)
    rows = random.permutation(world.asked.height)[: random.integers(5, 41)].tolist()
    return world.asked[rows], rows


def reference_of(reference: Reference, rows: list[int]) -> Reference:
    """The reference of some rows."""
    features = [reference.features[k] for k in rows]
    return Reference(reference.scores[rows], reference.decisions[rows], np.arange(len(rows)), features)


def clean(world: World, seed: int) -> list[DeploymentVerdict]:
    """Take a draw through file, batch and service as they are."""
    asked, rows = draw(world, seed)
    reference = reference_of(world.reference, rows)
    ways: dict[str, DeploymentCaller] = {
        "one_off": ask_one_off,
        "batch": ask_batch,
        "realtime": lambda version, table, *, home: world.ask(table.to_dicts()),
    }
    forget(world.home)
    return [
        examine_deployment(world.version, asked, world.home, deployment=name, way=(way, reference))
        for name, way in ways.items()
    ]
