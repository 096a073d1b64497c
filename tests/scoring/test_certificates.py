"""A champion is certified, or somebody said why not; what was certified once may always come back."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract import Column, Contract
from mlworkbench.errors import Refused, VersionError
from mlworkbench.home import Home
from mlworkbench.scoring.build import build_version
from mlworkbench.scoring.certificates import CertificateRecord, Certificates
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import frame_to_pandas
from mlworkbench.scoring.registry import Registry

CONTRACT = Contract((Column("distance", "number"),))
ROWS = FeatureFrame({"distance": np.arange(1.0, 21.0)})
WAYS = ("one_off", "batch", "realtime")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Registry(Home.open(tmp_path / "home"))


def add(registry: Registry, slope: float, **more: object) -> str:
    folder = registry.home.path / f"built-{slope}"
    table = frame_to_pandas(ROWS, CONTRACT)
    few = ROWS.take(range(5))
    parts = {"model": "price", "task": "regression", "classes": [], "request": CONTRACT, "frame": CONTRACT}
    line = LinearRegression().fit(table, slope * table["distance"])
    golden = (few.columns, {}, few)
    identity = build_version(
        folder, **parts, pipeline=line, golden=golden, training=ROWS, verdict={"verdict": "pass"}, **more
    )
    return registry.add(folder, "price", identity)


def certificate(tag: str, name: str = "c1", **fields: object) -> CertificateRecord:
    made = CertificateRecord(name, tag, "2013-11-01T00:00:00+00:00", "equal", WAYS, 5000, "9f3c", "price/c1.json")
    return replace(made, **fields)


def test_the_first_champion_too_needs_a_certificate(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with pytest.raises(Refused, match=r"has a certificate of one_off, batch, realtime; got none; run mlworkbench cert"):
        registry.promote("price", tag, who="Ada", why="first")
    assert registry.history("price") == []
    registry.certificates.add(certificate(tag))
    registry.promote("price", tag, who="Ada", why="first")
    assert registry.history("price")[0]["basis"] == "certificate c1"


@pytest.mark.parametrize("fields", [{"verdict": "refused"}, {"verdict": "undecided"}, {"deployments": WAYS[:2]}])
def test_a_certificate_that_is_not_equal_for_all_declared_deployments_does_not_do(
    registry: Registry, fields: dict[str, object]
) -> None:
    tag = add(registry, 2.0)
    registry.certificates.add(certificate(tag, **fields))
    with pytest.raises(Refused, match="has a certificate"):
        registry.promote("price", tag, who="Ada", why="first")


def test_the_newest_certificate_decides_about_promotion(registry: Registry) -> None:
    tag = add(registry, 2.0)
    registry.certificates.add(certificate(tag))
    registry.certificates.add(certificate(tag, "c2", verdict="refused"))
    with pytest.raises(Refused, match="got refused for one_off, batch, realtime"):
        registry.promote("price", tag, who="Ada", why="first")


def test_a_certificate_of_another_version_does_not_do(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    registry.certificates.add(certificate(one))
    with pytest.raises(Refused, match="got none"):
        registry.promote("price", two, who="Ada", why="first")


def test_more_deployments_certified_than_declared_is_fine(registry: Registry) -> None:
    tag = add(registry, 2.0, deployments=("batch",))
    registry.certificates.add(certificate(tag))
    assert registry.promote("price", tag, who="Ada", why="first") == tag


def test_an_override_needs_a_reason_that_the_history_keeps(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with pytest.raises(Refused, match="has a certificate"):
        registry.promote("price", tag, who="Ada", why="first", override="  ")
    registry.promote("price", tag, who="Ada", why="first", override="the service machine is down")
    assert registry.history("price")[0]["basis"] == "override: the service machine is down"


def test_a_challenger_needs_no_certificate(registry: Registry) -> None:
    tag = add(registry, 2.0)
    registry.promote("price", tag, who="Ada", why="compare", alias="challenger")
    assert registry.history("price")[0]["basis"] == ""


def test_rolling_back_to_a_certified_version_is_always_allowed(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    for tag, name in ((one, "c1"), (two, "c2")):
        registry.certificates.add(certificate(tag, name))
        registry.promote("price", tag, who="Ada", why="next")
    registry.certificates.add(certificate(one, "c3", verdict="refused"))
    assert registry.rollback("price", who="Grace", why="worse") == one
    assert registry.history("price")[-1]["basis"] == "certificate c1"


def test_rolling_back_to_one_that_was_never_certified_needs_an_override(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    registry.promote("price", one, who="Ada", why="first", override="no service here")
    registry.certificates.add(certificate(two))
    registry.promote("price", two, who="Ada", why="second")
    with pytest.raises(Refused, match="got none"):
        registry.rollback("price", who="Grace", why="worse")
    assert registry.champion("price") == two and len(registry.history("price")) == 2
    assert registry.rollback("price", who="Grace", why="worse", override="it is night") == one
    assert registry.history("price")[-1]["basis"] == "override: it is night"


def test_certificates_are_only_added(tmp_path: Path) -> None:
    kept = Certificates(tmp_path / "registry.sqlite")
    kept.add(certificate("price:1"))
    with pytest.raises(VersionError, match="not kept"):
        kept.add(certificate("price:2"))
    with sqlite3.connect(kept.path) as db:
        for attempt in ("DELETE FROM certificate", "UPDATE certificate SET verdict = 'equal'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                db.execute(attempt)
    db.close()
    assert kept.of("price:1") == [certificate("price:1")]
    assert kept.of("price:2") == []


def test_a_history_of_an_older_package_is_kept_and_gets_its_column(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with sqlite3.connect(registry.home.registry) as db:
        db.executescript(
            "CREATE TABLE alias (model TEXT NOT NULL, alias TEXT NOT NULL, tag TEXT NOT NULL, "
            "PRIMARY KEY (model, alias));"
            "CREATE TABLE history (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, model TEXT NOT NULL, "
            "alias TEXT NOT NULL, verb TEXT NOT NULL, old TEXT, new TEXT, who TEXT NOT NULL, why TEXT NOT NULL);"
            f"INSERT INTO alias VALUES ('price', 'champion', '{tag}');"
            "INSERT INTO history (at, model, alias, verb, old, new, who, why) "
            f"VALUES ('2013', 'price', 'champion', 'moved', NULL, '{tag}', 'Ada', 'first');"
        )
    db.close()
    assert registry.champion("price") == tag
    assert registry.history("price")[0]["basis"] == ""
    other = add(registry, 3.0)
    registry.promote("price", other, who="Ada", why="second", override="by hand")
    assert [row["basis"] for row in registry.history("price")] == ["", "override: by hand"]


PROMOTE = """
import sys
from pathlib import Path
from mlworkbench.home import Home
from mlworkbench.scoring.certificates import CertificateRecord, Certificates
kept = Certificates(Path(sys.argv[1]))
for n in range(10):
    kept.add(CertificateRecord(f"{sys.argv[2]}-{n}", "price:1", "2013", "equal", ("batch",), 1, "0", "c"))
"""


def test_two_processes_that_certify_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    runs = [subprocess.Popen([sys.executable, "-c", PROMOTE, str(path), name]) for name in "ab"]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert len(Certificates(path).of("price:1")) == 20
