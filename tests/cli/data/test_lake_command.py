"""`mlworkbench lake`: looking at tables, and caring for them without breaking what refers to them."""

import json
import time

import pyarrow as pa
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.evaluation.log.rows import FIELDS
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.operate.trace.lake_references import find_lake_references


@pytest.fixture
def lake(clean, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_HOME", str(clean / "home"))
    lake = Lake(Home.open().lake)
    for turn in range(4):
        lake.append("delays", pa.table({"turn": [turn] * 50}))
    return lake


def certify(version):
    folder = Home.open().model("flights") / "certificates" / "one"
    folder.mkdir(parents=True)
    (folder / "certificate.json").write_text(json.dumps({"lake": {"delays": version}}))


def test_tables_are_listed_with_version_rows_files_and_bytes(lake, facts, tell):
    (row,) = facts("lake", "list")["tables"]
    assert (row["table"], row["version"], row["rows"], row["files"]) == ("delays", 3, 200, 4)
    assert row["bytes"] == row["bytes_there"] > 0
    assert "delays" in tell("lake", "list")[1]


def test_an_empty_lake_says_so(clean, tell, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_HOME", str(clean / "home"))
    assert tell("lake", "list") == (0, "no tables; ingest some\n", "")


def test_compacting_tells_files_and_bytes_before_and_after(lake, facts):
    (done,) = facts("lake", "compact")["tables"]
    assert (done["files_before"], done["files_after"]) == (4, 1)
    assert done["bytes_after"] < done["bytes_before"]
    assert lake.read("delays").height == 200


def test_a_vacuum_keeps_what_a_certificate_refers_to(lake, facts):
    certify(1)
    facts("lake", "compact")
    asked = facts("lake", "vacuum", "--hours", "0", "--dry-run")["tables"]
    assert asked == [{"table": "delays", "lost": [2, 3], "kept": [1]}]
    (done,) = facts("lake", "vacuum", "--hours", "0", "--force")["tables"]
    assert (done["files_before"], done["files_after"]) == (5, 3)
    versions = facts("lake", "history", "delays")["versions"]
    assert [row["version"] for row in versions if row["readable"]] == [0, 1, 4, 5, 6]
    assert versions[1]["for"] == "certificate one"


def test_the_version_of_a_time_is_told(lake, facts):
    versions = facts("lake", "history", "delays")["versions"]
    assert facts("lake", "history", "delays", "--at", versions[2]["committed"])["version"] == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["compact", "--table", "delay"], "--table: the lake has no table 'delay'; did you mean 'delays'?"),
        (["vacuum", "--hours", "1"], "at least 168 hours"),
        (["history", "delay"], "not in the lake; did you mean 'delays'?"),
        (["history", "delays", "--at", "noon"], "a time with an offset; got 'noon'"),
        (["history", "delays", "--at", "2001-01-01T00:00:00Z"], "ask for a later time"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(lake, tell, words, line):
    code, out, err = tell("lake", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


def test_a_model_of_the_workbench_is_traced_and_its_lake_versions_are_kept(workbench, tell, facts):
    facts("train")
    found = facts("lake", "lineage", "--rows", "3", "--skip", "2")
    assert [row["row"] for row in found["rows"]] == [2, 3, 4]
    assert found["rows"][0]["tables"][0]["source_row"] == found["rows"][0]["position"]
    code, out, _ = tell("lake", "lineage", "--rows", "1")
    assert code == 0 and out.startswith("training row 0\n")
    code, _, err = tell("lake", "lineage", "--skip", "900000")
    assert code == 2 and "has no training rows 900000 to" in err
    assert find_lake_references(Home.open()) == {}


def log_row(model, logged_at):
    texts = dict.fromkeys(FIELDS, "") | {"model": model, "scores": "[0.5]"}
    times = {"prediction_time": logged_at, "logged_at": logged_at, "latency_us": 1, "schema_version": 3}
    return {**texts, **times, "prediction_id": str(logged_at)}


def test_closed_hours_of_every_log_are_moved_and_the_doctor_says_what_waits(clean, facts, tell, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_HOME", str(clean / "home"))
    home, now = Home.open(), time.time_ns() // 1000
    assert facts("lake", "move")["logs"] == []
    for model, days in (("cars", 9), ("bikes", 2)):
        with PredictionLog(home.log(model), own=True) as log:
            log.write([log_row(model, now - days * 86_400_000_000), log_row(model, now)])
    found = {one["check"]: one for one in facts("doctor")["findings"]}
    assert (found["log cars"]["state"], found["log bikes"]["state"]) == ("warn", "ok")
    assert "lake move" in found["log cars"]["way_out"] and "1 files" in found["log cars"]["found"]
    assert [(one["model"], one["rows"]) for one in facts("lake", "move", "--model", "cars")["logs"]] == [("cars", 1)]
    assert [one["rows"] for one in facts("lake", "move")["logs"]] == [1, 0]
    assert {one["state"] for one in facts("doctor")["findings"] if one["check"].startswith("log ")} == {"ok"}
    code, _, said = tell("lake", "move", "--model", "boats")
    assert code == 2 and "boats" in said and "bikes" in said


def test_a_damaged_log_is_a_failure_of_the_doctor_and_one_line_of_the_mover(clean, facts, tell, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_HOME", str(clean / "home"))
    path = Home.open().log("cars")
    path.parent.mkdir()
    path.write_text("these are notes, not a data base; " * 50)
    code, _, said = tell("lake", "move")
    assert code == 2 and said.count("\n") == 1 and "log.sqlite" in said
    assert tell("doctor")[0] == 1
