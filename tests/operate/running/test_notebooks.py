"""What a run notebook takes, and the refusal of everything else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mlworkbench.errors import RunError
from mlworkbench.operate.running.notebooks import (
    Parameter,
    check_parameters,
    check_ranges,
    convert,
    declared_parameters,
    describe_bare_dates,
    find_notebook,
    run_folders,
)

SOURCE = """home = ""
model = ""
run_id = ""
start = ""  # a time with offset
end = ""
rows: int = 3
level = 0.95
strict = False
columns = None
shares: float = 0  # a share
"""


def write(path: Path, *cells: str, tags: tuple[str, ...] = ("parameters",)) -> Path:
    first, *rest = cells
    page = [new_code_cell(first, metadata={"tags": list(tags)}), *map(new_code_cell, rest)]
    nbformat.write(new_notebook(cells=page), path)
    return path


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write(tmp_path / "sample.ipynb", SOURCE)


def test_types_come_from_annotations_else_from_defaults(notebook: Path) -> None:
    kinds = {name: one.kind for name, one in declared_parameters(notebook).items()}
    assert kinds == {
        "home": "str", "model": "str", "run_id": "str", "start": "str", "end": "str",
        "rows": "int", "level": "float", "strict": "bool", "columns": "json", "shares": "float",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rows": "7"}, {"rows": 7}),
        ({"rows": -7}, {"rows": -7}),
        ({"level": "1"}, {"level": 1.0}),
        ({"strict": "TRUE"}, {"strict": True}),
        ({"run_id": "007"}, {"run_id": "007"}),
        ({"columns": '["a", "b"]'}, {"columns": ["a", "b"]}),
        ({"columns": None}, {"columns": None}),
        ({"model": ""}, {"model": ""}),
    ],
)
def test_text_and_values_become_the_declared_type(notebook: Path, given: dict, expected: dict) -> None:
    values = check_parameters(notebook, given)
    assert values == expected
    assert [type(one) for one in values.values()] == [type(one) for one in expected.values()]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rows": "abc"}, ["'rows'", "integer", "'abc'"]),
        ({"rows": "1.5"}, ["'rows'", "integer"]),
        ({"rows": True}, ["'rows'", "integer", "True"]),
        ({"rows": 1.0}, ["'rows'", "integer"]),
        ({"level": "nan"}, ["'level'", "finite"]),
        ({"level": True}, ["'level'", "number"]),
        ({"strict": "yes"}, ["'strict'", "true or false"]),
        ({"strict": 1}, ["'strict'", "true or false"]),
        ({"model": 5}, ["'model'", "a text", "5"]),
        ({"columns": "[1,"}, ["'columns'", "JSON"]),
        ({"columns": float("inf")}, ["'columns'", "JSON"]),
        ({"modle": "x"}, ["'modle'", "did you mean 'model'?"]),
        ({"database_password": "x"}, ["database_password_env", "secret"]),
        ({"API_KEY": "x"}, ["secret"]),
        ({"run_id": "../../etc"}, ["'run_id'", "'../../etc'"]),
        ({"run_id": "a..b"}, ["'run_id'"]),
        ({"run_id": "a/b"}, ["'run_id'"]),
        ({"run_id": ".hidden"}, ["'run_id'"]),
        ({"run_id": "x" * 81}, ["'run_id'"]),
        ({"model": "Flights"}, ["'model'", "'Flights'"]),
        ({"start": "2013-02-30"}, ["'start'", "'2013-02-30'", "a date"]),
        ({"start": "2013-10-02", "end": "2013-10-01"}, ["'end'", "after start"]),
        ({"start": "2013-10-01T00:00:00"}, ["'start'", "offset"]),
        ({"end": "soon"}, ["'end'", "'soon'"]),
        ({"start": "2013-10-01T00:00:00+00:00", "end": "2013-10-01T00:00:00+00:00"}, ["'end'", "after start"]),
    ],
)
def test_what_is_wrong_is_refused_in_one_line_with_its_value(notebook: Path, given: dict, words: list[str]) -> None:
    with pytest.raises(RunError) as refusal:
        check_parameters(notebook, given)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_name_of_an_environment_variable_is_no_secret(tmp_path: Path) -> None:
    notebook = write(tmp_path / "a.ipynb", 'password_env = ""')
    assert check_parameters(notebook, {"password_env": "DATABASE_PASSWORD"}) == {"password_env": "DATABASE_PASSWORD"}


def test_a_bare_date_is_midnight_utc_and_is_told(notebook: Path) -> None:
    values = check_parameters(notebook, {"start": "2013-10-01", "end": "2013-11-01T00:00:00-04:00"})
    assert values == {"start": "2013-10-01T00:00:00+00:00", "end": "2013-11-01T00:00:00-04:00"}
    assert describe_bare_dates({"start": "2013-10-01", "end": "2013-10-02"}) == (
        "a bare date is midnight UTC: start 2013-10-01T00:00:00+00:00, end 2013-10-02T00:00:00+00:00"
    )
    assert describe_bare_dates({"start": "", "end": "2013-10-02T00:00:00Z", "version": "2013-10-01"}) == ""
    known = describe_bare_dates({"known_at": "2013-10-03"})
    assert known == "a bare date is midnight UTC: known_at 2013-10-03T00:00:00+00:00"
    assert check_ranges({"start": "1970-01-02"}) == (86_400_000_000, None)


def test_intervals_are_half_open_and_may_be_open_ended() -> None:
    assert check_ranges({}) == (None, None)
    assert check_ranges({"start": "", "end": None}) == (None, None)
    assert check_ranges({"start": "1970-01-01T00:00:00Z", "end": "1970-01-01T01:00:00+01:00"[:19] + "+00:00"}) == (
        0,
        3_600_000_000,
    )


def test_a_notebook_without_the_tagged_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        declared_parameters(write(tmp_path / "a.ipynb", "x = 1", tags=()))
    assert raised.value.code == "run.parameters_cell"


def test_a_computed_default_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'rows'.*len") as raised:
        declared_parameters(write(tmp_path / "a.ipynb", "rows = len('abc')"))
    assert raised.value.code == "run.parameter_default"


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("no json")
    with pytest.raises(RunError, match=r"a\.ipynb") as raised:
        declared_parameters(path)
    assert raised.value.code == "run.notebook_unreadable"


def test_a_workbench_may_bring_its_own_notebook_under_a_known_name(tmp_path: Path) -> None:
    own = tmp_path / "nbs" / "runs"
    own.mkdir(parents=True)
    write(own / "evaluate.ipynb", SOURCE)
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs" / "evaluate.ipynb", SOURCE)
    assert run_folders(tmp_path)[:2] == [own, tmp_path / "runs"]
    assert find_notebook("evaluate", tmp_path) == (own / "evaluate.ipynb").resolve()


def test_the_packages_own_run_notebooks_are_found_from_anywhere(tmp_path: Path) -> None:
    assert find_notebook("train", tmp_path).name == "train.ipynb"


def test_an_unknown_notebook_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs" / "monthly.ipynb", SOURCE)
    with pytest.raises(RunError, match="did you mean 'monthly'"):
        find_notebook("montly", tmp_path)
    with pytest.raises(RunError) as raised:
        find_notebook(tmp_path / "none.ipynb", tmp_path)
    assert raised.value.code == "run.notebook_unknown"


def test_a_path_value_is_text() -> None:
    assert convert(Parameter("file", "str"), Path("a/b")) == "a/b"
