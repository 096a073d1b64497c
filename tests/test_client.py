"""The client: kept connections, asked again only where that is safe, within its times, errors as one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mlworkbench.client import AsyncClient, Client, RequestError, ServiceError
from mlworkbench.errors import ContractError, DeploymentError


class Service(ThreadingHTTPServer):
    """Answers by plans: (status, answer[, headers]), a function of the body, "drop", "cut", "sleep" or "drip"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list = []
        self.seen: list = []
        self.headers: list = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, self.headers.get("X-Request-ID"), body))
        self.server.headers.append(self.headers)
        step = self.server.plan.pop(0) if self.server.plan else (200, [])
        if step == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if step == "cut":
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{"score": 1}]')
            self.close_connection = True
            return
        if step == "sleep":
            time.sleep(0.5)
            step = (200, [])
        if step == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                time.sleep(0.05)
                self.wfile.write(b" ")
                self.wfile.flush()
            return
        status, answer, *more = step(body) if callable(step) else step
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (more[0] if more else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *parts: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # who asked has given up
            super().handle()


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_record_or_a_list_goes_out_as_a_list_and_comes_back_in_order(service: Service) -> None:
    service.plan = [(200, [{"score": 1}]), (200, [{"score": 1}, {"score": 2}])]
    with Client(service.url) as client:
        assert client.score({"a": 1}) == [{"score": 1}]
        assert client.score([{"a": 1}, {"a": 2}]) == [{"score": 1}, {"score": 2}]
    assert [json.loads(body) for _, _, body in service.seen] == [[{"a": 1}], [{"a": 1}, {"a": 2}]]


def test_one_connection_serves_many_calls(service: Service) -> None:
    with Client(service.url) as client:
        for _ in range(5):
            client.score({"a": 1})
    assert service.connections == 1


def test_a_broken_connection_is_asked_again_with_the_same_request_id(service: Service) -> None:
    service.plan = ["drop", (503, {"error": "log is busy"}), "cut", (200, [{"score": 2}])]
    with Client(service.url) as client:
        assert client.score({"a": 1}) == [{"score": 2}]
    assert len({request for _, request, _ in service.seen}) == 1
    assert len(service.seen) == 4


def test_two_calls_have_two_request_ids_and_a_given_one_is_kept(service: Service) -> None:
    with Client(service.url) as client:
        client.score({"a": 1})
        client.score({"a": 1})
        client.score({"a": 1}, request_id="mine")
    ids = [request for _, request, _ in service.seen]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"


def test_after_the_last_try_the_error_is_one_line(service: Service) -> None:
    service.plan = ["drop", "drop", (503, {"error": "log is busy"})]
    with Client(service.url, retries=2) as client, pytest.raises(ServiceError) as caught:
        client.score({"a": 1})
    assert caught.value.code == "deployment.failed" and "503: log is busy" in str(caught.value)
    assert caught.value.status == 503 and isinstance(caught.value, DeploymentError)
    service.plan = ["drop"]
    with Client(service.url, retries=0) as client, pytest.raises(ServiceError) as caught:
        client.score({"a": 1})
    assert caught.value.code == "deployment.no_answer" and caught.value.status == 0


@pytest.mark.parametrize(("status", "later"), [(429, 1), (502, 0), (503, 0), (504, 0)])
def test_not_now_is_asked_again_and_retry_after_is_kept(service: Service, status: int, later: int) -> None:
    service.plan = [(status, {"detail": "not now"}, {"Retry-After": str(later)}), (200, [{"score": 1}])]
    started = time.monotonic()
    with Client(service.url) as client:
        assert client.score({"a": 1}) == [{"score": 1}]
    assert later <= time.monotonic() - started < later + 2 and len({name for _, name, _ in service.seen}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 415, 422, 500])
def test_what_is_final_is_asked_once(service: Service, status: int) -> None:
    service.plan = [(status, {"detail": "no", "code": "request.some"})] * 3
    with Client(service.url) as client, pytest.raises((RequestError, ServiceError)) as caught:
        client.score({"a": 1})
    assert (caught.value.status, caught.value.code, len(service.seen)) == (status, "request.some", 1)
    assert isinstance(caught.value, RequestError) == (status < 500)


def test_a_wait_beyond_the_times_is_not_waited_for(service: Service) -> None:
    service.plan = [(503, {"detail": "away"}, {"Retry-After": "3600"})] * 2
    started = time.monotonic()
    for client in (Client(service.url), Client(service.url, timeout=9999, deadline=5)):
        with pytest.raises(ServiceError, match="away"):
            client.score({"a": 1})
        client.close()
    assert time.monotonic() - started < 2 and len(service.seen) == 2
    service.plan = [(503, {}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), (200, [{"score": 1}])]
    with Client(service.url) as client:
        assert client.score({"a": 1}) == [{"score": 1}]


def test_a_try_that_takes_too_long_is_given_up_and_asked_again(service: Service) -> None:
    service.plan = ["sleep", "drip", (200, [{"score": 1}])]
    started = time.monotonic()
    with Client(service.url, timeout=0.2) as client:
        assert client.score({"a": 1}) == [{"score": 1}]
    assert time.monotonic() - started < 2 and len({name for _, name, _ in service.seen}) == 1


def test_the_deadline_bounds_all_tries_together(service: Service) -> None:
    service.plan = ["sleep"] * 50
    started = time.monotonic()
    client = Client(service.url, timeout=0.3, deadline=0.8, retries=50)
    with client, pytest.raises(ServiceError, match="timed out") as caught:
        client.score({"a": 1})
    assert 0.3 < time.monotonic() - started < 1.5 and len(service.seen) <= 4
    assert caught.value.code == "deployment.no_answer"


def test_a_kept_connection_that_was_closed_is_opened_anew_at_once(service: Service) -> None:
    with Client(service.url, retries=1) as client:
        threads = [threading.Thread(target=client.score, args=({"a": 1},)) for _ in range(6)]
        service.plan = ["sleep"] * 6
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept, started = len(client._idle), time.monotonic()
        for connection in client._idle:
            connection.sock.shutdown(socket.SHUT_RDWR)
        assert kept > 1 and client.score({"a": 1}) == [] and time.monotonic() - started < 0.3
        assert len(client._idle) == 1


def test_faults_come_back_as_the_same_line_with_the_whole_list(service: Service) -> None:
    faults = [{"row": 0, "column": "a"}, {"row": 1, "column": "b"}]
    service.plan = [(400, {"error": "row 0, column 'a': a number (and 1 more)", "faults": faults})]
    with Client(service.url) as client, pytest.raises(ContractError, match="row 0, column 'a'") as caught:
        client.score({"a": "x"})
    assert isinstance(caught.value, RequestError) and caught.value.code == "request.refused"
    assert caught.value.faults == faults
    assert len(service.seen) == 1


def test_good_records_are_taken_where_others_are_refused_only_if_asked_for(service: Service) -> None:
    faults = [{"row": 1, "column": "a"}]
    told = [{"score": 1}, {"index": 1, "faults": faults}]
    service.plan = [(200, told), (422, told[1:]), (422, {"detail": "request: row 1, column 'a'", "faults": faults})]
    with Client(service.url) as client:
        assert client.score([{"a": 1}, {"a": "x"}], partial=True) == told
        assert client.score([{"a": "x"}], partial=True) == told[1:]
        with pytest.raises(RequestError, match="row 1") as caught:
            client.score([{"a": 1}, {"a": "x"}])
    assert caught.value.faults == faults
    assert [path for path, _, _ in service.seen] == ["/score", "/score", "/score?partial=false"]


@pytest.mark.parametrize("answer", [b"", b"<html>", {"message": "no"}, None])
def test_an_answer_that_is_no_json_is_still_one_line(service: Service, answer: object) -> None:
    service.plan = [(500, answer)]
    with Client(service.url) as client, pytest.raises(DeploymentError) as caught:
        client.score({"a": 1})
    assert caught.value.code == "deployment.failed" and "status 500" in str(caught.value)


def test_missing_numbers_and_numpy_values_are_sent_as_json(service: Service) -> None:
    record = {"a": float("nan"), "b": np.float64("nan"), "f": np.float32("nan")}
    record |= {"c": np.int64(3), "d": np.array([1.0, 2.0]), "e": None}
    with Client(service.url) as client:
        client.score(record)
    assert json.loads(service.seen[0][2]) == [{"a": None, "b": None, "f": None, "c": 3, "d": [1.0, 2.0], "e": None}]


@pytest.mark.parametrize("record", [{"a": float("inf")}, {"a": object()}, {"a": {1, 2}}, ["a"], 5])
def test_what_json_cannot_carry_is_refused_before_it_is_sent(service: Service, record: object) -> None:
    with Client(service.url) as client, pytest.raises(ContractError) as caught:
        client.score([record])  # type: ignore[list-item]
    assert caught.value.code == "contract.not_json" and "record 0" in str(caught.value)
    assert service.seen == []


def test_ready_follows_the_service_and_waiting_ends(service: Service) -> None:
    service.plan = [(503, {}), (503, {}), (200, {})]
    client = Client(service.url)
    assert not client.ready()
    client.wait(5)
    client.close()
    with pytest.raises(DeploymentError) as caught:
        Client("http://127.0.0.1:9").wait(0.2)
    assert caught.value.code == "deployment.not_ready" and "after 0.2 s" in str(caught.value)


def test_a_path_before_the_service_is_kept(service: Service) -> None:
    with Client(service.url + "/models/") as client:
        client.score({"a": 1})
    assert service.seen[0][0] == "/models/score?partial=false"


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:port", "http://host:99999", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DeploymentError) as caught:
        Client(url)
    assert caught.value.code == "deployment.url" and "write it like" in str(caught.value)


def test_the_client_imports_the_standard_library_alone() -> None:
    code = "import sys, mlworkbench.client; print([n for n in ('numpy', 'pandas', 'pydantic') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_invocation_goes_out_as_it_is_with_null_for_nan_at_any_depth(service: Service) -> None:
    service.plan = [
        (200, {"predictions": [1], "answers": [{}]}),
        (422, {"detail": "row 0: no", "faults": [{"row": 0}]}),
    ]
    body = {"dataframe_split": {"columns": ["a"], "data": [[np.float64("nan")], [np.int64(3)]]}}
    with Client(service.url) as client:
        assert client.invoke(body, request_id="mine")["predictions"] == [1]
        with pytest.raises(RequestError, match="row 0: no") as refused:
            client.invoke(body)
        with pytest.raises(ContractError, match="cannot write the body as JSON"):
            client.invoke({"instances": [{"a": object()}]})
    path, name, sent = service.seen[0]
    assert (path, name) == ("/invocations", "mine")
    assert json.loads(sent) == {"dataframe_split": {"columns": ["a"], "data": [[None], [3]]}}
    assert refused.value.faults == [{"row": 0}]


def score_each(body: bytes) -> tuple[int, list]:
    return 200, [{"score": record["a"]} for record in json.loads(body)]


def test_a_long_list_is_cut_and_joined_in_its_order(service: Service) -> None:
    service.plan = [score_each] * 9
    with Client(service.url) as client:
        assert [one["score"] for one in client.score([{"a": k} for k in range(2500)], request_id="mine")] == [
            *range(2500)
        ]
        assert [one["score"] for one in client.score([{"a": k} for k in range(1000)], request_id="whole")] == [
            *range(1000)
        ]
        large = [{"a": k, "text": "x" * 3_000_000} for k in range(5)]
        assert [one["score"] for one in client.score(large, request_id="large")] == [*range(5)]
    names = [name for _, name, _ in service.seen]
    assert names[:4] == ["mine.0", "mine.1000", "mine.2000", "whole"]
    assert names[4:] == ["large.0", "large.2", "large.4"] and max(len(body) for _, _, body in service.seen) < 8 << 20


def test_what_a_service_calls_too_large_is_halved(service: Service) -> None:
    def at_most_three(body: bytes) -> tuple[int, object]:
        return (
            score_each(body)
            if len(json.loads(body)) <= 3
            else (413, {"detail": "too many", "code": "request.too_large"})
        )

    service.plan = [at_most_three] * 20
    with Client(service.url) as client:
        assert [one["score"] for one in client.score([{"a": k} for k in range(10)], request_id="ten")] == [*range(10)]
        service.plan = [(413, {"detail": "too large", "code": "request.too_large"})]
        with pytest.raises(RequestError, match="too large") as caught:
            client.score({"a": 1})
    assert caught.value.status == 413
    answered = [name for _, name, body in service.seen if len(json.loads(body)) <= 3][:4]
    assert answered == ["ten.0", "ten.2", "ten.5", "ten.7"]


def test_places_of_a_later_part_count_from_the_beginning(service: Service) -> None:
    faults = [{"row": 3, "column": "a"}, {"row": -1, "column": "b"}]
    service.plan = [score_each, (422, {"detail": "request: row 3", "faults": faults})]
    with Client(service.url) as client:
        with pytest.raises(RequestError, match="from record 1000 on: request: row 3") as caught:
            client.score([{"a": 1}] * 1500)
        assert [fault["row"] for fault in caught.value.faults] == [1003, -1]
        service.plan = [score_each, (200, [{"score": 1}] * 499 + [{"index": 499, "faults": []}])]
        assert client.score([{"a": 1}] * 1500, partial=True)[-1]["index"] == 1499


@pytest.mark.parametrize("answer", ["<html>", {"score": 1}, None, 5])
def test_an_answer_of_another_shape_is_no_prediction(service: Service, answer: object) -> None:
    service.plan = [(200, answer), (200, [answer])]
    with Client(service.url) as client:
        with pytest.raises(ServiceError, match="status 200"):
            client.score({"a": 1})
        with pytest.raises(ServiceError, match="status 200"):
            client.invoke({"instances": []})


def test_a_key_is_sent_and_never_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_KEY", " from-the-environment\n")
    for client in (Client(service.url), Client(service.url, key="given"), Client(service.url, key="")):
        client.score({"a": 1})
        client.close()
    sent = [headers.get("Authorization") for headers in service.headers]
    assert sent == ["Bearer from-the-environment", "Bearer given", None]
    for key in ("two words", "line\nX-Other: 1", "schlüssel"):
        with pytest.raises(DeploymentError, match="withheld") as caught:
            Client(service.url, key=key)
        assert key not in str(caught.value) and caught.value.code == "deployment.key"
    service.plan = [(401, {"detail": "a key is needed", "code": "request.key"})]
    with Client(service.url, key="secret-key") as client, pytest.raises(RequestError) as caught:
        client.score({"a": 1})
    assert "secret-key" not in repr(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize("name", ["a\r\nX-Other: 1", "naïve", "tab\t"])
def test_a_name_that_is_no_header_is_one_line(service: Service, name: str) -> None:
    with Client(service.url) as client:
        for ask in (lambda: client.score({"a": 1}, request_id=name), lambda: client.invoke({}, request_id=name)):
            with pytest.raises(RequestError, match="request_id"):
                ask()
    assert service.seen == []


def test_threads_share_a_client(service: Service) -> None:
    service.plan = [score_each] * 200
    found: dict[int, list] = {}
    with Client(service.url) as client:

        def ask(k: int) -> None:
            found[k] = [client.score({"a": k})[0]["score"] for _ in range(10)]

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {k: [k] * 10 for k in range(8)} and service.connections <= 8


def test_calls_of_a_loop_wait_at_the_same_time(service: Service) -> None:
    async def ask() -> None:
        async with AsyncClient(service.url, connections=5) as client:
            assert await client.ready()
            service.plan, started = ["sleep"] * 5, time.monotonic()
            await asyncio.gather(*(client.score({"a": k}) for k in range(5)))
            assert 0.5 <= time.monotonic() - started < 1.5
            service.plan = [score_each] * 30
            answers = await asyncio.gather(*(client.score({"a": k}, request_id=f"n{k}") for k in range(20)))
            assert [one[0]["score"] for one in answers] == [*range(20)]
            service.plan = [(200, {"predictions": [1]}), (422, {"detail": "row 0: no"})]
            assert await client.invoke({"instances": []}) == {"predictions": [1]}
            with pytest.raises(RequestError, match="row 0"):
                await client.score({"a": "x"})
            service.plan = ["sleep"]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.score({"a": 1}), 0.1)
        with pytest.raises(ServiceError, match="not ready"):
            async with AsyncClient(Client("http://127.0.0.1:9")) as nobody:
                await nobody.wait(0.2)

    asyncio.run(ask())
    assert service.connections <= 5
