"""The build folder: what is in it, what is refused, and that a shipped version is the one that was shipped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mlworkbench.cli.app import run
from mlworkbench.core.home import Home
from mlworkbench.core.settings import read_settings
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.selection import select_shipped
from mlworkbench.errors import DeploymentError, VersionError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.ship import image
from mlworkbench.operate.ship.image import ship_image
from mlworkbench.scoring.artifacts.manifest import json_digest, read_manifest
from mlworkbench.scoring.registry.registry import Registry

ROW = {"distance": 500.0, "carrier": "AA"}


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the wheel and the proof for granted: other tests build and prove."""
    monkeypatch.setattr(image, "build_wheel", lambda: ("mlworkbench-0.1.0-py3-none-any.whl", b"wheel"))
    monkeypatch.setattr(image, "prove_lock", lambda lock, version, *, trusted: None)


def test_the_folder_holds_what_bentoml_builds_from(shop: Home, place: Path) -> None:
    version = Registry(shop).open("line")
    done = ship_image(version, place, auth="keys")
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert names == {*image.TEMPLATES, "requirements.txt", "wheels/mlworkbench-0.1.0-py3-none-any.whl"}
    bento = yaml.safe_load((place / "bentofile.yaml").read_text())
    assert (bento["name"], bento["models"]) == ("line", [version.version])
    assert bento["service"] == "service:Scoring" and set(bento["include"]) == (names - {"bentofile.yaml"}) - {
        "wheels/mlworkbench-0.1.0-py3-none-any.whl"
    } | {"wheels/*"}
    lines = (place / "requirements.txt").read_text().splitlines()
    assert lines[0] == "./wheels/mlworkbench-0.1.0-py3-none-any.whl" and len(lines) == done.packages + 1
    text = (place / "service.py").read_text()
    assert version.version in text and json_digest(version.manifest) in text
    assert done.scorer == "compiled" and done.commands[0] == "bentoml build"
    assert oct(place.stat().st_mode & 0o777) == "0o755"


def test_a_package_of_the_system_is_asked_for_where_a_library_takes_it(
    shop: Home, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship_image(Registry(shop).open("line"), place, auth="none")
    assert not (place / "setup.sh").exists()
    monkeypatch.setattr(image, "find_needs", lambda version, *, batch: ["bentoml", "lightgbm"])
    ship_image(Registry(shop).open("line"), place / "boosted", auth="none")
    docker = yaml.safe_load((place / "boosted/bentofile.yaml").read_text())["docker"]
    assert docker["setup_script"] == "setup.sh" and "libgomp1" in (place / "boosted/setup.sh").read_text()


def test_settings_go_along(shop: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_TRUST_TYPES", "cars.Wheel, cars.Door")
    ship_image(replace(Registry(shop).open("line"), flags="refuse"), place, auth="keys")
    monkeypatch.delenv("MLWORKBENCH_TRUST_TYPES")
    monkeypatch.delenv("MLWORKBENCH_HOME")
    found = read_settings(place)
    assert (found.trusted_types, found.contract_flags) == (("cars.Wheel", "cars.Door"), "refuse")
    assert (found.host, found.auth) == ("0.0.0.0", "keys")
    assert found.home_folder == Path("~/.mlworkbench/line").expanduser()


def test_an_empty_folder_is_filled_and_one_with_files_is_left_alone(shop: Home, place: Path) -> None:
    version = Registry(shop).open("line")
    place.mkdir()
    ship_image(version, place, auth="keys")
    before = (place / "service.py").stat().st_mtime_ns
    with pytest.raises(DeploymentError, match="a new folder") as refused:
        ship_image(version, place, auth="keys")
    assert refused.value.code == "output.not_ours" and (place / "service.py").stat().st_mtime_ns == before
    (place.parent / "file").touch()
    with pytest.raises(DeploymentError, match="a new folder"):
        ship_image(version, place.parent / "file", auth="keys")


def test_a_version_that_is_not_declared_for_real_time_is_refused(shop: Home, place: Path) -> None:
    version = Registry(shop).open("line")
    other = replace(version, declaration={**version.declaration, "deployments": ["one_off", "batch"]})
    with pytest.raises(DeploymentError, match="realtime"):
        ship_image(other, place, auth="keys")
    assert not place.exists()


def test_a_shipped_version_answers_in_an_empty_home_and_logs_there(shop: Home, tmp_path: Path) -> None:
    version = Registry(shop).open("line")
    environment = {"MLWORKBENCH_HOME": str(tmp_path / "state" / "home")}
    choice = select_shipped(version.folder, seal=json_digest(version.manifest), environment=environment)
    assert not choice.home.path.exists()  # `bentoml build` selects, too
    realtime = Realtime.open(choice)
    reply = realtime.respond(json.dumps(ROW).encode())
    realtime.close()
    assert json.loads(reply.body)["version"] == version.version
    assert read_log(Home(choice.home.path).log("line")).height == 1
    assert oct(choice.home.path.stat().st_mode & 0o777) == "0o700"


def test_another_manifest_and_an_altered_file_are_refused(shop: Home, tmp_path: Path) -> None:
    version = Registry(shop).open("line")
    seal = json_digest(version.manifest)
    copy = shutil.copytree(version.folder, tmp_path / "copy")
    (copy / "scorer.json").write_bytes((copy / "scorer.json").read_bytes() + b" ")
    with pytest.raises(VersionError, match=r"scorer\.json was altered"):
        Realtime.open(select_shipped(copy, seal=seal))
    manifest = {**read_manifest(copy), "verdict": "pass"}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VersionError, match=r"manifest\.json was altered") as refused:
        select_shipped(copy, seal=seal)
    assert refused.value.code == "version.altered"


def test_the_command_says_what_to_type_next(
    shop: Home, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["ship", "image", "line", "--auth", "keys", "--out", str(place)]) == 0
    told = capsys.readouterr().out
    assert "bentoml build" in told and "bentoml containerize line:latest" in told and "compiled" in told
    monkeypatch.setenv("MLWORKBENCH_SERVE_AUTH", "none")  # the setting, in the place of the option
    assert run(["ship", "image", "line", "--out", str(place / "json"), "--json"]) == 0
    assert "auth = none" in (place / "json/settings.ini").read_text()
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"].startswith("line:") and facts["size"] > 1e7 and len(facts["commands"]) == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["line", "--with", "spark"], "--with: batch, or nothing; got 'spark'"),
        (["lines", "--auth", "keys"], "this workbench has no model 'lines'"),
        (["line:ffff", "--auth", "keys"], "one version, by alias, tag or first digits"),
        (["line"], "who may ask is chosen: keys, or none for everybody; got neither"),
        (["line", "--auth", "password"], "keys, or none for everybody; got password"),
    ],
)
def test_a_mistake_is_one_line(
    shop: Home, words: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["ship", "image", *words, "--out", str(tmp_path / "image")]) == 2
    told = capsys.readouterr().err
    assert line in told and len(told.splitlines()) == 1 and not (tmp_path / "image").exists()
