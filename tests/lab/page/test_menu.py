"""The explore page in four homes: after a demo, after `new` and `train`, registered only, empty."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlworkbench.cli.scaffold import write_workbench
from mlworkbench.core.home import Home
from mlworkbench.core.settings import extend_import_path, load_settings
from mlworkbench.errors import VersionError
from mlworkbench.lab.model.widgets import ModelPage
from mlworkbench.lab.page.frame import list_explorable
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import load_definition
from mlworkbench.scoring.registry.registry import Registry

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "explore" / "model.ipynb"
FREE = "no champion; newest version, it declares no gates"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a settings.ini of three definitions, as this repository has, and no home yet."""
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    names = "".join(f"{name} = mlworkbench.examples.{name}:{name}\n" for name in ("flights", "penguins", "diabetes"))
    (tmp_path / "settings.ini").write_text(f"[workbench]\nhome = .workbench\n[models]\n{names}")
    return tmp_path


def add(name: str, rows: int = 100) -> Registry:
    X, y = load_iris(return_X_y=True, as_frame=True)
    home = Home.open()
    register(LogisticRegression(max_iter=1000).fit(X[:rows], y[:rows]), X[:rows], y[:rows], name=name, home=home)
    return Registry(home)


def run_all() -> ModelPage:
    """Run the cells of the page one after the other, as Jupyter does with each as it is."""
    names: dict[str, object] = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, NOTEBOOK.name, "exec"), names)
    page = names["page"]
    assert isinstance(page, ModelPage)
    return page


def test_after_a_demo_the_champion_stands_first_and_definitions_without_a_version_are_left_out(place: Path) -> None:
    add("birds")
    registry = add("flights")
    registry.promote("flights", registry.find("flights"), who="test", why="first", override="a test")
    page = run_all()
    assert [label for label, _ in page.model_menu.options] == ["flights - champion", f"birds - {FREE}"]
    assert page.what_if is not None and page.what_if.version.model == "flights"
    assert page.answer is not None and not page.answer.refused
    page.model_menu.value = "birds"
    assert page.what_if.version.model == "birds" and page.asking.children == (page.what_if.panel,)
    assert "birds:" in page.about.value


def test_after_new_and_train_its_one_model_is_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workbench(place / "cars")
    monkeypatch.chdir(place / "cars")
    monkeypatch.delitem(sys.modules, "definition", raising=False)
    settings = load_settings()
    extend_import_path(settings)
    train(load_definition(settings.models["cars"]), home=Home.open())
    page = run_all()
    assert [label for label, _ in page.model_menu.options] == ["cars - newest that passed its gates"]
    assert page.what_if is not None
    monkeypatch.delitem(sys.modules, "definition", raising=False)


def test_where_models_are_registered_only_they_are_offered(place: Path) -> None:
    (place / "settings.ini").write_text("[workbench]\nhome = .workbench\n")
    add("birds")
    assert [one.label for one in list_explorable(Home.open())] == [f"birds - {FREE}"]
    assert run_all().what_if is not None


def test_an_empty_home_says_what_to_do(place: Path) -> None:
    page = run_all()
    assert "has a version yet: run mlworkbench train --model diabetes or" in page.about.value
    assert (page.menu.children, page.what_if, page.answer) == ((page.about,), None, None)
    (place / "settings.ini").write_text("[workbench]\nhome = .workbench\n")
    assert "run mlworkbench new DIR" in run_all().about.value


def test_a_version_that_cannot_be_opened_says_so_in_its_place(place: Path) -> None:
    add("birds")
    registry = add("lilies")
    (registry.folder("birds") / "card.md").write_text("altered")
    page = run_all()
    assert (
        "card.md was altered" in page.about.value
        and page.what_if is None
        and "no version is open" in page.asking.children[0].value
    )
    page.model_menu.value = "lilies"
    assert page.what_if is not None
    page.model_menu.value = "birds"
    assert page.what_if is None and page.answer is None


def test_a_name_without_a_version_is_refused_in_one_line(place: Path) -> None:
    add("birds")
    with pytest.raises(VersionError, match="brids has no version; did you mean 'birds'"):
        ModelPage(Home.open(), "brids")
    assert ModelPage(Home.open(), "birds").model_menu.value == "birds"
