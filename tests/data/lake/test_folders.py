"""Folders of any name: a Delta table in them is written, read, kept and cleaned, or refused by the sign."""

from __future__ import annotations

import os

import polars as pl
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import compact, vacuum
from mlworkbench.data.lake.place import check_folder
from mlworkbench.data.sinks.open_sink import open_sink
from mlworkbench.errors import IngestError

GOOD = ["plain", "a blank", " both ", "Zürich", "Zu\u0308rich", "日本", "100%", "%4", "%zz", "a%b", "a=b", "a&b", "a+b"]
GOOD += [
    "a,b;c",
    "a:b",
    "C:",
    "it's",
    'a"b',
    "a`b",
    "a*b",
    "**",
    "{a,b}",
    "<a>",
    "(a)",
    "a!b",
    "a@b",
    "$HOME",
    "~",
    ".a",
]
BAD = [
    "lake #1",
    "which?",
    "[lake",
    "lake]",
    "a|b",
    "a^b",
    "a\\b",
    "a\tb",
    "a\nb",
    "a\x7fb",
    "%41",
    "a%20b",
    "%2f",
    "%%ff",
]
BAD += [os.fsdecode(b"a\xff")]


def rows(*numbers):
    columns = {"prediction_id": [f"p{number}" for number in numbers], "score": [0.5] * len(numbers)}
    return pl.DataFrame(columns).to_arrow()


@pytest.mark.parametrize("name", GOOD)
def test_a_lake_in_a_folder_of_this_name_is_written_read_and_kept(tmp_path, name):
    lake = Lake(tmp_path / name)
    for number in range(3):
        lake.append("t", rows(number), transaction=f"once {number}", note={"read": str(number)})
    assert lake.append("t", rows(2), transaction="once 2") == 0
    assert lake.tables() == ["t"] and lake.note("t", "read") == "2"
    assert lake.read("t")["prediction_id"].sort().to_list() == ["p0", "p1", "p2"]
    assert lake.read("t", columns=["score"], version=0).height == 1
    assert compact(lake, "t").files_after == 1
    lake.overwrite("t", rows(7))
    assert len(lake.open("t").history()) == 5
    vacuum(lake, "t", hours=0, force=True)
    assert list(lake.place.files("t")) and lake.read("t")["prediction_id"].to_list() == ["p7"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", GOOD)
def test_a_delta_sink_in_a_folder_of_this_name_holds_what_was_written_last(tmp_path, name):
    sink = open_sink(f"delta:{tmp_path / name}", folder=tmp_path)
    for day, numbers in (("2013-10-01", (1, 2)), ("2013-10-02", (3,)), ("2013-10-01", (1, 4)), ("2013-10-01", (4, 1))):
        sink.write(day, rows(*numbers))
    held = sink._stored()
    assert sorted(held.to_pyarrow_table().column("prediction_id").to_pylist()) == ["p1", "p3", "p4"]
    assert len(held.history()) == 3  # the same rows in another order are no commit
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_delta_would_not_find_again_is_refused_before_anything_is_written(tmp_path, monkeypatch, name):
    said = r"^(lake|to): a folder whose path has no # .+; got '.+' in it; choose another$"
    for ask in (lambda: Lake(tmp_path / name), lambda: open_sink(f"delta:{tmp_path / name}/p", folder=tmp_path)):
        with pytest.raises(IngestError, match=said) as told:
            ask()
        assert str(told.value).isprintable()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(IngestError, match=r"got '.+' in it"):  # where a relative path leads counts
        open_sink("delta:results", folder=tmp_path)


def test_what_a_refused_text_holds_beside_the_sign_is_not_repeated():
    with pytest.raises(IngestError) as told:
        open_sink("delta:results?password=hunter2", folder=None)
    assert "hunter2" not in str(told.value) and "got '?'" in str(told.value)


def test_all_printed_letters_but_the_named_signs_are_taken(tmp_path):
    for sign in map(chr, (*range(32, 127), *range(160, 0x2100))):
        if sign in "#?[]|^\\/":
            continue
        check_folder(tmp_path / f"a{sign}b", where="lake")
