"""The log of refused rows, and what the reader gives of one window."""

from __future__ import annotations

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import LogError
from mlworkbench.evaluation.log.mover import describe_waiting, move_log
from mlworkbench.evaluation.log.reader import count_window, read_labelled
from mlworkbench.evaluation.log.refusals import LONGEST, RefusalLog, count_refusals, name_refusals
from mlworkbench.evaluation.log.rows import log_rows, prediction_id
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels

ASKED = ("m", "m:1", "batch")


def test_a_row_that_is_refused_twice_counts_once_and_others_by_reason(tmp_path: Path) -> None:
    log = RefusalLog(tmp_path)
    some = name_refusals(ASKED, {"a": "hour: a number", "b": "hour: a number", "c": "wind"}, {"a": 1, "b": 2, "c": 3})
    assert (log.write(some), log.write(some[:2]), log.write([])) == (3, 0, 0)
    assert some[0].prediction_id == prediction_id(*ASKED, "a"), "the id that its prediction would have had"
    assert count_refusals(tmp_path, 0, 10) == {("m:1", "batch"): {"hour: a number": 2, "wind": 1}}
    assert count_refusals(tmp_path, 2, 3) == {("m:1", "batch"): {"hour: a number": 1}}, "half-open"
    log.close()
    log.close()


def test_where_nothing_was_refused_there_is_no_file(tmp_path: Path) -> None:
    with PredictionLog(tmp_path / "log.sqlite") as log:
        refused = RefusalLog.beside(log)
    refused.close()
    assert not refused.path.exists() and count_refusals(tmp_path, 0, 10) == {}


def test_a_long_or_broken_reason_is_kept_as_text_that_can_be_read(tmp_path: Path) -> None:
    log = RefusalLog(tmp_path)
    log.write(name_refusals(ASKED, {"a": "\ud800" + "x" * 1000}, {"a": 1}))
    log.close()
    (reason,) = count_refusals(tmp_path, 0, 10)["m:1", "batch"]
    assert reason == "?" + "x" * (LONGEST - 1)


def test_many_threads_and_a_forked_child_write_one_file(tmp_path: Path) -> None:
    log = RefusalLog(tmp_path)

    def write(number: int) -> int:
        return log.write(name_refusals(ASKED, {str(number): "r"}, {str(number): 1}))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(50))) == 50
    child = os.fork()
    if child == 0:
        os._exit(0 if write(99) == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0 and write(99) == 0
    assert count_refusals(tmp_path, 0, 10) == {("m:1", "batch"): {"r": 51}}
    log.close()


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "refusals.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LogError, match="log of refused rows"):
        count_refusals(tmp_path, 0, 10)
    with pytest.raises(LogError, match="log of refused rows"):
        RefusalLog(tmp_path).write(name_refusals(ASKED, {"a": "r"}, {"a": 1}))


def fill_log(path: Path) -> list[dict]:
    answers = SimpleNamespace(
        frame=SimpleNamespace(columns={"x": np.arange(6.0)}), scores=np.arange(6) / 10, decisions=None, faults=[]
    )
    rows = log_rows(
        answers, model="m", version="m:1", scorer="reference", deployment="batch", input_ids=list("abcdef"),
        logged_at=7, prediction_times=np.arange(6) * 100, entity={"plane": np.array(list("uvwxyz"), object)},
        key=np.arange(6) + 500,
    )  # fmt: skip
    with PredictionLog(path) as log:
        log.write(rows)
    return rows


def test_a_window_counts_predictions_by_their_time_and_labels_by_when_they_were_known(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    assert count_window(path, 0, 10) == (0, 0), "nothing was ever served"
    rows = fill_log(path)
    append_labels(path, [{"model": "m", "prediction_id": rows[0]["prediction_id"], "value": 1, "available_at": 250}])
    assert [count_window(path, *window) for window in ((0, 100), (100, 301), (0, 600))] == [(1, 0), (3, 1), (6, 1)]


def test_labels_find_their_predictions_by_id_by_key_and_by_entity_whenever_these_were_made(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    rows = fill_log(path)
    append_labels(path, [
        {"model": "m", "prediction_id": rows[0]["prediction_id"], "value": 1, "available_at": 1000},
        {"model": "m", "key": "503", "value": 1, "available_at": 1000},
        {"model": "m", "entity": {"plane": "z"}, "prediction_time": 500, "value": 1, "available_at": 1000},
        {"model": "m", "key": "503", "value": 0, "available_at": 1001},
        {"model": "m", "key": "999", "value": 0, "available_at": 1001},
        {"model": "m", "prediction_id": rows[1]["prediction_id"], "value": 1, "available_at": 2000},
    ])  # fmt: skip
    found, labels = read_labelled(path, 1000, 2000)
    assert sorted(score for (score,) in found["scores"].to_list()) == [0.0, 0.3, 0.5] and labels.height == 5
    none, labels = read_labelled(path, 5000, 6000)
    assert none.height == labels.height == 0 and none.columns == found.columns and none.schema == found.schema


def test_an_id_that_stands_twice_counts_once_as_it_was_first_logged(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    rows = fill_log(path)
    earlier = [{**row, "logged_at": 5, "scores": "[0.9]"} for row in rows[:2]]
    with PredictionLog(path, own=True) as log:
        log.write(earlier)
    append_labels(path, [{"model": "m", "key": "500", "value": 1, "available_at": 250}])
    assert count_window(path, 0, 600) == (6, 1)
    found, _ = read_labelled(path, 0, 600)
    assert found["scores"].to_list() == [[0.9]] and "logged_at" not in found.columns


DAY = 24 * 3_600_000_000


def test_refusals_that_are_too_old_are_forgotten_by_when_they_were_logged(tmp_path: Path) -> None:
    log = RefusalLog(tmp_path)
    assert log.forget(timedelta(days=30), now=0) == 0 and not log.path.exists()
    log.write(name_refusals(ASKED, {name: "r" for name in "abcd"}, dict.fromkeys("abcd", 1)))
    now = time.time_ns() // 1000
    with closing(sqlite3.connect(log.path)) as file, file:
        file.execute("UPDATE refusals SET logged_at = ? WHERE rowid <= 2", [now - 40 * DAY])
    assert log.forget(timedelta(days=50), now=now + 9_000 * DAY) == 0, "a clock that is ahead deletes nothing"
    assert log.forget(timedelta(days=30), now=now) == 2
    log.close()
    assert count_refusals(tmp_path, 0, 10) == {("m:1", "batch"): {"r": 2}}


def test_a_file_of_an_older_workbench_is_brought_up_and_counts_from_then(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "refusals.sqlite")) as file, file:
        file.execute(
            "CREATE TABLE refusals (prediction_id TEXT PRIMARY KEY NOT NULL, version TEXT NOT NULL, "
            "deployment TEXT NOT NULL, moment INTEGER NOT NULL, reason TEXT NOT NULL)"
        )
        file.execute("INSERT INTO refusals VALUES ('x', 'm:1', 'batch', 3, 'r')")
    assert count_refusals(tmp_path, 0, 10) == {("m:1", "batch"): {"r": 1}}, "a reader needs no new column"
    for name in "ab":
        log = RefusalLog(tmp_path)
        assert log.write(name_refusals(ASKED, {name: "r"}, {name: 4})) == 1
        assert log.forget(timedelta(days=1), now=time.time_ns() // 1000) == 0
        log.close()
    assert count_refusals(tmp_path, 0, 10) == {("m:1", "batch"): {"r": 3}}


def test_the_mover_forgets_refusals_and_says_where_their_file_is_damaged(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    log = RefusalLog(home.model("m"))
    log.write(name_refusals(ASKED, {"a": "r", "b": "r"}, {"a": 1, "b": 1}))
    with closing(sqlite3.connect(log.path)) as file, file:
        file.execute("UPDATE refusals SET logged_at = 5 WHERE rowid = 1")
    move_log("m", home=home)
    assert count_refusals(home.model("m"), 0, 10) == {("m:1", "batch"): {"r": 1}}
    log.close()
    fill_log(home.log("m"))
    for left in log.path.parent.glob("refusals.sqlite*"):
        left.unlink()
    log.path.write_bytes(b"no database" * 100)
    with pytest.raises(LogError, match="log of refused rows"):
        move_log("m", home=home)
    assert count_window(home.log("m"), 0, 600)[0] == 6 and describe_waiting(home.log("m"))["oldest"] is None
