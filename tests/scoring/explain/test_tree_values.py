"""Values of trees: equal to the definition, to another implementation, and to the sum; forged files are refused."""

from __future__ import annotations

import io
import itertools
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor

from mlworkbench.errors import VersionError
from mlworkbench.scoring.compiled.ensembles.forests import read_grown_trees
from mlworkbench.scoring.compiled.ensembles.histogram_boosting import read_boosted_trees
from mlworkbench.scoring.compiled.ensembles.tree_file import Forest, join_trees, read_forest, write_forest
from mlworkbench.scoring.compiled.ensembles.trees import Tree
from mlworkbench.scoring.explain.tree_values import TreeValues

STORED = json.loads((Path(__file__).parent / "shap_values.json").read_text())


def grow(random: np.random.Generator, features: int, depth: int) -> Tree:
    """Grow a tree at random: thresholds, splits by category, missing values, and nodes that no training row met."""
    lists: dict[str, list[Any]] = {n: [] for n in ("left", "right", "leaf", "feature", "threshold", "missing", "value")}
    cover: list[float] = []
    members: dict[int, list[float]] = {}

    def add(level: int, rows: float) -> int:
        place = len(cover)
        inner = level < depth and random.random() < 0.8
        feature = int(random.integers(features))
        drawn = (0, 0, not inner, feature, random.integers(-2, 3) / 2, random.random() < 0.5, random.normal())
        for values, one in zip(lists.values(), drawn, strict=True):
            values.append(one)
        cover.append(rows)
        if inner:
            if feature == features - 1:
                members[place] = [float(code) for code in range(4) if random.random() < 0.5]
            share = random.choice([0.0, 0.25, 0.5, 0.75])
            lists["left"][place], lists["right"][place] = (
                add(level + 1, rows * share),
                add(level + 1, rows * (1 - share)),
            )
        return place

    add(0, 64.0)
    arrays = [np.array(values) for values in lists.values()]
    return Tree(*arrays, members, np.array(cover))


def goes_left(tree: Tree, node: int, row: list[float]) -> bool:
    value = row[int(tree.feature[node])]
    if math.isnan(value):
        return bool(tree.missing_left[node])
    return value in tree.members[node] if node in tree.members else bool(value <= tree.threshold[node])


def expect(tree: Tree, row: list[float], known: set[int], node: int = 0) -> float:
    """Expectation of a tree where some features are known, as it is defined."""
    if tree.leaf[node]:
        return float(tree.value[node])
    left, right = int(tree.left[node]), int(tree.right[node])
    if int(tree.feature[node]) in known:
        return expect(tree, row, known, left if goes_left(tree, node, row) else right)
    if not tree.cover[node]:
        return 0.0
    parts = [tree.cover[child] / tree.cover[node] * expect(tree, row, known, child) for child in (left, right)]
    return float(sum(parts))


def by_definition(tree: Tree, row: list[float]) -> list[float]:
    """Shapley values from all orders."""
    found, orders = [0.0] * len(row), [*itertools.permutations(range(len(row)))]
    for order in orders:
        for k, feature in enumerate(order):
            gain = expect(tree, row, {*order[: k + 1]}) - expect(tree, row, {*order[:k]})
            found[feature] += gain / len(orders)
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 5))
def test_values_are_those_of_the_definition(seed: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    tree = grow(random, 4, depth)
    values = TreeValues(join_trees([tree]), range(4), columns=4, outputs=1)
    for _ in range(4):
        row = [float(v) for v in random.choice([-1.0, -0.5, 0.0, 0.5, 1.0, np.nan], 3)]
        row.append(float(random.choice([0.0, 1.0, 2.0, 3.0, 7.0, np.nan])))
        got = values(np.array([row]))[0, :, 0]
        assert np.allclose(got, by_definition(tree, row), rtol=0, atol=1e-12)
        assert math.isclose(values.expected[0] + got.sum(), expect(tree, row, {0, 1, 2, 3}), abs_tol=1e-12)


@pytest.mark.parametrize("stored", STORED, ids=lambda one: one["name"])
def test_values_are_those_that_shap_gives(stored: dict[str, Any]) -> None:
    trees = []
    for one in stored["trees"]:
        arrays = {name: np.array(values) for name, values in one.items() if name != "target"}
        leaf = arrays["left"] < 0
        shape = (arrays["left"], arrays["right"], leaf, arrays["feature"], arrays["threshold"], arrays["missing_left"])
        trees.append(Tree(*shape, arrays["value"], {}, arrays["cover"], one["target"]))
    rows = np.array([[np.nan if v is None else v for v in row] for row in stored["rows"]])
    expected = np.array(stored["values"])
    values = TreeValues(join_trees(trees), range(4), columns=4, outputs=expected.shape[2])
    assert np.abs(values(rows) / stored["divisor"] - expected).max() <= 1e-12 * np.abs(expected).max()
    assert np.allclose(values.expected / stored["divisor"], stored["expected"], rtol=0, atol=1e-9)


def test_values_are_those_of_shap_where_it_is_installed() -> None:
    shap = pytest.importorskip("shap")
    random = np.random.default_rng(0)
    rows = random.normal(size=(500, 5)).astype(np.float32).astype(np.float64)
    label = rows[:, 0] * rows[:, 1] + rows[:, 2] > 0
    boosted = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows, label)
    forest = RandomForestRegressor(10, random_state=0).fit(rows, rows[:, 0] * rows[:, 1])
    for model, trees, divisor in [
        (boosted, read_boosted_trees(boosted, {}), 1),
        (forest, read_grown_trees(forest, [0]), 10),
    ]:
        expected = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(rows[:50])
        got = TreeValues(join_trees(trees), range(5), columns=5, outputs=1)(rows[:50])[:, :, 0] / divisor
        assert np.abs(got - expected).max() <= 1e-12 * np.abs(expected).max()


def test_values_of_features_are_added_where_they_come_from_one_column() -> None:
    tree = grow(np.random.default_rng(3), 4, 5)
    rows = np.array([[0.5, -1.0, 0.0, 2.0], [np.nan, 1.0, 1.0, 9.0]])
    apart = TreeValues(join_trees([tree]), range(4), columns=4, outputs=1)(rows)
    together = TreeValues(join_trees([tree]), [0, 0, 1, 1], columns=2, outputs=1)(rows)
    assert np.allclose(together[:, 0], apart[:, 0] + apart[:, 1], atol=1e-14)
    assert np.allclose(together[:, 1], apart[:, 2] + apart[:, 3], atol=1e-14)


def test_a_row_alone_has_the_bits_that_it_has_among_others() -> None:
    tree = grow(np.random.default_rng(4), 4, 6)
    values = TreeValues(join_trees([tree] * 3), range(4), columns=4, outputs=1)
    rows = np.random.default_rng(0).normal(size=(5, 4))
    assert (values(rows)[2] == values(rows[[2]])[0]).all()
    assert values(rows[:0]).shape == (0, 4, 1)


def test_a_tree_that_is_one_leaf_is_all_base() -> None:
    zero = np.zeros(1, dtype=np.int64)
    leaf = Tree(zero, zero, zero == 0, zero, np.zeros(1), zero > 0, np.array([3.0]), {}, np.array([9.0]))
    values = TreeValues(join_trees([leaf]), [0], columns=1, outputs=1)
    assert values.expected.tolist() == [3.0] and values(np.zeros((1, 1))).tolist() == [[[0.0]]]


def forest_of_one() -> Forest:
    return join_trees([grow(np.random.default_rng(6), 4, 4)])


def test_the_same_trees_are_the_same_bytes_and_come_back_equal() -> None:
    forest = forest_of_one()
    assert write_forest(forest) == write_forest(forest_of_one())
    again = read_forest(write_forest(forest), features=4, outputs=1)
    assert all((getattr(again, name) == values).all() for name, values in vars(forest).items())


FORGED = {
    "a child outside": {"left": 99},
    "a node that leads to the root": {"right": 0},
    "one child": {"right": -1},
    "a feature outside": {"feature": 4},
    "an output outside": {"target": 1},
    "a value without end": {"value": np.inf},
    "a cover below zero": {"cover": -1.0},
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_trees_are_refused_in_one_line(name: str) -> None:
    forest = forest_of_one()
    for field, value in FORGED[name].items():
        getattr(forest, field)[0] = value
    with pytest.raises(VersionError, match=r"scorer_trees.npz") as caught:
        read_forest(write_forest(forest), features=4, outputs=1)
    assert "\n" not in str(caught.value)


def test_a_circle_is_refused() -> None:
    forest = join_trees([grow(np.random.default_rng(6), 4, 4)] * 2)
    top = int(forest.left[len(forest.left) // 2])  # below the second root
    forest.left[len(forest.left) // 2 :][:1], forest.left[top] = -1, top
    forest.right[len(forest.left) // 2] = -1
    with pytest.raises(VersionError, match=r"scorer_trees.npz"):
        read_forest(write_forest(forest), features=4, outputs=1)


def archive(write: Any) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


ARRAYS: dict[str, Any] = {"left": np.zeros(1)}
HEAD = b"\x93NUMPY\x01\x00\x10\x00{'shape': (9"
UNREADABLE = {
    "nothing": b"",
    "no archive": b"PK\x03\x04 trees",
    "cut short": write_forest(forest_of_one())[:-40],
    "another type": archive(lambda file: np.savez(file, **ARRAYS)),
    "compressed": archive(lambda file: np.savez_compressed(file, **ARRAYS)),
    "pickled": archive(lambda file: np.savez(file, left=np.array([print], dtype=object))),
    "no array": archive(lambda file: zipfile.ZipFile(file, "w").writestr("left.npy", HEAD)),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_forest_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(VersionError, match=r"scorer_trees.npz: not as it was written") as caught:
        read_forest(UNREADABLE[name], features=4, outputs=1)
    assert "\n" not in str(caught.value)
