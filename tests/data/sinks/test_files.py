import gzip
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.core.files import replace_file
from mlworkbench.data.sinks.files import ENDINGS, check_ending, read_partitions, write_file, write_partition
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.errors import IngestError

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
ROWS = pl.DataFrame(
    {"id": ["a", None], "n": [1, None], "x": [0.1 + 0.2, None], "at": [NOON, None], "scores": [[0.25, 0.75], None]}
)


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".jsonl.gz", ".parquet"])
def test_what_is_written_is_what_is_read(tmp_path, ending):
    path = write_file(tmp_path / f"rows{ending}", ROWS)
    back = pl.concat([pl.DataFrame(batch) for batch in open_source(path).batches()])
    if "parquet" not in ending:
        back = back.with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))
    assert back.select(ROWS.columns).equals(ROWS)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_csv_has_times_with_offset_and_lists_as_json(tmp_path, ending):
    path = write_file(tmp_path / f"rows{ending}", ROWS)
    text = gzip.decompress(path.read_bytes()).decode() if ending.endswith("gz") else path.read_text()
    header, first, second = text.splitlines()
    assert header == "id,n,x,at,scores"
    assert first == 'a,1,0.30000000000000004,2013-10-01T12:00:00.000000+00:00,"[0.25, 0.75]"'
    assert second == ",,,,"


def test_doubles_come_back_bit_for_bit_from_every_format(tmp_path):
    values = np.random.default_rng(0).normal(size=3_000) * 10.0 ** np.random.default_rng(1).integers(-200, 200, 3_000)
    for ending in (".csv", ".jsonl", ".parquet"):
        path = write_file(tmp_path / f"x{ending}", pl.DataFrame({"x": values}))
        back = np.concatenate([batch.column("x").to_numpy() for batch in open_source(path).batches()])
        assert back.tobytes() == values.tobytes(), ending


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


ODD = pl.DataFrame(
    {
        "x": [np.nan, np.inf, -np.inf, None, 0.1],
        "list": [[0.5, np.inf], [np.nan, -np.inf], [], None, [1.0]],
        "n": [1, None, 3, 4, 5],
        "text": ["two\nlines", 'a "quote", and a comma', "", None, "Infinity"],
    }
)


@pytest.mark.parametrize("ending", ENDINGS)
def test_nan_infinity_none_and_texts_with_newlines_read_back_from_every_format(tmp_path, ending):
    path = write_file(tmp_path / f"odd{ending}", ODD)
    rows = [row for batch in open_source(path).batches() for row in batch.to_pylist()]
    missing = [np.isnan(row["x"]) if row["x"] is not None else True for row in rows]
    assert missing == [True, False, False, True, False], "NaN is missing"
    assert [rows[n]["x"] for n in (1, 2, 4)] == [np.inf, -np.inf, 0.1]
    assert [row["n"] for row in rows] == ODD["n"].to_list()
    assert [row["text"] for row in rows] == ODD["text"].to_list()


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson.gz"])
def test_nan_and_infinity_leave_json_valid(tmp_path, ending):
    path = write_file(tmp_path / f"odd{ending}", ODD)
    text = gzip.decompress(path.read_bytes()) if ending.endswith("gz") else path.read_bytes()
    rows = [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]
    assert [row["x"] for row in rows] == [None, "Infinity", "-Infinity", None, 0.1]
    assert [row["list"] for row in rows] == [[0.5, "Infinity"], [None, "-Infinity"], [], None, [1.0]]
    plain = write_file(tmp_path / "plain.jsonl", pl.DataFrame({"x": [np.nan, 1.0], "list": [[np.nan], [1.0]]}))
    assert [json.loads(line, parse_constant=no_constant) for line in plain.read_text().splitlines()] == [
        {"x": None, "list": [None]},
        {"x": 1.0, "list": [1.0]},
    ]


def test_a_list_in_csv_is_valid_json_whatever_its_numbers(tmp_path):
    cells = pl.read_csv(write_file(tmp_path / "odd.csv", ODD))["list"].to_list()
    lists = [None if cell is None else json.loads(cell, parse_constant=no_constant) for cell in cells]
    assert lists == [[0.5, "Infinity"], [None, "-Infinity"], [], None, [1.0]]


def test_a_column_of_texts_keeps_the_word_infinity(tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text('{"word": "Infinity", "x": "Infinity"}\n{"word": "a", "x": 2}\n{"x": null}\n')
    (batch,) = open_source(path).batches()
    assert batch.to_pydict() == {"word": ["Infinity", "a", None], "x": [np.inf, 2.0, None]}
    path.write_text('{"x": "Infinity"}\n{"x": NaN}\n')
    with pytest.raises(IngestError, match=r"words\.jsonl: cannot be read"):
        open_source(path)
    path.write_text('{"x": "Infinity"}\n{"x": 2}\n{"x": "a"}\n')
    with pytest.raises(IngestError, match=r"words\.jsonl: cannot be read"):
        open_source(path)


def test_a_stream_of_batches_is_written_like_a_table(tmp_path):
    table = ROWS.to_arrow()
    for ending in (".csv", ".jsonl", ".parquet"):
        whole = write_file(tmp_path / f"whole{ending}", table)
        parts = write_file(tmp_path / f"parts{ending}", iter(table.to_batches(max_chunksize=1)))
        if ending != ".parquet":
            assert whole.read_bytes() == parts.read_bytes()
        assert open_source(whole).rows == open_source(parts).rows == 2
    with pytest.raises(IngestError, check=lambda error: error.code == "sink.empty"):
        write_file(tmp_path / "none.csv", iter(()))


def test_a_table_without_rows_still_has_its_columns(tmp_path):
    assert write_file(tmp_path / "none.csv", ROWS[:0]).read_text() == "id,n,x,at,scores\n"
    assert open_source(write_file(tmp_path / "none.parquet", ROWS[:0])).columns() == ROWS.columns


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_file(tmp_path / "rows.csv", ROWS)
    before = path.read_bytes()

    def stream():
        yield ROWS.to_arrow().to_batches()[0]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_file(path, stream())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize("name", ["rows.xlsx", "rows", "rows.csv.zip", "rows.parquet.gz", "rows.gz"])
def test_an_unknown_ending_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(IngestError, check=lambda error: error.code == "file.format"):
        check_ending(name)
    with pytest.raises(IngestError, check=lambda error: error.code == "file.format"):
        write_file(tmp_path / name, ROWS)
    assert list(tmp_path.iterdir()) == []


def test_a_partition_written_twice_is_there_once(tmp_path):
    for _ in range(2):
        write_partition(tmp_path, "2013-10-01", ROWS)
    write_partition(tmp_path, "2013-09-30", ROWS[:1])
    assert read_partitions(tmp_path).num_rows == 3
    assert read_partitions(tmp_path).column("id").to_pylist() == ["a", "a", None]


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a b"])
def test_a_name_that_leads_elsewhere_is_no_partition(tmp_path, name):
    with pytest.raises(IngestError, check=lambda error: error.code == "sink.partition_name"):
        write_partition(tmp_path, name, ROWS)


def test_a_folder_without_partitions_is_refused(tmp_path):
    with pytest.raises(IngestError, check=lambda error: error.code == "sink.no_partition"):
        read_partitions(tmp_path)


WRITE_SLOWLY = """
import sys, time
from pathlib import Path
from mlworkbench.core.files import replace_file
with replace_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


def test_a_writer_that_is_killed_leaves_no_file_and_the_next_one_cleans_up(tmp_path):
    path = tmp_path / "rows.csv"
    worker = subprocess.Popen([sys.executable, "-c", WRITE_SLOWLY, str(path)], stdout=subprocess.PIPE)
    assert worker.stdout.readline().strip() == b"writing"
    with replace_file(path) as file:  # a second writer leaves the first one's file alone
        file.write(b"whole")
    assert len(list(tmp_path.glob(".*.part"))) == 1
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(30)
    worker.stdout.close()
    assert path.read_bytes() == b"whole"
    time.sleep(0.1)
    write_file(path, pa.table({"a": [1]}))
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]
