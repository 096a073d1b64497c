"""Log and store deleted, moved or replaced under a service, and full disks: noticed before the next answer."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.process import Service, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import FeatureError, LogError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.refusals import RefusalLog, name_refusals
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
TRIP = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T18:00:00Z", "distance": 500}


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds"), own=True))
    yield realtime
    realtime.close()


def score(realtime: Realtime, record: object = BIRD, name: str | None = None) -> tuple[int, Any]:
    reply = realtime.respond(json.dumps(record).encode(), name)
    return reply.status, json.loads(reply.body)


def stored(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'predictions'").fetchone()
        rows = connection.execute("SELECT prediction_id FROM predictions") if made else ()
        return {row[0] for row in rows}


def move(file: Path) -> None:
    file.rename(file.with_name("moved.sqlite"))


def move_all(file: Path) -> None:
    for part in (file, *(file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))):
        part.rename(part.with_name(part.name.replace("log-1", "moved")))


def delete(file: Path) -> None:
    file.unlink()


def delete_all(file: Path) -> None:
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()


def delete_ahead(file: Path) -> None:
    file.with_name(f"{file.name}-wal").unlink()


def delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


def move_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


def replace(file: Path) -> None:
    """Put a backup in its place, as `mv` does; what was ahead of the old file lies still there."""
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(file.with_name("backup"))) as copy:
        source.backup(copy)
    os.replace(file.with_name("backup"), file)  # noqa: PTH105


WAYS = [move, move_all, delete, delete_all, delete_ahead, delete_folder, move_folder, replace]


@pytest.mark.parametrize("pull", WAYS)
def test_the_next_answer_is_in_the_file_that_lies_there(
    birds: Realtime, pull: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    before = score(birds)[1]["prediction_id"]
    pull(birds.log.file)
    told = [score(birds)[1]["prediction_id"] for _ in range(3)]
    assert stored(birds.log.file) >= {*told}
    for file in birds.log.path.parent.parent.rglob("moved.sqlite"):
        assert before in stored(file)  # it took along what was answered
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "moved, deleted or replaced" in said
    assert oct(birds.log.file.stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("pull", [delete_all, delete_folder, move])
def test_a_repeated_request_is_not_answered_from_a_file_without_a_name(
    birds: Realtime, pull: Callable[[Path], None]
) -> None:
    first = score(birds, name="order-17")
    pull(birds.log.file)
    assert score(birds, name="order-17") == first
    assert stored(birds.log.file) == {first[1]["prediction_id"]}


def test_a_file_that_is_pulled_again_and_again_is_503(birds: Realtime, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlworkbench.evaluation.log import writer

    looks = iter(range(100))
    monkeypatch.setattr(writer, "identify_sqlite", lambda path: (next(looks),))
    status, told = score(birds)
    assert (status, told["code"]) == (503, "log.pulled_away")
    monkeypatch.undo()
    assert score(birds)[0] == 200


def test_where_the_home_is_gone_nothing_is_answered_until_it_is_back(birds: Realtime, elsewhere: Home) -> None:
    assert score(birds)[0] == 200
    away = elsewhere.path.with_name("away")
    elsewhere.path.rename(away)
    told = [score(birds) for _ in range(2)]
    assert {status for status, _ in told} == {503} and not elsewhere.path.exists()
    assert {one["code"] for _, one in told} == {"log.pulled_away"}
    away.rename(elsewhere.path)
    assert score(birds)[0] == 200


def test_a_file_that_cannot_be_opened_is_503_until_it_can(birds: Realtime) -> None:
    assert score(birds)[0] == 200
    delete_all(birds.log.file)
    birds.log.file.mkdir()
    assert [score(birds)[0] for _ in range(2)] == [503, 503]
    birds.log.file.rmdir()
    status, told = score(birds)
    assert status == 200 and stored(birds.log.file) == {told["prediction_id"]}


def test_a_closed_log_stays_closed(elsewhere: Home) -> None:
    log = PredictionLog(elsewhere.log("birds"))
    log.check_writable()
    log.close()
    with pytest.raises(LogError, match="was closed"):
        log.write([])
    with pytest.raises(LogError, match="was closed"):
        log.check_writable()


def test_two_workers_keep_a_file_each_when_their_folder_goes(elsewhere: Home) -> None:
    logs = [PredictionLog(elsewhere.log("birds"), own=True) for _ in range(2)]
    shutil.rmtree(elsewhere.model("birds"))
    for log in logs:
        log.check_writable()
    assert sorted(log.file.name for log in logs) == ["log-1.sqlite", "log-2.sqlite"]
    assert all(log.file.is_file() for log in logs)
    for log in logs:
        log.close()


def test_files_that_come_and_go_under_load_lose_no_answer(birds: Realtime) -> None:
    """Whatever is answered lies in a file with a name: the log's own, or one to which it was moved."""
    done, folder = threading.Event(), birds.log.path.parent

    def pull() -> None:
        for number in range(100):
            time.sleep(0.2)
            with suppress(FileNotFoundError):
                birds.log.file.rename(folder / f"gone-{number}.sqlite")
            if len([*folder.glob("gone-*.sqlite")]) == 4:
                break
        done.set()

    threading.Thread(target=pull).start()
    told: list[str] = []
    while not done.is_set():
        status, answer = score(birds)
        told += [answer["prediction_id"]] if status == 200 else []
    told.append(score(birds)[1]["prediction_id"])
    found = {name for file in [birds.log.file, *folder.glob("gone-*.sqlite")] for name in stored(file)}
    assert len(told) > 4 and {*told} <= found


def test_the_log_of_refused_rows_is_made_again(elsewhere: Home) -> None:
    log = RefusalLog(elsewhere.model("birds"))
    one = name_refusals(("birds", "birds:1", "realtime"), {"a:0": "bill: a number"}, {"a:0": 0})
    assert [log.write(one), log.write(one)] == [1, 0]
    for pull in (move, delete_all, replace):
        pull(log.path)
        assert log.write(one) == int(pull is not replace)
        with closing(sqlite3.connect(log.path)) as connection:
            assert connection.execute("SELECT count(*) FROM refusals").fetchone() == (1,)
    log.close()


@pytest.fixture
def delays(workshop, elsewhere: Home) -> Iterator[Realtime]:
    shutil.copy(workshop.home.online, elsewhere.online)
    store = OnlineStore(elsewhere.online, read_only=True)
    realtime = Realtime(workshop.open("delays"), PredictionLog(elsewhere.log("delays")), store=store)
    yield realtime
    realtime.close()


def winds(realtime: Realtime) -> list[float | None]:
    return [json.loads(text)["wind"] for text in read_log(realtime.log.path)["features"]]


def test_a_store_that_is_away_is_503_and_read_again_when_it_is_back(delays: Realtime, elsewhere: Home) -> None:
    away = elsewhere.online.with_name("away")
    first = score(delays, TRIP)[1]["score"]
    elsewhere.online.rename(away)
    told = [score(delays, TRIP) for _ in range(2)]
    assert {(status, one["code"]) for status, one in told} == {(503, "features.store_missing")}
    assert delays.look_at_store() == (False, None)
    away.rename(elsewhere.online)
    assert score(delays, TRIP)[1]["score"] == first and delays.look_at_store()[0]
    reply = delays.respond(json.dumps(TRIP).encode())
    assert "Retry-After" not in reply.headers


def test_a_store_that_is_replaced_answers_with_what_is_in_it(delays: Realtime, elsewhere: Home) -> None:
    assert score(delays, TRIP)[0] == 200
    copy = elsewhere.online.with_name("copy.sqlite")
    with closing(sqlite3.connect(elsewhere.online)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        tables = [row[0] for row in target.execute("SELECT storage FROM views WHERE name = 'weather'")]
        target.execute(f"UPDATE \"{tables[0]}\" SET value = replace(value, '12.0', '99.0')")
        target.commit()
    os.replace(copy, elsewhere.online)  # noqa: PTH105
    assert score(delays, TRIP)[0] == 200
    assert winds(delays) == [12.0, 99.0]


def test_a_store_that_is_none_is_503(delays: Realtime, elsewhere: Home) -> None:
    kept = elsewhere.online.read_bytes()
    elsewhere.online.unlink()
    elsewhere.online.write_bytes(b"notes, no store; " * 100)
    assert score(delays, TRIP)[0] == 503
    elsewhere.online.unlink()
    elsewhere.online.with_name(f"{elsewhere.online.name}-wal").unlink(missing_ok=True)
    elsewhere.online.write_bytes(kept)
    assert score(delays, TRIP)[0] == 200


def test_a_writer_of_the_store_keeps_its_own_file(tmp_path: Path) -> None:
    """Only who reads looks at the path: a writer would else write half into one file, half into another."""
    with OnlineStore(tmp_path / "online.sqlite") as store:
        (tmp_path / "online.sqlite").unlink()
        with store.transaction():
            pass
    with pytest.raises(FeatureError, match="not there"):
        OnlineStore(tmp_path / "online.sqlite", read_only=True)


def post(service: Service, record: object, name: str = "") -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    headers = {"Content-Type": "application/json", **({"X-Request-Id": name} if name else {})}
    try:
        connection.request("POST", "/score", json.dumps(record), headers)
        reply = connection.getresponse()
        return reply.status, {key.lower(): value for key, value in reply.getheaders()}, json.loads(reply.read())
    finally:
        connection.close()


def get(service: Service, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def limit_files(service: Service, size: int) -> None:
    """Let no process of a service write beyond a size, as a full disk does."""
    parent = psutil.Process(service.process.pid)
    for process in (parent, *parent.children(recursive=True)):
        process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


def wait_for(path: str, service: Service, status: int, seconds: float = 8.0) -> float:
    began = time.monotonic()
    while get(service, path)[0] != status:
        assert time.monotonic() - began < seconds, f"{path} never gave {status}"
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.mark.system
@pytest.mark.parametrize("server", ["uvicorn", "bentoml"])
def test_a_service_outlives_what_is_pulled_away(workshop, elsewhere: Home, server: str) -> None:
    shutil.copy(workshop.home.online, elsewhere.online)
    with start_service("delays", home=elsewhere, server=server) as service:
        first = post(service, TRIP)[2]
        file = elsewhere.model("delays") / "log-1.sqlite"
        for pull in (move_all, delete_folder):
            pull(file)
            status, _, told = post(service, TRIP)
            assert status == 200 and stored(file) == {told["prediction_id"]} and told["score"] == first["score"]
        elsewhere.online.rename(elsewhere.online.with_name("away"))
        status, headers, told = post(service, TRIP)
        assert (status, told["code"], headers["retry-after"]) == (503, "features.store_missing", "1")
        assert "mlworkbench_store_up 0.0" in get(service, "/metrics")[1]
        assert [get(service, path)[0] for path in ("/livez", "/readyz", "/ping")] == [200] * 3
        elsewhere.online.with_name("away").rename(elsewhere.online)
        assert post(service, TRIP)[0] == 200 and "mlworkbench_store_up 1.0" in get(service, "/metrics")[1]
        limit_files(service, 1)
        status, headers, told = post(service, TRIP)
        assert (status, headers["retry-after"]) == (503, "1") and told["code"].startswith("log.")
        assert get(service, "/readyz")[0] == 200  # one look is none
        assert wait_for("/readyz", service, 503) > 1.0
        assert get(service, "/livez")[0] == 200
        limit_files(service, psutil.RLIM_INFINITY)
        assert wait_for("/readyz", service, 200) < 4.0
        assert post(service, TRIP)[0] == 200
