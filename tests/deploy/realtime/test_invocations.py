"""The drop-in routes: bodies as MLflow's server and SageMaker take them, answered by the way of every request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.http import HttpError, read_invocation
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import ContractError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog

NAMES = ["bill", "island", "ring"]
ROWS = [[39.1, "Dream", "R1"], [None, "Biscoe", None], [50.0, "Torgersen", "R3"]]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
BODIES: dict[str, dict[str, Any]] = {
    "records": {"dataframe_records": RECORDS},
    "split": {"dataframe_split": {"columns": NAMES, "data": ROWS}},
    "split in another order": {
        "dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS], "index": [7, 8, 9]}
    },
    "split without names": {"dataframe_split": {"data": ROWS}},
    "instances": {"instances": RECORDS},
    "instances without names": {"instances": ROWS},
    "inputs by column": {"inputs": {name: [record[name] for record in RECORDS] for name in NAMES}},
    "inputs by row": {"inputs": ROWS},
}
WRONG: dict[str, Any] = {
    "a list": RECORDS,
    "nothing": {},
    "two at once": {"instances": ROWS, "inputs": ROWS},
    "another word": {"rows": ROWS},
    "no list": {"instances": 3},
    "an empty list": {"instances": []},
    "numbers": {"instances": [1, 2]},
    "text for records": {"dataframe_records": "bill"},
    "a short row": {"instances": [*ROWS, [1, 2]]},
    "a short row of a split": {"dataframe_split": {"columns": NAMES, "data": [[1]]}},
    "a name twice": {"dataframe_split": {"columns": ["bill", "bill", "ring"], "data": ROWS}},
    "columns that are no names": {"dataframe_split": {"columns": [1, 2, 3], "data": ROWS}},
    "a split of a list": {"dataframe_split": ROWS},
    "a split with more": {"dataframe_split": {"columns": NAMES, "data": ROWS, "dtypes": []}},
    "columns of two lengths": {"inputs": {"bill": [1, 2], "island": ["Dream"], "ring": [None, None]}},
    "no columns": {"inputs": {}},
    "columns of single values": {"inputs": {"bill": 1, "island": "Dream", "ring": None}},
}


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    yield realtime
    realtime.close()


def invoke(realtime: Realtime, body: object, name: str | None = None) -> tuple[int, Any]:
    reply = realtime.invoke(json.dumps(body).encode(), name)
    return reply.status, json.loads(reply.body)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_all_ways_of_writing_give_the_records(body: dict[str, Any]) -> None:
    assert read_invocation(body, NAMES) == RECORDS


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_another_body_is_one_line_with_status_400(body: object, birds: Realtime) -> None:
    with pytest.raises(ContractError):
        read_invocation(body, NAMES)
    status, told = invoke(birds, body)
    assert status == told["status"] == 400 and told["code"] == "request.shape" and "\n" not in told["detail"]
    assert not birds.log.path.exists() or read_log(birds.log.path).is_empty()


def test_an_invocation_is_answered_and_logged_as_a_score_is(birds: Realtime) -> None:
    plain = json.loads(birds.respond(json.dumps(RECORDS).encode(), "same").body)
    for body in BODIES.values():
        status, told = invoke(birds, body, "same")
        assert (status, told["answers"]) == (200, plain)
        assert told["predictions"] == [answer["decision"] for answer in plain]
    assert read_log(birds.log.path).height == len(RECORDS)  # one name, one prediction


def test_one_bad_record_refuses_all_and_every_fault_is_told(birds: Realtime) -> None:
    bad = [{**RECORDS[0], "bill": 391}, RECORDS[1], {"bill": "x", "island": "Dream", "ring": None}]
    status, told = invoke(birds, {"dataframe_records": bad})
    assert (status, told["code"]) == (422, "request.rows_refused")
    assert {fault["row"] for fault in told["faults"]} == {0, 2}
    assert not birds.log.path.exists() or read_log(birds.log.path).is_empty()


def test_a_column_that_lacks_is_a_fault_and_no_missing_value(birds: Realtime) -> None:
    status, told = invoke(birds, {"dataframe_split": {"columns": ["bill", "ring"], "data": [[39.1, "R1"]]}})
    assert status == 422 and [fault["column"] for fault in told["faults"]] == ["island"]


def test_too_many_records_are_413_in_every_way_of_writing(birds: Realtime) -> None:
    many = ROWS[:1] * 1001
    for body in ({"instances": many}, {"dataframe_split": {"columns": NAMES, "data": many}}):
        assert invoke(birds, body)[0] == 413


def test_one_name_for_two_things_is_409(birds: Realtime) -> None:
    assert invoke(birds, {"instances": ROWS[:1]}, "order-1")[0] == 200
    assert invoke(birds, {"instances": ROWS[2:]}, "order-1")[0] == 409


def test_several_classes_are_told_by_their_names(workshop, elsewhere: Home) -> None:
    species = Realtime(workshop.open("species"), PredictionLog(elsewhere.log("species")))
    status, told = invoke(species, BODIES["split"])
    species.close()
    assert status == 200 and set(told["predictions"]) <= {"Adelie", "Chinstrap", "Gentoo"}
    assert {*told["answers"][0]["scores"]} == {"Adelie", "Chinstrap", "Gentoo"}


class Few(list[Any]):
    """Rows of which nothing is made."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("they were counted too late")


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": Few([{}] * 1001)},
        {"dataframe_split": {"columns": ["a"], "data": Few([[1]] * 1001)}},
        {"instances": Few([[1]] * 1001)},
        {"inputs": Few([[1]] * 1001)},
        {"inputs": {"a": Few([1] * 1001)}},
    ],
)
def test_rows_are_counted_before_anything_is_made_of_them(body: dict[str, Any]) -> None:
    with pytest.raises(HttpError, match="at most 1000 records; got 1001") as refused:
        read_invocation(body, ["a"])
    assert refused.value.status == 413
