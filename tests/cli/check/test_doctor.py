import socket

import pytest

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
