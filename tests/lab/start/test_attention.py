"""What needs attention in a workbench, and what comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import Settings
from mlworkbench.data.ingest.quarantine import QUARANTINE, write_quarantine
from mlworkbench.data.lake.lake import Lake
from mlworkbench.evaluation.log.rows import input_identities, log_rows
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.lab.certificate.deployments import Measurement
from mlworkbench.lab.site.pages import ModelFacts
from mlworkbench.lab.start.attention import (
    find_last_answer,
    list_concerns,
    list_failed_runs,
    list_model_concerns,
    list_quarantined,
    list_unserved,
)
from mlworkbench.lab.start.overview import describe_models, list_next_steps, list_steps, write_age
from mlworkbench.operate.loop.alerts import Alert, Finding
from mlworkbench.operate.running.table import RunRow

OLD, NEW = "cars:11111111aaaa", "cars:22222222bbbb"
NOON = datetime(2013, 11, 1, 12, tzinfo=UTC)


def cars(**facts: Any) -> ModelFacts:
    made = {"serving": NEW, "reason": "champion", "versions": [{"tag": NEW, "created_at": "2013-10-30T12:00:00+00:00"}]}
    return ModelFacts("cars", **{**made, **facts})


def alarm(number: int, state: str = "open", level: str = "warn", source: str = "monitor") -> Alert:
    words = {"subject": "age", "what": "differs", "since": "2013-10-31"}
    finding = Finding(model="cars", source=source, state=level, **words)
    return Alert(number=number, finding=finding, state=state, opened="2013-11-01", changed="2013-11-01")


def run(number: int, notebook: str, state: str, verdict: str = "", error: str = "") -> RunRow:
    return RunRow(f"{notebook}-{number}", "cars", notebook, state, started=f"2013-11-0{number}T08:00:00+00:00",
                  ended="2013-11-09", verdict=verdict, error=error)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_a_model_that_is_well_has_no_concern() -> None:
    certified = Measurement(NEW, "2013-10-31T00:00:00+00:00", [], "equal")
    assert list(list_model_concerns(cars(measurement=certified, runs=[run(1, "evaluate", "done", "pass")]))) == []


def test_a_model_without_a_version_is_no_concern_and_one_that_none_may_serve_fails() -> None:
    assert list(list_model_concerns(cars(versions=[], serving="", reason="no version yet"))) == []
    (found,) = list_model_concerns(cars(serving="", reason="its gates failed"))
    assert (found.level, found.command) == ("fail", "mlworkbench models list --model cars")
    assert "its gates failed" in found.what


def test_an_alarm_is_told_with_its_level_until_somebody_acknowledges_it() -> None:
    one = cars(alerts=[alarm(7, level="fail"), alarm(8, "acknowledged")])
    (found,) = list_model_concerns(one)
    assert found.level == "fail" and found.what == "alarm 7, age: differs"


def test_drift_is_told_once_by_its_alarm_or_by_the_last_window() -> None:
    window = {"start": "2013-10-30T00:00", "end": "2013-10-31T00:00", "verdict": "warn", "rows": 5}
    (found,) = list_model_concerns(cars(history=[window]))
    assert found.command == "mlworkbench monitor --model cars --start 2013-10-30"
    assert len(list(list_model_concerns(cars(history=[window], alerts=[alarm(7)])))) == 1
    assert list(list_model_concerns(cars(history=[{**window, "verdict": "pass"}]))) == []


@pytest.mark.parametrize(("version", "verdict", "level"), [(OLD, "equal", "warn"), (NEW, "refused", "fail")])
def test_a_certificate_of_another_version_and_one_that_says_no_are_told(version: str, verdict: str, level: str) -> None:
    (found,) = list_model_concerns(cars(measurement=Measurement(version, "2013-10-31T00:00:00+00:00", [], verdict)))
    assert (found.level, found.command) == (level, "mlworkbench certify cars")


def test_a_failed_run_is_over_once_a_later_one_of_the_same_notebook_went_well() -> None:
    runs = [run(4, "evaluate", "running"), run(3, "monitor", "failed", error="no rows"), run(2, "evaluate", "done")]
    runs += [run(1, "evaluate", "failed", error="killed"), run(1, "monitor", "done", "pass")]
    assert [one.run_id for one in list_failed_runs(runs)] == ["monitor-3"]
    (found,) = list_model_concerns(cars(runs=runs))
    assert "monitor of 2013-11-03 08:00 UTC failed: no rows" in found.what
    assert found.command == "mlworkbench runs show monitor-3 --model cars"


def test_a_run_whose_verdict_was_no_is_told_and_one_that_is_undecided_is_not() -> None:
    assert len(list_failed_runs([run(1, "evaluate", "done", "fail")])) == 1
    assert list_failed_runs([run(1, "evaluate", "done", "undecided")]) == []


def test_rows_in_quarantine_ask_for_attention_for_seven_days(home: Home) -> None:
    line = {"source": "s", "column": "wind", "rule": "at most 150", "value": "1048", "hint": "", "record": "{}"}
    rows = [{**line, "source_row": k, "ingested_at": None} for k in (1, 2)]
    rows.append({**rows[0], "column": "sky", "rule": "known"})
    empty = pl.DataFrame(QUARANTINE.empty_table())
    write_quarantine(Lake(home.quarantine), "weather", pl.DataFrame(rows, schema=dict(empty.schema)), NOON)
    (found,) = list_quarantined(NOON + timedelta(days=6), home=home)
    assert found.what == "table weather: 2 rows in quarantine since 2013-10-31, most by wind: at most 150"
    assert list(list_quarantined(NOON + timedelta(days=8), home=home)) == []


def test_what_cannot_be_read_is_a_line_among_the_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    log = home.log("cars")
    log.parent.mkdir()
    log.write_bytes(b"no database at all, but long enough to be taken for one")
    champion = {"alias": "champion", "at": "2013-10-30T12:00:00+00:00"}
    (found,) = list_concerns([cars(moves=[champion])], Settings(folder=home.path), home=home)
    assert found.model == "cars" and found.what.startswith("cannot be read: ")


def test_the_worst_comes_first(home: Home) -> None:
    models = [cars(alerts=[alarm(1)]), cars(alerts=[alarm(2, level="fail")])]
    assert [one.level for one in list_concerns(models, Settings(folder=home.path), home=home)] == ["fail", "warn"]


def test_the_steps_of_a_model_are_made_one_after_the_other(home: Home) -> None:
    first = cars(versions=[], serving="", reason="no version yet")
    assert list_next_steps([first], home=home)[0]["command"] == "mlworkbench train --model cars"
    words = [command.split()[1] for _, command in list_steps(cars(reason="newest that passed"), home=home)]
    assert words == ["models", "certify", "serve", "monitor", "evaluate"]
    known = cars(measurement=Measurement(NEW, "2013-10-31", [], "equal"), history=[{"start": "", "end": ""}])
    assert [command.split()[1] for _, command in list_steps(known, home=home)] == ["serve", "evaluate"]


def test_a_model_is_described_in_one_line() -> None:
    certified = Measurement(NEW, "2013-10-31T07:30:00+00:00", [], "equal")
    one = cars(measurement=certified, runs=[run(1, "evaluate", "done", "pass")], alerts=[alarm(1)])
    (row,) = describe_models([one], NOON)
    assert list(row.values()) == [
        "cars", "22222222, champion", "2 days", "evaluate: pass, 2013-11-01 08:00", "equal, 2013-10-31 07:30", 1
    ]  # fmt: skip


def test_a_clock_that_is_behind_makes_nothing_younger_than_now() -> None:
    assert write_age("2013-11-01T13:00:00+00:00", NOON) == "0 minutes"


def test_a_champion_by_which_real_time_does_not_answer_is_told(home: Home, served: str) -> None:
    moves = [{"alias": "champion", "at": "2013-10-30T12:00:00+00:00"}]
    found = find_last_answer("cars", home=home)
    assert found is not None and found[0] == served
    assert list(list_unserved(cars(moves=moves, serving=served), home=home)) == []
    (told,) = list_unserved(cars(moves=moves), home=home)
    assert "not by the champion 22222222" in told.what and told.command == "mlworkbench serve --model cars"
    later = [{"alias": "champion", "at": "2999-01-01T00:00:00+00:00"}]
    assert list(list_unserved(cars(moves=later), home=home)) == []


@pytest.fixture
def served(home: Home) -> str:
    """A log whose last real-time answer is of the older version; a batch of the newer one came after it."""
    frame = SimpleNamespace(columns={"wind": np.arange(1.0)})
    answer = SimpleNamespace(frame=frame, scores=np.array([0.5]), decisions=np.array([1]), faults=[])
    home.log("cars").parent.mkdir()
    at = int(NOON.timestamp() * 1e6)
    with PredictionLog(home.log("cars")) as log:
        for k, (tag, deployment) in enumerate([(NEW, "realtime"), (OLD, "realtime"), (NEW, "batch")]):
            ids = input_identities(f"call {k}", 1)
            context = {"model": "cars", "version": tag, "deployment": deployment, "logged_at": at + k}
            log.write(log_rows(answer, scorer="reference", input_ids=ids, **context))
    return OLD
