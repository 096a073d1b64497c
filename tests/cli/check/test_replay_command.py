"""`mlworkbench replay`: one prediction with its passport, all with a count, and an exit code."""

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from mlworkbench.cli.console import shorten_versions


@pytest.fixture
def scored(workbench, facts):
    """A trained model and a scored file; gives the ids of the predictions."""
    from sklearn.datasets import load_iris

    facts("train")
    iris = load_iris(as_frame=True).data
    iris.columns = [name.removesuffix(" (cm)").replace(" ", "_") for name in iris.columns]
    iris.to_csv("rows.csv", index=False)
    version = facts("models", "list")["versions"][0]["tag"]
    return pd.read_csv(facts("score", "rows.csv", "--version", version)["out"])["prediction_id"].tolist()


def altered(one):
    with sqlite3.connect(next(Path().rglob("log.sqlite"))) as connection:
        connection.execute("UPDATE predictions SET scores = '[0.5,0.25,0.25]' WHERE prediction_id = ?", [one])


def test_one_prediction_and_all_of_them(scored, facts, tell):
    found = facts("replay", scored[0])
    assert (found["verdict"], found["exact"]) == ("equal", True)
    assert {one["from"] for one in found["features"]} == {"request"}
    code, out, _ = tell("replay", scored[0][:8])
    assert code == 0
    assert "replay: equal, bit for bit" in out
    counts = facts("replay", "log")
    assert {name: counts[name] for name in ("replayed", "equal", "erased", "differ")} == {
        "replayed": 150,
        "equal": 150,
        "erased": 0,
        "differ": 0,
    }
    assert facts("replay", "log", "--rows", "3")["replayed"] == 3
    assert facts("replay", "log", "--last", "hour")["replayed"] == 150


def test_a_difference_is_exit_code_one(scored, tell):
    altered(scored[7])
    code, out, err = tell("replay", scored[7])
    assert code == 1
    assert "replay: differ; score: logged [0.5, 0.25, 0.25]" in out
    assert err.count("\n") == 1
    code, out, _ = tell("replay", "log", "--json")
    assert code == 1
    found = json.loads(out)
    assert (found["equal"], found["differ"]) == (149, 1)
    assert found["differences"][0]["prediction_id"] == scored[7]
    assert tell("replay", scored[6])[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["replay"], "PREDICTION_ID"),
        (["replay", "0123456789", "--all"], "No such option: --all"),
        (["replay", "0123"], "at least its first 8 digits"),
        (["replay", "0123456789"], "no prediction begins with"),
        (["replay", "log", "--model", "carz"], "carz"),
        (["replay", "log", "--start", "yesterday"], "yesterday"),
        (["replay", "log", "--start", "2100-01-01T00:00:00+00:00"], "no prediction was logged since 2100"),
        (["replay", "log", "--end", "2001-01-01T00:00:00+00:00"], "no prediction was logged"),
        (["replay", "log", "--last", "fortnight"], "--last: 'fortnight' is no span of time"),
        (["replay", "log", "--last", "day", "--end", "2013-01-01"], "--end: not with --last; got 2013-01-01"),
        (["replay", "0123456789", "--start", "2013-01-01T00:00:00+00:00"], "No such option: --start"),
        (["replay", "0123456789", "--model", "carz"], "did you mean 'cars'?"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_code_two(scored, tell, words, said):
    code, _, err = tell(*words)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_one_prediction_of_a_removed_version_is_exit_code_one_and_among_many_it_is_counted(scored, tell, facts):
    version = facts("models", "list")["versions"][0]["tag"]
    facts("models", "remove", version)
    code, out, err = tell("replay", scored[0])
    assert code == 1 and "replay: undecided" in out
    assert f"does not replay equal: undecided; {shorten_versions(version)} was removed" in err and err.count("\n") == 1
    code, out, _ = tell("replay", "log", "--json")
    assert code == 0 and json.loads(out)["undecided"] == 150
