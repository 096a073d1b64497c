"""A command that ends early ends by its own word: no thread of a reader outlives Python (long: many processes)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import mlworkbench

pytestmark = [pytest.mark.system, pytest.mark.long]
RUNS = 100
WORDS = {
    "score": ["score", "short.csv", "--model", "cars"],
    "label": ["label", "short.csv", "--model", "cars"],
    "register": ["register", "short.csv", "--name", "other", "--data", "short.csv", "--label", "price"],
}


@pytest.mark.parametrize("command", WORDS)
def test_an_error_is_an_exit_code_never_an_abort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.chdir(tmp_path)
    Path("settings.ini").write_text("[workbench]\nhome = state\n")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(3000, 2)), columns=["weight", "power"])
    mlworkbench.register(LogisticRegression().fit(rows, rows.power > 0), rows, rows.power > 0, name="cars")
    rows.drop(columns="power").to_csv("short.csv", index=False)
    run = [str(Path(sys.executable).with_name("mlworkbench")), *WORDS[command]]
    ended = [subprocess.run(run, capture_output=True, text=True, env={**os.environ}) for _ in range(RUNS)]
    assert {one.returncode for one in ended} == {2}, next(one.stderr for one in ended if one.returncode != 2)
