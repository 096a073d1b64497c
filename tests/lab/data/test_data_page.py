"""The page of the tables: real rows in four homes, quarantine, edits with their effect, and a contract that is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import ipywidgets
import nbformat
import polars as pl
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlworkbench.cli.scaffold import write_workbench
from mlworkbench.contract.faults import WITHHELD
from mlworkbench.contract.file import read_revision
from mlworkbench.core.home import Home
from mlworkbench.core.settings import extend_import_path, load_settings
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import ContractError, IngestError
from mlworkbench.lab.data.drafts import keep_draft, open_draft
from mlworkbench.lab.data.edits import measure_effect, observe_rules, set_closed, set_state, to_columns
from mlworkbench.lab.data.profile import profile_rows, profile_values
from mlworkbench.lab.data.refusals import list_reasons, read_quarantine
from mlworkbench.lab.data.rules import FLAGS, LEFT_OUT, REFUSES, list_rules
from mlworkbench.lab.data.tables import Offer, list_offers, read_rows
from mlworkbench.lab.data.widgets import DataPage
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.definition import load_definition

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "explore" / "data.ipynb"
DEFINITION = """
import polars as pl
from sklearn.linear_model import LinearRegression
from mlworkbench import ModelDefinition
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.table import Table

CONTRACT = Contract(
    (
        Column("trip", "text"),
        Column("guest", "text", pseudonym=True),
        Column("phone", "text", nullable=True, personal=True),
        Column("origin", "category", categories=("JFK", "LGA"), closed=True),
        Column("delay", "number", nullable=True, lower=0, upper=60, unit="minutes"),
        Column("at", "time"),
    ),
    key=("trip",),
)
TRIPS = Table("trips", "trips.csv", CONTRACT, available_at="at", limit=0.5)
trips = ModelDefinition("trips", LinearRegression(), lambda lake: lake.read("trips"), "delay", tables=(TRIPS,))
"""


def write_trips(folder: Path, *, rows: int = 200) -> None:
    """Write trips of which every twentieth has a delay of 90 minutes, which the contract refuses."""
    frame = pl.DataFrame(
        {
            "trip": [f"T{k}" for k in range(rows)],
            "guest": [f"Ada {k % 7}" for k in range(rows)],
            "phone": [f"0123-{k}" for k in range(rows)],
            "origin": ["JFK" if k % 3 else "LGA" for k in range(rows)],
            "delay": [90.0 if k % 20 == 0 else float(k % 50) for k in range(rows)],
            "at": [f"2013-10-{1 + k % 28:02}T12:00:00+00:00" for k in range(rows)],
        }
    )
    frame.write_csv(folder / "trips.csv")


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
def trips(place: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with the table trips: 190 rows in the lake, 10 in quarantine."""
    (place / "settings.ini").write_text("[workbench]\nhome = .workbench\n[models]\ntrips = trips_of_a_test:trips\n")
    (place / "trips_of_a_test.py").write_text(DEFINITION)
    monkeypatch.delitem(sys.modules, "trips_of_a_test", raising=False)
    write_trips(place)
    extend_import_path(load_settings())
    home = Home.open()
    (table,) = load_definition("trips_of_a_test:trips").tables
    assert ingest(table, home=home).quarantined == 10
    return home


def run_all(**parameters: str) -> DataPage:
    """Run the cells of the page one after the other, as Jupyter does, with some parameters changed."""
    names: dict[str, object] = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, NOTEBOOK.name, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= parameters
    page = names["page"]
    assert isinstance(page, DataPage)
    return page


def texts(widget: object) -> str:
    """Join the markup that stands in a widget and in what is in it."""
    own = widget.value if isinstance(widget, ipywidgets.HTML) else ""
    return " ".join([own, *map(texts, getattr(widget, "children", ()))])


# ---- four homes


def test_the_page_shows_rows_profile_quarantine_and_rules_of_a_table_of_the_lake(trips: Home) -> None:
    page = run_all()
    assert [label for label, _ in page.choice.options] == ["trips - table of the lake"]
    assert "190 rows" in texts(page.menu) and "declared by the definition of model trips" in texts(page.menu)
    assert "minutes" in texts(page.profile) and "<svg" in texts(page.profile)
    assert "delay: from 0 to 60 minutes - 10 rows" in [
        label for label, _ in page.quarantine.children[0].children[0].options
    ]
    assert "would refuse 0 of 190 rows" in texts(page.rules)


def test_a_workbench_made_by_new_shows_the_rows_that_its_definition_brings_along(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "work"
    write_workbench(folder, name="mymodel")
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "definition", raising=False)
    page = run_all()
    assert [label for label, _ in page.choice.options] == ["mymodel - rows of the model's definition"]
    assert "150 rows" in texts(page.menu) and "petal_length" in texts(page.sample)
    assert page.editor is not None and "learned" in page.editor.draft.line
    monkeypatch.delitem(sys.modules, "definition", raising=False)


def test_a_registered_model_shows_the_rows_that_were_stored_beside_it(place: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    register(LogisticRegression(max_iter=1000).fit(X, y), X, y, name="birds", home=Home.open())
    page = run_all()
    assert "birds_rows: 150 rows" in texts(page.menu) and "newest version of model birds" in texts(page.menu)


def test_an_empty_home_says_what_to_do_and_shows_no_menu(place: Path) -> None:
    page = run_all()
    assert "has no table yet" in texts(page.menu) and "mlworkbench ingest" in texts(page.menu)
    assert page.menu.children == (page._about,) and page.editor is None and texts(page.sample).strip() == ""


def test_a_table_that_is_not_there_is_refused_with_the_nearest_name(trips: Home) -> None:
    with pytest.raises(IngestError, match="did you mean 'trips'"):
        run_all(table="tripz")


def test_a_file_of_its_own_is_learned_and_one_that_is_gone_is_one_line(place: Path) -> None:
    write_trips(place)
    page = run_all(data="trips.csv")
    assert page.editor is not None and page.editor.draft.declared is None
    gone = run_all(data="gone.csv")
    assert "gone.csv" in texts(gone.menu) and gone.editor is None and texts(gone.sample).strip() == ""


# ---- persons


def test_personal_values_stand_nowhere_and_persons_are_shown_by_pseudonym(trips: Home) -> None:
    page = run_all()
    whole = " ".join(texts(part) for part in (page.menu, page.sample, page.profile, page.quarantine, page.rules))
    assert "0123-" not in whole and "Ada" not in whole
    assert WITHHELD in texts(page.sample)


def test_names_from_outside_are_escaped_everywhere(place: Path) -> None:
    hostile = "<script>alert(1)</script>"
    frame = pl.DataFrame({hostile: [hostile, "b"] * 60, "x": [1.0, 2.0] * 60})
    frame.write_csv(place / "hostile.csv")
    page = run_all(data="hostile.csv")
    whole = " ".join(texts(part) for part in (page.menu, page.sample, page.profile, page.rules))
    assert "&lt;script&gt;" in whole
    assert "<script>" not in whole


# ---- profile


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("x", [], dtype=pl.Float64),
        pl.Series("x", [None, None], dtype=pl.String),
        pl.Series("x", [float("nan"), float("inf"), 1.0]),
        pl.Series("x", [5, 5, 5]),
        pl.Series("x", [1e300, -1e300]),
        pl.Series("x", [[1.0], [2.0]]),
        pl.Series("x", [True, None, False]),
        pl.Series("x", ["2013-10-01"]).str.to_date(),
    ],
    ids=["empty", "missing", "not finite", "equal", "huge", "lists", "truth", "dates"],
)
def test_every_column_has_a_profile_whose_counts_add_up(values: pl.Series) -> None:
    found = profile_values(values)
    assert found.rows == len(values)
    assert not len(found.counts) or found.counts.sum() == found.rows - found.missing
    assert sum(found.shares.values()) <= 1 + 1e-9


# ---- quarantine


def test_a_row_that_came_in_since_is_no_longer_waiting(trips: Home) -> None:
    lines = read_quarantine("trips", home=trips)
    (reason,) = list_reasons(lines)
    assert (reason.rows, reason.waiting) == (10, 10) and "ingest --table trips" in reason.advise("trips")
    one = lines.row(0, named=True)
    lake = Lake(trips.lake)
    row = lake.read("trips").head(1).with_columns(source=pl.lit(one["source"]), source_row=pl.lit(one["source_row"]))
    lake.append("trips", row.to_arrow())
    (reason,) = list_reasons(read_quarantine("trips", home=trips))
    assert (reason.rows, reason.waiting) == (10, 9)


# ---- edits


def test_a_tighter_bound_tells_how_many_rows_it_would_refuse_before_anything_is_kept(trips: Home, place: Path) -> None:
    editor = run_all().editor
    assert editor is not None
    editor.rule.value = "delay"
    assert (editor.lower.value, editor.upper.value, editor.state.value) == ("0", "60", REFUSES)
    editor.upper.value = "40"
    refused = Lake(trips.lake).read("trips").filter(pl.col("delay") > 40).height
    assert refused > 0 and f"would refuse {refused} of 190 rows (before: 0)" in texts(editor.panel)
    editor.state.value = FLAGS
    assert f"would refuse 0 of 190 rows (before: 0), flag {refused}" in texts(editor.panel)
    assert not (place / "contracts").exists()
    editor.begin()
    assert editor.contract == editor.draft.contract and editor.upper.value == "60"


def test_a_looser_bound_tells_which_rows_of_quarantine_would_come_in_where_personal_ones_stay_unknown(
    trips: Home,
) -> None:
    rows = read_rows(Offer("lake", "trips"), home=trips)
    columns, wrong = to_columns(rows)
    assert wrong == []
    before = rows.promise.contract
    assert before is not None
    records = read_quarantine("trips", home=trips)["record"].to_list()
    looser = before.edited("delay", upper=100)
    assert measure_effect(before, looser, columns, records).taken == 0, "the phone was not kept"
    plain = looser.select([name for name in looser.names if name not in ("phone", "guest")])
    assert measure_effect(before, plain, columns, records).taken == 10
    assert measure_effect(before, plain.edited("delay", upper=80), columns, records).taken == 0


def test_what_is_no_bound_is_one_line_and_leaves_the_contract_as_it_was(trips: Home) -> None:
    editor = run_all().editor
    assert editor is not None
    editor.rule.value = "delay"
    before = editor.contract
    for text, line in [("many", "a bound is a number"), ("-5", "lower is at most upper")]:
        editor.upper.value = text
        assert line in texts(editor.panel) and editor.contract == before
    assert editor.upper.value == "60"


def test_rules_that_were_seen_are_taken_over_loosened_and_left_out(place: Path) -> None:
    frame = pl.DataFrame({"dest": ["BOS", "MIA", "LAX"] * 100, "miles": [187.0, 1096.0, 2475.0] * 100})
    frame.write_csv(place / "routes.csv")
    rows = read_rows(Offer("file", "routes.csv"), home=Home.open())
    columns, _ = to_columns(rows)
    seen = observe_rules(rows, columns)
    name = "miles: as known for dest"
    states = {rule.name: rule.state for rule in list_rules(seen, seen)}
    assert states == {"dest": FLAGS, "miles": FLAGS, name: FLAGS}
    for state in (REFUSES, LEFT_OUT, FLAGS):
        contract = set_state(seen, seen, name, state)
        assert {rule.name: rule.state for rule in list_rules(contract, seen)}[name] == state
    bare = set_state(seen, seen, "miles", LEFT_OUT)
    assert bare.column("miles").upper is None
    assert set_state(bare, seen, "miles", REFUSES).column("miles").upper == seen.column("miles").upper
    closed = set_closed(set_state(seen, seen, "dest", LEFT_OUT), "dest", columns, closed=True)
    assert closed.column("dest").categories == ("BOS", "LAX", "MIA") and closed.column("dest").closed
    with pytest.raises(ContractError, match="no rule 'mile'"):
        set_state(seen, seen, "mile", FLAGS)


# ---- keeping


def test_a_contract_is_kept_with_who_and_why_and_the_page_says_that_the_definition_does_not_read_it(
    trips: Home, place: Path
) -> None:
    editor = run_all(who="Ada").editor
    assert editor is not None
    editor.rule.value = "delay"
    editor.upper.value = "120"
    editor.keep.press()
    assert "who changes a contract, and why" in editor.keep.said
    editor.why.value = "delays of two hours happen"
    editor.keep.press()
    kept = read_revision(place / "contracts" / "trips.json")
    assert kept.contract.column("delay").upper == 120
    assert [(entry["who"], entry["why"]) for entry in kept.history] == [("Ada", "delays of two hours happen")]
    assert "The definition does not read it yet" in editor.draft.line
    again = run_all().editor
    assert again is not None and again.draft.kept == kept and again.contract.column("delay").upper == 120
    again.keep.press()
    assert "nothing to keep" in again.keep.said


def test_of_two_who_edit_the_same_version_the_second_is_told_and_overwrites_nothing(trips: Home, place: Path) -> None:
    first, second = run_all(who="Ada").editor, run_all(who="Grace").editor
    assert first is not None and second is not None
    for editor, bound in ((first, "120"), (second, "90")):
        editor.rule.value, editor.why.value = "delay", "seen"
        editor.upper.value = bound
        editor.keep.press()
    assert "read it and edit again" in second.keep.said
    assert read_revision(place / "contracts" / "trips.json").contract.column("delay").upper == 120
    assert second.contract.column("delay").upper == 90, "the edit is not lost"


def test_a_file_that_cannot_be_written_or_is_no_contract_is_one_line(trips: Home, place: Path) -> None:
    rows = read_rows(list_offers(home=trips)[0], home=trips)
    contract = rows.promise.contract
    assert contract is not None
    (place / "contracts").write_text("a file where a folder should be")
    draft = open_draft(place / "contracts" / "trips.json", contract, contract)
    with pytest.raises(ContractError, match=r"cannot write trips\.json"):
        keep_draft(draft, contract, who="Ada", why="first")
    (place / "contracts").unlink()
    (place / "contracts").mkdir()
    (place / "contracts" / "trips.json").write_text("{}")
    page = run_all()
    assert page.editor is None and "no file of a contract" in texts(page.rules)
    assert "190" in texts(page.profile)


def test_a_profile_of_personal_columns_tells_only_how_many_are_missing(trips: Home) -> None:
    rows = read_rows(list_offers(home=trips)[0], home=trips)
    assert rows.promise.contract is not None
    phone = next(one for one in profile_rows(rows, rows.promise.contract) if one.name == "phone")
    assert (phone.kind, phone.different, phone.shares) == (WITHHELD, 0, {})
