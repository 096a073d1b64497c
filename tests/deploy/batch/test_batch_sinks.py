"""A batch that delivers its days: what is logged, what lies in the home and what arrives are the same rows."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import deltalake
import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import Job, score_batch
from mlworkbench.errors import IngestError
from mlworkbench.evaluation.log.reader import read_log

START, END = "2013-10-01T00:00:00Z", "2013-10-03T00:00:00Z"


def arrived(file: Path) -> pl.DataFrame:
    with closing(sqlite3.connect(file)) as shop:
        return pl.read_database("SELECT * FROM p ORDER BY prediction_id", shop)


def at_home(report) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in report.partitions]).sort("prediction_id")


def test_what_is_logged_what_lies_at_home_and_what_arrives_are_the_same(workshop, elsewhere: Home, tmp_path) -> None:
    version, to = workshop.open("delays"), f"sqlite:///{tmp_path}/shop.db?table=p"
    job = Job(START, END, "night", to)
    for _ in range(2):
        report = score_batch(version, workshop.trips(), home=workshop.home, job=job)
    rows = arrived(tmp_path / "shop.db")
    assert report.sink == "table 'p' in shop.db" and rows.height == 50
    assert rows.columns == ["prediction_id", "version", "trip", "asked", "score", "decision", "flags", "partition"]
    assert rows["score"].to_list() == at_home(report)["score"].to_list()
    assert set(rows["version"]) == {version.version}
    name = version.version.replace(":", "-")
    assert set(rows["partition"]) == {f"{name}-2013-10-01", f"{name}-2013-10-02"}
    logged = read_log(workshop.home.log("delays"), deployment="batch")
    assert set(rows["prediction_id"]) <= set(logged["prediction_id"])


def test_an_interval_that_cuts_a_day_leaves_the_rest_of_it_in_the_sink(workshop, tmp_path) -> None:
    version, to = workshop.open("delays"), f"delta:{tmp_path}/p"
    score_batch(version, workshop.trips(), home=workshop.home, job=Job(START, END, "night", to))
    table = deltalake.DeltaTable(f"{tmp_path}/p")
    before = pl.DataFrame(table.to_pyarrow_table()).sort("prediction_id")
    part = Job("2013-10-01T15:00:00Z", "2013-10-01T20:00:00Z", "evening", to)
    score_batch(version, workshop.trips(), home=workshop.home, job=part)
    again = deltalake.DeltaTable(f"{tmp_path}/p")
    assert again.version() == table.version(), "the same predictions: nothing was committed"
    assert pl.DataFrame(again.to_pyarrow_table()).sort("prediction_id").equals(before)


def test_two_versions_and_models_stand_side_by_side_in_one_table(workshop, elsewhere: Home, tmp_path) -> None:
    birds = pl.DataFrame({"bill": [39.1, 51.5], "island": ["Dream", "Biscoe"], "ring": ["R1", "R2"]})
    to = f"sqlite:///{tmp_path}/shop.db?table=p"
    score_batch(workshop.open("birds"), birds, home=elsewhere, job=Job(to=to))
    with pytest.raises(IngestError, match=r"table 'p' in shop\.db: no column 'score_Adelie'"):
        score_batch(workshop.open("species"), birds, home=elsewhere, job=Job(to=to))
    assert arrived(tmp_path / "shop.db").height == 2
    assert read_log(elsewhere.log("species")).height == 2, "what was predicted was logged all the same"


def test_a_day_without_any_value_of_a_column_keeps_its_type(workshop, elsewhere: Home, tmp_path) -> None:
    birds = pl.DataFrame({"bill": [39.1], "island": ["Dream"], "ring": pl.Series([None], dtype=pl.String)})
    to = f"sqlite:///{tmp_path}/shop.db?table=p"
    for rows in (birds, birds.with_columns(pl.lit("R1").alias("ring"))):
        score_batch(workshop.open("birds"), rows, home=elsewhere, job=Job(to=to))
        assert arrived(tmp_path / "shop.db")["ring"].to_list() == rows["ring"].to_list()


def test_a_wrong_sink_is_refused_before_a_row_is_scored(workshop, elsewhere: Home) -> None:
    birds = pl.DataFrame({"bill": [39.1], "island": ["Dream"], "ring": ["R1"]})
    for to, said in (("ftp://x", "to: one of"), ("https://h/#secret=${NO_SUCH_SECRET}", "NO_SUCH_SECRET is not set")):
        with pytest.raises(IngestError, match=said):
            score_batch(workshop.open("birds"), birds, home=elsewhere, job=Job(to=to))
    assert not elsewhere.log("birds").exists()


def test_a_sink_that_fails_keeps_log_and_home_and_the_next_run_delivers(workshop, elsewhere: Home, tmp_path) -> None:
    birds = pl.DataFrame({"bill": [39.1], "island": ["Dream"], "ring": ["R1"]})
    (tmp_path / "shop.db").mkdir()
    to = f"sqlite:///{tmp_path}/shop.db?table=p"
    with pytest.raises(IngestError, match=r"cannot write partition .* to table 'p' in shop.db: unable to open"):
        score_batch(workshop.open("birds"), birds, home=elsewhere, job=Job(to=to))
    assert read_log(elsewhere.log("birds")).height == 1
    (tmp_path / "shop.db").rmdir()
    score_batch(workshop.open("birds"), birds, home=elsewhere, job=Job(to=to))
    assert arrived(tmp_path / "shop.db").height == 1


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from conftest import trips
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.deploy.selection import open_model
from mlworkbench.deploy.batch.batch import Job
home = Home.open({home!r})
version = open_model("delays", home=home)
print("begins", flush=True)
score_batch(version, trips(), home=home, job=Job({start!r}, {end!r}, "night", {to!r}))
"""


@pytest.mark.system
def test_a_batch_that_is_killed_anywhere_delivers_each_row_once_at_last(workshop, tmp_path) -> None:
    to = f"sqlite:///{tmp_path}/shop.db?table=p"
    words = {"tests": str(Path(__file__).parents[1]), "home": str(workshop.home.path), "start": START, "end": END}
    for pause in (0.02, 0.06, 0.12, 0.2):
        command = [sys.executable, "-c", KILLED.format(**words, to=to)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as run:
            assert run.stdout.readline() == "begins\n"
            time.sleep(pause)
            run.send_signal(signal.SIGKILL)
    report = score_batch(workshop.open("delays"), workshop.trips(), home=workshop.home, job=Job(START, END, "", to))
    rows = arrived(tmp_path / "shop.db")
    assert rows.height == rows["prediction_id"].n_unique() == 50
    assert rows["prediction_id"].to_list() == at_home(report)["prediction_id"].to_list()


def test_the_run_notebook_delivers(workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlworkbench.data.lake.lake import Lake
    from mlworkbench.operate.running.runner import run_notebook

    monkeypatch.chdir(tmp_path)
    rows = pl.DataFrame({"bill": [39.1, 51.5], "island": ["Dream", "Biscoe"], "ring": ["R1", "R2"]})
    if not Lake(workshop.home.lake).exists("birds_rows"):
        Lake(workshop.home.lake).append("birds_rows", rows.to_arrow(), transaction=None)
    to = f"sqlite:///{tmp_path}/shop.db?table=p"
    run = run_notebook("batch_score", {"model": "birds", "to": to}, home=workshop.home, seconds=120)
    assert (run.state, run.verdict) == ("done", "pass"), run.error
    assert run.result["reports"]["sink"] == "table 'p' in shop.db"
    assert arrived(tmp_path / "shop.db").height == run.result["metrics"]["scored"]
