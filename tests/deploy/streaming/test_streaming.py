"""Events through the worker: what is published, logged, laid aside - and the same through real, killed processes."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.reasons import compare_explanations
from mlworkbench.deploy.request import now_us, request_columns
from mlworkbench.deploy.streaming.checkpoint import Writer
from mlworkbench.deploy.streaming.command import run_worker, work
from mlworkbench.deploy.streaming.events import Event, Outcome
from mlworkbench.deploy.streaming.jsonl import JsonLines, Places
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.errors import DeploymentError, FeatureError, LogError, WorkbenchError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.rows import prediction_id
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version

HEAVY = {"pandas", "sklearn", "polars", "pyarrow", "skops", "bentoml", "deltalake"}
COMMAND = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", "stream"]


def read(path: str | Path) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def events_of(table: pl.DataFrame) -> list[dict]:
    return [{**row, "asked": row["asked"].isoformat()} for row in table.to_dicts()]


def write(path: Path, events: list[dict]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


@pytest.fixture(scope="module")
def version(workshop) -> Version:
    return workshop.open("delays")


@pytest.fixture
def worker(workshop, version: Version, tmp_path: Path) -> Iterator[Streaming]:
    store = OnlineStore(workshop.home.online, read_only=True)
    with closing(Streaming(version, PredictionLog(tmp_path / "log.sqlite"), store=store)) as opened:
        yield opened


def run(worker: Streaming, source: Path, **named: str) -> Places:
    places = Places(str(source), named.pop("out", str(source.with_suffix(".out"))), once=True, **named)
    with closing(JsonLines(places, Writer(worker.version.model, worker.version.version))) as channel:
        worker.run(channel)
    return places


def test_a_light_process_can_hold_the_worker() -> None:
    code = "import sys, mlworkbench.deploy.streaming.worker, mlworkbench.deploy.streaming.command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_a_stream_answers_as_one_off_does_and_in_order(workshop, worker, tmp_path) -> None:
    table = workshop.trips(1300)
    places = run(worker, write(tmp_path / "trips.jsonl", events_of(table)))
    table.write_parquet(tmp_path / "trips.parquet")
    report = score_file(worker.version, tmp_path / "trips.parquet", home=workshop.home, out=tmp_path / "out.parquet")
    expected, got = pl.read_parquet(report.out), read(places.out)
    assert [line["line"] for line in got] == list(range(1, 1301))
    assert [line["entity"]["trip"] for line in got] == expected["trip"].to_list()
    assert [line["decision"] for line in got] == expected["decision"].to_list()
    assert (
        np.abs(np.array([line["score"] for line in got]) - expected["score"].to_numpy()).max()
        <= worker.version.tolerance
    )


def test_a_stream_gives_the_reasons_that_a_file_gets(workshop, worker, tmp_path) -> None:
    table, worker.explain = workshop.trips(25), True
    places = run(worker, write(tmp_path / "trips.jsonl", events_of(table)))
    table.write_parquet(tmp_path / "trips.parquet")
    out = tmp_path / "out.parquet"
    score_file(worker.version, tmp_path / "trips.parquet", home=workshop.home, out=out, explain=True)
    expected = [json.loads(text) for text in pl.read_parquet(out)["reasons"]]
    for line, other in zip(read(places.out), expected, strict=True):
        assert compare_explanations(line["explanation"], other) <= 1e-12


def test_every_prediction_is_logged_under_an_id_of_version_source_and_offset(worker, tmp_path, workshop) -> None:
    places = run(worker, write(tmp_path / "trips.jsonl", events_of(workshop.trips(5))), name="trips")
    log, told = read_log(worker.log.path), read(places.out)
    tag = worker.version.version
    assert [t["prediction_id"] for t in told] == [
        prediction_id("delays", tag, "streaming", f"trips:{t['offset']}") for t in told
    ]
    assert set(log["prediction_id"]) == {t["prediction_id"] for t in told}
    assert set(log["deployment"]) == {"streaming"} and set(log["request_id"]) == {"trips"}
    data = Path(places.source).read_bytes()
    assert all(json.loads(data[t["offset"] :].splitlines()[0])["trip"] == t["entity"]["trip"] for t in told)


def test_nothing_is_published_that_is_not_logged(worker, tmp_path, workshop, monkeypatch) -> None:
    def full(rows: object) -> int:
        raise LogError("log.sqlite: disk is full; free some space")

    monkeypatch.setattr(worker.log, "write", full)
    with pytest.raises(LogError, match="disk is full"):
        run(worker, write(tmp_path / "trips.jsonl", events_of(workshop.trips(5))))
    assert (tmp_path / "trips.out").read_bytes() == b""


def test_bad_events_are_laid_aside_and_the_stream_goes_on(worker, tmp_path, workshop) -> None:
    good = [json.dumps(event).encode() for event in events_of(workshop.trips(4))]
    bad = {
        b'{"trip": "x"': "not JSON",
        b"[1, 2]": "got list",
        good[0].replace(b"300.0", b"NaN"): "JSON has no NaN",
        good[0].replace(b"300.0", b"1e999"): "column 'distance'",
        good[0].replace(b"300.0", b'"300"'): "column 'distance': a number; got '300'",
        good[0].replace(b"300.0", b"-3"): "at least 0",
        good[0].replace(b"+00:00", b""): "column 'asked'",
        good[0].replace(b"2013-", b"9999-12-31T23:59:59-10:00 "): "column 'asked'",
        b'{"distance": 1, ' + good[0][1:]: "each name once in a record; got 'distance' twice",
        good[0].replace(b'"trip"', b'"tirp"'): "column 'trip'",
        good[0].replace(b"LGA", b"L\xfcA"): "UTF-8",
        json.dumps({**json.loads(good[0]), "wind": 3.0}).encode(): "the values of all views or of none",
    }
    lines = [good[0], *list(bad)[:5], b"", good[1] + b"\r", b"  \t", *list(bad)[5:], good[2]]
    (tmp_path / "trips.jsonl").write_bytes(b"\n".join(lines) + b"\n" + good[3])
    places = run(worker, tmp_path / "trips.jsonl")
    assert [line["entity"]["trip"] for line in read(places.out)] == ["T0", "T1", "T2", "T3"]
    letters = read(places.dead_path)
    assert [letter["line"] for letter in letters] == [k for k in range(2, 18) if k not in (7, 8, 9, 17)]
    for letter, said in zip(letters, bad.values(), strict=True):
        assert said in letter["reason"] and "\n" not in letter["reason"], letter
        assert letter["version"] == worker.version.version
    assert json.loads(letters[4]["event"])["distance"] == "300"
    assert {fault["column"] for fault in letters[6]["faults"]} == {"asked"}


def test_every_fault_of_an_event_is_listed(worker, tmp_path) -> None:
    (tmp_path / "trips.jsonl").write_text('{"origin": 3, "distance": -1, "asked": "noon"}\n')
    letter = read(run(worker, tmp_path / "trips.jsonl").dead_path)[0]
    assert {fault["column"] for fault in letter["faults"]} == {"trip", "origin", "distance", "asked"}
    assert "(and 3 more)" in letter["reason"] and "row" not in letter["reason"]


def test_a_line_of_ten_megabytes_is_an_event_like_any_other(worker, tmp_path, workshop) -> None:
    events = events_of(workshop.trips(3))
    events[1]["note"] = "x" * 10_000_000
    places = run(worker, write(tmp_path / "trips.jsonl", events))
    assert [line["line"] for line in read(places.out)] == [1, 2, 3]
    again = run(worker, write(tmp_path / "bad.jsonl", [events[0], {**events[1], "distance": -1}, events[2]]))
    assert [letter["line"] for letter in read(again.dead_path)] == [2]
    assert len(read(again.dead_path)[0]["event"]) > 10_000_000


def test_a_line_beyond_all_bounds_is_laid_aside_by_its_head(worker, tmp_path, workshop) -> None:
    events = events_of(workshop.trips(3))
    events[1]["note"] = "x" * 17 * 1024 * 1024
    places = run(worker, write(tmp_path / "trips.jsonl", events))
    assert [line["line"] for line in read(places.out)] == [1, 3]
    assert "at most 16777216 bytes" in read(places.dead_path)[0]["reason"]
    assert places.dead_path.stat().st_size < 2000


def test_one_event_that_cannot_be_scored_costs_its_neighbours_nothing(worker, tmp_path, workshop, monkeypatch) -> None:
    from mlworkbench.deploy import refusals as rows
    from mlworkbench.errors import UserCodeError

    def fussy(version, columns, values, *, faults):
        if 317.0 in columns["distance"].tolist():
            raise UserCodeError("features.py, line 3: row 0: no such distance")
        return predict(version, columns, values, faults=faults)

    predict = rows.predict
    monkeypatch.setattr(rows, "predict", fussy)
    places = run(worker, write(tmp_path / "trips.jsonl", events_of(workshop.trips(40))))
    assert [line["line"] for line in read(places.out)] == [1, *range(3, 41)]
    (letter,) = read(places.dead_path)
    assert letter["reason"].endswith("got features.py, line 3: it: no such distance")
    assert letter["faults"][0]["value"] == "features.py, line 3: it: no such distance"


class Broker:
    """Four verbs are all that another carrier needs; this one delivers again what was not acknowledged."""

    source = "topic-0"

    def __init__(self, events: list[Event], *, dies: bool = False) -> None:
        self.waiting, self.dies = events, dies
        self.verbs: list[str] = []
        self.published: list[dict] = []

    def read(self) -> list[Event] | None:
        self.verbs.append("read")
        return self.waiting[:3] or None

    def publish(self, outcomes: list[Outcome]) -> None:
        self.verbs.append("publish")
        self.published += [dict(outcome.body) for outcome in outcomes]

    def acknowledge(self, events: list[Event]) -> None:
        self.verbs.append("acknowledge")
        if self.dies:
            raise ConnectionResetError
        self.waiting = self.waiting[len(events) :]

    def close(self) -> None:
        """Nothing to let go of."""


def test_another_carrier_needs_four_verbs_and_a_repeated_delivery_is_the_same_prediction(worker, workshop) -> None:
    texts = [json.dumps(event).encode() for event in events_of(workshop.trips(5))]
    events = [Event(k, k + 1, text, len(text)) for k, text in enumerate(texts)]
    dying, broker = Broker(events, dies=True), Broker(events)
    with pytest.raises(ConnectionResetError):
        worker.run(dying)
    report = worker.run(broker)
    assert broker.verbs == ["read", "publish", "acknowledge"] * 2 + ["read"]
    assert report.scored == 5 and dying.published == broker.published[:3]
    assert read_log(worker.log.path).height == 5


# features


def test_carried_values_give_the_same_predictions_as_the_store(worker, tmp_path, workshop) -> None:
    events = events_of(workshop.trips(60))
    told = read(run(worker, write(tmp_path / "asked.jsonl", events)).out)
    views = worker.version.views
    request = request_columns(events, worker.version)
    values = worker.store.lookup(views, request.columns, request.columns["asked"])
    plain = {name: [None if value != value else value for value in column.tolist()] for name, column in values.items()}
    carried = [{**event, **{name: plain[name][row] for name in plain}} for row, event in enumerate(events)]
    mixed = [carried[row] if row % 2 else events[row] for row in range(60)]
    again = read(run(worker, write(tmp_path / "carried.jsonl", mixed)).out)
    assert [line["score"] for line in again] == pytest.approx(
        [line["score"] for line in told], abs=worker.version.tolerance
    )
    assert [line["line"] for line in again] == list(range(1, 61))
    marks = read_log(worker.log.path).filter(pl.col("prediction_id").is_in([line["prediction_id"] for line in again]))
    assert sum("carried" in json.dumps(mark) for mark in marks["watermark"].to_list()) == 30


def test_a_carried_value_of_a_wrong_kind_is_a_dead_letter(worker, tmp_path, workshop) -> None:
    event = {**events_of(workshop.trips(1))[0], "wind": "strong", "sky": None, "landed": 1.5, "delay": None}
    letter = read(run(worker, write(tmp_path / "trips.jsonl", [event])).dead_path)[0]
    assert {fault["column"] for fault in letter["faults"]} == {"wind", "landed"}


def test_without_a_store_only_events_that_carry_their_values_are_scored(version, tmp_path, workshop) -> None:
    event = {**events_of(workshop.trips(1))[0], "wind": 3.0, "sky": "clear", "landed": 1, "delay": 2.0}
    with closing(Streaming(version, PredictionLog(tmp_path / "log.sqlite"))) as worker:
        assert len(read(run(worker, write(tmp_path / "carried.jsonl", [event])).out)) == 1
        source = write(tmp_path / "asked.jsonl", [event, *events_of(workshop.trips(1))])
        with pytest.raises(DeploymentError, match="run `mlworkbench features materialize`"):
            run(worker, source)
        assert (tmp_path / "asked.out").read_bytes() == b""


def test_a_store_that_cannot_answer_stops_the_worker_and_buries_nobody(worker, tmp_path, workshop, monkeypatch) -> None:
    def lags(*_: object) -> dict:
        raise FeatureError("view 'weather': lags by 2 days; run `mlworkbench features materialize`")

    monkeypatch.setattr(worker.store, "lookup", lags)
    with pytest.raises(FeatureError):
        run(worker, write(tmp_path / "trips.jsonl", events_of(workshop.trips(3))))
    assert (tmp_path / "trips.out").read_bytes() == b"" and not (tmp_path / "trips.out.dead.jsonl").exists()


def test_an_event_dated_ahead_of_the_clock_is_laid_aside_where_the_store_would_be_too_old(
    version, tmp_path, workshop
) -> None:
    """One sender's clock must not stop the stream; a store that is too old for the clock itself must."""
    views = tuple(dataclasses.replace(view, max_lag=timedelta(days=30)) for view in version.views)
    limited, events = dataclasses.replace(version, views=views), events_of(workshop.trips(3))
    events[1]["asked"] = "2099-01-01T00:00:00+00:00"
    source = write(tmp_path / "trips.jsonl", events)
    for clock, scored in ((now_us, 2), (lambda: 2**62, None)):
        log = PredictionLog(tmp_path / f"{scored}.sqlite")
        store = OnlineStore(workshop.home.online, read_only=True)
        with closing(Streaming(limited, log, store=store, clock=clock)) as worker:
            if scored is None:
                with pytest.raises(FeatureError, match="at most 30 days"):
                    run(worker, source, out=str(tmp_path / "second.out"))
                continue
            places = run(worker, source)
            assert [line["line"] for line in read(places.out)] == [1, 3]
            assert "later than the clock" in read(places.dead_path)[0]["reason"]


def test_what_is_logged_is_what_is_published_even_if_the_store_has_learned_more(
    worker, tmp_path, workshop, monkeypatch
) -> None:
    source = write(tmp_path / "trips.jsonl", events_of(workshop.trips(20)))
    before = Path(run(worker, source).out).read_bytes()
    os.truncate(tmp_path / "trips.out", len(before) // 2)
    lookup = worker.store.lookup
    monkeypatch.setattr(worker.store, "lookup", lambda *asked: {**lookup(*asked), "wind": np.full(len(asked[2]), 99.0)})
    assert Path(run(worker, source).out).read_bytes() == before


def test_a_line_that_was_changed_after_it_was_scored_is_refused(worker, tmp_path, workshop) -> None:
    events = events_of(workshop.trips(20))
    source = write(tmp_path / "trips.jsonl", events)
    run(worker, source)
    (tmp_path / "trips.out").unlink()
    events[7]["trip"] = "S7"
    write(source, events)
    write(source, [*events, *events])  # some of them at places that the log does not know yet
    with pytest.raises(DeploymentError, match="got another at the same place"):
        run(worker, source)
    assert read_log(worker.log.path).height == 20, "a refused micro-batch was logged"


def test_equal_events_are_never_merged_and_the_second_output_doubles_no_log(worker, tmp_path, workshop) -> None:
    source = write(tmp_path / "trips.jsonl", events_of(workshop.trips(1)) * 30)
    told = read(run(worker, source).out)
    assert len({line["prediction_id"] for line in told}) == 30
    (tmp_path / "trips.out").rename(tmp_path / "kept.out")
    assert run(worker, source) and read(tmp_path / "trips.out") == told
    assert read_log(worker.log.path).height == 30


def test_a_model_that_does_not_declare_streaming_is_refused(worker) -> None:
    declared = {**worker.version.declaration, "deployments": ["batch"]}
    with pytest.raises(DeploymentError, match="got 'streaming'"):
        Streaming(dataclasses.replace(worker.version, declaration=declared), worker.log)


def test_several_classes_and_a_model_without_views_stream_too(workshop, tmp_path) -> None:
    bird = {"bill": 39.1, "island": "Dream", "ring": "R1"}
    for model in ("birds", "species"):
        source = write(tmp_path / f"{model}.jsonl", [bird, {**bird, "bill": None}, {**bird, "island": "Dreem"}])
        with closing(Streaming(workshop.open(model), PredictionLog(tmp_path / f"{model}.sqlite"))) as worker:
            places = run(worker, source)
        told = read(places.out)
        assert [line["line"] for line in told] == [1, 2] and "prediction_time" not in told[0]
        assert ("scores" in told[0]) == (model == "species")
        assert "did you mean 'Dream'?" in read(places.dead_path)[0]["reason"]


def test_an_event_in_a_list_of_512_is_predicted_as_alone(worker, workshop) -> None:
    texts = [json.dumps(event).encode() for event in events_of(workshop.trips(512))]
    events = [Event(k, k, text, len(text)) for k, text in enumerate(texts)]
    together = [outcome.body["score"] for outcome in worker.outcomes(events, "together")]
    alone = [worker.outcomes([event], "alone")[0].body["score"] for event in events[::16]]
    assert np.abs(np.array(together[::16]) - alone).max() <= worker.version.tolerance


def test_dead_letters_of_standard_output_are_kept_in_the_home(worker, tmp_path, workshop, elsewhere, capfd) -> None:
    source = tmp_path / "trips.jsonl"
    source.write_text("no event\n" + json.dumps(events_of(workshop.trips(1))[0]) + "\n")
    report = work(worker, Places(str(source), once=True), home=elsewhere)
    assert (report.scored, report.rejected, report.out) == (1, 1, "-")
    assert Path(report.dead).parent == elsewhere.model("delays") / "dead_letters"
    assert json.loads(capfd.readouterr().out)["entity"] == {"trip": "T0"}


# real processes


@pytest.fixture
def environment(workshop, elsewhere, tmp_path) -> dict[str, str]:
    (elsewhere.path / "online.sqlite").write_bytes(workshop.home.online.read_bytes())
    return {**os.environ, **workshop.environment, "MLWORKBENCH_HOME": str(elsewhere.path), "PYTHONUNBUFFERED": "1"}


def start(environment: dict[str, str], *words: str | Path, **streams: object) -> subprocess.Popen[bytes]:
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **streams}
    return subprocess.Popen([*COMMAND, "--model", "delays", *map(str, words)], env=environment, **given)


def lines_now(*paths: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


@pytest.mark.system
def test_killed_again_and_again_a_stream_loses_nothing_and_doubles_nothing(
    environment, elsewhere, workshop, tmp_path, kills
) -> None:
    """The input grows while workers are killed at random moments, wherever they are: starting, logging, writing."""
    chance, count = random.Random(20131001), 2_000 * kills
    events = [json.dumps(event) for event in events_of(workshop.trips(count))]
    bad = {k for k in range(count) if chance.random() < 0.1}
    texts = [("{" + text if k in bad else text) + "\n" for k, text in enumerate(events)]
    source, out, dead = (tmp_path / name for name in ("trips.jsonl", "trips.out", "trips.out.dead.jsonl"))
    source.write_text("")
    undone: list[int] = []
    for kill in range(kills):
        with source.open("a") as file:
            file.writelines(texts[2_000 * kill : 2_000 * (kill + 1)])
        process, before = start(environment, source, "--out", out), lines_now(out, dead)
        if kill % 5:
            while lines_now(out, dead) == before and process.poll() is None:
                time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03 if kill % 5 else 3))
        assert process.poll() is None
        process.kill()
        process.wait()
        undone.append(2_000 * (kill + 1) - lines_now(out, dead))
    assert any(undone)  # some were killed at work, not after it
    assert start(environment, source, "--out", out, "--once").wait() == 0
    told, letters, log = read(out), read(dead), read_log(elsewhere.log("delays"))
    assert [line["line"] for line in told] == [k + 1 for k in range(count) if k not in bad]
    assert [letter["line"] for letter in letters] == [k + 1 for k in sorted(bad)]
    assert [line["entity"]["trip"] for line in told] == [f"T{k}" for k in range(count) if k not in bad]
    assert sorted(log["prediction_id"]) == sorted(line["prediction_id"] for line in told)
    scores = dict(zip(log["prediction_id"], (score[0] for score in log["scores"]), strict=True))
    assert all(scores[line["prediction_id"]] == line["score"] for line in told)


@pytest.mark.system
def test_a_slow_producer_gets_each_answer_at_once(environment, workshop) -> None:
    events = [json.dumps(event).encode() + b"\n" for event in events_of(workshop.trips(30))]
    pipe = subprocess.PIPE
    process = start(environment, "--json", stdin=pipe, stdout=pipe, stderr=pipe)
    process.stdin.write(events[0])
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["entity"] == {"trip": "T0"}  # started
    waits = []
    for k, event in enumerate(events[1:], 1):
        asked = time.monotonic()
        process.stdin.write(event)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["entity"] == {"trip": f"T{k}"}
        waits.append(time.monotonic() - asked)
    rest, said = process.communicate(events[0][:-1] + b"\nno event")
    assert [json.loads(line)["line"] for line in rest.splitlines()] == [31]
    facts = json.loads(said.splitlines()[-1])
    assert (facts["model"], facts["scored"], facts["rejected"], process.returncode) == ("delays", 31, 1, 0)
    assert min(waits) < 0.25  # the least: a busy machine delays some, a worker that waits for more delays each


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_micro_batch_and_leaves_cleanly(
    environment, elsewhere, workshop, tmp_path, number: int
) -> None:
    source, out = write(tmp_path / "trips.jsonl", events_of(workshop.trips(20_000))), tmp_path / "trips.out"
    process = start(environment, source, "--out", out, "--json", stdout=subprocess.PIPE)
    while not lines_now(out):
        time.sleep(0.005)
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    facts = json.loads(said)
    assert process.returncode == 0 and facts["scored"] == lines_now(out) == len(read_log(elsewhere.log("delays"))) > 0
    with out.open("rb") as file:
        assert file.read().endswith(b"\n")


@pytest.mark.system
def test_a_second_worker_on_the_same_output_is_refused_in_one_line(environment, workshop, tmp_path) -> None:
    source, out = write(tmp_path / "trips.jsonl", events_of(workshop.trips(3))), tmp_path / "trips.out"
    first = start(environment, source, "--out", out)
    while lines_now(out) < 3:
        time.sleep(0.01)
    second = start(environment, source, "--out", out, stderr=subprocess.PIPE)
    said = second.communicate()[1].decode().splitlines()
    assert second.returncode == 2 and len(said) == 1 and "one worker writes it at a time" in said[0]
    first.terminate()
    assert first.wait() == 0 and len(read(out)) == 3


@pytest.mark.system
def test_a_worker_is_started_by_its_environment(environment, elsewhere, workshop, tmp_path, monkeypatch) -> None:
    source = write(tmp_path / "trips.jsonl", [*events_of(workshop.trips(700)), {"trip": 3}])
    places = Places(str(source), str(tmp_path / "trips.out"), once=True, name="trips")
    report = run_worker("delays", places, home=elsewhere)
    assert (report.events, report.scored, report.rejected) == (701, 700, 1)
    assert report.seconds > 0 and report.version == workshop.open("delays").version
    with pytest.raises(WorkbenchError) as refused:
        run_worker("delays", Places(str(tmp_path / "none.jsonl"), places.out, once=True), home=elsewhere)
    assert "none.jsonl: a file of events that exists" in str(refused.value) and "Traceback" not in str(refused.value)


def test_clocks_are_handed_in(version, tmp_path, workshop) -> None:
    store = OnlineStore(workshop.home.online, read_only=True)
    with closing(Streaming(version, PredictionLog(tmp_path / "log.sqlite"), store=store, clock=lambda: 7)) as worker:
        run(worker, write(tmp_path / "trips.jsonl", events_of(workshop.trips(2))))
        assert read_log(worker.log.path)["logged_at"].cast(pl.Int64).to_list() == [7, 7]
    assert now_us() > 7


# the command


@pytest.fixture
def tell(environment, monkeypatch, capfd, tmp_path):
    """Run the command in this process; exit code, standard output, standard error."""
    from mlworkbench.cli.app import run as command

    monkeypatch.setenv("MLWORKBENCH_HOME", environment["MLWORKBENCH_HOME"])
    monkeypatch.chdir(tmp_path)

    def told(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = command(["stream", "--model", "delays", *words])
        found = capfd.readouterr()
        return code, found.out, found.err

    return told


def test_the_command_says_what_it_did_in_words_and_in_json(tell, workshop, tmp_path) -> None:
    source = write(tmp_path / "trips.jsonl", events_of(workshop.trips(4)))
    with source.open("a") as file:
        file.write('{"trip": 3}\n{"trip": ')
    code, out, _ = tell("trips.jsonl", "--out", "out.jsonl", "--once", "--json")
    facts = json.loads(out)
    assert code == 0 and (facts["model"], facts["events"], facts["scored"], facts["rejected"]) == ("delays", 5, 4, 1)
    assert (facts["out"], facts["dead"], facts["unfinished"]) == ("out.jsonl", "out.jsonl.dead.jsonl", 9)
    code, out, _ = tell("trips.jsonl", "--out", "other.jsonl", "--once", "--dead-letters", "bad.jsonl")
    assert code == 0 and "5 events, 4 predictions to other.jsonl" in out and "in bad.jsonl" in out
    assert read("other.jsonl") == read("out.jsonl")


def test_with_standard_output_nothing_but_predictions_goes_there(tell, workshop, tmp_path) -> None:
    write(tmp_path / "trips.jsonl", events_of(workshop.trips(4)))
    code, out, err = tell("trips.jsonl", "--once")
    assert code == 0 and [json.loads(line)["line"] for line in out.splitlines()] == [1, 2, 3, 4]
    assert "4 events, 4 predictions to standard output" in err


def test_what_cannot_be_streamed_is_refused_in_one_line(tell, workshop, tmp_path) -> None:
    write(tmp_path / "trips.jsonl", events_of(workshop.trips(4)))
    assert tell("trips.jsonl", "--out", "out.jsonl", "--once")[0] == 0
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "trips.jsonl").read_bytes())
    before = Path("out.jsonl").read_bytes()
    for words, said in (
        (("tirps.jsonl", "--out", "out.jsonl"), "tirps.jsonl: a file of events that exists; got none"),
        (("copy.jsonl", "--out", "out.jsonl"), "the output of this input; got one of another"),
        (("trips.jsonl", "--out", "new.jsonl", "--version", "ffffffff"), "delays: one version"),
        (("trips.jsonl", "--out", "trips.jsonl"), "one file for the input; got it for the output too"),
        (("trips.jsonl", "--out", "no/../trips.jsonl/x"), "a file that can be written"),
    ):
        code, _, err = tell(*words, "--once")
        assert code == 2 and said in err and len(err.splitlines()) == 1, err
    assert Path("out.jsonl").read_bytes() == before and not Path("new.jsonl").exists()


def test_an_altered_version_is_refused_before_anything_is_read(tell, workshop, tmp_path, monkeypatch) -> None:
    shutil.copytree(workshop.folder / "bentoml", tmp_path / "bentoml")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    golden = Registry(workshop.home).folder("delays") / "golden.jsonl"
    golden.write_text(golden.read_text().replace("JFK", "LGA"))
    write(tmp_path / "trips.jsonl", events_of(workshop.trips(4)))
    code, _, err = tell("trips.jsonl", "--out", "out.jsonl", "--once")
    assert code == 2 and "golden.jsonl was altered" in err and len(err.splitlines()) == 1
    assert not Path("out.jsonl").exists()


def test_an_event_that_another_worker_logged_is_published_as_it_was_logged(version, workshop, tmp_path) -> None:
    lines = [json.dumps(event).encode() for event in events_of(workshop.trips(6))]
    events = [Event(100 * n, n + 1, line, len(line)) for n, line in enumerate(lines)]
    store = OnlineStore(workshop.home.online, read_only=True)
    logs = [PredictionLog(tmp_path / "log.sqlite", own=True) for _ in range(2)]
    one, other = (Streaming(version, log, store=store) for log in logs)
    told = [outcome.body for outcome in one.outcomes(events[:4], "trips")]
    with sqlite3.connect(logs[0].file) as connection:
        connection.execute("UPDATE predictions SET scores = '[0.125]', decision = 'false' WHERE rowid = 1")
    again = [outcome.body for outcome in other.outcomes(events, "trips")]
    assert again[1:4] == told[1:] and (again[0]["score"], again[0]["decision"]) == (0.125, False)
    assert read_log(tmp_path / "log.sqlite").height == 6 and logs[0].find([again[5]["prediction_id"]])
    one.close()
    other.log.close()
