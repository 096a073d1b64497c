"""Detectors of one class: margins, support vectors, ellipses; what has no rule says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detectors import hold, settled
from sklearn.compose import make_column_transformer
from sklearn.covariance import EllipticEnvelope
from sklearn.impute import SimpleImputer
from sklearn.linear_model import SGDOneClassSVM
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder
from sklearn.svm import OneClassSVM
from test_compile import FRAME, NUMBERS, TABLE, WORDS, one_hot, ordinal

from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.base import costs
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.reference import read_detector_rule, response_method

DETECTORS: dict[str, Any] = {
    "an ellipse": EllipticEnvelope(random_state=0, contamination=0.1),
    "an ellipse that is not centered": EllipticEnvelope(random_state=0, assume_centered=True, support_fraction=0.9),
    "a line": SGDOneClassSVM(random_state=0, nu=0.2),
    "a line of a mean": SGDOneClassSVM(random_state=0, nu=0.5, average=True),
    "vectors": OneClassSVM(nu=0.2),
    "vectors of a line": OneClassSVM(nu=0.2, kernel="linear"),
    "vectors of a power": OneClassSVM(nu=0.2, kernel="poly", degree=2, coef0=0.5, gamma=0.1),
    "vectors of a curve": OneClassSVM(nu=0.2, kernel="sigmoid", coef0=0.1, gamma=0.05),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DETECTORS)
def test_scores_are_the_librarys_and_decisions_those_of_predict(name: str) -> None:
    hold(DETECTORS[name], scaled() if name == "vectors of a line" else None, bound=1e-12)


def scaled() -> Any:
    """Scale numbers to 0 and 1: around 0 the library's own sums of a line cancel, and no digits are left to compare."""
    return make_column_transformer((make_pipeline(SimpleImputer(), MinMaxScaler()), NUMBERS))


def refuse(estimator: Any, before: Any) -> str:
    reference, ruling = settled(make_pipeline(before, estimator).fit(TABLE))
    compiled, facts = compile_and_prove(reference, FRAME.take(range(50)), FRAME, threshold=ruling.threshold)
    assert compiled is None
    return str(facts["reason"])


def test_what_has_no_rule_is_refused_by_name() -> None:
    assert refuse(LocalOutlierFactor(novelty=True), one_hot()).startswith(
        "LocalOutlierFactor (score_samples) has no rule: it weighs a row by its neighbours' neighbours"
    )
    own = OneClassSVM(kernel=lambda one, other: one @ other.T)
    assert "OneClassSVM: kernel linear, poly, sigmoid, rbf; got <function" in refuse(own, one_hot())


def test_support_vectors_of_a_sparse_table_or_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    words = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), WORDS), sparse_threshold=1.0)
    assert "OneClassSVM of a sparse table has no rule" in refuse(OneClassSVM(), words)
    monkeypatch.setitem(costs.LARGEST_COST, "bytes", 1000)
    assert "OneClassSVM: at most 1000 us a row and 50 MB; got" in refuse(OneClassSVM(), one_hot())


def test_the_edge_is_read_from_the_detector_and_is_strict_for_one_class_support_vectors_alone() -> None:
    table = ordinal(-1).fit_transform(TABLE)[:, [0, 1]]
    for estimator, strict in ((OneClassSVM(), True), (LocalOutlierFactor(novelty=True), False)):
        estimator.fit(table)
        assert read_detector_rule(estimator) == (float(np.ravel(estimator.offset_)[0]), strict)


def test_a_detector_that_scores_no_new_rows_is_refused_in_one_line() -> None:
    factor = LocalOutlierFactor().fit(np.arange(60.0).reshape(-1, 2))
    with pytest.raises(ScoringError, match="LocalOutlierFactor has none for new rows; set novelty=True, fit again"):
        response_method(factor, "anomaly")


class Stubborn(EllipticEnvelope):  # type: ignore[misc]
    """Calls every second row an anomaly, whatever its score."""

    def predict(self, X: Any) -> Any:
        return np.where(np.arange(len(X)) % 2, 1, -1)


def test_a_detector_whose_predict_is_no_matter_of_its_offset_decides_itself() -> None:
    reference, ruling = settled(make_pipeline(one_hot(), Stubborn(random_state=0)).fit(TABLE))
    assert ruling.decision == {"rule": "predict"} and ruling.threshold is None
    compiled, facts = compile_and_prove(reference, FRAME.take(range(50)), FRAME, threshold=None)
    assert compiled is None and "Stubborn (score_samples) has no rule" in facts["reason"]
