"""What is installed with the package: no bound that nothing demands, nothing imported that nobody named."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
PACKAGE = ROOT / "mlworkbench"
MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "_modidx.py" and "templates" not in path.parts
]
NAMED = {"yaml": "pyyaml", "sklearn": "scikit-learn", "adbc_driver_postgresql": "adbc-driver-postgresql"}
NAMED |= {"markdown_it": "markdown-it-py", "opentelemetry": "opentelemetry-exporter-otlp-proto-http"}
SPOKEN = {"pydantic": "bentoml", "starlette": "bentoml", "markupsafe": "jinja2"}  # parts of another's interface
OF_THEIR_EXTRA = {"lab": "lab", "examples": "examples"}  # folders that are opened with their extra alone


def bounded(requirement: Requirement) -> bool:
    return any(one.operator in ("<", "<=", "==", "~=", "===") for one in requirement.specifier)


def test_the_core_bounds_nothing_from_above() -> None:
    assert not [str(one) for one in CORE if bounded(one)]


def test_only_the_extra_of_the_reports_holds_pandas_back() -> None:
    holding = {extra for extra, found in EXTRAS.items() for one in found if one.name == "pandas" and bounded(one)}
    assert holding == {"reports"}
    assert not [str(one) for found in EXTRAS.values() for one in found if one.name in ("protobuf", "numpy")]


def imported(path: Path) -> dict[str, bool]:
    """Name the packages that a module imports, and whether it does so as it is imported itself."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), dict[str, bool]()
    at_once = {node for one in tree.body for node in ([one] if isinstance(one, ast.Import | ast.ImportFrom) else [])}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in (one.partition(".")[0] for one in names):
            if name not in sys.stdlib_module_names and name not in ("", "mlworkbench"):
                found[name] = found.get(name, False) or node in at_once
    return found


def test_what_is_imported_is_installed_with_the_package_or_named_by_an_extra() -> None:
    core, extras = {one.name for one in CORE}, {one.name for found in EXTRAS.values() for one in found}
    nowhere, at_start = [], []
    for path in MODULES:
        place = path.relative_to(PACKAGE)
        allowed = core | {one.name for one in EXTRAS.get(OF_THEIR_EXTRA.get(place.parts[0], ""), [])}
        for name, at_once in imported(path).items():
            package = NAMED.get(name, SPOKEN.get(name, name))
            nowhere += [f"{place}: {name}"] if package not in core | extras else []
            at_start += [f"{place}: {name}"] if at_once and package not in allowed else []
    assert not nowhere, "name it in pyproject.toml"
    assert not at_start, "import what an extra brings where it is needed, with a line that names the extra"


@pytest.mark.parametrize(("part", "whole"), SPOKEN.items())
def test_a_part_of_an_interface_comes_with_it(part: str, whole: str) -> None:
    assert part in {Requirement(line).name.lower() for line in requires(whole) or ()}


def test_every_action_of_a_workflow_is_pinned_to_a_commit_and_says_which_release_it_is() -> None:
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    used = [line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines() if "uses:" in line]
    assert len(used) >= 6
    assert not [line for line in used if not re.fullmatch(r"- uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+", line)]


def test_a_release_holds_no_secret_and_only_the_last_job_may_speak_for_the_project() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text and text.count("id-token: write") == 1
    assert text.index("id-token: write") > text.index("publish:") and "attestations: true" in text
