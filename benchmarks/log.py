"""What the log costs over years: bytes of a row, the rate of the mover, and the time that reading a day takes.

Rows like those of the flights - 27 features, the request, an entity, a watermark, a score, a decision - written by two
workers through `PredictionLog`, then moved and read, at two sizes: what grows with the rows shows itself. Reading is
that of `monitor`: every id once, in parts; first scores and decisions alone, then with the features as text. The floor
is a bare scan of the same columns of the same Delta table by Arrow.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlworkbench.core.home import Home
from mlworkbench.evaluation.log.moved import list_log_tables
from mlworkbench.evaluation.log.mover import HOUR, describe_waiting, move_log
from mlworkbench.evaluation.log.reader import read_log_parts
from mlworkbench.evaluation.log.rows import input_identities, log_rows
from mlworkbench.evaluation.log.writer import PredictionLog

SIZES = (100_000, 300_000)
CHUNK = 5_000
DAY_ROWS = 8_640_000  # 100 answers a second
LIGHT = ("prediction_id", "version", "deployment", "role", "scores", "decision", "latency_us")
NUMBERS = ("distance", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
COUNTS = ("sched_dep_time", "month", "day", "hour", "weekday", "seats", "engines", "year_built", "n_last", "n_day")
WORDS = {"origin": ["EWR", "JFK", "LGA"], "carrier": ["UA", "AA", "DL", "B6", "EV"], "tz": ["America/New_York"]}
WORDS |= {"engine": ["Turbo-fan", "Turbo-jet"], "manufacturer": ["BOEING", "AIRBUS", "EMBRAER"]}


def make_chunk(first: int, draws: np.random.Generator, logged_at: int) -> list[dict[str, Any]]:
    """Make log rows as a service makes them."""
    columns: dict[str, Any] = {name: draws.normal(40, 20, CHUNK).round(2) for name in NUMBERS}
    columns |= {"mean_delay": draws.normal(9, 20, CHUNK), "share_late": draws.random(CHUNK)}
    columns |= {name: draws.integers(0, 500, CHUNK) for name in COUNTS}
    columns |= {name: draws.choice(words, CHUNK).astype(object) for name, words in WORDS.items()}
    frame, scores = SimpleNamespace(columns=columns), draws.random(CHUNK)
    answers = SimpleNamespace(frame=frame, scores=scores, decisions=scores > 0.3, faults=[])
    flight = np.array([f"2013-10-{n % 28 + 1:02} UA {n} EWR" for n in range(first, first + CHUNK)], dtype=object)
    whole = {"model": "flights", "version": f"flights:{'3f2a' * 8}", "scorer": "compiled", "deployment": "realtime"}
    marks = {name: {"lake_version": 41, "newest": logged_at} for name in ("weather", "planes", "delays")}
    more = {"request_id": f"order-{first}", "entity": {"flight_id": flight}, "logged_at": logged_at, "watermark": marks}
    asked = {"request": {"tailnum": flight, "dest": draws.choice(["LAX", "SFO"], CHUNK).astype(object)}}
    return log_rows(answers, **whole, **more, **asked, latency_us=812.0, input_ids=input_identities(str(first), CHUNK))


def fill(home: Home, rows: int) -> None:
    """Write rows, in turn by two workers, spread over the hours of one day."""
    draws, path, start = np.random.default_rng(0), home.log("flights"), (time.time_ns() // 1000 // HOUR - 72) * HOUR
    with PredictionLog(path, own=True) as one, PredictionLog(path, own=True) as other:
        for number, first in enumerate(range(0, rows, CHUNK)):
            log = (one, other)[number % 2]
            log.write(make_chunk(first, draws, start + number * 24 * HOUR * CHUNK // rows))


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of CPU."""
    begun, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - begun, time.process_time() - cpu


def count(parts: Iterator[Any]) -> int:
    """Go through all parts."""
    return sum(part.height for part in parts)


def measure(rows: int, folder: Path) -> None:
    """Print one size."""
    home = Home.open(folder)
    fill(home, rows)
    path, before = home.log("flights"), describe_waiting(home.log("flights"))["bytes"]
    unmoved, _ = timed(lambda: count(read_log_parts(path, fields=LIGHT)))
    moving, cpu = timed(lambda: move_log("flights", home=home))
    (table,) = list_log_tables(path)
    after = sum(table.lake.place.files("log").values())
    light, _ = timed(lambda: count(read_log_parts(path, fields=LIGHT)))
    whole, _ = timed(lambda: count(read_log_parts(path)))
    floor, _ = timed(lambda: [None for _ in table.snapshot().to_batches(columns=list(LIGHT))])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    day = DAY_ROWS / rows
    left = describe_waiting(path)["bytes"] / 1e6
    print(f"{rows:,} rows: {before / rows:,.0f} bytes in a file, {after / rows:,.0f} in Delta"
          f" ({after / before:.2f} of it); files afterwards {left:.1f} MB")  # fmt: skip
    print(f"  moved at {rows / moving:,.0f} rows/s ({cpu / rows * 1e6:.0f} us of CPU a row); a day of {DAY_ROWS:,}"
          f" rows: {moving * day / 60:.0f} minutes; peak memory {peak:,.0f} MB")  # fmt: skip
    print(f"  read once by id: scores and decisions {rows / light:,.0f} rows/s, {light / floor:.1f} times a bare scan,"
          f" a day in {light * day:.0f} s; with features {rows / whole:,.0f} rows/s, a day in {whole * day:.0f} s;"
          f" from files {rows / unmoved:,.0f} rows/s")  # fmt: skip


def main() -> int:
    """Print both sizes, or those that are named."""
    for rows in map(int, sys.argv[1:] or SIZES):
        with tempfile.TemporaryDirectory() as name:
            measure(rows, Path(name, "home"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
