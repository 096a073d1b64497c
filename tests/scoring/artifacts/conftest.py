"""Pickles of the tests' own are harmless: most of them are opened here, without a process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from mlworkbench.core.types import FactDict, Facts
from mlworkbench.scoring.artifacts import pickle_process


@pytest.fixture
def harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the job of the process in this one."""

    def run(code: str, job: Facts, *, seconds: float) -> FactDict:
        told = tmp_path / "told.json"
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(json.dumps({**job, "told": str(told)})))
            pickle_process.convert_job()
        return dict(json.loads(told.read_text()))

    monkeypatch.setattr(pickle_process, "run_isolated", run)
