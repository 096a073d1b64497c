"""The start page in each kind of home."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.core.home import Home

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install 'mlworkbench[lab]'")
from mlworkbench.cli.check.doctor import list_attention
from mlworkbench.core.settings import Settings
from mlworkbench.lab import open_start
from mlworkbench.operate.running.table import RunRow, RunTable

ROOT = Path(__file__).parents[3]


def read(part: Any) -> str:
    """Give the text of a part of the page."""
    return " ".join(re.sub(r"<[^>]*>", " ", " ".join(child.value for child in part.children)).split())


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workbench with one definition in its settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = state\n[models]\ncars = definition:cars\n")
    return tmp_path


def test_an_empty_home_says_what_to_do(workbench: Path) -> None:
    page = open_start()
    assert "run mlworkbench train --model cars" in read(page.models)
    assert "no version yet" in read(page.models)
    assert read(page.attention) == "Nothing needs attention."
    assert "mlworkbench train --model cars" in read(page.next)


def test_a_home_of_registered_models_shows_who_serves_and_the_next_step(rooms: Any) -> None:
    page = open_start(str(rooms.home.path))
    serving = rooms.open("birds").version.partition(":")[2]
    assert f"{serving[:8]}, champion" in read(page.models) and serving not in read(page.models)
    assert "mlworkbench certify birds" in read(page.next)


def test_what_went_wrong_meanwhile_is_seen_after_looking_again(workbench: Path) -> None:
    page = open_start()
    row = RunRow("evaluate-1", "cars", "evaluate", "failed", started="2013-11-01T08:00:00+00:00", error="<no> rows")
    RunTable(page.home).write(row)
    assert "no" not in read(page.attention).split("attention")[1]
    page.look()
    assert "failed: &lt;no&gt; rows" in read(page.attention)
    assert "mlworkbench runs show evaluate-1 --model cars" in read(page.attention)


def test_doctor_tells_what_the_start_page_tells(workbench: Path) -> None:
    settings = Settings(folder=workbench, home="state", models={"cars": "definition:cars"})
    assert list_attention(settings) == []
    home = Home.open()
    RunTable(home).write(RunRow("evaluate-1", "cars", "evaluate", "failed", started="2013-11-01T08:00:00+00:00"))
    (told,) = list_attention(settings)
    assert (told.check, told.state) == ("attention cars", "warn")
    assert told.found in read(open_start().attention)


@pytest.mark.parametrize("name", ["start", "runs"])
def test_every_cell_of_the_page_works_in_an_empty_home(workbench: Path, name: str) -> None:
    cells = json.loads((ROOT / f"nbs/explore/{name}.ipynb").read_text())["cells"]
    known: dict[str, Any] = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        *lines, last = "".join(cell["source"]).strip().split("\n")
        exec("\n".join(lines), known)
        shown = None if "=" in last else eval(last, known)
        if "=" in last:
            exec(last, known)
        else:
            assert shown.children, f"{last} shows nothing"
