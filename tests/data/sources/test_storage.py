"""Sources in a store: the same rows and the same fingerprints as on this machine, and one line for every mistake."""

from __future__ import annotations

import gzip
import hashlib
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import fsspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources import storage
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.data.sources.storage import StoredFile, check_address, find_files, is_address
from mlworkbench.errors import IngestError

ROWS = pl.DataFrame({"flight": ["UA1", "AA2", None], "delay": [3.5, None, -1.0], "day": [1, 2, 3]})
CSV = b"flight,delay,day\nUA1,3.5,1\nAA2,,2\n,-1.0,3\n"
JSON = ROWS.write_ndjson().encode()
CONTRACT = Contract(
    (Column("flight", "text", nullable=True), Column("delay", "number", nullable=True), Column("day", "integer"))
)


def parquet(frame=ROWS):
    sink = pa.BufferOutputStream()
    pa_parquet.write_table(frame.to_arrow(), sink)
    return sink.getvalue().to_pybytes()


FILES = {
    "a.csv": CSV,
    "a.csv.gz": gzip.compress(CSV),
    "a.jsonl": JSON,
    "a.ndjson.gz": gzip.compress(JSON),
    "a.parquet": parquet(),
}


def rows_of(source):
    return [row for batch in source.batches() for row in batch.to_pylist()]


def refused(given):
    """Give the one line with which a source is refused; nothing in it or behind it is a secret."""
    with pytest.raises(IngestError) as caught:
        rows_of(open_source(given))
    whole = "".join(traceback.format_exception(caught.value))
    assert "workbench/secret" not in whole
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def table(source):
    day = pl.datetime(2013, 10, pl.col("day"), time_zone="UTC")
    return Table("delays", source, CONTRACT, available_at=lambda frame: frame.select(at=day)["at"])


@pytest.mark.parametrize("name", FILES)
def test_an_object_and_a_file_with_the_same_bytes_are_the_same_source(s3, tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    local, remote = open_source(tmp_path / name), open_source(s3.write(name, FILES[name]))
    assert rows_of(remote) == rows_of(local) == ROWS.to_dicts()
    assert remote.fingerprint == local.fingerprint
    assert (remote.name, remote.rows, remote.columns()) == (name, 3, ["flight", "delay", "day"])


def test_a_folder_and_a_pattern_of_a_store_name_what_they_would_name_on_this_machine(s3, tmp_path):
    for name in ("2013/10/b.csv", "2013/9/a.csv", "2013/9/_c.csv", "2013/9/deep/d.csv", "2014/1/a.csv"):
        content = f"name\n{name}\n".encode()
        s3.write(name, content)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for pattern in ("2013/9", "2013/9/", "2013/*/*.csv", "2013/**/*.csv", "201?/[0-9]/a.csv", "2013/**"):
        local, remote = open_source(f"{tmp_path}/{pattern}"), open_source(s3.url(pattern))
        assert rows_of(remote) == rows_of(local), pattern
        assert remote.fingerprint == local.fingerprint
    assert [row["name"] for row in rows_of(open_source(s3.url("2013/**")))] == [
        "2013/10/b.csv",
        "2013/9/a.csv",
        "2013/9/deep/d.csv",
    ]


def test_a_large_folder_is_listed_to_its_end(s3):
    names = [f"{number:04}.csv" for number in range(1_005)]  # a store tells a thousand at a time
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3.write(f"many/{name}", b"n\n1\n"), names))
    assert [file.name for file in find_files(s3.url("many/*.csv"))] == names


def test_a_delta_table_of_a_store_is_read_as_of_its_version(s3):
    deltalake.write_deltalake(s3.url("lake/delays"), ROWS.to_arrow())
    first = open_source(s3.url("lake/delays"))
    deltalake.write_deltalake(s3.url("lake/delays"), ROWS[:1].to_arrow(), mode="append")
    second = open_source(s3.url("lake/delays/"))
    assert rows_of(first) == ROWS.to_dicts()
    assert (first.name, second.name, second.rows) == ("delays version 0", "delays version 1", 4)
    assert first.fingerprint != second.fingerprint


def test_a_delta_table_behind_an_http_endpoint_needs_no_second_permission(s3, monkeypatch):
    deltalake.write_deltalake(s3.url("delays"), ROWS.to_arrow())
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert open_source(s3.url("delays")).rows == 3


def test_files_of_a_delta_table_are_not_taken_one_by_one(s3, tmp_path):
    for place in (s3.url("lake"), str(tmp_path / "lake")):
        deltalake.write_deltalake(f"{place}/delays", ROWS.to_arrow())
        for pattern in ("**/*.parquet", "*/*.parquet", "delays/*.parquet"):
            assert "a Delta table" in refused(f"{place}/{pattern}")
        assert "no file of its own" in refused(place)


def test_rows_of_a_store_reach_the_lake_exactly_once_also_after_a_move(s3, home, tmp_path):
    s3.write("inbox/1.csv", CSV)
    assert ingest(table(s3.url("inbox/*.csv")), home=home).appended == 3
    again = ingest(table(s3.url("inbox/*.csv")), home=home)
    assert (again.appended, again.skipped) == (0, 3)
    s3.write("inbox/2.csv", b"flight,delay,day\nDL4,1,4\n")
    more = ingest(table(s3.url("inbox/*.csv")), home=home)
    assert (more.appended, more.skipped) == (1, 3)
    s3.write("archive/2013/one.csv", CSV)
    s3.remove("inbox/1.csv")
    moved = ingest(table(s3.url("**/*.csv")), home=home)
    assert (moved.appended, moved.skipped) == (0, 4)
    (tmp_path / "one.csv").write_bytes(CSV)
    here = ingest(table(tmp_path / "one.csv"), home=home)
    assert (here.appended, here.skipped) == (0, 3)
    assert Lake(home.lake).read("delays").height == 4


def test_an_object_that_changes_while_it_is_read_is_refused(s3):
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        source = open_source(s3.write(name, FILES[name]))
        _ = source.fingerprint
        stream = source.batches()
        next(stream)
        s3.write(name, FILES[name])  # the same bytes at another time would be harmless, and cannot be told apart
        s3.write(name, FILES[name] + b" ")
        with pytest.raises(IngestError, match=rf"{name}: changed while it was read"):
            list(stream)
        with pytest.raises(IngestError, check=lambda error: error.code == "source.changed"):
            rows_of(source)


def test_an_object_that_is_cut_short_after_it_was_opened_is_said_to_have_changed(s3):
    big = pl.DataFrame({"n": range(300_000)})
    source = open_source(s3.write("n.parquet", parquet(big)))
    s3.write("n.parquet", parquet(big[:10]))
    with pytest.raises(IngestError, match=r"n\.parquet: changed while it was read"):
        rows_of(source)
    source = open_source(s3.write("n.csv", CSV))
    s3.remove("n.csv")
    with pytest.raises(IngestError, match=r"n\.csv: cannot be reached"):
        rows_of(source)


def test_a_wrong_key_is_one_line_without_the_key(s3, monkeypatch):
    address = s3.write("a.csv", CSV)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "workbench/secret+2")
    for given in (address, s3.url("*.csv"), s3.url("**/*.csv"), s3.url()):
        assert "ACCESS_DENIED" in refused(given)


def test_a_missing_bucket_folder_or_object_is_told_by_its_own_name(s3):
    s3.write("2013/flights.csv", CSV)
    assert "no such folder as nobody" in refused("s3://nobody/2013/*.csv")
    assert "no such folder as 2031; did you mean '2013'" in refused(s3.url("2031/flights.csv"))
    assert "no such file or folder; did you mean 'flights.csv'" in refused(s3.url("2013/flihgts.csv"))
    assert "no file matches; known: flights.csv" in refused(s3.url("2013/*.parquet"))


def test_no_server_is_one_line(s3, monkeypatch):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "cannot be reached" in refused(s3.url("a.csv"))


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:workbench/secret@shop/a.csv",
        "s3://key:123/workbench/secret@shop/a.csv",
        "sftp://ada:workbench/secret@host/a.csv",
        "https://shop.example/a.csv?X-Amz-Signature=workbench/secret",
        "s3://shop/a.csv?access_key=k&secret_key=workbench/secret",
        "zip://a.csv::sftp://ada:workbench/secret@host/a.zip",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(address):
    assert "a password" in refused(address)


@pytest.mark.parametrize(
    "address", ["s3://shop/a?b.csv", "abfss://box@shop.dfs.core.windows.net/a", "s3://shop/10:30.csv"]
)
def test_an_address_without_a_secret_is_taken(address):
    check_address(address)
    assert is_address(address)


def test_a_protocol_that_nobody_knows_or_whose_package_is_missing_is_one_line():
    assert "Protocol not known" in refused("s4://shop/a.csv")
    assert "paramiko" in refused("sftp://host/a.csv")


def test_any_file_system_of_fsspec_is_a_store():
    store = fsspec.filesystem("memory")
    for name in ("1/a.csv", "2/b.csv"):
        store.pipe(f"/shop/{name}", CSV)
    source = open_source("memory://shop/*/*.csv")
    assert rows_of(source) == ROWS.to_dicts() * 2
    assert [part.name for part in source.parts] == ["1/a.csv", "2/b.csv"]
    one = open_source("memory://shop/1/a.csv")
    store.pipe("/shop/1/a.csv", CSV)
    with pytest.raises(IngestError, check=lambda error: error.code == "source.changed"):
        rows_of(one)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_store_is_asked_once_for_types_and_fingerprint(monkeypatch, name):
    opened = []
    read = StoredFile._bytes
    monkeypatch.setattr(StoredFile, "_bytes", lambda self: opened.append(self.name) or read(self))
    content = CSV if name.endswith("csv") else ROWS.write_ndjson().encode()
    fsspec.filesystem("memory").pipe(f"/once/{name}", content)
    source = open_source(f"memory://once/{name}")
    assert source.fingerprint == hashlib.sha256(content).hexdigest()[:32]
    assert opened == [name]


def test_arrow_reads_no_file_of_python():
    """A thread of Arrow's that asks for Python while it goes away ends the process with 134."""
    fsspec.filesystem("memory").pipe("/shop/a.csv", CSV)
    file = open_source("memory://shop/a.csv").file
    with file.first_pass() as opened:
        streams = [opened(), file.stream(), file.open()]
    assert [type(stream) for stream in streams] == [pa.OSFile] * 3
    assert {stream.read() for stream in streams} == {CSV}


def test_a_full_disk_is_one_line(monkeypatch):
    def full(**_):
        return Path("/dev/full").open("wb")

    fsspec.filesystem("memory").pipe("/shop/a.csv", CSV)
    monkeypatch.setattr(storage.tempfile, "NamedTemporaryFile", full)
    assert "TMPDIR): No space left on device; free some space" in refused("memory://shop/a.csv")


MEASURE = """
import sys
from pathlib import Path
import pyarrow
from mlworkbench.data.sources.open_source import open_source
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
for batch in open_source(sys.argv[1]).batches(): pass
before = peak()
source = open_source(sys.argv[2])
source.fingerprint
rows = sum(len(batch) for batch in source.batches())
print(rows, int(peak() - before), pyarrow.default_memory_pool().max_memory() >> 20)
"""


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "parquet", "delta"])
def test_memory_does_not_grow_with_the_object(s3, ending):
    """Many times as many rows: Arrow never holds more than a few batches, the process little more than before."""
    n = pl.col("n")
    frame = pl.DataFrame({"n": range(250_000 if ending in ("parquet", "delta") else 80_000)})
    frame = frame.with_columns(text=pl.format("A flight of some length, number {}", n), half=n * 0.5)
    names = {}
    for times in (1, 24 if ending == "parquet" else 12):
        names[times] = s3.url(f"{times}.{ending}")
        write(s3, f"{times}.{ending}", ending, frame, times)
    ran = subprocess.run([sys.executable, "-c", MEASURE, *names.values()], capture_output=True, text=True, check=True)
    rows, more, held = map(int, ran.stdout.split())
    assert rows == times * frame.height
    assert held < 70, held
    assert more < 90, more


def write(s3, name, ending, frame, times):
    """Write a frame many times into one object, or into one commit each."""
    if ending == "delta":
        for _ in range(times):
            deltalake.write_deltalake(s3.url(name), frame.to_arrow(), mode="append")
        return
    with s3.files.open_output_stream(s3.key(name), compression=None) as sink:
        if ending == "parquet":
            with pa_parquet.ParquetWriter(sink, frame.to_arrow().schema) as writer:
                for _ in range(times):
                    writer.write_table(frame.to_arrow())
            return
        for number in range(times):
            text = frame.write_ndjson() if ending == "jsonl" else frame.write_csv(include_header=number == 0)
            sink.write(gzip.compress(text.encode(), 1) if ending.endswith("gz") else text.encode())
