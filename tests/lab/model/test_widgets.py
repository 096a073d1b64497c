"""The lab: fields, answers, sweeps, tables, pictures, the page, and the notebook in a real kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from mlworkbench.contract.check import check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.request import request_columns
from mlworkbench.errors import ContractError, WorkbenchError
from mlworkbench.evaluation.plots.picture import embed_picture
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.lab.model.answers import draw_sweep, render_answer, write_svg
from mlworkbench.lab.model.record import MISSING, Field, Input, Record, _make_blank, list_fields, start_record
from mlworkbench.lab.model.what_if import Answer, Sweep, ask, list_positions, look_up_views, rank_by_reach, sweep
from mlworkbench.lab.model.widgets import LOOKED_UP, WhatIf
from mlworkbench.lab.page.show import render_table
from mlworkbench.scoring.version.version import predict

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "explore" / "model.ipynb"


# ---- fields and records


def field_of(version: Any, name: str) -> Field:
    return next(field for field in list_fields(version) if field.name == name)


def test_fields_are_the_request_then_what_each_view_looks_up(rooms) -> None:
    found = [(field.name, field.view) for field in list_fields(rooms.open("trips"))]
    assert found[:4] == [("trip", ""), ("origin", ""), ("asked", ""), ("distance", "")]
    assert found[4:] == [("wind", "weather"), ("sky", "weather"), ("landed", "landings"), ("delay", "landings")]


def test_a_span_is_the_contracts_range_but_no_wider_than_what_training_saw(rooms) -> None:
    version = rooms.open("birds")
    field, column = field_of(version, "bill"), version.request.column("bill")
    profile = json.loads((version.folder / "profile.json").read_text())["columns"]["bill"]
    assert field.span == (profile["lower"], profile["upper"])
    assert column.lower <= field.span[0] < field.usual[0] < field.usual[1] < field.span[1] <= column.upper


def test_a_view_value_takes_its_range_from_the_frame_and_its_kind_from_the_view(rooms) -> None:
    version = rooms.open("trips")
    assert field_of(version, "wind").span == (0.0, 40.0)
    assert field_of(version, "wind").column.learned
    assert field_of(version, "landed").column.kind == "integer"


def test_without_range_or_profile_the_golden_rows_speak(rooms) -> None:
    version = rooms.open("trips")
    golden = [row["values"]["delay"] for row in version.golden]
    assert field_of(version, "delay").span == (min(golden), max(golden))


def test_a_nullable_category_offers_missing_and_a_boolean_two_values() -> None:
    column = Column("a", "category", nullable=True, categories=("x",))
    assert list_positions(Field(column, choices=("x", None))) == ["x", None]


def test_choices_of_birds(rooms) -> None:
    version = rooms.open("birds")
    assert field_of(version, "island").choices == ("Biscoe", "Dream", "Torgersen")
    assert field_of(version, "ringed").choices == (False, True)


def test_a_text_that_the_model_knows_as_a_category_becomes_a_list(rooms) -> None:
    version = rooms.open("birds")
    texts = [replace(c, kind="text", categories=None) if c.name == "island" else c for c in version.request.columns]
    found = field_of(replace(version, request=Contract(tuple(texts))), "island")
    assert found.column.kind == "text" and found.choices == ("Biscoe", "Dream", "Torgersen")
    assert Input(found, "Dream", lambda: None).editor.options[1] == ("Dream", "Dream")


def test_the_start_passes_the_contract_though_golden_rows_have_no_entity(rooms) -> None:
    for model in ("birds", "trips"):
        version = rooms.open(model)
        for row in range(len(version.golden)):
            assert not ask(version, start_record(version, row)).refused
    assert start_record(rooms.open("trips")).request["trip"] == "what-if"


@pytest.mark.parametrize(
    "column",
    [
        Column("a", "number", lower=5),
        Column("a", "number", upper=-5),
        Column("a", "integer", lower=2.5),
        Column("a", "boolean"),
        Column("a", "category", categories=("x", "y"), closed=True),
        Column("a", "text", personal=True),
        Column("a", "text", nullable=True),
        Column("a", "vector", size=3),
        Column("a", "time"),
    ],
)
def test_a_blank_value_passes_its_own_column(column: Column) -> None:
    assert check_records([{"a": _make_blank(column)}], Contract((column,)))[1] == []


def test_a_change_makes_a_new_record_and_an_unknown_name_is_refused() -> None:
    record = Record({"a": 1}, {"b": 2})
    assert record.with_value("b", 3) == Record({"a": 1}, {"b": 3})
    assert record == Record({"a": 1}, {"b": 2})
    with pytest.raises(ContractError, match="no column 'c'"):
        record.with_value("c", 0)


def test_a_golden_row_that_is_not_there_is_refused(rooms) -> None:
    with pytest.raises(ContractError, match="no golden row -1; choose one from 0 to") as raised:
        start_record(rooms.open("birds"), -1)
    assert raised.value.code == "lab.golden_row_unknown"


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1, 0.01), (0, 42, 0.1), (-500, 4500, 10)])
def test_a_step_is_round_and_about_a_hundredth(low: float, high: float, step: float) -> None:
    assert Field(Column("a", "number"), span=(low, high)).step == pytest.approx(step)


# ---- answers


def test_the_golden_record_gets_its_golden_score(rooms) -> None:
    for model in ("birds", "trips"):
        version = rooms.open(model)
        for row, golden in enumerate(version.golden):
            scores = list(ask(version, start_record(version, row)).scores.values())
            assert scores == pytest.approx(np.atleast_1d(golden["score"]).tolist(), abs=version.tolerance)


def test_an_answer_is_that_of_the_one_path(rooms) -> None:
    version = rooms.open("birds")
    record = start_record(version).with_value("bill", 39.5)
    direct = predict(version, request_columns([record.request], version).columns, {})
    answer = ask(version, record)
    assert list(answer.scores.values()) == direct.scores[0].tolist()
    assert answer.decision == direct.decisions[0]


def test_faults_are_said_in_words_and_do_not_name_a_row(rooms) -> None:
    version = rooms.open("trips")
    record = start_record(version).with_value("distance", -5.0).with_value("origin", "jfk")
    answer = ask(version, record)
    assert answer.refused and answer.scores == {}
    assert answer.faults == (
        "column 'origin': one of JFK, LGA; got 'jfk'; did you mean 'JFK'? (case)",
        "column 'distance': from 0 to 3000 miles; got -5.0",
    )


def test_an_unusual_view_value_is_flagged_and_answered(rooms) -> None:
    version = rooms.open("trips")
    answer = ask(version, start_record(version).with_value("wind", 400.0))
    assert not answer.refused
    assert answer.faults == ("column 'wind': usually from 0 to 40; got 400.0",)


def test_a_naive_time_is_refused_in_words(rooms) -> None:
    version = rooms.open("trips")
    assert "column 'asked'" in ask(version, start_record(version).with_value("asked", "2013-10-01T12:00:00")).faults[0]


def test_no_difference_to_a_refused_answer() -> None:
    assert Answer({"score": 1.0}).difference(Answer({}, refused=True)) == {}


# ---- sweeps


def test_a_sweep_gives_what_single_questions_give(rooms) -> None:
    for name in ("bill", "island", "ringed", "wind", "distance"):
        version = rooms.open("trips" if name in ("wind", "distance") else "birds")
        record = start_record(version, 1)
        found = sweep(version, record, field_of(version, name))
        for k in range(0, len(found.positions), 10):
            single = ask(version, record.with_value(name, found.positions[k]))
            assert found.scores[k].tolist() == pytest.approx(list(single.scores.values()), abs=version.tolerance)


def test_a_sweep_of_a_refused_record_says_each_fault_once(rooms) -> None:
    version = rooms.open("trips")
    with pytest.raises(ContractError) as refusal:
        sweep(version, start_record(version).with_value("distance", -1.0), field_of(version, "wind"))
    assert str(refusal.value) == "sweep: column 'distance': from 0 to 3000 miles; got -1.0"


def test_a_text_has_nothing_to_sweep(rooms) -> None:
    version = rooms.open("trips")
    with pytest.raises(ContractError, match="'trip'") as raised:
        sweep(version, start_record(version), field_of(version, "trip"))
    assert raised.value.code == "lab.no_range"


def test_the_fields_that_move_the_score_farthest_come_first(rooms) -> None:
    version = rooms.open("trips")
    found = rank_by_reach(version, start_record(version), list_fields(version))
    reaches = [part.reach for part in found]
    assert reaches == sorted(reaches, reverse=True)
    assert found[0].field.name == "wind"
    assert {"trip", "asked"}.isdisjoint(part.field.name for part in found)


def test_nothing_that_is_asked_is_logged(rooms) -> None:
    version = rooms.open("trips")
    ask(version, start_record(version))
    assert not rooms.home.log("trips").exists()


# ---- the online store


def test_view_values_are_those_of_the_online_store_as_of_the_records_time(rooms) -> None:
    version = rooms.open("trips")
    for row in range(len(version.golden)):
        record = start_record(version, row)
        forgotten = Record(record.request, dict.fromkeys(record.values))
        assert look_up_views(version, forgotten, rooms.home.online) == record


def test_another_time_has_another_wind(rooms) -> None:
    version = rooms.open("trips")
    record = start_record(version)
    later = look_up_views(version, record.with_value("asked", "2013-10-02T15:30:00+00:00"), rooms.home.online)
    assert later.values["wind"] != record.values["wind"]
    store = OnlineStore(rooms.home.online, read_only=True)
    at = request_columns([later.request], version).columns["asked"][0]
    direct = store.get(version.views[0], (record.request["origin"],), int(at))
    store.close()
    assert later.values["wind"] == direct["wind"]


def test_a_lookup_of_a_refused_record_is_refused(rooms) -> None:
    version = rooms.open("trips")
    with pytest.raises(ContractError, match="'asked'"):
        look_up_views(version, start_record(version).with_value("asked", "yesterday"), rooms.home.online)


# ---- pictures and text


def test_a_figure_is_the_same_file_twice_and_its_text_is_escaped() -> None:
    found = Sweep(Field(Column("a", "number"), span=(0.0, 9.0)), list(range(10)), np.zeros((10, 2)), ("x", "y"))
    first, second = (embed_picture(write_svg(draw_sweep(found, 1)), 'a "quoted" <text>') for _ in range(2))
    assert first == second
    assert 'alt="a &#34;quoted&#34; &lt;text&gt;"' in first


@pytest.mark.parametrize("at", [5.0, None, 1e9, "odd"])
def test_a_sweep_is_drawn_wherever_the_record_stands(at: object) -> None:
    found = Sweep(Field(Column("a", "number"), span=(0.0, 9.0)), list(range(10)), np.zeros((10, 2)), ("x", "y"))
    axes = draw_sweep(found, at, threshold=0.5).axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(points) == (2 if at == 5.0 else 0)


def test_the_present_choice_is_the_filled_point() -> None:
    field = Field(Column("a", "category"), choices=("x", None))
    found = Sweep(field, ["x", None], np.array([[0.1], [0.9]]), ("score",))
    axes = draw_sweep(found, None).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "(missing)"]
    colours = axes.collections[0].get_facecolors()
    assert colours[0].tolist() == [1, 1, 1, 1] and colours[1].tolist() != [1, 1, 1, 1]


def test_text_is_escaped_wherever_it_comes_from() -> None:
    evil = "<script>alert(1)</script>"
    pages = [
        render_table([{evil: evil}]),
        render_answer(Answer({evil: 0.5}, evil, (evil,)), Answer({}), {"task": "multiclass"}),
        render_answer(Answer({}, None, (evil,), True), Answer({}), {"task": "multiclass"}),
    ]
    assert all(evil not in page and "&lt;script" in page for page in pages)


# ---- inputs


def test_a_slider_moves_the_field_and_the_field_may_leave_the_slider() -> None:
    calls: list[int] = []
    entry = Input(Field(Column("a", "number"), span=(0.0, 10.0)), 0.123456, lambda: calls.append(1))
    assert entry.value == 0.123456
    entry.slider.value = 7.0
    assert entry.value == 7.0 and len(calls) == 1
    entry.editor.value = 99.0
    assert entry.value == 99.0 and entry.slider.value == 10.0 and len(calls) == 2


def test_a_value_can_be_missing_where_the_contract_allows_it() -> None:
    entry = Input(Field(Column("a", "number", nullable=True), span=(0.0, 10.0), typical=4.0), None, lambda: None)
    assert entry.value is None and entry.editor.disabled
    entry.missing.value = False
    assert entry.value == entry.slider.value == 4.0 and not entry.editor.disabled
    assert Input(Field(Column("a", "number"), span=(0.0, 1.0)), 0.5, lambda: None).missing is None
    entry = Input(Field(Column("a", "category", nullable=True), choices=("x", None)), "x", lambda: None)
    assert (MISSING, None) in entry.editor.options
    entry.value = None
    assert entry.value is None


@pytest.mark.parametrize(
    ("column", "value", "other"),
    [
        (Column("a", "integer", lower=0, upper=9), 3, 4),
        (Column("a", "boolean"), False, True),
        (Column("a", "text"), "one", "two"),
        (Column("a", "time"), "2013-10-01T12:00:00+00:00", "2013-10-01T13:00:00+00:00"),
        (Column("a", "vector", size=2), [1.0, 2.0], [3.0, 4.5]),
        (Column("a", "category", categories=("x",)), "x", "a new one"),
    ],
)
def test_each_kind_gives_back_what_was_put_in(column: Column, value: object, other: object) -> None:
    choices = column.categories or ()
    entry = Input(Field(column, choices=tuple(choices)), value, lambda: None)
    assert entry.value == value and type(entry.value) is type(value)
    entry.value = other
    assert entry.value == other and type(entry.value) is type(other)


def test_a_vector_that_is_no_list_is_handed_on_for_the_contract_to_refuse() -> None:
    entry = Input(Field(Column("a", "vector", size=2)), [1.0, 2.0], lambda: None)
    entry.editor.value = "1, 2"
    assert entry.value == "1, 2"


# ---- the page


def test_a_change_of_a_widget_changes_answer_text_and_picture(rooms) -> None:
    page = WhatIf(rooms.open("birds"))
    before = (page.answer, page.result.value, page.picture.value)
    page.inputs["bill"].value = page.fields["bill"].typical
    for end in page.fields["bill"].span:
        page.inputs["bill"].slider.value = end
        assert page.answer == ask(page.version, page.record) and page.record.request["bill"] == end
    assert page.answer.decision == "Gentoo"
    assert page.answer != before[0] and page.result.value != before[1] and page.picture.value != before[2]
    assert page.first == before[0]


def test_the_page_opens_with_a_picture_of_the_field_that_matters_most(rooms) -> None:
    page = WhatIf(rooms.open("trips"))
    assert page.feature.value == "wind" and "along wind" in page.picture.value
    assert page.answer == page.first and "Nothing unusual" in page.result.value


def test_another_golden_row_begins_anew_and_keeps_the_swept_field(rooms) -> None:
    page = WhatIf(rooms.open("birds"))
    page.feature.value = "island"
    page.row.value = 3
    assert page.record == start_record(page.version, 3) and page.first == page.answer
    assert page.feature.value == "island"


def test_a_refused_record_is_said_on_the_page_and_mends_again(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    page.inputs["distance"].value = -3.0
    assert page.answer.refused and "Refused" in page.result.value and "from 0 to 3000 miles" in page.result.value
    assert "sweep:" in page.picture.value
    page.inputs["distance"].value = page.fields["distance"].span[0]
    assert not page.answer.refused and "svg" in page.picture.value


def test_view_values_follow_keys_and_time_when_they_are_looked_up(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    page.inputs["wind"].value = 1.0
    assert page.record.values["wind"] == 1.0
    page.source.value = LOOKED_UP
    assert page.record == start_record(page.version)
    page.inputs["asked"].value = "2013-10-02T15:30:00+00:00"
    expected = look_up_views(page.version, page.record, rooms.home.online).values
    assert page.record.values == expected and page.inputs["wind"].value == expected["wind"]
    page.inputs["asked"].value = "soon"
    assert page.answer.refused and "asked" in page.result.value
    page.begin(0)
    assert page.record == start_record(page.version) and not page.answer.refused


def test_a_store_that_was_never_filled_is_said_on_the_page(rooms, tmp_path: Path) -> None:
    page = WhatIf(rooms.open("trips"), Home.open(tmp_path / "home"))
    page.source.value = LOOKED_UP
    assert page.answer.refused and "Refused" in page.result.value


# ---- what is missing, and the real thing


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from mlworkbench.errors import WorkbenchError\n"
        "try:\n    import mlworkbench.lab.model.widgets\nexcept WorkbenchError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "extra [lab]" in done.stdout and "pip install 'mlworkbench[lab]'" in done.stdout


def test_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = Sweep(Field(Column("a", "category"), choices=("x",)), ["x"], np.array([[0.1]]), ("score",))
    with pytest.raises(WorkbenchError, match=re.escape("mlworkbench[lab]")):
        draw_sweep(found, None)


@pytest.mark.system
def test_the_notebook_runs_in_a_kernel_and_a_moved_widget_moves_the_score(rooms) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert 'home = ""' in parameters.source and 'model = ""' in parameters.source
    parameters.source = f"home = {str(rooms.home.path)!r}\nmodel = 'birds'"
    move = "what_if.inputs['bill'].value = what_if.fields['bill'].span[1]"
    move += "\nprint(json.dumps(what_if.answer.difference(what_if.first)))"
    cells = ["import json\nbefore = what_if.result.value", move, "print(json.dumps([before, what_if.result.value]))"]
    book.cells += [new_code_cell(cell) for cell in cells]
    place = {"metadata": {"path": str(rooms.folder)}}
    NotebookClient(book, timeout=120, kernel_name="python3", resources=place).execute()
    difference = json.loads(book.cells[-2].outputs[0].text)
    assert max(abs(value) for value in difference.values()) > 0.05
    before, after = json.loads(book.cells[-1].outputs[0].text)
    assert before != after
    state = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    texts = [part["state"].get("value") for part in state.values() if part["model_name"] == "HTMLModel"]
    assert after in texts
