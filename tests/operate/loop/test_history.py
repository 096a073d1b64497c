"""The history of what was monitored: windows replaced whole, by many at once, killed at any line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlworkbench.contract.times import format_time, parse_time
from mlworkbench.core.home import Home
from mlworkbench.errors import LogError, SettingsError
from mlworkbench.operate.loop.history import DAY_US, read_history, split_days, write_window

FIRST = parse_time("2013-10-01T00:00:00Z")


def day(number: int) -> tuple[int, int]:
    return FIRST + number * DAY_US, FIRST + (number + 1) * DAY_US


def line(rows: int, deployment: str = "batch") -> dict:
    return {"version": "m:1", "deployment": deployment, "rows": rows, "verdict": "pass"}


def test_a_window_that_is_measured_again_leaves_nothing_of_before(home: Home) -> None:
    write_window("m", day(0), [line(5), line(7, "realtime")], home=home)
    write_window("m", day(1), [line(6)], home=home)
    write_window("m", day(0), [line(9)], home=home)
    assert [(one["start"][:10], one["rows"]) for one in read_history("m", home=home)] == [
        ("2013-10-01", 9),
        ("2013-10-02", 6),
    ]


def test_the_order_is_that_of_time_across_months_and_an_interval_takes_whole_windows(home: Home) -> None:
    for number in (40, 2, 31, 30):
        write_window("m", day(number), [line(number)], home=home)
    assert [one["rows"] for one in read_history("m", home=home)] == [2, 30, 31, 40]
    ends = {"start": format_time(day(30)[0]), "end": format_time(day(31)[1])}
    assert [one["rows"] for one in read_history("m", home=home, **ends)] == [30, 31]
    assert read_history("m", home=home, start=format_time(day(30)[0] + 1), end=format_time(day(31)[1] - 1)) == []
    assert read_history("other", home=home) == []


def test_a_spoilt_line_costs_itself_alone_and_the_next_window_is_written(home: Home) -> None:
    write_window("m", day(0), [line(1)], home=home)
    file = home.model("m") / "monitor" / "2013-10.jsonl"
    spoilt = ["", "{", "[1]", '{"start": "no time", "end": "x"}', '{"start": 5}', "null", "[" * 5000]
    file.write_text(file.read_text() + "\n".join(spoilt) + "\n")
    write_window("m", day(1), [line(2)], home=home)
    assert [one["rows"] for one in read_history("m", home=home)] == [1, 2]
    assert len(file.read_text().splitlines()) == 2


def test_numbers_that_are_none_are_null_and_the_file_is_the_owners(home: Home) -> None:
    write_window("m", day(0), [{**line(1), "measures": {"psi:x": float("nan"), "y": float("inf")}}], home=home)
    file = home.model("m") / "monitor" / "2013-10.jsonl"
    assert json.loads(file.read_text(), parse_constant=pytest.fail)["measures"]["psi:x"] is None
    assert file.stat().st_mode & 0o077 == 0


def test_a_history_that_cannot_be_read_is_one_line(home: Home) -> None:
    place = home.model("m") / "monitor"
    place.mkdir(parents=True)
    (place / "2013-10.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(LogError, match="cannot read the history") as caught:
        read_history("m", home=home)
    assert caught.value.code == "history.unreadable"
    with pytest.raises(SettingsError):
        read_history("../m", home=home)


def test_many_at_once_lose_nothing(home: Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_window("m", day(number), [line(number)], home=home), range(40)))
    assert [one["rows"] for one in read_history("m", home=home)] == list(range(40))


def test_an_interval_is_cut_into_days_from_its_own_begin() -> None:
    half = DAY_US // 2
    assert split_days(half, half + DAY_US) == [(half, half + DAY_US)]
    assert split_days(0, 1) == [(0, 1)] and split_days(3, 3) == []


WRITER = """
import sys
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.operate.loop.history import DAY_US, write_window
home, first = Home.open(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for turn in range(10_000):
    for day in range(4):
        window = first + day * DAY_US, first + (day + 1) * DAY_US
        line = {"version": "m:1", "deployment": "batch", "rows": turn, "pad": "x" * 50_000}
        write_window("m", window, [line], home=home)
"""


def test_a_killed_writer_leaves_every_window_whole_and_no_lock(home: Home, kills: int) -> None:
    write_window("m", day(9), [line(99)], home=home)
    for turn in range(kills):
        words = [sys.executable, "-c", WRITER, str(home.path), str(FIRST)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(0.02 + 0.03 * (turn % 5))
            os.kill(writer.pid, signal.SIGKILL)
        found = read_history("m", home=home)
        assert [one["rows"] for one in found if one["start"] >= format_time(day(9)[0])] == [99]
        assert all(len(one["pad"]) == 50_000 for one in found[:-1]) and 1 <= len(found) <= 5
        write_window("m", day(9), [line(99)], home=home)
    names = [path.name for path in (home.model("m") / "monitor").iterdir()]
    assert names == ["2013-10.jsonl"], "what killed writers left is cleared away by the next"
