"""Lines whose commands are small scripts in place of the workbench's, so that each exit and each kill can be had."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlworkbench.operate.running import command

SMALL = """
import json, os, sys, time, fcntl
from pathlib import Path
from mlworkbench.operate.running.command import begin_command
begin_command()
words, at = sys.argv[1:], os.environ["MLWORKBENCH_SCHEDULED_AT"]
journal = open(os.environ["JOURNAL"], "a")
def note(what):
    journal.write(json.dumps([what, words[0], at, os.getpid()]) + chr(10))
    journal.flush()
alone = open(os.environ["JOURNAL"] + ".alone", "w")
try:
    fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("not alone")
note("begin")
for word in words[1:]:
    verb, _, value = word.partition("=")
    if verb == "sleep":
        time.sleep(float(value))
    elif verb == "say":
        print(value, flush=True)
    elif verb == "kill":
        os.kill(os.getpid(), int(value))
    elif verb == "child":
        import subprocess
        child = subprocess.Popen(["sleep", value], start_new_session=True)
        note(f"child {child.pid}")
    elif verb == "until":  # exit 75 so many times
        tried = Path(os.environ["JOURNAL"] + ".tried")
        tried.write_text(tried.read_text() + "x" if tried.exists() else "x")
        if len(tried.read_text()) <= int(value):
            sys.exit(75)
    elif verb == "exit":
        note("end")
        print("error: it ended badly", file=sys.stderr)
        sys.exit(int(value))
note("end")
if "child" in globals():
    child.kill()
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list]]:
    """Let commands be words of `SMALL`; gives what they noted: ``[what, command, time, process]``."""
    journal = tmp_path / "journal"
    monkeypatch.setattr(command, "_PROGRAM", SMALL)
    monkeypatch.setenv("JOURNAL", str(journal))
    for name in [name for name in os.environ if name.startswith("MLWORKBENCH_SCHEDULE")]:
        monkeypatch.delenv(name)

    def noted() -> list[list]:
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    return noted
