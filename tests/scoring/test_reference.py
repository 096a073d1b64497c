"""The reference scorer gives what the pipeline gives, whatever the pipeline; its errors name the row."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, SplineTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError, UserCodeError, VersionError
from mlworkbench.scoring.artifacts.skops_file import (
    canonical_digest,
    dump_bytes,
    dump_pipeline,
    load_pipeline,
    refuse_untrusted,
    single_threaded,
)
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes, read_tuned_rule, response_method

RANDOM = np.random.default_rng(0)
N = 80
CARRIERS = RANDOM.choice(np.array(["AA", "UA", "DL"], dtype=object), N)
FRAME = FeatureFrame({"distance": RANDOM.uniform(100, 2500, N), "wind": RANDOM.normal(10, 4, N), "carrier": CARRIERS})
CONTRACT = Contract((Column("distance", "number"), Column("wind", "number"), Column("carrier", "category")))
TWO = (FRAME.columns["distance"] > 1200).astype(int)
SPECIES = np.array(["a", "b", "c"])[np.digitize(FRAME.columns["distance"], [900, 1700])]
PRICE = FRAME.columns["distance"] * 0.3 + FRAME.columns["wind"]


def table() -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_column_transformer(
        (numbers, ["distance", "wind"]), (OneHotEncoder(handle_unknown="ignore"), ["carrier"])
    )


CLASSIFIERS = [
    LogisticRegression(),
    LinearSVC(),
    SVC(),
    SVC(probability=False, decision_function_shape="ovr"),
    SGDClassifier(random_state=0),
    GaussianNB(),
    KNeighborsClassifier(),
    MLPClassifier((4,), max_iter=30, random_state=0),
    RandomForestClassifier(20, n_jobs=2, random_state=0),
    GradientBoostingClassifier(n_estimators=5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5, random_state=0),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
    VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
]
REGRESSORS = [
    LinearRegression(),
    Ridge(),
    RandomForestRegressor(10, n_jobs=2, random_state=0),
    HistGradientBoostingRegressor(max_iter=5, random_state=0),
    DecisionTreeRegressor(random_state=0),
    GaussianProcessRegressor(),
    TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    make_pipeline(SplineTransformer(), Ridge()),
    make_pipeline(KNNImputer(), Ridge()),
]


def fitted(estimator: Any, label: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(table(), clone(estimator)).fit(frame_to_pandas(FRAME, CONTRACT), label)


def tried(estimators: list[Any]) -> list[Any]:
    return [pytest.param(e, id=f"{k}-{type(e).__name__}") for k, e in enumerate(estimators)]


def stored(pipeline: Any, tmp_path: Path, **given: Any) -> Any:
    dump_pipeline(pipeline, tmp_path / "pipeline.skops")
    return load_pipeline(tmp_path / "pipeline.skops", **given)


@pytest.mark.parametrize("estimator", tried(CLASSIFIERS))
@pytest.mark.parametrize("label", [TWO, SPECIES], ids=["binary", "multiclass"])
@pytest.mark.filterwarnings("ignore")
def test_a_stored_classifier_scores_as_the_fitted_one_row_by_row(
    estimator: Any, label: np.ndarray, tmp_path: Path
) -> None:
    pipeline = fitted(estimator, label)
    task = "binary" if label is TWO else "multiclass"
    scorer = ReferenceScorer(stored(pipeline, tmp_path), CONTRACT, task, list_classes(pipeline))
    scores = scorer.score(FRAME)
    expected = getattr(pipeline, response_method(pipeline, task))(frame_to_pandas(FRAME, CONTRACT))
    if task == "binary" and expected.ndim == 2:
        expected = expected[:, 1]
    assert scores.dtype == np.float64 and scores.shape == ((N,) if task == "binary" else (N, 3))
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    singles = np.concatenate([scorer.score(FRAME.take([k])) for k in range(12)])
    np.testing.assert_allclose(singles, scores[:12], rtol=1e-10, atol=1e-12)
    assert canonical_digest(pipeline) == canonical_digest(scorer.pipeline)


@pytest.mark.parametrize("estimator", tried(REGRESSORS))
def test_a_stored_regressor_scores_as_the_fitted_one_row_by_row(estimator: Any, tmp_path: Path) -> None:
    pipeline = fitted(estimator, PRICE)
    scorer = ReferenceScorer(stored(pipeline, tmp_path), CONTRACT, "regression", [])
    scores = scorer.score(FRAME)
    np.testing.assert_allclose(scores, pipeline.predict(frame_to_pandas(FRAME, CONTRACT)), rtol=1e-12)
    singles = np.concatenate([scorer.score(FRAME.take([k])) for k in range(12)])
    np.testing.assert_allclose(singles, scores[:12], rtol=1e-9)


def test_an_empty_frame_has_no_scores() -> None:
    pipeline = fitted(LogisticRegression(), SPECIES)
    none = FRAME.take([])
    assert ReferenceScorer(pipeline, CONTRACT, "multiclass", ["a", "b", "c"]).score(none).shape == (0, 3)
    assert ReferenceScorer(pipeline, CONTRACT, "binary", [0, 1]).score(none).shape == (0,)
    assert len(ReferenceScorer(pipeline, CONTRACT, "binary", [0, 1]).predict(none)) == 0


def test_classes_may_be_declared_in_another_order() -> None:
    pipeline = fitted(LogisticRegression(), SPECIES)
    forward = ReferenceScorer(pipeline, CONTRACT, "multiclass", ["a", "b", "c"]).score(FRAME)
    backward = ReferenceScorer(pipeline, CONTRACT, "multiclass", ["c", "b", "a"]).score(FRAME)
    assert (forward[:, ::-1] == backward).all()


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC()], ids=["probability", "margin"])
def test_the_first_class_can_be_positive(estimator: Any) -> None:
    pipeline = fitted(estimator, TWO)
    second = ReferenceScorer(pipeline, CONTRACT, "binary", [0, 1]).score(FRAME)
    first = ReferenceScorer(pipeline, CONTRACT, "binary", [0, 1], positive=0).score(FRAME)
    np.testing.assert_allclose(first, 1 - second if isinstance(estimator, LogisticRegression) else -second, atol=1e-12)


def test_a_tuned_threshold_is_read_from_the_pipeline() -> None:
    tuned = fitted(TunedThresholdClassifierCV(LogisticRegression(), cv=3), TWO)
    assert read_tuned_rule(tuned) == (tuned[-1].best_threshold_, None)
    fixed = fitted(
        FixedThresholdClassifier(LogisticRegression(), threshold=0.2, response_method="decision_function"), TWO
    )
    assert read_tuned_rule(fixed) == (0.2, None) and response_method(fixed, "binary") == "decision_function"
    assert read_tuned_rule(fitted(LogisticRegression(), TWO)) is None


def test_a_classifier_without_scores_is_refused_with_the_way_out() -> None:
    from sklearn.linear_model import Perceptron
    from sklearn.svm import LinearSVC as Margin

    assert response_method(fitted(Perceptron(), TWO), "binary") == "decision_function"
    hard = fitted(VotingClassifier([("a", Margin()), ("b", LogisticRegression())], voting="hard"), TWO)
    with pytest.raises(ScoringError, match="wrap it in CalibratedClassifierCV"):
        response_method(hard, "binary")


def test_pairwise_margins_become_class_scores_and_several_outputs_are_refused() -> None:
    four = np.array(["a", "b", "c", "d"])[np.arange(N) % 4]
    pairs = fitted(SVC(decision_function_shape="ovo"), four)
    assert ReferenceScorer(pairs, CONTRACT, "multiclass", ["a", "b", "c", "d"]).score(FRAME).shape == (len(FRAME), 4)
    two = fitted(LinearRegression(), np.column_stack([PRICE, PRICE]))
    with pytest.raises(ScoringError, match="one model for each output"):
        ReferenceScorer(two, CONTRACT, "regression", []).score(FRAME)


@pytest.mark.filterwarnings("ignore")
def test_a_score_that_is_not_finite_is_refused_by_row() -> None:
    line = make_pipeline(table(), TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.exp))
    line.fit(frame_to_pandas(FRAME, CONTRACT), PRICE + 100)
    far = FeatureFrame({**FRAME.columns, "distance": np.where(np.arange(N) == 5, 1e300, FRAME.columns["distance"])})
    with np.errstate(all="ignore"), pytest.raises(ScoringError, match="score of row 5 is not finite"):
        ReferenceScorer(line, CONTRACT, "regression", []).score(far)


# --- pandas dtypes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (
            pd.Series(["a", None, "b"], dtype="category"),
            Column("x", "category", nullable=True, categories=("a", "b"), dtype="category"),
        ),
        (pd.Series(["a", None, "b"], dtype="string"), Column("x", "text", nullable=True, dtype="string")),
        (pd.Series(["a", np.nan, "b"], dtype=object), Column("x", "text", nullable=True)),
        (pd.Series(["a", None, "b"], dtype=object), Column("x", "text", nullable=True, missing="none")),
        (pd.Series(["a", pd.NA, "b"], dtype=object), Column("x", "text", nullable=True, dtype="object", missing="na")),
        (
            pd.Series(["a", None, "b"], dtype=pd.StringDtype(na_value=np.nan)),
            Column("x", "text", nullable=True, dtype="str"),
        ),
        (
            pd.Series([1, None, 3], dtype=object),
            Column("x", "number", nullable=True, dtype="object[int]", missing="none"),
        ),
        (pd.Series([1, None, 3], dtype="Int64"), Column("x", "number", nullable=True, dtype="Int64")),
        (pd.Series([1.5, None, 3], dtype="float32"), Column("x", "number", nullable=True, dtype="float32")),
        (pd.Series([1, 2, 3], dtype="int8"), Column("x", "integer", dtype="int8")),
        (pd.Series([True, False, True]), Column("x", "boolean", dtype="bool")),
        (pd.Series([True, False, True], dtype="boolean"), Column("x", "boolean", dtype="boolean")),
    ],
)
def test_the_dtype_of_the_training_frame_is_restored(values: pd.Series, column: Column) -> None:
    if column.kind in ("category", "text"):
        plain = np.array([None if pd.isna(v) else str(v) for v in values], dtype=object)
    else:
        kinds = {"number": np.float64, "integer": np.int64, "boolean": np.bool_}
        plain = (
            values.to_numpy(dtype=kinds[column.kind], na_value=np.nan)
            if values.isna().any()
            else values.to_numpy(kinds[column.kind])
        )
    restored = frame_to_pandas(FeatureFrame({"x": plain}), Contract((column,)))["x"]
    pd.testing.assert_series_equal(restored, values.rename("x"))


def test_an_unseen_category_comes_after_the_known_ones_and_is_not_missing() -> None:
    column = Column("x", "category", nullable=True, categories=("a", "b"), dtype="category")
    values = np.array(["b", "z", None, "y", "z"], dtype=object)
    restored = frame_to_pandas(FeatureFrame({"x": values}), Contract((column,)))["x"]
    assert restored.cat.categories.tolist() == ["a", "b", "z", "y"]
    assert restored.cat.codes.tolist() == [1, 2, -1, 3, 2]


def test_a_contract_of_before_is_restored_as_before() -> None:
    columns = (Column("t", "text", nullable=True), Column("n", "number", nullable=True, dtype="object"))
    frame = FeatureFrame({"t": np.array(["a", None], dtype=object), "n": np.array([1.0, np.nan])})
    restored = frame_to_pandas(frame, Contract(columns))
    assert restored["t"].tolist()[1] is not None
    assert restored["n"].dtype == np.float64


def test_a_cast_that_would_wrap_is_refused() -> None:
    contract = Contract((Column("k", "integer", dtype="int8"),))
    with pytest.raises(ScoringError, match="not outside the type int8 of the column, from -128 to 127; got 300"):
        frame_to_pandas(FeatureFrame({"k": np.array([300])}), contract)


def test_boosting_on_pandas_categories_scores_as_fitted(tmp_path: Path) -> None:
    contract = Contract(
        (Column("distance", "number"), Column("carrier", "category", categories=("AA", "DL", "UA"), dtype="category"))
    )
    frame = FeatureFrame({name: FRAME.columns[name] for name in contract.names})
    given = frame_to_pandas(frame, contract)
    label = (FRAME.columns["carrier"] == "UA").astype(int)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype", random_state=0).fit(
        given, label
    )
    scorer = ReferenceScorer(stored(model, tmp_path), contract, "binary", [0, 1])
    assert (scorer.score(frame) == model.predict_proba(given)[:, 1]).all()
    assert scorer.score(frame)[label == 1].min() > 0.5


def test_arrays_text_and_vectors_can_be_the_input() -> None:
    numbers = Contract((Column("distance", "number"), Column("wind", "number")))
    plain = LinearRegression().fit(np.column_stack([FRAME.columns["distance"], FRAME.columns["wind"]]), PRICE)
    scorer = ReferenceScorer(plain, numbers, "regression", [], input="array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(scorer.score(FRAME), PRICE)
    text = Contract((Column("carrier", "text"),))
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(list(CARRIERS), TWO)
    assert ReferenceScorer(words, text, "binary", [0, 1], input="series").score(FRAME).shape == (N,)
    image = Contract((Column("image", "vector"),))
    pixels = FeatureFrame({"image": RANDOM.normal(size=(N, 3))})
    assert list(frame_to_pandas(pixels, image)) == ["image_0", "image_1", "image_2"]


# --- errors ------------------------------------------------------------------------------------------------------


def test_the_row_that_the_pipeline_refuses_is_named() -> None:
    plain = LinearRegression().fit(frame_to_pandas(FRAME, CONTRACT)[["distance"]], PRICE)
    distance = FRAME.columns["distance"].copy()
    distance[[37, 60]] = np.nan
    scorer = ReferenceScorer(plain, CONTRACT.select(["distance"]), "regression", [])
    with pytest.raises(ScoringError, match="refuses row 37: ValueError: Input X contains NaN") as caught:
        scorer.score(FeatureFrame({"distance": distance}))
    assert "\n" not in str(caught.value)


def test_a_failure_that_needs_several_rows_says_so() -> None:
    def together(X: Any) -> Any:
        if len(X) > N // 2:
            raise RuntimeError("too many")
        return X[["distance"]]

    line = make_pipeline(FunctionTransformer(together), LinearRegression())
    line.fit(frame_to_pandas(FRAME.take(range(10)), CONTRACT), PRICE[:10])
    with pytest.raises(
        UserCodeError, match=r"test_reference\.py, line \d+, in together: all rows together: RuntimeError"
    ):
        ReferenceScorer(line, CONTRACT, "regression", []).score(FRAME)


# --- the file ----------------------------------------------------------------------------------------------------

STEPS = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class Shorten(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self
    def transform(self, X):
        return np.asarray(X, dtype=float)[:, :1]

def logs(X):
    return np.log1p(np.asarray(X, dtype=float))
"""


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "steps_of_mine.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "steps_of_mine", raising=False)
    import steps_of_mine

    return steps_of_mine


def test_types_of_ones_own_load_only_when_named(steps: Any, tmp_path: Path) -> None:
    line = make_pipeline(FunctionTransformer(steps.logs), steps.Shorten(), LinearRegression())
    line.fit(FRAME.columns["distance"].reshape(-1, 1), PRICE)
    with pytest.raises(VersionError) as caught:
        stored(line, tmp_path)
    wanted = "steps_of_mine.Shorten, steps_of_mine.logs"
    assert f"write in settings.ini: [trust] types = {wanted}" in str(caught.value)
    again = stored(line, tmp_path, trusted=wanted.split(", "))
    assert (again.predict([[500.0]]) == line.predict([[500.0]])).all()


def test_the_line_to_add_keeps_what_is_trusted_already() -> None:
    with pytest.raises(VersionError, match=r"types = a\.A, b\.B$"):
        refuse_untrusted(["b.B"], trusted=["a.A"])


def test_a_type_of_the_notebook_is_refused_with_the_way_out() -> None:
    with pytest.raises(VersionError, match=r"__main__\.f lives in a notebook or script; move it to a module"):
        refuse_untrusted(["__main__.f", "b.B"], trusted=["__main__.f"][:0])


@pytest.mark.parametrize("wrong", [lambda X: X, "nested"], ids=["lambda", "nested"])
def test_a_function_without_a_name_to_import_is_refused_when_written(wrong: Any) -> None:
    def nested(X: Any) -> Any:
        return X

    line = make_pipeline(FunctionTransformer(nested if wrong == "nested" else wrong), LinearRegression())
    with pytest.raises(ScoringError) as raised:
        dump_bytes(line.fit(FRAME.columns["distance"].reshape(-1, 1), PRICE))
    assert raised.value.code == "scoring.not_importable"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipeline.skops").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(VersionError, match=r"pipeline\.skops, archive: a skops file.*write it anew"):
        load_pipeline(tmp_path / "pipeline.skops")


def test_every_n_jobs_becomes_one_at_any_depth_and_the_original_stays() -> None:
    forest = RandomForestClassifier(3, n_jobs=2, random_state=0)
    deep = VotingClassifier([("f", make_pipeline(table(), forest))], n_jobs=2)
    deep.fit(frame_to_pandas(FRAME, CONTRACT), TWO)
    single = single_threaded(deep)
    assert (single.n_jobs, single.estimators_[0][-1].n_jobs, single.estimators[0][1][-1].n_jobs) == (1, 1, 1)
    assert deep.n_jobs == deep.estimators_[0][-1].n_jobs == 2


def test_the_digest_sees_every_number_and_no_address() -> None:
    first, second = fitted(Ridge(), PRICE), fitted(Ridge(), PRICE)
    assert dump_bytes(first) != dump_bytes(second)
    assert canonical_digest(first) == canonical_digest(second)
    second[-1].coef_[0] = np.nextafter(second[-1].coef_[0], np.inf)
    assert canonical_digest(first) != canonical_digest(second)


def test_the_digest_sees_the_number_of_jobs_no_more_than_the_scores_do() -> None:
    one, two = (fitted(RandomForestRegressor(5, n_jobs=n, random_state=0), PRICE) for n in (1, 2))
    assert canonical_digest(one) == canonical_digest(two)


def test_an_outlier_detector_is_stored_too(tmp_path: Path) -> None:
    model = IsolationForest(n_estimators=5, random_state=0).fit(FRAME.columns["distance"].reshape(-1, 1))
    assert (stored(model, tmp_path).predict([[500.0]]) == model.predict([[500.0]])).all()


def test_ordinal_codes_of_missing_text_are_those_of_pandas() -> None:
    contract = Contract((Column("carrier", "category", nullable=True),))
    given = pd.DataFrame({"carrier": ["AA", np.nan, "UA"]})
    model = make_pipeline(OrdinalEncoder(encoded_missing_value=-1), LinearRegression()).fit(given, [1.0, 2.0, 3.0])
    frame = FeatureFrame({"carrier": np.array(["AA", None, "UA"], dtype=object)})
    scores = ReferenceScorer(model, contract, "regression", []).score(frame)
    np.testing.assert_allclose(scores, model.predict(given))


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "numpy.load", "pandas.read_pickle"])
def test_nothing_that_runs_code_is_ever_advised(name: str) -> None:
    with pytest.raises(VersionError, match=r"nothing that runs code or touches files; got") as caught:
        refuse_untrusted([name, "mine.Clip"])
    assert "[trust]" not in str(caught.value)
