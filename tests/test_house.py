"""The laws of the house: who may import whom, what stays light, and that notebooks are the source."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mlworkbench"
FLOORS = [
    {"errors"},
    {"client"},
    {"core"},
    {"contract"},
    {"metrics"},
    {"data.sources"},
    {"data.lake"},
    {"data.sinks"},
    {"data.ingest"},
    {"features"},
    {"features.offline"},
    {"features.online"},
    {"features.checks"},
    {"scoring.artifacts"},
    {"scoring"},
    {"scoring.compiled.base"},
    {"scoring.compiled.encoding", "scoring.compiled.ensembles", "scoring.compiled.numeric", "scoring.compiled.models"},
    {"scoring.compiled.text"},
    {"scoring.compiled.meta"},
    {"scoring.compiled"},
    {"scoring.explain"},
    {"scoring.version"},
    {"scoring.registry"},
    {"evaluation.plots"},
    {"evaluation"},
    {"evaluation.log"},
    {"evaluation.monitoring"},
    {"deploy"},
    {"deploy.batch", "deploy.realtime"},
    {"deploy.streaming"},
    {"deploy.edge"},
    {"operate.training.anchor"},
    {"operate.training", "operate.running"},
    {"operate.replay"},
    {"operate.certify", "operate.trace"},
    {"operate.loop"},
    {"operate.schedule"},
    {"operate.ship", "operate.advise"},
    {"operate"},
    {"lab.page"},
    {"lab.data"},
    {"lab.model", "lab.features", "lab.versions", "lab.monitor", "lab.certificate", "lab.running"},
    {"lab.site"},
    {"lab.start"},
    {"lab"},
    {"cli", "cli.data", "cli.models", "cli.serve", "cli.check", "cli.operate"},
    {"examples"},
    {"demo"},
]
EXEMPT = {"mlworkbench"}  # the lazy facade
DOORS = {"mlworkbench", "mlworkbench.lab"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "_modidx.py" and "templates" not in p.parts)
HEAVY = ["pandas", "sklearn", "polars", "pyarrow", "deltalake", "skops"]
HEAVY += ["skl2onnx", "pandera", "evidently", "IPython", "nbdev"]
LIGHT = [
    "deploy.request",
    "deploy.realtime.service",
    "deploy.realtime.application",
    "deploy.feedback",
    "deploy.edge.command",
    "scoring.compiled.scorer",
    "contract.cell",
    "deploy.streaming.worker",
    "deploy.streaming.command",
    "scoring.frame",
    "scoring.decision",
    "scoring.version.version",
    "features.windows",
    "features.online.lookup",
    "features.row_functions",
    "evaluation.log.writer",
    "evaluation.log.label_writer",
    "evaluation.equivalence",
    "metrics.functions",
    "contract.contract",
    "contract.values",
    "contract.pseudonym",
    "scoring.version.version",
    "contract.check",
    "core.home",
    "client",
    "examples.flights_features",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module: str) -> str:
    """Name the folder of a module below the package; `errors` and `client` are floors of their own."""
    parts = module.split(".")[1:]
    return ".".join(parts[:-1]) or ".".join(parts)


def package_of(module: str) -> str:
    """Name the folder of a module; the command line is one package, whose groups and table know each other."""
    return "cli" if module.startswith("mlworkbench.cli.") else folder_of(module)


def floor_of(module: str) -> int:
    folder = folder_of(module)
    return next(number for number, floor in enumerate(FLOORS) if folder in floor)


def imports_of(path: Path) -> set[str]:
    """Absolute names of the workbench's modules that a file imports, relative imports resolved."""
    package = list(path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found |= {stem} | {f"{stem}.{alias.name}" for alias in node.names}
    known = {module_name(p) for p in MODULES}
    return {name for name in found if name in known}


CHAPTERS = [p for p in MODULES if p.name != "__init__.py"]


@pytest.mark.parametrize("path", CHAPTERS, ids=module_name)
def test_a_module_imports_only_from_its_own_folder_or_from_a_floor_below(path: Path) -> None:
    name = module_name(path)
    asked = {other for other in imports_of(path) - {name} if (ROOT / f"{other.replace('.', '/')}.py").exists()}
    beside = {other for other in asked if floor_of(other) == floor_of(name) and folder_of(other) != folder_of(name)}
    above = {other for other in asked if floor_of(other) > floor_of(name)}
    assert not above | (beside if not name.startswith("mlworkbench.cli") else set())


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Give the first circle of a graph, as its names in order; nothing where there is none."""
    state: dict[str, str] = {}

    def visit(name: str, trail: list[str]) -> list[str]:
        if state.get(name) == "open":
            return [*trail[trail.index(name) :], name]
        if name in state or name not in graph:
            return []
        state[name] = "open"
        found = next((circle for other in sorted(graph[name]) if (circle := visit(other, [*trail, name]))), [])
        state[name] = "done"
        return found

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


def test_a_circle_is_found() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_there_is_no_circle_of_files_and_none_of_folders() -> None:
    files = {module_name(p): imports_of(p) - {module_name(p)} for p in CHAPTERS}
    assert not find_circle({name: {other for other in asked if other in files} for name, asked in files.items()})
    folders: dict[str, set[str]] = {}
    for name, asked in files.items():
        own = package_of(name)
        folders[own] = folders.get(own, set()) | {package_of(other) for other in asked & {*files}} - {own}
    assert not find_circle(folders)


def test_a_folder_holds_at_most_fourteen_chapters_numbered_in_reading_order() -> None:
    books: dict[Path, list[str]] = {}
    for page in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if "default_exp" in page.read_text(encoding="utf-8") and ".ipynb_checkpoints" not in page.parts:
            books.setdefault(page.parent, []).append(page.stem)
    for folder, names in books.items():
        numbers = [name[:3] for name in names]
        assert numbers == [f"{k:02d}_" for k in range(1, len(names) + 1)], f"{folder.name}: {names}"
        assert len(names) <= 14, f"{folder.name} holds {len(names)} chapters"


def test_a_chapter_exports_the_module_of_its_own_place_and_name() -> None:
    for page in sorted((ROOT / "nbs").rglob("*.ipynb")):
        found = re.search(r"#\| default_exp ([\w.]+)", page.read_text(encoding="utf-8"))
        if found and ".ipynb_checkpoints" not in page.parts:
            place = ".".join([*page.parent.relative_to(ROOT / "nbs").parts, page.stem[3:]])
            assert found[1] == place, f"{page.name} exports {found[1]}"


def public_names(path: Path) -> set[str]:
    """Name the functions, classes and constants that a module defines itself, without those that begin with _."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            found |= {target.id for target in _targets(node)}
    return {name for name in found if not name.startswith("_")}


LAYERS = sorted({module_name(p).split(".")[1] for p in CHAPTERS} - {"cli", "errors", "client"})


@pytest.mark.parametrize("layer", LAYERS)
def test_no_name_stands_for_two_things_in_a_layer(layer: str) -> None:
    places: dict[str, list[str]] = {}
    for path in (p for p in CHAPTERS if module_name(p).startswith(f"mlworkbench.{layer}.")):
        for name in public_names(path):
            places.setdefault(name, []).append(module_name(path))
    assert not {name: found for name, found in places.items() if len(found) > 1}


def test_no_chapter_says_so_much_that_the_door_would_list_it() -> None:
    """nbdev writes modules with more than three lines of docstring into the door, in place of its own."""
    assert not [p for p in CHAPTERS if len((ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "").splitlines()) > 3]
    assert "Modules:" not in (PACKAGE / "__init__.py").read_text(encoding="utf-8")


def test_every_chapter_is_executed_by_the_tests() -> None:
    """`nbdev-test` skips folders by a pattern; none that exports may match it."""
    pattern = re.search(r"--skip-folder-re '([^']+)'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert pattern
    skipped = re.compile(pattern[1].replace("$$", "$"))
    for page in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if "default_exp" in page.read_text(encoding="utf-8"):
            assert not [part for part in page.relative_to(ROOT / "nbs").parts[:-1] if skipped.search(part)]


def test_the_client_imports_errors_only() -> None:
    assert imports_of(PACKAGE / "client.py") <= {"mlworkbench.errors", "mlworkbench"}


def test_services_are_never_imported_by_the_package() -> None:
    assert not [p for p in MODULES if "import services" in p.read_text(encoding="utf-8")]


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in run.stdout.split()}


@pytest.fixture(scope="module")
def loaded_by_all() -> set[str]:
    """What the light modules bring in together: where nothing is heavy, none of them needs a process of its own."""
    return loaded_by("; ".join(f"import mlworkbench.{module}" for module in LIGHT))


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_service_imports_stays_light(module: str, loaded_by_all: set[str]) -> None:
    heavy = loaded_by_all & set(HEAVY) and loaded_by(f"import mlworkbench.{module}") & set(HEAVY)
    assert not heavy, f"mlworkbench.{module} brings in {sorted(heavy)}"


@pytest.mark.parametrize("statement", ["import mlworkbench", "import mlworkbench.cli.app"])
def test_starting_imports_no_heavy_library(statement: str) -> None:
    heavy = loaded_by(statement) & {*HEAVY, "numpy", "bentoml", "pydantic", "pydantic_settings", "papermill"}
    assert not heavy


def test_the_package_is_a_fresh_export_of_the_notebooks(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ["pyproject.toml", "README.md"]:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "mlworkbench").mkdir()
    shutil.copy(PACKAGE / "__init__.py", tmp_path / "mlworkbench/__init__.py")
    exporter = Path(sys.executable).with_name("nbdev-export")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([exporter], cwd=tmp_path, check=True, capture_output=True, env=environment)
    fresh = {p.relative_to(tmp_path): p.read_text() for p in (tmp_path / "mlworkbench").rglob("*.py")}
    fresh = {p: text for p, text in fresh.items() if p.name not in {"_modidx.py", "__init__.py"}}
    committed = {p.relative_to(ROOT): p.read_text() for p in MODULES if p.name != "__init__.py"}
    assert fresh.keys() == committed.keys()
    differing = [str(p) for p in fresh if fresh[p] != committed[p]]
    assert not differing, f"not a fresh export: {differing}"


def test_every_notebook_names_its_kernel_and_language() -> None:
    """Papermill's program and Jupyter start nothing without; `nbdev-clean` keeps the kernelspec and drops the rest."""
    wanted = {"display_name": "python3", "language": "python", "name": "python3"}
    pages = [*(ROOT / "nbs").rglob("*.ipynb"), *(PACKAGE / "templates").rglob("*.ipynb")]
    found = {page: json.loads(page.read_text(encoding="utf-8"))["metadata"].get("kernelspec") for page in pages}
    without = [str(page.relative_to(ROOT)) for page, spec in sorted(found.items()) if spec != wanted]
    assert not [name for name in without if ".ipynb_checkpoints" not in name]


@pytest.mark.parametrize("path", sorted((ROOT / "nbs/runs").glob("*.ipynb")), ids=lambda p: p.stem)
def test_each_run_notebook_has_one_parameters_cell(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    assert len(tagged) == 1
    names = {target.id for node in ast.parse("".join(tagged[0]["source"])).body for target in _targets(node)}
    assert names >= {"home", "model", "run_id", "start", "end", "version"}


def _targets(node: ast.stmt) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in targets if isinstance(target, ast.Name)]


def test_no_committed_notebook_stores_an_error_or_a_path_of_a_machine() -> None:
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        assert '"output_type": "error"' not in text, f"{path.name} stores an error"
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, f"{path.name} stores a path"


def test_a_pickle_is_opened_by_one_module_in_a_process_of_its_own() -> None:
    words = ("import pickle", "import joblib", "import cloudpickle", "allow_pickle=True")
    guilty = [module_name(p) for p in MODULES if any(word in p.read_text(encoding="utf-8") for word in words)]
    assert guilty == ["mlworkbench.scoring.artifacts.pickle_process"]


def lines_of_code(path: Path) -> int:
    """Count the lines that hold code: no blanks, comments, imports or docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose: set[int] = set()
    for node in ast.walk(tree):
        holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holds and ast.get_docstring(node, clean=False) is not None:
            prose |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            prose |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") and k not in prose for k, line in lines)


def test_no_module_is_longer_than_a_page_can_teach() -> None:
    long = {module_name(p): lines for p in MODULES if (lines := lines_of_code(p)) > 250}
    assert not long


def test_every_file_that_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| to change") : text.index("## Working")]
    missing = [name for name in re.findall(r"`([\w./]+/[\w.]+)`", table) if not (ROOT / name).exists()]
    assert not missing


def test_every_notebook_that_prose_names_exists() -> None:
    """A name with folders counts from nbs/, one without from the folder of the page that names it."""
    pages = {ROOT / "README.md", *(ROOT / "services").rglob("README.md"), *(ROOT / "nbs").rglob("*.ipynb")}
    missing = []
    for page in sorted(page for page in pages if ".ipynb_checkpoints" not in page.parts):
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        for name in set(re.findall(r"(?<![\w/])(?:[a-z_]+/)*\d\d_[a-z]\w+", text)):
            near = page.parent if "/" not in name else ROOT / "nbs"
            if not (near / f"{name.removeprefix('nbs/')}.ipynb").exists():
                missing.append((page.relative_to(ROOT).as_posix(), name))
    assert not missing


def prose_of(path: Path) -> str:
    """Give the prose of a page: the texts of a notebook, or a file of Markdown, without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(source) for source in cells)
    return re.sub(r"```.*?```|<!--.*?-->|^(?: {4}|\t).*$", "", text, flags=re.DOTALL | re.MULTILINE)


PROSE = [ROOT / "README.md", *(ROOT / "services").rglob("*.md"), *(PACKAGE / "templates").rglob("*.md")]
PROSE += [*(ROOT / "nbs").rglob("*.ipynb"), *(PACKAGE / "templates").rglob("*.ipynb")]
PROSE = sorted(page for page in PROSE if ".ipynb_checkpoints" not in page.parts)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def test_every_name_of_a_notebook_in_prose_is_a_link() -> None:
    """A command in which a notebook is named is a command; so is a page that names itself."""
    named = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*(?:\d\d_[a-z]\w+(?:\.ipynb)?|[a-z]\w*\.ipynb)(?![\w/])")
    commands = re.compile(r"`[^`\n]*\s[^`\n]*`")
    texts = {page: commands.sub("", LINK.sub("", prose_of(page))) for page in PROSE}
    bare = {page.relative_to(ROOT).as_posix(): {*named.findall(text)} - {page.name, page.stem}
            for page, text in texts.items()}  # fmt: skip
    assert not {page: sorted(names) for page, names in bare.items() if names}


def test_every_link_to_a_notebook_leads_to_one() -> None:
    """Templates are read where `new` puts them: run notebooks and explore pages beside the rest."""
    links = [(page, target) for page in PROSE for _, target in LINK.findall(prose_of(page))]
    inside = [(page, target.partition("#")[0]) for page, target in links if ":" not in target and ".ipynb" in target]
    places = {page: [page.parent] for page, _ in inside}
    for page in places:
        places[page] += [ROOT / "nbs"] if "templates" in page.parts else []
    missing = [(page.name, name) for page, name in inside if not any((top / name).is_file() for top in places[page])]
    assert inside and not missing


def cells_of(path: Path) -> list[str]:
    """Give the code of a page: the cells of a notebook, the Python blocks of a text, or a whole file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if path.suffix == ".md" else [text]


def used_by(path: Path) -> set[str]:
    """Name the modules that a page imports; of the workbench each by its whole name, others by their first word."""
    nodes = [node for cell in cells_of(path) for node in ast.walk(ast.parse(cell))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name if name.startswith("mlworkbench") else name.partition(".")[0] for name in names}


RUNS = sorted((ROOT / "nbs/runs").glob("*.ipynb"))
EXPLORE = sorted((ROOT / "nbs/explore").glob("*.ipynb"))
COPIED = [path for folder in ("services", "mlworkbench/templates") for path in (ROOT / folder).rglob("*")]
COPIED = sorted(path for path in COPIED if path.suffix in (".py", ".ipynb") and "__pycache__" not in path.parts)
GUESTS = [*RUNS, *EXPLORE, *COPIED, ROOT / "nbs/index.ipynb", ROOT / "README.md"]
DEVICE = ROOT / "services/edge/score.py"


@pytest.mark.parametrize("path", GUESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_whoever_is_outside_comes_in_by_the_two_doors(path: Path) -> None:
    """What is copied into other people's folders must outlive every move below; a device carries only what it needs."""
    allowed = {"mlworkbench.deploy.edge.command"} if path == DEVICE else {"mlworkbench"}
    allowed |= {"mlworkbench.lab"} if path in EXPLORE else set()
    assert {name for name in used_by(path) if name.startswith("mlworkbench")} <= allowed


@pytest.mark.parametrize("path", [*RUNS, *EXPLORE], ids=lambda path: path.stem)
def test_a_page_to_be_run_imports_nothing_beside_the_doors(path: Path) -> None:
    assert used_by(path) <= {*DOORS, "pathlib"}


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_door_has_at_most_forty_names_each_with_a_docstring(door: str) -> None:
    module = importlib.import_module(door)
    names = set(module.__all__) - {"__version__"}
    assert 0 < len(names) <= 40
    assert module.__all__ == sorted(names) + (["__version__"] if door == "mlworkbench" else [])
    assert not [name for name in names if not (getattr(module, name).__doc__ or "").strip()]


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_door_tells_editors_what_it_gives(door: str) -> None:
    tree = ast.parse((ROOT.joinpath(*door.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    told = {alias.name: node.module for node in ast.walk(tree) for alias in getattr(node, "names", ())
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlworkbench.")}  # fmt: skip
    assert told == {name: f"mlworkbench.{place}" for name, place in importlib.import_module(door)._WHERE.items()}


def test_below_the_doors_every_init_is_empty() -> None:
    below = [p for p in PACKAGE.rglob("__init__.py") if module_name(p) not in DOORS]
    bodies = {p: ast.parse(p.read_text(encoding="utf-8")).body for p in below}
    told = {p: [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            for p, body in bodies.items()}  # fmt: skip
    assert not [module_name(p) for p, body in told.items() if body]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_notebook_calls_one_function_a_step(path: Path) -> None:
    """No arithmetic, no loops, and one call a cell beside `globals()` and `print`: all else is the package's."""
    counting = (ast.BinOp, ast.For, ast.While, ast.If, ast.IfExp, ast.comprehension, ast.Lambda, ast.FunctionDef)
    for cell in cells_of(path):
        nodes = list(ast.walk(ast.parse(cell)))
        assert not [ast.unparse(node) for node in nodes if isinstance(node, (*counting, ast.AugAssign, ast.Dict))]
        calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
        assert len([name for name in calls if name not in ("globals", "print")]) <= 1, cell


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_public_function_takes_the_home_by_keyword(path: Path) -> None:
    """Subject, object, then ``home=``; a home alone is a subject itself. Commands have another order, the shell's."""
    if module_name(path).split(".")[1:2] in (["cli"], ["examples"]):
        pytest.skip("commands and examples are no interface")
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    named = {f.name: [a.arg for a in (*f.args.posonlyargs, *f.args.args)] for f in functions if f.name[0] != "_"}
    assert not [name for name, places in named.items() if "home" in places and places != ["home"]]


def test_a_private_part_of_bentoml_is_named_in_one_guarded_place() -> None:
    named = [module_name(p) for p in MODULES if "bentoml._internal" in p.read_text(encoding="utf-8")]
    assert named == ["mlworkbench.scoring.registry.store"]
