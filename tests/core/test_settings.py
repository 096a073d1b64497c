"""Settings file, settings and home: one line for every mistake, safe for two processes and after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path

import pytest

from mlworkbench.core import home as home_module
from mlworkbench.core.home import RESERVED, Home, check_name
from mlworkbench.core.settings import Settings, extend_import_path, list_settings, load_settings, read_settings
from mlworkbench.core.settings_file import KEYS, Setting, find_settings, read_setting
from mlworkbench.errors import SettingsError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLWORKBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.ini").write_text(text)
    return folder / "settings.ini"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# the file -----------------------------------------------------------------------------------------------------------


def test_the_file_is_found_upward_and_a_foreign_one_is_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path, "[workbench]\nhome = h\n")
    write(tmp_path / "a", "[DEFAULT]\nlib_name = other\n")
    write(tmp_path / "a" / "b", "")
    (tmp_path / "a" / "b" / "c" / "settings.ini").mkdir(parents=True)
    assert find_settings(tmp_path / "a" / "b" / "c") == file


def test_the_first_line_alone_makes_a_file_the_workbenchs(tmp_path: Path) -> None:
    file = write(tmp_path, "# The workbench's own settings\n[models]\ncars = a:b\n")
    assert find_settings(tmp_path) == file
    assert read_settings(tmp_path).models == {"cars": "a:b"}


def test_the_repositorys_own_file_names_the_three_examples() -> None:
    settings = read_settings(Path(__file__).parents[2])
    assert list(settings.models) == ["flights", "penguins", "diabetes"]
    assert settings.home == ".workbench"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[workbench]\nhme = x", "did you mean 'home'?"),
        ("[workbench]\nHome = x", "did you mean 'home'?"),
        ("[workbench]\n[modles]\na = b:c", "did you mean 'models'?"),
        ("[workbench]\nhome", "sections of key = value"),
        ("[workbench]\nport = 1\nport = 2", "already exists"),
        ("[workbench]\n[workbench]", "already exists"),
        ("[serve]\nport = many", "[serve] port: a whole number from 1 to 65535; got 'many'"),
        ("[serve]\nport = 70000", "65535"),
        ("[serve]\nprot = 1", "did you mean 'port'?"),
        ("[workbench]\nprt = 1", "unknown key 'prt'"),
        ("[workbench]\nport = 0", "[serve] port: a whole number"),
        ("[workbench]\nrun_seconds = 0", "greater than 0"),
        ("[workbench]\nrun_seconds = -inf", "finite"),
        ("[contract]\nflags = tel", "did you mean 'tell'?"),
        ("[contract]\nmax_refused = 2", "a share from 0 to 1"),
        ("[contract]\nmax_refused = 101 %", "a share from 0 to 1"),
        ("[contract]\nmax_refused = nan", "a share from 0 to 1"),
        ("[ingest]\nfuture = keep", "one of hold, take"),
        ("[ingest]\nfuture_after = soon", "write it like 10 minutes"),
        ("[ingest]\nfuture_after = 1 eon", "got '1 eon'"),
        ("[workbench]\nrun_seconds = nan", "finite"),
        ("[workbench]\nhome =", "at least 1 character"),
        ("[workbench]\n[models]\nFlights = a:b", "small letter"),
        ("[workbench]\n[models]\nlake = a:b", "lake_model"),
        ("[workbench]\n[models]\ncars = cars.py", "module:attribute"),
        ("[workbench]\n[trust]\ntype = a.B", "did you mean 'types'?"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_a_way_out(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).count(";") >= 2


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_bytes(b"[workbench]\nhome = \xff\xfe")
    with pytest.raises(SettingsError, match=r"^cannot read .*: byte 19 is not UTF-8; "):
        read_settings(tmp_path)


def test_a_percent_sign_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_bytes(b"\xef\xbb\xbf[workbench]\nhome = a%20b\n")
    assert read_settings(tmp_path).home == "a%20b"


def test_trusted_types_are_separated_by_commas_or_lines(tmp_path: Path) -> None:
    write(tmp_path, "[workbench]\n[trust]\ntypes = a.B, c.D\n    e.F,\n")
    assert read_settings(tmp_path).trusted_types == ("a.B", "c.D", "e.F")


@pytest.mark.parametrize(
    "text", ["[trust] types = a.B, c.D", "[trust]\ntypes = a.B, c.D", "[models]\n[trust] types = a.B,c.D\n"]
)
def test_the_line_that_is_advised_works_alone_as_it_is_copied(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert read_settings(tmp_path).trusted_types == ("a.B", "c.D")


# settings -----------------------------------------------------------------------------------------------------------


def test_without_a_file_every_field_has_its_default(tmp_path: Path) -> None:
    settings = read_settings(tmp_path)
    assert settings == Settings(folder=tmp_path.resolve())
    assert {key.field: getattr(settings, key.field) for key in KEYS} == {key.field: key.default for key in KEYS}
    assert {key.field for key in KEYS} == {field.name for field in fields(Settings)} - {"folder", "models", "schedule"}


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[workbench]\nport = 3001\nrun_seconds = 5\n[models]\ncars = a:b\n")
    monkeypatch.setenv("MLWORKBENCH_SERVE_PORT", "3002")
    monkeypatch.setenv("MLWORKBENCH_PORT", "3003")  # the short name; the full one wins
    monkeypatch.setenv("MLWORKBENCH_MODELS_BIKES", "c:d")
    settings = read_settings(tmp_path)
    assert (settings.port, settings.run_seconds) == (3002, 5)
    assert settings.models == {"cars": "a:b", "bikes": "c:d"}


VALUES = {
    "workbench.home": ("state", "state"),
    "workbench.lake": ("s3://company/lake/", "s3://company/lake"),
    "workbench.online": ("redis://server:6379/0", "redis://server:6379/0"),
    "workbench.run_seconds": ("1.5", 1.5),
    "trust.types": ("a.B, c.D", ("a.B", "c.D")),
    "contract.flags": ("refuse", "refuse"),
    "contract.max_refused": ("2.5 %", 0.025),
    "ingest.future": ("take", "take"),
    "ingest.future_after": ("2 hours", timedelta(hours=2)),
    "monitor.false_alarms": ("0.5", 0.5),
    "alerts.to": ("TEAM_CHAT, MAIL", ("TEAM_CHAT", "MAIL")),
    "alerts.alertmanager": ("http://alertmanager:9093", "http://alertmanager:9093"),
    "alerts.file": ("told.jsonl", "told.jsonl"),
    "alerts.command": ("page 'the team'", "page 'the team'"),
    "log.to": ("s3://company/logs/", "s3://company/logs"),
    "log.keep": ("30 days", timedelta(days=30)),
    "policy.promote": ("propose", "propose"),
    "reports.workspace": ("shown", "shown"),
    "serve.port": ("3001", 3001),
    "serve.root_path": ("/models/birds", "/models/birds"),
    "serve.ready_needs_store": ("yes", True),
    "serve.workers": ("4", 4),
    "serve.host": ("::1", "::1"),
    "serve.auth": ("keys", "keys"),
    "serve.keys_file": ("callers.json", "callers.json"),
    "serve.hosts": ("models.example, score.example", ("models.example", "score.example")),
    "serve.max_in_flight": ("64", 64),
    "serve.tls_certificate": ("server.pem", "server.pem"),
    "serve.tls_key": ("server.key", "server.key"),
    "serve.access_log": ("all", "all"),
    "serve.synchronous": ("full", "full"),
}
FOLDERS = ("workbench.home", "alerts.file", "reports.workspace", "serve.keys_file")
FOLDERS += ("serve.tls_certificate", "serve.tls_key")


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.place)
def test_every_key_comes_from_the_file_and_each_of_its_variables(tmp_path: Path, monkeypatch, key) -> None:
    text, value = VALUES[key.place]
    file = write(tmp_path, f"[{key.section}]\n{key.name} = {text}\n")
    assert getattr(read_settings(tmp_path), key.field) == value
    assert read_setting(key.place, tmp_path).origin == str(file)
    file.write_text("[workbench]\n")
    assert key.variables[0] == f"MLWORKBENCH_{key.section}_{key.name}".upper()
    for variable in key.variables:
        monkeypatch.setenv(variable, text)
        found = str(Path.cwd() / text) if key.place in FOLDERS else value
        assert getattr(read_settings(tmp_path), key.field) == found
        assert read_setting(key.place, tmp_path).origin == f"environment {variable}"
        monkeypatch.delenv(variable)
    assert read_setting(key.place, tmp_path) == Setting(key, key.default, "default")


def test_a_file_of_an_older_workbench_has_the_port_where_it_was(tmp_path: Path) -> None:
    write(tmp_path, "[workbench]\nhome = h\nport = 3001\n")
    assert read_settings(tmp_path).port == 3001


def test_an_empty_variable_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_SERVE_PORT", "")
    assert read_settings(tmp_path).port == 3000


SECRET = "hunter2"


def test_a_secret_may_be_mounted_as_a_file_and_is_never_shown(tmp_path: Path, monkeypatch) -> None:
    url = f"redis://me:{SECRET}@server:6379/0"
    (tmp_path / "secret").write_text(url + "\n")
    monkeypatch.setenv("MLWORKBENCH_ONLINE_FILE", str(tmp_path / "secret"))
    assert read_settings(tmp_path).online == url
    listed = list_settings(tmp_path)
    assert ("workbench.online", "***", "environment MLWORKBENCH_ONLINE_FILE") in listed
    assert SECRET not in str(listed) + repr(read_settings(tmp_path))
    monkeypatch.setenv("MLWORKBENCH_ONLINE_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"^environment MLWORKBENCH_ONLINE_FILE: .*; mount it, or unset"):
        read_settings(tmp_path)
    (tmp_path / "secret").write_text(f"mysql://me:{SECRET}@server/db")
    monkeypatch.setenv("MLWORKBENCH_ONLINE_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path)
    assert SECRET not in str(caught.value)


def test_every_value_is_listed_with_who_said_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(write(tmp_path, "[contract]\nflags = off\n[models]\ncars = a:b\n"))
    monkeypatch.setenv("MLWORKBENCH_SERVE_PORT", "3002")
    monkeypatch.setenv("MLWORKBENCH_MODELS_BIKES", "c:d")
    listed = {key: (value, origin) for key, value, origin in list_settings(tmp_path)}
    assert listed["contract.flags"] == ("off", file) and listed["models.cars"] == ("a:b", file)
    assert listed["serve.port"] == ("3002", "environment MLWORKBENCH_SERVE_PORT")
    assert listed["models.bikes"] == ("c:d", "environment MLWORKBENCH_MODELS_BIKES")
    assert listed["workbench.home"] == (".workbench", "default")
    assert list(listed)[: len(KEYS)] == [key.place for key in KEYS]


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLWORKBENCH_SERVE_PORT", "many"), ("MLWORKBENCH_MODELS_CARS", "cars.py"), ("MLWORKBENCH_LAKE", "x")],
)
def test_a_mistake_in_the_environment_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"environment {name}") as caught:
        read_settings(tmp_path)
    assert str(caught.value).count(";") >= 2


@pytest.mark.parametrize(
    ("lake", "log"),
    [
        ("lake", "lake/"),
        ("lake", "lake/logs"),
        ("all/lake", "all"),
        ("lake", "lake-quarantine"),
        ("lake", "lake-held/m"),
    ],
)
def test_a_log_in_the_lake_or_a_lake_in_the_log_is_refused(tmp_path: Path, monkeypatch, lake: str, log: str) -> None:
    write(tmp_path, f"[workbench]\nlake = s3://company/{lake}\n[log]\nto = s3://company/{log}\n")
    for read in (read_settings, list_settings, lambda start: read_setting("log.to", start)):
        with pytest.raises(SettingsError, match="apart from the lake's, s3://company/") as caught:
            read(tmp_path)
        assert caught.value.code == "settings.wrong_value" and "\n" not in str(caught.value)
    monkeypatch.setenv("MLWORKBENCH_LAKE", "s3://company/lakes")
    assert read_settings(tmp_path).log_to == f"s3://company/{log}".rstrip("/")
    monkeypatch.setenv("MLWORKBENCH_LOG_TO", "s3://company/lakes/x")
    with pytest.raises(SettingsError, match="environment MLWORKBENCH_LOG_TO"):
        read_settings(tmp_path)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_loading_makes_modules_beside_the_file_importable_first_and_once(tmp_path: Path) -> None:
    write(tmp_path, "[workbench]\n")
    (tmp_path / "below").mkdir()
    sys.path.append(str(tmp_path))
    settings = load_settings(tmp_path / "below")
    extend_import_path(settings)
    assert sys.path[0] == str(tmp_path.resolve())
    assert sys.path.count(str(tmp_path.resolve())) == 1


def test_reading_leaves_the_import_path_alone(tmp_path: Path) -> None:
    before = list(sys.path)
    read_settings(tmp_path)
    assert sys.path == before


# names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "flights", "a" * 40, "a_1"])
def test_a_good_name_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "a-b", "a.b", "../x", "a/b", "a" * 41, "a\n", "é", None, *sorted(RESERVED)]
)
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_name(name)
    assert caught.value.code == "settings.model_name"


# the home -----------------------------------------------------------------------------------------------------------


def test_a_new_home_is_private_and_has_a_format(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "a" / "home")
    assert mode(home.path) == mode(home.keys) == mode(home.locks) == 0o700
    assert (home.path / "format").read_text() == "1\n"
    assert Home.open(home.path, create=False) == home
    assert sorted(path.name for path in home.locks.iterdir()) == ["home.lock"]


def test_an_empty_folder_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    assert mode(Home.open(tmp_path / "home").path) == 0o700


def test_a_shared_folder_with_files_is_neither_closed_nor_filled(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir(mode=0o755)
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(SettingsError) as caught:
        Home.open(folder)
    assert caught.value.code == "settings.home_not_private"
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    assert mode(folder) == 0o755


def test_a_private_folder_with_files_may_become_a_home(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    (folder / "data.csv").write_text("x")
    assert Home.open(folder).path == folder.resolve()


@pytest.mark.parametrize("open_to", [0o720, 0o702, 0o777, 0o2775])
def test_a_home_that_others_may_write_is_refused_with_the_way_out(tmp_path: Path, open_to: int) -> None:
    home = Home.open(tmp_path / "home")
    home.path.chmod(open_to)
    way_out = "name a sub-folder of it" if open_to & 0o2000 else "chmod go-w"
    with pytest.raises(SettingsError, match=f"got mode {open_to:o}; {way_out}"):
        Home.open(home.path)
    with pytest.raises(SettingsError) as caught:
        Home.open(home.path, create=False)
    assert caught.value.code == "settings.home_not_private"
    home.path.chmod(0o755)
    assert Home.open(home.path) == home


def test_a_home_of_somebody_else_is_refused_and_one_of_root_is_not(tmp_path: Path, monkeypatch) -> None:
    home = Home.open(tmp_path / "home")
    owner = home.path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert Home.open(home.path) == home
        os.chown(home.path, 4242, -1)
    with pytest.raises(SettingsError, match=r"got one of user .*; name a sub-folder of it"):
        Home.open(home.path)
    if owner == 0:
        os.chown(home.path, 0, -1)


def test_a_mounted_volume_is_no_home_and_a_sub_folder_of_it_is(tmp_path: Path, monkeypatch) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2775)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    with pytest.raises(SettingsError, match=f"got mode 2775; name a sub-folder of it, {volume / 'workbench'}"):
        Home.open(volume)
    assert mode(volume) == 0o775 and not (volume / "format").exists()
    assert mode(Home.open(volume / "workbench").path) == 0o700


def test_the_files_of_a_home_are_its_owners_alone(tmp_path: Path) -> None:
    from mlworkbench.evaluation.log.writer import PredictionLog
    from mlworkbench.features.online.lookup import OnlineStore
    from mlworkbench.operate.running.table import RunRow, RunTable
    from mlworkbench.scoring.registry.registry import Registry

    before = os.umask(0)
    try:
        home = Home.open(tmp_path / "home")
        registry = Registry(home)
        registry.aliases.move("late", "champion", "late:1f", who="me", why="first", basis="")
        RunTable(home).write(RunRow("r", "late", "evaluate"))
        with PredictionLog(home.log("late")), OnlineStore(home.online):
            found = [path for path in home.path.rglob("*") if path.is_file()]
            assert {path.suffix for path in found} >= {".sqlite", ".sqlite-wal"}
            assert [path for path in found if mode(path) & 0o077] == []
        home.registry.chmod(0o644)  # as an older package left it
        registry.aliases.move("late", "champion", "late:2f", who="me", why="better", basis="")
        assert mode(home.registry) == 0o600
    finally:
        os.umask(before)


def test_a_home_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Home.open(tmp_path / "home", create=False)
    assert caught.value.code == "settings.home_missing"
    assert not (tmp_path / "home").exists()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(SettingsError) as caught:
        Home.open(tmp_path / "home")
    assert caught.value.code == "settings.home_unwritable"


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5", "0"])
def test_a_damaged_format_is_one_line(tmp_path: Path, text: str) -> None:
    home = Home.open(tmp_path / "home")
    (home.path / "format").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Home.open(home.path)
    assert caught.value.code == "settings.home_format"


def test_a_newer_home_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    (home.path / "format").write_text("2\n")
    with pytest.raises(SettingsError) as caught:
        Home.open(home.path)
    assert caught.value.code == "settings.home_newer" and "upgrade mlworkbench" in str(caught.value)
    assert (home.path / "format").read_text() == "2\n"


def test_an_older_home_is_brought_up_step_by_step_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path / "home")
    steps: list[int] = []
    monkeypatch.setattr(home_module, "FORMAT", 3)
    monkeypatch.setattr(home_module, "MIGRATIONS", {1: lambda path: steps.append(1), 2: lambda path: steps.append(2)})
    Home.open(home.path)
    Home.open(home.path)
    assert steps == [1, 2]
    assert (home.path / "format").read_text() == "3\n"


def test_a_step_that_fails_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.open(tmp_path / "home")

    def fail(path: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(home_module, "FORMAT", 2)
    monkeypatch.setattr(home_module, "MIGRATIONS", {1: fail})
    with pytest.raises(OSError, match="disk full"):
        Home.open(home.path)
    assert (home.path / "format").read_text() == "1\n"
    monkeypatch.setattr(home_module, "MIGRATIONS", {1: lambda path: None})
    assert Home.open(home.path) == home


def test_the_home_comes_from_the_variable_else_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[workbench]\nhome = state/home\n")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Home.open().path == (tmp_path / "state" / "home").resolve()
    monkeypatch.setenv("MLWORKBENCH_HOME", "here")
    assert Home.open().path == (tmp_path / "notebooks" / "here").resolve()
    assert Home.open(tmp_path / "given").path == (tmp_path / "given").resolve()


def test_places_of_a_model_lie_in_its_own_folder(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.log("cars") == tmp_path / "cars" / "log.sqlite"
    assert home.runs("cars") == tmp_path / "cars" / "runs"
    with pytest.raises(SettingsError) as caught:
        home.log("../cars")
    assert caught.value.code == "settings.model_name"


def test_many_processes_open_a_new_home_at_once(tmp_path: Path) -> None:
    code = "import sys; from mlworkbench.core.home import Home; print(Home.open(sys.argv[1]).path)"
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "home"], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert {process.communicate()[0].strip() for process in running} == {str((tmp_path / "home").resolve())}
    assert (tmp_path / "home" / "format").read_text() == "1\n"
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["format", "keys", "locks"]


# locks --------------------------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    with home.lock("lake/flights"):
        with pytest.raises(SettingsError, match="another held it for 0 s"), home.lock("lake/flights", seconds=0):
            pass
        with home.lock("lake/weather", seconds=0):
            pass
    with home.lock("lake/flights", seconds=0):
        pass


def test_the_home_needs_no_heavy_library() -> None:
    heavy = {"numpy", "pydantic", "pydantic_settings"}
    code = f"import sys, mlworkbench.core.settings; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_lines_of_the_schedule_have_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "30 2 * * * Europe/Berlin: ingest,\n  batch --last day"
    file = str(write(tmp_path, f"[schedule]\nnightly = {line}\n"))
    monkeypatch.setenv("MLWORKBENCH_SCHEDULE_HOURLY", "0 * * * * UTC: batch --last hour")
    monkeypatch.setenv("MLWORKBENCH_SCHEDULED_AT", "2013-10-02T02:30+02:00")
    read = read_settings(tmp_path).schedule
    assert {name: text.split() for name, text in read.items()} == {
        "nightly": line.split(),
        "hourly": ["0", "*", "*", "*", "*", "UTC:", "batch", "--last", "hour"],
    }
    listed = {key: origin for key, _, origin in list_settings(tmp_path)}
    assert listed["schedule.nightly"] == file
    assert listed["schedule.hourly"] == "environment MLWORKBENCH_SCHEDULE_HOURLY"


def test_the_variable_of_the_folder_says_where_every_setting_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "settings.ini").write_text("[serve]\nsynchronous = full\n[workbench]\nhome = kept\n")
    monkeypatch.setenv("MLWORKBENCH_FOLDER", str(tmp_path / "own"))
    assert read_setting("serve.synchronous").value == read_settings().synchronous == "full"
    assert read_settings().folder == tmp_path and read_settings(Path("/")).synchronous == "normal"
    (tmp_path / "settings.ini").unlink()
    assert read_settings().folder == tmp_path / "own"
