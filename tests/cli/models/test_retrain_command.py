"""`mlworkbench retrain`: nothing to do is one line, what is proposed or refused is told, and two at once are one."""

from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.cli.console import shorten_versions
from mlworkbench.core.home import Home
from mlworkbench.operate.loop.alerts import list_alerts
from mlworkbench.operate.loop.challenger import hold_retraining, retrain
from mlworkbench.operate.training.train import find_definition


def test_nothing_to_do_is_one_line_and_starts_nothing(workbench, facts, tell):
    facts("train")
    code, out, err = tell("retrain", "--if-older", "30d", "--on-alarm")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.startswith("cars: nothing to do; last trained 20") and "within 30 days; no open alarm asks for it" in out
    found = facts("retrain", "--on-alarm")
    assert (found["due"], found["waits"], found["why"]) == (False, None, "no open alarm asks for it")
    assert [row["notebook"] for row in facts("runs", "list")["runs"]] == ["train"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--if-older", "soon"], "--if-older: 'soon' is no span of time; write it like 7d, 12h or day"),
        (["--if-older"], "--if-older"),
        (["--model", "carz"], "did you mean 'cars'?"),
    ],
)
def test_a_wrong_option_is_one_line(workbench, tell, words, said):
    code, out, err = tell("retrain", *words)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_two_at_once_are_told_to_try_again(workbench, facts, tell):
    facts("train")
    with hold_retraining("cars", home=Home.open()):
        code, out, err = tell("retrain")
    assert (code, out) == (75, "") and err == "error: cars is being retrained by another process; wait for it\n"


def test_a_promotion_ends_the_proposal_and_its_alert(workbench, facts, tell):
    facts("train")
    home, definition = Home.open(), find_definition("cars", home=Home.open())
    retrain(replace(definition, estimator=LogisticRegression(C=0.5, max_iter=1_000)), home=home)
    (alert,) = list_alerts(model="cars", home=home)
    waits = facts("retrain", "--on-alarm")["waits"]
    assert alert.finding.version == waits
    facts("models", "promote", waits, "--why", "better")
    assert facts("retrain", "--on-alarm")["waits"] is None and list_alerts(model="cars", home=home) == []


@pytest.mark.system
def test_what_fails_its_gates_is_refused_with_the_reason_and_exit_code_one(workbench, facts, tell):
    before = facts("train")["version"]
    path = Path("definition.py")
    guessed = "    rows['target'] = [0, 1, 2] * 50\n    return rows.rename"
    path.write_text(path.read_text().replace("    return rows.rename", guessed))
    code, out, err = tell("retrain")
    assert code == 1, err
    assert (
        "not proposed, gates fail: accuracy >= 0.8: fail, 0." in out
        and f"compared with {shorten_versions(before)}" in out
    )
    assert "nobody is promoted" in err and err.count("\n") == 1
    assert "challenger" not in tell("models", "list")[1]
