"""A definition is checked on some of its rows, by the functions of training, and nothing of it stays behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.advise.definition_check import check_definition
from mlworkbench.scoring.definition import ModelDefinition

START = datetime(2026, 3, 1, tzinfo=UTC)
DRAWS = np.random.default_rng(0)
ROWS = pl.DataFrame(
    {
        "place": [("north", "south")[k % 2] for k in range(400)],
        "asked_at": [START + timedelta(hours=k) for k in range(400)],
        "size": DRAWS.normal(size=400),
        "late": DRAWS.integers(0, 2, 400),
    }
)
COUNTS = pl.DataFrame(
    {
        "place": ["north", "south"] * 20,
        "pieces": np.arange(40.0),
        "counted_at": [START + timedelta(hours=10 * k) for k in range(40)],
    }
)
CONTRACT = Contract((Column("place", "category"), Column("pieces", "number", lower=0), Column("counted_at", "time")))
STOCK = Table("stock", COUNTS, CONTRACT, available_at="counted_at", happened_at="counted_at")
VIEW = AsOfView("stock", "stock", ("place",), ("pieces",))


class OwnClassifier(ClassifierMixin, BaseEstimator):
    """Nobody has a rule for it."""

    def fit(self, X, y):
        return self


def lookups(**more) -> ModelDefinition:
    fields = {"entity": ("place",), "prediction_time": "asked_at", "views": (VIEW,), "tables": (STOCK,)}
    return ModelDefinition("late", HistGradientBoostingClassifier(), ROWS, "late", **(fields | more))


def plain(estimator=None, rows: pl.DataFrame = ROWS, **more) -> ModelDefinition:
    kept = rows.select("size", *[name for name in rows.columns if name not in ("place", "asked_at", "size")])
    return ModelDefinition("late", estimator or LogisticRegression(), kept, "late", **more)


@pytest.fixture
def home(tmp_path) -> Home:
    return Home.open(tmp_path / "home")


@pytest.fixture
def told(home):
    """What is found of a definition that is not ok: state and line by check."""

    def ask(definition):
        found = list(check_definition(definition, home=home))
        return {finding.check: finding for finding in found if finding.state != "ok"}

    return ask


def test_a_definition_that_holds_is_ok_in_every_part_and_leaves_nothing(home, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = list(check_definition(lookups(), home=home))
    assert [(one.check, one.state) for one in found] == [
        (name, "ok") for name in ("table stock", "rows", "contract", "label", "view stock", "leaks", "compiles")
    ]
    assert sorted(tmp_path.rglob("*")) == before
    assert "first 40 rows 0 break the contract" in found[0].found


def test_tables_that_the_lake_has_are_taken_from_there(home):
    ingest(STOCK, home=home)
    found = {one.check: one.found for one in check_definition(lookups(), home=home)}
    assert found["table stock"] == "40 rows in the lake" and found["rows"] == "400 drawn"


def test_rows_that_break_the_contract_of_a_table_are_counted(told):
    few = COUNTS.with_columns(pieces=pl.when(pl.col("pieces") == 7).then(-1.0).otherwise("pieces"))
    finding = told(lookups(tables=(replace(STOCK, source=few),)))["table stock"]
    assert finding.state == "warn" and "40 rows 1 break" in finding.found and "ingest" in finding.way_out


def test_a_table_that_cannot_be_read_fails_and_what_hangs_on_it_is_left_out(home):
    lost = lookups(tables=(replace(STOCK, source="no_such.csv"),))
    found = list(check_definition(lost, home=home))
    assert [(one.check, one.state) for one in found] == [("table stock", "fail"), ("compiles", "ok")]


def test_a_view_that_never_finds_anything_fails(told):
    elsewhere = COUNTS.with_columns(place=pl.lit("east"))
    finding = told(lookups(tables=(replace(STOCK, source=elsewhere),)))["view stock"]
    assert finding.state == "fail" and "100.0%" in finding.found and "place = place" in finding.way_out


def test_a_table_that_was_known_before_it_happened_leaks(told):
    later = COUNTS.with_columns(seen_at=pl.col("counted_at") + timedelta(hours=9))
    contract = Contract((*CONTRACT.columns, Column("seen_at", "time")))
    early = replace(STOCK, source=later, contract=contract, happened_at="seen_at")
    finding = told(lookups(tables=(early,)))["leaks"]
    assert finding.state == "fail" and "pieces" in finding.found and finding.way_out


def test_a_column_that_orders_the_labels_is_told_without_a_prediction_time_too(told):
    finding = told(plain(rows=ROWS.with_columns(paid=pl.col("late") * 2.0 + 1)))["leaks"]
    assert finding.state == "warn" and finding.found.startswith("paid: its value alone orders the labels")


def test_a_label_with_one_value_fails_with_the_sentence_of_training(told):
    finding = told(plain(rows=ROWS.with_columns(late=pl.lit(1))))["label"]
    assert (finding.state, finding.way_out) == (
        "fail",
        "check label and split",
    ) and "at least two classes" in finding.found


def test_a_gate_of_another_task_fails_with_the_nearest_name(told):
    finding = told(plain(gates={"mae": ("<=", 3)}))["gates"]
    assert (
        finding.state == "fail" and "mae is no metric of a binary model" in finding.found and "brier" in finding.way_out
    )


def test_a_split_beyond_the_first_rows_of_a_table_is_no_failure(told, home):
    beyond = lookups(split="2026-06-01T00:00:00+00:00")
    assert told(beyond)["label"].state == "warn"
    ingest(STOCK, home=home)
    assert told(beyond)["label"].state == "fail"


def test_what_has_no_rule_is_a_warning_and_a_failure_for_a_device(told):
    own = make_pipeline(StandardScaler(), OwnClassifier())
    finding = told(plain(own))["compiles"]
    assert finding.state == "warn" and finding.found.endswith("OwnClassifier")
    assert told(plain(GridSearchCV(own, {}), deployments=("one_off", "edge")))["compiles"].state == "fail"


def test_a_constant_feature_and_a_key_among_the_features_are_named(home):
    rows = ROWS.with_columns(unit=pl.lit(3.0), order_id=pl.Series([f"A{k}" for k in range(400)]))
    found = [one for one in check_definition(plain(rows=rows), home=home) if one.state == "warn"]
    assert {one.found.partition(":")[0]: one.state for one in found} == {"unit": "warn", "order_id": "warn"}
    assert "key='order_id'" in next(one.way_out for one in found if "order_id" in one.found)


def test_an_error_of_the_users_own_code_is_one_finding_with_its_place(told):
    def rows():
        raise ValueError("no rows today")

    found = told(ModelDefinition("late", LogisticRegression(), rows, "late"))
    assert set(found) == {"rows"} and "test_definition_check.py, line" in found["rows"].found


def test_persons_are_checked_before_there_is_a_key_and_none_is_made(told, home):
    rows = ROWS.with_columns(customer=pl.Series([f"c{k % 30}" for k in range(400)])).drop("place", "asked_at")
    own = ModelDefinition("late", LogisticRegression(), rows, "late", entity=("customer",), personal=("customer",))
    assert told(own) == {}
    assert not [path for path in home.path.rglob("*") if "pseudonym" in path.name]
