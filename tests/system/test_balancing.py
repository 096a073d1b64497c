"""Two services with a home each behind nginx, as two pods have: killed, swapped, and read as one log in the end."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.client import Client
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.realtime.process import Service, start_service
from mlworkbench.errors import WorkbenchError
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.certify.deployments import refresh_online_store
from mlworkbench.operate.certify.served import certify_served
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from tests.conftest import ObjectStore, free_ports

pytestmark = [pytest.mark.system, pytest.mark.long]
ROOT = Path(__file__).parents[2]
START = datetime(2013, 1, 1, tzinfo=UTC)
HOURS, KILLS = 60, 4
RECORD = {"flight": "UA 900", "at": "2013-01-03T02:00:00Z", "origin": "JFK", "distance": 900.0}


def definition(strength: float) -> ModelDefinition:
    draws = np.random.default_rng(3)
    count = 2 * HOURS
    data = pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(count)],
            "at": [START + timedelta(minutes=30 * n) for n in range(count)],
            "origin": ["JFK"] * count,
            "distance": draws.uniform(100, 2500, count),
            "late": draws.integers(0, 2, count),
        }
    )
    view = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6))
    fields = {"entity": ("flight",), "prediction_time": "at", "views": (view,), "features": ("distance", "wind")}
    return ModelDefinition("late", LogisticRegression(C=strength), data, "late", **fields)


@dataclass
class Pod:
    """A service with a home and a model store of its own, always at one port."""

    folder: Path
    port: int
    tags: list[str]

    @property
    def home(self) -> Home:
        return Home.open(self.folder / "home")

    def start(self) -> AbstractContextManager[Service]:
        return start_service("late", home=self.home, port=self.port, env={"BENTOML_HOME": str(self.store)})

    @property
    def store(self) -> Path:
        return self.folder / "bentoml"

    def promote(self, tag: str) -> None:
        registry = Registry(self.home, store=self.store / "models")
        registry.promote("late", tag, who="test", why="a test", override="a test")

    def answered(self) -> int:
        return read_log(self.home.log("late")).height


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pod]:
    first = tmp_path / "first"
    monkeypatch.setenv("BENTOML_HOME", str(first / "bentoml"))
    home = Home.open(first / "home")
    monkeypatch.setenv("MLWORKBENCH_HOME", str(home.path))
    moments = [START + timedelta(hours=hour) for hour in range(HOURS)]
    wind = {"origin": ["JFK"] * HOURS, "available_at": moments, "wind": [3.0 + hour for hour in range(HOURS)]}
    Lake(home.lake).append("weather", pl.DataFrame({**wind, "ingested_at": [moments[-1]] * HOURS}).to_arrow())
    tags = [train(definition(strength), home=home).tag for strength in (1.0, 0.01)]
    refresh_online_store(Registry(home).open("late", tags[0]), home=home)
    shutil.copytree(first, tmp_path / "second")
    ports = free_ports(2)
    found = [Pod(tmp_path / name, port, tags) for name, port in zip(("first", "second"), ports, strict=True)]
    for pod in found:
        pod.promote(tags[0])
    return found


@pytest.fixture(scope="module")
def nginx() -> str:
    program = os.environ.get("NGINX") or shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("there is no nginx here: install Debian's package, or name the program in NGINX")
    return program


@contextmanager
def balanced(nginx: str, pods: list[Pod], folder: Path) -> Iterator[int]:
    """Run nginx with the configuration of `services/balancing`, at ports that are free here; give its own."""
    port = free_ports(1)[0]
    text = (ROOT / "services/balancing/nginx.conf").read_text(encoding="utf-8")
    for old, new in ((3001, pods[0].port), (3002, pods[1].port), (8080, port)):
        assert text.count(f"127.0.0.1:{old}") == 1
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    folder.mkdir()
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = [nginx, "-p", str(folder), "-c", "nginx.conf"]
    command += ["-g", "user root;"] if os.geteuid() == 0 else []
    with (folder / "errors").open("wb") as errors:
        server = subprocess.Popen(command, stdout=errors, stderr=errors)
    try:
        wait_until(lambda: ask(port, "/readyz")[0] == 200)
        yield port
    finally:
        server.terminate()
        server.wait(40)


def ask(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        named = {"Content-Type": "application/json"} if body is not None else {}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    except OSError:
        return 0, {}, b""
    finally:
        connection.close()


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


@dataclass
class Callers:
    """Some ask by `Client`, the others by bare connections that never ask again; each about another distance."""

    port: int
    many: int = 6
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)  # request id to prediction, version
    failed: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Callers:
        kinds = [self._by_client, self._barely]
        self.threads = [threading.Thread(target=kinds[number % 2], args=(number,)) for number in range(self.many)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _note(self, name: str, found: dict[str, str]) -> None:
        self.answers[name] = found["prediction_id"], found["version"]
        time.sleep(0.005)

    def _by_client(self, number: int) -> None:
        with Client(f"http://127.0.0.1:{self.port}") as client:
            while not self.over.is_set():
                name = uuid.uuid4().hex
                try:
                    self._note(name, client.score({**RECORD, "distance": 500.0 + number}, request_id=name)[0])
                except WorkbenchError as error:
                    self.failed[f"client: {error}"] += 1

    def _barely(self, number: int) -> None:
        body = json.dumps({**RECORD, "distance": 500.0 + number}).encode()
        while not self.over.is_set():
            name = uuid.uuid4().hex
            status, _, told = ask(self.port, "/score", body, X_Request_Id=name)
            if status == 200:
                self._note(name, json.loads(told))
            else:
                self.failed[f"bare: {status}"] += 1

    def count(self, version: str = "") -> int:
        return sum(version in found[1] for found in [*self.answers.values()])


def test_two_services_behind_nginx_answer_as_one(
    nginx: str, pods: list[Pod], tmp_path: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        running = [stack.enter_context(pod.start()) for pod in pods]
        port = stack.enter_context(balanced(nginx, pods, tmp_path / "nginx"))
        hold_the_rules(pods, port, tmp_path / "nginx")
        with Callers(port) as callers:
            for turn in range(KILLS):
                wait_until(lambda: callers.count() > 200)
                process = running[turn % 2].process
                end(process.kill if turn < KILLS - 1 else process.terminate, callers)
                running[turn % 2] = start_again(pods[turn % 2], stack)
            swap(pods, callers)
    tries = Counter(json.loads(line)["tries"] for line in (tmp_path / "nginx/access.log").read_text().splitlines())
    assert any(one.endswith(", 200") for one in tries)
    print(f"answers: {callers.count()}; failed: {dict(callers.failed) or 'none'}; tries: {dict(tries)}")
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", s3.url("logs"))
    hold_the_logs(pods, callers)


def end(stop: Callable[[], None], callers: Callers) -> None:
    """End one of the two under load: the other answers on, and at most what was on its way failed."""
    before, failed = callers.count(), callers.failed.total()
    stop()
    wait_until(lambda: callers.count() > before + 200)
    assert callers.failed.total() <= failed + callers.many
    assert not [line for line in callers.failed if line.startswith("client")]


def start_again(pod: Pod, stack: ExitStack) -> Service:
    """Start a service that was killed; it gets its share of the requests without a word to nginx."""
    before = pod.answered()
    service = stack.enter_context(pod.start())
    wait_until(lambda: pod.answered() > before + 20)
    return service


def swap(pods: list[Pod], callers: Callers) -> None:
    """Promote the other version in both homes: within two seconds nobody is answered by the first one, nobody fails."""
    failed, new = callers.failed.total(), pods[0].tags[1]
    for pod in pods:
        pod.promote(new)
    wait_until(lambda: callers.count(new) > 100)
    time.sleep(2)
    before = {*callers.answers}
    wait_until(lambda: len(callers.answers) > len(before) + 100)
    after = {*callers.answers} - before
    assert callers.failed.total() == failed
    assert {callers.answers[name][1] for name in after} == {new}


def hold_the_rules(pods: list[Pod], port: int, folder: Path) -> None:
    """Answers are equal, a request has one name, and nothing of it is logged but that."""
    body = json.dumps(RECORD).encode()
    told = [ask(at, "/score?partial=true", body, X_Request_Id="same")[2] for at in (pods[0].port, pods[1].port, port)]
    assert len({*told}) == 1 and json.loads(told[0])["version"] == pods[0].tags[0]
    named = [ask(port, "/score", body)[1]["x-request-id"] for _ in range(4)]
    assert len({*named}) == 4
    for path in ("/metrics", "/before/it/metrics"):  # refused by nginx itself, whose pages are HTML
        assert ask(port, path)[0] == 404 and ask(port, path)[1]["content-type"] == "text/html"
    assert ask(pods[0].port, "/metrics")[0] == 200
    assert ask(port, "/score", b"[" + b" " * (17 << 20) + b"]")[0] in (413, 0)
    assert ask(port, "/score", b"{")[0] == 400
    time.sleep(1.5)
    lines = [json.loads(line) for line in (folder / "access.log").read_text(encoding="utf-8").splitlines()]
    assert {line["request_id"] for line in lines} >= {"same", *named}
    text = (folder / "access.log").read_text(encoding="utf-8")
    assert "partial" not in text and "UA 900" not in text


def hold_the_logs(pods: list[Pod], callers: Callers) -> None:
    """Every answer is in a log; each home's rows are those of training, and so are all of them, moved to one place."""
    logged = [set(read_log(pod.home.log("late"))["prediction_id"]) for pod in pods]
    answered = {prediction for prediction, _ in callers.answers.values()}
    assert answered <= logged[0] | logged[1]
    assert all(len(answered & own) > 50 for own in logged)
    for pod, own in zip(pods, logged, strict=True):
        alone = certify_served("late", home=pod.home, since="2026-01-01T00:00:00Z")
        assert (alone.verdict, alone.count) == ("equal", len(own))
    later = time.time_ns() // 1000 + 3 * 24 * 3_600_000_000
    for pod, own in zip(pods, logged, strict=True):
        assert move_log("late", home=pod.home, now=later).rows == len(own)
    for pod in pods:
        both = certify_served("late", home=pod.home, since="2026-01-01T00:00:00Z")
        assert (both.verdict, both.count) == ("equal", len(logged[0] | logged[1]))
        assert {version for version, _ in both.verdicts} == {*pods[0].tags}
