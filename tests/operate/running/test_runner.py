"""Runs of notebooks with real kernels: checked before, bounded during, recorded after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mlworkbench.errors import RunError
from mlworkbench.operate.running.cells import begin_run
from mlworkbench.operate.running.runner import list_runs, run_notebook
from mlworkbench.operate.running.table import RunRow, RunTable, hold_run, run_lives

SLEEP = "import os, pathlib, time\npathlib.Path(run.folder / 'kernel').write_text(str(os.getpid()))\ntime.sleep(60)"


def kernel_of(folder: Path) -> int:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (folder / "kernel").exists() and (text := (folder / "kernel").read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError("the kernel did not start")


def gone(pid: int, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.system
def test_a_run_that_ends_well_leaves_result_output_and_row(home, page, finish) -> None:
    done = run_notebook(page("sums", finish), {"model": "flights", "run_id": "first", "rows": "7"}, home=home)
    assert (done.state, done.verdict, done.error) == ("done", "pass", "")
    assert done.result == {"verdict": "pass", "metrics": {"rows": 7}, "reports": {}}
    assert done.result_path == home.runs("flights") / "first" / "result.json"
    assert done.output == home.runs("flights") / "first" / "sums.ipynb"
    assert json.loads(done.output.read_text())["cells"][1]["metadata"]["tags"] == ["injected-parameters"]
    (row,) = list_runs(home)
    assert (row.run_id, row.model, row.notebook, row.state, row.verdict) == ("first", "flights", "sums", "done", "pass")
    assert row.pid > 0
    assert row.started <= row.ended


@pytest.mark.system
def test_an_exception_in_a_cell_is_a_failed_run_that_names_cell_and_error(home, page, finish) -> None:
    path = page("broken", "table = {}", "# take one\ntable['carrier']", finish)
    failed = run_notebook(path, {"model": "flights"}, home=home)
    assert failed.state == "failed"
    assert failed.error == "code cell 4 (table['carrier']): KeyError: 'carrier'"
    assert not failed.result_path.exists()
    assert [(row.state, row.error) for row in list_runs(home)] == [("failed", failed.error)]


@pytest.mark.system
def test_a_kernel_killed_by_kill_9_is_a_failed_run(home, page, finish) -> None:
    path = page("killed", SLEEP, finish)

    def kill() -> None:
        os.kill(kernel_of(home.runs("flights") / "k"), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failed = run_notebook(path, {"model": "flights", "run_id": "k"}, home=home)
    killer.join()
    assert failed.state == "failed"
    assert "code cell 3 (import os, pathlib, time): the kernel died" in failed.error
    assert list_runs(home)[0].state == "failed"


@pytest.mark.system
def test_a_run_past_its_limit_is_stopped_with_its_kernel(home, page, finish) -> None:
    path = page("slow", SLEEP, finish)
    for limit in (8, 45):  # a busy machine may not have started the kernel after 8 s
        failed = run_notebook(path, {"model": "flights", "run_id": f"s{limit}"}, home=home, seconds=limit)
        assert failed.state == "failed"
        assert f"passed the limit of {limit} s" in failed.error
        if "before the first cell" not in failed.error:
            break
    assert "code cell 3" in failed.error
    assert gone(kernel_of(home.runs("flights") / f"s{limit}"), seconds=2)


@pytest.mark.system
def test_a_runner_killed_by_kill_9_takes_worker_and_kernel_along(home, page, finish) -> None:
    path = page("orphan", SLEEP, finish)
    code = (
        "import sys; from mlworkbench.core.home import Home; "
        "from mlworkbench.operate.running.runner import run_notebook; "
        f"run_notebook({str(path)!r}, {{'model': 'flights', 'run_id': 'o'}}, home=Home.open({str(home.path)!r}))"
    )
    runner = subprocess.Popen([sys.executable, "-c", code])
    kernel = kernel_of(home.runs("flights") / "o")
    (row,) = list_runs(home)
    assert row.state == "running"
    with pytest.raises(RunError) as raised:
        run_notebook(path, {"model": "flights", "run_id": "o"}, home=home)
    assert raised.value.code == "run.busy"
    runner.kill()
    runner.wait()
    assert gone(kernel)
    assert gone(row.pid)
    (row,) = list_runs(home)
    assert (row.state, row.error) == ("failed", "its process is gone (killed, or the machine stopped)")


@pytest.mark.system
def test_a_notebook_that_forgets_its_result_is_a_failed_run_and_a_stale_result_is_gone(home, page, finish) -> None:
    good = run_notebook(page("sums", finish), {"model": "flights", "run_id": "a"}, home=home)
    assert good.result_path.exists()
    again = run_notebook(page("sums", "1 + 1"), {"model": "flights", "run_id": "a"}, home=home)
    assert again.state == "failed"
    assert "without finish_run" in again.error
    assert not again.result_path.exists()
    assert len(list_runs(home)) == 1


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"modle": "x"}, "run.parameter_unknown", "did you mean 'model'"),
        ({"model": "flights", "rows": "abc"}, "run.parameter_type", "'rows' is 'abc', not an integer"),
        ({"model": "flights", "run_id": "../x"}, "run.parameter_value", "run_id"),
        ({"model": "flights", "start": "2013-10-01T00:00:00"}, "run.parameter_time", "offset"),
        ({"model": "flights", "home": "/elsewhere"}, "run.parameter_value", "'home'"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(home, page, finish, given, code, words) -> None:
    path = page("sums", finish)
    before = sorted(home.path.rglob("*"))
    with pytest.raises(RunError, match=words) as raised:
        run_notebook(path, given, home=home)
    assert raised.value.code == code
    assert sorted(home.path.rglob("*")) == before


def test_the_first_cell_refuses_what_the_runner_refuses(home) -> None:
    good = {"home": str(home.path), "model": "flights", "run_id": "a", "start": "", "end": "", "version": ""}
    run = begin_run({**good, "In": ["1"], "_": 3, "json": json, "rows": 4}, also=("rows",))
    assert (run.model, run.run_id, run.start_us, run.version, run.values) == ("flights", "a", None, None, {"rows": 4})
    assert run.folder.is_dir()
    for wrong, code, words in [
        ({"modle": "x"}, "run.parameter_unknown", "did you mean 'model'"),
        ({"run_id": "a/b"}, "run.parameter_value", "run_id"),
        ({"version": 7}, "run.parameter_type", "'version' is 7"),
        ({"start": "2013-10-02T00:00:00Z", "end": "2013-10-01T00:00:00Z"}, "run.interval_empty", "after start"),
    ]:
        with pytest.raises(RunError, match=words) as raised:
            begin_run({**good, **wrong})
        assert raised.value.code == code


def test_the_table_keeps_runs_apart_by_model_and_finds_them_by_id(home) -> None:
    table = RunTable(home)
    assert table.rows() == []
    table.write(RunRow("a", "flights", "train", state="done", started="2013-01-01T00:00:00+00:00"))
    table.write(RunRow("a", "penguins", "train", state="done", started="2013-01-02T00:00:00+00:00"))
    table.write(RunRow("b", "penguins", "train", state="failed", started="2013-01-03T00:00:00+00:00", error="why"))
    assert [row.run_id for row in table.rows("penguins")] == ["b", "a"]
    assert table.get("a", model="flights").model == "flights"
    with pytest.raises(RunError) as raised:
        table.get("a")
    assert raised.value.code == "run.ambiguous"
    with pytest.raises(RunError) as raised:
        table.get("c")
    assert raised.value.code == "run.unknown"
    table.remove("b")
    assert [row.model for row in table.rows()] == ["penguins", "flights"]


def test_a_living_run_is_not_removed_and_not_started_twice(home) -> None:
    with hold_run("flights", "a", home=home):
        RunTable(home).write(RunRow("a", "flights", "train"))
        assert RunTable(home).get("a").state == "running"
        for act in (lambda: RunTable(home).remove("a"), lambda: hold_run("flights", "a", home=home).__enter__()):
            with pytest.raises(RunError) as raised:
                act()
            assert raised.value.code == "run.busy"
    assert not run_lives("flights", "a", home=home)
    assert RunTable(home).get("a").state == "failed"
