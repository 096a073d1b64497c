"""The plan of a row answers what the steps answer for a batch, refuses what they refuse, and belongs to one call."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compile import CARRIERS, COMPILED, CONTRACT, FRAME, fitted

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.base.blocks import RowError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.compiled.plan import RowPlan
from mlworkbench.scoring.compiled.proof import prove
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.frame import FeatureFrame

NUMBER = st.one_of(
    st.floats(width=64), st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, 3.5e38, 600.0, 10.0])
)
ROW = st.fixed_dictionaries(
    {
        "carrier": st.sampled_from([*CARRIERS, "ZZ", "", None]),
        "distance": NUMBER,
        "origin": st.sampled_from(["EWR", "JFK", "LGA", "SWF", "ZZ", None]),
        "wind": NUMBER,
        "minute": st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 1440)),
        "weekend": st.booleans(),
    }
)
MAKE = ProgramMaker()
KINDS: dict[str, Any] = {"carrier": object, "origin": object, "minute": np.int64, "weekend": np.bool_}


def copied(block: Any) -> Any:
    """Answer with the row itself."""
    return block.T.copy()


@functools.cache
def compiled(name: str) -> CompiledScorer:
    task, make = COMPILED[name]
    return compile_scorer(fitted(make(), task))


def frame_of(rows: list[dict[str, Any]]) -> FeatureFrame:
    return FeatureFrame({n: np.array([row[n] for row in rows], dtype=KINDS.get(n, np.float64)) for n in CONTRACT.names})


def answer(scorer: CompiledScorer, frame: FeatureFrame) -> Any:
    try:
        with np.errstate(all="ignore"):
            scores, decisions = scorer.answer(frame)
    except ScoringError as error:
        return str(error)
    return scores[:1], None if decisions is None else decisions[:1].tolist()


@pytest.mark.parametrize("name", COMPILED)
@settings(max_examples=60, deadline=None)
@given(row=ROW)
def test_a_row_alone_is_answered_and_refused_as_in_a_batch(name: str, row: dict[str, Any]) -> None:
    scorer = compiled(name)
    together, alone = answer(scorer, frame_of([row, row])), answer(scorer, frame_of([row]))
    if isinstance(together, str) or isinstance(alone, str):
        assert alone == together
        return
    assert alone[1] == together[1]
    if scorer.graphs:
        assert alone[0].tobytes() == together[0].tobytes()
    else:  # a matrix product sums one row in another order
        assert np.allclose(alone[0], together[0], rtol=1e-12, atol=1e-12 * float(np.abs(together[0]).max(initial=1.0)))


@pytest.mark.parametrize("name", COMPILED)
def test_every_program_has_a_plan(name: str) -> None:
    scorer = compiled(name)
    scorer.score(FRAME.take([0]))
    assert list(scorer._plans) == [len(CONTRACT.names)] and scorer._plans[6] is not None  # type: ignore[attr-defined]


def test_the_plan_of_a_vector_knows_its_places() -> None:
    line = {"kind": "linear", "coefficients": [[1.0, 10.0, 100.0]], "intercepts": [0.5]}
    program = {"format": 2, "columns": ["v", "x"], "steps": [], "model": line, "link": "identity", "take": [0]}
    scorer = CompiledScorer({**program, "task": "regression"})
    frame = FeatureFrame({"v": np.array([[1.0, 2.0], [3.0, 4.0]]), "x": np.array([5, 6])})
    assert [float(scorer.score(frame.take([k]))[0]) for k in (0, 1)] == scorer.score(frame).tolist() == [521.5, 643.5]


def test_codes_of_codes_are_one_table() -> None:
    words = {"keys": ["a", "b"], "values": [[5.0], [7.0]], "missing": None, "unknown": [None]}
    numbers = {"keys": [5.0, 7.0], "values": [[0.0, 1.0], [1.0, 0.0]], "missing": [9.0, 9.0], "unknown": [0.0, 0.0]}
    steps = [MAKE.step({"op": "lookup", "columns": [table]}) for table in (words, numbers)]
    plan = RowPlan(steps, copied, 1)
    for word in ("a", "b", "zz"):
        expected = steps[1](steps[0]([np.array([word], dtype=object)]))
        assert np.array_equal(plan([word]), expected.T)
    with pytest.raises(RowError):
        plan([None])


def test_a_column_may_go_through_two_steps_and_stay_as_it_is() -> None:
    scaled = {"op": "numbers", "do": [["multiply", [2.0]]], "allowed": "missing"}
    filled = {"op": "fill", "by": [1.0]}
    parts = [{"take": [1], "steps": [scaled]}, {"take": [1], "steps": [filled, scaled]}, {"take": [0, 1], "steps": []}]
    inner = {"op": "parts", "parts": parts}
    outer = {"op": "parts", "parts": [{"take": [3, 0, 0], "steps": []}, {"take": [1, 2], "steps": [inner]}]}
    steps = [MAKE.step(inner), MAKE.step(outer)]
    for pair in ([3.0, 4.0], [3.0, math.nan]):
        table: Any = [np.array([value]) for value in pair]
        for step in steps:
            table = step(table)
        assert np.array_equal(RowPlan(steps, copied, 2)(pair), table.T, equal_nan=True)


def test_two_calls_at_the_same_time_never_share_a_row() -> None:
    met, found = threading.Barrier(4), dict[int, float]()

    def wait(block: Any) -> Any:
        met.wait(10)
        return block.copy()

    plan = RowPlan([MAKE.step({"op": "fill", "by": [0.0]})], wait, 1)

    def ask(k: int) -> None:
        found[k] = float(plan([float(k)])[0, 0])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: float(k) for k in range(4)}


def of_another_place(plan: RowPlan) -> None:
    plan._values[0], plan._values[1] = [
        (to, other) for (to, _), (_, other) in zip(plan._values[:2], plan._values[1::-1], strict=True)
    ]


def of_another_code(plan: RowPlan) -> None:
    to, place, find = plan._tables[0]
    plan._tables[0] = (to, place, lambda value: find("AA"))


def of_another_table(plan: RowPlan) -> None:
    (to, place, _), (_, _, find) = plan._tables[:2]
    plan._tables[0] = (to, place, find)


@pytest.mark.parametrize("change", [of_another_place, of_another_code, of_another_table])
def test_the_proof_finds_a_plan_that_is_wrong(change: Any) -> None:
    reference = fitted(COMPILED["boosting that knows categories by place"][1](), "binary")
    scorer = compile_scorer(reference)
    assert prove(scorer, reference, FRAME.take(range(30)), FRAME)
    change(scorer._plans[len(CONTRACT.names)])  # type: ignore[attr-defined]
    with pytest.raises(ScoringError, match="alone") as raised:
        prove(scorer, reference, FRAME.take(range(30)), FRAME)
    assert raised.value.code == "scoring.not_proved"


DECIDED = {
    "boosting": "predict_proba",
    "logistic regression": "predict_proba",
    "linear support vectors": "decision_function",
    "forest behind a scaler": "predict_proba",
    "boosting of three classes": "predict_proba",
}


@functools.cache
def deciding(name: str) -> CompiledScorer:
    task, make = COMPILED[name]
    return compile_scorer(replace(fitted(make(), task), decision={"rule": "argmax", "of": DECIDED[name]}))


@pytest.mark.parametrize("name", DECIDED)
@settings(max_examples=60, deadline=None)
@given(row=ROW)
def test_a_row_alone_is_decided_as_in_a_batch(name: str, row: dict[str, Any]) -> None:
    scorer = deciding(name)
    together, alone = answer(scorer, frame_of([row, row])), answer(scorer, frame_of([row]))
    assert alone == together if isinstance(together, str) else alone[1] == together[1] != [None]
    assert isinstance(alone, str) or alone[1][0] in ("early", "fair", "late", True, False)


@pytest.mark.parametrize("raw", [0.0, -0.0, 1e-300, -1e-300, 1e-17, -1e-17, 800.0, -800.0, -709.8, 709.8])
@pytest.mark.parametrize("by", ["raw", "answers"])
@pytest.mark.parametrize("link", ["logistic", "two sides", "identity"])
def test_ties_and_powers_beyond_doubles_are_those_of_a_batch(link: str, by: str, raw: float) -> None:
    line = {"kind": "linear", "coefficients": [[1.0]], "intercepts": [0.0]}
    program = {"format": 2, "columns": ["x"], "steps": [], "model": line, "link": link, "take": [0]}
    program |= {"task": "binary", "decides": {"by": by, "labels": ["no", "yes"]}}
    scorer = CompiledScorer(program)
    alone = scorer.answer(FeatureFrame({"x": np.array([raw])}))
    together = scorer.answer(FeatureFrame({"x": np.array([raw, raw])}))
    assert alone[0].tobytes() == together[0][:1].tobytes() and alone[1].tolist() == together[1][:1].tolist()
