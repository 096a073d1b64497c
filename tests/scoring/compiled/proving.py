"""What each family's tests do with a fitted pipeline: compile it, and hold it to the pipeline on rows it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlworkbench.errors import UserCodeError, WorkbenchError
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer


def answer(scorer: Any, frame: FeatureFrame) -> Any:
    """Score and decide rows; None where the scorer refuses."""
    try:
        with np.errstate(all="ignore"):
            return scorer.answer(frame)
    except (WorkbenchError, UserCodeError):
        return None


def prove_alike(
    reference: ReferenceScorer, training: FeatureFrame, unseen: FeatureFrame, *, bound: float = 1e-12, alone: int = 25
) -> CompiledScorer:
    """Compile, prove, and compare on unseen rows: together, alone, refused alike; `bound` is of the scores' scale."""
    compiled, facts = compile_and_prove(reference, training.take(range(30)), training)
    assert compiled is not None, facts
    expected, got = answer(reference, unseen), answer(compiled, unseen)
    assert expected is not None and got is not None
    scale = max(1.0, float(np.abs(expected[0]).max()))
    assert got[0].shape == expected[0].shape and np.abs(got[0] - expected[0]).max() <= bound * scale
    assert (got[1] is None) == (expected[1] is None)
    assert got[1] is None or (got[1] == expected[1]).all()
    for row in range(min(alone, len(unseen))):
        one = compiled.answer(unseen.take([row]))
        assert np.abs(one[0] - got[0][[row]]).max() <= bound * scale
        assert one[1] is None or one[1][0] == got[1][row]
    return compiled


def refuse_alike(reference: ReferenceScorer, compiled: CompiledScorer, frame: FeatureFrame) -> None:
    """Both answer each row alike, or both refuse it."""
    for row in range(len(frame)):
        expected, got = (answer(scorer, frame.take([row])) for scorer in (reference, compiled))
        assert (expected is None) == (got is None), row
        if expected is not None:
            scale = max(1.0, float(np.abs(expected[0]).max()))
            assert np.abs(expected[0] - got[0]).max() <= 1e-9 * scale, row
