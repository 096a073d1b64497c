import json
import shutil
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.place import commit_times, version_at
from mlworkbench.errors import IngestError

ROWS = pa.table({"n": [1, 2]})


def moment(microseconds):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path / "lake")
    for _ in range(4):
        lake.append("t", ROWS)
        time.sleep(0.005)
    return lake


def rewrite(lake, version, change):
    """Change what a commit says of itself."""
    file = lake.path / "t" / "_delta_log" / f"{version:020d}.json"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            change(line["commitInfo"])
    file.write_text("\n".join(map(json.dumps, lines)))


def test_the_version_of_a_time_is_the_newest_that_was_committed_by_then(lake):
    times = commit_times(lake.open("t"))
    assert [version for version, _ in times] == [0, 1, 2, 3]
    for version, time_ in times:
        assert lake.version("t", at=moment(time_)) == version
        assert lake.version("t", at=moment(time_ + 1)) == version
    assert lake.read("t", version=lake.version("t", at=moment(times[1][1]))).height == 4


def test_a_copied_folder_whose_files_are_all_new_answers_the_same(lake, tmp_path):
    times = commit_times(lake.open("t"))
    shutil.copytree(lake.path, tmp_path / "copy", copy_function=shutil.copy)  # modification times are of now
    copy = Lake(tmp_path / "copy")
    assert [copy.version("t", at=moment(time_)) for _, time_ in times] == [0, 1, 2, 3]


def test_times_of_another_zone_mean_the_same_moment(lake):
    at = moment(commit_times(lake.open("t"))[2][1])
    assert lake.version("t", at=at.astimezone(UTC)) == lake.version("t", at=at.astimezone()) == 2


def test_a_time_before_the_first_commit_is_refused_with_its_time(lake):
    with pytest.raises(IngestError, match=r"its first version that the log knows, 0, is of 2.*ask for a later time"):
        lake.version("t", at=datetime(2013, 1, 1, tzinfo=UTC))


def test_a_naive_time_is_refused(lake):
    with pytest.raises(IngestError, match="2013-01-01T00:00:00", check=lambda error: error.code == "lake.time_zone"):
        lake.version("t", at=datetime(2013, 1, 1))


def test_a_version_that_was_vacuumed_is_refused_by_time_and_by_number(lake):
    before = moment(commit_times(lake.open("t"))[1][1])
    lake.overwrite("t", ROWS)
    lake.open("t").vacuum(0, dry_run=False, enforce_retention_duration=False)
    for ask in (lambda: lake.version("t", at=before), lambda: lake.read("t", version=1)):
        with pytest.raises(IngestError, match="rows of version 1 were vacuumed; see what can be read"):
            ask()
    assert not lake.holds("t", 1)
    assert lake.holds("t", 4)


def test_a_clock_that_ran_back_does_not_bring_an_older_version_to_the_front(lake):
    times = dict(commit_times(lake.open("t")))
    rewrite(lake, 2, lambda info: info.update(timestamp=info["timestamp"] - 3_600_000))
    assert dict(commit_times(lake.open("t")))[2] == times[1]
    assert lake.version("t", at=moment(times[1])) == 2
    assert lake.version("t", at=moment(times[1] - 1)) == 0


def test_a_commit_whose_writer_told_no_time_is_as_old_as_the_one_before(lake):
    times = dict(commit_times(lake.open("t")))
    rewrite(lake, 1, lambda info: info.pop("timestamp"))
    assert dict(commit_times(lake.open("t"))) == {**times, 1: times[0]}


def test_a_time_that_the_protocol_keeps_goes_before_the_writers_own(lake):
    rewrite(lake, 3, lambda info: info.update(inCommitTimestamp=info["timestamp"] + 60_000))
    assert commit_times(lake.open("t"))[3][1] - commit_times(lake.open("t"))[2][1] >= 60_000_000


def test_versions_stay_readable_after_many_commits_and_a_checkpoint(lake):
    for _ in range(105):
        lake.append("t", ROWS)
    assert len(commit_times(lake.open("t"))) == 109
    assert lake.read("t", version=7).height == 16


def test_equal_times_give_the_newest_of_them():
    assert version_at("t", [(0, 5), (1, 5), (2, 9)], moment(5)) == 1
