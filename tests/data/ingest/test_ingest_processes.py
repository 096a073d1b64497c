"""Ingest in processes of its own: killed at every step and at any moment, two at once, and on a full disk.

A process that has imported everything forks one worker for each ingest, so that a kill costs no start of Python.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from itertools import count

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake

ROWS, BAD, OLD = 70_000, 700, 1_000

PARENT = """
import json, os, resource, signal, sys
import deltalake
import polars, pandas, pyarrow.parquet
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest import ingest as module
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.sources.spool import Spool
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.errors import WorkbenchError
import pyarrow as pa

WRITE, SPOOL = deltalake.write_deltalake, Spool.write


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def full(*args):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))


def spooling(number, act):
    calls = iter(range(number))

    def write(spool, batch):
        if next(calls, None) is None:
            act()
        return SPOOL(spool, batch)

    Spool.write = write


def writing(target, when, act):
    def some(reader):
        for place, batch in enumerate(reader):
            if when == "midway" and place == (0 if target == "quarantine" else 1):
                act()
            yield batch
        if when == "end":
            act()

    def write(place, data, **more):
        if f"/{target}/" in getattr(place, "table_uri", place):
            when == "before" and act()
            WRITE(place, pa.RecordBatchReader.from_batches(data.schema, some(data)), **more)
            when == "after" and act()
        else:
            WRITE(place, data, **more)

    deltalake.write_deltalake = write


def work(source, home, result, key=True, point=None, merge=False, disk=False):
    progress, act = None, full if disk else die
    if point == "reading":
        progress = act
    elif point == "deciding":
        module.decide = act
    elif point and point[0] == "spool":
        spooling(point[1], act)
    elif point:
        writing(*point, act)
    columns = [Column("id", "integer"), Column("flight", "text"), Column("at", "time")]
    columns.append(Column("delay", "number", upper=100))
    if isinstance(source, list):
        source = SqlSource(*source, cursor="id")
    contract = Contract(columns, key=("flight",) if key else ())
    table = Table("landings", source, contract, available_at="at", new_columns="merge" if merge else "refuse")
    try:
        found = ingest(table, home=Home.open(home), progress=progress).to_dict()
    except WorkbenchError as error:
        found = {"error": str(error)}
    with open(result, "w") as file:
        json.dump(found, file)


for line in sys.stdin:
    asked = json.loads(line)
    if "wait" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        work(**asked)
        os._exit(0)
    print(child, flush=True)
"""
POINTS = [
    "reading",
    ("spool", 0),
    ("spool", 2),
    "deciding",
    *((target, when) for target in ("quarantine", "lake") for when in ("before", "midway", "end", "after")),
]


class Workers:
    """Start, kill and wait for processes that ingest."""

    def __init__(self, folder):
        command = [sys.executable, "-c", PARENT]
        self.parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.results = (folder / f"result-{number}" for number in count())

    def ask(self, **asked):
        print(json.dumps(asked), file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def start(self, **asked):
        result = next(self.results)
        return self.ask(**asked, result=str(result)), result

    def finish(self, worker):
        code = self.ask(wait=worker[0])
        return code, json.loads(worker[1].read_text()) if code == 0 else {}

    def run(self, **asked):
        return self.finish(self.start(**asked))


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    started = Workers(tmp_path_factory.mktemp("results"))
    yield started
    started.parent.stdin.close()
    started.parent.wait(timeout=60)


def landings(first, stop):
    numbers = pl.int_range(first, stop, eager=True)
    delay = pl.when(numbers % (ROWS // BAD) == 7).then(999.5).otherwise(numbers % 60)
    at = pl.lit("2013-10-01T12:00:00Z")
    return pl.DataFrame({"id": numbers}).select(
        "id", flight="F" + pl.col("id").cast(pl.String), at=at, delay=pl.select(delay.cast(pl.Float64)).to_series()
    )


def fill(database, frame):
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS landings (id INTEGER, flight TEXT, at TEXT, delay REAL)")
        connection.executemany("INSERT INTO landings VALUES (?, ?, ?, ?)", frame.iter_rows())
    connection.close()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of Parquet files that overlap, a CSV file without a key, a query with a cursor, a new column."""
    folder = tmp_path_factory.mktemp("sources")
    parts, new, tower = folder / "parts", folder / "new.parquet", folder / "tower.db"
    parts.mkdir()
    landings(0, 40_000).write_parquet(parts / "1.parquet")
    landings(39_000, ROWS).filter(~((pl.col("id") < 40_000) & (pl.col("delay") > 100))).write_parquet(
        parts / "2.parquet"
    )
    landings(0, ROWS).write_csv(folder / "landings.csv")
    landings(0, ROWS).with_columns(gate="B" + pl.col("id").cast(pl.String)).write_parquet(new)
    landings(0, OLD).write_parquet(folder / "old.parquet")
    fill(tower, landings(0, ROWS))
    return {
        "parquet folder": {"source": str(parts)},
        "csv without key": {"source": str(folder / "landings.csv"), "key": False},
        "query with cursor": {"source": [f"sqlite:///{tower}", "SELECT * FROM landings"]},
        "new column": {"source": str(new), "merge": True},
    }


SOURCES = ["parquet folder", "csv without key", "query with cursor", "new column"]


@pytest.fixture
def begin(workers, sources, tmp_path):
    """Give a source and a home; the table with a new column to come holds older rows."""

    def prepare(name, home="home"):
        asked = {**sources[name], "home": str(tmp_path / home)}
        if name == "new column":
            old = asked["source"].replace("new.parquet", "old.parquet")
            assert workers.run(source=old, home=asked["home"])[0] == 0
        return asked

    return prepare


def check_whole_or_nothing(asked):
    lake, before = Lake(Home.open(asked["home"]).lake), 0
    if "merge" in asked:
        before = OLD - OLD * BAD // ROWS
    rows = lake.read("landings").height if lake.exists("landings") else 0
    assert rows in (before, ROWS - BAD)


def check_exact(asked):
    place = Home.open(asked["home"])
    kept = Lake(place.lake).read("landings")
    wanted = landings(0, ROWS)
    assert sorted(kept["id"]) == wanted.filter(pl.col("delay") < 100)["id"].to_list()
    records = [json.loads(text)["flight"] for text in Lake(place.quarantine).read("landings")["record"]]
    bad = wanted.filter(pl.col("delay") > 100)["flight"].to_list()
    old = bad[: OLD * BAD // ROWS] if "merge" in asked else []  # another source has them, too
    assert sorted(records) == sorted(bad + old)
    if "merge" in asked:
        assert kept["gate"].null_count() == OLD - len(old)
    assert Lake(place.lake).version("landings") == Lake(place.quarantine).version("landings") == int("merge" in asked)
    assert {path.name for path in place.path.iterdir()} == {"format", "keys", "locks", "lake", "quarantine"}


@pytest.mark.parametrize("name", SOURCES)
def test_killed_at_every_step_in_turn_nothing_is_lost_or_doubled(workers, begin, name):
    asked = begin(name)
    for point in POINTS:
        assert workers.run(**asked, point=point)[0] == -signal.SIGKILL, point
        check_whole_or_nothing(asked)
    code, report = workers.run(**asked)
    assert (code, report["appended"], report["quarantined"]) == (0, 0, 0)
    check_exact(asked)


@pytest.mark.parametrize("name", SOURCES)
def test_killed_at_random_moments_nothing_is_lost_or_doubled(workers, begin, name, kills):
    moments = random.Random(name)
    began = time.perf_counter()
    assert workers.run(**begin(name, "other"))[0] == 0
    usual = time.perf_counter() - began
    asked = begin(name)
    for _ in range(kills):
        worker = workers.start(**asked)
        time.sleep(moments.uniform(0.0, usual))
        os.kill(worker[0], signal.SIGKILL)
        workers.finish(worker)
        check_whole_or_nothing(asked)
    assert workers.run(**asked)[0] == 0
    check_exact(asked)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("killed", [None, ("quarantine", "midway"), ("lake", "midway"), ("lake", "after")])
def test_two_at_once_append_each_row_once_also_when_one_is_killed(workers, begin, name, killed):
    asked = begin(name)
    ends = [workers.finish(one) for one in [workers.start(**asked, point=killed), workers.start(**asked)]]
    assert ends[1][0] == 0
    new = ROWS - BAD - (OLD - OLD * BAD // ROWS if "merge" in asked else 0)
    told = [report["appended"] for code, report in ends if code == 0]
    assert sum(told) == new or (killed == ("lake", "after") and told == [0]), "one appended all, whoever came first"
    check_exact(asked)


def test_rows_that_come_after_a_kill_are_the_only_ones_read_from_a_query(workers, tmp_path):
    tower, home = tmp_path / "tower.db", tmp_path / "home"
    fill(tower, landings(0, 1_000))
    asked = {"source": [f"sqlite:///{tower}", "SELECT * FROM landings"], "home": str(home)}
    assert workers.run(**asked, point=("lake", "after"))[0] == -signal.SIGKILL
    fill(tower, landings(1_000, 1_100))
    assert workers.run(**asked, point=("lake", "end"))[0] == -signal.SIGKILL
    report = workers.run(**asked)[1]
    assert (report["read"], report["appended"]) == (101, 99)
    assert Lake(Home.open(home).lake).read("landings")["id"].n_unique() == 1_100 - 11


@pytest.mark.parametrize("point", ["reading", ("quarantine", "before"), ("lake", "before"), ("lake", "midway")])
def test_a_full_disk_is_one_line_and_leaves_the_lake_as_it_was(workers, begin, point):
    asked = begin("new column")
    code, report = workers.run(**asked, point=point, disk=True)
    assert code == 0
    assert "\n" not in report["error"]
    assert "nothing was" in report["error"]
    check_whole_or_nothing(asked)
    assert workers.run(**asked)[0] == 0
    check_exact(asked)
