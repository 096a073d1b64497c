"""LightGBM, XGBoost and CatBoost, compiled: their categories, their ways of missing values, their sums and links."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import answer, prove_alike
from scipy.sparse import csr_matrix
from test_compile import CONTRACT, FRAME, LABELS, rows

from mlworkbench.contract.contract import Contract
from mlworkbench.scoring.compiled.base.rules import NoRuleError, Question, Site, find_site
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

ALL = ["distance", "origin", "wind", "minute", "weekend"]
NUMBERS = ["distance", "wind", "minute", "weekend"]
TASKS = {"K": "binary", "M": "multiclass", "R": "regression"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def take(frame: FeatureFrame, names: list[str]) -> FeatureFrame:
    return FeatureFrame({name: frame.columns[name] for name in names})


def learn(model: Any, task: str, names: list[str] = ALL, frame: FeatureFrame = FRAME, **told: Any) -> ReferenceScorer:
    contract, labels = CONTRACT.select(names), LABELS[task]
    labels = np.unique(labels, return_inverse=True)[1] if task == "multiclass" else labels
    labels = np.abs(labels) + 1 if task == "regression" else labels.astype(int)
    model = model.fit(frame_to_pandas(take(frame, names), contract), labels, **told)
    classes = list_classes(model) if task != "regression" else []
    return ReferenceScorer(model, contract, task, classes, 1 if task == "binary" else None)


def with_unseen(frame: FeatureFrame, word: str) -> FeatureFrame:
    words = frame.columns["origin"].copy()
    words[::9] = word
    return FeatureFrame({**frame.columns, "origin": words})


def edges(compiled: CompiledScorer, contract: Contract, *, single: bool) -> FeatureFrame:
    """One row for each number that a tree compares with, for its neighbours, and for what is odd."""
    (node,) = onnx.load_from_string(compiled.graphs[0]).graph.node
    found = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    splits = onnx.numpy_helper.to_array(found["nodes_splits"]).astype(np.float64)
    asked, size = np.array(found["nodes_featureids"]), float(np.float32(1e-35))
    odd = [0.0, -0.0, size, -size, np.nextafter(size, 1), np.nextafter(size, 0), -np.nextafter(size, 1), 5e-324]
    odd += [np.nan, np.inf, -np.inf, 1e300, -1e300, 3.5e38]
    base, made = take(rows(5, 30), list(contract.names)), []
    for place, name in enumerate(contract.names):
        if base.columns[name].dtype != np.float64:
            continue
        near = [splits[asked == place]]
        near += [np.nextafter(near[0], side) for side in (-np.inf, np.inf)]
        near += [np.nextafter(near[0].astype(np.float32), np.float32(side)).astype(float) for side in (-np.inf, np.inf)]
        near += [(near[0] + near[-1]) / 2] if single else []
        values = np.concatenate([*near, odd])
        few = base.take(np.arange(len(values)) % 30)
        made.append({**few.columns, name: values})
    return FeatureFrame({name: np.concatenate([one[name] for one in made]) for name in contract.names})


def hold_at_edges(reference: ReferenceScorer, compiled: CompiledScorer, *, single: bool = False) -> None:
    frame = edges(compiled, reference.contract, single=single)
    assert len(frame) > 100
    expected, got = answer(reference, frame), answer(compiled, frame)
    assert np.array_equal(expected[0], got[0]), np.flatnonzero(expected[0] != got[0])[:5]
    for row in range(0, len(frame), 7):
        assert compiled.score(frame.take([row]))[0] == got[0][row]


LIGHT: dict[str, tuple[str, dict[str, Any]]] = {
    "two classes": ("K", {}),
    "another slope": ("K", {"sigmoid": 0.7}),
    "several classes": ("M", {}),
    "each class by itself": ("M", {"objective": "multiclassova", "sigmoid": 1.5}),
    "a forest": ("K", {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    "a forest of several classes": ("M", {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
    "dart": ("R", {"boosting_type": "dart"}),
    "cross entropy": ("K", {"objective": "cross_entropy"}),
    "roots": ("R", {"reg_sqrt": True}),
    "one leaf": ("R", {"min_child_samples": 1000}),
    **{name: ("R", {"objective": name}) for name in ("l1", "huber", "fair", "quantile", "mape")},
    **{name: ("R", {"objective": name}) for name in ("poisson", "gamma", "tweedie")},
}


def light(kind: str, **options: Any) -> Any:
    library = pytest.importorskip("lightgbm")
    make = library.LGBMRegressor if kind == "R" else library.LGBMClassifier
    return make(**{"n_estimators": 12, "min_child_samples": 5, "verbose": -1, "n_jobs": 1, **options})


@pytest.mark.parametrize("name", LIGHT)
def test_lightgbm_with_categories_missing_and_unseen(name: str) -> None:
    kind, options = LIGHT[name]
    reference = learn(light(kind, **options), TASKS[kind])
    unseen = with_unseen(take(rows(7, 300), ALL), "ZZZ")
    prove_alike(reference, take(FRAME, ALL), unseen, bound=1e-15, alone=12)


@pytest.mark.parametrize("options", [{}, {"zero_as_missing": True}, {"use_missing": False}], ids=str)
def test_lightgbm_at_each_threshold_and_at_odd_values(options: dict[str, Any]) -> None:
    zeros = np.where(np.arange(len(FRAME)) % 3 == 0, 0.0, FRAME.columns["wind"] - 10)
    frame = FeatureFrame({**FRAME.columns, "wind": zeros})
    reference = learn(light("R", **options), "regression", frame=frame)
    hold_at_edges(reference, compile_scorer(reference))


def test_lightgbm_with_categories_that_are_numbers() -> None:
    wind = np.where(np.isnan(FRAME.columns["wind"]), np.nan, np.abs(FRAME.columns["wind"]) // 3)
    frame = FeatureFrame({**FRAME.columns, "wind": wind})
    model = light("R", min_data_per_group=5, cat_smooth=1)
    reference = learn(model, "regression", NUMBERS, frame, categorical_feature=["wind"])
    compiled = compile_scorer(reference)
    assert "whole numbers" in str(compiled.program)
    odd = np.array([0.5, -0.5, -1.0, 2.999, 3.0, 1e9, 3e9, -3e9, np.nan, np.inf, -np.inf, 1e300])
    asked = FeatureFrame({**take(rows(3, len(odd)), NUMBERS).columns, "wind": odd})
    assert np.array_equal(reference.score(asked), compiled.score(asked))


def test_lightgbm_stopped_early_uses_its_best_trees() -> None:
    model = light("R", n_estimators=60, learning_rate=0.5, early_stopping_round=2)
    shown = frame_to_pandas(take(rows(2), ALL), CONTRACT.select(ALL))
    reference = learn(model, "regression", eval_set=[(shown, np.abs(LABELS["regression"]) + 1)])
    assert reference.pipeline.best_iteration_ < 60
    prove_alike(reference, take(FRAME, ALL), take(rows(7, 300), ALL), bound=0.0)


XGB: dict[str, tuple[str, dict[str, Any]]] = {
    "two classes": ("K", {}),
    "a base of its own": ("K", {"base_score": 0.2}),
    "several classes": ("M", {}),
    "several classes by label": ("M", {"objective": "multi:softmax"}),
    "one category at a time": ("R", {"max_cat_to_onehot": 10}),
    "sets of categories": ("R", {"max_cat_to_onehot": 1}),
    "dart": ("R", {"booster": "dart", "rate_drop": 0.4}),
    "trees side by side": ("R", {"num_parallel_tree": 3, "subsample": 0.6}),
    "leaf by leaf": ("R", {"grow_policy": "lossguide", "max_leaves": 9}),
    "pruned": ("R", {"gamma": 50.0, "tree_method": "approx"}),
    "shares": ("K", {"objective": "reg:logistic"}),
    **{name: ("R", {"objective": f"reg:{name}"}) for name in ("absoluteerror", "pseudohubererror", "gamma", "tweedie")},
    "counts": ("R", {"objective": "count:poisson"}),
    "quantile": ("R", {"objective": "reg:quantileerror", "quantile_alpha": 0.7}),
}


def extreme(kind: str, **options: Any) -> Any:
    library = pytest.importorskip("xgboost")
    make = library.XGBRegressor if kind == "R" else library.XGBClassifier
    return make(**{"n_estimators": 12, "max_depth": 4, "n_jobs": 1, "enable_categorical": True, **options})


@pytest.mark.parametrize("name", XGB)
def test_xgboost_with_categories_missing_and_unseen(name: str) -> None:
    kind, options = XGB[name]
    reference = learn(extreme(kind, **options), TASKS[kind])
    unseen = with_unseen(take(rows(7, 300), ALL), "DCA")
    exact = kind == "R" and str(options.get("objective")) not in ("reg:gamma", "reg:tweedie", "count:poisson")
    prove_alike(reference, take(FRAME, ALL), unseen, bound=0.0 if exact and name != "dart" else 2.5e-7, alone=12)


def test_xgboost_at_each_threshold_and_at_odd_values() -> None:
    reference = learn(extreme("R"), "regression")
    hold_at_edges(reference, compile_scorer(reference), single=True)


def test_xgboost_forests_stop_and_numbers_for_missing() -> None:
    library = pytest.importorskip("xgboost")
    reference = learn(library.XGBRFRegressor(n_estimators=10, n_jobs=1, enable_categorical=True), "regression")
    prove_alike(reference, take(FRAME, ALL), take(rows(7, 200), ALL), bound=0.0)
    wind = np.nan_to_num(FRAME.columns["wind"], nan=-999.0)
    frame = FeatureFrame({**FRAME.columns, "wind": wind})
    shown = frame_to_pandas(take(rows(2), NUMBERS), CONTRACT.select(NUMBERS))
    model = extreme("R", missing=-999, n_estimators=60, learning_rate=0.9, early_stopping_rounds=2)
    told = {"eval_set": [(shown, np.abs(LABELS["regression"]) + 1)], "verbose": False}
    reference = learn(model, "regression", NUMBERS, frame, **told)
    assert reference.pipeline.best_iteration < 59
    compiled = prove_alike(reference, take(frame, NUMBERS), take(rows(7, 200), NUMBERS), bound=0.0)
    asked = take(rows(3, 4), NUMBERS)
    asked = FeatureFrame({**asked.columns, "wind": np.array([-999.0, np.nan, -999.00001, -998.999])})
    assert np.array_equal(reference.score(asked), compiled.score(asked))


def test_xgboost_takes_the_zeros_of_a_sparse_matrix_for_missing() -> None:
    random = np.random.default_rng(0)
    table = np.where(random.random((400, 3)) < 0.5, 0.0, random.normal(size=(400, 3)))
    model = extreme("R").fit(csr_matrix(table), table[:, 0] + (table[:, 1] == 0))
    compiler = ProgramCompiler()
    found = compiler.answers(model, Question("predict"), Site((None,) * 3, "array", sparse=True))
    sums = ProgramMaker(compiler.graphs).model(found.model)(table.T)
    assert np.array_equal(sums[:, 0], model.predict(csr_matrix(table)))
    assert not np.array_equal(sums[:, 0], model.predict(table))


WORDS: dict[str, tuple[ReferenceScorer, CompiledScorer]] = {}


@settings(max_examples=30, deadline=None, database=None)
@given(st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["", "EWR ", "JF", "JFK1", "Z", "é", "Lé"]))
def test_xgboost_takes_an_unknown_word_for_the_next_it_knows(word: str) -> None:
    if not WORDS:
        reference = learn(extreme("R", max_cat_to_onehot=10), "regression")
        WORDS["pair"] = reference, compile_scorer(reference)
    asked = take(FRAME.take([0]), ALL)
    asked = FeatureFrame({**asked.columns, "origin": np.array([word], dtype=object)})
    expected, got = (answer(scorer, asked) for scorer in WORDS["pair"])
    assert (expected is None) == (got is None)
    assert expected is None or np.array_equal(expected[0], got[0])


CAT: dict[str, tuple[str, dict[str, Any]]] = {
    "two classes": ("K", {}),
    "several classes": ("M", {}),
    "each class by itself": ("M", {"loss_function": "MultiClassOneVsAll"}),
    "shares": ("K", {"loss_function": "CrossEntropy"}),
    "missing above": ("R", {"nan_mode": "Max"}),
    "leaf by leaf": ("R", {"grow_policy": "Lossguide"}),
    "by depth, several classes": ("M", {"grow_policy": "Depthwise", "nan_mode": "Max"}),
    "deep": ("R", {"depth": 9}),
    **{name: ("R", {"loss_function": name}) for name in ("MAE", "Quantile:alpha=0.7", "Huber:delta=1", "Poisson")},
    "tweedie": ("R", {"loss_function": "Tweedie:variance_power=1.5"}),
}


def cat(kind: str, **options: Any) -> Any:
    library = pytest.importorskip("catboost")
    make = library.CatBoostRegressor if kind == "R" else library.CatBoostClassifier
    plain = {"iterations": 12, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    return make(**{**plain, **options})


@pytest.mark.parametrize("name", CAT)
def test_catboost_with_missing_values(name: str) -> None:
    kind, options = CAT[name]
    reference = learn(cat(kind, **options), TASKS[kind], NUMBERS)
    exact = kind == "R" and not str(options.get("loss_function")).startswith(("Poisson", "Tweedie"))
    prove_alike(reference, take(FRAME, NUMBERS), take(rows(7, 300), NUMBERS), bound=0.0 if exact else 1e-14, alone=12)


@pytest.mark.parametrize("options", [{}, {"nan_mode": "Max"}, {"grow_policy": "Depthwise"}], ids=str)
def test_catboost_at_each_border_and_at_odd_values(options: dict[str, Any]) -> None:
    reference = learn(cat("R", **options), "regression", NUMBERS)
    hold_at_edges(reference, compile_scorer(reference), single=True)


def known_words(frame: FeatureFrame) -> FeatureFrame:
    words = np.array([word or "SWF" for word in frame.columns["origin"]], dtype=object)
    return FeatureFrame({**frame.columns, "origin": words})


def test_catboost_with_one_hot_words_unseen_ones_and_refused_missing_ones() -> None:
    training = take(known_words(FRAME), ALL)
    reference = learn(cat("R", cat_features=["origin"], one_hot_max_size=9, depth=6), "regression", frame=training)
    unseen = with_unseen(take(known_words(rows(7, 300)), ALL), "LCY")
    compiled = prove_alike(reference, training, unseen, bound=0.0)
    missing = with_unseen(unseen, None)  # type: ignore[arg-type]
    assert answer(reference, missing.take([0])) is None and answer(compiled, missing.take([0])) is None


DECIDING = {
    "lightgbm": (lambda: light("K"), "binary", "predict_proba"),
    "lightgbm of several classes": (lambda: light("M"), "multiclass", "predict_proba"),
    "xgboost": (lambda: extreme("K"), "binary", "predict_proba"),
    "xgboost of several classes": (lambda: extreme("M"), "multiclass", "predict_proba"),
    "catboost": (lambda: cat("K"), "binary", "RawFormulaVal"),
    "catboost of several classes": (lambda: cat("M"), "multiclass", "RawFormulaVal"),
    "catboost in two minds": (lambda: cat("K", iterations=1, depth=1, l2_leaf_reg=1e30), "binary", "RawFormulaVal"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_a_booster_decides_as_its_own_predict(name: str) -> None:
    make, task, of = DECIDING[name]
    frame = take(FRAME, NUMBERS)
    reference = learn(make(), task, NUMBERS)
    ruling = settle(reference, [frame])
    assert ruling.decision == {"rule": "argmax", "of": of} and ruling.differs == 0
    reference = replace(reference, positive=ruling.positive, decision=ruling.decision)
    compiled = prove_alike(reference, frame, take(rows(7, 300), NUMBERS), bound=2.5e-7, alone=12)
    assert answer(compiled, frame)[1].tolist() == reference.predict(frame).tolist()


REFUSED: dict[str, tuple[Any, str, list[str], str]] = {
    "lines in leaves": (lambda: light("R", linear_tree=True), "regression", NUMBERS, "linear_tree has no rule; leave"),
    "an objective of one's own": (
        lambda: light("R", objective=lambda y, p: (p - y, np.ones_like(y))),
        "regression",
        ALL,
        "own objective .* choose one of regression",
    ),
    "an answer before the end": (lambda: light("K", pred_early_stop=True), "binary", ALL, "pred_early_stop"),
    "a line": (lambda: extreme("R", booster="gblinear"), "regression", NUMBERS, "choose another booster"),
    "a hinge": (lambda: extreme("K", objective="binary:hinge"), "binary", ALL, "binary:hinge .* choose one of"),
    "codes that may be missing": (lambda: extreme("R", missing=0.0), "regression", ALL, "put NaN for it"),
    "two outputs": (
        lambda: cat("R", loss_function="RMSEWithUncertainty"),
        "regression",
        NUMBERS,
        "RMSEWithUncertainty .* choose one of RMSE",
    ),
    "counted categories": (
        lambda: cat("K", cat_features=["origin"]),
        "binary",
        ALL,
        r"counts categories \(CTR\) has no rule; set one_hot_max_size",
    ),
    "words node by node": (
        lambda: cat("R", cat_features=["origin"], one_hot_max_size=9, grow_policy="Depthwise"),
        "regression",
        ALL,
        "SymmetricTree alone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_booster_does_beyond_the_rules_is_refused_with_a_way_out(name: str) -> None:
    make, task, names, words = REFUSED[name]
    with pytest.raises(NoRuleError, match=words):
        compile_scorer(learn(make(), task, names, known_words(FRAME)))


def test_xgboost_of_categories_beyond_ascii_is_refused() -> None:
    words = np.array([{"EWR": "Zürich"}.get(word, word) for word in FRAME.columns["origin"]], dtype=object)
    frame = FeatureFrame({**FRAME.columns, "origin": words})
    with pytest.raises(NoRuleError, match="beyond ASCII"):
        compile_scorer(learn(extreme("R"), "regression", frame=frame))


def test_catboost_of_a_word_that_the_contract_does_not_list_is_refused() -> None:
    words = np.where(FRAME.columns["distance"] > 1000, "LCY", "DCA").astype(object)
    frame = FeatureFrame({**FRAME.columns, "origin": words})
    with pytest.raises(NoRuleError, match=r"a word of 'origin' that the contract does not list; list"):
        compile_scorer(learn(cat("R", cat_features=["origin"], one_hot_max_size=9), "regression", frame=frame))


@pytest.mark.parametrize("make", [light, extreme, cat], ids=["lightgbm", "xgboost", "catboost"])
def test_a_booster_of_an_array(make: Any) -> None:
    contract, frame = CONTRACT.select(NUMBERS), take(FRAME, NUMBERS)
    table = frame_to_pandas(frame, contract).to_numpy(dtype=np.float64)
    reference = ReferenceScorer(make("R").fit(table, LABELS["regression"]), contract, "regression", [], input="array")
    prove_alike(reference, frame, take(rows(7, 200), NUMBERS), bound=0.0, alone=9)


@pytest.mark.parametrize("make", [light, extreme, cat], ids=["lightgbm", "xgboost", "catboost"])
def test_what_came_through_a_node_went_on_to_its_children(make: Any) -> None:
    kept: list[Any] = []

    class Keeping(ProgramCompiler):
        def add_trees(self, trees: Any, outputs: int) -> int:
            kept.extend(trees)
            return super().add_trees(trees, outputs)

    reference = learn(make("R"), "regression", NUMBERS)
    site = find_site(reference.contract, "frame")
    Keeping().answers(reference.pipeline, Question("predict"), site)
    for tree in kept:
        inner = np.flatnonzero(~tree.leaf)
        both = tree.cover[tree.left[inner]] + tree.cover[tree.right[inner]]
        assert tree.cover[0] == len(FRAME) and np.array_equal(tree.cover[inner], both)
