"""A version leaves as MLflow folder, skops file or ONNX graph; each copy answers alike, or is never there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlworkbench
from mlworkbench.core.home import Home
from mlworkbench.errors import WorkbenchError
from mlworkbench.operate import exchange
from mlworkbench.operate.exchange import export_model, prove_copy
from mlworkbench.operate.mlflow_folder import copy_package, list_mlflow_files, list_needs, write_signature
from mlworkbench.scoring.artifacts.model_file import open_model_file
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.python_function import frame_from_pandas
from mlworkbench.scoring.version.version import Version

RANDOM = np.random.default_rng(0)
N = 160
CARS = pd.DataFrame({"weight": RANDOM.normal(size=N), "seats": RANDOM.integers(2, 6, N)})
PRICE = pd.Series(2 * CARS.weight + CARS.seats, name="price")
KIND = pd.Series(np.select([CARS.weight < -0.5, CARS.weight < 0.5], ["small", "usual"], "large"), name="kind")
ODD = CARS.assign(
    maker=pd.Categorical(RANDOM.choice(["ford", "fiat"], N)),
    doors=pd.array([None if k % 7 == 0 else k % 3 for k in range(N)], dtype="Int64"),
    used=pd.array([None if k % 5 == 0 else k % 2 == 0 for k in range(N)], dtype=object),
    width=CARS.weight.astype("float32"),
)
HEAVY = pd.Series(CARS.weight > 0.2, name="heavy")
Make = Callable[[str], Version]


def forest() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    return RandomForestRegressor(n_estimators=4, random_state=0).fit(CARS, PRICE), CARS, PRICE


def odd() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    model = HistGradientBoostingClassifier(max_iter=4, categorical_features=["maker"])
    rows = ODD.drop(columns="used")
    return model.fit(rows, HEAVY), rows, HEAVY


def several() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    steps = make_column_transformer((StandardScaler(), ["weight"]), (OneHotEncoder(), ["seats"]))
    return make_pipeline(steps, LogisticRegression()).fit(CARS, KIND), CARS, KIND


def line() -> tuple[Any, pd.DataFrame, pd.Series[Any]]:
    return LinearRegression().fit(CARS, PRICE), CARS, PRICE


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Register a model once; its version, opened."""
    folder, made = tmp_path_factory.mktemp("exchange"), dict[str, Version]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        home = Home.open(folder / "home")

        def register(name: str) -> Version:
            if name not in made:
                model, rows, labels = {"forest": forest, "odd": odd, "several": several, "line": line}[name]()
                made[name] = Registry(home).open(
                    name, mlworkbench.register(model, rows, labels, name=name, home=home).tag
                )
            return made[name]

        yield register


def refusal(version: Version, to: Path, kind: str) -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        export_model(version, to, format=kind)
    assert str(caught.value).count("\n") == 0
    return caught.value


def test_a_skops_file_is_one_file_that_holds_its_golden_rows(make: Make, tmp_path: Path) -> None:
    import skops.io as sio

    version = make("forest")
    done = export_model(version, tmp_path / "cars.skops", format="skops")
    assert (done.rows, done.difference) == (100, 0.0) and [p.name for p in tmp_path.iterdir()] == ["cars.skops"]
    model = sio.load(done.path, trusted=sio.get_untrusted_types(file=done.path))
    assert model.predict(CARS).tolist() == forest()[0].predict(CARS).tolist()
    with zipfile.ZipFile(done.path) as archive:
        lines = [json.loads(row) for row in archive.read("golden.jsonl").splitlines()]
    told = model.predict(pd.DataFrame([row["input"] for row in lines]))
    assert np.abs(told - [row["score"] for row in lines]).max() < 1e-12
    assert open_model_file(done.path).pipeline.predict(CARS).tolist() == model.predict(CARS).tolist()


def test_a_graph_answers_its_golden_rows_in_plain_onnxruntime(make: Make, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    done = export_model(make("forest"), tmp_path / "cars", format="onnx")
    assert sorted(p.name for p in done.path.iterdir()) == ["golden.jsonl", "graph.json", "scorer.json", "scorer.onnx"]
    lines = [json.loads(row) for row in (done.path / "golden.jsonl").read_text().splitlines()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession((done.path / "scorer.onnx").read_bytes(), options)
    features = np.array([row["features"] for row in lines])
    (output,) = session.run(None, {"features": features})
    assert np.asarray(output).tolist() == [row["output"] for row in lines]
    assert np.abs(output[:, 0] / 4 - [row["score"] for row in lines]).max() < 1e-12
    told = json.loads((done.path / "graph.json").read_text())
    assert told["takes"] == "features: double of shape (n, 2), in this order weight, seats"


@pytest.mark.parametrize(("name", "reason"), [("line", "no graph of trees"), ("odd", "")])
def test_what_has_no_graph_says_why(make: Make, tmp_path: Path, name: str, reason: str) -> None:
    version = make(name)
    if version.scorer.kind == "compiled" and (version.folder / "scorer.onnx").exists():
        assert export_model(version, tmp_path / "cars", format="onnx").rows == 100
        return
    error = refusal(version, tmp_path / "cars", "onnx")
    assert error.code == "export.no_graph" and reason in str(error) and not list(tmp_path.iterdir())


OUTSIDE = """
import sys
sys.modules["mlworkbench"] = None
folder, rows, out = sys.argv[1:]
sys.path.insert(0, folder + "/code")
import pandas, yaml
loader = yaml.safe_load(open(folder + "/MLmodel"))["flavors"]["python_function"]["loader_module"]
model = __import__(loader, fromlist=["x"])._load_pyfunc(folder)
model.predict(pandas.read_parquet(rows)).to_parquet(out)
"""


def ask_outside(folder: Path, rows: pd.DataFrame, place: Path) -> subprocess.CompletedProcess[str]:
    rows.to_parquet(place / "rows.parquet")
    words = [sys.executable, "-c", OUTSIDE, folder, place / "rows.parquet", place / "told.parquet"]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=place)


def test_a_folder_for_mlflow_answers_the_frame_of_the_training_without_the_workbench(
    make: Make, tmp_path: Path
) -> None:
    version, (model, rows, _) = make("odd"), odd()
    done = export_model(version, tmp_path / "cars", format="mlflow")
    assert done.difference <= version.tolerance and not list(tmp_path.glob(".export*"))
    run = ask_outside(done.path, rows, tmp_path)
    assert run.returncode == 0, run.stderr
    told = pd.read_parquet(tmp_path / "told.parquet")
    assert np.abs(told.score - model.predict_proba(rows)[:, 1]).max() < 1e-9
    assert told.decision.tolist() == model.predict(rows).tolist()


def test_a_changed_byte_of_the_folder_is_refused_when_it_is_opened(make: Make, tmp_path: Path) -> None:
    done = export_model(make("several"), tmp_path / "cars", format="mlflow")
    card = done.path / "version/card.md"
    card.write_bytes(card.read_bytes() + b" ")
    run = ask_outside(done.path, CARS, tmp_path)
    assert run.returncode and "card.md was altered" in run.stderr


def test_the_folder_names_what_it_needs_and_holds_no_pickle(make: Make) -> None:
    import yaml

    version = make("several")
    files = list_mlflow_files(version)
    pins = files["requirements.txt"].decode().splitlines()
    assert [pin for pin in pins if not pin.startswith("mlflow")] == list(list_needs(version))
    assert all("==" in pin for pin in list_needs(version))
    described = yaml.safe_load(files["MLmodel"])
    assert described["flavors"]["sklearn"]["pickled_model"] in files
    assert described["saved_input_example_info"]["artifact_path"] in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]


def test_categories_and_whole_numbers_that_may_be_missing_have_no_type_in_mlflow(make: Make) -> None:
    told = {one["name"]: one["type"] for one in json.loads(write_signature(make("odd"))["inputs"])}
    assert told == {"weight": "double", "seats": "long", "maker": "any", "doors": "any", "width": "double"}
    told = {one["name"]: one["type"] for one in json.loads(write_signature(make("several"))["outputs"])}
    assert told == {"score_large": "double", "score_small": "double", "score_usual": "double", "decision": "string"}


def test_every_module_that_the_copied_code_imports_is_copied() -> None:
    import ast

    name, files = copy_package()
    for path, source in files.items():
        compile(source, path, "exec")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith((name, "mlworkbench")):
                assert f"{node.module.replace('.', '/')}.py" in files, (path, node.module)


def test_a_copy_that_answers_otherwise_is_never_there(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RandomForestRegressor(n_estimators=4, random_state=1).fit(CARS, PRICE)
    monkeypatch.setattr(exchange, "load_pipeline", lambda *_, **__: other)
    error = refusal(make("forest"), tmp_path / "cars.skops", "skops")
    assert error.code == "export.unproved" and "golden row" in str(error) and not list(tmp_path.iterdir())
    monkeypatch.setattr(exchange, "run_isolated", lambda *_, **__: {"ended": "ended with code 1: out of luck"})
    error = refusal(make("forest"), tmp_path / "cars", "mlflow")
    assert error.code == "export.unproved" and "out of luck" in str(error) and not list(tmp_path.iterdir())


def test_a_decision_that_differs_is_no_copy(make: Make) -> None:
    version = make("several")
    scores, decisions = [row["score"] for row in version.golden], ["small"] * 100
    with pytest.raises(WorkbenchError, match="the copy decides otherwise") as caught:
        prove_copy(version, scores, decisions)
    assert caught.value.code == "export.unproved"
    with pytest.raises(WorkbenchError, match="the copy answers otherwise"):
        prove_copy(replace(version), np.array(scores) + np.nan)


def test_a_place_that_is_taken_or_cannot_be_written_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    assert refusal(make("line"), tmp_path / "taken", "skops").code == "output.not_ours"
    assert "cannot write" in str(refusal(make("line"), tmp_path / "taken/cars.skops", "skops"))
    assert refusal(make("line"), tmp_path / "cars", "pmml").code == "export.format"
    assert (tmp_path / "taken").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_column_that_is_lacking_or_of_another_kind_is_named(make: Make) -> None:
    columns = make("several").frame.columns
    with pytest.raises(WorkbenchError, match="column 'seats' is missing"):
        frame_from_pandas(CARS[["weight"]], columns)
    with pytest.raises(WorkbenchError, match="'weight': a number"):
        frame_from_pandas(CARS.assign(weight="heavy"), columns)
    turned = frame_from_pandas(CARS[["seats", "weight"]].assign(more=1), columns)
    assert turned.names == ("weight", "seats")


KILLED = """
import sys
from pathlib import Path
from mlworkbench.operate.exchange import export_model
from mlworkbench.scoring.version.version import open_version
version = open_version(Path(sys.argv[1]))
print("ready", flush=True)
export_model(version, Path(sys.argv[2]), format="mlflow")
"""


@pytest.mark.long
def test_a_killed_export_leaves_no_half_copy(make: Make, tmp_path: Path, kills: int) -> None:
    version, whole = make("several"), 0
    for number in range(kills):
        to = tmp_path / f"copy{number}"
        words = [sys.executable, "-c", KILLED, str(version.folder), str(to)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            with suppress(subprocess.TimeoutExpired):
                process.wait(RANDOM.uniform(0.0, 6.0) if number else 0.05)
            process.kill()
        if to.exists():
            assert ask_outside(to, CARS, tmp_path).returncode == 0
            whole += 1
    assert whole < kills
