"""The monitor: windows measured once, judged, kept and told, whatever a window holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlworkbench.contract.times import format_time, parse_time
from mlworkbench.core.home import Home
from mlworkbench.core.sqlite import open_sqlite
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.errors import LogError, VersionError
from mlworkbench.evaluation.log import parts as parts_module
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.rows import input_identities, log_rows
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels
from mlworkbench.evaluation.monitoring.window_verdict import find_broken_rules
from mlworkbench.operate.loop import monitor as module
from mlworkbench.operate.loop import window as window_module
from mlworkbench.operate.loop.alerts import list_alerts
from mlworkbench.operate.loop.history import DAY_US, read_history
from mlworkbench.operate.loop.monitor import choose_interval, monitor
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import predict

FIRST = parse_time("2024-03-04T00:00:00Z")


def draw_rows(count: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    wind = random.normal(10, 3, count)
    wind[::50] = np.nan
    gate = random.choice(["A", "B", "C"], count)
    return pd.DataFrame({"wind": wind, "gate": gate, "same": 1.0})


def true_labels(rows: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(len(rows)).normal(0, 1, len(rows))
    return np.where(rows["wind"].fillna(10) + 3 * (rows["gate"] == "A") + noise > 11, "late", "on time").astype(object)


def make_models(home: Home) -> None:
    rows = draw_rows(2000, seed=9)
    encode = make_column_transformer(
        (SimpleImputer(), ["wind", "same"]), (OneHotEncoder(handle_unknown="ignore"), ["gate"])
    )
    fitted = make_pipeline(encode, LogisticRegression(max_iter=500)).fit(rows, true_labels(rows))
    register(fitted, rows, true_labels(rows), name="late", home=home)
    prices = pd.DataFrame({"area": np.arange(200.0)})
    paid = prices["area"] * 2 + 1
    register(LinearRegression().fit(prices, paid), prices, paid, name="price", home=home)


@pytest.fixture
def made(home: Home, made_once: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")  # what was served here is of long ago
    made_once("monitored", home, lambda: make_models(home))
    return home


class Served:
    """Writes rows into the log of a model, as a deployment would."""

    def __init__(self, home: Home, model: str = "late") -> None:
        self.home, self.version = home, Registry(home).open(model)

    def day(self, number: float, rows: pd.DataFrame, deployment: str = "batch", **changes: Any) -> list[dict[str, Any]]:
        found = predict(self.version, {name: _column(rows[name]) for name in rows}, {})
        logged = log_rows(
            found, model=self.version.model, version=self.version.version, scorer="reference", deployment=deployment,
            input_ids=input_identities(f"{deployment}{number}", len(rows)), request_id=f"run{number}",
            logged_at=FIRST + int((number + 0.25) * DAY_US), latency_us=5000,
        )  # fmt: skip
        logged = [{**row, **changes} for row in logged]
        with PredictionLog(self.home.log(self.version.model)) as log:
            log.write(logged)
        return logged

    def label(self, logged: list[dict[str, Any]], values: Any, known: float) -> None:
        at = FIRST + int(known * DAY_US)
        append_labels(self.home.log(self.version.model), [
            {"model": self.version.model, "prediction_id": row["prediction_id"], "value": value, "available_at": at}
            for row, value in zip(logged, values, strict=True)
        ])  # fmt: skip


def _column(values: pd.Series) -> np.ndarray:
    return values.to_numpy(dtype=object) if values.dtype.kind not in "if" else values.to_numpy()


def look(home: Home, first: float, last: float, model: str = "late", **more: Any) -> Any:
    ends = [format_time(FIRST + int(moment * DAY_US)) for moment in (first, last)]
    return monitor(model, home=home, start=ends[0], end=ends[1], **more)


def test_a_day_of_the_same_kind_passes_with_all_its_measures(made: Home) -> None:
    served = Served(made)
    rows = draw_rows(600)
    served.label(served.day(0, rows), true_labels(rows), known=0.9)
    found = look(made, 0, 1)
    assert found.verdict == "pass", found.lines
    (part,) = found.parts
    measures = part["measures"]
    assert (part["deployment"], part["rows"], part["served"]["verdict"]) == ("batch", 600, "equal")
    assert measures["coverage"] == 1.0 and 0.6 < measures["accuracy"] <= 1 and 0 < measures["brier"] < 0.25
    assert measures["latency_p95_ms"] == pytest.approx(5, rel=0.06)
    assert measures["label_delay_p50_h"] == pytest.approx(0.65 * 24, rel=0.06)
    assert measures["missing:wind"] == pytest.approx(12 / 600) and measures["unseen:gate"] == 0
    assert measures["decided:late"] + measures["decided:on time"] == pytest.approx(1)
    assert 0 <= measures["score_p10"] <= measures["score_p50"] <= measures["score_p90"] <= 1
    assert [line["rows"] for line in read_history("late", home=made)] == [600]
    json.dumps(found.outcome, allow_nan=False)


def test_a_day_that_the_history_has_is_not_read_again_and_a_week_is_the_sum_of_its_days(
    made: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(made)
    for number in range(4):
        served.label(served.day(number, rows := draw_rows(520, seed=number)), true_labels(rows), known=number + 0.9)
        look(made, number, number + 1)
    parts = [line["counts"] for line in read_history("late", home=made)]

    def refuse(*words: object, **more: object) -> None:
        raise AssertionError("a row was read twice")

    monkeypatch.setattr(window_module, "read_log_parts", refuse)
    whole = look(made, 0, 4).parts[0]
    assert whole["rows"] == 2080 and whole["counts"]["rows"] == 2080
    assert whole["counts"]["labels"]["n"] == sum(one["labels"]["n"] for one in parts) == 2080
    assert whole["counts"]["columns"]["wind"]["missing"] == sum(one["columns"]["wind"]["missing"] for one in parts)
    assert len(read_history("late", home=made)) == 4, "the week adds no line"


def test_rows_and_labels_that_come_later_are_found(made: Home) -> None:
    served = Served(made)
    served.day(0, draw_rows(50))
    assert look(made, 0, 1).parts[0]["rows"] == 50
    logged = served.day(0.5, draw_rows(30, seed=3))
    assert look(made, 0, 1).parts[0]["rows"] == 80
    served.label(logged, ["late"] * 30, known=0.99)
    assert look(made, 0, 1).parts[0]["measures"]["labelled"] == 30
    assert len(read_history("late", home=made)) == 1


def test_a_label_is_news_of_the_day_on_which_it_became_known(made: Home) -> None:
    served = Served(made)
    served.label(served.day(0, rows := draw_rows(40)), true_labels(rows), known=3.5)
    assert look(made, 0, 1).parts[0]["measures"]["labelled"] == 0
    later = look(made, 3, 4).parts[0]
    assert (later["rows"], later["measures"]["labelled"]) == (0, 40) and later["measures"]["accuracy"] > 0.5
    assert later["measures"]["label_delay_p50_h"] == pytest.approx(3.25 * 24, rel=0.06)


@pytest.mark.parametrize("case", ["nothing", "one row", "constant", "missing", "one class", "no labels", "odd labels"])
def test_a_poor_window_is_undecided_or_judged_and_never_a_traceback(made: Home, case: str) -> None:
    served, rows = Served(made), draw_rows(600)
    changed = {
        "nothing": None,
        "one row": rows.head(1),
        "constant": rows.assign(wind=10.0, gate="A"),
        "missing": rows.assign(wind=np.nan),
        "one class": rows.assign(wind=100.0),
    }.get(case, rows)
    logged = served.day(0, changed) if changed is not None else []
    if case == "one class":
        served.label(logged, ["late"] * 600, known=0.9)
    if case == "odd labels":
        served.label(logged, ["bar"] * 600, known=0.9)
    found = look(made, 0, 1)
    assert found.verdict in ("pass", "warn", "fail", "undecided")
    assert all(part["verdict"] == "pass" or part["reasons"] for part in found.parts)
    if case in ("nothing", "one row"):
        assert found.verdict == "undecided"
    for shown in (found.table, found.columns, found.reasons, found.rows_picture, found.latency_picture):
        assert str(shown)
    for picture in (found.scores_picture, found.decisions_picture, found.performance_picture):
        assert picture.startswith("<svg")
    assert look(made, 0, 1).verdict == found.verdict, "from the history it is the same"


def test_a_model_that_never_served_is_undecided(made: Home) -> None:
    found = look(made, 0, 1)
    assert found.verdict == "undecided" and "no prediction in the window" in found.lines[1]
    assert [(line["version"], line["rows"]) for line in read_history("late", home=made)] == [("", 0)]
    Served(made).day(0, draw_rows(5))
    assert [part["rows"] for part in look(made, 0, 1).parts] == [5]
    assert [line["rows"] for line in read_history("late", home=made)] == [5]


def test_a_model_that_nobody_trained_is_refused_and_leaves_nothing(made: Home) -> None:
    with pytest.raises(VersionError):
        monitor("lat", home=made)
    assert not made.model("lat").exists()


def test_each_version_and_deployment_is_judged_by_itself_and_one_can_be_asked_for(made: Home) -> None:
    served = Served(made)
    served.day(0, draw_rows(20), "batch")
    served.day(0, draw_rows(30), "realtime")
    served.day(0.1, draw_rows(40), "batch", version="late:" + "0" * 32)
    served.day(0.2, draw_rows(50), "batch", role="shadow")
    found = look(made, 0, 1)
    assert sorted((part["deployment"], part["rows"]) for part in found.parts) == [
        ("batch", 20),
        ("batch", 40),
        ("realtime", 30),
    ]
    gone = next(part for part in found.parts if part["rows"] == 40)
    assert gone["verdict"] == "undecided" and "removed" in " ".join(gone["reasons"])
    assert gone["measures"]["latency_p50_ms"] is not None, "its rows are counted all the same"
    one = look(made, 0, 1, version=served.version.version)
    assert [part["rows"] for part in one.parts] == [20, 30] and one.told == -1
    with pytest.raises(VersionError):
        look(made, 0, 1, version="ffff")


def test_answers_that_were_altered_fail_and_people_are_told_until_it_is_over(made: Home) -> None:
    served = Served(made)
    served.day(0, draw_rows(60))
    base = open_sqlite(made.log("late"))
    base.execute("UPDATE predictions SET scores = json_array(json_extract(scores, '$[0]') * 0.9999)")
    base.close()
    found = look(made, 0, 1)
    assert found.verdict == "fail" and found.told == 1 and "answers computed again differ" in " ".join(found.lines)
    (alert,) = list_alerts(home=made)
    assert (alert.finding.subject, alert.finding.deployment, alert.finding.state) == ("answers", "batch", "fail")
    assert look(made, 0, 1).told == 1, "found again, and not opened twice"
    assert look(made, 1, 2).told == 1, "a day without a prediction is no all-clear"
    served.day(2, draw_rows(600, seed=2))
    assert look(made, 2, 3).told == 0 and list_alerts(home=made) == []
    assert look(made, 0, 1).told == -1 and list_alerts(home=made) == [], "an old window opens no alarm"


def test_refused_rows_are_counted_by_reason_and_too_many_fail(made: Home, tmp_path: Path) -> None:
    version = Registry(made).open("late")
    rows = draw_rows(40).astype({"wind": object})
    rows.loc[3:7, "wind"] = "strong"
    rows.to_csv(tmp_path / "rows.csv", index=False)
    report = score_file(version, tmp_path / "rows.csv", home=made)
    assert (report.scored, report.rejected) == (35, 5)
    score_file(version, tmp_path / "rows.csv", home=made, out=tmp_path / "again.csv")
    found = monitor("late", home=made)
    (part,) = found.parts
    assert (part["rows"], part["measures"]["refused"], found.verdict) == (35, 5, "fail")
    assert part["measures"]["refused_share"] == pytest.approx(5 / 40)
    assert "5 of 40 rows were refused" in found.lines[1] and "wind" in found.lines[1]
    assert "strong" not in "".join(found.lines), "a value may be personal"


def test_flags_are_counted(made: Home) -> None:
    served = Served(made)
    served.day(0, draw_rows(40), faults='[{"column": "wind", "rule": "usually up to 20", "row": 0}]')
    part = look(made, 0, 1).parts[0]
    assert part["measures"]["flagged_share"] == 1.0 and part["counts"]["log"]["flags"] == {"wind: usually up to 20": 40}


def test_rows_that_cannot_be_read_are_told_and_cost_themselves_alone(made: Home) -> None:
    served = Served(made)
    logged = served.day(0, draw_rows(40))
    base = open_sqlite(made.log("late"))
    spoilt = [("features", "{"), ("scores", "[]"), ("decision", "nothing")]
    for (name, text), row in zip(spoilt, logged, strict=False):
        base.execute(f"UPDATE predictions SET {name} = ? WHERE prediction_id = ?", (text, row["prediction_id"]))
    base.close()
    part = look(made, 0, 1).parts[0]
    assert part["counts"]["log"]["unreadable"] == 3 and part["counts"]["rows"] == 37
    assert any("cannot be read" in reason for reason in part["reasons"])


def test_a_regression_has_errors_and_no_decisions(made: Home) -> None:
    served = Served(made, "price")
    rows = pd.DataFrame({"area": np.linspace(0, 199, 100)})
    served.label(served.day(0, rows), rows["area"] * 2 + 4, known=0.9)
    measures = look(made, 0, 1, "price").parts[0]["measures"]
    assert measures["mae"] == pytest.approx(3, rel=1e-6) and measures["rmse"] == pytest.approx(3, rel=1e-6)
    assert not [name for name in measures if name.startswith("decided:")] and "accuracy" not in measures


def test_two_monitors_at_once_leave_one_line_a_window(made: Home) -> None:
    served = Served(made)
    for number in range(3):
        served.day(number, draw_rows(30, seed=number))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: look(made, 0, 3), range(3)))
    assert {one.parts[0]["rows"] for one in found} == {90}
    assert [line["rows"] for line in read_history("late", home=made)] == [30, 30, 30]


def test_a_busy_day_is_read_in_parts_that_add_up(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(made)
    for hour in range(8):
        served.day(hour / 24, draw_rows(50, seed=hour))
    whole = look(made, 0, 1).parts[0]
    monkeypatch.setattr(parts_module, "PART", 40)
    (part,) = window_module.measure_window("late", (FIRST, FIRST + DAY_US), home=made)
    assert part["rows"] == 400
    for name in ("rows", "columns", "scores", "decisions"):
        assert part["counts"][name] == whole["counts"][name]


def test_a_window_whose_rows_were_moved_is_the_same_window(made: Home) -> None:
    served = Served(made)
    served.label(served.day(0, rows := draw_rows(60)), true_labels(rows), known=0.9)
    before = window_module.measure_window("late", (FIRST, FIRST + DAY_US), home=made)
    assert move_log("late", home=made).rows == 60
    after = window_module.measure_window("late", (FIRST, FIRST + DAY_US), home=made)
    assert [{**line, "measured_at": ""} for line in before] == [{**line, "measured_at": ""} for line in after]
    assert after[0]["counts"]["log"]["labelled"] == 60 and after[0]["seen"] == [60, 60, 0]


def test_tables_that_lie_behind_are_a_warning_as_of_the_end_of_the_window(home: Home) -> None:
    lake = Lake(home.lake)
    hours = [FIRST + 3_600_000_000 * hour for hour in range(12)]
    at = pl.Series("available_at", hours).cast(pl.Datetime("us", "UTC"))
    table = pl.DataFrame([pl.Series("gate", ["A"] * 12), at, at.alias("ingested_at")])
    lake.append("weather", table.to_arrow(), transaction=None)
    views = [
        SimpleNamespace(name="strict", table="weather", max_lag=timedelta(hours=2)),
        SimpleNamespace(name="open", table="weather", max_lag=None),
        SimpleNamespace(name="gone", table="nowhere", max_lag=None),
    ]
    watched = window_module.Watched(tag="m:1", opened=SimpleNamespace(views=views))  # type: ignore[arg-type]
    found = window_module.measure_freshness(watched, FIRST + DAY_US // 2, home=home)
    assert found["strict"]["behind"] == found["open"]["behind"] == 3600 and found["gone"]["behind"] is None
    assert found["strict"]["newest"] == found["strict"]["ingested"] == format_time(hours[-1])
    early = window_module.measure_freshness(watched, hours[3] + 60_000_000, home=home)
    assert early["strict"]["behind"] == 60, "what came later was not there"
    late = window_module.measure_freshness(watched, FIRST + DAY_US, home=home)
    line = {"rows": 5, "counts": {}, "reason": "", "served": {}, "freshness": late}
    told = {reason.what: reason.state for reason in find_broken_rules(line, {}, most=0.01)}
    assert sorted(told.values()) == ["warn", "warn"], "one beyond what its view allows, one without a row"
    assert any("13.0 h behind" in what and "allows 2.0 h" in what for what in told)


def test_few_rows_are_judged_with_those_of_the_days_before(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    def note(counts: Any, profile: Any, thresholds: Any, *, day: int) -> list[dict[str, Any]]:
        judged.append((counts["rows"], thresholds.days, day))
        return []

    monkeypatch.setattr(module, "judge_counts", note)
    served = Served(made)
    for number, rows in enumerate((100, 80, 70, 90, 60, 120, 30, 600)):
        served.day(number, draw_rows(rows, seed=number))
        judged.clear()
        part = look(made, number, number + 1).parts[0]
        assert part["rows"] == part["measures"]["rows"] == rows
        first = FIRST // DAY_US
        if number == 2:
            assert judged[0] == (250, 3, first + 1), "all that there is"
        if number == 6:
            assert judged[0] == (550, 7, first + 3), "the shortest that has 500 rows"
    assert judged[0] == (600, 1, first + 7)


def test_a_drift_is_told_with_its_cause_and_closed_when_it_is_over(made: Home) -> None:
    served = Served(made)
    for number in range(4):
        rows = draw_rows(600, seed=number)
        served.day(number, rows.assign(wind=rows["wind"] * 1.6) if number in (1, 2) else rows)
    assert [look(made, number, number + 1).verdict for number in range(3)] == ["pass", "warn", "warn"], "advisory"
    found = {alert.finding.subject: alert.finding for alert in list_alerts(home=made)}
    assert sorted(found) == ["columns", "scores"]
    assert found["scores"].since == format_time(FIRST + DAY_US), "since the first of the windows in a row"
    assert "wind" in found["scores"].cause and found["scores"].action and found["scores"].link
    assert look(made, 3, 4).told == 0
    assert [line["verdict"] for line in read_history("late", home=made)] == ["pass", "warn", "warn", "pass"]
    assert "is a warning: " in look(made, 3, 4).rows_picture, "a warning has its mark"


def test_the_same_rows_scored_by_several_ways_are_one_alert_and_said_once(made: Home) -> None:
    served = Served(made)
    ways, rows = ("batch", "edge", "realtime"), draw_rows(600, seed=1)
    for way in ways:
        served.day(0, rows.assign(wind=rows["wind"] * 1.6), way)
    found = look(made, 0, 1)
    named = ", ".join(ways)
    assert len(found.parts) == 3 and len(found.lines) == 3, found.lines
    assert found.lines[1].startswith(f"{named} of late:") and ": each warn, 600 rows: " in found.lines[1]
    assert found.lines[2] == f"alerts open: {found.told}" and found.told == 2
    assert {alert.finding.deployment for alert in list_alerts(home=made)} == {named}
    assert str(found.reasons).count(f"| {named} |") == 2

    for way in ways[:2]:  # the third one serves nothing that day, and nobody knows of it
        served.day(1, rows.assign(wind=rows["wind"] * 1.7), way)
    assert look(made, 1, 2).told == 2
    assert {(alert.number, alert.finding.deployment) for alert in list_alerts(home=made)} == {(1, named), (2, named)}

    for way in ways:
        served.day(2, draw_rows(600, seed=2) if way != "edge" else rows.assign(wind=rows["wind"] * 1.6), way)
    look(made, 2, 3)
    assert {(alert.number, alert.finding.deployment) for alert in list_alerts(home=made)} == {(1, "edge"), (2, "edge")}
    for way in ways:
        served.day(3, draw_rows(600, seed=3), way)
    assert look(made, 3, 4).told == 0 and len(list_alerts(closed=True, home=made)) == 2


@pytest.mark.parametrize(("start", "end"), [("2024-01-02", "2024-01-01"), ("1990-01-01", "2024-01-01")])
def test_an_interval_that_is_none_is_one_line(start: str, end: str) -> None:
    start, end = (f"{day}T00:00:00Z" for day in (start, end))
    with pytest.raises(LogError, match="window: an end after its begin") as caught:
        choose_interval(start, end, FIRST)
    assert caught.value.code == "monitor.window"


def test_without_an_interval_it_is_the_day_up_to_now(made: Home) -> None:
    served = Served(made)
    served.day(0.5, draw_rows(5))
    assert monitor("late", home=made, clock=lambda: (FIRST + DAY_US) * 1000).parts[0]["rows"] == 5
    assert monitor("late", home=made, clock=lambda: (FIRST + 2 * DAY_US) * 1000).parts[0]["rows"] == 0
    assert module.DAY_US == DAY_US


def test_nights_without_a_prediction_are_undecided_however_many(made: Home) -> None:
    Served(made).day(-1, draw_rows(600))
    assert [look(made, night, night + 1).verdict for night in range(4)] == ["undecided"] * 4
    assert look(made, 0, 4).verdict == "undecided"


def test_an_end_that_has_not_come_is_refused_and_leaves_nothing(made: Home) -> None:
    Served(made).day(0, draw_rows(600))
    with pytest.raises(LogError, match="an end that has come") as refused:
        look(made, 0, 2, clock=lambda: (FIRST + DAY_US) * 1000)
    assert refused.value.code == "monitor.window" and not read_history("late", home=made)


def test_an_interval_by_hand_doubles_no_row_and_silences_no_night(made: Home) -> None:
    served = Served(made)
    for night in range(4):
        served.day(night, draw_rows(120, seed=night))
    for night in range(3):
        look(made, night, night + 1)
    look(made, 0.5, 3.5)
    found = look(made, 3, 4)
    assert found.told >= 0
    wide = window_module.widen_line(found.parts[0], read_history("late", home=made, end=found.start))
    assert wide[0]["rows"] == 4 * 120 and found.verdict == "pass", wide


def test_a_version_that_was_removed_is_looked_back_at(made: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(made)
    rows = draw_rows(600)
    served.label(served.day(0, rows), true_labels(rows), known=0.9)
    look(made, 0, 1)
    monkeypatch.setattr(module, "keep_watched", lambda *_, **__: lambda tag: window_module.Watched(tag))
    assert look(made, 0, 2).parts
