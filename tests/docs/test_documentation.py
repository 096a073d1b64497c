"""The documentation site: every notebook a page, every name a place, every link an end, and nothing from elsewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts}
MODULES = [
    path for path in (ROOT / "mlworkbench").rglob("*.py") if path.name[0] != "_" and "templates" not in path.parts
]
PICTURED = min(path for path in NOTEBOOKS if '"image/svg+xml"' in path.read_text(encoding="utf-8"))
DRAWN = PICTURED.relative_to(ROOT / "nbs").with_suffix("").as_posix()
SMALL = {"index", "01_errors", "02_client", "core/01_files", "contract/03_relation", "runs/train", DRAWN}
CHROMIUM = shutil.which("chromium")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
mkdocs = pytest.importorskip("mkdocs", reason="MkDocs is not installed: pip install 'mlworkbench[docs]'")


@dataclass
class Seen(HTMLParser):
    """What a page names: its anchors, where its links lead, and what a browser loads for it."""

    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.add(told["href"])
        elif tag != "a":
            self.loads |= {told[name] for name in ("src", "href", "data", "srcset", "poster") if name in told}

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(path: Path) -> Seen:
    page = Seen()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def build(site: Path, chapters: set[str]) -> ModuleType:
    """Build a small site of some chapters; give the hook that made its pages."""
    from mkdocs.commands.build import build as run
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site), strict=False)
    hook = config.hooks[".ci/docs.py"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "CHAPTERS", [one for one in hook.CHAPTERS if one.place in chapters])
        config.plugins.on_startup(command="build", dirty=False)
        run(config)
    return hook


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModuleType]:
    site = tmp_path_factory.mktemp("small") / "site"
    return site, build(site, SMALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the whole site, once, by the program of `make docs`; a warning fails it."""
    found = tmp_path_factory.mktemp("whole") / "site"
    make(found)
    return found


def make(folder: Path) -> None:
    program = Path(sys.executable).with_name("mkdocs")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run([program, "build", "--site-dir", folder], cwd=ROOT, env=environment, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()[-3000:]


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Seen]:
    return {path: read_page(path) for path in sorted(site.rglob("*.html"))}


# --- a small site, and what needs none ---------------------------------------------------------------------------


def test_a_notebook_is_a_page_with_its_outputs_and_without_what_is_said_to_nbdev(
    small: tuple[Path, ModuleType],
) -> None:
    page = read_page(small[0] / "core/01_files.html")
    assert "cannot write the page: No space left on device" in page.text, "an output as it is stored"
    assert "#|" not in page.text and "default_exp" not in page.text
    assert {"../reference/core/files.html", "../notebooks/core/01_files.ipynb"} <= page.links
    assert "a-lock-that-dies-with-its-holder" in page.anchors


def test_a_hidden_cell_and_raw_ones_are_not_shown(small: tuple[Path, ModuleType], tmp_path: Path) -> None:
    import nbformat

    cells = [nbformat.v4.new_markdown_cell("# Title\n\n> One sentence."), nbformat.v4.new_raw_cell("skip_exec: true")]
    cells += [nbformat.v4.new_code_cell("#| hide\nsecret = 1"), nbformat.v4.new_code_cell("#| export\nshown = 1")]
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    hook = small[1]
    text = hook.write_chapter(hook.Chapter(path, "page", "Title", "One sentence.", "core.page"))
    assert "shown = 1" in text and ".exported" in text
    assert not [word for word in ("secret", "skip_exec", "#|") if word in text]


def test_formulas_need_no_script(small: tuple[Path, ModuleType]) -> None:
    html = (small[0] / "contract/03_relation.html").read_text(encoding="utf-8")
    assert "<math" in html and "arithmatex" not in html


def test_a_picture_of_a_notebook_stands_in_its_page(small: tuple[Path, ModuleType]) -> None:
    assert "<svg" in (small[0] / f"{DRAWN}.html").read_text(encoding="utf-8").split("<article")[1]


def test_the_reference_shows_a_docstring_and_links_the_types_of_a_signature(small: tuple[Path, ModuleType]) -> None:
    page = read_page(small[0] / "reference/core/files.html")
    assert "Take the exclusive lock of an open file" in page.text
    assert "mlworkbench.core.files.try_lock" in page.anchors
    assert "../errors.html#mlworkbench.errors.WorkbenchError" in page.links


def test_constants_that_are_assigned_together_have_their_places(small: tuple[Path, ModuleType]) -> None:
    anchors = read_page(small[0] / "reference/errors.html").anchors
    assert {"mlworkbench.errors.LIBRARY", "mlworkbench.errors.SCRIPTS"} <= anchors


def test_a_small_site_asks_nobody_else_for_anything(small: tuple[Path, ModuleType]) -> None:
    assert not foreign({path: read_page(path) for path in small[0].rglob("*.html")}, small[0])


def test_the_navigation_has_every_notebook_and_every_module_once() -> None:
    hook = load_hook()
    found = list(leaves([hook.list_pages(), hook.list_reference()]))
    assert len(found) == len(set(found))
    assert {one.page for one in hook.CHAPTERS if not one.place.startswith(("index", "tutorials/"))} <= set(found)
    assert {one.reference for one in hook.CHAPTERS if one.module} <= set(found)
    assert {one.path for one in hook.CHAPTERS} >= NOTEBOOKS


def load_hook() -> ModuleType:
    from mkdocs.config import load_config

    return load_config(str(ROOT / "mkdocs.yml")).hooks[".ci/docs.py"]


def leaves(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, list | dict):
        for one in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(one)


def test_the_floors_stand_in_the_order_of_the_law() -> None:
    order = [next(iter(one)) for one in load_hook().list_pages() if isinstance(one, dict)]
    assert order.index("core") < order.index("data") < order.index("scoring") < order.index("lab") < order.index("cli")
    assert set(order[-2:]) == {"explore", "runs"}, "what exports nothing stands behind"


def test_every_code_on_the_page_of_limits_is_one_of_the_package() -> None:
    from mlworkbench import ModelDefinition

    told = re.findall(
        r"^\|[^|]*\| ((?:`[a-z_.]+`(?:, )?)+) \|", (ROOT / "docs/limits.md").read_text("utf-8"), re.MULTILINE
    )
    codes = {code for cell in told for code in re.findall(r"`([a-z_.]+)`", cell)}
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    fields = {f"definition.{name}" for name in ModelDefinition.__dataclass_fields__}  # made from the field's name
    assert codes and not [code for code in sorted(codes - fields) if f'code="{code}"' not in source]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_texts_in_the_repository_resolve(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        parts = urlsplit(link)
        if not parts.scheme:
            assert not parts.path or (ROOT / parts.path).exists(), f"{name}: {link}"
            assert parts.path or parts.fragment in anchors, f"{name}: {link}"


# --- the whole site ----------------------------------------------------------------------------------------------


def foreign(pages: dict[Path, Seen], site: Path) -> list[str]:
    """List what a page or a style would fetch from another host; what a script would is seen in the browser."""
    found = [f"{path.name}: {link}" for path, page in pages.items() for link in page.loads if urlsplit(link).netloc]
    outside = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)")
    for path in sorted(site.rglob("*.css")):
        found += [f"{path.name}: {link}" for link in outside.findall(path.read_text(encoding="utf-8"))]
    return found


@pytest.mark.long
def test_every_link_and_anchor_of_the_site_resolves(site: Path, pages: dict[Path, Seen]) -> None:
    missing = []
    for path, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc:
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.is_file() or (
                    parts.fragment and unquote(parts.fragment) not in anchors_of(pages, target)
                ):
                    missing.append(f"{path.relative_to(site)}: {link}")
    assert not missing


def anchors_of(pages: dict[Path, Seen], target: Path) -> set[str]:
    return pages[target].anchors if target in pages else set()


@pytest.mark.long
def test_the_site_asks_nobody_else_for_anything(site: Path, pages: dict[Path, Seen]) -> None:
    assert not foreign(pages, site)


@pytest.mark.long
def test_every_notebook_has_a_page_and_the_notebook_itself(site: Path) -> None:
    places = [path.relative_to(ROOT / "nbs").with_suffix("") for path in NOTEBOOKS]
    assert not [place for place in places if not (site / place).with_suffix(".html").is_file()]
    assert not [place for place in places if not (site / "notebooks" / place).with_suffix(".ipynb").is_file()]


@pytest.mark.long
def test_every_public_name_has_a_place_in_the_reference(site: Path, pages: dict[Path, Seen]) -> None:
    missing = []
    for path in MODULES:
        place = path.relative_to(ROOT / "mlworkbench").with_suffix("")
        anchors = anchors_of(pages, (site / "reference" / place).with_suffix(".html"))
        listed = [node.value for node in ast.parse(path.read_text(encoding="utf-8")).body
                  if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"]  # fmt: skip
        names = [name for value in listed for name in ast.literal_eval(value) if name[0] != "_"]
        module = ".".join(("mlworkbench", *place.parts))
        missing += [f"{module}.{name}" for name in names if f"{module}.{name}" not in anchors]
    assert not missing


@pytest.mark.long
def test_the_site_builds_twice_the_same(site: Path, tmp_path: Path) -> None:
    make(tmp_path / "again")
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (site, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert not [str(path) for path in first if first[path] != second[path]]


LOOKED_AT = ["index", "core/01_files", "reference/scoring/definition", "comparison", "contributing"]


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt install chromium")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_from_disk_without_an_error_and_are_no_wider_than_the_screen(
    site: Path, width: int, scheme: str
) -> None:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'mlworkbench[dev]'"
    )
    told: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("http:", "https:")) and told.append(asked.url))
        for name in LOOKED_AT:
            page.goto((site / f"{name}.html").as_uri())
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} is {wide} px too wide"
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        browser.close()
    assert not told


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_search_finds_a_name_and_a_word_from_disk(site: Path, width: int) -> None:
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'mlworkbench[dev]'"
    )
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((site / "index.html").as_uri())
        if width < 1000:
            page.click(".md-header__button[for=__search]")
        for words, wanted in [("explain_failure", "core.files"), ("false alarms budget", "alarms")]:
            page.fill(".md-search__input", "")
            page.type(".md-search__input", words)
            page.wait_for_selector(".md-search-result__item", timeout=60_000)
            page.wait_for_function(
                "wanted => document.querySelector('.md-search-result').innerText.includes(wanted)",
                arg=wanted,
                timeout=60_000,
            )
        browser.close()
