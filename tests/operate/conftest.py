"""Notebooks and homes for tests of runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.core.home import Home

PARAMETERS = 'home = ""\nmodel = ""\nrun_id = ""\nstart = ""\nend = ""\nversion = ""\nrows: int = 3'
BEGIN = "from mlworkbench.operate.running.cells import begin_run, finish_run\n\n"
BEGIN += 'run = begin_run(globals(), also=("rows",))'
FINISH = 'finish_run(run, {"verdict": "pass", "metrics": {"rows": rows}})'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    opened = Home.open(tmp_path / "home")
    monkeypatch.setenv("MLWORKBENCH_HOME", str(opened.path))
    return opened


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Home, Callable[[], None]], None]:
    """Fill a home and its model store as the first test that asked for it by this name did; others get a copy."""
    made: dict[str, Path] = {}

    def fill(name: str, home: Home, make: Callable[[], None]) -> None:
        if name not in made:
            make()
            made[name] = tmp_path_factory.mktemp(name)
            for part in ("home", "bentoml"):
                shutil.copytree(home.path.parent / part, made[name] / part)
        else:
            shutil.copytree(made[name], home.path.parent, dirs_exist_ok=True)

    return fill


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *cells: str) -> Path:
        first = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=[first, new_code_cell(BEGIN), *map(new_code_cell, cells)]), path)
        return path

    return write


@pytest.fixture
def finish() -> str:
    return FINISH
