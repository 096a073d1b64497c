"""A model whose lake lies in an object store is trained, certified and explained as one on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from persons import rides, write_sources

pytestmark = pytest.mark.system
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def command(s3_server, tmp_path_factory):
    """Run a command in a folder whose settings put the lake into the store."""
    folder = tmp_path_factory.mktemp("company")
    write_sources(folder)
    settings = (folder / "settings.ini").read_text()
    (folder / "settings.ini").write_text(
        settings.replace("[models]", f"lake = s3://{s3_server.bucket}/company\n[models]")
    )
    places = {"BENTOML_HOME": str(folder / "bentoml"), "PYTHONPATH": f"{folder}{os.pathsep}{HERE.parents[1]}"}
    environment = {**os.environ, **s3_server.environment, **places, "BENTOML_DO_NOT_TRACK": "true"}

    def run(*words: str) -> str:
        line = [sys.executable, "-c", "from mlworkbench.cli.main import main; main()", *words]
        done = subprocess.run(
            line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    run.folder = folder
    run("ingest")
    run("train")
    run("features", "materialize")
    return run


def test_no_row_of_the_lake_lies_on_disk(command):
    assert not [path for path in command.folder.rglob("*.parquet") if "lake" in str(path.relative_to(command.folder))]
    found = json.loads(command("lake", "list", "--json"))
    assert found["lake"] == "s3://workbench/company"
    assert {one["table"]: one["rows"] for one in found["tables"]} == {"riders": 12, "rides": 240}


def test_online_and_offline_features_are_equal(command):
    assert json.loads(command("features", "check", "--json"))["mismatches"] == 0


def test_training_rows_lead_back_to_rows_of_the_file(command):
    rows = json.loads(command("lake", "lineage", "--rows", "3", "--json"))["rows"]
    own = [row["tables"][0] for row in rows]
    assert [(one["table"], one["lake_version"], one["source_row"]) for one in own] == [
        ("rides", 0, n) for n in range(3)
    ]
    content = hashlib.sha256((command.folder / "rides.csv").read_bytes()).hexdigest()
    assert {one["source"] for one in own} == {content[:32]}


def test_deployments_are_equal_and_a_prediction_is_explained_after_the_lake_moved_on(command):
    rides(30).write_csv(command.folder / "asked.csv")
    command("score", "asked.csv", "--out", "scored.csv")
    told = json.loads(command("certify", "--rows", "60", "--json"))
    equal = {one["deployment"] for one in told["deployments"] if one["verdict"] == "equal" and one["rows"] == 60}
    assert told["verdict"] == "equal" and equal == {"one_off", "batch", "realtime", "streaming"}
    first = pl.read_csv(command.folder / "scored.csv")["prediction_id"][0]
    before = json.loads(command("replay", first, "--json"))
    assert before["verdict"] == "equal" and {view["lake_version"] for view in before["views"]} == {0}
    rides(260).write_csv(command.folder / "rides.csv")
    command("ingest", "--table", "rides")
    joined = json.loads(command("lake", "compact", "--json"))["tables"]
    assert [(one["files_before"], one["files_after"]) for one in joined if one["table"] == "rides"] == [(2, 1)]
    command("lake", "vacuum", "--force")
    assert json.loads(command("replay", first, "--json")) == before
