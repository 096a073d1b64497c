"""A workbench that an earlier commit packed is unpacked, and all that it holds goes on: nobody is left behind."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.batch import batch_requests, score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.edge.collect import collect
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import UserCodeError
from mlworkbench.evaluation.log.reader import read_labels, read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.views import Total
from mlworkbench.operate.backup import back_up, restore
from mlworkbench.operate.certify.certificate import verify_certificate
from mlworkbench.operate.loop.history import read_history
from mlworkbench.operate.loop.monitor import monitor
from mlworkbench.operate.replay.passport import replay
from mlworkbench.operate.replay.replay import replay_many
from mlworkbench.operate.running.runner import list_runs
from mlworkbench.scoring.artifacts.source_code import load_code
from mlworkbench.scoring.registry.registry import Registry

PACKED = Path(__file__).parents[1] / "old_home" / "home.tar.gz"
IDS = {
    "bills": ["c610777903ef5d085d81b50e471f1697"],
    "penguins": ["0caf3a77ea5fa3487aa9a5ea65688cf1"],
    "tips": ["0f6d26bcc0d275d66179f07eb664672b", "5ea5fc16075f6451ab65f5d143265e5f"],
}
ASKED = {"bills": "asked_bills.csv", "penguins": "asked_birds.csv", "tips": "asked_tips.csv"}
SERVED = ("one_off", "batch", "realtime", "streaming")
NEAR = 1e-9  # another processor may sum in another order


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(PACKED) as archive:
        archive.extractall(folder, filter="tar")
    return folder / "workbench"


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workbench, which is the current folder; its own modules are not importable."""
    copy = shutil.copytree(unpacked, tmp_path / "elsewhere")
    definition = next(copy.rglob("tips_definition.py"))  # the user's own file asks at the door from now on
    definition.write_text(re.sub(r"from mlworkbench(\.\w+)+ import", "from mlworkbench import", definition.read_text()))
    monkeypatch.setenv("BENTOML_HOME", str(copy / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(copy / "home"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def home(folder: Path) -> Home:
    return Home.open(create=False)


def logged(home: Home, model: str) -> dict[str, Any]:
    log = read_log(home.log(model))
    return dict(zip(log["prediction_id"].to_list(), log["scores"].to_list(), strict=True))


def test_every_version_opens_under_its_id_and_is_what_it_was(home: Home) -> None:
    registry = Registry(home)
    assert registry.models() == sorted(IDS)
    for model, ids in IDS.items():
        assert sorted(row["tag"] for row in registry.versions(model)) == [f"{model}:{one}" for one in ids]
        for one in ids:
            version = registry.open(model, one)
            assert version.version == f"{model}:{one}"
            assert version.manifest["anchor"]["verdict"] == "equal"
    assert [registry.open(model).scorer.kind for model in IDS] == ["reference", "compiled", "compiled"]
    assert not {"bird_steps", "bird_sizes", "tips_definition"} & set(sys.modules)


def test_a_version_whose_seal_is_gone_is_proved_by_its_digests(folder: Path) -> None:
    fresh = Home.open(folder / "fresh")
    for model, ids in IDS.items():
        for one in ids:
            found = folder / "bentoml" / "models" / model / one
            content_id = json.loads((found / "manifest.json").read_text())["content_id"]
            assert Registry(fresh).add(found, model, content_id) == f"{model}:{one}"
            Registry(fresh).seals.forget(f"{model}:{one}")
            assert Registry(fresh).open(model, one, with_key=False).content_id == content_id


def test_a_backup_of_it_is_restored_and_all_is_as_it_was(
    folder: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up(tmp_path / "backup", home=home, with_keys=True)
    assert len(made.versions) == 4 and len(made.tables) == 5
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "other-store"))
    restore(tmp_path / "backup", tmp_path / "other-home")
    again = Home.open(tmp_path / "other-home", create=False)
    for model, ids in IDS.items():
        assert logged(again, model) == logged(home, model)
        assert Registry(again).history(model) == Registry(home).history(model)
        assert sorted(tag.partition(":")[2] for tag in Registry(again).holdings.tags(model)) == ids
        (path,) = (again.model(model) / "certificates").glob("*/certificate.json")
        assert verify_certificate(path, home=again)[0] == "valid"
    assert replay_many("tips", home=again).counts == replay_many("tips", home=home).counts


@pytest.mark.parametrize("model", IDS)
def test_the_same_file_gives_the_same_scores_under_the_same_ids(folder: Path, home: Home, model: str) -> None:
    before = logged(home, model)
    score_file(Registry(home).open(model), folder / ASKED[model], home=home, out=folder / "again.csv")
    assert logged(home, model) == before
    with (folder / "again.csv").open() as new, (folder / f"scored_{model}.csv").open() as old:
        again, stored = list(csv.DictReader(new)), list(csv.DictReader(old))
    names = [name for name in stored[0] if name.startswith("score")]
    assert len(again) == len(stored) > 0
    for got, expected in zip(again, stored, strict=True):
        for name in ("prediction_id", "row", "decision"):
            assert got.get(name) == expected.get(name)
        assert [float(got[name]) for name in names] == pytest.approx(
            [float(expected[name]) for name in names], abs=NEAR
        )


@pytest.mark.parametrize("model", IDS)
def test_the_same_batch_adds_nothing_to_the_log(home: Home, model: str) -> None:
    before = logged(home, model)
    score_batch(Registry(home).open(model), batch_requests(model, home=home), home=home)
    assert logged(home, model) == before


@pytest.mark.parametrize("model", IDS)
def test_the_log_comes_out_again_whatever_served(home: Home, model: str) -> None:
    log = read_log(home.log(model))
    assert set(log["deployment"]) == {*SERVED, *(["edge"] if model == "penguins" else [])}
    counts = replay_many(model, home=home).counts
    assert counts["replayed"] == counts["equal"] == log.height > 0
    assert read_labels(home.log(model)).height == 10


@pytest.mark.parametrize("model", IDS)
def test_a_request_is_answered_as_it_was_answered_then(folder: Path, home: Home, model: str) -> None:
    told = json.loads((folder / f"answered_{model}.json").read_text())
    before = logged(home, model)
    with OnlineStore(home.online) as store, PredictionLog(home.log(model)) as log:
        asked = {"list": told["asked"], "new": told["asked"][:1]}
        service = Realtime(Registry(home).open(model), log, store=store)
        answers, new = (
            json.loads(service.respond(json.dumps(rows).encode(), name).body) for name, rows in asked.items()
        )
    assert len(answers) == len(told["answers"]) > 0
    for got, expected in zip([*answers, *new], [*told["answers"], told["answers"][0]], strict=True):
        scores = got.get("scores", {"score": got.get("score")})
        assert scores == pytest.approx(expected.get("scores", {"score": expected.get("score")}), abs=NEAR)
        assert got.get("decision") == expected.get("decision")
    assert [one["prediction_id"] for one in answers] == [one["prediction_id"] for one in told["answers"]]
    assert logged(home, model).keys() - before.keys() == {new[0]["prediction_id"]}


@pytest.mark.parametrize("model", IDS)
def test_its_certificate_is_valid_and_still_allows_promotion(home: Home, model: str) -> None:
    registry = Registry(home)
    champion = str(registry.champion(model))
    (record,) = registry.certificates.of(champion)
    status, line = verify_certificate(home.path / record.file, home=home)
    assert (status, record.verdict) == ("valid", "equal"), line
    assert registry.promote(model, champion, who="test", why="again") == champion
    assert registry.history(model)[-1]["basis"].startswith(f"certificate {record.name}")


def test_an_altered_certificate_is_still_found(home: Home) -> None:
    (record,) = Registry(home).certificates.of(f"bills:{IDS['bills'][0]}")
    path = home.path / record.file
    path.write_text(path.read_text().replace('"rows": 139', '"rows": 138'))
    assert verify_certificate(path, home=home)[0] == "altered"


def test_a_kept_source_finds_at_the_door_what_left_its_module(tmp_path: Path) -> None:
    (tmp_path / "rides.py").write_text(
        "from mlworkbench.an_older_place import AsOfView, Total\n\n\ndef kept(km):\n    return Total\n"
    )
    (kept,) = load_code(tmp_path, [{"file": "rides.py", "module": "rides", "name": "kept", "pandas": False}])
    assert kept.function([]) is Total
    (tmp_path / "rides.py").write_text("from mlworkbench.an_older_place import Nothing\n")
    with pytest.raises(UserCodeError, match=r"cannot import name 'Nothing' from 'mlworkbench.an_older_place'.*retrain"):
        load_code(tmp_path, [{"file": "rides.py", "module": "rides", "name": "kept", "pandas": False}])


def test_history_runs_and_passports_can_be_read(home: Home) -> None:
    moves = Registry(home).history("tips")
    newer, first = (f"tips:{one}" for one in IDS["tips"])
    assert [(move["alias"], move["verb"], move["to"], move["who"], move["why"]) for move in moves] == [
        ("champion", "moved", first, "maker", "first"),
        ("champion", "moved", newer, "maker", "newer"),
        ("challenger", "moved", newer, "maker", "to be watched"),
        ("champion", "rolled back", first, "maker", "back again"),
    ]
    (run,) = list_runs(home)
    assert (run.run_id, run.model, run.state, run.verdict) == ("count-first", "penguins", "done", "pass")
    result = json.loads((home.runs("penguins") / "count-first" / "result.json").read_text())
    assert result["metrics"] == {"rows": 5}
    one = read_log(home.log("tips"), deployment="realtime")["prediction_id"][-1]
    facts = replay(one, home=home)
    assert facts["verdict"] == "equal"
    assert {feature["from"] for feature in facts["features"]} == {
        "request", "view known", "view rides", "row function lengths",
    }  # fmt: skip


def test_a_source_that_was_taken_is_not_taken_again(folder: Path, home: Home) -> None:
    columns = (
        Column("rider", "text", pseudonym=True),
        Column("street", "text", personal=True),
        Column("asked", "time"),
        Column("fare", "number", lower=0),
        Column("tip", "integer"),
    )
    contract = Contract(columns, key=("rider", "asked"))
    before = Lake(home.lake).read("rides").height
    ingest(Table("rides", folder / "rides.csv", contract, available_at="asked", limit=0.5), home=home)
    assert Lake(home.lake).read("rides").height == before == 160


def test_a_device_made_then_works_on_and_its_predictions_come_home(folder: Path, home: Home) -> None:
    device, out = folder / "device_penguins", folder / "new.jsonl"
    words = [sys.executable, "-I", device / "device" / "score.py", device / "requests.jsonl", "--out", out, "--json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    new, old = ([json.loads(line) for line in path.open()] for path in (out, device / "predictions.jsonl"))
    assert [row["decision"] for row in new] == [row["decision"] for row in old]
    for got, expected in zip(new, old, strict=True):
        assert got["scores"] == pytest.approx(expected["scores"], abs=NEAR)
    before = read_log(home.log("penguins"), deployment="edge").height
    collect(device / "predictions.jsonl", home=home)
    assert read_log(home.log("penguins"), deployment="edge").height == before == 10
    collect(out, home=home)
    assert replay_many("penguins", home=home).counts["differ"] == 0


@pytest.mark.parametrize("model", sorted(IDS))
def test_what_it_served_is_monitored_though_its_profiles_keep_no_days(
    home: Home, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")
    log = read_log(home.log(model))
    first, last = log["prediction_time"].min(), log["prediction_time"].max()
    assert isinstance(first, datetime) and isinstance(last, datetime)
    span = {"start": last - timedelta(days=1), "end": last + timedelta(seconds=1)}
    found = monitor(model, home=home, **{name: moment.isoformat() for name, moment in span.items()})
    assert found.verdict == "undecided", found.lines
    assert {part["deployment"] for part in found.parts} <= set(SERVED) | {"edge"}
    assert (
        sum(part["rows"] for part in found.parts)
        == log.filter((pl.col("role") == "served") & (pl.col("prediction_time") >= span["start"])).height
    )
    assert not [part for part in found.parts if part["served"]["verdict"] == "refused"], found.lines
    assert read_history(model, home=home) and all(part["measures"]["rows"] for part in found.parts)
