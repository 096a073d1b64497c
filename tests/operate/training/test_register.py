"""A fitted pipeline becomes a version with one call."""

from __future__ import annotations

import traceback

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import AdaBoostClassifier, HistGradientBoostingClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlworkbench
from mlworkbench.contract.pseudonym import open_pseudonyms
from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.request import request_columns
from mlworkbench.errors import DefinitionError, IngestError, ScoringError
from mlworkbench.operate.training.register import name_columns, register
from mlworkbench.operate.training.train import find_definition
from mlworkbench.scoring.artifacts.manifest import read_document
from mlworkbench.scoring.compiled import proof
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import predict


def rows(count: int = 60) -> tuple[pd.DataFrame, pd.Series]:
    draws = np.random.default_rng(0)
    X = pd.DataFrame({"distance": draws.uniform(100, 2500, count), "carrier": draws.choice(["AA", "UA"], count)})
    X["carrier"] = X["carrier"].astype("category")
    return X, pd.Series(X["distance"] + draws.normal(0, 300, count) > 1300, name="late")


def boosting(X: pd.DataFrame, y: pd.Series) -> object:
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5, random_state=0)
    return model.fit(X, y)


def test_one_call_makes_a_version_that_answers_like_the_pipeline(home) -> None:
    X, y = rows()
    pipeline = boosting(X, y)
    result = register(pipeline, X, y, name="late", home=home)
    version = Registry(home).open("late", result.tag)
    columns = {"distance": X["distance"].to_numpy(), "carrier": X["carrier"].astype(object).to_numpy()}
    assert np.array_equal(predict(version, columns, {}).scores, pipeline.predict_proba(X)[:, 1])
    assert version.request == version.frame
    assert version.frame.column("carrier").dtype == "category"


def test_metrics_are_marked_as_given_and_gates_stay_undecided(home) -> None:
    X, y = rows()
    result = register(boosting(X, y), X, y, name="late", home=home)
    assert result.gates == {"verdict": "undecided", "gates": []}
    assert {metric["rows"] for metric in result.metrics.values()} == {"as given"}
    assert Registry(home).open("late", result.tag).declaration["label"] == "late"


def test_stretches_of_rows_stand_for_days_and_missing_labels_are_not_counted(home) -> None:
    X, y = rows(200)
    pipeline = boosting(X, y)
    known = y.astype(object).where(np.arange(200) >= 50, None)
    blocks = read_document(register(pipeline, X, known, name="late", home=home).folder, "profile.json")["blocks"]
    assert [(block["day"], block["judged"], block["counts"]["rows"]) for block in blocks] == [(None, False, 25)] * 8
    assert [block["counts"]["labels"]["n"] for block in blocks] == [0, 0] + [25] * 6


def test_rows_and_labels_are_kept_in_the_lake_once(home) -> None:
    X, y = rows()
    first = register(boosting(X, y), X, y, name="late", home=home)
    again = register(boosting(X, y), X, y, name="late", home=home)
    assert (first.created, again.created) == (True, False)
    kept = Lake(home.lake).read("late_rows")
    assert kept.columns == ["distance", "carrier", "late"]
    assert kept.height == 60


def test_a_version_that_keeps_its_other_scorer_says_so(home, monkeypatch) -> None:
    X, y = rows()
    kept = {"name": "late", "deployments": ("one_off", "batch"), "home": home}
    with monkeypatch.context() as patch:
        patch.setattr(proof, "compile_scorer", lambda _: raise_missing())
        first = register(boosting(X, y), X, y, **kept)
    again = register(boosting(X, y), X, y, **kept)
    assert (first.tag, first.notes) == (again.tag, ())
    assert "it keeps its reference scorer, a compiled one was made now" in again.line
    assert Registry(home).open("late").scorer.kind == "reference"


def raise_missing() -> None:
    raise ScoringError("onnxruntime is missing")


def test_the_facade_opens_the_home_that_settings_name(home) -> None:
    X, y = rows()
    result = mlworkbench.register(boosting(X, y), X, y, name="late")
    assert Registry(home).models() == ["late"]
    assert result.folder.is_dir()


@pytest.mark.parametrize("how", ["array", "list", "polars"])
def test_arrays_and_other_frames_are_fed_as_they_were_fitted(home, how) -> None:
    draws = np.random.default_rng(0)
    array, target = draws.normal(size=(50, 2)), draws.normal(size=50)
    X = {"array": array, "list": array.tolist(), "polars": pl.DataFrame(array, schema=["a", "b"])}[how]
    line = LinearRegression().fit(np.asarray(array), target)
    if how == "polars":
        line = LinearRegression().fit(X.to_pandas(), target)
    result = register(line, X, target, name="line", home=home)
    version = Registry(home).open("line", result.tag)
    names = ("a", "b") if how == "polars" else ("x0", "x1")
    scores = predict(version, dict(zip(names, array.T, strict=True)), {}).scores
    assert np.allclose(scores, line.coef_ @ array.T + line.intercept_, rtol=0, atol=1e-12)
    assert version.declaration["input"] == ("polars" if how == "polars" else "array")


def test_texts_are_fed_as_texts(home) -> None:
    words, answers = ["late again", "on time"] * 20, ["late", "fine"] * 20
    reader = make_pipeline(CountVectorizer(), LogisticRegression()).fit(words, answers)
    result = register(reader, pd.Series(words, name="note"), answers, name="words", home=home)
    version = Registry(home).open("words", result.tag)
    found = predict(version, {"note": np.array(["so late", "time"], dtype=object)}, {})
    assert found.decisions.tolist() == ["late", "fine"]


def test_rows_without_a_label_are_not_measured(home) -> None:
    X, y = rows()
    holes = y.astype(object)
    holes[::3] = None
    result = register(boosting(X, y), X, holes, name="late", home=home)
    assert result.metrics["accuracy"]["n"] == 40


def test_a_registered_model_has_no_definition_to_train(home) -> None:
    X, y = rows()
    register(boosting(X, y), X, y, name="late", home=home)
    with pytest.raises(DefinitionError) as raised:
        find_definition("late", home=home)
    assert raised.value.code == "definition.registered_only"


def test_what_cannot_be_registered_is_refused_and_nothing_is_written(home) -> None:
    X, y = rows()
    fitted = boosting(X, y)
    for wrong, code in [
        (lambda: register(HistGradientBoostingClassifier(), X, y, name="late", home=home), "register.not_fitted"),
        (lambda: register("model", X, y, name="late", home=home), "register.no_estimator"),
        (lambda: register(fitted, X, y[:5], name="late", home=home), "register.labels_shape"),
        (lambda: register(fitted, X.assign(late=y), y, name="late", home=home), "register.label_in_rows"),
        (lambda: register(fitted, X, y, name="Late!", home=home), "definition"),
        (lambda: register(StandardScaler().fit(X[["distance"]]), X, y, name="late", home=home), "definition.task"),
        (lambda: register(fitted, np.zeros((2, 2, 2)), y, name="late", home=home), "register.rows_type"),
    ]:
        with pytest.raises(DefinitionError) as raised:
            wrong()
        assert raised.value.code.startswith(code)
    assert Registry(home).models() == []
    assert not Lake(home.lake).exists("late_rows")


def test_rows_and_labels_of_a_shape_nobody_can_read_are_one_line(home) -> None:
    X, y = rows()
    pipeline = boosting(X, y)
    for wrong, labels, said in (
        (pd.concat([X, X], axis=1), y, "two columns called 'distance'"),
        (csr_matrix(X[["distance"]].to_numpy()), y, "X is a csr_matrix"),
        ("model.csv", y, "X is a str"),
        (X, np.c_[y, y], "y has 2 axes"),
        (X, y.to_frame(), "y has 2 axes"),
    ):
        with pytest.raises(DefinitionError, match=said):
            register(pipeline, wrong, labels, name="late", home=home)
    assert Registry(home).models() == []


def test_a_label_that_only_inherited_the_name_of_a_column_gets_its_own(home) -> None:
    X, _ = rows()
    far = X["distance"] > 1300
    result = register(boosting(X, far), X, far, name="far", home=home)
    assert Lake(home.lake).read("far_rows").columns == ["distance", "carrier", "label"]
    assert result.metrics["accuracy"]["n"] == 60


def test_columns_of_arrays_get_names_and_frames_keep_theirs() -> None:
    assert name_columns(np.zeros((3, 2)))[0].columns == ["x0", "x1"]
    assert name_columns(["a", "b"])[0].columns == ["text"]
    assert name_columns(pd.DataFrame({1: [2]}))[0].columns == ["1"]


PERSON = "Zaphodia-Quxx-7731"


def passengers() -> tuple[pd.DataFrame, pd.Series]:
    X, y = rows()
    return X.assign(passenger=[PERSON, None, "Bob"] * 20), y


@pytest.mark.parametrize("dtype", ["object", "category"])
@pytest.mark.parametrize("how", ["apart", "dropped"])
def test_who_is_personal_is_kept_by_pseudonym_and_is_no_input(home, how, dtype) -> None:
    X, y = passengers()
    X["passenger"] = X["passenger"].astype(dtype)
    far = ColumnTransformer([("far", StandardScaler(), ["distance"])])
    pipeline = make_pipeline(far, LogisticRegression()).fit(X if how == "dropped" else X[["distance", "carrier"]], y)
    result = register(pipeline, X, y, name="late", personal=("passenger",), home=home)
    version, of = Registry(home).open("late", result.tag), open_pseudonyms(home).of
    assert version.request.column("passenger").pseudonym and version.frame.names == ("distance", "carrier")
    assert version.declaration["entity"] == version.declaration["personal"] == ["passenger"]
    assert version.declaration["pseudonym_key"] == open_pseudonyms(home).name
    stored = Lake(home.lake).read("late_rows")["passenger"].to_list()
    assert stored[:3] == [of(PERSON), None, of("Bob")]
    asked = request_columns([{"distance": 700.0, "carrier": "AA", "passenger": PERSON}], version)
    assert asked.columns["passenger"].tolist() == [of(PERSON)] and not asked.faults
    assert not register(pipeline, X, y, name="late", personal=("passenger",), home=home).created


def test_a_pipeline_that_learned_names_is_refused_and_nothing_is_written(home) -> None:
    X, y = passengers()
    X["passenger"] = X["passenger"].fillna("nobody")
    by_name = ColumnTransformer([("who", OneHotEncoder(), ["passenger"]), ("far", StandardScaler(), ["distance"])])
    for personal, pipeline, said in (
        (("passenger",), make_pipeline(by_name, LogisticRegression()).fit(X, y), "refuses rows without"),
        (
            ("passenger",),
            boosting(X.astype({"passenger": "category"}), y),
            "refuses rows without 'passenger'",
        ),
        (("pasenger",), boosting(X[["distance", "carrier"]], y), "no column 'pasenger' .* did you mean 'passenger'"),
        (("distance",), boosting(X[["carrier"]], y), "column 'distance' names a person.*got Float64"),
        (("late",), boosting(X[["carrier"]], y), "label: not an entity"),
        ("passenger", boosting(X[["carrier"]], y), r"personal: a tuple; got 'passenger'; write \('passenger',\)"),
    ):
        with pytest.raises((DefinitionError, IngestError), match=said) as failure:
            register(pipeline, X, y, name="late", personal=personal, home=home)
        assert PERSON not in "".join(traceback.format_exception(failure.value))
    assert Registry(home).models() == [] and not Lake(home.lake).exists("late_rows")


def test_rows_that_lie_there_in_clear_are_refused_before_a_version_is_made(home) -> None:
    X, y = passengers()
    pipeline = boosting(X[["distance", "carrier"]], y)
    Lake(home.lake).overwrite("late_rows", pl.from_pandas(X).to_arrow())
    with pytest.raises(IngestError, match="'late_rows': column 'passenger' must hold pseudonyms; got plain values"):
        register(pipeline, X, y, name="late", personal=("passenger",), home=home)
    assert Registry(home).models() == []


def test_a_column_that_mixes_kinds_is_told_without_its_values(home) -> None:
    X, y = passengers()
    for mixed in ([7, *X["passenger"][1:]], [PERSON, *range(59)]):
        with pytest.raises(DefinitionError, match="column 'passenger'") as failure:
            register(boosting(X[["distance"]], y), X.assign(passenger=mixed), y, name="late", home=home)
        assert failure.value.code == "register.mixed_column"
        assert PERSON not in "".join(traceback.format_exception(failure.value))


def test_times_of_any_zone_and_precision_beside_the_features_are_kept(home) -> None:
    X, y = rows()
    zoned = pd.date_range("2026-03-28", periods=len(X), freq="h", tz="Europe/Berlin")
    pipeline = make_pipeline(ColumnTransformer([("a", StandardScaler(), ["distance"])]), LogisticRegression())
    register(pipeline.fit(X, y), X.assign(utc=zoned.tz_convert("UTC"), local=zoned), y, name="late", home=home)
    kept = Lake(home.lake).read("late_rows")
    assert str(kept.schema["utc"]) == str(kept.schema["local"])
    assert kept["utc"].to_list() == kept["local"].to_list()


BOOSTED = AdaBoostClassifier(n_estimators=3, random_state=0)
OWN = FixedThresholdClassifier(LogisticRegression(), threshold=0.3)


@pytest.mark.parametrize(
    "kind",
    [
        lambda encode: OneVsRestClassifier(make_pipeline(encode, BOOSTED)),
        lambda encode: StackingClassifier([("a", make_pipeline(encode, LogisticRegression()))], OWN, cv=2),
    ],
)
def test_what_keeps_a_model_from_compiling_is_named(home, kind) -> None:
    X, y = rows()
    encode = ColumnTransformer([("a", StandardScaler(), ["distance"]), ("b", OneHotEncoder(), ["carrier"])])
    model = kind(encode).fit(X, y)
    tag = register(model, X, y, name="late", home=home).tag
    assert type(model).__name__ in Registry(home).open("late", tag).manifest["compiled"]["reason"]
