"""Kernels: support vector machines, kernel ridge and processes, and what they may cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_only import fit, framed, hold, labels, numbers, steps
from proving import answer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as processes
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC, SVR, NuSVC, NuSVR
from sklearn.utils.multiclass import _ovr_decision_function

from mlworkbench.scoring.compiled.base.costs import count_cost, refuse_costly
from mlworkbench.scoring.compiled.base.links import DECISIONS, LINKS
from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler
from mlworkbench.scoring.compiled.models.kernels import sum_differences
from mlworkbench.scoring.compiled.operations import ProgramMaker

pytestmark = pytest.mark.filterwarnings("ignore")
KERNELS = ("rbf", "linear", "poly", "sigmoid")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("make", [SVR, NuSVR])
def test_a_number_of_support_vectors_is_the_pipelines(make: Any, kernel: str) -> None:
    hold(make(kernel=kernel, coef0=0.2), "regression", numbers(), numbers(3))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_margins_and_votes_are_the_pipelines(kernel: str, task: str) -> None:
    hold(SVC(kernel=kernel, coef0=0.2, degree=5), task, numbers(), numbers(3))
    hold(NuSVC(kernel=kernel, nu=0.3), task, numbers(n=60), numbers(3, 60), bound=1e-9)


@pytest.mark.parametrize(
    "options", [{"break_ties": True}, {"decision_function_shape": "ovo"}, {"class_weight": "balanced"}], ids=str
)
def test_options_of_decisions_are_followed(options: Any) -> None:
    hold(SVC(**options), "multiclass", steps(), steps(3))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_probabilities_are_those_of_libsvm(classes: int) -> None:
    table = numbers(n=150)
    value = labels(table, "regression")
    target = np.array([*"abcdef"])[np.digitize(value, np.quantile(value, np.arange(1, classes) / classes))]
    model = SVC(probability=True, random_state=0)
    compiled = hold(model, "binary" if classes == 2 else "multiclass", table, numbers(3), target=target)
    assert compiled.program["decides"]["by"] == "votes"


def test_a_margin_of_exactly_zero_is_decided_for_the_second_class() -> None:
    table = np.array([[-1.0, 0, 0], [1.0, 0, 0]] * 20)
    reference = fit(SVC(kernel="linear"), "binary", table, np.array(["a", "b"] * 20))
    compiled = hold(SVC(kernel="linear"), "binary", table, table * [0.5, 1, 1], target=np.array(["a", "b"] * 20))
    middle = framed(np.zeros((1, 3)))
    assert answer(reference, middle)[0][0] == answer(compiled, middle)[0][0] == 0.0
    assert answer(reference, middle)[1][0] == answer(compiled, middle)[1][0] == "b"


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_votes_and_margins_of_ties_are_those_of_the_library(classes: int, seed: int) -> None:
    pairs = classes * (classes - 1) // 2
    margins = np.random.default_rng(seed).integers(-2, 3, size=(20, pairs)) / 2
    expected = _ovr_decision_function(margins < 0, -margins, classes)
    assert np.array_equal(LINKS["class margins"](margins), expected)
    votes = np.zeros((20, classes))
    for row in range(20):
        place = 0
        for one in range(classes):
            for other in range(one + 1, classes):
                votes[row, one if margins[row, place] > 0 else other] += 1
                place += 1
    assert np.array_equal(DECISIONS["votes"](margins, expected), votes.argmax(axis=1))


RIDGES = [KernelRidge(kernel=kernel, gamma=0.2) for kernel in ("linear", "rbf", "laplacian", "sigmoid", "poly")]


@pytest.mark.parametrize("model", [*RIDGES, KernelRidge(kernel="rbf")], ids=str)
def test_kernel_ridge_is_the_pipelines(model: Any) -> None:
    hold(model, "regression", numbers(), numbers(3), bound=1e-10)


PROCESSES = [
    processes.ConstantKernel(2.0) * processes.RBF([1.0, 2.0, 3.0]),
    processes.Matern(1.5, nu=0.5),
    processes.Matern(1.5, nu=1.5),
    processes.Matern([1.0, 2.0, 1.5], nu=2.5),
    processes.Matern(1.5, nu=np.inf),
    processes.RationalQuadratic(),
    processes.ExpSineSquared(2.0, 30.0),
    processes.DotProduct() ** 2 + processes.ConstantKernel(0.5),
]


@pytest.mark.parametrize("kernel", PROCESSES, ids=str)
def test_the_mean_of_a_process_is_the_pipelines(kernel: Any) -> None:
    model = GaussianProcessRegressor(kernel + processes.WhiteKernel(0.1), optimizer=None, normalize_y=True)
    hold(model, "regression", numbers(n=60), numbers(3, 60), bound=1e-9)


def other(row: Any, vectors: Any, **_: Any) -> Any:
    return row @ vectors.T


REFUSED: dict[str, tuple[Any, str]] = {
    "an own kernel of vectors": (SVR(kernel=other), "kernel linear, rbf, poly, sigmoid; got <function"),
    "an own kernel of a ridge": (KernelRidge(kernel="cosine"), "got cosine"),
    "another smoothness": (GaussianProcessRegressor(processes.Matern(nu=3.0), alpha=1.0), "Matern: nu 0.5, 1.5"),
    "a kernel of pairs": (GaussianProcessRegressor(processes.PairwiseKernel(), alpha=1.0), "got PairwiseKernel"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    model, words = REFUSED[name]
    model.fit(numbers(n=40), labels(numbers(n=40), "regression"))
    with pytest.raises(NoRuleError, match=words):
        ProgramCompiler().answers(model, Question("predict"), Site((None,) * 3))


def test_several_outputs_are_refused() -> None:
    table = numbers(n=40)
    for model in (KernelRidge(), GaussianProcessRegressor(alpha=1.0)):
        model.fit(table, table[:, :2])
        with pytest.raises(NoRuleError, match="of 2 outputs has no rule; train one for each"):
            ProgramCompiler().answers(model, Question("predict"), Site((None,) * 3))


def test_what_costs_too_much_is_refused_by_count_and_says_the_way_out() -> None:
    assert count_cost(1000, 10, outputs=3, kernels=2) == {"microseconds": 83, "bytes": 364_000}
    cheap = count_cost(30_000, 10)
    assert refuse_costly(SVR(), cheap) is cheap
    for cost in (count_cost(60_000, 10), count_cost(2_000, 10, outputs=2_000)):
        with pytest.raises(NoRuleError, match=r"SVR: at most 1000 us a row and 50 MB; got .* by count; use the ref"):
            refuse_costly(SVR(), cost)
    model = KernelRidge(kernel="rbf").fit(numbers(n=20), numbers(n=20)[:, 0])
    model.X_fit_, model.dual_coef_ = np.zeros((90_000, 3)), np.zeros(90_000)
    with pytest.raises(NoRuleError, match="KernelRidge: at most 1000 us"):
        ProgramCompiler().answers(model, Question("predict"), Site((None,) * 3))


def test_distances_of_a_row_alone_and_in_a_batch_have_the_same_bits() -> None:
    rows, vectors = numbers(1, 300) * 1e6, numbers(2, 77).T
    for power in (1, 2, np.inf):
        together = sum_differences(rows, vectors, power)
        assert all(np.array_equal(sum_differences(rows[[k]], vectors, power), together[[k]]) for k in range(40))
    assert np.allclose(sum_differences(rows, vectors), ((rows[:, None] - vectors.T) ** 2).sum(axis=2), rtol=1e-14)


def test_margins_that_other_models_take_are_those_of_the_machine() -> None:
    table = numbers()
    model = SVC().fit(table, labels(table, "binary"))
    found = ProgramCompiler().answers(model, Question("decision_function"), Site((None,) * 3))
    margins = ProgramMaker().model(found.model)(table.T)[:, 0]
    assert found.link == "identity" and np.allclose(margins, model.decision_function(table), rtol=1e-12, atol=1e-12)
