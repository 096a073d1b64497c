"""Reading the log back, joining labels, metrics of what was logged."""

import json
import traceback
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.pseudonym import Pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.errors import ContractError, LogError
from mlworkbench.evaluation.log.label_writer import write_labels
from mlworkbench.evaluation.log.labels import evaluate_log, join_labels, rebuild_frame, to_arrays
from mlworkbench.evaluation.log.reader import read_labels, read_log
from mlworkbench.evaluation.log.rows import input_identities, log_rows
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels
from mlworkbench.scoring.frame import FeatureFrame

DAY = 86_400_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.sqlite"


def write(
    path, count=4, *, deployment="batch", version="v1", scores=None, decisions="default", columns=None, times=None
):
    scores = np.linspace(0.1, 0.9, count) if scores is None else np.asarray(scores)
    predictions = SimpleNamespace(
        frame=FeatureFrame(columns or {"wind": np.arange(count, dtype=float)}),
        scores=scores,
        decisions=(scores >= 0.5).astype(int) if isinstance(decisions, str) else decisions,
        faults=[],
    )
    rows = log_rows(
        predictions, model="m", version=version, scorer="reference", deployment=deployment, logged_at=99 * DAY,
        input_ids=input_identities(f"s-{deployment}-{version}", count),
        entity={"flight": np.array([f"f{i}" for i in range(count)], dtype=object)},
        prediction_times=np.arange(count) * DAY if times is None else times,
    )  # fmt: skip
    with PredictionLog(path) as log:
        log.write(rows)
    return [row["prediction_id"] for row in rows]


def label(number, value, available_at=50 * DAY):
    named = {"entity": {"flight": f"f{number}"}, "prediction_time": number * DAY}
    return {"model": "m", **named, "value": value, "available_at": available_at}


def joined_labels(path, **options):
    return join_labels(read_log(path), read_labels(path), **options)["label"].to_list()


def test_rows_come_back_in_order_with_times_and_lists(path):
    ids = write(path)
    log = read_log(path)
    assert log["prediction_id"].to_list() == ids
    assert log.schema["prediction_time"] == pl.Datetime("us", "UTC") and log.schema["scores"] == pl.List(pl.Float64)


def test_the_interval_is_half_open_and_text_or_microseconds(path):
    write(path)
    whole = read_log(path)["prediction_time"].to_list()
    by_text = read_log(path, start="1970-01-02T00:00:00+00:00", end="1970-01-04T00:00:00Z")
    assert by_text["prediction_time"].to_list() == whole[1:3]
    assert read_log(path, start=DAY, end=3 * DAY).equals(by_text)
    with pytest.raises(ContractError, match="offset"):
        read_log(path, start="1970-01-02T00:00:00")


def test_deployment_and_version_select(path):
    write(path)
    write(path, 2, deployment="realtime")
    write(path, 3, version="v2")
    found = (read_log(path), read_log(path, deployment="realtime"), read_log(path, version="v2", deployment="batch"))
    assert [len(log) for log in found] == [9, 2, 3]


def test_an_empty_interval_is_an_empty_table_of_the_same_columns(path):
    write(path)
    empty = read_log(path, start=90 * DAY)
    assert empty.is_empty() and empty.schema == read_log(path).schema
    assert to_arrays(join_labels(empty, read_labels(path)))["scores"].shape == (0,)


def test_a_log_that_is_not_there_is_one_line_and_is_not_created(path):
    with pytest.raises(LogError) as raised:
        read_log(path)
    assert raised.value.code == "log.not_found" and "\n" not in str(raised.value)
    assert not path.exists()


def test_reading_does_not_wait_for_a_writer(path):
    write(path)
    log = PredictionLog(path)
    log._opened().execute("BEGIN IMMEDIATE")
    assert len(read_log(path)) == 4
    log._opened().execute("ROLLBACK")
    log.close()


def test_features_come_back_bit_for_bit(path):
    contract = Contract((
        Column("wind", "number", nullable=True, infinite=True),
        Column("flag", "boolean"),
        Column("count", "integer"),
        Column("carrier", "category", nullable=True),
        Column("image", "vector", size=2),
    ))  # fmt: skip
    columns = {
        "wind": np.array([0.1 + 0.2, np.nan, -np.inf, 5e-324]),
        "flag": np.array([True, False, True, False]),
        "count": np.array([2**53, -1, 0, 1]),
        "carrier": np.array(["AA", None, "", "Ü"], dtype=object),
        "image": np.array([[0.1, 1 / 3], [2.0, 3.0], [0.0, -0.0], [1e300, 1.0]]),
    }
    write(path, columns=columns)
    back = rebuild_frame(read_log(path), contract)
    for name, values in columns.items():
        assert back.columns[name].dtype == values.dtype
        assert back.columns[name].tolist() == values.tolist() or name == "wind"
    assert back.columns["wind"].tobytes() == columns["wind"].tobytes()


def test_a_label_may_come_before_its_prediction_and_reaches_every_deployment(path):
    append_labels(path, [label(1, "late")])
    write(path, 2)
    write(path, 2, deployment="realtime")
    write(path, 2, version="v2")
    assert joined_labels(path) == [None, '"late"'] * 3


def test_the_newest_label_counts_whenever_it_was_written(path):
    write(path, 2)
    append_labels(path, [label(0, 2, 20), label(0, 1, 10), label(1, 1, 10)])
    assert joined_labels(path) == ["2", "1"]
    append_labels(path, [label(0, 3, 20)])
    assert joined_labels(path) == ["3", "1"], "of equal times the one written last"
    assert read_labels(path).height == 4, "history is kept"


def test_as_known_then_only_labels_that_were_available_exist(path):
    write(path, 1)
    append_labels(path, [label(0, 1, 10), label(0, 2, 20)])
    assert [joined_labels(path, known_at=at)[0] for at in (9, 10, 19, 20)] == [None, "1", "1", "2"]


def test_a_label_by_prediction_id_reaches_that_answer_alone(path):
    first = write(path, 2)
    write(path, 2, deployment="realtime")
    append_labels(path, [{"model": "m", "prediction_id": first[1], "value": 7, "available_at": 1}])
    assert joined_labels(path) == [None, "7", None, None]
    append_labels(path, [label(1, 8, 2)])
    assert joined_labels(path) == [None, "8", None, "8"], "the newer of the two kinds counts"


def test_a_label_of_another_model_entity_or_time_reaches_nothing(path):
    write(path, 1)
    other = label(0, 1)
    changes = ({"model": "n"}, {"prediction_time": 1}, {"entity": {"flight": "x"}})
    append_labels(path, [{**other, **change} for change in changes])
    assert joined_labels(path) == [None]


def test_the_join_keeps_every_row_once_and_in_order(path):
    ids = write(path, 200)
    append_labels(path, [label(number % 200, number, number) for number in range(600)])
    joined = join_labels(read_log(path), read_labels(path))
    assert joined["prediction_id"].to_list() == ids and joined["label"].null_count() == 0


def test_metrics_of_the_log_put_the_positive_class_second_and_draw_days(path):
    draws = np.random.default_rng(0)
    scores = draws.random(300)
    late = draws.random(300) < scores
    decisions = np.where(scores >= 0.5, "late", "on time").astype(object)
    write(path, 300, scores=scores, decisions=decisions, times=np.arange(300) * (DAY // 10))
    words = np.where(late, "late", "on time").tolist()
    times = [number * (DAY // 10) for number in range(300)]
    append_labels(path, [{**label(n, words[n]), "prediction_time": times[n]} for n in range(250)])
    joined = join_labels(read_log(path), read_labels(path))
    declaration = {"task": "binary", "classes": ["late", "on time"], "positive": "late", "prediction_time": "asked"}
    found = evaluate_log(joined, declaration)
    assert found["roc_auc"]["n"] == 250 and 0.7 < found["roc_auc"]["value"] < 0.95
    assert found["roc_auc"]["low"] is not None
    alone = evaluate_log(joined, {**declaration, "prediction_time": None})
    assert alone["roc_auc"]["value"] == found["roc_auc"]["value"] and alone != found


def test_multiclass_and_regression_logs_are_evaluated_too(path, tmp_path):
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], 60)
    classes = np.array(["a", "b", "c"], dtype=object)
    write(path, 60, scores=scores, decisions=classes[scores.argmax(axis=1)])
    append_labels(path, [label(number, classes[number % 3]) for number in range(60)])
    joined = join_labels(read_log(path), read_labels(path))
    assert to_arrays(joined)["scores"].shape == (60, 3)
    found = evaluate_log(joined, {"task": "multiclass", "classes": ["a", "b", "c"], "prediction_time": None})
    assert found["accuracy"]["value"] is not None
    other = tmp_path / "other.sqlite"
    write(other, 60, scores=np.arange(60.0), decisions=None)
    append_labels(other, [label(number, number + 1.0) for number in range(60)])
    joined = join_labels(read_log(other), read_labels(other))
    assert evaluate_log(joined, {"task": "regression", "classes": []})["mae"]["value"] == 1.0


def test_rows_of_two_kinds_of_model_are_not_mixed(path):
    write(path, 2)
    write(path, 2, version="v2", scores=np.ones((2, 3)), decisions=None)
    with pytest.raises(LogError) as raised:
        to_arrays(join_labels(read_log(path), read_labels(path)))
    assert raised.value.code == "log.mixed_versions"


def rides_version(**fields):
    request = Contract((Column("rider", "text", nullable=True, pseudonym=True), Column("fare", "number")))
    declaration = {"task": "binary", "classes": [0, 1]}
    plain = {"model": "rides", "request": request, "pseudonyms": Pseudonyms(bytes(32)), "declaration": declaration}
    return SimpleNamespace(**{**plain, **fields})


def test_a_person_is_labelled_by_name_or_pseudonym_and_written_by_pseudonym(tmp_path):
    home, of = Home.open(tmp_path / "home"), Pseudonyms(bytes(32)).of
    row = {"prediction_time": DAY, "value": 1, "available_at": DAY}
    rows = [{**row, "entity": {"rider": "Ada"}}, {**row, "entity": {"rider": of("Ada")}}]
    assert write_labels(rides_version(), rows, home=home).new == 1
    assert write_labels(rides_version(), [{"prediction_id": "p1", "value": 1, "available_at": DAY}], home=home).new == 1
    written = read_labels(home.log("rides"))
    assert json.loads(written["entity"][0]) == {"rider": of("Ada")} and written["prediction_id"].to_list() == ["", "p1"]


def test_a_label_that_cannot_be_written_names_nobody(tmp_path):
    home = Home.open(tmp_path / "home")
    row = {"entity": {"rider": "Ada-7731"}, "prediction_time": DAY, "value": 1, "available_at": DAY}
    foreign = {**row, "entity": {"rider": Pseudonyms(bytes([1] * 32)).of("Ada-7731")}}
    for version, wrong, said in (
        (
            rides_version(),
            {**row, "prediction_time": None},
            "label 1 names no prediction: it needs prediction_id alone.*; got model, entity",
        ),
        (rides_version(), {**row, "entity": {"rider": 7731}}, r"label 1: .*'rider': text; got \(withheld: personal\)"),
        (rides_version(), {**row, "prediction_time": "Ada-7731"}, "label 1: a time is text, not microseconds"),
        (rides_version(), {**row, "model": "other"}, "label 1: a label of other, not of rides"),
        (rides_version(), foreign, r"label 1: .*a pseudonym of this key; got \(withheld"),
        (rides_version(pseudonyms=None), row, "label 0: .*there is no key"),
    ):
        with pytest.raises(LogError, match=said) as failure:
            write_labels(version, [row, wrong], home=home)
        assert "7731" not in "".join(traceback.format_exception(failure.value))
    assert not home.log("rides").exists()
