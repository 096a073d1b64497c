"""The way of a request, without a server: what is answered, logged, refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.realtime.call import Call
from mlworkbench.deploy.realtime.http import HttpError, read_body
from mlworkbench.deploy.realtime.openapi import read_schemas
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.table_request import request_of_table
from mlworkbench.deploy.table_scoring import Origin, score_table
from mlworkbench.errors import DeploymentError, FeatureError, LogError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


def body(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    log = PredictionLog(elsewhere.log("birds"))
    realtime = Realtime(workshop.open("birds"), log, clock=lambda: 1_380_600_000_000_000)
    yield realtime
    realtime.close()


@pytest.fixture
def delays(workshop, tmp_path) -> Iterator[Realtime]:
    store = OnlineStore(workshop.home.online, read_only=True)
    realtime = Realtime(workshop.open("delays"), PredictionLog(tmp_path / "log.sqlite"), store=store)
    yield realtime
    realtime.close()


def test_one_record_gives_one_answer_and_a_list_gives_a_list(birds: Realtime) -> None:
    one = birds.respond(body(BIRD), "a")
    many = birds.respond(body([BIRD, BIRD]), "b")
    assert (one.status, many.status) == (200, 200)
    answer = json.loads(one.body)
    assert list(answer) == ["prediction_id", "model", "version", "score", "decision"]
    assert answer["version"] == birds.version.version and answer["decision"] in ("Adelie", "Gentoo")
    assert len({item["prediction_id"] for item in json.loads(many.body)}) == 2  # equal rows are never merged


def test_every_prediction_is_logged_before_it_is_answered(birds: Realtime) -> None:
    answers = json.loads(birds.respond(body([BIRD, {**BIRD, "ring": None}]), "order-17").body)
    log = read_log(birds.log.path)
    assert log["prediction_id"].to_list() == [answer["prediction_id"] for answer in answers]
    assert set(log["request_id"]) == {"order-17"} and set(log["deployment"]) == {"realtime"}
    assert [json.loads(text) for text in log["entity"]] == [{"ring": "R1"}, {"ring": None}]


def test_a_request_is_not_answered_when_it_cannot_be_logged(birds: Realtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(rows: object) -> int:
        raise LogError("log.sqlite: disk is full; free some space")

    monkeypatch.setattr(birds.log, "write", full)
    reply = birds.respond(body(BIRD))
    assert reply.status == 503 and "disk is full" in json.loads(reply.body)["detail"]


def test_the_score_is_that_of_the_version(birds: Realtime) -> None:
    golden = birds.version.golden
    asked = [{"ring": None, **row["request"]} for row in golden]
    got = [answer["score"] for answer in json.loads(birds.respond(body(asked)).body)]
    assert np.abs(np.array(got) - [row["score"] for row in golden]).max() <= birds.version.tolerance


WRONG = [{**BIRD, "bill": 391}, BIRD, {"bill": "39.1", "island": "dream"}]


def test_all_or_nothing_lists_every_fault_of_every_record(birds: Realtime) -> None:
    reply = birds.respond(body(WRONG), partial="false")
    told = json.loads(reply.body)
    assert (reply.status, reply.media_type) == (422, "application/problem+json")
    assert {(f["row"], f["column"]) for f in told["faults"]} == {(0, "bill"), (2, "bill"), (2, "island"), (2, "ring")}
    assert all(set(fault) >= {"row", "column", "rule", "value", "hint"} for fault in told["faults"])
    assert "(and 3 more)" in told["detail"] and told["code"] == "request.rows_refused"
    assert set(told) == {"type", "title", "status", "detail", "code", "faults"}
    assert read_log(birds.log.path).is_empty()


def test_bad_records_of_a_list_cost_themselves_alone(birds: Realtime) -> None:
    reply = birds.respond(body(WRONG), "order-17")
    told = json.loads(reply.body)
    assert (reply.status, reply.headers) == (200, {"X-Request-Id": "order-17", "X-Refused": "2"})
    assert [sorted(one) for one in (told[0], told[2])] == [["faults", "index"]] * 2
    assert [one.get("index") for one in told] == [0, None, 2]
    assert {fault["column"] for fault in told[2]["faults"]} == {"bill", "island", "ring"}
    log = read_log(birds.log.path)
    assert log["prediction_id"].to_list() == [told[1]["prediction_id"]]
    alone = json.loads(birds.respond(body([{}, BIRD]), "order-17").body)
    assert alone[1] == told[1]  # called by its place in the request, and asked again the same prediction
    assert birds.respond(body([{}, {**BIRD, "bill": 50}]), "order-17").status == 409


def test_a_single_record_and_a_list_without_a_good_one_are_422(birds: Realtime) -> None:
    one, many = birds.respond(body(WRONG[0])), birds.respond(body([WRONG[0], WRONG[2], 3]))
    assert (one.status, many.status) == (422, 422)
    assert json.loads(one.body)["faults"][0]["column"] == "bill"
    assert [told["index"] for told in json.loads(many.body)] == [0, 1, 2] and many.refused == 3
    assert birds.respond(body(BIRD), partial="maybe").status == 400
    assert read_log(birds.log.path).is_empty()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"3", 400),
        (b"[3]", 400),
        (b'{"bill": NaN, "island": "Dream", "ring": "R1"}', 400),
        (b'{"bill": 39.1, "bill": 41.0, "island": "Dream", "ring": "R1"}', 400),
        (b'{"bill": 1e999, "island": "Dream", "ring": "R1"}', 422),
        (b'{"bill": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b"\xff\xfe", 400),
        (json.dumps([BIRD] * 1001).encode(), 413),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(birds: Realtime, sent: bytes, status: int) -> None:
    reply = birds.respond(sent)
    assert reply.status == status
    told = json.loads(reply.body)
    assert "\n" not in told["detail"] and told["status"] == status
    assert read_log(birds.log.path).is_empty()


def test_a_thousand_records_are_answered(birds: Realtime) -> None:
    assert len(json.loads(birds.respond(body([BIRD] * 1000)).body)) == 1000


def test_a_request_sent_again_is_the_same_prediction(birds: Realtime) -> None:
    first, again = (birds.respond(body(BIRD), "order-17") for _ in range(2))
    assert first == again
    assert read_log(birds.log.path).height == 1


def test_a_name_used_for_another_record_is_refused(birds: Realtime) -> None:
    birds.respond(body(BIRD), "order-17")
    for other in ({**BIRD, "bill": 50.0}, {**BIRD, "ring": "R2"}):
        assert birds.respond(body(other), "order-17").status == 409
    assert read_log(birds.log.path).height == 1


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "Ä"])
def test_a_name_that_is_too_long_or_odd_is_refused(birds: Realtime, name: str) -> None:
    assert birds.respond(body(BIRD), name).status == 400


def test_views_are_looked_up_as_of_the_prediction_time(delays: Realtime) -> None:
    asked = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T18:00:00Z", "distance": 500}
    early = {**asked, "asked": "2013-09-01T00:00:00Z"}
    delays.respond(body([asked, early]), "a")
    now, before = (json.loads(text) for text in read_log(delays.log.path)["features"])
    assert now["wind"] == 12.0 and now["landed"] > 0
    assert before["wind"] is None and before["landed"] == 0 and before["delay"] is None
    assert json.loads(read_log(delays.log.path)["watermark"][0])["weather"]["lake_version"] == 0


def test_a_request_sent_again_is_answered_as_before_whatever_the_views_know_by_now(
    delays: Realtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T18:00:00Z", "distance": 500}
    first, store = delays.respond(body(asked), "r1"), delays.store
    assert store is not None
    found = store.lookup
    monkeypatch.setattr(store, "lookup", lambda *given: {**found(*given), "wind": np.array([50.0])})
    changed = json.loads(delays.respond(body(asked), "r2").body)
    again = delays.respond(body(asked), "r1")
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert changed["score"] != json.loads(first.body)["score"] and read_log(delays.log.path).height == 2
    for other in ({"distance": 501}, {"trip": "T2"}, {"asked": "2013-10-01T18:00:01Z"}):
        assert delays.respond(body({**asked, **other}), "r1").status == 409


@pytest.mark.parametrize(
    ("error", "turns"),
    [
        (FeatureError("x", code="features.store_unreachable"), [8]),
        (LogError("x", code="log.locked"), [8]),
        (FeatureError("x", code="features.store_behind"), [8, *[1] * 8]),
    ],
)
def test_a_store_or_log_that_is_away_is_waited_for_once_a_turn(birds: Realtime, monkeypatch, error, turns) -> None:
    found: list[int] = []

    def score(asked: Sequence[object]) -> None:
        found.append(len(asked))
        raise error

    monkeypatch.setattr(birds, "_score", score)
    replies = birds.respond_together([Call(body(BIRD), f"r{number}") for number in range(8)])
    assert {(one.status, one.code) for one in replies} == {(503, error.code)} and found == turns
    assert [one.request_id for one in replies] == [f"r{number}" for number in range(8)]


def test_a_vector_without_a_size_is_not_measured_by_that_of_another_caller(birds: Realtime, monkeypatch) -> None:
    sizes, score = list[int](), birds._score
    monkeypatch.setattr(birds, "_score", lambda asked: (sizes.append(len(asked)), score(asked))[1])
    calls = [Call(body(BIRD)), Call(body({**BIRD, "bill": "wrong"}))]
    birds.respond_together(calls)
    monkeypatch.setattr(birds, "_sized", {"bill"})
    assert [one.status for one in birds.respond_together(calls)] == [200, 422] and sizes == [2, 2, 1, 1]


def test_a_time_without_offset_is_refused(delays: Realtime) -> None:
    asked = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T18:00:00", "distance": 500}
    told = json.loads(delays.respond(body(asked)).body)
    assert [fault["column"] for fault in told["faults"]] == ["asked"]


def test_real_time_and_tables_give_the_same_answers(workshop, delays: Realtime, tmp_path) -> None:
    trips = workshop.trips()
    origin = Origin("one_off", [f"x:{k}" for k in range(50)])
    with PredictionLog(tmp_path / "other.sqlite") as log:
        table = score_table(delays.version, trips, lake=Lake(workshop.home.lake), log=log, origin=origin).table
    records = [{**row, "asked": row["asked"].isoformat()} for row in trips.to_dicts()]
    answers = json.loads(delays.respond(body(records), "a").body)
    assert np.abs(table["score"].to_numpy() - [a["score"] for a in answers]).max() <= delays.version.tolerance
    assert table["decision"].to_list() == [a["decision"] for a in answers]
    assert read_log(delays.log.path)["features"].to_list() == read_log(tmp_path / "other.sqlite")["features"].to_list()


def test_a_model_with_views_needs_the_store(workshop, tmp_path) -> None:
    with pytest.raises(DeploymentError, match="materialize"):
        Realtime(workshop.open("delays"), PredictionLog(tmp_path / "log.sqlite"))


def test_the_log_survives_many_writers(birds: Realtime) -> None:
    other = PredictionLog(birds.log.path)
    second = Realtime(birds.version, other)
    for _ in range(20):
        assert birds.respond(body(BIRD)).status == second.respond(body(BIRD)).status == 200
    with sqlite3.connect(birds.log.path) as connection:
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (40,)
    second.close()


@pytest.mark.parametrize("model", ["birds", "species", "delays"])
def test_the_example_of_the_documentation_is_accepted(workshop, model: str, tmp_path) -> None:
    version = workshop.open(model)
    request, answer = read_schemas(version.folder)
    store = OnlineStore(workshop.home.online, read_only=True)
    realtime = Realtime(version, PredictionLog(tmp_path / "log.sqlite"), store=store)
    reply = realtime.respond(body(request["example"]))
    assert reply.status == 200
    assert list(json.loads(reply.body)) == answer["oneOf"][0]["required"]
    realtime.close()


def test_a_table_and_a_record_become_the_same_request(workshop) -> None:
    contract = workshop.open("delays").request
    table = request_of_table(workshop.trips(), contract)
    times = pl.col("asked").dt.strftime("%Y-%m-%dT%H:%M:%S%z")
    texts = workshop.trips().with_columns(times, pl.col("distance").cast(pl.String))
    untyped = request_of_table(texts, contract, typed=False)
    assert not table.faults and not untyped.faults
    for name in contract.names:
        assert table.columns[name].dtype == untyped.columns[name].dtype
        assert np.array_equal(table.columns[name], untyped.columns[name])


def knock(sent: list[bytes], headers: dict[str, str], limit: int = 10) -> bytes | None:
    last = len(sent) - 1
    parts = iter([{"type": "http.request", "body": part, "more_body": k < last} for k, part in enumerate(sent)])

    async def receive() -> dict[str, Any]:
        return next(parts)

    headers = {"content-type": "application/json", **headers}
    return asyncio.run(read_body({k.encode(): v.encode() for k, v in headers.items()}, receive, limit=limit))


def test_a_body_in_parts_is_read_whole() -> None:
    assert knock([b'{"a"', b": 1}"], {"content-type": "application/json; charset=utf-8"}) == b'{"a": 1}'


@pytest.mark.parametrize(("sent", "headers"), [([b"x" * 6] * 2, {}), ([b"x" * 12], {"content-length": "12"})])
def test_too_much_is_refused_with_and_without_a_length(sent: list[bytes], headers: dict[str, str]) -> None:
    with pytest.raises(HttpError) as refused:
        knock(sent, headers)
    assert refused.value.status == 413


def test_a_body_that_has_come_is_taken_at_once_and_what_is_to_be_refused_is_not() -> None:
    async def receive() -> dict[str, Any]:
        raise LookupError("asked the server")

    def take(data: bytes, kind: bytes = b"application/json", **more: Any) -> bytes | None:
        came = SimpleNamespace(**{"body": bytearray(data), "more_body": False, "disconnected": False, **more})
        return asyncio.run(read_body({b"content-type": kind}, receive, limit=10, hold=held.append, came=came))

    held: list[int] = []
    assert take(b'{"a": 1}') == b'{"a": 1}' and held == [8]
    for words in ((b"",), (b"x" * 11,), (b"x", b"text/plain")):
        with pytest.raises(LookupError):
            take(*words)
    for state in ("more_body", "disconnected"):
        with pytest.raises(LookupError):
            take(b"x", **{state: True})


def test_a_body_of_nothing_is_refused() -> None:
    with pytest.raises(HttpError, match="got nothing") as refused:
        knock([b""], {})
    assert refused.value.status == 400


def test_a_caller_who_left_in_the_middle_is_not_answered() -> None:
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(parts)

    assert asyncio.run(read_body({b"content-type": b"application/json"}, receive)) is None


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/x-pickle"])
def test_other_types_are_refused(kind: str) -> None:
    with pytest.raises(HttpError, match="application/json") as refused:
        knock([b"x"], {"content-type": kind})
    assert refused.value.status == 415


def test_a_request_that_is_sent_again_to_another_worker_is_the_same_prediction(workshop, elsewhere: Home) -> None:
    version, path = workshop.open("birds"), elsewhere.log("birds")
    first, second = (Realtime(version, PredictionLog(path, own=True)) for _ in range(2))
    sent = first.respond(body([BIRD, BIRD]), "order-17")
    again = second.respond(body([BIRD, BIRD]), "order-17")
    other = second.respond(body([BIRD, {**BIRD, "bill": 50.0}]), "order-17")
    assert (sent.status, again.status, other.status) == (200, 200, 409) and sent.body == again.body
    assert second.respond(body([BIRD, BIRD, BIRD]), "order-17").status == 200
    assert sorted(file.name for file in path.parent.glob("*.sqlite")) == ["log-1.sqlite", "log-2.sqlite"]
    for worker in (first, second):
        worker.close()
    with sqlite3.connect(second.log.file) as connection:
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (1,), "what the first has is its"
    assert read_log(path).height == 3
