"""Neighbours: to the bit those that the library's trees find, above all where distances are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_only import fit, framed, hold, labels, numbers, steps
from proving import answer
from sklearn.neighbors import (
    BallTree,
    KDTree,
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestCentroid,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer
from mlworkbench.scoring.compiled.models.kernels import sum_differences
from mlworkbench.scoring.compiled.models.searches import TreeSearch, describe_tree

ASKED = [("binary", KNeighborsClassifier), ("multiclass", KNeighborsClassifier), ("regression", KNeighborsRegressor)]


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
@pytest.mark.parametrize(("task", "make"), ASKED)
def test_neighbours_are_the_pipelines_among_copies_and_ties(task: str, make: Any, algorithm: str, weights: str) -> None:
    model = make(6, algorithm=algorithm, weights=weights, leaf_size=7, p=1 if weights == "uniform" else 2)
    hold(model, task, steps(n=200), np.concatenate([steps(3, 60), steps(4, 30) + 0.5, numbers(4, 30)]))


@pytest.mark.parametrize("metric", ["chebyshev", "l1", "euclidean"])
def test_metrics_are_the_pipelines(metric: str) -> None:
    hold(KNeighborsRegressor(3, metric=metric, algorithm="kd_tree"), "regression", steps(), steps(3))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grid=st.integers(1, 5),
    columns=st.integers(1, 5),
    count=st.integers(1, 20),
    leaf=st.integers(1, 40),
    kind=st.sampled_from([KDTree, BallTree]),
    power=st.sampled_from([(2, "euclidean"), (1, "manhattan"), (np.inf, "chebyshev")]),
)
def test_a_search_finds_what_the_tree_finds(
    seed: int, grid: int, columns: int, count: int, leaf: int, kind: Any, power: Any
) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(0, grid, size=(60, columns)).astype(float)
    asked = np.concatenate([table[:10] + random.choice([0, 0.5]), np.full((1, columns), 1e200)])
    tree = kind(table, leaf_size=leaf, metric=power[1])
    spec, order = describe_tree(tree)
    search, distances = TreeSearch(spec, power[0]), sum_differences(asked, table[order].T, power[0])
    bounds = search.find_bounds(asked)
    found = [
        sorted(order[search.search(far, near.tolist(), count)]) for far, near in zip(distances, bounds, strict=True)
    ]
    assert found == [sorted(places) for places in tree.query(asked, count)[1].tolist()]


def test_a_row_alone_and_in_a_batch_has_the_same_bits() -> None:
    for model in (KNeighborsRegressor(9, weights="distance"), RadiusNeighborsRegressor(1.5, weights="distance")):
        compiled = compile_scorer(fit(model, "regression", steps(n=300)))
        frame = framed(steps(5, 50) * 0.9)
        alone = [compiled.score(frame.take([row]))[0] for row in range(50)]
        assert np.array_equal(alone, compiled.score(frame))


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_radius_with_a_class_for_rows_without_neighbours(task: str, weights: str) -> None:
    model = RadiusNeighborsClassifier(1.0, weights=weights, outlier_label="most_frequent")
    hold(model, task, steps(n=200), numbers(3) * 3)


def test_a_radius_without_a_neighbour_is_refused_as_the_pipeline_refuses_it() -> None:
    for model, task in ((RadiusNeighborsClassifier(1.0), "binary"), (RadiusNeighborsRegressor(1.0), "regression")):
        compiled = hold(model, task, steps(n=200), steps(3))
        with pytest.raises(ScoringError):
            compiled.score(framed([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]]))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("priors", ["uniform", "empirical"])
def test_the_nearest_centre_is_the_pipelines(task: str, priors: str) -> None:
    table = numbers()
    target = labels(table, task)
    target[:15] = target.max() if task == "binary" else "late"
    hold(NearestCentroid(priors=priors), task, table, numbers(3), target=target)


def test_shrunk_centres_are_the_pipelines() -> None:
    reference = fit(NearestCentroid(shrink_threshold=0.3), "multiclass", numbers())
    expected, got = (answer(scorer, framed(numbers(3))) for scorer in (reference, compile_scorer(reference)))
    assert np.abs(got[0] - expected[0]).max() < 1e-13 and got[1].tolist() == expected[1].tolist()


REFUSED: dict[str, tuple[Any, str]] = {
    "brute force": (KNeighborsClassifier(algorithm="brute"), "set algorithm='kd_tree'"),
    "half of the rows": (KNeighborsClassifier(30), "neighbours by a tree"),
    "own weights": (KNeighborsClassifier(weights=np.ones_like), "weights uniform or distance"),
    "another power": (KNeighborsClassifier(p=3), "got minkowski, uniform"),
    "a radius by brute force": (RadiusNeighborsClassifier(algorithm="brute"), "set algorithm='kd_tree'"),
    "an unknown class": (RadiusNeighborsClassifier(outlier_label=7), "outlier_label of training; got 7"),
    "centres by another distance": (NearestCentroid(metric="manhattan"), "of metric euclidean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    model, words = REFUSED[name]
    model.fit(numbers(n=40), labels(numbers(n=40), "binary").astype(int))
    with pytest.raises(NoRuleError, match=words):
        ProgramCompiler().answers(model, Question("predict_proba"), Site((None,) * 3))


def test_too_many_neighbours_are_refused_by_count() -> None:
    table = np.zeros((40_000, 3))
    model = KNeighborsRegressor(leaf_size=40_000, algorithm="kd_tree").fit(table, table[:, 0])
    with pytest.raises(NoRuleError, match=r"got 10\d\d us a row and 4 MB by count; use the reference scorer"):
        ProgramCompiler().answers(model, Question("predict"), Site((None,) * 3))
