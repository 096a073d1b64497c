"""What services that are not ours answer is read without guessing: a label is no score, a missing number no zero."""

from __future__ import annotations

import numpy as np
import pytest

from mlworkbench.operate.certify.wire import WIRE_FORMATS, read_values

BINARY = {"task": "binary", "classes": ["no", "yes"], "positive": "yes"}
NUMBERED = {"task": "binary", "classes": [0, 1], "positive": 1}
SEVERAL = {"task": "multiclass", "classes": ["a", "b", "c"], "positive": None}
REGRESSION = {"task": "regression", "classes": [], "positive": None}
ROWS = [
    {"x": 1.5, "n": 3, "c": "UA", "b": True, "v": [1.0, 2.0]},
    {"x": None, "n": 4, "c": None, "b": False, "v": [3, 4]},
]


@pytest.mark.parametrize(
    ("values", "declaration", "scores", "decisions"),
    [
        ([0.25, 0.75], BINARY, [0.25, 0.75], None),
        ([[0.75, 0.25], [0.25, 0.75]], BINARY, [0.25, 0.75], None),
        ([{"no": 0.75, "yes": 0.25}], BINARY, [0.25], None),
        ([{"score": 0.25, "decision": "no"}, {"score": 0.75, "decision": "yes"}], BINARY, [0.25, 0.75], ["no", "yes"]),
        ([{"probabilities": [0.75, 0.25], "prediction": "no"}], BINARY, [0.25], ["no"]),
        (["no", "yes"], BINARY, None, ["no", "yes"]),
        ([{"label": "yes"}], BINARY, None, ["yes"]),
        ([0, 1, 1], NUMBERED, None, [0, 1, 1]),
        ([0.0, 1.0], NUMBERED, None, [0, 1]),
        ([True, False], NUMBERED, None, [1, 0]),
        (["0", "1"], NUMBERED, None, [0, 1]),
        ([0, 0.5, 1], NUMBERED, [0.0, 0.5, 1.0], None),
        ([[0], [1]], NUMBERED, None, [0, 1]),
        ([{"prediction": 0.5}], NUMBERED, [0.5], None),
        ([{"prediction": [0.5, 0.5]}], NUMBERED, [0.5], None),
        ([[0.5, 0.25, 0.25]], SEVERAL, [[0.5, 0.25, 0.25]], None),
        ([{"scores": {"c": 0.25, "a": 0.5, "b": 0.25}, "decision": "a"}], SEVERAL, [[0.5, 0.25, 0.25]], ["a"]),
        (["c", "a"], SEVERAL, None, ["c", "a"]),
        ([1, 2.5], REGRESSION, [1.0, 2.5], None),
        ([[1.0], [2.5]], REGRESSION, [1.0, 2.5], None),
        ([{"prediction": 3}], REGRESSION, [3.0], None),
    ],
)
def test_scores_and_decisions_are_read_from_each_form(values, declaration, scores, decisions) -> None:
    found, faults = read_values(values, declaration)
    assert not faults and found.rows == list(range(len(values)))
    assert (found.scores is None) == (scores is None) and found.decisions == decisions
    assert scores is None or np.array_equal(found.scores, scores)


@pytest.mark.parametrize(
    ("values", "declaration", "rows", "said"),
    [
        ([0.5, None], BINARY, [1], "a finite score is needed; got null"),
        ([0.5, "0.7 of Ada"], REGRESSION, [1], "a finite score is needed; got a text"),
        ([0.5, float("inf")], BINARY, [1], "a finite score is needed; got inf"),
        (["no", "perhaps"], BINARY, [1], "one of the classes is needed; got a text"),
        (["no", None], BINARY, [1], "one of the classes is needed; got null"),
        ([[0.5, 0.5, 0.0]], BINARY, [0], "a finite score is needed; got 3 values"),
        ([[0.5, None]], BINARY, [0], "a finite score is needed; got 2 values"),
        ([0.5, 0.25], SEVERAL, [0, 1], "a finite score for each of 3 classes is needed; got 0.5"),
        ([{"answer": 3}], REGRESSION, [0], "a finite score is needed; got nothing"),
        ([{"answer": 3}], BINARY, [0], "a finite score is needed; got nothing"),
        ([True], REGRESSION, [0], "a finite score is needed; got a bool"),
        ([10**400], REGRESSION, [0], "a finite score is needed; got a int"),
        ([10**400], NUMBERED, [0], "a finite score is needed; got a int"),
        ([[]], REGRESSION, [0], "a finite score is needed; got 0 values"),
    ],
)
def test_what_is_no_answer_is_said_row_by_row_and_no_text_is_repeated(values, declaration, rows, said) -> None:
    found, faults = read_values(values, declaration)
    assert sorted(faults) == rows and said in faults[rows[0]] and "Ada" not in faults[rows[0]]
    assert found.rows == [row for row in range(len(values)) if row not in rows]


@pytest.mark.parametrize(
    ("name", "answer", "values"),
    [
        ("records", [1.0], [1.0]),
        ("records", {"predictions": [1.0]}, [1.0]),
        ("records", {"model": "a", "results": [1.0]}, [1.0]),
        ("records", {"model": ["a"], "results": [1.0]}, None),
        ("records", {"detail": "no"}, None),
        ("records", "no", "no"),
        ("mlflow", {"predictions": [0, 1]}, [0, 1]),
        ("v2", {"outputs": [{"name": "predict", "shape": [2], "datatype": "INT64", "data": [0, 1]}]}, [0, 1]),
        ("v2", {"outputs": [{"shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}]}, [[1, 2], [3, 4]]),
        ("v2", {"outputs": [{"shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [3, 4]]}]}, [[1, 2], [3, 4]]),
        (
            "v2",
            {"outputs": [{"datatype": "BYTES", "data": ["a"]}, {"datatype": "FP64", "shape": [1, 1], "data": [0.5]}]},
            [0.5],
        ),
        ("v2", {"error": "unknown model"}, None),
        ("v2", {"outputs": 5}, None),
        ("v2", {"outputs": [{"datatype": "FP64", "shape": 5, "data": [1.0]}]}, [1.0]),
        ("v2", {"outputs": [{"datatype": "FP64", "shape": ["a", "b"], "data": [1.0]}]}, [1.0]),
        ("v2", {"outputs": [{"datatype": "FP64", "shape": [0.5, 2.0], "data": [1.0]}]}, [1.0]),
        ("v2", [1.0], None),
    ],
)
def test_the_list_with_one_value_a_row_is_found_or_not(name, answer, values) -> None:
    assert WIRE_FORMATS[name].read(answer) == values


def test_each_format_keeps_every_value_and_what_is_missing() -> None:
    assert WIRE_FORMATS["records"].write(ROWS, "") == ROWS
    assert WIRE_FORMATS["bento"].write(ROWS, "rows") == {"rows": ROWS} and WIRE_FORMATS["bento"].write(ROWS, "") == ROWS
    split = WIRE_FORMATS["mlflow"].write(ROWS, "")["dataframe_split"]
    assert [dict(zip(split["columns"], row, strict=True)) for row in split["data"]] == ROWS
    tensors = {one["name"]: one for one in WIRE_FORMATS["v2"].write(ROWS, "")["inputs"]}
    kinds = {name: (one["datatype"], one["shape"]) for name, one in tensors.items()}
    assert kinds == {
        "x": ("FP64", [2, 1]),
        "n": ("INT64", [2, 1]),
        "c": ("BYTES", [2, 1]),
        "b": ("BOOL", [2, 1]),
        "v": ("FP64", [2, 2]),
    }
    assert tensors["x"]["data"] == [1.5, None] and tensors["v"]["data"] == [1.0, 2.0, 3, 4]
