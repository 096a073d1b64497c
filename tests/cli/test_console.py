import io
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlworkbench.cli.console import answer, ask_reason, format_table, require_package, show_progress
from mlworkbench.cli.context import Context, choose_model, find_definition, open_context, resolve_interval
from mlworkbench.errors import DefinitionError, WorkbenchError


def test_json_is_one_line_and_nothing_else(capsys):
    answer({"text": "two\nlines", "n": 1}, ["words"], as_json=True)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and json.loads(out) == {"text": "two\nlines", "n": 1}


def test_what_moves_a_terminal_is_printed_as_an_escape(capsys):
    foreign = "\x1b]0;mine\x07 \x9b2J \u202egpj\r"
    answer({"who": foreign}, [f"{foreign}\tAda\nof Kent"])
    assert capsys.readouterr().out == "\\u001b]0;mine\\u0007 \\u009b2J \\u202egpj\\u000d\tAda\nof Kent\n"
    answer({"who": foreign}, as_json=True)
    out = capsys.readouterr().out
    assert out.strip("\n").isprintable() and json.loads(out) == {"who": foreign}


def test_a_table_without_rows_has_no_lines():
    assert format_table([]) == [] and format_table([], ["a"]) == []


def test_a_missing_cell_is_empty_and_a_line_break_in_one_is_not_seen():
    lines = format_table([{"a": 1, "b": "x\ny"}, {"a": None, "b": None}])
    assert lines == ["a  b", "-  ---", "1  x y", ""]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_for_people_only(monkeypatch):
    with show_progress() as report:
        assert report is None
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with show_progress(quiet=True) as report:
        assert report is None
    with show_progress() as report:
        report("flights", 1, 2)
        report("flights", 2, 2)
    assert "flights" in screen.getvalue()


@pytest.mark.parametrize(
    ("name", "known", "code", "hint"),
    [
        ("flihgts", ["flights", "penguins"], "model.unknown", "did you mean 'flights'?"),
        ("", [], "model.none", "train or register one"),
        ("", ["flights", "penguins"], "model.ambiguous", "name one of flights, penguins"),
    ],
)
def test_a_model_that_cannot_be_settled_is_one_line(name, known, code, hint):
    with pytest.raises(DefinitionError) as caught:
        choose_model(name, known)
    assert caught.value.code == code
    assert hint in str(caught.value) and "--model" in str(caught.value)


def test_a_missing_extra_is_named():
    with pytest.raises(WorkbenchError, match=r"pip install 'mlworkbench\[reports\]'") as caught:
        require_package("no_such_package_anywhere", extra="reports")
    assert caught.value.code == "extra.missing"


def test_a_definition_is_found_by_name_by_place_or_because_it_is_the_only_one(workbench):
    here = open_context()
    assert {find_definition(here, name).name for name in ("", "cars", "definition:cars")} == {"cars"}
    with pytest.raises(DefinitionError, match="did you mean 'cars'"):
        find_definition(here, "carz")


def test_a_definition_of_another_name_than_in_the_settings_is_refused(workbench):
    here = open_context()
    settings = replace(here.settings, models={"bikes": here.settings.models["cars"]})
    with pytest.raises(DefinitionError, match=r"'bikes'.*'cars'") as caught:
        find_definition(Context(settings, here.home), "bikes")
    assert caught.value.code == "definition.name_differs"


NOW = datetime(2013, 11, 1, 12, 30, 15, 999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "start"),
    [
        ("hour", "2013-11-01T11:30:15.000999+00:00"),
        ("day", "2013-10-31T12:30:15.000999+00:00"),
        ("7d", "2013-10-25T12:30:15.000999+00:00"),
        ("12 hours", "2013-11-01T00:30:15.000999+00:00"),
        ("2w", "2013-10-18T12:30:15.000999+00:00"),
    ],
)
def test_the_last_hours_and_days_are_an_interval_that_ends_now(last, start):
    assert resolve_interval("", "", last, now=NOW) == (start, "2013-11-01T12:30:15.000999+00:00")


@pytest.mark.parametrize("last", ["soon", "0d", "-1d", "7", "1.5d", "999999d", "d7", "7y"])
def test_another_span_is_refused_with_the_way_out(last):
    with pytest.raises(WorkbenchError, match=f"--last: '{last}'.*; write it like 7d") as caught:
        resolve_interval("", "", last)
    assert caught.value.code == "usage.span"


def test_an_interval_is_given_once(capsys):
    with pytest.raises(WorkbenchError, match="--end: not with --last; got 2013-10-01"):
        resolve_interval("", "2013-10-01", "day")
    assert resolve_interval("", "", "") == ("", "")
    assert resolve_interval("2013-10-01", "", "")[0] == "2013-10-01T00:00:00+00:00"
    assert capsys.readouterr().err == "a bare date is midnight UTC: start 2013-10-01T00:00:00+00:00\n"


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self):
        return True


def test_a_reason_is_given_asked_for_at_a_terminal_or_noted_as_missing(monkeypatch, capsys):
    assert ask_reason("better") == "better"
    for nobody in (None, io.StringIO("unheard")):
        monkeypatch.setattr(sys, "stdin", nobody)
        assert ask_reason("") == "none given"
    monkeypatch.setattr(sys, "stdin", Person("better in September\n"))
    assert ask_reason("") == "better in September"
    assert ask_reason("") == "none given"  # nothing typed
    assert capsys.readouterr() == ("", "why: why: ")
