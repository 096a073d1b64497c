"""Lines, discriminants and networks: what is a product gives the pipeline's scores and decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numbers_only import hold, labels, numbers
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    PoissonRegressor,
    RANSACRegressor,
    Ridge,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.semi_supervised import LabelPropagation
from sklearn.svm import LinearSVR

from mlworkbench.scoring.compiled.base.links import LINKS
from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler
from mlworkbench.scoring.compiled.models.linear import compile_linear_regressor

NUMBERS = {
    "Poisson": (PoissonRegressor(), True),
    "gamma": (GammaRegressor(alpha=0.1), True),
    "Tweedie": (TweedieRegressor(power=1.5), True),
    "Tweedie without link": (TweedieRegressor(power=0), False),
    "Tweedie with a stated link": (TweedieRegressor(power=0, link="log"), True),
    "support vectors": (LinearSVR(), False),
    "partial least squares": (PLSRegression(2), False),
    "canonical": (PLSCanonical(1), False),
    "correlation": (CCA(1), False),
    "consensus": (RANSACRegressor(random_state=0), False),
    "consensus of counts": (RANSACRegressor(PoissonRegressor(), min_samples=60, random_state=0), True),
    "a network": (MLPRegressor(hidden_layer_sizes=(6, 3), max_iter=40, random_state=0), False),
    "a network of counts": (
        MLPRegressor(hidden_layer_sizes=(4,), loss="poisson", max_iter=40, random_state=0),
        True,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_pipelines(name: str) -> None:
    model, positive = NUMBERS[name]
    table = numbers()
    value = labels(table, "regression")
    hold(model, "regression", table, numbers(3), target=np.exp(value) if positive else value)


CLASSES: dict[str, Any] = {
    "modified Huber": lambda: SGDClassifier(loss="modified_huber", random_state=0),
    "logistic by gradients": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "linear discriminant": LinearDiscriminantAnalysis,
    "shrunk": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "by eigenvectors": lambda: LinearDiscriminantAnalysis(solver="eigen", priors=None),
    "quadratic discriminant": QuadraticDiscriminantAnalysis,
    "quadratic, shrunk": lambda: QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.1),
    **{
        f"network with {bent}": lambda bent=bent: MLPClassifier((5,), activation=bent, max_iter=30, random_state=0)
        for bent in ("relu", "tanh", "logistic", "identity")
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_the_pipelines(name: str, task: str) -> None:
    hold(CLASSES[name](), task, numbers(), numbers(3))


def test_a_row_that_no_class_wants_has_equal_shares() -> None:
    zero = np.array([[-2.0, -3.0, -9.0], [0.0, -1.0, 1.0]])
    assert LINKS["clipped margins"](zero).round(3).tolist() == [[0.333, 0.333, 0.333], [0.333, 0.0, 0.667]]
    assert LINKS["one against rest"](np.full((1, 4), -800.0)).tolist() == [[0.25] * 4]


def test_the_largest_logarithm_decides_where_shares_are_equal() -> None:
    table = numbers(n=60) + np.repeat([[0.0], [40.0]], 30, axis=0)
    late = np.repeat([False, True], 30)
    compiled = hold(QuadraticDiscriminantAnalysis(), "binary", table, numbers(4) * 30, target=late)
    assert compiled.program["decides"]["by"] == "raw"


REFUSED: dict[str, tuple[Any, str, str]] = {
    "several outputs": (MultiTaskLasso(), "several", "MultiTaskLasso .predict. has no rule"),
    "several outputs of a line": (Ridge(), "several", "Ridge of 2 outputs has no rule"),
    "several outputs of a network": (MLPRegressor(max_iter=5), "several", "of 2 outputs has no rule"),
    "several latent outputs": (PLSRegression(1), "several", "of 2 outputs has no rule"),
    "labels that spread": (LabelPropagation(), "class", "LabelPropagation .predict. has no rule"),
    "hinges without probabilities": (SGDClassifier(), "class", "probabilities of log_loss, modified_huber; got hinge"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    model, target, words = REFUSED[name]
    table = numbers()
    value = labels(table, "regression")
    model.fit(table, np.stack([value, -value], axis=1) if target == "several" else value > 0)
    method = "predict_proba" if name == "hinges without probabilities" else "predict"
    with pytest.raises(NoRuleError, match=words):
        ProgramCompiler().answers(model, Question(method), Site((None,) * 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [Ridge(), MLPClassifier((3,), max_iter=3)], ids=str)
def test_what_was_fitted_on_32_bits_is_refused(model: Any) -> None:
    table = numbers().astype(np.float32)
    model.fit(table, labels(table, "binary").astype(np.float32))
    with pytest.raises(NoRuleError, match="32 bits; convert them to float64"):
        ProgramCompiler().answers(model, Question("predict"), Site((None,) * 3))


def test_a_line_of_one_output_in_two_dimensions_is_one_line() -> None:
    table = numbers()
    model = LinearRegression().fit(table, labels(table, "regression")[:, None])
    entry = compile_linear_regressor(model, Question("predict"), Site((None,) * 3), ProgramCompiler()).model
    assert np.shape(entry["coefficients"]) == (1, 3) and len(entry["intercepts"]) == 1


def test_the_link_of_one_row_is_the_link_of_many() -> None:
    model = LogisticRegression()
    compiled = hold(model, "binary", numbers(), numbers(3))
    assert compiled.program["decides"] == {"by": "raw", "labels": [False, True]}
