"""What one row costs: the bare graph, the plan, the path by frames, scikit-learn; all in one run, on one thread.

Each begins with a record that is read and checked, and ends with its score and decision. The bare graph is ONNX Runtime
called by hand with codes from dictionaries, as `realtime_peers.py` has it, and decides nothing. The path by frames is
the compiled scorer without its plan: an array for each column. Twice: ten columns, and the 27 of `compiled.py`.

The goal: the plan takes at most 2.5 times the bare graph. Exit code 1: it is missed, or scores differ.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1")  # before numpy comes

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from compiled import build
from threadpoolctl import threadpool_limits

from mlworkbench.scoring.compiled.plan import RowPlan
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.version.version import Version, open_version, predict, with_reference

ROUNDS, REPEATS, GOAL = 31, 200, 2.5


class Framed(CompiledScorer):
    """The compiled scorer as if no program had a plan."""

    def _plan_for(self, width: int) -> RowPlan | None:
        return None


def open_bare(version: Version) -> Callable[[dict[str, Any]], float]:
    """Give what scores a record with the graph, by hand."""
    scorer: Any = version.scorer
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(scorer.graphs[0], options, providers=["CPUExecutionProvider"])
    words = [column.name for column in version.frame.columns if column.kind == "category"]
    rest = [name for name in version.frame.names if name not in words]
    known_of = {name: known_words(scorer, place) for place, name in enumerate(words)}
    codes = {name: {key: float(k) for k, key in enumerate(known)} for name, known in known_of.items()}
    divisor, base = scorer.program["model"]["divisor"], scorer.program["model"]["base"][0]

    def score(record: dict[str, Any]) -> float:
        row = [known.get(record[name], math.nan) for name, known in codes.items()]
        row += [math.nan if (value := record[name]) is None else value for name in rest]
        raw = session.run(None, {"features": np.array([row], np.float64)})[0]
        return 1 / (1 + math.exp(-(float(raw[0][0]) / divisor + base)))

    return score


def known_words(scorer: CompiledScorer, place: int) -> list[str]:
    """Give the words that the encoder of a column knows, in the order of their codes."""
    parts = scorer.program["steps"][0]["parts"]
    return list(parts[0]["steps"][0]["columns"][place]["keys"])


def microseconds(action: Callable[[], object], repeats: int) -> float:
    """Microseconds that one of several repeats takes."""
    begin = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - begin) / repeats * 1e6


def measure(version: Version, record: dict[str, Any]) -> dict[str, float]:
    """Time all four, round by round; give medians."""
    scorer: Any = version.scorer
    framed = replace(version, scorer=Framed(scorer.program, scorer.graphs))
    pipeline, bare = with_reference(version), open_bare(version)
    checked = version.row_check.good_columns([record])
    if checked is None:
        raise SystemExit(f"a record that breaks no rule was meant; got {record}")
    kept = dict(version.row_check.read(record)[1])

    def by_frames() -> object:
        arrays = {name: np.array([kept[name]], dtype=version.row_check.types[name]) for name in kept}
        return predict(framed, arrays, {}, faults=())

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "bare graph": (lambda: bare(kept), REPEATS),
        "plan": (lambda: predict(version, checked, {}, faults=()), REPEATS),
        "frames": (by_frames, REPEATS),
        "scikit-learn": (lambda: predict(pipeline, dict(checked), {}, faults=()), 3),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (action, repeats) in ways.items():
            taken[name].append(microseconds(action, repeats))
    return {name: statistics.median(values) for name, values in taken.items()}


def differs(version: Version, rows: list[dict[str, Any]]) -> int:
    """Count rows that the plan scores otherwise than a batch, or farther from the bare graph than its last digit."""
    bare, wrong = open_bare(version), 0
    for start in range(0, len(rows), 30):
        part = rows[start : start + 30]
        together: Any = predict(version, version.row_check.good_columns(part) or {}, {}, faults=()).scores.tolist()
        for record, score in zip(part, together, strict=True):
            alone = predict(version, version.row_check.good_columns([record]) or {}, {}, faults=()).scores[0]
            wrong += alone != score or not math.isclose(alone, bare(record), rel_tol=1e-14)
    return wrong


def main() -> int:
    """Print the medians and their ratios to the bare graph; 1 when one misses its goal."""
    missed = 0
    for numbers in (7, 24):
        with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
            frame = build(Path(name, "version"), numbers=numbers)
            version = open_version(Path(name, "version"))
            rows = frame.take(range(600)).rows()
            taken, wrong = measure(version, rows[0]), differs(version, rows)
        missed += wrong > 0 or taken["plan"] > GOAL * taken["bare graph"]
        floor = taken["bare graph"]
        shown = "; ".join(f"{way} {value:.1f} us ({value / floor:.2f})" for way, value in taken.items())
        print(f"{numbers + 3} columns: {shown}; goal of the plan {GOAL}; {wrong} of {len(rows)} rows differ")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
