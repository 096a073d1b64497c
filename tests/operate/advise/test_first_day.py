"""A newcomer's first day: from rows to commands that work."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.errors import DefinitionError
from mlworkbench.operate.advise.compilable import guess_task
from mlworkbench.operate.advise.first_day import examine_first_day, plan_steps, propose_name
from mlworkbench.operate.advise.own_rows import Doubt
from mlworkbench.scoring.definition import check_name

DRAWS = np.random.default_rng(0)
ROWS = pd.DataFrame({"a": DRAWS.normal(size=150), "b": DRAWS.normal(size=150)})
LATE = np.where(ROWS.a + 0.5 * DRAWS.normal(size=150) > 0, "yes", "no")


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([0.0, 1.0, np.nan], "binary"),
        ([0.0, 1.0, 2.0], "multiclass"),
        ([*range(21)], "regression"),
        ([0.5, 1.0], "regression"),
        ([*"abc"], "multiclass"),
        ([True, False, None], "binary"),
        ([str(k) for k in range(30)], "multiclass"),
    ],
)
def test_what_is_predicted_is_guessed_from_the_labels(labels, task) -> None:
    text = any(isinstance(value, str | bool) for value in labels)
    assert guess_task(np.array(labels, dtype=object if text else float)) == task


@pytest.mark.parametrize("labels", [[], [1.0, 1.0, np.nan], [None, "x"]])
def test_a_label_without_two_values_is_refused_in_one_line(labels) -> None:
    with pytest.raises(DefinitionError) as raised:
        guess_task(np.array(labels, dtype=object if None in labels else float))
    assert raised.value.code == "advise.label_constant"


@pytest.mark.parametrize(
    "file",
    [
        "a.csv",
        "Über Büro.csv",
        "2013.csv",
        "---.csv",
        "s3://bucket/day=1/rows.parquet",
        "lake.csv",
        "x" * 99,
        "x_" * 30,
    ],
)
def test_every_file_gives_a_name_that_a_model_may_have(file: str) -> None:
    assert check_name(propose_name(file))


def test_the_usual_families_are_tried_on_the_rows_themselves() -> None:
    found = examine_first_day(ROWS.assign(late=LATE), "late", source="rows.csv")
    told = {one.model: one for one in found.compiling}
    assert told["LogisticRegression"].compiles and told["HistGradientBoostingClassifier"].compiles
    assert told["KNeighborsClassifier"].compiles and told["SVC"].compiles
    assert found.facts["task"] == "binary" and sum(found.facts["classes"].values()) == 150


def test_a_quantity_is_tried_with_regressors() -> None:
    found = examine_first_day(ROWS.assign(price=ROWS.a * 3 + 1), "price", source="rows.csv")
    assert [one.model for one in found.compiling][:2] == ["Ridge", "RandomForestRegressor"]
    assert found.compiling[0].compiles and "from " in found.headline()


@pytest.mark.parametrize(
    ("estimator", "compiles"), [(LogisticRegression(), True), (KNeighborsClassifier(algorithm="brute"), False)]
)
def test_a_given_pipeline_is_judged_in_place_of_the_families(estimator, compiles) -> None:
    pipeline = make_pipeline(StandardScaler(), estimator).fit(ROWS, LATE)
    found = examine_first_day(ROWS.assign(late=LATE), "late", source="rows.csv", model="m.skops", pipeline=pipeline)
    assert [(one.model, one.compiles) for one in found.compiling] == [("m.skops", compiles)]
    assert found.steps[0].startswith("mlworkbench register m.skops --name rows")


def test_a_pipeline_of_other_columns_is_told_and_not_raised() -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS.rename(columns={"a": "c"}), LATE)
    found = examine_first_day(ROWS.assign(late=LATE), "late", source="rows.csv", model="m.skops", pipeline=pipeline)
    assert not found.compiling[0].compiles and "register would refuse it" in found.compiling[0].reason


def test_one_that_was_never_fitted_is_refused() -> None:
    with pytest.raises(DefinitionError, match="not fitted"):
        examine_first_day(ROWS.assign(late=LATE), "late", source="r", model="m", pipeline=LogisticRegression())


def test_a_key_that_the_pipeline_was_fitted_on_is_no_option_of_register() -> None:
    rows = ROWS.assign(order_id=np.arange(150), late=LATE)
    with_key = LogisticRegression().fit(rows.drop(columns="late"), LATE)
    without = LogisticRegression().fit(ROWS, LATE)
    steps = [
        examine_first_day(rows, "late", source="r.csv", model="m", pipeline=one).steps[0] for one in (with_key, without)
    ]
    assert ["--key order_id" in step for step in steps] == [False, True]


def test_the_commands_survive_a_shell() -> None:
    doubts = [Doubt("a b", "key", "", ""), Doubt("c'd", "person", "", "")]
    register = plan_steps("my rows.csv", "is late", name="m", model="the model.skops", apart=doubts)[0]
    assert shlex.split(register)[2:] == [
        *("the model.skops", "--name", "m", "--data", "my rows.csv", "--label", "is late"),
        *("--key", "a b", "--personal", "c'd"),
    ]


def test_refused_columns_are_first_and_left_out_of_the_rest() -> None:
    rows = ROWS.assign(when=pd.date_range("2013-10-01", periods=150, freq="h"), late=LATE)
    found = examine_first_day(rows, "late", source="rows.csv")
    assert (found.doubts[0].column, found.doubts[0].kind) == ("when", "refused")
    assert [column["column"] for column in found.columns] == ["a", "b"]


def test_a_forest_without_rows_of_a_class_is_told() -> None:
    rare = LATE.copy()
    rare[0] = "never"
    found = examine_first_day(ROWS.assign(late=rare), "late", source="rows.csv")
    assert [one.kind for one in found.doubts if one.column == "late"] == ["rare"]


def test_a_wide_table_fits_a_screen_and_json_has_all_of_it() -> None:
    wide = pd.DataFrame({f"c{k}": np.arange(150) + k for k in range(40)}).assign(late=LATE)
    model = RandomForestRegressor(2).fit(wide.drop(columns="late"), ROWS.a)
    found = examine_first_day(wide.assign(late=ROWS.a), "late", source="wide.csv", model="m", pipeline=model)
    assert len(found.list_doubts()) <= 18 and len(found.to_dict()["doubts"]) == 40


def test_many_rare_words_and_holes_fall_no_family() -> None:
    """Encoded they are a matrix of zeros, which some families take only dense."""
    words = DRAWS.choice([f"w{k}" for k in range(60)], 300).astype(object)
    words[::7] = None
    rows = pd.DataFrame({"word": words, "n": DRAWS.normal(size=300), "late": DRAWS.random(300) > 0.5})
    found = examine_first_day(rows, "late", source="rows.csv")
    assert len(found.compiling) == 5 and not [one for one in found.compiling if "cannot be fitted" in one.reason]


def test_a_family_that_cannot_be_fitted_is_told() -> None:
    few = ROWS.head(12).assign(late=["a", "b", "c"] * 4)
    assert len(examine_first_day(few.head(4), "late", source="rows.csv").compiling) == 5
