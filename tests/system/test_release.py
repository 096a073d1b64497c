"""What a release needs lies ready: a wheel that an index takes, and workflows that are what their makers read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github/workflows"
TOOLS = ("twine==7.0.0", "readme-renderer[md]==46.0", "check-jsonschema==0.39.0", "zizmor==1.32.0")
CHECKS = {
    "schema": ("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
    "security": ("zizmor", "--offline", "--quiet"),
}
PLANTED = {
    "schema": ("runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
    "security": ("@ed0c53931b1dc9bd32cbe73a98c7f6766f8a527e", "@release/v1"),
}


@pytest.fixture(scope="module")
def tools(install) -> Path:
    return install(*TOOLS)


@pytest.mark.long
def test_an_index_would_take_the_wheel(wheel: Path, tools: Path) -> None:
    run = subprocess.run([tools / "twine", "check", "--strict", wheel], capture_output=True, text=True)
    assert run.returncode == 0 and "PASSED" in run.stdout, run.stdout + run.stderr


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS)
def test_the_workflows_are_well_made_and_a_planted_mistake_is_seen(check: str, tools: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".github/workflows"
    shutil.copytree(WORKFLOWS, folder)
    command = [tools / CHECKS[check][0], *CHECKS[check][1:]]
    run = subprocess.run([*command, *sorted(folder.glob("*.yml"))], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    release = folder / "release.yml"
    assert PLANTED[check][0] in release.read_text(encoding="utf-8")
    release.write_text(release.read_text(encoding="utf-8").replace(*PLANTED[check]), encoding="utf-8")
    assert subprocess.run([*command, release], capture_output=True).returncode != 0
