"""A pickle is a program: it runs once, apart from the workbench, and ends with whatever it started."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.errors import WorkbenchError
from mlworkbench.scoring.artifacts import pickle_process
from mlworkbench.scoring.artifacts.pickle_process import convert_pickle, explain_unopened
from mlworkbench.scoring.artifacts.skops_file import load_pipeline


class Planted:
    """Runs an expression where it is opened, and is the model at a path then."""

    def __init__(self, expression: str, model: Path) -> None:
        self.expression, self.model = expression, model

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"({self.expression}, __import__('joblib').load({str(self.model)!r}))[1]",)


@pytest.fixture
def line(tmp_path: Path) -> Path:
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), tmp_path / "line.joblib")
    return tmp_path / "line.joblib"


def plant(folder: Path, expression: str, model: Path) -> Path:
    path = folder / "planted.pkl"
    path.write_bytes(pickle.dumps(Planted(expression, model)))
    return path


def refusal(file: Path, out: Path, **more: Any) -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        convert_pickle(file, out, **more)
    assert str(caught.value).count("\n") == 0 and "Traceback" not in str(caught.value)
    return caught.value


def test_a_pickle_runs_once_in_another_process_without_the_secrets_of_this_one(
    tmp_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "opensesame")
    told = tmp_path / "told.jsonl"
    said = "__import__('json').dumps([__import__('os').getpid(), dict(__import__('os').environ)])"
    planted = plant(tmp_path, f"open({str(told)!r}, 'a').write({said} + chr(10))", line)
    assert convert_pickle(planted, tmp_path / "out.skops") == ""
    ((process, environment),) = map(json.loads, told.read_text().splitlines())
    assert process != os.getpid() and "opensesame" not in json.dumps(environment)
    assert environment["HOME"] not in ("", os.environ.get("HOME")) and not Path(environment["HOME"]).exists()
    assert load_pipeline(tmp_path / "out.skops").predict([[2.0]]) == pytest.approx([5.0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there is no such thing here")
def test_a_copy_that_is_no_file_is_not_waited_for(tmp_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import json, os, sys; job = json.load(sys.stdin); os.mkfifo(job['out']); "
    code += "json.dump({'saved_with': ''}, open(job['told'], 'w'))"
    monkeypatch.setattr(pickle_process, "OPENED_WITH", code)
    assert "left no copy" in str(refusal(line, tmp_path / "out.skops"))


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize("how", ["pickle", "cloudpickle", "joblib", "zlib", "gzip", "bz2", "xz"])
def test_whatever_wrote_it_the_copy_answers_alike(tmp_path: Path, how: str) -> None:
    model, path = LinearRegression().fit(np.eye(3), [1.0, 2.0, 4.0]), tmp_path / "model"
    if how in ("pickle", "cloudpickle"):
        path.write_bytes(pytest.importorskip(how).dumps(model))
    else:
        joblib.dump(model, path, compress=0 if how == "joblib" else (how, 3))
    convert_pickle(path, tmp_path / "out.skops")
    assert np.array_equal(load_pipeline(tmp_path / "out.skops").predict(np.eye(3)), model.predict(np.eye(3)))


LIGHT = "import json, pickle, sys; pickle.load(open(json.load(sys.stdin)['file'], 'rb'))"  # starts at once


def test_a_pickle_that_does_not_end_is_ended_with_what_it_started(
    tmp_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_process, "OPENED_WITH", LIGHT)
    beat = tmp_path / "beat"
    child = f"import time\nwhile True:\n open({str(beat)!r}, 'a').write('.'); time.sleep(0.05)"
    started = f"__import__('subprocess').Popen([__import__('sys').executable, '-c', {child!r}])"
    planted = plant(tmp_path, f"({started}, __import__('time').sleep(600))", line)
    error = refusal(planted, tmp_path / "out.skops", seconds=4)
    assert error.code == "pickle.process" and "was not done in 4 s" in str(error)
    assert beat.exists()
    size = beat.stat().st_size
    time.sleep(0.3)
    assert beat.stat().st_size == size


def test_a_process_that_dies_is_one_line(tmp_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_process, "OPENED_WITH", LIGHT)
    planted = plant(tmp_path, "(__import__('os').write(2, b'out of luck'), __import__('os')._exit(9))", line)
    error = refusal(planted, tmp_path / "out.skops")
    assert error.code == "pickle.process" and "ended with code 9: out of luck" in str(error)


class Shorten(LinearRegression):
    """Stands for an estimator of the user's own."""


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("module", "name", "code", "said"),
    [
        (
            "category_encoders.target",
            "TargetEncoder",
            "pickle.module",
            "needs category_encoders, which is not installed",
        ),
        ("__main__", "Shorten", "pickle.in_main", "Shorten lived in a notebook or script"),
        ("sklearn.ensemble.gradient_boosting", "Gone", "pickle.versions", "libraries of other versions"),
        ("sklearn.linear_model", "Gone", "pickle.versions", "libraries of other versions"),
    ],
)
def test_a_class_that_is_not_here_is_named_with_the_way_out(
    tmp_path: Path, module: str, name: str, code: str, said: str
) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81.")
    error = refusal(file, tmp_path / "out.skops")
    assert (error.code, error.exit_code) == (code, 2) and said in str(error)


def test_a_booster_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_process, "_is_installed", lambda root: False)
    error = explain_unopened("cars.joblib", ModuleNotFoundError("gone", name="lightgbm.sklearn"))
    assert error.code == "pickle.module" and "pip install 'mlworkbench[boosters]'" in str(error)


@pytest.mark.usefixtures("harmless")
@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"model": LinearRegression(), "columns": ["a"]}, "save what it has under 'model' alone"),
        ([LinearRegression()], "got a list"),
        ({}, "got a dict"),
        ("text", "got a str"),
        (np.arange(3), "got a ndarray"),
    ],
    ids=["dict", "list", "empty", "text", "array"],
)
def test_what_is_no_estimator_is_named(tmp_path: Path, found: object, said: str) -> None:
    joblib.dump(found, tmp_path / "model.joblib")
    error = refusal(tmp_path / "model.joblib", tmp_path / "out.skops")
    assert error.code == "pickle.no_estimator" and said in str(error)


@pytest.mark.usefixtures("harmless")
def test_half_a_pickle_is_one_line(tmp_path: Path, line: Path) -> None:
    (tmp_path / "half.joblib").write_bytes(line.read_bytes()[:100])
    error = refusal(tmp_path / "half.joblib", tmp_path / "out.skops")
    assert error.code == "pickle.malformed" and "half.joblib" in str(error)


@pytest.mark.usefixtures("harmless")
def test_what_skops_cannot_store_is_named(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    model = FunctionTransformer(lambda rows: rows + 1)
    model.predict = None
    (tmp_path / "model.pkl").write_bytes(pytest.importorskip("cloudpickle").dumps(model))
    error = refusal(tmp_path / "model.pkl", tmp_path / "out.skops")
    assert error.exit_code == 2 and "cannot store the pipeline" in str(error)
