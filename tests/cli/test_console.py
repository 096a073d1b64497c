import io
import json
import sys
from dataclasses import replace

import pytest

from mlworkbench.cli.console import answer, bar, need, text_table
from mlworkbench.cli.context import Context, choose_model, find_definition, open_context
from mlworkbench.errors import DefinitionError, WorkbenchError


def test_json_is_one_line_and_nothing_else(capsys):
    answer({"text": "two\nlines", "n": 1}, ["words"], as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out) == {"text": "two\nlines", "n": 1}


def test_a_table_without_rows_has_no_lines():
    assert text_table([]) == [] and text_table([], ["a"]) == []


def test_a_missing_cell_is_empty_and_a_line_break_in_one_is_not_seen():
    lines = text_table([{"a": 1, "b": "x\ny"}, {"a": None, "b": None}])
    assert lines == ["a  b", "-  ---", "1  x y", ""]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_for_people_only(monkeypatch):
    with bar() as report:
        assert report is None
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with bar(quiet=True) as report:
        assert report is None
    with bar() as report:
        report("flights", 1, 2)
        report("flights", 2, 2)
    assert "flights" in screen.getvalue()


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("flihgts", ["flights", "penguins"], "did you mean 'flights'?"),
        ("", [], "knows no model yet"),
        ("", ["flights", "penguins"], "name one of flights, penguins"),
    ],
)
def test_a_model_that_cannot_be_settled_is_one_line(name, known, said):
    with pytest.raises(DefinitionError) as caught:
        choose_model(name, known)
    assert said in str(caught.value) and "--model" in str(caught.value)


def test_a_missing_extra_is_named():
    with pytest.raises(WorkbenchError, match=r"pip install 'mlworkbench\[reports\]'"):
        need("no_such_package_anywhere", extra="reports")


def test_a_definition_is_found_by_name_by_place_or_because_it_is_the_only_one(workbench):
    here = open_context()
    assert {find_definition(here, name).name for name in ("", "cars", "definition:cars")} == {"cars"}
    with pytest.raises(DefinitionError, match="did you mean 'cars'"):
        find_definition(here, "carz")


def test_a_definition_of_another_name_than_in_the_settings_is_refused(workbench):
    here = open_context()
    settings = replace(here.settings, models={"bikes": here.settings.models["cars"]})
    with pytest.raises(DefinitionError, match="must agree; got 'bikes' and 'cars'"):
        find_definition(Context(settings, here.home), "bikes")
