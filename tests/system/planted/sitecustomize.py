"""Faults inside running processes of a test, switched by a file: without its name in the environment nothing is done.

The file holds the name of the fault that is to be, and perhaps a word for it; no file, no fault. Each faulty step
stands beside the right one and calls it, so that a running service goes from right to wrong and back between requests.
"""

from __future__ import annotations

import os
from pathlib import Path

SWITCH = os.environ.get("MLWORKBENCH_TEST_FAULT")


def planted():
    """Give the name of the fault that is on, and its word."""
    path = Path(SWITCH)
    words = path.read_text(encoding="utf-8").split() if path.exists() else []
    return [*words, "", ""][:2]


def plant(name, owner, step, faulty):
    """Put a faulty step beside a right one."""
    right = getattr(owner, step)

    def chosen(*args, **kwargs):
        if planted()[0] == name:
            return faulty(right, *args, **kwargs)
        return right(*args, **kwargs)

    setattr(owner, step, chosen)


def views():
    """Faults of looking up: no time-to-live, and a window that holds the current row."""
    import numpy as np

    from mlworkbench.features import answer, asking

    plant("no-ttl", answer, "expired", lambda right, asked, available, ttl: np.zeros(len(asked), dtype=bool))

    def current(right, view, keys, times):
        return right(view, keys, times + hasattr(view, "window"))

    plant("current", asking, "asked_rows", current)


def features():
    """Faults of a row function and of the frame: fewer digits, another unit."""
    import numpy as np

    from mlworkbench.scoring import version

    def changed(change):
        def faulty(right, *args, **kwargs):
            found = right(*args, **kwargs)
            return {**found, "speed": change(found["speed"])}

        return faulty

    plant("float32", version, "apply_row_functions", changed(lambda v: v.astype(np.float32).astype(np.float64)))

    def rounded(right, columns, contract):
        return right({**columns, "distance": columns["distance"].astype(np.float32)}, contract)

    plant("frame32", version, "frame_from_columns", rounded)
    plant("knots", version, "apply_row_functions", changed(lambda v: v * 0.868976))


def scorer():
    """Faults of the scorer: codes of a category shifted, and a score moved by less than the tolerance."""
    import numpy as np

    from mlworkbench.scoring.compiled import CompiledScorer
    from mlworkbench.scoring.frame import FeatureFrame

    turn = {"AA": "B6", "B6": "DL", "DL": "UA", "UA": "AA"}

    def shifted(right, self, frame):
        carriers = np.array([turn.get(value, value) for value in frame.columns["carrier"].tolist()], dtype=object)
        return right(self, FeatureFrame({**frame.columns, "carrier": carriers}))

    def moved(right, self, frame):
        scores, decisions = right(self, frame)
        return scores + 1e-10, decisions

    plant("codes", CompiledScorer, "answer", shifted)
    plant("tiny", CompiledScorer, "answer", moved)


def decision():
    """Another threshold."""
    from mlworkbench.scoring.decision import decide
    from mlworkbench.scoring.version import Version

    def faulty(right, self, frame):
        scores = right(self, frame)[0]
        return scores, decide(scores, {**self.declaration, "threshold": float(planted()[1])})

    plant("threshold", Version, "answer", faulty)


def worker():
    """A worker that was never restarted: every second request is answered by an old version."""
    from mlworkbench.deploy.choice import choose
    from mlworkbench.deploy.realtime import Realtime

    old, count = [], [0]

    def faulty(right, self, body, *asked):
        if not old:
            old.append(Realtime.open(choose({**os.environ, "MLWORKBENCH_VERSION": planted()[1]})))
        count[0] += 1
        return right(old[0] if count[0] % 2 else self, body, *asked)

    plant("old", Realtime, "respond", faulty)


def threads():
    """Sessions of ONNX Runtime that take two threads, whatever they are told."""
    import onnxruntime

    real = onnxruntime.SessionOptions

    class Stubborn(real):
        def __setattr__(self, name, value):
            super().__setattr__(name, 2 if name == "intra_op_num_threads" else value)

    onnxruntime.SessionOptions = Stubborn


if SWITCH:
    for step in (views, features, scorer, decision, worker):
        step()
    if planted()[0] == "threads":
        threads()
