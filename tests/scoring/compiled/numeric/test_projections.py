"""Products, kernels and selections of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from proving import prove_alike
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import (
    RFE,
    RFECV,
    GenericUnivariateSelect,
    SelectFdr,
    SelectFpr,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
)
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from test_compile import FRAME, fitted, one_hot, rows
from transforming import compile_steps, refuse_alike, table, transform_alike

from mlworkbench.scoring.compiled.base.rules import NoRuleError

SCALES = np.array([1.0, 100.0, 3.0, 1e4])
TABLE, UNSEEN = table() / SCALES, table(1, spread=2.0) / SCALES
LABELS = TABLE[:, 0] + TABLE[:, 2] > 1

PROJECTED: list[Any] = [
    PCA(),
    PCA(2, whiten=True),
    IncrementalPCA(2, whiten=True),
    TruncatedSVD(2, random_state=0),
    FastICA(2, random_state=0),
    FastICA(whiten=False, random_state=0),
    FactorAnalysis(2),
    GaussianRandomProjection(3, random_state=0),
    SparseRandomProjection(3, random_state=0),
    NeighborhoodComponentsAnalysis(2, random_state=0),
    *(LinearDiscriminantAnalysis(solver) for solver in ("svd", "eigen")),
    *(Nystroem(kernel, n_components=10, random_state=0) for kernel in ("rbf", "poly", "polynomial", "sigmoid")),
    Nystroem("linear", n_components=3, random_state=0),
    Nystroem("poly", degree=2, gamma=0.3, coef0=0, n_components=10, random_state=0),
    Nystroem("rbf", kernel_params={"gamma": 0.1}, n_components=10, random_state=0),
    RBFSampler(n_components=30, random_state=0),
    RBFSampler(gamma="scale", n_components=30, random_state=0),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("projection", PROJECTED, ids=str)
def test_a_projection_gives_the_same_columns(projection: Any) -> None:
    transform_alike(projection.fit(TABLE, LABELS), UNSEEN, bound=1e-13, alone=1e-10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("projection", [PCA(2), TruncatedSVD(2), Nystroem(n_components=4), RBFSampler()], ids=str)
def test_a_projection_refuses_what_is_not_finite(projection: Any) -> None:
    steps, _ = compile_steps(projection.fit(TABLE), 4)
    assert steps
    for value in (np.nan, np.inf, -np.inf):
        refuse_alike_at(projection, value)


def refuse_alike_at(projection: Any, value: float) -> None:
    from mlworkbench.scoring.compiled.base.blocks import RowError

    odd = UNSEEN[:3].copy()
    odd[1, 2] = value
    steps, _ = compile_steps(projection, 4)
    with pytest.raises(ValueError, match="contains"):
        projection.transform(odd)
    with pytest.raises(RowError) as refusal:
        steps[0](odd.T)
    assert refusal.value.row == 1


def test_a_kernel_of_ones_own_has_no_rule() -> None:
    with pytest.raises(NoRuleError, match="laplacian"):
        compile_steps(Nystroem("laplacian", n_components=4).fit(TABLE), 4)


LINE = LogisticRegression()
SELECTED: list[Any] = [
    *(SelectKBest(k=2), SelectPercentile(percentile=50), SelectFpr(), SelectFdr(), SelectFwe()),
    *(GenericUnivariateSelect(mode="k_best", param=2), SelectFromModel(LINE), RFE(LINE, n_features_to_select=2)),
    *(RFECV(LINE, cv=2), VarianceThreshold(0.5)),
    SequentialFeatureSelector(LINE, n_features_to_select=2, cv=2),
    SelectFromModel(LINE.fit(TABLE, LABELS), prefit=True),
    SequentialFeatureSelector(HistGradientBoostingClassifier(max_iter=2), n_features_to_select=2, cv=2),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("selector", SELECTED, ids=lambda selector: type(selector).__name__)
def test_a_selector_takes_its_columns_and_looks_at_the_others(selector: Any) -> None:
    selector.fit(TABLE, LABELS)
    transform_alike(selector, UNSEEN)
    refuse_alike(selector, UNSEEN[0])


@pytest.mark.filterwarnings("ignore")
def test_a_selector_of_nothing_has_no_rule() -> None:
    selector = SelectKBest(k=0).fit(TABLE, LABELS)
    with pytest.raises(NoRuleError, match="took none"):
        compile_steps(selector, 4)


@pytest.mark.filterwarnings("ignore")
def test_pipelines_with_projections_are_proved() -> None:
    for step in (PCA(4), TruncatedSVD(4, random_state=0), SelectKBest(k=5), Nystroem(random_state=0), RBFSampler()):
        pipeline = make_pipeline(one_hot(), StandardScaler(with_mean=False), step, LogisticRegression(max_iter=2000))
        prove_alike(fitted(pipeline, "binary"), FRAME, rows(seed=7, n=100), alone=5)
