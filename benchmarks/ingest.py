"""What an ingest of Parquet costs, contract included, as a ratio to read-and-append by deltalake alone.

Ten columns of flights - texts, closed categories, numbers with bounds, two times - with a key and a rule between two
columns. The floor streams the same file into a table of its own, as three lines of deltalake do, and asks nothing. Each
measurement is a process of its own, taken in turns; CPU of all its threads, wall clock and peak memory beyond the
imports. Then the same file again, all of whose rows are known, and as many new rows into a table that grew.
The goal is judged at the larger size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.relation import Relation

SIZES, ROUNDS, GOAL = (200_000, 2_000_000), 3, 2.0
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")
CONTRACT = Contract(
    (
        Column("flight_id", "integer", lower=0),
        Column("carrier", "category", categories=CARRIERS, closed=True),
        Column("origin", "category", categories=ORIGINS, closed=True),
        Column("dest", "text"),
        Column("tail", "text", nullable=True),
        Column("scheduled", "time"),
        Column("landed", "time", nullable=True),
        Column("distance", "number", lower=10, upper=6000, unit="miles"),
        Column("departure_delay", "number", nullable=True, lower=-180, upper=2880, unit="min"),
        Column("arrival_delay", "number", nullable=True, lower=-180, upper=2880, unit="min"),
    ),
    key=("flight_id",),
    relations=(Relation("difference", ("landed", "scheduled"), lower=0, upper=5000),),
)


def write_flights(path: Path, rows: int, first: int = 0) -> None:
    """Write flights of which one in a thousand is late beyond belief."""
    rng = np.random.default_rng(first)
    minutes = np.sort(rng.integers(0, 525_600, rows)) * 60_000_000 + 1_356_998_400_000_000
    delay = np.where(rng.random(rows) < 0.001, 9999.0, rng.normal(12, 40, rows).clip(-60, 1200).round())
    missing = rng.random(rows) < 0.03
    tails = np.array([f"N{number}" for number in range(4000)], dtype=object)[rng.integers(0, 4000, rows)]
    landed = minutes + (rng.integers(60, 400, rows) * 60_000_000)
    frame = pl.DataFrame(
        {
            "flight_id": np.arange(first, first + rows),
            "carrier": np.array(CARRIERS, dtype=object)[rng.integers(0, len(CARRIERS), rows)],
            "origin": np.array(ORIGINS, dtype=object)[rng.integers(0, 3, rows)],
            "dest": np.array([f"D{number:02}" for number in range(100)], dtype=object)[rng.integers(0, 100, rows)],
            "tail": tails,
            "scheduled": pl.Series(minutes).cast(pl.Datetime("us", "UTC")),
            "landed": pl.Series(landed).cast(pl.Datetime("us", "UTC")),
            "distance": rng.integers(80, 5000, rows).astype(float),
            "departure_delay": delay,
            "arrival_delay": delay + rng.normal(-5, 10, rows).round(),
        }
    )
    gone = pl.Series(missing)
    names = ("tail", "landed", "departure_delay", "arrival_delay")
    frame.with_columns(pl.when(~gone).then(pl.col(name)).alias(name) for name in names).write_parquet(path)


def by_ingest(path: Path, home: Path) -> None:
    """Take the file in."""
    from mlworkbench.core.home import Home
    from mlworkbench.data.ingest.ingest import ingest
    from mlworkbench.data.ingest.table import Table

    ingest(Table("flights", path, CONTRACT, available_at="scheduled"), home=Home.open(home))


def by_deltalake(path: Path, home: Path) -> None:
    """Stream the file into a table, batch by batch as they come."""
    import deltalake
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    reader = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches())
    deltalake.write_deltalake(str(home / "flights"), reader, mode="append")


def measure(way: str, path: Path, home: Path) -> None:
    """Do it here, after everything was imported and done once with a few rows; print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few.parquet")
        write_flights(few, 1_000)
        WAYS[way](few, Path(folder, "home"))
    before, started, cpu = peak(), time.perf_counter(), time.process_time()
    WAYS[way](path, home)
    cost = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - started, "memory": peak() - before}
    print(json.dumps(cost))


def peak() -> float:
    """Largest resident memory so far, in MB; 0 where the system does not tell that of this program alone."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


WAYS = {"ingest": by_ingest, "deltalake": by_deltalake}


def child(way: str, path: Path, home: Path) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, way, str(path), str(home)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def least(costs: list[dict[str, float]]) -> dict[str, float]:
    """Give the best of the rounds: others use the machine."""
    return {name: min(cost[name] for cost in costs) for name in costs[0]}


def rounds(path: Path, folder: Path) -> Iterator[dict[str, dict[str, float]]]:
    """Measure all ways and the second ingest in turns."""
    for number in range(ROUNDS):
        places = {way: folder / f"{way}-{path.stem}-{number}" for way in WAYS}
        places["deltalake"].mkdir()
        found = {way: child(way, path, place) for way, place in places.items()}
        yield {**found, "again": child("ingest", path, places["ingest"])}


def compare(rows: int, folder: Path) -> bool:
    """Print the ratios for a file of so many rows; True where the goal is met."""
    path = folder / f"{rows}.parquet"
    write_flights(path, rows)
    measured = list(rounds(path, folder))
    ours, floor, again = (least([one[way] for one in measured]) for way in ("ingest", "deltalake", "again"))
    ratios = {clock: ours[clock] / floor[clock] for clock in ("cpu", "wall")}
    print(
        f"{rows:>9,} rows: ingest {ratios['cpu']:.2f} times read-and-append by CPU (goal {GOAL:.1f}),"
        f" {ratios['wall']:.2f} by the clock;"
        f" {ours['cpu']:.2f} against {floor['cpu']:.2f} s of CPU;"
        f" peak {ours['memory']:.0f} against {floor['memory']:.0f} MB;"
        f" again, all known: {again['cpu'] / floor['cpu']:.2f} times by CPU, {again['memory']:.0f} MB",
        flush=True,
    )
    return ratios["cpu"] <= GOAL


def main() -> int:
    """Print the ratios, and what the same file costs as the table grows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        met = [compare(rows, folder) for rows in SIZES]
        for size in (0, *SIZES):
            home, path = folder / f"grown-{size}", folder / "more.parquet"
            if size:
                by_ingest(folder / f"{size}.parquet", home)
            write_flights(path, SIZES[0], first=10_000_000)
            cost = child("ingest", path, home)
            print(
                f"{SIZES[0]:,} new rows into a table of {size:>9,}: {cost['cpu']:.2f} s of CPU, {cost['memory']:.0f} MB"
            )
    return 0 if met[-1] else 1


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
