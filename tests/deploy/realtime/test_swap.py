"""Services that follow the champion: swapped under load, kept from a broken version, and pinned where one was named."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import os
import shutil
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime import swap
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.process import FAILURE, Service, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.swap import ChampionPointer, Follower, open_application, select_running
from mlworkbench.deploy.selection import ServedVersion, select_served
from mlworkbench.errors import VersionError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.writer import list_log_files
from mlworkbench.scoring.artifacts.manifest import read_manifest, write_manifest
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.tables import Aliases
from mlworkbench.scoring.version.version import with_reference
from tests.deploy.conftest import add_birds, add_delays
from tests.deploy.realtime.test_application import ask

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
BODY = json.dumps(BIRD).encode()


@dataclass
class Flock:
    """A home and a model store of one's own, with two good versions of one model; the first is champion."""

    home: Home
    first: str
    second: str
    built: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.home)

    def promote(self, tag: str) -> float:
        self.registry.promote("birds", tag, who="test", why="a test", override="a test")
        return time.monotonic()

    def rollback(self) -> float:
        self.registry.rollback("birds", who="test", why="a test", override="a test")
        return time.monotonic()

    def choice(self) -> ServedVersion:
        return select_served({**os.environ, "MLWORKBENCH_VERSION": ""})

    def spoil(self, tag: str) -> None:
        """Add 0.25 to a golden score, and make the folder look whole."""
        folder = self.registry.folder("birds", tag)
        lines = [json.loads(line) for line in (folder / "golden.jsonl").read_text().splitlines()]
        lines[0]["score"] += 0.25
        (folder / "golden.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        manifest, kept = read_manifest(folder), (folder / "model.yaml").read_bytes()
        (folder / "model.yaml").unlink()  # BentoML's own, no file of the version
        write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("files", "format")})
        (folder / "model.yaml").write_bytes(kept)
        self.registry.seals.forget(tag)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home and a store with both versions, to be copied: to build them takes longer."""
    folder = tmp_path_factory.mktemp("flock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        home = Home.open(folder / "home")
        tags = [add_birds(home, folder / f"build-{seed}", seed=seed, promoted=not seed) for seed in (0, 1)]
        (folder / "tags").write_text(" ".join(tags))
    return folder


@pytest.fixture
def flock(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flock:
    for part in ("home", "bentoml"):
        shutil.copytree(built / part, tmp_path / part)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLWORKBENCH_MODEL", raising=False)
    monkeypatch.delenv("MLWORKBENCH_VERSION", raising=False)
    return Flock(Home.open(tmp_path / "home"), *(built / "tags").read_text().split(), built=tmp_path)


@pytest.fixture
def follower(flock: Flock) -> Iterator[Follower]:
    """One that is made to look by hand."""
    choice = flock.choice()
    found = Follower(Application(Realtime.open(choice)), choice)
    yield found
    found.close_retired(all_of_them=True)
    found.application.close()


def score(application: Application, name: str = "", value: object = BIRD) -> dict[str, Any]:
    headers = {"x_request_id": name} if name else {}
    status, told = asyncio.run(ask(application, "POST", "/score", json.dumps(value).encode(), **headers))
    assert status == 200, told
    return dict(json.loads(told))


def look(follower: Follower) -> str:
    asyncio.run(follower.look())
    return follower.application.served.realtime.version.version


# --- where the registry points


def test_every_move_is_seen_and_nothing_is_read_where_nothing_moved(flock: Flock) -> None:
    pointer, asked = ChampionPointer("birds", home=flock.home), []
    get = pointer._aliases.get
    pointer._aliases.get = lambda model: asked.append(model) or get(model)  # type: ignore[method-assign]
    assert pointer.look() == flock.first
    for turn in range(20):  # faster than the clock of the file system
        tag = (flock.second, flock.first)[turn % 2]
        flock.promote(tag)
        assert pointer.look() == tag
    before = len(asked)
    assert [pointer.look() for _ in range(50)] == [tag] * 50
    assert len(asked) <= before + 1


def test_a_second_write_with_the_same_time_stamp_is_seen(flock: Flock) -> None:
    pointer, file = ChampionPointer("birds", home=flock.home), flock.home.registry
    pointer.look(), pointer.look()
    flock.promote(flock.second)
    stamp = file.stat().st_mtime_ns
    assert pointer.look() == flock.second
    flock.rollback()
    os.utime(file, ns=(stamp, stamp))
    assert pointer.look() == flock.first


def test_a_registry_that_is_away_or_damaged_changes_nothing(flock: Flock, follower: Follower, capfd) -> None:
    file = flock.home.registry
    look(follower)
    file.rename(file.with_name("away"))
    assert look(follower) == flock.first
    file.write_bytes(b"no database, but long enough to be looked at as if it were one" * 40)
    assert [look(follower), look(follower)] == [flock.first] * 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "not taken over" in lines[0] and "damaged" in lines[0]
    file.with_name("away").replace(file)
    flock.promote(flock.second)
    assert look(follower) == flock.second


# --- taking over


def test_the_next_request_after_a_promotion_is_answered_by_the_new_version(flock: Flock, follower, capfd) -> None:
    application = follower.application
    assert score(application, "before")["version"] == flock.first
    flock.promote(flock.second)
    assert score(application)["version"] == flock.first  # until it is looked for
    assert look(follower) == flock.second == score(application, "after")["version"]
    page = json.loads(asyncio.run(ask(application, "GET", "/model"))[1])
    assert (page["version"], page["follows"]) == (flock.second, "champion")
    flock.rollback()
    assert look(follower) == flock.first == score(application)["version"]
    assert capfd.readouterr().err.splitlines() == [
        f"{flock.second} took over from {flock.first}",
        f"{flock.first} took over from {flock.second}",
    ]
    log = read_log(flock.home.log("birds"))
    assert Counter(log["version"]) == {flock.first: 3, flock.second: 1}
    assert len(list_log_files(flock.home.log("birds"))) == 1


def test_a_request_that_has_begun_is_answered_by_the_version_it_began_with(flock: Flock, follower: Follower) -> None:
    application, old = follower.application, follower.application.served
    closed: list[bool] = []
    close = old.close
    old.close = lambda **more: closed.append(old.idle) or close(**more)  # type: ignore[method-assign]

    async def both() -> tuple[dict[str, Any], dict[str, Any]]:
        rest, sent = asyncio.Event(), []

        async def receive() -> dict[str, Any]:
            if not sent:
                sent.append("half")
                return {"type": "http.request", "body": BODY[:10], "more_body": True}
            await rest.wait()
            return {"type": "http.request", "body": BODY[10:]}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        sent_as = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b"", "headers": sent_as}
        slow = asyncio.create_task(application(scope, receive, send))
        await asyncio.sleep(0)
        flock.promote(flock.second)
        await follower.look()
        quick = json.loads((await ask(application, "POST", "/score", BODY))[1])
        await follower.look()
        assert follower.retired == [old] and not closed
        rest.set()
        await slow
        await follower.look()
        return json.loads(sent[-1]["body"]), quick

    slow, quick = asyncio.run(both())
    assert (slow["version"], quick["version"]) == (flock.first, flock.second)
    assert not follower.retired and closed == [True]
    assert read_log(flock.home.log("birds"))["version"].to_list().count(flock.first) == 1
    assert score(application)["version"] == flock.second  # the log is still open


def test_a_name_asked_before_and_after_a_swap_is_answered_by_each_version_with_its_own(flock: Flock, follower) -> None:
    application = follower.application
    before = score(application, "order-17")
    assert score(application, "order-17") == before
    flock.promote(flock.second)
    look(follower)
    after = score(application, "order-17")
    assert (before["version"], after["version"]) == (flock.first, flock.second)
    assert before["prediction_id"] != after["prediction_id"]
    assert score(application, "order-17") == after
    status, _ = asyncio.run(
        ask(application, "POST", "/score", json.dumps({**BIRD, "bill": 50.0}).encode(), x_request_id="order-17")
    )
    assert status == 409  # within a version it is a mistake, as ever
    flock.rollback()
    look(follower)
    assert score(application, "order-17")["prediction_id"] == before["prediction_id"]
    log = read_log(flock.home.log("birds")).filter(request_id="order-17")
    assert sorted(log["version"]) == sorted([flock.first, flock.second])


# --- what is never taken over


def damage(flock: Flock) -> None:
    file = flock.registry.folder("birds", flock.second) / "golden.jsonl"
    file.write_text(file.read_text().replace("Dream", "Biscoe"))


def remove(flock: Flock) -> None:
    shutil.rmtree(flock.registry.folder("birds", flock.second))


BROKEN: dict[str, tuple[Callable[[Flock], None], str]] = {
    "a file was altered": (damage, "altered"),
    "golden rows differ": (lambda flock: flock.spoil(flock.second), "golden row 0 differs"),
    "its files are gone": (remove, "one version"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_champion_is_never_taken_over_and_told_once(flock: Flock, follower, capfd, what: str) -> None:
    spoil, reason = BROKEN[what]
    flock.promote(flock.second)
    spoil(flock)
    application = follower.application
    assert [look(follower) for _ in range(5)] == [flock.first] * 5
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and reason in lines[0], lines
    assert lines[0].startswith(f"{flock.second} is not taken over: ") and lines[0].endswith(" answers on")
    assert score(application)["version"] == flock.first
    assert 'follows="behind"' in asyncio.run(ask(application, "GET", "/metrics"))[1].decode()
    assert asyncio.run(ask(application, "GET", "/readyz"))[0] == 200
    flock.rollback()
    assert look(follower) == flock.first
    assert 'follows="champion"' in asyncio.run(ask(application, "GET", "/metrics"))[1].decode()
    assert capfd.readouterr().err == ""


def test_a_broken_champion_is_tried_again_when_it_is_promoted_again_or_after_a_while(
    flock: Flock, follower: Follower, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = flock.registry.folder("birds", flock.second)
    shutil.copytree(folder, tmp_path / "whole")
    flock.promote(flock.second)
    damage(flock)
    assert look(follower) == flock.first
    flock.rollback()
    look(follower)
    (folder / "golden.jsonl").unlink()
    shutil.copy(tmp_path / "whole/manifest.json", folder)  # verified when it is promoted
    shutil.copy(tmp_path / "whole/golden.jsonl", folder)
    flock.promote(flock.second)
    damage(flock)
    assert look(follower) == flock.first
    assert len(capfd.readouterr().err.splitlines()) == 2  # told again: it was promoted again
    shutil.copy(tmp_path / "whole/golden.jsonl", folder)
    assert look(follower) == flock.first  # left alone for a while
    follower._again = time.monotonic()
    assert look(follower) == flock.second == score(follower.application)["version"]


def test_a_version_of_another_deployment_is_not_taken_over(flock: Flock, follower: Follower, capfd) -> None:
    tag = add_birds(flock.home, flock.built / "batch", seed=2, deployments=("one_off", "batch"))
    assert flock.registry.champion("birds") == tag
    assert look(follower) == flock.first
    assert "realtime" in capfd.readouterr().err


def test_a_version_whose_store_is_missing_is_not_taken_over(flock: Flock, capfd: pytest.CaptureFixture[str]) -> None:
    tag = add_delays(flock.home, flock.built / "delays")
    choice = select_served({**os.environ, "MLWORKBENCH_MODEL": "delays"})
    follower = Follower(Application(Realtime.open(choice)), choice)
    shutil.copytree(flock.registry.folder("delays", tag), flock.built / "again")
    other = replace(choice, version="delays:" + "0" * 32)  # as if another one had been served before
    follower.choice = other
    served = follower.application.served.realtime.version
    follower.application.served.realtime.version = replace(served, manifest={**served.manifest, "content_id": "0" * 64})
    store = Path(flock.home.online)
    store.rename(store.with_name("away"))
    follower._tried = ""
    asyncio.run(follower.look())
    assert "the online store" in capfd.readouterr().err and follower.application.served.follows == "behind"
    store.with_name("away").rename(store)
    follower._again = 0
    assert look(follower) == tag
    follower.close_retired(all_of_them=True)
    follower.application.close()


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError("no room"), OSError(24, "Too many open files")])
def test_whatever_a_version_does_when_it_is_opened_the_old_one_answers_on(
    flock: Flock, follower: Follower, capfd, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    flock.promote(flock.second)
    with monkeypatch.context() as patch:
        patch.setattr(swap, "open_running", fail)
        assert look(follower) == flock.first
    assert type(error).__name__ in capfd.readouterr().err
    follower._again = 0
    assert look(follower) == flock.second


def test_a_champion_that_is_rolled_back_while_it_is_opened_is_not_taken_over(
    flock: Flock, follower: Follower, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = swap.open_running

    def slow(*values: object, **more: object) -> Realtime:
        found = opened(*values, **more)
        flock.rollback()
        return found

    flock.promote(flock.second)
    monkeypatch.setattr(swap, "open_running", slow)
    assert [look(follower), look(follower)] == [flock.first] * 2
    assert capfd.readouterr().err == "" and score(follower.application)["version"] == flock.first


def test_of_a_version_that_was_replaced_nothing_stays_not_even_its_thread(
    flock: Flock, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = swap.open_running

    def by_reference(*values: object, **more: object) -> Realtime:
        found = opened(*values, **more)
        found.version = with_reference(found.version)
        return found

    monkeypatch.setattr(swap, "open_running", by_reference)
    before = []
    for turn in range(4):
        before.append(weakref.ref(follower.application.served.realtime.version))
        flock.promote((flock.second, flock.first)[turn % 2])
        look(follower)
        assert follower.application.served.realtime.version.scorer.kind == "reference"
        assert score(follower.application)["version"] == flock.registry.champion("birds")
    look(follower)
    assert not follower.retired
    wait_until(lambda: sum(one.name.startswith("mlworkbench-score") for one in threading.enumerate()) <= 1)
    gc.collect()
    assert [version() for version in before] == [None] * 4


def test_a_pinned_version_stays_and_says_so(flock: Flock, capfd: pytest.CaptureFixture[str]) -> None:
    choice = select_served({**os.environ, "MLWORKBENCH_VERSION": "champion"})
    assert not choice.follows and choice.version == flock.first
    application = open_application(choice)  # outside of a loop: there is nothing to follow
    assert capfd.readouterr().err == f"{flock.first} (asked for); pinned, what is promoted does not reach it\n"
    assert json.loads(asyncio.run(ask(application, "GET", "/model"))[1])["follows"] == "pinned"
    assert 'follows="pinned"' in asyncio.run(ask(application, "GET", "/metrics"))[1].decode()
    assert not application.closing
    application.close()


# --- beginning


def test_a_worker_that_begins_when_the_champion_is_broken_serves_what_its_siblings_serve(
    flock: Flock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FAILURE, str(tmp_path / "failure"))

    async def begin() -> str:
        application = open_application(select_running())
        try:
            return application.served.realtime.version.version
        finally:
            application.close()

    assert asyncio.run(begin()) == flock.first
    flock.promote(flock.second)
    flock.spoil(flock.second)
    assert asyncio.run(begin()) == flock.first
    remove(flock)
    assert asyncio.run(begin()) == flock.first
    lines = capfd.readouterr().err.splitlines()
    assert "golden row 0 differs" in lines[1] and "served before" in lines[2]
    assert "has no files" in lines[3] and lines[4].startswith(f"{flock.first} (served before); follows the champion")
    (tmp_path / "served").unlink()
    with pytest.raises(VersionError, match="no files"):  # the first of a service ends it
        asyncio.run(begin())


def test_following_begins_and_ends_with_the_application(flock: Flock) -> None:
    async def live() -> tuple[str, bool]:
        application = open_application(flock.choice())
        flock.promote(flock.second)
        end = time.monotonic() + 20
        while application.served.realtime.version.version == flock.first and time.monotonic() < end:
            await asyncio.sleep(0.05)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        application.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        return application.served.realtime.version.version, len(tasks) == 1 and all(one.cancelled() for one in tasks)

    assert asyncio.run(live()) == (flock.second, True)


def test_champions_that_change_faster_than_one_looks_fail_nobody_and_end_at_the_last(
    flock: Flock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "FOLLOW_SECONDS", 0.01)
    broken = add_birds(flock.home, flock.built / "third", seed=2, promoted=False)
    flock.spoil(broken)
    tags = [flock.second, broken, flock.first, broken, flock.second, flock.first, flock.second]

    async def live() -> tuple[list[int], str]:
        application, told, over = open_application(flock.choice()), list[int](), asyncio.Event()

        async def call() -> None:
            while not over.is_set():
                told.append((await ask(application, "POST", "/score", BODY))[0])
                await asyncio.sleep(0)

        callers = [asyncio.create_task(call()) for _ in range(3)]
        for turn, tag in enumerate(tags):
            await asyncio.to_thread(flock.promote, tag)
            await asyncio.sleep(0.03 * (turn % 3))
        end = time.monotonic() + 20
        while application.served.realtime.version.version != tags[-1] and time.monotonic() < end:
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*callers)
        application.close()
        return told, application.served.realtime.version.version

    told, last = asyncio.run(live())
    assert last == flock.second and len(told) > 20 and {*told} == {200}
    assert read_log(flock.home.log("birds")).height == len(told)


# --- real servers, under load


@dataclass
class Load:
    """Callers that ask all the time, over connections kept for 20 requests each."""

    port: int
    callers: int = 3
    answers: list[tuple[float, str, str]] = field(default_factory=list)  # when it was asked, version, prediction
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._ask) for _ in range(self.callers)]
        self.threads.append(threading.Thread(target=self._look))
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _ask(self) -> None:
        while not self.over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                for _ in range(20):
                    asked = time.monotonic()
                    connection.request("POST", "/score", BODY, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    told = answer.read()
                    if answer.status != 200:
                        raise OSError(f"{answer.status} {told[:200]!r}")
                    found, self.slowest = json.loads(told), max(self.slowest, time.monotonic() - asked)
                    self.answers.append((asked, found["version"], found["prediction_id"]))
                    time.sleep(0.005)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()

    def _look(self) -> None:
        """Ask whether it is ready."""
        while not self.over.wait(0.1):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.request("GET", "/readyz")
                if (status := connection.getresponse().status) != 200:
                    self.failed.append(f"readyz {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"readyz {error!r}")
            finally:
                connection.close()

    def versions(self, since: float) -> set[str]:
        return {version for asked, version, _ in [*self.answers] if asked >= since}

    def wait_for(self, tag: str, since: float, seconds: float) -> float:
        """Wait until only `tag` has answered for half a second; give how long after `since` another was asked last."""
        while time.monotonic() < since + seconds + 1:
            time.sleep(0.1)
            now = time.monotonic()
            if now > since + 0.7 and self.versions(now - 0.6) == {tag}:
                return max([asked for asked, version, _ in [*self.answers] if version != tag], default=since) - since
        raise AssertionError(f"after {seconds} s still {self.versions(time.monotonic() - 1)}; {self.failed[:3]}")


def words_of(service: Service) -> list[str]:
    return service.log.read_text(encoding="utf-8").splitlines()


@pytest.mark.system
@pytest.mark.parametrize(
    ("server", "killed"), [("uvicorn", True), ("bentoml", False), pytest.param("bentoml", True, marks=pytest.mark.long)]
)
def test_no_request_fails_by_a_promotion_a_broken_version_or_a_rollback(
    flock: Flock, server: str, killed: bool
) -> None:
    broken = add_birds(flock.home, flock.built / "third", seed=2, promoted=False)
    flock.spoil(broken)
    two = {"MLWORKBENCH_WORKERS": "2"}
    with start_service("birds", home=flock.home, env=two, server=server) as service:
        wait_until(lambda: sum("follows the champion" in line for line in words_of(service)) == 2)
        with Load(service.port) as load:  # a worker that begins later takes nothing over
            took = [load.wait_for(flock.second, flock.promote(flock.second), 15)]
            wait_until(lambda: sum("took over" in line for line in words_of(service)) == 2)  # both workers
            told = flock.promote(broken)
            wait_until(lambda: sum("golden row 0 differs" in line for line in words_of(service)) == 2)
            assert load.versions(told) == {flock.second}
            assert flock.rollback() and flock.registry.champion("birds") == flock.second
            took.append(load.wait_for(flock.first, flock.rollback(), 15))
            wait_until(lambda: sum("took over" in line for line in words_of(service)) == 4)
        assert not load.failed, load.failed[:5]
        print(f"{server}: {len(load.answers)} answers; the last of the version before {took} s after")
        assert {version for _, version, _ in load.answers} == {flock.first, flock.second}
        logged = set(read_log(flock.home.log("birds"), deployment="realtime")["prediction_id"])
        assert {prediction for _, _, prediction in load.answers} == logged
        lines = words_of(service)
        assert sum("golden row 0 differs" in line for line in lines) == 2  # once a worker
        assert sum("took over" in line for line in lines) == 4
        assert sum("follows the champion of birds" in line for line in lines) == 2
        assert "Traceback" not in "\n".join(lines)
        if killed:
            survive(flock, broken, service)


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def survive(flock: Flock, broken: str, service: Service) -> None:
    """Kill a worker while the champion is broken: the one that is started in its place answers by what was served."""
    Aliases(flock.home.registry).move("birds", "champion", broken, who="test", why="broken")
    supervisor = psutil.Process(service.process.pid)
    worker = next(one for one in supervisor.children(recursive=True) if one.net_connections(kind="tcp"))
    worker.kill()
    wait_until(lambda: any("served before" in line for line in words_of(service)))
    with Load(service.port) as load:
        time.sleep(0.5)
    assert not load.failed and load.versions(0) == {flock.first} and service.process.poll() is None


@pytest.mark.system
@pytest.mark.long
def test_memory_returns_after_twenty_swaps_and_each_reaches_the_service_within_two_seconds(flock: Flock) -> None:
    with start_service("birds", home=flock.home) as service, Load(service.port, callers=2) as load:
        worker, sizes, took = psutil.Process(service.process.pid), [], []
        for turn in range(24):
            tag = (flock.second, flock.first)[turn % 2]
            took.append(load.wait_for(tag, flock.promote(tag), 20))
            sizes.append(worker.memory_info().rss / 2**20)
    assert not load.failed
    print(f"MiB after each swap: {[round(size, 1) for size in sizes]}; seconds: {[round(one, 2) for one in took]}")
    print(f"{len(load.answers)} answers, the slowest after {load.slowest * 1000:.0f} ms")
    assert sizes[-1] < sizes[3] + 10
    assert max(took) < 2
