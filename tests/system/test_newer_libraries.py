"""Beside pandas 3, protobuf 7 and numpy 2, which people have and `constraints.txt` holds back for Evidently alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEWER = ("pandas>=3", "protobuf>=7", "numpy>=2")
TRUTH = ("operate/training/test_same_frame.py", "operate/training/test_anchor.py", "scoring", "contract")
TRUTH += ("operate/training/test_requirements.py", "operate/training/test_own_key.py", "features/test_row_functions.py")


@pytest.fixture(scope="module")
def newer(wheel: Path, install) -> Path:
    tools = ("pytest", "hypothesis", "imbalanced-learn", "palmerpenguins==0.1.6")
    return install(f"{wheel}[compile,boosters,runs]", *NEWER, *tools)


@pytest.mark.long
def test_nothing_in_the_core_conflicts_with_newer_libraries(newer: Path) -> None:
    check = subprocess.run([newer / "python", "-m", "pip", "check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    listed = subprocess.run([newer / "python", "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    found = {one["name"]: int(one["version"].partition(".")[0]) for one in json.loads(listed.stdout)}
    assert (found["pandas"], found["protobuf"], found["numpy"]) >= (3, 7, 2)


@pytest.mark.long
def test_the_tests_of_truth_hold_with_the_texts_of_pandas_3(newer: Path, tmp_path: Path) -> None:
    """The package is the wheel's: from here the tests alone are taken."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [newer / "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "-m", "not long", "--tb=short"]
    environment = {**os.environ, "HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml")}
    run = subprocess.run(
        [*command, *(f"tests/{one}" for one in TRUTH)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert "[100%]" in run.stdout
