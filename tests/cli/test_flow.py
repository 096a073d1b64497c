"""The commands of a workbench of one's own, from train to rollback, with a small model."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def trained(workbench, facts):
    """A workbench whose model has a champion; that `train --promote` certifies is a test of its own."""
    version = facts("train")["version"]
    facts("models", "promote", version, "--why", "first", "--override", "a test")
    return workbench


@pytest.fixture
def rows(trained):
    """The model's rows as a file."""
    from sklearn.datasets import load_iris

    table = load_iris(as_frame=True).frame
    table = table.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    table.drop(columns="target").to_csv(trained / "rows.csv", index=False)
    return trained / "rows.csv"


def test_training_twice_gives_one_version(workbench, facts):
    first, second = facts("train"), facts("train")
    assert first["version"] == second["version"]
    assert (first["created"], second["created"]) == (True, False)
    assert first["gates"]["verdict"] == "pass"


def test_failed_gates_are_exit_code_one_and_the_version_is_kept(workbench, tell, facts):
    text = (workbench / "definition.py").read_text()
    (workbench / "definition.py").write_text(text.replace('(">=", 0.8)', '(">=", 1.1)'))
    code, out, err = tell("train", "--promote")
    assert code == 1 and "gates of cars:" in err and err.count("\n") == 1
    assert "gates: fail" in out
    (version,) = facts("models", "list")["versions"]
    assert version["verdict"] == "fail" and version["aliases"] == []


def test_an_error_in_the_data_function_names_file_and_line(workbench, tell):
    text = (workbench / "definition.py").read_text()
    (workbench / "definition.py").write_text(text.replace("rows = load_iris", "rows = 1 / 0 and load_iris"))
    code, _, err = tell("train")
    assert code == 2 and err.count("\n") == 1
    assert "definition.py, line" in err and "ZeroDivisionError" in err


def test_a_file_is_scored_and_written(rows, facts, tell):
    found = facts("score", rows)
    assert (found["scored"], found["rejected"]) == (150, 0)
    assert len(Path(found["out"]).read_text().splitlines()) == 151
    code, out, _ = tell("score", rows, "--out", "elsewhere.jsonl")
    assert code == 0 and "150 rows scored" in out
    assert len(Path("elsewhere.jsonl").read_text().splitlines()) == 150


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["score", "no_such.csv"], "no_such.csv"),
        (["score", "rows.csv", "--version", "cars:ffff0000"], "ffff0000"),
        (["score", "rows.csv", "--version", "champoin"], "champion"),
        (["score", "rows.csv", "--model", "carz"], "did you mean 'cars'?"),
        (["train", "--model", "carz"], "did you mean 'cars'?"),
        (["train", "--model", "no_module:cars"], "no_module"),
        (["models", "show", "cars:zzzz"], "zzzz"),
        (["models", "promote", "cars"], "MODEL:VERSION"),
        (["models", "rollback", "--model", "cars", "--why", "late"], "cars"),
        (["ingest", "--table", "weather"], "weather"),
        (["features", "get", "origin=JFK", "--view", "weather"], "weather"),
        (["runs", "show", "nothing"], "nothing"),
        (["label", "rows.csv"], "target"),
        (["register", "no.skops", "--name", "x", "--data", "rows.csv", "--label", "y"], "no.skops"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_exit_code_two(words, said, rows, tell):
    code, _, err = tell(*words)
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said in err


def test_a_missing_column_is_named_and_nothing_is_written(rows, tell):
    lines = [line.rsplit(",", 1)[0] for line in rows.read_text().splitlines()]
    Path("short.csv").write_text("\n".join(lines) + "\n")
    before = sorted(path.name for path in Path().iterdir())
    code, _, err = tell("score", "short.csv")
    assert code == 2 and "petal_width" in err and err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == before


def test_versions_are_listed_shown_promoted_and_rolled_back(trained, facts, tell):
    text = (trained / "definition.py").read_text()
    (trained / "definition.py").write_text(text.replace("max_iter=1_000", "max_iter=1_000, C=0.5"))
    sys.modules.pop("definition", None)
    first = facts("models", "list")["versions"][0]["tag"]
    second = facts("train")["version"]
    assert second != first
    code, _, err = tell("models", "promote", second, "--why", "smoother")
    assert code == 1 and f"run mlworkbench certify {second[:13]}" in err and err.count("\n") == 1
    assert facts("certify", second)["verdict"] == "equal"
    assert facts("models", "promote", second, "--why", "smoother")["version"] == second
    code, _, err = tell("models", "remove", second)
    assert code == 1 and "champion" in err
    code, _, err = tell("models", "rollback", "--why", "worse in the evening")
    assert code == 1 and "has a certificate" in err
    back = facts("models", "rollback", "--why", "worse in the evening", "--override", "it was fine before")
    assert back["version"] == first
    assert [entry["to"] for entry in facts("models", "history")["history"]].count(first) == 2
    assert facts("models", "remove", second)["removed"] == second
    assert [row["tag"] for row in facts("models", "list")["versions"]] == [first]
    shown = facts("models", "show", "cars")
    assert shown["declaration"]["classes"] == [0, 1, 2] and "## What it goes by" in shown["card"]
    assert shown["reasons"]["importance"]["columns"][0]["mean"] > 0
    code, out, _ = tell("models", "list")
    assert code == 0 and "champion" in out and first[:13] in out


def test_a_fitted_pipeline_is_registered_and_scores_at_once(rows, facts, trained):
    import pandas as pd
    import skops.io
    from sklearn.linear_model import LinearRegression

    table = pd.read_csv(rows)
    pipeline = LinearRegression().fit(table.drop(columns="petal_width"), table["petal_width"])
    skops.io.dump(pipeline, trained / "width.skops")
    made = facts("register", "width.skops", "--name", "width", "--data", "rows.csv", "--label", "petal_width")
    assert made["version"].startswith("width:")
    assert facts("score", "rows.csv", "--model", "width", "--out", "widths.csv")["scored"] == 150


def test_rows_of_a_database_are_scored_and_registered_by_a_query(rows, facts, tell, trained, monkeypatch):
    import sqlite3

    import pandas as pd
    import skops.io
    from sklearn.linear_model import LinearRegression

    table = pd.read_csv(rows)
    with sqlite3.connect("shop.db") as shop:
        table.to_sql("flowers", shop, index=False)
    shop.close()
    asked = ("sqlite:///shop.db", "--query", "SELECT * FROM flowers")
    by_query, by_file = facts("score", *asked, "--out", "query.csv"), facts("score", rows, "--out", "file.csv")
    assert by_query["scored"] == by_file["scored"] == 150
    scores = [pd.read_csv(name).filter(like="score") for name in ("query.csv", "file.csv")]
    pd.testing.assert_frame_equal(*scores)
    code, _, err = tell("score", *asked)
    assert code == 2 and "--out" in err and err.count("\n") == 1
    code, _, err = tell("score", "sqlite:///shop.db", "--out", "x.csv")
    assert code == 2 and "--query" in err and err.count("\n") == 1
    words = ("--query", "SELECT 1", "--out", "x.csv")
    code, _, err = tell("score", "postgresql://ada:opensesame@db/shop", *words)
    assert code == 2 and "opensesame" not in err and err.count("\n") == 1
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    code, _, err = tell("score", "postgresql://ada:${SHOP_PASSWORD}@db/shop", *words)
    assert code == 2 and "variable SHOP_PASSWORD is not set" in err

    pipeline = LinearRegression().fit(table.drop(columns="petal_width"), table["petal_width"])
    skops.io.dump(pipeline, trained / "width.skops")
    data = ("--data", "sqlite:///shop.db", "--query", "SELECT * FROM flowers", "--label", "petal_width")
    assert facts("register", "width.skops", "--name", "width", *data)["version"].startswith("width:")


def test_labels_by_prediction_id_are_added_once(rows, facts):
    scored = facts("score", rows, "--out", "out.csv")
    lines = Path(scored["out"]).read_text().splitlines()
    place = lines[0].split(",").index("prediction_id")
    labels = ["prediction_id,target,available_at"]
    labels += [f"{line.split(',')[place]},0,2026-01-01T00:00:00+00:00" for line in lines[1:11]]
    Path("labels.csv").write_text("\n".join(labels) + "\n")
    told = {"model": "cars", "read": 10, "unpredicted": 0, "held": 0, "held_from": ""}
    assert facts("label", "labels.csv") == {**told, "new": 10, "known": 0}
    assert facts("label", "labels.csv") == {**told, "new": 0, "known": 10}


def test_a_batch_is_a_run_that_is_listed_and_shown(trained, facts, tell):
    (before,) = facts("runs", "list")["runs"]
    assert (before["notebook"], before["state"]) == ("train", "done")
    found = facts("batch")
    assert found["verdict"] == "pass" and found["metrics"]["scored"] == 150
    row = facts("runs", "list")["runs"][0]
    assert (row["run_id"], row["state"]) == (found["run_id"], "done")
    code, out, _ = tell("runs", "show", found["run_id"])
    assert code == 0 and "notebook: batch_score" in out
    code, _, err = tell("batch", "--start", "2013-10-01T00:00:00")
    assert code == 2 and "start" in err and err.count("\n") == 1


def test_evaluation_holds_predictions_against_labels(rows, facts, tell):
    from sklearn.datasets import load_iris

    scored = facts("score", rows, "--out", "out.csv")
    lines = Path(scored["out"]).read_text().splitlines()
    place = lines[0].split(",").index("prediction_id")
    named = zip((line.split(",")[place] for line in lines[1:]), load_iris().target, strict=True)
    labels = [f"{name},{value},2026-01-01T00:00:00+00:00" for name, value in named]
    Path("labels.csv").write_text("\n".join(["prediction_id,target,available_at", *labels]) + "\n")
    assert facts("label", "labels.csv")["new"] == 150
    found = facts("evaluate")
    assert found["metrics"]["one_off"]["accuracy"]["value"] > 0.9
    assert found["reports"] and all(Path(path).exists() for path in found["reports"].values())


def test_a_model_without_tables_and_views_says_so(trained, tell):
    assert "no tables" in tell("ingest")[1]
    assert "no views" in tell("features", "show")[1]


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_port_in_use_is_refused_before_anything_starts(trained, tell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        code, _, err = tell("serve", "--port", port)
    assert code == 2 and f"port {port}" in err and err.count("\n") == 1


def test_the_service_answers_until_it_is_interrupted(trained):
    from mlworkbench.client import Client

    port = free()
    start = "from mlworkbench.cli.app import main; main()"
    command = [sys.executable, "-c", start, "serve", "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = json.loads(process.stdout.readline())
            assert (said["reason"], said["follows"]) == ("champion", "champion")
            with Client(said["url"]) as client:
                record = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
                (found,) = client.score(record)
            assert found["decision"] == 0
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
            assert process.stderr.read() == "stopped\n"
        finally:
            process.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    pytest.fail("somebody still listens")
