"""`mlworkbench certify` as a release script sees it: JSON, exit codes, one line for each mistake."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlworkbench.cli.console import shorten_versions
from mlworkbench.core.home import Home
from mlworkbench.operate.certify.certificate import SUMMARY
from mlworkbench.operate.certify.deployments import DEPLOYMENT_CALLERS
from mlworkbench.scoring.definition import DEPLOYMENTS
from mlworkbench.scoring.registry.registry import Registry


@pytest.fixture
def wrong(monkeypatch):
    """A batch that answers a hundredth more."""
    right = DEPLOYMENT_CALLERS["batch"]

    def shifted(version, requests, *, home):
        told = right(version, requests, home=home)
        return replace(told, scores=told.scores + 0.01)

    monkeypatch.setitem(DEPLOYMENT_CALLERS, "batch", shifted)


@pytest.mark.system
def test_training_certifies_before_it_promotes_and_certify_says_so_again(workbench, facts, tell):
    trained = facts("train", "--promote")
    assert trained["promoted"] is True
    assert trained["certificate"]["verdict"] == "equal"
    story = facts("models", "history")["history"]
    assert story[0]["basis"].startswith("certificate ")
    found = facts("certify")
    assert list(found) == ["verdict", "rows", "rejected", "anchor", "deployments", "reasons"]
    assert (found["reasons"]["verdict"], found["reasons"]["mismatches"]) == ("equal", 0)
    assert found["verdict"] == "equal" and found["rows"] > 0
    assert [row["deployment"] for row in found["deployments"]] == list(DEPLOYMENTS)
    assert all(list(row) == list(SUMMARY) for row in found["deployments"])
    records = Registry(Home.open()).certificates.of(trained["version"])
    assert len(records) == 2
    file = Home.open().path / records[0].file
    assert facts("certify", "verify", file)["status"] == "valid"
    file.write_text(file.read_text().replace('"missing": 0', '"missing": 2', 1))
    code, out, err = tell("certify", "verify", file)
    assert (code, out, err) == (1, "altered: certificate.json is not what was signed\n", "")


def test_a_refused_deployment_is_not_promoted_and_leaves_with_one(workbench, tell, wrong, monkeypatch):
    for name in set(DEPLOYMENT_CALLERS) - {"one_off", "batch"}:
        monkeypatch.setitem(DEPLOYMENT_CALLERS, name, DEPLOYMENT_CALLERS["one_off"])
    code, out, err = tell("train", "--promote", "--json")
    assert code == 1
    told = json.loads(out.strip().splitlines()[-1])
    assert (told["promoted"], told["certificate"]["verdict"]) == (False, "refused")
    assert "does not answer every row like the reference" in err and "not promoted" in err
    assert Registry(Home.open()).champion("cars") is None
    code, out, err = tell("certify", told["version"], "--rows", 20, "--json")
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
        (["--live"], "No such option: --live"),
        (["served", "--last", "soon"], "--last: 'soon' is no span"),
        (["served", "--last", "day", "--start", "2013-01-01"], "--start: not with --last; got 2013-01-01"),
        (["verify", "nothing.json"], "cannot read the certificate nothing.json: No such file"),
        (["verify"], "FILE"),
        (["--rows", "0"], "--rows"),
        (["carz"], "did you mean 'cars'?"),
        (["verify", "c.json", "--all"], "No such option: --all"),
        (["verify", "c.json", "--model", "cars"], "No such option: --model"),
        (["served", "--start", "2013-01-01T00:00:00+00:00", "--rows", "5"], "No such option: --rows"),
        (["served", "--start", "2013-01-01T00:00:00+00:00", "--all"], "No such option: --all"),
        (["served", "--start", "2013-01-01T00:00:00+00:00", "--version", "1f3a"], "No such option: --version"),
    ],
)
def test_mistakes_are_one_line_each(workbench, tell, words, said):
    Home.open()
    code, out, err = tell("certify", *words)
    assert code == 2 and said in err and err.count("\n") == 1 and out == ""


def test_served_answers_are_recomputed_from_the_command_line(workbench, facts, tell, tmp_path):
    facts("train")
    code, _, err = tell("certify", "served", "--start", "2020-01-01T00:00:00+00:00")
    assert code == 2 and err.count("\n") == 1
    facts("batch")
    found = facts("certify", "served", "--start", "2020-01-01T00:00:00+00:00")
    assert (found["verdict"], found["deployments"][0]["deployment"]) == ("equal", "batch")
    code, out, _ = tell("certify", "served", "--start", "2020-01-01T00:00:00+00:00")
    assert code == 0 and "metric: " in out


def test_an_example_is_certified_without_a_settings_file_and_no_other_model_is_taken_for_one():
    from mlworkbench.cli.check.certify import find_example

    assert find_example("flights").name == "flights"
    assert find_example("penguins") is None
    assert find_example("cars") is None


def test_checking_a_file_or_what_was_served_makes_no_home(clean, tell):
    (clean / "certificate.json").write_text("{}")
    for words in (("verify", "certificate.json"), ("served", "--start", "2013-01-01T00:00:00+00:00")):
        code, _, err = tell("certify", *words)
        assert code == 2 and "there is no home at" in err and err.count("\n") == 1
    assert [path.name for path in clean.iterdir()] == ["certificate.json"]


def test_rows_that_break_the_contract_are_told(monkeypatch):
    from types import SimpleNamespace

    from mlworkbench.cli.check.certify import describe_certificate

    anchor = {"verdict": "undecided", "reason": "made before the anchor"}
    fields = {"version": "cars:1f3a", "rows": 5000, "rejected": 12, "anchor": anchor}
    reasons = {**dict.fromkeys(SUMMARY, 0), "deployment": "reasons", "feature_mismatches": {}}
    summary = {"deployments": [], "reasons": reasons}
    made = SimpleNamespace(fields=fields, verdict="equal", summary=summary, path="c.json", page="c.html")
    assert describe_certificate(made)[0] == "cars:1f3a: equal on 5,000 rows, 12 left out that break the contract"
    assert describe_certificate(made)[1] == "anchor: undecided: made before the anchor"


@pytest.fixture
def quick(monkeypatch):
    """Every deployment is equal, and no service is started."""
    from mlworkbench.operate.certify import examine as page
    from mlworkbench.operate.certify.verdict import DeploymentVerdict

    def equal(version, good, apart, *, deployment, way):
        return DeploymentVerdict(deployment, "equal", len(good))

    monkeypatch.setattr(page, "examine_deployment", equal)


UNDECIDED = {"metric": "auc", "verdict": "undecided"}


@pytest.mark.parametrize(
    ("gates", "why"),
    [
        ({"verdict": "undecided", "gates": [UNDECIDED]}, ""),
        ({"verdict": "undecided", "gates": []}, "trained; it declares no gates"),
        ({"verdict": "pass", "gates": [{"metric": "auc", "verdict": "pass"}]}, "its gates passed at training"),
    ],
)
def test_training_promotes_what_passed_its_gates_or_declares_none(workbench, tell, quick, monkeypatch, gates, why):
    from mlworkbench.operate.training import train as training

    right = training.train
    monkeypatch.setattr(training, "train", lambda *given, **more: replace(right(*given, **more), gates=gates))
    code, out, err = tell("train", "--promote", "--json")
    assert [line["why"] for line in Registry(Home.open()).history("cars")] == ([why] if why else [])
    told = json.loads(out.strip().splitlines()[-1])
    assert told["promoted"] is bool(why) and ("certificate" in told) is bool(why)
    if not why:
        assert code == 1 and ": undecided; the version is kept and not promoted" in err


def test_the_basis_is_printed_and_the_champion_is_not_promoted_again_in_silence(workbench, facts, tell, quick):
    version = facts("train")["version"]
    facts("certify", "--rows", "1")
    code, _, err = tell("models", "promote", version, "--why", "now")
    assert code == 1 and "which is on 1 of at least 150 rows" in err
    facts("certify")
    code, out, _ = tell("models", "promote", version, "--why", "now")
    assert (
        code == 0
        and out.startswith(f"champion of cars: {shorten_versions(version)}, certificate ")
        and out.endswith(", 150 rows\n")
    )
    code, out, _ = tell("models", "promote", version, "--why", "again")
    assert code == 0 and out.startswith(f"{shorten_versions(version)}: already champion of cars, certificate ")
    facts("certify")
    told = facts("models", "promote", version, "--why", "certified again")
    assert told["moved"] is True
    assert [line["why"] for line in facts("models", "history")["history"]] == ["now", "certified again"]
