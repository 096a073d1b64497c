import shlex
import socket

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.cli.app import COMMANDS
from mlworkbench.cli.check import doctor as checks
from mlworkbench.cli.check.doctor import check_disk, check_extra, check_folder, check_home, check_port, examine


def states(findings):
    return {finding.check: finding.state for finding in findings}


def test_a_healthy_workbench_has_no_failure(workbench):
    found = states(examine())
    assert "fail" not in found.values()
    assert found["settings"] == found["definition cars"] == found["home"] == "ok"


def test_the_doctor_changes_nothing(workbench, tell):
    before = sorted(str(path) for path in workbench.rglob("*") if "__pycache__" not in path.parts)
    assert tell("doctor")[0] == 0
    after = sorted(str(path) for path in workbench.rglob("*") if "__pycache__" not in path.parts)
    assert before == after


def test_a_missing_extra_is_a_warning_with_the_way_out(monkeypatch):
    monkeypatch.setitem(checks.EXTRAS, "runs", ("no_such_package",))
    finding = check_extra("runs")
    assert (finding.state, finding.way_out) == ("warn", "pip install 'mlworkbench[runs]'")


def test_a_port_in_use_is_a_warning():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert check_port(port).state == "warn"
    assert check_port(port).state == "ok"


def test_a_definition_that_cannot_be_imported_is_a_warning(workbench):
    (workbench / "definition.py").write_text("import no_such_module\n")
    assert states(examine())["definition cars"] == "warn"


def test_a_home_of_a_newer_format_fails_and_the_exit_code_is_one(workbench, tell):
    home = workbench / ".workbench"
    home.mkdir(mode=0o700)
    (home / "format").write_text("99\n")
    assert check_home(home).state == "fail"
    code, _, err = tell("doctor")
    assert code == 1 and "failed: home" in err and err.count("\n") == 1


def test_broken_settings_end_the_examination(workbench):
    (workbench / "settings.ini").write_text("# workbench\n[workbench]\nport = many\n")
    assert states(examine())["settings"] == "fail"


def test_a_file_in_place_of_a_folder_fails(tmp_path):
    (tmp_path / "home").write_text("")
    assert check_folder("home", tmp_path / "home" / "inner").state == "fail"


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ENOUGH_BYTES", 10**18)
    assert check_disk(tmp_path).state == "warn"


def test_the_doctor_lists_every_setting_with_its_origin(workbench, facts, tell, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_SERVE_PORT", "3999")
    rows = {row["key"]: row for row in facts("doctor", "--settings")["settings"]}
    assert rows["serve.port"]["value"] == "3999" and "MLWORKBENCH_SERVE_PORT" in rows["serve.port"]["origin"]
    assert rows["models.cars"]["origin"].endswith("settings.ini") and rows["contract.flags"]["origin"] == "default"
    assert "serve.port" in tell("doctor", "--settings")[1]


def test_the_doctor_answers_in_json(workbench, facts):
    found = facts("doctor")
    assert found["verdict"] == "pass"
    assert {"check", "state", "found", "way_out"} == set(found["findings"][0])


@pytest.mark.parametrize("extra", sorted(checks.EXTRAS))
def test_the_extras_are_those_of_the_package(extra):
    from importlib.metadata import metadata

    assert extra in (metadata("mlworkbench").get_all("Provides-Extra") or [])


# --- the first day -----------------------------------------------------------------------------------------------


@pytest.fixture
def orders(clean):
    """A file of rows with a key, and a pipeline fitted on the rest, in a folder with nothing else."""
    draws = np.random.default_rng(0)
    rows = pd.DataFrame({"order_id": np.arange(200) + 7001, "distance": draws.uniform(1, 400, 200).round(1)})
    late = np.where(rows.distance + draws.normal(0, 60, 200) > 250, "yes", "no")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows[["distance"]], late)
    skops.io.dump(pipeline, clean / "late.skops")
    rows.assign(late=late).to_csv(clean / "orders.csv", index=False)
    return clean


def test_a_first_day_says_what_was_read_learned_and_compiles_on_one_screen(orders, tell):
    code, out, err = tell("doctor", "--first-day", "orders.csv", "--label", "late")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 200
    assert lines[0].startswith("orders.csv: 200 rows, 2 columns; to predict: late (binary: ")
    assert "  LogisticRegression: compiles" in lines and "register with --key order_id" in out
    assert sorted(path.name for path in orders.iterdir()) == ["late.skops", "orders.csv"], "nothing is kept"


def test_register_works_as_a_first_day_writes_it(orders, tell, facts):
    found = facts("doctor", "--first-day", "orders.csv", "--label", "late", "--pipeline", "late.skops")
    assert found["compiling"] == [{"model": "late.skops", "compiles": True, "reason": ""}]
    code, out, err = tell(*shlex.split(found["steps"][0])[1:])
    assert code == 0, out + err
    assert "anchor: equal, 200 rows" in out


def test_a_first_day_names_only_commands_that_there_are(orders, facts):
    known = {name for name, _, _ in COMMANDS}
    steps = [shlex.split(step) for step in facts("doctor", "--first-day", "orders.csv", "--label", "late")["steps"]]
    ours = [words for words in steps if words[0] == "mlworkbench"]
    assert len(ours) >= 3 and all({words[1], " ".join(words[1:3])} & known for words in ours)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--first-day", "orders.csv"), "--label: the column to predict is needed; known: distance, late, order_id"),
        (("--first-day", "orders.csv", "--label", "lte"), "did you mean 'late'?"),
        (("--first-day", "order.csv", "--label", "late"), "no such file"),
        (
            ("--first-day", "orders.csv", "--label", "late", "--pipeline", "lat.skops"),
            "--pipeline: there is no file lat.skops",
        ),
        (("--first-day", "orders.csv", "--label", "late", "--pipeline", "orders.csv"), "a skops file"),
        (("--first-day", "orders.csv", "--label", "late", "--settings"), "not with --first-day"),
        (("--label", "late"), "only with --first-day"),
        (("--pipeline", "late.skops"), "only with --first-day"),
    ],
)
def test_a_mistake_on_the_first_day_is_one_line(orders, tell, words, said):
    code, _, err = tell("doctor", *words)
    assert code == 2 and said in err and err.count("\n") == 1
