"""Models of three columns of numbers: small enough that every test can prove them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from proving import prove_alike, refuse_alike

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

NAMES = ("a", "b", "c")
THREE = Contract(tuple(Column(name, "number", nullable=True, infinite=True) for name in NAMES))
ODD = (np.nan, np.inf, -np.inf, 1e39, -1e308, 1e200, 5e-324, 0.0, -0.0, 3.0)


def framed(table: Any) -> FeatureFrame:
    return FeatureFrame(dict(zip(NAMES, np.array(table, dtype=np.float64).T, strict=True)))


def numbers(seed: int = 0, n: int = 120) -> Any:
    return np.random.default_rng(seed).normal(size=(n, 3))


def steps(seed: int = 0, n: int = 120) -> Any:
    """Whole numbers: copies of rows, and equal distances."""
    return np.random.default_rng(seed).integers(0, 4, size=(n, 3)).astype(float)


def labels(table: Any, task: str) -> Any:
    value = table[:, 0] + np.sin(3 * table[:, 1]) + np.random.default_rng(5).normal(0, 0.3, len(table))
    if task == "regression":
        return value
    if task == "binary":
        return value > np.median(value)
    return np.array(["early", "fair", "late"])[np.digitize(value, np.quantile(value, [0.3, 0.7]))]


def fit(model: Any, task: str, table: Any, target: Any = None) -> ReferenceScorer:
    """Fit a model, and settle how it decides, as a version does."""
    frame = framed(table)
    model.fit(frame_to_pandas(frame, THREE), labels(table, task) if target is None else target)
    reference = ReferenceScorer(model, THREE, task, list_classes(model))
    ruling = settle(reference, [frame])
    return replace(reference, positive=ruling.positive, decision=ruling.decision)


def hold(model: Any, task: str, table: Any, unseen: Any, *, target: Any = None, bound: float = 1e-12) -> CompiledScorer:
    """Compile a model, prove it, and hold it to the pipeline on unseen and on odd rows."""
    reference = fit(model, task, table, target)
    compiled = prove_alike(reference, framed(table), framed(unseen), bound=bound, alone=5)
    odd = np.repeat(unseen[:1], len(ODD), axis=0)
    odd[:, 1] = ODD
    refuse_alike(reference, compiled, framed(odd))
    return compiled
