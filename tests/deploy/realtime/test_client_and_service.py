"""The client before real services: long lists, a service that is killed, one that hangs, and the other ways in."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import ExitStack

import pytest

from mlworkbench.client import AsyncClient, Client, RequestError, ServiceError
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.evaluation.log.reader import read_log

pytestmark = pytest.mark.system
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


def birds(count: int) -> list[dict[str, object]]:
    return [{**BIRD, "bill": 30 + k / 100, "ring": f"R{k}"} for k in range(count)]


@pytest.mark.parametrize("server", ["uvicorn", pytest.param("bentoml", marks=pytest.mark.long)])
def test_a_long_list_comes_back_in_its_order_and_is_logged_once(elsewhere: Home, server: str) -> None:
    rows = birds(2300)
    with start_service("birds", home=elsewhere, server=server) as service, Client(service.url) as client:
        told = client.score(rows, request_id="long")
        assert told == client.score(rows, request_id="long")
        assert [one["decision"] for one in told[:50]] == [client.score(row)[0]["decision"] for row in rows[:50]]
        wrong = [*rows[:1500], {**BIRD, "bill": 391.0}, *rows[:10]]
        with pytest.raises(RequestError, match=r"from record 1000 on: .*bill") as caught:
            client.score(wrong, request_id="wrong")
        assert caught.value.faults[0]["row"] == 1500 and caught.value.status == 422
        found = client.score(wrong, request_id="wrong parts", partial=True)
        assert [one["index"] for one in found if "faults" in one] == [1500] and len(found) == len(wrong)
        large = [{**one, "ring": "R" * 20_000} for one in rows[:999]]  # 20 MB: more than one body may hold
        assert len(client.score(large)) == 999
        tensors = [
            {"name": name, "shape": [3], "datatype": kind, "data": [row[name] for row in rows[:3]]}
            for name, kind in {"bill": "FP64", "island": "BYTES", "ring": "BYTES"}.items()
        ]
        answer = client.invoke({"inputs": tensors}, request_id="tensors", path="/v2/models/birds/infer")
        scores = next(one["data"] for one in answer["outputs"] if one["name"] == "score")
        assert scores == [one["score"] for one in told[:3]] and answer["id"] == "tensors"
    log = read_log(elsewhere.log("birds"))
    assert log.filter(log["request_id"].str.starts_with("long")).height == len(rows)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
def test_a_service_that_is_killed_and_started_again_costs_no_call(elsewhere: Home, kills: int) -> None:
    told: dict[str, list] = {}
    failed: list[Exception] = []
    done = threading.Event()

    def ask(url: str, who: int) -> None:
        try:
            with Client(url, retries=60, deadline=60) as client:
                while not done.is_set():
                    name = f"caller {who} call {len([key for key in told if key.startswith(f'caller {who} ')])}"
                    told[name] = client.score(BIRD, request_id=name)
        except Exception as error:
            failed.append(error)

    with ExitStack() as stack:
        service = stack.enter_context(start_service("birds", home=elsewhere))
        threads = [threading.Thread(target=ask, args=(service.url, who)) for who in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(0.2)
            before = len(told)
            os.kill(service.process.pid, signal.SIGKILL)
            service.process.wait(10)
            service = stack.enter_context(start_service("birds", home=elsewhere, port=service.port))
            deadline = time.monotonic() + 20
            while len(told) < before + 5 and time.monotonic() < deadline:
                time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join()
    assert not failed and len(told) >= 5 * kills
    log = read_log(elsewhere.log("birds"))
    assert sorted(log["request_id"]) == sorted(told) and log["prediction_id"].n_unique() == log.height


def test_a_service_that_hangs_is_asked_again_and_given_up_in_time(elsewhere: Home) -> None:
    with start_service("birds", home=elsewhere) as service:
        with Client(service.url, timeout=0.5, retries=20, deadline=20) as client:
            plain = client.score(BIRD)
            os.kill(service.process.pid, signal.SIGSTOP)
            going_on = threading.Timer(1.2, os.kill, (service.process.pid, signal.SIGCONT))
            going_on.start()
            assert client.score(BIRD, request_id="through")[0]["score"] == plain[0]["score"]
            going_on.join()
        os.kill(service.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with Client(service.url, timeout=0.3, deadline=1) as client, pytest.raises(ServiceError, match="timed out"):
                client.score(BIRD, request_id="given up")
            assert time.monotonic() - started < 2
        finally:
            os.kill(service.process.pid, signal.SIGCONT)
    log = read_log(elsewhere.log("birds"))
    assert log.filter(log["request_id"] == "through").height == 1


def test_calls_of_a_loop_are_all_answered_and_logged(elsewhere: Home) -> None:
    async def ask(url: str) -> list[list[dict[str, object]]]:
        async with AsyncClient(url) as client:
            return await asyncio.gather(*(client.score(row, request_id=row["ring"]) for row in birds(100)))

    with start_service("birds", home=elsewhere) as service:
        told = asyncio.run(ask(service.url))
        with Client(service.url) as client:
            assert [one[0]["score"] for one in told] == [one["score"] for one in client.score(birds(100))]
    assert read_log(elsewhere.log("birds")).height == 200
