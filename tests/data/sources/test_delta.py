"""Delta tables of others as sources."""

from datetime import UTC, datetime

import deltalake
import polars as pl
import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem, S3FileSystem, SubTreeFileSystem

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.delta import DeltaSource
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.errors import IngestError


def write(path, flights, **more):
    deltalake.write_deltalake(str(path), pa.table({"flight": flights, "delay": list(range(len(flights)))}), **more)


def flights_of(source):
    return [flight for batch in source.batches() for flight in batch.column("flight").to_pylist()]


def test_a_folder_with_a_delta_log_is_one_table_as_of_its_newest_version(tmp_path):
    write(tmp_path / "landings", ["UA1", "UA2"])
    write(tmp_path / "landings", ["UA3"], mode="overwrite")
    source = open_source(str(tmp_path / "landings"))
    assert isinstance(source, DeltaSource)
    assert (source.version, source.rows, flights_of(source)) == (1, 1, ["UA3"])
    assert source.columns() == ["flight", "delay"]
    assert flights_of(DeltaSource(tmp_path / "landings", 0)) == ["UA1", "UA2"]


def test_the_fingerprint_is_the_table_and_its_version(tmp_path):
    write(tmp_path / "a", ["UA1"])
    write(tmp_path / "b", ["UA1"])
    first = open_source(tmp_path / "a").fingerprint
    assert open_source(tmp_path / "a").fingerprint == first != open_source(tmp_path / "b").fingerprint
    (tmp_path / "a").rename(tmp_path / "c")
    assert open_source(tmp_path / "c").fingerprint == first
    write(tmp_path / "c", ["UA2"], mode="append")
    assert open_source(tmp_path / "c").fingerprint != first
    assert DeltaSource(tmp_path / "c", 0).fingerprint == first


def test_many_files_and_partitions_come_in_one_order_and_small_batches(tmp_path):
    for start in range(3):
        numbers = list(range(start * 100_000, (start + 1) * 100_000))
        table = pa.table({"flight": [f"F{n}" for n in numbers], "carrier": ["UA", "AA"] * 50_000})
        deltalake.write_deltalake(str(tmp_path / "t"), table, mode="append", partition_by=["carrier"])
    source = open_source(tmp_path / "t")
    once, again = flights_of(source), flights_of(open_source(tmp_path / "t"))
    assert once == again and len(set(once)) == 300_000
    assert max(batch.num_rows for batch in source.batches()) <= 65_536
    carriers = [batch.column("carrier").to_pylist() for batch in source.batches()]
    assert {name for names in carriers for name in names} == {"UA", "AA"}


def test_later_versions_bring_only_new_keys(tmp_path):
    def known(frame):
        return pl.repeat(datetime(2013, 10, 1, tzinfo=UTC), frame.height, eager=True)

    home, place = Home.open(tmp_path / "home"), tmp_path / "landings"
    contract = Contract((Column("flight", "text"), Column("delay", "integer")), key=("flight",))
    table = Table("landings", place, contract, available_at=known)
    write(place, ["UA1", "UA2"])
    assert ingest(table, home=home).appended == 2
    assert ingest(table, home=home).appended == 0
    write(place, ["UA3"], mode="append")
    assert ingest(table, home=home).appended == 1
    write(place, ["UA2", "UA4"], mode="overwrite")
    assert ingest(table, home=home).appended == 1
    assert sorted(Lake(home.lake).read("landings")["flight"]) == ["UA1", "UA2", "UA3", "UA4"]


def test_a_missing_version_and_a_broken_log_are_refused_in_one_line(tmp_path):
    write(tmp_path / "t", ["UA1"])
    with pytest.raises(IngestError, match="t version 9: "):
        DeltaSource(tmp_path / "t", 9).columns()
    (tmp_path / "broken/_delta_log").mkdir(parents=True)
    with pytest.raises(IngestError, match="broken", check=lambda error: error.code == "source.unreadable"):
        open_source(tmp_path / "broken")


@pytest.mark.parametrize("dialect", ["postgresql", "mysql+pymysql", "duckdb"])
def test_an_address_of_a_database_without_a_query_says_what_to_write(dialect):
    with pytest.raises(IngestError, match="a database needs a query; write SqlSource") as failure:
        open_source(f"{dialect}://ada:secret@db/shop")
    assert "secret" not in str(failure.value)


def test_arrow_reads_a_table_in_its_own_threads_without_python(tmp_path, s3):
    """A thread that asks for the interpreter while it goes away ended one process in eight, after all rows were out."""
    places = {str(tmp_path / "t"): LocalFileSystem, s3.url("t"): S3FileSystem}
    for place, kind in places.items():
        deltalake.write_deltalake(place, pa.table({"flight": ["UA1"]}))
        files = open_source(place).dataset.filesystem
        assert isinstance(files, SubTreeFileSystem) and isinstance(files.base_fs, kind)
