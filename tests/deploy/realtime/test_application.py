"""The application without a server: routes, calls that wait together, and what one of them may do to another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlworkbench import client
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.call import Call
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import LogError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(
        workshop.open("birds"), PredictionLog(elsewhere.log("birds")), clock=lambda: 1_380_600_000_000_000
    )
    yield realtime
    realtime.close()


def call(value: object, name: str | None = None, **more: Any) -> Call:
    return Call(json.dumps(value).encode(), name, **more)


async def ask(application: Application, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path, _, query = path.partition("?")
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": listed}
    await application(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("HEAD", "/ping", 200),
        ("GET", "/readyz", 200),
        ("GET", "/healthz", 200),
        ("GET", "/model", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/score", 405),
        ("POST", "/ping", 405),
        ("GET", "/pings", 404),
        ("GET", "/" + "x" * 5000, 404),
        ("POST", "/", 404),
    ],
)
def test_each_path_has_its_status(birds: Realtime, method: str, path: str, status: int) -> None:
    got, body = asyncio.run(ask(Application(birds), method, path))
    assert got == status
    assert (method == "HEAD") == (body == b"")
    assert status < 400 or len(json.loads(body)["detail"]) < 200


def test_the_client_is_given_out_as_it_is(birds: Realtime) -> None:
    assert asyncio.run(ask(Application(birds), "GET", "/client.py")) == (200, Path(client.__file__).read_bytes())


def test_calls_that_wait_together_are_answered_as_if_each_were_alone(birds: Realtime, elsewhere: Home) -> None:
    calls = [
        call(BIRD, "one"),
        call([BIRD, {"bill": "x"}, {**BIRD, "bill": 45.0}], "list"),
        Call(b"{", "no json"),
        call([{**BIRD, "bill": 391}, BIRD], "whole", partial="false"),
        call([{"bill": 1}], "bad list"),
        call({"instances": [[40.0, "Dream", None]]}, "drop-in", invocation=True),
        call(BIRD, "x" * 200),
        call({**BIRD, "bill": 391}, "single"),
    ]
    together = birds.respond_together(calls)
    alone = Realtime(birds.version, PredictionLog(elsewhere.path / "alone.sqlite"), clock=birds.clock)
    assert together == [alone.respond_together([one])[0] for one in calls]
    assert [reply.status for reply in together] == [200, 200, 400, 422, 422, 200, 400, 422]
    same = ["prediction_id", "request_id", "scores", "decision", "features", "entity", "faults"]
    logs = [read_log(one.log.path).sort("prediction_id").select(same) for one in (birds, alone)]
    assert logs[0].equals(logs[1]) and logs[0].height == 4
    alone.close()


def test_a_name_used_twice_is_a_mistake_within_one_turn_too(birds: Realtime) -> None:
    same, other = call(BIRD, "order-17"), call({**BIRD, "bill": 50.0}, "order-17")
    assert [reply.status for reply in birds.respond_together([same, same, other])] == [200, 200, 409]
    assert [reply.status for reply in birds.respond_together([other, same])] == [409, 200]
    assert read_log(birds.log.path).height == 1


def test_where_the_log_cannot_be_written_nobody_is_answered(birds: Realtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(rows: object) -> int:
        raise LogError("log.sqlite: disk is full; free some space")

    monkeypatch.setattr(birds.log, "write", full)
    assert [reply.status for reply in birds.respond_together([call(BIRD), call([BIRD] * 3)])] == [503, 503]


def test_requests_at_the_same_time_share_a_turn(birds: Realtime, monkeypatch: pytest.MonkeyPatch) -> None:
    application, turns = Application(birds), []
    respond = application.served.waiting._respond
    counted = lambda calls: turns.append(len(calls)) or respond(calls)  # noqa: E731
    monkeypatch.setattr(application.served.waiting, "_respond", counted)
    body = json.dumps(BIRD).encode()

    async def many() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(ask(application, "POST", "/score", body) for _ in range(100)))

    answers = asyncio.run(many())
    assert {status for status, _ in answers} == {200} and sum(turns) == 100 and len(turns) < 10
    assert len({json.loads(told)["prediction_id"] for _, told in answers}) == 100 == read_log(birds.log.path).height
