"""Calibrated classifiers: every curve, every kind of member, and what depends on other rows is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from few_columns import FEW, WIDE, codes, hold, only, refer, words
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import refuse_alike
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from test_compile import FRAME, LATE, rows

from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.meta.mixing import make_interpolation, make_shares, make_sigmoid
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame

MEMBERS: dict[str, Any] = {
    "lines": lambda: LogisticRegression(max_iter=2000),
    "margins": LinearSVC,
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=4, random_state=0),
}
CASES = [
    ("binary", "sigmoid", "margins", True),
    ("binary", "isotonic", "boosting", True),
    ("binary", "isotonic", "lines", False),
    ("binary", "temperature", "margins", True),
    ("binary", "temperature", "forest", False),
    ("multiclass", "sigmoid", "lines", False),
    ("multiclass", "isotonic", "forest", True),
    ("multiclass", "temperature", "forest", False),
]


@pytest.mark.parametrize(("task", "method", "member", "ensemble"), CASES)
def test_every_curve_is_the_pipelines(task: str, method: str, member: str, ensemble: bool) -> None:
    calibrated = CalibratedClassifierCV(MEMBERS[member](), method=method, ensemble=ensemble, cv=3)
    trees = member in ("forest", "boosting")
    hold(refer(make_pipeline(codes() if trees else words(), calibrated), task), same_bits=trees)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_pipeline_that_was_fitted_before_is_calibrated_with_its_words(task: str) -> None:
    inside = refer(make_pipeline(words(), LogisticRegression(max_iter=2000)), task).pipeline
    hold(refer(CalibratedClassifierCV(FrozenEstimator(inside)), task))


def test_of_curves_that_are_all_at_zero_every_class_has_the_same_share() -> None:
    calibrated = CalibratedClassifierCV(MEMBERS["forest"](), method="isotonic", ensemble=False)
    reference = refer(make_pipeline(codes(), calibrated), "multiclass")
    for member in reference.pipeline[-1].calibrated_classifiers_:
        for curve in member.calibrators:
            curve.y_thresholds_ = np.where(curve.X_thresholds_ < 0.5, 0.0, curve.y_thresholds_)
            curve._build_f(curve.X_thresholds_, curve.y_thresholds_)
    compiled, frame = compile_scorer(reference), only(rows(seed=4, n=300), FEW)
    expected = reference.score(frame)
    assert (expected == 1 / 3).all(axis=1).any()
    assert np.array_equal(compiled.score(frame), expected)
    assert compiled.answer(frame)[1].tolist() == reference.predict(frame).tolist()  # type: ignore[union-attr]


REFUSED = {
    "margins of several classes at a temperature": (
        lambda: make_pipeline(words(), CalibratedClassifierCV(MEMBERS["margins"](), method="temperature", cv=2)),
        "depends on the other rows",
    ),
    "shares that may all be 0 at a temperature": (
        lambda: make_pipeline(
            codes(),
            CalibratedClassifierCV(
                VotingClassifier([("rest", OneVsRestClassifier(MEMBERS["forest"]()))], voting="soft"),
                method="temperature",
                cv=2,
            ),
        ),
        "depends on the other rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_other_rows_is_refused_by_name(name: str) -> None:
    make, words_of_reason = REFUSED[name]
    with pytest.raises(NoRuleError, match=words_of_reason):
        compile_scorer(refer(make(), "multiclass"))


def test_a_fold_that_lacks_a_class_is_refused_by_name() -> None:
    reference = refer(make_pipeline(codes(), CalibratedClassifierCV(MEMBERS["forest"](), cv=2)), "multiclass")
    inside = reference.pipeline[-1].calibrated_classifiers_[0].estimator
    inside.classes_ = inside.classes_[:2]
    with pytest.raises(NoRuleError, match="lacks a class"):
        compile_scorer(reference)


def test_scores_of_32_bits_are_not_put_on_steps() -> None:
    reference = refer(make_pipeline(codes(), CalibratedClassifierCV(MEMBERS["forest"](), method="isotonic")), "binary")
    curve = reference.pipeline[-1].calibrated_classifiers_[0].calibrators[0]
    curve.X_thresholds_ = curve.X_thresholds_.astype(np.float32)
    with pytest.raises(NoRuleError, match="32 bits"):
        compile_scorer(reference)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_the_same_values_are_refused(method: str) -> None:
    inside = make_pipeline(StandardScaler(), LogisticRegression())
    reference = refer(CalibratedClassifierCV(inside, method=method, cv=2), "binary", WIDE)
    odd = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e200, 0.0, -0.0]
    frame = FeatureFrame({"distance": np.array(odd), "minute": np.full(len(odd), 600.0)})
    refuse_alike(reference, compile_scorer(reference), frame)


X = np.random.default_rng(5).normal(size=60).round(1)
CURVE = IsotonicRegression(out_of_bounds="clip").fit(
    X, (X + np.random.default_rng(6).normal(size=60) > 0).astype(float)
)
POINTS = CURVE.X_thresholds_.tolist()
NEAR = [beside for point in POINTS for beside in (np.nextafter(point, -9), point, np.nextafter(point, 9))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e300, 1e300), st.sampled_from(NEAR), st.floats(-3, 3)), min_size=1, max_size=80))
def test_an_isotonic_curve_gives_the_same_bits_between_points_and_at_them(values: list[float]) -> None:
    step = make_interpolation({"at": [POINTS], "values": [CURVE.y_thresholds_.tolist()]}, None)  # type: ignore[arg-type]
    assert step(np.array([values])).tobytes() == CURVE.predict(np.array(values)).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-800, 800), min_size=1, max_size=30), st.floats(-3, 3), st.floats(-5, 5))
def test_a_sigmoid_is_that_of_scipy_but_for_the_last_digit(values: list[float], slope: float, offset: float) -> None:
    step, scores = make_sigmoid({"slope": [slope], "offset": [offset]}, None), np.array(values)  # type: ignore[arg-type]
    expected = expit(-(slope * scores + offset))
    assert (np.abs(step(scores[None, :])[0] - expected) <= 4 * np.spacing(expected)).all()


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.3, 1e-300, 1.0]), min_size=9, max_size=9), min_size=1, max_size=6)
)
def test_shares_of_a_row_do_not_depend_on_the_others(table: list[list[float]]) -> None:
    step, block = make_shares({"empty": 1 / 9}, None), np.array(table).T  # type: ignore[arg-type]
    alone = np.concatenate([step(block[:, [k]]) for k in range(block.shape[1])], axis=1)
    assert step(block).tobytes() == alone.tobytes() or np.array_equal(step(block), alone)


def test_the_labels_of_two_classes_may_be_anything() -> None:
    labels = np.where(LATE, "late", "on time").astype(object)
    calibrated = CalibratedClassifierCV(MEMBERS["margins"](), method="temperature", cv=2)
    reference = refer(make_pipeline(words(), calibrated), "multiclass", labels=labels)
    frame = only(FRAME.take(range(50)), FEW)
    assert np.allclose(compile_scorer(reference).score(frame), reference.score(frame), rtol=0, atol=1e-14)
    assert list(frame_to_pandas(frame, FEW).columns) == list(FEW.names)
