"""Baselines and curves: the same for every row, or straight between corners."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numbers_only import hold, numbers
from proving import prove_alike, refuse_alike
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.pipeline import make_pipeline
from test_compile import FRAME, fitted, rows

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

BASELINES = {
    "the shares": ("multiclass", DummyClassifier()),
    "the most frequent": ("binary", DummyClassifier(strategy="most_frequent")),
    "a stated class": ("multiclass", DummyClassifier(strategy="constant", constant="late")),
    "the mean": ("regression", DummyRegressor()),
    "a quantile": ("regression", DummyRegressor(strategy="quantile", quantile=0.2)),
    "a stated number": ("regression", DummyRegressor(strategy="constant", constant=3)),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_takes_text_and_missing_values(name: str) -> None:
    task, model = BASELINES[name]
    compiled = prove_alike(fitted(make_pipeline(model), task), FRAME, rows(7, 40))
    compiled.score(FRAME.take([0]))
    assert all(plan is not None for plan in compiled._plans.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_baseline_of_numbers_takes_every_value(task: str) -> None:
    hold(DummyRegressor() if task == "regression" else DummyClassifier(), task, numbers(), numbers(3))


@pytest.mark.parametrize("strategy", ["stratified", "uniform"])
def test_random_answers_are_refused(strategy: str) -> None:
    with pytest.raises(NoRuleError, match=f"{strategy} is random"):
        compile_scorer(fitted(DummyClassifier(strategy=strategy), "binary"))


ONE = Contract((Column("x", "number", nullable=True, infinite=True),))
BEYOND = np.array([-3.0, np.nan, np.inf, -np.inf, 1e300, 0.0, 0.2, 0.9999, 1.0, 4.0])


@pytest.mark.parametrize("beyond", ["nan", "clip", "raise"])
@pytest.mark.parametrize("target", ["rising", "flat"])
def test_a_curve_is_the_pipelines_and_what_lies_beyond_is_refused_alike(beyond: Any, target: str) -> None:
    random = np.random.default_rng(0)
    frame = FeatureFrame({"x": np.concatenate([[0.0, 1.0], random.random(60)])})
    value = frame.columns["x"] * (target == "rising") + random.normal(0, 0.1, 62) * (target == "rising")
    model = IsotonicRegression(out_of_bounds=beyond).fit(frame_to_pandas(frame, ONE), value)
    reference = ReferenceScorer(model, ONE, "regression", [])
    compiled = prove_alike(reference, frame, FeatureFrame({"x": random.random(200)}), bound=0.0)
    refuse_alike(reference, compiled, FeatureFrame({"x": BEYOND}))


def test_all_kinds_of_this_folder_run_without_the_libraries_they_come_from() -> None:
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sklearn", "pandas", "scipy", "onnxruntime"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from mlworkbench.scoring.compiled.operations import FAMILIES, ProgramMaker
from importlib import import_module
[import_module(place) for place in sorted({*FAMILIES.values()}) if ".models." in place]
from mlworkbench.scoring.compiled.base.layout import KINDS
from mlworkbench.scoring.compiled.base.links import DECISIONS, LINKS
wanted = {"bells", "centers", "codes", "constant", "curve", "kernels", "neighbours", "network", "platt", "quadratic"}
print(sorted((wanted | {"radius"}) - set(KINDS)), "votes" in DECISIONS, "coupled pairs" in LINKS)
"""
    run = subprocess.run([sys.executable, "-c", code],
                         capture_output=True, text=True)  # fmt: skip
    assert run.stdout.strip() == "[] True True", run.stderr
