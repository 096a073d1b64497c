"""Two workbenches of one user share BentoML's store and nothing else; every run of theirs is listed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from mlworkbench.cli.console import shorten_versions
from mlworkbench.cli.scaffold import write_workbench

PUMP = """
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlworkbench.scoring.definition import ModelDefinition


def rows():
    return pd.DataFrame({"a": [float(k) for k in range(100)], "t": [SIGN * float(k) for k in range(100)]})


pump = ModelDefinition("pump", LinearRegression(), rows, "t")
"""


@pytest.fixture
def folders(clean: Path, monkeypatch: pytest.MonkeyPatch):
    """Go to one of two folders, each made by `mlworkbench new`, without a BENTOML_HOME."""
    monkeypatch.delenv("BENTOML_HOME")
    monkeypatch.setenv("HOME", str(clean / "user"))

    def enter(name: str, sign: int) -> Path:
        folder = clean / name
        if not folder.exists():
            write_workbench(folder, name="pump")
            (folder / "definition.py").write_text(PUMP.replace("SIGN", str(sign)))
            (folder / "asked.csv").write_text("a\n10\n")
        sys.modules.pop("definition", None)
        sys.path[:] = [place for place in sys.path if place != str(folder)]
        monkeypatch.chdir(folder)
        return folder

    return enter


def scored(folder: Path, facts) -> float:
    facts("score", "asked.csv", "--out", "scored.csv")
    (row,) = csv.DictReader((folder / "scored.csv").open())
    return round(float(row["score"]), 6)


def test_a_model_of_the_same_name_in_another_workbench_never_answers(folders, facts, tell, clean) -> None:
    tags, answers = [], []
    for name, sign in (("first", 1), ("second", -1)):
        folders(name, sign)
        tags.append(facts("train")["version"])
    for name, sign in (("first", 1), ("second", -1)):
        answers.append(scored(folders(name, sign), facts))
    assert answers == [10.0, -10.0]
    assert len(set(tags)) == 2
    for (name, sign), tag in zip((("first", 1), ("second", -1)), tags, strict=True):
        folders(name, sign)
        assert [row["tag"] for row in facts("models", "list")["versions"]] == [tag]
        code, _, err = tell("models", "show", f"pump:{tags[tags[0] == tag].partition(':')[2]}")
        assert code == 2 and "one version, by alias, tag or first digits" in err


def test_a_version_of_two_workbenches_goes_with_the_second(folders, facts, tell, clean) -> None:
    tags = []
    for name in ("first", "twin"):
        folders(name, 1)
        tags.append(facts("train")["version"])
    assert tags[0] == tags[1]
    folders("first", 1)
    _, out, _ = tell("models", "remove", tags[0])
    assert (
        out.strip()
        == f"removed {shorten_versions(tags[0])}; its files stay in the store, other workbenches may name them"
    )
    assert facts("models", "list")["versions"] == []
    assert scored(folders("twin", 1), facts) == 10.0
    assert tell("models", "remove", tags[0])[1].strip() == f"removed {shorten_versions(tags[0])}"
    assert not clean.joinpath("user", "bentoml", "models", *tags[0].split(":")).exists()


def test_training_by_command_is_a_run_like_any_other(folders, facts, tell) -> None:
    folders("first", 1)
    run = facts("train")
    (row,) = facts("runs", "list")["runs"]
    assert (row["run_id"], row["notebook"], row["state"], row["verdict"]) == (
        run["run_id"], "train", "done", run["gates"]["verdict"],
    )  # fmt: skip
    shown = facts("runs", "show", run["run_id"])
    assert (Path(shown["folder"]) / "result.json").is_file()
    Path("definition.py").write_text(PUMP.replace("SIGN", "1").replace('"t")', '"none")'))
    sys.modules.pop("definition", None)
    code, _, err = tell("train")
    assert code == 2 and err.count("\n") == 1
    assert [(one["state"], one["notebook"]) for one in facts("runs", "list")["runs"]] == [
        ("failed", "train"),
        ("done", "train"),
    ]


@pytest.mark.system
def test_retraining_compares_with_who_serves(folders, facts, tell) -> None:
    folders("first", 1)
    before = facts("train")["version"]
    code, out, err = tell("retrain", "--rows", "50")
    assert code == 0, err
    assert f"new version; compared with {shorten_versions(before)}" in out and "r2" in out
    listed = facts("runs", "list")["runs"]
    assert [(row["notebook"], row["state"]) for row in listed] == [("retrain", "done"), ("train", "done")]


def test_a_bare_date_is_midnight_utc_and_said_before_anything_else(folders, tell) -> None:
    folders("first", 1)
    code, _, err = tell("features", "build", "--start", "2013-10-01", "--end", "2013-09-01")
    assert code == 2
    said, error = err.splitlines()
    assert said == "a bare date is midnight UTC: start 2013-10-01T00:00:00+00:00, end 2013-09-01T00:00:00+00:00"
    assert error.startswith("error: interval: start is before end")
