"""The real-time service beside its peers: latency, requests a second, memory, start, stalls; all in one run.

The same boosted trees and one record of 10 columns for everybody. The peers do not check ranges, log or count: bare
uvicorn with ONNX Runtime (the floor), FastAPI and BentoML with it, and both with the scikit-learn pipeline. Ours has
everything on: contract, features, log, metrics. Each contestant is started, warmed, measured at one connection and at
32, and stopped, in three interleaved passes; medians are compared. The load comes from a process of its own, which two
workers on two cores have to share the cores with.

The log holds 10 million rows in the very file that the first worker writes, made by SQL before anything starts: rows
stay there for 24 hours and are moved then, so that is a day of 116 answers a second. One in a hundred is older, and is
moved while stalls are looked for. The file fits into the memory of the machine. The logs of the other models (flights,
the pipeline that does not compile) begin empty.

Needs FastAPI, which the workbench does not. Beside the environment, touching nothing in it::

    pip install --target /tmp/peers --no-deps fastapi annotated-doc
    PYTHONPATH=/tmp/peers python benchmarks/realtime.py

``--quick`` is a look of a minute or two: short, one pass, 100,000 rows, a stall of 10 s. Exit code 1: a goal is missed.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", BENTOML_DO_NOT_TRACK="true")  # before numpy comes

import argparse
import compileall
import http.client
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

import mlworkbench
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.core.sqlite import open_sqlite
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.realtime.call import Call
from mlworkbench.deploy.realtime.process import free_port, start_service, stop
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.evaluation.log.mover import HOUR
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version

HERE = Path(__file__).resolve().parent
TRAINED = 20_000
COUNTS = {"carrier": 16, "origin": 3, "dest": 105}
NUMBERS = [f"number_{k}" for k in range(7)]
VIEWS = tuple(AsOfView(f"view_{v}", f"table_{v}", ("origin",), [f"v{v}_{c}" for c in range(5)]) for v in range(3))
NOON = int(datetime(2013, 10, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000
ROW = 500  # bytes of a row of the log in its file, with its indices


@dataclass
class Plan:
    """How long, how often."""

    passes: int = 3
    seconds: float = 4.0
    rows: int = 10_000_000
    stall: float = 60.0
    starts: int = 3
    taken: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def note(self, who: str, **found: float) -> None:
        """Keep what was measured in one pass."""
        for name, value in found.items():
            self.taken[who][name].append(value)

    def median(self, who: str, name: str) -> float:
        """Give the median of the passes; NaN where nothing was measured."""
        values = self.taken[who][name]
        return statistics.median(values) if values else float("nan")


def make_frame() -> FeatureFrame:
    """Draw training rows."""
    draws = np.random.default_rng(0)
    words = {name: draws.choice(np.array([f"{name}{k}" for k in range(count)], dtype=object), TRAINED)
             for name, count in COUNTS.items()}  # fmt: skip
    return FeatureFrame({**words, **{name: draws.normal(size=TRAINED).round(4) for name in NUMBERS}})


def register(folder: Path, model: str, home: Home, *, compiled: bool = True, viewed: bool = False) -> Path:
    """Train and register a model; one that does not compile takes sinc, one with views has 15 numbers more."""
    frame, registry = make_frame(), Registry(home)
    words = [Column(n, "category", categories=tuple(sorted({*frame.columns[n].tolist()}))) for n in COUNTS]
    request = Contract((*words, *(Column(n, "number", lower=-10, upper=10, nullable=True) for n in NUMBERS)))
    contract, more, columns = request, {}, dict(frame.columns)
    if viewed:
        outputs = [name for view in VIEWS for name in view.outputs]
        values = {name: np.random.default_rng(1).normal(size=TRAINED) for name in outputs}
        frame = FeatureFrame({**frame.columns, **values})
        contract = Contract((*request.columns, *(Column(name, "number", nullable=True) for name in outputs)))
        request = Contract((*request.columns, Column("asked", "time")))
        columns["asked"] = np.full(TRAINED, NOON)
        more = {"views": VIEWS, "prediction_time": "asked"}
    late = frame.columns["number_0"] + np.random.default_rng(2).normal(0, 1, TRAINED) > 0.5
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    rest = "passthrough" if compiled else FunctionTransformer(np.sinc)
    trees = HistGradientBoostingClassifier(categorical_features=[0, 1, 2], early_stopping=False, random_state=0)
    pipeline = make_pipeline(make_column_transformer((codes, [*COUNTS]), remainder=rest), trees)
    pipeline.fit(frame_to_pandas(frame, contract), late)
    few = np.arange(50)
    golden = [{name: values[few] for name, values in part.items()} for part in (columns, frame.columns)]
    seen = {name: golden[1][name] for view in VIEWS for name in view.outputs} if viewed else {}
    built = build_version(
        folder / model, model=model, pipeline=pipeline, task="binary", classes=[False, True], threshold=0.5,
        request=request, frame=contract, golden=(golden[0], seen, frame.take(few)), training=frame, labels=late,
        deployments=("realtime",), **more,
    )  # fmt: skip
    tag = registry.add(folder / model, model, built)
    registry.promote(model, tag, who="benchmark", why="benchmark", override="benchmark")
    kind = registry.open(model).scorer.kind
    if (kind == "compiled") != compiled:
        raise SystemExit(f"{model}: compiled={compiled} was meant; got the {kind} scorer")
    return folder / model


def fill_store(home: Home) -> None:
    """Write the tables of the views, and bring them into the online store."""
    lake, draws = Lake(home.lake), np.random.default_rng(3)
    keys = np.repeat([f"origin{k}" for k in range(3)], 200)
    times = pl.Series(np.tile(NOON - 60_000_000 * np.arange(200), 3)).cast(pl.Datetime("us", "UTC"))
    for view in VIEWS:
        values = {name: draws.normal(size=600).round(4) for name in view.outputs}
        lake.append(view.table, pl.DataFrame({"origin": keys, "available_at": times, **values}).to_arrow())
    with OnlineStore(home.online) as store:
        materialize(VIEWS, lake, store)


def write_peer(built: Path, pipeline: Path, folder: Path) -> None:
    """Write what the peers need: the graph and the codes of one model, and the pipeline that does not compile."""
    program = json.loads((built / "scorer.json").read_text(encoding="utf-8"))["model"]
    words = {name: {f"{name}{k}": code for code, k in enumerate(sorted(range(count), key=str))}
             for name, count in COUNTS.items()}  # fmt: skip
    known = {"words": words, "numbers": NUMBERS, "divisor": program["divisor"], "base": program["base"][0]}
    folder.mkdir()
    (folder / "peer.json").write_text(json.dumps(known), encoding="utf-8")
    shutil.copy(built / "scorer.onnx", folder / "scorer.onnx")
    shutil.copy(pipeline / "pipeline.skops", folder / "pipeline.skops")


def fill_log(home: Home, record: dict[str, Any], rows: int) -> int:
    """Fill the file of the first worker with copies of a real answer under ids of their own; give the rows."""
    free = shutil.disk_usage(home.path).free
    rows = min(rows, max(1000, int((free - 3e9) / ROW)))
    log = PredictionLog(home.log("trees"), own=True)
    service = Realtime(Registry(home).open("trees"), log)
    service.respond(json.dumps(record).encode())
    file = log.file
    service.close()
    with open_sqlite(file) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(predictions)")]
        changed = {"prediction_id": "printf('%08x%024x', k * ?1, k)", "prediction_time": "prediction_time + k"}
        changed["logged_at"] = (
            f"logged_at - {3 * 24 * HOUR} * (k < ?2 / 100)"  # closed: the mover has something to move
        )
        chosen = ", ".join(changed.get(name, name) for name in names)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-500000"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(
            "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < ?2) "
            f"INSERT INTO predictions ({', '.join(names)}) SELECT {chosen} FROM predictions CROSS JOIN n",
            (2**32 // (rows + 1), rows - 1),
        )
    connection.close()
    os.sync()
    return rows


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Ask a server once."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        kind = {"Content-Type": "application/json"}
        line.request("GET" if body is None else "POST", path, body, kind if body else {})
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


@contextmanager
def peer(words: list[str], folder: Path, service: str = "") -> Iterator[tuple[int, float, psutil.Process]]:
    """Run a peer; give its port, the seconds until it answered, and its process."""
    port, begun = free_port(), time.perf_counter()
    env = {**os.environ, "PEER": str(folder), **({"PEER_SERVICE": service} if service else {})}
    command = [sys.executable, "-m", *words, "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, cwd=HERE, env=env, **quiet)  # type: ignore[call-overload]
    try:
        wait_for(port, "/readyz" if service else "/docs", process)
        yield port, time.perf_counter() - begun, psutil.Process(process.pid)
    finally:
        stop(process)


def wait_for(port: int, path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    end = time.perf_counter() + 60
    while time.perf_counter() < end and process.poll() is None:
        try:
            if ask(port, path)[0] < 500:
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"a peer did not start: {' '.join(map(str, process.args))}")  # type: ignore[arg-type]


def wait_for_workers(process: psutil.Process, count: int) -> None:
    """Wait until so many processes have a file of a log: a service is ready with its first worker."""
    end = time.perf_counter() + 60
    while time.perf_counter() < end:
        family = [process, *process.children(recursive=True)]
        if sum(any(file.path.endswith(".sqlite") for file in one.open_files()) for one in family) >= count:
            return
        time.sleep(0.1)
    raise SystemExit(f"{count} workers; not there after 60 s")


@contextmanager
def ours(model: str, home: Home, **more: Any) -> Iterator[tuple[int, float, psutil.Process]]:
    """Run our service; give its port, the seconds until it was ready, and its process."""
    begun = time.perf_counter()
    with start_service(model, home=home, **more) as service:
        yield service.port, time.perf_counter() - begun, psutil.Process(service.process.pid)


def measure_memory(process: psutil.Process) -> tuple[float, float]:
    """Give PSS and RSS of the largest process of a family, in MB: a worker."""
    found = [one.memory_full_info() for one in [process, *process.children(recursive=True)]]
    largest = max(found, key=lambda one: one.pss)
    return largest.pss / 1e6, largest.rss / 1e6


class Contest:
    """The contestants, and how they are measured."""

    def __init__(self, plan: Plan, folder: Path, home: Home, record: dict[str, Any]) -> None:
        self.plan, self.home, self.folder = plan, home, folder
        self.scores: dict[str, float] = {}
        for name, asked in (("record", record), ("flight", {**record, "asked": "2013-10-01T12:00:00+00:00"})):
            (folder / f"{name}.json").write_text(json.dumps(asked), encoding="utf-8")
        self.list = (folder / "list.json").write_text(json.dumps([record] * 1000), encoding="utf-8")
        self.bad = json.dumps({**record, "number_0": 99}).encode()
        fast = ["--http", "httptools", "--loop", "uvloop", "--no-access-log", "--no-proxy-headers"]
        quiet = ["--log-level", "warning", "--factory"]

        def uvicorn(name: str) -> Callable[[], Any]:
            words = ["uvicorn", f"realtime_peers:{name}", *fast, *quiet]
            return lambda: peer(words, folder / "peer")

        def bento(name: str) -> Callable[[], Any]:
            words = ["bentoml", "serve", "realtime_peers:served", "--host", "127.0.0.1"]
            return lambda: peer(words, folder / "peer", name)

        full = {"MLWORKBENCH_SERVE_SYNCHRONOUS": "full"}
        self.contestants: dict[str, Callable[[], Any]] = {
            "bare uvicorn + ONNX Runtime": uvicorn("bare"),
            "FastAPI + ONNX Runtime": uvicorn("by_hand"),
            "BentoML + ONNX Runtime": bento("typed"),
            "FastAPI + scikit-learn": uvicorn("pipeline_by_hand"),
            "BentoML + scikit-learn": bento("pipeline"),
            "ours on uvicorn": lambda: ours("trees", home),
            "ours on BentoML": lambda: ours("trees", home, server="bentoml"),
            "ours, two workers": lambda: ours("trees", home, env={"MLWORKBENCH_WORKERS": "2"}),
            "ours, synchronous = full": lambda: ours("trees", home, env=full),
            "ours, flights with 15 values": lambda: ours("flights", home),
            "ours, a pipeline": lambda: ours("pipeline", home),
        }
        self.empties = {"empty uvicorn": uvicorn("empty"), "empty BentoML": bento("empty")}

    def load(self, port: int, count: int, seconds: float, pace: float = 0, body: str = "record") -> dict[str, float]:
        """Run the load."""
        words = [HERE / "realtime_load.py", port, "/score", self.folder / f"{body}.json", count, seconds, pace]
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def run(self, who: str) -> None:
        """Measure a contestant once."""
        body = "flight" if "flights" in who else "record"
        with self.contestants[who]() as (port, ready, process):
            self.check(who, port, body)
            wait_for_workers(process, 2 if "two" in who else 1 if "ours" in who else 0)
            self.load(port, 4, min(1.0, self.plan.seconds), body=body)
            one = self.load(port, 1, self.plan.seconds, body=body)
            many = self.load(port, 32, self.plan.seconds, body=body)
            pss, rss = measure_memory(process)
        found = {"p50": one["p50"], "rate": many["rate"], "spread": many["p99"] / many["p50"]}
        self.plan.note(who, **found, errors=one["errors"] + many["errors"], ready=ready, pss=pss, rss=rss)

    def check(self, who: str, port: int, body: str) -> None:
        """See that a contestant gives the score of the others."""
        status, told = ask(port, "/score", (self.folder / f"{body}.json").read_bytes())
        if status != 200:
            raise SystemExit(f"{who}: 200; got {status}: {told[:300]!r}")
        score, kind = json.loads(told)["score"], "slow" if "pipeline" in who or "scikit" in who else body
        if abs(score - self.scores.setdefault(kind, score)) > 1e-9:
            raise SystemExit(f"{who}: scores {score}, the others {self.scores[kind]}")

    def stalls(self) -> None:
        """Find the longest wait at a third of the load while pages are asked for, rows refused, and a mover runs."""
        move = [
            sys.executable,
            "-c",
            "from mlworkbench.cli.app import main; main()",
            "lake",
            "move",
            "--model",
            "trees",
        ]
        with self.contestants["ours on uvicorn"]() as (port, _, _):
            self.load(port, 4, 1.0)
            words = [HERE / "realtime_load.py", port, "/score", self.folder / "record.json", 4, self.plan.stall, 0.01]
            running = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True)
            mover = subprocess.Popen(move, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while running.poll() is None:
                ask(port, "/metrics")
                ask(port, "/score", self.bad)
                time.sleep(0.5)
            found = json.loads(running.communicate()[0])
            if mover.wait(timeout=300):
                print("the mover failed; the longest stall is one without it")
            self.plan.note("stalls", longest=found["longest"], rate=found["rate"], errors=found["errors"])
            beside = subprocess.Popen(
                [sys.executable, *map(str, [*words[:5], min(5.0, self.plan.stall), 0.01])],
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(5):
                begun = time.perf_counter()
                ask(port, "/score", (self.folder / "list.json").read_bytes())
                self.plan.note("a list of 1,000", taken=(time.perf_counter() - begun) * 1e3)
                time.sleep(0.3)
            self.plan.note("a list of 1,000", longest=json.loads(beside.communicate()[0])["longest"])

    def together(self) -> None:
        """Measure 32 waiting rows against one of the pipeline that does not compile, without a server."""
        service = Realtime(Registry(self.home).open("pipeline"), PredictionLog(self.home.log("pipeline"), own=True))
        body = (self.folder / "record.json").read_bytes()
        for _ in range(15):
            for who, count in (("one", 1), ("32", 32)):
                begun = time.perf_counter()
                service.respond_together([Call(body)] * count)
                self.plan.note(f"{who} waiting", taken=(time.perf_counter() - begun) * 1e3)
        service.close()


def judge(plan: Plan) -> list[tuple[str, float, str, float]]:
    """Give what was asked for: what, the figure, at most or at least, and the goal."""
    fast, floor = "FastAPI + ONNX Runtime", "bare uvicorn + ONNX Runtime"
    own, bento = "ours on uvicorn", "ours on BentoML"

    def ratio(name: str, one: str, other: str) -> float:
        return plan.median(one, name) / plan.median(other, name)

    typed, slow, skl, two = "BentoML + ONNX Runtime", "ours, a pipeline", "BentoML + scikit-learn", "ours, two workers"
    stalls = plan.median("stalls", "longest")
    together = plan.median("32 waiting", "taken") / plan.median("one waiting", "taken")
    return [
        ("p50 at 1, of FastAPI + ONNX Runtime", ratio("p50", own, fast), "goal <=", 0.85),
        ("p50 at 1, of bare uvicorn", ratio("p50", own, floor), "wanted <=", 1.6),
        ("requests/s at 32, of FastAPI + ONNX Runtime", ratio("rate", own, fast), "goal >=", 2.0),
        ("requests/s at 32, of bare uvicorn", ratio("rate", own, floor), "wanted >=", 0.7),
        ("two workers, of one", ratio("rate", two, own), "goal >=", 1.7),
        ("p99 / p50 at 32", plan.median(own, "spread"), "goal <=", 4.0),
        ("longest stall, ms", stalls, "goal <=", 50.0),
        ("BentoML: p50 at 1, of its typed service", ratio("p50", bento, typed), "goal <=", 1.0),
        ("BentoML: requests/s at 32, of its typed service", ratio("rate", bento, typed), "goal >=", 1.0),
        ("start to ready, of an empty uvicorn", ratio("ready", own, "empty uvicorn"), "goal <=", 3.0),
        ("BentoML: start to ready, of an empty one", ratio("ready", bento, "empty BentoML"), "goal <=", 3.0),
        ("a worker, MB (PSS)", plan.median(own, "pss"), "goal <=", 150.0),
        ("pipeline: 32 waiting rows, of one", together, "goal <=", 1.5),
        ("pipeline: requests/s at 32, of BentoML", ratio("rate", slow, skl), "goal >=", 15.0),
        ("pipeline: p50 at 1, of BentoML", ratio("p50", slow, skl), "goal <=", 1.0),
    ]


def show(plan: Plan, rows: int) -> int:
    """Print the table, then what was asked for; count what is missed."""
    heads = f"{'p50 at 1, ms':>13} {'requests/s at 32':>17} {'p99/p50':>8} {'ready, s':>9} {'PSS/RSS, MB':>12}"
    print(f"{'':32} {heads} errors")
    for who in [*plan.taken]:
        if plan.taken[who]["rate"] and plan.taken[who]["p50"]:
            m = {name: plan.median(who, name) for name in plan.taken[who]}
            memory = f"{m['pss']:.0f}/{m['rss']:.0f}"
            print(f"{who:32} {m['p50']:13.3f} {m['rate']:17,.0f} {m['spread']:8.1f} {m['ready']:9.2f} {memory:>12}"
                  f" {sum(plan.taken[who]['errors']):6.0f}")  # fmt: skip
    for who in ("empty uvicorn", "empty BentoML"):
        print(f"{who:32} {'':41}{plan.median(who, 'ready'):9.2f}")
    print(f"\nthe log held {rows:,} rows in the first worker's file before it started\n")
    missed = 0
    for what, found, sign, goal in judge(plan):
        met = found <= goal if "<=" in sign else found >= goal
        missed += not met and "wanted" not in sign
        print(f"{what:48} {found:8.2f}   {sign} {goal:.2f}{'' if met else '   MISSED'}")
    own, full = "ours on uvicorn", "ours, synchronous = full"
    p50, rate = (plan.median(full, name) / plan.median(own, name) for name in ("p50", "rate"))
    print(f"\nsynchronous = full: p50 at 1 {p50:.2f} times, requests/s at 32 {rate:.2f} times those of normal")
    flights = plan.median("ours, flights with 15 values", "p50") - plan.median(own, "p50")
    print(f"15 values from the online store: {flights:.3f} ms more at one connection")
    listed, beside = plan.median("a list of 1,000", "taken"), plan.median("a list of 1,000", "longest")
    print(f"a list of 1,000 records: {listed:.0f} ms; the longest wait of others meanwhile {beside:.0f} ms")
    errors = sum(sum(found["errors"]) for found in plan.taken.values())
    print(f"errors of all loads: {errors:.0f}")
    return missed + bool(errors)


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look of a minute or two")
    parser.add_argument("--only", default="", help="contestants whose names hold this word")
    chosen = parser.parse_args()
    if importlib.util.find_spec("fastapi") is None:
        raise SystemExit("FastAPI, which the workbench does not need, is not installed; see --help for how to add it")
    compileall.compile_dir(Path(mlworkbench.__file__).parent, quiet=1)  # as pip does with what it installs
    plan = Plan(passes=1, seconds=1.0, rows=100_000, stall=10.0, starts=1) if chosen.quick else Plan()
    with tempfile.TemporaryDirectory(prefix="mlworkbench-realtime-") as name:
        folder = Path(name)
        os.environ.update(BENTOML_HOME=str(folder / "bentoml"), MLWORKBENCH_HOME=str(folder / "home"))
        home = Home.open(folder / "home")
        record = make_frame().take([7]).rows()[0]
        slow = register(folder, "pipeline", home, compiled=False)
        write_peer(register(folder, "trees", home), slow, folder / "peer")
        register(folder, "flights", home, viewed=True)
        fill_store(home)
        rows = fill_log(home, record, plan.rows)
        contest = Contest(plan, folder, home, record)
        for _ in range(plan.passes):
            for who in contest.contestants:
                if chosen.only in who:
                    contest.run(who)
        for who, begin in contest.empties.items():
            for _ in range(plan.starts):
                with begin() as (_, ready, _):
                    plan.note(who, ready=ready)
        contest.together()
        contest.stalls()
        return int(show(plan, rows) > 0)


if __name__ == "__main__":
    sys.exit(main())
