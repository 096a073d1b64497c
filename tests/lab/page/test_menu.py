"""The explore page in four homes: after a demo, after `new` and `train`, registered only, empty."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import nbformat
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlworkbench.cli.scaffold import write_workbench
from mlworkbench.core.home import Home
from mlworkbench.core.settings import extend_import_path, load_settings
from mlworkbench.errors import VersionError
from mlworkbench.lab.model.widgets import ModelPage
from mlworkbench.lab.page.frame import Chosen, Page, list_explorable
from mlworkbench.lab.page.show import Busy
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
    """Register a model of that many rows; other rows are another version."""
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
    shown = page.what_if.shown
    shown.tabs.selected_index = 2
    shown.reading.press()  # the rows that taught it are made again, from the definition
    assert "what came of it" in shown.nearest.value and shown.reading.panel.layout.display == "none"
    before = shown.nearest.value
    numbers = [field for field in shown.fields.values() if field.span]
    page.what_if.inputs[numbers[0].name].value = numbers[0].span[1]
    assert shown.nearest.value != before
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


def test_versions_with_a_name_stand_first_then_the_newest(place: Path) -> None:
    registry = add("birds", 100)
    old = registry.find("birds")
    new = next(row["tag"] for row in add("birds", 150).versions("birds") if row["tag"] != old)
    registry.promote("birds", old, who="test", why="first", override="a test")
    day = registry.versions("birds")[0]["created_at"][:10]
    page = ModelPage(Home.open(), "birds")
    short = [tag.partition(":")[2][:8] for tag in (old, new)]
    assert list(page.version_menu.options) == [(f"champion {short[0]}, {day}", old), (f"{short[1]}, {day}", new)]
    assert page.chosen is not None and page.chosen.version.version == old and old in page.about.value
    page.version_menu.value = new
    assert page.what_if is not None and page.what_if.version.version == new and new in page.about.value
    assert page.answer is not None and len(page.answer.scores) == 3
    assert ModelPage(Home.open(), "birds", short[1]).version_menu.value == new
    with pytest.raises(VersionError, match="birds: one version, by alias, tag or first digits; got 'chamption'"):
        ModelPage(Home.open(), "birds", "chamption")


def test_parts_follow_the_menu_and_are_drawn_when_they_are_asked_for(place: Path) -> None:
    add("birds"), add("lilies")
    drawn: list[tuple[str, str]] = []

    def say(chosen: Chosen) -> str:
        drawn.append(("say", chosen.model))
        return f"<{chosen.model}>"

    def fail(chosen: Chosen) -> str:
        raise VersionError(f"{chosen.model}: a certificate; got none; certify it", code="an.example")

    page = Page({"say": say, "fail": fail}, Home.open())
    assert drawn == []
    assert page.say is page.part("say") and page.say.children[0].value == "&lt;birds&gt;"
    assert page.fail.children[0].value == "<p>birds: a certificate; got none; certify it</p>"
    page.model_menu.value = "lilies"
    assert drawn == [("say", "birds"), ("say", "lilies")] and page.say.children[0].value == "&lt;lilies&gt;"
    assert "lilies: a certificate" in page.fail.children[0].value
    with pytest.raises(AttributeError, match="no part 'sya'; it has say, fail"):
        page.sya  # noqa: B018


def test_a_button_works_once_at_a_time_and_says_a_mistake_in_one_line() -> None:
    seen: list[bool] = []

    def work() -> list[str]:
        seen.append(busy.button.disabled)
        if len(seen) == 2:
            raise VersionError("birds: a certificate; got <none>", code="an.example")
        return ["12 rows", "<b>"]

    busy = Busy("count the rows", work)
    busy.button.click()
    assert seen == [True] and not busy.button.disabled and busy.said == "12 rows&lt;b&gt;"
    busy.button.click()
    assert busy.said == "<p>birds: a certificate; got &lt;none&gt;</p>" and not busy.button.disabled


@pytest.mark.system
def test_the_page_is_served_without_code_by_voila(place: Path) -> None:
    pytest.importorskip("voila", reason="voila is not installed: pip install 'mlworkbench[lab]'")
    add("birds")
    shutil.copy(NOTEBOOK, place / "model.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", "model.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOK.parents[2])}
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as run:
        try:
            page = read_page(f"http://127.0.0.1:{port}/", run)
        finally:
            run.terminate()
            run.communicate(timeout=30)
    assert "Explore a model" in page and page.count("application/vnd.jupyter.widget-view+json") == 2
    assert "open_model(" not in page and "skip_exec" not in page


def read_page(address: str, run: subprocess.Popen[bytes]) -> str:
    """Wait until a server answers, at most a minute, and read its page."""
    for _ in range(300):
        assert run.poll() is None, run.stderr and run.stderr.read()
        try:
            return httpx.get(address, timeout=60).text
        except httpx.ConnectError:
            time.sleep(0.2)
    raise AssertionError("voila does not answer")
