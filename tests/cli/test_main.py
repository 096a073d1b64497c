import subprocess
import sys

import pytest

from mlworkbench.cli import main
from mlworkbench.cli.main import COMMANDS, GROUPS, one_line, run
from mlworkbench.errors import Refused

EVERY = [(name,) for name, _, _ in COMMANDS] + [(group, name) for group, _, inner in GROUPS for name, _, _ in inner]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_help_ends_with_an_example_and_offers_json(words, tell):
    code, out, _ = tell(*words, "--help")
    assert code == 0
    assert out.strip().splitlines()[-1].strip().startswith(f"Example: mlworkbench {' '.join(words)}")
    assert "--json" in out


@pytest.mark.parametrize("words", [(), ("features",), ("models",), ("runs",)], ids=str)
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
        (["models"], None),
        (["score"], "FILE"),
        (["batch", "--start"], "--start"),
        (["models", "shwo", "x"], "show"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(words, said, tell):
    code, _, err = tell(*words)
    if said is None:
        return
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert said in err and "--help" in err


def failing(error):
    def command():
        raise error

    return command


def with_command(monkeypatch, command):
    monkeypatch.setattr(main, "COMMANDS", (("fail", command, "mlworkbench fail"),))


def test_a_refusal_has_exit_code_one(monkeypatch, tell):
    with_command(monkeypatch, failing(Refused("gate: at least 0.7; got 0.6; train again")))
    assert tell("fail") == (1, "", "error: gate: at least 0.7; got 0.6; train again\n")


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
    line = one_line(caught.value)
    assert f"{own}, line 2, in share" in line and "ZeroDivisionError" in line and "\n" not in line


def test_help_imports_no_heavy_library_and_no_settings():
    heavy = ("pandas", "sklearn", "polars", "pyarrow", "pydantic", "pydantic_settings", "bentoml", "papermill", "numpy")
    code = (
        "import sys; from mlworkbench.cli.main import run; code = run(['--help']);"
        f"found = [name for name in {heavy!r} if name in sys.modules]; sys.exit(' '.join(found) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_error():
    code = "import sys; from mlworkbench.cli.main import main; sys.argv = ['mlworkbench', '--help']; main()"
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
