"""A command in a process of its own ends with its runner, and two of one lock are never there at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from mlworkbench.operate.running import command
from mlworkbench.operate.running.command import Command, CommandEnd, run_command

RUNNER = """
import sys, threading
from pathlib import Path
from mlworkbench.operate.running import command
from mlworkbench.operate.running.command import Command, run_command
command._PROGRAM = sys.argv[2]
folder = Path(sys.argv[1])
place = {"folder": folder, "lock": folder / "lock", "seconds": 60.0, "environment": {}}
run_command(Command(words=("x",), **place), log=folder / "log", stop=threading.Event())
"""
CHILD = """
from mlworkbench.operate.running.command import begin_command
begin_command()
import os, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
Path("pids").write_text(f"{os.getpid()} {child.pid} ")
print(f"input: {sys.stdin.read()!r}", flush=True)
time.sleep(60 if sys.argv[1:] == ["x"] else 0)
child.kill()
"""


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_kill_9_of_the_runner_ends_the_command_with_its_family_and_the_next_one_waits_for_that(
    tmp_path: Path, monkeypatch
) -> None:
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path, CHILD])
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().endswith(" "):
        time.sleep(0.05)
    family = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(alive(pid) for pid in family)
    runner.kill()
    runner.wait()
    monkeypatch.setattr(command, "_PROGRAM", CHILD)
    place = {"folder": tmp_path, "lock": tmp_path / "lock", "seconds": 60.0, "environment": {}}
    ended = run_command(Command(words=("y",), **place), log=tmp_path / "log", stop=threading.Event())
    assert ended == CommandEnd(0, "input: ''")
    assert not any(alive(pid) for pid in family)


def test_a_command_whose_lock_stays_taken_may_be_tried_again(tmp_path: Path, monkeypatch) -> None:
    from mlworkbench.core.files import hold_lock

    quick = "from mlworkbench.operate.running import command; command._WAIT = 0.1; command.begin_command()"
    monkeypatch.setattr(command, "_PROGRAM", quick)
    place = {"folder": tmp_path, "lock": tmp_path / "lock", "seconds": 60.0, "environment": {}}
    with hold_lock(tmp_path / "lock"):
        ended = run_command(Command(words=("y",), **place), log=tmp_path / "log", stop=threading.Event())
    assert ended.code == 75
    assert "the command before this one did not end in 0.1 s" in ended.said


def test_a_log_that_cannot_be_written_costs_the_log_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(command, "_PROGRAM", "print('all is well')")
    place = {"folder": tmp_path, "lock": tmp_path / "lock", "seconds": 60.0, "environment": {}}
    ended = run_command(Command(words=("y",), **place), log=tmp_path / "none" / "log", stop=threading.Event())
    assert ended == CommandEnd(0, "all is well")
