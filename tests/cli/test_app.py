import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mlworkbench.cli import app
from mlworkbench.cli.app import COMMANDS, GROUPS, SHOWN, format_error, make_app, run
from mlworkbench.errors import LogError, RefusedError, WorkbenchError

EVERY = [name.split() for name, _, _ in COMMANDS]
WORDS = {
    "--accept-differences", "--alias", "--all", "--at", "--data", "--dead-letters", "--deployments", "--dry-run",
    "--due", "--explain", "--html", "--if-older", "--on-alarm",
    "--end", "--first-day", "--force", "--format", "--from", "--header-env", "--hours", "--json", "--key",
    "--known-at", "--label", "--last", "--model", "--name", "--nbdev", "--no-browser", "--once", "--out",
    "--override", "--personal", "--pipeline", "--port", "--promote", "--query", "--refresh", "--root-path",
    "--rows", "--send", "--server", "--settings", "--skip", "--source", "--start", "--table", "--to",
    "--trust-pickle", "--until", "--version", "--view", "--why", "--with", "--with-keys", "--with-tables",
    "--workers", "--auth", "--expires", "--host", "--id", "--scope",
}  # fmt: skip


def options():
    """Every command with its options, as the application has them."""
    import typer

    found = {}
    for name, command in typer.main.get_command(make_app()).commands.items():
        for verb, inner in getattr(command, "commands", {"": command}).items():
            found[f"{name} {verb}".strip()] = [one for one in inner.params if one.param_type_name == "option"]
    return found


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_help_ends_with_an_example_and_offers_json(words, tell):
    code, out, _ = tell(*words, "--help")
    assert code == 0
    assert out.strip().splitlines()[-1].strip().startswith(f"Example: mlworkbench {' '.join(words)}")
    assert "--json" in out


def test_an_error_that_repeats_what_steers_a_terminal_shows_it_as_an_escape(tell, monkeypatch):
    def raise_foreign(*_, **__):
        raise WorkbenchError("service answers: \x1b[2J", code="endpoint.status")

    monkeypatch.setattr(app, "make_app", lambda: raise_foreign)
    assert tell("doctor")[2] == "error: service answers: \\u001b[2J\n"


def test_there_are_at_most_70_commands_and_ten_in_the_top_help(tell):
    names = [name for name, _, _ in COMMANDS]
    assert len(names) == len(set(names)) <= 70
    assert set(options()) == set(names)
    code, out, _ = tell("--help")
    shown = re.findall(r"(?m)^  ([a-z]+)  ", out)
    assert code == 0 and len(SHOWN) == 3
    assert shown == [name for part in SHOWN.values() for name in part] and len(shown) == 10
    assert "mlworkbench --help-all" in out
    code, out, _ = tell("--help-all")
    listed = re.findall(r"(?m)^  ([a-z]+(?: [a-z]+)?)  +[A-Z]", out)
    assert code == 0 and sorted(listed) == sorted(names)


def test_the_list_of_groups_is_that_of_the_application_and_a_bare_group_shows_its_help(tell):
    bare = {group.name for group in make_app().registered_groups}
    groups = {"features", "models", "edge", "ship", "keys", "lake", "runs", "schedule", "alerts", "home"}
    assert bare == set(GROUPS) == groups
    for group in GROUPS:
        verbs = [words[1] for words in EVERY if words[0] == group]
        code, out, err = tell(group)
        assert (code, err) == (0, "") and verbs and all(f"\n  {verb} " in out for verb in verbs)


def test_the_same_thing_has_the_same_word_everywhere():
    told = {}
    for command, found in options().items():
        for option in found:
            if option.name == "help":
                continue
            assert set(option.opts) & WORDS, (command, option.opts)
            same = (tuple(option.opts), option.multiple, option.help)
            if told.setdefault(option.name, (command, same))[1] != same:
                raise AssertionError(f"{command} and {told[option.name][0]} differ in {option.opts}")
    for command, found in options().items():
        names = {option.name for option in found}
        assert ("start" in names) == ("end" in names) == ("last" in names), command


def test_a_module_of_commands_is_in_the_folder_of_its_part_and_every_init_is_empty():
    folder = Path(app.__file__).parent
    parts = {"data", "models", "serve", "check", "operate"}
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == parts
    for init in (folder / "__init__.py", *folder.glob("*/__init__.py")):
        assert init.read_text() == "" and len(list(init.parent.glob("*.py"))) <= 15
    assert {function.__module__.split(".")[2] for _, function, _ in COMMANDS} == parts


def test_a_shell_completes_words(tmp_path):
    asked = {"_MLWORKBENCH_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "mlworkbench ret"}
    code = "from mlworkbench.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["retrain"])


def test_completion_is_installed_for_the_shell_that_asks(tmp_path):
    told = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", "--install-completion", "bash"]
    done = subprocess.run(words, env={**os.environ, **told}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mlworkbench" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("words", [(), *((group,) for group in GROUPS)], ids=str)
def test_no_line_of_a_list_of_commands_is_cut_off(words, tell):
    _, out, _ = tell(*words, "--help")
    assert "..." not in out.replace("[ARGS]...", "")


def test_no_arguments_print_the_help(tell):
    code, out, _ = tell()
    assert code == 0 and out.startswith("Usage: mlworkbench")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "train"),
        (["train", "--modle", "x"], "--model"),
        (["train", "--rows", "none"], "none"),
        (["train", "--rows", "0"], "0"),
        (["score"], "FILE"),
        (["batch", "--start"], "--start"),
        (["models", "shwo", "x"], "show"),
        (["models", "history", "flights"], "flights"),
        (["certify", "verify"], "FILE"),
        (["certify", "a", "b"], "b"),
        (["lake", "lineage", "--from", "2"], "--from"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(words, said, tell):
    code, _, err = tell(*words)
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert said in err and "--help" in err


def failing(error):
    def command():
        raise error

    return command


def with_command(monkeypatch, command):
    monkeypatch.setattr(app, "COMMANDS", (("fail", command, ""),))


def test_a_refusal_has_exit_code_one(monkeypatch, tell):
    with_command(monkeypatch, failing(RefusedError("gate: at least 0.7; got 0.6; train again")))
    assert tell("fail") == (1, "", "error: gate: at least 0.7; got 0.6; train again\n")


def caused(error, cause):
    """An error of ours that was raised in place of another."""

    def command():
        try:
            raise cause
        except type(cause):
            raise error from None

    return command


@pytest.mark.parametrize(
    "cause",
    [
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("database or disk is full"),
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        TimeoutError("timed out"),
        RuntimeError("Error 111 connecting to 127.0.0.1:6379. Connection refused."),
    ],
    ids=str,
)
def test_what_may_be_tried_again_has_exit_code_75(monkeypatch, tell, cause):
    with_command(monkeypatch, caused(LogError(f"cannot write the log: {cause}; nothing was written"), cause))
    assert tell("fail") == (75, "", f"error: cannot write the log: {cause}; nothing was written\n")
    with_command(monkeypatch, failing(cause))
    assert tell("fail")[0] == 75


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkbenchError("lock: free; got none; wait for its holder").again(), 75),
        (WorkbenchError("connection refused"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file"), 2),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (sqlite3.DatabaseError("file is not a database"), 2),
    ],
    ids=str,
)
def test_only_what_passes_by_itself_may_be_tried_again(monkeypatch, tell, error, code):
    with_command(monkeypatch, failing(error))
    assert tell("fail")[0] == code


def test_a_refusal_is_no_matter_of_trying_again(monkeypatch, tell):
    with_command(monkeypatch, caused(RefusedError("gate: no"), sqlite3.OperationalError("database is locked")))
    assert tell("fail")[0] == 1


def test_an_interrupt_has_no_traceback(monkeypatch, tell):
    with_command(monkeypatch, failing(KeyboardInterrupt()))
    assert tell("fail") == (130, "", "stopped\n")


def test_an_unexpected_error_is_one_line_and_debug_shows_the_traceback(monkeypatch, tell):
    with_command(monkeypatch, failing(ZeroDivisionError("by\nzero")))
    code, _, err = tell("fail")
    assert code == 2 and err.count("\n") == 1 and "ZeroDivisionError: by zero" in err
    code, _, err = tell("--debug", "fail")
    assert code == 2 and "Traceback (most recent call last)" in err


def test_an_error_in_the_users_own_code_names_file_and_line(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def share(a, b):\n    return a / b\n")
    space = {}
    exec(compile(own.read_text(), str(own), "exec"), space)
    with pytest.raises(ZeroDivisionError) as caught:
        space["share"](1, 0)
    line = format_error(caught.value)
    assert f"{own}, line 2, in share" in line and "ZeroDivisionError" in line and "\n" not in line


def test_help_imports_no_heavy_library_and_no_settings():
    heavy = ("pandas", "sklearn", "polars", "pyarrow", "pydantic", "pydantic_settings", "bentoml", "papermill", "numpy")
    code = (
        "import sys; from mlworkbench.cli.app import run; code = run(['--help']);"
        f"found = [name for name in {heavy!r} if name in sys.modules]; sys.exit(' '.join(found) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_error():
    code = "import sys; from mlworkbench.cli.app import main; sys.argv = ['mlworkbench', '--help']; main()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_the_version_is_that_of_the_package(tell):
    from importlib.metadata import version

    assert tell("--version") == (0, f"mlworkbench {version('mlworkbench')}\n", "")


def test_run_leaves_the_arguments_alone():
    words = ["--debug", "--version"]
    run(words)
    assert words == ["--debug", "--version"]
