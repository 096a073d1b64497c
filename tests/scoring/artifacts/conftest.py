"""Pickles of the tests' own are harmless: most of them are opened here, without a process."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mlworkbench.scoring.artifacts import pickle_process


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the job of the process in this one."""

    def run(job: str, place: Path, seconds: float) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(job))
            pickle_process.convert_job()
        return "ended with code 0"

    monkeypatch.setattr(pickle_process, "_run", run)
