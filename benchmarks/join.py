"""What a point-in-time join costs, as ratios to bare polars measured in the same run.

1,000,000 requests and three views over three tables of 1,000,000 rows: `weather` (as-of, text key, five numbers, six
hours to live), `balance` (as-of, integer key, five numbers, two days to live) and `paid` (window of seven days, a count
and a mean). The peer is what a careful person writes by hand in polars: requests sorted once, tables sorted, running
totals, `join_asof` with tolerance, requests put back in order; it neither checks types nor that rows are unique. Both
are timed from tables in memory, and with reading them from the lake; both answers are compared. Judged by CPU, all
threads included. The largest memory is that of a process of its own; `--large` also joins 10,000,000 requests there.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.offline.join import join_views
from mlworkbench.features.views import AsOfView, Total, WindowView

ROWS, ROUNDS = 1_000_000, 5
GOAL, MEMORY = 1.5, 6.0  # times the peer; GB of 10,000,000 requests
STATIONS, ACCOUNTS = 115, 2_740
START = int(datetime(2013, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
HOUR = 3_600_000_000
YEAR = 8_760 * HOUR
NUMBERS = {table: [f"{table}_{k}" for k in range(5)] for table in ("weather", "balances")}
WEEK, TINY = timedelta(days=7), timedelta(microseconds=1)
VIEWS = [
    AsOfView("weather", "weather", ("station",), NUMBERS["weather"], ttl=timedelta(hours=6)),
    AsOfView("balance", "balances", ("account",), NUMBERS["balances"], ttl=timedelta(days=2)),
    WindowView(
        "paid", "payments", ("account",), WEEK, {"payments": Total("count"), "paid": Total("mean", "amount", 2)}
    ),
]


class InMemory(Lake):
    """The same tables, read before."""

    def __init__(self, tables: dict[str, pl.DataFrame]) -> None:
        self.held = tables

    def exists(self, name: str) -> bool:
        """Say whether there is such a table."""
        return name in self.held

    def scan(self, name: str, *, version: int | None = None) -> pl.LazyFrame:
        """Give the table."""
        return self.held[name].lazy()


def moments(values: np.ndarray) -> pl.Series:
    """Make times of microseconds."""
    return pl.Series(values).cast(pl.Datetime("us", "UTC"))


def fill(lake: Lake) -> None:
    """Write the three tables, in the order of time as they came."""
    rng = np.random.default_rng(0)
    for table, key, names, step in (
        ("weather", "station", [f"station_{k:03}" for k in range(STATIONS)], HOUR),
        ("balances", "account", np.arange(ACCOUNTS), 24 * HOUR),
    ):
        count = YEAR // step
        values = {name: rng.normal(size=count * len(names)).round(2) for name in NUMBERS[table]}
        times = moments(np.repeat(START + step * np.arange(count), len(names)))
        lake.append(table, pl.DataFrame({key: np.tile(names, count), "available_at": times, **values}).to_arrow())
    account, amount = rng.integers(0, ACCOUNTS, ROWS), rng.normal(50, 20, ROWS).round(2)
    times = moments(np.sort(rng.integers(START, START + YEAR, ROWS)))
    lake.append("payments", pl.DataFrame({"account": account, "available_at": times, "amount": amount}).to_arrow())


def requests(count: int) -> pl.DataFrame:
    """Draw requests of a year; some stations and accounts are unknown."""
    rng = np.random.default_rng(1)
    stations = pl.Series([f"station_{k:03}" for k in range(STATIONS + 5)])
    station, account = stations.gather(rng.integers(0, STATIONS + 5, count)), rng.integers(0, ACCOUNTS + 60, count)
    times = moments(rng.integers(START, START + YEAR, count))
    return pl.DataFrame({"station": station, "account": account, "prediction_time": times})


def bare(asked: pl.DataFrame, tables: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Join by hand."""
    found = asked.with_row_index("row").sort("prediction_time")
    for table, key, ttl in (("weather", "station", timedelta(hours=6)), ("balances", "account", timedelta(days=2))):
        right = tables[table].sort("available_at")
        on = {"left_on": "prediction_time", "right_on": "available_at", "by": key, "check_sortedness": False}
        found = found.join_asof(right, **on, tolerance=ttl, coalesce=True).drop("available_at", strict=False)
    cents = (pl.col("amount") * 100).round().cast(pl.Int64)
    events = tables["payments"].sort("available_at").select("account", "available_at", n=pl.lit(1), s=cents)
    ties = events.group_by("account", "available_at", maintain_order=True).agg(pl.col("n", "s").sum())
    totals = ties.with_columns(pl.col("n", "s").cum_sum().over("account"))
    ends = {"end": pl.col("prediction_time") - TINY, "start": pl.col("prediction_time") - WEEK - TINY}
    found = found.with_columns(**ends)
    for end in ends:
        right = totals.rename({"n": f"n_{end}", "s": f"s_{end}"})
        on = {"left_on": end, "right_on": "available_at", "by": "account", "check_sortedness": False}
        found = found.join_asof(right, **on, coalesce=True).drop("available_at", strict=False)
    count, amount = (pl.col(f"{t}_end").fill_null(0) - pl.col(f"{t}_start").fill_null(0) for t in "ns")
    mean = pl.when(count > 0).then(amount / (count * 100)).otherwise(float("nan"))
    return found.with_columns(payments=count, paid=mean).sort("row")


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of CPU, all threads, and by the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def check_same(ours: pl.DataFrame, peer: pl.DataFrame) -> None:
    """Refuse another answer."""
    for name in (name for view in VIEWS for name in view.outputs):
        left, right = (side[name].cast(pl.Float64).fill_null(float("nan")) for side in (ours, peer))
        if not left.equals(right):
            raise SystemExit(f"column {name!r} differs from bare polars")


def peak(folder: Path, count: int) -> float:
    """Largest memory in GB of a process that joins some requests."""
    words = [sys.executable, __file__, "--child", str(folder), str(count)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1e6


def child(folder: str, count: str) -> int:
    """Join, and print the largest memory in kB."""
    join_views(requests(int(count)), VIEWS, Lake(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return 0


def measure(lake: Lake) -> bool:
    """Print the ratios; True where the goal is met."""
    asked = requests(ROWS)
    tables = {view.table: lake.read(view.table) for view in VIEWS}
    held, met = InMemory(tables), True
    check_same(join_views(asked, VIEWS, lake), bare(asked, tables))
    for what, ours, peer in (
        ("from memory", lambda: join_views(asked, VIEWS, held), lambda: bare(asked, tables)),
        (
            "with reading",
            lambda: join_views(asked, VIEWS, lake),
            lambda: bare(asked, {view.table: lake.read(view.table) for view in VIEWS}),
        ),
    ):
        taken = [(seconds(ours), seconds(peer)) for _ in range(ROUNDS)]
        (cpu, wall), (peer_cpu, peer_wall) = ([min(side) for side in zip(*sides, strict=True)] for sides in zip(*taken, strict=True))  # fmt: skip  # noqa: E501
        met = met and cpu / peer_cpu <= GOAL
        print(f"{what:12} {ROWS:,} requests, 3 views: {cpu / peer_cpu:.2f} times bare polars by CPU (goal {GOAL}),"
              f" {wall / peer_wall:.2f} by the clock; {cpu:.2f} against {peer_cpu:.2f} s of CPU")  # fmt: skip
    return met


def main() -> int:
    """Print the ratios and the memory; 1 when a goal is missed."""
    if "--child" in sys.argv:
        return child(*sys.argv[2:4])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(Lake(folder))
        met = measure(Lake(folder))
        for count in (ROWS, 10 * ROWS) if "--large" in sys.argv else (ROWS,):
            used = peak(folder, count)
            met = met and used < MEMORY
            print(f"{count:,} requests: at most {used:.2f} GB (goal for 10,000,000: below {MEMORY:g})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
