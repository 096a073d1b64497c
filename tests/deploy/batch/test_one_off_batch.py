"""Files and intervals: what goes in, what comes out, what is refused, what a second run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.sinks.files import ENDINGS, write_file
from mlworkbench.deploy.batch import one_off
from mlworkbench.deploy.batch.batch import Job, score_batch
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.files import output_path
from mlworkbench.errors import ContractError, DeploymentError, IngestError, WorkbenchError
from mlworkbench.evaluation.log.reader import read_log

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


def birds_file(folder: Path, ending: str, rows: list[dict]) -> Path:
    path = folder / f"birds{ending}"
    frame = pl.DataFrame(rows)
    if ending == ".csv":
        frame.write_csv(path)
    elif ending == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)
    return path


CHANGES = ({}, {"bill": 51.5, "ring": "R2"}, {"bill": None, "ring": None}, {"bill": 60.0, "ring": "007"})
ROWS = [{**BIRD, **change} for change in CHANGES]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out", ["p.csv", "p.jsonl", "p.parquet"])
def test_every_format_gives_the_same_answers(workshop, elsewhere: Home, tmp_path: Path, ending: str, out: str) -> None:
    report = score_file(workshop.open("birds"), birds_file(tmp_path, ending, ROWS), home=elsewhere, out=tmp_path / out)
    assert (report.rows, report.scored, report.rejected, report.rejected_path) == (4, 4, 0, None)
    readers = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
    options = {"schema_overrides": {"ring": pl.String}} if out.endswith("csv") else {}
    table = readers[Path(out).suffix](report.out, **options)
    assert table.columns == ["prediction_id", "row", "ring", "score", "decision", "flags"]
    assert table["ring"].to_list()[3] == "007"  # text stays text, also in CSV
    logged = read_log(elsewhere.log("birds"))
    assert sorted(logged["prediction_id"].to_list()) == sorted(table["prediction_id"].to_list())


@pytest.mark.parametrize("ending", ENDINGS)
def test_predictions_are_written_as_a_sink_writes_them(workshop, tmp_path: Path, ending: str) -> None:
    version, source = workshop.open("delays"), tmp_path / "trips.parquet"
    workshop.trips().write_parquet(source)
    whole = pl.read_parquet(score_file(version, source, home=workshop.home, out=tmp_path / "whole.parquet").out)
    assert whole["asked"].dtype == pl.Datetime("us", "UTC")
    scored = score_file(version, source, home=workshop.home, out=tmp_path / f"scored{ending}").out.read_bytes()
    assert scored == write_file(tmp_path / f"sink{ending}", whole).read_bytes()


def test_a_part_without_any_value_of_a_column_keeps_its_type(
    workshop, elsewhere: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_off, "CHUNK", 1)
    for number, ring in enumerate([None, "R1"]):
        (tmp_path / f"birds-{number}.jsonl").write_text(json.dumps({**BIRD, "ring": ring}) + "\n")
    source = f"{tmp_path}/birds-*.jsonl"
    report = score_file(workshop.open("birds"), source, home=elsewhere, out=tmp_path / "p.parquet")
    assert pl.read_parquet(report.out)["ring"].to_list() == [None, "R1"]


def test_classes_have_a_column_each(workshop, elsewhere: Home, tmp_path: Path) -> None:
    report = score_file(workshop.open("species"), birds_file(tmp_path, ".csv", ROWS), home=elsewhere)
    table = pl.read_csv(report.out)
    assert report.out.name == "birds.predictions.csv"
    scores = table.select("score_Adelie", "score_Chinstrap", "score_Gentoo")
    assert (scores.sum_horizontal() - 1).abs().max() < 1e-12


def test_a_second_run_is_the_same_file_and_adds_nothing_to_the_log(workshop, elsewhere: Home, tmp_path: Path) -> None:
    version, source = workshop.open("birds"), birds_file(tmp_path, ".parquet", ROWS)
    first = score_file(version, source, home=elsewhere).out.read_bytes()
    assert score_file(version, source, home=elsewhere).out.read_bytes() == first
    assert read_log(elsewhere.log("birds")).height == len(ROWS)


def test_bad_rows_are_listed_and_the_others_are_scored(workshop, elsewhere: Home, tmp_path: Path) -> None:
    source = tmp_path / "birds.csv"
    source.write_text("bill,island,ring\n39.1,Dream,R1\nlong,Dream,R2\n391,Dreem,R3\nNA,Dream,R4\n")
    report = score_file(workshop.open("birds"), source, home=elsewhere)
    assert (report.scored, report.rejected) == (2, 2)
    assert pl.read_csv(report.out)["row"].to_list() == [0, 3]
    faults = [json.loads(line) for line in report.rejected_path.read_text().splitlines()]
    assert [(fault["row"], fault["column"], fault["value"]) for fault in faults] == [
        (1, "bill", "long"),
        (2, "bill", 391.0),
        (2, "island", "Dreem"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bill,island\n39.1,Dream\n", "'ring' is needed"),
        ("bill,island,ring\n", "row"),
        ("bill,island,ring\nlong,Dream,R1\nshort,Dream,R2\n", "no row can be scored"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_nothing_is_written(
    workshop, elsewhere: Home, tmp_path: Path, text: str, said: str
) -> None:
    source = tmp_path / "birds.csv"
    source.write_text(text)
    with pytest.raises(WorkbenchError, match=said):
        score_file(workshop.open("birds"), source, home=elsewhere)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["birds.csv"]


def test_numbers_sent_as_text_in_a_typed_file_are_refused(workshop, elsewhere: Home, tmp_path: Path) -> None:
    source = birds_file(tmp_path, ".parquet", [{**BIRD, "bill": "39.1"}])
    with pytest.raises(ContractError, match="without quotes"):
        score_file(workshop.open("birds"), source, home=elsewhere)


def test_unknown_file_ending_and_source_as_output_are_refused(workshop, elsewhere: Home, tmp_path: Path) -> None:
    source = birds_file(tmp_path, ".csv", ROWS)
    for out in ("p.xlsx", source):
        with pytest.raises(DeploymentError, match="out:"):
            score_file(workshop.open("birds"), source, home=elsewhere, out=out)
    with pytest.raises(WorkbenchError, match="no such file"):
        score_file(workshop.open("birds"), tmp_path / "brids.csv", home=elsewhere)


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("many", "many/p.csv"),
        ("many/*.csv", "many/p.csv"),
        ("**/*.csv", "many/p.csv"),
        ("many/**", "many/1/p.csv"),
        (".", None),
        ("*.csv", None),
        ("s3://shop/many/*.csv", None),
    ],
)
def test_predictions_are_never_written_among_what_is_read(
    source: str, out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many").mkdir()
    with pytest.raises(DeploymentError, match="--out"):
        output_path(source, out)
    assert [path.name for path in tmp_path.rglob("*")] == ["many"]


def test_a_place_that_cannot_be_written_is_one_line(workshop, elsewhere: Home, tmp_path: Path) -> None:
    source = birds_file(tmp_path, ".csv", ROWS)
    with pytest.raises(IngestError, match=r"cannot write .*x.csv: .+; see the path"):
        score_file(workshop.open("birds"), source, home=elsewhere, out=source / "x.csv")
    assert not elsewhere.log("birds").exists() or read_log(elsewhere.log("birds")).is_empty()


def test_a_pattern_and_a_folder_can_be_scored_twice(workshop, elsewhere: Home, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name, part in (("part-1.csv", ROWS[:2]), ("part-2.csv", ROWS[2:])):
        birds_file(tmp_path / "many", ".csv", part).rename(tmp_path / "many" / name)
    for source in ("many/part-*.csv", "many") * 2:
        report = score_file(workshop.open("birds"), tmp_path / source, home=elsewhere)
        assert report.scored == len(ROWS) and report.out.parent == tmp_path


def test_files_of_many_folders_are_scored_here_and_from_a_store(workshop, elsewhere: Home, tmp_path: Path, s3) -> None:
    for name, part in (("2013/1/a.csv", ROWS[:2]), ("2013/2/b.csv", ROWS[2:])):
        (tmp_path / name).parent.mkdir(parents=True)
        birds_file(tmp_path, ".csv", part).rename(tmp_path / name)
        s3.write(name, (tmp_path / name).read_bytes())
    here = score_file(workshop.open("birds"), tmp_path / "2013/*/*.csv", home=elsewhere)
    assert here.scored == len(ROWS) and here.out == tmp_path / "2013.all.predictions.csv"
    there = score_file(workshop.open("birds"), s3.url("2013/*/*.csv"), home=elsewhere, out=tmp_path / "there.csv")
    assert there.out.read_bytes() == here.out.read_bytes()
    assert read_log(elsewhere.log("birds")).height == len(ROWS)  # the same bytes are the same predictions


def test_a_file_is_joined_with_the_views_as_of_each_row(workshop, tmp_path: Path) -> None:
    source = tmp_path / "trips.parquet"
    workshop.trips().write_parquet(source)
    report = score_file(workshop.open("delays"), source, home=workshop.home)
    assert report.scored == 50
    log = read_log(workshop.home.log("delays"), deployment="one_off")
    features = pl.DataFrame([json.loads(text) for text in log["features"]])
    assert features["landed"].max() > 0 and features["wind"].drop_nulls().len() > 0
    assert json.loads(log["watermark"][0])["weather"] == {"lake_version": 0}


NIGHT = Job("2013-10-01T00:00:00Z", "2013-10-03T00:00:00Z", "night")


def test_a_batch_writes_a_partition_a_day_and_repeats_itself(workshop) -> None:
    version = workshop.open("delays")
    report = score_batch(version, workshop.trips(), home=workshop.home, job=NIGHT)
    assert [path.stem for path in report.partitions] == ["2013-10-01", "2013-10-02"]
    assert report.scored == sum(pl.read_parquet(path).height for path in report.partitions) == 50
    before = [path.read_bytes() for path in report.partitions]
    rows = read_log(workshop.home.log("delays"), deployment="batch").height
    again = score_batch(version, workshop.trips(), home=workshop.home, job=NIGHT)
    assert [path.read_bytes() for path in again.partitions] == before
    assert read_log(workshop.home.log("delays"), deployment="batch").height == rows == 50


def test_one_off_and_batch_agree(workshop, tmp_path: Path) -> None:
    version = workshop.open("delays")
    source = tmp_path / "trips.parquet"
    workshop.trips().write_parquet(source)
    one_off = pl.read_csv(score_file(version, source, home=workshop.home, out=tmp_path / "p.csv").out)
    report = score_batch(version, workshop.trips(), home=workshop.home, job=NIGHT)
    batch = pl.concat([pl.read_parquet(path) for path in report.partitions])
    both = one_off.join(batch, on="trip", suffix="_batch")
    assert both.height == 50
    assert (both["score"] - both["score_batch"]).abs().max() <= version.tolerance
    assert both["decision"].to_list() == both["decision_batch"].to_list()
    assert not set(one_off["prediction_id"]) & set(batch["prediction_id"])


def test_an_interval_that_cuts_a_day_leaves_the_rest_of_it(workshop) -> None:
    version = workshop.open("delays")
    whole = score_batch(version, workshop.trips(), home=workshop.home, job=NIGHT).partitions[0].read_bytes()
    part = Job("2013-10-01T15:00:00Z", "2013-10-01T20:00:00Z", "evening")
    report = score_batch(version, workshop.trips(), home=workshop.home, job=part)
    assert 0 < report.scored < pl.read_parquet(report.partitions[0]).height
    ids = set(pl.read_parquet(report.partitions[0])["prediction_id"])
    report.partitions[0].write_bytes(whole)
    assert ids == set(pl.read_parquet(report.partitions[0])["prediction_id"])


def test_a_model_without_time_has_one_partition(workshop, elsewhere: Home) -> None:
    report = score_batch(workshop.open("birds"), pl.DataFrame(ROWS), home=elsewhere)
    assert [path.stem for path in report.partitions] == ["all"]
    with pytest.raises(DeploymentError, match="leave start and end empty"):
        score_batch(workshop.open("birds"), pl.DataFrame(ROWS), home=elsewhere, job=NIGHT)


def test_rows_that_a_batch_refuses_are_listed(workshop, elsewhere: Home) -> None:
    rows = pl.DataFrame([*ROWS, {**BIRD, "bill": 391.0}])
    report = score_batch(workshop.open("birds"), rows, home=elsewhere)
    assert (report.scored, report.rejected) == (4, 1)
    assert json.loads(report.rejected_path.read_text())["row"] == 4
    with pytest.raises(DeploymentError, match="no row can be scored"):
        score_batch(workshop.open("birds"), rows[4:], home=elsewhere)


KILLED = """
import sys, polars as pl
sys.path.insert(0, {tests!r})
from conftest import trips
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch import batch, batch as interval
from mlworkbench.deploy.selection import open_model
write = batch.write_partition
def slow(folder, name, table):
    path = write(folder, name, table)
    print(name, flush=True)
    import time; time.sleep(30)
batch.write_partition = slow
home = Home.open({home!r})
job = interval.Job("2013-10-01T00:00:00Z", "2013-10-03T00:00:00Z")
batch.score_batch(open_model("delays", home=home), trips(), home=home, job=job)
"""


@pytest.mark.system
def test_a_batch_that_is_killed_leaves_whole_partitions_and_the_next_run_completes_it(workshop, tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parents[1]), home=str(workshop.home.path))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as run:
        assert run.stdout.readline().strip() == "2013-10-01"
        time.sleep(0.1)
        run.send_signal(signal.SIGKILL)
    report = score_batch(workshop.open("delays"), workshop.trips(), home=workshop.home, job=NIGHT)
    assert sum(pl.read_parquet(path).height for path in report.partitions) == report.scored == 50
    assert not list(report.partitions[0].parent.glob(".*"))


def test_the_run_notebook_scores_an_interval(elsewhere: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlworkbench.data.lake.lake import Lake
    from mlworkbench.operate.running.runner import run_notebook

    monkeypatch.chdir(tmp_path)
    rows = pl.DataFrame(ROWS).select("bill", "island", "ring")
    Lake(elsewhere.lake).append("birds_rows", rows.to_arrow(), transaction=None)
    run = run_notebook("batch_score", {"model": "birds"}, home=elsewhere, seconds=120)
    assert (run.state, run.verdict) == ("done", "pass"), run.error
    assert run.result["metrics"]["scored"] == 4
    assert (Path(run.result["reports"]["predictions"]) / "all.parquet").exists()
