"""The client: one kept connection, asked again only where that is safe, errors as one line."""

from __future__ import annotations

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

from mlworkbench.client import Client, RequestError
from mlworkbench.errors import ContractError, DeploymentError


class Service(ThreadingHTTPServer):
    """Answers from a list of plans: a (status, answer) pair, "drop", or "sleep"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list = []
        self.seen: list = []
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
        step = self.server.plan.pop(0) if self.server.plan else (200, [])
        if step == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if step == "sleep":
            time.sleep(0.5)
            step = (200, [])
        status, answer = step
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *parts: object) -> None:
        pass


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
    service.plan = ["drop", (503, {"error": "log is busy"}), (200, [{"score": 1}])]
    with Client(service.url) as client:
        assert client.score({"a": 1}) == [{"score": 1}]
    assert len({request for _, request, _ in service.seen}) == 1
    assert len(service.seen) == 3


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
    with Client(service.url) as client, pytest.raises(DeploymentError) as caught:
        client.score({"a": 1})
    assert caught.value.code == "deployment.failed" and "503: log is busy" in str(caught.value)
    service.plan = ["drop"]
    with Client(service.url, retries=0) as client, pytest.raises(DeploymentError) as caught:
        client.score({"a": 1})
    assert caught.value.code == "deployment.no_answer"


def test_a_slow_service_is_not_asked_twice(service: Service) -> None:
    service.plan = ["sleep"]
    with Client(service.url, timeout=0.1) as client, pytest.raises(DeploymentError, match="timed out"):
        client.score({"a": 1})
    assert len(service.seen) == 1


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
