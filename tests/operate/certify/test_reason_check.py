"""The row of a certificate for reasons: the same of every deployment, or the one that differs is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.deploy import table_scoring
from mlworkbench.deploy.reasons import explain_texts
from mlworkbench.operate.certify import certificate as certifying
from mlworkbench.operate.certify.answers import DeploymentAnswers
from mlworkbench.operate.certify.certificate import certify
from mlworkbench.operate.certify.deployments import DEPLOYMENT_CALLERS, ask_batch
from mlworkbench.operate.certify.examine import examine_version
from mlworkbench.operate.certify.reason_check import CLOSE, compare_reasons
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Predictions, Version


@pytest.fixture
def far(home: Home) -> tuple[Version, pl.DataFrame]:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, 60), "delay": draws.normal(0, 9, 60)})
    y = pd.Series(X["distance"] + X["delay"] / 9 > 0.5, name="far")
    version = Registry(home).open("far", register(LogisticRegression().fit(X, y), X, y, name="far", home=home).tag)
    return replace(version, declaration={**version.declaration, "deployments": ["one_off", "batch"]}), pl.from_pandas(X)


def swapped(version: Version, predictions: Predictions) -> list[str]:
    """Give the reasons of each row to the other column."""
    swap = {"distance": "delay", "delay": "distance"}
    return [pl.Series([text]).str.replace_many(swap)[0] for text in explain_texts(version, predictions)]


def test_file_and_batch_explain_alike(far: tuple[Version, pl.DataFrame], home: Home) -> None:
    version, rows = far
    found = compare_reasons(version, rows, home=home, examined=examine_version(version, rows, home=home))
    assert (found.verdict, found.rows, found.mismatches, found.tolerance) == ("equal", 20, 0, CLOSE)
    assert found.max_difference <= CLOSE


@pytest.mark.parametrize("fault", ["swapped", "refused", "none"])
def test_a_fault_in_the_reasons_of_one_deployment_refuses_the_certificate_and_names_it(
    fault: str, far: tuple[Version, pl.DataFrame], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(version: Version, given: pl.DataFrame, *, home: Home, explain: bool = False) -> DeploymentAnswers:
        with monkeypatch.context() as planted:
            if fault == "swapped":
                planted.setattr(table_scoring, "explain_texts", swapped)
            elif explain and fault == "refused":
                planted.setattr(table_scoring, "explain_texts", refuse)
            return ask_batch(version, given, home=home, explain=explain and fault != "none")

    monkeypatch.setitem(DEPLOYMENT_CALLERS, "batch", faulty)
    found = certify(far[0], home=home)
    verdicts = {row["deployment"]: row["verdict"] for row in found.fields["deployments"]}
    assert (verdicts["one_off"], verdicts["batch"], found.verdict) == ("equal", "equal", "refused")
    reasons = found.fields["reasons"]
    assert (reasons["verdict"], reasons["rows"], reasons["mismatches"]) == ("refused", 20, 20)
    assert "reasons batch: " in found.refusal and "one_off" not in reasons["reason"]
    assert reasons["reason"] == ("batch: no reasons today" if fault == "refused" else "batch: 20 of 20 rows differ")
    page = found.page.read_text()
    assert "<td>reasons</td>" in page and reasons["reason"] in page


def refuse(version: Version, predictions: Predictions) -> list[str]:
    from mlworkbench.errors import ScoringError

    raise ScoringError("no reasons today")


def test_a_version_made_before_is_not_asked_and_its_certificate_says_so(
    far: tuple[Version, pl.DataFrame], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, rows = far
    examined = examine_version(version, rows, home=home)
    (version.folder / "reasons.json").unlink()
    before = replace(version)
    found = compare_reasons(before, rows, home=home, examined=examined, ways={})
    assert (found.verdict, found.reason) == ("not_available", "not available: made before; train again")
    monkeypatch.setattr(certifying, "examine_version", lambda *_, **__: examined)
    made = certify(before, home=home)
    assert (made.verdict, made.refusal) == ("equal", "")
    assert "not available: made before" in made.page.read_text()


def test_without_a_deployment_that_answered_nothing_is_compared(far: tuple[Version, pl.DataFrame], home: Home) -> None:
    version, rows = far
    reference, verdicts = examine_version(version, rows, home=home)
    refused = [replace(one, verdict="refused") for one in verdicts]
    found = compare_reasons(version, rows, home=home, examined=(reference, refused))
    assert (found.verdict, found.max_difference) == ("undecided", 0.0)
