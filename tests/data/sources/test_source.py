import os
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.data.sources.open_source import FileSource, FolderSource, open_source
from mlworkbench.data.sources.source import is_source
from mlworkbench.errors import IngestError


def rows_of(source):
    return [row for batch in source.batches() for row in batch.to_pylist()]


def test_every_source_is_a_source(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    for given in (tmp_path / "a.csv", str(tmp_path), pl.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]})):
        source = open_source(given)
        assert is_source(source)
        assert source.columns() == ["a"]
        assert rows_of(source) == rows_of(source) == [{"a": 1}]


def test_the_fingerprint_of_a_file_is_its_content_and_not_its_name(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a\n1\n")
    (tmp_path / "c.csv").write_text("a\n2\n")
    prints = [open_source(tmp_path / name).fingerprint for name in ("a.csv", "b.csv", "c.csv")]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 32


def test_the_fingerprint_of_a_frame_depends_on_values_alone():
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    rows = {"n": [1, None, 3], "s": ["a", None, "c"], "b": [True, None, False], "t": [noon] * 3}
    frame = pl.DataFrame(rows)
    chunked = pl.concat([frame[:1], frame[1:]], rechunk=False)
    sliced = pl.concat([frame[1:], frame])[2:]
    forms = [frame, chunked, sliced, frame.to_arrow(), frame.to_pandas(types_mapper=pd.ArrowDtype)]
    forms.append(frame.with_columns(pl.col("n").cast(pl.Int32), pl.col("s").cast(pl.Categorical)))
    assert len({open_source(form).fingerprint for form in forms}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"n": [1, 2], "s": ["a", None]},
        {"n": [2, 1], "s": ["a", "b"]},
        {"n": [1, 2], "z": ["a", "b"]},
        {"n": [1.0, 2.0], "s": ["a", "b"]},
        {"n": [1, 2], "s": ["ab", ""]},
        {"n": [1, 2], "s": [None, "b"]},
    ],
)
def test_another_value_name_type_or_order_is_another_fingerprint(other):
    given = pl.DataFrame({"n": [1, 2], "s": ["a", "b"]})
    assert open_source(given).fingerprint != open_source(pl.DataFrame(other)).fingerprint


def test_nan_is_missing_whoever_wrote_it():
    prints = {
        open_source(pd.DataFrame({"x": [1.0, np.nan]})).fingerprint,
        open_source(pl.DataFrame({"x": [1.0, None]})).fingerprint,
        open_source(pl.DataFrame({"x": [1.0, float("nan")]})).fingerprint,
    }
    assert len(prints) == 1


def test_a_folder_is_its_files_in_order_of_their_names_with_one_schema(tmp_path):
    (tmp_path / "b.csv").write_text("x,a\n1.5,2\n")
    (tmp_path / "a.csv").write_text("a,x\n1,1\n")
    (tmp_path / ".hidden").write_text("no")
    source = open_source(tmp_path)
    assert isinstance(source, FolderSource)
    assert rows_of(source) == [{"a": 1, "x": 1.0}, {"a": 2, "x": 1.5}]
    assert [part.name for part in source.parts] == ["a.csv", "b.csv"]
    assert source.rows == 2
    before = source.fingerprint
    (tmp_path / "b.csv").rename(tmp_path / "0.csv")
    assert open_source(tmp_path).fingerprint == before


def test_a_pattern_takes_the_files_it_matches(tmp_path):
    for name in ("2013-01.csv", "2013-02.csv", "other.csv"):
        (tmp_path / name).write_text("a\n1\n")
    assert [part.name for part in open_source(tmp_path / "2013-*.csv").parts] == ["2013-01.csv", "2013-02.csv"]


def test_files_with_other_columns_are_refused_by_file_and_column(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a\n1\n")
    with pytest.raises(IngestError, match=r"b\.csv: column 'b' is missing"):
        open_source(tmp_path)


def test_text_in_one_file_and_numbers_in_another_are_refused_not_guessed(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.csv").write_text("a\nx\n")
    with pytest.raises(IngestError, check=lambda error: error.code == "source.column_mixed"):
        open_source(tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n2\n")
    source = open_source(path)
    assert isinstance(source, FileSource)
    stream = source.batches()
    next(stream)
    path.write_text("a\n1\n2\n3\n")
    with pytest.raises(IngestError, match=r"a\.csv: changed while it was read"):
        list(stream)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (42, "got int"),
        (pd.DataFrame({"a": [1, "x"]}), "frame: "),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "frame: "),
        (pa.table([[1], [2]], names=["a", "a"]), "'a' stands twice"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(given, words):
    with pytest.raises(IngestError) as caught:
        open_source(given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_path_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "flights.csv").write_text("a\n1\n")
    with pytest.raises(IngestError, match=r"no such file or folder; did you mean 'flights\.csv'"):
        open_source(tmp_path / "flihgts.csv")
    with pytest.raises(IngestError, match="no such folder as nowhere"):
        open_source(tmp_path / "nowhere" / "a.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError, check=lambda error: error.code == "source.not_found"):
        open_source(tmp_path / "empty")


def test_a_pattern_follows_links_but_never_in_circles_and_skips_pipes(tmp_path):
    (tmp_path / "2013/1").mkdir(parents=True)
    (tmp_path / "2013/1/a.csv").write_text("a\n1\n")
    (tmp_path / "2013/1/back").symlink_to(tmp_path / "2013")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.csv").write_text("a\n2\n")
    (tmp_path / "2013/2").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "2013/1/pipe.csv")
    for pattern in ("2013/*/*.csv", "2013/**/*.csv"):
        assert [part.name for part in open_source(tmp_path / pattern).parts] == ["1/a.csv", "2/b.csv"]


def test_folders_of_hive_need_no_column_of_their_name(tmp_path):
    for month in (1, 2):
        (tmp_path / f"year=2013/month={month}").mkdir(parents=True)
        pl.DataFrame({"delay": [float(month)]}).write_parquet(tmp_path / f"year=2013/month={month}/part-0.parquet")
    assert rows_of(open_source(f"{tmp_path}/year=2013/*/*.parquet")) == [{"delay": 1.0}, {"delay": 2.0}]


def test_a_pattern_with_signs_in_the_wrong_order_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(IngestError, match=r"pattern '\[z-a\]\.csv': bad character range"):
        open_source(tmp_path / "[z-a].csv")
