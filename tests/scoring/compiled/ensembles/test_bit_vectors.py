"""Trees asked by bit vectors: the sums of a walk, of the graph, and of each row alone, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import compile_and_prove
from sklearn.pipeline import make_pipeline
from test_compile import FRAME, boosted, fitted, ordinal, rows

from mlworkbench.errors import VersionError
from mlworkbench.scoring.compiled.ensembles import bit_vectors
from mlworkbench.scoring.compiled.ensembles.bit_vectors import BitVectors, lay_bits
from mlworkbench.scoring.compiled.ensembles.tree_file import FOREST_FILE, join_trees, write_forest
from mlworkbench.scoring.compiled.ensembles.tree_sums import FEWEST, open_graph
from mlworkbench.scoring.compiled.ensembles.trees import Tree, tree_graph
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.reference import ReferenceScorer

NUMBERS, CODES = 3, 2  # features: first numbers, then codes of categories
THRESHOLDS = [-np.inf, -2.5, -0.0, 0.0, 1e-300, 1.0, np.nextafter(1.0, 2.0), 1e300, np.inf]


def grow(draws: np.random.Generator, leaves: int, target: int = 0) -> Tree:
    """Grow a tree with so many leaves, split anywhere."""
    left, right, place, members = [0], [0], [0], dict[int, list[float]]()
    tips = [0]
    while len(tips) < leaves:
        node = tips.pop(int(draws.integers(len(tips))))
        left[node], right[node] = len(left), len(left) + 1
        place[node] = int(draws.integers(NUMBERS + CODES))
        if place[node] >= NUMBERS:
            members[node] = draws.choice(12, int(draws.integers(1, 7)), replace=False).astype(float).tolist()
        for _ in range(2):
            tips.append(len(left))
            left.append(0), right.append(0), place.append(0)
    leaf, count = np.isin(np.arange(len(left)), tips), len(left)
    arrays = (np.array(left), np.array(right), leaf, np.array(place), draws.choice(THRESHOLDS, count))
    return Tree(*arrays, draws.random(count) < 0.5, draws.normal(size=count), members, np.ones(count), target)


def walk(trees: Sequence[Tree], row: Sequence[float], outputs: int) -> list[float]:
    """Walk down each tree, and add in their order."""
    sums = [0.0] * outputs
    for tree in trees:
        node = 0
        while not tree.leaf[node]:
            value = row[tree.feature[node]]
            inside = value in tree.members[node] if node in tree.members else value <= tree.threshold[node]
            node = int((tree.left if inside or (value != value and tree.missing_left[node]) else tree.right)[node])
        sums[tree.target] += float(tree.value[node])
    return sums


def draw_rows(draws: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """Draw rows at thresholds and beside them, missing, infinite; codes known, unknown, missing and between."""
    numbers = [np.nan, *THRESHOLDS, *np.nextafter(THRESHOLDS, np.inf), *np.nextafter(THRESHOLDS, -np.inf)]
    codes = [np.nan, -1.0, -2.0, 0.5, 99.0, np.inf, *range(13)]
    given = [draws.choice(numbers, count) for _ in range(NUMBERS)] + [draws.choice(codes, count) for _ in range(CODES)]
    return np.array(given)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 64), st.integers(1, 3), st.integers(1, 300))
def test_many_rows_sum_up_as_a_walk_and_as_the_graph_to_the_last_bit(
    seed: int, leaves: int, outputs: int, count: int
) -> None:
    draws = np.random.default_rng(seed)
    trees = [grow(draws, int(draws.integers(1, leaves + 1)), int(draws.integers(outputs))) for _ in range(12)]
    block = draw_rows(draws, count)
    vectors = lay_bits(join_trees(trees), outputs)
    assert vectors is not None
    found = vectors(block)
    assert found.tolist() == [walk(trees, row, outputs) for row in block.T.tolist()]
    assert np.array_equal(found, open_graph(tree_graph(trees, outputs)).run(np.ascontiguousarray(block.T)))


def test_more_trees_than_are_asked_at_once_are_added_in_their_order() -> None:
    draws = np.random.default_rng(3)
    trees = [grow(draws, 5, number % 2) for number in range(2 * bit_vectors.GROUP + 90)]
    vectors, block = lay_bits(join_trees(trees), 2), draw_rows(draws, 130)
    assert vectors is not None and len(vectors.groups) == 4
    assert vectors(block).tolist() == [walk(trees, row, 2) for row in block.T.tolist()]


def test_what_has_no_bit_vectors_is_left_to_the_graph() -> None:
    draws = np.random.default_rng(0)
    assert lay_bits(join_trees([grow(draws, 65)]), 1) is None
    tree = grow(draws, 8)
    for code in (0.5, 1e6, -2.0):
        other = Tree(**{**vars(tree), "members": {0: [code]}, "feature": np.full_like(tree.feature, 4)})
        assert lay_bits(join_trees([other]), 1) is None
    mixed = Tree(**{**vars(tree), "members": {0: [1.0]}, "feature": np.zeros_like(tree.feature)})
    assert lay_bits(join_trees([mixed]), 1) is None


BOOSTED = {
    "binary": {"max_iter": 30, "categorical_features": [0, 1]},
    "multiclass": {"max_iter": 10, "max_leaf_nodes": 50},
}


def learn(task: str) -> ReferenceScorer:
    return fitted(make_pipeline(ordinal(), boosted(**BOOSTED[task])), task)


def compile_task(task: str) -> CompiledScorer:
    compiled, facts = compile_and_prove(learn(task), FRAME.take(range(30)), FRAME)
    assert compiled is not None, facts
    return compiled


def write_version(folder: Path, scorer: CompiledScorer) -> None:
    (folder / "scorer.json").write_text(json.dumps(scorer.program))
    (folder / "scorer.onnx").write_bytes(scorer.graphs[0])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_batch_is_answered_as_each_row_alone_with_its_trees_kept_or_not(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, whole = list[int](), BitVectors.__call__

    def ask(self: BitVectors, block: Any) -> Any:
        asked.append(block.shape[1])
        return whole(self, block)

    monkeypatch.setattr(BitVectors, "__call__", ask)
    scorer, frame = compile_task(task), rows(7, 200)
    asked.clear()
    answers = [scorer.score(frame.take([k]))[0].tolist() for k in range(len(frame))]
    assert not asked
    assert scorer.score(frame).tolist() == answers and asked == [200]
    few = frame.take(range(FEWEST - 1))
    assert scorer.score(few).tolist() == answers[: FEWEST - 1] and asked == [200]
    write_version(tmp_path, scorer)
    assert CompiledScorer.open(tmp_path).score(frame).tolist() == answers and asked == [200]
    (tmp_path / FOREST_FILE).write_bytes(write_forest(join_trees(scorer.trees[0])))
    assert CompiledScorer.open(tmp_path).score(frame).tolist() == answers and asked == [200, 200]


def test_a_forged_file_of_trees_is_one_line_and_no_answer(tmp_path: Path) -> None:
    scorer = compile_task("binary")
    write_version(tmp_path, scorer)
    (tmp_path / FOREST_FILE).write_bytes(b"no archive")
    with pytest.raises(VersionError, match=FOREST_FILE):
        CompiledScorer.open(tmp_path).score(rows(7, 200))


def test_the_proof_finds_bit_vectors_that_differ_from_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = BitVectors.__call__
    monkeypatch.setattr(BitVectors, "__call__", lambda self, block: whole(self, block) + 1e-6)
    compiled, facts = compile_and_prove(learn("binary"), FRAME.take(range(30)), FRAME)
    assert compiled is None and "differ" in str(facts)
