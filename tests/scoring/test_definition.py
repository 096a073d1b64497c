"""A model definition says everything once; what it must not say is refused in one line."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from mlworkbench.errors import DefinitionError, UserCodeError
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView
from mlworkbench.scoring.definition import ModelDefinition, load_definition, refuse_main

FOUR: dict[str, Any] = {"name": "late", "estimator": LogisticRegression(), "data": "flights.csv", "label": "late"}


def calendar(month: Any) -> dict[str, Any]:
    return {"winter": month < 3}


WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6))


def test_four_fields_are_enough() -> None:
    definition = ModelDefinition(**FOUR)
    assert definition.deployments == ("one_off", "batch", "realtime")
    assert definition.time_views == () == definition.row_functions


def test_views_and_row_functions_are_told_apart() -> None:
    definition = ModelDefinition(**FOUR, prediction_time="asked_at", views=[WEATHER, RowFunction(calendar)])
    assert [v.name for v in definition.time_views] == ["weather"]
    assert [f.name for f in definition.row_functions] == ["calendar"]


def test_a_margin_classifier_may_have_any_threshold() -> None:
    assert ModelDefinition(**{**FOUR, "estimator": LinearSVC()}, threshold=-1.5).threshold == -1.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "Late Flights"}, "name: a lower-case letter"),
        ({"name": "late_"}, "no _ at the end"),
        ({"name": "x" * 41}, "at most 39"),
        ({"name": 3}, "got 3"),
        ({"name": "lake"}, "not a folder of the home"),
        ({"task": "binari"}, "did you mean 'binary'?"),
        ({"deployments": ("real_time",)}, "did you mean 'realtime'?"),
        ({"gates": {"roc_acu": (">=", 0.7)}}, "did you mean 'roc_auc'?"),
        ({"task": "regression", "gates": {"roc_auc": (">=", 0.7)}}, "one of mae, rmse, r2"),
        ({"gates": {"roc_auc": 0.7}}, "an operator and a number"),
        ({"gates": {"roc_auc": ("=>", 0.7)}}, "one of >=, <=, >, <"),
        ({"gates": {"roc_auc": (">=", float("nan"))}}, "an operator and a number"),
        ({"metrics": ("accurracy",)}, "did you mean 'accuracy'?"),
        ({"threshold": 30}, "between 0 and 1; got 30"),
        ({"threshold": True}, "between 0 and 1"),
        ({"task": "multiclass", "threshold": 0.5}, "binary models only"),
        ({"features": ("email", "x"), "personal": ("email",)}, "no personal column among the features; got 'email'"),
        ({"deployments": ("batch", "edge"), "personal": ("email",)}, "got personal email; leave edge out"),
        ({"features": ("flight", "x"), "entity": ("flight",)}, "no entity column among the features"),
        ({"features": ("late",)}, "no label column among the features"),
        ({"features": ("asked",), "prediction_time": "asked"}, "no times column among the features"),
        ({"entity": ("late",)}, "label: not an entity or time"),
        ({"entity": "flight"}, "write ('flight',)"),
        ({"views": (WEATHER,)}, "prediction_time: views and label_available_at need it"),
        ({"views": (calendar,)}, "wrap a function as RowFunction(f)"),
        ({"views": (RowFunction(calendar), RowFunction(calendar))}, "got 'calendar' twice"),
        ({"split": 1.5}, "a share between 0 and 1"),
        ({"split": "2013-09-01T00:00:00+00:00"}, "needs prediction_time"),
        ({"until": "2013-11-01", "prediction_time": "asked"}, "until: a time with an offset"),
        ({"until": 3, "prediction_time": "asked"}, "until: text such as"),
        ({"window": "365 days", "prediction_time": "asked"}, "window: a positive timedelta; got '365 days'"),
        ({"window": timedelta(0), "prediction_time": "asked"}, "write timedelta(days=365)"),
        ({"window": timedelta(days=365)}, "window: it needs prediction_time"),
        (
            {"window": timedelta(days=9), "prediction_time": "asked", "split": "2013-09-01T00:00:00+00:00"},
            "window: a split that moves with the rows, a share",
        ),
        ({"estimator": LogisticRegression}, "write LogisticRegression()"),
        ({"estimator": 3}, "got int"),
        ({"label": ""}, "label: the name of a column"),
    ],
)
def test_what_a_definition_must_not_say_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        ModelDefinition(**{**FOUR, **fields})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


GOOD = """
from sklearn.linear_model import LogisticRegression
from mlworkbench.scoring.definition import ModelDefinition
late = ModelDefinition("late", LogisticRegression(), "flights.csv", "late")
number = 3
"""


def test_a_definition_is_imported_by_module_and_attribute(modules: Path) -> None:
    (modules / "defined_here.py").write_text(GOOD)
    assert load_definition("defined_here:late").name == "late"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("defined_there:lat", "did you mean 'late'?"),
        ("defined_there:number", "'defined_there:number' is int"),
        ("defined_nowhere:late", "no module 'defined_nowhere'"),
        ("defined_there", "'module:attribute'"),
        ("__main__:late", "stands in __main__"),
    ],
)
def test_a_spec_that_leads_nowhere_is_refused(modules: Path, spec: str, message: str) -> None:
    (modules / "defined_there.py").write_text(GOOD)
    with pytest.raises(DefinitionError, match=message.replace("?", r"\?")):
        load_definition(spec)


def test_an_error_in_the_users_module_names_file_and_line(modules: Path) -> None:
    (modules / "defined_broken.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(UserCodeError, match=r"defined_broken\.py, line 2.*ZeroDivisionError"):
        load_definition("defined_broken:late")


def test_a_library_missing_in_the_users_module_is_the_users_error(modules: Path) -> None:
    (modules / "defined_needy.py").write_text("import no_such_library_at_all\n")
    with pytest.raises(UserCodeError, match=r"defined_needy\.py, line 1"):
        load_definition("defined_needy:late")


@pytest.mark.parametrize("field", ["data", "estimator"])
def test_a_function_in_main_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    def read() -> pd.DataFrame:
        return pd.DataFrame()

    monkeypatch.setattr(read, "__module__", "__main__")
    with pytest.raises(DefinitionError, match=r"cannot use .*read in late: .*move it to a module"):
        refuse_main(ModelDefinition(**{**FOUR, field: read}))


def test_an_estimator_class_in_main_is_refused_inside_a_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import make_pipeline

    class Shorten(BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> Shorten:
            return self

        def transform(self, X: Any) -> Any:
            return X

    monkeypatch.setattr(Shorten, "__module__", "__main__")
    with pytest.raises(DefinitionError) as raised:
        refuse_main(ModelDefinition(**{**FOUR, "estimator": make_pipeline(Shorten(), LogisticRegression())}))
    assert raised.value.code == "definition.in_main"


def test_a_definition_whose_parts_are_importable_passes() -> None:
    assert calendar.__module__ != "__main__" and __name__ in sys.modules
    refuse_main(ModelDefinition(**FOUR, views=(RowFunction(calendar),)))


def test_a_definition_in_a_file_that_the_standard_library_hides_is_told_with_both_files(modules: Path) -> None:
    (modules / "email.py").write_text("model = 1\n")
    import email

    with pytest.raises(DefinitionError) as caught:
        load_definition("email:model")
    assert str(modules / "email.py") in str(caught.value)
    assert str(email.__file__) in str(caught.value)
    assert str(caught.value).endswith("rename yours")
