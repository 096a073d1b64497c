"""A workbench sees its own versions only; one that two of them made goes with the last, and no kill loses any."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import VersionError
from mlworkbench.scoring.artifacts.manifest import MANIFEST
from mlworkbench.scoring.registry import holdings as holdings_module
from mlworkbench.scoring.registry.holdings import Holdings
from mlworkbench.scoring.registry.owners import OWNERS, owners_file, read_owners
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.tables import NamedVersions

TAG = "pump:" + "a" * 32
OTHER = "pump:" + "b" * 32


@pytest.fixture(autouse=True)
def plain_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring folders in without BentoML: what is tried here is the order of the writes."""
    monkeypatch.setattr(holdings_module, "put_version", put)


def put(built: Path, tag: str, store: Path) -> None:
    target = store.joinpath(*tag.split(":"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built, target)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    return folder


def hold(tmp_path: Path, name: str) -> Holdings:
    return Holdings(Home.open(tmp_path / name), tmp_path / "bentoml" / "models")


def drop(holdings: Holdings, tag: str) -> None:
    with holdings.lock():
        holdings.drop(tag)


def owners(holdings: Holdings, tag: str) -> list[str]:
    return sorted(Path(home.partition(" ")[2]).name for home in read_owners(tag, holdings.store).homes)


def test_each_home_sees_what_it_put_and_nothing_else(tmp_path: Path, built: Path) -> None:
    one, two, new = (hold(tmp_path, name) for name in ("one", "two", "new"))
    one.put(built, TAG)
    two.put(built, OTHER)
    assert (one.tags("pump"), two.tags("pump"), new.tags("pump")) == ([TAG], [OTHER], [])
    assert (one.models(), new.models()) == (["pump"], [])
    assert not new.home.registry.exists(), "looking writes nothing"


def test_one_folder_with_two_owners_goes_with_the_second(tmp_path: Path, built: Path) -> None:
    one, two = hold(tmp_path, "one"), hold(tmp_path, "two")
    one.put(built, TAG)
    inode = one.store.joinpath(*TAG.split(":")).stat().st_ino
    two.put(built, TAG)
    assert one.store.joinpath(*TAG.split(":")).stat().st_ino == inode
    assert owners(one, TAG) == ["one", "two"]
    drop(one, TAG)
    assert (one.tags("pump"), two.tags("pump"), owners(two, TAG)) == ([], [TAG], ["two"])
    drop(two, TAG)
    assert not two.is_there(TAG)
    assert not owners_file(TAG, two.store).exists()


def test_a_home_that_was_deleted_keeps_nothing_and_one_that_cannot_be_read_keeps_all(
    tmp_path: Path, built: Path
) -> None:
    one, two = hold(tmp_path, "one"), hold(tmp_path, "two")
    for tag in (TAG, OTHER):
        one.put(built, tag)
        two.put(built, tag)
    two.home.registry.write_bytes(b"torn" * 300)
    drop(one, TAG)
    assert one.is_there(TAG)
    shutil.rmtree(two.home.path)
    drop(one, OTHER)
    assert not one.is_there(OTHER)


def test_a_home_that_was_moved_or_copied_still_owns_its_versions(tmp_path: Path, built: Path) -> None:
    one, two = hold(tmp_path, "one"), hold(tmp_path, "two")
    one.put(built, TAG)
    two.put(built, TAG)
    shutil.copytree(two.home.path, tmp_path / "copy")
    two.home.path.rename(tmp_path / "moved")
    assert hold(tmp_path, "moved").tags("pump") == hold(tmp_path, "copy").tags("pump") == [TAG]
    drop(one, TAG)
    drop(hold(tmp_path, "copy"), TAG)
    assert hold(tmp_path, "moved").tags("pump") == [TAG]
    drop(hold(tmp_path, "moved"), TAG)
    assert not one.is_there(TAG)


def test_a_new_home_in_the_place_of_one_that_was_moved_away_takes_nothing_along(tmp_path: Path, built: Path) -> None:
    hold(tmp_path, "home").put(built, TAG)
    (tmp_path / "home").rename(tmp_path / "kept")
    new = hold(tmp_path, "home")
    new.put(built, OTHER)
    drop(new, OTHER)
    assert new.tags("pump") == []
    assert hold(tmp_path, "kept").tags("pump") == [TAG]


def test_a_store_that_was_moved_takes_its_owners_along(tmp_path: Path, built: Path) -> None:
    hold(tmp_path, "one").put(built, TAG)
    shutil.copytree(tmp_path / "bentoml" / "models", tmp_path / "elsewhere" / "models")
    moved = Holdings(Home.open(tmp_path / "one"), tmp_path / "elsewhere" / "models")
    assert moved.tags("pump") == [TAG]
    assert owners(moved, TAG) == ["one"]


STEPS = {
    "into the list": (holdings_module, "write_owners"),
    "into the store": (holdings_module, "put_version"),
    "into the table": (NamedVersions, "add"),
    "out of the table": (NamedVersions, "drop"),
    "out of the store": (holdings_module, "drop_version"),
}


def killed(step: str, *, after: bool, act) -> None:
    """Do something in a process that is killed at a step."""
    child = os.fork()
    if child == 0:
        place, name = STEPS[step]
        real = getattr(place, name)

        def dies(*args, **options):
            if after:
                real(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(place, name, dies)
        act()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"{step} was not reached"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_kill_at_any_step_loses_no_version_and_leaves_no_name_without_files(
    tmp_path: Path, built: Path, step: str, after: bool, shared: bool
) -> None:
    one, two = hold(tmp_path, "one"), hold(tmp_path, "two")
    if shared:
        two.put(built, TAG)
    if step.startswith("out"):
        one.put(built, TAG)
        if step == "out of the store" and shared:
            return  # nothing goes
        killed(step, after=after, act=lambda: drop(hold(tmp_path, "one"), TAG))
    else:
        if step == "into the store" and shared:
            return  # nothing comes
        killed(step, after=after, act=lambda: hold(tmp_path, "one").put(built, TAG))
    named = NamedVersions(one.home.registry).tags()
    assert all(one.is_there(tag) for tag in named)
    assert hold(tmp_path, "two").tags("pump") == ([TAG] if shared else [])
    again = hold(tmp_path, "one")
    again.put(built, OTHER)
    kept = bool(named) or shared
    assert again.is_there(TAG) == kept, "what nobody names is gone after the next that comes"
    assert owners_file(TAG, one.store).exists() == kept


def test_homes_that_come_and_go_at_once_never_lose_a_named_version(tmp_path: Path, built: Path) -> None:
    def come_and_go(name: str) -> None:
        for _ in range(15):
            mine = hold(tmp_path, name)
            mine.put(built, TAG)
            assert mine.tags("pump") == [TAG]
            drop(mine, TAG)
        hold(tmp_path, name).put(built, TAG)

    children = []
    for name in ("one", "two", "one"):
        if (child := os.fork()) == 0:
            try:
                come_and_go(name) if name == "two" else hold(tmp_path, name).put(built, OTHER)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert (hold(tmp_path, "one").tags("pump"), hold(tmp_path, "two").tags("pump")) == ([OTHER], [TAG])


def old(tmp_path: Path, name: str) -> Home:
    """A home as an older package left it: no table of versions, nothing beside the store."""
    home = Home.open(tmp_path / name)
    shutil.rmtree(tmp_path / "bentoml" / OWNERS, ignore_errors=True)
    if home.registry.exists():
        with closing(sqlite3.connect(home.registry)) as db, db:
            db.executescript("DROP TABLE IF EXISTS versions; DROP TABLE IF EXISTS versions_place;")
    return home


def stored(tmp_path: Path, tag: str, manifest: dict[str, object]) -> None:
    folder = tmp_path.joinpath("bentoml", "models", *tag.split(":"))
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"model": tag.split(":")[0], **manifest}))


def began(home: Home, model: str, second: float) -> None:
    with home.lock(f"train/{model}"):
        os.utime(home.locks / f"train%2F{model}.lock", (second, second))


def at(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat(timespec="seconds")


def logged(home: Home, tag: str) -> None:
    home.model("pump").mkdir()
    with closing(sqlite3.connect(home.log("pump"))) as db, db:
        db.execute("CREATE TABLE predictions (version TEXT)")
        db.execute("INSERT INTO predictions VALUES (?)", (tag,))


def in_a_result(home: Home, tag: str) -> None:
    folder = home.runs("pump") / "batch-1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"verdict": "pass", "metrics": {"version": tag}}))


def aliased(home: Home, tag: str) -> None:
    with closing(sqlite3.connect(home.registry)) as db, db:
        db.execute("CREATE TABLE alias (model TEXT, alias TEXT, tag TEXT)")
        db.execute("INSERT INTO alias VALUES ('pump', 'champion', ?)", (tag,))


def in_a_certificate(home: Home, tag: str) -> None:
    with closing(sqlite3.connect(home.registry)) as db, db:
        db.execute("CREATE TABLE certificate (name TEXT, tag TEXT)")
        db.execute("INSERT INTO certificate VALUES ('one', ?)", (tag,))


@pytest.mark.parametrize("speak", [logged, in_a_result, aliased, in_a_certificate])
def test_an_old_home_takes_over_what_its_files_speak_of_and_says_so_once(tmp_path: Path, capsys, speak) -> None:
    home = old(tmp_path, "home")
    for tag in (TAG, OTHER):
        stored(tmp_path, tag, {"created_at": at(5), "origin": {"lake": {"pumps": 0}}})
    speak(home, TAG)
    assert hold(tmp_path, "home").tags("pump") == [TAG]
    assert capsys.readouterr().err.splitlines() == [
        "took over 1 of the store's versions as this workbench's own: pump:aaaaaaaaaaaa; "
        "others of the store are not seen here any more; to see one again, train or register it here"
    ]
    assert hold(tmp_path, "home").tags("pump") == [TAG]
    assert capsys.readouterr().err == ""


def test_an_old_home_takes_over_the_first_version_that_it_trained_and_none_of_another(tmp_path: Path) -> None:
    homes = {name: old(tmp_path, name) for name in ("first", "second", "third")}
    for name, second in (("first", 100), ("second", 200), ("third", 90_000)):
        began(homes[name], "pump", second)
    for tag, second in ((TAG, 103), (OTHER, 204)):
        stored(tmp_path, tag, {"created_at": at(second), "origin": {}})
    seen = {name: hold(tmp_path, name).tags("pump") for name in ("second", "first", "third")}
    assert seen == {"first": [TAG], "second": [OTHER], "third": []}
    assert hold(tmp_path, "first").models() == hold(tmp_path, "first").models() == ["pump"]


def test_the_files_of_a_version_that_an_old_home_may_name_stay(tmp_path: Path, built: Path) -> None:
    stored(tmp_path, TAG, {"created_at": at(5), "origin": {}})
    for name in ("one", "two"):
        aliased(old(tmp_path, name), TAG)
    one = hold(tmp_path, "one")
    assert one.tags("pump") == [TAG]
    drop(one, TAG)
    assert one.tags("pump") == [] and one.is_there(TAG)
    assert hold(tmp_path, "two").tags("pump") == [TAG]


def test_a_new_home_takes_over_nothing_while_it_trains_a_model_of_that_name(tmp_path: Path, built: Path) -> None:
    hold(tmp_path, "one").put(built, TAG)
    (tmp_path / "bentoml/models/pump" / ("a" * 32) / MANIFEST).write_text(json.dumps({"created_at": at(500)}))
    new = hold(tmp_path, "new")
    began(new.home, "pump", 400)
    assert new.tags("pump") == []


def test_a_torn_log_does_not_stop_the_take_over(tmp_path: Path) -> None:
    home = old(tmp_path, "home")
    stored(tmp_path, TAG, {"created_at": at(5), "origin": {}})
    aliased(home, TAG)
    home.model("pump").mkdir()
    home.log("pump").write_bytes(b"torn" * 300)
    assert hold(tmp_path, "home").tags("pump") == [TAG]


def test_threads_of_one_process_take_over_once(tmp_path: Path, capfd) -> None:
    home = old(tmp_path, "home")
    stored(tmp_path, TAG, {"created_at": at(5), "origin": {}})
    aliased(home, TAG)
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(hold(tmp_path, "home").tags("pump"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [[TAG]] * 4
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_table_that_is_torn_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    home = Home.open(tmp_path / "home")
    home.registry.write_bytes(b"torn" * 300)
    with pytest.raises(VersionError, match=r"^cannot read the table of this home's versions .*: file is not a"):
        Registry(home).models()


def test_the_file_that_names_versions_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        NamedVersions(tmp_path / "registry.sqlite").identity()
    finally:
        os.umask(before)
    assert (tmp_path / "registry.sqlite").stat().st_mode & 0o777 == 0o600
