"""Reasons of a service: with the answer where they are asked for, the same as everywhere, and nothing of them else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.call import Call
from mlworkbench.deploy.realtime.openapi import describe_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.v2 import Inference, describe_infer, describe_tensors
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.scoring.frame import FeatureFrame

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    log = PredictionLog(elsewhere.log("birds"))
    realtime = Realtime(workshop.open("birds"), log, clock=lambda: 1_380_600_000_000_000)
    yield realtime
    realtime.close()


def ask(birds: Realtime, value: object, explain: str | None = "true"):
    return birds.respond_together([Call(json.dumps(value).encode(), explain=explain)])[0]


def test_reasons_come_with_the_answer_and_add_up_to_the_margin(birds: Realtime) -> None:
    told = json.loads(ask(birds, [BIRD, {**BIRD, "bill": 48.0}]).body)
    for answer in told:
        found = answer["explanation"]
        assert {one["column"] for one in found["reasons"]} == {*birds.version.frame.names}
        total = found["base"] + sum(one["contribution"] for one in found["reasons"])
        assert abs(total - found["margin"]) < 1e-9 and found["kind"] in ("exact", "sampled")
        assert found["of"] == birds.version.declaration["positive"]
    assert told[0]["explanation"] != told[1]["explanation"]


def test_without_being_asked_nothing_is_told_and_nothing_is_opened(birds: Realtime) -> None:
    for explain in (None, "false"):
        assert "explanation" not in json.loads(ask(birds, BIRD, explain).body)
    assert "reasons" not in vars(birds.version)


def test_golden_rows_have_the_reasons_of_the_version(birds: Realtime) -> None:
    golden = birds.version.golden[:5]
    frame = FeatureFrame.from_rows([row["frame"] for row in golden], birds.version.frame)
    expected = birds.version.reasons.explain(frame, birds.version.score(frame))
    asked = [{"ring": None, **row["request"]} for row in golden]
    assert [answer["explanation"] for answer in json.loads(ask(birds, asked).body)] == expected


def test_of_calls_that_wait_together_each_gets_what_it_asked_for(birds: Realtime) -> None:
    body = json.dumps([{**BIRD, "bill": 391}, BIRD]).encode()
    replies = birds.respond_together([Call(body), Call(body, explain="true"), Call(body, explain="0")])
    told = [json.loads(reply.body) for reply in replies]
    assert [["explanation" in answer for answer in one] for one in told] == [[False] * 2, [False, True], [False] * 2]


def test_a_wrong_or_too_large_wish_is_refused(birds: Realtime) -> None:
    assert (ask(birds, BIRD, "maybe").status, ask(birds, [BIRD] * 101).status) == (400, 413)
    assert json.loads(ask(birds, [BIRD] * 101).body)["code"] == "request.explain"


def test_a_version_made_before_says_so_and_predicts(birds: Realtime) -> None:
    (birds.version.folder / "reasons.json").rename(birds.version.folder / "gone.json")
    try:
        answer = json.loads(ask(birds, BIRD).body)
    finally:
        (birds.version.folder / "gone.json").rename(birds.version.folder / "reasons.json")
    assert answer["explanation"]["kind"] == "none" and "made before" in answer["explanation"]["why"]
    assert 0.0 <= answer["score"] <= 1.0


def test_reasons_are_not_logged(birds: Realtime) -> None:
    ask(birds, BIRD)
    assert "contribution" not in str(read_log(birds.log.path).to_dicts())


def test_the_application_reads_the_parameter(birds: Realtime) -> None:
    sent, body = [], json.dumps(BIRD).encode()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event) -> None:
        sent.append(event)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/score", "headers": headers, "query_string": b"explain=true"}
    asyncio.run(Application(birds)({**scope, "client": ("127.0.0.1", 1)}, receive, send))
    assert sent[0]["status"] == 200 and b'"explanation"' in sent[1]["body"]
    described = describe_service(birds.version.folder)["paths"]["/score"]["post"]
    assert "explain" in {one["name"] for one in described["parameters"]}


def explain_by(birds: Realtime, records: list[dict], how: str) -> list[dict]:
    """Ask for reasons in one of the ways that other protocols have."""
    tensors = [
        {"name": "bill", "datatype": "FP64", "shape": [len(records)], "data": [one["bill"] for one in records]},
        {"name": "island", "datatype": "BYTES", "shape": [len(records)], "data": [one["island"] for one in records]},
        {"name": "ring", "datatype": "BYTES", "shape": [len(records)], "data": [one["ring"] for one in records]},
    ]
    bodies = {
        "invocations, query": {"dataframe_records": records},
        "invocations, params": {"dataframe_records": records, "params": {"explain": True}},
        "tensors, query": {"inputs": tensors},
        "tensors, parameters": {"inputs": tensors, "parameters": {"explain": True}},
        "tensors, output": {"inputs": tensors, "outputs": [{"name": "explanation"}]},
    }
    asked = "true" if how.endswith("query") else None
    form = Inference() if how.startswith("tensors") else None
    call = Call(json.dumps(bodies[how]).encode(), explain=asked, invocation=form is None, form=form)
    assert call.may_explain
    told = json.loads(birds.respond_together([call])[0].body)
    if form is None:
        return [one["explanation"] for one in told["answers"]]
    return [json.loads(text) for one in told["outputs"] if one["name"] == "explanation" for text in one["data"]]


WAYS = ["invocations, query", "invocations, params", "tensors, query", "tensors, parameters", "tensors, output"]


@pytest.mark.parametrize("how", WAYS)
def test_other_protocols_tell_the_reasons_that_score_tells(birds: Realtime, how: str) -> None:
    records = [BIRD, {**BIRD, "bill": 48.0, "island": "Biscoe"}]
    expected = [one["explanation"] for one in json.loads(ask(birds, records).body)]
    assert explain_by(birds, records, how) == expected and expected[0]["reasons"]


def test_other_protocols_tell_none_where_nobody_asks_and_state_how_to_ask(birds: Realtime) -> None:
    inputs = [
        {"name": "bill", "datatype": "FP64", "shape": [1], "data": [39.1]},
        {"name": "island", "datatype": "BYTES", "shape": [1], "data": ["Dream"]},
        {"name": "ring", "datatype": "BYTES", "shape": [1], "data": ["R1"]},
    ]
    call = Call(json.dumps({"inputs": inputs}).encode(), form=Inference())
    told = json.loads(birds.respond_together([call])[0].body)
    assert "explanation" not in {one["name"] for one in told["outputs"]} and not call.may_explain
    assert "explanation" not in json.loads(birds.invoke(json.dumps({"instances": [BIRD]}).encode()).body)["answers"][0]
    assert "explanation" in describe_tensors(birds.version)["parameters"]["explain"]
    paths = describe_service(birds.version.folder, describe_infer(birds.version, BIRD))["paths"]
    for path in ("/invocations", f"/v2/models/{birds.version.model}/infer"):
        assert "explain" in {one["name"] for one in paths[path]["post"]["parameters"]}


@pytest.mark.parametrize(
    ("params", "code"),
    [({"explain": "yes"}, "request.explain"), ({"temperature": 1}, "request.shape"), (["explain"], "request.shape")],
)
def test_params_that_are_none_are_refused_by_name(birds: Realtime, params: object, code: str) -> None:
    reply = birds.invoke(json.dumps({"instances": [BIRD], "params": params}).encode())
    assert (reply.status, json.loads(reply.body)["code"]) == (400, code)
    reply = birds.invoke(json.dumps({"instances": [BIRD] * 101, "params": {"explain": True}}).encode())
    assert (reply.status, json.loads(reply.body)["code"]) == (413, "request.explain")
