"""What every sink promises, held against each of them."""

import random
import signal
import subprocess
import sys
import time

import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.data.sinks.open_sink import open_sink, rooted, split_table
from mlworkbench.errors import IngestError, WorkbenchError

FIRST, SECOND, THIRD = "m-1f3a-2013-10-01", "m-1f3a-2013-10-02", "m-1f3a-2013-10-03"


def day(name, edition=0, rows=60):
    """Rows of a day; each edition lacks another tenth of them and has other scores. One batch for every 25 rows."""
    numbers = [number for number in range(rows) if (number + edition) % 10]
    ids = [f"{name}-{number:05}" for number in numbers]
    return pl.DataFrame({"prediction_id": ids, "score": [number + edition / 10 for number in numbers]})


def expected(*days):
    return sorted((name, *row) for name, rows in days for row in rows.iter_rows())


def test_a_partition_written_again_changes_nothing(place):
    for name in (FIRST, SECOND):
        place.sink().write(name, day(name))
    before = place.mark()
    place.sink().write(FIRST, day(FIRST))
    place.sink().write(SECOND, day(SECOND)[::-1])
    assert place.mark() == before
    assert place.rows() == expected((FIRST, day(FIRST)), (SECOND, day(SECOND)))


def test_a_changed_partition_replaces_the_old_and_leaves_its_neighbours(place):
    for edition in (0, 1, 0, 3):
        for name in (FIRST, SECOND):
            place.sink().write(name, day(name, edition if name == FIRST else 0))
        assert place.rows() == expected((FIRST, day(FIRST, edition)), (SECOND, day(SECOND)))


def test_a_partition_without_rows_takes_its_rows_away(place):
    place.sink().write(FIRST, day(FIRST))
    place.sink().write(SECOND, day(SECOND))
    place.sink().write(FIRST, day(FIRST)[:0])
    assert place.rows() == expected((SECOND, day(SECOND)))


def test_a_stream_that_fails_in_the_middle_leaves_the_partition_as_it_was(place):
    place.sink().write(FIRST, day(FIRST))

    def stream():
        yield from day(FIRST, 1).to_arrow().to_batches()
        raise ValueError("the disk of the source")

    before = place.mark()
    with pytest.raises(ValueError, match="the disk of the source"):
        place.sink().write(FIRST, stream())
    assert place.mark() == before
    place.sink().write(FIRST, day(FIRST, 1))
    assert place.rows() == expected((FIRST, day(FIRST, 1)))


def test_an_id_that_is_there_twice_is_refused_also_across_batches(place):
    place.sink().write(FIRST, day(FIRST))
    before, doubled = place.mark(), day(FIRST, 1).to_arrow().to_batches()
    with pytest.raises(
        IngestError, match="'m-1f3a-2013-10-01-00000'", check=lambda error: error.code == "sink.id_twice"
    ):
        place.sink().write(FIRST, iter([*doubled, *doubled]))
    assert place.mark() == before and place.rows() == expected((FIRST, day(FIRST)))


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("../x", day(FIRST), "a name is letters"),
        (FIRST, day(FIRST).drop("prediction_id"), "no column 'prediction_id' with ids"),
        (FIRST, day(FIRST).with_columns(pl.lit(1).alias("prediction_id")), "prediction_id must be text"),
        (FIRST, day(FIRST).with_columns(pl.lit(None, pl.String).alias("prediction_id")), "a row has no prediction_id"),
        (FIRST, day(FIRST).with_columns(pl.lit("x").alias("partition")), "the sink's own"),
        (FIRST, day(FIRST).with_columns(pl.lit(None).alias("gate")), "has no type"),
        (FIRST, day(FIRST).with_columns(pl.lit("2013-10-01").str.to_datetime().alias("at")), "timestamp"),
    ],
)
def test_rows_that_are_no_partition_are_refused_before_anything_is_written(tmp_path, name, rows, said):
    for to in (f"{tmp_path}/a", f"delta:{tmp_path}/b", f"sqlite:///{tmp_path}/c.db?table=p", "http://127.0.0.1:9/"):
        with pytest.raises(IngestError, match=said):
            open_sink(to, folder=tmp_path / "home").write(name, rows)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_two_processes_at_once_write_each_row_once(place):
    days = (FIRST, SECOND, THIRD)
    workers = [
        place.worker("1,2,1,2", f"{FIRST},{SECOND},{THIRD}", 60, ""),
        place.worker("1,2,1,2", f"{THIRD},{FIRST},{SECOND}", 60, ""),
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=120)
        assert worker.returncode == 0, error
    assert place.rows() == expected(*((name, day(name, 2)) for name in days))
    if place.kind == "webhook":
        assert len({key for key, *_ in place.receiver.calls}) == len(place.receiver.calls), "nothing was sent twice"


POINTS = [("folder", "before the rename"), ("sqlite", "before the commit"), ("postgresql", "before the commit")]


@pytest.mark.parametrize(("place", "point"), POINTS, indirect=["place"])
def test_a_process_killed_at_a_known_point_leaves_the_partition_as_it_was(place, point):
    place.sink().write(FIRST, day(FIRST))
    worker = place.worker("1", FIRST, 60, point)
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert place.rows() == expected((FIRST, day(FIRST)))
    place.sink().write(FIRST, day(FIRST, 1))
    assert place.rows() == expected((FIRST, day(FIRST, 1)))
    if place.kind == "folder":
        assert [name for name, _ in place.mark()] == [f"{FIRST}.parquet"], "the hidden file of the dead is gone"


ROWS, DAYS = 600, (FIRST, SECOND, THIRD)


def whole(place):
    """Hold that each partition is one edition, whole; a webhook has no transaction, so there each row is of one."""
    seen = {}
    for name, row, score in place.rows():
        seen.setdefault(name, set()).add((row, score))
    editions = {name: [{*day(name, edition, ROWS).rows()} for edition in (1, 2)] for name in DAYS}
    for name, rows in seen.items():
        if place.kind == "webhook":
            assert rows <= editions[name][0] | editions[name][1]
        else:
            assert rows in editions[name]


@pytest.mark.system
@pytest.mark.parametrize("place", ["folder", "delta", "sqlite", "webhook", "postgresql"], indirect=True)
def test_after_many_kills_nothing_is_lost_and_nothing_doubled(place, kills):
    dice, killed = random.Random(f"kills of {place.kind}"), 0
    if place.kind == "webhook":
        place.receiver.faults = 0.25
    words = ("forever", ",".join(DAYS), ROWS, "")
    waiting = [place.prepared(*words) for _ in range(2)]
    for turn in range(kills):
        waiting.append(place.prepared(*words))
        worker = place.go(waiting.pop(0))
        time.sleep(dice.uniform(0, 0.15))
        worker.kill()
        worker.communicate()
        killed += worker.returncode == -signal.SIGKILL
        if turn == 4:  # the first of them may have died before the place was made
            for name in DAYS:
                place.sink().write(name, day(name, 1, ROWS))
        if turn >= 4:
            whole(place)
    for worker in waiting:
        worker.kill()
        worker.communicate()
    assert killed == kills
    last = place.worker("2", ",".join(DAYS), ROWS, "")
    _, error = last.communicate(timeout=120)
    assert last.returncode == 0, error
    assert place.rows() == expected(*((name, day(name, 2, ROWS)) for name in DAYS))
    before = place.mark()
    for name in DAYS:
        place.sink().write(name, day(name, 2, ROWS))
    assert place.mark() == before
    if place.kind == "webhook":
        keys = [key for key, *_ in place.receiver.calls]
        print(f"{len(keys)} posts of {len(set(keys))} batches, {len(place.receiver.keys)} taken")
        assert len(keys) > len(set(keys))


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "")
import polars as pl
from mlworkbench.data.sinks.open_sink import open_sink
from mlworkbench.errors import WorkbenchError
to, home, limit = sys.argv[1:]
rows = pl.DataFrame({"prediction_id": [f"{n:040}" for n in range(40_000)], "score": [n * 0.37 for n in range(40_000)]})
place = open_sink(to, folder=Path(home))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    place.write("m-1f3a-2013-10-01", rows)
except WorkbenchError as error:
    print(error)
"""


@pytest.mark.parametrize("place", ["folder", "delta", "sqlite", "webhook"], indirect=True)
def test_a_full_disk_is_one_line_and_leaves_the_partition_as_it_was(place):
    place.sink().write(FIRST, day(FIRST))
    done = subprocess.run(
        [sys.executable, "-c", FULL, place.to, str(place.folder / "home"), str(100_000)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and done.stdout.startswith("cannot write "), done.stdout
    assert place.rows() == expected((FIRST, day(FIRST)))
    place.sink().write(FIRST, day(FIRST, 1))
    assert place.rows() == expected((FIRST, day(FIRST, 1)))


def test_memory_does_not_grow_with_the_partition_where_rows_stream(tmp_path):
    code = (
        "import sys, re; from pathlib import Path; import pyarrow as pa\n"
        "from mlworkbench.data.sinks.open_sink import open_sink\n"
        "def rows(n):\n"
        "    for i in range(0, n, 20_000):\n"
        "        yield pa.RecordBatch.from_pydict({'prediction_id': [f'{k:032}' for k in range(i, i + 20_000)],\n"
        "            'score': [0.5] * 20_000})\n"
        "open_sink(sys.argv[1], folder=Path('.')).write('all', rows(int(sys.argv[2])))\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    peaks = {}
    for rows in (40_000, 400_000):
        to = f"sqlite:///{tmp_path}/{rows}.db?table=p"
        done = subprocess.run([sys.executable, "-c", code, to, str(rows)], capture_output=True, text=True, check=True)
        peaks[rows] = int(done.stdout)
    print(f"peak MB by rows: {peaks}")
    assert peaks[400_000] < peaks[40_000] + 40, peaks


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("", "address.form"),
        ("delta:", "address.form"),
        ("ftp://ada:hunter2@host/x", "address.form"),
        ("gs://bucket/x", "address.form"),
        ("s3://ada:hunter2@bucket/x", "address.form"),
        ("s3://bucket", "address.form"),
        ("delta:sqlite:///x.db", "address.form"),
        ("sqlite:///x.db", "sink.table_name"),
        ("sqlite:///x.db?table=a&table=b", "sink.table_name"),
        ("sqlite:///x.db?table=", "sink.table_name"),
        ("sqlite:///x.db?mode=ro&table=p", "address.form"),
        ("sqlite:///x.db?table=sqlite_master", "sink.table_name"),
        ("sqlite:///x.db?table=%00", "sink.table_name"),
        ("postgresql://ada:hunter2@db/shop?table=p", "address.form"),
        ("postgresql://ada@db/shop?password=hunter2&table=p", "address.secret"),
        ("postgresql://ada:${NO_SUCH_VARIABLE}@db/shop?table=p", "address.variable_unset"),
        ("postgresql://db/shop?table=" + "x" * 64, "sink.name_long"),
        ("https://ada:hunter2@host/", "address.form"),
        ("https://host/#secret=hunter2", "address.form"),
        ("https://host/#secret=${NO_SUCH_VARIABLE}", "address.variable_unset"),
        ("https://host/${NO_SUCH_VARIABLE}", "address.variable_unset"),
        ("http://host.example/", "address.form"),
        ("http://127.0.0.1.example/", "address.form"),
        ("https:///path", "address.form"),
    ],
)
def test_what_is_no_address_of_a_sink_is_one_line_that_repeats_no_secret(tmp_path, to, code):
    with pytest.raises(WorkbenchError) as found:
        open_sink(to, folder=tmp_path)
    assert found.value.code == code
    assert "hunter2" not in str(found.value) and len(str(found.value)) < 330
    assert ("NO_SUCH_VARIABLE" in to) == ("NO_SUCH_VARIABLE" in str(found.value))
    assert list(tmp_path.iterdir()) == []


def test_a_delta_table_is_not_taken_for_a_folder_of_files(tmp_path):
    open_sink(f"delta:{tmp_path}/p", folder=tmp_path).write(FIRST, day(FIRST))
    with pytest.raises(IngestError, match="it is a Delta table; write it like delta:"):
        open_sink(f"{tmp_path}/p", folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(IngestError, check=lambda error: error.code == "sink.place"):
        open_sink(f"{tmp_path}/file", folder=tmp_path)


def test_addresses_from_the_root_and_tables_in_options(tmp_path):
    for to in ("https://h/x", "s3://b/x", "delta:s3://b/x", "postgresql://db/shop?table=p", "sqlite:////x.db?table=p"):
        assert rooted(to, tmp_path) == to
    assert rooted("out", tmp_path) == f"{tmp_path}/out"
    assert split_table("sqlite:///x.db?table=a%3Fb")[1] == "a?b"


def test_a_delta_table_of_other_columns_or_without_partitions_is_refused(tmp_path):
    import deltalake

    sink = open_sink(f"delta:{tmp_path}/p", folder=tmp_path)
    sink.write(FIRST, day(FIRST))
    for rows, said in (
        (day(FIRST).with_columns(pl.lit(1).alias("x")), "no column 'x'"),
        (day(FIRST).drop("score"), "has a column 'score' that the rows lack"),
        (day(FIRST).with_columns(pl.lit(1).alias("score")), "column 'score' is double; got int64"),
    ):
        with pytest.raises(IngestError, match=said):
            sink.write(FIRST, rows)
    table = day(FIRST).with_columns(pl.lit("x").alias("partition")).to_arrow()
    table = table.cast(pa.schema([(n, pa.string() if n != "score" else pa.float64()) for n in table.schema.names]))
    deltalake.write_deltalake(f"{tmp_path}/plain", table)
    with pytest.raises(IngestError, check=lambda error: error.code == "sink.partitioning"):
        open_sink(f"delta:{tmp_path}/plain", folder=tmp_path).write(FIRST, day(FIRST))


def test_another_writer_of_the_same_partition_is_seen_and_one_of_another_does_not_disturb(tmp_path):
    from deltalake import DeltaTable

    from mlworkbench.data.sinks.delta import DeltaSink

    sink = DeltaSink(f"{tmp_path}/p", wait=lambda _: None)
    sink.write(FIRST, day(FIRST))
    stale = DeltaTable(sink.url)
    DeltaSink(sink.url).write(SECOND, day(SECOND))
    opened = iter([stale])
    slow = DeltaSink(sink.url, wait=lambda _: None)
    object.__setattr__(slow, "_stored", lambda: next(opened, None) or DeltaTable(sink.url))
    slow.write(FIRST, day(FIRST, 1))
    assert DeltaTable(sink.url).version() == 2
    stale = DeltaTable(sink.url)
    DeltaSink(sink.url).write(FIRST, day(FIRST, 2))
    opened = iter([stale])
    slow.write(FIRST, day(FIRST, 2))
    assert DeltaTable(sink.url).version() == 3, "the other had written the same"


def test_the_log_of_a_delta_table_holds_no_values_of_rows(tmp_path):
    rows = day(FIRST).with_columns(pl.lit("Ada Lovelace").alias("name"), pl.lit(1815.25).alias("born"))
    open_sink(f"delta:{tmp_path}/p", folder=tmp_path).write(FIRST, rows)
    log = "".join(path.read_text() for path in (tmp_path / "p/_delta_log").glob("*.json"))
    assert "Ada" not in log and "1815" not in log and f"{FIRST}-0" not in log


def test_a_store_that_refuses_says_so_in_one_line(s3, monkeypatch, tmp_path):
    for to in (s3.url("p"), f"delta:{s3.url('d')}"):
        open_sink(to, folder=tmp_path).write(FIRST, day(FIRST))
    for name, value in s3.reader.items():
        monkeypatch.setenv(name, value)
    for to in (s3.url("p"), f"delta:{s3.url('d')}"):
        with pytest.raises(IngestError, match=r"cannot (write|open)") as found:
            open_sink(to, folder=tmp_path).write(FIRST, day(FIRST, 1))
        assert "secret" not in str(found.value)
