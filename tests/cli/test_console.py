import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlworkbench.cli.console import (
    answer,
    ask_reason,
    format_table,
    print_line,
    require_package,
    show_progress,
    show_work,
)
from mlworkbench.cli.context import Context, choose_model, find_definition, open_context, resolve_interval
from mlworkbench.core.home import Home
from mlworkbench.errors import DefinitionError, WorkbenchError
from mlworkbench.scoring.registry.tables import Aliases, NamedVersions


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


WIDE = [
    {
        "run_id": f"evaluate-20261201T143719-257{k}",
        "model": "flights",
        "version": "flights:19e0fa8199aadce0d6d95d47b4501282",
        "rows": 1_000 * k,
        "made": "2026-12-01T14:36:07.123456+00:00",
        "error": None,
        "why": "better in the evening of long days in September, and Ada said so",
    }
    for k in range(3)
]


@pytest.mark.parametrize("screen", [30, 60, 80, 120])
def test_a_table_fits_the_screen_and_no_word_of_it_is_lost(monkeypatch, screen):
    monkeypatch.setenv("COLUMNS", str(screen))
    lines = format_table(WIDE)
    assert max(map(len, lines)) <= max(screen, 10 * 6 + 2 * 5)
    assert "error" not in lines[0]  # no row has one
    shown = "".join("".join(lines).split())
    assert all(word in shown for word in ("September", "Ada", "14:36:07Z")) and "123456" not in shown


def test_at_80_columns_names_stay_in_one_piece(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = "\n".join(format_table([{name: row[name] for name in ("run_id", "version", "made", "why")} for row in WIDE]))
    assert all(row["run_id"] in text for row in WIDE) and text.count("flights:19e0fa81 ") == 3


def test_in_a_pipe_each_row_stays_one_line(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = format_table(WIDE)
    assert len(lines) == 2 + len(WIDE) and all("September, and Ada said so" in line for line in lines[2:])


def test_ids_of_versions_are_short_for_people_and_whole_for_programs(capsys):
    tag = "flights:19e0fa8199aadce0d6d95d47b4501282"
    answer({"version": tag}, [f"{tag}: kept", f"see flights:{'a' * 31}, /tmp/{tag} and ab12:30"])
    assert capsys.readouterr().out == f"flights:19e0fa81: kept\nsee flights:{'a' * 31}, /tmp/{tag} and ab12:30\n"
    answer({"version": tag}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"version": tag}


@pytest.mark.parametrize(("line", "coloured"), [("ok    python", True), ("error: no", True), ("okay", False)])
def test_states_are_coloured_for_people_only(monkeypatch, line, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for screen, seen in ((Terminal(), coloured), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", screen)
        print_line(line)
        assert ("\x1b[" in screen.getvalue()) == seen
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    print_line(line)
    assert screen.getvalue() == f"{line}\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_work_that_cannot_say_how_far_it_is_shows_that_it_goes_on(monkeypatch):
    for quiet, screen in ((False, io.StringIO()), (True, Terminal())):
        monkeypatch.setattr(sys, "stderr", screen)
        with show_work("leaks", quiet=quiet):
            pass
        assert screen.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with show_work("leaks"):
        pass
    assert "leaks" in screen.getvalue() and "0:00:0" in screen.getvalue()


def test_a_bar_tells_rate_and_time_left(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with show_progress() as report:
        for done in range(0, 3_000, 1_000):
            report("flights", done, 10_000)
            time.sleep(0.12)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).strip().splitlines()[-1]
    assert re.search(r"2000/10000 +[\d,]+/s +\d\d:\d\d", last) and len(last.rstrip()) <= 80


@pytest.fixture
def trained(workbench):
    """A workbench whose registry has two models' versions by name alone, and a champion."""
    place = Home.open().registry
    NamedVersions(place).add([f"cars:{'ab' * 16}", f"vans:{'cd' * 16}"], (str(workbench), str(workbench)))
    Aliases(place).move("cars", "champion", f"cars:{'ab' * 16}", who="Ada", why="a test")
    return workbench


def completed(shell, *words):
    asked = {"_MLWORKBENCH_COMPLETE": "complete_bash", "COMP_CWORD": str(len(words) - 1)}
    done = shell(env={**os.environ, **asked, "COMP_WORDS": "\n".join(words)})
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("certify", ""), ["cars", "cars:champion", "cars:abababab", "vans", "vans:cdcdcdcd"]),
        (("models", "promote", "v"), ["vans", "vans:cdcdcdcd"]),
        (("train", "--model", "c"), ["cars"]),
        (("score", "--model", "vans", "--version", ""), ["cdcdcdcd"]),
        (("models", "rollb"), ["rollback"]),
    ],
)
def test_a_shell_completes_models_and_versions(trained, shell, words, offered):
    assert completed(shell, "mlworkbench", *words) == offered


def test_a_shell_completes_nothing_where_settings_are_broken_and_says_nothing(trained, shell):
    (trained / "settings.ini").write_text("# workbench\n[workbench]\nport = many\n")
    assert completed(shell, "mlworkbench", "certify", "") == []


def test_completion_imports_no_heavy_library(trained):
    code = (
        "import sys; from mlworkbench.cli.console import complete_version; print(complete_version('c'), *sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "cars:champion" in said
    assert not {"numpy", "pandas", "polars", "sklearn", "bentoml", "pyarrow", "rich.progress"} & set(said.split())


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
