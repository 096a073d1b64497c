"""Calls that wait together, and work that no answer waits for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings_file import read_setting
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.call import Call, Reply
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.realtime.waiting import MOST_BYTES, MOST_CALLS, Aside, WaitingCalls
from mlworkbench.errors import FeatureError, SettingsError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.refusals import count_refusals
from mlworkbench.evaluation.log.writer import CHECKPOINT_ROWS, PredictionLog

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


class Turns:
    """Answers each call by its body, and remembers the turns."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.turns: list[int] = []
        self.seconds = seconds

    def __call__(self, calls: Sequence[Call]) -> list[Reply]:
        self.turns.append(len(calls))
        time.sleep(self.seconds)
        return [Reply(200, call.body) for call in calls]


async def ask_all(waiting: WaitingCalls, bodies: Sequence[bytes]) -> list[bytes]:
    return [reply.body for reply in await asyncio.gather(*(waiting.ask(Call(body)) for body in bodies))]


@pytest.mark.parametrize("threaded", [False, True])
def test_each_call_gets_its_own_reply_and_a_turn_takes_so_many(threaded: bool) -> None:
    turns = Turns()
    waiting = WaitingCalls(turns, threaded=threaded)
    bodies = [str(number).encode() for number in range(3 * MOST_CALLS + 5)]
    assert asyncio.run(ask_all(waiting, bodies)) == bodies
    assert max(turns.turns) == MOST_CALLS and sum(turns.turns) == len(bodies) and len(waiting) == 0
    waiting.close()


def test_steady_callers_of_a_thread_come_into_one_turn_and_who_has_gone_is_not_waited_for() -> None:
    async def ask_again(waiting: WaitingCalls, times: int) -> None:
        for _ in range(times):
            await waiting.ask(Call(b""))

    async def all_of_them(waiting: WaitingCalls) -> None:
        first = asyncio.create_task(ask_again(waiting, 5))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, *(ask_again(waiting, 8) for _ in range(5)))

    turns = Turns(0.1)
    waiting = WaitingCalls(turns, threaded=True)
    asyncio.run(asyncio.wait_for(all_of_them(waiting), 20))
    waiting.close()
    assert turns.turns == [1, 6, 6, 6, 6, 5, 5, 5, 5]


def test_a_call_that_is_alone_is_answered_without_a_turn_of_the_loop() -> None:
    def at_once(waiting: WaitingCalls) -> Any:
        with pytest.raises(StopIteration) as ended:
            waiting.ask(Call(b"one"), alone=True).send(None)
        return ended.value.value

    assert at_once(WaitingCalls(Turns())).body == b"one"
    failing = WaitingCalls(lambda calls: [])
    with pytest.raises(RuntimeError, match="0 replies to 1 calls"):
        asyncio.run(failing.ask(Call(b"one"), alone=True))
    assert failing.idle

    async def after_another() -> list[bytes]:
        waiting = WaitingCalls(turns := Turns(0.01))
        first = asyncio.create_task(waiting.ask(Call(b"one")))
        await asyncio.sleep(0)  # it waits for its turn
        found = [(await waiting.ask(Call(b"two"), alone=True)).body, (await first).body]
        assert turns.turns == [2]
        return found

    assert asyncio.run(after_another()) == [b"two", b"one"]


def test_a_turn_takes_what_comes_while_calls_are_read_but_never_more_than_it_may() -> None:
    async def run(count: int) -> list[int]:
        loop, waiting, asked = asyncio.get_running_loop(), WaitingCalls(turns := Turns()), list[asyncio.Task[Reply]]()

        def bring(left: int) -> None:  # one with each look into the sockets
            asked.append(loop.create_task(waiting.ask(Call(b"one"))))
            if left > 1:
                loop.call_soon(bring, left - 1)

        bring(count)
        await asyncio.sleep(0.2)
        assert all(one.done() for one in asked) and len(asked) == count
        return turns.turns

    assert asyncio.run(run(5)) == [5]
    assert max(asyncio.run(run(3 * MOST_CALLS))) == MOST_CALLS


def test_large_bodies_share_no_turn_and_one_that_is_too_large_for_any_has_its_own() -> None:
    turns = Turns()
    large, small = b"x" * (MOST_BYTES // 2), b"y"
    bodies = [large, large, large, b"z" * (2 * MOST_BYTES), small, small]
    assert asyncio.run(ask_all(WaitingCalls(turns), bodies)) == bodies
    assert turns.turns == [2, 1, 1, 2]


def test_a_caller_that_has_gone_takes_nothing_from_the_others() -> None:
    async def run() -> list[bytes]:
        waiting = WaitingCalls(Turns(0.05), threaded=True)
        tasks = [asyncio.create_task(waiting.ask(Call(str(number).encode()))) for number in range(6)]
        await asyncio.sleep(0.01)
        tasks[2].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(2), asyncio.CancelledError)
        return [reply.body for reply in found if isinstance(reply, Reply)]

    assert asyncio.run(run()) == [b"0", b"1", b"3", b"4", b"5"]


def test_what_takes_long_leaves_the_loop_free_and_gathers_who_comes_meanwhile() -> None:
    turns = Turns(0.2)

    async def run() -> int:
        waiting, ticks = WaitingCalls(turns, threaded=True), 0
        first = asyncio.create_task(waiting.ask(Call(b"first")))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(waiting.ask(Call(b"other"))) for _ in range(32)]
        while not first.done():
            ticks += 1
            await asyncio.sleep(0.005)
        await asyncio.gather(*others)
        return ticks

    assert asyncio.run(run()) > 5 and turns.turns == [1, 32]


class Panic(BaseException):
    """As polars raises one."""


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("error", [Panic("!"), StopIteration("!"), SystemExit(1), KeyError("!"), "no reply"])
def test_whatever_fails_in_a_turn_fails_its_own_call_alone_and_the_next_turn_comes(error: Any, threaded: bool) -> None:
    def respond(calls: Sequence[Call]) -> list[Reply]:
        if any(call.body == b"bad" for call in calls):
            if isinstance(error, str):
                return []
            raise error
        return [Reply(200, call.body) for call in calls]

    async def run() -> list[Any]:
        waiting = WaitingCalls(respond, threaded=threaded)
        asked = [waiting.ask(Call(body)) for body in (b"good", b"bad", b"good too")]
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        found.append(await asyncio.wait_for(waiting.ask(Call(b"later")), 5))
        await asyncio.sleep(0)
        assert waiting.idle
        waiting.close()
        return found

    good, bad, *others = asyncio.run(run())
    assert [one.body for one in (good, *others)] == [b"good", b"good too", b"later"]
    assert isinstance(bad, KeyError if isinstance(error, KeyError) else RuntimeError)


@pytest.mark.parametrize("threaded", [False, True])
def test_who_still_waits_at_the_end_is_told_so_and_nobody_hangs(threaded: bool) -> None:
    async def run() -> list[Any]:
        waiting = WaitingCalls(Turns(0.1), threaded=threaded)
        first = asyncio.create_task(waiting.ask(Call(b"first")))
        await asyncio.sleep(0.02)
        last = asyncio.create_task(waiting.ask(Call(b"last")))
        await asyncio.sleep(0)
        waiting.close()
        return await asyncio.wait_for(asyncio.gather(first, last, return_exceptions=True), 5)

    first, last = asyncio.run(run())
    assert first.body == b"first" and (last.status, last.code) == (503, "service.ends")


def test_what_is_handed_over_is_done_in_order_and_before_the_service_has_stopped() -> None:
    done: list[int] = []
    aside = Aside()
    for number in range(50):
        aside(lambda number=number: (time.sleep(0.001), done.append(number)))  # type: ignore[misc]
    aside.close()
    assert done == [*range(50)]
    aside(lambda: done.append(50))
    assert done[-1] == 50, "after its end it is done at once"


def test_where_too_much_waits_whoever_brings_more_does_it() -> None:
    free, names = threading.Event(), list[str]()
    aside = Aside(most=3)
    for _ in range(3):
        aside(lambda: free.wait(5) and None)
    aside(lambda: names.append(threading.current_thread().name))
    free.set()
    aside.close()
    assert names == [threading.current_thread().name]


def test_work_that_fails_stops_nothing_that_comes_after_it() -> None:
    done: list[str] = []
    aside = Aside(most=2)
    for _ in range(2):
        aside(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    time.sleep(0.1)
    for _ in range(2):
        aside(lambda: done.append(threading.current_thread().name))
    aside.close()
    assert len(done) == 2 and all(name.startswith("mlworkbench-aside") for name in done)


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds"), own=True))
    yield realtime
    realtime.close()


async def ask(application: Application, method: str, path: str, value: object = None) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(value).encode()}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    sent_as = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": sent_as}
    await application(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_locked_log_of_refused_rows_keeps_nobody_waiting_and_loses_none(birds: Realtime, elsewhere: Home) -> None:
    application = Application(birds)
    assert asyncio.run(ask(application, "POST", "/score", {**BIRD, "bill": -1}))[0] == 422
    deadline = time.monotonic() + 5
    while not (file := elsewhere.model("birds") / "refusals.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)

    async def many() -> list[int]:
        answers = [await ask(application, "POST", "/score", {**BIRD, "bill": bill}) for bill in (-1, 40, -2, 41) * 5]
        return [status for status, _ in answers]

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        assert asyncio.run(many()) == [422, 200, 422, 200] * 5
        assert time.monotonic() - begun < 2, "a refusal waits for a lock up to 5 s"
        other.execute("ROLLBACK")
    application.close()
    assert sum(sum(found.values()) for found in count_refusals(file.parent, 0, 2**62).values()) == 11


def test_a_page_that_takes_long_keeps_no_request_waiting(birds: Realtime, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application(birds)
    real = application.metrics.write_page

    def slow(*arguments: Any, **more: Any) -> tuple[bytes, str]:
        time.sleep(0.5)
        return real(*arguments, **more)

    monkeypatch.setattr(application.metrics, "write_page", slow)

    async def run() -> float:
        page = asyncio.create_task(ask(application, "GET", "/metrics"))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        assert (await ask(application, "POST", "/score", BIRD))[0] == 200
        taken = time.monotonic() - begun
        assert not page.done() and (await page)[0] == 200
        return taken

    assert asyncio.run(run()) < 0.3


def test_checkpoints_are_done_aside_and_bring_the_rows_into_the_file(birds: Realtime) -> None:
    application = Application(birds)
    rows = 12 * CHECKPOINT_ROWS

    async def many() -> None:
        for _ in range(rows // 100):
            assert (await ask(application, "POST", "/score", [BIRD] * 100))[0] == 200

    asyncio.run(many())
    assert birds.log._opened().execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    application.served.aside.close()
    with closing(sqlite3.connect(birds.log.file)) as other:
        assert birds.log.file.stat().st_size > 200 * rows, "most of it is in the file, and not ahead of it"
        assert other.execute("SELECT count(*) FROM predictions").fetchone() == (rows,)
    application.close()
    assert read_log(birds.log.path).height == rows


@pytest.mark.parametrize(("text", "level"), [("", 1), ("full", 2), ("normal", 1)])
def test_the_setting_says_whether_a_commit_waits_for_the_disk(
    workshop, elsewhere: Home, monkeypatch: pytest.MonkeyPatch, text: str, level: int
) -> None:
    monkeypatch.setenv("MLWORKBENCH_SERVE_SYNCHRONOUS", text)
    full = read_setting("serve.synchronous").value == "full"
    log = PredictionLog(elsewhere.log("birds"), own=True, full=full)
    realtime = Realtime(workshop.open("birds"), log)
    application = Application(realtime)
    assert asyncio.run(ask(application, "POST", "/score", BIRD))[0] == 200
    assert log._opened().execute("PRAGMA synchronous").fetchone() == (level,)
    application.close()


def test_another_word_for_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_SERVE_SYNCHRONOUS", "fsync")
    with pytest.raises(SettingsError, match=r"normal.*full") as refused:
        read_setting("serve.synchronous")
    assert "\n" not in str(refused.value)


def test_a_store_on_another_machine_that_hangs_leaves_the_loop_free(workshop, elsewhere: Home) -> None:
    class Hanging:
        """Stands for the client of a server that does not answer."""

        rows = object()

        def transaction(self, *, write: bool = True) -> None:
            time.sleep(0.4)
            raise FeatureError("cannot read the online store: it does not answer; try again")

        def close(self) -> None:
            pass

    log = PredictionLog(elsewhere.log("delays"), own=True)
    application = Application(Realtime(workshop.open("delays"), log, store=Hanging()))  # type: ignore[arg-type]
    trip = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T12:00:00+00:00", "distance": 300}

    async def run() -> float:
        asked = asyncio.create_task(ask(application, "POST", "/score", trip))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        assert (await ask(application, "GET", "/livez"))[0] == 200
        taken = time.monotonic() - begun
        assert not asked.done() and (await asked)[0] == 503
        return taken

    assert asyncio.run(run()) < 0.2
    application.close()
