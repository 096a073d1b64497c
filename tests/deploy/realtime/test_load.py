"""Real servers under load: killed, stopped, swamped with lists; each answer that was given is in the log."""

from __future__ import annotations

import http.client
import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.process import Service, free_port, is_ready, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.waiting import WaitingCalls
from mlworkbench.evaluation.log.mover import HOUR, move_log
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog, list_log_files

pytestmark = pytest.mark.system
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
BROKEN = (OSError, http.client.HTTPException, ValueError)


class Load:
    """Threads that ask again and again, and keep the ids that they were told."""

    def __init__(self, port: int, *, body: object = BIRD, threads: int = 6) -> None:
        self.port, self.body = port, json.dumps(body)
        self.ids: list[str] = []
        self.statuses: set[int] = set()
        self.waits: list[float] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.stopped.is_set():
            try:
                begun = time.monotonic()
                line.request("POST", "/score", self.body, {"Content-Type": "application/json"})
                answer = line.getresponse()
                told = json.loads(answer.read())
            except BROKEN:
                line.close()
                time.sleep(0.01)
                continue
            self.waits.append(time.monotonic() - begun)
            self.statuses.add(answer.status)
            if answer.status == 200:
                self.ids.extend(one["prediction_id"] for one in (told if isinstance(told, list) else [told]))
        line.close()

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self.threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            for thread in self.threads:
                thread.join(15)


def count_logged(home: Home, ids: list[str]) -> int:
    """Count ids that the files of the log hold; they are read as they lie there, after whatever killed their writer."""
    found = set[str]()
    for file in list_log_files(home.log("birds")):
        with closing(sqlite3.connect(file)) as connection:
            found |= {row[0] for row in connection.execute("SELECT prediction_id FROM predictions")}
    return len(found & set(ids))


def workers(service: Service) -> list[psutil.Process]:
    """The processes that answer: those that hold a file of the log."""
    family = psutil.Process(service.process.pid)
    found = []
    for process in [family, *family.children(recursive=True)]:
        with suppress(psutil.Error):
            if any("birds" in one.path and ".sqlite" in one.path for one in process.open_files()):
                found.append(process)
    return found


def test_each_answer_is_in_the_log_however_often_uvicorn_is_killed(elsewhere: Home, kills: int) -> None:
    chance, ids = random.Random(5), list[str]()
    for _ in range(kills):
        with start_service("birds", home=elsewhere) as service, Load(service.port).running() as load:
            time.sleep(chance.uniform(0.1, 0.5))
            service.process.send_signal(signal.SIGKILL)
            service.process.wait(10)
            load.stopped.set()
        assert load.ids and load.statuses == {200}
        ids += load.ids
    assert count_logged(elsewhere, ids) == len(ids) == len(set(ids))


def test_each_answer_is_in_the_log_however_often_a_worker_of_bentoml_is_killed_and_when_it_stops(
    elsewhere: Home, kills: int
) -> None:
    """Its supervisor looks for dead workers every ten seconds, so there are some more to be killed."""
    chance, env = random.Random(6), {"MLWORKBENCH_WORKERS": "6"}
    with start_service("birds", home=elsewhere, server="bentoml", env=env) as service:

        def find(least: int) -> list[psutil.Process]:
            end = time.monotonic() + 90
            while len(found := workers(service)) < least and time.monotonic() < end:
                time.sleep(0.1)
            assert len(found) >= least
            return found

        find(6)
        with Load(service.port).running() as load:
            for _ in range(kills):
                before = len(load.ids)
                found = find(2)
                while len(load.ids) < before + 20:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0.0, 0.3))
                chance.choice(found).kill()
            time.sleep(0.2)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(20) == 0
    assert load.statuses <= {200, 503} and len(load.ids) >= 20 * kills
    assert count_logged(elsewhere, load.ids) == len(load.ids) == len({*load.ids})


def test_a_stop_while_requests_wait_answers_them(workshop, elsewhere: Home) -> None:
    """In this process, so that what waits is known; `uvicorn` is told to end as SIGTERM tells it."""
    import uvicorn

    application = Application(Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds"), own=True)))
    served, go = application.served, threading.Event()
    respond = served.realtime.respond_together
    served.waiting = WaitingCalls(lambda calls: respond(calls) if go.wait(20) else [], threaded=True)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, lifespan="on", log_level="warning"))
    running = threading.Thread(target=server.run, daemon=True)
    running.start()

    def score() -> int:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        line.request("POST", "/score", json.dumps(BIRD), {"Content-Type": "application/json"})
        return line.getresponse().status

    def wait_for(ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not ready() and time.monotonic() < end:
            time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        wait_for(lambda: is_ready(port))
        answers = [pool.submit(score)]
        wait_for(lambda: not (served.waiting.idle or len(served.waiting)))  # it is being answered
        answers += [pool.submit(score) for _ in range(7)]
        wait_for(lambda: len(served.waiting) == 7)
        server.should_exit = True
        time.sleep(0.3)
        assert len(served.waiting) == 7 and not any(one.done() for one in answers)
        go.set()
        assert [one.result() for one in answers] == [200] * 8
    running.join(20)
    assert not running.is_alive() and read_log(elsewhere.log("birds")).height == 8


def test_a_service_that_is_stopped_under_load_gives_no_other_answer_and_logs_each(elsewhere: Home) -> None:
    with start_service("birds", home=elsewhere) as service, Load(service.port).running() as load:
        while len(load.ids) < 100:
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) in (0, -signal.SIGTERM), "uvicorn ends by the signal that it was told"
    assert load.statuses <= {200, 503}
    assert count_logged(elsewhere, load.ids) == len(load.ids) == len({*load.ids})


def test_nobody_waits_long_while_rows_are_refused_lists_scored_pages_shown_and_the_log_moved(elsewhere: Home) -> None:
    with start_service("birds", home=elsewhere) as service:
        line = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)

        def ask(method: str, path: str, value: object = None) -> int:
            body = None if value is None else json.dumps(value)
            line.request(method, path, body, {"Content-Type": "application/json"})
            answer = line.getresponse()
            answer.read()
            return answer.status

        assert {ask("POST", "/score", [BIRD] * 1000) for _ in range(3)} == {200}
        with closing(sqlite3.connect(list_log_files(elsewhere.log("birds"))[0])) as file, file:
            file.execute("UPDATE predictions SET logged_at = logged_at - ?", [72 * HOUR])
        with Load(service.port, threads=2).running() as load, ThreadPoolExecutor(1) as pool:
            moved, end = pool.submit(move_log, "birds", home=elsewhere), time.monotonic() + 30
            while (not moved.done() or len(load.waits) < 200) and time.monotonic() < end:
                assert ask("POST", "/score", {**BIRD, "bill": -1}) == 422
                assert ask("GET", "/metrics") == 200
                time.sleep(0.02)
        line.close()
    assert moved.result().rows == 3000 and load.statuses == {200}
    assert max(load.waits) < 1.0, "others use the machine; a lock waited for would be seconds"
    assert read_log(elsewhere.log("birds")).height == 3000 + len(load.ids)


def test_two_workers_that_wait_for_the_disk_log_each_answer_once(elsewhere: Home) -> None:
    env = {"MLWORKBENCH_WORKERS": "2", "MLWORKBENCH_SERVE_SYNCHRONOUS": "full"}
    with start_service("birds", home=elsewhere, env=env) as service:
        time.sleep(1.0)
        with Load(service.port, threads=8).running() as load:
            time.sleep(1.0)
    rows = read_log(elsewhere.log("birds"))
    assert sorted(rows["prediction_id"]) == sorted(load.ids) and len(load.ids) > 20
