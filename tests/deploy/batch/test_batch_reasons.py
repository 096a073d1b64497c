"""Reasons of tables: a column where it is asked for, the same as those of the version, and of the service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.batch import Job, score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.realtime.call import Call
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.evaluation.log.writer import PredictionLog

ROWS = [{"bill": 39.1 + k, "island": island, "ring": f"R{k}"} for k, island in enumerate(["Dream", "Biscoe"] * 4)]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_file_and_a_service_give_the_same_reasons(ending: str, workshop, elsewhere: Home, tmp_path: Path) -> None:
    version, source = workshop.open("birds"), tmp_path / "birds.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    report = score_file(version, source, home=elsewhere, out=tmp_path / f"out{ending}", explain=True)
    read = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}[ending]
    got = [json.loads(text) for text in read(report.out)["reasons"]]
    realtime = Realtime(version, PredictionLog(elsewhere.log("birds")))
    answers = json.loads(realtime.respond_together([Call(json.dumps(ROWS).encode(), explain="true")])[0].body)
    realtime.close()
    for one, answer in zip(got, answers, strict=True):
        other = answer["explanation"]
        assert [r["column"] for r in one["reasons"]] == [r["column"] for r in other["reasons"]]
        apart = [a["contribution"] - b["contribution"] for a, b in zip(one["reasons"], other["reasons"], strict=True)]
        assert np.abs(apart).max() <= 1e-12 and abs(one["margin"] - other["margin"]) <= 1e-12
    plain = score_file(version, source, home=elsewhere, out=tmp_path / "plain.parquet")
    assert "reasons" not in pl.read_parquet(plain.out).columns


def test_a_batch_may_have_them_and_a_second_run_may_not(workshop, elsewhere: Home) -> None:
    version, rows = workshop.open("birds"), pl.DataFrame(ROWS)
    with_reasons = score_batch(version, rows, home=elsewhere, job=Job(explain=True))
    table = pl.concat([pl.read_parquet(path) for path in with_reasons.partitions])
    assert table.height == with_reasons.scored == len(ROWS)
    found = json.loads(table["reasons"][0])
    assert {one["column"] for one in found["reasons"]} == {*version.frame.names}
    again = score_batch(version, rows, home=elsewhere)
    assert "reasons" not in pl.read_parquet(again.partitions[0]).columns and again.scored == len(ROWS)
