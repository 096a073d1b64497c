"""A champion is certified, or somebody message why not; what was certified once may always come back."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.errors import RefusedError, VersionError
from mlworkbench.scoring.artifacts.manifest import json_digest, json_text, read_manifest
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.signature import signed, signing_key
from mlworkbench.scoring.registry.tables import CertificateRecord, Certificates, read_record
from mlworkbench.scoring.version.build import build_version

CONTRACT = Contract((Column("distance", "number"),))
ROWS = FeatureFrame({"distance": np.arange(1.0, 21.0)})
WAYS = ("one_off", "batch", "realtime")
BATCH = [{"deployment": "batch", "verdict": "equal"}]


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


def folder_of(registry: Registry, tag: str) -> Path:
    return registry.store.joinpath(*tag.split(":"))


def certificate(registry: Registry, tag: str, name: str = "c1", *, home: Home | None = None, **fields: object) -> Path:
    """Sign a certificate of a version as it is now, and note its line."""
    manifest = read_manifest(folder_of(registry, tag))
    equal = [{"deployment": way, "verdict": "equal"} for way in WAYS]
    told = {"name": name, "version": tag, "content_id": manifest["content_id"], "verdict": "equal", "rows": 5000}
    told |= {"issued_at": "2013-11-01T00:00:00+00:00", "rejected": 0, "available": 300_000, "deployments": equal}
    told |= {"hashes": {"version": json_digest(manifest)}, **fields}
    path = registry.home.path / "price" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(signed(told, signing_key(home or registry.home))), encoding="utf-8")
    registry.certificates.add(read_record(path, home=registry.home))
    return path


def refused(registry: Registry, tag: str, match: str) -> None:
    with pytest.raises(RefusedError, match=match):
        registry.promote("price", tag, who="Ada", why="please")


def test_the_first_champion_too_needs_a_certificate(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with pytest.raises(RefusedError, match=r"has a certificate of one_off, batch, realtime; got none; run"):
        registry.promote("price", tag, who="Ada", why="first")
    assert registry.history("price") == []
    certificate(registry, tag)
    registry.promote("price", tag, who="Ada", why="first")
    assert registry.history("price")[0]["basis"] == "certificate c1, 5,000 rows"


@pytest.mark.parametrize("fields", [{"verdict": "refused"}, {"verdict": "undecided"}, {"deployments": BATCH}])
def test_a_certificate_that_is_not_equal_for_all_declared_deployments_does_not_do(
    registry: Registry, fields: dict[str, object]
) -> None:
    tag = add(registry, 2.0)
    certificate(registry, tag, **fields)
    with pytest.raises(RefusedError) as raised:
        registry.promote("price", tag, who="Ada", why="first")
    assert raised.value.code == "refused.not_certified"


def test_the_newest_certificate_decides_about_promotion(registry: Registry) -> None:
    tag = add(registry, 2.0)
    certificate(registry, tag)
    certificate(registry, tag, "c2", verdict="refused")
    with pytest.raises(RefusedError, match="got certificate c2, which is refused, with one_off, batch, realtime equal"):
        registry.promote("price", tag, who="Ada", why="first")


def test_a_certificate_of_another_version_does_not_do(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    certificate(registry, one)
    with pytest.raises(RefusedError, match="got none"):
        registry.promote("price", two, who="Ada", why="first")


def test_more_deployments_certified_than_declared_is_fine(registry: Registry) -> None:
    tag = add(registry, 2.0, deployments=("batch",))
    certificate(registry, tag)
    assert registry.promote("price", tag, who="Ada", why="first") == tag


def test_an_override_needs_a_reason_that_the_history_keeps(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with pytest.raises(RefusedError) as raised:
        registry.promote("price", tag, who="Ada", why="first", override="  ")
    assert raised.value.code == "refused.not_certified"
    registry.promote("price", tag, who="Ada", why="first", override="the service machine is down")
    assert registry.history("price")[0]["basis"] == "override: the service machine is down"


def test_a_challenger_needs_no_certificate(registry: Registry) -> None:
    tag = add(registry, 2.0)
    registry.promote("price", tag, who="Ada", why="compare", alias="challenger")
    assert registry.history("price")[0]["basis"] == ""


def test_rolling_back_to_a_certified_version_is_always_allowed(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    for tag, name in ((one, "c1"), (two, "c2")):
        certificate(registry, tag, name)
        registry.promote("price", tag, who="Ada", why="next")
    certificate(registry, one, "c3", verdict="refused")
    assert registry.rollback("price", who="Grace", why="worse") == one
    assert registry.history("price")[-1]["basis"] == "certificate c1, 5,000 rows"


def test_rolling_back_to_one_that_was_never_certified_needs_an_override(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    registry.promote("price", one, who="Ada", why="first", override="no service here")
    certificate(registry, two)
    registry.promote("price", two, who="Ada", why="second")
    with pytest.raises(RefusedError, match="got none"):
        registry.rollback("price", who="Grace", why="worse")
    assert registry.champion("price") == two and len(registry.history("price")) == 2
    assert registry.rollback("price", who="Grace", why="worse", override="it is night") == one
    assert registry.history("price")[-1]["basis"] == "override: it is night"


def test_a_line_of_the_registry_is_no_certificate(registry: Registry) -> None:
    tag = add(registry, 2.0)
    line = CertificateRecord("c1", tag, "2013-11-01T00:00:00+00:00", "equal", WAYS, 5000, "9f3c", "price/c1.json")
    registry.certificates.add(line)
    refused(registry, tag, r"got certificate c1, which cannot be read \(No such file")


def test_a_certificate_whose_file_was_deleted_or_edited_allows_nothing(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    files = {tag: certificate(registry, tag, name) for tag, name in ((one, "c1"), (two, "c2"))}
    for tag in (one, two):
        registry.promote("price", tag, who="Ada", why="next")
    whole = files[one].read_text()
    files[one].write_text(whole.replace("5000", "9000"))
    refused(registry, one, "got certificate c1, which was altered")
    files[one].write_text(whole + " ")
    with pytest.raises(RefusedError, match="got certificate c1, which was altered"):
        registry.rollback("price", who="Ada", why="worse")
    files[one].unlink()
    with pytest.raises(RefusedError, match="which cannot be read"):
        registry.rollback("price", who="Ada", why="worse")
    assert registry.champion("price") == two


def test_a_certificate_signed_by_a_stranger_allows_nothing_until_his_key_is_known(
    registry: Registry, tmp_path: Path
) -> None:
    tag, other = add(registry, 2.0), Home.open(tmp_path / "other")
    certificate(registry, tag, home=other)
    refused(registry, tag, "which is signed by a key that is not known here")
    (registry.home.keys / "other.pub").write_bytes((other.keys / "certificate.pub").read_bytes())
    assert registry.promote("price", tag, who="Ada", why="first") == tag


def test_the_signed_verdict_counts_and_not_the_one_of_the_line(registry: Registry) -> None:
    tag = add(registry, 2.0)
    path = certificate(registry, tag, verdict="refused")
    better = replace(read_record(path, home=registry.home), name="c2", verdict="equal")
    registry.certificates.add(better)
    refused(registry, tag, "got certificate c2, which was altered")
    refused_line = registry.certificates.of(tag)[1]
    assert refused_line.verdict == "refused"


def reworded(registry: Registry, tag: str) -> None:
    """Another card, and a manifest that fits it: the content id stays."""
    folder = folder_of(registry, tag)
    manifest = read_manifest(folder)
    for name in ("card.md", "manifest.json"):
        (folder / name).chmod(0o644)
    (folder / "card.md").write_text("another card")
    manifest["files"]["card.md"] = hashlib.sha256(b"another card").hexdigest()
    (folder / "manifest.json").write_text(json_text(manifest))


def test_a_certificate_of_other_files_under_the_same_content_id_does_not_do(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    for tag, name in ((one, "c1"), (two, "c2")):
        certificate(registry, tag, name)
        registry.promote("price", tag, who="Ada", why="next")
    reworded(registry, one)
    registry.seals.forget(one)
    rule = "which is of other files than the version has now; run mlworkbench certify"
    refused(registry, one, rule)
    with pytest.raises(RefusedError, match=rule):
        registry.rollback("price", who="Ada", why="worse")
    certificate(registry, one, "c3")
    assert registry.rollback("price", who="Ada", why="worse") == one


def test_an_altered_version_is_not_rolled_back_to_whoever_says_so(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    for tag, name in ((one, "c1"), (two, "c2")):
        certificate(registry, tag, name)
        registry.promote("price", tag, who="Ada", why="next")
    card = folder_of(registry, one) / "card.md"
    card.chmod(0o644)
    card.write_text("altered")
    for override in ("", "it is night"):
        with pytest.raises(VersionError, match=r"card\.md was altered"):
            registry.rollback("price", who="Ada", why="worse", override=override)
    assert registry.champion("price") == two


def test_a_folder_put_in_another_versions_place_is_not_promoted(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    folder_of(registry, one).rename(registry.home.path / "aside")
    folder_of(registry, two).rename(folder_of(registry, one))
    with pytest.raises(VersionError, match=f"the folder holds {two}"):
        registry.promote("price", one, who="Ada", why="first", override="by hand")


@pytest.mark.parametrize(
    ("rows", "rejected", "available", "enough"),
    [(1, 0, 20, False), (4999, 0, 300_000, False), (20, 0, 20, True), (4990, 10, 300_000, True)],
)
def test_a_certificate_is_on_five_thousand_rows_or_on_all_there_were(
    registry: Registry, rows: int, rejected: int, available: int, enough: bool
) -> None:
    tag = add(registry, 2.0)
    certificate(registry, tag, rows=rows, rejected=rejected, available=available)
    if enough:
        registry.promote("price", tag, who="Ada", why="first")
        assert registry.history("price")[0]["basis"] == f"certificate c1, {rows:,} rows"
    else:
        refused(registry, tag, f"which is on {rows:,} of at least {min(5000, available):,} rows")


def test_a_certificate_without_the_fields_of_today_does_not_do(registry: Registry) -> None:
    tag = add(registry, 2.0)
    certificate(registry, tag, available=None)
    refused(registry, tag, "which does not say what a certificate says now")


def test_promoting_the_champion_again_writes_a_line_only_where_the_basis_is_another(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    for tag in (one, two, two):
        registry.promote("price", tag, who="Ada", why="next", override="by hand")
    assert len(registry.history("price")) == 2
    certificate(registry, two)
    registry.promote("price", two, who="Grace", why="certified since")
    last = registry.history("price")[-1]
    assert (last["verb"], last["from"], last["to"], last["who"]) == ("confirmed", two, two, "Grace")
    assert last["basis"] == "certificate c1, 5,000 rows"
    assert registry.rollback("price", who="Ada", why="worse", override="by hand") == one


def test_certificates_are_only_added(tmp_path: Path) -> None:
    kept = Certificates(tmp_path / "registry.sqlite")
    line = CertificateRecord("c1", "price:1", "2013-11-01T00:00:00+00:00", "equal", WAYS, 5000, "9f3c", "price/c1.json")
    kept.add(line)
    with pytest.raises(VersionError, match=r"^cannot write the table .*: UNIQUE .*nothing was written"):
        kept.add(replace(line, tag="price:2"))
    with sqlite3.connect(tmp_path / "registry.sqlite") as db:
        for attempt in ("DELETE FROM certificate", "UPDATE certificate SET verdict = 'equal'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                db.execute(attempt)
    db.close()
    assert kept.of("price:1") == [line]
    assert kept.of("price:2") == []


def test_a_history_of_an_older_package_is_kept_and_gets_its_column(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with sqlite3.connect(registry.home.registry) as db:
        db.executescript(
            "DROP TABLE IF EXISTS alias; DROP TABLE IF EXISTS history;"
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
from mlworkbench.core.home import Home
from mlworkbench.scoring.registry.tables import CertificateRecord, Certificates
kept = Certificates(Path(sys.argv[1]))
for n in range(10):
    kept.add(CertificateRecord(f"{sys.argv[2]}-{n}", "price:1", "2013", "equal", ("batch",), 1, "0", "c"))
"""


def test_two_processes_that_certify_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    runs = [subprocess.Popen([sys.executable, "-c", PROMOTE, str(path), name]) for name in "ab"]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert len(Certificates(path).of("price:1")) == 20
