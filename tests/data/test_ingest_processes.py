"""Ingest in processes of its own: killed at any moment, and two at once."""

import os
import random
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from mlworkbench.data.lake import Lake
from mlworkbench.home import Home

ROWS = 140_000
BAD = 1_400

WORKER = """
import os, signal, sys
from mlworkbench.contract import Column, Contract
from mlworkbench.data import gather, ingest as module, lake, quarantine
from mlworkbench.data.ingest import Table, ingest
from mlworkbench.home import Home

source, home, key, point = sys.argv[1:5]
columns = (Column("flight", "text"), Column("at", "time"), Column("delay", "number", upper=100))
table = Table("landings", source, Contract(columns, key=("flight",) if key == "key" else ()), available_at="at")


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def after(function):
    return lambda *args, **kwargs: (function(*args, **kwargs), die())


if point == "reading":
    progress = die
elif point == "deciding":
    module.decide = die
elif point == "before quarantine":
    module.write_quarantine = die
elif point == "between the commits":
    module.write_quarantine = after(module.write_quarantine)
elif point == "while the lake is written":
    whole = module.appended

    def half(*args):
        yield next(iter(whole(*args)))
        die()

    module.appended = half
elif point == "after the commit":
    append = lake.Lake.append
    lake.Lake.append = lambda self, *args, **more: (append(self, *args, **more), self.path.name == "lake" and die())[0]
print("ready", flush=True)
report = ingest(table, Home.open(home), progress=progress if point == "reading" else None)
print(report.appended, report.skipped, report.quarantined)
"""
POINTS = [
    "reading",
    "deciding",
    "before quarantine",
    "between the commits",
    "while the lake is written",
    "after the commit",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "landings.csv"
    numbers = pl.int_range(ROWS, eager=True)
    delay = pl.select(pl.when(numbers % (ROWS // BAD) == 7).then(999.5).otherwise(numbers % 60)).to_series()
    at = pl.repeat("2013-10-01T12:00:00Z", ROWS, eager=True)
    flight = "F" + numbers.cast(pl.String)
    pl.DataFrame({"flight": flight, "at": at, "delay": delay}).write_csv(path)
    return path


def start(source, home, key="key", point=""):
    command = [sys.executable, "-c", WORKER, str(source), str(home), key, point]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "ready\n"
    return worker


def finish(worker):
    output, _ = worker.communicate(timeout=120)
    return worker.returncode, output.split()


def check_whole_or_nothing(home):
    lake = Lake(Home.open(home).lake)
    if lake.exists("landings"):
        assert lake.read("landings", columns=["flight"]).height == ROWS - BAD


def check_exact(home):
    place = Home.open(home)
    rows = Lake(place.lake).read("landings", columns=["flight", "source_row"])
    assert rows.height == rows["flight"].n_unique() == rows["source_row"].n_unique() == ROWS - BAD
    lines = Lake(place.quarantine).read("landings", columns=["source_row"])
    assert lines.height == lines["source_row"].n_unique() == BAD
    assert Lake(place.lake).version("landings") == Lake(place.quarantine).version("landings") == 0
    left = {path.name for path in place.path.iterdir()}
    assert left == {"format", "keys", "locks", "lake", "quarantine"}


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_a_known_point_leaves_nothing_half_written(source, tmp_path, point):
    home = tmp_path / "home"
    code, _ = finish(start(source, home, point=point))
    assert code == -signal.SIGKILL
    check_whole_or_nothing(home)
    code, counted = finish(start(source, home))
    assert code == 0
    assert int(counted[0]) == (0 if point == "after the commit" else ROWS - BAD)
    check_exact(home)


@pytest.mark.parametrize("key", ["key", "no key"])
def test_a_process_killed_at_random_moments_loses_and_doubles_nothing(source, tmp_path, key):
    home, moments = tmp_path / "home", random.Random(key)
    for _ in range(4):
        worker = start(source, home, key)
        time.sleep(moments.uniform(0.0, 1.2))
        os.kill(worker.pid, signal.SIGKILL)
        finish(worker)
        check_whole_or_nothing(home)
    assert finish(start(source, home, key))[0] == 0
    check_exact(home)


@pytest.mark.parametrize("key", ["key", "no key"])
def test_two_processes_at_once_append_each_row_once(source, tmp_path, key):
    home = tmp_path / "home"
    workers = [start(source, home, key) for _ in range(2)]
    results = [finish(worker) for worker in workers]
    assert [code for code, _ in results] == [0, 0]
    assert sorted(int(counted[0]) for _, counted in results) == [0, ROWS - BAD]
    assert sorted(int(counted[2]) for _, counted in results) == [0, BAD]
    check_exact(home)
