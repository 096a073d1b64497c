"""The proof: rows that it makes, and programs that are wrong by a digit; none of them may stand in for the pipeline."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from test_compile import CONTRACT, FRAME, LATE, NUMBERS, TABLE, boosted, fitted, one_hot, ordinal

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ScoringError
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.made_rows import build_frame, find_places, list_values, make_rows
from mlworkbench.scoring.compiled.proof import (
    compile_and_prove,
    describe_proof,
    find_refused,
    make_proof_rows,
    measure_unit,
    prove,
)
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.compiled.tree_edges import GraphInputs, make_edge_rows, read_splits
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer

GOLDEN = FRAME.take(range(30))


def refused(scorer: CompiledScorer, reference: ReferenceScorer) -> str:
    with pytest.raises(ScoringError) as raised:
        prove(scorer, reference, GOLDEN, FRAME)
    assert raised.value.code == "scoring.not_proved"
    return str(raised.value)


def test_every_column_is_probed_with_every_kind_of_value_that_its_contract_admits() -> None:
    places = find_places(FRAME, CONTRACT)
    made = make_rows(places)
    asked = {(place.name, repr(value)) for row in made for place, value in row.changes}
    for name, values in {
        "carrier": ["''", "'AA'", "'AA '", "'aa'", repr("\x00 unknown")],
        "origin": ["None", "'SWF'", "'EWR'"],
        "distance": ["0.0", "-0.0", "1e+40", "-1e+100"],
        "wind": ["nan"],
        "minute": ["-1", "1099511627776"],
        "weekend": ["True", "False"],
    }.items():
        assert {(name, value) for value in values} <= asked, name
    assert ("distance", "nan") not in asked and ("carrier", "None") not in asked
    assert any(len(row.changes) > 3 for row in made)


def test_a_type_of_a_column_bounds_what_is_asked_of_it() -> None:
    (narrow,) = find_places(FeatureFrame({"x": np.array([3, 100])}), Contract((Column("x", "integer", dtype="int8"),)))
    assert set(list_values(narrow)) == {0, 1, -1, 2, 3, 4, 99, 100, 101}


def test_a_made_row_changes_one_row_and_leaves_the_pool_alone() -> None:
    pool = FeatureFrame({"x": np.array([[1.0, 2.0], [3.0, 4.0]]), "w": np.array(["a", None], dtype=object)})
    contract = Contract((Column("x", "vector", size=2), Column("w", "category", nullable=True)))
    made = make_rows(find_places(pool, contract), bases=2)
    frame = build_frame(pool, made)
    assert len(frame) == len(made) and pool.rows() == [{"x": [1.0, 2.0], "w": "a"}, {"x": [3.0, 4.0], "w": None}]
    for row, one in zip(frame.rows(), made, strict=True):
        if len(one.changes) == 1 and one.changes[0][0].name == "x[0]":
            assert row["x"][1] == [2.0, 4.0][one.base]


def test_a_split_has_a_row_on_either_side_whatever_stands_before_the_trees() -> None:
    before: dict[str, Any] = {
        "nothing": "passthrough",
        "a scaler": StandardScaler(),
        "a logarithm": FunctionTransformer(np.log1p),
    }
    contract = CONTRACT.select(["distance", "minute"])
    frame = FeatureFrame({name: FRAME.columns[name] for name in contract.names})
    for what, step in before.items():
        tree = make_pipeline(step, DecisionTreeRegressor(max_depth=3, random_state=0))
        reference = ReferenceScorer(tree.fit(frame_to_pandas(frame, contract), LATE), contract, "regression", [])
        scorer = compile_scorer(reference)
        (splits,) = map(read_splits, scorer.graphs)
        rows = make_edge_rows(scorer, frame, find_places(frame, contract))
        assert len(rows) == 3 * len(splits.feature), what
        features = GraphInputs(scorer, [splits])(build_frame(frame, rows))[0].reshape(len(splits.feature), 3, 2)
        order = np.argsort(splits.feature, kind="stable")  # columns of numbers come before those of whole numbers
        for node, (low, at, above) in zip(order.tolist(), features, strict=True):
            feature, edge = splits.feature[node], splits.threshold[node]
            assert low[feature] <= at[feature] <= edge < above[feature], what


def test_a_stack_of_programs_is_asked_at_the_edges_of_each_of_its_graphs() -> None:
    reference = fitted(make_pipeline(one_hot(), RandomForestClassifier(3, max_depth=3, random_state=0)), "binary")
    scorer = compile_scorer(reference)
    twice = {"kind": "pipeline", "steps": [], "model": {**scorer.program["model"], "graph": 1}}
    both = CompiledScorer({**scorer.program, "model": twice, "graphs": 2}, [*scorer.graphs, *scorer.graphs])
    rows = [make_edge_rows(one, FRAME, find_places(FRAME, CONTRACT)) for one in (scorer, both)]
    assert [row.what for row in rows[0]] == [row.what for row in rows[1]] and rows[0]


def changed_program(scorer: CompiledScorer, change: Callable[[Any], object]) -> CompiledScorer:
    program = json.loads(json.dumps(scorer.program))
    change(program)
    return CompiledScorer(program, scorer.graphs)


def changed_graph(scorer: CompiledScorer, name: str, change: Callable[[Any], Any]) -> CompiledScorer:
    model = onnx.load_model_from_string(scorer.graphs[0])
    (attribute,) = (one for one in model.graph.node[0].attribute if one.name == name)
    if attribute.HasField("t"):
        values = change(numpy_helper.to_array(attribute.t).copy())
        attribute.t.CopyFrom(numpy_helper.from_array(values))
    else:
        values = change(np.array(attribute.ints))
        del attribute.ints[:]
        attribute.ints.extend(values.tolist())
    return CompiledScorer(copy.deepcopy(dict(scorer.program)), [model.SerializeToString()])


def moved(place: int, to: float) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[place] = np.nextafter(values[place], to)
        return values

    return change


@pytest.fixture(scope="module")
def boosting() -> tuple[ReferenceScorer, CompiledScorer]:
    reference = fitted(make_pipeline(ordinal(), boosted(max_iter=8)), "binary")
    return reference, compile_scorer(reference)


def places_of_splits(scorer: CompiledScorer) -> list[int]:
    """Some nodes over all trees that ask about a column of numbers."""
    splits = read_splits(scorer.graphs[0])
    return np.flatnonzero((splits.mode == 0) & (splits.feature > 1) & np.isfinite(splits.threshold)).tolist()[::9]


def test_a_threshold_moved_by_its_last_digit_is_found(boosting: tuple[ReferenceScorer, CompiledScorer]) -> None:
    reference, scorer = boosting
    for node in places_of_splits(scorer):
        for to in (np.inf, -np.inf):
            assert "scores differ" in refused(changed_graph(scorer, "nodes_splits", moved(node, to)), reference)


def test_less_than_for_at_most_is_found(boosting: tuple[ReferenceScorer, CompiledScorer]) -> None:
    reference, scorer = boosting
    for node in places_of_splits(scorer):

        def less(modes: Any, node: int = node) -> Any:
            modes[node] = 1
            return modes

        refused(changed_graph(scorer, "nodes_modes", less), reference)


def test_the_other_way_for_a_missing_value_is_found(boosting: tuple[ReferenceScorer, CompiledScorer]) -> None:
    reference, scorer = boosting
    splits = read_splits(scorer.graphs[0])
    wind = np.flatnonzero((splits.feature == 3) & (splits.mode == 0)).tolist()
    for node in wind[:4]:

        def turn(ways: Any, node: int = node) -> Any:
            ways[node] = 1 - ways[node]
            return ways

        refused(changed_graph(scorer, "nodes_missing_value_tracks_true", turn), reference)


def test_one_leaf_changed_by_a_millionth_is_found(boosting: tuple[ReferenceScorer, CompiledScorer]) -> None:
    reference, scorer = boosting
    for leaf in range(0, 60, 12):

        def add(weights: Any, leaf: int = leaf) -> Any:
            weights[leaf] += 1e-6
            return weights

        refused(changed_graph(scorer, "leaf_weights", add), reference)


def _parts(program: Any) -> list[Any]:
    return [*program["steps"][0]["parts"]]


def _swap_codes(program: Any) -> None:
    table = _parts(program)[0]["steps"][0]["columns"][0]
    table["values"][0], table["values"][4] = table["values"][4], table["values"][0]


FAULTS: dict[str, Callable[[Any], object]] = {
    "two columns swapped": lambda p: _parts(p)[1]["take"].__setitem__(slice(0, 2), _parts(p)[1]["take"][1::-1]),
    "32 bits": lambda p: p["model"].update(allowed="missing float32"),
    "the codes of two categories swapped": _swap_codes,
    "an unknown category refused": lambda p: _parts(p)[0]["steps"][0]["columns"][0].update(unknown=None),
    "a baseline off by a millionth": lambda p: p["model"]["base"].__setitem__(0, p["model"]["base"][0] + 1e-6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_program_is_found(fault: str, boosting: tuple[ReferenceScorer, CompiledScorer]) -> None:
    reference, scorer = boosting
    prove(scorer, reference, GOLDEN, FRAME)
    refused(changed_program(scorer, FAULTS[fault]), reference)


def test_an_edge_behind_32_bits_is_found() -> None:
    reference = fitted(make_pipeline(one_hot(), RandomForestClassifier(5, max_depth=4, random_state=0)), "binary")
    scorer = compile_scorer(reference)
    assert scorer.program["model"]["allowed"].endswith("float32")
    refused(changed_program(scorer, lambda p: p["model"].update(allowed="missing")), reference)


def test_an_edge_of_a_step_is_probed_with_both_its_neighbours() -> None:
    program = {"steps": [{"op": "bins", "edges": [[250.0, 1000.5]]}], "columns": ["distance"]}
    scorer: Any = type("Scorer", (), {"program": program, "graphs": []})()
    contract = CONTRACT.select(["distance"])
    frame = FeatureFrame({"distance": FRAME.columns["distance"]})
    _, made = make_proof_rows(scorer, ReferenceScorer(None, contract, "regression", []), frame, frame)
    asked = {value for row in made for _, value in row.changes}
    assert {np.nextafter(1000.5, 0), 1000.5, np.nextafter(1000.5, 2000), 250.0} <= asked


@pytest.mark.parametrize("size", [1e9, 1.0, 1e-9])
@pytest.mark.parametrize("by", [0.4, 1e-2, 1e-4, 1e-7])
def test_an_intercept_off_by_a_little_is_found_at_every_size_of_the_target(size: float, by: float) -> None:
    random = np.random.default_rng(0)
    contract, frame = Contract((Column("a", "number"),)), FeatureFrame({"a": random.normal(size=300)})
    target = size + size / 10 * frame.columns["a"]
    line = LinearRegression().fit(frame_to_pandas(frame, contract), target)
    reference = ReferenceScorer(line, contract, "regression", [])
    few = frame.take(range(20))
    scorer, facts = compile_and_prove(reference, few, frame)
    assert scorer is not None, facts
    wrong = changed_program(scorer, lambda p: p["model"].update(intercepts=[float(line.intercept_) * (1 + by)]))
    with pytest.raises(ScoringError, match="scores differ"):
        prove(wrong, reference, few, frame)


def test_prices_that_lie_close_together_far_from_nothing_have_a_unit_of_their_own() -> None:
    random = np.random.default_rng(0)
    contract, frame = Contract((Column("a", "number"),)), FeatureFrame({"a": random.normal(size=300)})
    trees = HistGradientBoostingRegressor(max_iter=5).fit(frame_to_pandas(frame, contract), 1e9 + frame.columns["a"])
    reference = ReferenceScorer(trees, contract, "regression", [])
    few = frame.take(range(20))
    scorer, facts = compile_and_prove(reference, few, frame)
    assert scorer is not None, facts
    wrong = changed_program(scorer, lambda p: p["model"].update(base=[p["model"]["base"][0] + 0.01]))
    with pytest.raises(ScoringError, match="scores differ"):
        prove(wrong, reference, few, frame)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20), st.sampled_from([1e-9, 1.0, 1e9]))
def test_the_unit_follows_the_scores(scores: list[float], size: float) -> None:
    one, other = measure_unit(np.array(scores)), measure_unit(np.array(scores) / 2)
    assert one > 0 and (other == pytest.approx(one / 2) or one == 1.0 or one < 1e-300)
    assert measure_unit(np.array([5.0, 6.0]) * size) == pytest.approx(size)
    assert measure_unit(np.array([5.0, 6.0]), single=True) == 6.0


def test_the_rows_that_are_refused_are_found_among_many() -> None:
    reference = fitted(make_pipeline(ordinal(-1), RandomForestClassifier(3, random_state=0)), "binary")
    frame = FRAME.take(range(300))
    for row in (0, 7, 8, 299):
        frame.columns["distance"][row] = 1e40
    assert [*find_refused(compile_scorer(reference), frame)] == [*find_refused(reference, frame)] == [0, 7, 8, 299]


class Lenient:
    """Answers what the compiled scorer refuses."""

    def __init__(self, scorer: CompiledScorer) -> None:
        self.scorer, self.program, self.graphs = scorer, scorer.program, scorer.graphs

    def answer(self, frame: FeatureFrame) -> Any:
        columns = {name: np.minimum(v, 1e30) if v.dtype == float else v for name, v in frame.columns.items()}
        return self.scorer.answer(FeatureFrame(columns))


class Strict(Lenient):
    """Refuses zeros, which the pipeline answers."""

    def answer(self, frame: FeatureFrame) -> Any:
        if (frame.columns["distance"] == 0.0).any():
            raise ScoringError("zero")
        return self.scorer.answer(frame)


@pytest.mark.parametrize(("kind", "who"), [(Lenient, "pipeline"), (Strict, "compiled scorer")])
def test_who_refuses_other_rows_than_the_pipeline_is_not_proved(kind: type[Lenient], who: str) -> None:
    reference = fitted(make_pipeline(ordinal(-1), RandomForestClassifier(3, random_state=0)), "binary")
    scorer: Any = kind(compile_scorer(reference))
    assert f"only the {who} refuses it" in refused(scorer, reference)


def test_progress_is_told_in_rows_and_ends_at_all_of_them() -> None:
    told: list[tuple[str, int, int | None]] = []
    steps = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
    )
    pipeline = make_pipeline(steps, LogisticRegression()).fit(TABLE, LATE)
    reference = ReferenceScorer(pipeline, CONTRACT, "binary", [False, True], True)
    _, facts = compile_and_prove(reference, GOLDEN, FRAME, progress=lambda *one: told.append(one))
    assert {what for what, _, _ in told} == {"proof"}
    assert told[-1][1] == told[-1][2] == facts["rows"] - len(GOLDEN) + facts["probes"]
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_refusal_names_step_and_columns_and_the_card_repeats_it() -> None:
    numbers = make_pipeline(SimpleImputer(), FunctionTransformer(lambda x: x))
    pipeline = make_pipeline(make_column_transformer((numbers, ["distance", "wind"])), LogisticRegression())
    _, facts = compile_and_prove(fitted(pipeline, "binary"), GOLDEN, FRAME)
    assert "(step 1 of 2 > step 2 of 2, columns distance, wind)" in facts["reason"] and "; " in facts["reason"]
    section = describe_proof(facts)
    assert section.startswith("\n\n## Scorer\n\nNot compiled") and facts["reason"].replace("`", "'") in section
    assert "Compiled: proved equal" in describe_proof({"rows": 1000, "probes": 5, "max_difference": 0.0})
