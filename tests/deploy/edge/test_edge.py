"""Edge: a folder that needs numpy alone, proves itself, answers as every deployment does, and comes home once."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bare import bare_python, lines, run
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OrdinalEncoder
from sklearn.svm import LinearSVC

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.edge.collect import collect
from mlworkbench.deploy.edge.device import EVENTS_AT_ONCE, csv_events, event_contract, open_export, score_source
from mlworkbench.deploy.edge.export import device_sources, export_edge
from mlworkbench.deploy.reasons import compare_explanations
from mlworkbench.errors import DeploymentError, LogError, VersionError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame, frame_from_columns
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version, open_version, predict, with_reference

N = 200
START = 1_380_000_000_000_000
REQUEST = Contract(
    (
        Column("flight", "text"),
        Column("asked", "time"),
        Column("origin", "category", categories=("EWR", "JFK", "LGA"), closed=True),
        Column("distance", "number", lower=0, unit="miles"),
        Column("seats", "integer"),
        Column("full", "boolean"),
    )
)
FRAME = Contract(
    (
        Column("origin", "category"),
        Column("distance", "number"),
        Column("seats", "integer"),
        Column("full", "boolean"),
        Column("wind", "number", nullable=True),
        Column("sky", "category", nullable=True),
        Column("hours", "number"),
    )
)
WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=6))
CODE = """
import numpy as np

def route(distance):
    if (distance > 9000).any():
        raise ValueError("too far")
    return {"hours": np.round(distance / 481.0, 9)}
"""


def given(folder: Path, **changed: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    columns = {
        "flight": np.array([f"UA {k}" for k in range(N)], dtype=object),
        "asked": START + np.arange(N) * 600_000_000,
        "origin": random.choice(np.array(["EWR", "JFK", "LGA"], dtype=object), N),
        "distance": random.uniform(100, 2500, N).round(1),
        "seats": random.integers(50, 300, N),
        "full": random.random(N) < 0.4,
    }
    sky = random.choice(np.array(["clear", "fog", None], dtype=object), N)
    values = {"wind": np.where(np.arange(N) % 7 == 0, np.nan, random.normal(10, 3, N)), "sky": sky}
    import edge_features  # type: ignore[import-not-found]

    outputs = {**columns, **values, **edge_features.route(columns["distance"])}
    frame = frame_from_columns(outputs, FRAME)
    late = columns["distance"] / 100 + 5 * (sky == "fog") + random.normal(0, 3, N) > 14
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    encode = make_column_transformer((codes, ["origin", "sky"]), remainder="passthrough")
    boosting = HistGradientBoostingClassifier(
        max_iter=12, min_samples_leaf=5, categorical_features=[0, 1], random_state=0
    )
    few = slice(0, 20)
    parts = {
        "model": "late",
        "pipeline": make_pipeline(encode, boosting).fit(frame_to_pandas(frame, FRAME), late),
        "task": "binary",
        "classes": [False, True],
        "request": REQUEST,
        "frame": FRAME,
        "golden": ({n: v[few] for n, v in columns.items()}, {n: v[few] for n, v in values.items()}, frame.take(few)),
        "training": frame,
        "labels": late,
        "row_functions": (RowFunction(edge_features.route),),
        "views": (WEATHER,),
        "entity": ("flight",),
        "prediction_time": "asked",
        "threshold": 0.3,
        "deployments": ("one_off", "edge"),
    }
    return {**parts, **changed}


class Hangar:
    """A version in a registry, and its export."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home.open(folder / "home")
        self.parts = given(folder)
        content = build_version(folder / "version", **self.parts)
        registry = Registry(self.home)
        self.tag = registry.add(folder / "version", "late", content)
        self.version: Version = registry.open("late", self.tag)
        self.export = export_edge(self.version, folder / "device").folder

    def events(self, count: int = 60) -> list[dict[str, Any]]:
        columns = {**self.parts["golden"][0], **self.parts["golden"][1]}
        found = []
        for k in range(count):
            event = {name: values[k % 20] for name, values in columns.items()}
            event = {n: v.item() if isinstance(v, np.generic) else v for n, v in event.items()}
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(event["asked"]))
            wind = None if event["wind"] != event["wind"] else event["wind"] + k / 1000
            found.append({**event, "flight": f"UA {k}", "asked": moment.isoformat(), "wind": wind})
        return found

    def file(self, events: list[dict[str, Any]], name: str = "events.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return path

    def expected(self, events: list[dict[str, Any]]) -> np.ndarray:
        asked = [int(datetime.fromisoformat(event["asked"]).timestamp()) * 1_000_000 for event in events]
        words = {n: np.array([e[n] for e in events], dtype=object) for n in ("flight", "origin", "sky")}
        numbers = {n: np.array([e[n] for e in events], dtype=float) for n in ("distance", "wind")}
        rest = {"seats": np.array([e["seats"] for e in events]), "full": np.array([e["full"] for e in events])}
        columns = {**words, **numbers, **rest, "asked": np.array(asked)}
        values = {name: columns.pop(name) for name in ("wind", "sky")}
        return predict(with_reference(self.version), columns, values).scores


@pytest.fixture(scope="module")
def hangar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hangar]:
    folder = tmp_path_factory.mktemp("hangar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("MLWORKBENCH_HOME", str(folder / "home"))
        (folder / "modules").mkdir()
        (folder / "modules" / "edge_features.py").write_text(CODE)
        patch.syspath_prepend(str(folder / "modules"))
        yield Hangar(folder)
        sys.modules.pop("edge_features", None)


@pytest.fixture
def device(hangar: Hangar, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hangar.export, tmp_path / "device"))


def test_a_device_without_network_and_libraries_answers_as_the_pipeline_does(
    hangar: Hangar, device: Path, tmp_path: Path
) -> None:
    events = hangar.events()
    done = run(tmp_path, device, str(hangar.file(events)), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["scored"], report["rejected"]) == (60, 60, 0)
    found = lines(tmp_path / "predictions.jsonl")
    scores = np.array([line["score"] for line in found])
    expected = hangar.expected(events)
    assert np.abs(scores - expected).max() < 1e-12
    assert [line["decision"] for line in found] == (expected >= 0.3).tolist()
    assert [line["line"] for line in found] == list(range(1, 61))
    assert found[0]["version"] == hangar.tag and found[0]["log"]["watermark"] == '"carried by the event"'
    assert not list(device.rglob("__pycache__"))


def test_what_a_device_imports_is_the_standard_library_and_numpy() -> None:
    assert "mlworkbench/scoring/compiled/scorer.py" in device_sources(["mlworkbench.deploy.edge.command"])
    code = (
        "import sys, mlworkbench.deploy.edge.command; "
        "print(sorted({n.split('.')[0] for n in sys.modules if '.' not in n} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {name for name in eval(found.stdout) if not name.startswith("_")}
    assert foreign <= {"mlworkbench", "numpy", "sitecustomize", "distutils"}


def test_csv_gives_the_same_predictions_as_json_lines(hangar: Hangar, tmp_path: Path) -> None:
    events = hangar.events(40)
    names = list(events[0])
    cells = [",".join("" if e[n] is None else str(e[n]) for n in names) for e in events]
    text = "\n".join([",".join(names), *cells]) + "\n"
    version = open_export(hangar.export / "model")
    one = score_source(version, hangar.file(events).read_bytes(), tmp_path / "a.jsonl", name="a.jsonl")
    two = score_source(version, text.encode(), tmp_path / "b.jsonl", name="b.csv")
    assert one.scored == two.scored == 40
    pairs = zip(lines(tmp_path / "a.jsonl"), lines(tmp_path / "b.jsonl"), strict=True)
    assert all(a["score"] == b["score"] and a["log"]["features"] == b["log"]["features"] for a, b in pairs)


ALTERED = ["score.py", "edge.json", "model/scorer.onnx", "model/scorer.json", "model/golden.jsonl",
           "model/contract.json",
           "model/declaration.json", "model/code/edge_features.py", "lib/mlworkbench/scoring/compiled/scorer.py",
           "requirements.txt"]  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_file_is_refused_by_name(hangar: Hangar, device: Path, tmp_path: Path, name: str) -> None:
    path = device / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"files"', b'"fules"') if name == "edge.json" else data + b"\n")
    done = run(tmp_path, device, str(hangar.file(hangar.events(3))))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"{name} " in done.stderr
    assert not (tmp_path / "predictions.jsonl").exists()


@pytest.mark.parametrize("name", ["model/scorer.onnx", "lib/mlworkbench/errors.py"])
def test_a_missing_file_is_refused_by_name(hangar: Hangar, device: Path, tmp_path: Path, name: str) -> None:
    (device / name).unlink()
    done = run(tmp_path, device, "events.jsonl")
    assert done.returncode == 2 and f"{name} is missing" in done.stderr


def test_a_file_that_was_slipped_in_is_refused(device: Path, tmp_path: Path) -> None:
    (device / "lib" / "numpy.py").write_text("raise SystemExit(0)")
    done = run(tmp_path, device, "events.jsonl")
    assert done.returncode == 2 and "lib/numpy.py is no file of the export" in done.stderr


def test_a_version_that_answers_otherwise_on_this_machine_is_refused(device: Path) -> None:
    golden = device / "model" / "golden.jsonl"
    rows = [json.loads(line) for line in golden.read_text().splitlines()]
    rows[4]["score"] += 0.01
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(VersionError, match=r"golden row 4 differs by 0\.01"):
        open_export(device / "model")


def test_bad_events_are_listed_with_row_and_reason_and_the_others_scored(hangar: Hangar, tmp_path: Path) -> None:
    events = hangar.events(8)
    events[1]["origin"] = "XXX"
    del events[2]["seats"]
    events[3]["distance"] = "760"
    events[4]["distance"] = 9500.0
    del events[5]["wind"], events[5]["sky"]
    del events[6]["wind"]
    text = hangar.file(events).read_bytes() + b"not json\n"
    version = open_export(hangar.export / "model")
    report = score_source(version, text, tmp_path / "p.jsonl")
    assert (report.rows, report.scored, report.rejected) == (9, 2, 7)
    reasons = {letter["line"]: letter["reason"] for letter in lines(tmp_path / "p.rejected.jsonl")}
    assert set(reasons) == {2, 3, 4, 5, 6, 7, 9}
    assert "got 'XXX'" in reasons[2] and "too far" in reasons[5] and "lacks wind, sky" in reasons[6]
    assert [line["line"] for line in lines(tmp_path / "p.jsonl")] == [1, 8]
    score_source(version, hangar.file(hangar.events(8)).read_bytes(), tmp_path / "p.jsonl")
    assert (tmp_path / "p.rejected.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [(b"", "e.jsonl", "at least one row"), (b"", "e.csv", "names"), (b"a,a\n1,2\n", "e.csv", "each column once"),
     (b"a\xff\n", "e.csv", "UTF-8"), (b'a\n"open\n', "e.csv", "CSV")],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_in_one_line(
    hangar: Hangar, tmp_path: Path, data: bytes, name: str, words: str
) -> None:
    version = open_export(hangar.export / "model")
    with pytest.raises(DeploymentError, match=words.replace("names", "naming").replace("each column once", "once")):
        score_source(version, data, tmp_path / "p.jsonl", name=name)


def test_scoring_a_file_again_writes_nothing_twice(hangar: Hangar, tmp_path: Path) -> None:
    data = hangar.file(hangar.events(10)).read_bytes()
    version = open_export(hangar.export / "model")
    assert score_source(version, data, tmp_path / "p.jsonl").scored == 10
    again = score_source(version, data, tmp_path / "p.jsonl")
    assert (again.scored, again.repeated) == (0, 10) and len(lines(tmp_path / "p.jsonl")) == 10


def test_a_torn_last_line_is_written_anew(hangar: Hangar, tmp_path: Path) -> None:
    data = hangar.file(hangar.events(10)).read_bytes()
    version = open_export(hangar.export / "model")
    score_source(version, data, tmp_path / "p.jsonl")
    whole = (tmp_path / "p.jsonl").read_bytes()
    (tmp_path / "p.jsonl").write_bytes(whole[:-40])
    assert score_source(version, data, tmp_path / "p.jsonl").scored == 1
    assert [line["line"] for line in lines(tmp_path / "p.jsonl")] == list(range(1, 11))


@pytest.mark.system
def test_a_device_killed_at_any_moment_loses_and_doubles_nothing(hangar: Hangar, device: Path, tmp_path: Path) -> None:
    count = 3 * EVENTS_AT_ONCE
    events = hangar.file(hangar.events(count), "many.jsonl")
    command = [*bare_python(tmp_path), str(device / "score.py"), str(events), "--out", str(tmp_path / "p.jsonl")]
    random = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=-3, start_new_session=True)
        deadline = time.monotonic() + 60
        while not (tmp_path / "p.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(float(random.uniform(0, 0.4)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert [line["line"] for line in lines(tmp_path / "p.jsonl")] == list(range(1, count + 1))


def test_what_comes_home_is_imported_once_and_reads_as_any_prediction(hangar: Hangar, tmp_path: Path) -> None:
    events = hangar.events(12)
    version = open_export(hangar.export / "model")
    score_source(version, hangar.file(events).read_bytes(), tmp_path / "p.jsonl")
    home = Home.open(tmp_path / "home")
    Registry(home).add(hangar.version.folder, "late", hangar.version.content_id)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"torn')
    first, second = collect(tmp_path / "p.jsonl", home=home), collect(tmp_path / "p.jsonl", home=home)
    assert (first.model, first.rows, first.new, first.unfinished) == ("late", 12, 12, 1) and second.new == 0
    log = read_log(home.log("late"))
    assert len(log) == 12 and set(log["deployment"]) == {"edge"} and set(log["scorer"]) == {"compiled"}
    features = json.loads(log.sort("prediction_time")["features"][0])
    assert features["hours"] == round(events[0]["distance"] / 481.0, 9)


BROKEN = {
    "another deployment": lambda line: line["log"].update(deployment="realtime"),
    "an unknown version": lambda line: line.update(version="late:ffffffffffffffffffffffffffffffff"),
    "no scores": lambda line: line["log"].pop("scores"),
    "a number as id": lambda line: line.update(prediction_id=7),
    "a newer schema": lambda line: line["log"].update(schema_version=99),
    "another model": lambda line: line.update(model="other"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_holds_anything_else_is_refused_whole(hangar: Hangar, tmp_path: Path, name: str) -> None:
    version = open_export(hangar.export / "model")
    score_source(version, hangar.file(hangar.events(5)).read_bytes(), tmp_path / "p.jsonl")
    found = lines(tmp_path / "p.jsonl")
    BROKEN[name](found[3])
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    home = Home.open(tmp_path / "home")
    with pytest.raises((LogError, VersionError)):
        collect(tmp_path / "p.jsonl", home=home)
    assert not home.log("late").exists()


def test_the_same_version_exports_to_the_same_bytes(hangar: Hangar, tmp_path: Path) -> None:
    again = export_edge(hangar.version, tmp_path / "again").folder
    names = sorted(path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(hangar.export).as_posix() for p in hangar.export.rglob("*") if p.is_file())
    assert all((again / name).read_bytes() == (hangar.export / name).read_bytes() for name in names)
    assert not any("skops" in name or name.endswith(".pkl") for name in names)
    size = sum((again / name).stat().st_size for name in names)
    assert size < 2_000_000


def test_an_export_is_never_written_over_something(hangar: Hangar, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DeploymentError, match="new folder"):
        export_edge(hangar.version, tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_version_without_a_compiled_scorer_is_refused_with_the_reason(tmp_path: Path) -> None:
    contract = Contract((Column("x", "number"),))
    frame = FeatureFrame({"x": np.arange(40.0)})
    near = KNeighborsRegressor(algorithm="brute").fit(frame_to_pandas(frame, contract), np.arange(40.0))
    parts = {"model": "near", "task": "regression", "classes": [], "request": contract, "frame": contract}
    golden = {"golden": (frame.columns, {}, frame), "training": frame, "deployments": ("edge",)}
    build_version(tmp_path / "v", pipeline=near, **parts, **golden)
    with pytest.raises(DeploymentError, match=r"compiled scorer; KNeighborsRegressor.* set algorithm='kd_tree'"):
        export_edge(open_version(tmp_path / "v"), tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_personal_entities_and_pandas_row_functions_and_undeclared_ones_are_refused(
    hangar: Hangar, tmp_path: Path
) -> None:
    version = hangar.version
    told = {
        "personal: flight": dataclasses.replace(version, declaration={**version.declaration, "personal": ["flight"]}),
        "route takes pandas": dataclasses.replace(
            version, row_functions=(RowFunction(version.row_functions[0].function, pandas=True),)
        ),
        "declares the deployments one_off": dataclasses.replace(
            version, declaration={**version.declaration, "deployments": ["one_off"]}
        ),
    }
    for words, refused in told.items():
        with pytest.raises(DeploymentError, match=words):
            export_edge(refused, tmp_path / "device")
    assert not (tmp_path / "device").exists()


def test_row_functions_that_need_another_library_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scipy_features.py").write_text(
        "import numpy as np\nfrom scipy.special import expit\n\ndef squash(x):\n    return {'y': expit(x)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import scipy_features  # type: ignore[import-not-found]

    contract, inner = Contract((Column("x", "number"),)), Contract((Column("y", "number"),))
    columns = {"x": np.linspace(-2, 2, 30)}
    frame = frame_from_columns(scipy_features.squash(columns["x"]), inner)
    line = LinearRegression().fit(frame_to_pandas(frame, inner), columns["x"])
    parts = {"model": "line", "task": "regression", "classes": [], "request": contract, "frame": inner}
    golden = {"golden": (columns, {}, frame), "training": frame, "deployments": ("edge",)}
    functions = {"row_functions": (scipy_features.squash,)}
    build_version(tmp_path / "v", pipeline=line, **parts, **golden, **functions)
    with pytest.raises(DeploymentError, match=r"scipy_features\.py imports scipy\.special"):
        export_edge(open_version(tmp_path / "v"), tmp_path / "device")


def test_a_linear_model_needs_no_onnxruntime(tmp_path: Path) -> None:
    contract = Contract((Column("x", "number"),))
    frame = FeatureFrame({"x": np.arange(40.0)})
    line = LinearRegression().fit(frame_to_pandas(frame, contract), np.arange(40.0) * 2)
    parts = {"model": "line", "task": "regression", "classes": [], "request": contract, "frame": contract}
    golden = {"golden": (frame.columns, {}, frame), "training": frame, "deployments": ("edge",)}
    build_version(tmp_path / "v", pipeline=line, **parts, **golden)
    export = export_edge(open_version(tmp_path / "v"), tmp_path / "device")
    assert [need.partition("==")[0] for need in export.needs] == ["numpy"]
    bare_python(tmp_path)
    (tmp_path / "libraries" / "onnxruntime").unlink()
    (tmp_path / "e.jsonl").write_text('{"x": 3}\n')
    done = run(tmp_path, export.folder, "e.jsonl")
    assert done.returncode == 0, done.stderr
    assert abs(lines(tmp_path / "predictions.jsonl")[0]["score"] - 6.0) < 1e-9


def test_a_model_of_texts_needs_numpy_alone(tmp_path: Path) -> None:
    contract, random = Contract((Column("remark", "text"),)), np.random.default_rng(0)
    words = ["late", "Crew", "fog", "café", "gate", "7", "on time", "ÄRGER"]
    texts = np.array([" ".join(random.choice(words, 6)) for _ in range(10_000)], dtype=object)
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), HashingVectorizer(analyzer="char_wb", n_features=4096)
    )
    late = ["late" in text for text in texts]
    pipeline = make_pipeline(union, LinearSVC(random_state=0)).fit(texts[:300], late[:300])
    frame = FeatureFrame({"remark": texts[:200]})
    given = {"model": "remarks", "task": "binary", "classes": [False, True], "request": contract, "frame": contract}
    given |= {"threshold": 0.0, "input": "series", "deployments": ("edge",)}
    build_version(tmp_path / "v", pipeline=pipeline, **given, golden=(frame.columns, {}, frame), training=frame)
    export = export_edge(open_version(tmp_path / "v"), tmp_path / "device")
    assert [need.partition("==")[0] for need in export.needs] == ["numpy"]
    bare_python(tmp_path)
    (tmp_path / "libraries" / "onnxruntime").unlink()
    (tmp_path / "e.jsonl").write_text("".join(json.dumps({"remark": text}) + "\n" for text in texts))
    done = run(tmp_path, export.folder, "e.jsonl")
    assert done.returncode == 0, done.stderr
    scores = np.array([line["score"] for line in lines(tmp_path / "predictions.jsonl")])
    assert np.abs(scores - pipeline.decision_function(texts)).max() < 1e-12


def test_without_onnxruntime_a_device_says_so_in_one_line(hangar: Hangar, device: Path, tmp_path: Path) -> None:
    bare_python(tmp_path)
    (tmp_path / "libraries" / "onnxruntime").unlink()
    done = run(tmp_path, device, str(hangar.file(hangar.events(2))))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "needs onnxruntime" in done.stderr


def test_cells_of_csv_are_read_by_the_kind_of_their_column(hangar: Hangar) -> None:
    contract = event_contract(hangar.version)
    assert contract.names == (*REQUEST.names, "wind", "sky")
    event = next(csv_events(["origin,seats,full,wind,sky,flight", "JFK,189,true,NA,,007"], contract))
    assert json.loads(event.data) == {
        "origin": "JFK", "seats": 189, "full": True, "wind": None, "sky": None, "flight": "007",
    }  # fmt: skip


REALTIME = """
import json, os, sys
from mlworkbench.deploy.selection import select_served
from mlworkbench.deploy.realtime.service import Realtime
service = Realtime.open(select_served())
print(service.respond(json.dumps({"x": 3.0}).encode()).body.decode())
heavy = {"pandas", "sklearn", "scipy", "skops", "polars", "pyarrow", "deltalake", "onnx", "skl2onnx"}
print(json.dumps(sorted(heavy & {name.partition(".")[0] for name in sys.modules})))
"""


def test_real_time_with_a_compiled_version_imports_neither_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    contract = Contract((Column("x", "number"),))
    frame = FeatureFrame({"x": np.arange(60.0)})
    trees = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    trees.fit(frame_to_pandas(frame, contract), np.arange(60) > 20)
    parts = {"model": "steps", "task": "binary", "classes": [False, True], "request": contract, "frame": contract}
    build_version(tmp_path / "v", pipeline=trees, **parts, golden=(frame.columns, {}, frame), training=frame)
    places = {"BENTOML_HOME": str(tmp_path / "bentoml"), "MLWORKBENCH_HOME": str(tmp_path / "home")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in places.items():
            patch.setenv(name, value)
        registry = Registry(Home.open(tmp_path / "home"))
        registry.add(tmp_path / "v", "steps", open_version(tmp_path / "v").content_id)
        done = subprocess.run([sys.executable, "-c", REALTIME], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer, heavy = done.stdout.splitlines()
    assert json.loads(answer)["model"] == "steps" and json.loads(heavy) == []


def test_a_device_gives_the_reasons_that_the_version_gives_here(hangar: Hangar, device: Path, tmp_path: Path) -> None:
    done = run(tmp_path, device, str(hangar.file(hangar.events(20))), "--explain", "--json")
    assert done.returncode == 0, done.stderr
    found = lines(tmp_path / "predictions.jsonl")
    frame = FeatureFrame.from_rows([json.loads(line["log"]["features"]) for line in found], FRAME)
    expected = hangar.version.reasons.explain(frame, np.array([line["score"] for line in found]))
    for line, here in zip(found, expected, strict=True):
        assert line["explanation"]["kind"] == "exact" and line["explanation"]["unit"] == "log-odds"
        assert compare_explanations(line["explanation"], here) <= 1e-12
