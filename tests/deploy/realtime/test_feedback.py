"""Labels over HTTP: read as those of a file, written before they are answered, said twice and kept once."""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlworkbench.client import Client
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.pseudonym import Pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.deploy.feedback import take_feedback
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.evaluation.log.label_writer import write_labels
from mlworkbench.evaluation.log.labels import join_labels
from mlworkbench.evaluation.log.reader import read_labels, read_log
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels
from tests.deploy.realtime.test_application import ask

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
JSON = {"content_type": "application/json"}


class Clock:
    now = 1_380_600_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Application]:
    log = PredictionLog(elsewhere.log("birds"), own=True)
    application = Application(Realtime(workshop.open("birds"), log, clock=Clock()))
    yield application
    application.close()


def tell(application: Application, value: object, path: str = "/feedback", **headers: str) -> tuple[int, Any]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, told = asyncio.run(ask(application, "POST", path, body, **{**JSON, **headers}))
    return status, json.loads(told)


def test_a_label_of_an_answer_is_joined_with_it(birds: Application) -> None:
    answer = tell(birds, BIRD, "/score")[1]
    status, told = tell(birds, {"prediction_id": answer["prediction_id"], "value": "Gentoo"})
    assert (status, told["label"]) == (200, "new") and told["available_at"].startswith("2013-10-01T")
    path = birds.served.realtime.log.path
    joined = join_labels(read_log(path), read_labels(path))
    assert joined.select("prediction_id", "label").rows() == [(answer["prediction_id"], '"Gentoo"')]


def test_what_is_said_twice_is_known_and_a_correction_counts(birds: Application) -> None:
    label = {"prediction_id": "0a", "value": "Gentoo"}
    assert [tell(birds, label)[1]["label"] for _ in range(3)] == ["new", "known", "known"]
    assert tell(birds, {**label, "value": "Adelie"})[1]["label"] == "new"
    assert tell(birds, label)[1]["label"] == "new"  # and back again
    labels = read_labels(birds.served.realtime.log.path)
    assert labels["value"].to_list() == ['"Gentoo"', '"Adelie"', '"Gentoo"']
    dated = {**label, "available_at": "2013-10-02T00:00:00Z"}
    assert [tell(birds, dated)[1]["label"] for _ in range(2)] == ["new", "known"]
    assert tell(birds, dated)[1] == {"label": "known"}


def test_it_is_one_path_with_labels_of_a_file(birds: Application, elsewhere: Home) -> None:
    version = birds.served.realtime.version
    row = {"prediction_id": "0b", "value": "Adelie", "available_at": 1_380_672_000_000_000}
    write_labels(version, [row], home=elsewhere)
    assert tell(birds, {**row, "available_at": "2013-10-02T00:00:00+00:00"})[1] == {"label": "known"}
    assert tell(birds, {"prediction_id": "0b", "value": "Adelie"})[1] == {"label": "known"}
    assert append_labels(elsewhere.log("birds"), [{**row, "model": "birds"}]) == 0


WRONG = [
    ({"prediction_id": "0a"}, "needs value"),
    ({"value": "Gentoo"}, "needs value"),
    ({"prediction_id": "0a", "key": "k", "value": "Gentoo"}, "needs value"),
    ({"prediction_id": "", "value": "Gentoo"}, "prediction_id"),
    ({"prediction_id": 7, "value": "Gentoo"}, "prediction_id"),
    ({"key": True, "value": "Gentoo"}, "key"),
    ({"key": "R1", "value": "Gentoo"}, "declares no key"),
    ({"entity": {"ring": "R1"}, "value": "Gentoo"}, "prediction_time"),
    ({"entity": "R1", "prediction_time": "2013-10-01T00:00:00Z", "value": "Gentoo"}, "entity"),
    ({"prediction_id": "0a", "value": "Dodo"}, "none of the classes"),
    ({"prediction_id": "0a", "value": ["Gentoo"]}, "none of the classes"),
    ({"prediction_id": "0a", "value": "Gentoo", "available_at": "2013-10-01"}, "offset"),
    ({"prediction_id": "0a", "value": "Gentoo", "available_at": 5}, "offset"),
    ({"prediction_id": "0a", "value": "Gentoo", "avialable_at": None}, "available_at"),
    ({"prediction_id": "\ud800", "value": "Gentoo"}, ""),
    ({"entity": {"ring": {"a": [1]}}, "prediction_time": "2013-10-01T00:00:00Z", "value": "Gentoo"}, ""),
    ("0a", "object"),
]


@pytest.mark.parametrize(("label", "words"), WRONG, ids=lambda one: str(one)[:40])
def test_a_bad_label_costs_itself_alone_and_says_why(birds: Application, label: object, words: str) -> None:
    good = {"prediction_id": "0c", "value": "Adelie"}
    status, told = tell(birds, [good, label, good])
    if status == 400:  # half characters are no JSON
        assert told["code"] == "request.json" and label["prediction_id"] == "\ud800"
        return
    assert status == 200 and [one.get("label") for one in told] == ["new", None, "known"]
    fault = told[1]["faults"][0]
    assert told[1]["index"] == fault["row"] == 1 and words in fault["rule"] and "\n" not in fault["rule"]
    status, told = tell(birds, [label], "/feedback?partial=false")
    assert status in (400, 422) and told["status"] == status
    assert read_labels(birds.served.realtime.log.path).height == 1


def test_all_or_nothing_writes_none(birds: Application) -> None:
    labels = [{"prediction_id": "0a", "value": "Adelie"}, {"prediction_id": "0b", "value": "Dodo"}]
    status, told = tell(birds, labels, "/feedback?partial=false")
    assert (status, told["code"], len(told["faults"])) == (422, "request.rows_refused", 1)
    assert told["faults"][0]["value"] == "Dodo"
    assert not birds.served.realtime.log.path.exists()
    assert tell(birds, labels[1:])[0] == 422 and tell(birds, labels[1])[0] == 422
    assert tell(birds, labels, "/feedback?partial=perhaps")[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"7", 400), (b'{"value": NaN}', 400), (b'{"a": 1, "a": 2}', 400)],
)
def test_a_body_that_is_none_is_refused(birds: Application, body: bytes, status: int) -> None:
    assert tell(birds, body)[0] == status


def test_other_types_and_too_many_are_refused(birds: Application) -> None:
    assert tell(birds, {}, content_type="text/csv")[0] == 415
    assert tell(birds, [{}] * 1001)[0] == 413


def test_persons_are_labelled_by_pseudonym(tmp_path: Path) -> None:
    rides = SimpleNamespace(
        model="rides",
        pseudonyms=Pseudonyms(bytes(32)),
        request=Contract((Column("rider", "text", pseudonym=True),)),
        declaration={"task": "regression", "label": "fare", "entity": ["rider"], "prediction_time": "asked"},
    )
    label = {"entity": {"rider": "Ada"}, "prediction_time": "2013-10-01T00:00:00Z", "value": 7}
    told, faults = take_feedback(
        rides, [label, {**label, "value": "7"}, {**label, "value": 10**400}], tmp_path / "log.sqlite", now=0
    )
    assert told[0]["label"] == "new" and all("no finite number" in fault.rule for fault in faults)
    assert len(faults) == 2
    assert "Ada" not in read_labels(tmp_path / "log.sqlite")["entity"][0]
    wrong = [{"rider": 7}, {"rider": "Ada", "car": 1}, {}, {"rider": ["Ada"]}]
    told, faults = take_feedback(rides, [{**label, "entity": one} for one in wrong], tmp_path / "log.sqlite", now=0)
    assert len(faults) == 4 and {one["faults"][0]["value"] for one in told} == {"nothing"}
    assert "Ada" not in json.dumps(told)


def test_a_log_that_is_locked_stops_no_score(birds: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels wait in their thread for another process; the loop goes on."""
    tell(birds, {"prediction_id": "0a", "value": "Adelie"})
    other = sqlite3.connect(birds.served.realtime.log.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    body, label = json.dumps(BIRD).encode(), json.dumps({"prediction_id": "0b", "value": "Adelie"}).encode()

    async def both() -> list[int]:
        waiting = asyncio.ensure_future(ask(birds, "POST", "/feedback", label, **JSON))
        await asyncio.sleep(0.05)
        scored = [(await ask(birds, "POST", "/score", body, **JSON))[0] for _ in range(20)]
        assert not waiting.done()
        threading.Timer(0.05, other.execute, ["ROLLBACK"]).start()
        return [*scored, (await waiting)[0]]

    assert asyncio.run(both()) == [200] * 21


def test_the_counts_of_scores_do_not_hold_labels(birds: Application) -> None:
    before = asyncio.run(ask(birds, "GET", "/metrics"))[1].decode()
    tell(birds, {"prediction_id": "0a", "value": "Adelie"})
    page = asyncio.run(ask(birds, "GET", "/metrics"))[1].decode()
    counts = [
        [line for line in text.splitlines() if line.startswith(("mlworkbench_rows", "mlworkbench_request"))]
        for text in (before, page)
    ]
    assert counts[0] == counts[1]


@pytest.mark.system
def test_an_answered_label_outlives_the_kill_of_its_service(workshop, elsewhere: Home) -> None:
    with start_service("birds", home=elsewhere) as service:
        with Client(service.url) as client:
            answer = client.score([BIRD])[0]
        status, told = post(service.port, [{"prediction_id": answer["prediction_id"], "value": "Adelie"}] * 2)
        service.process.kill()
        service.process.wait()
    assert (status, [one["label"] for one in told]) == (200, ["new", "known"])
    assert read_labels(elsewhere.log("birds"))["prediction_id"].to_list() == [answer["prediction_id"]]


def post(port: int, value: object) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/feedback", json.dumps(value), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()
