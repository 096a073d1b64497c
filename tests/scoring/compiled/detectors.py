"""Hold an outlier detector's compiled scorer to the detector: scores, decisions of its own `predict`, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline
from test_compile import CONTRACT, FRAME, TABLE, one_hot, rows

from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.decision import decide
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

UNSEEN = rows(7, 600)


def settled(pipeline: Any, contract: Any = CONTRACT, frame: FeatureFrame = FRAME) -> tuple[ReferenceScorer, Any]:
    """Give a fitted detector's scorer, and the rule that was proved against its `predict`."""
    plain = ReferenceScorer(pipeline, contract, "anomaly", [-1, 1], 1)
    ruling = settle(plain, [frame])
    return replace(plain, decision=ruling.decision), ruling


def hold(estimator: Any, before: Any = None, *, bound: float = 0.0, alone: int = 20) -> CompiledScorer:
    """Fit, compile and prove; compare unseen rows together and alone, and every probe; decisions are `predict`'s."""
    reference, ruling = settled(make_pipeline(before or one_hot(), estimator).fit(TABLE))
    assert ruling.decision["rule"] == "threshold" and ruling.rows == len(FRAME)
    compiled, facts = compile_and_prove(reference, FRAME.take(range(20)), FRAME, threshold=ruling.threshold)
    assert compiled is not None, facts
    rule = {"task": "anomaly", "classes": [-1, 1], **ruling.fields}
    expected, got = reference.score(UNSEEN), compiled.score(UNSEEN)
    apart = np.abs(expected - got).max() / np.abs(expected).max()
    assert apart <= bound, apart
    assert decide(got, rule).tolist() == reference.predict(UNSEEN).tolist()
    assert len({*decide(got, rule).tolist()}) == 2
    for row in range(alone):
        assert abs(compiled.score(UNSEEN.take([row]))[0] - got[row]) <= bound * np.abs(expected).max()
    return compiled
