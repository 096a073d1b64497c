"""A version is taken through its deployments apart from what it serves, and how it came out is signed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import DeploymentError, RefusedError, VersionError
from mlworkbench.features.views import AsOfView, Total, WindowView
from mlworkbench.operate.certify.answers import DeploymentAnswers
from mlworkbench.operate.certify.certificate import SUMMARY, certificate_rows, certify, verify_certificate
from mlworkbench.operate.certify.deployments import DEPLOYMENT_CALLERS
from mlworkbench.operate.certify.examine import examine_version, open_separate_home
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import DEPLOYMENTS, ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.signature import signed, signing_key
from mlworkbench.scoring.version.version import Version

UTC = timezone.utc  # noqa: UP017
START = datetime(2013, 1, 1, tzinfo=UTC)


def landings(lake: Lake, count: int = 400) -> None:
    draws = np.random.default_rng(2)
    landed = [START + timedelta(minutes=11 * n) for n in range(count)]
    table = {"origin": draws.choice(["JFK", "LGA"], count), "available_at": landed, "delay": draws.normal(5, 9, count)}
    lake.append("landings", pl.DataFrame(table).to_arrow())
    hours = [START + timedelta(hours=n) for n in range(80)]
    wind = {"origin": ["JFK"] * 80, "available_at": hours, "wind": draws.uniform(0, 30, 80)}
    lake.append("weather", pl.DataFrame({**wind, "sky": ["clear", None] * 40}).to_arrow())


def timed(**more: object) -> ModelDefinition:
    draws = np.random.default_rng(3)
    count = 260
    data = pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(count)],
            "at": [START + timedelta(minutes=15 * n) for n in range(count)],
            "origin": draws.choice(["JFK", "LGA"], count),
            "distance": draws.uniform(100, 2500, count),
            "late": draws.integers(0, 2, count),
        }
    )
    recent = {"recent": Total("mean", "delay", 3), "flights": Total("count", "")}
    views = (
        AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=3)),
        WindowView("landings", "landings", ("origin",), window=timedelta(hours=3), columns=recent),
    )
    features = ("distance", "wind", "recent", "flights")
    model = HistGradientBoostingClassifier(max_iter=5)
    fields = {"entity": ("flight",), "prediction_time": "at", "views": views, "features": features, **more}
    return ModelDefinition("late", model, data, "late", **fields)


def simple(home: Home, *deployments: str) -> Version:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(0, 1, 60), "carrier": draws.choice(["AA", "UA"], 60)})[["distance"]]
    y = pd.Series(X["distance"] > 0.5, name="far")
    version = Registry(home).open("far", register(LogisticRegression().fit(X, y), X, y, name="far", home=home).tag)
    declared = list(deployments or ("one_off", "batch"))
    return replace(version, declaration={**version.declaration, "deployments": declared})


@pytest.mark.system
def test_every_declared_deployment_is_equal_and_the_version_may_be_promoted(home) -> None:
    landings(Lake(home.lake))
    declared = tuple(name for name in DEPLOYMENTS if name in DEPLOYMENT_CALLERS and name != "edge")
    definition = timed(deployments=declared)
    registry = Registry(home)
    version = registry.open("late", train(definition, home=home).tag)
    with pytest.raises(RefusedError, match="has a certificate"):
        registry.promote("late", version.version, who="Ada", why="first")
    some = certify(version, home=home, definition=definition, rows=200)
    with pytest.raises(RefusedError, match="which is on 200 of at least 260 rows"):
        registry.promote("late", version.version, who="Ada", why="first")
    assert some.fields["available"] == 260
    certificate = certify(version, home=home, definition=definition)
    summary = certificate.summary
    assert list(summary) == ["verdict", "rows", "rejected", "anchor", "deployments", "reasons"]
    reasons = summary["reasons"]
    assert (reasons["verdict"], reasons["rows"], reasons["mismatches"]) == ("equal", 20, 0)
    assert reasons["max_difference"] <= reasons["tolerance"] == 1e-9
    assert "<td>reasons</td>" in certificate.page.read_text()
    assert (summary["verdict"], summary["rows"], certificate.refusal) == ("equal", 260, "")
    assert [row["deployment"] for row in summary["deployments"]] == list(DEPLOYMENTS)
    assert all(tuple(row) == SUMMARY for row in summary["deployments"])
    for row in summary["deployments"]:
        expected = ("equal", 260) if row["deployment"] in declared else ("not_declared", 0)
        assert (row["verdict"], row["rows"]) == expected
        assert (row["missing"], row["duplicated"], row["mismatches"], row["feature_mismatches"]) == (0, 0, 0, {})
    singles = next(row for row in certificate.fields["deployments"] if row["deployment"] == "realtime")
    assert singles["latency_rows"] == 1 and 0 < singles["latency_us"] < 1e6
    assert not home.log("late").exists() and not (home.model("late") / "predictions").exists()
    assert registry.promote("late", version.version, who="Ada", why="first") == version.version
    assert registry.history("late")[0]["basis"] == f"certificate {certificate.fields['name']}, 260 rows"


@pytest.mark.system
def test_a_service_that_does_not_start_refuses_with_its_own_line_and_the_others_are_examined(home) -> None:
    version = simple(home, "one_off", "realtime")
    data = version.folder / "card.md"
    data.write_text(data.read_text() + "altered")
    _, verdicts = examine_version(version, certificate_rows(version, home=home), home=home)
    found = {one.deployment: one for one in verdicts}
    assert found["one_off"].verdict == "equal"
    assert (found["realtime"].verdict, found["realtime"].missing) == ("refused", 60)
    assert "card.md was altered" in found["realtime"].reason


def test_several_classes_are_certified(home) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    iris = LogisticRegression(max_iter=500).fit(X, y)
    version = Registry(home).open("iris", register(iris, X, y, name="iris", home=home).tag)
    version = replace(version, declaration={**version.declaration, "deployments": ["one_off", "batch"]})
    certificate = certify(version, home=home)
    assert (certificate.verdict, certificate.summary["rows"]) == ("equal", 150)


def test_rows_are_drawn_by_seed_and_hold_no_label(home) -> None:
    version = simple(home)
    some = certificate_rows(version, home=home, rows=10)
    assert some.columns == ["distance"] and some.height == 10
    assert some.equals(certificate_rows(version, home=home, rows=10))
    assert certificate_rows(version, home=home, rows=None).height == certificate_rows(version, home=home).height == 60
    changed = replace(version, declaration={**version.declaration, "seed": 7})
    assert not some.equals(certificate_rows(changed, home=home, rows=10))


def test_a_model_whose_rows_nobody_knows_is_refused(home) -> None:
    version = simple(home)
    stranger = replace(version, manifest={**version.manifest, "model": "other"})
    with pytest.raises(DeploymentError, match=r"settings\.ini \[models\], or rows stored by register; got neither"):
        certificate_rows(stranger, home=home)


def test_rows_that_break_the_contract_are_left_out_and_counted(home) -> None:
    version = simple(home)
    asked = pl.DataFrame({"distance": [0.2, None, 0.9]})
    reference, verdicts = examine_version(version, asked, home=home)
    assert (len(reference.scores), reference.rejected) == (2, 1)
    assert {one.verdict for one in verdicts} == {"equal", "not_declared"}


def test_what_is_served_and_what_is_certified_do_not_touch(home) -> None:
    version = simple(home)
    asked = certificate_rows(version, home=home)
    DEPLOYMENT_CALLERS["batch"](version, asked, home=home)
    before = {path: path.read_bytes() for path in home.model("far").rglob("*.parquet")}

    def wrong(version: Version, asked: pl.DataFrame, *, home: Home) -> DeploymentAnswers:
        told = DEPLOYMENT_CALLERS["batch"](version, asked, home=home)
        return replace(told, scores=told.scores + 0.1)

    _, verdicts = examine_version(version, asked, home=home, ways={**DEPLOYMENT_CALLERS, "batch": wrong})
    assert [one.mismatches for one in verdicts if one.deployment == "batch"] == [60]
    assert {path: path.read_bytes() for path in home.model("far").rglob("*.parquet")} == before
    assert not list(home.model("far").glob("certificates/.*"))


def test_a_deployment_that_nobody_can_ask_is_refused_and_one_that_is_not_declared_is_not(home) -> None:
    version = simple(home, "batch")
    _, verdicts = examine_version(version, certificate_rows(version, home=home), home=home, ways={})
    assert [one.verdict for one in verdicts].count("not_declared") == len(DEPLOYMENTS) - 1
    assert next(one for one in verdicts if one.deployment == "batch").reason.startswith("batch: nothing can ask")


def test_a_lake_that_moves_on_voids_the_examination(home) -> None:
    lake = Lake(home.lake)
    landings(lake)
    version = Registry(home).open("late", train(timed(deployments=("batch",)), home=home).tag)

    def meanwhile(version: Version, asked: pl.DataFrame, *, home: Home) -> DeploymentAnswers:
        told = DEPLOYMENT_CALLERS["batch"](version, asked, home=home)
        row = {"origin": ["LGA"], "available_at": [START], "wind": [1.0], "sky": ["clear"]}
        lake.append("weather", pl.DataFrame(row).to_arrow())
        return told

    asked = certificate_rows(version, home=home, definition=timed(), rows=20)
    with pytest.raises(DeploymentError) as raised:
        examine_version(version, asked, home=home, ways={"batch": meanwhile})
    assert raised.value.code == "certify.lake_changed"


def test_a_lake_that_moves_on_before_the_deployments_are_asked_is_seen_too(home, monkeypatch) -> None:
    from mlworkbench.operate.certify import reference as reference_page

    lake = Lake(home.lake)
    landings(lake)
    version = Registry(home).open("late", train(timed(deployments=("batch",)), home=home).tag)
    right = reference_page.view_values

    def meanwhile(*given):
        found = right(*given)
        row = {"origin": ["LGA"], "available_at": [START], "wind": [1.0], "sky": ["clear"]}
        lake.append("weather", pl.DataFrame(row).to_arrow())
        return found

    asked = certificate_rows(version, home=home, definition=timed(), rows=20)
    monkeypatch.setattr(reference_page, "view_values", meanwhile)
    with pytest.raises(DeploymentError, match=r"from .*'weather': 0.* to .*'weather': 1") as raised:
        examine_version(version, asked, home=home)
    assert raised.value.code == "certify.lake_changed"


def test_a_refused_certificate_is_written_and_signed_too_and_allows_nothing(home, monkeypatch) -> None:
    version = simple(home, "batch")
    right = DEPLOYMENT_CALLERS["batch"]

    def wrong(version: Version, asked: pl.DataFrame, *, home: Home) -> DeploymentAnswers:
        told = right(version, asked, home=home)
        return replace(told, scores=told.scores + 0.001)

    monkeypatch.setitem(DEPLOYMENT_CALLERS, "batch", wrong)
    certificate = certify(version, home=home)
    assert certificate.verdict == "refused"
    assert ": batch 60 mismatches" in certificate.refusal
    assert verify_certificate(certificate.path, home=home)[0] == "valid"
    with pytest.raises(RefusedError, match="which is refused, with none equal"):
        Registry(home).promote("far", version.version, who="Ada", why="please")


def test_a_certificate_is_valid_altered_or_of_an_unknown_key(home, tmp_path) -> None:
    certificate = certify(simple(home), home=home)
    status, line = verify_certificate(certificate.path, home=home)
    assert status == "valid" and "\n" not in line
    assert line.startswith(f"valid: {certificate.fields['version']}, equal, 60 rows, 20")
    assert verify_certificate(certificate.path, home=Home.open(tmp_path / "other"))[0] == "unknown key"
    certificate.page.write_text(certificate.page.read_text().replace("60", "600"))
    assert verify_certificate(certificate.path, home=home)[1].startswith("altered: certificate.html")
    certificate.path.write_text(certificate.path.read_text().replace('"rows": 60', '"rows": 61', 1))
    assert verify_certificate(certificate.path, home=home)[0] == "altered"
    certificate.path.write_text("{")
    assert verify_certificate(certificate.path, home=home)[0] == "altered"
    key = signing_key(home)
    certificate.path.write_text(json.dumps(signed({"verdict": "equal", "rows": 7}, key)))
    with pytest.raises(VersionError, match="without version, issued_at, page") as raised:
        verify_certificate(certificate.path, home=home)
    assert raised.value.code == "certificate.other_content"
    with pytest.raises(VersionError) as raised:
        verify_certificate(tmp_path / "nothing.json", home=home)
    assert raised.value.code == "certificate.unreadable"


def test_a_certificate_holds_no_row_and_nobody(home) -> None:
    lake = Lake(home.lake)
    landings(lake)
    definition = timed(deployments=("batch",), personal=("flight",))
    version = Registry(home).open("late", train(definition, home=home).tag)
    certificate = certify(version, home=home, definition=definition, rows=30)
    text = certificate.path.read_text() + certificate.page.read_text()
    assert certificate.verdict == "equal" and "UA " not in text
    assert set(certificate.fields["hashes"]) == {"version", "code", "data", "rows", "environment"}
    assert certificate.fields["lake"] == {"landings": 0, "weather": 0}
    left = [path.name for path in home.model("late").rglob("*") if path.is_file()]
    assert sorted(left) == ["certificate.html", "certificate.json"]


CERTIFY = """
import sys, time
from dataclasses import replace
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.operate.certify import certificate, deployments as ways
from mlworkbench.scoring.registry.registry import Registry
home = Home.open(Path(sys.argv[1]))
version = Registry(home).open("far")
version = replace(version, declaration={**version.declaration, "deployments": ["one_off", "batch"]})
if sys.argv[2] == "wait":
    right = ways.score_file
    def slow(*given, **more):
        told = right(*given, **more)
        print("asked", flush=True)
        time.sleep(60)
        return told
    ways.score_file = slow
print(certificate.certify(version, home=home).verdict)
"""


def test_a_kill_in_the_middle_leaves_no_certificate_and_the_next_one_sweeps(home, tmp_path) -> None:
    version = simple(home)
    command = [sys.executable, "-c", CERTIFY, str(home.path), "wait"]
    (tmp_path / "tmp").mkdir()
    (home.model("far") / "certificates" / ".part-left").mkdir(parents=True)
    somewhere = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=somewhere) as run:
        assert run.stdout is not None and run.stdout.readline().strip() == "asked"
        time.sleep(0.1)
        os.kill(run.pid, signal.SIGKILL)
    place = home.model("far") / "certificates"
    assert len(list(place.glob(".examined-*"))) == 1 and not list(place.glob("2*"))
    assert [path.name for path in place.rglob("requests.parquet")] == ["requests.parquet"]
    assert not list((tmp_path / "tmp").rglob("*.parquet"))
    assert Registry(home).certificates.of(version.version) == []
    with open_separate_home("far", home=home):
        assert len(list(place.glob(".examined-*"))) == 1
    assert [path.name for path in place.iterdir()] == [".part-left"]
    certificate = certify(version, home=home)
    assert list(place.iterdir()) == [certificate.path.parent]
    assert Lake(home.lake).tables() == ["far_rows"]


def test_two_processes_certify_one_version_at_once(home) -> None:
    version = simple(home)
    command = [sys.executable, "-c", CERTIFY, str(home.path), "go"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == ["equal", "equal"]
    records = Registry(home).certificates.of(version.version)
    assert len({record.name for record in records}) == 2
    for record in records:
        assert verify_certificate(home.path / record.file, home=home)[0] == "valid"
        assert json.loads((home.path / record.file).read_text())["name"] == record.name
