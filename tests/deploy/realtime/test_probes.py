"""When a process says that it can be asked: three failed looks make it not ready, one good one ready again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings_file import read_setting
from mlworkbench.deploy.readiness import FAILURES, Readiness
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import LogError, SettingsError
from mlworkbench.evaluation.log.writer import CHECKPOINT_ROWS, PredictionLog
from mlworkbench.features.online.lookup import OnlineStore

FULL = LogError("/home/ada/log.sqlite: disk is full", code="log.disk_full")


async def get(application: Application, path: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, sent[1]["body"]


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Application]:
    application = Application(Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds"), own=True)))
    yield application
    application.close()


def fail(*_: object) -> None:
    raise FULL


async def ask(readiness: Readiness, times: int) -> list[bool]:
    return [await readiness.ask() for _ in range(times)]


def test_three_failures_in_a_row_and_one_success_back() -> None:
    looks = iter([FULL, FULL, None, FULL, FULL, FULL, FULL, None])

    def look() -> None:
        if error := next(looks):
            raise error

    assert asyncio.run(ask(Readiness(look, every=0), 8)) == [True, True, True, True, True, False, False, True]
    assert FAILURES == 3


def test_an_error_that_nobody_meant_is_a_failure_too() -> None:
    readiness = Readiness(lambda: 1 // 0, every=0)
    assert asyncio.run(ask(readiness, 3)) == [True, True, False] and readiness.reason == "ZeroDivisionError"


def test_it_looks_at_most_once_a_second_however_many_ask() -> None:
    looks: list[int] = []
    readiness = Readiness(lambda: looks.append(1))

    async def many() -> list[bool]:
        return await asyncio.gather(*(readiness.ask() for _ in range(200)))

    assert all(asyncio.run(many())) and len(looks) == 1


def test_a_look_that_hangs_counts_as_failed_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlworkbench.deploy.readiness.LOOK_SECONDS", 0.1)
    release = threading.Event()
    readiness = Readiness(lambda: release.wait(20), every=0.1)

    async def watch() -> tuple[list[bool], float]:
        began = time.monotonic()
        told = [await readiness.ask() for _ in range(4)]
        longest = time.monotonic() - began
        assert readiness.reason == "deployment.look_hangs"
        release.set()
        while not await readiness.ask():
            await asyncio.sleep(0.05)
        return told, longest

    told, longest = asyncio.run(watch())
    assert told == [True, True, True, False] and longest < 3


def test_a_process_is_not_ready_while_its_log_cannot_be_written(
    birds: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    birds.readiness._every = 0

    async def watch() -> list[int]:
        found = [(await get(birds, "/readyz"))[0]]
        monkeypatch.setattr(birds.served.realtime.log, "check_writable", fail)
        found += [(await get(birds, "/readyz"))[0] for _ in range(3)]
        status, headers, body = await get(birds, "/ping")
        assert (status, headers["retry-after"], headers["content-type"]) == (503, "1", "application/problem+json")
        told = json.loads(body)
        assert told["code"] == "service.not_ready" and "log.disk_full" in told["detail"]
        assert "/home" not in told["detail"] and "\n" not in told["detail"]
        assert [(await get(birds, path))[0] for path in ("/livez", "/healthz", "/model")] == [200] * 3
        monkeypatch.undo()
        return [*found, (await get(birds, "/readyz"))[0]]

    assert asyncio.run(watch()) == [200, 200, 200, 503, 200]


def test_what_is_looked_at_writes_as_a_row_is_written(birds: Application) -> None:
    log = birds.served.realtime.log
    log.check_writable()
    log.file.unlink()
    log.check_writable()
    assert log.file.is_file()


def test_looks_let_no_file_grow_without_end(birds: Application) -> None:
    log, looks = birds.served.realtime.log, 3 * CHECKPOINT_ROWS
    ahead = log.file.with_name(f"{log.file.name}-wal")
    log.checkpoint_by(lambda work: work())
    for _ in range(looks):
        log.check_writable()
    assert ahead.stat().st_size < 2 * CHECKPOINT_ROWS * 4200


def test_the_loop_is_asked_without_log_and_store(birds: Application) -> None:
    birds.close()
    assert [asyncio.run(get(birds, path))[0] for path in ("/livez", "/healthz")] == [200, 200]


@pytest.mark.parametrize("needed", [False, True])
def test_a_store_that_is_away_counts_only_where_that_is_set(workshop, elsewhere: Home, needed: bool) -> None:
    elsewhere.online.write_bytes(workshop.home.online.read_bytes())
    store = OnlineStore(elsewhere.online, read_only=True)
    realtime = Realtime(workshop.open("delays"), PredictionLog(elsewhere.log("delays")), store=store)
    application = Application(realtime, needs_store=needed)
    application.readiness._every = 0

    async def statuses(times: int) -> list[int]:
        return [(await get(application, "/readyz"))[0] for _ in range(times)]

    assert asyncio.run(statuses(1)) == [200]
    elsewhere.online.rename(elsewhere.online.with_name("away"))
    assert asyncio.run(statuses(3)) == ([200, 200, 503] if needed else [200] * 3)
    elsewhere.online.with_name("away").rename(elsewhere.online)
    assert asyncio.run(statuses(1)) == [200]
    application.close()


def test_the_settings_of_the_section_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.ini").write_text("[serve]\nready_needs_store = yes\nroot_path = /models/birds\n")
    assert read_setting("serve.ready_needs_store", tmp_path).value is True
    assert read_setting("serve.root_path", tmp_path).value == "/models/birds"
    for name, value in (
        ("READY_NEEDS_STORE", "true"),
        ("ROOT_PATH", "models"),
        ("ROOT_PATH", "/models/"),
        ("ROOT_PATH", "//models"),
        ("ROOT_PATH", "/../x"),
        ("ROOT_PATH", "/a b"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(f"MLWORKBENCH_SERVE_{name}", value)
            with pytest.raises(SettingsError, match=f"MLWORKBENCH_SERVE_{name}"):
                read_setting(f"serve.{name.lower()}", tmp_path)
