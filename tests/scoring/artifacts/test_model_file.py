"""Files from elsewhere are told apart by their bytes, and opened as their kind allows."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
import skops.io
from sklearn.linear_model import LinearRegression

from mlworkbench.errors import WorkbenchError
from mlworkbench.scoring.artifacts.model_file import find_model_file, open_model_file

LINE = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
SKLEARN = "flavors:\n  sklearn:\n    pickled_model: {}\n    sklearn_version: {}\n"


def mlflow_folder(folder: Path, *, text: str = "", file: str = "model.skops", version: str = "") -> Path:
    folder.mkdir()
    (skops.io.dump if file.endswith("skops") else joblib.dump)(LINE, folder / Path(file).name)
    (folder / "MLmodel").write_text(text or SKLEARN.format(file, version or sklearn.__version__))
    return folder


def refusal(path: Path, **more: Any) -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        open_model_file(path, **more)
    assert str(caught.value).count("\n") == 0 and caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"tree\nversion=v4\n", "the own format of LightGBM"),
        (b"CBM1\x00\x00", "the own format of CatBoost"),
        (b'{"learner":{}}', "the own format of XGBoost"),
        (b"PK\x03\x04 and so on", "a zip without the schema.json of skops"),
        (b"width,price\n1,2\n", "a file that begins"),
        (b"", "an empty file"),
        (b"\x80", "a file that begins"),
        (b"\x80\x09", "a file that begins"),
    ],
)
def test_what_is_no_model_file_says_what_it_looks_like(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "cars.bin").write_bytes(content)
    error = refusal(tmp_path / "cars.bin", trust_pickle=True)
    assert error.code == "model_file.unknown" and said in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "there is no such file" in str(refusal(tmp_path / "no.joblib"))


def test_a_folder_of_mlflow_with_skops_needs_no_trust(tmp_path: Path) -> None:
    opened = open_model_file(mlflow_folder(tmp_path / "line"))
    assert opened.pipeline.predict([[2.0]]) == pytest.approx([5.0]) and opened.notes == ()


@pytest.mark.usefixtures("harmless")
def test_a_folder_of_mlflow_with_a_pickle_needs_it(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path / "line", file="model.pkl")
    assert refusal(folder).code == "pickle.not_trusted"
    opened = open_model_file(folder, trust_pickle=True)
    assert opened.pipeline.predict([[2.0]]) == pytest.approx([5.0]) and "opened once" in opened.notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SKLEARN.format("../line.joblib", "1.9"), "its file inside it"),
        ("flavors:\n  pytorch:\n    data: x\n", "among its flavors; got pytorch"),
        ("flavors: [1]\n", "among its flavors; got none"),
        ("just a text", "among its flavors; got none"),
        ("a: [b", "an MLmodel in YAML"),
        ("!!python/object/apply:os.system ['touch ran']", "an MLmodel in YAML"),
        (SKLEARN.format("gone.skops", ""), "there is no such file"),
        (SKLEARN.format('"a\\0b"', ""), "its file inside it"),
        ("flavors: " + "[" * 20_000, "an MLmodel in YAML"),
        ("flavors: !!int ''", "an MLmodel in YAML"),
        ("#" * (2 << 20), "an MLmodel in YAML"),
    ],
)
def test_a_folder_of_mlflow_that_cannot_be_taken_says_why(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joblib.dump(LINE, tmp_path / "line.joblib")
    assert said in str(refusal(mlflow_folder(tmp_path / "line", text=text), trust_pickle=True))
    assert not Path("ran").exists()


def test_a_version_that_is_no_text_is_none(tmp_path: Path) -> None:
    lists = "".join(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghijk"))
    text = f"a: &a [x]\n{lists}{SKLEARN.format('model.skops', '*k')}"
    assert find_model_file(mlflow_folder(tmp_path / "line", text=text)).saved_with == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there is no such thing here")
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path / "line")
    for name, said in (("model.skops", "a regular file"), ("MLmodel", "a file MLmodel in it")):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert refusal(folder / name).code == "model_file.unknown" and said in str(refusal(folder))


def test_a_folder_without_mlmodel_is_no_model(tmp_path: Path) -> None:
    assert "a file MLmodel in it" in str(refusal(tmp_path))


def saved_by(version: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.base.__version__", version)
        (skops.io.dump if path.suffix == ".skops" else joblib.dump)(LINE, path)
    return path


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("name", ["line.skops", "line.joblib"])
def test_another_release_of_scikit_learn_is_refused_by_name_and_another_patch_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(saved_by("1.2.2", tmp_path / name, monkeypatch), trust_pickle=True)
    assert error.code == "model_file.release" and "saved with scikit-learn 1.2.2" in str(error)
    patch = ".".join([*sklearn.__version__.split(".")[:2], "99"])
    opened = open_model_file(saved_by(patch, tmp_path / name, monkeypatch), trust_pickle=True)
    assert any(f"scikit-learn {patch}" in note for note in opened.notes)


def test_a_folder_that_says_another_release_is_refused_before_its_pickle_runs(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path / "line", file="model.pkl", version="1.2.2")
    (folder / "model.pkl").write_bytes(b"\x80\x04 would not open")
    assert refusal(folder, trust_pickle=True).code == "model_file.release"


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_boosters_come_by_joblib(tmp_path: Path, library: str) -> None:
    module = pytest.importorskip(library)
    kinds = {"lightgbm": "LGBMRegressor", "xgboost": "XGBRegressor", "catboost": "CatBoostRegressor"}
    quiet = {"lightgbm": {"verbose": -1}, "xgboost": {}, "catboost": {"verbose": 0, "allow_writing_files": False}}
    rows = [[float(k), float(k % 3)] for k in range(60)]
    model = getattr(module, kinds[library])(n_estimators=5, **quiet[library]).fit(rows, [row[1] for row in rows])
    joblib.dump(model, tmp_path / "model.joblib")
    opened = open_model_file(tmp_path / "model.joblib", trust_pickle=True)
    assert opened.pipeline.predict(rows).tolist() == model.predict(rows).tolist()


def test_looking_at_a_file_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x02cposix\nsystem\n(X\x03\x00\x00\x00lsltR.")
    assert find_model_file(tmp_path / "bomb.pkl").kind == "pickle"
