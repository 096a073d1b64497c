"""The lab: fields, answers, sweeps, tables, pictures, the page, and the notebook in a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from mlworkbench.contract.check import check_records
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.request import request_columns
from mlworkbench.errors import ContractError
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.lab.model.answers import draw_sweep, name_class, name_score, render_answer
from mlworkbench.lab.model.inputs import Input
from mlworkbench.lab.model.neighbours import find_nearest, gather_rows, measure_distances, render_neighbours
from mlworkbench.lab.model.record import MISSING, Field, Record, _make_blank, list_fields, start_record
from mlworkbench.lab.model.what_if import (
    Answer,
    Sweep,
    ask,
    explain_record,
    find_ages,
    list_positions,
    look_up_views,
    rank_by_reach,
    sweep,
)
from mlworkbench.lab.model.widgets import BY_HAND, LOOKED_UP, WhatIf
from mlworkbench.lab.page.show import render_table
from mlworkbench.scoring.frame import FeatureFrame
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
    assert Input(found, "Dream", lambda name: None).editor.options[1] == ("Dream", "Dream")


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


LATE = {
    "task": "binary",
    "classes": [0, 1],
    "positive": 1,
    "label": "late",
    "method": "predict_proba",
    "threshold": 0.3,
}
KINDS = {"task": "multiclass", "classes": ["x", "y"], "label": "kind", "method": "predict_proba"}


def test_a_class_is_named_in_words() -> None:
    assert [name_class(label, LATE) for label in (0, 1, False, True)] == ["not late", "late"] * 2
    numbered = {"task": "multiclass", "classes": [0, 1, 2], "label": "target"}
    assert name_class(2, numbered) == "target 2" and name_score("2", numbered) == "target 2"
    assert name_class("x", KINDS) == "x" and name_score("x", KINDS) == "x"
    assert name_class(1, {**LATE, "label": ""}) == "1"
    assert name_class(-1, {"task": "anomaly", "classes": [-1, 1], "label": ""}) == "anomaly"
    assert name_score("score", {"task": "regression", "classes": [], "label": "delay"}) == "delay"


def test_a_probability_is_said_in_per_cent_and_its_change_in_points() -> None:
    page = render_answer(Answer({"score": 0.315}, 1), Answer({"score": 0.2}, 0), LATE)
    assert all(part in page for part in (">late<", "31.5 %", "20.0 %", "+11.5 points", "late from 30.0 % on"))
    price = {"task": "regression", "classes": [], "label": "price", "method": "predict"}
    page = render_answer(Answer({"score": 1250.0}), Answer({"score": 1000.0}), price)
    assert ">1,250<" in page and "+250" in page and "%" not in page


@pytest.mark.parametrize("at", [5.0, None, 1e9, "odd"])
def test_a_sweep_is_drawn_wherever_the_record_stands(at: object) -> None:
    scores = np.linspace(0, 1, 20).reshape(10, 2)
    found = Sweep(Field(Column("a", "number"), span=(0.0, 9.0)), list(range(10)), scores, ("x", "y"))
    picture = draw_sweep(found, at, KINDS)
    assert picture == draw_sweep(found, at, KINDS)
    assert picture.count("<circle") == (2 if at == 5.0 else 0) and "probability, %" in picture


def test_the_present_choice_has_a_ring() -> None:
    field = Field(Column("a", "category"), choices=("x", None))
    found = Sweep(field, ["x", None], np.array([[0.1], [0.9]]), ("score",))
    assert "(missing)" in draw_sweep(found, None, LATE)
    assert [draw_sweep(found, at, LATE).count("<circle") for at in ("x", None, "other")] == [1, 1, 0]


def test_of_many_classes_those_are_drawn_that_move_most() -> None:
    scores = np.zeros((3, 9))
    scores[1, 7] = 1.0
    names = tuple("abcdefghi")
    found = Sweep(Field(Column("a", "number"), span=(0.0, 2.0)), [0, 1, 2], scores, names)
    picture = draw_sweep(found, 1, {**KINDS, "classes": list(names)})
    assert "h: 0 at 0, 100 at 1, 0 at 2" in picture and "and 3 more, not drawn" in picture


def test_text_is_escaped_wherever_it_comes_from() -> None:
    evil = "<script>alert(1)</script>"
    pages = [
        render_table([{evil: evil}]),
        render_answer(Answer({evil: 0.5}, evil, (evil,)), Answer({}), {**KINDS, "classes": [evil]}),
        render_answer(Answer({}, None, (evil,), True), Answer({}), KINDS),
    ]
    assert all(evil not in page and "&lt;script" in page for page in pages)


# ---- inputs


def test_a_slider_moves_the_field_and_the_field_may_leave_the_slider() -> None:
    calls: list[str] = []
    entry = Input(Field(Column("a", "number"), span=(0.0, 10.0)), 0.123456, lambda name: calls.append(name))
    assert entry.value == 0.123456
    entry.slider.value = 7.0
    assert entry.value == 7.0 and len(calls) == 1
    entry.editor.value = 99.0
    assert entry.value == 99.0 and entry.slider.value == 10.0 and len(calls) == 2


def test_a_value_can_be_missing_where_the_contract_allows_it() -> None:
    entry = Input(Field(Column("a", "number", nullable=True), span=(0.0, 10.0), typical=4.0), None, lambda name: None)
    assert entry.value is None and entry.editor.disabled
    entry.missing.value = False
    assert entry.value == entry.slider.value == 4.0 and not entry.editor.disabled
    assert Input(Field(Column("a", "number"), span=(0.0, 1.0)), 0.5, lambda name: None).missing is None
    entry = Input(Field(Column("a", "category", nullable=True), choices=("x", None)), "x", lambda name: None)
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
    entry = Input(Field(column, choices=tuple(choices)), value, lambda name: None)
    assert entry.value == value and type(entry.value) is type(value)
    entry.value = other
    assert entry.value == other and type(entry.value) is type(other)


def test_a_vector_that_is_no_list_is_handed_on_for_the_contract_to_refuse() -> None:
    entry = Input(Field(Column("a", "vector", size=2)), [1.0, 2.0], lambda name: None)
    entry.editor.value = "1, 2"
    assert entry.value == "1, 2"


# ---- the page


def test_a_change_of_a_widget_changes_answer_text_and_picture(rooms) -> None:
    page = WhatIf(rooms.open("birds"), rooms.home)
    before = (page.answer, page.shown.result.value, page.shown.curve.value)
    page.inputs["bill"].value = page.shown.fields["bill"].typical
    for end in page.shown.fields["bill"].span:
        page.inputs["bill"].slider.value = end
        assert page.answer == ask(page.version, page.record) and page.record.request["bill"] == end
    assert page.answer.decision == "Gentoo"
    assert page.answer != before[0] and page.shown.result.value != before[1] and page.shown.curve.value != before[2]
    assert page.first == before[0]


def test_the_page_opens_with_a_picture_of_the_field_that_matters_most(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    assert page.shown.along.value == "wind" and "Along wind" in page.shown.curve.value
    assert page.answer == page.first and "Nothing unusual" in page.shown.result.value


def test_another_golden_row_begins_anew_and_keeps_the_swept_field(rooms) -> None:
    page = WhatIf(rooms.open("birds"), rooms.home)
    page.shown.along.value = "island"
    page.row.value = 3
    assert page.record == start_record(page.version, 3) and page.first == page.answer
    assert page.shown.along.value == "island"


def test_a_refused_record_is_said_on_the_page_and_mends_again(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    page.inputs["distance"].value = -3.0
    said = page.shown.result.value
    assert page.answer.refused and "Refused" in said and "from 0 to 3000 miles" in said
    assert "svg" in page.shown.curve.value  # of the field itself, at values that are allowed
    page.shown.along.value = "wind"
    assert "sweep:" in page.shown.curve.value
    page.inputs["distance"].value = page.shown.fields["distance"].span[0]
    assert not page.answer.refused and "svg" in page.shown.curve.value


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
    assert page.answer.refused and "asked" in page.shown.result.value
    page.begin(0)
    assert page.record == start_record(page.version) and not page.answer.refused


def test_a_store_that_was_never_filled_is_said_on_the_page(rooms, tmp_path: Path) -> None:
    page = WhatIf(rooms.open("trips"), Home.open(tmp_path / "home"))
    page.source.value = LOOKED_UP
    assert page.answer.refused and "Refused" in page.shown.result.value


def test_the_curve_follows_the_field_that_was_moved_until_another_is_chosen(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    page.inputs["distance"].slider.value = 500.0
    assert page.shown.along.value == "distance" and "Along distance" in page.shown.curve.value
    page.shown.along.value = "wind"
    assert "Along wind" in page.shown.curve.value
    page.inputs["trip"].value = "T9"  # has nothing to sweep
    assert page.shown.along.value == "wind"
    page.inputs["wind"].missing.value = True
    assert page.record.values["wind"] is None and "<circle" not in page.shown.curve.value


MOVES = {
    "trips": {"trip": "T7", "origin": "LGA", "asked": "2013-10-01T13:00:00+00:00", "distance": 320.0, "wind": None,
              "sky": "fog", "landed": 3, "delay": 4.5},
    "birds": {"bill": 39.5, "island": "Dream", "ringed": True},
}  # fmt: skip


@pytest.mark.parametrize("model", MOVES)
def test_every_kind_of_input_moves_the_record_and_every_tab_follows(rooms, model: str) -> None:
    page = WhatIf(rooms.open(model), rooms.home)
    for name, value in MOVES[model].items():
        page.inputs[name].value = value
        assert {**page.record.request, **page.record.values}[name] == value
        assert page.answer == ask(page.version, page.record) and not page.answer.refused
        page.shown.tabs.selected_index = 1
        told = explain_record(page.version, page.record)
        assert told["reasons"][0]["column"] in page.shown.why.value
        page.shown.tabs.selected_index = 0


def test_values_of_the_store_are_greyed_and_each_view_says_its_age(rooms) -> None:
    page = WhatIf(rooms.open("trips"), rooms.home)
    assert not page.inputs["wind"].editor.disabled and "old" not in page.heads["weather"].value
    page.source.value = LOOKED_UP
    assert page.inputs["wind"].editor.disabled and page.inputs["wind"].missing.disabled
    assert not page.inputs["distance"].editor.disabled
    page.inputs["asked"].value = "2013-10-02T15:30:00+00:00"
    ages = find_ages(page.version, page.record, rooms.home.online)
    assert ages["weather"] == timedelta(minutes=90) and "newest row 90 min old" in page.heads["weather"].value
    page.inputs["asked"].value = "2001-01-01T00:00:00+00:00"
    assert "no row in the store" in page.heads["weather"].value
    page.source.value = BY_HAND
    assert not page.inputs["wind"].missing.disabled and "row" not in page.heads["weather"].value


# ---- the nearest training rows


def test_a_distance_counts_standard_deviations_categories_and_what_is_missing() -> None:
    columns = {"wind": np.array([0.0, 2.0, np.nan]), "sky": np.array(["fog", "clear", None], dtype=object)}
    columns |= {"place": np.array([[0.0, 5.0], [2.0, 5.0], [1.0, 5.0]]), "same": np.ones(3, dtype=np.int64)}
    rows = gather_rows(FeatureFrame(columns), np.array([0, 1, 1]))
    one = FeatureFrame({**{name: values[1:2] for name, values in columns.items()}, "same": np.array([9])})
    spread = np.sqrt(2 / 3)  # of the places; the second part of each is alike, and does not count
    first, second, third = measure_distances(rows, one).tolist()
    assert second == 0.0
    assert first == pytest.approx(np.sqrt((2.0**2 + 1 + (2 / spread) ** 2 / 2 + 0) / 4))
    assert third == pytest.approx(np.sqrt((1 + 1 + (1 / spread) ** 2 / 2 + 0) / 4))


def test_a_training_row_finds_itself_first_and_personal_columns_are_not_shown(rooms) -> None:
    version = rooms.open("birds")
    birds = pd.read_parquet(rooms.folder / "birds.parquet")
    frame = FeatureFrame({name: birds[name].to_numpy() for name in version.frame.names})
    rows = gather_rows(frame, np.array([f"kind {k}" for k in range(len(birds))], dtype=object))
    for row in (0, 9, 17):  # the bill of the first two is missing
        found = find_nearest(version, rows, frame.take([row]))
        assert found.distances[0] == 0.0 and found.distances == sorted(found.distances)
        assert found.frame.rows()[0] == frame.rows()[row]
        page = render_neighbours(found, frame.take([row]), version)
        assert found.labels[0] in page and "bill" in page and "this record" in page
    hidden = replace(version, declaration={**version.declaration, "personal": ["bill"]})
    assert "bill" not in render_neighbours(found, frame.take([17]), hidden)


def test_training_rows_that_are_nowhere_say_so_in_one_line(rooms) -> None:
    page = WhatIf(rooms.open("birds"), rooms.home)
    page.shown.tabs.selected_index = 2
    page.shown.reading.press()
    assert "no training rows of birds" in page.shown.reading.said and page.shown.nearest.value == ""
    assert "under [models] of settings.ini" in page.shown.reading.said
    assert not page.shown.reading.button.disabled


# ---- what is missing, and the real thing


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "from mlworkbench.errors import WorkbenchError\n"
        "try:\n    import mlworkbench.lab.model.widgets\nexcept WorkbenchError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "extra [lab]" in done.stdout and "pip install 'mlworkbench[lab]'" in done.stdout


@pytest.mark.system
def test_the_notebook_runs_in_a_kernel_and_a_moved_widget_moves_the_score(rooms) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert 'home = ""' in parameters.source and 'model = ""' in parameters.source
    parameters.source = f"home = {str(rooms.home.path)!r}\nmodel, version = 'birds', ''"
    move = "what_if = page.what_if\nwhat_if.inputs['bill'].value = what_if.shown.fields['bill'].span[1]"
    move += "\nprint(json.dumps(what_if.answer.difference(what_if.first)))"
    cells = [
        "import json\nbefore = page.what_if.shown.result.value",
        move,
        "print(json.dumps([before, what_if.shown.result.value]))",
    ]
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
