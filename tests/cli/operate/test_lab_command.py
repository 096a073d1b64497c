"""`mlworkbench lab` as a process: it answers, knows this workbench, is found, and ends at once."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mlworkbench.cli.console import require_package
from mlworkbench.errors import WorkbenchError

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", "lab", "--no-browser", "--json"]


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs on a workbench."""

    process: subprocess.Popen[str]
    told: dict[str, object]
    folder: Path
    environment: dict[str, str]

    def ask(self, path: str, *, post: bool = False) -> object:
        """Ask Jupyter's own interface, with the token of the printed address."""
        address, _, token = str(self.told["url"]).partition("?token=")
        url = f"{address.partition('/lab')[0]}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"token {token}"}, data=b"{}" if post else None)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: pip install 'mlworkbench[lab]'")
    top = tmp_path_factory.mktemp("lab")
    folder = top / "my cars"
    (folder / "explore").mkdir(parents=True)
    (folder / "explore/start.ipynb").write_text((ROOT / "nbs/explore/start.ipynb").read_text())
    (folder / "settings.ini").write_text("[workbench]\nhome = state\n")
    foreign = top / "data/kernels/python3"  # the user's own, of another Python
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "another", "language": "python"}')
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run", "HOME": "home"}
    environment = {**os.environ, **{name: str(top / part) for name, part in places.items()}, "PYTHONPATH": str(ROOT)}
    for name in ("MLWORKBENCH_HOME", "MLWORKBENCH_FOLDER", "JUPYTER_PREFER_ENV_PATH"):
        environment.pop(name, None)
    process = subprocess.Popen(
        COMMAND, cwd=folder / "explore", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        ready, _, _ = select.select([process.stdout], [], [], 300)
        line = process.stdout.readline() if ready else ""
        assert line, process.stderr.read() if process.poll() is not None else "it said nothing for five minutes"
        yield Lab(process, json.loads(line), folder, environment)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until_it_answers(lab: Lab) -> object:
    until = time.monotonic() + 60
    while True:
        try:
            return lab.ask("/api/status")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@pytest.mark.system
def test_it_answers_on_this_machine_with_its_token_and_the_start_page_in_front(lab: Lab) -> None:
    wait_until_it_answers(lab)
    assert str(lab.told["url"]).startswith("http://127.0.0.1:")
    assert "/lab/tree/explore/start.ipynb?token=" in str(lab.told["url"])
    assert lab.told["folder"] == str(lab.folder) and lab.told["started"] is True
    listens = [c.laddr.ip for c in psutil.Process(lab.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {*listens} == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(str(lab.told["url"]).partition("/lab")[0] + "/api/contents", timeout=30)
    assert refused.value.code == 403


@pytest.mark.system
def test_its_kernel_is_this_interpreter_and_knows_home_and_settings(lab: Lab) -> None:
    wait_until_it_answers(lab)
    lab.ask("/api/kernels", post=True)
    (kernel,) = (one for one in psutil.Process(lab.process.pid).children() if "ipykernel_launcher" in one.cmdline())
    assert Path(kernel.exe()).resolve() == Path(sys.executable).resolve()
    assert kernel.environ()["MLWORKBENCH_HOME"] == str(lab.folder / "state")
    assert kernel.environ()["MLWORKBENCH_FOLDER"] == str(lab.folder)


@pytest.mark.system
def test_a_second_one_names_the_first_and_starts_nothing(lab: Lab) -> None:
    wait_until_it_answers(lab)
    again = subprocess.run(COMMAND, cwd=lab.folder, env=lab.environment, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0
    assert json.loads(again.stdout) == {**lab.told, "started": False}


@pytest.mark.system
def test_ctrl_c_ends_it_and_its_kernels_without_a_question_or_a_traceback(lab: Lab) -> None:
    wait_until_it_answers(lab)
    kernels = psutil.Process(lab.process.pid).children()
    lab.process.send_signal(signal.SIGINT)
    _, said = lab.process.communicate(timeout=60)
    assert lab.process.returncode == 0
    assert "Traceback" not in said
    assert psutil.wait_procs(kernels, timeout=10)[1] == []


def test_without_jupyterlab_it_says_what_to_install_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WorkbenchError, match=r"pip install 'mlworkbench\[lab\]'") as refused:
        require_package("jupyterlab", extra="lab")
    assert refused.value.code == "extra.missing"
