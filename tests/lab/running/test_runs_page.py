"""The page of runs: the notebook in its frame, the form, a run that goes on while the page answers."""

from __future__ import annotations

import html
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import RunError, WorkbenchError

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install 'mlworkbench[lab]'")
pytest.importorskip("papermill", reason="papermill is not installed: pip install 'mlworkbench[runs]'")
from mlworkbench.lab import open_runs
from mlworkbench.lab.running.again import BackgroundRun, read_progress, read_questions
from mlworkbench.lab.running.executed import render_frame, render_notebook
from mlworkbench.lab.running.widgets import ANY
from mlworkbench.operate.running.table import RunRow, RunTable

PARAMETERS = 'home = ""\nmodel = ""\nrun_id = ""\nstart = ""\nend = ""\nversion = ""\n'
PARAMETERS += 'rows: int = 3\nshare: float = 0.5\nlate: bool = False\nnames = ["a"]'
WORK = "from mlworkbench import begin_run, finish_run\n\n"
WORK += "run = begin_run(globals(), notebook='count', also=['rows', 'share', 'late', 'names'])\n"
WORK += "finish_run(run, {'verdict': 'pass' if rows > 3 else 'fail', 'metrics': {}})"


def write_notebook(path: Path, *sources: str) -> None:
    cells = [
        {"cell_type": "code", "id": f"c{k}", "metadata": {}, "outputs": [], "source": source, "execution_count": None}
        for k, source in enumerate(sources)
    ]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A workbench with a run notebook of its own, and one failed run of it."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLWORKBENCH_HOME", "MLWORKBENCH_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = state\n[models]\ncars = definition:cars\n")
    write_notebook(tmp_path / "runs/count.ipynb", PARAMETERS, WORK)
    made = Home.open()
    times = {"started": "2013-11-01T08:00:00+00:00", "ended": "2013-11-01T08:00:01+00:00"}
    RunTable(made).write(RunRow("count-1", "cars", "count", "failed", error="no rows", **times))
    folder = made.runs("cars") / "count-1"
    write_notebook(folder / "count.ipynb", PARAMETERS, "1 / 0")
    found = json.loads((folder / "count.ipynb").read_text())
    found["metadata"]["papermill"] = {"parameters": {"rows": 7, "names": ["x", "y"], "start": "2013-10-01"}}
    (folder / "count.ipynb").write_text(json.dumps(found))
    return made


def read(box: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", box.value)).split())


def test_the_form_asks_each_parameter_in_the_way_of_its_type_and_is_filled_from_the_run(home: Home) -> None:
    page = open_runs()
    assert page.form.notebook.value == "count"
    kinds = {name: type(entry).__name__ for name, entry in page.form.inputs.items()}
    assert kinds == {
        "model": "Text", "start": "Text", "end": "Text", "version": "Text",
        "rows": "IntText", "share": "FloatText", "late": "Checkbox", "names": "Text",
    }  # fmt: skip
    values = {name: entry.value for name, entry in page.form.inputs.items()}
    assert values["rows"] == 7 and values["names"] == '["x", "y"]' and values["share"] == 0.5
    assert values["model"] == "cars" and values["start"] == "2013-10-01"


def test_the_executed_notebook_stands_in_a_frame_that_may_do_nothing(home: Home) -> None:
    page = open_runs()
    frame = page.notebook.children[0].value
    assert frame.startswith("<iframe sandbox title=") and frame.count("<") == 2
    assert "1 / 0" in " ".join(re.sub(r"<[^>]*>", "", html.unescape(frame)).split())
    assert "Content-Security-Policy" in frame


def test_a_script_in_an_output_stays_text_of_the_frame(tmp_path: Path) -> None:
    write_notebook(tmp_path / "count.ipynb", "1")
    found = json.loads((tmp_path / "count.ipynb").read_text())
    found["cells"][0]["outputs"] = [
        {"output_type": "display_data", "metadata": {}, "data": {"text/html": "</iframe><script>alert(1)</script>"}}
    ]
    (tmp_path / "count.ipynb").write_text(json.dumps(found))
    page = render_notebook(tmp_path / "count.ipynb")
    assert page.index("Content-Security-Policy") < page.index("<script") and "alert(1)" in page
    frame = str(render_frame(page, 'a "title"'))
    assert "<script" not in frame and frame.count("</iframe>") == 1


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_notebook_that_is_gone_or_none_is_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "count.ipynb").write_text(text)
    with pytest.raises(RunError) as refused:
        render_notebook(tmp_path / "count.ipynb")
    assert refused.value.code == "run.notebook_unreadable" and "\n" not in str(refused.value)


def test_menus_narrow_the_history_and_another_choice_shows_another_notebook(home: Home) -> None:
    RunTable(home).write(
        RunRow("train-1", "cars", "train", "done", verdict="pass", started="2013-11-02T08:00:00+00:00")
    )
    page = open_runs()
    assert [value for _, value in page.runs.options] == ["train-1", "count-1"]
    assert "cannot show train.ipynb of run train-1: it is gone" in read(page.notebook.children[0])
    assert page.outcomes.options == (ANY, "failed", "pass")
    page.outcomes.value = "failed"
    assert [value for _, value in page.runs.options] == ["count-1"]
    assert page.notebook.children[0].value.startswith("<iframe sandbox")
    page.notebooks.value = "train"
    assert "No run yet" in read(page.history.children[0])
    page.outcomes.value = ANY
    assert page.runs.value == "train-1"


def test_what_the_runner_refuses_stands_under_the_form_in_one_line(home: Home) -> None:
    page = open_runs()
    page.form.inputs["start"].value, page.form.inputs["end"].value = "2013-10-02", "2013-10-01"
    page.form.start()
    assert page.form.run is not None and page.form.run.wait(60)
    until = time.monotonic() + 30
    while page.form.button.disabled and time.monotonic() < until:
        time.sleep(0.05)
    assert "parameter 'end' is 2013-10-01, not after start 2013-10-02" in read(page.form.line)
    assert not page.form.button.disabled
    assert [value for _, value in page.runs.options] == ["count-1"]


def test_a_secret_and_an_unknown_notebook_are_refused_and_nothing_is_written(home: Home) -> None:
    refused = BackgroundRun("count", {"password": "x"}, home=home)
    assert refused.wait(60) and "parameter 'password' is a secret" in refused.error and refused.result is None
    assert len(RunTable(home).rows()) == 1
    with pytest.raises(WorkbenchError, match="unknown run notebook 'cuont'; did you mean"):
        read_questions("cuont")


@pytest.mark.system
def test_a_run_goes_on_while_the_page_answers_and_is_chosen_when_it_ended(home: Home) -> None:
    page = open_runs()
    page.form.start()
    assert page.form.button.disabled and page.form.run is not None
    page.look()  # the page answers meanwhile
    assert page.runs.value == "count-1" and not page.form.run.wait(0)
    assert page.form.run.wait(120), "the run did not end in two minutes"
    until = time.monotonic() + 30
    while page.form.button.disabled or page.runs.value == "count-1":
        assert time.monotonic() < until, page.form.line.value
        time.sleep(0.1)
    assert read(page.form.line) == f"{page.form.run.run_id}: pass"
    assert page.runs.value == page.form.run.run_id
    assert page.form.run.progress == read_progress(home.runs("cars") / page.runs.value / "count.ipynb")
    assert page.form.run.progress.begun == page.form.run.progress.cells == 3
    (one,) = (one for one in page._found.values() if one.row.run_id == page.runs.value)
    assert one.parameters == {"rows": 7, "names": ["x", "y"], "start": "2013-10-01T00:00:00+00:00"}
