from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.table import Table, prepare
from mlworkbench.errors import IngestError, UserCodeError

CONTRACT = Contract((Column("at", "time"), Column("delay", "number", nullable=True)))
ROWS = pa.RecordBatch.from_pydict({"at": ["2013-10-01T12:00:00Z"] * 3, "delay": [1.0, None, 3.0]})
NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)


def table(available_at="at", transform=None, **more):
    return Table("delays", None, CONTRACT, available_at=available_at, transform=transform, **more)


def times(prepared):
    return prepared.batch.column("available_at").to_pylist()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "Delays"}, "lower-case"),
        ({"limit": 5}, "limit must be a share"),
        ({"limit": -0.1}, "limit must be a share"),
        ({"contract": Contract((Column("source", "text"),))}, "'source' is written by ingest"),
        ({"available_at": "delay"}, "must be of kind time"),
        ({"contract": Contract((Column("available_at", "text"),))}, "must be of kind time"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_when_it_is_made(given, words):
    with pytest.raises(IngestError, match=words):
        Table(**{"name": "delays", "source": None, "contract": CONTRACT, "available_at": "at", **given})


def test_positions_go_on_from_the_first():
    assert prepare(table(), ROWS, 100, what="f").batch.column("source_row").to_pylist() == [100, 101, 102]


def test_availability_is_a_column_of_the_contract_a_column_beside_it_or_a_function():
    beside = lambda frame: frame.with_columns(known=pl.lit(NOON + timedelta(hours=1)))  # noqa: E731
    assert times(prepare(table(), ROWS, 0, what="f")) == [NOON] * 3
    assert times(prepare(table("known", beside), ROWS, 0, what="f")) == [NOON + timedelta(hours=1)] * 3
    assert (
        times(prepare(table(lambda frame: frame["at"] + timedelta(days=1)), ROWS, 0, what="f"))
        == [NOON + timedelta(days=1)] * 3
    )


def test_another_zone_is_the_same_instant_and_a_naive_one_is_refused():
    there = lambda frame: frame["at"].dt.convert_time_zone("Asia/Tokyo")  # noqa: E731
    assert times(prepare(table(there), ROWS, 0, what="f")) == [NOON] * 3
    with pytest.raises(IngestError, match="column 'available_at' must be time"):
        prepare(table(lambda frame: frame["at"].dt.replace_time_zone(None)), ROWS, 0, what="f")


def test_a_row_without_availability_is_a_fault():
    some = lambda frame: pl.select(pl.when(frame["delay"].is_not_null()).then(frame["at"])).to_series()  # noqa: E731
    prepared = prepare(table(some), ROWS, 0, what="f")
    assert [(fault.row, fault.column) for fault in prepared.faults] == [(1, "available_at")]


def test_an_unknown_availability_column_is_refused_with_the_nearest():
    with pytest.raises(IngestError, match="available_at names a column; got 'dely'; did you mean 'delay'"):
        prepare(table("dely"), ROWS, 0, what="f")


def test_a_transform_that_keeps_source_row_may_drop_rows():
    keep = lambda frame: frame.filter(pl.col("delay").is_not_null())  # noqa: E731
    prepared = prepare(table(transform=keep), ROWS, 10, what="f")
    assert prepared.batch.column("source_row").to_pylist() == [10, 12]


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda frame: frame[:1].drop("source_row"), "changed the number of rows; got 3 rows in, 1 out"),
        (lambda frame: pl.concat([frame, frame]), "made two rows of one"),
        (lambda frame: frame.with_columns(source_row=pl.col("source_row") + 50), "made two rows of one"),
        (lambda frame: frame.lazy(), "must return a polars frame; got LazyFrame"),
        (lambda frame: frame.with_columns(x=1), "column 'x' is new"),
        (lambda frame: frame.select("at"), "column 'delay' of the contract is missing"),
    ],
)
def test_a_transform_that_loses_track_of_rows_or_columns_is_refused(transform, words):
    with pytest.raises(IngestError, match=words):
        prepare(table(transform=transform), ROWS, 0, what="f")


def test_an_error_in_the_users_code_names_file_line_and_row():
    def transform(frame):
        if (frame["delay"].fill_null(0) > 2).any():
            raise ZeroDivisionError("three is too many")
        return frame

    with pytest.raises(UserCodeError) as caught:
        prepare(table(transform=transform), ROWS, 40, what="f.csv")
    message = str(caught.value)
    assert message.startswith("f.csv: transform: ZeroDivisionError: three is too many; at ")
    assert "test_table.py, line" in message
    assert "row 42" in message


def test_an_error_that_only_many_rows_raise_names_no_row():
    def transform(frame):
        if frame.height > 1:
            raise ValueError("one at a time")
        return frame

    with pytest.raises(UserCodeError) as caught:
        prepare(table(transform=transform), ROWS, 0, what="f")
    assert ", row" not in str(caught.value)
