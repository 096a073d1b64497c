"""Two versions side by side: what differs, what they answer differently, and the decision which one serves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from mlworkbench.cli.scaffold import write_workbench
from mlworkbench.core.home import Home
from mlworkbench.core.settings import extend_import_path, load_settings
from mlworkbench.errors import RefusedError, VersionError
from mlworkbench.lab.versions.answers import draw_curves, list_changed_rows, list_metric_rows
from mlworkbench.lab.versions.differences import compare_code, compare_facts, compare_pipelines, list_contract_changes
from mlworkbench.lab.versions.widgets import VersionsPage
from mlworkbench.operate.loop.compare import find_comparison
from mlworkbench.operate.loop.promotion import promote_version
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import load_definition
from mlworkbench.scoring.registry.registry import Registry

from ..conftest import late_rows, read_widget, run_notebook

PARTS = ("beside", "comparison", "metrics", "curves", "changed", "differences", "history", "promote")


def compared(home: Home) -> VersionsPage:
    """Open the page and press the button that compares."""
    page = VersionsPage(home)
    for name in PARTS:
        page.part(name)
    page.part("comparison").children[-1].children[0].click()
    return page


def list_compared(home: Home) -> list[str]:
    """Give the champion, which the page begins with, and the other one."""
    found = sorted(Registry(home).versions("late"), key=lambda one: not one["aliases"])
    return [one["tag"] for one in found]


def test_both_are_asked_once_and_what_they_answered_is_found_again(late: Home) -> None:
    page = VersionsPage(late)
    assert "Not compared yet" in read_widget(page.part("changed")) and "Not compared yet" in read_widget(
        page.part("curves")
    )
    page = compared(late)
    tags = list_compared(late)
    found = find_comparison(*tags, home=late)
    assert found is not None and found.facts["rows"] == 300 and len(found.answers["row"]) == 300
    apart = [row["difference"] for row in found.changed]
    assert apart == sorted(apart, reverse=True) and apart[0] == pytest.approx(found.facts["scores"]["largest"])
    again = VersionsPage(late)
    shown = read_widget(again.part("comparison"))
    assert "Both were asked the same 300 rows" in shown and "Compare both again" in shown
    assert find_comparison(*reversed(tags), home=late) is None


def test_every_part_shows_its_values(late: Home) -> None:
    page = compared(late)
    shown = {name: read_widget(page.part(name)) for name in PARTS}
    assert "rows, fingerprint" in shown["beside"] and "differs" in shown["beside"]
    assert "same rows" in shown["metrics"] and "roc auc" in shown["metrics"]
    assert shown["curves"].count("<svg") + shown["curves"].count("<img") >= 4
    assert "distance" in shown["changed"] and "wind" in shown["changed"]
    assert "a test" in shown["history"] and "test" in shown["history"]
    assert not any("Traceback" in text for text in shown.values())


def test_an_unreadable_comparison_is_passed_over(late: Home) -> None:
    compared(late)
    tags = list_compared(late)
    kept = late.model("late") / "comparisons"
    for number, text in enumerate(("", "[]", '{"facts": {}}', '{"facts": 3, "answers": {}, "changed": []}')):
        (kept / f"9999-{number}.json").write_text(text)
    found = find_comparison(*tags, home=late)
    assert found is not None and found.page.is_file()


def test_a_champion_without_a_certificate_is_refused_in_one_line_and_nothing_is_moved(late: Home) -> None:
    page = VersionsPage(late)
    page.part("promote")
    form, before = page.form, Registry(late).champion("late")
    form.ask.press()
    assert "why: a few words" in form.ask.said
    form.why.value = "it is newer"
    form.ask.press()
    assert "becomes champion of late in place of" in form.ask.said and Registry(late).champion("late") == before
    form.confirm.press()
    assert "a champion has a certificate of" in form.confirm.said and "Traceback" not in form.confirm.said
    assert Registry(late).champion("late") == before


def test_a_gate_that_failed_refuses_the_page_as_it_refuses_the_command(late: Home) -> None:
    tag = next(one["tag"] for one in Registry(late).versions("late") if not one["aliases"])
    file = Registry(late).folder("late", tag) / "manifest.json"
    manifest = json.loads(file.read_text())
    file.chmod(0o644)
    file.write_text(json.dumps({**manifest, "verdict": "fail"}))
    page = VersionsPage(late)
    page.part("promote")
    page.form.why.value = page.form.override.value = "all the same"
    page.form.which.value = tag
    page.form.confirm.press()
    with pytest.raises((RefusedError, VersionError)) as refused:
        promote_version("late", tag, who="me", why="all the same", home=late, override="all the same")
    assert str(refused.value)[:60] in page.form.confirm.said.replace("&#39;", "'")


def test_with_a_reason_to_do_without_it_is_promoted_and_the_page_says_so(late: Home) -> None:
    page = VersionsPage(late)
    page.part("history"), page.part("promote")
    page.form.who.value, page.form.why.value, page.form.override.value = "Ada", "better in June", "a first look"
    wanted = page.form.which.value
    page.form.confirm.press()
    assert Registry(late).champion("late") == wanted
    last = Registry(late).history("late")[-1]
    assert (last["who"], last["why"], last["basis"]) == ("Ada", "better in June", "override: a first look")
    assert "champion of late" in read_widget(page.part("promote")) and "better in June" in read_widget(
        page.part("history")
    )


def test_versions_of_one_kind_of_rows_differ_in_what_was_changed_alone(late: Home) -> None:
    rows, labels = late_rows()
    tag = register(LogisticRegression(C=0.5).fit(rows, labels), rows, labels, name="late", home=late).tag
    first, second = (Registry(late).open("late", ref) for ref in ("champion", tag))
    assert [row[""] for row in compare_facts(first, second) if row["compared"] == "differs" and "hash" in row[""]] == [
        "pipeline, hash"
    ]
    assert list_contract_changes(first, second) == [] and compare_code(first, second) == {}
    assert "+LogisticRegression(C=0.5" in compare_pipelines(first, second) and compare_pipelines(first, first) == ""


def test_the_second_menu_follows_the_first_and_leads_all_parts(late: Home) -> None:
    page = VersionsPage(late)
    first = read_widget(page.part("beside"))
    tags = {one["tag"] for one in Registry(late).versions("late")}
    assert page.chosen is not None and {page.chosen.version.version, page.other_menu.value} == tags
    page.version_menu.value = page.other_menu.value
    assert {page.chosen.version.version, page.other_menu.value} == tags and read_widget(page.part("beside")) != first


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_each_task_has_its_own_curves(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    home, (rows, _) = Home.open(), late_rows(120)
    sums = rows["distance"] + rows["wind"]
    labels = (
        sums if task == "regression" else pd.cut(sums, [-1, 20, 40, 99], labels=["low", "middle", "high"]).astype(str)
    )
    model = LinearRegression if task == "regression" else LogisticRegression
    for count in (120, 40):
        fitted = model().fit(rows[:count], labels[:count])
        register(fitted, rows, labels.rename("y"), name="m", home=home)
    page = VersionsPage(home)
    page.part("comparison").children[-1].children[0].click()
    found = find_comparison(page.chosen.version.version, page.other_menu.value, home=home)
    assert found is not None
    drawn = "".join(map(str, draw_curves(found, page.chosen.version.declaration)))
    assert ("What is left over" in drawn) if task == "regression" else ("taken for middle" in drawn)
    assert list_metric_rows(page.chosen.version, page.chosen.version, found) and list_changed_rows(
        found, page.chosen.version
    )


def test_one_version_alone_says_how_a_second_one_comes(rooms) -> None:
    page = VersionsPage(rooms.home, "birds")
    assert "has one version, nothing to hold it against" in read_widget(page.part("beside"))
    assert "champion already" in read_widget(page.part("promote"))


@pytest.mark.parametrize("name", ["versions", "monitor", "certificate"])
def test_the_notebooks_run_in_a_home_with_a_model_and_in_an_empty_one(
    name: str, late: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = run_notebook(name)["page"]
    assert page.chosen is not None and page.chosen.model == "late"
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "empty"))
    empty = run_notebook(name)["page"]
    assert empty.chosen is None and "has a version yet: run" in read_widget(empty.menu)


def test_after_new_and_train_every_part_of_the_three_pages_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write_workbench(tmp_path / "cars")
    monkeypatch.chdir(tmp_path / "cars")
    monkeypatch.delitem(sys.modules, "definition", raising=False)
    settings = load_settings()
    extend_import_path(settings)
    train(load_definition(settings.models["cars"]), home=Home.open())
    for name in ("versions", "monitor", "certificate"):
        page = run_notebook(name)["page"]
        shown = {part: read_widget(page.part(part)) for part in page._parts}
        assert page.chosen is not None and page.chosen.model == "cars"
        assert all(text.strip() for text in shown.values()), shown
    monkeypatch.delitem(sys.modules, "definition", raising=False)
