"""The pipeline is given the very frame it was fitted on: its dtypes, its kinds of missing, its unseen categories."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.special
import sklearn
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from mlworkbench.cli.models.train import read_frame
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.request import request_columns
from mlworkbench.errors import DefinitionError, ScoringError, VersionError, WorkbenchError
from mlworkbench.evaluation.log.labels import rebuild_frame
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.replay.replay import replay_log
from mlworkbench.operate.training.assembly import assemble
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.artifacts.skops_file import dump_pipeline, load_pipeline
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import Version, predict, with_reference

ROWS = 120


def holes(values: list[Any], missing: object, seed: int) -> list[Any]:
    draws = np.random.default_rng(seed).random(len(values))
    return [missing if draw < 0.2 else value for value, draw in zip(values, draws, strict=True)]


def every_kind(count: int, seed: int, *, unseen: tuple[str, ...] = ()) -> pd.DataFrame:
    """One column for each kind of dtype and of missing."""
    draws = np.random.default_rng(seed)
    words = draws.choice(["x", "y", "z", *unseen], count).tolist()
    whole = [int(value) for value in draws.integers(0, 4, count)]
    truth = [bool(value) for value in draws.integers(0, 2, count)]
    known = pd.CategoricalDtype(["z", "y", "x", *unseen])
    return pd.DataFrame(
        {
            "none": pd.Series(holes(words, None, seed), dtype=object),
            "nan": pd.Series(holes(words, np.nan, seed + 1), dtype=object),
            "category": pd.Series(holes(words, None, seed + 2)).astype(known),
            "other": pd.Series(words[::-1]).astype(known),
            "str": pd.Series(holes(words, None, seed + 3)).astype(pd.StringDtype(na_value=np.nan)),
            "int_none": pd.Series(holes(whole, None, seed + 4), dtype=object),
            "bool_none": pd.Series(holes(truth, None, seed + 5), dtype=object),
            "bool_nan": pd.Series(holes(truth, np.nan, seed + 6), dtype=object),
            "boolean": pd.Series(holes(truth, pd.NA, seed + 7), dtype="boolean"),
            "Int64": pd.Series(holes(whole, pd.NA, seed + 8), dtype="Int64"),
            "Float64": pd.Series(holes(whole, pd.NA, seed + 9), dtype="Float64"),
            "float32": pd.Series(holes(whole, np.nan, seed + 10), dtype="float32"),
            "all_none": pd.Series([None] * count, dtype=object),
        }
    )


def polars_kinds(count: int, seed: int, *, unseen: tuple[str, ...] = ()) -> pl.DataFrame:
    draws = np.random.default_rng(seed)
    words = holes(draws.choice(["x", "y", "z", *unseen], count).tolist(), None, seed)
    whole = holes([int(value) for value in draws.integers(0, 4, count)], None, seed + 1)
    truth = holes([bool(value) for value in draws.integers(0, 2, count)], None, seed + 2)
    return pl.DataFrame(
        {
            "text": pl.Series(words, dtype=pl.String),
            "categorical": pl.Series(words, dtype=pl.Categorical),
            "enum": pl.Series(words, dtype=pl.Enum(["z", "y", "x", *unseen])),
            "truth": pl.Series(truth),
            "whole": pl.Series(whole, dtype=pl.Int64),
            "float": pl.Series(whole, dtype=pl.Float64),
        }
    )


def plain(value: Any) -> Any:
    gone = value is None or value is pd.NA or value != value
    return None if gone else value.item() if isinstance(value, np.generic) else value


def records(X: Any) -> list[dict[str, Any]]:
    listed = X.to_dicts() if isinstance(X, pl.DataFrame) else X.to_dict("records")
    return json.loads(json.dumps([{name: plain(value) for name, value in row.items()} for row in listed]))


def asked(version: Version, rows: list[dict[str, Any]]) -> np.ndarray:
    request = request_columns(rows, version)
    assert not request.refused, request.refused[0].line()
    return predict(version, request.columns, {}, faults=request.faults).scores


def made(pipeline: Any, X: Any, y: Any, home: Any) -> Version:
    return Registry(home).open("m", register(pipeline, X, y, name="m", home=home).tag)


def labels(X: Any) -> np.ndarray:
    counts = (
        [sum(plain(value) is None for value in row) for row in X.rows()]
        if isinstance(X, pl.DataFrame)
        else (X.isna().sum(axis=1).to_numpy())
    )
    return (np.asarray(counts) + np.random.default_rng(7).normal(size=len(X)) > np.mean(counts)).astype(int)


def both(version: Version) -> list[Version]:
    reference = with_reference(version)
    return [reference, version] if version.scorer.kind == "compiled" else [reference]


ENCODERS = {
    "one-hot": lambda: OneHotEncoder(handle_unknown="ignore"),
    "ordinal": lambda: OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
}


@pytest.mark.parametrize("encoder", ["one-hot", pytest.param("ordinal", marks=pytest.mark.long)])
@pytest.mark.parametrize("kinds", [every_kind, polars_kinds])
def test_rows_of_every_kind_are_answered_as_the_pipeline_answers_them(home, tmp_path, encoder, kinds) -> None:
    X = kinds(ROWS, 0)
    steps = [(ENCODERS[encoder](), [name]) for name in X.columns]
    pipeline = make_pipeline(make_column_transformer(*steps), LogisticRegression()).fit(X, labels(X))
    version = made(pipeline, X, labels(X), home)
    fresh = kinds(40, 50, unseen=("q", "w"))
    for rows in (X, fresh):
        expected = pipeline.predict_proba(rows)[:, 1]
        for one in both(version):
            np.testing.assert_allclose(asked(one, records(rows)), expected, rtol=0, atol=1e-12)
        singles = [float(asked(version, [record])[0]) for record in records(rows)[:6]]
        np.testing.assert_allclose(singles, expected[:6], rtol=0, atol=1e-12)
    for ending in ("parquet", "csv"):
        path, table = tmp_path / f"in.{ending}", fresh if kinds is polars_kinds else pl.DataFrame(records(fresh))
        getattr(table, f"write_{ending}")(path)
        report = score_file(version, path, home=home, out=tmp_path / f"out_{ending}.csv")
        assert (report.scored, report.rejected) == (40, 0), report.first_fault
        got = pl.read_csv(report.out)["score"].to_numpy()
        np.testing.assert_allclose(got, pipeline.predict_proba(fresh)[:, 1], rtol=0, atol=1e-12)


def test_a_filled_none_is_filled_in_production_too(home) -> None:
    X = every_kind(ROWS, 0)[["none"]]
    fill = SimpleImputer(strategy="constant", fill_value="gone", missing_values=None)
    pipeline = make_pipeline(fill, OneHotEncoder(), LogisticRegression()).fit(X, labels(X))
    version = made(pipeline, X, labels(X), home)
    for one in both(version):
        np.testing.assert_allclose(asked(one, records(X)), pipeline.predict_proba(X)[:, 1], rtol=0, atol=1e-12)


def test_an_array_of_objects_and_a_series_keep_their_kind_of_missing(home) -> None:
    X = every_kind(ROWS, 0)[["none", "int_none"]].to_numpy()
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(
        X, np.arange(ROWS) % 3 > 1
    )
    version = made(pipeline, X, np.arange(ROWS) % 3 > 1, home)
    rows = records(pd.DataFrame(X, columns=["x0", "x1"], dtype=object))
    np.testing.assert_allclose(asked(version, rows), pipeline.predict_proba(X)[:, 1], rtol=0, atol=1e-12)


# --- two kinds of missing in one column --------------------------------------------------------------------------


def mixed() -> pd.DataFrame:
    texts = pd.Series(["x", None, "y", np.nan, None] * 24, dtype=object)  # `str` of pandas 3 has one kind of missing
    return pd.DataFrame({"t": texts, "a": np.linspace(-1, 1, ROWS)})


def test_two_kinds_of_missing_that_the_pipeline_tells_apart_are_refused(home) -> None:
    X = mixed()
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["t"]), remainder="passthrough")
    pipeline = make_pipeline(encode, LogisticRegression()).fit(X, X.a > 0)
    with pytest.raises(DefinitionError, match=r"column 't'.*: None in 48 rows and NaN in 24 rows") as raised:
        register(pipeline, X, X.a > 0, name="m", home=home)
    assert raised.value.code == "definition.missing_kinds"
    assert Registry(home).models() == []


def test_two_kinds_of_missing_that_are_one_to_the_pipeline_pass(home) -> None:
    X = mixed()
    pipeline = make_pipeline(make_column_transformer((StandardScaler(), ["a"])), LogisticRegression()).fit(X, X.a > 0)
    version = made(pipeline, X, X.a > 0, home)
    assert version.frame.column("t").missing == "none"
    np.testing.assert_allclose(asked(version, records(X)), pipeline.predict_proba(X)[:, 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ending", "kind"), [("parquet", "none"), ("jsonl", "none"), ("csv", "nan")])
def test_a_definition_reads_missing_texts_as_a_notebook_does(home, tmp_path, ending, kind) -> None:
    path = tmp_path / f"rows.{ending}"
    table = pl.DataFrame({"t": ["x", None, "y", "z"] * 10, "late": [0, 1, 1, 0] * 10})
    {"parquet": table.write_parquet, "jsonl": table.write_ndjson, "csv": table.write_csv}[ending](path)
    read = {"parquet": pd.read_parquet, "jsonl": lambda p: pd.read_json(p, lines=True), "csv": pd.read_csv}[ending](
        path
    )
    found = assemble(ModelDefinition("m", LogisticRegression(), str(path), "late"), Lake(home.lake))
    assert found.contract.column("t").missing == kind
    given = frame_to_pandas(found.frame, found.contract)["t"].tolist()
    assert [type(value) for value in given] == [type(value) for value in read["t"]]


def test_a_file_of_the_command_line_is_read_as_pandas_reads_it(tmp_path) -> None:
    table = pl.DataFrame({"t": ["x", None], "n": [1, None], "y": [0, 1]})
    table.write_csv(tmp_path / "rows.csv")
    table.write_parquet(tmp_path / "rows.parquet")
    for ending, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        given, wanted = read_frame(str(tmp_path / f"rows.{ending}"), "y"), read(tmp_path / f"rows.{ending}")
        assert [type(value) for value in given["t"]] == [type(value) for value in wanted["t"]]


# --- categories that training did not see ------------------------------------------------------------------------


def categories(values: list[str], known: list[str], count: int = ROWS) -> pd.DataFrame:
    repeated = (values * count)[:count]
    return pd.DataFrame({"t": pd.Categorical(repeated, known), "a": np.linspace(-1, 1, count)})


def test_a_strict_encoder_refuses_an_unseen_category_and_names_the_row(home) -> None:
    X = categories(["x", "y", "z"], ["x", "y", "z"])
    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["t"]), remainder="passthrough"), LogisticRegression()
    )
    version = made(pipeline.fit(X, X.a > 0), X, X.a > 0, home)
    for one in both(version):
        with pytest.raises(ScoringError, match="refuses row 1"):
            asked(one, [{"t": "x", "a": 0.5}, {"t": "q", "a": 0.5}])
        assert np.isfinite(asked(one, [{"t": "x", "a": 0.5}])).all()


def test_boosting_reads_an_unseen_category_as_it_does_in_the_notebook(home) -> None:
    X = categories(["x", "y", None, "z", "z"], ["z", "x", "y"])
    y = (X.t == "x") | (X.a > 0.5)
    boosting = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=3, min_samples_leaf=5)
    version = made(boosting.fit(X, y), X, y, home)
    fresh = categories(["q", "x", None, "w"], ["z", "x", "y", "q", "w"], 12)
    for one in both(version):
        np.testing.assert_allclose(asked(one, records(fresh)), boosting.predict_proba(fresh)[:, 1], rtol=0, atol=1e-12)


# --- narrow and large numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "wrong", "right"),
    [
        ("int8", [300, 256, -200, 1.5], [4, -128, 127.0]),
        ("uint8", [-1, 256], [255]),
        ("uint64", [-1], [5]),
        ("float32", [1e40, -1e39], [0.1, 3.4028235e38, None]),
        ("float16", [7e4], [0.1, 65504]),
        ("Int8", [300, 1.5], [4, None]),
        ("Int64", [1.5, 2**53 + 1, 2**60], [4, None]),
    ],
)
def test_what_leaves_the_type_of_a_column_is_a_fault_of_that_value_alone(home, tmp_path, dtype, wrong, right) -> None:
    hole = [np.nan] if dtype.startswith("float") else [pd.NA] if dtype[0] == "I" else []
    X = pd.DataFrame({"k": pd.Series([1, 2, 3, *hole] * 12, dtype=dtype)})
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, np.arange(len(X)) % 2)
    version = made(model, X, np.arange(len(X)) % 2, home)
    rows = [{"k": value} for value in [*wrong, *right]]
    for bodies in (rows, *[[row] for row in rows[: len(wrong)][:2]]):
        refused = {fault.row: fault for fault in request_columns(bodies, version).refused}
        assert sorted(refused) == list(range(len(bodies)))[: len(wrong)]
        assert all(
            "whole number" in f.rule or f"outside the type {dtype} of the column" in f.rule for f in refused.values()
        )
    path = tmp_path / "in.csv"
    pl.DataFrame({"k": pl.Series([row["k"] for row in rows], strict=False), "n": range(len(rows))}).write_csv(path)
    report = score_file(version, path, home=home, out=tmp_path / "out.csv")
    assert (report.scored, report.rejected) == (len(right), len(wrong)), report.first_fault
    want = model.predict_proba(pd.DataFrame({"k": pd.Series(right).astype(dtype)}))[:, 1]
    np.testing.assert_allclose(asked(version, rows[len(wrong) :]), want, rtol=0, atol=1e-12)


def test_whole_numbers_beyond_two_to_the_53_are_exact_to_the_log(home, tmp_path) -> None:
    X = pd.DataFrame({"id": 2**60 + np.arange(40) % 4, "a": np.arange(40.0)})
    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["id"]), remainder="passthrough"), LinearRegression()
    )
    version = made(pipeline.fit(X, X["id"] % 4 * 100.0), X, X["id"] % 4 * 100.0, home)
    for one in both(version):
        np.testing.assert_allclose(asked(one, records(X)), pipeline.predict(X), rtol=0, atol=1e-9)
    path = tmp_path / "in.csv"
    X.to_csv(path, index=False)
    report = score_file(version, path, home=home, out=tmp_path / "out.csv")
    np.testing.assert_allclose(pl.read_csv(report.out)["score"].to_numpy(), pipeline.predict(X), rtol=0, atol=1e-9)
    log = read_log(home.log("m"))
    assert rebuild_frame(log, version.frame).columns["id"].tolist() == X["id"].tolist()
    assert {row.verdict for row in replay_log(log, "m", home=home).rows} == {"equal"}


@pytest.mark.parametrize("dtype", ["Int64", "uint64"])
def test_a_large_number_that_no_kind_keeps_is_refused_by_name(home, dtype) -> None:
    values = [2**60, pd.NA] * 20 if dtype == "Int64" else [2**63 + 5, 2**63 + 6] * 20
    X = pd.DataFrame({"id": pd.Series(values, dtype=dtype)})
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, np.arange(40) % 3 > 1)
    with pytest.raises(WorkbenchError, match="'id'"):
        register(model, X, np.arange(40) % 3 > 1, name="m", home=home)


def test_classes_beyond_two_to_the_53_stay_apart(home) -> None:
    X = pd.DataFrame({"a": np.linspace(-1, 1, 60)})
    y = np.where(X.a > 0, 2**53 + 1, 2**53)
    pipeline = LogisticRegression().fit(X, y)
    version = made(pipeline, X, y, home)
    assert version.declaration["classes"] == [2**53, 2**53 + 1]
    found = predict(version, request_columns(records(X), version).columns, {})
    assert found.decisions.tolist() == pipeline.predict(X).tolist()


# --- settings and functions --------------------------------------------------------------------------------------


def test_what_steps_hand_on_in_the_notebook_they_hand_on_in_production(home) -> None:
    X = pd.DataFrame({"a": np.linspace(-1, 1, 60), "b": np.linspace(3, 5, 60)})
    first = make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough", verbose_feature_names_out=False)
    second = make_column_transformer((StandardScaler(), ["b"]), remainder="passthrough")
    with sklearn.config_context(transform_output="pandas"):
        pipeline = make_pipeline(first, second, LogisticRegression()).fit(X, X.a > 0)
        expected = pipeline.predict_proba(X)[:, 1]
        tag = register(pipeline, X, X.a > 0, name="m", home=home).tag
    version = Registry(home).open("m", tag)
    assert version.declaration["sklearn_settings"] == {"transform_output": "pandas"}
    assert (asked(with_reference(version), records(X)) == expected).all()


def test_a_version_does_not_take_on_the_settings_around_it(home) -> None:
    X = pd.DataFrame({"t": ["x", "y", "z"] * 20, "a": np.linspace(-1, 1, 60)})
    encode = make_column_transformer((OneHotEncoder(), ["t"]), remainder="passthrough")
    pipeline = make_pipeline(encode, LogisticRegression()).fit(X, X.a > 0)
    version = made(pipeline, X, X.a > 0, home)
    assert "sklearn_settings" not in version.declaration
    with sklearn.config_context(transform_output="pandas"):  # refuses the sparse output of the encoder
        again = asked(with_reference(version), records(X))
    assert (again == pipeline.predict_proba(X)[:, 1]).all()


def test_an_output_set_on_the_pipeline_itself_is_kept(home) -> None:
    X = pd.DataFrame({"a": np.linspace(-1, 1, 60), "b": np.linspace(3, 5, 60)})
    steps = [
        make_column_transformer((StandardScaler(), [name]), remainder="passthrough") for name in ("a", "remainder__b")
    ]
    pipeline = make_pipeline(*steps, LogisticRegression()).set_output(transform="pandas").fit(X, X.a > 0)
    version = made(pipeline, X, X.a > 0, home)
    assert (asked(with_reference(version), records(X)) == pipeline.predict_proba(X)[:, 1]).all()


@pytest.mark.parametrize("wanted", [np.number, [object, "category"], "number", ["int8", "float64"]])
def test_columns_are_selected_by_their_dtype_without_a_line_of_trust(home, wanted) -> None:
    X = pd.DataFrame({"a": np.linspace(1, 2, 40), "k": pd.Series([1, 2] * 20, dtype="int8"), "t": ["x", "y"] * 20})
    words = make_column_selector(dtype_include=wanted)
    picked = words(X)
    step = OneHotEncoder(handle_unknown="ignore") if "t" in picked else StandardScaler()
    pipeline = make_pipeline(make_column_transformer((step, words)), LinearRegression()).fit(X, X.a.to_numpy())
    version = made(pipeline, X, X.a.to_numpy(), home)
    np.testing.assert_allclose(asked(version, records(X)), pipeline.predict(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "more"),
    [(np.log1p, {}), (np.sqrt, {}), (np.clip, {"a_min": 1.2, "a_max": 1.5}), (scipy.special.expit, {}), (np.round, {})],
)
def test_functions_of_numpy_need_no_line_of_trust(home, function, more) -> None:
    X = pd.DataFrame({"a": np.linspace(1, 2, 40)})
    pipeline = make_pipeline(FunctionTransformer(function, kw_args=more), LinearRegression()).fit(X, X.a.to_numpy())
    version = made(pipeline, X, X.a.to_numpy(), home)
    np.testing.assert_allclose(asked(version, records(X)), pipeline.predict(X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", [np.load, np.fromfile, np.save, np.memmap, np.vectorize, np.loadtxt])
def test_functions_that_run_code_or_touch_files_are_not_trusted(tmp_path, function) -> None:
    dump_pipeline(FunctionTransformer(function), tmp_path / "pipeline.skops")
    with pytest.raises(VersionError, match=rf"numpy\.{function.__name__}"):
        load_pipeline(tmp_path / "pipeline.skops")


def test_texts_are_given_back_in_the_type_in_which_the_installed_pandas_reads_them(home, tmp_path) -> None:
    """`str` from pandas 3, object before: a frame of the user's own, and the same rows read from a file."""
    X = pd.DataFrame({"t": ["x", "y", None, "z"] * 30, "a": np.linspace(-1, 1, ROWS)})
    y = pd.Series(X.a > 0, name="late")
    X.assign(late=y).to_csv(tmp_path / "rows.csv", index=False)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["t"]), remainder="passthrough")
    pipeline = make_pipeline(encode, LogisticRegression()).fit(X, y)
    version, predicted = made(pipeline, X, y, home), pipeline.predict_proba(X)[:, 1]
    for data in (X.assign(late=y), str(tmp_path / "rows.csv")):
        found = assemble(ModelDefinition("m", LogisticRegression(), data, "late"), Lake(home.lake))
        assert frame_to_pandas(found.frame, found.contract)["t"].dtype == X["t"].dtype
        np.testing.assert_allclose(version.scorer.score(found.frame), predicted, rtol=0, atol=1e-12)
