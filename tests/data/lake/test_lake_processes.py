"""Processes that write one table at once, without a lock between them, in a folder and in an object store."""

import subprocess
import sys
import threading
from collections import Counter

import pyarrow as pa
import pytest

from mlworkbench.data.lake.commit import MovedError
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.snapshot import LakeSnapshot

ROWS = pa.table({"worker": [0], "turn": [0]})

APPEND = """
import sys
import pyarrow as pa
from mlworkbench.data.lake.lake import Lake
place, worker, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(turns):
    assert Lake(place).append("t", pa.table({"worker": [worker], "turn": [turn]})) == 1
"""

ONCE = """
import sys
import pyarrow as pa
from mlworkbench.data.lake.lake import Lake
place, worker = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
print(Lake(place).append("t", pa.table({"worker": [worker], "turn": [0]}), transaction="monday"))
"""

DECIDE = """
import sys
import pyarrow as pa
from mlworkbench.data.lake.commit import retry_moved
from mlworkbench.data.lake.snapshot import LakeSnapshot
place, turns = sys.argv[1], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()

def ingest(turn):
    lake = LakeSnapshot(place)
    known = lake.read("t")["turn"].to_list() if lake.exists("t") else []
    return 0 if turn in known else lake.append("t", pa.table({"worker": [int(sys.argv[2])], "turn": [turn]}))

print(sum(retry_moved(lambda: ingest(turn), turns=1000) for turn in range(turns)))
"""


def elsewhere(action):
    """Do something while a stream of this thread is being written."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "lake") if request.param == "folder" else request.getfixturevalue("s3").url("lake")


def at_once(script, place, *, workers, turns=1):
    """Start processes, let them all begin together, and give what they print."""
    words = [[sys.executable, "-c", script, place, str(worker), str(turns)] for worker in range(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for command in words]
    for worker in running:
        assert worker.stdout.readline() == "ready\n"
    for worker in running:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=300)[0] for worker in running]
    assert [worker.returncode for worker in running] == [0] * workers
    return said


def test_eight_processes_that_append_ten_times_each_lose_and_double_nothing(place):
    at_once(APPEND, place, workers=8, turns=10)
    counted = Counter(Lake(place).read("t").rows())
    assert counted == Counter((worker, turn) for worker in range(8) for turn in range(10))


@pytest.mark.parametrize("new", [True, False], ids=["a new table", "a table that is there"])
def test_one_transaction_at_once_in_six_processes_appends_once(place, new):
    lake = Lake(place)
    if not new:
        lake.append("t", ROWS)
    said = at_once(ONCE, place, workers=6)
    assert sorted(map(int, said)) == [0, 0, 0, 0, 0, 1]
    assert lake.read("t").height == (1 if new else 2)


def test_processes_that_decide_from_what_they_read_append_each_row_once(place):
    said = at_once(DECIDE, place, workers=4, turns=8)
    assert sum(map(int, said)) == 8
    assert sorted(Lake(place).read("t")["turn"].to_list()) == list(range(8))


def test_a_stream_that_cannot_be_read_again_is_refused_in_one_line_and_then_appended(place):
    lake = Lake(place)

    def stream():
        yield from ROWS.to_batches()
        elsewhere(lambda: lake.append("t", ROWS))  # makes the table while this one writes
        yield from ROWS.to_batches()

    with pytest.raises(MovedError) as caught:
        lake.append("t", stream())
    line = "another process committed to it at the same time; nothing was committed here; do it again"
    assert str(caught.value) == f"table 't': {line}"
    assert lake.append("t", iter(ROWS.to_batches())) == 1
    assert lake.read("t").height == 2


def test_rows_of_other_columns_do_not_follow_an_overwrite_that_came_between(place):
    lake = Lake(place)
    lake.append("t", ROWS)

    def stream():
        yield from ROWS.to_batches()
        elsewhere(lambda: lake.overwrite("t", pa.table({"other": ["a"]})))
        yield from ROWS.to_batches()

    with pytest.raises(MovedError):
        lake.append("t", stream())
    assert lake.read("t").rows() == [("a",)]


def test_a_lake_that_stands_still_gives_the_same_rows_twice_and_refuses_to_write_on_others(place):
    lake, still = Lake(place), LakeSnapshot(place)
    assert not still.exists("t")
    lake.append("t", ROWS)
    assert not still.exists("t")
    with pytest.raises(MovedError):
        still.append("t", ROWS)
    still = LakeSnapshot(place)
    assert still.read("t").height == 1
    lake.append("t", ROWS)
    assert (still.read("t").height, still.versions) == (1, {"t": 0})
    with pytest.raises(MovedError):
        still.append("t", ROWS)
    assert lake.read("t").height == 2


def test_a_lake_that_stands_still_sees_what_it_wrote_itself(place):
    still = LakeSnapshot(place)
    still.append("t", ROWS)
    still.append("t", ROWS)
    assert (still.read("t").height, still.version("t"), still.versions) == (2, 1, {"t": 1})


def test_a_lake_can_stand_still_at_a_version_of_the_past(place):
    lake = Lake(place)
    for _ in range(3):
        lake.append("t", ROWS)
    still = LakeSnapshot(place, versions={"t": 1})
    assert (still.read("t").height, still.version("t")) == (2, 1)
    with pytest.raises(MovedError):
        still.append("t", ROWS)
