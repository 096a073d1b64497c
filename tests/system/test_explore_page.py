"""The explore page as a person sees it: opened in JupyterLab, all cells run, in a real browser."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry

ROOT = Path(__file__).parents[2]
TOKEN = "explore-page"
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
ERRORS = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'


@pytest.fixture
def chromium() -> str:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install 'mlworkbench[dev]'")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("there is no Chromium here: apt-get install chromium")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workbench with two registered models, the second of them champion, and the page in it."""
    for name in ("BENTOML_HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("JUPYTERLAB_WORKSPACES_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    place = tmp_path / "workbench"
    place.mkdir()
    (place / "settings.ini").write_text("[workbench]\nhome = .workbench\n")
    shutil.copy(ROOT / "nbs/explore/model.ipynb", place)
    home, (X, y) = Home.open(place / ".workbench"), load_iris(return_X_y=True, as_frame=True)
    for name, rows in (("iris", 150), ("lilies", 100)):
        register(LogisticRegression(max_iter=1000).fit(X[:rows], y[:rows]), X[:rows], y[:rows], name=name, home=home)
    registry = Registry(home)
    registry.promote("lilies", registry.find("lilies"), who="test", why="first", override="a test")
    return place


@contextlib.contextmanager
def jupyter_lab(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    words += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    log = folder.parent / "jupyter.log"
    with log.open("w") as file:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], stdout=file, stderr=file, cwd=folder)
        try:
            until = time.monotonic() + 90
            while time.monotonic() < until and server.poll() is None:
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=5)
                    break
                time.sleep(0.2)
            assert server.poll() is None, log.read_text()[-2000:]
            yield f"http://127.0.0.1:{port}/lab/tree/model.ipynb?token={TOKEN}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.mark.system
def test_run_all_shows_the_menu_and_the_answer_in_a_browser(chromium: str, folder: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    with jupyter_lab(folder) as address, sync_playwright() as browsers:
        profile = str(folder.parent / "profile")
        browser = browsers.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS.split(), viewport={"width": 1400, "height": 2400}
        )
        try:
            page = browser.pages[0]
            page.set_default_timeout(90_000)
            page.goto(address)
            page.wait_for_selector(".jp-Notebook .jp-Cell")
            page.wait_for_function(IDLE)
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
            expect(page.get_by_role("tab", name="training rows")).to_be_visible(timeout=90_000)
            menu = page.locator("select", has=page.locator("option", has_text="lilies - champion"))
            told = [" ".join(option.split()) for option in menu.locator("option").all_text_contents()]
            assert told == ["lilies - champion", "iris - no champion; newest version, it declares no gates"]
            expect(page.get_by_text("- binary - no description")).to_be_visible()
            menu.select_option(index=1)
            expect(page.get_by_text("- multiclass - no description")).to_be_visible()
            assert page.locator(ERRORS).count() == 0
        finally:
            browser.close()
