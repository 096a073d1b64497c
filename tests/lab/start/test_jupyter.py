"""Where JupyterLab begins, and with which options."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from mlworkbench.core.settings import Settings
from mlworkbench.errors import DeploymentError
from mlworkbench.lab.start.jupyter import find_running, find_start_page, make_options, write_address

ROOT = Path(__file__).parents[3]


def test_a_new_workbench_and_a_checkout_begin_with_their_start_page(tmp_path: Path) -> None:
    assert find_start_page(ROOT) == "nbs/explore/start.ipynb"
    for place in ("nbs/explore/start.ipynb", "explore/start.ipynb"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text("{}")
        assert find_start_page(tmp_path) == place


def test_it_listens_on_this_machine_alone_and_opens_the_start_page() -> None:
    options = make_options(Settings(folder=ROOT), browser=False)
    assert {"--ServerApp.ip=127.0.0.1", "--ServerApp.open_browser=False"} < {*options}
    assert "--LabApp.default_url=/lab/tree/nbs/explore/start.ipynb" in options
    assert not [option for option in options if "port" in option]


def test_a_port_in_use_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(DeploymentError) as refused:
        make_options(Settings(folder=ROOT), port=taken.getsockname()[1])
    assert refused.value.code == "service.port_in_use"
    with pytest.raises(DeploymentError) as refused:
        make_options(Settings(folder=ROOT), port=70_000)
    assert refused.value.code == "service.port"


def test_a_running_server_is_found_by_its_folder_and_a_dead_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jupyter_server")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    server = {"url": "http://127.0.0.1:8888/", "token": "d1", "root_dir": str(tmp_path / "cars"), "pid": os.getpid()}
    (tmp_path / "jpserver-1.json").write_text(json.dumps(server))
    (tmp_path / "jpserver-2.json").write_text(json.dumps({**server, "root_dir": str(tmp_path / "b"), "pid": 2**22 + 1}))
    found = find_running(tmp_path / "cars")
    assert found is not None
    assert write_address(found, "explore/start.ipynb") == "http://127.0.0.1:8888/lab/tree/explore/start.ipynb?token=d1"
    assert find_running(tmp_path / "b") is None and find_running(tmp_path) is None
