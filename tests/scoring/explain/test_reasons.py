"""Reasons: they add up to the margin, in the columns that people know, and are the same wherever they are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from test_compile import CONTRACT, DELAY, FRAME, TABLE, one_hot, ordinal

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError, VersionError
from mlworkbench.evaluation.card import write_importance
from mlworkbench.scoring.compiled.base.layout import trace_steps
from mlworkbench.scoring.compiled.compile import compile_scorer, scorer_files
from mlworkbench.scoring.compiled.ensembles.tree_file import join_trees
from mlworkbench.scoring.compiled.ensembles.trees import Tree
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.explain.keeping import make_reasons, open_reasons
from mlworkbench.scoring.explain.margins import ask_margins, find_margins
from mlworkbench.scoring.explain.reasons import Reasons, TreeWay, find_owners
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

GOLDEN = FRAME.take(range(0, 400, 5))
LATE, THREE = DELAY > 40, np.digitize(DELAY, [25, 45])


def boosting(**options: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=15, random_state=0, **options)


PIPELINES: dict[str, tuple[Any, Any, str, str, str]] = {
    "logistic": (make_pipeline(one_hot(), LogisticRegression(max_iter=500)), LATE, "binary", "linear", "log-odds"),
    "logistic of three": (
        make_pipeline(one_hot(), LogisticRegression(max_iter=500)), THREE, "multiclass", "linear", "log-share",
    ),
    "ridge": (make_pipeline(one_hot(), Ridge()), DELAY, "regression", "linear", "score"),
    "margins": (make_pipeline(one_hot(), RidgeClassifier()), LATE, "binary", "linear", "score"),
    "boosting": (make_pipeline(one_hot(), boosting()), LATE, "binary", "trees", "log-odds"),
    "boosting with categories": (
        make_pipeline(ordinal(), boosting(categorical_features=[0, 1])), LATE, "binary", "trees", "log-odds",
    ),
    "boosting of three": (make_pipeline(one_hot(), boosting()), THREE, "multiclass", "trees", "log-share"),
    "boosting of counts": (
        make_pipeline(one_hot(), HistGradientBoostingRegressor(loss="poisson", max_iter=15, random_state=0)),
        np.maximum(DELAY, 0), "regression", "trees", "logarithm",
    ),
    "forest": (make_pipeline(one_hot(), RandomForestClassifier(10, random_state=0)), LATE, "binary", "trees", "score"),
    "tree": (make_pipeline(one_hot(), DecisionTreeClassifier(random_state=0)), LATE, "binary", "trees", "score"),
}  # fmt: skip
FITTED: dict[str, ReferenceScorer] = {}


def fitted(name: str) -> ReferenceScorer:
    if name not in FITTED:
        pipeline, label, task, *_ = PIPELINES[name]
        classes = [] if task == "regression" else sorted({*label.tolist()})
        FITTED[name] = ReferenceScorer(pipeline.fit(TABLE, label), CONTRACT, task, classes)
    return FITTED[name]


def reasons_of(
    scorer: Any, folder: Path, *, contract: Contract = CONTRACT, **told: Any
) -> tuple[Reasons, dict[str, Any]]:
    """Write the reasons of a scorer and open them again; with what was written."""
    golden = FeatureFrame({name: GOLDEN.columns[name] for name in contract.names})
    files = make_reasons(scorer, contract, FRAME, golden=golden)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return open_reasons(folder, scorer, golden, contract=contract, told=told), json.loads(files["reasons.json"])


@pytest.mark.parametrize("name", PIPELINES)
def test_contributions_and_base_are_the_margin(name: str, tmp_path: Path) -> None:
    compiled = compile_scorer(fitted(name))
    reasons, facts = reasons_of(compiled, tmp_path)
    assert (facts["way"], reasons.kind, reasons.unit) == (PIPELINES[name][3], "exact", PIPELINES[name][4])
    scores = compiled.score(FRAME)
    parts = reasons.take_apart(FRAME, scores)
    places = scores.argmax(axis=1) if scores.ndim == 2 else np.zeros(len(scores), dtype=int)
    margins = ask_margins(compiled, GOLDEN)[0](FRAME)[np.arange(len(scores)), places]
    assert np.abs(parts.margins - margins).max() <= 1e-9 * np.abs(margins).max()
    assert (parts.errors == 0.0).all() and parts.contributions.shape == (len(FRAME), len(CONTRACT.names))
    alone = reasons.take_apart(FRAME.take([7]), scores[[7]])
    assert np.abs(alone.contributions[0] - parts.contributions[7]).max() <= 1e-14 * np.abs(margins).max()


def test_log_odds_are_those_of_the_score_towards_either_class(tmp_path: Path) -> None:
    for positive in (False, True):
        scorer = ReferenceScorer(fitted("boosting").pipeline, CONTRACT, "binary", [False, True], positive)
        compiled = compile_scorer(scorer)
        scores = compiled.score(FRAME)
        parts = reasons_of(compiled, tmp_path)[0].take_apart(FRAME, scores)
        assert np.abs(1.0 / (1.0 + np.exp(-parts.margins)) - scores).max() <= 1e-12


LINKED = {
    "half logistic": ([1], 1, "log-odds", 4.0),
    "single logistic": ([0], 1, "log-odds", -2.0),
    "shares": ([0], 1, "score", -1.0),
    "single each logistic": ([2], 3, "log-odds", 2.0),
    "softmax": ([1], 2, "log-odds", 0.0),
    "single exp": ([0], 1, "logarithm", 2.0),
}


@pytest.mark.parametrize("link", LINKED)
def test_each_link_has_its_margin(link: str) -> None:
    take, outputs, unit, margin = LINKED[link]
    found = find_margins({"link": link, "take": take}, outputs)
    assert found is not None and found.unit == unit
    assert found.apply(np.full((1, outputs), 2.0)).tolist() == [[margin]]
    assert find_margins({"link": "of its own", "take": [0]}, 1) is None


def test_trees_of_32_bits_are_compared_in_32_bits_and_multiplied_by_their_factor() -> None:
    threshold = np.array([0.1, 0.0, 0.0])
    node, leaf, value = np.array([1, 0, 0]), np.array([False, True, True]), np.array([0.0, 1.0, 3.0])
    tree = Tree(node, node * 2, leaf, node * 0, threshold, leaf, value, {}, np.array([2.0, 1.0, 1.0]))
    object.__setattr__(tree, "single", True)
    forest = join_trees([tree])
    assert forest.threshold[0] == np.float32(0.1)
    row = np.array([[float(np.float32(0.1))]])
    model = {"kind": "trees", "divisor": 1, "base": [0.5], "factor": 4.0}
    scorer: Any = SimpleNamespace(program={"model": model}, graph_input=lambda frame: row)
    margins = find_margins({"link": "identity", "take": [0]}, 1)
    assert margins is not None
    way = TreeWay(scorer, margins, forest, owners=[0], columns=1)
    found = way.take_apart(FeatureFrame({"x": row[0]}), np.array([0]))
    assert (found.base.tolist(), found.contributions.tolist()) == ([10.0], [[-4.0]])


def test_a_linear_contribution_is_the_coefficient_times_the_distance_from_the_mean(tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("ridge"))
    parts = reasons_of(compiled, tmp_path)[0].take_apart(FRAME, compiled.score(FRAME))
    encoded, line = fitted("ridge").pipeline[0].transform(TABLE), fitted("ridge").pipeline[-1]
    assert np.abs(parts.contributions.mean(axis=0)).max() < 1e-9  # the means are those of these rows
    together = (line.coef_ * (encoded - encoded.mean(axis=0))).sum(axis=1)
    assert np.allclose(parts.contributions.sum(axis=1), together, atol=1e-9)
    assert np.allclose(parts.base, line.predict(encoded).mean(), atol=1e-9)


def test_every_column_of_an_encoder_belongs_to_the_column_that_was_encoded() -> None:
    compiled = compile_scorer(fitted("logistic"))
    owners = find_owners(compiled, CONTRACT)
    probed = compiled.model_input(FRAME.take([0]))
    for place, column in enumerate(CONTRACT.columns):
        other = {**FRAME.take([0]).columns, column.name: FRAME.columns[column.name][1:]}
        for row in range(20):
            changed = FeatureFrame({name: v[[row]] if name == column.name else v for name, v in other.items()})
            moved = np.flatnonzero((compiled.model_input(changed) != probed)[:, 0])
            assert {owners[k] for k in moved} <= {place}


def test_a_step_that_says_nothing_mixes_what_reaches_it() -> None:
    one, two = frozenset({0}), frozenset({1})
    assert trace_steps([lambda table: np.concatenate([table, table])], [one, two]) == [one | two] * 4
    assert trace_steps([lambda block: block[:1]], [two, two]) == [two]
    assert trace_steps([lambda table: np.array([[float(len(word)) for word in table[0]]])], [one]) == [one]
    with pytest.raises(ValueError, match="mixes"):
        trace_steps([lambda table: table["x"]], [one])


SAMPLED: dict[str, tuple[Any, Any, str]] = {
    "mixed": (make_pipeline(one_hot(), PCA(3), LogisticRegression()), LATE, "binary"),
    "machine of three": (
        make_pipeline(one_hot(), SVC(random_state=0, decision_function_shape="ovr")), THREE, "multiclass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_what_has_no_formula_is_sampled_and_says_so(name: str, tmp_path: Path) -> None:
    pipeline, label, task = SAMPLED[name]
    scorer = ReferenceScorer(pipeline.fit(TABLE, label), CONTRACT, task, sorted({*label.tolist()}))
    reasons, facts = reasons_of(scorer, tmp_path)
    assert facts["way"] == reasons.kind == "sampled" and facts["why"]
    rows = FRAME.take(range(8))
    scores = scorer.score(rows)
    parts = reasons.take_apart(rows, scores)
    asked = scores if scores.ndim == 1 else scores.max(axis=1)
    assert np.abs(parts.margins - asked).max() <= 1e-9 * max(1.0, np.abs(asked).max())
    assert (parts.errors >= 0.0).all() and parts.errors.max() > 0.0
    alone = reasons.take_apart(rows.take([3]), scores[[3]])
    assert (alone.contributions[0] == parts.contributions[3]).all() and (alone.errors[0] == parts.errors[3]).all()


def test_sampling_finds_what_the_formula_says_within_its_error(tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("boosting"))
    facts = {"format": 1, "way": "sampled"}
    (tmp_path / "reasons.json").write_text(json.dumps(facts))
    sampled = open_reasons(tmp_path, compiled, GOLDEN, contract=CONTRACT, told={})
    rows = FRAME.take(range(40))
    scores = compiled.score(rows)
    parts = sampled.take_apart(rows, scores)
    assert sampled.unit == "log-odds"
    assert np.abs(parts.margins - ask_margins(compiled, GOLDEN)[0](rows)[:, 0]).max() <= 1e-9
    many = open_reasons(tmp_path, compiled, FRAME.take(range(0, 400, 2)), contract=CONTRACT, told={})
    other = many.take_apart(rows, scores)
    apart = np.abs(other.contributions - parts.contributions)
    within = apart <= 3.0 * np.hypot(parts.errors, other.errors) + 1e-12
    assert within.mean() > 0.95


def test_one_column_has_the_whole_difference(tmp_path: Path) -> None:
    contract = Contract((Column("distance", "number"),))
    table = frame_to_pandas(FeatureFrame({"distance": FRAME.columns["distance"]}), contract)
    scorer = ReferenceScorer(Ridge().fit(table, DELAY), contract, "regression", [])
    (tmp_path / "reasons.json").write_text('{"format": 1, "way": "sampled"}')
    golden = FeatureFrame({"distance": GOLDEN.columns["distance"]})
    reasons = open_reasons(tmp_path, scorer, golden, contract=contract, told={})
    parts = reasons.take_apart(golden, scorer.score(golden))
    assert np.allclose(parts.margins, scorer.score(golden), rtol=1e-12)


def test_a_vector_is_one_column(tmp_path: Path) -> None:
    contract = Contract((Column("picture", "vector", size=3), Column("distance", "number")))
    random = np.random.default_rng(0)
    frame = FeatureFrame({"picture": random.normal(size=(60, 3)), "distance": random.normal(size=60)})
    values = np.column_stack([frame.columns["picture"], frame.columns["distance"]])
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(values, values[:, 0] + values[:, 3] > 0)
    scorer = ReferenceScorer(line, contract, "binary", [False, True], input="array")
    compiled = compile_scorer(scorer)
    assert find_owners(compiled, contract) == [0, 0, 0, 1]
    for one in (compiled, scorer):
        files = make_reasons(one, contract, frame, golden=frame.take(range(20)))
        assert json.loads(files["reasons.json"])["way"] == ("linear" if one is compiled else "sampled")


def test_reasons_are_told_the_largest_first_without_personal_values(tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("boosting of three"))
    told = {"classes": [0, 1, 2], "hidden": {"carrier"}}
    reasons, _ = reasons_of(compiled, tmp_path, **told)
    scores = compiled.score(FRAME.take(range(3)))
    for row, score in zip(reasons.explain(FRAME.take(range(3)), scores), scores, strict=True):
        sizes = [abs(one["contribution"]) for one in row["reasons"]]
        assert sizes == sorted(sizes, reverse=True) and row["of"] == int(score.argmax())
        assert {"kind": "exact", "error": 0.0, "unit": "log-share"}.items() <= row.items()
        for one in row["reasons"]:
            assert ("value" in one) == (one["column"] != "carrier")
        total = row["base"] + sum(one["contribution"] for one in row["reasons"])
        assert abs(total - row["margin"]) <= 1e-12 * max(1.0, abs(total))
        json.dumps(row, allow_nan=False)


def test_importance_names_the_columns_that_the_model_goes_by(tmp_path: Path) -> None:
    _, facts = reasons_of(compile_scorer(fitted("boosting")), tmp_path)
    found = facts["importance"]["columns"]
    assert {row["column"] for row in found} == {*CONTRACT.names} and found[0]["column"] == "distance"
    assert all(row["low"] <= row["mean"] <= row["high"] for row in found)
    card = write_importance(facts)
    assert "over 80 golden rows; exact" in card and card.index("distance") < card.index("weekend")


def test_a_card_says_why_there_are_no_reasons(tmp_path: Path) -> None:
    scorer, one = fitted("logistic"), FRAME.take([0])
    facts = json.loads(make_reasons(scorer, CONTRACT, FRAME, golden=one)["reasons.json"])
    assert facts["way"] == "none" and "at least two golden rows" in write_importance(facts)
    (tmp_path / "reasons.json").write_text(json.dumps(facts))
    with pytest.raises(ScoringError, match="not available: at least two golden rows"):
        open_reasons(tmp_path, scorer, one, contract=CONTRACT, told={})


def test_a_version_without_them_says_that_it_was_made_before(tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("ridge"))
    with pytest.raises(ScoringError, match="reasons: not available: made before") as caught:
        open_reasons(tmp_path, compiled, GOLDEN, contract=CONTRACT, told={})
    assert caught.value.code == "scoring.no_reasons"


FORGED: dict[str, Any] = {
    "no format": {"format": None},
    "a newer format": {"format": 2},
    "another way": {"way": "guess"},
    "an owner outside": {"owners": [99]},
    "an owner that is no place": {"owners": ["distance"]},
    "too few means": {"means": []},
    "means of text": {"means": ["x"] * 14},
    "trees that are not there": {"way": "trees"},
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_reasons_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("ridge"))
    _, facts = reasons_of(compiled, tmp_path)
    (tmp_path / "reasons.json").write_text(json.dumps(facts | FORGED[name]))
    with pytest.raises(VersionError, match=r"reasons.json|scorer_trees.npz") as caught:
        open_reasons(tmp_path, compiled, GOLDEN, contract=CONTRACT, told={})
    assert "\n" not in str(caught.value)


DEVICE = """
import sys, json
for name in ("sklearn", "pandas", "scipy", "polars", "pyarrow"):
    sys.modules[name] = None
from pathlib import Path
import numpy as np
from mlworkbench.contract.contract import Contract
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.explain.keeping import open_reasons
from mlworkbench.scoring.frame import FeatureFrame
folder = Path(sys.argv[1])
given = json.loads((folder / "given.json").read_text())
contract = Contract.from_dict(given["contract"])
frame = FeatureFrame.from_rows(given["rows"], contract)
scorer = CompiledScorer.open(folder)
reasons = open_reasons(folder, scorer, frame, contract=contract, told={})
print(json.dumps(reasons.explain(frame, scorer.score(frame))))
"""


@pytest.mark.parametrize("name", ["ridge", "boosting with categories"])
def test_a_device_gives_the_same_reasons(name: str, tmp_path: Path) -> None:
    compiled = compile_scorer(fitted(name))
    reasons, _ = reasons_of(compiled, tmp_path)
    for file, data in scorer_files(compiled).items():
        (tmp_path / file).write_bytes(data)
    few = GOLDEN.take(range(10))
    (tmp_path / "given.json").write_text(json.dumps({"contract": CONTRACT.to_dict(), "rows": few.rows()}))
    done = subprocess.run([sys.executable, "-c", DEVICE, tmp_path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == reasons.explain(few, compiled.score(few))


def test_a_scorer_that_was_opened_has_the_reasons_of_the_one_that_was_compiled(tmp_path: Path) -> None:
    compiled = compile_scorer(fitted("forest"))
    reasons, _ = reasons_of(compiled, tmp_path)
    for file, data in scorer_files(compiled).items():
        (tmp_path / file).write_bytes(data)
    opened = CompiledScorer.open(tmp_path)
    again = open_reasons(tmp_path, opened, GOLDEN, contract=CONTRACT, told={})
    scores = opened.score(GOLDEN)
    assert reasons.explain(GOLDEN, scores) == again.explain(GOLDEN, scores)
