import gzip
import json

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from mlworkbench.data.sources.formats import CSV, PATTERNS, csv_types, find_format
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.data.sources.storage import StoredFile, locate
from mlworkbench.errors import IngestError


def stored(path):
    return StoredFile(*locate(path), path.name)


def read(path, text=()):
    form, file = find_format(path.name), stored(path)
    schema, rows = form.schema(file, text)
    batches = list(form.batches(file, schema))
    assert sum(batch.num_rows for batch in batches) == rows
    return pa.Table.from_batches(batches, schema)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", ""], "int64"),
        (["1", "2.5"], "double"),
        (["1", "NA"], "int64"),
        (["1e5", ".5", "-inf"], "double"),
        (["true", "False"], "bool"),
        (["true", "1"], "string"),
        (["007"], "string"),
        (["-0.5", "0"], "double"),
        (["1234567890123456789"], "string"),
        (["+41791234567"], "string"),
        (["1_000"], "string"),
        (["2013-10-01T12:00:00Z"], "string"),
        (["x", "NA"], "string"),
        (["", ""], "null"),
        (["NA", '""'], "null"),
    ],
)
def test_a_csv_column_has_the_narrowest_type_that_all_its_cells_fit_without_loss(tmp_path, cells, kind):
    path = tmp_path / "c.csv"
    path.write_text("a,b\n" + "".join(f"{cell},x\n" for cell in cells))
    assert str(read(path).schema.field("a").type) == kind


@pytest.mark.parametrize("position", [0, 69_999, 139_999])
def test_the_type_does_not_depend_on_where_the_odd_cell_stands(tmp_path, position):
    cells = ["1"] * 140_000
    cells[position] = "x"
    path = tmp_path / "c.csv"
    path.write_text("a\n" + "\n".join(cells) + "\n")
    table = read(path)
    assert table.schema.field("a").type == pa.string()
    assert table.column("a").to_pylist() == cells


def test_na_is_a_text_among_texts_and_missing_among_numbers(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('country,n,note\nNA,NA,""\nCH,1,\nDE,"",x\n')
    assert read(path).to_pylist() == [
        {"country": "NA", "n": None, "note": ""},
        {"country": "CH", "n": 1, "note": None},
        {"country": "DE", "n": None, "note": "x"},
    ]


def test_a_column_declared_as_text_is_never_taken_for_a_number(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("flight,n\n1,1\n2,2\n")
    assert read(path, text=("flight",)).to_pylist()[0] == {"flight": "1", "n": 1}


def test_doubles_written_by_python_come_back_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=2_000) * 10.0 ** np.random.default_rng(1).integers(-300, 300, 2_000)
    path = tmp_path / "c.csv"
    path.write_text("x\n" + "\n".join(repr(float(value)) for value in values) + "\n")
    assert read(path).column("x").to_pylist() == values.tolist()


def test_line_breaks_and_commas_inside_quotes_belong_to_the_cell(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('a,b\n"x\ny","1,5"\n')
    assert read(path).to_pylist() == [{"a": "x\ny", "b": "1,5"}]


def test_compressed_files_are_read_like_plain_ones(tmp_path):
    for name, text in {"c.csv": "a\n1\n2\n", "c.jsonl": '{"a":1}\n{"a":2}\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        assert read(tmp_path / name).equals(read(tmp_path / f"{name}.gz"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert read(tmp_path / "c.csv").column_names == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.csv", b"", "Empty CSV"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "Expected 2 columns, got 3"),
        ("latin.csv", "a\ncafé\n".encode("latin1"), "UTF"),
        ("twice.csv", b"a,a\n1,2\n", "'a' twice"),
        ("broken.csv.gz", b"no gzip", "broken.csv.gz"),
        ("broken.jsonl", b'{"a": 1}\n{"a": \n', "line 2: one JSON object"),
        ("mixed.jsonl", b'{"a": 1}\n{"a": "x"}\n', "from number to string"),
        ("list.jsonl", b'[{"a": 1}, 1]\n', "element 2: an object"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "cut.jsonl.gz"),
        ("broken.parquet", b"PAR1 no", "broken.parquet"),
        ("table.xls", b"", ".parquet"),
        ("no_ending", b"", ".csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line_with_its_name(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IngestError) as caught:
        read(path)
    assert name in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_without_rows_is_a_table_without_rows(tmp_path):
    for name in ("with_newline.csv", "without.csv"):
        (tmp_path / name).write_text("a,b\n" if name.startswith("with_") else "a,b\r\n")
        assert read(tmp_path / name).num_rows == 0


def test_json_lines_may_lack_keys_and_widen_from_whole_to_decimal_across_blocks(tmp_path):
    path = tmp_path / "c.jsonl"
    line = '{"a": 1, "pad": "' + "x" * 200 + '"}\n'
    path.write_text(line * 30_000 + '{"a": 1.5, "late": true}\n\n')
    table = read(path)
    assert table.schema.field("a").type == pa.float64()
    assert table.num_rows == 30_001
    assert table.column("late").null_count == 30_000


def test_times_in_json_lines_stay_texts_so_that_the_contract_sees_the_offset(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"at": "2013-10-01T12:00:00"}\n{"at": "2013-10-01T12:00:00+02:00"}\n')
    assert read(path).column("at").to_pylist() == ["2013-10-01T12:00:00", "2013-10-01T12:00:00+02:00"]


def test_parquet_types_become_plain(tmp_path):
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int16()),
            "x": pa.array([1.5, 2.5], pa.float32()),
            "c": pa.array(["a", "b"]).dictionary_encode(),
            "t": pa.array([1, 2], pa.timestamp("ns", "Asia/Tokyo")),
        }
    )
    pa_parquet.write_table(table, tmp_path / "c.parquet")
    kinds = [str(kind) for kind in read(tmp_path / "c.parquet").schema.types]
    assert kinds == ["int64", "double", "string", "timestamp[us, tz=UTC]"]


def test_parquet_whole_numbers_that_do_not_fit_are_refused_by_column(tmp_path):
    pa_parquet.write_table(pa.table({"id": pa.array([2**64 - 1], pa.uint64())}), tmp_path / "c.parquet")
    with pytest.raises(IngestError, match="column 'id' must be int64"):
        read(tmp_path / "c.parquet")


def test_memory_is_bounded_by_the_batch(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("a\n" + "1\n" * 200_000)
    schema, _ = CSV.schema(stored(path), ())
    assert max(batch.num_rows for batch in CSV.batches(stored(path), schema)) <= 65_536


def test_candidates_only_shrink():
    kinds = csv_types(pa.array(["1"]), list(PATTERNS))
    assert csv_types(pa.array(["1.5"]), kinds) == [pa.float64()]
    assert csv_types(pa.array(["true"]), kinds) == []


# --- what people save -----------------------------------------------------------------------------------------------


ROWS = [{"flight": "UA1", "delay": 3.5}, {"flight": "AA2", "delay": None}, {"flight": "é;\t|", "delay": -1.0}]


@pytest.mark.parametrize("ending", ["tsv", "tsv.gz", "json", "json.gz", "jsonl", "xlsx"])
def test_what_people_save_is_read(tmp_path, ending):
    rows = ROWS[:2] if ending.startswith("tsv") else ROWS
    path = tmp_path / f"a.{ending}"
    if ending == "xlsx":
        pytest.importorskip("fastexcel")
        pl.DataFrame(rows).write_excel(path)
    else:
        text = pl.DataFrame(rows).write_csv(separator="\t") if ending.startswith("tsv") else json.dumps(rows)
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    source = open_source(path)
    assert [row for batch in source.batches() for row in batch.to_pylist()] == rows


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"flight;delay\nUA1;3,5\n", "a header with semicolons; save it with commas, and points in numbers"),
        ("a.csv", b"flight\tdelay\nUA1\t3.5\n", "got a header with tabs; let its name end in .tsv"),
        ("a.csv", b"flight,delay\nUA1,3,5\n", "Expected 2 columns, got 3; give each row as many cells as the header"),
        ("a.csv", "flight,delay\nMünchen,3\n".encode("latin-1"), "save it again as UTF-8"),
        ("a.csv.gz", b"no gzip", "it is no whole gzip file"),
        ("a.jsonl", b'{"a": 1}\n{"a": }\n', "write one JSON object on each line"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "line 2: one JSON object"),
        ("a.json", b'[{"a": 1}, 2]', "element 2: an object of column names and values; got int"),
        ("a.json", b'[{"a": NaN}]', "NaN is no JSON; write null"),
        ("a.json", b'[{"a": 1}', "write one array of objects, or an object on each line"),
        ("a.json", b"[" * 20_000, "nested at most"),
        ("a.parquet", b"no parquet", "it is no whole Parquet file"),
        ("a.xlsx", b"no workbook", "save it again as .xlsx, or as CSV"),
    ],
)
def test_the_way_out_is_that_of_the_mistake(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IngestError) as caught:
        [*open_source(tmp_path / name).batches()]
    assert words in str(caught.value)
    assert ("UTF-8" in words) == ("save it again as UTF-8" in str(caught.value))


def test_a_workbook_of_several_sheets_is_refused_with_their_names(tmp_path):
    xlsxwriter = pytest.importorskip("xlsxwriter")
    pytest.importorskip("fastexcel")
    with xlsxwriter.Workbook(tmp_path / "a.xlsx") as book:
        for name in ("May", "June"):
            pl.DataFrame(ROWS).write_excel(book, worksheet=name)
    with pytest.raises(IngestError, match=r"one sheet; got 'May', 'June'; save the one you mean by itself"):
        open_source(tmp_path / "a.xlsx")
