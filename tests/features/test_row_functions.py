"""Row functions: what they get, what they may return, and what is said when they fail."""

import numpy as np
import pandas as pd
import pytest

from mlworkbench.errors import FeatureError, UserCodeError
from mlworkbench.features.row_functions import RowFunction, apply_row_functions


def double(x):
    return {"twice": 2 * x}


def twice_plus_one(twice):
    return {"more": twice + 1}


def fails_on_zero(x, name):
    if (x == 0).any():
        raise ValueError("zero is not\nallowed")
    return {"inverse": 1 / x}


def fails_on_many(x):
    if len(x) > 1:
        raise ValueError("one at a time")
    return {"y": x}


def fails_always(more):
    raise ValueError("no")


def mutates(x):
    x[0] = 5.0
    return {"y": x}


def length_in_pandas(name, x):
    assert isinstance(name, pd.Series)
    return pd.DataFrame({"length": name.str.len().astype("Int64"), "upper": name.str.upper(), "x1": x + 1})


def pandas_mutates(x):
    x.iloc[0] = -1.0
    return {"y": x}


RETURNED = {}


def returns_whatever(x):
    return RETURNED["value"]


def columns(n=8):
    return {"x": np.arange(1.0, n + 1), "name": np.array([f"n{i}" for i in range(n)], dtype=object)}


def test_later_functions_read_what_earlier_ones_made_and_given_columns_stay():
    found = apply_row_functions(columns(3), [double, RowFunction(twice_plus_one)])
    assert list(found) == ["x", "name", "twice", "more"]
    assert found["more"].tolist() == [3.0, 5.0, 7.0]


@pytest.mark.parametrize("row", [0, 3, 7])
def test_an_error_names_file_line_and_the_failing_row(row):
    given = columns()
    given["x"][row] = 0
    with pytest.raises(UserCodeError) as caught:
        apply_row_functions(given, [fails_on_zero])
    text = str(caught.value)
    assert caught.value.code == "user_code.row_function"
    assert "\n" not in text
    assert f"row {row} (x=0.0, name='n{row}')" in text
    line = fails_on_zero.__code__.co_firstlineno + 2
    assert f"test_row_functions.py, line {line}, in fails_on_zero" in text and "ValueError: zero is not allowed" in text
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_personal_value_and_what_was_made_of_it_stay_out_of_the_error():
    given = {"x": np.array([1.0, 0.0]), "name": np.array(["Ada", "Grace"], dtype=object)}
    with pytest.raises(UserCodeError, match=r"row 1 \(x=0.0, name=\(withheld: personal\)\)"):
        apply_row_functions(given, [fails_on_zero], personal=["name"])
    made = {"twice": np.array([3.0, 41.5])}
    with pytest.raises(UserCodeError, match=r"row 0 \(more=\(withheld: personal\)\)") as failure:
        apply_row_functions(made, [twice_plus_one, fails_always], personal=["twice"])
    assert failure.value.__cause__ is None and failure.value.__suppress_context__


def test_an_error_of_several_rows_together_says_so():
    with pytest.raises(UserCodeError, match="no single row"):
        apply_row_functions(columns(), [fails_on_many])


def test_inputs_cannot_be_changed():
    given = columns()
    with pytest.raises(UserCodeError, match="read-only"):
        apply_row_functions(given, [mutates])
    assert apply_row_functions(given, [RowFunction(pandas_mutates, pandas=True)])["y"][0] == -1.0
    assert given["x"][0] == 1.0 and given["x"].flags.writeable


def test_pandas_functions_get_series_and_missing_text_comes_back_as_none():
    given = {"name": np.array(["ab", None], dtype=object), "x": np.array([1.0, np.nan])}
    found = apply_row_functions(given, [RowFunction(length_in_pandas, pandas=True)])
    assert found["length"].dtype == np.float64 and found["length"][0] == 2 and np.isnan(found["length"][1])
    assert found["upper"].tolist() == ["AB", None]
    assert found["x1"].dtype == np.float64
    one = apply_row_functions({k: v[:1] for k, v in given.items()}, [RowFunction(length_in_pandas, pandas=True)])
    assert one["length"].dtype == np.float64


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.arange(8, dtype=np.float32), np.float64),
        (np.arange(8, dtype=np.int16), np.int64),
        (np.arange(8, dtype=np.uint8), np.int64),
        (np.ones(8, dtype=bool), np.bool_),
        (np.array(["a"] * 8), object),
        (np.ones((8, 3), dtype=np.float32), np.float64),
    ],
)
def test_narrow_types_are_widened(value, dtype):
    RETURNED["value"] = {"y": value}
    assert apply_row_functions(columns(), [returns_whatever])["y"].dtype == dtype


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "dictionary"),
        ({}, "dictionary"),
        ({1: np.ones(8)}, "dictionary"),
        ([np.ones(8)], "dictionary"),
        ({"y": [1.0] * 8}, "column 'y'.*numpy array.*list"),
        ({"y": 1.0}, "column 'y'.*numpy array.*float"),
        ({"y": np.ones(7)}, r"column 'y'.*8.*\(7,\)"),
        ({"y": np.float64(3)}, "column 'y'"),
        ({"y": np.array(1.0)}, "column 'y'"),
        ({"y": np.ones((8, 2, 2))}, "column 'y'"),
        ({"y": np.ones((8, 2), dtype=bool)}, "column 'y'.*float matrix"),
        ({"y": np.zeros(8, dtype="datetime64[us]")}, "column 'y'.*datetime64"),
        ({"y": np.zeros(8, dtype=complex)}, "column 'y'.*complex"),
        ({"y": np.array([b"a"] * 8)}, "column 'y'"),
        ({"y": np.array([1.5, "a"] * 4, dtype=object)}, "column 'y'.*float 1.5"),
        ({"y": np.full(8, 2**63, dtype=np.uint64)}, "64 bits"),
        ({"x": np.ones(8)}, "'x' is there already"),
    ],
)
def test_wrong_answers_are_refused_by_name(value, words):
    RETURNED["value"] = value
    with pytest.raises(FeatureError, match=words) as caught:
        apply_row_functions(columns(), [returns_whatever])
    assert "returns_whatever" in str(caught.value)
    assert caught.value.code in ("features.row_function_output", "features.column_twice")


def test_a_missing_input_is_named():
    with pytest.raises(FeatureError, match=r"double.*'x'.*did you mean 'xx'"):
        apply_row_functions({"xx": np.ones(2)}, [double])


def test_functions_that_cannot_be_found_again_are_refused():
    def nested(x):
        return {"y": x}

    for function in (nested, lambda x: {"y": x}, len, 3):
        with pytest.raises(FeatureError) as refused:
            RowFunction(function)
        assert refused.value.code == "features.row_function_invalid"


def with_default(x, y=1):
    return {}


def with_star(*columns):
    return {}


def without_input():
    return {}


@pytest.mark.parametrize("function", [with_default, with_star, without_input])
def test_signatures_that_do_not_name_columns_are_refused(function):
    with pytest.raises(FeatureError) as refused:
        RowFunction(function)
    assert refused.value.code == "features.row_function_invalid" and "column" in str(refused.value)


def test_no_rows_give_no_rows():
    found = apply_row_functions({"x": np.ones(0)}, [double])
    assert found["twice"].shape == (0,)
