"""What was served and what is wrong: windows, alarms, columns against training, and who knows of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import LogError
from mlworkbench.evaluation.log.reader import list_newest, read_log
from mlworkbench.lab.monitor.columns import find_counted
from mlworkbench.lab.monitor.widgets import MonitorPage
from mlworkbench.lab.monitor.windows import explain_alert
from mlworkbench.operate.loop.alerts import Finding, list_alerts, report_findings
from mlworkbench.operate.loop.history import read_history
from mlworkbench.scoring.registry.registry import Registry

from ..conftest import read_widget

PARTS = ("windows", "alarms", "known", "columns", "labels", "performance")


def monitored(home: Home) -> MonitorPage:
    """Open the page and look at the day that was served."""
    page = MonitorPage(home)
    for name in PARTS:
        page.part(name)
    today = datetime.now(UTC).date()
    page.start.value, page.end.value = str(today - timedelta(days=1)), str(today)
    return page


def warn(home: Home, subject: str = "wind") -> None:
    about = {"model": "late", "source": "monitor", "since": "2013-10-18", "link": "mlworkbench monitor --model late"}
    said = {"what": "moved", "cause": "the unit", "action": "see the source"}
    finding = Finding(subject=subject, state="warn", **about, **said)
    report_findings([finding], model="late", source="monitor", home=home)


def test_before_anything_was_monitored_the_page_says_so_and_offers_the_days_that_were_served(late: Home) -> None:
    page = monitored(late)
    shown = {name: read_widget(page.part(name)) for name in PARTS}
    assert "Not monitored yet" in shown["windows"] and "Look at these days" in shown["windows"]
    assert "Not monitored yet" in shown["columns"] and "Not monitored yet" in shown["performance"]
    assert "Nothing is open" in shown["alarms"] and "nothing to acknowledge" in shown["known"]


def test_the_button_monitors_and_every_part_follows(late: Home) -> None:
    page = monitored(late)
    served = read_log(late.log("late"))["prediction_time"].max()
    page.start.value, page.end.value = f"{served:%Y-%m-%d}", f"{served + timedelta(days=1):%Y-%m-%d}"
    page.end.value = min(page.end.value, f"{datetime.now(UTC):%Y-%m-%d}")
    if page.end.value == page.start.value:  # served today: the day is not over
        page.start.value = str(datetime.now(UTC).date() - timedelta(days=1))
    page.look.press()
    assert read_history("late", home=late) and "verdict: " in read_widget(page.part("windows"))


def test_a_day_that_is_none_is_one_line(late: Home) -> None:
    page = monitored(late)
    page.start.value = "yesterday"
    page.look.press()
    assert "yesterday" in page.look.said and "Traceback" not in page.look.said


def test_columns_of_the_window_stand_beside_training(late: Home) -> None:
    from mlworkbench.operate.loop.monitor import monitor

    monitor("late", home=late)
    page = MonitorPage(late)
    shown = read_widget(page.part("columns"))
    assert "40 rows of one_off" in shown and "against 300 rows of training" in shown
    assert set(page.column.options) == {"distance", "wind"} and "stability index" in shown
    before = read_widget(page.part("columns"))
    page.column.value = next(name for name in page.column.options if name != page.column.value)
    assert read_widget(page.part("columns")) != before
    counted = find_counted(page.chosen.version, read_history("late", home=late))
    assert sum(counted.columns["wind"]["bins"]) + counted.columns["wind"]["missing"] == counted.rows == 40


def test_a_version_that_served_nothing_says_so(late: Home) -> None:
    version = Registry(late).open("late", next(r["tag"] for r in Registry(late).versions("late") if not r["aliases"]))
    with pytest.raises(LogError, match="no window in which it served"):
        find_counted(version, read_history("late", home=late))


def test_an_alarm_tells_cause_and_first_command_and_is_acknowledged_with_who_and_why(late: Home) -> None:
    warn(late)
    page = MonitorPage(late)
    alarms = read_widget(page.part("alarms"))
    assert "the unit" in alarms and "mlworkbench monitor --model late" in alarms
    page.part("known")
    page.acknowledge.press()
    assert "why: a few words" in page.acknowledge.said
    page.who.value, page.why.value = "Ada", "the source is told"
    page.acknowledge.press()
    assert "acknowledged by Ada, the source is told" in page.acknowledge.said
    found = list_alerts(model="late", home=late)[0]
    assert (found.state, found.who, found.why) == ("acknowledged", "Ada", "the source is told")
    assert "Ada: the source is told" in read_widget(page.part("alarms"))
    assert list(explain_alert(found))[-1] == "first command"


def test_an_alarm_that_is_over_meanwhile_cannot_be_acknowledged(late: Home) -> None:
    warn(late)
    page = MonitorPage(late)
    page.part("known")
    report_findings([], model="late", source="monitor", home=late)
    page.why.value = "late"
    page.acknowledge.press()
    assert "is over since" in page.acknowledge.said
    assert "Over" in read_widget(MonitorPage(late).part("alarms"))


def test_what_comes_from_outside_is_escaped(late: Home) -> None:
    warn(late, subject="<script>alert(1)</script>")
    assert "<script>" not in read_widget(MonitorPage(late).part("alarms"))


def test_the_newest_predictions_are_those_of_the_log(late: Home) -> None:
    whole = read_log(late.log("late")).sort("prediction_time", "prediction_id", descending=[True, False])
    newest = list_newest(late.log("late"), most=7)
    assert newest["prediction_time"].to_list() == whole["prediction_time"].head(7).to_list()
    assert set(newest["prediction_id"]) <= set(whole["prediction_id"]) and newest["prediction_id"].is_unique().all()
