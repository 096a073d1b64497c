"""Places where partitions can go, each with eyes of its own: what a reader of the place sees, without the sink."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import deltalake
import polars as pl
import pytest

from mlworkbench.data.sinks.open_sink import open_sink
from mlworkbench.data.sinks.webhook import WebhookSink, exponential_backoff

KINDS = ("folder", "delta", "sqlite", "postgresql", "webhook", "s3", "delta on s3")
FAST = partial(exponential_backoff, first=0.002, longest=0.02, attempts=40)


class Receiver:
    """A service that takes batches, keeps rows by id, remembers keys - and fails as its dice say."""

    def __init__(self, faults=0.0, seed=0):
        self.rows, self.calls, self.keys = {}, [], {}
        self.faults, self.dice, self.lock = faults, random.Random(seed), threading.Lock()
        self.answers = []  # answers to give first: a status, (status, Retry-After), "drop" or "drop after"
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                with receiver.lock:
                    answer = receiver.decide()
                    taken = answer == "drop after" or (isinstance(answer, int) and 200 <= answer < 300)
                    receiver.calls.append((self.headers["Idempotency-Key"], body, dict(self.headers), answer))
                    if taken:
                        receiver.take(self.headers["Idempotency-Key"], json.loads(body))
                self.close_connection = True
                if isinstance(answer, str):
                    self.connection.close()
                    return
                status, after = answer if isinstance(answer, tuple) else (answer, None)
                self.send_response(status)
                if after is not None:
                    self.send_header("Location" if 300 <= status < 400 else "Retry-After", after)
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def decide(self):
        if self.answers:
            return self.answers.pop(0)
        if self.dice.random() < self.faults:
            return self.dice.choice(["drop", "drop after", 500, 503, (429, "0"), (429, None)])
        return 200

    def take(self, key, batch):
        if key in self.keys:
            assert self.keys[key] == batch, "one key, two batches"
            return
        self.keys[key] = batch
        for row in batch["rows"]:
            self.rows[row["prediction_id"]] = (batch["partition"], row["prediction_id"], row["score"])
        for name in batch["withdrawn"]:
            self.rows.pop(name, None)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/predictions"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Place:
    """A place by kind: `to` for the sink, `rows` as a reader sees them, `mark` that changes with any write."""

    def __init__(self, kind, request, tmp_path):
        self.kind, self.folder, self.environment = kind, tmp_path, {}
        made = {
            "folder": f"{tmp_path}/predictions",
            "delta": f"delta:{tmp_path}/predictions",
            "sqlite": f"sqlite:///{tmp_path}/shop.db?table=predictions",
        }
        if kind == "webhook":
            self.receiver = Receiver()
            request.addfinalizer(self.receiver.close)
            self.to = self.receiver.url
        elif kind == "postgresql":
            self.address = request.getfixturevalue("postgres")
            self.ask("DROP TABLE IF EXISTS predictions", fetch=False)
            self.to = f"{self.address}?table=predictions"
        elif kind.endswith("s3"):
            self.store = request.getfixturevalue("s3")
            self.to = ("delta:" if kind.startswith("delta") else "") + self.store.url("predictions")
        else:
            self.to = made[kind]

    def sink(self):
        sink = open_sink(self.to, folder=self.folder / "home")
        return replace(sink, retrying=FAST) if isinstance(sink, WebhookSink) else sink

    def ask(self, statement, *, fetch=True):
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.folder / "shop.db")) as connection:
                return connection.execute(statement).fetchall()
        from adbc_driver_postgresql import dbapi

        secret = quote(os.environ["SHOP_PASSWORD"], safe="")
        with dbapi.connect(self.address.replace("${SHOP_PASSWORD}", secret)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                found = cursor.fetchall() if fetch else []
            connection.commit()
        return [tuple(row) for row in found]

    def rows(self):
        if self.kind in ("sqlite", "postgresql"):
            return sorted(self.ask("SELECT partition, prediction_id, score FROM predictions"))
        if self.kind == "webhook":
            return sorted(self.receiver.rows.values())
        if self.kind.startswith("delta"):
            table = deltalake.DeltaTable(self.to.removeprefix("delta:")).to_pyarrow_table()
            return sorted(pl.DataFrame(table).select("partition", "prediction_id", "score").rows())
        return sorted((name, *row) for name, file in self.files() for row in pl.read_parquet(file).rows())

    def files(self):
        if self.kind == "folder":
            return [(path.stem, path) for path in sorted(Path(self.to).glob("*.parquet"))]
        from pyarrow.fs import FileSelector

        objects = self.store.files.get_file_info(FileSelector(self.store.key("predictions")))
        return [(info.base_name[:-8], self.store.files.open_input_file(info.path).read()) for info in objects]

    def mark(self):
        if self.kind == "folder":
            return [(path.name, path.stat().st_ino) for path in Path(self.to).iterdir()]
        if self.kind == "sqlite":
            return (self.folder / "shop.db").read_bytes()
        if self.kind == "postgresql":
            return sorted(self.ask("SELECT prediction_id, xmin::text, ctid::text FROM predictions"))
        if self.kind == "webhook":
            return len(self.receiver.calls)
        if self.kind.startswith("delta"):
            return deltalake.DeltaTable(self.to.removeprefix("delta:")).version()
        from pyarrow.fs import FileSelector

        objects = self.store.files.get_file_info(FileSelector(self.store.key("predictions")))
        return [(info.path, info.mtime_ns) for info in objects]

    def prepared(self, *words):
        """Start a process that will write days, see `WORKER`; it loads what it needs and waits for `go`."""
        command = [sys.executable, "-c", WORKER, self.to, str(self.folder / "home"), *map(str, words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, **pipes)

    def go(self, worker):
        worker.stdin.write("go\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "begins\n", worker.stderr.read()
        return worker

    def worker(self, *words):
        """Start a process that writes days at once."""
        return self.go(self.prepared(*words))


WORKER = """
import itertools, os, signal, sys
import polars as pl
from dataclasses import replace
from functools import partial
from pathlib import Path
from mlworkbench.data.sinks import database as sink_sql, webhook as outbox
from mlworkbench.data.sinks.webhook import WebhookSink, exponential_backoff
from mlworkbench.data.sinks.open_sink import open_sink

to, home, editions, days, rows, point = sys.argv[1:7]
outbox.ROWS = 25

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

if point == "before noting":
    outbox.Outbox.note = die
elif point == "before the rename":
    Path.replace = die
elif point == "before the commit":
    sink_sql.PartitionTable.upsert = die

def day(name, edition):
    numbers = [number for number in range(int(rows)) if (number + edition) % 10]
    ids = [f"{name}-{number:05}" for number in numbers]
    return pl.DataFrame({"prediction_id": ids, "score": [number + edition / 10 for number in numbers]})

place = open_sink(to, folder=Path(home))
if isinstance(place, WebhookSink):
    fast = partial(exponential_backoff, first=0.002, longest=0.02, attempts=40)
    place = replace(place, retrying=fast)
sys.stdin.readline()
print("begins", flush=True)
for edition in itertools.cycle([1, 2]) if editions == "forever" else map(int, editions.split(",")):
    for name in days.split(","):
        place.write(name, day(name, edition))
print("done", flush=True)
"""


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    return Place(request.param, request, tmp_path)


@pytest.fixture
def receiver(request):
    made = Receiver()
    request.addfinalizer(made.close)
    return made


@pytest.fixture
def webhook_place(request, tmp_path):
    return Place("webhook", request, tmp_path)
