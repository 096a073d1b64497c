"""README.md is true: its Python runs, and it is what the index notebook gives."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mlworkbench.cli.app import COMMANDS
from mlworkbench.client import Client
from mlworkbench.core.settings_file import KEYS
from mlworkbench.deploy.realtime.process import free_port

ROOT = Path(__file__).parents[1]


def test_the_python_of_the_readme_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks, "README.md shows no Python"
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    run = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_readme_is_what_the_index_notebook_gives() -> None:
    check = subprocess.run([sys.executable, ROOT / ".ci/readme.py", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


def test_the_page_of_the_service_names_every_setting_of_it() -> None:
    told = (ROOT / "services/realtime/README.md").read_text(encoding="utf-8")
    keys = [key for key in KEYS if key.section == "serve"]
    assert keys and not [key.place for key in keys if not any(f"`{name}`" in told for name in key.variables)]


# --- the second screen: from a file and a pipeline to a service that answers -------------------------------------


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Give the code blocks of the second screen by their language, in an empty folder with a home of its own."""
    for name in [name for name in os.environ if name.startswith("MLWORKBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## From a file and a pipeline") : text.index("## Your own model in one call")]
    return re.findall(r"```(\w+)\n(.*?)\n```", part, flags=re.DOTALL)


def typed(line: str, *more: str) -> list[str]:
    """Give the words of a command as a shell would start it, by the program that is installed here."""
    words = shlex.split(line)
    return [str(Path(sys.executable).with_name(words[0])), *words[1:], *more]


def there_is(line: str) -> bool:
    """Say whether this release has the command of a line that names one."""
    words = line.split()
    return words[:1] != ["mlworkbench"] or bool({words[1], " ".join(words[1:3])} & {name for name, _, _ in COMMANDS})


def test_the_second_screen_is_typed_as_it_is_printed_and_the_service_answers(screen: list[tuple[str, str]]) -> None:
    (_, python), (_, doctor), (_, told), (_, commands), (_, request), (_, ship) = screen
    subprocess.run([sys.executable, "-c", python], check=True)
    run = subprocess.run(typed(doctor), capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [line for line in told.splitlines() if there_is(line)]
    *first, serve = commands.splitlines()
    for line in first:
        run = subprocess.run(typed(line), capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert [line.split()[1] for line in run.stdout.splitlines()[-7:-2]] == ["equal"] * 5
    assert ship in told, "the container is the doctor's last line"
    assert answered(serve, request)["decision"] == "Gentoo"


def answered(serve: str, request: str) -> dict[str, object]:
    """Start the service on a free port and send what the page sends, as curl does; give the answer."""
    port = free_port()
    service = subprocess.Popen(typed(serve, "--port", str(port)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        Client(f"http://127.0.0.1:{port}").wait(120)
        *_, body = shlex.split(request)
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/score", body.encode())
        asked.add_header("Content-Type", "application/json")  # as `curl --json` does
        with urllib.request.urlopen(asked) as answer:
            found = json.load(answer)
    finally:
        service.send_signal(signal.SIGINT)
        told, _ = service.communicate(timeout=60)
    assert f"page: http://127.0.0.1:{port}/docs" in told.decode()
    return found
