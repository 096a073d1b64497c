"""A rare name goes in by every door, and no file that the workbench wrote holds it: decoded, byte by byte."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from persons import BORN, PERSON, STRANGER, asked, decoded, found, places, rides, write_sources

from mlworkbench.contract.pseudonym import open_pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.errors import DeploymentError, SettingsError, VersionError
from mlworkbench.evaluation.log.labels import join_labels
from mlworkbench.evaluation.log.reader import read_labels, read_log
from mlworkbench.scoring.registry.registry import Registry

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
GIVEN = {"rides.csv", "riders.csv", "asked.csv", "asked.parquet", "events.jsonl", "labels.csv", "tips_definition.py"}


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("persons")
    write_sources(folder)
    places = {"BENTOML_HOME": str(folder / "bentoml"), "MLWORKBENCH_HOME": str(folder / "home")}
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**places, "PYTHONPATH": path, "BENTOML_DO_NOT_TRACK": "true"}.items():
            patch.setenv(name, value)
        patch.delenv("MLWORKBENCH_PSEUDONYM_KEY", raising=False)
        patch.chdir(folder)
        with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
            command = [sys.executable, str(HERE / "persons_flow.py")]
            ended = subprocess.run(command, cwd=folder, stdout=out, stderr=err, check=False, timeout=900)
        told = (folder / "stdout.txt").read_text()[-3000:] + (folder / "stderr.txt").read_text()[-3000:]
        assert ended.returncode == 0, told
        yield folder


@pytest.fixture
def home(flow: Path) -> Home:
    return Home.open(flow / "home")


def test_who_rode_is_in_no_file_but_those_that_the_user_gave(flow: Path) -> None:
    assert places(flow, (PERSON, STRANGER), given=GIVEN) == {}


def test_a_personal_column_that_is_no_name_is_in_the_lake_alone(flow: Path) -> None:
    held = places(flow, (BORN,), given=GIVEN)
    assert held and all(name.startswith("home/lake/rides/") and name.endswith(".parquet") for name in held), held


def test_the_search_finds_what_is_hidden_in_a_table_a_database_and_an_archive(tmp_path: Path) -> None:
    pl.DataFrame({"a": [PERSON] * 3}).write_parquet(tmp_path / "a.parquet", compression="zstd")
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", [PERSON])
    database.close()
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "a.parquet")
    for name in ("a.parquet", "a.sqlite", "a.zip"):
        assert any(found(text, (PERSON,)) for text in decoded(tmp_path / name)), name


def test_all_deployments_found_the_person_and_named_nobody(flow: Path, home: Home) -> None:
    log = read_log(home.log("tips"))
    assert {"one_off", "batch", "realtime", "streaming"} <= {*log["deployment"]}
    entities = {json.loads(entity)["rider"] for entity in log["entity"].to_list()}
    assert all(entity.startswith("~") for entity in entities)
    of_person = open_pseudonyms(home).of(PERSON)
    own = log.filter(pl.col("entity").str.contains(of_person, literal=True))
    assert {*own["deployment"]} >= {"one_off", "batch", "realtime", "streaming"}
    served = own.filter(pl.col("deployment") == "realtime")["features"].to_list()
    assert all(json.loads(features)["taken"] > 0 and json.loads(features)["stars"] == 0 for features in served)


def test_results_name_the_person_by_the_pseudonym_of_the_lake(flow: Path, home: Home) -> None:
    of_person = open_pseudonyms(home).of(PERSON)
    lake = Lake(home.lake)
    assert of_person in lake.read("rides")["rider"].to_list() and of_person in lake.read("riders")["person"].to_list()
    assert of_person in pl.read_csv(flow / "scored.csv")["rider"].to_list()
    assert of_person in pl.read_parquet(flow / "scored.parquet")["rider"].to_list()
    lines = [json.loads(line) for line in (flow / "streamed.jsonl").read_text().splitlines()]
    assert lines[0]["entity"]["rider"] == of_person


def test_the_same_row_in_clear_and_from_the_lake_is_the_same_prediction(home: Home) -> None:
    log = read_log(home.log("tips"), deployment="batch")
    assert log.height == log["prediction_id"].n_unique() == 240


def test_labels_meet_their_predictions(home: Home) -> None:
    joined = join_labels(read_log(home.log("tips"), deployment="one_off"), read_labels(home.log("tips")))
    assert joined.height and joined["label"].null_count() == 0


def test_a_label_from_python_is_of_the_person_that_was_asked_about(home: Home) -> None:
    labels = read_labels(home.log("tips"))
    assert all(json.loads(entity)["rider"].startswith("~") for entity in labels["entity"])
    own = labels.filter(pl.col("entity").str.contains(open_pseudonyms(home).of(PERSON), literal=True))
    joined = join_labels(read_log(home.log("tips"), deployment="one_off"), own)
    assert joined["label"].drop_nulls().len()


@pytest.mark.parametrize("model", ["fares", "fares2"])
def test_a_registered_pipeline_knows_the_person_by_the_same_pseudonym(flow: Path, home: Home, model: str) -> None:
    version, pseudonym = Registry(home).open(model), open_pseudonyms(home).of(PERSON)
    assert version.frame.names == ("fare",) and "rider" not in version.golden[0]["request"]
    assert places(version.folder, (pseudonym,), given=set()) == {}
    assert pseudonym in Lake(home.lake).read(f"{model}_rows")["rider"].to_list()
    log = read_log(home.log(model))
    assert {*log["deployment"]} >= {"one_off", "batch"} | ({"realtime"} if model == "fares" else set())
    assert all(json.loads(entity)["rider"].startswith("~") for entity in log["entity"])
    assert pseudonym in pl.read_csv(flow / f"{model}.csv")["rider"].to_list()


def test_dead_letters_say_what_was_wrong_and_where_and_keep_what_is_nobodys(flow: Path) -> None:
    letters = [json.loads(line) for line in (flow / "streamed.jsonl.dead.jsonl").read_text().splitlines()]
    assert [letter["line"] for letter in letters] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert json.loads(letters[0]["event"]) == {"asked": "2024-03-09T12:00:00+00:00", "fare": -1}
    assert {letter["event"] for letter in letters[4:]} == {"(withheld: personal)"}
    assert all(letter["reason"] and "event_base64" not in letter for letter in letters)


def test_version_card_profile_golden_rows_and_certificate_hold_no_key_and_no_personal_column(home: Home) -> None:
    version = Registry(home).open("tips")
    assert {"rider", "street"} & {*version.golden[0]["request"]} == set()
    profile = json.loads((version.folder / "profile.json").read_text())
    assert {"rider", "street"} & {*profile.get("columns", {})} == set()
    pseudonym = open_pseudonyms(home).of(PERSON)
    files = [*version.folder.rglob("*"), *home.model("tips").rglob("certificate*")]
    assert places(version.folder, (pseudonym,), given=set()) == {}
    assert not [path for path in files if path.is_file() and pseudonym.encode() in path.read_bytes()]


def test_what_was_served_is_computed_again_without_the_key(flow: Path, home: Home) -> None:
    told = (flow / "stdout.txt").read_text()
    assert "304 replayed, 304 equal" in told and "0 differ, 0 undecided" in told
    key = home.keys / "pseudonym"
    key.rename(home.keys / "away")
    try:
        from mlworkbench.operate.replay.replay import replay_many

        counts = replay_many("tips", home=home, limit=20).counts
        assert counts["equal"] == counts["replayed"] == 20
    finally:
        (home.keys / "away").rename(key)


def test_a_service_without_the_key_or_with_another_does_not_start(flow: Path, home: Home, monkeypatch) -> None:
    key, name = home.keys / "pseudonym", open_pseudonyms(home).name
    key.rename(home.keys / "away")
    try:
        with pytest.raises(SettingsError) as caught:
            Registry(home).open("tips")
        assert caught.value.code == "settings.key_missing"
        with pytest.raises(DeploymentError, match="there is no key of pseudonyms"), start_service("tips", home=home):
            pytest.fail("it started")
        monkeypatch.setenv("MLWORKBENCH_PSEUDONYM_KEY", "ab" * 32)
        with pytest.raises(VersionError, match=f"trained with, {name}; got "):
            Registry(home).open("tips")
    finally:
        (home.keys / "away").rename(key)


def test_the_environment_gives_the_key_where_the_home_has_none(flow: Path, home: Home, monkeypatch) -> None:
    key = home.keys / "pseudonym"
    monkeypatch.setenv("MLWORKBENCH_PSEUDONYM_KEY", key.read_text().strip())
    key.rename(home.keys / "away")
    try:
        assert Registry(home).open("tips").pseudonyms is not None
    finally:
        (home.keys / "away").rename(key)


def test_the_key_itself_is_printed_and_stored_nowhere_else(flow: Path, home: Home) -> None:
    secret = (home.keys / "pseudonym").read_text().strip()
    held = places(flow, (secret, bytes.fromhex(secret).hex().upper()), given=set())
    assert [*held] == ["home/keys/pseudonym"]
    assert repr(open_pseudonyms(home)) == f"Pseudonyms({open_pseudonyms(home).name!r})"
    assert asked() and rides(1).height
