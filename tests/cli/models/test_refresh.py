"""`mlworkbench new --refresh`: old copies are written again, what a person edited is kept, `doctor` says when."""

import json

import pytest

from mlworkbench.cli import scaffold
from mlworkbench.cli.scaffold import STAMP, find_old_copies, read_copies, refresh_workbench, write_workbench

NAME = "runs/evaluate.ipynb"


@pytest.fixture
def newer(monkeypatch):
    """A package whose run notebook and service moved on since a workbench was made."""
    now = read_copies()

    def later():
        return {**now, NAME: now[NAME] + "\n", "service/service.py": now["service/service.py"] + "# moved on\n"}

    def turn():
        monkeypatch.setattr(scaffold, "read_copies", later)
        return later()

    return turn


def found(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def state(facts):
    return next(row for row in facts("doctor")["findings"] if row["check"] == "copies")


def test_a_new_workbench_is_not_old_and_a_refresh_changes_nothing(workbench, facts):
    before = {path: (workbench / path).read_bytes() for path in found(workbench)}
    assert state(facts)["state"] == "ok"
    told = facts("new", "--refresh")
    assert (told["files"], told["kept"]) == ([], [])
    after = {path: (workbench / path).read_bytes() for path in found(workbench) if "__pycache__" not in path}
    assert {path: text for path, text in after.items() if path != STAMP} == {
        path: text for path, text in before.items() if path != STAMP
    }


def test_a_copy_that_nobody_edited_is_written_again_without_a_second_one(workbench, facts, newer):
    texts = newer()
    assert state(facts)["found"] == "old: runs/evaluate.ipynb, service/service.py"
    assert "new . --refresh" in state(facts)["way_out"]
    told = facts("new", workbench, "--refresh")
    assert (told["files"], told["kept"]) == ([NAME, "service/service.py"], [])
    assert (workbench / NAME).read_text() == texts[NAME]
    assert state(facts)["state"] == "ok" and not [path for path in found(workbench) if ".orig" in path]


def test_an_edit_is_kept_beside_and_a_second_one_too(workbench, facts, tell, newer):
    (workbench / NAME).write_text("mine")
    assert state(facts)["state"] == "ok"  # edited, and no older than the package
    texts = newer()
    code, out, _ = tell("new", "--refresh")
    assert code == 0 and f"edits kept in {NAME}.orig" in out
    assert ((workbench / NAME).read_text(), (workbench / f"{NAME}.orig").read_text()) == (texts[NAME], "mine")
    (workbench / NAME).write_text("mine again")
    (workbench / STAMP).unlink()
    assert facts("new", "--refresh")["kept"] == [f"{NAME}.orig1"]
    assert (workbench / f"{NAME}.orig").read_text() == "mine"
    assert (workbench / f"{NAME}.orig1").read_text() == "mine again"
    assert find_old_copies(workbench) == {}


@pytest.mark.parametrize("stamp", [None, "", "[]", '{"copies": 3}', '{"copies": {"runs/evaluate.ipynb": 7}}'], ids=str)
def test_without_a_note_of_what_was_written_whatever_differs_is_old_and_kept(workbench, facts, newer, stamp):
    (workbench / STAMP).unlink()
    if stamp is not None:
        (workbench / STAMP).write_text(stamp)
    texts = newer()
    told = facts("new", "--refresh")
    assert told["kept"] == [f"{path}.orig" for path in (NAME, "service/service.py")]
    assert (workbench / NAME).read_text() == texts[NAME]
    assert json.loads((workbench / STAMP).read_text())["copies"].keys() == texts.keys()


def test_a_refresh_that_was_cut_off_is_finished_by_the_next_one(workbench, newer):
    (workbench / NAME).write_text("mine")
    texts = newer()
    (workbench / f"{NAME}.orig").write_text("mine")  # kept, and killed before the new one was there
    written, kept = refresh_workbench(workbench)
    assert (written, kept) == ([NAME, "service/service.py"], [f"{NAME}.orig"])
    assert (workbench / f"{NAME}.orig").read_text() == "mine" and (workbench / NAME).read_text() == texts[NAME]


def test_a_folder_that_was_removed_stays_removed_and_a_page_that_was_copied_is_refreshed(workbench, facts):
    import shutil

    shutil.rmtree(workbench / "service")
    (workbench / "explore" / "model.ipynb").write_text("an old page")
    (workbench / STAMP).unlink()
    told = facts("new", "--refresh")
    assert (told["files"], told["kept"]) == (["explore/model.ipynb"], ["explore/model.ipynb.orig"])
    assert not (workbench / "service").exists()


def test_a_run_notebook_that_was_deleted_stays_deleted_until_it_moves_on(workbench, facts, newer):
    (workbench / NAME).unlink()
    assert facts("new", "--refresh")["files"] == []
    newer()
    assert NAME in facts("new", "--refresh")["files"]


def test_settings_definition_and_tests_are_never_touched(workbench, facts, newer):
    own = ("settings.ini", "definition.py", "definition.ipynb", "tests/test_cars.py", "README.md")
    before = {name: (workbench / name).read_bytes() for name in own}
    newer()
    facts("new", "--refresh")
    assert {name: (workbench / name).read_bytes() for name in own} == before


def test_a_folder_that_is_no_workbench_is_refused(clean, tell):
    code, _, err = tell("new", clean, "--refresh")
    assert code == 2 and "holds no settings.ini" in err and err.count("\n") == 1
    assert list(clean.iterdir()) == []


def test_no_copy_holds_the_name_that_a_new_workbench_replaces():
    assert not [path for path, text in read_copies().items() if scaffold.SAMPLE in text]


def test_a_workbench_in_the_current_empty_folder(clean, monkeypatch, facts):
    (clean / "cars").mkdir()
    monkeypatch.chdir(clean / "cars")
    assert facts("new")["model"] == "cars"
    assert write_workbench(clean / "vans")[0] == "vans"
