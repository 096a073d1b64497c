"""A backup is of one moment, whole or not there, and restored to the byte; what was answered before is in it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import compact, vacuum
from mlworkbench.errors import SettingsError, WorkbenchError
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.operate.backup import MANIFEST, back_up, read_backup, restore
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.signature import signing_key
from mlworkbench.scoring.version.build import build_version

CONTRACT = Contract((Column("distance", "number"),))
ROWS = FeatureFrame({"distance": np.arange(1.0, 21.0)})
DELAYS = pa.table({"delay": [3.0, 12.5], "carrier": ["UA", "AA"]})


def log_row(number: int) -> dict[str, Any]:
    texts = {
        name: "" for name in ("request_id", "entity", "watermark", "decision", "features", "faults", "request", "key")
    }
    told = {"prediction_id": f"p{number:06}", "model": "price", "version": "price:1", "scorer": "reference"}
    numbers = {"prediction_time": number, "logged_at": number, "latency_us": 1, "schema_version": 3}
    return {**texts, **told, "deployment": "realtime", "role": "served", "scores": f"[{number}.5]", **numbers}


def logged(home: Home) -> set[str]:
    with closing(sqlite3.connect(home.log("price"))) as db:
        return {name for (name,) in db.execute("SELECT prediction_id FROM predictions")}


@pytest.fixture
def filled(home: Home, made_once) -> Home:
    """A home with a version that is champion, a log, three tables, keys, a run, a file of a writer that was killed."""

    def make() -> None:
        registry, folder = Registry(home), home.path.parent / "built"
        table, few = frame_to_pandas(ROWS, CONTRACT), ROWS.take(range(5))
        line = LinearRegression().fit(table, 2.0 * table["distance"])
        parts = {"model": "price", "task": "regression", "classes": [], "request": CONTRACT, "frame": CONTRACT}
        parts |= {"pipeline": line, "golden": (few.columns, {}, few), "training": ROWS}
        tag = registry.add(folder, "price", build_version(folder, verdict={"verdict": "pass"}, **parts))
        registry.promote("price", tag, who="Ada", why="first", override="a test")
        with PredictionLog(home.log("price")) as log:
            log.write([log_row(number) for number in range(100)])
        for place in (home.lake, home.quarantine, home.held):
            for _ in range(3):
                Lake(place).append("delays", DELAYS)
        signing_key(home)
        (home.keys / "pseudonym").write_bytes(b"0" * 64)
        (home.keys / "pseudonym").chmod(0o600)
        (home.runs("price") / "r1").mkdir(parents=True)
        (home.runs("price") / "r1" / "result.json").write_text('{"verdict": "pass"}')
        (home.path / "mlworkbench-left").mkdir()
        (home.path / "mlworkbench-left" / "part").write_text("half")
        (home.path / ".format.1234.part").write_text("half")

    made_once("backup", home, make)
    return home


def restored(folder: Path, tmp_path: Path, name: str = "again", *, store: str | None = None) -> Home:
    os.environ["BENTOML_HOME"] = str(tmp_path / (store or f"bentoml-{name}"))  # the fixture sets it back
    restore(folder, tmp_path / name)
    return Home.open(tmp_path / name, create=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_all_that_a_home_holds_is_restored_in_another_place_with_another_store(filled: Home, tmp_path: Path) -> None:
    made = back_up(tmp_path / "monday", home=filled)
    assert made == read_backup(tmp_path / "monday")
    assert made.tables == {"lake/delays": 2, "quarantine.held/delays": 2, "quarantine/delays": 2}
    assert (len(made.versions), made.keys, made.elsewhere) == (1, False, ())
    again = restored(tmp_path / "monday", tmp_path)
    registry = Registry(again)
    assert registry.serving("price") == (made.versions[0], "champion")
    assert registry.open("price").score(ROWS.take([2])).round(6).tolist() == [6.0]
    assert registry.history("price")[0]["basis"] == "override: a test"
    assert (
        read_log(again.log("price")).sort("prediction_id").equals(read_log(filled.log("price")).sort("prediction_id"))
    )
    for old, new in ((filled.lake, again.lake), (filled.quarantine, again.quarantine), (filled.held, again.held)):
        for version in range(3):
            assert Lake(new).read("delays", version=version).equals(Lake(old).read("delays", version=version))
    assert (again.runs("price") / "r1" / "result.json").read_text() == '{"verdict": "pass"}'
    assert Lake(again.lake).append("delays", DELAYS) == 2
    assert registry.remove("price", _demoted(registry)) == made.versions[0]


def _demoted(registry: Registry) -> str:
    registry.aliases.move("price", "champion", None, who="Ada", why="to remove it")
    return registry.holdings.tags("price")[0]


def test_what_is_temporary_or_secret_stays_out(filled: Home, tmp_path: Path) -> None:
    back_up(tmp_path / "monday", home=filled)
    names = contents(tmp_path / "monday")
    assert not [name for name in names if "locks/" in name or "mlworkbench-" in name or "/." in name or "-wal" in name]
    assert [name for name in names if "/keys/" in name] == ["home/keys/certificate.pub"]
    secret = (filled.keys / "certificate.pem").read_bytes()
    assert not [name for name, content in names.items() if secret in content or b"0" * 64 in content]
    assert read_backup(tmp_path / "monday").keys is False


def test_keys_come_along_where_they_are_asked_for_and_nobody_else_may_read_anything(
    filled: Home, tmp_path: Path
) -> None:
    assert back_up(tmp_path / "monday", home=filled, with_keys=True).keys
    again = restored(tmp_path / "monday", tmp_path)
    assert contents(again.keys) == contents(filled.keys)
    for folder in (tmp_path / "monday", again.path):
        for path in (folder, *folder.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_second_restore_of_one_backup_shares_the_store(filled: Home, tmp_path: Path) -> None:
    (tag,) = back_up(tmp_path / "monday", home=filled).versions
    one, two = (restored(tmp_path / "monday", tmp_path, name, store="both") for name in ("one", "two"))
    registry = Registry(one)
    _demoted(registry)
    registry.remove("price", tag)
    assert Registry(two).open("price").version == tag, "the other home names it still"


def test_a_model_store_inside_of_the_home_is_restored_there(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "bentoml", filled.path / "bentoml")
    monkeypatch.setenv("BENTOML_HOME", str(filled.path / "bentoml"))
    (tag,) = back_up(tmp_path / "monday", home=filled).versions
    assert not [name for name in contents(tmp_path / "monday") if "bentoml" in name]
    again = restored(tmp_path / "monday", tmp_path, store="again/bentoml")
    assert Registry(again).open("price").folder == again.path / "bentoml" / "models" / "price" / tag[6:]


def test_every_altered_or_missing_file_is_refused_by_name_and_nothing_is_restored(filled: Home, tmp_path: Path) -> None:
    back_up(tmp_path / "monday", home=filled)
    names = [name for name in contents(tmp_path / "monday") if "_delta_log" not in name]
    assert MANIFEST in names and "home/price/log.sqlite" in names and [n for n in names if n.startswith("models/")]
    for number, name in enumerate(names):
        file = tmp_path / "monday" / name
        whole = file.read_bytes()
        ways = (whole[:-1] + bytes([whole[-1] ^ 1]) if whole else b"x", whole + b" ", None)
        for other in ways if name == MANIFEST else ways[number % 3 :][:1]:
            file.unlink() if other is None else file.write_bytes(other)
            with pytest.raises(SettingsError, match=file.name) as raised:
                restored(tmp_path / "monday", tmp_path)
            assert raised.value.code in ("backup.altered", "backup.no_manifest")
            file.write_bytes(whole)
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".again*"))
    assert not (tmp_path / "bentoml-again" / "models").exists()
    assert restored(tmp_path / "monday", tmp_path).path == tmp_path / "again"


def test_a_list_with_paths_out_of_the_backup_is_refused(filled: Home, tmp_path: Path) -> None:
    from mlworkbench.scoring.artifacts.manifest import json_digest, json_text

    back_up(tmp_path / "monday", home=filled)
    fields = json.loads((tmp_path / "monday" / MANIFEST).read_text())
    fields.pop("sha256")
    fields["files"]["../../stolen"] = [0, "0" * 64]
    (tmp_path / "monday" / MANIFEST).write_text(json_text({**fields, "sha256": json_digest(fields)}))
    with pytest.raises(SettingsError, match="was altered"):
        restored(tmp_path / "monday", tmp_path)


WRONG: list[dict[str, Any]] = [
    {"versions": [5]},
    {"versions": ["price:../../../../elsewhere"]},
    {"versions": ["/elsewhere:1"]},
    {"versions": {}},
    {"files": [["home/format", 1]]},
    {"files": {"home/format": 5}},
    {"files": {"home/format": ["1", "0"]}},
    {"files": {"": [1, "0"]}},
    {"files": {".lock": [1, "0"]}},
    {"files": {"home/a\0b": [1, "0"]}},
    {"files": {"home/\ud800": [1, "0"]}},
    {"tables": 5},
    {"keys": 5},
    {"elsewhere": [5]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_list_that_is_not_as_it_was_written_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    from mlworkbench.scoring.artifacts.manifest import json_digest

    fields = {"format": 1, "files": {}, "tables": {}, "versions": [], "keys": False, "elsewhere": [], **wrong}
    try:
        whole = {**fields, "sha256": json_digest(fields)}
    except UnicodeEncodeError:
        whole = {**fields, "sha256": "0" * 64}
    (tmp_path / MANIFEST).write_text(json.dumps(whole, sort_keys=True, indent=1) + "\n")
    for ask in (lambda: read_backup(tmp_path), lambda: restore(tmp_path, tmp_path / "again")):
        with pytest.raises(SettingsError) as raised:
            ask()
        assert raised.value.code == "backup.altered"


def test_a_pipe_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(SettingsError) as raised:
        read_backup(tmp_path)
    assert raised.value.code == "backup.no_manifest"


def test_a_tag_that_leads_out_of_the_store_is_no_version(filled: Home, tmp_path: Path) -> None:
    store = tmp_path / "bentoml" / "models"
    (outside := tmp_path / "precious").mkdir()
    shutil.copytree(next((store / "price").glob("*/")), outside, dirs_exist_ok=True)
    with closing(sqlite3.connect(filled.registry)) as db:
        db.execute("INSERT INTO versions (tag, model, at) VALUES ('price:../../../precious', 'price', '2026')")
        db.commit()
    registry = Registry(filled)
    assert len(registry.holdings.tags("price")) == len(registry.holdings.folders()) == 1
    with pytest.raises(WorkbenchError):
        registry.remove("price", "price:../../../precious")
    assert (outside / "card.md").is_file()


def test_no_folder_that_holds_something_is_written_over(filled: Home, tmp_path: Path) -> None:
    (tmp_path / "monday").mkdir()
    back_up(tmp_path / "monday", home=filled)  # an empty one will do
    with pytest.raises(SettingsError) as raised:
        back_up(tmp_path / "monday", home=filled)
    assert raised.value.code == "backup.not_empty"
    before = contents(filled.path)
    with pytest.raises(SettingsError, match="a new or an empty folder") as raised:
        restore(tmp_path / "monday", filled.path)
    assert raised.value.code == "home.not_empty" and contents(filled.path) == before
    for wrong in (filled.path / "backups", filled.path / "price" / "b"):
        with pytest.raises(SettingsError, match="outside of the home"):
            back_up(wrong, home=filled)
    with pytest.raises(SettingsError) as raised:
        restore(tmp_path / "bentoml", tmp_path / "new")
    assert raised.value.code == "backup.no_manifest"
    assert not (tmp_path / "new").exists()


def test_a_link_under_the_name_of_the_part_leads_nowhere(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "work.txt").write_text("years")
    back_up(tmp_path / "monday", home=filled)
    for name in ("tuesday", "again"):
        (tmp_path / f".{name}.part").symlink_to(tmp_path / "precious")
    for make in (lambda: back_up(tmp_path / "tuesday", home=filled), lambda: restored(tmp_path / "monday", tmp_path)):
        with pytest.raises(SettingsError, match="a folder of one's own") as raised:
            make()
        assert raised.value.code == "backup.foreign"
    assert contents(tmp_path / "precious") == {"work.txt": b"years"}
    (tmp_path / ".wednesday.part").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(SettingsError, match="somebody else's"):
        back_up(tmp_path / "wednesday", home=filled)


def test_a_version_that_was_altered_is_told_when_the_backup_is_made(filled: Home, tmp_path: Path) -> None:
    (folder,) = Registry(filled).holdings.folders()
    (folder / "golden.jsonl").write_text("{}")
    with pytest.raises(WorkbenchError, match=r"golden\.jsonl was altered"):
        back_up(tmp_path / "monday", home=filled)
    assert not [path for path in tmp_path.iterdir() if "monday" in path.name]


def test_what_lies_behind_an_address_is_named(filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_LAKE", "s3://company/lake")
    assert back_up(tmp_path / "monday", home=filled).elsewhere == ("s3://company/lake",)


def test_a_table_whose_files_are_gone_is_one_line(filled: Home, tmp_path: Path) -> None:
    next((Path(filled.lake) / "delays").glob("*.parquet")).unlink()
    with pytest.raises(WorkbenchError, match=r"table 'delays': files of version 2 are missing"):
        back_up(tmp_path / "monday", home=filled)


def test_an_empty_home_and_an_empty_table_are_backed_up(home: Home, tmp_path: Path) -> None:
    (home.path / "lake" / "begun" / "_delta_log").mkdir(parents=True)
    (home.path / "lake" / "begun" / "_delta_log" / "left.tmp").write_text("half")
    (home.path / "runs.sqlite").touch()
    made = back_up(tmp_path / "monday", home=home)
    assert (made.tables, made.versions) == ({}, ())
    assert (restored(tmp_path / "monday", tmp_path).path / "format").read_text() == "1\n"


def test_two_backups_at_once_into_one_folder_give_one(filled: Home, tmp_path: Path) -> None:
    ends: list[str] = []

    def make() -> None:
        try:
            back_up(tmp_path / "monday", home=filled)
            ends.append("made")
        except SettingsError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("made") == 1 and {*ends} <= {"made", "backup.busy", "backup.not_empty"}
    assert restored(tmp_path / "monday", tmp_path).path.is_dir()


def test_nothing_that_was_logged_before_is_missing_while_all_is_written(filled: Home, tmp_path: Path) -> None:
    """Writers of log and lake, compaction and vacuum never stop; every backup holds what came before it."""
    stop, written, failed = threading.Event(), [99], list[BaseException]()

    def write_log() -> None:
        with PredictionLog(filled.log("price")) as log:
            while not stop.is_set():
                log.write([log_row(written[0] + 1 + k) for k in range(20)])
                written[0] += 20

    def write_lake() -> None:
        while not stop.is_set():
            Lake(filled.lake).append("delays", DELAYS)
            if Lake(filled.lake).version("delays") % 3 == 0:
                compact(Lake(filled.lake), "delays")
                vacuum(Lake(filled.lake), "delays", hours=0, keep=(), force=True)

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (write_log, write_lake)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(3):
            before = written[0]
            made = back_up(tmp_path / f"b{turn}", home=filled)
            again = restored(tmp_path / f"b{turn}", tmp_path, f"h{turn}", store="one")
            ids = logged(again)
            assert ids == {f"p{number:06}" for number in range(len(ids))} and len(ids) > before
            assert Lake(again.lake).version("delays") == made.tables["lake/delays"]
            assert Lake(again.lake).read("delays").height % 2 == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed


# A process that forks for each order, so that none pays for imports: it prints the child's id, and how that ended.
DRIVER = """
import os, sys
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.operate.backup import back_up, restore
import bentoml
print("ready", flush=True)
for line in sys.stdin:
    verb, source, target, store = line.split()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.environ["BENTOML_HOME"] = store
            if verb == "backup":
                back_up(Path(target), home=Home(Path(source)))
            else:
                restore(Path(source), Path(target))
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def order():
    """Order a backup or a restoration from a process that forks; kill it after some seconds; give how it ended."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], **pipes)
    assert driver.stdout.readline() == "ready\n"

    def ask(*words: object, after: float | None = None) -> int:
        driver.stdin.write(" ".join(map(str, words)) + "\n")
        driver.stdin.flush()
        child = int(driver.stdout.readline())
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(driver.stdout.readline())

    yield ask
    driver.kill()
    driver.communicate()


def timed(order, *words: object) -> float:
    began = time.perf_counter()
    assert order(*words) == 0
    return time.perf_counter() - began


@pytest.mark.system
def test_a_backup_killed_at_any_moment_is_whole_or_none(filled: Home, tmp_path: Path, order, kills: int) -> None:
    dice, killed, store = random.Random(12), 0, tmp_path / "bentoml"
    took = min(timed(order, "backup", filled.path, tmp_path / f"whole-{turn}", store) for turn in range(3))
    for turn in range(kills):
        target = tmp_path / f"b{turn}"
        killed += order("backup", filled.path, target, store, after=dice.uniform(0, took)) == signal.SIGKILL
        if target.exists():
            assert logged(restored(target, tmp_path, f"h{turn}", store="one")) == logged(filled)
        else:
            with suppress(SettingsError):  # it may have been killed between its list and its name
                assert logged(restored(tmp_path / f".b{turn}.part", tmp_path, f"p{turn}")) == logged(filled)
            assert order("backup", filled.path, target, store) == 0, "the same command goes again"
            assert not (tmp_path / f".b{turn}.part").exists()
        shutil.rmtree(target)
    assert killed >= kills // 4, "too few were killed on the way"


@pytest.mark.system
@pytest.mark.long
def test_a_restoration_killed_at_any_moment_leaves_no_half_home(
    filled: Home, tmp_path: Path, order, kills: int
) -> None:
    back_up(tmp_path / "monday", home=filled)
    dice, killed = random.Random(13), 0
    words = ("restore", tmp_path / "monday", tmp_path / "whole", tmp_path / "store")
    took = timed(order, *words)
    for turn in range(kills):
        target, store = tmp_path / f"h{turn}", tmp_path / f"store-{turn}"
        killed += order("restore", tmp_path / "monday", target, store, after=dice.uniform(0, took)) == signal.SIGKILL
        if not target.exists():
            assert order("restore", tmp_path / "monday", target, store) == 0, "the same command goes again"
        os.environ["BENTOML_HOME"] = str(store)
        home = Home.open(target, create=False)
        assert Registry(home).open("price").score(ROWS.take([2])).round(6).tolist() == [6.0]
        assert logged(home) == logged(filled) and Lake(home.lake).version("delays") == 2
    assert killed >= kills // 4, "too few were killed on the way"


def test_what_left_the_log_for_delta_is_in_the_backup_as_well(filled: Home, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")
    with PredictionLog(filled.log("price"), own=True) as log:
        log.write([log_row(number) for number in range(100, 150)])
    assert move_log("price", home=filled).rows == 150
    with PredictionLog(filled.log("price"), own=True) as log:
        log.write([log_row(number) for number in range(150, 160)])
    before = read_log(filled.log("price"))
    made = back_up(tmp_path / "monday", home=filled)
    assert made.tables["price/log"] == 1 and not [name for name in contents(tmp_path / "monday") if ".lock" in name]
    again = restored(tmp_path / "monday", tmp_path)
    assert before.height == 160 and read_log(again.log("price")).equals(before)
    assert move_log("price", home=again).rows == 10 and read_log(again.log("price")).height == 160
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", "s3://company/logs")
    assert back_up(tmp_path / "tuesday", home=again).elsewhere == ("s3://company/logs",)
