"""A model is retrained by rule: when it is due, what is proposed or refused and why, once, and whole when killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.errors import RunError
from mlworkbench.operate.loop.alerts import Finding, list_alerts, report_findings
from mlworkbench.operate.loop.challenger import find_proposal, hold_retraining, report_proposal, retrain
from mlworkbench.operate.loop.policy import SCHEDULED_AT, decide_retraining, find_asking_alarms, find_last_training
from mlworkbench.operate.running.cells import begin_run, finish_run
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

DAY = 86_400_000_000
GATES = {"accuracy": (">=", 0.7)}


def rows(count: int = 400) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"delay": draws.normal(size=400), "wind": draws.normal(size=400)})
    return table.assign(late=table["delay"] + table["wind"] > draws.normal(size=400))[:count]


FEW = ModelDefinition("late", LogisticRegression(), rows(150), "late", gates=GATES, deployments=("one_off",))
MORE = replace(FEW, data=rows())
POOR = replace(FEW, data=rows().assign(late=np.random.default_rng(1).permutation(rows()["late"])))


@pytest.fixture
def served(home, made_once) -> str:
    """A home whose champion learned from few rows; the tag of it."""

    def make() -> None:
        tag = retrain(FEW, home=home).trained.tag
        Registry(home).promote("late", tag, who="Ada", why="first")
        report_proposal("late", home=home)

    made_once("served", home, make)
    return str(Registry(home).champion("late"))


def told(home: Home) -> list[tuple[str, str]]:
    return [(alert.finding.subject, alert.finding.source) for alert in list_alerts(model="late", home=home)]


def test_what_passes_is_a_challenger_with_a_certificate_a_comparison_and_one_message(home, served) -> None:
    made = retrain(MORE, home=home, why="last trained 2013-09-01, longer ago than 30 days")
    new, kept = made.trained.tag, Registry(home)
    assert (made.verdict, made.beside.before) == ("pass", served)
    assert (kept.aliases.get("late"), kept.champion("late")) == ({"champion": served, "challenger": new}, served)
    assert made.certificate is not None and made.certificate.verdict == "equal"
    assert made.comparison is not None and made.comparison.verdict == "refused", "it learned something new"
    (alert,) = list_alerts(model="late", home=home)
    found = alert.finding
    assert (found.source, found.state, found.version) == ("retrain", "warn", new)
    assert found.cause == "last trained 2013-09-01, longer ago than 30 days"
    assert found.action.startswith(f"look at the page, then mlworkbench models promote {new[:17]} --why ")
    assert "accuracy" in found.sure and "by the one that serves" in found.sure
    assert found.link == str(made.comparison.page) and made.comparison.page.is_file()
    (line,) = [one for one in kept.history("late") if one["alias"] == "challenger" and one["to"] == new]
    assert (line["who"], line["why"]) == ("mlworkbench retrain", found.cause)


def test_the_command_of_the_message_promotes_it_and_then_nothing_waits(home, served) -> None:
    made = retrain(MORE, home=home)
    assert len(told(home)) == 1
    Registry(home).promote("late", made.trained.tag, who="Ada", why="better")
    assert find_proposal("late", home=home) is None
    assert report_proposal("late", home=home) is None and told(home) == []


def test_what_was_promoted_and_rolled_back_is_not_proposed_again(home, served) -> None:
    tag = retrain(MORE, home=home).trained.tag
    kept = Registry(home)
    kept.promote("late", tag, who="Ada", why="better")
    kept.rollback("late", who="Ada", why="worse in the evening")
    assert report_proposal("late", home=home) is None and kept.champion("late") == served
    again = retrain(MORE, home=home)
    assert "was champion already; nothing to propose" in again.line and told(home) == []


def test_the_same_rows_again_propose_nothing_and_tell_nobody_twice(home, served) -> None:
    first = retrain(MORE, home=home)
    (alert,) = list_alerts(model="late", home=home)
    again = retrain(MORE, home=home)
    assert "training gave the version that waits for a person since" in again.line and again.certificate is None
    assert [one.number for one in list_alerts(model="late", home=home)] == [alert.number]
    assert first.trained.tag == again.trained.tag
    back = retrain(FEW, home=home)
    assert (back.verdict, back.trained.tag) == ("pass", served) and "the version that serves" in back.line


def test_a_failed_gate_is_refused_with_its_reason_and_leaves_no_alias(home, served) -> None:
    made = retrain(POOR, home=home)
    assert made.verdict == "fail" and "not proposed, gates fail: accuracy >= 0.7: fail, 0." in made.line
    assert set(Registry(home).aliases.get("late").values()) == {served} and told(home) == []
    assert made.outcome["verdict"] == "fail" and "comparison" in made.outcome["reports"]


def test_a_declared_gate_that_cannot_be_decided_proposes_nothing(home, served) -> None:
    made = retrain(replace(MORE, gates={"accuracy": (">=", 0.7), "r2": (">=", 0.1)}), home=home)
    assert made.verdict == "undecided" and "gates undecided: r2" in made.line
    assert find_proposal("late", home=home) is None


def test_a_version_that_is_not_certified_is_refused_with_its_reason(home, served, monkeypatch) -> None:
    from mlworkbench.operate.loop import challenger

    real = challenger.certify

    def spoilt(*given, **more):
        found = real(*given, **more)
        first = {**found.fields["deployments"][0], "verdict": "refused", "mismatches": 3, "reason": ""}
        return replace(found, fields={**found.fields, "verdict": "refused", "deployments": [first]})

    monkeypatch.setattr(challenger, "certify", spoilt)
    made = retrain(MORE, home=home)
    assert made.verdict == "refused" and "does not answer every row like the reference" in made.line
    assert set(Registry(home).aliases.get("late").values()) == {served} and find_proposal("late", home=home) is None


def test_a_sample_is_a_trial(home, served) -> None:
    made = retrain(MORE, home=home, rows=100)
    assert "trained on a sample" in made.line and made.certificate is None and made.outcome["sample"]
    assert find_proposal("late", home=home) is None and told(home) == []


def test_a_challenger_that_was_set_by_hand_is_nobodys_proposal(home, served) -> None:
    tag = retrain(POOR, home=home).trained.tag
    Registry(home).promote("late", tag, who="Ada", why="to try", alias="challenger")
    assert report_proposal("late", home=home) is None and told(home) == []


def test_two_at_once_are_one_and_a_refusal_to_try_again(home, served) -> None:
    with hold_retraining("late", home=home), pytest.raises(RunError) as caught:
        retrain(MORE, home=home)
    assert caught.value.code == "retrain.busy" and caught.value.exit_code == 75
    assert retrain(MORE, home=home).verdict == "pass", "the lock is free again"


def finish_retraining(home: Home, **result: object) -> str:
    run = begin_run({"home": str(home.path), "model": "late", "run_id": ""}, notebook="retrain")
    finish_run(run, {"verdict": "pass", **result})
    return run.run_id


def test_age_counts_from_the_newest_version_or_the_last_retraining(home, served, monkeypatch) -> None:
    made = find_last_training("late", home=home)
    assert made is not None
    month = timedelta(days=30)
    for days, due in ((29, False), (31, True)):
        found = decide_retraining("late", home=home, if_older=month, moment=made + days * DAY)
        assert found.due is due and ("longer ago than 30 days" if due else "within 30 days") in found.why
    assert not decide_retraining("late", home=home, if_older=month).due
    finish_retraining(home, moment="2099-01-20T00:00:00+00:00")
    finish_retraining(home, moment="", sample=True)
    monkeypatch.setenv(SCHEDULED_AT, "2099-02-01T02:30:00+01:00")
    assert not decide_retraining("late", home=home, if_older=month).due, "the schedule's moment is asked, not the clock"
    monkeypatch.setenv(SCHEDULED_AT, "2099-03-01T02:30:00+01:00")
    assert decide_retraining("late", home=home, if_older=month).due


def alarm(version: str = "", **fields: object) -> Finding:
    given = {"model": "late", "source": "monitor", "subject": "accuracy", "state": "fail", "version": version}
    given |= {"what": "accuracy fell", "since": "2013-10-01", "action": "retrain"}
    return Finding(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, True),
        ({"version": "late:another"}, False),
        ({"action": "ask the source about its unit"}, False),
        ({"source": "schedule:nightly"}, False),
    ],
)
def test_an_open_alarm_asks_where_it_advises_it_about_the_version_that_serves(home, served, fields, asks) -> None:
    found = alarm(**{"version": served, **fields})
    report_findings([found], model="late", source=found.source, home=home)
    due = decide_retraining("late", home=home, on_alarm=True)
    assert (due.due, bool(find_asking_alarms("late", home=home))) == (asks, asks)
    assert ("accuracy fell" in due.why) is asks
    assert decide_retraining("late", home=home).why == "asked for"


def test_an_alarm_that_was_answered_asks_again_only_when_it_gets_worse(home, served) -> None:
    report_findings([alarm(measure=1.0, state="warn")], model="late", source="monitor", home=home)
    time.sleep(1.1)  # the table counts seconds
    finish_retraining(home, moment="2013-10-02T00:00:00+00:00")
    assert decide_retraining("late", home=home, on_alarm=True).why == "no open alarm asks for it"
    time.sleep(1.1)
    report_findings([alarm(measure=1.2)], model="late", source="monitor", home=home)
    assert decide_retraining("late", home=home, on_alarm=True, if_older=timedelta(days=9)).due
    report_findings([], model="late", source="monitor", home=home)
    assert not decide_retraining("late", home=home, on_alarm=True).due, "it is over"


WORK = """
import sys
sys.path.insert(0, sys.argv[1])
from mlworkbench import retrain
from mlworkbench.core.home import Home
from test_challenger import MORE
print("ready", flush=True)
print(retrain(MORE, home=Home.open()).verdict, flush=True)
"""


@pytest.mark.parametrize("step", ["Registry.promote", "report_findings"])
def test_one_that_ends_at_a_step_leaves_nothing_half_made_and_the_next_one_tells(
    home, served, monkeypatch, step
) -> None:
    from mlworkbench.operate.loop import challenger

    def stop(*given, **more):
        raise KeyboardInterrupt

    owner, _, name = step.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(challenger, owner) if owner else challenger, name, stop)
        with pytest.raises(KeyboardInterrupt):
            retrain(MORE, home=home)
    waits = find_proposal("late", home=home)
    assert (waits is not None, told(home)) == (step == "report_findings", [])
    assert retrain(MORE, home=home).verdict == "pass"
    assert len(told(home)) == 1 and find_proposal("late", home=home) is not None


@pytest.mark.long
def test_one_that_is_killed_twenty_times_leaves_nothing_half_made(home, served) -> None:
    here, draws = str(Path(__file__).parent), random.Random(0)
    for place in range(20):
        process = subprocess.Popen([sys.executable, "-c", WORK, here], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(draws.uniform(0, 3.0) * (place + 1) / 20)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept, waits = Registry(home), find_proposal("late", home=home)
        assert kept.champion("late") == served
        for version in kept.versions("late"):
            kept.verified(version["tag"])
        if waits:
            assert kept.aliases.get("late")["challenger"] == waits.tag
            assert any(row["verdict"] == "equal" for row in map(dict, kept.certificates.of(waits.tag)))
    assert retrain(MORE, home=home).verdict == "pass"
    assert len(told(home)) == 1 and find_proposal("late", home=home) is not None


def test_a_window_forgets_and_changes_no_id_where_there_is_none(home) -> None:
    table = rows().assign(asked=pd.date_range("2013-01-01", periods=400, freq="D", tz="UTC"))
    timed = replace(MORE, data=table, prediction_time="asked", features=("delay", "wind"))
    spans = (None, timedelta(days=99), timedelta(days=9999))
    whole, some, wide = (train(replace(timed, window=span), home=home) for span in spans)
    taught = [sum(made.rows[name] for name in ("train", "validation")) for made in (whole, some, wide)]
    assert taught == [400, 100, 400], "both ends of a window belong to it"
    assert wide.tag == whole.tag != some.tag, "the window stands outside of the id"
