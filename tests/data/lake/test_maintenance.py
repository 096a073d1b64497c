"""Compacting and vacuuming a table: by itself, beside writers, and killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from mlworkbench.data.lake.commit import MovedError
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import choose_small_files, compact, lost_versions, vacuum
from mlworkbench.data.lake.place import version_files
from mlworkbench.errors import IngestError


def rows(turn, number=3):
    return pa.table({"turn": [turn] * number, "n": list(range(number)), "name": [f"Ada {turn}"] * number})


@pytest.fixture(params=["folder", "a folder named ä 50%", "s3"])
def lake(request, tmp_path):
    place = request.getfixturevalue("s3").url("lake") if request.param == "s3" else str(tmp_path / request.param)
    lake = Lake(place)
    for turn in range(5):
        lake.append("t", rows(turn))
    return lake


@pytest.fixture
def local(tmp_path):
    lake = Lake(tmp_path / "lake")
    for turn in range(5):
        lake.append("t", rows(turn))
    return lake


def test_compacting_keeps_rows_their_order_and_every_version(lake):
    before = lake.read("t")
    care = compact(lake, "t")
    assert (care.files_before, care.files_after, care.version) == (5, 1, 5)
    assert care.bytes_after < care.bytes_before
    assert lake.read("t").equals(before)
    assert [lake.read("t", version=version).height for version in range(6)] == [3, 6, 9, 12, 15, 15]


def test_compacting_twice_has_nothing_to_do_the_second_time(lake):
    assert compact(lake, "t").version == compact(lake, "t").version == 5


def test_large_files_stay_as_they_are_and_rows_in_order(local):
    local.overwrite("t", pa.table({"x": np.random.default_rng(0).random(20_000)}))
    large = version_files(local.open("t"))
    for value in (1.0, 2.0, 3.0):
        local.append("t", pa.table({"x": [value]}))
    before = local.read("t")
    assert compact(local, "t", large=50_000).files_after == 2
    assert local.read("t").equals(before)
    assert set(large) <= set(version_files(local.open("t")))


def test_only_the_newest_run_of_small_files_is_joined():
    assert choose_small_files([("d", 1), ("c", 1), ("b", 9), ("a", 1)], large=5) == ["d", "c"]
    assert choose_small_files([("d", 9), ("c", 1), ("b", 1)], large=5) == []
    assert choose_small_files([]) == []


def test_times_vectors_nulls_and_texts_come_through_a_compaction(local):
    at = pa.array([0, None], pa.timestamp("us", "UTC"))
    vector = pa.array([[1.0, 2.0], None], pa.list_(pa.float64()))
    table = pa.table({"at": at, "vector": vector, "ok": [True, None], "text": ["für", None], "x": [float("nan"), None]})
    for _ in range(3):
        local.append("kinds", table)
    before, schema = local.read("kinds"), local.schema("kinds")
    compact(local, "kinds")
    assert local.read("kinds").equals(before)
    assert local.schema("kinds") == schema


def test_what_the_log_knew_about_values_it_knows_afterwards_and_no_more(local):
    table = pa.table({"name": ["Ada"], "age": [36], "n": [7]})
    for n in (7, 9):
        local.append("people", table.set_column(2, "n", pa.array([n])), personal=["name", "age"])
    compact(local, "people")
    log = (local.path / "people" / "_delta_log" / f"{2:020d}.json").read_text()
    added = [json.loads(line)["add"] for line in log.splitlines() if '"add"' in line]
    told = json.loads(added[0]["stats"])
    assert (told["numRecords"], told["minValues"], told["maxValues"]) == (2, {"n": 7}, {"n": 9})
    assert "Ada" not in log
    assert added[0]["dataChange"] is False


def test_an_append_that_comes_while_a_compaction_writes_is_kept(local, monkeypatch):
    from mlworkbench.data.lake import maintenance as lake_care

    joined, done = lake_care._write_joined, []

    def slow(*args):
        made = joined(*args)
        if not done:
            done.append(local.append("t", rows(9)))
        return made

    monkeypatch.setattr(lake_care, "_write_joined", slow)
    care = compact(local, "t")
    assert local.read("t").height == 18
    assert care.files_after == 1


def test_compactions_at_once_in_four_processes_double_no_row(lake):
    script = "import sys; from mlworkbench.data.lake.lake import Lake\n"
    script += "from mlworkbench.data.lake.maintenance import compact\n"
    script += "print('ready', flush=True); sys.stdin.readline(); compact(Lake(sys.argv[1]), 't')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", script, str(lake.path)], **pipes) for _ in range(4)]
    before = lake.read("t")
    for worker in running:
        assert worker.stdout.readline() == "ready\n"
    for worker in running:
        worker.communicate("go\n", timeout=120)
    assert [worker.returncode for worker in running] == [0] * 4
    assert lake.read("t").equals(before)


def test_a_vacuum_keeps_the_newest_and_the_versions_that_are_named(lake):
    compact(lake, "t")
    before = lake.read("t")
    assert lost_versions(lake, "t", hours=0, keep=[2]) == [3, 4]
    care = vacuum(lake, "t", hours=0, keep=[2, 77], force=True)
    assert (care.files_before, care.files_after) == (6, 4)
    assert [version for version in range(6) if lake.holds("t", version)] == [0, 1, 2, 5]
    assert lake.read("t").equals(before)
    assert lake.read("t", version=2).height == 9


def test_a_vacuum_within_a_week_removes_nothing(local):
    compact(local, "t")
    care = vacuum(local, "t")
    assert care.files_before == care.files_after == 6
    assert all(local.holds("t", version) for version in range(6))


@pytest.mark.parametrize("hours", [0, 1, 167])
def test_a_retention_below_a_week_must_be_forced(local, hours):
    with pytest.raises(IngestError, match=f"at least 168 hours, so that no reader.*got {hours}; wait, or force"):
        vacuum(local, "t", hours=hours)


@pytest.mark.parametrize("hours", [-1, 0.5])
def test_a_retention_is_whole_hours(local, hours):
    with pytest.raises(IngestError, check=lambda error: error.code == "lake.retention"):
        vacuum(local, "t", hours=hours, force=True)


def test_a_forced_vacuum_leaves_a_file_that_a_writer_has_not_committed_yet(local):
    waiting = local.path / "t" / "part-00000-00000000-0000-0000-0000-000000000000-c000.zstd.parquet"
    waiting.write_bytes((local.path / "t" / version_files(local.open("t"))[0]).read_bytes())
    compact(local, "t")
    vacuum(local, "t", hours=0, force=True)
    assert waiting.exists()


def test_a_week_old_file_that_no_commit_ever_named_is_removed(local):
    orphan = local.path / "t" / "part-00000-00000000-0000-0000-0000-000000000000-c000.zstd.parquet"
    orphan.write_bytes(b"PAR1 half a file of a writer that was killed")
    young = orphan.with_name(orphan.name.replace("000000-c000", "000001-c000"))
    young.write_bytes(b"PAR1")
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(orphan, (long_ago, long_ago))
    vacuum(local, "t")
    assert not orphan.exists()
    assert young.exists()


def test_a_reader_that_began_before_goes_on_through_compaction_and_vacuum(local):
    frame = local.scan("t")
    compact(local, "t")
    vacuum(local, "t")
    assert frame.collect().height == 15


WORKER = """
import sys
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import compact, vacuum
lake, what = Lake(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
compact(lake, "t") if what == "compact" else vacuum(lake, "t", hours=0, keep=[3], force=True)
"""


@pytest.mark.parametrize("what", ["compact", "vacuum"])
def test_a_process_killed_at_random_moments_leaves_the_table_whole(tmp_path, what):
    lake, moments = Lake(tmp_path / "lake"), random.Random(what)
    for turn in range(12):
        lake.append("t", rows(turn, 4_000))
    if what == "vacuum":
        compact(lake, "t")
    before, then = lake.read("t"), lake.read("t", version=3)
    for _ in range(6):
        command = [sys.executable, "-c", WORKER, str(lake.path), what]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.06))
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        assert lake.read("t").equals(before)
        assert lake.read("t", version=3).equals(then)
    compact(lake, "t") if what == "compact" else vacuum(lake, "t", hours=0, keep=[3], force=True)
    assert lake.read("t").equals(before)
    assert lake.read("t", version=3).equals(then)
    assert len(version_files(lake.open("t"))) == 1


def test_a_writer_that_decided_before_a_compaction_decides_again(local):
    from mlworkbench.data.lake.snapshot import LakeSnapshot

    still = LakeSnapshot(local.path)
    still.read("t")
    compact(local, "t")
    with pytest.raises(MovedError):
        still.append("t", rows(9))


def test_appends_go_on_beside_compactions(local):
    stop = threading.Event()

    def append():
        for turn in range(10, 20):
            local.append("t", rows(turn))
        stop.set()

    thread = threading.Thread(target=append)
    thread.start()
    while not stop.is_set():
        compact(local, "t")
    thread.join()
    counted = local.read("t")["turn"].value_counts().sort("turn").rows()
    assert counted == [(turn, 3) for turn in [*range(5), *range(10, 20)]]
