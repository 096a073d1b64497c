"""A model whose lake lies in an object store, by the real commands: from its sources to a prediction traced back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyarrow.fs import FileType

pytestmark = pytest.mark.system
COMMAND = Path(sys.executable).with_name("mlworkbench")
ROOT = Path(__file__).parents[2]
START, FLIGHTS = datetime(2013, 10, 1, tzinfo=UTC), 400
ORIGINS = ("EWR", "JFK", "LGA")
DEPLOYMENTS = ("one_off", "batch", "realtime", "streaming", "edge")
PLACES = ("lake/flights", "lake-quarantine/flights")
FEATURES = """
import numpy as np


def haul(distance):
    return {"long": (distance > 1000).astype(np.float64)}
"""
DEFINITION = """
from datetime import timedelta
from pathlib import Path

from flight_features import haul
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench import AsOfView, ModelDefinition, RowFunction, Total, WindowView
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.table import Table

HERE = Path(__file__).parent
COLUMNS = (Column("flight", "text"), Column("origin", "text"), Column("at", "time"),
           Column("distance", "number", lower=0), Column("late", "integer"))
FLIGHTS = Table("flights", HERE / "flights.csv", Contract(COLUMNS, key=("flight",)), available_at="at", limit=0.5)
WEATHER = Table("weather", HERE / "weather.csv",
                Contract((Column("origin", "text"), Column("at", "time"), Column("wind", "number"))), available_at="at")


def rows(lake):
    return lake.read("flights", columns=["flight", "origin", "at", "distance", "late"])


late = ModelDefinition(
    "late", make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), rows, "late",
    entity=("flight",), prediction_time="at",
    views=(AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=3)),
           WindowView("before", "flights", ("origin",), timedelta(hours=2), {"left": Total("count")}),
           RowFunction(haul)),
    features=("distance", "wind", "left", "long"), tables=(FLIGHTS, WEATHER),
    deployments=("one_off", "batch", "realtime", "streaming", "edge"),
)
"""


def write_workbench(folder: Path, lake: str) -> None:
    """Write what the user has: two CSV files, one row of them broken, the definition, and where the lake is."""
    numbers = range(FLIGHTS)
    flights = {
        "flight": [f"UA {n}" for n in numbers],
        "origin": [ORIGINS[n % 3] for n in numbers],
        "at": [(START + timedelta(minutes=10 * n)).isoformat() for n in numbers],
        "distance": [100.0 + 37 * n % 2400 if n else -1.0 for n in numbers],
        "late": [n * n % 7 % 2 for n in numbers],
    }
    pl.DataFrame(flights).write_csv(folder / "flights.csv")
    hours = [(origin, hour) for hour in range(FLIGHTS // 6 + 1) for origin in ORIGINS]
    weather = {
        "origin": [origin for origin, _ in hours],
        "at": [(START + timedelta(hours=hour, minutes=1)).isoformat() for _, hour in hours],
        "wind": [float(hour * 7 % 23) for _, hour in hours],
    }
    pl.DataFrame(weather).write_csv(folder / "weather.csv")
    (folder / "flight_features.py").write_text(FEATURES)
    (folder / "late_definition.py").write_text(DEFINITION)
    settings = f"[workbench]\nhome = home\nlake = {lake}\n[models]\nlate = late_definition:late\n"
    (folder / "settings.ini").write_text(settings)


class Workbench:
    """A folder in which a user types commands; every one is a process of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.given = {name: pl.read_csv(folder / f"{name}.csv") for name in ("flights", "weather")}

    def ended(self, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        pipes = {"capture_output": True, "text": True, "check": False, "timeout": 300}
        return subprocess.run(
            [COMMAND, *words.split(), "--json"], cwd=self.folder, env={**self.environment, **environment}, **pipes
        )

    def run(self, words: str, **environment: str) -> dict[str, Any]:
        ended = self.ended(words, **environment)
        assert ended.returncode == 0, (words, ended.returncode, ended.stdout[-3000:], ended.stderr[-3000:])
        return json.loads(ended.stdout)

    def row(self, table: str, number: int) -> dict[str, Any]:
        return self.given[table].row(number, named=True)


@pytest.fixture(scope="module")
def store(s3_server):
    return replace(s3_server, prefix="shared-lake")


@pytest.fixture(scope="module")
def workbench(store, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("shared")
    write_workbench(folder, store.url("lake"))
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLWORKBENCH_"))}
    paths = {"BENTOML_HOME": str(folder / "bentoml"), "PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "true"}
    made = Workbench(folder, {**own, **paths, **store.environment})
    tables = made.run("ingest")["tables"]
    assert [(one["table"], one["appended"], one["quarantined"]) for one in tables] == [
        ("flights", FLIGHTS - 1, 1),
        ("weather", 201, 0),
    ]
    return made


@pytest.fixture(scope="module")
def trained(workbench: Workbench, store) -> dict[str, Any]:
    told = workbench.run("train", **store.reader)  # who trains need not be able to write
    assert workbench.run("features materialize")["views"] == {"weather": 201, "before": FLIGHTS - 1}
    assert workbench.run("features check")["mismatches"] == 0
    return told


@pytest.fixture(scope="module")
def scored(workbench: Workbench, trained: dict[str, Any]) -> pl.DataFrame:
    assert workbench.run("score flights.csv --out scored.csv")["scored"] == FLIGHTS - 1
    return pl.read_csv(workbench.folder / "scored.csv")


def test_all_five_deployments_are_certified_to_be_equal(workbench: Workbench, trained: dict[str, Any]) -> None:
    told = workbench.run("certify")
    assert told["verdict"] == "equal" and told["rows"] == FLIGHTS - 1
    found = {one["deployment"]: (one["verdict"], one["rows"], one["missing"]) for one in told["deployments"]}
    assert found == dict.fromkeys(DEPLOYMENTS, ("equal", FLIGHTS - 1, 0))
    (file,) = (workbench.folder / "home/late/certificates").glob("*/certificate.json")
    assert workbench.run(f"certify verify {file}")["status"] == "valid"


def test_a_prediction_is_traced_to_the_rows_it_came_from(workbench: Workbench, scored: pl.DataFrame) -> None:
    told = workbench.run(f"replay {scored['prediction_id'][299]}")
    asked, values = workbench.row("flights", 300), {one["name"]: one["value"] for one in told["features"]}
    assert (told["verdict"], told["exact"], told["entity"]) == ("equal", True, {"flight": asked["flight"]})
    assert values["distance"] == asked["distance"] and values["left"] == 4  # one each half hour
    weather, before = told["views"]
    known = workbench.row("weather", weather["row"]["source_row"])
    assert (known["origin"], known["wind"]) == (asked["origin"], values["wind"])
    assert before["rows"] == 4 and before["lake_version"] == weather["lake_version"] == 0


def test_training_rows_and_versions_say_where_they_came_from_and_who_needs_them(
    workbench: Workbench, scored: pl.DataFrame
) -> None:
    (row,) = workbench.run("lake lineage --skip 200 --rows 1")["rows"]
    (table,), (weather, before) = row["tables"], row["views"]
    flight, known = (workbench.row(one["table"], one["source_row"]) for one in (table, weather))
    moments = (datetime.fromisoformat(flight["at"]), datetime.fromisoformat(table["available_at"]))
    assert moments[0] == moments[1] and known["origin"] == flight["origin"] and before["rows"] == 4
    (version,) = workbench.run("lake history flights")["versions"]
    assert version["readable"] and "version late:" in version["for"] and "log of late" in version["for"]


def test_what_was_predicted_is_computed_again_after_the_lake_moved_on(
    workbench: Workbench, scored: pl.DataFrame
) -> None:
    before = workbench.run(f"replay {scored['prediction_id'][299]}")
    late = [f"{origin},2013-10-03T0{hour}:05:00+00:00,99.0" for origin in ORIGINS for hour in range(3)]
    (workbench.folder / "weather.csv").write_text("\n".join(["origin,at,wind", *late]))  # the next delivery
    tables = {one["table"]: one["appended"] for one in workbench.run("ingest")["tables"]}
    assert tables == {"flights": 0, "weather": 9}
    files = {one["table"]: (one["files_before"], one["files_after"]) for one in workbench.run("lake compact")["tables"]}
    assert files == {"flights": (1, 1), "weather": (2, 1)}
    workbench.run("lake vacuum --hours 0 --force")
    assert workbench.run(f"replay {scored['prediction_id'][299]}") == before
    told = workbench.run("replay log --rows 399")
    assert told["replayed"] == told["equal"] == scored.height


def test_no_file_of_the_lake_lies_in_the_home(workbench: Workbench, store, scored: pl.DataFrame) -> None:
    home = workbench.folder / "home"
    assert not [path for path in home.rglob("*") if path.name in ("lake", "quarantine", "_delta_log")]
    assert not [path for path in home.rglob("*.parquet") if "predictions" not in path.parts]
    lake, quarantine = (store.files.get_file_info(store.key(f"{name}/_delta_log")) for name in PLACES)
    assert lake.type == quarantine.type == FileType.Directory


def test_a_wrong_key_is_one_line_that_does_not_repeat_it(workbench: Workbench, trained: dict[str, Any]) -> None:
    ended = workbench.ended("certify", AWS_SECRET_ACCESS_KEY="hunter2")
    said = json.loads(ended.stdout)["error"] if ended.stdout else ended.stderr
    assert ended.returncode == 2 and "cannot be reached: 403 Forbidden" in said, (ended.stdout, ended.stderr)
    assert "hunter2" not in ended.stdout + ended.stderr and "Traceback" not in ended.stderr
    assert len(said.strip().splitlines()) == 1
