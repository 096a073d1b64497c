"""The registry: one id is one version, aliases move with a story, and nothing is ever half there."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.errors import RefusedError, VersionError
from mlworkbench.scoring.artifacts.manifest import file_digests
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.tables import Aliases
from mlworkbench.scoring.version.build import build_version

CONTRACT = Contract((Column("distance", "number"),))
ROWS = FeatureFrame({"distance": np.arange(1.0, 21.0)})
BY_HAND = "compared by hand"


def build(folder: Path, slope: float, verdict: str = "undecided", **more: object) -> str:
    table = frame_to_pandas(ROWS, CONTRACT)
    line = LinearRegression().fit(table, slope * table["distance"])
    few = ROWS.take(range(5))
    parts = {"model": "price", "task": "regression", "classes": [], "request": CONTRACT, "frame": CONTRACT}
    return build_version(
        folder,
        **parts,
        pipeline=line,
        golden=(few.columns, {}, few),
        training=ROWS,
        verdict={"verdict": verdict},
        **more,
    )


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "true")
    return Registry(Home.open(tmp_path / "home"))


def add(registry: Registry, slope: float, verdict: str = "undecided") -> str:
    folder = registry.home.path / f"built-{slope}"
    shutil.rmtree(folder, ignore_errors=True)
    return registry.add(folder, "price", build(folder, slope, verdict))


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_version_is_found_by_bentoml_under_its_tag(registry: Registry) -> None:
    tag = add(registry, 2.0)
    code = f"import bentoml; m = bentoml.models.get({tag!r}); print(m.path); print(bentoml.models.get('price').tag)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(registry.folder("price", tag)), tag]


def test_adding_an_id_that_is_there_writes_nothing(registry: Registry) -> None:
    tag = add(registry, 2.0)
    before = listing(registry.store)
    assert add(registry, 2.0) == tag
    assert listing(registry.store) == before


def test_a_folder_altered_between_building_and_adding_is_refused(registry: Registry, tmp_path: Path) -> None:
    identity = build(tmp_path / "v", 2.0)
    with pytest.raises(VersionError) as raised:
        registry.add(tmp_path / "v", "prize", identity)
    assert raised.value.code == "version.wrong_tag"
    (tmp_path / "v/card.md").write_text("altered")
    with pytest.raises(VersionError, match=r"card\.md was altered"):
        registry.add(tmp_path / "v", "price", identity)
    assert registry.models() == []


def test_versions_are_named_by_alias_tag_or_first_digits(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    registry.promote("price", two, who="Ada", why="better", override=BY_HAND)
    digits = one.partition(":")[2]
    assert registry.find("price") == registry.find("price", "champion") == two
    assert [registry.find("price", ref) for ref in (one, digits, digits[:6])] == [one, one, one]
    assert registry.open("price", digits[:8]).version == one
    for ref in ("challenger", digits[:3], "ffff0000"):
        with pytest.raises(VersionError, match="one version, by alias, tag or first digits"):
            registry.find("price", ref)
    with pytest.raises(VersionError, match="did you mean 'price'"):
        registry.find("prize")


def test_the_newest_version_that_passed_its_gates_serves_until_there_is_a_champion(registry: Registry) -> None:
    first = add(registry, 2.0)
    assert registry.serving("price") == (first, "no champion; newest version, it declares no gates")
    passed = add(registry, 3.0, "pass")
    add(registry, 4.0, "fail")
    assert registry.serving("price") == (passed, "newest that passed its gates")
    registry.promote("price", first, who="Ada", why="known to be good", override=BY_HAND)
    assert registry.serving("price") == (first, "champion")
    assert {row["tag"]: row["aliases"] for row in registry.versions("price")}[first] == ["champion"]


def test_a_champion_whose_files_are_gone_is_named_and_nothing_serves_in_its_place(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0, "pass")
    registry.promote("price", one, who="Ada", why="known to be good", override=BY_HAND)
    shutil.rmtree(registry.folder("price", one))
    with pytest.raises(VersionError, match=f"{one}, the champion of price, has no files in .*; restore"):
        registry.serving("price")
    registry.promote("price", two, who="Ada", why="the files are lost", override=BY_HAND)
    assert registry.serving("price") == (two, "champion")


@pytest.mark.parametrize("verdict", ["fail", "undecided"])
def test_a_version_that_has_not_passed_the_gates_it_declares_never_serves_unasked(
    registry: Registry, verdict: str
) -> None:
    folder = registry.home.path / "built"
    tag = registry.add(folder, "price", build(folder, 2.0, verdict, gates={"r2": (">=", 0.9)}))
    with pytest.raises(VersionError) as raised:
        registry.serving("price")
    assert raised.value.code == "registry.none_serving"
    assert registry.open("price", tag).version == tag


def test_a_version_that_failed_its_gates_cannot_be_champion(registry: Registry) -> None:
    failed = add(registry, 2.0, "fail")
    with pytest.raises(RefusedError) as raised:
        registry.promote("price", failed, who="Ada", why="please")
    assert raised.value.code == "refused.gates_failed"
    registry.promote("price", failed, who="Ada", why="to compare", alias="challenger")
    assert registry.champion("price") is None


def test_rolling_back_goes_back_step_by_step_and_the_history_tells_it(registry: Registry) -> None:
    one, two, three = (add(registry, slope) for slope in (2.0, 3.0, 4.0))
    for tag in (one, two, three):
        registry.promote("price", tag, who="Ada", why="next", override=BY_HAND)
    assert registry.rollback("price", who="Grace", why="worse", override=BY_HAND) == two
    assert registry.rollback("price", who="Grace", why="worse still", override=BY_HAND) == one
    with pytest.raises(VersionError) as raised:
        registry.rollback("price", who="Grace", why="further", override=BY_HAND)
    assert raised.value.code == "registry.no_earlier"
    registry.promote("price", three, who="Ada", why="repaired", override=BY_HAND)
    assert registry.rollback("price", who="Grace", why="not repaired", override=BY_HAND) == one
    story = registry.history("price")
    assert [(line["from"], line["to"]) for line in story[:4]] == [(None, one), (one, two), (two, three), (three, two)]
    assert all(set(line) == {"at", "alias", "verb", "from", "to", "who", "why", "basis"} for line in story)
    assert [line["at"] for line in story] == sorted(line["at"] for line in story)


def test_a_way_back_to_a_version_whose_move_was_never_seen_is_a_move(tmp_path: Path) -> None:
    """A history can come from elsewhere, and from two places at once."""
    aliases, told = Aliases(tmp_path / "registry.sqlite"), {"who": "Ada", "why": "w", "basis": ""}
    moves = [("moved", "price:a"), ("moved", "price:b"), ("rolled back", "price:z"), ("moved", "price:c")]
    lines = [
        {"at": f"2013-10-0{day}", "alias": "champion", "verb": verb, "from": None, "to": to, **told}
        for day, (verb, to) in enumerate(moves, start=1)
    ]
    assert aliases.merge("price", reversed(lines), known=["price:c"]) == lines
    assert aliases.merge("price", lines, known=["price:c"]) == []
    assert aliases.get("price") == {"champion": "price:c"}
    assert aliases.back("price", "champion", who="Ada", why="worse") == "price:z"
    with pytest.raises(VersionError, match="no earlier champion"):
        aliases.back("price", "champion", who="Ada", why="worse")


def test_a_removed_version_is_skipped_when_rolling_back(registry: Registry) -> None:
    one, two, three = (add(registry, slope) for slope in (2.0, 3.0, 4.0))
    for tag in (one, two, three):
        registry.promote("price", tag, who="Ada", why="next", override=BY_HAND)
    registry.remove("price", two)
    assert registry.rollback("price", who="Ada", why="back", override=BY_HAND) == one


def test_a_version_with_an_alias_is_not_removed_and_another_is_gone(registry: Registry) -> None:
    one, two = add(registry, 2.0), add(registry, 3.0)
    registry.promote("price", one, who="Ada", why="first", override=BY_HAND)
    with pytest.raises(RefusedError, match="it is champion"):
        registry.remove("price", one)
    registry.remove("price", two)
    assert [row["tag"] for row in registry.versions("price")] == [one]
    assert (registry.store / "price/latest").read_text() == one.partition(":")[2]


def test_who_and_why_are_needed(registry: Registry) -> None:
    tag = add(registry, 2.0)
    with pytest.raises(VersionError) as raised:
        registry.promote("price", tag, who="Ada", why=" ", override=BY_HAND)
    assert raised.value.code == "registry.words_missing"
    with pytest.raises(VersionError, match="who: a few words"):
        registry.promote("price", tag, who="", why="because", override=BY_HAND)
    assert registry.history("price") == []


def test_an_altered_version_is_neither_opened_nor_promoted(registry: Registry) -> None:
    tag = add(registry, 2.0)
    data = registry.folder("price", tag) / "pipeline.skops"
    data.write_bytes(data.read_bytes()[:-1] + b"\1")
    for act in (
        lambda: registry.open("price", tag),
        lambda: registry.promote("price", tag, who="Ada", why="unaware"),
    ):
        with pytest.raises(VersionError, match=r"pipeline\.skops was altered: .*; restore it or retrain"):
            act()


def test_a_folder_under_another_tag_is_refused(registry: Registry) -> None:
    one, two = (registry.folder("price", add(registry, slope)) for slope in (2.0, 3.0))
    shutil.rmtree(one)
    two.rename(one)
    with pytest.raises(VersionError, match=r"manifest\.json was altered: its SHA-256 is not the one"):
        registry.open("price", one.name)
    registry.seals.forget(f"price:{one.name}")
    with pytest.raises(VersionError) as raised:
        registry.open("price", one.name)
    assert raised.value.code == "version.wrong_tag"


def test_history_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    aliases = Aliases(tmp_path / "registry.sqlite")
    aliases.move("price", "champion", "price:a", who="Ada", why="first")
    with sqlite3.connect(tmp_path / "registry.sqlite") as db:
        for statement in ("DELETE FROM history", "UPDATE history SET who = 'nobody'"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                db.execute(statement)
    db.close()
    aliases.move("price", "champion", None, who="Ada", why="retired")
    assert aliases.get("price") == {} and len(aliases.history("price")) == 2
    assert aliases.move("price", "champion", None, who="Ada", why="again") is None
    assert len(aliases.history("price")) == 2


PROMOTE = """
import sys
from pathlib import Path
from mlworkbench.scoring.registry.tables import Aliases
aliases = Aliases(Path(sys.argv[1]))
for k in range(20):
    aliases.move("price", "champion", f"price:{sys.argv[2]}{k}", who=sys.argv[2], why="race")
"""


def test_two_processes_that_promote_leave_one_unbroken_story(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    runs = [subprocess.Popen([sys.executable, "-c", PROMOTE, str(path), who]) for who in "ab"]
    assert [run.wait(60) for run in runs] == [0, 0]
    story = Aliases(path).history("price")
    assert len(story) == 40
    assert all(later["from"] == earlier["to"] for earlier, later in itertools.pairwise(story))


ADD = """
import sys
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.scoring.registry.registry import Registry
print(Registry(Home.open(Path(sys.argv[1]))).add(Path(sys.argv[2]), "price", sys.argv[3]))
"""


def test_two_processes_that_add_the_same_version_make_one(registry: Registry, tmp_path: Path) -> None:
    identity = build(tmp_path / "v", 2.0)
    command = [sys.executable, "-c", ADD, str(registry.home.path), str(tmp_path / "v"), identity]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [run.communicate(timeout=120)[0].strip() for run in runs] == [f"price:{identity[:32]}"] * 2
    assert len(registry.versions("price")) == 1
    assert registry.open("price", identity[:32]).content_id == identity


def test_a_bentoml_without_the_private_store_is_refused_in_one_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a private class of BentoML opens a store elsewhere; a release without it must add nothing and say so."""
    identity = build(tmp_path / "v", 2.0)
    monkeypatch.setitem(sys.modules, "bentoml._internal.models", None)
    with pytest.raises(VersionError, match=r"cannot stage it in the model store of BentoML \d.*; nothing was added"):
        registry.add(tmp_path / "v", "price", identity)
    assert registry.models() == []


WAITING = """
import time
from mlworkbench.scoring.registry import store
store.sync_tree = lambda folder: (print("staged", flush=True), time.sleep(60))
"""
KILLED = WAITING + ADD


def test_a_kill_in_the_middle_of_adding_leaves_no_half_version(registry: Registry, tmp_path: Path) -> None:
    identity = build(tmp_path / "v", 2.0)
    command = [sys.executable, "-c", KILLED, str(registry.home.path), str(tmp_path / "v"), identity]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline().strip() == "staged"
        time.sleep(0.1)
        os.kill(run.pid, signal.SIGKILL)
    assert registry.models() == [] and not list(registry.store.glob("price/*"))
    tag = registry.add(tmp_path / "v", "price", identity)
    assert registry.open("price", tag).content_id == identity
    assert not (registry.store.parent / "mlworkbench-staging").exists()
    stored = file_digests(registry.folder("price", tag))
    assert stored.items() >= file_digests(tmp_path / "v").items()
