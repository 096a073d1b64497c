"""A copy of a table is of one version, with its history, whatever is written or vacuumed meanwhile."""

from __future__ import annotations

from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from mlworkbench.data.lake import copy as copy_module
from mlworkbench.data.lake.copy import copy_table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import compact, vacuum
from mlworkbench.errors import IngestError

ROWS = pa.table({"delay": [3.0, 12.5]})


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    for _ in range(12):
        made.append("delays", ROWS)
    return made


def delays(lake: Lake) -> Path:
    return Path(lake.path) / "delays"


def heights(lake: Lake, *versions: int) -> list[int]:
    return [lake.read("delays", version=version).height for version in versions]


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_copy_has_every_version_up_to_its_own_and_no_later_one(lake: Lake, tmp_path: Path, checkpoint: bool) -> None:
    if checkpoint:
        deltalake.DeltaTable(str(delays(lake))).create_checkpoint()
    assert copy_table(delays(lake), tmp_path / "copy" / "delays", version=5) == 5
    copy = Lake(tmp_path / "copy")
    assert (copy.version("delays"), heights(copy, 0, 5)) == (5, [2, 12])
    assert copy.append("delays", ROWS) == 2 and heights(copy, 6) == [14]
    assert heights(lake, 11) == [24]


def test_a_copy_of_the_newest_version_reads_the_checkpoint(lake: Lake, tmp_path: Path) -> None:
    deltalake.DeltaTable(str(delays(lake))).create_checkpoint()
    assert copy_table(delays(lake), tmp_path / "copy" / "delays") == 11
    assert list((tmp_path / "copy" / "delays" / "_delta_log").glob("*.checkpoint.parquet"))
    assert heights(Lake(tmp_path / "copy"), 0, 11) == [2, 24]


def test_a_vacuum_in_the_middle_begins_the_copy_again(lake: Lake, tmp_path: Path, monkeypatch) -> None:
    real, turns = copy_module._copy_files, []

    def copy_files(folder: Path, target: Path, version: int) -> set[str]:
        if not turns:
            compact(lake, "delays")
            vacuum(lake, "delays", hours=0, force=True)
        turns.append(version)
        return real(folder, target, version)

    monkeypatch.setattr(copy_module, "_copy_files", copy_files)
    assert copy_table(delays(lake), tmp_path / "copy" / "delays", version=11) > 11
    assert turns[0] == 11 and len(turns) == 2
    copy = Lake(tmp_path / "copy")
    assert heights(copy, copy.version("delays")) == [24]


def test_a_table_that_is_none_or_not_whole_is_one_line(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError) as raised:
        copy_table(tmp_path / "empty", tmp_path / "copy" / "empty")
    assert "\n" not in str(raised.value)
    next(delays(lake).glob("*.parquet")).unlink()
    with pytest.raises(IngestError) as raised:
        copy_table(delays(lake), tmp_path / "copy" / "delays")
    assert raised.value.code == "lake.version_vacuumed" and not (tmp_path / "copy" / "delays").exists()
