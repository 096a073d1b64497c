"""The ordinary pipelines of the table, and the rows that they are fitted on and asked about: flights of 2013."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.examples.flights_tables import raw_table
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

WORDS = ["carrier", "origin", "dest", "engine"]
NUMBERS = ["distance", "departure", "temp", "wind_speed", "wind_gust", "pressure", "year"]
POSITIVE = ["distance", "departure"]


@cache
def flights() -> pd.DataFrame:
    """Flights with the weather of their hour and their plane, in the order of the year."""
    rows = raw_table("flights")[::7].to_pandas()
    hours = raw_table("weather").to_pandas()[["origin", "time_hour", "temp", "wind_speed", "wind_gust", "pressure"]]
    planes = raw_table("planes").to_pandas()[["tailnum", "year", "engine", "manufacturer", "model"]]
    rows = rows.drop(columns="year").merge(hours.drop_duplicates(["origin", "time_hour"]), how="left")
    rows = rows.merge(planes, how="left", on="tailnum").dropna(subset=["arr_delay"]).sort_values("time_hour")
    rows["departure"] = rows.hour * 60.0 + rows.minute
    rows["distance"] = rows.distance.astype(float)
    rows["plane"] = (rows.manufacturer.fillna("") + " " + rows.model.fillna("")).str.strip()
    rows["engine"] = rows.engine.astype(object).where(rows.engine.notna(), None)
    return rows.reset_index(drop=True)


CONTRACT = Contract(
    (
        *(Column(name, "category", nullable=name == "engine") for name in WORDS),
        *(Column(name, "number", nullable=name not in POSITIVE) for name in NUMBERS),
        Column("plane", "text"),
    )
)


def take(rows: pd.DataFrame, count: int) -> tuple[FeatureFrame, np.ndarray]:
    """So many rows, evenly spaced; with their delays in minutes."""
    some = rows.iloc[np.linspace(0, len(rows) - 1, count).astype(int)]
    columns = {c.name: some[c.name].to_numpy(dtype=float if c.kind == "number" else object) for c in CONTRACT.columns}
    return FeatureFrame(columns), some.arr_delay.to_numpy(dtype=float)


def training(count: int) -> tuple[FeatureFrame, np.ndarray]:
    """Flights of the first half of the year."""
    return take(flights()[lambda rows: rows.month <= 6], count)


def unseen(count: int) -> FeatureFrame:
    """Flights of the second half: with airports nobody flew to before, and missing values wherever they may be."""
    rows = flights()[lambda rows: rows.month > 6]
    new = ~rows.dest.isin(set(training(3_000)[0].columns["dest"]))
    frame, _ = take(pd.concat([rows[new], rows]), count)
    for place, column in enumerate(CONTRACT.columns):
        if column.nullable:
            frame.columns[column.name][place::97] = None if column.kind == "category" else np.nan
    frame.columns["carrier"][::211] = "ZZ"
    return frame


def label(delays: np.ndarray, task: str) -> np.ndarray:
    if task == "binary":
        return delays > 15
    if task == "multiclass":
        return np.array(["early", "late", "on time"])[np.where(delays < -10, 0, np.where(delays > 15, 1, 2))]
    return np.maximum(delays, -59) + 60.0 if task == "positive" else delays


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", **options})


def prepared(numbers: Any = None, words: Any = None) -> Any:
    """Numbers imputed and scaled, words one-hot."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler()) if numbers is None else numbers
    return make_column_transformer((numbers, NUMBERS), (one_hot() if words is None else words, WORDS))


def dense() -> Any:
    return prepared(words=one_hot(sparse_output=False))


def coded(unknown: float = -1, words: Any = None) -> Any:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown, encoded_missing_value=-2)
    return make_column_transformer((codes if words is None else words, WORDS), ("passthrough", NUMBERS))


def boosted(**options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**{"max_iter": 30, "random_state": 0, **options})


def numbered(**options: Any) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(**{"max_iter": 30, "random_state": 0, **options})


def logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)


def behind(*numbers: Any, words: Any = None) -> Any:
    return prepared(make_pipeline(SimpleImputer(), *numbers), words)


Make = Callable[[], Any]
PIPELINES: dict[str, tuple[str, Make]] = {
    "LogisticRegression": ("binary", lambda: make_pipeline(prepared(), logistic())),
    "LogisticRegression, several classes": ("multiclass", lambda: make_pipeline(prepared(), logistic())),
    "RandomForestClassifier": ("binary", lambda: make_pipeline(prepared(), RandomForestClassifier(30, random_state=0))),
    "RandomForestRegressor": (
        "regression",
        lambda: make_pipeline(prepared(), RandomForestRegressor(15, random_state=0)),
    ),
    "HistGradientBoosting after one-hot": ("binary", lambda: make_pipeline(dense(), boosted())),
    "HistGradientBoosting after ordinal": ("binary", lambda: make_pipeline(coded(), boosted())),
    "HistGradientBoosting, categories from dtype": ("category", boosted),
    "HistGradientBoostingRegressor": ("regression", lambda: make_pipeline(coded(), numbered())),
    "HistGradientBoostingRegressor, poisson": ("positive", lambda: make_pipeline(coded(), numbered(loss="poisson"))),
    "HistGradientBoostingRegressor, quantile": (
        "regression",
        lambda: make_pipeline(coded(), numbered(loss="quantile", quantile=0.9)),
    ),
    "GradientBoostingClassifier": (
        "binary",
        lambda: make_pipeline(prepared(), GradientBoostingClassifier(random_state=0)),
    ),
    "GradientBoostingRegressor": (
        "regression",
        lambda: make_pipeline(prepared(), GradientBoostingRegressor(random_state=0)),
    ),
    "ExtraTreesClassifier": ("binary", lambda: make_pipeline(prepared(), ExtraTreesClassifier(30, random_state=0))),
    "DecisionTreeClassifier": ("binary", lambda: make_pipeline(prepared(), DecisionTreeClassifier(random_state=0))),
    "LinearRegression": ("regression", lambda: make_pipeline(prepared(), LinearRegression())),
    "RidgeCV": ("regression", lambda: make_pipeline(prepared(), RidgeCV())),
    "LassoCV with polynomials": (
        "regression",
        lambda: make_pipeline(behind(PolynomialFeatures(), StandardScaler()), LassoCV(cv=3, alphas=10)),
    ),
    "ElasticNet": ("regression", lambda: make_pipeline(prepared(), ElasticNet())),
    "PoissonRegressor": ("positive", lambda: make_pipeline(prepared(), PoissonRegressor(max_iter=500))),
    "GammaRegressor": ("positive", lambda: make_pipeline(prepared(), GammaRegressor(max_iter=500))),
    "SVC, calibrated": ("binary", lambda: make_pipeline(prepared(), CalibratedClassifierCV(SVC(), cv=2))),
    "LinearSVC": ("binary", lambda: make_pipeline(prepared(), LinearSVC())),
    "SVR": ("regression", lambda: make_pipeline(prepared(), SVR())),
    "KNeighborsClassifier": ("binary", lambda: make_pipeline(prepared(), KNeighborsClassifier())),
    "GaussianNB": ("binary", lambda: make_pipeline(dense(), GaussianNB())),
    "MLPClassifier": ("binary", lambda: make_pipeline(prepared(), MLPClassifier((20,), max_iter=40, random_state=0))),
    "SGDClassifier, log_loss": (
        "binary",
        lambda: make_pipeline(prepared(), SGDClassifier(loss="log_loss", random_state=0)),
    ),
    "LinearDiscriminantAnalysis": ("multiclass", lambda: make_pipeline(dense(), LinearDiscriminantAnalysis())),
    "HistGradientBoosting, calibrated isotonic": (
        "binary",
        lambda: make_pipeline(coded(), CalibratedClassifierCV(boosted(max_iter=10), method="isotonic", cv=2)),
    ),
    "LogisticRegression, calibrated sigmoid": (
        "binary",
        lambda: make_pipeline(prepared(), CalibratedClassifierCV(logistic(), cv=3)),
    ),
    "tuned threshold": ("binary", lambda: TunedThresholdClassifierCV(make_pipeline(prepared(), logistic()), cv=3)),
    "grid search": (
        "binary",
        lambda: GridSearchCV(make_pipeline(prepared(), logistic()), {"logisticregression__C": [0.1, 1.0]}, cv=3),
    ),
    "soft voting": (
        "binary",
        lambda: make_pipeline(
            dense(), VotingClassifier([("line", logistic()), ("trees", boosted(max_iter=10))], voting="soft")
        ),
    ),
    "stacking": (
        "binary",
        lambda: make_pipeline(
            dense(), StackingClassifier([("line", logistic()), ("trees", boosted(max_iter=10))], cv=2)
        ),
    ),
    "AdaBoostClassifier": ("binary", lambda: make_pipeline(prepared(), AdaBoostClassifier(random_state=0))),
    "target encoder with HistGradientBoosting": (
        "binary",
        lambda: make_pipeline(coded(words=TargetEncoder(random_state=0)), boosted()),
    ),
    "KNN imputer": (
        "binary",
        lambda: make_pipeline(prepared(make_pipeline(StandardScaler(), KNNImputer())), logistic()),
    ),
    "imputer with indicator": (
        "binary",
        lambda: make_pipeline(prepared(make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())), logistic()),
    ),
    "iterative imputer": (
        "binary",
        lambda: make_pipeline(prepared(make_pipeline(IterativeImputer(random_state=0), StandardScaler())), logistic()),
    ),
    "PCA": ("binary", lambda: make_pipeline(behind(StandardScaler(), PCA(4)), logistic())),
    "SelectKBest": ("binary", lambda: make_pipeline(prepared(), SelectKBest(k=12), logistic())),
    "KBinsDiscretizer": (
        "binary",
        lambda: make_pipeline(behind(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")), logistic()),
    ),
    "splines with Ridge": ("regression", lambda: make_pipeline(behind(SplineTransformer()), Ridge())),
    "PowerTransformer": ("binary", lambda: make_pipeline(behind(PowerTransformer()), logistic())),
    "QuantileTransformer": ("binary", lambda: make_pipeline(behind(QuantileTransformer(n_quantiles=100)), logistic())),
    "log1p with LinearRegression": (
        "regression",
        lambda: make_pipeline(
            make_column_transformer((FunctionTransformer(np.log1p), POSITIVE), (one_hot(), WORDS)), LinearRegression()
        ),
    ),
    "log of the target": (
        "positive",
        lambda: TransformedTargetRegressor(make_pipeline(prepared(), Ridge()), func=np.log1p, inverse_func=np.expm1),
    ),
    "TF-IDF with LogisticRegression": ("series", lambda: make_pipeline(TfidfVectorizer(), logistic())),
    "TF-IDF beside numbers": (
        "binary",
        lambda: make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS), (TfidfVectorizer(), "plane")
            ),
            logistic(),
        ),
    ),
    "one-hot with min_frequency": (
        "binary",
        lambda: make_pipeline(
            prepared(words=one_hot(min_frequency=50, handle_unknown="infrequent_if_exist")), logistic()
        ),
    ),
    "FeatureUnion of scaler and PCA": (
        "binary",
        lambda: make_pipeline(behind(make_union(StandardScaler(), PCA(3))), logistic()),
    ),
    "GaussianProcessRegressor": ("regression", lambda: make_pipeline(dense(), GaussianProcessRegressor(alpha=1.0))),
}


def booster(library: str, name: str, **options: Any) -> Make:
    """A model of a library beside scikit-learn, imported where it is made."""
    return lambda: getattr(importlib.import_module(library), name)(**options)


_TREES = {"n_estimators": 30, "random_state": 0, "n_jobs": 1}
_LIGHT, _EXTREME = {**_TREES, "verbosity": -1}, {**_TREES, "verbosity": 0}
_CAT = {"iterations": 30, "random_seed": 0, "thread_count": 1, "verbose": False, "allow_writing_files": False}


def _behind_codes(make: Make) -> Make:
    return lambda: make_pipeline(coded(), make())


BOOSTERS: dict[str, tuple[str, Make]] = {
    "LGBMClassifier": ("binary", _behind_codes(booster("lightgbm", "LGBMClassifier", **_LIGHT))),
    "LGBMRegressor": ("regression", _behind_codes(booster("lightgbm", "LGBMRegressor", **_LIGHT))),
    "LGBMClassifier, categories from dtype": ("category", booster("lightgbm", "LGBMClassifier", **_LIGHT)),
    "XGBClassifier": ("binary", _behind_codes(booster("xgboost", "XGBClassifier", **_EXTREME))),
    "XGBRegressor": ("regression", _behind_codes(booster("xgboost", "XGBRegressor", **_EXTREME))),
    "XGBClassifier, several classes": ("coded", _behind_codes(booster("xgboost", "XGBClassifier", **_EXTREME))),
    "CatBoostClassifier": ("binary", _behind_codes(booster("catboost", "CatBoostClassifier", **_CAT))),
    "CatBoostRegressor": ("regression", _behind_codes(booster("catboost", "CatBoostRegressor", **_CAT))),
    "CatBoostClassifier, counted categories": (
        "filled",
        booster("catboost", "CatBoostClassifier", **_CAT, cat_features=["carrier", "origin", "dest"]),
    ),
}
ALL = {**PIPELINES, **BOOSTERS}


@dataclass(frozen=True)
class Case:
    """A fitted pipeline with its rows."""

    name: str
    reference: ReferenceScorer
    threshold: float | None
    training: FeatureFrame
    asked: FeatureFrame


def _columns(task: str, frame: FeatureFrame) -> Contract:
    """What the pipelines of a task take."""
    if task == "series":
        return CONTRACT.select(["plane"])
    if task == "filled":
        return CONTRACT.select(["carrier", "origin", "dest", *NUMBERS])
    if task != "category":
        return CONTRACT
    known = {name: sorted({v for v in frame.columns[name] if v is not None}) for name in WORDS}
    own = [Column(c.name, c.kind, nullable=c.nullable, categories=tuple(known[c.name]), dtype="category")
           if c.name in WORDS else c for c in CONTRACT.columns]  # fmt: skip
    return Contract(tuple(c for c in own if c.kind != "text"))


def fit_case(name: str, rows: int, asked: int) -> Case:
    """Fit a pipeline on flights, and settle how it decides."""
    kind, make = ALL[name]
    task = {"positive": "regression", "category": "binary", "series": "binary", "filled": "binary"}.get(kind, kind)
    task = "multiclass" if kind == "coded" else task
    frame, delays = training(rows)
    contract, wanted = _columns(kind, frame), label(delays, {"regression": kind, "positive": kind}.get(kind, task))
    if kind == "coded":
        wanted = np.unique(wanted, return_inverse=True)[1]
    frame, fresh = (FeatureFrame({c: one.columns[c] for c in contract.names}) for one in (frame, unseen(asked)))
    table = frame_to_pandas(frame, contract)
    pipeline = make().fit(table.iloc[:, 0] if kind == "series" else table, wanted)
    pipeline = getattr(pipeline, "best_estimator_", pipeline)
    given: Any = {"input": "series" if kind == "series" else "frame"}
    plain = ReferenceScorer(pipeline, contract, task, list_classes(pipeline), None, **given)
    ruling = settle(plain, [frame])
    given |= {"positive": ruling.positive, "decision": ruling.decision}
    return Case(name, ReferenceScorer(pipeline, contract, task, plain.classes, **given), ruling.threshold, frame, fresh)


def available() -> Iterator[str]:
    """Names of the pipelines whose library is installed."""
    for name in ALL:
        library = {"LGB": "lightgbm", "XGB": "xgboost", "Cat": "catboost"}.get(name[:3])
        if library is None or importlib.util.find_spec(library):
            yield name
