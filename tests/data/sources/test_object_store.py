"""The server that other tests lean on does what an object store does."""

from __future__ import annotations

import deltalake
import pyarrow as pa
import pytest
from pyarrow.fs import FileSystem


def test_an_object_is_read_back_by_its_address(s3):
    files, path = FileSystem.from_uri(s3.write("a/b.csv", b"carrier\nUA\n"))
    with files.open_input_stream(path) as stream:
        assert stream.read() == b"carrier\nUA\n"


def test_a_wrong_key_and_a_missing_right_are_refused(s3, monkeypatch):
    s3.write("b.csv", b"carrier\n")
    for name, value in s3.reader.items():
        monkeypatch.setenv(name, value)
    files, path = FileSystem.from_uri(s3.url("b.csv"))
    assert files.get_file_info(path).size == 8
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        files.open_output_stream(path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    files, path = FileSystem.from_uri(s3.url("b.csv"))
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        files.get_file_info(path)


def test_two_writers_of_one_delta_table_never_write_one_version(s3):
    rows = pa.table({"delay": [3.0]})
    deltalake.write_deltalake(s3.url("delays"), rows)
    tables = [deltalake.DeltaTable(s3.url("delays")) for _ in range(3)]
    for table in tables:  # each believes that version 0 is the newest
        deltalake.write_deltalake(table, rows, mode="append")
    assert deltalake.DeltaTable(s3.url("delays")).version() == 3
    assert deltalake.DeltaTable(s3.url("delays")).to_pyarrow_table().num_rows == 4
