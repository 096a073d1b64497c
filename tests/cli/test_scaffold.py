import ast
import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from mlworkbench.cli.app import COMMANDS as COMMANDS_OF_APP
from mlworkbench.cli.scaffold import SAMPLE, resolve_name, write_workbench
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.process import start_service
from mlworkbench.errors import SettingsError
from mlworkbench.operate.loop.alert_rules import write_alert_rules


@pytest.mark.parametrize("kind", ["", "nbdev", "tables"])
def test_everything_a_workbench_needs_is_written_with_the_models_name(clean, kind):
    model, files = write_workbench(clean / "Used-Cars", kind=kind)
    assert model == "used_cars"
    assert {"settings.ini", "definition.py", "README.md", ".gitignore", "tests/test_used_cars.py"} <= set(files)
    assert "service/service.py" in files and "runs/evaluate.ipynb" in files
    assert {"RUNBOOK.md", "ROLES.md", ".pre-commit-config.yaml", "explore/model.ipynb"} <= set(files)
    assert ("nbs/definition.ipynb" in files) == (kind == "nbdev") == ("definition.ipynb" not in files)
    assert ("data/orders.csv" in files) == (kind == "tables")
    for name in files:
        assert SAMPLE not in (clean / "Used-Cars" / name).read_text(encoding="utf-8"), name


def test_settings_name_the_definition(workbench):
    settings = configparser.ConfigParser()
    settings.read(workbench / "settings.ini")
    assert settings["models"]["cars"] == "definition:cars"


def test_python_and_notebooks_are_well_formed(clean):
    write_workbench(clean / "cars", kind="nbdev")
    for file in (clean / "cars").rglob("*.py"):
        ast.parse(file.read_text(encoding="utf-8"))
    for file in (clean / "cars").rglob("*.ipynb"):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        assert notebook["nbformat"] == 4
        assert all(cell.get("outputs", []) == [] for cell in notebook["cells"]) or file.parent.name == "runs"


def test_an_empty_folder_is_filled_and_a_full_one_refused(clean):
    folder = clean / "cars"
    folder.mkdir()
    write_workbench(folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SettingsError) as raised:
        write_workbench(folder)
    assert raised.value.code == "workbench.folder_not_empty"
    assert sorted(path.name for path in folder.iterdir()) == before
    assert [path.name for path in clean.iterdir()] == ["cars"]


def test_a_file_in_the_way_is_refused(clean):
    (clean / "cars").write_text("mine")
    with pytest.raises(SettingsError, match="new or an empty folder"):
        write_workbench(clean / "cars")
    assert (clean / "cars").read_text() == "mine"


@pytest.mark.parametrize("name", ["class", "load_rows", "Cars", "1st", "a b"])
def test_a_name_that_python_or_the_workbench_cannot_use_is_refused(name, clean):
    with pytest.raises(SettingsError):
        write_workbench(clean / "folder", name=name)
    assert not (clean / "folder").exists()


def test_a_folder_without_a_single_letter_gets_the_sample_name(clean):
    assert resolve_name(clean / "___") == SAMPLE


def test_the_literate_form_exports_what_was_written(clean):
    write_workbench(clean / "cars", kind="nbdev")
    before = (clean / "cars" / "definition.py").read_text(encoding="utf-8")
    code = "from nbdev.export import nb_export; nb_export('nbs/definition.ipynb', lib_path='.')"
    subprocess.run([sys.executable, "-c", code], cwd=clean / "cars", check=True, capture_output=True)
    after = (clean / "cars" / "definition.py").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if line[:1] != "#"] == [
        line for line in before.splitlines() if line[:1] != "#"
    ]


def test_the_command_says_what_to_do_next(clean, tell):
    code, out, err = tell("new", clean / "cars")
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [f"cd {clean / 'cars'}", *COMMANDS]


COMMANDS = ["mlworkbench check", "mlworkbench train --promote", "mlworkbench serve"]


@pytest.mark.parametrize(("option", "edited"), [("--nbdev", "nbs/definition.ipynb"), ("--with-tables", "data")])
def test_each_kind_says_what_is_to_be_edited_and_a_path_is_quoted(clean, tell, option, edited):
    code, out, _ = tell("new", clean / "my cars", option)
    first, entered, *_ = out.splitlines()
    assert code == 0 and edited in first and "yours to edit" in first
    assert shlex.split(entered) == ["cd", str(clean / "my cars")]
    code, _, err = tell("new", clean / "vans", "--nbdev", "--with-tables")
    assert code == 2 and "--nbdev: not with --with-tables" in err and err.count("\n") == 1


def test_a_fresh_repository_takes_a_workbench_and_keeps_what_it_has(clean):
    (clean / "cars" / ".git").mkdir(parents=True)
    (clean / "cars" / ".git" / "HEAD").write_text("mine")
    write_workbench(clean / "cars")
    assert (clean / "cars" / ".git" / "HEAD").read_text() == "mine"
    (clean / "vans").mkdir()
    (clean / "vans" / ".gitignore").write_text("mine")
    with pytest.raises(SettingsError, match=r"not empty, there is \.gitignore"):
        write_workbench(clean / "vans")
    assert [path.name for path in (clean / "vans").iterdir()] == [".gitignore"]


@pytest.mark.parametrize("kind", ["", "nbdev", "tables"])
def test_links_of_the_pages_lead_to_files_that_are_there(clean, kind):
    write_workbench(clean / "cars", kind=kind)
    for page in (clean / "cars").glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (clean / "cars" / target).exists(), (page.name, target)


def test_the_runbook_knows_every_alarm_and_every_command_of_it_is_one(clean):
    write_workbench(clean / "cars")
    text = (clean / "cars" / "RUNBOOK.md").read_text(encoding="utf-8")
    rules = yaml.safe_load(write_alert_rules())["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} <= set(re.findall(r"^\| (\w+) \|", text, re.MULTILINE))
    known = {name for name, _, _ in COMMANDS_OF_APP}
    for words in (line.split() for line in re.findall(r"mlworkbench ([a-z][^`#]*)", text)):
        assert {words[0], " ".join(words[:2])} & known, words


def test_the_roles_are_ten_lines_and_the_definition_with_tables_at_most_sixty(clean):
    write_workbench(clean / "cars", kind="tables")
    assert len((clean / "cars" / "ROLES.md").read_text().splitlines()) == 10
    tree = ast.parse((clean / "cars" / "definition.py").read_text(encoding="utf-8"))
    own = [node for node in tree.body[1:] if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert sum(node.end_lineno - node.lineno + 1 for node in own) <= 60


def test_a_cleaned_run_notebook_keeps_its_parameters(clean):
    write_workbench(clean / "cars")
    hook = yaml.safe_load((clean / "cars" / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"][0]
    program, *words = shlex.split(hook["entry"])
    before = {path: path.read_bytes() for path in (clean / "cars").rglob("*.ipynb")}
    tool = Path(sys.executable).with_name(program)
    subprocess.run([tool, *words], cwd=clean / "cars", check=True, capture_output=True)
    assert {path: path.read_bytes() for path in before} == before
    assert b'"parameters"' in before[clean / "cars" / "runs" / "evaluate.ipynb"]


def test_the_commented_schedule_and_alerts_are_read_once_the_marks_are_gone(workbench, facts):
    text = (workbench / "settings.ini").read_text()
    (workbench / "settings.ini").write_text(re.sub(r"^# (\[|nightly|weekly|to|file)", r"\1", text, flags=re.MULTILINE))
    assert [row["line"] for row in facts("schedule", "list")["lines"]] == ["nightly", "weekly"]
    values = {row["key"]: row["value"] for row in facts("doctor", "--settings")["settings"]}
    assert "TEAM_CHAT" in str(values["alerts.to"]) and values["alerts.file"] == "alerts.jsonl"


def test_a_second_workbench_beside_the_first_has_its_own_model(clean, facts, monkeypatch):
    for name in ("cars", "vans"):
        facts("new", clean / name)
    for name in ("cars", "vans"):
        sys.modules.pop("definition", None)
        sys.path[:] = [place for place in sys.path if not place.startswith(str(clean))]
        monkeypatch.chdir(clean / name)
        assert facts("check")["model"] == name


def test_the_workbench_with_tables_checks_trains_materializes_certifies_and_answers(clean, facts, tell, monkeypatch):
    facts("new", clean / "orders_late", "--with-tables")
    monkeypatch.chdir(clean / "orders_late")
    checked = facts("check")
    assert checked["verdict"] == "pass" and not [f for f in checked["findings"] if f["state"] != "ok"]
    trained = facts("train", "--promote")
    assert trained["promoted"] and trained["gates"]["verdict"] == "pass"
    assert set(facts("features", "materialize")["views"]) == {"shop", "depot", "shop_week", "carrier_days"}
    assert facts("features", "check")["mismatches"] == 0
    asked = {"order_id": "B1", "shop": "Berlin", "depot": "North", "carrier": "DPX", "weight": 2.5}
    body = json.dumps([{**asked, "ordered_at": "2026-04-29T12:00:00+00:00"}]).encode()
    with start_service("orders_late", home=Home.open()) as service:
        request = Request(f"{service.url}/score", body, {"Content-Type": "application/json"})
        answered = json.loads(urlopen(request, timeout=30).read())[0]
    assert 0 <= answered["score"] <= 1
