"""Four simulated weeks of flights under the schedule (long): a drift, a retraining, a missed night, a kill -9."""

from __future__ import annotations

import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.long]
MAIN = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()"]
DEFINITION = '''
"""Flights whose departures are written in UTC, by mistake, from a day on: the planted drift."""
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from mlworkbench.examples import flights as example

PLANTED = datetime(2013, 10, 15, 6, 30, tzinfo=UTC)


def planted_rows(lake):
    rows = example.flights_rows(lake)
    shifted = (pl.col("sched_dep_minute") + 240) % 1440
    late = pl.col("prediction_time") >= PLANTED
    return rows.with_columns(sched_dep_minute=pl.when(late).then(shifted).otherwise(pl.col("sched_dep_minute")))


flights = replace(example.flights, data=planted_rows, deployments=("one_off", "batch"))
'''
SETTINGS = """# the workbench of four weeks
[workbench]
home = home
[models]
flights = definition:flights
[alerts]
alertmanager = http://127.0.0.1:{port}
[schedule]
nightly = 30 2 * * * America/New_York: ingest --model flights, batch --model flights --last day,
    monitor --model flights --last day
monthly = 0 4 28 10 * America/New_York: retrain --model flights
"""
ARRIVED = """
import polars as pl
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
names = ["flight_id", "prediction_time", "late", "available_at"]
at = pl.col("prediction_time")
rows = Lake(Home.open("home").lake).read("flights", columns=names).drop_nulls("late")
rows = rows.filter(at >= pl.datetime(2013, 9, 30, time_zone="UTC"), at < pl.datetime(2013, 10, 29, time_zone="UTC"))
rows.with_columns(pl.col("late").cast(pl.Int64)).write_parquet("arrived.parquet")
"""
FIRST = datetime(2013, 10, 1, 6, 30, tzinfo=UTC)
NIGHTS = [FIRST + timedelta(days=k) for k in range(28)]


class Manager(http.server.BaseHTTPRequestHandler):
    """What an Alertmanager is told."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told += body
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Keep the test's output short."""


@pytest.fixture(scope="module")
def manager():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Manager)
    server.told = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, manager) -> Path:
    """A workbench with a year of flights, a champion, and what came true; without settings of other workbenches."""
    folder = tmp_path_factory.mktemp("four_weeks")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLWORKBENCH_")]:
            patch.delenv(name)
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        (folder / "definition.py").write_text(DEFINITION)
        (folder / "settings.ini").write_text(SETTINGS.format(port=manager.server_address[1]))
        run(folder, "ingest", "--model", "flights")
        run(folder, "train", "--model", "flights", "--promote")
        subprocess.run([sys.executable, "-c", ARRIVED], cwd=folder, check=True)
        run(folder, "label", "arrived.parquet", "--model", "flights")
        yield folder


def run(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    ended = subprocess.run([*MAIN, *words], cwd=folder, capture_output=True, text=True)
    assert ended.returncode in codes, ended.stdout + ended.stderr
    return ended.stdout


def span(start: datetime, end: datetime) -> list[str]:
    return ["schedule", "start", "--from", start.isoformat(), "--until", end.isoformat()]


def turns(folder: Path) -> dict[datetime, tuple[str, list[str]]]:
    """Give state and answered commands of each night."""
    query = "SELECT at, state, answers FROM turns WHERE line = 'nightly' ORDER BY at"
    with sqlite3.connect(folder / "home" / "schedule.sqlite") as table:
        found = table.execute(query).fetchall()
    return {
        datetime.fromisoformat(at): (state, [one["command"] for one in json.loads(said)]) for at, state, said in found
    }


def kill_in_the_batch_of(folder: Path, night: datetime, until: datetime) -> None:
    """Run a span, and kill the scheduler with kill -9 while the batch of a night runs."""
    scheduler = subprocess.Popen([*MAIN, *span(night - timedelta(days=3), until)], cwd=folder)
    deadline = time.monotonic() + 900
    while turns(folder).get(night, ("", []))[1] != ["ingest --model flights"]:
        assert scheduler.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()


def test_four_weeks_under_the_schedule(place: Path, manager) -> None:
    missed, killed, planted = NIGHTS[3], NIGHTS[7], NIGHTS[14]
    run(place, *span(FIRST, missed), codes=(0, 1))
    assert [*turns(place)] == NIGHTS[:3]

    kill_in_the_batch_of(place, killed, NIGHTS[10])
    assert turns(place)[killed] == ("running", ["ingest --model flights"])
    assert missed not in turns(place)
    said = run(place, *span(FIRST, NIGHTS[-1] + timedelta(hours=2)), codes=(0, 1))
    print(said)

    nights = turns(place)
    assert [*nights] == NIGHTS
    assert {state for state, _ in nights.values()} <= {"done", "refused"}
    assert {len(commands) for _, commands in nights.values()} == {3}

    with sqlite3.connect(place / "home" / "flights" / "log.sqlite") as log:
        ids = [name for (name,) in log.execute("SELECT prediction_id FROM predictions")]
        days = Counter(at // 86_400_000_000 for (at,) in log.execute("SELECT prediction_time FROM predictions"))
    assert len(ids) == len(set(ids))
    assert len(days) >= 28
    assert min(list(days.values())[1:-1]) > 500

    told = [one for one in manager.told if one["labels"].get("source") == "monitor"]
    scores = [one for one in told if "score" in one["labels"]["subject"]]
    for one in manager.told:
        print(json.dumps(one))
    since = {one["annotations"]["since"][:10] for one in scores}
    assert f"{planted:%Y-%m-%d}" in since
    assert any("sched_dep_minute" in json.dumps(one["annotations"]) for one in scores)
    assert sorted(Path(place / "home" / "logs" / "schedule" / "nightly").glob("*.log"))
