import ast
import configparser
import json
import subprocess
import sys

import pytest

from mlworkbench.cli.scaffold import SAMPLE, resolve_name, write_workbench
from mlworkbench.errors import SettingsError


@pytest.mark.parametrize("nbdev", [False, True])
def test_everything_a_workbench_needs_is_written_with_the_models_name(clean, nbdev):
    model, files = write_workbench(clean / "Used-Cars", nbdev=nbdev)
    assert model == "used_cars"
    assert {"settings.ini", "definition.py", "README.md", ".gitignore", "tests/test_used_cars.py"} <= set(files)
    assert "service/service.py" in files and "runs/evaluate.ipynb" in files
    assert ("nbs/definition.ipynb" in files) == nbdev
    for name in files:
        assert SAMPLE not in (clean / "Used-Cars" / name).read_text(encoding="utf-8"), name


def test_settings_name_the_definition(workbench):
    settings = configparser.ConfigParser()
    settings.read(workbench / "settings.ini")
    assert settings["models"]["cars"] == "definition:cars"


def test_python_and_notebooks_are_well_formed(clean):
    write_workbench(clean / "cars", nbdev=True)
    for file in (clean / "cars").rglob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"))
    for file in (clean / "cars").rglob("*.ipynb"):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        assert notebook["nbformat"] == 4
        assert all(cell.get("outputs", []) == [] for cell in notebook["cells"]) or file.parent.name == "runs"


def test_an_empty_folder_is_filled_and_a_full_one_refused(clean):
    folder = clean / "cars"
    folder.mkdir()
    write_workbench(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SettingsError) as raised:
        write_workbench(folder)
    assert raised.value.code == "workbench.folder_not_empty"
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in clean.iterdir()] == ["cars"]


def test_a_file_in_the_way_is_refused(clean):
    (clean / "cars").write_text("mine")
    with pytest.raises(SettingsError, match="new or an empty folder"):
        write_workbench(clean / "cars")
    assert (clean / "cars").read_text() == "mine"


@pytest.mark.parametrize("name", ["class", "load_rows", "Cars", "1st", "a b"])
def test_a_name_that_python_or_the_workbench_cannot_use_is_refused(name, clean):
    with pytest.raises(SettingsError):
        write_workbench(clean / "folder", name=name)
    assert not (clean / "folder").exists()


def test_a_folder_without_a_single_letter_gets_the_sample_name(clean):
    assert resolve_name(clean / "___") == SAMPLE


def test_the_literate_form_exports_what_was_written(clean):
    write_workbench(clean / "cars", nbdev=True)
    before = (clean / "cars" / "definition.py").read_text(encoding="utf-8")
    code = "from nbdev.export import nb_export; nb_export('nbs/definition.ipynb', lib_path='.')"
    subprocess.run([sys.executable, "-c", code], cwd=clean / "cars", check=True, capture_output=True)
    after = (clean / "cars" / "definition.py").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if line[:1] != "#"] == [
        line for line in before.splitlines() if line[:1] != "#"
    ]


def test_the_command_says_what_to_do_next(clean, tell):
    code, out, err = tell("new", clean / "cars")
    assert (code, err) == (0, "")
    assert "mlworkbench train && mlworkbench serve" in out
