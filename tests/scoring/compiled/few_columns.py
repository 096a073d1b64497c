"""Three columns of `test_compile`, so that many models of models can be held to their pipelines in little time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from proving import prove_alike
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from test_compile import CONTRACT, DELAY, FRAME, LATE, LEVEL, rows

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

FEW = CONTRACT.select(["carrier", "distance", "wind"])
WIDE = Contract(tuple(Column(name, "number", nullable=True, infinite=True) for name in ("distance", "minute")))
LABELS = {
    "binary": LATE,
    "multiclass": LEVEL.astype(object),
    "regression": DELAY - DELAY.min() + 1.0,
}
TRAINING = 120


def only(frame: FeatureFrame, contract: Contract) -> FeatureFrame:
    """Give the columns of a contract."""
    return FeatureFrame({name: frame.columns[name].astype(frame.columns[name].dtype) for name in contract.names})


def words() -> ColumnTransformer:
    """Numbers filled and scaled, words as columns."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_column_transformer(
        (numbers, ["distance", "wind"]), (OneHotEncoder(handle_unknown="ignore"), ["carrier"])
    )


def codes() -> ColumnTransformer:
    """Numbers filled, words as codes."""
    one = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_column_transformer((one, ["carrier"]), (SimpleImputer(), ["distance", "wind"]))


def refer(pipeline: Any, task: str, contract: Contract = FEW, labels: Any = None) -> ReferenceScorer:
    """Fit a pipeline, and settle by which rule it decides."""
    frame = only(FRAME.take(range(TRAINING)), contract)
    fitted = pipeline.fit(frame_to_pandas(frame, contract), (LABELS[task] if labels is None else labels)[:TRAINING])
    scorer = ReferenceScorer(fitted, contract, task, list_classes(fitted), True if task == "binary" else None)
    found = settle(scorer, [frame])
    return replace(scorer, positive=found.positive, decision=found.decision)


def hold(reference: ReferenceScorer, *, bound: float = 1e-12, same_bits: bool = False) -> CompiledScorer:
    """Prove a compiled scorer, on unseen rows too; its decisions are those of `predict`, and a row has its plan."""
    frames = [only(frame, reference.contract) for frame in (FRAME.take(range(TRAINING)), rows(seed=7, n=120))]
    compiled = prove_alike(reference, *frames, bound=bound, alone=6)
    scores, decisions = compiled.answer(frames[1])
    if decisions is not None:
        assert decisions.tolist() == reference.predict(frames[1]).tolist()
    if same_bits:
        alone = np.concatenate([compiled.score(frames[1].take([k])) for k in range(40)])
        assert alone.tobytes() == scores[:40].tobytes()
    assert all(plan is not None for plan in compiled._plans.values())  # type: ignore[attr-defined]
    return compiled
