"""Settings file, settings and home: one line for every mistake, safe for two processes and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mlworkbench import home as home_module
from mlworkbench.errors import SettingsError
from mlworkbench.home import RESERVED, Home, check_name, file_lock
from mlworkbench.ini import find_settings
from mlworkbench.settings import Settings, import_path, load_settings, read_settings


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
    settings = read_settings(Path(__file__).parents[1])
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
        ("[workbench]\nport = many", "port"),
        ("[workbench]\nport = 70000", "65535"),
        ("[workbench]\nrun_seconds = 0", "greater than 0"),
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
    with pytest.raises(SettingsError, match=r"text in UTF-8; got byte 19 is not"):
        read_settings(tmp_path)


def test_a_percent_sign_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_bytes(b"\xef\xbb\xbf[workbench]\nhome = a%20b\n")
    assert read_settings(tmp_path).home == "a%20b"


def test_trusted_types_are_separated_by_commas_or_lines(tmp_path: Path) -> None:
    write(tmp_path, "[workbench]\n[trust]\ntypes = a.B, c.D\n    e.F,\n")
    assert read_settings(tmp_path).trusted_types == ["a.B", "c.D", "e.F"]


@pytest.mark.parametrize(
    "text", ["[trust] types = a.B, c.D", "[trust]\ntypes = a.B, c.D", "[models]\n[trust] types = a.B,c.D\n"]
)
def test_the_line_that_is_advised_works_alone_as_it_is_copied(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert read_settings(tmp_path).trusted_types == ["a.B", "c.D"]


# settings -----------------------------------------------------------------------------------------------------------


def test_without_a_file_every_field_has_its_default(tmp_path: Path) -> None:
    settings = read_settings(tmp_path)
    assert settings.model_dump() == Settings().model_dump()
    assert settings.folder == tmp_path.resolve()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[workbench]\nport = 3001\nrun_seconds = 5\n[models]\ncars = a:b\n")
    monkeypatch.setenv("MLWORKBENCH_PORT", "3002")
    monkeypatch.setenv("MLWORKBENCH_MODELS__BIKES", "c:d")
    settings = read_settings(tmp_path)
    assert (settings.port, settings.run_seconds) == (3002, 5)
    assert settings.models == {"cars": "a:b", "bikes": "c:d"}


@pytest.mark.parametrize(("name", "value"), [("MLWORKBENCH_PORT", "many"), ("MLWORKBENCH_TRUSTED_TYPES", "a.B")])
def test_a_mistake_in_the_environment_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="environment") as caught:
        read_settings(tmp_path)
    assert name.removeprefix("MLWORKBENCH_").lower() in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_loading_makes_modules_beside_the_file_importable_first_and_once(tmp_path: Path) -> None:
    write(tmp_path, "[workbench]\n")
    (tmp_path / "below").mkdir()
    sys.path.append(str(tmp_path))
    settings = load_settings(tmp_path / "below")
    import_path(settings)
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
    with pytest.raises(SettingsError, match="model name"):
        check_name(name)


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
    with pytest.raises(SettingsError, match="empty or private"):
        Home.open(folder)
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
    with pytest.raises(SettingsError, match=f"only its owner, you or root, writes; got mode {open_to:o}; {way_out}"):
        Home.open(home.path)
    with pytest.raises(SettingsError, match="only its owner"):
        Home.open(home.path, create=False)
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
    from mlworkbench.evaluation.log import PredictionLog
    from mlworkbench.features.online import OnlineStore
    from mlworkbench.operate.run_table import RunTable
    from mlworkbench.scoring.registry import Registry

    before = os.umask(0)
    try:
        home = Home.open(tmp_path / "home")
        registry = Registry(home)
        registry.aliases.move("late", "champion", "late:1f", who="me", why="first", basis="")
        RunTable(home)._connect().close()
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
    with pytest.raises(SettingsError, match="a home that exists"):
        Home.open(tmp_path / "home", create=False)
    assert not (tmp_path / "home").exists()


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(SettingsError, match="a folder that can be written"):
        Home.open(tmp_path / "home")


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5", "0"])
def test_a_damaged_format_is_one_line(tmp_path: Path, text: str) -> None:
    home = Home.open(tmp_path / "home")
    (home.path / "format").write_text(text)
    with pytest.raises(SettingsError, match="its file format holds a number"):
        Home.open(home.path)


def test_a_newer_home_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    (home.path / "format").write_text("2\n")
    with pytest.raises(SettingsError, match="format 1; got 2; upgrade mlworkbench"):
        Home.open(home.path)
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
    with pytest.raises(SettingsError, match="model name"):
        home.log("../cars")


def test_many_processes_open_a_new_home_at_once(tmp_path: Path) -> None:
    code = "import sys; from mlworkbench.home import Home; print(Home.open(sys.argv[1]).path)"
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
        with pytest.raises(SettingsError, match="free within 0 s"), home.lock("lake/flights", seconds=0):
            pass
        with home.lock("lake/weather", seconds=0):
            pass
    with home.lock("lake/flights", seconds=0):
        pass


def test_a_lock_is_freed_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), file_lock(tmp_path / "a.lock"):
        raise ValueError("inside")
    with file_lock(tmp_path / "a.lock", seconds=0):
        pass


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        with file_lock(tmp_path / "a.lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mlworkbench.home import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a.lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(SettingsError, match="wait for its holder"), file_lock(tmp_path / "a.lock", seconds=0.05):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with file_lock(tmp_path / "a.lock", seconds=5):
        pass


def test_the_home_needs_no_heavy_library() -> None:
    code = "import sys, mlworkbench.home; print(sorted({'numpy', 'pydantic', 'pydantic_settings'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
