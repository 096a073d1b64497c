"""`mlworkbench certify` as a release script sees it: JSON, exit codes, one line for each mistake."""

from __future__ import annotations

import json

import pytest

from mlworkbench.home import Home
from mlworkbench.operate.certificate import SUMMARY
from mlworkbench.operate.ways import DEPLOYMENTS, WAYS
from mlworkbench.scoring.registry import Registry


@pytest.fixture
def wrong(monkeypatch):
    """A batch that answers a hundredth more."""
    from dataclasses import replace

    right = WAYS["batch"]

    def shifted(version, asked, home):
        told = right(version, asked, home)
        return replace(told, scores=told.scores + 0.01)

    monkeypatch.setitem(WAYS, "batch", shifted)


@pytest.mark.system
def test_training_certifies_before_it_promotes_and_certify_says_so_again(workbench, facts, tell):
    trained = facts("train", "--promote")
    assert trained["promoted"] is True
    assert trained["certificate"]["verdict"] == "equal"
    story = facts("models", "history")["history"]
    assert story[0]["basis"].startswith("certificate ")
    found = facts("certify")
    assert list(found) == ["verdict", "rows", "deployments"]
    assert found["verdict"] == "equal" and found["rows"] > 0
    assert [row["deployment"] for row in found["deployments"]] == list(DEPLOYMENTS)
    assert all(list(row) == list(SUMMARY) for row in found["deployments"])
    records = Registry(Home.open()).certificates.of(trained["version"])
    assert len(records) == 2
    file = Home.open().path / records[0].file
    assert facts("certify", "--verify", file)["status"] == "valid"
    file.write_text(file.read_text().replace('"missing": 0', '"missing": 2', 1))
    code, out, err = tell("certify", "--verify", file)
    assert (code, out, err) == (1, "altered: certificate.json is not what was signed\n", "")


def test_a_refused_deployment_is_not_promoted_and_leaves_with_one(workbench, tell, wrong, monkeypatch):
    for name in set(WAYS) - {"one_off", "batch"}:
        monkeypatch.setitem(WAYS, name, WAYS["one_off"])
    code, out, err = tell("train", "--promote", "--json")
    assert code == 1
    told = json.loads(out.strip().splitlines()[-1])
    assert (told["promoted"], told["certificate"]["verdict"]) == (False, "refused")
    assert "must answer every row like the reference" in err and "not promoted" in err
    assert Registry(Home.open()).champion("cars") is None
    code, out, err = tell("certify", "--version", told["version"], "--rows", 20, "--json")
    assert code == 1 and json.loads(out)["verdict"] == "refused"
    code, out, err = tell("models", "promote", told["version"], "--why", "now")
    assert code == 1 and "has a certificate of" in err
    code, out, err = tell("models", "promote", told["version"], "--why", "now", "--override", "compared by hand")
    assert code == 0
    assert Registry(Home.open()).history("cars")[0]["basis"] == "override: compared by hand"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "5", "--all"], "--rows: not with --all; got 5"),
        (["--live"], "--since: goes with --live"),
        (["--since", "2013-01-01T00:00:00+00:00"], "--since: goes with --live"),
        (["--verify", "nothing.json"], "a certificate that can be read"),
        (["--rows", "0"], "--rows"),
    ],
)
def test_mistakes_are_one_line_each(workbench, tell, words, said):
    code, out, err = tell("certify", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and out == ""


def test_served_answers_are_recomputed_from_the_command_line(workbench, facts, tell, tmp_path):
    facts("train")
    code, _, err = tell("certify", "--live", "--since", "2020-01-01T00:00:00+00:00")
    assert code == 2 and err.count("\n") == 1
    facts("batch")
    found = facts("certify", "--live", "--since", "2020-01-01T00:00:00+00:00")
    assert (found["verdict"], found["deployments"][0]["deployment"]) == ("equal", "batch")
    code, out, _ = tell("certify", "--live", "--since", "2020-01-01T00:00:00+00:00")
    assert code == 0 and "metric: " in out


def test_an_example_is_certified_without_a_settings_file_and_no_other_model_is_taken_for_one():
    from mlworkbench.cli.certify import example_definition

    assert example_definition("flights").name == "flights"
    assert example_definition("penguins") is None
    assert example_definition("cars") is None
