"""An export on a device: nothing runs that is not of it, nothing is lost that was there, every refusal is one line."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.cli.serve.edge import _check_signed
from mlworkbench.cli.serve.edge import score as edge_score
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.edge.device import open_export, score_source
from mlworkbench.deploy.edge.export import export_edge, export_status
from mlworkbench.errors import DeploymentError
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame, frame_from_columns
from mlworkbench.scoring.registry.signature import keep_pulled_key
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version, open_version

CONTRACT = Contract((Column("x", "number"), Column("y", "text", nullable=True)))
FRAME = Contract((Column("x", "number"),))
MARK = "\nimport os, pathlib\npathlib.Path(os.environ['MARK']).write_text('ran')\n"
EVENTS = b'{"x": 1, "y": "a"}\n{"x": 1, "y": "a"}\n{"x": 2, "y": null}\n'


def line_version(folder: Path, **more: Any) -> Version:
    frame = FeatureFrame({"x": np.arange(40.0)})
    line = LinearRegression().fit(frame_to_pandas(frame, FRAME), np.arange(40.0) * 2)
    request = {"x": frame.columns["x"], "y": np.array(["a"] * 40, dtype=object)}
    parts = {"model": "line", "task": "regression", "classes": [], "request": CONTRACT, "frame": FRAME, **more}
    build_version(folder, pipeline=line, **parts, golden=(request, {}, frame), training=frame, deployments=("edge",))
    return open_version(folder)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return line_version(tmp_path_factory.mktemp("line") / "version")


@pytest.fixture(scope="module")
def exported(version: Version, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_edge(version, tmp_path_factory.mktemp("export") / "device").folder


@pytest.fixture
def device(exported: Path, tmp_path: Path) -> Path:
    (tmp_path / "e.jsonl").write_bytes(EVENTS)
    return Path(shutil.copytree(exported, tmp_path / "device"))


@pytest.fixture
def opened(exported: Path) -> Version:
    return open_export(exported / "model")


def score(device: Path, *words: str, isolated: bool = False, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run score.py from the folder beside it; a planted module leaves a mark."""
    environment = {**os.environ, "MARK": str(device.parent / "mark")}
    command = [sys.executable, *(["-I"] if isolated else []), str(device / "score.py"), *(words or ("e.jsonl",))]
    return subprocess.run(command, cwd=device.parent, capture_output=True, env=environment, input=stdin)


def refused(device: Path, words: str) -> None:
    done = score(device)
    assert not (device.parent / "mark").exists(), "it ran"
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr.decode()
    assert words in done.stderr.decode()
    assert not (device.parent / "predictions.jsonl").exists()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# what Python could import ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json.py", "numpy.py", "hashlib.py", "re.py", "pathlib.py", "__future__.py",
                                  "numpy/__init__.py", "json/__init__.py", "encodings/__init__.py"])  # fmt: skip
def test_a_module_beside_score_py_never_runs_and_is_refused(device: Path, name: str) -> None:
    (device / name).parent.mkdir(exist_ok=True)
    (device / name).write_text(MARK)
    refused(device, f"{name.partition('/')[0]} is no file of the export")


@pytest.mark.parametrize("name", ["json.py", "numpy.py"])
def test_a_module_beside_score_py_never_runs_though_the_current_folder_is_there(device: Path, name: str) -> None:
    (device / name).write_text(MARK)
    environment = {**os.environ, "MARK": str(device / "mark"), "PYTHONPATH": str(device)}
    done = subprocess.run([sys.executable, "score.py", "e.jsonl"], cwd=device, capture_output=True, env=environment)
    assert done.returncode == 2 and not (device / "mark").exists()


def test_data_beside_score_py_is_no_module(device: Path) -> None:
    (device / "incoming").mkdir()
    (device / "incoming" / "e.jsonl").write_bytes(EVENTS)
    (device / "notes.txt").write_text("mine")
    done = score(device, str(device / "incoming" / "e.jsonl"))
    assert done.returncode == 0, done.stderr
    assert score(device, isolated=True).returncode == 0


@pytest.mark.parametrize(
    "part", ["lib/mlworkbench/deploy", "lib/numpy", "lib/mlworkbench", "lib", "model", "model/code"]
)
def test_a_link_to_a_folder_is_foreign(device: Path, part: str) -> None:
    place, elsewhere = device / part, device.parent / "elsewhere"
    if place.exists():
        place.rename(elsewhere)
    else:
        elsewhere.mkdir()
        (elsewhere / "__init__.py").write_text(MARK)
    place.symlink_to(elsewhere)
    refused(device, f"{part} is no file of the export" if part not in ("lib", "model") else part)


@pytest.mark.parametrize("name", ["lib/mlworkbench/errors.py", "model/scorer.json", "score.py", "requirements.txt"])
def test_a_link_to_a_file_is_foreign(device: Path, name: str) -> None:
    (device / name).rename(device.parent / "elsewhere")
    (device / name).symlink_to(device.parent / "elsewhere")
    if name == "score.py":  # what follows the link is another folder
        assert score(device).returncode == 2
    else:
        refused(device, f"{name} is no file of the export")


@pytest.mark.parametrize("linked", [False, True])
def test_planted_bytecode_never_runs(device: Path, linked: bool) -> None:
    source = device / "lib" / "mlworkbench" / "errors.py"
    cache = source.parent / "__pycache__"
    (device.parent / "cache").mkdir()
    if linked:
        cache.symlink_to(device.parent / "cache")
    else:
        cache.mkdir()
    stamp = int(source.stat().st_mtime).to_bytes(4, "little") + source.stat().st_size.to_bytes(4, "little")
    code = (
        importlib.util.MAGIC_NUMBER + bytes(4) + stamp + marshal.dumps(compile(source.read_text() + MARK, "", "exec"))
    )
    (cache / f"errors.{sys.implementation.cache_tag}.pyc").write_bytes(code)
    refused(device, "lib/mlworkbench/__pycache__ is no file of the export")


def test_an_empty_folder_in_lib_would_be_a_package(device: Path) -> None:
    (device / "lib" / "onnxruntime").mkdir()
    refused(device, "lib/onnxruntime is no file of the export")


SEEN = """
import runpy, sys
sys.path.append(sys.argv[1]); sys.argv = sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
roots = {name.partition(".")[0] for name in sys.modules}
print(sorted(root for root in roots - set(sys.stdlib_module_names) if not root.startswith("_")))
for name in ("pandas", "sklearn", "scipy", "polars", "pyarrow", "skops", "bentoml", "onnxruntime"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    print(name)
"""


def test_on_a_device_there_is_numpy_and_nothing_else(device: Path, tmp_path: Path) -> None:
    (tmp_path / "libraries").mkdir()
    for name in ("numpy", "numpy.libs"):
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "libraries" / name).symlink_to((Path(np.__file__).parents[1] / name).resolve(strict=True))
    words = [sys.executable, "-I", "-S", "-c", SEEN, str(tmp_path / "libraries"), str(device / "score.py"), "e.jsonl"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["['mlworkbench', 'numpy']"]


# edge.json ------------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]
EDGE: dict[str, tuple[str, Change]] = {
    "files as a list": ("files", lambda told: told.update(files=sorted(told["files"]))),
    "no files": ("must list", lambda told: told.update(files={})),
    "digests that are numbers": ("SHA-256", lambda told: told["files"].update({"score.py": 7})),
    "a file outside": ("inside the export", lambda told: told["files"].update({"../e.jsonl": "0" * 64})),
    "a file at the root": ("inside the export", lambda told: told["files"].update({"/etc/passwd": "0" * 64})),
    "score.py not listed": ("must list score.py", lambda told: told["files"].pop("score.py")),
    "no requirements": ("must list requirements.txt", lambda told: told["files"].pop("requirements.txt")),
    "a model file not listed": ("must list model/scorer.json", lambda told: told["files"].pop("model/scorer.json")),
    "no format": ("format 1", lambda told: told.pop("format")),
    "another format": ("format 1", lambda told: told.update(format=2)),
    "a format that is a truth": ("format 1", lambda told: told.update(format=True)),
    "a format that is text": ("format 1", lambda told: told.update(format="1")),
    "another version": ("of the version", lambda told: told.update(version="line:" + "0" * 32)),
    "another model": ("of the version", lambda told: told.update(model="birds")),
    "another content id": ("of the version", lambda told: told.update(content_id="0" * 64)),
    "a version that is a number": ("of the version", lambda told: told.update(version=7)),
}


@pytest.mark.parametrize("name", EDGE)
def test_an_altered_edge_json_is_refused(device: Path, name: str) -> None:
    words, change = EDGE[name]
    told = json.loads((device / "edge.json").read_text())
    change(told)
    (device / "edge.json").write_text(json.dumps(told))
    refused(device, words)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"files": ["score.py"]}', b"\xff", b"[" * 200_000, b"null"], ids=range(6)
)
@pytest.mark.parametrize("name", ["edge.json", "model/manifest.json"])
def test_a_manifest_that_is_none_is_refused(device: Path, name: str, data: bytes) -> None:
    (device / name).write_bytes(data)
    refused(device, "")


@pytest.mark.parametrize("name", ["model/scorer.json", "model/contract.json", "model/golden.jsonl"])
def test_an_altered_model_is_refused_though_edge_json_was_brought_up(device: Path, name: str) -> None:
    path = device / name
    path.write_bytes(path.read_bytes() + b"\n")
    told = json.loads((device / "edge.json").read_text())
    told["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (device / "edge.json").write_text(json.dumps(told))
    refused(device, f"{name} must be that of model/manifest.json")


# out ------------------------------------------------------------------------------------------------------------------


def test_the_file_of_events_is_never_written_over(opened: Version, tmp_path: Path) -> None:
    events = tmp_path / "e.jsonl"
    events.write_bytes(EVENTS)
    (tmp_path / "link.jsonl").symlink_to(events)
    for out in (events, tmp_path / "link.jsonl", tmp_path / "." / "e.jsonl"):
        with pytest.raises(DeploymentError, match="another file than the events"):
            score_source(opened, EVENTS, out, name=str(events))
    rejected = tmp_path / "p.rejected.jsonl"
    rejected.write_bytes(EVENTS)
    with pytest.raises(DeploymentError, match="another file than the events"):
        score_source(opened, EVENTS, tmp_path / "p.jsonl", name=str(rejected))
    assert events.read_bytes() == rejected.read_bytes() == EVENTS and not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize("name", ["p.jsonl", "p.rejected.jsonl"])
@pytest.mark.parametrize("data", [b"my own notes\n", b'{"mine": 1}\n', b"no line feed"])
def test_a_file_that_holds_something_else_is_left_alone(
    opened: Version, tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DeploymentError, match="name another"):
        score_source(opened, b'{"x": "bad"}\n' + EVENTS, tmp_path / "p.jsonl")
    assert (tmp_path / name).read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_cannot_read_its_events_keeps_the_list_of_the_one_before(opened: Version, tmp_path: Path) -> None:
    score_source(opened, b'{"x": "bad"}\n' + EVENTS, tmp_path / "p.jsonl")
    before = (tmp_path / "p.rejected.jsonl").read_bytes()
    for data, name in ((b"", "e.jsonl"), (b'x,y\n1,"open\n', "e.csv"), (b"x\xff", "e.csv"), (b"x,x\n1,1\n", "e.csv")):
        with pytest.raises(DeploymentError):
            score_source(opened, data, tmp_path / "p.jsonl", name=name)
        assert (tmp_path / "p.rejected.jsonl").read_bytes() == before
    score_source(opened, EVENTS, tmp_path / "p.jsonl")
    assert (tmp_path / "p.rejected.jsonl").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl", "p.rejected.jsonl"]


def test_an_empty_file_that_was_there_stays(opened: Version, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(DeploymentError, match="at least one row"):
        score_source(opened, b"\n", tmp_path / "p.jsonl")
    assert (tmp_path / "p.jsonl").exists()


def test_a_file_that_is_none_leaves_no_trace(opened: Version, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="at least one row"):
        score_source(opened, b"\n", tmp_path / "p.jsonl")
    assert not list(tmp_path.iterdir())


# sources --------------------------------------------------------------------------------------------------------------


def test_equal_events_that_are_piped_twice_are_two(device: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = score(device, "-", stdin=EVENTS)
        assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "predictions.jsonl")
    assert len(found) == len({line["prediction_id"] for line in found}) == 6
    assert len({line["log"]["request_id"] for line in found}) == 2


def test_a_file_that_is_scored_twice_is_one_and_two_devices_with_names_are_two(device: Path, tmp_path: Path) -> None:
    for words in ([], [], ["--name", "till_7"], ["--name", "till_7"], ["--name", "till_8"]):
        assert score(device, "e.jsonl", *words).returncode == 0
    found = lines(tmp_path / "predictions.jsonl")
    assert len(found) == 9
    mark = hashlib.sha256(EVENTS).hexdigest()[:32]
    assert {line["log"]["request_id"] for line in found} == {mark, f"till_7-{mark}", f"till_8-{mark}"}


def test_a_pipe_that_has_a_path_is_a_stream_too(device: Path, tmp_path: Path) -> None:
    assert (
        score(device, "/dev/stdin", stdin=EVENTS).returncode
        == score(device, "/dev/stdin", stdin=EVENTS).returncode
        == 0
    )
    assert len(lines(tmp_path / "predictions.jsonl")) == 6


def test_the_command_of_the_workbench_passes_the_name_on(device: Path, tmp_path: Path) -> None:
    edge_score(str(device), str(tmp_path / "e.jsonl"), out=str(tmp_path / "p.jsonl"), source="till_7")
    assert all(line["log"]["request_id"].startswith("till_7-") for line in lines(tmp_path / "p.jsonl"))


@pytest.mark.parametrize("name", ["hall 7", "-7", "x" * 41, "a/b", "a-b", "\u00e4"])
def test_a_name_that_is_none_is_refused(device: Path, name: str) -> None:
    done = score(device, "e.jsonl", f"--name={name}")
    assert done.returncode == 2 and b"--name: up to 40 letters" in done.stderr and done.stderr.count(b"\n") == 1


# CSV ------------------------------------------------------------------------------------------------------------------


def test_a_blank_row_of_csv_is_none(opened: Version, tmp_path: Path) -> None:
    report = score_source(opened, b"x,y\n1,a\n\n  \n2,b\n\n", tmp_path / "p.jsonl", name="e.csv")
    assert (report.rows, report.scored, report.rejected) == (2, 2, 0)


def test_a_row_of_csv_with_another_number_of_cells_says_so(opened: Version, tmp_path: Path) -> None:
    report = score_source(opened, b"x,y\n1,a\n2\n3,c,d\n,,,\n4,e\n", tmp_path / "p.jsonl", name="e.csv")
    assert (report.rows, report.scored, report.rejected) == (5, 2, 3)
    reasons = {line["line"]: line["reason"] for line in lines(tmp_path / "p.rejected.jsonl")}
    assert [reasons[row].partition("; ")[2].partition(";")[0] for row in (2, 3, 4)] == ["got 1", "got 3", "got 4"]
    assert all(reason.startswith("row: 2 cells, as in the first line") for reason in reasons.values())
    assert report.first.startswith("row 2: row: 2 cells")


@pytest.mark.parametrize("header", [b"\xef\xbb\xbfx,x", b"\xef\xbb\xbfx,y,x"])
def test_a_name_that_stands_twice_is_found_behind_a_byte_order_mark(
    opened: Version, tmp_path: Path, header: bytes
) -> None:
    with pytest.raises(DeploymentError, match="naming each column once"):
        score_source(opened, header + b"\n1,2\n", tmp_path / "p.jsonl", name="e.csv")


@pytest.mark.parametrize("header", [b"x,y", b'"x",y'])
def test_a_byte_order_mark_belongs_to_no_name(opened: Version, tmp_path: Path, header: bytes) -> None:
    data = b"\xef\xbb\xbf" + header + b"\n1,a\n"
    assert score_source(opened, data, tmp_path / "p.jsonl", name="e.csv").scored == 1


# where an export is written -------------------------------------------------------------------------------------------


def test_an_export_goes_into_the_empty_folder_that_one_stands_in(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export_edge(version, Path())
    assert sorted(path.name for path in Path().iterdir()) == [
        "edge.json",
        "lib",
        "model",
        "requirements.txt",
        "score.py",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in Path().iterdir())


def test_an_export_follows_a_link(version: Version, tmp_path: Path) -> None:
    for name, target in (("dangling", "new"), ("link", "empty")):
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "empty").mkdir()
    for name in ("dangling", "link"):
        export_edge(version, tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name / "edge.json").is_file()


@pytest.mark.parametrize("name", ["file/device", "file", "/proc/x/y", "loop", "loop/device", "n" * 300])
def test_a_place_that_cannot_hold_an_export_is_refused_in_one_line(version: Version, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DeploymentError, match="name another") as told:
        export_edge(version, tmp_path / name)
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


def test_a_library_inside_a_row_function_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def double(x):\n    import pandas as pd\n\n    return {'z': pd.Series(x).to_numpy() * 2}\n"
    (tmp_path / "inside_features.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import inside_features  # type: ignore[import-not-found]

    request, inner = Contract((Column("x", "number"),)), Contract((Column("z", "number"),))
    columns = {"x": np.linspace(-2, 2, 30)}
    frame = frame_from_columns(inside_features.double(columns["x"]), inner)
    line = LinearRegression().fit(frame_to_pandas(frame, inner), columns["x"])
    parts = {"model": "line", "task": "regression", "classes": [], "request": request, "frame": inner}
    golden = {"golden": (columns, {}, frame), "training": frame, "deployments": ("edge",)}
    build_version(tmp_path / "v", pipeline=line, **parts, **golden, row_functions=(inside_features.double,))
    with pytest.raises(DeploymentError, match=r"inside_features\.py imports pandas"):
        export_edge(open_version(tmp_path / "v"), tmp_path / "device")
    assert not (tmp_path / "device").exists()


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    sys.modules.pop("inside_features", None)


def test_an_export_is_signed_and_one_that_agrees_with_itself_alone_is_refused(version, tmp_path: Path) -> None:
    home, other = Home.open(tmp_path / "home"), Home.open(tmp_path / "other")
    folder = export_edge(version, tmp_path / "device", home=home).folder
    assert (export_status(folder, home=home), export_status(folder, home=other)) == ("valid", "unknown key")
    plain = export_edge(version, tmp_path / "plain").folder
    assert export_status(plain, home=home) == "unsigned"
    told = json.loads((folder / "edge.json").read_text())
    golden = folder / "model/golden.jsonl"
    golden.write_bytes(golden.read_bytes() + b"\n")
    told["files"]["model/golden.jsonl"] = hashlib.sha256(golden.read_bytes()).hexdigest()
    (folder / "edge.json").write_text(json.dumps(told))
    assert export_status(folder, home=home) == "altered"


def test_an_export_signed_by_a_pulled_key_is_told(
    version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, other = Home.open(tmp_path / "home"), Home.open(tmp_path / "other")
    folder = export_edge(version, tmp_path / "device", home=home).folder
    keep_pulled_key(json.loads((folder / "edge.json").read_text()), home=other)
    for place, said in ((home, False), (other, True)):
        monkeypatch.setenv("MLWORKBENCH_HOME", str(place.path))
        _check_signed(folder)
        assert ("signed with a key that came with a pulled version" in capsys.readouterr().err) is said
