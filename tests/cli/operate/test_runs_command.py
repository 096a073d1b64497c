"""`mlworkbench runs`: any run notebook is started by its name, and a run is forgotten with its folder."""

from pathlib import Path

import pytest


@pytest.mark.system
def test_a_notebook_is_started_with_its_own_parameters_shown_and_removed(workbench, facts, tell):
    first = facts("train")
    run = facts("runs", "start", "retrain", "rows=60", "--version", first["version"])
    assert run["model"] == "cars" and run["verdict"] == "pass"
    shown = facts("runs", "show", run["run_id"], "--model", "cars")
    assert (shown["notebook"], shown["state"]) == ("retrain", "done") and Path(shown["folder"]).is_dir()
    assert facts("runs", "remove", run["run_id"]) == {"removed": run["run_id"]}
    assert not Path(shown["folder"]).exists()
    assert [row["notebook"] for row in facts("runs", "list")["runs"]] == ["train"]
    code, _, err = tell("runs", "remove", run["run_id"])
    assert code == 2 and "in this home" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["start"], "NOTEBOOK"),
        (["start", "evaluat"], "did you mean 'evaluate'?"),
        (["start", "retrain", "rows"], "parameter 'rows' has no value"),
        (["start", "retrain", "rows=many"], "parameter 'rows'"),
        (["start", "retrain", "token=hunter2"], "token' is a secret"),
        (["start", "retrain", "--model", "carz"], "did you mean 'cars'?"),
        (["start", "retrain", "--last", "soon"], "--last: 'soon' is no span of time"),
        (["show", "nothing"], "in this home"),
        (["remove", "nothing"], "in this home"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_starts_nothing(workbench, tell, words, said):
    code, out, err = tell("runs", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err and "hunter2" not in err
    assert not list(workbench.glob(".workbench/cars/runs/*"))
