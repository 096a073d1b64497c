"""Labels from another system: read against the classes, checked whole, named by id, key or entity, counted."""

from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.errors import IngestError, LogError
from mlworkbench.evaluation.log.label_writer import read_label, read_label_file, split_usable_labels, write_labels
from mlworkbench.evaluation.log.labels import evaluate_log, join_labels
from mlworkbench.evaluation.log.reader import read_labels, read_log
from mlworkbench.evaluation.log.rows import log_rows
from mlworkbench.evaluation.log.writer import PredictionLog, append_labels
from mlworkbench.scoring.frame import FeatureFrame

CODES = {"task": "multiclass", "classes": ["101", "12", "foo"]}
COUNTS = {"task": "binary", "classes": [0, 1]}
WORDS = {"task": "binary", "classes": [False, True]}
PRICES = {"task": "regression", "classes": []}
NOW = 1_700_000_000_000_000
KNOWN = "2023-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("value", "declaration", "meant"),
    [
        (101, CODES, "101"),
        (12.0, CODES, "12"),
        ("foo", CODES, "foo"),
        (np.int64(101), CODES, "101"),
        (Decimal(12), CODES, "12"),
        ("1", COUNTS, 1),
        (1.0, COUNTS, 1),
        (" 0 ", COUNTS, 0),
        ("1.0", COUNTS, 1),
        (True, WORDS, True),
        ("true", WORDS, True),
        ("FALSE", WORDS, False),
        (1, WORDS, True),
        (True, {"task": "binary", "classes": ["False", "True"]}, "True"),
        ("9007199254740993", {"task": "binary", "classes": [2**53, 2**53 + 1]}, 2**53 + 1),
        (2**53 + 1, {"task": "binary", "classes": [str(2**53), str(2**53 + 1)]}, str(2**53 + 1)),
        ("2", {"task": "multiclass", "classes": [1, 2.0, "2"]}, "2"),
        (3, PRICES, 3.0),
        (Decimal("2.5"), PRICES, 2.5),
    ],
)
def test_a_label_of_another_type_is_the_one_class_that_it_means(value, declaration, meant):
    found = read_label(value, declaration)
    assert (type(found), found) == (type(meant), meant)


@pytest.mark.parametrize(
    ("value", "declaration"),
    [
        ("bar", CODES),
        ("FOO", CODES),
        ("", CODES),
        (101.5, CODES),
        (True, CODES),
        ("yes", COUNTS),
        (2, COUNTS),
        (0.5, COUNTS),
        (True, COUNTS),
        ("true", COUNTS),
        (float("nan"), COUNTS),
        ([1], COUNTS),
        (2, WORDS),
        ("yes", WORDS),
        (1, {"task": "multiclass", "classes": ["1", "01", "2"]}),
        ("5", PRICES),
        (True, PRICES),
        (float("inf"), PRICES),
        (float("nan"), PRICES),
        ("1" * 5000, COUNTS),
    ],
)
def test_what_means_no_class_or_two_is_no_label(value, declaration):
    with pytest.raises(LogError) as raised:
        read_label(value, declaration)
    assert raised.value.code == "log.label_value"


def made(declaration=CODES, *, key="order_id", kind="integer", **more):
    request = Contract((Column("order_id", kind), Column("size", "number")))
    declared = {"label": "code", "entity": [], "prediction_time": None, "key": key, **declaration, **more}
    return SimpleNamespace(model="m", request=request, pseudonyms=None, declaration=declared)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def predicted(home, keys, *, deployment="batch", classes=3):
    scores = np.tile([0.7, 0.2, 0.1], (len(keys), 1)) if classes == 3 else np.full(len(keys), 0.7)
    answers = SimpleNamespace(
        frame=FeatureFrame({"size": np.arange(float(len(keys)))}), scores=scores, faults=[],
        decisions=np.array(["101" if classes == 3 else 1] * len(keys), dtype=object),
    )  # fmt: skip
    rows = log_rows(
        answers, model="m", version="v1", scorer="reference", deployment=deployment, logged_at=9, key=keys,
        input_ids=[str(position) for position in range(len(keys))],
    )  # fmt: skip
    with PredictionLog(home.log("m")) as log:
        log.write(rows)
    return [row["prediction_id"] for row in rows]


def joined(home, **options):
    path = home.log("m")
    usable, _ = split_usable_labels(read_labels(path), CODES)
    return join_labels(read_log(path), usable, **options)["label"].to_list()


def file_of(tmp_path, text, name="labels.csv"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def told(home, file, version=None, **options):
    version = version or made()
    return write_labels(version, read_label_file(file, version), home=home, source="labels.csv", now=NOW, **options)


def test_a_file_of_labels_that_all_say_101_counts_as_the_class_and_again_adds_nothing(home, tmp_path):
    ids = predicted(home, [7, 8])
    file = file_of(tmp_path, f"prediction_id,code,available_at\n{ids[0]},101,{KNOWN}\n{ids[1]},101,{KNOWN}\n")
    first, again = told(home, file), told(home, file)
    assert (first.new, first.known, again.new, again.known) == (2, 0, 0, 2)
    assert again.lines() == ["2 labels read, 0 new, 2 already there"]
    pl.DataFrame({"prediction_id": ids, "code": [101, 101], "available_at": [KNOWN] * 2}).write_parquet(
        tmp_path / "labels.parquet"
    )
    assert told(home, str(tmp_path / "labels.parquet")).new == 0, "a number in another format is the same label"
    assert joined(home) == ['"101"', '"101"']
    assert (
        evaluate_log(
            join_labels(read_log(home.log("m")), read_labels(home.log("m"))), {**CODES, "prediction_time": None}
        )["accuracy"]["value"]
        == 1.0
    )


def test_one_label_that_is_no_class_refuses_the_file_by_row_and_id_and_nothing_is_written(home, tmp_path):
    file = file_of(tmp_path, f"order_id,code,available_at\n7,101,{KNOWN}\n8,bar,{KNOWN}\n9,baz,{KNOWN}\n")
    with pytest.raises(LogError) as failure:
        told(home, file)
    assert str(failure.value) == (
        "labels.csv, row 1 (8): the label 'bar' is none of the classes '101', '12', 'foo' (and 1 more such labels); "
        "none was written; correct the labels"
    )
    assert not home.log("m").exists()


@pytest.mark.parametrize("value", ["yes", "2", "true"])
def test_python_is_refused_as_a_file_is(home, value):
    with pytest.raises(LogError, match=f"label 0 \\(p\\): the label '{value}' is none of .* 0, 1; none was"):
        row = {"prediction_id": "p", "value": value, "available_at": 1}
        write_labels(made(COUNTS), [row], home=home)


def test_a_regression_takes_numbers_of_any_file_and_no_text(home, tmp_path):
    version = made(PRICES, key=None)
    with pytest.raises(LogError, match=r"row 1 \(b\): the label '12,5' is no finite number"):
        told(home, file_of(tmp_path, f'prediction_id,code,available_at\na,7,{KNOWN}\nb,"12,5",{KNOWN}\n'), version)
    lines = f'{{"prediction_id": "a", "code": "7", "available_at": "{KNOWN}"}}\n'
    with pytest.raises(LogError, match="the label '7' is no finite number"):
        told(home, file_of(tmp_path, lines, "labels.jsonl"), version)


@pytest.mark.parametrize("column", ["order_id", "key"])
def test_labels_join_by_the_users_own_key_every_prediction_of_it(home, tmp_path, column):
    predicted(home, [7, 8, 7])
    predicted(home, [7], deployment="realtime")
    report = told(home, file_of(tmp_path, f"{column},code,available_at\n7,12,{KNOWN}\n"))
    assert (report.new, report.unpredicted) == (1, 0)
    assert joined(home) == ['"12"', None, '"12"', '"12"']


def test_a_key_is_the_same_as_number_and_as_text_and_a_text_key_keeps_its_noughts(home, tmp_path):
    predicted(home, [7])
    for key in (7, "7", 7.0, np.int64(7)):
        row = {"key": key, "value": "12", "available_at": 1}
        write_labels(made(), [row], home=home)
    assert read_labels(home.log("m")).height == 1
    version = made(kind="text")
    predicted(home, ["007"], deployment="realtime")
    assert told(home, file_of(tmp_path, f"order_id,code,available_at\n007,foo,{KNOWN}\n"), version).unpredicted == 0
    assert joined(home) == ['"12"', '"foo"']


@pytest.mark.parametrize(
    ("version", "key", "code", "named"),
    [
        (made(), "seven", "log.key_value", "'order_id': 'seven'"),
        (made(), 7.5, "log.key_value", "7.5"),
        (made(kind="text"), 7.5, "log.key_value", "'order_id': 7.5"),
        (made(key=None), 7, "log.key_undeclared", "m declares no key"),
    ],
)
def test_a_key_that_names_no_row_is_refused(home, version, key, code, named):
    with pytest.raises(LogError, match=named) as raised:
        write_labels(version, [{"key": key, "value": "12", "available_at": 1}], home=home)
    assert raised.value.code == code


def test_ids_that_nobody_predicted_are_counted_told_and_kept(home, tmp_path):
    version = made(entity=["trip"], prediction_time="asked", key="order_id")
    ids = predicted(home, [7])
    report = told(home, file_of(
        tmp_path,
        "prediction_id,order_id,trip,asked,code,available_at\n"
        f"{ids[0]},,,,12,{KNOWN}\nnobody,,,,12,{KNOWN}\n,8,,,12,{KNOWN}\n,7,,,12,{KNOWN}\n,,A,{KNOWN},12,{KNOWN}\n",
    ), version)  # fmt: skip
    assert (report.read, report.new, report.unpredicted) == (5, 5, 3)
    assert "3 ids that nobody predicted" in report.lines()[1]
    predicted(home, [8], deployment="realtime")
    assert joined(home) == ['"12"', '"12"'], "a label may come before its prediction"


def test_a_label_dated_in_2030_is_held_until_then_and_the_right_one_counts(home, tmp_path):
    predicted(home, [7])
    later = "2030-01-01T00:00:00+00:00"
    report = told(home, file_of(tmp_path, f"order_id,code,available_at\n7,101,{KNOWN}\n7,12,{later}\n"))
    assert (report.new, report.held, report.held_from) == (2, 1, later)
    assert "they count from then on" in report.lines()[-1]
    assert joined(home, known_at=NOW) == ['"101"']
    assert joined(home, known_at="2030-01-02T00:00:00Z") == ['"12"']
    soon = [{"key": 7, "value": "12", "available_at": NOW + 599_000_000}]
    assert write_labels(made(), soon, home=home, now=NOW).held == 0, "a clock may be ten minutes ahead"


def test_a_changed_label_is_a_row_of_its_own_and_the_later_counts(home, tmp_path):
    predicted(home, [7])
    told(home, file_of(tmp_path, f"order_id,code,available_at\n7,101,{KNOWN}\n"))
    assert told(home, file_of(tmp_path, "order_id,code,available_at\n7,12,2023-02-01T00:00:00Z\n")).new == 1
    assert joined(home) == ['"12"'] and read_labels(home.log("m")).height == 2


def test_bad_labels_of_an_older_package_are_skipped_and_named_and_stop_nothing(home):
    ids = predicted(home, [7, 8, 9])
    values = [101, "bar", "12"]
    pairs = zip(ids, values, strict=True)
    rows = [{"model": "m", "prediction_id": name, "value": value, "available_at": 1} for name, value in pairs]
    append_labels(home.log("m"), [*rows, {**rows[2], "value": "spam", "available_at": 2}])
    usable, skipped = split_usable_labels(read_labels(home.log("m")), CODES)
    assert [(row["row"], row["name"], row["value"]) for row in skipped] == [
        (1, f"prediction {ids[1]}", '"bar"'),
        (3, f"prediction {ids[2]}", '"spam"'),
    ]
    found = join_labels(read_log(home.log("m")), usable)
    assert found["label"].to_list() == ['"101"', None, '"12"'], "a bad correction covers no good label"
    assert evaluate_log(found, {**CODES, "prediction_time": None})["accuracy"]["n"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,available_at\n101,2023-01-01T00:00:00Z\n", "'prediction_id', or 'order_id', or 'key'; got code"),
        ("order_id,code\n7,101\n", "no column 'available_at'"),
        ("order_id,code,available_at\n7,101,\n", "row 0, column 'available_at'"),
        ("order_id,code,available_at\n7,101,2023-01-01\n", "row 0, column 'available_at'"),
        ("order_id,code,available_at\n7,101,1672531200\n", "row 0, column 'available_at'"),
        ("order_id,code,available_at\n,101,2023-01-01T00:00:00Z\n", "row 0 names no prediction: 'order_id' is empty"),
    ],
)
def test_a_file_that_says_too_little_is_refused_in_one_line(home, tmp_path, text, said):
    with pytest.raises(IngestError, match=said) as failure:
        told(home, file_of(tmp_path, text))
    assert "\n" not in str(failure.value)


def test_rows_that_are_not_known_yet_are_passed_over(home, tmp_path):
    file = file_of(tmp_path, f"order_id,code,available_at\n7,,\n8,foo,{KNOWN}\n")
    assert [(row["row"], row["key"], row["value"]) for row in read_label_file(file, made())] == [(1, 8, "foo")]
