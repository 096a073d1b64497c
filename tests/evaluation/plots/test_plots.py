"""Every kind of plot, with whatever comes: numbers beyond all, names from outside, light and dark."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.errors import VersionError
from mlworkbench.evaluation.pictures import draw_version_importance
from mlworkbench.evaluation.plots.bars import draw_bars
from mlworkbench.evaluation.plots.curves import (
    count_confusion,
    draw_calibration,
    draw_precision,
    draw_residuals,
    draw_roc,
)
from mlworkbench.evaluation.plots.histograms import compute_shares, draw_bins, draw_histograms, draw_scores
from mlworkbench.evaluation.plots.lines import draw_lines, draw_points
from mlworkbench.evaluation.plots.over_time import Mark, draw_over_time
from mlworkbench.evaluation.plots.picture import SIDES, Picture, Pictures, embed_picture
from mlworkbench.evaluation.plots.reasons import DRAWN, draw_importance, draw_reasons
from mlworkbench.evaluation.plots.scale import Axis, choose_ticks, read_seconds, scale_times, scale_up, write_ticks

SVG = "{http://www.w3.org/2000/svg}"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
DRAWS = np.random.default_rng(0)
TRUTH = DRAWS.random(200) < 0.4
TIMES = [f"2013-10-{day:02d}T00:00:00+00:00" for day in range(1, 8)]
EVIL = "</text><script>window.__ran=1</script>\x00\ud800<img src=x onerror=window.__ran=1>"


def reasons(name: str) -> dict[str, object]:
    told = [{"column": f"{name}{k}", "value": name, "contribution": 1.0 - k / 4} for k in range(14)]
    return {"reasons": told, "base": -1.0, "margin": 2.0, "unit": name, "kind": "sampled", "error": 0.1, "of": name}


def importance(name: str) -> dict[str, object]:
    columns = [{"column": name, "mean": 0.5, "low": 0.4, "high": 0.7}, {"column": "b", "mean": 0, "low": 0, "high": 0}]
    return {"unit": name, "importance": {"rows": 9, "columns": columns}}


KINDS: dict[str, Callable[[str], Picture]] = {
    "lines": lambda n: draw_lines(
        n,
        {n: ([1, 2, 3], [0.1, None, 0.3])},
        across=Axis(n, n),
        up=Axis(n),
        band=(n, 1, 2),
        level=(n, 0.2),
        marks=[(1, 1)],
    ),
    "choices": lambda n: draw_lines(n, {"s": ([n, "b"], [1, 2])}, across=Axis(n), up=Axis("up", n), marks=[(n, 1)]),
    "points": lambda n: draw_points(
        n, {n: (DRAWS.random(9), DRAWS.random(9))}, across=Axis(n), up=Axis(n), diagonal=True
    ),
    "over time": lambda n: draw_over_time(
        n, {n: [(t, 1.0) for t in TIMES]}, up=Axis(n), marks=[Mark(TIMES[2], True, n)]
    ),
    "bars": lambda n: draw_bars(n, {n: -1.0, "b": 2.0}, across=Axis(n, n), spans={n: (-2.0, 0.5)}),
    "bins": lambda n: draw_bins(n, {n: [3, 4], "live": [1, 12_345]}, ticks=[(0.25, n)], across=n),
    "scores": lambda n: draw_scores(n, {n: DRAWS.random(9), "live": DRAWS.random(9)}, across=n),
    "histograms": lambda n: draw_histograms(n, {n: compute_shares(DRAWS.random(9), 0, 1)}, low=0.0, high=1.0),
    "roc": lambda n: draw_roc({n: (TRUTH, DRAWS.random(200)), "b": (TRUTH * 0, TRUTH)}, title=n),
    "precision": lambda n: draw_precision({n: (TRUTH, DRAWS.random(200))}, title=n),
    "calibration": lambda n: draw_calibration(DRAWS.random(200), TRUTH, across=n),
    "residuals": lambda n: draw_residuals({n: (DRAWS.random(9), DRAWS.random(9))}, label=n, unit=n),
    "reasons": lambda n: draw_reasons(reasons(n)),
    "importance": lambda n: draw_importance(importance(n)),
}


def texts(picture: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(picture).iter(f"{SVG}text")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_says_in_words_what_it_shows(kind: str) -> None:
    root = ElementTree.fromstring(KINDS[kind]("wind"))
    title, words = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert title is not None and title.text
    assert words is not None and re.search(r"\d", words.text or ""), "the figures, too"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_from_outside_stays_text(kind: str) -> None:
    picture = KINDS[kind](EVIL)
    tags = {node.tag.removeprefix(SVG) for node in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "style", "title", "desc", "text", "g", "path", "polyline", "rect", "circle"}
    picture.encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_same_text_each_time_and_has_no_ground_of_its_own(kind: str) -> None:
    DRAWS.bit_generator.state = np.random.default_rng(1).bit_generator.state
    first = KINDS[kind]("wind")
    DRAWS.bit_generator.state = np.random.default_rng(1).bit_generator.state
    assert first == KINDS[kind]("wind")
    assert "#fff" not in first and "background" not in first and "nan" not in first


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_lies_beside_the_picture(kind: str) -> None:
    name = "a_long_name_of_a_column_that_has_no_room_anywhere_" * 3
    assert max(map(len, texts(KINDS[kind](name)))) <= 62


NUMBERS = (
    st.floats(allow_nan=True, allow_infinity=True) | st.none() | st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308])
)


def numbers_of(picture: str) -> list[float]:
    """Give all numbers that place something."""
    found: list[float] = []
    for node in ElementTree.fromstring(picture).iter():
        for name in ("points", "d", "transform", "x", "y", "cx", "cy", "width", "height"):
            told = re.sub(r"[a-zA-Z(),]", " ", node.get(name, "").replace("e-", "")).replace("-", " -").split()
            found += map(float, told)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(NUMBERS, max_size=6), st.lists(NUMBERS, min_size=6, max_size=6))
def test_any_numbers_give_a_picture_that_stays_in_its_frame(values: list[float | None], x: list[float | None]) -> None:
    finite = [value if value is not None else float("nan") for value in values]
    sides, up = {"a": (x[: len(values)], values)}, Axis("up")
    drawn = [draw_lines("t", sides, across=Axis("x"), up=up), draw_points("t", sides, across=Axis("x"), up=up)]
    drawn.append(draw_points("t", sides, across=Axis("x"), up=up, diagonal=True))
    drawn.append(draw_bars("t", {str(k): value for k, value in enumerate(finite)}, across=up))
    drawn.append(draw_over_time("t", {"a": list(zip(TIMES, values, strict=False))}, up=up))
    for picture in drawn:
        assert all(-500 <= number <= 800 for number in numbers_of(picture))
        assert "nan" not in picture and "inf" not in picture.replace("infinite", "")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_are_round_and_in_order_and_told_apart(low: float, size: float) -> None:
    scale = scale_up([low, low + size])
    if scale is None:
        return
    values, told = zip(*scale.ticks, strict=True)
    assert 2 <= len(values) <= 7 and list(values) == sorted(set(values)) and len(set(told)) == len(told)
    assert scale.low <= low + 1e-8 * size and low + size <= scale.high + 1e-8 * size


def test_an_axis_of_bars_begins_at_zero_and_one_of_lines_where_that_is_near() -> None:
    assert scale_up([0.9, 0.95]).low == 0.9 and scale_up([0.1, 0.9]).low == 0
    assert scale_up([0.9, 0.95], zero=True).low == 0 and scale_up([-0.9, -0.1]).high == 0
    assert write_ticks(choose_ticks(1_000_000, 1_000_004))[1] == "1,000,001"


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        ("2013-10-01T00:10:00+00:00", "2013-10-01T00:25:00+00:00", ["00:10", "00:15", "00:20", "00:25"]),
        ("2013-10-01T18:00:00+02:00", "2013-10-02T12:00:00+00:00", ["18:00", "10-02", "06:00", "12:00"]),
        ("2013-01-01", "2013-12-31", ["2013-01", "2013-04", "2013-07", "2013-10"]),
        ("1900-01-01", "2020-01-01", ["1920", "1970", "2020"]),
    ],
)
def test_times_have_round_ticks(first: str, last: str, told: list[str]) -> None:
    assert [text for _, text in scale_times(read_seconds([first, last])).ticks] == told


def test_a_line_breaks_where_nothing_was_measured() -> None:
    values = [1.0, 2.0, None, 3.0, 4.0, None, 5.0]
    picture = draw_over_time("accuracy", {"batch": list(zip(TIMES, values, strict=True))}, up=Axis("accuracy"))
    assert picture.count("<polyline") == 3 and "5 values, 2 times without" in picture
    assert "Nothing to draw" in draw_over_time("x", {"batch": [(TIMES[0], None)]}, up=Axis("x"))
    assert "Nothing to draw" in draw_over_time("x", {}, up=Axis("x"))


def test_sides_differ_by_colour_and_by_line_and_by_marker_and_further_ones_are_counted() -> None:
    assert [len({getattr(side, what) for side in SIDES}) for what in ("colour", "dash", "marker")] == [6, 6, 6]
    picture = draw_lines("t", {str(k): ([0, 1], [k, k]) for k in range(9)}, across=Axis("x"), up=Axis("y"))
    assert "and 3 more, not drawn" in picture and ">5<" in picture and ">6<" not in picture.replace(">6</text>", "", 1)


def test_of_many_points_some_are_drawn_and_all_are_told() -> None:
    x = DRAWS.random(20_000)
    picture = draw_points("t", {"cars": (x, x)}, across=Axis("x"), up=Axis("y"))
    assert "cars, 500 of 20,000 points shown" in picture and "20,000 points" in picture and len(picture) < 80_000


def test_curves_carry_the_numbers_of_scikit_learn_and_say_which_side_has_none() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = DRAWS.random(200)
    drawn = draw_roc({"old": (TRUTH, scores), "new": (np.zeros(200), scores)})
    assert f"old, area {roc_auc_score(TRUTH, scores):.3f}" in drawn and "new: rows of one class only" in drawn
    assert f"average precision {average_precision_score(TRUTH, scores):.3f}" in draw_precision({"old": (TRUTH, scores)})
    assert "no labelled row" in draw_roc({"old": ([np.nan], [0.5])})
    assert "mean absolute error 2 EUR" in draw_residuals({"a": ([3, 1, np.nan], [1, 3, 5])}, label="price", unit="EUR")


def test_confusion_counts_each_class_as_it_was() -> None:
    lines = count_confusion(["a", "a", "b"], ["a", "b", "b"], classes=["a", "b", "c"])
    assert [line["rows"] for line in lines] == [2, 1, 0] and lines[0]["taken for b"] == "1 (50 %)"


def test_reasons_add_up_and_hide_what_is_personal() -> None:
    told = reasons("column")
    told["reasons"][0].pop("value")  # type: ignore[index]
    picture = draw_reasons(told)
    rest = sum(one["contribution"] for one in told["reasons"][DRAWN:])  # type: ignore[index]
    assert f"{14 - DRAWN} more together: {rest:.3g}." in picture and "column0: 1." in picture
    assert "sampled, ± 0.1" in picture and "Why 2 and not the usual -1 column of column" in picture
    assert "not available: made before" in draw_importance({"why": "made before"})
    assert "0.5 (0.4 to 0.7)" in draw_importance(importance("wind"))


LOOK = """
import json, sys
from playwright.sync_api import sync_playwright

with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[1], args=sys.argv[2].split())
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme=scheme)
        page.goto(f"file://{sys.argv[3]}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        ran = page.evaluate("typeof window.__ran")
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).length")
        inks = page.evaluate('''() => [...document.images].slice(0, 1).map(image => {
            const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            pen.drawImage(image, 0, 0);
            const data = pen.getImageData(0, 0, canvas.width, 40).data;
            let sum = 0, count = 0;
            for (let k = 0; k < data.length; k += 4) if (data[k + 3] > 250) { sum += data[k]; count += 1; }
            return [sum / count, data[3]];
        })[0]''')
        texts = page.evaluate('''() => Math.min(...[...document.querySelectorAll("svg text")].map(
            t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a))''')
        print(json.dumps([wide, ran, broken, inks, texts]))
    browser.close()
"""


def test_pictures_are_read_on_a_phone_by_day_and_by_night(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -e '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    drawn = [kind(EVIL) for kind in KINDS.values()]
    images = [
        *(embed_picture(one, "text") for one in [KINDS["lines"]("wind"), *drawn]),
        Pictures({EVIL.replace("\ud800", ""): drawn[0]})._repr_html_(),
    ]
    head = '<!doctype html><meta charset="utf-8"><style>:root{color-scheme:light dark}</style>'
    (tmp_path / "page.html").write_text(head + "\n".join([*images, *drawn]), encoding="utf-8")
    words = [sys.executable, "-c", LOOK, str(CHROMIUM), " ".join(FLAGS), str(tmp_path / "page.html")]
    run = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-600:]
    light, dark = (json.loads(line) for line in run.stdout.splitlines())
    assert light[:3] == dark[:3] == [390, "undefined", 0]
    assert light[3][0] < 100 < 180 < dark[3][0] and light[3][1] == dark[3][1] == 0, "ink on no ground"
    assert min(light[4], dark[4]) > 8.5, "pixels of the smallest text"


def test_a_version_says_what_it_goes_by_or_why_that_is_not_known(tmp_path: Path) -> None:
    assert "not available: made before; train again" in draw_version_importance(tmp_path)
    (tmp_path / "reasons.json").write_text(json.dumps({"way": "linear", **importance("wind")}), encoding="utf-8")
    assert "wind: 0.5 (0.4 to 0.7)." in draw_version_importance(tmp_path)
    (tmp_path / "reasons.json").write_text('{"importance": {"columns": [{}]}}', encoding="utf-8")
    with pytest.raises(VersionError):
        draw_version_importance(tmp_path)
