"""Version 2 of the Open Inference Protocol: tensors in and out by the way of every request, equal to `/score`."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.call import Call, Reply
from mlworkbench.deploy.realtime.process import Service, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.v2 import Inference, list_outputs, read_inference, to_v2_error
from mlworkbench.deploy.tensors import decode_tensor, encode_tensor
from mlworkbench.errors import ContractError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore

ROWS: list[dict[str, Any]] = [
    {"bill": 39.1, "island": "Dream", "ring": "R1"},
    {"bill": None, "island": "Biscoe", "ring": None},
    {"bill": 0.1 + 0.2, "island": "Torgersen", "ring": "R3"},
    {"bill": 99.0, "island": "Dream", "ring": "R4"},
]
KINDS = {"bill": "FP64", "island": "BYTES", "ring": "BYTES"}
ANY = Contract(
    (
        Column("x", "number", nullable=True),
        Column("n", "integer"),
        Column("b", "boolean"),
        Column("c", "category", nullable=True),
        Column("v", "vector", size=2),
    )
)


def head_of(reply: Reply) -> int | None:
    """Bytes of JSON before binary tensors."""
    size = reply.more.get("Inference-Header-Content-Length")
    return int(size) if size else None


def tensor(name: str, values: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": KINDS.get(name, "FP64"), "data": values, **more}


def tensors(rows: list[dict[str, Any]] = ROWS) -> list[dict[str, Any]]:
    return [tensor(name, [row[name] for row in rows]) for name in KINDS]


def respond(realtime: Realtime, call: Call) -> Reply:
    reply = realtime.respond_together([call])[0]
    return to_v2_error(reply) if reply.status != 200 else reply


def infer(realtime: Realtime, body: object, name: str | None = None, **more: Any) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = respond(realtime, Call(content, name, form=Inference(**more)))
    return reply.status, dict(json.loads(reply.body[: head_of(reply)]))


def outputs(told: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one["data"] for one in told["outputs"]}


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    yield realtime
    realtime.close()


@pytest.mark.parametrize("model", ["birds", "species"])
def test_an_inference_is_answered_and_logged_as_a_score_is(workshop, elsewhere: Home, model: str) -> None:
    realtime = Realtime(workshop.open(model), PredictionLog(elsewhere.log(model)))
    plain = json.loads(realtime.respond(json.dumps(ROWS).encode(), "same").body)
    status, told = infer(realtime, {"id": "same", "inputs": tensors()})
    log = read_log(realtime.log.path)
    realtime.close()
    assert (status, told["id"], told["model_name"]) == (200, "same", model)
    assert f"{model}:{told['model_version']}" == realtime.version.version
    found = outputs(told)
    assert found["prediction_id"] == [one["prediction_id"] for one in plain]
    assert found["decision"] == [one["decision"] for one in plain]
    assert [json.loads(text) for text in found["flags"]] == [one.get("flags", []) for one in plain]
    if model == "birds":
        assert found["score"] == [one["score"] for one in plain]
    else:
        assert found["scores"] == [score for one in plain for score in one["scores"].values()]
        assert next(one["shape"] for one in told["outputs"] if one["name"] == "scores") == [4, 3]
    assert log.height == len(ROWS) and set(log["request_id"]) == {"same"}  # one name, one prediction


def binary(rows: list[dict[str, Any]], **more: Any) -> tuple[bytes, str]:
    contents = [encode_tensor(kind, [row[name] for row in rows]) for name, kind in KINDS.items()]
    inputs = [
        {"name": name, "shape": [len(rows), 1], "datatype": kind, "parameters": {"binary_data_size": len(content)}}
        for (name, kind), content in zip(KINDS.items(), contents, strict=True)
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(contents), str(len(head))


def test_bytes_in_and_out_are_equal_to_the_last_bit(birds: Realtime) -> None:
    plain = json.loads(birds.respond(json.dumps(ROWS).encode(), "same").body)
    body, length = binary(ROWS, id="same", parameters={"missing": "", "binary_data_output": True})
    reply = birds.respond_together([Call(body, form=Inference(length))])[0]
    assert reply.status == 200 and reply.media_type == "application/octet-stream"
    assert reply.headers["Inference-Header-Content-Length"] == str(head_of(reply))
    told, rest, found = json.loads(reply.body[: head_of(reply)]), reply.body[head_of(reply) :], {}
    for one in told["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found[one["name"]], rest = decode_tensor(one["name"], one["datatype"], rest[:size]), rest[size:]
    assert not rest and found["score"] == [one["score"] for one in plain]
    assert found["prediction_id"] == [one["prediction_id"] for one in plain]
    assert found["decision"] == [one["decision"] for one in plain]


def test_outputs_that_are_asked_for_come_alone_and_in_that_order(birds: Realtime) -> None:
    named = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "decision"}]
    reply = birds.respond_together(
        [Call(json.dumps({"inputs": tensors(), "outputs": named}).encode(), form=Inference())]
    )
    told = json.loads(reply[0].body[: head_of(reply[0])])
    assert [one["name"] for one in told["outputs"]] == ["score", "decision"]
    assert told["outputs"][0]["parameters"] == {"binary_data_size": 32} and "data" in told["outputs"][1]
    assert len(reply[0].body) == head_of(reply[0]) + 32


def test_all_kinds_of_column_are_read_in_both_ways() -> None:
    rows = [
        {"x": 1.5, "n": -(2**60), "b": True, "c": "UA", "v": [1.0, 2.0]},
        {"x": None, "n": 2**60, "b": False, "c": None, "v": [3.0, 4.0]},
    ]
    kinds = {"x": "FP64", "n": "INT64", "b": "BOOL", "c": "BYTES", "v": "FP64"}
    flat = {name: [row[name] for row in rows] for name in kinds}
    flat["v"] = [1.0, 2.0, 3.0, 4.0]
    shapes = {name: [2, 2] if name == "v" else [2] for name in kinds}
    told = [{"name": n, "shape": shapes[n], "datatype": kinds[n], "data": flat[n]} for n in kinds]
    assert read_inference(json.dumps({"inputs": told}).encode(), ANY)[1] == rows
    told[4]["data"] = [[1.0, 2.0], [3.0, 4.0]]
    assert read_inference(json.dumps({"inputs": told}).encode(), ANY)[1] == rows
    contents = [encode_tensor(kinds[name], flat[name]) for name in kinds]
    for one, content in zip(told, contents, strict=True):
        one.pop("data")
        one["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": told, "parameters": {"missing": ""}}).encode()
    body = head + b"".join(contents)
    assert read_inference(body, ANY, length=str(len(head)))[1] == rows


def test_missing_texts_are_what_the_request_says_and_nothing_else() -> None:
    one = {"name": "c", "shape": [3], "datatype": "BYTES", "data": ["NA", "", None]}
    plain = read_inference(json.dumps({"inputs": [one]}).encode(), ANY)[1]
    named = read_inference(json.dumps({"inputs": [one], "parameters": {"missing": "NA"}}).encode(), ANY)[1]
    assert [row["c"] for row in plain] == ["NA", "", None] and [row["c"] for row in named] == [None, "", None]


X = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
WRONG: dict[str, Any] = {
    "no object": [],
    "no json": b"{",
    "nan": b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [NaN]}]}',
    "no inputs": {"id": "a"},
    "inputs that are no list": {"inputs": X},
    "no tensors": {"inputs": []},
    "a number for a tensor": {"inputs": [3]},
    "no name": {"inputs": [{**X, "name": None}]},
    "a name twice": {"inputs": [X, X]},
    "32 bits": {"inputs": [{**X, "datatype": "FP32"}]},
    "a list for a datatype": {"inputs": [{**X, "datatype": ["FP64"]}]},
    "no datatype": {"inputs": [{"name": "x", "shape": [1], "data": [1.0]}]},
    "a text for a number": {"inputs": [{**X, "data": ["1.0"]}]},
    "a truth value for a number": {"inputs": [{**X, "data": [True]}]},
    "a fraction for a whole number": {"inputs": [{**X, "datatype": "INT64", "data": [1.5]}]},
    "a number for a text": {"inputs": [{**X, "datatype": "BYTES", "data": [1]}]},
    "an object in the data": {"inputs": [{**X, "data": [{}]}]},
    "three levels of data": {"inputs": [{**X, "data": [[[1.0]]]}]},
    "no data": {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64"}]},
    "another length": {"inputs": [{**X, "shape": [2]}]},
    "no shape": {"inputs": [{**X, "shape": None}]},
    "an empty shape": {"inputs": [{**X, "shape": []}]},
    "a shape of three": {"inputs": [{**X, "shape": [1, 1, 1]}]},
    "a negative shape": {"inputs": [{**X, "shape": [-1, -1]}]},
    "a shape of a fraction": {"inputs": [{**X, "shape": [1.0]}]},
    "a shape of a truth value": {"inputs": [{**X, "shape": [True]}]},
    "a shape beyond all": {"inputs": [{**X, "shape": [1, 10**30]}]},
    "a vector of texts": {"inputs": [{**X, "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}]},
    "many times nothing": {"inputs": [{**X, "shape": [10**12, 0], "data": []}]},
    "two lengths": {"inputs": [X, {**X, "name": "y", "shape": [2], "data": [1.0, 2.0]}]},
    "bytes that are not there": {"inputs": [{**X, "parameters": {"binary_data_size": 8}}]},
    "a size that is none": {"inputs": [{**X, "parameters": {"binary_data_size": "0"}}]},
    "a negative size": {"inputs": [{**X, "parameters": {"binary_data_size": -8}}]},
    "parameters of a tensor that are none": {"inputs": [{**X, "parameters": 3}]},
    "parameters that are none": {"inputs": [X], "parameters": [1]},
    "no rows": {"inputs": tensors([])},
    "an id of a number": {"id": 3, "inputs": tensors()},
    "an id beyond all": {"id": "x" * 200, "inputs": tensors()},
    "an unknown output": {"inputs": tensors(), "outputs": [{"name": "scroe"}]},
    "an output without a name": {"inputs": tensors(), "outputs": [{}]},
    "an output that is a text": {"inputs": tensors(), "outputs": ["score"]},
    "outputs that are no list": {"inputs": tensors(), "outputs": "score"},
    "an output by a list": {"inputs": tensors(), "outputs": [{"name": ["score"]}]},
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_another_body_is_one_line_with_status_400(birds: Realtime, body: object) -> None:
    status, told = infer(birds, body)
    assert (status, [*told]) == (400, ["error"]) and "\n" not in told["error"] and len(told["error"]) < 500
    assert not birds.log.path.exists() or read_log(birds.log.path).is_empty()


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("FP64", b"1234567", "FP64 of 8 bytes each"),
        ("INT64", b"1", "INT64 of 8 bytes each"),
        ("BOOL", b"\x02", "BOOL of 0 or 1"),
        ("BYTES", b"\x01", "end early"),
        ("BYTES", b"\xff\xff\xff\xffabc", "end early"),
        ("BYTES", b"\x01\x00\x00\x00\xff", "UTF-8"),
    ],
)
def test_bytes_that_are_no_values_are_one_line(kind: str, content: bytes, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        decode_tensor("x", kind, content)


@pytest.mark.parametrize("length", ["0", "-1", "x", "1.0", "99999", "", "²"])
def test_a_length_of_the_header_that_is_none_is_one_line(birds: Realtime, length: str) -> None:
    status, told = infer(birds, {"inputs": tensors()}, length=length)
    assert status == 400 and "Inference-Header-Content-Length" in told["error"]


def test_bytes_that_nobody_asked_for_are_refused(birds: Realtime) -> None:
    body, length = binary(ROWS[:1])
    status, told = infer(birds, body + b"more", length=length)
    assert status == 400 and "4 more" in told["error"]


def test_many_small_tensors_before_many_bytes_are_no_work(birds: Realtime) -> None:
    inputs = [
        {"name": f"x{k}", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}}
        for k in range(20_000)
    ]
    head, started = json.dumps({"inputs": inputs}).encode(), time.process_time()
    status, told = infer(birds, head + bytes(14 << 20), length=str(len(head)))
    assert status == 400 and "more" in told["error"] and time.process_time() - started < 5


@pytest.mark.parametrize("kind", ["BOOL", "INT64", "FP64", "BYTES"])
@pytest.mark.parametrize("shape", [[1], [1, 3], [1001], [1001, 1], [10**30]])
def test_rows_are_counted_before_anything_is_made_of_them(birds: Realtime, kind: str, shape: list[int]) -> None:
    one = {"name": "bill", "shape": shape, "datatype": kind, "parameters": {"binary_data_size": 8 << 20}}
    head, started = json.dumps({"inputs": [one]}).encode(), time.process_time()
    status, told = infer(birds, head + bytes(8 << 20), length=str(len(head)))
    assert status == (413 if shape[0] > 1000 else 400) and "\n" not in told["error"]
    data = {"name": "bill", "shape": shape, "datatype": "INT64", "data": [0] * 2000}
    assert infer(birds, {"inputs": [data]})[0] == status and time.process_time() - started < 0.3


def test_one_bad_row_refuses_all_in_the_words_of_the_contract(birds: Realtime) -> None:
    bad = [ROWS[0], {**ROWS[0], "bill": 391.0}]
    plain = json.loads(birds.respond(json.dumps(bad).encode(), partial="false").body)
    status, told = infer(birds, {"inputs": tensors(bad)})
    assert (status, told["error"]) == (422, plain["detail"])
    status, told = infer(birds, {"inputs": tensors()[:1]})
    assert status == 422 and "island" in told["error"]
    assert infer(birds, {"inputs": tensors(ROWS[:1] * 1001)})[0] == 413
    assert not birds.log.path.exists() or read_log(birds.log.path).is_empty()


def test_infinity_in_bytes_is_judged_by_the_contract(birds: Realtime) -> None:
    body, length = binary([{**ROWS[0], "bill": float("inf")}])
    status, told = infer(birds, body, length=length)
    assert status == 422 and "bill" in told["error"]


def test_the_id_in_the_body_goes_before_the_header_and_two_rows_of_one_id_are_409(birds: Realtime) -> None:
    assert infer(birds, {"id": "mine", "inputs": tensors()}, "header")[1]["id"] == "mine"
    assert infer(birds, {"inputs": tensors()}, "header")[1]["id"] == "header"
    for nothing in (None, ""):  # is none, and a second try of a proxy is one
        sent = [infer(birds, {"id": nothing, "inputs": tensors()}, f"retry{nothing}") for _ in range(2)]
        assert sent[0] == sent[1] and sent[0][1]["id"] == f"retry{nothing}"
    assert read_log(birds.log.path).height == 4 * len(ROWS)
    status, told = infer(birds, {"id": "mine", "inputs": tensors(ROWS[::-1])})
    assert status == 409 and "'mine'" in told["error"]
    assert len(infer(birds, {"inputs": tensors()})[1]["id"]) == 32


def test_a_model_with_times_views_and_truth_values_is_asked_by_tensors_too(workshop, elsewhere: Home) -> None:
    store = OnlineStore(workshop.home.online, read_only=True)
    realtime = Realtime(workshop.open("delays"), PredictionLog(elsewhere.log("delays")), store=store)
    records = [{**row, "asked": row["asked"].isoformat()} for row in workshop.trips(6).to_dicts()]
    plain = json.loads(realtime.respond(json.dumps(records).encode(), "same").body)
    kinds = {"trip": "BYTES", "origin": "BYTES", "asked": "BYTES", "distance": "FP64"}
    inputs = [{**tensor(name, [row[name] for row in records]), "datatype": kinds[name]} for name in kinds]
    status, told = infer(realtime, {"id": "same", "inputs": inputs})
    contents = [encode_tensor(kinds[name], [row[name] for row in records]) for name in kinds]
    for one, content in zip(inputs, contents, strict=True):
        one.pop("data")
        one["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"id": "same", "inputs": inputs, "outputs": [{"name": "decision"}]}).encode()
    packed = infer(realtime, head + b"".join(contents), length=str(len(head)))[1]
    realtime.close()
    assert status == 200 and outputs(told)["score"] == [one["score"] for one in plain]
    assert outputs(told)["decision"] == outputs(packed)["decision"] == [one["decision"] for one in plain]
    assert {one["datatype"] for one in told["outputs"] if one["name"] == "decision"} == {"BOOL"}


@pytest.mark.parametrize(
    ("classes", "kind"), [([0, 1], "INT64"), ([False, True], "BOOL"), ([0.5, 1.5], "FP64"), (["a", "b"], "BYTES")]
)
def test_decisions_have_the_datatype_of_the_classes_and_the_own_key_stands_beside_them(classes, kind) -> None:
    declared = {"task": "binary", "classes": classes, "key": "order"}
    listed = {one.name: one for one in list_outputs(SimpleNamespace(declaration=declared))}  # type: ignore[arg-type]
    assert listed["decision"].datatype == kind and [*listed] == ["prediction_id", "key", "score", "decision", "flags"]
    answers = [{"decision": classes[1], "key": 7}, {"decision": classes[0], "key": None}]
    told, content = listed["decision"].write(answers, binary=True)
    assert told["parameters"] == {"binary_data_size": len(content)}
    assert decode_tensor("decision", kind, content) == [classes[1], classes[0]]
    assert listed["key"].write(answers, binary=False)[0]["data"] == ["7", None]
    assert decode_tensor("key", "BYTES", listed["key"].write(answers, binary=True)[1]) == ["7", ""]


def test_the_three_ways_in_wait_together_and_one_does_not_touch_another(birds: Realtime) -> None:
    calls = [
        Call(json.dumps(ROWS).encode(), "a"),
        Call(json.dumps({"inputs": tensors()}).encode(), "b", form=Inference()),
        Call(b"{", "c", form=Inference()),
        Call(json.dumps({"instances": ROWS}).encode(), "d", invocation=True),
        Call(json.dumps({"inputs": tensors([{**ROWS[0], "bill": 391.0}])}).encode(), "e", form=Inference()),
    ]
    replies: list[Reply] = birds.respond_together(calls)
    assert [reply.status for reply in replies] == [200, 200, 400, 200, 422]
    assert [reply.rows for reply in replies] == [4, 4, 0, 4, 1] and replies[4].refused == 1
    scores = [one["score"] for one in json.loads(replies[0].body)]
    assert outputs(json.loads(replies[1].body))["score"] == scores


ODD: list[Any] = [None, True, -1, 0, 1.5, 1e308, 2**70, "", "x", "\ud800", [], [[]], {}, {"a": []}, "FP64", "BYTES"]


def mutate(value: Any, draws: random.Random) -> Any:
    """Alter something somewhere in a body."""
    if isinstance(value, dict) and value and draws.random() < 0.9:
        name = draws.choice(list(value))
        others = {key: one for key, one in value.items() if key != name or draws.random() < 0.9}
        return {**others, **({name: mutate(value[name], draws)} if name in others else {})}
    if isinstance(value, list) and value and draws.random() < 0.9:
        place = draws.randrange(len(value))
        return [*value[:place], mutate(value[place], draws), *value[place + draws.randrange(2) :]]
    return draws.choice(ODD)


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.long)])
def test_whatever_comes_is_answered_or_refused_in_one_line(birds: Realtime, count: int) -> None:
    draws, seen = random.Random(7), set()
    packed, length = binary(ROWS[:2])
    head, rest = json.loads(packed[: int(length)]), packed[int(length) :]
    plain = {
        "id": None,
        "inputs": tensors(ROWS[:2]),
        "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
    }
    for k in range(count):
        body = mutate({**(plain if k % 2 else head), "id": f"r{k}", "parameters": {"missing": ""}}, draws)
        for _ in range(draws.randrange(3)):
            body = mutate(body, draws)
        text = json.dumps(body).encode()
        content = bytearray(text + (b"" if k % 2 else rest))
        for _ in range(draws.randrange(3) if k % 5 == 0 else 0):
            content[draws.randrange(len(content))] = draws.randrange(256)
        form = Inference(None if k % 2 else str(len(text)))
        reply = respond(birds, Call(bytes(content), form=form))
        told = json.loads(reply.body[: head_of(reply)])
        seen.add(reply.status)
        assert reply.status in (200, 400, 409, 413, 422), (body, reply)
        assert reply.status == 200 or ([*told] == ["error"] and "\n" not in told["error"] and len(told["error"]) < 1000)
    assert {200, 400, 422} <= seen


# ---------------------------------------------------------------------------------------------- over real sockets


@pytest.fixture(scope="module", params=["uvicorn", "bentoml"])
def service(workshop, request) -> Iterator[Service]:
    with start_service("birds", home=workshop.home, server=request.param) as running:
        yield running


JSON_BODY = {"Content_Type": "application/json"}


def ask(service: Service, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.mark.system
def test_a_service_answers_on_each_path_of_the_protocol(service: Service) -> None:
    version = service.version.partition(":")[2]
    here = f"/v2/models/birds/versions/{version}"
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/birds", "/v2/models/birds/ready", here]
    assert [ask(service, path)[0] for path in [*paths, f"{here}/ready"]] == [200] * 7
    told = json.loads(ask(service, "/v2/models/birds")[2])
    assert told == json.loads(ask(service, here)[2]) and told["versions"] == [version]
    assert {one["name"]: one["datatype"] for one in told["inputs"]} == KINDS
    assert {one["name"] for one in told["outputs"]} == {"prediction_id", "score", "decision", "flags"}
    assert "NaN of FP64" in told["parameters"]["missing"]
    assert json.loads(told["parameters"]["classes"]) == ["Adelie", "Gentoo"]
    assert json.loads(ask(service, "/v2")[2])["extensions"] == ["binary_tensor_data"]
    wrong = [
        "/v2/models/other",
        "/v2/models/birds/versions/0",
        "/v2/models/birds/infer",
        "/v2/nothing",
        f"/v2/{'x' * 999}",
    ]
    for path in wrong:
        status, headers, body = ask(service, path)
        assert status in (404, 405) and [*json.loads(body)] == ["error"], path
        assert headers["content-type"] == "application/json" and len(body) < 300
    posts = ["/v2/models/other/infer", "/v2/models/birds/versions/0/infer", "/v2/health/live"]
    assert [ask(service, path, b"{}")[0] for path in posts] == [404, 404, 405]


@pytest.mark.system
def test_a_service_answers_tensors_as_it_answers_records(service: Service) -> None:
    plain = json.loads(ask(service, "/score", json.dumps(ROWS).encode(), X_Request_Id="wire", **JSON_BODY)[2])
    body = json.dumps({"id": "wire", "inputs": tensors()}).encode()
    for path in ("/v2/models/birds/infer", f"/v2/models/birds/versions/{service.version.partition(':')[2]}/infer"):
        status, headers, told = ask(service, path, body)
        assert (status, headers["x-request-id"]) == (200, "wire")
        found = outputs(json.loads(told))
        assert found["score"] == [one["score"] for one in plain]
        assert found["prediction_id"] == [one["prediction_id"] for one in plain]
    body, length = binary(ROWS, parameters={"missing": "", "binary_data_output": True})
    named = {"Inference_Header_Content_Length": length, "Content_Type": "application/octet-stream"}
    status, headers, told = ask(service, "/v2/models/birds/infer", body, **named)
    head = int(headers["inference-header-content-length"])
    assert status == 200 and struct.pack("<4d", *(one["score"] for one in plain)) in told[head:]
    for more, expected in (
        ({"Content_Type": "text/csv"}, 415),
        ({"Content_Encoding": "gzip"}, 415),
        ({"Inference_Header_Content_Length": "9999999"}, 400),
    ):
        status, headers, told = ask(service, "/v2/models/birds/infer", body, **more)
        assert status == expected and [*json.loads(told)] == ["error"]
    assert ask(service, "/v2/models/birds/infer", b" " * (17 << 20))[0] == 413


@pytest.mark.system
def test_the_description_has_the_paths_and_an_example_that_works(service: Service) -> None:
    paths = json.loads(ask(service, "/openapi.json")[2])["paths"]
    version = service.version.partition(":")[2]
    for path in ("/v2/models/birds/infer", f"/v2/models/birds/versions/{version}/infer"):
        post = paths[path]["post"]
        example = post["requestBody"]["content"]["application/json"]["schema"]["example"]
        status, _, told = ask(service, path, json.dumps(example).encode())
        assert status == 200 and len(outputs(json.loads(told))["score"]) == 1
        assert {"200", "400", "409", "413", "415", "422", "503"} <= {*post["responses"]}
    for path in (path for path, methods in paths.items() if path.startswith("/v2") and "get" in methods):
        assert ask(service, path)[0] == 200


# ------------------------------------------------------------------------------------- a client that is not ours

ASK = """
import json, sys
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
address, version, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("birds") and client.is_model_ready("birds", version) and not client.is_model_ready("no")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
metadata = client.get_model_metadata("birds", version)
types = {"FP64": np.float64, "BYTES": np.object_}
def tensors(rows, binary):
    made = []
    for told in metadata["inputs"]:
        values = [row[told["name"]] for row in rows]
        column = np.array([np.nan if v is None and told["datatype"] == "FP64" else v for v in values],
                          dtype=types[told["datatype"]])
        made.append(triton.InferInput(told["name"], list(column.shape), told["datatype"]))
        made[-1].set_data_from_numpy(column, binary_data=binary)
    return made
found = {}
for name, kept, binary, asked in (
    ("bytes", rows, True, None),
    ("json", [row for row in rows if row["bill"] is not None], False,
     [triton.InferRequestedOutput(n, binary_data=False) for n in ("score", "decision", "prediction_id")]),
    ("mixed", rows, True, [triton.InferRequestedOutput("score"), triton.InferRequestedOutput("prediction_id"),
                           triton.InferRequestedOutput("decision", binary_data=False)]),
):
    more = {"model_version": version, "request_id": f"triton-{name}", "parameters": {"missing": "None"}}
    told = client.infer("birds", tensors(kept, binary), outputs=asked, **more)
    text = lambda column: [v.decode() if isinstance(v, bytes) else v for v in told.as_numpy(column)]
    found[name] = {"id": told.get_response()["id"], "score": [float(v).hex() for v in told.as_numpy("score")],
                   "decision": text("decision"), "prediction_id": text("prediction_id")}
try:
    client.infer("birds", tensors([{**rows[0], "bill": 391.0}], True))
except InferenceServerException as error:
    found["refused"] = [error.status(), error.message()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with Triton's client, without the workbench."""
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "tritonclient[http]",
    ]
    run = subprocess.run(pip, capture_output=True, text=True)
    if "No matching distribution found" in run.stderr:
        pytest.skip("there is no tritonclient to be installed from")
    assert run.returncode == 0, run.stderr
    return folder / "bin/python"


@pytest.mark.long
@pytest.mark.system
def test_tritons_client_gets_what_score_gives_bit_for_bit(service: Service, triton: Path, workshop) -> None:
    random = np.random.default_rng(5)
    islands = ["Biscoe", "Dream", "Torgersen"]
    many = [
        {"bill": float(random.uniform(30, 60)), "island": islands[int(random.integers(3))], "ring": f"R{k}"}
        for k in range(300)
    ]
    rows = [*ROWS, *many]
    words = [f"127.0.0.1:{service.port}", service.version.partition(":")[2], json.dumps(rows)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(triton.parent)}
    run = subprocess.run([triton, "-c", ASK, *words], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for name in ("bytes", "json", "mixed"):
        kept = [row for row in rows if name != "json" or row["bill"] is not None]
        plain = json.loads(
            ask(service, "/score", json.dumps(kept).encode(), X_Request_Id=f"triton-{name}", **JSON_BODY)[2]
        )
        assert found[name]["id"] == f"triton-{name}"
        assert found[name]["score"] == [float(one["score"]).hex() for one in plain]
        assert found[name]["decision"] == [one["decision"] for one in plain]
        assert found[name]["prediction_id"] == [one["prediction_id"] for one in plain]
    status, line = found["refused"]
    assert status == "422" and re.search("bill.*at most 100|from 0 to 100", line)
