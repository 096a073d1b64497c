"""Ada registers, proves and pushes a model; another user serves it from there, is backed up, and is restored."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.client import Client
from mlworkbench.evaluation.log.reader import read_log

pytestmark = pytest.mark.system
ROWS = 60
COMMANDS = """
import json, sys
from mlworkbench.cli.app import run
codes = [run(words) for words in json.loads(sys.stdin.readline())]
print(json.dumps(codes), flush=True)
"""
ADA = """
import json, sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlworkbench import register
from mlworkbench.cli.app import run
table = pd.read_csv("birds.csv")
rows, labels = table[["bill", "mass"]], table["male"]
pipeline = LogisticRegression().fit(rows, labels)
tag = register(pipeline, rows, labels, name="birds", deployments=("one_off", "realtime")).tag
for words in (["certify", "birds"], ["models", "promote", tag, "--why", "first"], ["models", "push", sys.argv[1]]):
    assert run([*words, "--json"]) == 0
print(json.dumps(pipeline.predict_proba(rows)[:, 1].tolist()))
"""


@dataclass(frozen=True)
class User:
    """Somebody with a folder, a home and a model store of his own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLWORKBENCH", "BENTOML"))}
        own = {"HOME": str(self.folder), "MLWORKBENCH_HOME": str(self.folder / "home")}
        return {**kept, **own, "BENTOML_HOME": str(self.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}

    def start(self, code: str, *words: object, **more: Any) -> subprocess.Popen[str]:
        self.folder.mkdir(exist_ok=True)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        command = [sys.executable, "-c", code, *map(str, words)]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes)

    def told(self, *commands: str, code: int = 0) -> tuple[list[dict[str, Any]], list[str]]:
        """Run commands, one after the other, in one process; what each says in JSON, the lines of the other stream."""
        process = self.start(COMMANDS, stdin=subprocess.PIPE)
        words = [[*command.split(), "--json"] for command in commands]
        out, err = process.communicate(json.dumps(words), timeout=300)
        found = [json.loads(line) for line in out.splitlines()]
        assert found.pop() == [code] * len(commands), err
        return found, err.splitlines()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hand-over")


@pytest.fixture(scope="module")
def expected(place: Path) -> list[float]:
    """Let Ada register a fitted pipeline, prove it, make it champion and push it; give the pipeline's own scores."""
    ada = User(place / "ada")
    ada.folder.mkdir()
    lines = [f"{35 + k % 17}.{k % 10},{3000 + 37 * k % 2500},{k * k % 7 % 2}" for k in range(ROWS)]
    (ada.folder / "birds.csv").write_text("\n".join(["bill,mass,male", *lines]) + "\n")
    process = ada.start(ADA, place / "shared")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    certificate, promoted, pushed, scores = map(json.loads, out.splitlines()[-4:])
    assert certificate["verdict"] == "equal"
    assert (pushed["champion"], pushed["certificates"], pushed["moves"]) == (promoted["version"], 1, 1)
    return list(scores)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_another_user_pulls_verifies_and_scores_alike(place: Path, expected: list[float]) -> None:
    alan = User(place / "alan")
    alan.folder.mkdir()
    (alan.folder / "birds.csv").write_bytes((place / "ada" / "birds.csv").read_bytes())
    (pushed,) = (place / "shared" / "birds" / "certificates").iterdir()
    file = alan.folder / "home" / "birds" / "certificates" / json.loads(pushed.read_text())["name"] / "certificate.json"
    (pulled, verified, scored, history), _ = alan.told(
        f"models pull {place / 'shared'} birds",
        f"certify verify {file}",
        "score birds.csv --out scored.csv",
        "models history",
    )
    assert pulled["version"] == pulled["champion"]
    assert "which is not this home's; it is known here from now on" in pulled["remarks"][0]
    assert (verified["status"], scored["scored"], history["history"][0]["why"]) == ("valid", ROWS, "first")
    with (alan.folder / "scored.csv").open() as table:
        assert [float(row["score"]) for row in csv.DictReader(table)] == pytest.approx(expected, abs=1e-12)


def test_a_mistake_is_one_line(place: Path, expected: list[float]) -> None:
    eve = User(place / "eve")
    _, lines = eve.told(
        f"models pull {place / 'nowhere'} birds",
        f"models pull {place / 'shared'} brids",
        f"models pull {place / 'shared'} birds:beef",
        f"home restore {place / 'shared'}",
        "models pull s3://key:secret@shared/models",
        code=2,
    )
    assert len(lines) == 5 and all(line.startswith("error: ") and "secret@" not in line for line in lines)
    assert not (eve.folder / "bentoml" / "models").exists()


@contextmanager
def serving(user: User, place: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Serve what is champion in a shared place; give what the command said, at the end also on the other stream."""
    words, lines = ["serve", "--from", str(place / "shared"), "--port", str(free_port()), "--json"], list[str]()
    process = user.start(COMMANDS, stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps([words]) + "\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline()), lines
    finally:
        process.send_signal(signal.SIGINT)
        lines += process.communicate(timeout=60)[1].splitlines()


@contextmanager
def asking(url: str, records: list[dict[str, float]]) -> Iterator[dict[str, float]]:
    """Ask a service without a pause for as long as the block lasts; give the scores that were answered, by id."""
    answered, stop = dict[str, float](), threading.Event()

    def ask() -> None:
        with Client(url) as client:
            while not stop.is_set():
                answered.update((row["prediction_id"], row["score"]) for row in client.score(records))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join(timeout=60)


def test_a_service_from_a_shared_place_is_backed_up_while_it_answers(place: Path, expected: list[float]) -> None:
    grace, noor = User(place / "grace"), User(place / "noor")
    with (place / "ada" / "birds.csv").open() as table:
        records = [{name: float(row[name]) for name in ("bill", "mass")} for row in csv.DictReader(table)][:20]
    with serving(grace, place) as (told, said), asking(told["url"], records) as answered:
        deadline = time.monotonic() + 30
        while len(answered) < 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        before = dict(answered)
        (made,), _ = grace.told(f"home backup {place / 'monday'}")
        after = len(answered)
    assert made["versions"] == [told["version"]] and not made["keys"]
    assert "what is champion there later is served after the next start" in said
    assert after > len(before) >= 200, "it answered before and meanwhile"
    assert list(before.values())[:20] == pytest.approx(expected[:20], abs=1e-12)
    noor.folder.mkdir()
    (noor.folder / "birds.csv").write_bytes((place / "ada" / "birds.csv").read_bytes())
    (restored, scored, replayed), _ = noor.told(
        f"home restore {place / 'monday'}", "score birds.csv --out scored.csv", f"replay {next(reversed(before))}"
    )
    assert restored["home"] == str(noor.folder / "home") and scored["scored"] == ROWS
    assert replayed["verdict"] == "equal"
    kept = dict(read_log(noor.folder / "home/birds/log.sqlite").select("prediction_id", "scores").rows())
    assert {*before} <= {*kept}
    assert all(kept[name][0] == score for name, score in before.items())
