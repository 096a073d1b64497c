"""Pipelines to be held against themselves: scikit-learn's list, and lists of transformers, types and wrappers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from sklearn import (
    compose,
    decomposition,
    ensemble,
    feature_selection,
    impute,
    kernel_approximation,
    linear_model,
    multiclass,
    preprocessing,
    random_projection,
    svm,
    tree,
)
from sklearn import model_selection as search
from sklearn.calibration import CalibratedClassifierCV
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction import text
from sklearn.metrics import fbeta_score, make_scorer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import all_estimators

Case = Callable[[], tuple[Any, Any, Any]]  # an unfitted pipeline, X, y

LOGISTIC, RIDGE = linear_model.LogisticRegression, linear_model.Ridge
SEVERAL_OUTPUTS = ("MultiTask", "MultiOutput", "Chain", "CCA", "PLS")
NEEDS = {
    "OneVsRestClassifier": [LOGISTIC()],
    "OneVsOneClassifier": [LOGISTIC()],
    "OutputCodeClassifier": [LOGISTIC()],
    "FixedThresholdClassifier": [LOGISTIC()],
    "TunedThresholdClassifierCV": [LOGISTIC()],
    "SelfTrainingClassifier": [LOGISTIC()],
    "StackingClassifier": [[("a", LOGISTIC()), ("b", tree.DecisionTreeClassifier(max_depth=3, random_state=0))]],
    "VotingClassifier": [[("a", LOGISTIC()), ("b", tree.DecisionTreeClassifier(max_depth=3, random_state=0))]],
    "StackingRegressor": [[("a", RIDGE()), ("b", tree.DecisionTreeRegressor(max_depth=3, random_state=0))]],
    "VotingRegressor": [[("a", RIDGE()), ("b", tree.DecisionTreeRegressor(max_depth=3, random_state=0))]],
    "RFE": [LOGISTIC()],
    "RFECV": [LOGISTIC()],
    "GridSearchCV": [LOGISTIC(), {"C": [0.1, 1.0]}],
    "RandomizedSearchCV": [LOGISTIC(), {"C": [0.1, 1.0]}],
    "HalvingGridSearchCV": [LOGISTIC(), {"C": [0.1, 1.0]}],
    "HalvingRandomSearchCV": [LOGISTIC(), {"C": [0.1, 1.0]}],
}


def numbers(rows: int = 160) -> pd.DataFrame:
    """Three columns of numbers that no estimator refuses for their sign."""
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 5, rows)
    return pd.DataFrame({"a": generator.exponential(size=rows), "b": generator.uniform(0, 4, rows), "n": counts})


def made(name: str, kind: type) -> Any:
    """Make an estimator with a seed, and with what it needs."""
    found = kind(*NEEDS.get(name, []))
    seeds = {"random_state": 0} if "random_state" in found.get_params() else {}
    many = {"n_estimators": 12} if "n_estimators" in found.get_params() else {}
    return found.set_params(**seeds, **many)


def listed() -> Iterator[tuple[str, Case]]:
    """Give scikit-learn's classifiers, on two and on three classes, and its regressors."""
    rows = numbers()
    score = rows.a + rows.n - 0.5 * rows.b + np.random.default_rng(1).normal(size=len(rows))
    answers = {
        "two": (score > score.median()).astype(int).rename("late"),
        "three": pd.cut(score, 3, labels=False).map({0: "low", 1: "middle", 2: "top"}).rename("late"),
        "value": (score - score.min() + 1.0).rename("late"),
    }
    for kind, wanted in (("classifier", ("two", "three")), ("regressor", ("value",))):
        for name, made_of in all_estimators(kind):
            if any(word in name for word in SEVERAL_OUTPUTS):
                continue
            for answer in wanted:
                yield f"{name}, {answer}", lambda n=name, m=made_of, a=answer: (made(n, m), rows, answers[a])


def words(rows: int = 160, *, missing: Any = "no") -> np.ndarray:
    """Words of three kinds, with one kind of missing in every fifth row."""
    found = np.random.default_rng(2).choice(np.array(["x", "y", "zz"], dtype=object), rows)
    if not isinstance(missing, str):
        found[::5] = missing
    return found


def transformed() -> Iterator[tuple[str, Case]]:
    """Give transformers of numbers, of numbers with holes, and of words, before a line."""
    pre, holes = preprocessing, impute
    of_numbers = {
        "StandardScaler": pre.StandardScaler(),
        "RobustScaler": pre.RobustScaler(),
        "MinMaxScaler": pre.MinMaxScaler(),
        "MinMaxScaler clip": pre.MinMaxScaler(clip=True),
        "MaxAbsScaler": pre.MaxAbsScaler(),
        "Normalizer": pre.Normalizer(),
        "Binarizer": pre.Binarizer(),
        "PowerTransformer": pre.PowerTransformer(),
        "QuantileTransformer": pre.QuantileTransformer(n_quantiles=20),
        "SplineTransformer": pre.SplineTransformer(),
        "PolynomialFeatures": pre.PolynomialFeatures(),
        "log1p": pre.FunctionTransformer(np.log1p),
        "KBinsDiscretizer": pre.KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"),
        "PCA": decomposition.PCA(2),
        "TruncatedSVD": decomposition.TruncatedSVD(2, random_state=0),
        "FastICA": decomposition.FastICA(2, random_state=0),
        "NMF": decomposition.NMF(2, random_state=0),
        "SelectKBest": feature_selection.SelectKBest(k=2),
        "VarianceThreshold": feature_selection.VarianceThreshold(),
        "SelectFromModel": feature_selection.SelectFromModel(LOGISTIC()),
        "RFE": feature_selection.RFE(LOGISTIC()),
        "RBFSampler": kernel_approximation.RBFSampler(random_state=0),
        "Nystroem": kernel_approximation.Nystroem(n_components=10, random_state=0),
        "GaussianRandomProjection": random_projection.GaussianRandomProjection(2, random_state=0),
        "RandomTreesEmbedding": ensemble.RandomTreesEmbedding(5, random_state=0),
        "FeatureUnion": make_union(pre.StandardScaler(), decomposition.PCA(2)),
    }
    with_holes = {
        **{f"SimpleImputer {how}": holes.SimpleImputer(strategy=how) for how in ("mean", "median", "most_frequent")},
        "SimpleImputer constant": holes.SimpleImputer(strategy="constant", fill_value=-1),
        "SimpleImputer indicator": holes.SimpleImputer(add_indicator=True),
        "KNNImputer": holes.KNNImputer(),
        "IterativeImputer": holes.IterativeImputer(random_state=0, max_iter=3),
    }
    label = (numbers().a > 1).astype(int).rename("late")
    holed = numbers().mask(np.arange(480).reshape(160, 3) % 7 == 0)
    for name, step in of_numbers.items():
        yield name, lambda s=step: (make_pipeline(s, LOGISTIC()), numbers(), label)
    for name, step in with_holes.items():
        yield name, lambda s=step: (make_pipeline(s, LOGISTIC()), holed, label)
    yield from _of_words()


def _of_words() -> Iterator[tuple[str, Case]]:
    hot, ordinal = preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder
    of_words = {
        "OneHotEncoder": hot(),
        "OneHotEncoder ignore": hot(handle_unknown="ignore"),
        "OneHotEncoder drop": hot(drop="first"),
        "OneHotEncoder infrequent": hot(handle_unknown="infrequent_if_exist", min_frequency=60),
        "OneHotEncoder dense": hot(sparse_output=False),
        "OrdinalEncoder": ordinal(),
        "TargetEncoder": preprocessing.TargetEncoder(random_state=0),
        "OrdinalEncoder unknown": ordinal(handle_unknown="use_encoded_value", unknown_value=-1),
    }
    of_texts = {
        "TfidfVectorizer": text.TfidfVectorizer(token_pattern=r"\w+"),
        "CountVectorizer": text.CountVectorizer(token_pattern=r"\w+"),
        "HashingVectorizer": text.HashingVectorizer(n_features=16),
        "TfidfVectorizer chars": text.TfidfVectorizer(analyzer="char"),
    }
    rows = numbers().assign(t=words())
    label = ((rows.t == "x") | (rows.a > 1.5)).astype(int).rename("late")
    for name, step in of_words.items():
        yield name, lambda s=step: (_columns(s, ["t"]), rows, label)
    for name, step in of_texts.items():
        yield name, lambda s=step: (_columns(s, "t"), rows, label)
        yield f"{name} of texts", lambda s=step: (make_pipeline(s, LOGISTIC()), rows.t, label)
    log = preprocessing.FunctionTransformer(np.log1p, feature_names_out="one-to-one")
    chosen = compose.make_column_selector(dtype_include=["number"])
    first = compose.make_column_transformer((log, chosen), (hot(handle_unknown="ignore"), ["t"]))
    yield "make_column_selector", lambda: (make_pipeline(first, LOGISTIC()), rows, label)


def _columns(step: Any, columns: Any) -> Any:
    first = compose.make_column_transformer((step, columns), remainder="passthrough")
    return make_pipeline(first, LOGISTIC())


def typed() -> Iterator[tuple[str, Case]]:
    """Give columns of each type, words with each kind of missing, and each container."""
    rows = numbers()
    label = (rows.a > 1).astype(int).rename("late")
    lacking = {"none at all": "no", "None": None, "NaN": np.nan, "pd.NA": pd.NA}
    of_words = {f"object, {name}": pd.Series(words(missing=value), dtype=object) for name, value in lacking.items()}
    of_words |= {
        "string": pd.Series(words(), dtype="string"),
        "string, pd.NA": pd.Series(words(missing=None), dtype="string"),
    }
    of_words |= {
        "category": pd.Series(pd.Categorical(words())),
        "category, NaN": pd.Series(pd.Categorical(words(missing=None))),
    }
    of_words |= {
        "category, ordered": pd.Series(pd.Categorical(words(), ordered=True)),
        "str": pd.Series(words(), dtype="str"),
    }
    encoders = {
        "one-hot": preprocessing.OneHotEncoder(handle_unknown="ignore"),
        "strict": preprocessing.OneHotEncoder(),
        "ordinal": preprocessing.OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        ),
    }
    for name, column in of_words.items():
        for how, encoder in encoders.items():
            said = (label | (column == "x").fillna(False).astype(int)).rename("late")
            yield f"{name}, {how}", lambda c=column, e=encoder, s=said: (_columns(e, ["t"]), rows.assign(t=c), s)
    for kind in (
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "bool",
    ):
        yield kind, lambda k=kind: (LOGISTIC(), rows.assign(n=rows.n.astype(k)), label)
    for kind in ("Int8", "Int64", "UInt8", "Float32", "Float64", "boolean"):
        cells = (rows.n > 2 if kind == "boolean" else rows.n).astype(kind)
        holed = cells.mask(np.arange(160) % 6 == 0)
        yield kind, lambda c=cells: (LOGISTIC(), rows.assign(n=c), label)
        filled = make_pipeline(impute.SimpleImputer(), LOGISTIC())
        yield f"{kind}, pd.NA", lambda c=holed, f=filled: (f, rows.assign(n=c), label)
    yield "int64 near 2**60", lambda: (tree.DecisionTreeClassifier(max_depth=3), rows.assign(n=rows.n + 2**60), label)
    yield from _contained(rows, label)


def _contained(rows: pd.DataFrame, label: pd.Series) -> Iterator[tuple[str, Case]]:
    hot = _columns(preprocessing.OneHotEncoder(handle_unknown="ignore"), ["t"])
    boosted = ensemble.HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype")
    coded, holed = rows.assign(t=pd.Categorical(words())), rows.assign(t=words(missing=None))
    nulls = pl.from_pandas(holed)
    yield "polars", lambda: (LOGISTIC(), pl.from_pandas(rows), label)
    yield "polars, words", lambda: (hot, pl.from_pandas(rows.assign(t=words())), label)
    yield "polars, words with null", lambda: (hot, nulls, (label | (holed.t == "x").astype(int)).rename("late"))
    yield "array", lambda: (LOGISTIC(), rows.to_numpy(), label.to_numpy())
    yield "array of float32", lambda: (LOGISTIC(), rows.to_numpy(dtype=np.float32), label.to_numpy())
    yield "array of int8", lambda: (LOGISTIC(), (rows * 10).to_numpy(dtype=np.int8), label.to_numpy())
    yield "lists", lambda: (LOGISTIC(), rows.to_numpy().tolist(), label.tolist())
    yield "boosting by category", lambda: (boosted, coded, label)
    missing = coded.assign(t=pd.Categorical(words(missing=None)), a=rows.a.mask(rows.a > 2))
    yield "boosting by category, with holes", lambda: (boosted, missing, label)


def wrapped() -> Iterator[tuple[str, Case]]:
    """Give wrappers, and rules of decision."""
    rows = numbers()
    noise = np.random.default_rng(3).normal(size=160)
    label, value = (rows.a + noise > 1).astype(int).rename("late"), (rows.a + 2 + noise.clip(-1)).rename("late")
    three = pd.Series(np.digitize(rows.a + noise, [0.5, 1.5])).map({0: "a", 1: "b", 2: "c"}).rename("late")
    forest, tuned = ensemble.RandomForestClassifier(20, random_state=0), search.TunedThresholdClassifierCV
    first = make_scorer(fbeta_score, beta=2, pos_label=0)
    yield "Calibrated sigmoid", lambda: (CalibratedClassifierCV(LOGISTIC()), rows, label)
    yield "Calibrated isotonic", lambda: (CalibratedClassifierCV(LOGISTIC(), method="isotonic"), rows, label)
    yield "Calibrated SVC", lambda: (CalibratedClassifierCV(svm.LinearSVC()), rows, three)
    yield "tuned for the first class", lambda: (tuned(LOGISTIC(), scoring=first), rows, label)
    yield "fixed at 0.3", lambda: (search.FixedThresholdClassifier(LOGISTIC(), threshold=0.3), rows, label)
    yield "SelfTraining", lambda: (SelfTrainingClassifier(LOGISTIC()), rows, label)
    yield "SVC ovo", lambda: (svm.SVC(decision_function_shape="ovo"), rows, three)
    yield "SVC probability-free", lambda: (svm.SVC(), rows, label)
    yield "forest of 20", lambda: (forest, rows, label)
    yield "forest, threads", lambda: (ensemble.RandomForestClassifier(20, n_jobs=2, random_state=0), rows, three)
    yield "bagging", lambda: (ensemble.BaggingClassifier(LOGISTIC(), 5, random_state=0), rows, label)
    yield "one against rest", lambda: (multiclass.OneVsRestClassifier(LOGISTIC()), rows, three)
    target = compose.TransformedTargetRegressor(RIDGE(), func=np.log1p, inverse_func=np.expm1)
    yield "log of the target", lambda: (target, rows, value)
    yield (
        "scaled target",
        lambda: (compose.TransformedTargetRegressor(RIDGE(), transformer=preprocessing.StandardScaler()), rows, value),
    )
    grid = search.GridSearchCV(make_pipeline(preprocessing.StandardScaler(), RIDGE()), {"ridge__alpha": [0.1, 1.0]})
    yield "search of a pipeline", lambda: (grid, rows, value)
    yield "pipeline that ends in a search", lambda: (make_pipeline(preprocessing.StandardScaler(), grid), rows, value)
    yield "targets of 1e9", lambda: (linear_model.LinearRegression(), rows, (1e9 + 1e8 * rows.a).rename("late"))
    yield "targets of 1e-9", lambda: (linear_model.LinearRegression(), rows, (1e-9 * rows.a).rename("late"))
    yield "labels of text", lambda: (LOGISTIC(), rows, label.map({0: "no", 1: "yes"}))
    yield "labels true and false", lambda: (LOGISTIC(), rows, label.astype(bool))
    yield "labels 1 and 2", lambda: (LOGISTIC(), rows, label + 1)
    yield "labels 0.0 and 1.0", lambda: (LOGISTIC(), rows, label.astype(float))


def all_cases() -> dict[str, Case]:
    """Give all cases by name."""
    lists = {"estimator": listed(), "transformer": transformed(), "type": typed(), "wrapper": wrapped()}
    return {f"{kind}: {name}": case for kind, cases in lists.items() for name, case in cases}
