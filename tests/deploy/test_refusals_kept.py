"""Refused rows of every way are kept by reason: in files, batches, over HTTP, in a stream."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.streaming.events import Event
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.refusals import count_refusals
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.scoring.registry.registry import Registry
from tests.deploy.conftest import NOON, Workshop, trips, us

EVER = (0, 2**62)


def kept(home: Home, model: str, window: tuple[int, int] = EVER) -> dict[str, dict[str, int]]:
    return {deployment: reasons for (_, deployment), reasons in count_refusals(home.model(model), *window).items()}


def bird(**fields: Any) -> dict[str, Any]:
    return {"bill": 44.0, "island": "Dream", "ring": "R1", **fields}


def test_a_service_keeps_why_it_refused_single_records_and_those_of_a_list(elsewhere: Home) -> None:
    service = Realtime(Registry(elsewhere).open("birds"), PredictionLog(elsewhere.log("birds")), clock=lambda: 50)
    assert service.respond(json.dumps(bird(bill=500)).encode()).status == 422
    assert service.respond(json.dumps([bird(), bird(island="Mars"), bird(bill=-1)]).encode()).refused == 2
    assert service.respond(json.dumps([bird(), bird(bill=101)]).encode(), partial="false").status == 422
    assert service.respond(b"{").status == 400, "what cannot be read as records is no row"
    service.close()
    found = kept(elsewhere, "birds", (50, 51))["realtime"]
    assert sum(found.values()) == 4 and sum(n for reason, n in found.items() if reason.startswith("bill: ")) == 3
    assert not [reason for reason in found if "Mars" in reason or "500" in reason], "a value is no reason"


def test_a_stream_keeps_why_an_event_was_laid_aside(elsewhere: Home) -> None:
    worker = Streaming(Registry(elsewhere).open("birds"), PredictionLog(elsewhere.log("birds")), clock=lambda: 50)
    lines = [bird(), bird(bill="long"), [7], bird(bill=500)]
    events = [Event(number, number, json.dumps(line).encode(), number + 1) for number, line in enumerate(lines)]
    for _ in range(2):
        assert [outcome.good for outcome in worker.outcomes(events, "birds.jsonl")] == [True, False, False, False]
    worker.close()
    found = kept(elsewhere, "birds")["streaming"]
    assert sum(found.values()) == 3, "an event that is read again is refused once"
    assert not [reason for reason in found if "long" in reason or "R1" in reason]


def test_a_row_of_a_file_or_a_batch_stands_at_its_own_prediction_time(elsewhere: Home, workshop: Workshop) -> None:
    version, rows = workshop.open("delays"), trips(6)
    home = workshop_home(elsewhere, workshop)
    spoilt = rows.with_columns(distance=pl.when(pl.col("trip") == "T4").then(-1.0).otherwise(pl.col("distance")))
    score_batch(version, spoilt, home=home)
    moment = us(NOON + timedelta(minutes=31 * 4))
    assert [*kept(home, "delays", (moment, moment + 1))] == ["batch"] and not kept(home, "delays", (moment + 1, 2**62))
    path = home.path / "trips.csv"
    spoilt.with_columns(pl.col("asked").dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")).write_csv(path)
    score_file(version, path, home=home)
    assert sorted(kept(home, "delays", (moment, moment + 1))) == ["batch", "one_off"]


def workshop_home(elsewhere: Home, workshop: Workshop) -> Home:
    """Give a home of one's own that has the lake of the workshop."""
    (elsewhere.path / "lake").symlink_to(workshop.home.path / "lake")
    return elsewhere


def test_where_the_log_of_refused_rows_cannot_be_written_good_rows_go_on_and_a_line_says_so(
    elsewhere: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    version, log = Registry(elsewhere).open("birds"), PredictionLog(elsewhere.log("birds"))
    path = elsewhere.model("birds") / "refusals.sqlite"
    path.write_bytes(b"no database" * 100)
    service = Realtime(version, log, clock=lambda: 50)
    assert service.respond(json.dumps([bird(), bird(bill=-1)]).encode()).refused == 1
    service.close()
    worker = Streaming(version, PredictionLog(elsewhere.log("birds")), clock=lambda: 50)
    events = [Event(n, n, json.dumps(line).encode(), n + 1) for n, line in enumerate([bird(), bird(bill=500)])]
    assert [outcome.good for outcome in worker.outcomes(events, "birds.jsonl")] == [True, False]
    worker.close()
    table = elsewhere.path / "birds.csv"
    pl.DataFrame([bird(), bird(bill=500.0)]).write_csv(table)
    score_file(version, table, home=elsewhere)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["refused rows are not counted"] * 3 and "damaged" in said[0]
    assert sorted(read_log(elsewhere.log("birds"))["deployment"]) == ["one_off", "realtime", "streaming"]
