"""A process apart knows no secret, finds the same modules, and ends in time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mlworkbench.core.isolation import run_isolated

READ = "import json, os, sys; job = json.load(sys.stdin); "


def test_it_sees_neither_keys_nor_home_and_finds_the_modules_that_are_found_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLWORKBENCH_TOKEN", "opensesame")
    told = run_isolated(
        READ + "import beside; json.dump({'word': beside.WORD, **os.environ}, open(job['told'], 'w'))", {}, seconds=60
    )
    assert told["word"] == "found" and "opensesame" not in told.values()
    assert told["HOME"] == told["TMPDIR"] and not Path(told["HOME"]).exists()


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("pass", "ended with code 0: nothing"),
        (READ + "open(job['told'], 'w').write('[1')", "ended with code 0: nothing"),
        (READ + "open(job['told'], 'w').write('7')", "ended with code 0: nothing"),
        (READ + "open(job['told'], 'w').write('[' * 200_000)", "ended with code 0: nothing"),
        (READ + "os.mkfifo(job['told'])", "ended with code 0: nothing"),
        (READ + "os.mkdir(job['told'])", "ended with code 0: nothing"),
        (READ + "os.symlink('/dev/zero', job['told'])", "ended with code 0: nothing"),
        (READ + "open(job['told'], 'w').truncate(1 << 40)", "ended with code 0: nothing"),
        ("import sys; sys.stderr.seek(1 << 40); sys.stderr.write(chr(10) + 'no luck')", "ended with code 0: no luck"),
        ("raise ValueError('no luck')", "ended with code 1: ValueError: no luck"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with code -9: nothing"),
    ],
)
def test_a_process_without_an_answer_says_how_it_ended(code: str, ended: str) -> None:
    assert run_isolated(code, {}, seconds=60) == {"ended": ended}


def test_a_large_job_comes_whole_and_one_that_nobody_reads_does_no_harm() -> None:
    rows = ["x" * 1000] * 2000
    assert run_isolated(
        READ + "json.dump({'n': len(job['rows'])}, open(job['told'], 'w'))", {"rows": rows}, seconds=60
    ) == {"n": 2000}
    assert run_isolated("pass", {"rows": rows}, seconds=60)["ended"].startswith("ended with code 0")


def test_what_fills_the_pipes_of_others_does_not_hold_it_up() -> None:
    began = time.monotonic()
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    assert run_isolated(child, {}, seconds=60) == {"ended": "ended with code 0: nothing"}
    assert time.monotonic() - began < 30
