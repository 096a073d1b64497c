"""A certificate asks a service by all of its ways in: what is wrong in one of them alone is found."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.deploy.realtime.call import Call, Reply
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.v2 import Inference
from mlworkbench.errors import DeploymentError
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.operate.certify.deployments import _ask_front, ask_service
from mlworkbench.operate.certify.page import render_certificate
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry


class Server(ThreadingHTTPServer):
    """Answers by a version; `spoil` may change the answer to tensors."""

    daemon_threads = True

    def __init__(self, realtime: Realtime) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.realtime, self.paths, self.spoil = realtime, list[str](), lambda told: told
        self.lock, self.url = threading.Lock(), f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, call: Call) -> Reply:
        with self.lock:
            self.paths.append(path)
            return self.realtime.respond_together([call])[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body, name = self.rfile.read(int(self.headers["Content-Length"])), self.headers["X-Request-Id"]
        tensors = self.path.endswith("/infer")
        call = Call(body, name, invocation=self.path == "/invocations", form=Inference() if tensors else None)
        reply = self.server.answer(self.path, call)
        content = json.dumps(self.server.spoil(json.loads(reply.body))).encode() if tensors else reply.body
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *parts: object) -> None:
        pass


def rows(count: int = 70) -> tuple[pd.DataFrame, pd.Series]:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, count), "delay": draws.normal(0, 9, count)})
    return X, (X["distance"] * 3).astype(int).rename("far")


def made(home, kind: str) -> tuple[Realtime, list[dict[str, object]]]:
    X, y = rows()
    labels = {"binary": y > 0, "multiclass": y.map({0: "near", 1: "far", 2: "away"}), "regression": X["delay"] * 2.5}
    model = Ridge() if kind == "regression" else LogisticRegression()
    tag = register(model.fit(X, labels[kind]), X, labels[kind].rename("far"), name=kind, home=home).tag
    version = Registry(home).open(kind, tag)
    return Realtime(version, PredictionLog(home.log(kind))), X.to_dict("records")


@pytest.fixture(params=["binary", "multiclass", "regression"])
def server(home, request) -> Iterator[tuple[Server, list[dict[str, object]]]]:
    realtime, records = made(home, request.param)
    server = Server(realtime)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server, records
    server.shutdown()
    thread.join()
    server.server_close()
    realtime.close()


def spoil(told: dict) -> dict:
    for tensor in told["outputs"]:
        if tensor["datatype"] == "FP64":
            tensor["data"] = [value + 0.25 for value in tensor["data"]]
    return told


def test_each_way_in_answers_its_share_and_what_is_wrong_in_one_is_in_the_answers(
    server: tuple[Server, list[dict[str, object]]],
) -> None:
    one, records = server
    version = one.realtime.version
    found = ask_service(one.url, records, version)
    plain = json.loads(one.realtime.respond(json.dumps(records).encode()).body)
    assert found.rows == list(range(len(records))) and not found.refused
    assert set(one.paths) == {"/score", "/invocations", f"/v2/models/{version.model}/infer"}
    several = version.declaration["task"] == "multiclass"
    expected = [[*row["scores"].values()] if several else row["score"] for row in plain]
    assert np.abs(found.scores - np.array(expected)).max() < 1e-12
    assert found.decisions == [row.get("decision") for row in plain]
    one.spoil = spoil
    apart = np.abs(ask_service(one.url, records, version).scores - found.scores).reshape(len(records), -1).max(axis=1)
    assert {*np.round(apart, 6)} == {0.0, 0.25}


def test_rows_without_their_vector_are_asked_as_records_for_tensors_have_no_place_for_them() -> None:
    contract = Contract((Column("v", "vector", size=2, nullable=True),))
    version = SimpleNamespace(model="m", request=contract, declaration={})
    client = SimpleNamespace(score=lambda part, **_: part, invoke=lambda *_, **more: 1 / 0)
    for part in ([{"v": [1.0, 2.0]}, {"v": None}], [{"v": None}]):
        assert _ask_front(client, part, "n", turn=2, version=version) == part  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        _ask_front(client, [{"v": [1.0, 2.0]}], "n", turn=2, version=version)  # type: ignore[arg-type]


def test_a_row_that_tensors_refuse_is_named_and_a_refusal_of_their_own_is_told(home) -> None:
    realtime, records = made(home, "binary")
    server = Server(realtime)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    records[2] = {**records[2], "distance": "far"}  # the third request is by tensors
    found = ask_service(server.url, records, realtime.version)
    assert "row 2, column 'distance'" in found.refused and 2 not in found.rows
    server.answer = lambda path, call: (  # type: ignore[method-assign]
        Reply(400, b'{"error": "no tensors today"}') if path.startswith("/v2") else Server.answer(server, path, call)
    )
    with pytest.raises(Exception, match="no tensors today") as told:
        ask_service(server.url, made_again(records), realtime.version)
    assert not isinstance(told.value, DeploymentError)
    server.shutdown()
    server.server_close()
    realtime.close()


def made_again(records: list[dict[str, object]]) -> list[dict[str, object]]:
    return [one for one in records if one["distance"] != "far"]


def test_the_page_says_by_which_ways_it_was_asked() -> None:
    row = {"deployment": "realtime", "verdict": "equal", "rows": 3}
    fields = {"version": "late:1f3a", "verdict": "equal", "rows": 3, "issued_at": "", "deployments": [row]}
    fields |= {"hashes": {}, "environment": {}, "name": "c1"}
    assert "/invocations and the Open Inference Protocol V2" in render_certificate(fields)
    undeclared = {**fields, "deployments": [{**row, "verdict": "not_declared", "rows": 0}]}
    assert "Inference Protocol" not in render_certificate(undeclared)
