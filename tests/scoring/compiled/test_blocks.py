"""Large frames are scored block by block, on as many threads as may work; the scores are those of one thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from test_compile import COMPILED, FRAME, fitted

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled import scorer as module
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.scorer import count_threads, map_in_threads
from mlworkbench.scoring.decision import NotFiniteError
from mlworkbench.scoring.frame import FeatureFrame

NAMES = ["logistic regression", "boosting", "forest of three classes", "least squares", "linear support vectors"]


def answers(scorer: Any, frame: FeatureFrame, threads: str, patch: pytest.MonkeyPatch) -> Any:
    patch.setenv("OMP_NUM_THREADS", threads)
    return scorer.answer(frame)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_threads_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, make = COMPILED[name]
    scorer = compile_scorer(fitted(make(), task))
    frame = FRAME.take(np.resize(np.arange(len(FRAME)), 1234))
    whole, decided = answers(scorer, frame, "1", monkeypatch)
    monkeypatch.setattr(module, "BLOCK_ROWS", 100)
    one, two = (answers(scorer, frame, threads, monkeypatch) for threads in ("1", "3"))
    assert np.array_equal(one[0], two[0]) and one[0].shape == whole.shape
    if "boost" in name or "forest" in name:
        assert np.array_equal(one[0], whole)
    assert np.abs(one[0] - whole).max() <= 1e-12 * max(1.0, np.abs(whole).max())
    for _, other in (one, two):
        assert (other is None) == (decided is None)
        assert other is None or other.tolist() == decided.tolist()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_refused_row_is_named_by_its_place_in_the_whole(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = compile_scorer(fitted(COMPILED["forest of three classes"][1](), "multiclass"))
    frame = FRAME.take(range(400))
    frame.columns["distance"][[257, 390]] = 1e40
    monkeypatch.setattr(module, "BLOCK_ROWS", 100)
    with pytest.raises(ScoringError, match="refuses row 257") as raised:
        answers(scorer, frame, threads, monkeypatch)
    assert raised.value.code == "scoring.row_refused"


def test_scores_that_are_not_finite_are_named_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"kind": "linear", "coefficients": [[1e10]], "intercepts": [0.0]}
    program = {"columns": ["x"], "steps": [], "model": line, "link": "identity", "take": [0], "task": "regression"}
    frame = FeatureFrame({"x": np.ones(300)})
    frame.columns["x"][[7, 250]] = 1e305
    monkeypatch.setattr(module, "BLOCK_ROWS", 100)
    with pytest.raises(NotFiniteError) as raised:
        module.CompiledScorer(program).answer(frame)
    assert raised.value.rows == [7, 250]


@pytest.mark.parametrize(("stated", "threads"), [("1", 1), ("3", 3), (" 2,1", 2)])
def test_the_number_of_threads_is_stated(stated: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert count_threads() == threads


@pytest.mark.parametrize("stated", ["", "0", "-2", "many"])
def test_a_number_that_is_none_means_the_processors(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    here = count_threads()
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert here == count_threads() >= 1


def test_work_on_two_threads_is_on_two_threads_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    both = threading.Barrier(2, timeout=20)

    def work(item: int) -> int:
        both.wait()
        return item * item

    assert map_in_threads(work, range(6)) == [0, 1, 4, 9, 16, 25]
