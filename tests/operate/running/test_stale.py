"""Notebooks that are not what runs are told by what they hold."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlworkbench.core.settings import Settings, extend_import_path
from mlworkbench.operate.running.stale import list_out_of_order, list_stale_notebooks, list_unexported

ROOT = Path(__file__).parents[3]
DEFINITION = (
    ["#| default_exp definition"],
    ["#| export\nimport json\nanswer = 42\n\ndef say() -> str:\n    return 'yes'"],
)


def write_notebook(path: Path, cells: list[list[str]], counts: list[int | None] | None = None) -> None:
    numbers = counts or [None] * len(cells)
    written = [
        {"cell_type": "code", "id": f"c{k}", "metadata": {}, "outputs": [], "source": source, "execution_count": count}
        for k, (source, count) in enumerate(zip(cells, numbers, strict=True))
    ]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": written, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A workbench whose definition was exported by nbdev itself."""
    nbdev = pytest.importorskip("nbdev.export", reason="nbdev is not installed: pip install 'mlworkbench[dev]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "cars"\n[tool.nbdev]\nnbs_path = "nbs"\nlib_path = "."\n'
    )
    write_notebook(tmp_path / "nbs/definition.ipynb", [*DEFINITION])
    nbdev.nb_export(tmp_path / "nbs/definition.ipynb", lib_path=tmp_path)
    found = Settings(folder=tmp_path, models={"cars": "definition:answer"})
    extend_import_path(found)
    yield found
    sys.modules.pop("definition", None)


def test_a_notebook_that_was_exported_is_not_told(settings: Settings) -> None:
    assert "answer = 42" in (settings.folder / "definition.py").read_text()
    assert list_unexported(settings) == []


def test_a_notebook_that_was_edited_after_its_export_is_told_with_the_way_out(settings: Settings) -> None:
    other = [DEFINITION[0], [DEFINITION[1][0].replace("42", "43")]]
    write_notebook(settings.folder / "nbs/definition.ipynb", other)
    assert list_unexported(settings) == ["definition.ipynb changed after its export: run nbdev-export"]


def test_times_of_files_do_not_matter_and_neither_does_a_cell_that_is_not_exported(settings: Settings) -> None:
    write_notebook(settings.folder / "nbs/definition.ipynb", [*DEFINITION, ["1 + 1"]])
    (settings.folder / "definition.py").touch()
    (settings.folder / "nbs/definition.ipynb").touch()
    assert list_unexported(settings) == []


def test_a_module_edited_by_hand_under_an_unchanged_notebook_is_told(settings: Settings) -> None:
    module = settings.folder / "definition.py"
    module.write_text(module.read_text().replace("42", "41"))
    assert len(list_unexported(settings)) == 1


def test_a_module_beside_the_definition_is_looked_at_too(settings: Settings) -> None:
    from nbdev.export import nb_export

    place = settings.folder / "nbs/features.ipynb"
    write_notebook(place, [["#| default_exp features"], ["#| export\nwidth = 1"]])
    nb_export(place, lib_path=settings.folder)
    write_notebook(place, [["#| default_exp features"], ["#| export\nwidth = 2"]])
    assert list_unexported(settings) == ["features.ipynb changed after its export: run nbdev-export"]


def test_without_nbdev_nothing_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_notebook(settings.folder / "nbs/definition.ipynb", [DEFINITION[0], ["#| export\nanswer = 1"]])
    find = sys.modules["mlworkbench.operate.running.stale"].find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "mlworkbench.operate.running.stale.find_spec", lambda name: None if name == "nbdev" else find(name)
    )
    assert list_unexported(settings) == []


@pytest.mark.parametrize("text", ["{", '{"cells": [{"cell_type": "code"}]}', "[]"])
def test_a_notebook_that_cannot_be_read_is_left_to_whoever_opens_it(settings: Settings, text: str) -> None:
    (settings.folder / "nbs/definition.ipynb").write_text(text)
    assert list_unexported(settings) == []


def test_a_definition_that_is_not_there_is_left_to_whoever_imports_it(tmp_path: Path) -> None:
    assert list_unexported(Settings(folder=tmp_path, models={"x": "no.such.module:x", "y": "nothing_here:y"})) == []


def test_the_examples_of_this_package_are_as_they_were_exported() -> None:
    models = {name: f"mlworkbench.examples.{name}:{name}" for name in ("flights", "penguins")}
    assert list_unexported(Settings(folder=ROOT, models=models)) == []


def test_cells_executed_out_of_order_are_told_and_gaps_are_not(tmp_path: Path) -> None:
    sources = [["1"], ["2"], ["3"]]
    write_notebook(tmp_path / "runs/evaluate.ipynb", sources, [4, 2, 3])
    write_notebook(tmp_path / "runs/monitor.ipynb", sources, [1, None, 7])
    write_notebook(tmp_path / "runs/clean.ipynb", sources)
    (tmp_path / "runs/broken.ipynb").write_text("{")
    told = list_stale_notebooks(Settings(folder=tmp_path))
    assert told == ["evaluate.ipynb has cells executed out of order (2 below 4): restart and run all"]


def test_a_file_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    assert list_out_of_order([tmp_path / "gone.ipynb"]) == []
    shutil.copy(ROOT / "nbs/runs/train.ipynb", tmp_path)
    assert list_out_of_order([tmp_path / "train.ipynb"]) == []
