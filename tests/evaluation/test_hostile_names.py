"""Names and values that hold HTML run on no page: looked at in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.evaluation.card import compose_card, write_table
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.evaluation.monitoring.report import ReportPlace, escape_tags, read_drift, write_reports
from mlworkbench.lab.model.answers import render_table
from mlworkbench.operate.certify.page import render_certificate
from mlworkbench.scoring.frame import FeatureFrame

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
RUN = "window.__pwned=1;alert(1)"
HOSTILE = [
    f"</script><script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f"<svg/onload={RUN}>",
    f"<a href='javascript:{RUN}'>x</a>",
    f"[x](javascript:{RUN})",
    "<!--",
    "<script>",
]


def reports(folder: Path) -> dict[str, Path]:
    draws = np.random.default_rng(0)
    names = HOSTILE[:3]
    table = pd.DataFrame({name: draws.choice(HOSTILE, 120) for name in names})
    table[f"n{HOSTILE[0]}"] = draws.normal(size=120)
    other = table.sample(frac=1, random_state=1).reset_index(drop=True)
    other[f"n{HOSTILE[0]}"] += 3
    about = {"model": HOSTILE[0], "version": HOSTILE[1], "run": HOSTILE[2], "back": HOSTILE[3]}
    place = ReportPlace(folder=folder, html=True, about=about)
    return write_reports(table, other, place, categorical=names, numeric=[f"n{HOSTILE[0]}"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    written = reports(folder / "reports") if has_reports() else {}
    row = {"deployment": HOSTILE[0], "verdict": HOSTILE[1], "reason": HOSTILE[2], "finding": HOSTILE[3]}
    row["feature_mismatches"] = dict.fromkeys(HOSTILE, 2)
    told = {"version": HOSTILE[0], "verdict": HOSTILE[1], "rows": 2, "issued_at": HOSTILE[2], "name": HOSTILE[3]}
    told |= {"hashes": {HOSTILE[0]: HOSTILE[1]}, "environment": {HOSTILE[2]: HOSTILE[0]}, "deployments": [row]}
    own = {"certificate": render_certificate(told), "table": render_table([{n: n for n in HOSTILE}])}
    own["card"] = as_page(hostile_card())
    for name, text in own.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    found = {name: path for name, path in written.items() if name.endswith("html")}
    return {**found, **{name: folder / f"{name}.html" for name in own}}


def has_reports() -> bool:
    from importlib.util import find_spec

    return find_spec("evidently") is not None


def hostile_card() -> str:
    columns = tuple(Column(name, "category", categories=tuple(HOSTILE), nullable=True) for name in HOSTILE)
    frame = FeatureFrame({name: np.array([None, *HOSTILE], dtype=object) for name in HOSTILE})
    profile = profile_frame(frame, np.linspace(0, 1, len(HOSTILE) + 1), None)
    declared = {"model": "late", "description": HOSTILE[1], "owner": HOSTILE[0], "label": HOSTILE[2], "task": "binary"}
    declared |= {"classes": HOSTILE[:2], "positive": HOSTILE[0], "personal": HOSTILE[:1], "entity": HOSTILE[1:2]}
    gates = {"verdict": "undecided", "gates": []}
    return compose_card(declared, {}, gates=gates, profile=profile, request=Contract(columns), notes=HOSTILE)


def as_page(markdown: str) -> str:
    """Give Markdown as a notebook shows it, raw HTML and all."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return f"<!doctype html><body>{markdown2html_mistune(markdown)}</body>"


LOOK = """
import sys
from playwright.sync_api import sync_playwright

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[1], args=sys.argv[2].split())
    for path in sys.argv[3:]:
        page = browser.new_page()
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(f"file://{path}")
        page.wait_for_timeout(1500 if "reports" in path else 100)
        for link in page.query_selector_all("a[href^='javascript:']"):
            dialogs.append("a link that runs")
        length = len(page.inner_text("body"))
        print(path.rpartition("/")[2], page.evaluate("typeof window.__pwned"), len(dialogs), length > 20)
    browser.close()
"""


def test_no_page_runs_what_a_name_or_a_value_holds(pages: dict[str, Path]) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    words = [sys.executable, "-c", LOOK, str(CHROMIUM), " ".join(FLAGS), *map(str, pages.values())]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-600:]
    for line in run.stdout.splitlines():
        assert line.endswith(" undefined 0 True"), line
    assert len(run.stdout.splitlines()) == len(pages) >= 3


def test_evidently_writes_no_tag_of_ours_into_its_scripts(pages: dict[str, Path]) -> None:
    pytest.importorskip("evidently")
    for name in ("drift_html", "quality_html"):
        text = pages[name].read_text(encoding="utf-8")
        assert f"<script>{RUN}" not in text and rf"\u003cscript\u003e{RUN}" in text
    drift = read_drift(pages["drift_html"].with_name("drift.json"))
    assert HOSTILE[0] in drift and drift[f"n{HOSTILE[0]}"]["drift"]


def test_what_is_no_data_is_left_alone() -> None:
    page = '<script>if (1<2) {}</script>\n    var metric_1 = {"a": "<b>"};\n<p>'
    assert escape_tags(page) == '<script>if (1<2) {}</script>\n    var metric_1 = {"a": "\\u003cb\\u003e"};\n<p>'


def test_a_cell_of_a_table_is_text() -> None:
    for text in HOSTILE:
        line = write_table([text], [[text]])
        assert "<" not in line and "](" not in line
