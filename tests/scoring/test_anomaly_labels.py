"""Labels of anomalies: two forms, read alike wherever they come in, and what is measured with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from mlworkbench.errors import DefinitionError, LogError
from mlworkbench.evaluation.log.label_writer import read_label
from mlworkbench.evaluation.monitoring.counts import count_labels
from mlworkbench.evaluation.monitoring.measures import measure_line
from mlworkbench.evaluation.monitoring.profile import profile_frame
from mlworkbench.metrics.bootstrap import check_gates, measure
from mlworkbench.metrics.catalogue import list_metrics
from mlworkbench.operate.training.split import clean_labels, infer_task
from mlworkbench.scoring.anomaly_labels import find_label_form, read_anomaly_labels
from mlworkbench.scoring.decision import decide
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.frame import FeatureFrame

RULE = {"task": "anomaly", "classes": [-1, 1], "positive": 1, "threshold": -0.5, "decision": None}


@pytest.mark.parametrize(
    ("labels", "form", "read"),
    [
        ([-1.0, 1.0, np.nan], "signs", [-1, 1, None]),
        ([1.0, 0.0, np.nan], "flags", [-1, 1, None]),
        ([True, False, None], "flags", [-1, 1, None]),
        ([True, 1, 0], "flags", [-1, -1, 1]),
        ([1, 1], "signs", [1, 1]),
        ([0, 0], "flags", [1, 1]),
        ([None, None], "signs", [None, None]),
        ([], "signs", []),
    ],
)
def test_the_other_labels_say_what_a_one_means(labels: list[Any], form: str, read: list[Any]) -> None:
    array = np.array(labels) if labels and isinstance(labels[0], float) else np.array(labels, dtype=object)
    assert find_label_form(array) == form
    found, present = clean_labels(array, "anomaly")
    assert found.tolist() == read and present.tolist() == [one is not None for one in read]


def test_where_only_ones_are_seen_the_usual_form_holds() -> None:
    assert clean_labels(np.array([1.0, 1.0]), "anomaly", form="flags")[0].tolist() == [-1, -1]


@pytest.mark.parametrize("labels", [[0, -1], [1, 2], ["yes", "no"], [0.5], [np.inf]])
def test_what_is_no_label_of_an_anomaly_is_refused_in_one_line(labels: list[Any]) -> None:
    with pytest.raises(
        DefinitionError, match=r"^label is .* in row \d: -1 for an anomaly and 1 for a normal row"
    ) as caught:
        read_anomaly_labels(np.array(labels, dtype=object))
    assert caught.value.code == "definition.label_type" and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "signs", "flags"),
    [(1, 1, -1), ("1", 1, -1), (1.0, 1, -1), (True, -1, -1), ("false", 1, 1), (np.int64(-1), -1, None), (0, None, 1),
     (2, None, None), ("odd", None, None), (None, None, None), ("nan", None, None)],
)  # fmt: skip
def test_a_label_that_comes_later_is_read_by_the_form_of_its_version(value: Any, signs: Any, flags: Any) -> None:
    for form, expected in (("signs", signs), ("flags", flags)):
        declaration = {**RULE, "label_form": form}
        if expected is None:
            with pytest.raises(LogError, match="is none of"):
                read_label(value, declaration)
        else:
            assert read_label(value, declaration) == expected


@given(st.lists(st.tuples(st.floats(-1, 0), st.sampled_from([-1, 1, None])), min_size=8, max_size=40))
def test_the_class_looked_for_is_the_anomaly_and_its_score_is_turned_round(rows: list[tuple[float, Any]]) -> None:
    scores, labels = np.array([score for score, _ in rows]), [label for _, label in rows]
    decided = decide(scores, {**RULE, "decision": {"rule": "threshold", "strict": False}})
    found = measure(
        scores, np.array([*labels, None], dtype=object)[:-1], "anomaly", [-1, 1], decisions=decided, repeats=2
    )
    assert tuple(found) == list_metrics("anomaly") == ("roc_auc", "f1", "average_precision")
    known = [row for row, label in enumerate(labels) if label is not None]
    odd = [labels[row] == -1 for row in known]
    if len(set(odd)) < 2:
        assert {one["value"] for one in found.values()} == {None}
        return
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(odd, -scores[known]))
    assert found["average_precision"]["value"] == pytest.approx(average_precision_score(odd, -scores[known]))
    assert found["f1"]["value"] == pytest.approx(f1_score(odd, [decided[row] == -1 for row in known], zero_division=0))


def test_without_labels_metrics_have_a_reason_and_gates_are_undecided() -> None:
    found = measure([0.1, 0.2], np.array([None, None]), "anomaly", [-1, 1], decisions=np.array([1, 1]))
    assert {one["reason"] for one in found.values()} == {"no labelled rows"}
    assert check_gates(found, {"roc_auc": (">=", 0.8)})["verdict"] == "undecided"
    assert check_gates({}, {"roc_auc": (">=", 0.8)})["verdict"] == "undecided"


def test_a_score_of_an_anomaly_has_no_error_and_its_decisions_have() -> None:
    scores = np.array([-0.7, -0.4, -0.45, -0.6])
    frame = FeatureFrame({"a": np.arange(4.0)})
    profile = profile_frame(frame, scores)
    labels, decided = np.array([-1, 1, 1, 1], dtype=object), np.array([-1, 1, 1, -1], dtype=object)
    counts = count_labels(profile, scores, labels, decided, declaration=RULE)
    assert (counts["squared"], counts["n"], counts["bins"], counts["decided"]) == (0, 4, [1, 3], [1, 2])
    found = measure_line({"counts": {"labels": counts}}, RULE, profile)
    assert found["accuracy"] == 0.75 and "brier" not in found and "mae" not in found


def test_a_detector_makes_the_task_and_nothing_else_fits_it() -> None:
    labels = np.array([1.0, -1.0])
    free = ModelDefinition("odd", IsolationForest(), "rows.csv", "label")
    assert infer_task(free, IsolationForest(), labels) == "anomaly"
    for task, estimator in (("binary", IsolationForest()), ("anomaly", Ridge())):
        stated = ModelDefinition("odd", estimator, "rows.csv", "label", task)
        with pytest.raises(DefinitionError, match=f"task '{task}' does not fit the estimator"):
            infer_task(stated, estimator, labels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"label": None, "task": None},
            "label: the name of a column; got None; name the column to predict; task='anomaly'",
        ),
        ({"label": None, "task": "binary"}, "label: the name of a column; got None"),
        ({"threshold": -0.5}, "threshold: an outlier detector has its own, offset_; got -0.5; leave it out"),
        ({"gates": {"brier": ("<=", 0.2)}}, "gates: one of roc_auc, f1, average_precision; got 'brier'"),
        ({"label": None, "label_available_at": "known", "prediction_time": "at"}, "label_available_at: it needs label"),
    ],
)
def test_what_a_definition_of_anomalies_must_not_say(fields: dict[str, Any], message: str) -> None:
    given_fields = {"label": "odd", "task": "anomaly", **fields}
    with pytest.raises(DefinitionError) as caught:
        ModelDefinition("odd", IsolationForest(), "rows.csv", **given_fields)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_definition_of_anomalies_goes_without_label() -> None:
    assert ModelDefinition("odd", IsolationForest(), "rows.csv", task="anomaly", entity=("id",)).label is None
