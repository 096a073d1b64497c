"""The real MLflow, in an environment of its own: its models come in, ours go out, and all of them answer alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import free_ports

pytestmark = [pytest.mark.long, pytest.mark.system]
MLFLOW = "3.17.2"
SAME = ("scikit-learn", "skops", "pandas", "numpy", "scipy", "lightgbm")
RANDOM = np.random.default_rng(0)
N = 300
ROWS = pd.DataFrame({"tenure": RANDOM.integers(0, 72, N), "charges": RANDOM.normal(70, 20, N).round(2)})
ROWS["contract"] = pd.Categorical(RANDOM.choice(["month", "year", "two"], N))
ROWS.loc[::11, "charges"] = np.nan
ROWS["churn"] = np.where((ROWS.tenure < 20) & (ROWS.contract == "month"), "yes", "no")
SAVE = """
import sys
import lightgbm, mlflow, pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
rows = pd.read_parquet("churn.parquet")
X, y = rows.drop(columns="churn"), rows.churn
columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["contract"]), remainder="passthrough")
model = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=10)).fit(X, y)
booster = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(X, y)
for kind in ("skops", "pickle", "cloudpickle"):
    types = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "numpy.dtype"]
    extra = {"skops_trusted_types": types} if kind == "skops" else {}
    mlflow.sklearn.save_model(model, f"by_{kind}", serialization_format=kind, **extra)
mlflow.lightgbm.save_model(booster, "by_lightgbm")
for name, one in (("model", model), ("booster", booster)):
    pd.DataFrame({"score": one.predict_proba(X)[:, 1], "decision": one.predict(X)}).to_parquet(f"{name}.parquet")
"""
LOAD = """
import sys
import mlflow, pandas as pd
X = pd.read_parquet("churn.parquet").drop(columns="churn")
mlflow.pyfunc.load_model(sys.argv[1]).predict(X).to_parquet("loaded.parquet")
own = mlflow.sklearn.load_model(sys.argv[1])
pd.DataFrame({"score": own.predict_proba(X)[:, 1]}).to_parquet("pipeline.parquet")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with MLflow and the libraries that are here, without the workbench."""
    folder = tmp_path_factory.mktemp("mlflow")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pins = [f"mlflow=={MLFLOW}", *(f"{name}=={version(name)}" for name in SAME)]
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins]
    run = subprocess.run(pip, capture_output=True, text=True)
    if f"No matching distribution found for mlflow=={MLFLOW}" in run.stderr:
        pytest.skip(f"there is no mlflow {MLFLOW} to be installed from")
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def there(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script where MLflow is."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ROWS.to_parquet("churn.parquet", index=False)

    def run(script: str, *words: str) -> None:
        done = subprocess.run([environment / "bin/python", "-c", script, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


def command(*words: str) -> dict[str, object]:
    started = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", *words, "--json"]
    run = subprocess.run(started, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout.splitlines()[-1]))


def same(answers: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert np.abs(answers.score.to_numpy() - expected.score.to_numpy()).max() < 1e-9
    assert "decision" not in answers or answers.decision.tolist() == expected.decision.tolist()


def test_what_mlflow_saved_comes_in_and_goes_out_and_answers_alike(there: Callable[..., None], tmp_path: Path) -> None:
    there(SAVE)
    data = ("--data", "churn.parquet", "--label", "churn")
    for name, flag in {"by_skops": (), "by_pickle": ("--trust-pickle",), "by_cloudpickle": ("--trust-pickle",)}.items():
        assert command("register", name, *data, *flag)["anchor"]["verdict"] == "equal"  # type: ignore[index]
        command("score", "churn.parquet", "--model", name, "--out", f"{name}.csv")
        same(pd.read_csv(f"{name}.csv"), pd.read_parquet("model.parquet"))
    command("register", "by_lightgbm", *data)
    for name, answers in (("by_pickle", "model.parquet"), ("by_lightgbm", "booster.parquet")):
        command("models", "export", name, "--format", "mlflow", "--out", f"out_{name}")
        there(LOAD, f"out_{name}")
        same(pd.read_parquet("loaded.parquet"), pd.read_parquet(answers))
        same(pd.read_parquet("pipeline.parquet"), pd.read_parquet(answers))


def test_mlflows_own_server_answers_a_folder_of_ours(
    there: Callable[..., None], environment: Path, tmp_path: Path
) -> None:
    there(SAVE)
    command("register", "by_lightgbm", "--data", "churn.parquet", "--label", "churn")
    command("models", "export", "by_lightgbm", "--format", "mlflow", "--out", "out")
    (port,) = free_ports(1)
    words = ["models", "serve", "-m", "out", "--env-manager", "local", "--host", "127.0.0.1", "-p", str(port)]
    paths = {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [environment / "bin/mlflow", *words],
            env={**os.environ, **paths},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        told = answer_of(f"http://127.0.0.1:{port}/invocations", Path("out/serving_input_example.json").read_bytes())
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    golden = [json.loads(row) for row in Path("out/golden.jsonl").read_text().splitlines()[:5]]
    assert told["predictions"] == [{"score": row["score"], "decision": row["decision"]} for row in golden]


def answer_of(url: str, body: bytes) -> dict[str, object]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()) from error
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
