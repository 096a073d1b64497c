"""`mlworkbench alerts` and `site`: what is wrong is listed and acknowledged by a shell; the doctor says what waits."""

import json

import pytest

from mlworkbench.core.home import Home
from mlworkbench.operate.loop.alerts import Finding, report_findings


@pytest.fixture
def found(workbench):
    """A home with one open alert that nobody was told."""
    home = Home.open()
    facts = {"model": "cars", "source": "monitor", "what": "higher than in training", "since": "2013-10-01"}
    report_findings([Finding(subject="scores", state="warn", **facts)], model="cars", source="monitor", home=home)
    return home


def test_what_is_open_is_listed_acknowledged_and_gone_when_it_is_over(found, facts, tell):
    (alert,) = facts("alerts", "list")["alerts"]
    assert (alert["number"], alert["level"], alert["state"], alert["subject"]) == (1, "warn", "open", "scores")
    known = facts("alerts", "ack", "1", "--why", "the source is told")
    assert (known["state"], known["why"]) == ("acknowledged", "the source is told")
    assert "acknowledged" in tell("alerts", "list")[1]
    report_findings([], model="cars", source="monitor", home=found)
    assert facts("alerts", "list")["alerts"] == [] and "nothing is open" in tell("alerts", "list")[1]
    assert [one["state"] for one in facts("alerts", "list", "--all")["alerts"]] == ["closed"]
    assert facts("alerts", "list", "--all", "--model", "bikes")["alerts"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ack", "7"], "alert 7: this home has none"),
        (["ack", "one"], "ID"),
        (["ack"], "ID"),
        (["list", "--modell", "cars"], "--modell"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_of_alerts_is_one_line(found, tell, words, said):
    code, out, err = tell("alerts", *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_the_doctor_names_ways_that_do_not_work_and_changes_nothing(workbench, monkeypatch, facts, tell):
    monkeypatch.setenv("MLWORKBENCH_ALERTS_TO", "TEAM_CHAT")
    monkeypatch.setenv("MLWORKBENCH_ALERTS_COMMAND", "false")
    states = {one["check"]: (one["state"], one["found"]) for one in facts("doctor")["findings"]}
    assert states["alerts to TEAM_CHAT"] == ("warn", "the variable is not set here")
    assert states["alerts command"] == ("ok", "nothing waits")
    home = Home.open()
    one = Finding(model="cars", source="monitor", subject="scores", state="warn", what="w", since="s")
    report_findings([one], model="cars", source="monitor", home=home)
    for words in (["doctor"], ["alerts", "list"]):
        code, out, _ = tell(*words)
        assert code == 0 and "ended with code 1" in out
    assert len(facts("alerts", "list")["undelivered"]) == 2


def test_an_address_in_settings_ini_is_one_line_that_does_not_show_it(workbench, tell):
    file = workbench / "settings.ini"
    file.write_text(file.read_text() + "\n[alerts]\nto = slack://hunter2\n")
    code, out, err = tell("alerts", "list")
    assert (code, out, err.count("\n")) == (2, "", 1) and "hunter2" not in err and "[alerts] to" in err


def test_a_site_is_written_by_the_command_and_a_folder_with_something_else_refused(found, workbench, tell, facts):
    done = facts("site", "public")
    assert [page.rpartition("/")[2] for page in done["pages"]] == ["index.html", "model-cars.html"]
    assert "higher than in training" in (workbench / "public/model-cars.html").read_text()
    code, out, err = tell("site", ".")
    assert (code, out, err.count("\n")) == (2, "", 1) and "holds a site alone" in err
    assert json.loads((workbench / "public/site.json").read_text())["files"] == ["index.html", "model-cars.html"]
