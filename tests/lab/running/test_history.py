"""The history of runs and the next times."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import Settings
from mlworkbench.errors import SettingsError
from mlworkbench.lab.running.history import MOST_RUNS, list_choices, list_next_times, read_history_of_runs
from mlworkbench.operate.running.table import RunRow, RunTable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def keep(home: Home, run_id: str, parameters: dict[str, Any] | None = None, **facts: str) -> None:
    row = {"state": "done", "started": "2013-11-01T08:00:00+00:00", "ended": "2013-11-01T08:02:05+00:00", **facts}
    model, notebook = row.pop("model", "cars"), row.pop("notebook", "evaluate")
    RunTable(home).write(RunRow(run_id, model, notebook, **row))  # type: ignore[arg-type]
    if parameters is not None:
        folder = home.runs(model) / run_id
        folder.mkdir(parents=True)
        found = {"cells": [], "metadata": {"papermill": {"parameters": parameters}}, "nbformat": 4, "nbformat_minor": 5}
        (folder / f"{notebook}.ipynb").write_text(json.dumps(found))


def test_a_run_is_told_with_what_it_was_given_by_whom_and_how_long_it_took(home: Home) -> None:
    given = {"home": "/x", "run_id": "evaluate-1", "model": "cars", "start": "2013-10-01T00:00:00+00:00", "end": ""}
    keep(home, "evaluate-1", {**given, "version": "cars:0123456789abcdef", "rows": 0}, verdict="pass")
    (one,) = read_history_of_runs(home)
    assert one.parameters == {"start": given["start"], "version": "cars:0123456789abcdef", "rows": 0}
    assert one.who == home.path.owner()
    row = one.to_row()
    assert row["parameters"] == "start 2013-10-01 00:00, version 01234567, rows 0"
    assert (row["took"], row["outcome"], row["started, UTC"]) == ("2 min 5 s", "pass", "2013-11-01 08:00")


def test_a_run_without_a_notebook_has_no_parameters_and_no_owner(home: Home) -> None:
    keep(home, "train-1", notebook="train", verdict="pass")
    (one,) = read_history_of_runs(home)
    assert one.parameters == {} and one.who == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"metadata": {"papermill": {"parameters": 7}}}'])
def test_a_notebook_that_cannot_be_read_costs_the_parameters_alone(home: Home, text: str) -> None:
    keep(home, "evaluate-1", {})
    (home.runs("cars") / "evaluate-1/evaluate.ipynb").write_text(text)
    assert read_history_of_runs(home)[0].parameters == {}


def test_a_run_that_failed_or_whose_process_is_gone_says_why(home: Home) -> None:
    keep(home, "evaluate-1", state="failed", error="no rows")
    keep(home, "evaluate-2", state="running", ended="")
    told = {one.row.run_id: one.to_row() for one in read_history_of_runs(home)}
    assert told["evaluate-1"]["outcome"] == "failed: no rows"
    assert told["evaluate-2"]["outcome"].startswith("failed: its process is gone") and told["evaluate-2"]["took"] == ""


def test_the_history_is_narrowed_by_notebook_and_outcome(home: Home) -> None:
    keep(home, "a", verdict="pass")
    keep(home, "b", verdict="fail")
    keep(home, "c", notebook="monitor", verdict="fail")
    keep(home, "d", state="failed", error="x")
    keep(home, "e", model="vans", verdict="pass")
    found = read_history_of_runs(home, model="cars")
    assert list_choices(found) == (["evaluate", "monitor"], ["fail", "failed", "pass"])
    assert {one.row.run_id for one in read_history_of_runs(home, outcome="fail")} == {"b", "c"}
    assert [one.row.run_id for one in read_history_of_runs(home, notebook="evaluate", outcome="failed")] == ["d"]
    assert [one.row.run_id for one in read_history_of_runs(home, model="vans")] == ["e"]


def test_only_the_newest_are_read(home: Home) -> None:
    for number in range(MOST_RUNS + 3):
        keep(home, f"r{number:03d}", started=f"2013-11-01T08:{number // 60:02d}:{number % 60:02d}+00:00")
    found = read_history_of_runs(home)
    assert len(found) == MOST_RUNS and found[0].row.run_id == f"r{MOST_RUNS + 2:03d}"


def test_the_next_times_are_told_by_the_clock_of_their_zone(home: Home) -> None:
    pytest.importorskip("cronsim")
    settings = Settings(schedule={"nightly": "30 2 * * * Europe/Berlin: ingest, batch --last day"})
    (line,) = list_next_times(settings, datetime(2013, 11, 1, tzinfo=UTC), home=home)
    assert (line["next"], line["state"]) == ("2013-11-01T02:30+01:00", "not yet")
    with pytest.raises(SettingsError):
        list_next_times(Settings(schedule={"nightly": "never"}), datetime(2013, 11, 1, tzinfo=UTC), home=home)
