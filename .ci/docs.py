"""The pages of the documentation site that `docs/` does not hold, and its navigation: a hook of MkDocs (mkdocs.yml).

Each notebook becomes a page of plain Markdown by nbconvert, with its outputs as they are stored; each module a page of
the reference, which mkdocstrings fills. Plain Markdown keeps links, search and colours one thing for all pages, and
outlives the generator.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from xml.etree.ElementTree import Element

import nbformat
from jinja2 import DictLoader, Template
from latex2mathml.converter import convert as to_mathml
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "nbs"
PACKAGE = ROOT / "mlworkbench"
TUTORIALS = ROOT / "docs/tutorials"
TEXTS = {"changelog.md": ROOT / "CHANGELOG.md", "contributing.md": ROOT / "CONTRIBUTING.md"}
TEXTS |= {f"services/{path.parent.name}.md": path for path in sorted((ROOT / "services").glob("*/README.md"))}

FENCE = "`" * 8
PAGE = f"""
{{%- extends 'markdown/index.md.j2' -%}}
{{% block input %}}
{FENCE} {{ .python {{{{ '.exported data-search-exclude=""' if cell.metadata.exported }}}} }}
{{{{ cell.source }}}}
{FENCE}
{{% endblock %}}
{{% block stream %}}
{FENCE} {{ .text .output }}
{{{{ output.text | strip_ansi }}}}
{FENCE}
{{% endblock %}}
{{% block data_text %}}
{FENCE} {{ .text .output }}
{{{{ output.data['text/plain'] | strip_ansi }}}}
{FENCE}
{{% endblock %}}
{{% block data_html %}}
<div class="output">{{{{ output.data['text/html'] }}}}</div>
{{% endblock %}}
{{% block data_svg %}}
<div class="output">{{{{ output.data['image/svg+xml'] }}}}</div>
{{% endblock %}}
"""


# --- what there is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """A notebook: its place among the pages, and what stands under its title."""

    path: Path
    place: str
    title: str
    sentence: str
    module: str

    @property
    def page(self) -> str:
        """The page's address in the site's own tree."""
        return "index.md" if self.place == "index" else f"{self.place}.md"

    @property
    def reference(self) -> str:
        """The page of the module that the notebook exports."""
        return page_of(f"mlworkbench.{self.module}")


def page_of(module: str) -> str:
    """Give the address of a module's page in the reference."""
    return f"reference/{module.removeprefix('mlworkbench.').replace('.', '/')}.md"


def read_chapter(path: Path) -> Chapter:
    """Read title, first sentence and module of a notebook; a tutorial's place is beside the other pages of `docs/`."""
    cells = nbformat.v4.reads(path.read_text(encoding="utf-8")).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    title, sentence = (re.search(rf"^{mark} (.+)", prose, re.MULTILINE) for mark in "#>")
    module = re.search(r"^#\| default_exp (\S+)", code, re.MULTILINE)
    place = path.relative_to(NOTEBOOKS if NOTEBOOKS in path.parents else ROOT / "docs").with_suffix("").as_posix()
    told = [found[1] if found else "" for found in (title, sentence, module)]
    return Chapter(path, place, told[0] or path.stem, *told[1:])


def list_chapters() -> list[Chapter]:
    """List all notebooks of `nbs/` and the tutorials, each folder in reading order."""
    paths = sorted([*NOTEBOOKS.rglob("*.ipynb"), *TUTORIALS.glob("*.ipynb")])
    return [read_chapter(path) for path in paths if ".ipynb_checkpoints" not in path.parts]


def list_floors() -> list[str]:
    """List the folders from the ground up, as the law that holds them does (FLOORS in tests/test_house.py)."""
    law = ast.parse((ROOT / "tests/test_house.py").read_text(encoding="utf-8"))
    named = {node.targets[0].id: node.value for node in law.body if isinstance(node, ast.Assign)}
    return [name.replace(".", "/") for floor in ast.literal_eval(named["FLOORS"]) for name in sorted(floor)]


def list_names() -> dict[str, str]:
    """Give the whole name of each function and class that one module alone makes, and that is no plain word."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
                found.setdefault(node.name, []).append(f"{module}.{node.name}")
    return {name: places[0] for name, places in found.items() if len(places) == 1 and re.search(r"_|[A-Z]", name)}


CHAPTERS = list_chapters()
FLOORS = list_floors()
NAMES = list_names()
EXPORTER = MarkdownExporter(
    config=Config({"ExtractOutputPreprocessor": {"enabled": False}}),
    extra_loaders=[DictLoader({"page.md.j2": PAGE})],
    template_file="page.md.j2",
)


# --- navigation --------------------------------------------------------------------------------------------------


def rank(folder: str) -> tuple[int, str]:
    """Say where a folder stands: on the floor where it is named first; what exports nothing stands behind."""
    inside = [number for number, name in enumerate(FLOORS) if f"{name}/".startswith(f"{folder}/")]
    return min(inside, default=len(FLOORS)), folder


def folders_in(folder: str) -> list[str]:
    """List the folders right inside a folder, from the ground up."""
    found = {parent.as_posix() for one in CHAPTERS for parent in Path(one.place).parents}
    within = {name for name in found - {"."} if Path(name).parent.as_posix() == (folder or ".")}
    return sorted(within - {"tutorials"}, key=rank)


def inside(folder: str) -> list[Chapter]:
    """List the chapters that lie in a folder itself."""
    return [one for one in CHAPTERS if one.page != "index.md" and Path(one.place).parent.as_posix() == (folder or ".")]


def list_pages(folder: str = "") -> list[object]:
    """Make the navigation of a folder's chapters: its overview, its chapters, its folders."""
    below = [{Path(name).name: list_pages(name)} for name in folders_in(folder)]
    return [f"{folder or 'chapters'}/index.md", *(one.page for one in inside(folder)), *below]


def list_reference(folder: str = "") -> list[object]:
    """Make the navigation of a folder's modules, in the order of the chapters."""
    below = [{Path(name).name: found} for name in folders_in(folder) if (found := list_reference(name))]
    return [*({one.module.rpartition(".")[2]: one.reference} for one in inside(folder) if one.module), *below]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the navigation, and teach Markdown to link the names of the package."""
    config.nav = [
        {"Home": "index.md"},
        {"Tutorials": ["tutorials/index.md", *(one.page for one in CHAPTERS if one.place.startswith("tutorials/"))]},
        {"Chapters": list_pages()},
        {"Reference": ["reference/index.md", *list_reference()]},
        {"Choosing": ["comparison.md", "limits.md"]},
        {"Project": ["changelog.md", "contributing.md", {"services": [n for n in TEXTS if n.startswith("services/")]}]},
    ]
    config.markdown_extensions.append(LinkedNames())
    return config


# --- pages -------------------------------------------------------------------------------------------------------


def show_cells(chapter: Chapter) -> Iterator[nbformat.NotebookNode]:
    """Give the cells that a reader sees, without what is said to nbdev."""
    for cell in nbformat.v4.reads(chapter.path.read_text(encoding="utf-8")).cells:
        directives = re.findall(r"^#\| *(\w+)", cell.source, re.MULTILINE)
        if cell.cell_type == "raw" or "hide" in directives:
            continue
        cell.metadata["exported"] = "export" in directives
        cell.source = re.sub(r"^#\|.*\n*", "", cell.source, flags=re.MULTILINE)
        if cell.source.strip():
            yield cell


def write_chapter(chapter: Chapter) -> str:
    """Write the page of a notebook; under its title stands where its code and the notebook itself are."""
    cells = list(show_cells(chapter))
    module = f"Code beside a bar is the module [`mlworkbench.{chapter.module}`](/{chapter.reference}). "
    source = f"[This page as a notebook](/notebooks/{chapter.place}.ipynb)"
    where = f"{module if chapter.module else ''}{source}\n{{ .where }}"
    cells[0].source = re.sub(r"\A# .+\n*(^>.*\n?)*", rf"\g<0>\n\n{where}\n\n", cells[0].source, flags=re.MULTILINE)
    notebook = nbformat.v4.new_notebook(cells=cells)
    return EXPORTER.from_notebook_node(notebook)[0]


def write_overview(folder: str) -> str:
    """Write the page that lists the chapters of a folder, each with its sentence."""
    title = folder.replace("/", " / ") or "Chapters"
    listed = [f"- [{one.title}](/{one.page}): {one.sentence}" for one in inside(folder)]
    below = [f"- [{Path(name).name}](/{name}/index.md): {list_titles(name)}" for name in folders_in(folder)]
    return "\n".join([f"# {title}", "", *listed, "", *below, ""])


def list_titles(folder: str) -> str:
    """Name what a folder holds, in one line."""
    return ", ".join([*(one.title for one in inside(folder)), *(Path(name).name for name in folders_in(folder))])


def write_reference(chapter: Chapter) -> str:
    """Write the page of a module, which mkdocstrings fills from its docstrings."""
    name = f"mlworkbench.{chapter.module}"
    parts = [f"# {chapter.module}", f"Chapter: [{chapter.title}](/{chapter.page})", f"::: {name}"]
    return "\n\n".join([*parts, *show_unpacked(name)]) + "\n"


def show_unpacked(module: str) -> Iterator[str]:
    """Show constants that are assigned several at once, which mkdocstrings does not see, each with an anchor."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [ast.unparse(target) for target in node.targets[0].elts]
            yield "".join(f"[](){{ #{module}.{name} }}" for name in names if name[0] != "_")
            yield f"```python\n{ast.unparse(node)}\n```"


def write_doors() -> str:
    """Write the front page of the reference: the names of the two doors, each with its place."""
    parts = ["# Reference", "", "What everybody may import; what stands below these two doors may move."]
    for door in ("mlworkbench", "mlworkbench.lab"):
        tree = ast.parse(ROOT.joinpath(*door.split("."), "__init__.py").read_text(encoding="utf-8"))
        places = [(alias.name, str(node.module)) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                  for alias in node.names if str(node.module).startswith("mlworkbench.")]  # fmt: skip
        parts += ["", f"## {door}", "", "| name | place |", "| --- | --- |"]
        parts += [f"| [`{name}`][{place}.{name}] | [{place}](/{page_of(place)}) |" for name, place in sorted(places)]
    return "\n".join([*parts, ""])


def write_text(path: Path) -> str:
    """Write the page of one of the project's own texts; that of `ship image` is a template, filled as an example."""
    text = path.read_text(encoding="utf-8")
    example = {"model": "MODEL", "version": "A version as an image", "scorer": "compiled", "auth": "keys"}
    return Template(text, trim_blocks=True).render(example) if "{%" in text else text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made here to the pages of `docs/`."""
    for tutorial in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(tutorial)
    made = {chapter.page: write_chapter(chapter) for chapter in CHAPTERS}
    made["index.md"] = f"---\nhide: [navigation]\n---\n\n{made['index.md']}"
    made |= {chapter.reference: write_reference(chapter) for chapter in CHAPTERS if chapter.module}
    folders = {parent.as_posix() for one in CHAPTERS for parent in Path(one.place).parents} - {".", "tutorials"}
    made |= {f"{folder}/index.md": write_overview(folder) for folder in folders}
    made |= {"chapters/index.md": write_overview(""), "reference/index.md": write_doors()}
    made |= {page: write_text(path) for page, path in TEXTS.items()}
    for place, text in sorted(made.items()):
        files.append(File.generated(config, place, content=text))
    for chapter in CHAPTERS:
        files.append(File.generated(config, f"notebooks/{chapter.place}.ipynb", abs_src_path=str(chapter.path)))
    for picture in sorted((NOTEBOOKS / "images").iterdir()):
        files.append(File.generated(config, f"images/{picture.name}", abs_src_path=str(picture)))
    return files


# --- links -------------------------------------------------------------------------------------------------------


def list_sources() -> dict[str, str]:
    """Give the page that is made of each notebook (named without its ending), text and folder of a service."""
    found = {chapter.path.relative_to(ROOT).with_suffix("").as_posix(): chapter.page for chapter in CHAPTERS}
    found |= {path.relative_to(ROOT).as_posix(): page for page, path in TEXTS.items()}
    found |= {page.removesuffix(".md"): page for page in TEXTS if page.startswith("services/")}
    return found | {path.relative_to(ROOT).as_posix(): path.name for path in (ROOT / "docs").glob("*.md")}


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Make links to notebooks, and names of notebooks and texts in prose, links to their pages."""
    sources = list_sources()
    folder = next((Path(source).parent for source, made in sources.items() if made == page.file.src_uri), Path())

    def link(found: re.Match[str]) -> str:
        name = (found["named"] or found["linked"]).removesuffix(".ipynb").removesuffix("/")
        places = (name, f"nbs/{name}", os.path.normpath(folder / name))
        target = next((sources[place] for place in places if place in sources), "")
        if not target:
            return found[0]
        return f"[`{found['named']}`](/{target})" if found["named"] else f"](/{target}"

    return re.sub(r"(?<!\[)`(?P<named>[\w./]+)`(?!\])|\]\((?P<linked>[\w./]+\.ipynb)", link, markdown)


class LinkedNames(Extension):
    """Markdown that links the names of the package's functions and classes to the reference, also in docstrings."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Look at the names after all other Markdown was read."""
        md.treeprocessors.register(NameLinker(md), "linked_names", 1)


class NameLinker(Treeprocessor):
    """Put each `name` of the package into a link, which autorefs resolves."""

    def run(self, root: Element) -> None:
        """Link the names in place."""
        for parent in list(root.iter()):
            if parent.tag not in ("a", "pre", "autoref", "h1", "h2", "h3", "h4", "h5", "h6"):
                for place, child in enumerate(parent):
                    if child.tag == "code" and (name := NAMES.get((child.text or "").removesuffix("()"))):
                        link = Element("autoref", {"identifier": name, "optional": ""})
                        link.append(child)
                        link.tail, child.tail = child.tail, None
                        parent[place] = link


def on_page_content(html: str, **_: object) -> str:
    """Write formulas as MathML, which browsers draw themselves."""
    formula = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
    return re.sub(formula, lambda found: to_mathml(unescape(found[2])), html, flags=re.DOTALL)


def on_post_template(output_content: str, template_name: str, **_: object) -> str:
    """Leave out what only a site with an address needs."""
    return "" if template_name in ("404.html", "sitemap.xml") else output_content
