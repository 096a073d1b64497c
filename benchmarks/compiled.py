"""What compiling is worth, as ratios to the pipeline itself measured in the same run.

A flights-like pipeline (words to codes, 150 boosted trees): one row, and a batch, scored by the reference scorer and by
the compiled one, round by round, one thread each (boosted trees of scikit-learn otherwise take every core). And a
device: the start of `score.py` of an export, with one event, against importing scikit-learn; and how much of scoring a
file is reading and writing its lines of JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.deploy.edge.device import open_export, score_source
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.deploy.streaming.appender import encode_lines
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.compiled.scorer import Scorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import open_version, with_reference

ROUNDS = 15
ROWS = 20_000
NUMBERS = [f"number_{k}" for k in range(24)]
GOALS = {"one row": 10.0, "a batch": 6.0}  # times faster than the pipeline


def seconds(action: Callable[[], object], repeats: int = 1) -> float:
    """Seconds that one of several repeats takes."""
    begin = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - begin) / repeats


def build(folder: Path, *, numbers: int = len(NUMBERS)) -> FeatureFrame:
    """Build a version like that of the flights, and give its rows."""
    random = np.random.default_rng(0)
    words = {name: random.choice(np.array([f"{name}{k}" for k in range(count)], dtype=object), ROWS)
             for name, count in (("carrier", 16), ("origin", 3), ("dest", 105))}  # fmt: skip
    frame = FeatureFrame({**words, **{name: random.normal(size=ROWS) for name in NUMBERS[:numbers]}})
    kinds = [Column(name, "category") for name in words] + [Column(name, "number") for name in NUMBERS[:numbers]]
    contract = Contract(tuple(kinds))
    late = frame.columns["number_0"] + random.normal(0, 1, ROWS) > 0.5
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    encode = make_column_transformer((codes, list(words)), remainder="passthrough")
    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, categorical_features=[0, 1, 2], early_stopping=False, random_state=0
    )
    pipeline = make_pipeline(encode, trees).fit(frame_to_pandas(frame, contract), late)
    few = frame.take(range(50))
    given = {"model": "benchmark", "task": "binary", "classes": [False, True], "request": contract, "frame": contract}
    golden = {"golden": (few.columns, {}, few), "training": frame, "labels": late, "deployments": ("edge",)}
    build_version(folder, pipeline=pipeline, **given, **golden)
    return frame


def make_peers() -> dict[str, Callable[[], object]]:
    """Give the last steps that a batch is measured with beside the flights' own."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    peers: dict[str, Callable[[], object]] = {
        "forest": lambda: RandomForestClassifier(100, max_depth=8, random_state=0, n_jobs=1),
        "logistic": lambda: LogisticRegression(max_iter=500),
    }
    if find_spec("lightgbm"):
        from lightgbm import LGBMClassifier

        peers["LightGBM"] = lambda: LGBMClassifier(n_estimators=150, n_jobs=1, verbosity=-1)
    return peers


def batches_beside(frame: FeatureFrame, contract: Contract) -> None:
    """Print how fast batches of other models are scored, on one thread, in turns."""
    late = frame.columns["number_0"] + np.random.default_rng(1).normal(0, 1, ROWS) > 0.5
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    for name, make in make_peers().items():
        encode = make_column_transformer((codes, ["carrier", "origin", "dest"]), remainder="passthrough")
        pipeline = make_pipeline(encode, make()).fit(frame_to_pandas(frame, contract), late)
        reference = ReferenceScorer(pipeline, contract, "binary", [False, True], True)
        compiled, facts = compile_and_prove(reference, frame.take(range(50)), frame)
        if compiled is None:
            print(f"{name:8} is not compiled: {facts['reason']}")
            continue
        with threadpool_limits(1):
            taken = [
                (seconds(lambda: reference.score(frame)), seconds(lambda: compiled.score(frame)))  # noqa: B023
                for _ in range(5)
            ]  # fmt: skip
        slow, fast = (statistics.median(side) for side in zip(*taken, strict=True))
        print(f"{name:8} a batch compiled: {slow / fast:.1f} times as fast as the pipeline")


def threads_of_a_batch(scorer: Scorer, frame: FeatureFrame) -> None:
    """Print what two threads are worth on a large frame."""
    large, before = frame.take(np.resize(np.arange(ROWS), 10 * ROWS)), os.environ.get("OMP_NUM_THREADS")
    taken: list[list[float]] = []
    for _ in range(5):
        row = []
        for threads in ("1", "2"):
            os.environ["OMP_NUM_THREADS"] = threads
            row.append(seconds(lambda: scorer.score(large)))
        taken.append(row)
    os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
    one, two = (statistics.median(side) for side in zip(*taken, strict=True))
    print(f"{len(large):,} rows on two threads: {one / two:.2f} times as fast as on one")


def memory_of_a_batch(scorer: Scorer, frame: FeatureFrame) -> None:
    """Print what memory is taken beside the rows and their scores, of many rows and of very many."""
    for rows in (10 * ROWS, 1_000 * ROWS):
        large = frame.take(np.resize(np.arange(ROWS), rows))
        tracemalloc.start()
        scores = scorer.score(large)
        taken = tracemalloc.get_traced_memory()[1] - 2 * scores.nbytes  # the blocks' scores, and they in one array
        tracemalloc.stop()
        print(f"{rows:10,} rows take {taken / 1e6:.0f} MB beside themselves and their scores")


def events(frame: FeatureFrame) -> bytes:
    """Write rows as events."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in frame.rows())


def start_of_a_device(device: Path, one: FeatureFrame) -> None:
    """Print how long it takes to score one event, from the start of Python."""
    (device.parent / "one.jsonl").write_bytes(events(one))
    score = [sys.executable, "-I", str(device / "score.py"), str(device.parent / "one.jsonl"), "--out"]
    heavy = [sys.executable, "-c", "import sklearn.ensemble, pandas"]
    taken = []
    for number in range(5):
        commands = ([*score, str(device.parent / f"out_{number}.jsonl")], heavy, [sys.executable, "-c", "pass"])
        taken.append([seconds(lambda: subprocess.run(c, capture_output=True, check=True)) for c in commands])  # noqa: B023
    own, imports, floor = (statistics.median(side) for side in zip(*taken, strict=True))
    print(f"one event on a device, from the start: {own / floor:.1f} times an empty interpreter;"
          f" importing pandas and scikit-learn alone: {imports / floor:.1f}")  # fmt: skip


def lines_of_a_device(device: Path, frame: FeatureFrame) -> None:
    """Print what part of scoring a file is reading its lines of JSON and writing those of the predictions."""
    version, data = open_export(device / "model"), events(frame)
    shares = []
    for number in range(3):
        out = device.parent / f"many_{number}.jsonl"
        whole = seconds(lambda: score_source(version, data, out))  # noqa: B023
        answers = [json.loads(line) for line in out.read_bytes().splitlines()]
        read = seconds(lambda: [json.loads(line) for line in data.splitlines()])
        shares.append((read + seconds(lambda: encode_lines(answers))) / whole)  # noqa: B023
    print(f"a file on a device: {statistics.median(shares):.0%} of the time reads and writes lines of JSON")


def main() -> int:
    """Print the ratios; 1 when one misses its goal."""
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        frame = build(Path(name, "version"))
        compiled = open_version(Path(name, "version"))
        reference = with_reference(compiled)
        one = frame.take([0])
        for what, rows, repeats in (("one row", one, 20), ("a batch", frame, 1)):
            with threadpool_limits(1):
                taken = [
                    (seconds(lambda: reference.score(rows), repeats), seconds(lambda: compiled.score(rows), repeats))  # noqa: B023
                    for _ in range(ROUNDS)
                ]  # fmt: skip
            slow, fast = (statistics.median(side) for side in zip(*taken, strict=True))
            missed += slow / fast < GOALS[what]
            print(f"{what:8} compiled: {slow / fast:5.1f} times as fast as the pipeline (goal: {GOALS[what]:g});"
                  f" {len(rows) / fast:,.0f} rows/s, {fast / len(rows) * 1e6:.1f} us a row")  # fmt: skip
        with threadpool_limits(1):
            threads_of_a_batch(compiled.scorer, frame)
            memory_of_a_batch(compiled.scorer, frame)
        batches_beside(frame, compiled.frame)
        export = export_edge(compiled, Path(name, "device"))
        print(f"an export: {export.size / 1e6:.1f} MB")
        start_of_a_device(export.folder, frame.take([0]))
        lines_of_a_device(export.folder, frame)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
