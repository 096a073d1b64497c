"""Runs that no runner watches: papermill's own program, a page in Jupyter, `mlworkbench train`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlworkbench.errors import RunError
from mlworkbench.operate.running.cells import RUNNER, begin_run, command_run, finish_run, notebook_name, record_run
from mlworkbench.operate.running.runner import list_runs

ROOT = Path(__file__).parents[3]
PAPERMILL = Path(sys.executable).with_name("papermill")
MODULE = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from mlworkbench.scoring.definition import ModelDefinition


def rows():
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draws.normal(size=200), "z": draws.normal(size=200)})
    return frame.assign(y=(frame["x"] + 0.3 * draws.normal(size=200) > 0))


small = ModelDefinition("small", LogisticRegression(), rows, "y")
"""


def given(home, **values: object) -> dict[str, object]:
    return {"home": str(home.path), "model": "flights", "run_id": "", "__annotations__": {"rows": int}, **values}


def test_a_run_by_hand_gets_an_id_of_its_own_and_stands_in_the_list(home) -> None:
    run = begin_run(given(home), notebook="train")
    (row,) = list_runs(home)
    assert (row.run_id, row.notebook, row.state, row.pid) == (run.run_id, "train", "running", os.getpid())
    assert run.run_id.startswith("train-2")
    finish_run(run, {"verdict": "fail"})
    (row,) = list_runs(home)
    assert (row.state, row.verdict, row.ended >= row.started) == ("done", "fail", True)
    assert json.loads((run.folder / "result.json").read_text())["verdict"] == "fail"


def test_running_all_cells_again_is_another_run_and_the_unfinished_one_failed(home) -> None:
    first = begin_run(given(home), notebook="train")
    second = begin_run(given(home), notebook="train")
    states = {row.run_id: row.state for row in list_runs(home)}
    assert states == {first.run_id: "failed", second.run_id: "running"}


def test_a_page_that_is_run_again_by_hand_is_another_run_and_writes_nothing_over(home, capsys) -> None:
    run = begin_run(given(home, run_id="mine"), notebook="train")
    finish_run(run, {"verdict": "pass", "metrics": {"rows": 1}})
    again = begin_run(given(home, run_id="mine"), notebook="train")
    assert f"run mine is there already and stays as it is; this one is {again.run_id}" in capsys.readouterr().out
    finish_run(again, {"verdict": "fail"})
    assert {row.run_id: row.verdict for row in list_runs(home)} == {"mine": "pass", again.run_id: "fail"}
    assert json.loads((run.folder / "result.json").read_text())["metrics"] == {"rows": 1}
    assert again.reports.folder.parent == again.folder != run.folder


def test_reports_of_a_run_go_to_its_folder_and_where_settings_name_a_workspace(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[reports]\nworkspace = shown\n")
    run = begin_run(given(home, html="true", __annotations__={"html": bool}), also=("html",), notebook="evaluate")
    place = run.reports
    assert (place.folder, place.html, place.workspace) == (run.folder / "reports", True, tmp_path / "shown")
    assert place.about == {"run": run.run_id, "back": f"mlworkbench runs show {run.run_id} --model flights"}


def test_a_run_that_a_runner_keeps_is_left_to_it(home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNNER, "flights/mine")
    assert begin_run(given(home, run_id="mine")).record is None
    assert list_runs(home) == []
    assert begin_run(given(home, run_id="other")).record is not None


def test_a_bare_date_in_the_first_cell_is_midnight_utc_and_said_in_one_line(home, capsys) -> None:
    run = begin_run(given(home, start="2013-10-01", end="2013-10-02T00:00:00Z"))
    assert (run.start, run.end) == ("2013-10-01T00:00:00+00:00", "2013-10-02T00:00:00Z")
    assert capsys.readouterr().out == "a bare date is midnight UTC: start 2013-10-01T00:00:00+00:00\n"
    known = begin_run(given(home, run_id="b", known_at="2013-10-05"), also=("rows", "known_at"))
    assert known.values["known_at"] == "2013-10-05T00:00:00+00:00"
    assert "known_at 2013-10-05T00:00:00+00:00" in capsys.readouterr().out


def test_a_run_gives_its_steps_what_they_are_asked_for(home) -> None:
    run = begin_run(given(home, start="2013-10-01", rows=0, to="delta:x"), also=("rows", "to"))
    job = (run.job.start, run.job.end, run.job.run_id, run.job.to)
    assert job == ("2013-10-01T00:00:00+00:00", "", run.run_id, "delta:x")
    assert run.interval == (1_380_585_600_000_000, None) and run.rows is None


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"rows": "abc"}, "parameter 'rows' is 'abc', not an integer; write it such as 200"),
        ({"rows": 2.5}, "parameter 'rows' is 2.5, not an integer; write it such as 200"),
        ({"rows": None}, "parameter 'rows' is None, not an integer; write it such as 200"),
        ({"version": 7}, "parameter 'version' is 7, not a text; quote it, empty where not given"),
        ({"rosw": 5}, "unknown parameter 'rosw' of this notebook; did you mean 'rows'?"),
    ],
)
def test_a_wrong_parameter_in_the_first_cell_is_one_line_and_no_run(home, wrong, line) -> None:
    with pytest.raises(RunError) as refusal:
        begin_run(given(home, **wrong), also=("rows",))
    assert str(refusal.value) == line
    assert refusal.value._render_traceback_() == [f"RunError: {line}"]
    assert list_runs(home) == []


def test_text_from_a_shell_is_read_as_the_declared_type(home) -> None:
    assert begin_run(given(home, rows="200"), also=("rows",)).values == {"rows": 200}


def test_a_command_that_raises_is_a_failed_run(home) -> None:
    with pytest.raises(KeyError), command_run("flights", "train", home=home):
        raise KeyError("carrier")
    with pytest.raises(KeyboardInterrupt), record_run("flights", "x", "train", home=home):
        raise KeyboardInterrupt
    with command_run("flights", "train", home=home) as run:
        finish_run(run, {"verdict": "undecided"})
    told = [(row.state, row.verdict, row.error) for row in list_runs(home)]
    assert sorted(told) == [
        ("done", "undecided", ""),
        ("failed", "", "KeyError: 'carrier'"),
        ("failed", "", "KeyboardInterrupt"),
    ]


@pytest.mark.parametrize(
    ("told", "session", "name"),
    [("train", "", "train"), ("", "runs/my page.ipynb", "my-page"), ("", "", "notebook"), ("", "..", "notebook")],
)
def test_the_name_of_the_notebook_is_given_or_jupyters(monkeypatch, told, session, name) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", session)
    assert notebook_name(told) == name


def papermill(folder: Path, notebook: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [PAPERMILL, "--no-progress-bar", ROOT / "nbs" / "runs" / f"{notebook}.ipynb", "out.ipynb", *words]
    environment = {name: value for name, value in os.environ.items() if name != "MLWORKBENCH_HOME"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.system
def test_papermills_own_program_runs_every_run_notebook(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[models]\nsmall = own_model:small\n")
    (tmp_path / "own_model.py").write_text(MODULE)
    for notebook in ("train", "batch_score", "evaluate", "retrain"):
        run = papermill(tmp_path, notebook, "-p", "model", "small")
        assert run.returncode == 0, run.stderr[-2000:]
    rows = list_runs(home)
    assert [(row.notebook, row.model, row.state) for row in rows] == [
        (notebook, "small", "done") for notebook in ("retrain", "evaluate", "batch_score", "train")
    ]
    assert len({row.run_id for row in rows}) == 4
    assert all((home.runs("small") / row.run_id / "result.json").is_file() for row in rows)


@pytest.mark.system
def test_papermills_own_program_refuses_a_wrong_type_in_one_line(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[models]\nsmall = own_model:small\n")
    (tmp_path / "own_model.py").write_text(MODULE)
    run = papermill(tmp_path, "train", "-p", "model", "small", "-p", "rows", "abc")
    assert run.returncode != 0
    shown = run.stderr[run.stderr.index("Exception encountered") :].strip().splitlines()
    assert shown[1:] == ["RunError: parameter 'rows' is 'abc', not an integer; write it such as 200"]
    assert list_runs(home) == []
