"""Compiled scorers: equal to the pipeline on every row, alike in what they refuse, or not there at all."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError, VersionError
from mlworkbench.scoring.compiled.base.rules import MODELS, TRANSFORMERS, NoRuleError, Question, find_site
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer, scorer_files
from mlworkbench.scoring.compiled.ensembles.tree_sums import open_graph
from mlworkbench.scoring.compiled.meta.answers import to_step
from mlworkbench.scoring.compiled.proof import compile_and_prove, prove, spread
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import open_version, predict, with_reference

N = 400
CARRIERS = np.array(["AA", "B6", "DL", "UA", "WN"], dtype=object)
NUMBERS = ["distance", "wind", "minute"]
WORDS = ["carrier", "origin"]
CONTRACT = Contract(
    (
        Column("carrier", "category"),
        Column("distance", "number"),
        Column("origin", "category", nullable=True, categories=("EWR", "JFK", "LGA", "SWF"), dtype="category"),
        Column("wind", "number", nullable=True),
        Column("minute", "integer"),
        Column("weekend", "boolean"),
    )
)


def rows(seed: int = 0, n: int = N) -> FeatureFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "carrier": random.choice(CARRIERS, n),
        "distance": random.uniform(100, 2500, n),
        "origin": random.choice(np.array(["EWR", "JFK", "LGA", None], dtype=object), n),
        "wind": np.where(random.random(n) < 0.2, np.nan, random.normal(10, 4, n)),
        "minute": random.integers(0, 1440, n),
        "weekend": random.random(n) < 0.3,
    }
    return FeatureFrame(columns)


FRAME = rows()
TABLE = frame_to_pandas(FRAME, CONTRACT)
DELAY = (
    FRAME.columns["distance"] / 50
    + 8 * np.isin(FRAME.columns["carrier"], ["AA", "WN"])
    + np.nan_to_num(FRAME.columns["wind"])
    + np.random.default_rng(1).normal(0, 5, N)
)
LATE = np.median(DELAY) < DELAY
LEVEL = np.array(["early", "fair", "late"])[np.digitize(DELAY, np.quantile(DELAY, [0.3, 0.7]))]
LABELS = {"binary": LATE, "multiclass": LEVEL, "regression": DELAY}


def one_hot() -> ColumnTransformer:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), WORDS),
        remainder="passthrough",
    )


def ordinal(unknown: float = np.nan) -> ColumnTransformer:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown, encoded_missing_value=-2)
    return make_column_transformer((codes, WORDS), ("passthrough", [*NUMBERS, "weekend"]))


def boosted(**options: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(random_state=0, **options)


def fitted(pipeline: Any, task: str, table: Any = TABLE) -> ReferenceScorer:
    pipeline = pipeline.fit(table, LABELS[task])
    positive = True if task == "binary" else None
    return ReferenceScorer(pipeline, CONTRACT, task, list_classes(pipeline), positive)


COMPILED = {
    "logistic regression": ("binary", lambda: make_pipeline(one_hot(), LogisticRegression(max_iter=2000))),
    "logistic regression of three classes": (
        "multiclass",
        lambda: make_pipeline(one_hot(), LogisticRegression(max_iter=2000)),
    ),
    "linear support vectors": ("binary", lambda: make_pipeline(one_hot(), LinearSVC())),
    "linear support vectors of three classes": ("multiclass", lambda: make_pipeline(one_hot(), LinearSVC())),
    "ridge classifier": ("binary", lambda: make_pipeline(one_hot(), RidgeClassifier())),
    "ridge": ("regression", lambda: make_pipeline(one_hot(), Ridge())),
    "least squares": ("regression", lambda: make_pipeline(one_hot(), LinearRegression())),
    "elastic net": ("regression", lambda: make_pipeline(one_hot(), ElasticNet(alpha=0.1))),
    "boosting": ("binary", lambda: make_pipeline(ordinal(), boosted(max_iter=15))),
    "boosting that knows categories by place": (
        "binary",
        lambda: make_pipeline(
            ordinal(),
            boosted(max_iter=15, categorical_features=[0, 1], min_samples_leaf=5),
        ),
    ),
    "boosting of three classes": (
        "multiclass",
        lambda: make_pipeline(ordinal(), HistGradientBoostingClassifier(max_iter=10, random_state=0)),
    ),
    "boosting of a number": (
        "regression",
        lambda: make_pipeline(ordinal(), HistGradientBoostingRegressor(max_iter=15, random_state=0)),
    ),
    "boosting of a count": (
        "regression",
        lambda: make_pipeline(ordinal(), HistGradientBoostingRegressor(loss="gamma", max_iter=10, random_state=0)),
    ),
    "forest behind a scaler": (
        "binary",
        lambda: make_pipeline(one_hot(), StandardScaler(with_mean=False), RandomForestClassifier(20, random_state=0)),
    ),
    "forest of three classes": (
        "multiclass",
        lambda: make_pipeline(ordinal(-1), RandomForestClassifier(10, max_depth=6, random_state=0)),
    ),
    "forest of a number": (
        "regression",
        lambda: make_pipeline(ordinal(-1), RandomForestRegressor(10, random_state=0)),
    ),
    "extra trees": ("binary", lambda: make_pipeline(one_hot(), ExtraTreesClassifier(10, random_state=0))),
    "one tree": ("multiclass", lambda: make_pipeline(ordinal(-1), DecisionTreeClassifier(random_state=0))),
    "one leaf": (
        "regression",
        lambda: make_pipeline(ordinal(-1), DecisionTreeRegressor(min_samples_leaf=N, random_state=0)),
    ),
    "a moved threshold": (
        "binary",
        lambda: FixedThresholdClassifier(make_pipeline(one_hot(), LogisticRegression(max_iter=2000)), threshold=0.3),
    ),
    "other scalers": (
        "regression",
        lambda: make_pipeline(
            make_column_transformer(
                (make_pipeline(RobustScaler(), SimpleImputer(strategy="constant", fill_value=0)), ["wind"]),
                (make_pipeline(MinMaxScaler(clip=True), MaxAbsScaler()), ["distance"]),
                (FunctionTransformer(np.log1p), ["minute"]),
                (OneHotEncoder(drop="first"), ["carrier"]),
                (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=90), ["origin"]),
                (OrdinalEncoder(), ["weekend"]),
            ),
            Ridge(),
        ),
    ),
    "encoded numbers": (
        "binary",
        lambda: make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["minute", "weekend"]), (SimpleImputer(), ["wind"])
            ),
            LogisticRegression(max_iter=2000),
        ),
    ),
    "a column transformer within another": (
        "binary",
        lambda: make_pipeline(
            ColumnTransformer(
                [("inner", make_pipeline(ordinal(-1), SimpleImputer(), MinMaxScaler()), [*WORDS, *NUMBERS, "weekend"])]
            ),
            LogisticRegression(max_iter=2000),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_what_compiles_gives_the_pipelines_scores_on_rows_it_never_saw(name: str) -> None:
    task, make = COMPILED[name]
    reference = fitted(make(), task)
    compiled, facts = compile_and_prove(reference, FRAME.take(range(30)), FRAME)
    assert compiled is not None, facts
    unseen = rows(seed=7, n=500)
    expected, got = reference.score(unseen), compiled.score(unseen)
    assert got.shape == expected.shape and got.dtype == np.float64
    assert np.abs(got - expected).max() <= 1e-12 * max(1.0, float(np.abs(expected).max()))
    assert facts["rows"] == N + 30 and facts["max_difference"] < 1e-9
    assert spread(compiled, unseen.take(range(40))) <= 1e-12 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("name", [name for name, (_, make) in COMPILED.items() if "boost" in name or "tree" in name])
def test_trees_give_a_batch_and_its_rows_the_same_bits(name: str) -> None:
    task, make = COMPILED[name]
    assert spread(compile_scorer(fitted(make(), task)), rows(seed=3, n=200)) == 0.0


def test_boosting_that_reads_categories_from_the_dtype_of_the_frame() -> None:
    contract = CONTRACT.select(["origin", "distance", "wind"])
    frame = FeatureFrame({name: FRAME.columns[name] for name in contract.names})
    trees = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(frame_to_pandas(frame, contract), LATE)
    reference = ReferenceScorer(trees, contract, "binary", [False, True])
    compiled, facts = compile_and_prove(reference, frame.take(range(20)), frame)
    assert compiled is not None, facts
    assert np.abs(compiled.score(frame) - reference.score(frame)).max() < 1e-14


def test_the_positive_class_may_be_the_first() -> None:
    pipeline = make_pipeline(ordinal(), HistGradientBoostingClassifier(max_iter=5, random_state=0)).fit(TABLE, LATE)
    reference = ReferenceScorer(pipeline, CONTRACT, "binary", [False, True], positive=False)
    assert np.allclose(compile_scorer(reference).score(FRAME), reference.score(FRAME), atol=1e-15, rtol=0)


def test_classes_come_in_declared_order() -> None:
    reference = fitted(COMPILED["forest of three classes"][1](), "multiclass")
    turned = ReferenceScorer(reference.pipeline, CONTRACT, "multiclass", ["late", "early", "fair"])
    assert np.allclose(compile_scorer(turned).score(FRAME), reference.score(FRAME)[:, [2, 0, 1]], atol=1e-15, rtol=0)


REFUSED = {
    "an own function": (
        lambda: make_pipeline(one_hot(), FunctionTransformer(lambda x: x), LogisticRegression()),
        "lambda",
    ),
    "neighbours as imputer": (
        lambda: make_pipeline(
            ColumnTransformer([("n", KNNImputer(weights=np.ones_like), NUMBERS)]), LogisticRegression(max_iter=2000)
        ),
        "KNNImputer with weights",
    ),
    "neighbours by brute force": (
        lambda: make_pipeline(one_hot(), KNeighborsClassifier(algorithm="brute")),
        "set algorithm='kd_tree'",
    ),
    "a column alone": (
        lambda: make_pipeline(
            ColumnTransformer([("n", FunctionTransformer(lambda x: x.to_frame()), "minute")]), LogisticRegression()
        ),
        "one column 'minute'",
    ),
    "a kernel of another kind": (
        lambda: make_pipeline(one_hot(), Nystroem("laplacian", n_components=5), LogisticRegression(max_iter=2000)),
        "kernel of linear, poly",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name: str) -> None:
    make, words = REFUSED[name]
    reference = fitted(make(), "binary")
    with pytest.raises(NoRuleError, match=words):
        compile_scorer(reference)
    scorer, facts = compile_and_prove(reference, FRAME.take(range(5)), FRAME)
    assert scorer is None and words in facts["reason"]


def test_an_own_subclass_is_refused_although_it_looks_like_its_parent() -> None:
    class Doubled(LogisticRegression):
        def predict_proba(self, X: Any) -> Any:
            return super().predict_proba(X)[:, ::-1]

    reference = fitted(make_pipeline(one_hot(), Doubled(max_iter=2000)), "binary")
    with pytest.raises(NoRuleError, match="Doubled"):
        compile_scorer(reference)


def test_a_line_trained_on_32_bits_stays_with_the_reference() -> None:
    narrow = Contract((Column("distance", "number", dtype="float32"),))
    frame = FeatureFrame({"distance": FRAME.columns["distance"]})
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame_to_pandas(frame, narrow), LATE)
    with pytest.raises(NoRuleError, match="32 bits"):
        compile_scorer(ReferenceScorer(pipeline, narrow, "binary", [False, True]))


INFINITE = Contract(tuple(Column(name, "number", nullable=True, infinite=True) for name in ("a", "b")))
EDGE = np.nextafter((2.0 - 2.0**-24) * 2.0**127, 0.0)  # rounded to the largest number of 32 bits
ESTIMATORS = [
    LogisticRegression(),
    HistGradientBoostingClassifier(max_iter=3, random_state=0),
    RandomForestClassifier(3, random_state=0),
    make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3, random_state=0)),
    make_pipeline(SimpleImputer(), RandomForestClassifier(3, random_state=0)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e308, 0.0, EDGE, np.nextafter(EDGE, np.inf)])
def test_both_scorers_refuse_the_same_values_and_name_the_same_row(estimator: Any, value: float) -> None:
    random = np.random.default_rng(0)
    frame = FeatureFrame({"a": random.normal(size=80), "b": random.normal(size=80)})
    pipeline = estimator.fit(frame_to_pandas(frame, INFINITE), frame.columns["a"] > 0)
    reference = ReferenceScorer(pipeline, INFINITE, "binary", [False, True])
    compiled = compile_scorer(reference)
    frame.columns["b"][5] = value
    try:
        expected = reference.score(frame)
    except ScoringError as error:
        assert "row 5" in str(error)
        with pytest.raises(ScoringError, match="row 5"):
            compiled.score(frame)
    else:
        assert np.abs(compiled.score(frame) - expected).max() < 1e-12


def test_an_unknown_category_is_refused_where_the_encoder_refuses_it() -> None:
    pipeline = make_pipeline(make_column_transformer((OneHotEncoder(), ["carrier"])), LogisticRegression())
    reference = fitted(pipeline, "binary")
    compiled = compile_scorer(reference)
    frame = FRAME.take(range(6))
    frame.columns["carrier"][3] = "ZZ"
    for scorer in (reference, compiled):
        with pytest.raises(ScoringError, match="row 3"):
            scorer.score(frame)


def test_an_empty_frame_gives_no_scores() -> None:
    empty = FRAME.take([])
    assert compile_scorer(fitted(COMPILED["boosting"][1](), "binary")).score(empty).shape == (0,)
    assert compile_scorer(fitted(COMPILED["boosting of three classes"][1](), "multiclass")).score(empty).shape == (0, 3)


def altered(scorer: CompiledScorer, change: Any) -> CompiledScorer:
    program = json.loads(json.dumps(scorer.program))
    change(program)
    return CompiledScorer(program, scorer.graphs)


def lookups(program: Any) -> list[Any]:
    parts = program["steps"][0]["parts"]
    return [column for part in parts for step in part["steps"] if step["op"] == "lookup" for column in step["columns"]]


FAULTS = {
    "two columns swapped": lambda p: p["steps"][0]["parts"][1]["take"].reverse(),
    "unknown taken for known": lambda p: lookups(p)[0].update(unknown=lookups(p)[0]["values"][0]),
    "missing taken for known": lambda p: lookups(p)[1].update(missing=lookups(p)[1]["values"][1]),
    "a category renamed": lambda p: lookups(p)[0]["keys"].__setitem__(0, "aa"),
    "the other class": lambda p: p.update(take=[0]),
    "the link lost": lambda p: p.update(link="two sides"),
    "a baseline lost": lambda p: p["model"].update(base=[0.1]),
    "input rounded to 32 bits": lambda p: p["model"].update(allowed="missing float32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_proof_finds_a_compiled_scorer_that_is_wrong(fault: str) -> None:
    reference = fitted(COMPILED["boosting that knows categories by place"][1](), "binary")
    wrong = altered(compile_scorer(reference), FAULTS[fault])
    with pytest.raises(ScoringError) as raised:
        prove(wrong, reference, FRAME.take(range(30)), FRAME)
    assert raised.value.code == "scoring.not_proved"


def test_a_truncated_or_foreign_graph_is_refused_in_one_line() -> None:
    (graph,) = compile_scorer(fitted(COMPILED["boosting"][1](), "binary")).graphs
    for data in (graph[: len(graph) // 2], b"", b"not a graph"):
        with pytest.raises(VersionError, match=r"^scorer\.onnx: a graph that ONNX Runtime reads") as caught:
            open_graph(data)
        assert "\n" not in str(caught.value)


def test_threads_share_one_scorer() -> None:
    scorer = compile_scorer(fitted(COMPILED["boosting"][1](), "binary"))
    expected = scorer.score(FRAME)
    wrong: list[int] = []

    def ask(k: int) -> None:
        for row in range(k, N, 8):
            if scorer.score(FRAME.take([row]))[0] != expected[row]:
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def parts(reference: ReferenceScorer, **changed: Any) -> dict[str, Any]:
    few = FRAME.take(range(12))
    given = {
        "model": "late",
        "pipeline": reference.pipeline,
        "task": reference.task,
        "classes": reference.classes,
        "request": CONTRACT,
        "frame": CONTRACT,
        "golden": (few.columns, {}, few),
        "training": FRAME,
        "labels": LABELS[reference.task],
    }
    return {**given, **changed}


def test_a_version_is_compiled_where_it_can_be_and_says_so(tmp_path: Path) -> None:
    reference = fitted(COMPILED["boosting"][1](), "binary")
    build_version(tmp_path / "v", **parts(reference))
    version = open_version(tmp_path / "v")
    assert version.scorer.kind == version.declaration["scorer"] == "compiled"
    assert version.tolerance == 1e-9
    assert version.manifest["compiled"]["rows"] == N + 12
    itself = with_reference(version)
    assert itself.scorer.kind == "reference" and with_reference(itself) is itself
    assert np.abs(predict(itself, FRAME.columns, {}).scores - predict(version, FRAME.columns, {}).scores).max() < 1e-14


def test_a_version_that_does_not_compile_keeps_the_reference_scorer_and_the_reason(tmp_path: Path) -> None:
    reference = fitted(make_pipeline(one_hot(), KNeighborsClassifier(algorithm="brute")), "binary")
    build_version(tmp_path / "v", **parts(reference))
    version = open_version(tmp_path / "v")
    assert version.scorer.kind == version.declaration["scorer"] == "reference"
    assert version.manifest["compiled"]["reason"].startswith("KNeighborsClassifier")
    assert not (tmp_path / "v/scorer.json").exists() and version.tolerance < 1e-9


def test_the_same_parts_give_the_same_files_of_a_compiled_scorer(tmp_path: Path) -> None:
    reference = fitted(COMPILED["boosting that knows categories by place"][1](), "binary")
    for name in ("a", "b"):
        build_version(tmp_path / name, **parts(reference))
    for name in ("scorer.json", "scorer.onnx"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["scorer.json", "scorer.onnx"])
def test_an_altered_compiled_scorer_is_not_opened(tmp_path: Path, name: str) -> None:
    build_version(tmp_path / "v", **parts(fitted(COMPILED["boosting"][1](), "binary")))
    data = bytearray((tmp_path / "v" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "v" / name).write_bytes(data)
    with pytest.raises(VersionError, match=f"{name} was altered"):
        open_version(tmp_path / "v")


WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
{code}
"""


def alone(blocked: list[str], code: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(blocked=blocked, code=code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_compiled_version_opens_and_predicts_without_scikit_learn_and_pandas(tmp_path: Path) -> None:
    build_version(tmp_path / "v", **parts(fitted(COMPILED["boosting"][1](), "binary")))
    code = f"""
from pathlib import Path
import numpy as np
from mlworkbench.scoring.version.version import open_version, predict
version = open_version(Path({str(tmp_path / "v")!r}))
columns = {{"carrier": np.array(["AA"], dtype=object), "distance": np.array([500.0]), "weekend": np.array([True]),
           "origin": np.array([None], dtype=object), "wind": np.array([np.nan]), "minute": np.array([600])}}
print(predict(version, columns, {{}}).scores.tolist())
"""
    run = alone(["sklearn", "pandas", "scipy", "skops", "polars", "pyarrow", "onnx"], code)
    assert run.returncode == 0, run.stderr
    columns = {"carrier": ["AA"], "distance": [500.0], "weekend": [True], "origin": [None], "wind": [np.nan]}
    arrays = {name: np.array(v, dtype=object if name in WORDS else None) for name, v in columns.items()}
    expected = predict(open_version(tmp_path / "v"), {**arrays, "minute": np.array([600])}, {}).scores.tolist()
    assert json.loads(run.stdout) == expected


def test_without_onnxruntime_a_graph_is_refused_with_the_way_out(tmp_path: Path) -> None:
    build_version(tmp_path / "v", **parts(fitted(COMPILED["boosting"][1](), "binary")))
    opening = f"open_version(Path({str(tmp_path / 'v')!r}))"
    code = f"from pathlib import Path\nfrom mlworkbench.scoring.version.version import open_version\n{opening}"
    run = alone(["onnxruntime"], code)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith("not installed; pip install onnxruntime")


def test_without_onnx_trees_stay_with_the_reference_and_linear_models_compile() -> None:
    code = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.compiled.proof import compile_and_prove
from mlworkbench.scoring.reference import ReferenceScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
contract = Contract((Column("x", "number"),))
frame = FeatureFrame({"x": np.arange(50.0)})
for model in (LogisticRegression(), DecisionTreeClassifier(max_depth=2)):
    fitted = model.fit(frame_to_pandas(frame, contract), np.arange(50) > 20)
    scorer, facts = compile_and_prove(ReferenceScorer(fitted, contract, "binary", [False, True]), frame, frame)
    print(facts.get("reason", scorer and scorer.kind))
"""
    run = alone(["onnx", "onnxruntime"], code)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first == "compiled" and second.startswith("trees need onnx, which is not installed")


def test_every_type_that_has_a_rule_is_one_of_its_library() -> None:
    for name in [*MODELS, *TRANSFORMERS]:
        module, _, kind = name.rpartition(".")
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            assert getattr(importlib.import_module(module), kind).__qualname__ == kind


def test_a_program_of_the_former_format_is_read() -> None:
    scorer = compile_scorer(fitted(COMPILED["boosting"][1](), "binary"))
    model = {name: value for name, value in scorer.program["model"].items() if name != "graph"}
    former = {
        **{name: value for name, value in scorer.program.items() if name != "graphs"},
        "format": 2,
        "model": model,
    }
    assert np.array_equal(CompiledScorer(former, scorer.graphs).score(FRAME), scorer.score(FRAME))


def test_models_of_models_have_a_plan_and_give_what_their_parts_give(tmp_path: Path) -> None:
    compiler, contract = ProgramCompiler(), CONTRACT.select(NUMBERS)
    site = find_site(contract, "frame")
    asked = Question("predict")
    forests = [make_pipeline(SimpleImputer(), RandomForestRegressor(3, random_state=k)) for k in (0, 1)]
    found = [compiler.answers(one.fit(TABLE[NUMBERS], DELAY), asked, site) for one in forests]
    both = {"op": "parts", "parts": [{"take": None, "steps": [to_step(one)]} for one in found]}
    mean = {"kind": "linear", "coefficients": [[0.5, 0.5]], "intercepts": [0.0]}
    facts = {
        "format": 3,
        "columns": NUMBERS,
        "steps": [both],
        "model": mean,
        "link": "identity",
        "take": [0],
        "graphs": 2,
    }
    scorer = CompiledScorer({**facts, "task": "regression"}, compiler.graphs)
    for name, data in scorer_files(scorer).items():
        (tmp_path / name).write_bytes(data)
    opened, frame = CompiledScorer.open(tmp_path), FeatureFrame({name: FRAME.columns[name] for name in NUMBERS})
    expected = np.mean([one.predict(TABLE[NUMBERS]) for one in forests], axis=0)
    assert np.allclose(opened.score(frame), expected, rtol=1e-14, atol=0)
    assert [opened.score(frame.take([k]))[0] for k in range(9)] == opened.score(frame)[:9].tolist()
    assert opened._plans[3] is not None  # type: ignore[attr-defined]
