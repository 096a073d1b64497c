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
"""Flights of which the airlines' system sends placeholders from a day on: the planted drift."""
import os
from dataclasses import replace
from datetime import datetime

import polars as pl

from mlworkbench.examples import flights as example

PLANTED = datetime.fromisoformat("{planted}")
SENT = {{"carrier": "??", "dest": "??", "tailnum": "?", "distance": 1.0, "sched_dep_minute": 0, "sched_arr_minute": 0}}


def planted_rows(lake):
    rows = example.flights_rows(lake)
    broken = pl.col("prediction_time") >= PLANTED
    return rows.with_columns(
        pl.when(broken).then(pl.lit(sent, dtype=rows.schema[name])).otherwise(pl.col(name)).alias(name)
        for name, sent in SENT.items()
    )


until = os.environ.get("TRAINED_UNTIL", example.flights.until)
flights = replace(example.flights, data=planted_rows, until=until, deployments=("one_off", "batch"))
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
MISSED, KILLED, PLANTED = NIGHTS[3], NIGHTS[7], NIGHTS[14]
BROKEN = ("carrier", "dest", "distance", "sched_dep_minute", "sched_arr_minute", "departure", "planned_minutes")


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
        (folder / "definition.py").write_text(DEFINITION.format(planted=PLANTED.isoformat()))
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
    return ["schedule", "start", "nightly", "--from", start.isoformat(), "--until", end.isoformat()]


def turns(folder: Path) -> dict[datetime, tuple[str, list[str]]]:
    """Give state and answered commands of each night."""
    query = "SELECT at, state, answers FROM turns WHERE line = 'nightly' ORDER BY at"
    with sqlite3.connect(folder / "home" / "schedule.sqlite") as table:
        found = table.execute(query).fetchall()
    return {
        datetime.fromisoformat(at): (state, [one["command"] for one in json.loads(said)]) for at, state, said in found
    }


def kill_in_the_batch_of(folder: Path, night: datetime, words: list[str]) -> None:
    """Start a schedule, and end it with kill -9 while the batch of a night runs."""
    scheduler = subprocess.Popen([*MAIN, *words], cwd=folder)
    deadline = time.monotonic() + 1800
    while turns(folder).get(night, ("", []))[1] != ["ingest --model flights"]:
        assert scheduler.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()


def test_four_weeks_under_the_schedule(place: Path, manager) -> None:
    run(place, *span(FIRST, MISSED))
    kill_in_the_batch_of(place, KILLED, span(MISSED + timedelta(days=1), NIGHTS[-1]))
    nights = turns(place)
    assert MISSED not in nights
    assert nights[KILLED] == ("running", ["ingest --model flights"])
    run(place, *span(FIRST, NIGHTS[-1] + timedelta(hours=1)), codes=(0, 1))

    nights = turns(place)
    assert [*nights] == NIGHTS
    assert {len(commands) for _, commands in nights.values()} == {3}
    assert [state for at, (state, _) in nights.items() if at <= PLANTED] == ["done"] * (NIGHTS.index(PLANTED) + 1)
    assert nights[PLANTED + timedelta(days=1)][0] == "refused"  # monitor said no

    with sqlite3.connect(place / "home" / "flights" / "log.sqlite") as log:
        rows = log.execute("SELECT prediction_id, prediction_time FROM predictions").fetchall()
    served = Counter((at - int(FIRST.timestamp() * 1e6)) // 86_400_000_000 for _, at in rows)
    assert len({name for name, _ in rows}) == len(rows)
    assert sorted(served) == list(range(-1, len(NIGHTS) - 1))
    assert min(served.values()) > 500

    scores = [
        one for one in manager.told if (one["labels"]["source"], one["labels"]["subject"]) == ("monitor", "scores")
    ]
    assert min(one["annotations"]["since"] for one in scores) == PLANTED.isoformat()
    assert any(word in one["annotations"]["cause"] for one in scores for word in BROKEN)
    of_line = [one["labels"]["subject"] for one in manager.told if one["labels"]["source"].startswith("schedule:")]
    assert not [subject for subject in of_line if subject.startswith("monitor")]  # it tells itself


def test_a_retraining_with_two_more_weeks_is_proposed_or_refused_with_its_reason(place: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRAINED_UNTIL", PLANTED.isoformat())
    words = ["schedule", "start", "monthly", "--from", "2013-10-28T00:00Z", "--until", "2013-10-29T00:00Z", "--json"]
    turn = json.loads(run(place, *words, codes=(0, 1)))
    assert turn["state"] in ("done", "refused")
    said = next((place / "home" / "logs" / "schedule" / "monthly").glob("*.log")).read_text()
    assert "propose" in said
    assert "nothing to propose" not in said
