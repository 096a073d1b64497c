"""The mover and the readers of the log: each row exactly once, through kills, restored copies, shared tables."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.lake.maintenance import vacuum
from mlworkbench.errors import LogError, SettingsError, WorkbenchError
from mlworkbench.evaluation.log import mover
from mlworkbench.evaluation.log.moved import list_log_tables
from mlworkbench.evaluation.log.mover import HOUR, describe_waiting, move_log, tend_log
from mlworkbench.evaluation.log.parts import find_conflicts
from mlworkbench.evaluation.log.reader import (
    count_unpredicted,
    find_predictions,
    list_logs,
    list_watermarks,
    read_call,
    read_labels,
    read_log,
    read_log_parts,
    read_unmoved,
    split_readable,
)
from mlworkbench.evaluation.log.rows import input_identities, log_rows
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels, list_log_files

NOW = int(time.time() // 3600) * HOUR
DAY = 24 * HOUR
OLD, FRESH = NOW - 2 * DAY, NOW - HOUR


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def make_rows(count=3, *, source="s", at=OLD, wind=None, **context):
    winds = np.arange(count, dtype=float) if wind is None else np.full(count, wind)
    columns = {"wind": winds, "carrier": np.array(["UA"] * count, dtype=object)}
    scores = np.column_stack([np.linspace(0, 1, count), np.full(count, 1 / 3)])
    decisions = np.array(["late", "Zürich"] * count, dtype=object)[:count]
    answers = SimpleNamespace(frame=SimpleNamespace(columns=columns), scores=scores, decisions=decisions, faults=[])
    whole = {"model": "m", "version": "m:v1", "scorer": "reference", "deployment": "batch", "logged_at": at}
    return log_rows(answers, **{**whole, "input_ids": input_identities(source, count), **context})


def write(home, rows, **options):
    with PredictionLog(home.log("m"), **options) as log:
        return log.write(rows)


def move(home, now=NOW):
    return move_log("m", home=home, now=now)


def in_table(home):
    """Count the rows that lie in the table, equal ids included."""
    lake = list_log_tables(home.log("m"))[0].lake
    return lake.read("log").height if lake.exists("log") else 0


def in_files(home):
    return sum(count(file) for file in list_log_files(home.log("m")))


def count(file):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT count(*) FROM predictions").fetchone()[0]


def test_what_was_moved_reads_as_it_was_written(home):
    key, entity = np.array(["Zürich", "b", "c"], dtype=object), {"id": np.array([1, 2, 3])}
    write(home, make_rows(3, key=key, entity=entity, watermark={"w": 3}, prediction_times=np.array([5, 6, 7])))
    write(home, make_rows(2, source="fresh", at=FRESH, watermark={"w": 4}))
    before, marks = read_log(home.log("m")), sorted(list_watermarks(home.log("m")))
    done = move(home)
    assert (done.rows, in_table(home), in_files(home)) == (3, 3, 2)
    after = read_log(home.log("m"))
    assert after.equals(before) and after.schema == before.schema
    assert sorted(list_watermarks(home.log("m"))) == marks
    assert read_unmoved(home.log("m")).height == 2
    assert split_readable(after)[1] == 0


def test_every_reader_finds_moved_rows_as_before(home):
    rows = make_rows(4, request_id="run 1", prediction_times=np.arange(4) * HOUR, entity={"id": np.arange(4)})
    write(home, [*rows, *make_rows(3, source="other", at=FRESH, version="m:v2", deployment="realtime")])
    path, label = home.log("m"), {"model": "m", "value": 1, "available_at": 1}
    labels = [{**label, "prediction_id": rows[0]["prediction_id"]}, {**label, "prediction_id": "nobody"}]
    labels += [{**label, "entity": {"id": 2}, "prediction_time": 2 * HOUR}, {**label, "key": "nobody's"}]

    def ask():
        ids = [rows[0]["prediction_id"], rows[2]["prediction_id"][:9], "0" * 32]
        return [
            read_log(path, start=HOUR, end=3 * HOUR),
            read_log(path, deployment="realtime"),
            read_log(path, version="m:v1"),
            find_predictions(path, ids).sort("prediction_id"),
            read_call(path, version="m:v1", request_id="run 1", logged_at=OLD),
            pl.concat(read_log_parts(path, fields=["scores", "version"])).sort("version", "scores"),
            pl.DataFrame({"unpredicted": [count_unpredicted(path, labels)]}),
        ]

    before = ask()
    move(home)
    assert in_table(home) == 4
    assert [one.height for one in before] == [2, 3, 4, 2, 4, 7, 1]
    assert all(one.equals(other) for one, other in zip(before, ask(), strict=True))
    assert before[-1].item() == 2


def test_an_hour_that_is_not_closed_stays(home):
    write(home, [*make_rows(2, at=NOW - DAY), *make_rows(2, source="t", at=NOW - DAY - 1)])
    assert move(home).rows == 2 and in_files(home) == 2
    assert move(home, now=NOW + HOUR - 1).rows == 0
    assert move(home, now=NOW + HOUR).rows == 2 and in_files(home) == 0


def test_a_day_of_logging_is_a_partition_whatever_day_was_asked_for(home):
    for day in range(3):
        write(home, make_rows(2, source=str(day), at=OLD - day * DAY, prediction_times=np.array([5, 9 * DAY])))
    move(home)
    days = sorted(part["day"] for part in list_log_tables(home.log("m"))[0].open().partitions())
    assert len(days) == 3 and days == sorted({str(day) for day in read_log(home.log("m"))["logged_at"].dt.date()})


def test_files_of_all_workers_are_moved_and_give_their_space_back(home):
    for source in "abc":
        with PredictionLog(home.log("m"), own=True) as log:
            log.write(make_rows(2_000, source=source))
    with PredictionLog(home.log("m"), own=True) as one, PredictionLog(home.log("m"), own=True) as other:
        one.write(make_rows(2_000, source="d"))
        other.write(make_rows(2_000, source="e"))
        size = describe_waiting(home.log("m"))["bytes"]
        assert move(home).rows == 10_000 and [file.name for file in list_log_files(home.log("m"))] == [
            "log-1.sqlite",
            "log-2.sqlite",
        ]
        assert describe_waiting(home.log("m"))["bytes"] < size / 20
        assert one.write(make_rows(1, source="f", at=FRESH)) == 1, "a worker writes on"
    assert read_log(home.log("m")).height == 10_001 and not home.log("m").exists()
    assert read_labels(home.log("m")).is_empty() and list(list_logs(home)) == ["m"]


def test_a_move_is_made_in_commits_of_bounded_size(home, monkeypatch):
    monkeypatch.setattr(mover, "COMMIT_ROWS", 40)
    monkeypatch.setattr(mover, "_DELETED", 7)
    write(home, [row for k in range(10) for row in make_rows(10, source=str(k), at=OLD if k % 3 else FRESH)])
    before = read_log(home.log("m"))
    assert move(home).rows == 60 and in_table(home) == 60 and in_files(home) == 40
    assert list_log_tables(home.log("m"))[0].open().version() == 1
    assert read_log(home.log("m")).sort("prediction_id").equals(before.sort("prediction_id"))


STEPS = ("_append", "_delete", "sync", "_shrink")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_mover_that_ends_anywhere_is_completed_by_the_next(home, monkeypatch, step, before):
    monkeypatch.setattr(mover, "COMMIT_ROWS", 10)
    write(home, make_rows(25))
    rows = read_log(home.log("m")).sort("prediction_id")
    place = os if step == "sync" else mover
    real = getattr(place, step)

    def fail(*arguments):
        if not before:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, step, fail)
        with pytest.raises(KeyboardInterrupt):
            move(home)
    assert read_log(home.log("m")).sort("prediction_id").equals(rows), "a reader sees each row once"
    write(home, make_rows(2, source="late", at=OLD - DAY))  # a device's, logged long ago
    move(home)
    assert (in_table(home), in_files(home)) == (27, 0)


def test_a_mover_that_ends_while_it_deletes_loses_no_late_row(home, monkeypatch):
    monkeypatch.setattr(mover, "_DELETED", 3)
    write(home, make_rows(10))
    real, calls = mover.transaction, []

    def stop(connection):
        calls.append(1)
        if len(calls) == 4:  # the note, two portions
            raise KeyboardInterrupt
        return real(connection)

    with monkeypatch.context() as patch:
        patch.setattr(mover, "transaction", stop)
        with pytest.raises(KeyboardInterrupt):
            move(home)
    assert in_files(home) == 4 and in_table(home) == 10
    write(home, make_rows(5, source="late", at=OLD - DAY))
    assert read_log(home.log("m")).height == 15
    move(home)
    assert (in_table(home), in_files(home)) == (15, 0)


def test_a_file_that_is_restored_from_an_old_copy_loses_nothing(home, tmp_path):
    write(home, make_rows(10))
    home.log("m").parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home.log("m"))) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path / 'copy'}'")
    move(home)
    write(home, make_rows(4, source="lost"))
    move(home)
    home.log("m").unlink()
    shutil.copy(tmp_path / "copy", home.log("m"))
    write(home, make_rows(5, source="new"))
    move(home)
    assert in_files(home) == 0 and read_log(home.log("m")).height == 10 + 4 + 5
    assert in_table(home) == 10 + 4 + 15, "the copy's rows stand twice in the table, and count once"


def test_a_file_of_the_first_schema_is_moved_like_any(home):
    home.log("m").parent.mkdir()
    with closing(sqlite3.connect(home.log("m"))) as connection, connection:
        connection.execute(
            "CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY NOT NULL, request_id TEXT NOT NULL, model TEXT "
            "NOT NULL, version TEXT NOT NULL, scorer TEXT NOT NULL, deployment TEXT NOT NULL, role TEXT NOT NULL, "
            "entity TEXT NOT NULL, prediction_time INTEGER NOT NULL, logged_at INTEGER NOT NULL, watermark TEXT NOT "
            "NULL, scores TEXT NOT NULL, decision TEXT NOT NULL, latency_us INTEGER NOT NULL, features TEXT NOT NULL, "
            "faults TEXT NOT NULL, schema_version INTEGER NOT NULL)"
        )
        values = ("1", "", "m", "m:1", "reference", "batch", "served", "{}", 5, OLD)
        values = (*values, "null", "[0.5]", "1", 3, "{}", "[]", 1)
        connection.execute(f"INSERT INTO predictions VALUES ({', '.join('?' * len(values))})", values)
        connection.execute("PRAGMA user_version=1")
    before = read_log(home.log("m"))
    assert move(home).rows == 1 and in_files(home) == 0
    assert read_log(home.log("m")).equals(before)


def test_rows_that_cannot_be_read_are_moved_and_stay_unreadable_one_by_one(home):
    key = np.array(["Zürich"] * 4, dtype=object)
    write(home, make_rows(4, key=key))
    with closing(sqlite3.connect(home.log("m"))) as connection, connection:
        connection.execute("UPDATE predictions SET features = CAST(x'7bff7d' AS TEXT) WHERE rowid = 2")
        connection.execute("UPDATE predictions SET scores = 'no scores' WHERE rowid = 3")
        connection.execute("UPDATE predictions SET decision = 'no JSON' WHERE rowid = 4")
    before = read_log(home.log("m"))
    move(home)
    after = read_log(home.log("m"))
    assert after.equals(before) and split_readable(after)[1] == 3
    assert after["key"].to_list() == ["Zürich"] * 4


def test_equal_ids_count_once_and_the_first_is_the_one(home):
    write(home, make_rows(6)[:5])
    move(home)
    write(home, make_rows(6, at=FRESH, request_id="again"))
    log = read_log(home.log("m"))
    assert log.height == 6 and log["request_id"].to_list() == [""] * 5 + ["again"]
    assert find_conflicts(home.log("m")).is_empty()
    move(home, now=NOW + 2 * DAY)
    assert in_table(home) == 11 and read_log(home.log("m")).height == 6


@pytest.mark.parametrize(
    "change",
    [
        {"features": '{"wind":9.0}'},
        {"entity": '{"id":2}'},
        {"key": "b"},
        {"decision": '"early"'},
        {"version": "m:v2"},
        {"scores": "[0.0,0.33334]"},
        {"scores": "[0.0]"},
        {"scores": "[null,0.3333333333333333]"},
    ],
    ids=lambda change: next(iter(change.items())),
)
def test_ids_that_tell_two_things_are_named(home, change):
    [row, other] = make_rows(2)
    write(home, [row, other])
    write(home, [{**row, **change, "logged_at": FRESH}, {**other, "logged_at": FRESH, "latency_us": 5}], own=True)
    found = find_conflicts(home.log("m"))
    assert found["prediction_id"].to_list() == [row["prediction_id"]] * 2
    assert found["logged_at"].is_sorted()
    assert row["prediction_id"] in " ".join(tend_log("m", home=home))
    assert other["prediction_id"] not in " ".join(tend_log("m", home=home))


def test_a_score_that_a_batch_rounds_otherwise_is_the_same_prediction(home):
    [row] = make_rows(1)
    write(home, [row])
    write(home, [{**row, "scores": json.dumps([1e-12, 1 / 3 + 2e-16])}], own=True)
    assert find_conflicts(home.log("m")).is_empty() and tend_log("m", home=home) == []


def write_on_days(home, ages):
    """Write two rows on each day, and move them as a mover does that comes every day."""
    moved = []
    for age in ages:
        write(home, make_rows(2, source=str(age), at=NOW - age * DAY))
        moved.append(move(home, now=NOW - (age - 2) * DAY))
    return moved


def read_ages(home):
    return sorted({(NOW - at) // DAY for at in read_log(home.log("m"))["logged_at"].cast(pl.Int64)})


def test_days_that_are_too_old_are_dropped_whole_and_their_files_go(home, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "30 days")
    append_labels(home.log("m"), [{"model": "m", "prediction_id": "x", "value": 1, "available_at": 1}])
    moved = write_on_days(home, (47, 39, 38, 37, 8, 7, 6, 5, 4, 3, 2))
    assert [len(done.dropped) for done in moved] == [0] * 10 + [2], "it counts back from the seventh newest day"
    assert read_ages(home) == [2, 3, 4, 5, 6, 7, 8, 37, 38]
    assert read_labels(home.log("m")).height == 1
    table = list_log_tables(home.log("m"))[0]
    assert len(table.lake.place.files("log")) == 11, "whoever reads them is not disturbed"
    monkeypatch.setattr(mover, "vacuum", partial(vacuum, hours=0, force=True))
    assert move(home).dropped == ()
    assert len(table.lake.place.files("log")) == 9


@pytest.mark.parametrize("days", [3, 12], ids=["few days", "many days"])
def test_a_clock_that_was_wrong_deletes_nothing(home, monkeypatch, days):
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "30 days")
    ages = list(range(days + 1, 1, -1))
    write_on_days(home, ages)
    write(home, make_rows(1, source="ahead", at=NOW + 800 * DAY))
    assert move(home).rows == 0, "what is of the future waits"
    assert move(home, now=NOW + 802 * DAY).rows == 1
    assert move(home, now=NOW + 9_000 * DAY).dropped == move(home).dropped == ()
    assert read_ages(home) == [-800, *ages[::-1]]


EARLY = {"1970": 0, "500 days": NOW - 500 * DAY, "year 1": -62_135_596_800_000_000}


@pytest.mark.parametrize("at", EARLY.values(), ids=EARLY)
def test_rows_that_say_they_were_logged_long_ago_are_kept_as_long_as_their_neighbours(home, monkeypatch, at):
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "30 days")
    write_on_days(home, range(9, 1, -1))
    write(home, make_rows(2, source="late", at=at))
    done = move(home)
    assert (done.rows, done.dropped) == (2, ())
    log = read_log(home.log("m"))
    assert log.height == 18 and log["logged_at"].cast(pl.Int64)[0] == at, "what they say stays as it was"


def test_a_table_with_days_of_the_year_1_loses_them_and_no_other(home):
    lake = list_log_tables(home.log("m"))[0].lake
    for k, day in enumerate(["0001-01-01", "0001-01-02", *(f"2020-01-0{k}" for k in range(1, 8))]):
        lake.append("log", pl.DataFrame({"prediction_id": [str(k)], "day": [day]}).to_arrow())
    assert move(home).dropped == ("0001-01-01", "0001-01-02") and move(home).dropped == ()


def test_a_row_of_the_future_makes_no_empty_transactions(home, monkeypatch):
    write(home, make_rows(1, source="ahead", at=NOW + 800 * DAY))
    monkeypatch.setattr(mover, "_DELETED", 5)
    for turn in range(2):
        write(home, [*make_rows(40, source=f"open {turn}", at=FRESH), *make_rows(12, source=str(turn))])
    real, calls = mover.transaction, []
    monkeypatch.setattr(mover, "transaction", lambda connection: calls.append(1) or real(connection))
    assert move(home).rows == 24 and in_files(home) == 81
    assert len(calls) <= 1 + 6 + 1, "the note, the portions that hold rows, the last with the note"


def test_a_table_whose_first_commit_was_killed_is_none_yet(home):
    write(home, make_rows(2))
    (home.model("m") / "log" / "_delta_log").mkdir(parents=True)
    assert read_log(home.log("m")).height == 2
    home.log("m").rename(home.path / "away")
    assert list_logs(home) == {}
    (home.path / "away").rename(home.log("m"))
    assert move(home).rows == 2 and read_log(home.log("m")).height == 2


def test_a_damaged_file_of_a_worker_stops_no_other(home):
    for source in "abc":
        write(home, make_rows(2, source=source), own=True)
    with PredictionLog(home.log("m"), own=True) as one, PredictionLog(home.log("m"), own=True) as other:
        first, last = one.file, other.file
        other.write(make_rows(4, source="d"))
    first.write_bytes(b"not a database at all" * 100)
    with pytest.raises(LogError, match=first.name) as failed:
        move(home)
    assert "damaged" in str(failed.value) and (in_table(home), count(last)) == (4, 0)


WRONG = [("KEEP", "0 days"), ("KEEP", "forever"), ("TO", "s3://key:secret@b/f"), ("TO", "x")]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_a_wrong_setting_is_refused_in_one_line(home, monkeypatch, key, value):
    write(home, make_rows(1))
    monkeypatch.setenv(f"MLWORKBENCH_LOG_{key}", value)
    with pytest.raises(SettingsError) as refused:
        move(home)
    assert f"MLWORKBENCH_LOG_{key}" in str(refused.value) and "secret" not in str(refused.value)


def test_two_movers_take_turns(home):
    write(home, make_rows(2))
    with home.lock("log/m"):
        with pytest.raises(SettingsError) as busy:
            move(home)
        assert busy.value.code == "settings.locked" and busy.value.exit_code == 75
        assert tend_log("m", home=home) == []
    assert move(home).rows == 2


def test_a_place_that_cannot_be_reached_keeps_the_rows_and_is_one_line(home, monkeypatch):
    write(home, make_rows(2))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "r", "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", "s3://nowhere/logs")
    with pytest.raises(WorkbenchError) as failed:
        move(home)
    assert "\n" not in str(failed.value) and in_files(home) == 2


def test_a_log_that_is_not_there_is_refused_by_readers_and_nothing_to_a_mover(home):
    with pytest.raises(LogError, match="score something first") as refused:
        read_log(home.log("m"))
    assert refused.value.code == "log.not_found"
    assert move(home).rows == 0 and list_logs(home) == {}


def test_services_with_homes_of_their_own_share_one_table(tmp_path, s3, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", s3.url("logs"))
    one, other = Home.open(tmp_path / "one"), Home.open(tmp_path / "other")
    write(one, make_rows(3, source="one"))
    write(other, [*make_rows(4, source="other"), *make_rows(1, source="one")], own=True)
    write(one, make_rows(2, source="fresh", at=FRESH))
    with ThreadPoolExecutor(2) as pool:
        assert [done.rows for done in pool.map(move, (one, other))] == [3, 5], "each makes the table, or finds it"
    assert move(one).place == s3.url("logs/m")
    assert read_log(one.log("m")).height == 3 + 4 + 2 and read_log(other.log("m")).height == 3 + 4
    assert read_log(one.log("m"), start=OLD, end=OLD + 1).height == 7
    assert find_conflicts(other.log("m")).is_empty()
    assert read_unmoved(one.log("m")).height == 2
    shutil.rmtree(other.path)
    assert read_log(Home.open(tmp_path / "third").log("m")).height == 7


def test_rows_moved_at_home_are_read_after_the_place_was_changed(home, s3, monkeypatch):
    write(home, make_rows(3))
    move(home)
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", s3.url("logs"))
    write(home, make_rows(2, source="later"))
    assert move(home).rows == 2 and read_log(home.log("m")).height == 5


def test_a_year_of_days_is_read_by_the_files_of_the_days_asked_for(home, monkeypatch):
    for day in range(20):
        write(home, make_rows(3, source=str(day), at=OLD - day * DAY, prediction_times=np.full(3, OLD - day * DAY)))
        move(home, now=NOW - day * DAY)
    kept = read_log(home.log("m"), start=OLD - 5 * DAY, end=OLD - 3 * DAY)
    assert kept.height == 6
    table = list_log_tables(home.log("m"))[0]
    gone = [name for name in table.lake.place.files("log") if not any(f"{d}" in name for d in _days(kept))]
    assert len(gone) == 18
    for name in gone:
        (table.root / "log" / name).unlink()
    assert read_log(home.log("m"), start=OLD - 5 * DAY, end=OLD - 3 * DAY).equals(kept), "another file was opened"


def _days(log):
    return log["logged_at"].dt.date().unique().to_list()


def test_a_bound_of_a_file_leaves_no_row_out(home):
    times = OLD + np.array([0, 1, 999, 1_000, 1_001, 999_999])
    write(home, make_rows(6, prediction_times=times))
    move(home)
    for at in times.tolist():
        assert read_log(home.log("m"), start=at, end=at + 1).height == 1
        assert read_log(home.log("m"), start=at).height == int((times >= at).sum())


def test_a_row_takes_at_most_a_third_in_delta(home):
    draws, rows = np.random.default_rng(0), 20_000
    columns = {f"number_{k}": draws.normal(size=rows).round(3) for k in range(15)}
    columns |= {f"word_{k}": draws.choice(["EWR", "JFK", "LGA"], rows).astype(object) for k in range(12)}
    answers = {"scores": draws.random(rows), "decisions": None, "faults": []}
    answers = SimpleNamespace(frame=SimpleNamespace(columns=columns), **answers)
    whole = {"model": "m", "version": "m:v1", "scorer": "compiled", "deployment": "batch", "logged_at": OLD}
    write(home, log_rows(answers, **whole, input_ids=input_identities("s", rows), entity={"id": np.arange(rows)}))
    before = describe_waiting(home.log("m"))["bytes"]
    move(home)
    table = sum(list_log_tables(home.log("m"))[0].lake.place.files("log").values())
    assert table <= before / 3, (table / rows, before / rows)


MOVER = """
    import sys
    from mlworkbench.core.home import Home
    from mlworkbench.evaluation.log import mover
    mover.COMMIT_ROWS, mover._DELETED = 400, 50
    print("begins", flush=True)
    mover.move_log("m", home=Home.open(sys.argv[1]), now=int(sys.argv[2]))
    """


def start_mover(home):
    command = [sys.executable, "-c", textwrap.dedent(MOVER), str(home.path), str(NOW)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_mover_that_is_killed_loses_no_row_and_moves_none_twice(home, kills):
    draws, written = random.Random(7), 0
    with PredictionLog(home.log("m"), own=True) as worker:
        for turn in range(kills):
            for log in (worker, None):
                rows = make_rows(600, source=f"{turn}-{log is None}")
                written += log.write(rows) if log else write(home, rows)
            killed = start_mover(home)
            killed.stdout.readline()
            time.sleep(draws.uniform(0.02, 0.3))
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            assert read_log(home.log("m")).height == written, "a reader sees every row once, whatever was killed"
    done = start_mover(home)
    assert done.communicate(timeout=60) and done.returncode == 0
    assert (in_table(home), in_files(home)) == (written, 0)


def test_readers_and_writers_work_on_while_rows_are_moved(home):
    write(home, make_rows(3_000))
    running, written = start_mover(home), 0
    running.stdout.readline()
    with PredictionLog(home.log("m")) as log:
        while running.poll() is None:
            written += log.write(make_rows(1, source=f"w{written}", at=FRESH))
            assert read_log(home.log("m")).height == 3_000 + written
    assert running.wait() == 0 and written
    assert (in_table(home), in_files(home)) == (3_000, written)


def test_a_worker_takes_a_file_of_its_own_and_the_next_takes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "log.sqlite"
    code = """
    import sys
    from mlworkbench.evaluation.log.writer import PredictionLog
    log = PredictionLog(sys.argv[1], own=True)
    print(log.file.name, flush=True)
    sys.stdin.read()
    """
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), path], **options) for _ in range(2)]
    assert sorted(worker.stdout.readline().strip() for worker in workers) == ["log-1.sqlite", "log-2.sqlite"]
    for worker in workers:
        worker.kill()
        worker.communicate()
    with PredictionLog(path, own=True) as one, PredictionLog(path, own=True) as other:
        assert [one.file.name, other.file.name] == ["log-1.sqlite", "log-2.sqlite"]
        assert one.write(make_rows(1)) == 1 and other.find([make_rows(1)[0]["prediction_id"]])
    with PredictionLog(path) as log:
        assert log.find([make_rows(1)[0]["prediction_id"]]), "what a worker wrote, everybody finds"


def test_a_forked_worker_takes_another_file_and_leaves_its_parents(tmp_path):
    with PredictionLog(tmp_path / "log.sqlite", own=True) as log:
        log.write(make_rows(1, source="parent"))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                good = log.write(make_rows(1, source="child")) == 1 and log.file.name == "log-2.sqlite"
                status = 0 if good else 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with PredictionLog(tmp_path / "log.sqlite", own=True) as other:
            assert other.file.name == "log-2.sqlite", "the parent's is still taken, the child's is free"
        assert log.write(make_rows(1, source="parent again")) == 1 and count(log.file) == 2


def test_a_log_of_workers_without_a_folder_is_made_for_its_owner_alone(tmp_path):
    with PredictionLog(tmp_path / "home" / "m" / "log.sqlite", own=True) as log:
        modes = [path.stat().st_mode & 0o077 for path in (log.file, *log.path.parent.iterdir(), log.path.parent)]
    assert not any(modes)
