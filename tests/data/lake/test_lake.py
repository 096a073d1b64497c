import json
import subprocess
import sys

import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import IngestError

ROWS = pa.table({"name": ["a", "b"], "n": [1, 2]})


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def stored(lake, name):
    return sorted(lake.read(name).rows())


def test_a_new_lake_is_empty(lake):
    assert lake.tables() == []
    assert not lake.exists("flights")


def test_an_append_is_one_commit_whatever_the_number_of_batches(lake):
    batches = (batch for _ in range(5) for batch in ROWS.to_batches())
    assert lake.append("t", batches) == 10
    assert lake.version("t") == 0
    assert lake.append("t", ROWS) == 2
    assert lake.version("t") == 1
    assert lake.read("t").height == 12
    assert lake.tables() == ["t"]


def test_an_append_of_nothing_writes_nothing(lake):
    assert lake.append("t", iter(())) == 0
    assert lake.append("t", ROWS[:0]) == 0
    assert not lake.exists("t")


def test_a_transaction_happens_once(lake):
    assert [lake.append("t", ROWS, transaction=name) for name in ("x", "x", "y", "x")] == [2, 0, 2, 0]
    assert lake.read("t").height == 4


def test_an_older_version_can_be_read(lake):
    lake.append("t", ROWS)
    lake.append("t", ROWS)
    assert lake.read("t", version=0).height == 2
    assert lake.scan("t", version=0).select(pl.len()).collect().item() == 2


def test_overwriting_replaces_rows_and_columns_in_one_commit(lake):
    lake.append("t", ROWS)
    assert lake.overwrite("t", pa.table({"x": [1.5]})) == 1
    assert lake.version("t") == 1
    assert lake.read("t").to_dicts() == [{"x": 1.5}]
    assert lake.read("t", version=0).height == 2


def test_overwriting_makes_a_table_that_is_not_there(lake):
    lake.overwrite("t", ROWS)
    assert stored(lake, "t") == [("a", 1), ("b", 2)]


def test_columns_in_another_order_are_the_same_columns(lake):
    lake.append("t", ROWS)
    lake.append("t", pa.table({"n": [3], "name": ["c"]}))
    assert stored(lake, "t") == [("a", 1), ("b", 2), ("c", 3)]


def test_the_same_columns_may_come_from_polars_pandas_and_arrow(lake):
    rows = pl.DataFrame({"name": ["a"], "n": [1]})
    narrow = rows.with_columns(pl.col("n").cast(pl.Int8), pl.col("name").cast(pl.Categorical))
    for given in (rows.to_arrow(), pa.Table.from_pandas(rows.to_pandas()), rows.to_arrow(), narrow.to_arrow()):
        lake.append("t", given)
    assert stored(lake, "t") == [("a", 1)] * 4
    lake.overwrite("t", rows.to_arrow())
    assert [str(kind) for kind in lake.schema("t").types] == ["string", "int64"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"name": ["c"], "n": [3], "x": [1]}, "column 'x' is new"),
        ({"name": ["c"], "n": ["3"]}, "column 'n' is int64; got string"),
        ({"name": ["c"], "n": [3.0]}, "column 'n' is int64; got double"),
        ({"name": ["c"]}, "column 'n' is missing"),
    ],
)
def test_other_columns_are_refused_by_name_and_nothing_is_written(lake, rows, words):
    lake.append("t", ROWS)
    with pytest.raises(IngestError) as caught:
        lake.append("t", pa.table(rows))
    assert words in str(caught.value)
    assert lake.version("t") == 0


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.null()])
def test_times_without_zone_or_finer_than_microseconds_are_refused(lake, kind):
    with pytest.raises(IngestError, match="column 'at'"):
        lake.append("t", pa.table({"at": pa.array([None], kind)}))
    assert not lake.exists("t")


def test_what_pandas_leaves_in_a_schema_does_not_reach_the_table(lake):
    rows = pa.Table.from_pandas(ROWS.to_pandas(), preserve_index=False)
    assert rows.schema.metadata
    lake.append("t", rows)
    assert "pandas" not in (lake.path / "t" / "_delta_log" / "00000000000000000000.json").read_text()


def test_an_error_in_the_stream_reaches_the_caller_as_it_was_and_nothing_is_committed(lake):
    def stream():
        yield from ROWS.to_batches()
        raise IngestError("half a file")

    lake.append("t", ROWS)
    with pytest.raises(IngestError, match=r"^half a file$"):
        lake.append("t", stream())
    assert lake.version("t") == 0
    assert lake.read("t").height == 2


def test_texts_and_personal_numbers_stay_out_of_the_log(lake):
    rows = pa.table({"name": ["Ada"], "age": [36], "n": [7]})
    lake.append("t", rows, personal=["name", "age"])
    log = (lake.path / "t" / "_delta_log" / "00000000000000000000.json").read_text()
    added = [json.loads(line)["add"] for line in log.splitlines() if '"add"' in line]
    assert json.loads(added[0]["stats"])["maxValues"] == {"n": 7}
    assert "Ada" not in log


def test_a_table_with_no_numbers_can_be_written(lake):
    lake.append("t", ROWS.select(["name"]))
    assert lake.read("t").height == 2


def test_a_column_with_an_unusual_name_can_be_written(lake):
    lake.append("t", pa.table({"distance (miles)": [1.0], "a.b": [2], "für": [3]}))
    assert lake.read("t").columns == ["distance (miles)", "a.b", "für"]


@pytest.mark.parametrize("name", ["", "../x", "Flights", "a b", "1st", "x" * 64])
def test_a_name_that_is_no_table_name_is_refused(lake, name):
    with pytest.raises(IngestError, check=lambda error: error.code == "lake.table_name"):
        lake.append(name, ROWS)


def test_unknown_tables_columns_and_versions_are_refused_with_a_way_out(lake):
    lake.append("flights", ROWS)
    with pytest.raises(IngestError, match="did you mean 'flights'"):
        lake.read("flihgts")
    with pytest.raises(IngestError, match="no column 'nam'; did you mean 'name'"):
        lake.read("flights", columns=["nam"])
    with pytest.raises(IngestError, match="version 9 is not there; it has 0 to 0"):
        lake.read("flights", version=9)


APPEND_FIVE = """
import sys
import pyarrow as pa
from mlworkbench.data.lake.lake import Lake
for _ in range(5):
    Lake(sys.argv[1]).append("t", pa.table({"name": ["a", "b"], "n": [1, 2]}))
"""


def test_two_processes_that_append_lose_nothing(lake):
    lake.append("t", ROWS)
    workers = [subprocess.Popen([sys.executable, "-c", APPEND_FIVE, str(lake.path)]) for _ in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert lake.read("t").height == 22


def test_new_columns_are_merged_where_that_is_asked_for_and_survive_a_compaction(lake):
    from mlworkbench.data.lake.maintenance import compact

    lake.append("t", ROWS, merge=True)
    lake.append("t", ROWS.append_column("gate", pa.array(["C7", None])), merge=True)
    before = lake.read("t").sort("n", "gate", nulls_last=True)
    assert before["gate"].to_list() == ["C7", None, None, None]
    compact(lake, "t")
    assert lake.read("t").sort("n", "gate", nulls_last=True).equals(before)
