"""One folder to send: it opens from disk on any screen, names no person, runs nothing, overwrites nobody's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.errors import WorkbenchError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.lab.site.pages import gather_model, render_model
from mlworkbench.lab.site.parts import render_card
from mlworkbench.lab.site.site import MAKER, MANIFEST, write_site
from mlworkbench.operate.loop.alerts import Finding, acknowledge_alert, report_findings
from mlworkbench.operate.loop.history import write_window
from mlworkbench.operate.running.table import RunRow, RunTable
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.registry.registry import Registry

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
EVIL = "<script>window.__pwned=1</script><img src=x onerror=alert(1)>\"'>"
DAY = 86_400_000_000
VOID = {"meta", "path", "circle", "polyline", "br", "img", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [(name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    return Home.open()


PERSONS = [f"Person Number{k}" for k in range(60)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A model of persons' cars that is promoted and has predictions."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("MLWORKBENCH_HOME", str(folder / "home"))
        patch.chdir(folder)
        home = Home.open()
        draws = np.random.default_rng(0)
        rows = pd.DataFrame({"age": draws.uniform(0, 9, 60), "km": draws.uniform(0, 9, 60)})
        late = pd.Series(rows["age"] > 4, name="sold")
        pipeline = LogisticRegression().fit(rows, late)
        rows["owner"] = PERSONS
        made = register(pipeline, rows, late, name="cars", personal=("owner",), home=home)
        registry = Registry(home)
        registry.promote("cars", made.tag, who="Ada Lovelace", why="better in September", override="a test")
        rows.to_parquet(folder / "cars.parquet")
        score_file(registry.open("cars"), folder / "cars.parquet", home=home)
        yield home


def fill(home: Home, model: str = "cars", *, windows: int = 20, subject: str = "scores") -> None:
    """Give a model a history, alerts and runs."""
    start = 1_380_585_600_000_000
    for k in range(windows):
        line = {
            "version": f"{model}:1f",
            "deployment": "batch",
            "rows": 900 + k,
            "verdict": "fail" if k > 17 else "pass",
        }
        measures = {"accuracy": None if k == 3 else 0.9 - k / 100, "odd": float("inf"), "psi:x": 0.1, "missing:x": 0.0}
        lines = [{**line, "measures": measures, "reasons": [EVIL], "findings": []}]
        lines.append({**lines[0], "deployment": "realtime", "rows": None, "measures": {}, "verdict": "strange"})
        write_window(model, (start + k * DAY, start + (k + 1) * DAY), lines, home=home)
    found = {"model": model, "source": "monitor", "since": "2013-10-18", "cause": EVIL, "what": EVIL}
    report_findings([Finding(subject=subject, state="fail", **found)], model=model, source="monitor", home=home)
    acknowledge_alert(1, who="Ada Lovelace", why="the source is told", home=home)
    times = {"started": "2013-10-20T02:30:00+00:00", "ended": "2013-10-20T02:31:00+00:00"}
    run = RunRow(run_id="monitor-20131020T023000-1f2e", model=model, notebook="monitor", state="failed", **times)
    RunTable(home).write(RunRow(**{**run.__dict__, "error": "row 3 of Grace Hopper cannot be read"}))


def test_a_workbench_with_a_model_is_pages_that_link_to_each_other_and_to_nothing_else(served, tmp_path):
    pages = write_site(tmp_path / "public", home=served)
    assert [page.name for page in pages] == ["index.html", "model-cars.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        read = Reader(text)
        assert not read.open and not {"script", "link", "img", "iframe", "object"} & {*read.tags}
        asked = [value for name, value in read.values if name in ("href", "src", "data", "action", "xlink:href")]
        assert {value.partition("#")[0] for value in asked} <= {"", *(other.name for other in pages)}
        assert "url(" not in text and "@import" not in text
    cars = pages[1].read_text(encoding="utf-8")
    assert "cars:" in cars and "What a request holds" in cars and "better in September" in cars and "champion" in cars


def test_nobody_is_named_on_it_neither_persons_nor_keys_nor_predictions_nor_those_who_act(served, tmp_path):
    pages = write_site(tmp_path / "public", home=served)
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    log = read_log(served.log("cars"))
    assert log.height == 60 and "owner" in text
    named = [name for entity in log["entity"] for name in json.loads(entity).values()]
    asked = [*log["prediction_id"], *named, *PERSONS, "Lovelace"]
    assert len(asked) == 181 and not [name for name in asked if name in text]


def test_who_acknowledged_and_the_errors_of_runs_are_left_out(home, tmp_path):
    fill(home)
    write_site(tmp_path / "public", home=home)
    text = (tmp_path / "public/model-cars.html").read_text(encoding="utf-8")
    assert "acknowledged" in text and "monitor-20131020T023000-1f2e" in text
    assert "Lovelace" not in text and "Hopper" not in text


def test_what_a_name_holds_is_text_and_a_card_asks_no_network(home, tmp_path):
    fill(home, subject=EVIL)
    for page in write_site(tmp_path / "public", home=home):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text and "<img" not in text and not Reader(text).open
    card = "# c\n\n![x](http://a.b/c.png) [y](javascript:z) <http://a.b> <b>\n\n[r]: http://a.b\n\n[r]\n"
    card += "\n| a |\n| --- |\n| <i> |"
    shown = Reader(str(render_card(card)))
    assert not {"img", "a", "b", "i", "script"} & {*shown.tags} and "table" in shown.tags


def test_a_home_without_anything_has_a_site_too(home, tmp_path):
    (page,) = write_site(tmp_path / "public", home=home)
    assert "Nothing is open." in page.read_text(encoding="utf-8")


def test_an_alert_of_no_model_stands_on_the_first_page_and_its_name_leads_nowhere(home, tmp_path):
    for model in ("", "../../evil", "index"):
        found = Finding(model=model, source="schedule:a", subject="ingest", state="fail", what="it broke", since="s")
        report_findings([found], model=model, source=found.source, home=home)
    pages = write_site(tmp_path / "a/b/public", home=home)
    assert [page.name for page in pages] == ["index.html", "model-index.html"]
    text = pages[0].read_text(encoding="utf-8")
    assert text.count("mlworkbench alerts list") == 3 and "it broke" not in text  # a command may have printed a value
    assert sorted(path.name for path in tmp_path.rglob("*.html")) == ["index.html", "model-index.html"]


def test_a_part_that_cannot_be_read_is_told_and_the_others_stand(home, tmp_path):
    fill(home)
    broken = home.model("cars") / "certificates" / "20131020T000000"
    broken.mkdir(parents=True)
    (broken / "certificate.json").write_text("no json")
    facts = gather_model("cars", home=home)
    assert len(facts.faults) == 1 and "cannot read the certificate" in facts.faults[0]
    shown = str(render_model(facts, title="t", made="m", package="p"))
    assert "Cannot be shown: cannot read the certificate" in shown and shown.count("<figure>") == 3


def test_it_is_written_anew_in_place_and_pages_of_gone_models_go(home, tmp_path):
    fill(home)
    folder = tmp_path / "public"
    write_site(folder, home=home)
    (home.path / "alerts.sqlite").unlink()
    (page,) = write_site(folder, home=home)
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", MANIFEST]
    assert page.stat().st_mode & 0o777 == 0o644 and json.loads((folder / MANIFEST).read_text())["files"] == [
        "index.html"
    ]


@pytest.mark.parametrize("strange", ["notes.txt", ".git", "index.html", "site.json"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(home, tmp_path, strange):
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / strange).write_text('{"files": "mine"}')
    with pytest.raises(WorkbenchError) as caught:
        write_site(folder, home=home)
    assert caught.value.code == "site.not_ours" and strange in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == [strange] and (
        folder / strange
    ).read_text() == '{"files": "mine"}'


def test_a_site_in_which_somebody_put_a_file_is_refused_and_so_is_a_file(home, tmp_path):
    write_site(tmp_path / "public", home=home)
    (tmp_path / "public/mine.html").write_text("mine")
    for place in (tmp_path / "public", tmp_path / "public/mine.html"):
        with pytest.raises(WorkbenchError) as caught:
            write_site(place, home=home)
        assert caught.value.code == "site.not_ours"


def test_a_manifest_that_names_files_outside_removes_nothing_there(home, tmp_path):
    write_site(tmp_path / "public", home=home)
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "public" / MANIFEST).write_text(json.dumps({"made_by": MAKER, "files": ["index.html", "../precious"]}))
    write_site(tmp_path / "public", home=home)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_line(home, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkbenchError) as caught:
        write_site(tmp_path / "file" / "public", home=home)
    assert "\n" not in str(caught.value)


KILLER = """
import os, signal, sys, time
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.lab.site.site import write_site

home, folder = Home.open(), Path(sys.argv[1])
for k in range(int(sys.argv[2])):
    child = os.fork()
    while not child:
        write_site(folder, home=home)
    time.sleep(0.03 + 0.07 * k % 0.4)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert all(page.read_text().rstrip().endswith("</html>") for page in folder.glob("*.html"))
"""


def test_a_killed_writer_leaves_whole_pages_and_a_folder_that_is_still_a_site(home, tmp_path, kills):
    for name in ("cars", "bikes"):
        report_findings(
            [Finding(model=name, source="s", subject="x", state="warn", what="w", since="s")],
            model=name, source="s", home=home,
        )  # fmt: skip
    folder = tmp_path / "public"
    words = [sys.executable, "-c", KILLER, str(folder), str(kills)]
    assert subprocess.run(words, env=dict(os.environ), timeout=300).returncode == 0
    write_site(folder, home=home)
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "model-bikes.html",
        "model-cars.html",
        MANIFEST,
    ]


def test_the_numbers_of_a_single_window_are_a_table(home):
    fill(home, windows=1)
    shown = str(render_model(gather_model("cars", home=home), title="t", made="m", package="p"))
    assert "<figure>" not in shown and '<td class="number" data-title="batch">900</td>' in shown
    assert "share missing" not in shown and not Reader(shown).open


LOOK = """
import json, sys
from playwright.sync_api import sync_playwright

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[1], args=sys.argv[2].split())
    for width, scheme in ((1280, "light"), (900, "light"), (390, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        for path in sys.argv[3:]:
            page.goto(f"file://{path}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            ran = page.evaluate("typeof window.__pwned")
            print(json.dumps([width, scheme, wide, ground, ran, said, asked]))
    page.emulate_media(media="print", color_scheme="dark")
    print(json.dumps([page.evaluate("getComputedStyle(document.body).backgroundColor")]))
    browser.close()
"""


@pytest.mark.system
def test_in_a_browser_it_fits_every_screen_in_the_light_and_in_the_dark_and_asks_for_nothing(home, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    fill(home, windows=40, subject="a_column_with_a_name_that_nobody_would_break_into_lines_" * 6)
    pages = [str(page) for page in write_site(tmp_path / "public", home=home)]
    words = [sys.executable, "-c", LOOK, str(CHROMIUM), FLAGS, *pages]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-600:]
    *looks, paper = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(looks) == 6 and paper == ["rgb(255, 255, 255)"]
    for width, scheme, wide, ground, ran, said, asked in looks:
        assert wide == width and ran == "undefined" and said == []
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 23, 29)")
        assert all(url.startswith("file://") for url in asked)
