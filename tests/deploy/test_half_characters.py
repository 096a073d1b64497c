"""Half a character is refused at every door, as a fault of its value, and a log that holds one can still be checked."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlworkbench.contract.check import check_columns, check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.record_check import REFUSED, RowCheck
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.streaming.events import Event
from mlworkbench.deploy.streaming.scoring import sort_events
from mlworkbench.errors import ContractError, DefinitionError, IngestError, LogError
from mlworkbench.evaluation.log.label_writer import write_labels
from mlworkbench.evaluation.log.labels import evaluate_log, join_labels
from mlworkbench.evaluation.log.reader import read_labels, read_log, split_readable
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.operate.certify.served import certify_served
from mlworkbench.operate.replay.replay import replay_many
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.version.version import predict

RULE = "text in Unicode, not half a character"
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
HALVES = ["\ud800", "R\udc00", "\ude00\ud83d"]
WHOLE = ["", "R1", "Zürich", "\U0001f600"]


def kinds(**rules: object) -> Contract:
    return Contract((Column("t", "text", **rules),))


CONTRACTS = {
    "text": kinds(),
    "nullable": kinds(nullable=True),
    "open": kinds(categories=("R1",)),
    "closed": kinds(categories=("R1",), closed=True),
    "learned": kinds(categories=("R1",), learned=True),
}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
@pytest.mark.parametrize("others", [0, 2, 100])
def test_both_checkers_refuse_it_in_the_same_words(contract: Contract, others: int) -> None:
    check = RowCheck(contract)
    for text in HALVES:
        rows = [{"t": "R1"}] * others + [{"t": text}]
        _, found = check_records(rows, contract)
        array = np.array([row["t"] for row in rows], dtype=object)
        severe = [fault for fault in found if fault.severe]
        assert [(fault.row, fault.rule) for fault in severe] == [(others, RULE)]
        assert [(f.row, f.rule) for f in check_columns({"t": array}, contract) if f.severe] == [(others, RULE)]
        assert check.verdict({"t": text}) == REFUSED and check.good_columns(rows) is None
        assert "\\u" in severe[0].line() and severe[0].line().isascii()
        json.dumps(severe[0].to_dict(), ensure_ascii=False).encode()
    for text in WHOLE:
        _, found = check_records([{"t": text}], contract)
        assert (check.verdict({"t": text}) == REFUSED) == any(fault.severe for fault in found)
        assert all(fault.rule != RULE for fault in found)


def test_a_contract_a_definition_and_a_frame_hold_none() -> None:
    for declared in ({"name": "\ud800"}, {"name": "t", "categories": ("a", "\ud800")}):
        with pytest.raises(ContractError, match=RULE):
            Column(**{"kind": "category", **declared})
    from sklearn.linear_model import LinearRegression

    for field in ("owner", "description", "label"):
        with pytest.raises(DefinitionError, match=f"{field}: {RULE}; got '.udc00'"):
            told = {"name": "m", "estimator": LinearRegression(), "data": "d.csv", "label": "y", field: "\udc00"}
            ModelDefinition(**told)


def test_a_request_is_refused_and_nothing_of_it_is_logged(workshop, elsewhere: Home) -> None:
    log = PredictionLog(elsewhere.log("birds"))
    service = Realtime(workshop.open("birds"), log)
    for body in ([{**BIRD, "ring": "\ud800"}], [{**BIRD, "ring": "\udfff"}] * 6 + [{**BIRD, "island": "\udc00"}]):
        reply = service.respond(json.dumps(body).encode())
        assert reply.status == 422 and json.loads(reply.body)[-1]["faults"][0]["rule"] == RULE
    for body in (b'{"\\uDBFF": 1}', json.dumps(BIRD).encode("utf-16"), json.dumps(BIRD).encode("utf-32-le")):
        reply = service.respond(body)
        assert reply.status == 400 and len(json.loads(reply.body)["detail"].splitlines()) == 1
    assert service.respond(json.dumps(BIRD).encode("utf-8-sig")).status == 200
    service.close()
    assert read_log(elsewhere.log("birds")).height == 1


def test_events_files_and_python_refuse_it(workshop, elsewhere: Home, tmp_path: Path) -> None:
    version = workshop.open("birds")
    data = [json.dumps({**BIRD, "ring": ring}).encode() for ring in ("R1", "\ud800")]
    parts, letters = sort_events([Event(k, k, line, len(line)) for k, line in enumerate(data, start=1)], version)
    assert len(parts[0].events) == 1 and RULE in letters[0].body["reason"]
    columns = {"bill": np.array([39.1]), "island": np.array(["\udc00"], object), "ring": np.array(["R"], object)}
    with pytest.raises(ContractError, match=RULE):
        predict(version, columns, {})
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(data))
    (tmp_path / "a.csv").write_bytes(b"bill,island,ring\n39.1,Dream,R\xed\xa0\x80\n")
    broken = pa.array([b"R\xed\xa0\x80"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"bill": [39.1], "island": ["Dream"], "ring": broken}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        with pytest.raises(IngestError, match=name) as caught:
            score_file(version, tmp_path / name, home=elsewhere)
        assert "\n" not in str(caught.value)


def test_a_label_with_one_is_refused_by_row(workshop, elsewhere: Home) -> None:
    version, ready = workshop.open("birds"), {"available_at": 1, "prediction_time": 1}
    good = {**ready, "entity": {"ring": "R1"}, "value": "Adelie"}
    codes = {"value": "log.label_value", "entity": "log.text_unreadable"}
    for change in ({"value": "\ud800"}, {"entity": {"ring": "\ud800"}}):
        with pytest.raises(LogError, match="label 1: ") as caught:
            write_labels(version, [good, {**good, **change}], home=elsewhere)
        assert caught.value.code == codes[next(iter(change))]
    assert write_labels(version, [good], home=elsewhere).new == 1


@pytest.fixture
def served(workshop, elsewhere: Home) -> Home:
    log = PredictionLog(elsewhere.log("birds"))
    service = Realtime(workshop.open("birds"), log, clock=lambda: 1_400_000_000_000_000)
    assert service.respond(json.dumps([BIRD] * 6).encode()).status == 200
    service.close()
    return elsewhere


def edit(home: Home, assignment: str, row: int = 2, value: object = None) -> None:
    with sqlite3.connect(home.log("birds")) as log:
        log.execute(f"UPDATE predictions SET {assignment} WHERE rowid = {row}", [] if value is None else [value])
    log.close()


SINCE = "2014-01-01T00:00:00+00:00"
UNREADABLE = {
    "half a character": ("features = ?", json.dumps({"bill": 39.1, "island": "\ud800"})),
    "half in the entity": ("entity = ?", json.dumps({"ring": "\ud800"})),
    "torn": ("features = ?", '{"bill": 39.1'),
    "nested": ("features = ?", "[" * 100_000),
    "no utf-8": ("features = CAST(? AS TEXT)", b'{"bill": 39.1, "island": "\xff"}'),
    "no scores": ("scores = ?", "null"),
    "text for scores": ("scores = ?", '["a"]'),
    "two scores": ("scores = ?", "[0.5, 0.5]"),
    "scores torn": ("scores = ?", "[0.5"),
    "decision torn": ("decision = ?", '"Ade'),
    "a text for a number": ("features = ?", '{"bill": "long", "island": "Dream"}'),
    "a time of text": ("prediction_time = ?", "yesterday"),
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_one_unreadable_row_ends_no_check(served: Home, change: tuple[str, object]) -> None:
    edit(served, change[0], value=change[1])
    found = certify_served("birds", home=served, since=SINCE)
    (row,) = found.rows
    halved = "\\ud800" in str(change[1])
    assert found.verdict == ("equal" if halved else "refused") and row["left_out"] == int(halved)
    assert row["rows"] >= 5
    assert ("1 of 6 rows were left out" in found.remarks[0]) if halved else "\n" not in found.refusal
    verdicts = replay_many("birds", home=served).counts
    assert verdicts["equal"] == 5 and verdicts["replayed"] == 6


@pytest.mark.parametrize("name", ["half a character", "torn", "nested", "no scores", "two scores", "decision torn"])
def test_an_evaluation_counts_the_rows_that_it_cannot_read(served: Home, workshop, name: str) -> None:
    edit(served, UNREADABLE[name][0], value=UNREADABLE[name][1])
    version, log = workshop.open("birds"), read_log(served.log("birds"))
    rows, unreadable = split_readable(log)
    assert (rows.height, unreadable) == (5, 1)
    labels = [{"prediction_id": i, "value": "Adelie", "available_at": 1} for i in log["prediction_id"]]
    write_labels(version, labels, home=served)
    joined = join_labels(rows, read_labels(served.log("birds")))
    assert evaluate_log(joined, version.declaration)["accuracy"]["value"] == 1.0


def test_a_readable_log_is_left_alone(served: Home) -> None:
    log = read_log(served.log("birds"))
    rows, unreadable = split_readable(log)
    assert unreadable == 0 and rows.equals(log)
    edit(served, "features = '', request = ''")
    assert split_readable(read_log(served.log("birds")))[1] == 0
    assert pl.DataFrame.equals(*map(lambda _: split_readable(log.clear())[0], range(2)))
