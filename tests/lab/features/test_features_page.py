"""The page of the features: catalogue, one entity through time, and both checks, in four homes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ipywidgets
import nbformat
import polars as pl
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlworkbench.cli.scaffold import write_workbench
from mlworkbench.contract.pseudonym import is_pseudonym
from mlworkbench.core.home import Home
from mlworkbench.core.settings import extend_import_path, load_settings
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import DefinitionError, FeatureError
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Recent, Total, View, WindowView
from mlworkbench.lab.features.catalogue import describe_output, find_unit, list_features, write_formula
from mlworkbench.lab.features.checks import check_model_views, find_model_leaks
from mlworkbench.lab.features.history import list_freshness, list_keys, read_history, read_key
from mlworkbench.lab.features.widgets import FeaturesPage, draw_history
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import load_definition
from mlworkbench.scoring.registry.registry import Registry

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "explore" / "features.ipynb"
DEFINITION = '''
from datetime import timedelta

import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.impute import SimpleImputer

from mlworkbench import ModelDefinition
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.table import Table
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView, Total, WindowView

STAYS = Table(
    "stays",
    "stays.csv",
    Contract(
        (
            Column("guest", "text", pseudonym=True),
            Column("cost", "number", lower=0, unit="euros"),
            Column("at", "time"),
        )
    ),
    available_at="at",
)
BOOKINGS = Table(
    "bookings",
    "bookings.csv",
    Contract(
        (
            Column("booking", "text"),
            Column("guest", "text", pseudonym=True),
            Column("nights", "integer", lower=1, unit="nights"),
            Column("asked", "time"),
            Column("spent", "number", unit="euros"),
        ),
        key=("booking",),
    ),
    available_at="asked",
)


def square(nights):
    """The square of the nights."""
    return {"nights_squared": nights.astype(np.float64) ** 2}


VIEWS = (
    AsOfView("last_stay", "stays", ("guest",), {"cost": "number"}),
    WindowView("month", "stays", ("guest",), timedelta(days=30), {"visits": Total("count")}),
    RowFunction(square),
)
bookings = ModelDefinition(
    "bookings",
    make_pipeline(SimpleImputer(), LinearRegression()),
    lambda lake: lake.read("bookings", columns=["booking", "guest", "nights", "asked", "spent"]),
    "spent",
    entity=("booking",),
    prediction_time="asked",
    views=VIEWS,
    tables=(STAYS, BOOKINGS),
    personal=("guest",),
)
'''
NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a settings.ini of no model, and no home yet."""
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = .workbench\n[models]\n")
    return tmp_path


@pytest.fixture
def bookings(place: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with the model bookings: trained, its views materialized; its guests are persons."""
    lines = "[workbench]\nhome = .workbench\n[models]\nbookings = bookings_of_a_test:bookings\n"
    (place / "settings.ini").write_text(lines)
    (place / "bookings_of_a_test.py").write_text(DEFINITION)
    monkeypatch.delitem(sys.modules, "bookings_of_a_test", raising=False)
    guests = [f"Ada {k % 6}" for k in range(240)]
    stays = [(NOON + timedelta(hours=7 * k)).isoformat() for k in range(240)]
    asked = [(NOON + timedelta(hours=7 * k + 3)).isoformat() for k in range(240)]
    cost, nights = [float(20 + k % 11) for k in range(240)], [1 + k % 5 for k in range(240)]
    pl.DataFrame({"guest": guests, "cost": cost, "at": stays}).write_csv(place / "stays.csv")
    rows = {"booking": [f"B{k}" for k in range(240)], "guest": guests, "nights": nights, "asked": asked}
    spent = [c * n for c, n in zip(cost, nights, strict=True)]
    pl.DataFrame({**rows, "spent": spent}).write_csv(place / "bookings.csv")
    extend_import_path(load_settings())
    home, definition = Home.open(), load_definition("bookings_of_a_test:bookings")
    for table in definition.tables:
        assert ingest(table, home=home).quarantined == 0
    train(definition, home=home)
    fill(home)
    return home


def fill(home: Home) -> None:
    views = Registry(home).open("bookings").views
    with OnlineStore(home.online) as store:
        materialize(views, Lake(home.lake), store)


def run_all() -> FeaturesPage:
    """Run the cells of the page one after the other, as Jupyter does."""
    names: dict[str, object] = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, NOTEBOOK.name, "exec"), names)
    page = names["page"]
    assert isinstance(page, FeaturesPage)
    return page


def texts(widget: object) -> str:
    """Join the markup that stands in a widget and in what is in it."""
    own = widget.value if isinstance(widget, ipywidgets.HTML) else ""
    return " ".join([own, *map(texts, getattr(widget, "children", ()))])


# ---- four homes


def test_the_page_tells_of_each_feature_what_it_is_and_follows_an_entity(bookings: Home) -> None:
    page = run_all()
    catalogue = texts(page.catalogue)
    for words in ("cost of the newest row of stays for the guest", "euros", "number of rows in the 30 d before"):
        assert words in catalogue
    assert "row function square of nights" in catalogue and "The square of the nights." in catalogue
    assert "last_stay" in texts(page.freshness) and "behind the lake" in texts(page.freshness)
    assert page.entity is not None and page.entity.history is not None
    (buttons,) = page.entity.examples.children
    buttons.children[1].click()
    assert page.entity.fields["guest"].value == buttons.children[1].description
    assert "the same in lake and online store" in texts(page.history)
    assert "Ada" not in " ".join(texts(page.part(name)) for name in ("catalogue", "freshness", "history", "checks"))


def test_the_code_of_a_row_function_is_that_of_the_version_not_of_the_module(bookings: Home, place: Path) -> None:
    (place / "bookings_of_a_test.py").write_text(DEFINITION.replace("** 2", "** 3"))
    found = {one.name: one for one in list_features(Registry(bookings).open("bookings"), home=bookings)}
    assert "** 2" in found["nights_squared"].formula and found["nights"].source == "request"
    assert all(one.importance is not None and one.importance[1] <= one.importance[0] for one in found.values())


def test_another_model_that_reads_the_same_output_is_named(bookings: Home, place: Path) -> None:
    (place / "other_of_a_test.py").write_text(
        DEFINITION.replace('"bookings",\n    make_pipeline', '"other",\n    make_pipeline')
    )
    train(load_definition("other_of_a_test:bookings"), home=bookings)
    found = {one.name: one.used_by for one in list_features(Registry(bookings).open("bookings"), home=bookings)}
    assert found == dict.fromkeys(found, ("other",))
    sys.modules.pop("other_of_a_test")


def test_a_workbench_made_by_new_shows_features_of_the_request_and_says_that_there_are_no_views(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_workbench(place / "cars")
    monkeypatch.chdir(place / "cars")
    monkeypatch.delitem(sys.modules, "definition", raising=False)
    extend_import_path(load_settings())
    train(load_definition("definition:cars"), home=Home.open())
    page = run_all()
    assert "sent with the request" in texts(page.catalogue) and "has no views" in texts(page.history)
    assert page.entity is None and "has no views" in texts(page.freshness)
    monkeypatch.delitem(sys.modules, "definition", raising=False)


def test_a_registered_model_has_a_catalogue_and_says_that_checks_need_a_definition(place: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    register(LogisticRegression(max_iter=1000).fit(X, y), X, y, name="birds", home=Home.open())
    page = run_all()
    assert "petal width" in texts(page.catalogue) and "<svg" in texts(page.importance)
    button = page.checks.children[0].children[0]
    button.click()
    assert "was registered as a fitted pipeline and has no definition" in texts(page.checks)


def test_an_empty_home_says_what_to_do_and_shows_no_empty_menu(place: Path) -> None:
    page = run_all()
    assert "has a version yet" in texts(page.menu) and len(page.menu.children) == 1
    assert "Nothing to show" in texts(page.catalogue)


# ---- one entity


def test_keys_are_offered_by_pseudonym_and_a_name_that_is_written_becomes_one(bookings: Home) -> None:
    version = Registry(bookings).open("bookings")
    view = version.views[0]
    keys = list_keys(view, home=bookings, persons=("guest",))
    assert len(keys) == 6 and all(is_pseudonym(key["guest"]) for key in keys)
    written = read_key(view, {"guest": "Ada 1"}, version=version, home=bookings)
    assert written in keys
    assert read_key(view, keys[0], version=version, home=bookings) == keys[0]


def test_a_table_that_still_holds_plain_names_offers_none_of_them(bookings: Home) -> None:
    plain = pl.DataFrame({"guest": ["Ada"], "cost": [1.0], "available_at": [NOON]})
    Lake(bookings.lake).append("plain", plain.with_columns(pl.col("available_at").dt.cast_time_unit("us")).to_arrow())
    view = AsOfView("last", "plain", ("guest",), ("cost",))
    assert list_keys(view, home=bookings, persons=("guest",)) == []
    assert list_keys(view, home=bookings) == [{"guest": "Ada"}]


@pytest.mark.parametrize("name", ["last_stay", "month"])
def test_lake_and_store_are_asked_at_the_same_times_and_a_late_row_is_told(bookings: Home, name: str) -> None:
    version = Registry(bookings).open("bookings")
    view = next(view for view in version.views if view.name == name)
    key = list_keys(view, home=bookings, persons=("guest",))[0]
    found = read_history(view, key, home=bookings)
    assert found.check is not None and found.check.mismatches == 0 and found.lake == found.store
    assert found.lake[view.outputs[0]][-1] is not None
    lake = Lake(bookings.lake)
    lake.append("stays", lake.read("stays").head(1).with_columns(source=pl.lit("late")).to_arrow())
    again = read_history(view, key, home=bookings) if name == "month" else None
    assert again is None or "1 lake versions behind" in again.line


def test_a_row_that_was_altered_in_the_store_is_found_with_view_column_and_time(bookings: Home) -> None:
    view = Registry(bookings).open("bookings").views[0]
    key = list_keys(view, home=bookings)[0]
    with OnlineStore(bookings.online) as store:
        text, moment, _ = next(row for row in store.stored(view) if key["guest"] in row[0])
        store.put(view, [(text, moment, "[999.0]")])
    line = read_history(view, key, home=bookings, personal=frozenset({"guest"})).line
    assert "differ" in line and "'cost'" in line and "999" in line and key["guest"] not in line


def test_without_a_store_the_lake_alone_is_shown_and_the_way_to_one_is_told(bookings: Home) -> None:
    bookings.online.unlink()
    view = Registry(bookings).open("bookings").views[0]
    found = read_history(view, list_keys(view, home=bookings)[0], home=bookings)
    assert found.store == {} and "mlworkbench features materialize" in found.line
    assert list_freshness(Registry(bookings).open("bookings"), home=bookings, now=0) == []


def test_a_key_that_is_missing_unknown_or_of_another_type_is_one_line(bookings: Home) -> None:
    page = run_all()
    assert page.entity is not None and page.history is not None
    for text, line in [("", "a value; got none"), ("<b>nobody</b>", "has no row of")]:
        page.entity.fields["guest"].value = text
        shown = texts(page.history)
        assert line in shown and "<b>nobody" not in shown and page.entity.history is None
    numbers = pl.DataFrame({"room": [1], "open": [True], "x": [1.0], "available_at": [NOON]})
    Lake(bookings.lake).append("rooms", numbers.with_columns(pl.col("available_at").dt.cast_time_unit("us")).to_arrow())
    view, version = AsOfView("r", "rooms", ("room", "open"), ("x",)), Registry(bookings).open("bookings")
    assert read_key(view, {"room": " 1 ", "open": "True"}, version=version, home=bookings) == {"room": 1, "open": True}
    for wrong in ({"room": "one", "open": "true"}, {"room": "1", "open": "yes"}):
        with pytest.raises(FeatureError, match="correct it"):
            read_key(view, wrong, version=version, home=bookings)


def test_another_span_and_another_value_are_drawn_again(bookings: Home) -> None:
    page = run_all()
    assert page.history is not None and page.entity is not None
    page.entity.view.value = "month"
    assert page.entity.value.value == "visits" and page.entity.history is not None
    times = page.entity.history.times
    page.entity.span.value = "a day"
    assert page.entity.history.times[-1] - page.entity.history.times[0] < times[-1] - times[0]
    assert "<svg" in texts(page.history)


# ---- words


@pytest.mark.parametrize(
    ("view", "words", "unit"),
    [
        (AsOfView("w", "weather", (), {"sky": "category"}), "sky of the newest row of weather", ""),
        (WindowView("w", "t", ("a", "b"), timedelta(hours=3), {"x": Total("count")}), "number of rows in", "rows"),
        (
            WindowView("w", "t", ("a",), timedelta(days=2), {"x": Total("share", "late")}),
            "share of rows with late",
            "0 to 1",
        ),
        (WindowView("w", "t", ("a",), timedelta(days=2), {"x": Recent("time_since_last")}), "time since", "seconds"),
        (WindowView("w", "t", ("a",), timedelta(days=2), {"x": Recent("max", "d")}), "largest d of", ""),
    ],
)
def test_a_view_is_told_in_words_and_as_a_formula(view: View, words: str, unit: str) -> None:
    (name,) = view.outputs
    assert words in describe_output(view, name) and view.table in describe_output(view, name)
    assert find_unit(view, name, {}) == unit
    assert view.name in write_formula(view, name)


# ---- both checks


def test_both_checks_are_those_of_the_command_line(bookings: Home) -> None:
    found = check_model_views("bookings", home=bookings)
    assert (found.rows, found.mismatches) == (240, 0)
    assert find_model_leaks("bookings", home=bookings).model == "bookings"
    with pytest.raises(DefinitionError, match="unknown model"):
        check_model_views("nobody", home=bookings)
    bookings.online.unlink()
    with pytest.raises(FeatureError, match="materialize"):
        check_model_views("bookings", home=bookings)


def test_words_over_time_are_a_table_of_when_they_changed(bookings: Home) -> None:
    rows = pl.DataFrame({"sky": ["clear", "rain"], "available_at": [NOON, NOON + timedelta(hours=5)]})
    Lake(bookings.lake).append("sky", rows.with_columns(pl.col("available_at").dt.cast_time_unit("us")).to_arrow())
    view = AsOfView("sky", "sky", (), {"sky": "category"})
    with OnlineStore(bookings.online) as store:
        materialize([view], Lake(bookings.lake), store)
    shown = draw_history(read_history(view, {}, home=bookings), "sky")
    assert isinstance(shown, ipywidgets.HTML)
    assert shown.value.count("<td") == 6 and "rain" in shown.value
