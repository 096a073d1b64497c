"""Errors: one line, an exit code, the user's own frame, the nearest name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlworkbench import errors
from mlworkbench.errors import RefusedError, WorkbenchError, find_user_frame, suggest


def load(folder: Path, text: str, name: str = "definition") -> object:
    import importlib.util

    (folder / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("value", ["a\nb", "a\r\n\tb", "a\n\n\nb"])
def test_an_error_is_one_line_whatever_the_value_holds(value: str) -> None:
    assert str(WorkbenchError(f"got {value}")) == "got a b"


def test_only_a_refusal_has_exit_code_one() -> None:
    family = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, WorkbenchError)]
    assert {c.__name__ for c in family if c.exit_code == 1} == {"RefusedError"}
    assert RefusedError.exit_code == 1
    assert WorkbenchError.exit_code == 2


def test_the_users_frame_is_found_below_a_library_that_called_it(tmp_path: Path) -> None:
    module = load(tmp_path, "def age(row):\n    return 1 / row\n")
    with pytest.raises(ZeroDivisionError) as caught:
        json.loads("[0]", object_hook=None, parse_int=lambda text: module.age(int(text)))
    assert find_user_frame(caught.value) == f"{tmp_path / 'definition.py'}, line 2, in age"


def test_the_users_frame_is_found_above_a_library_that_raised(tmp_path: Path) -> None:
    module = load(tmp_path, "import json\n\ndef read():\n    return json.loads('{')\n")
    with pytest.raises(ValueError) as caught:
        module.read()
    assert find_user_frame(caught.value).endswith("definition.py, line 4, in read")


def test_a_folder_of_the_user_called_mlworkbench_is_still_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "mlworkbench"
    folder.mkdir()
    module = load(folder, "def fail():\n    raise ValueError\n")
    with pytest.raises(ValueError) as caught:
        module.fail()
    assert "definition.py, line 2" in find_user_frame(caught.value)


def test_a_module_that_cannot_be_imported_is_located_in_the_users_file(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        load(tmp_path, "\nimport no_such_module_here\n")
    assert "definition.py, line 2" in find_user_frame(caught.value)


def test_an_error_of_the_workbench_alone_has_no_frame_of_the_user() -> None:
    code = (
        "from mlworkbench.errors import find_user_frame\n"
        "from mlworkbench.contract.times import parse_time\n"
        "def run():\n"
        "    try:\n        parse_time('x')\n"
        "    except Exception as error:\n"
        "        error.__traceback__ = error.__traceback__.tb_next\n"
        "        return find_user_frame(error)\n"
        "print(repr(run()))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "''"


def test_the_nearest_name_is_offered_or_the_known_are_listed() -> None:
    assert suggest("pengiuns", ["flights", "penguins"]) == "did you mean 'penguins'?"
    assert suggest("zzz", [f"name{n}" for n in range(20)]).endswith(", ...")
    assert suggest("zzz", []) == "none is known"
