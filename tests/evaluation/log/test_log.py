"""The prediction log: exact, exactly once, from many processes, through kills and full disks."""

import json
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.core.jsontext import encode_rows, to_json, to_plain
from mlworkbench.errors import LogError
from mlworkbench.evaluation.log.rows import input_identities, log_rows, prediction_id
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels

CONTEXT = {"model": "flights", "version": "flights:v1", "scorer": "reference", "deployment": "batch", "logged_at": 7}


def answers(count=2, **columns):
    columns = columns or {"wind": np.arange(count, dtype=float)}
    frame = SimpleNamespace(columns=columns)
    return SimpleNamespace(frame=frame, scores=np.linspace(0, 1, count), decisions=np.arange(count) % 2, faults=[])


def make_rows(count=2, *, source="s", **context):
    return log_rows(answers(count), **{**CONTEXT, "input_ids": input_identities(source, count), **context})


def stored(path, what="*"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT {what} FROM predictions ORDER BY rowid").fetchall()
    finally:
        connection.close()


def run_python(code, *arguments, **options):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


WRITER = """
    import sys
    from types import SimpleNamespace
    import numpy as np
    from mlworkbench.evaluation.log.writer import PredictionLog
    from mlworkbench.evaluation.log.rows import input_identities, log_rows
    path, source, batches, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    log = PredictionLog(path)
    for batch in range(batches):
        answers = SimpleNamespace(frame=SimpleNamespace(columns={"x": np.full(size, float(batch))}),
                                  scores=np.zeros(size), decisions=None, faults=[])
        rows = log_rows(answers, model="m", version="v", scorer="reference", deployment="batch", logged_at=batch,
                        request_id=str(batch), input_ids=input_identities(f"{source}-{batch}", size))
        log.write(rows)
        print(batch, flush=True)
    """


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_finite_float_reads_back_as_the_same_double(value):
    back = json.loads(to_json([value]))[0]
    assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))
    row = json.loads(encode_rows({"x": np.array([value])}, 1)[0])
    assert row["x"] == value


def test_missing_values_are_null_and_infinities_are_text_that_float_reads():
    values = {"a": np.array([np.nan]), "b": np.array([None], dtype=object), "c": np.array([np.inf])}
    assert encode_rows(values, 1) == ['{"a":null,"b":null,"c":"Infinity"}']
    assert float(to_plain(-np.inf)) == -np.inf


def test_every_kind_of_column_becomes_json():
    columns = {
        "flag": np.array([True]),
        "whole": np.array([2**62], dtype=np.int64),
        "word": np.array(["Zürich"], dtype=object),
        "vector": np.array([[0.5, np.nan]]),
    }
    found = json.loads(encode_rows(columns, 1)[0])
    assert found == {"flag": True, "whole": 2**62, "word": "Zürich", "vector": [0.5, None]}


def test_a_broken_surrogate_in_a_request_can_be_logged(tmp_path):
    rows = log_rows(answers(1, word=np.array(["\ud800"], dtype=object)), **{**CONTEXT, "input_ids": ["\ud800:0"]})
    with PredictionLog(tmp_path / "log.sqlite") as log:
        assert log.write(rows) == 1


def test_a_value_json_does_not_know_is_refused_in_one_line():
    with pytest.raises(LogError, match="date"):
        to_json({"day": __import__("datetime").date(2013, 1, 1)})


def test_prediction_ids_tell_model_version_deployment_and_input_apart():
    whole = ("flights", "v1", "batch", "s:0")
    assert len({prediction_id(*whole), *(prediction_id(*whole[:i], "other", *whole[i + 1 :]) for i in range(4))}) == 5
    assert len(prediction_id(*whole)) == 32


def test_equal_rows_stay_two_predictions():
    rows = make_rows(2)
    assert rows[0]["prediction_id"] != rows[1]["prediction_id"]


def test_prediction_time_is_the_time_of_logging_where_none_is_declared():
    assert [row["prediction_time"] for row in make_rows(2)] == [7, 7]
    assert [row["prediction_time"] for row in make_rows(2, prediction_times=np.array([1, 2]))] == [1, 2]


def test_scores_decisions_and_faults_of_each_row_are_its_own():
    fault = SimpleNamespace(row=1, to_dict=lambda: {"column": "wind", "value": np.float64(9)})
    predictions = SimpleNamespace(
        frame=SimpleNamespace(columns={}),
        scores=np.array([[0.25, 0.75], [1.0, np.nan]]),
        decisions=np.array(["a", "b"]),
        faults=[fault],
    )
    first, second = log_rows(predictions, **CONTEXT, input_ids=["a", "b"])
    assert (first["scores"], first["decision"], first["faults"]) == ("[0.25,0.75]", '"a"', "[]")
    assert (second["scores"], second["faults"]) == ("[1.0,null]", '[{"column":"wind","value":9.0}]')


def test_true_and_one_are_different_decisions():
    predictions = SimpleNamespace(**{**vars(answers(3)), "decisions": np.array([True, 1, 1.0], dtype=object)})
    rows = log_rows(predictions, **CONTEXT, input_ids=["a", "b", "c"])
    assert [row["decision"] for row in rows] == ["true", "1", "1.0"]


@pytest.mark.parametrize("name", ["model", "version", "scorer", "deployment", "logged_at"])
def test_context_that_is_missing_is_named(name):
    context = {key: value for key, value in CONTEXT.items() if key != name}
    with pytest.raises(LogError, match=name):
        log_rows(answers(1), **context, input_ids=["a"])


def test_times_of_another_length_are_refused():
    with pytest.raises(LogError, match=r"prediction_times.*got 3 for 2"):
        make_rows(2, prediction_times=np.arange(3))


def test_writing_again_adds_nothing_and_changes_nothing(tmp_path):
    path = tmp_path / "deep" / "log.sqlite"
    with PredictionLog(path) as log:
        assert log.write(make_rows(3)) == 3
        before = stored(path)
        assert log.write(make_rows(4, scorer="other")) == 1
    assert stored(path)[:3] == before


def test_what_is_logged_is_found_by_its_id_as_it_was_written(tmp_path):
    rows = make_rows(3)
    with PredictionLog(tmp_path / "log.sqlite") as log:
        assert log.find([row["prediction_id"] for row in rows]) == {}
        log.write(rows[:2])
        found = log.find([*(row["prediction_id"] for row in rows), "none"])
    assert list(found) == [row["prediction_id"] for row in rows[:2]]
    assert all(found[row["prediction_id"]].items() <= row.items() for row in rows[:2])


def test_an_empty_batch_is_no_mistake(tmp_path):
    with PredictionLog(tmp_path / "log.sqlite") as log:
        assert log.write([]) == 0


def test_a_row_that_lacks_a_value_undoes_the_whole_batch(tmp_path):
    rows = make_rows(2)
    with PredictionLog(tmp_path / "log.sqlite") as log:
        with pytest.raises(LogError):
            log.write([rows[0], {**rows[1], "model": None}])
        with pytest.raises(LogError):
            log.write([rows[0], {"prediction_id": "x"}])
        assert stored(log.path) == []
        assert log.write(rows) == 2


def test_file_and_folder_are_the_owners_alone(tmp_path):
    path = tmp_path / "model" / "log.sqlite"
    PredictionLog(path).close()
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (0, 0)


def test_a_closed_log_says_so_and_closing_twice_is_fine(tmp_path):
    log = PredictionLog(tmp_path / "log.sqlite")
    log.close()
    log.close()
    with pytest.raises(LogError) as raised:
        log.write(make_rows(1))
    assert raised.value.code == "log.closed"


def test_threads_of_one_process_share_a_log(tmp_path):
    log = PredictionLog(tmp_path / "log.sqlite")
    work = [threading.Thread(target=lambda name=name: log.write(make_rows(50, source=name))) for name in "abcdefgh"]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(stored(log.path)) == 400


def test_a_forked_child_opens_its_own_connection(tmp_path):
    log = PredictionLog(tmp_path / "log.sqlite")
    log.write(make_rows(1, source="parent"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if log.write(make_rows(1, source="child")) == 1 else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log.write(make_rows(1, source="parent again")) == 1
    assert len(stored(log.path)) == 3


def test_several_processes_that_start_at_once_lose_no_row(tmp_path):
    path = tmp_path / "log.sqlite"
    writers = [run_python(WRITER, path, f"w{number}", 20, 25) for number in range(4)]
    for writer in writers:
        errors = writer.communicate(timeout=60)[1]
        assert writer.returncode == 0, errors
    assert len(stored(path)) == 4 * 20 * 25


def test_a_killed_writer_leaves_only_whole_batches_and_the_next_run_completes(tmp_path):
    path, size = tmp_path / "log.sqlite", 2000
    writer = run_python(WRITER, path, "w", 500, size)
    said = [int(writer.stdout.readline()) for _ in range(3)]
    time.sleep(0.02)
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.communicate()[0].split()]
    rows = stored(path, "request_id")
    batches = {request for (request,) in rows}
    assert len(rows) == size * len(batches), "a batch is there in part"
    assert {str(batch) for batch in said} <= batches, "a batch whose write returned is lost"
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = run_python(WRITER, path, "w", len(batches) + 1, size)
    assert again.communicate(timeout=60) and again.returncode == 0
    assert len(stored(path)) == size * (len(batches) + 1)


def test_a_locked_log_is_one_line_and_writing_goes_on_afterwards(tmp_path):
    log = PredictionLog(tmp_path / "log.sqlite", wait=0.1)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogError, match=r"^cannot write the prediction log .*is locked; another process ") as caught:
        log.write(make_rows(1))
    assert "\n" not in str(caught.value)
    other.execute("ROLLBACK")
    assert log.write(make_rows(1)) == 1


def test_a_full_disk_writes_nothing_and_is_one_line(tmp_path):
    code = """
    import resource, signal, sys
    from mlworkbench.errors import LogError
    from mlworkbench.evaluation.log.writer import PredictionLog
    sys.path.insert(0, sys.argv[2])
    from test_log import make_rows
    log = PredictionLog(sys.argv[1])
    log.write(make_rows(1, source="before"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        log.write(make_rows(20_000))
    except LogError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(log.write(make_rows(3, source="after")))
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = run_python(code, tmp_path / "log.sqlite", os.path.dirname(__file__))  # noqa: PTH120
    out, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    first, second = out.strip().splitlines()
    assert "log.sqlite" in first and ("full" in first or "disk" in first)
    assert second == "3" and len(stored(tmp_path / "log.sqlite")) == 4


def test_a_file_that_is_no_log_is_refused(tmp_path):
    path = tmp_path / "log.sqlite"
    path.write_text("these are notes, not a data base; " * 50)
    with pytest.raises(LogError, match="not a database"):
        PredictionLog(path)


def test_a_log_of_a_newer_package_is_refused(tmp_path):
    path = tmp_path / "log.sqlite"
    PredictionLog(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LogError, match="upgrade mlworkbench") as raised:
        PredictionLog(path)
    assert raised.value.code == "log.schema_newer"


def test_a_month_of_flights_is_written_in_three_seconds_and_a_row_in_300_microseconds(tmp_path):
    draws, count = np.random.default_rng(0), 28_889
    columns = {f"number{i}": draws.normal(size=count) for i in range(20)}
    columns |= {f"word{i}": draws.choice(["AA", "UA"], count).astype(object) for i in range(5)}
    many = SimpleNamespace(
        frame=SimpleNamespace(columns=columns), scores=draws.random(count), decisions=np.ones(count, int), faults=[]
    )
    with PredictionLog(tmp_path / "log.sqlite") as log:
        begun = time.process_time()
        assert log.write(log_rows(many, **CONTEXT, input_ids=input_identities("f", count))) == count
        assert time.process_time() - begun < 3
        singles = [make_rows(1, source=f"r{number}") for number in range(300)]
        costs = []
        for row in singles:
            begun = time.process_time()
            log.write(row)
            costs.append(time.process_time() - begun)
    assert np.median(costs) < 300e-6


def label(**changes):
    row = {"model": "m", "entity": {"b": 1, "a": "x"}, "prediction_time": 5, "value": 1, "available_at": 9}
    return {name: value for name, value in {**row, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": ...}, "log.label_incomplete"),
        ({"value": None}, "log.label_incomplete"),
        ({"value": float("nan")}, "log.label_incomplete"),
        ({"available_at": ...}, "log.label_incomplete"),
        ({"entity": ..., "prediction_time": ...}, "log.label_name"),
        ({"prediction_time": ...}, "log.label_name"),
        ({"prediction_id": "x"}, "log.label_name"),
        ({"entity": {}}, "log.label_name"),
    ],
)
def test_a_label_that_names_nothing_or_two_things_is_refused_and_nothing_is_written(tmp_path, changes, code):
    path = tmp_path / "log.sqlite"
    with pytest.raises(LogError, match="label 1") as raised:
        append_labels(path, [label(), label(**changes)])
    assert raised.value.code == code
    assert not path.exists()


def test_a_label_is_kept_once_and_its_corrections_are_kept_too(tmp_path):
    path = tmp_path / "log.sqlite"
    assert append_labels(path, [label(), label()]) == 1
    assert append_labels(path, [label(), label(value=0, available_at=10)]) == 1
    assert append_labels(path, [label(entity=..., prediction_time=..., prediction_id="x")]) == 1


def test_the_log_imports_nothing_heavy():
    heavy = "{'pandas', 'sklearn', 'polars', 'pyarrow', 'pandera', 'deltalake', 'evidently', 'nbdev', 'scipy', 'skops'}"
    for module in ("log", "equivalence"):
        code = f"import sys, mlworkbench.evaluation.{module}; print({heavy} & set(sys.modules))"
        assert run_python(code).communicate()[0].strip() == "set()"


OLDER = """
CREATE TABLE predictions (prediction_id TEXT PRIMARY KEY NOT NULL, request_id TEXT NOT NULL, model TEXT NOT NULL,
    version TEXT NOT NULL, scorer TEXT NOT NULL, deployment TEXT NOT NULL, role TEXT NOT NULL, entity TEXT NOT NULL,
    prediction_time INTEGER NOT NULL, logged_at INTEGER NOT NULL, watermark TEXT NOT NULL, scores TEXT NOT NULL,
    decision TEXT NOT NULL, latency_us INTEGER NOT NULL, features TEXT NOT NULL, faults TEXT NOT NULL,
    schema_version INTEGER NOT NULL);
INSERT INTO predictions VALUES ('1', '', 'm', 'm:1', 'reference', 'batch', 'served', '{}', 5, 7, 'null', '[0.5]',
    'null', 0, '{"x":1.0}', '[]', 1);
PRAGMA user_version=1;
"""


def older(path):
    connection = sqlite3.connect(path)
    connection.executescript(OLDER)
    connection.close()
    return path


def test_the_log_of_an_older_package_is_read_as_it_is_and_keeps_its_rows_when_it_is_written(tmp_path):
    from mlworkbench.evaluation.log.reader import read_log

    path = older(tmp_path / "log.sqlite")
    assert read_log(path)["request"].to_list() == [""]
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (1,)
    with PredictionLog(path) as log:
        assert log.write(make_rows(1, request={"tailnum": np.array(["N1"], object)})) == 1
    assert read_log(path)["request"].to_list() == ["", '{"tailnum":"N1"}']
    assert stored(path, "schema_version") == [(1,), (3,)]


def test_an_older_log_is_brought_up_once_by_processes_that_start_together(tmp_path):
    path = older(tmp_path / "log.sqlite")
    writers = [run_python(WRITER, path, name, 3, 2) for name in "abcd"]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(stored(path)) == 1 + 4 * 6
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (3,)


def test_what_was_asked_beside_the_features_is_kept_and_nothing_is_told_from_unknown(tmp_path):
    assert [row["request"] for row in make_rows(2)] == ["", ""]
    assert [row["request"] for row in make_rows(2, request={})] == ["{}", "{}"]


OLD_LABELS = """
ALTER TABLE predictions ADD COLUMN request TEXT NOT NULL DEFAULT '';
CREATE TABLE labels (model TEXT NOT NULL, prediction_id TEXT NOT NULL, entity TEXT NOT NULL, prediction_time INTEGER,
    value TEXT NOT NULL, available_at INTEGER NOT NULL);
CREATE UNIQUE INDEX labels_once
    ON labels (model, prediction_id, entity, coalesce(prediction_time, 0), available_at, value);
INSERT INTO labels VALUES ('m', '1', '', NULL, '1', 9);
PRAGMA user_version=2;
"""


def test_a_log_of_schema_2_gets_its_keys_and_keeps_its_labels_each_once(tmp_path):
    from mlworkbench.evaluation.log.reader import read_labels, read_log

    path = older(tmp_path / "log.sqlite")
    connection = sqlite3.connect(path)
    connection.executescript(OLD_LABELS)
    connection.close()
    assert (read_log(path)["key"].to_list(), read_labels(path)["key"].to_list()) == ([""], [""])
    known = {"model": "m", "prediction_id": "1", "value": 1, "available_at": 9}
    assert append_labels(path, [known, {"model": "m", "key": 17, "value": 0, "available_at": 9}]) == 1
    assert append_labels(path, [{"model": "m", "key": "17", "value": 0, "available_at": 9}]) == 0
    assert read_labels(path)["key"].to_list() == ["", "17"]
    with PredictionLog(path) as log:
        log.write(make_rows(2, key=[17, 18]))
    assert read_log(path)["key"].to_list() == ["", "17", "18"]
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (3,)
