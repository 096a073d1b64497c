"""Which step of the package each planted fault stands beside, and what it does there in its place."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

SWITCH = os.environ.get("MLWORKBENCH_TEST_FAULT", "")
STEPS = {
    "no-ttl": ("mlworkbench.features.online.lookup", "find_expired"),
    "current": ("mlworkbench.features.online.lookup", "plan_reads"),
    "float32": ("mlworkbench.scoring.version.version", "apply_row_functions"),
    "knots": ("mlworkbench.scoring.version.version", "apply_row_functions"),
    "frame32": ("mlworkbench.scoring.version.version", "frame_from_columns"),
    "codes": ("mlworkbench.scoring.compiled.scorer", "CompiledScorer.answer"),
    "tiny": ("mlworkbench.scoring.compiled.scorer", "CompiledScorer.answer"),
    "row-codes": ("mlworkbench.scoring.compiled.base.layout", "Table.find"),
    "row-places": ("mlworkbench.scoring.compiled.plan", "RowPlan.__call__"),
    "threshold": ("mlworkbench.scoring.version.version", "Version.answer"),
    "old": ("mlworkbench.deploy.realtime.service", "Realtime.respond_together"),
    "threads": ("onnxruntime", "SessionOptions"),
}
FAULTS: dict[str, Callable[..., Any]] = {}


def find_step(name: str) -> tuple[Any, str, Any]:
    """Give the owner of a fault's step, the step's name in it, and the step as it is."""
    module, path = STEPS[name]
    *owners, step = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, step, getattr(owner, step)


def switched_on() -> list[str]:
    """Give the name of the fault that is on, and its word."""
    path = Path(SWITCH)
    words = path.read_text(encoding="utf-8").split() if path.exists() else []
    return [*words, "", ""][:2]


def calls(switch: Path) -> Path:
    """Where faulty steps write their names when they are called."""
    return switch.with_suffix(".calls")


def note_call(name: str) -> None:
    with calls(Path(SWITCH)).open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")


def fault(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Keep a function as what stands in place of a step; it gets its own name and the right step first."""

    def keep(faulty: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.update(dict.fromkeys(names, faulty))
        return faulty

    return keep


def plant(name: str) -> None:
    """Put a faulty step beside a right one; a process whose step is not where the table says must not go on."""
    try:
        owner, step, right = find_step(name)
    except (ImportError, AttributeError) as error:
        raise SystemExit(f"planted fault {name}: {'.'.join(STEPS[name])} is not there: {error}") from error

    def chosen(*args: Any, **kwargs: Any) -> Any:
        if switched_on()[0] != name:
            return right(*args, **kwargs)
        note_call(name)
        return FAULTS[name](name, right, *args, **kwargs)

    setattr(owner, step, chosen)


@fault("no-ttl")
def without_ttl(name, right, asked, available, ttl):
    import numpy as np

    return np.zeros(len(asked), dtype=bool)


@fault("current")
def with_the_current_row(name, right, view, keys, times):
    return right(view, keys, times + hasattr(view, "window"))


@fault("float32", "knots")
def of_speed(name, right, *args, **kwargs):
    """Fewer digits, or another unit, in what a row function gives."""
    import numpy as np

    found = right(*args, **kwargs)
    speed = found["speed"]
    return {**found, "speed": speed * 0.868976 if name == "knots" else speed.astype(np.float32).astype(np.float64)}


@fault("frame32")
def of_frame(name, right, columns, contract):
    import numpy as np

    return right({**columns, "distance": columns["distance"].astype(np.float32)}, contract)


@fault("codes")
def with_shifted_codes(name, right, self, frame):
    import numpy as np

    from mlworkbench.scoring.frame import FeatureFrame

    turn = {"AA": "B6", "B6": "DL", "DL": "UA", "UA": "AA"}
    carriers = np.array([turn.get(value, value) for value in frame.columns["carrier"].tolist()], dtype=object)
    return right(self, FeatureFrame({**frame.columns, "carrier": carriers}))


@fault("row-codes")
def with_shifted_codes_in_the_plan(name, right, self, value):
    """A row alone reads what stands for another carrier."""
    return right(self, {"AA": "B6", "B6": "DL", "DL": "UA", "UA": "AA"}.get(value, value))


@fault("row-places")
def with_numbers_in_each_others_places(name, right, self, values):
    """A row alone has hour and distance exchanged."""
    numbers = [k for k, value in enumerate(values) if isinstance(value, float | int)]
    first, second = numbers[0], numbers[3]
    turned = list(values)
    turned[first], turned[second] = values[second], values[first]
    return right(self, turned)


@fault("tiny")
def moved_within_tolerance(name, right, self, frame):
    scores, decisions = right(self, frame)
    return scores + 1e-10, decisions


@fault("threshold")
def by_another_threshold(name, right, self, frame):
    from mlworkbench.scoring.decision import decide

    scores = right(self, frame)[0]
    return scores, decide(scores, {**self.declaration, "threshold": float(switched_on()[1])})


OLD, REQUESTS = [], [0]


@fault("old")
def by_a_worker_that_was_never_restarted(name, right, self, calls):
    """Every second request is answered by an old version."""
    from mlworkbench.deploy.realtime.service import Realtime
    from mlworkbench.deploy.selection import select_served

    if not OLD:
        OLD.append(Realtime.open(select_served({**os.environ, "MLWORKBENCH_VERSION": switched_on()[1]})))
    REQUESTS[0] += 1
    return right(OLD[0] if REQUESTS[0] % 2 else self, calls)


@fault("threads")
def with_two_threads(name, right, *args, **kwargs):
    """Sessions of ONNX Runtime take two threads, whatever they are told."""

    class Stubborn(right):
        def __setattr__(self, key, value):
            super().__setattr__(key, 2 if key == "intra_op_num_threads" else value)

    return Stubborn(*args, **kwargs)


def plant_all() -> None:
    """Plant all faults; the one of a whole library only where it is on, since it loads the library."""
    for name in STEPS:
        if name != "threads" or switched_on()[0] == name:
            plant(name)
