"""README.md is true: its Python runs, and it is what the index notebook gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_python_of_the_readme_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks, "README.md shows no Python"
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    run = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_readme_is_what_the_index_notebook_gives() -> None:
    check = subprocess.run([sys.executable, ROOT / ".ci/readme.py", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr
