import os
from datetime import UTC, datetime

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import load_settings
from mlworkbench.examples.october import (
    OCTOBER,
    add_labels,
    interval,
    named_definition,
    request_calls,
    told_frame,
    told_otherwise,
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A folder without settings.ini."""
    for name in [name for name in os.environ if name.startswith("MLWORKBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_interval_holds_the_last_flight_and_nothing_after():
    times = [datetime(2013, 10, 1, 9, tzinfo=UTC), datetime(2013, 10, 2, 9, tzinfo=UTC)]
    start, end = interval(pl.DataFrame({"prediction_time": times}))
    assert start == OCTOBER[0]
    assert end == "2013-10-02T09:00:00.000001+00:00"


@pytest.mark.parametrize("count", [1, 99, 100, 101, 499, 500, 501, 28_889])
def test_every_record_is_asked_in_a_list_and_at_most_five_hundred_alone(count):
    records = [{"row": i} for i in range(count)]
    calls = request_calls(records, "flights:0123456789abcdef")
    lists = [call for call in calls.values() if isinstance(call, list)]
    singles = [call for call in calls.values() if isinstance(call, dict)]
    assert [record for call in lists for record in call] == records
    assert max(map(len, lists)) <= 100
    assert len(singles) == min(count, 500)
    assert len({single["row"] for single in singles}) == len(singles)


def test_the_same_records_make_the_same_requests():
    records = [{"row": i} for i in range(10)]
    first, second = (request_calls(records, "flights:0123456789abcdef") for _ in range(2))
    assert first == second
    assert set(first).isdisjoint(request_calls(records, "flights:fedcba9876543210"))


def test_an_answer_that_the_log_holds_otherwise_or_not_is_counted():
    log = pl.DataFrame({"prediction_id": ["a", "b"], "scores": [[0.5], [0.25]]})
    told = told_frame([{"prediction_id": name, "score": 0.5} for name in ("a", "b", "c")])
    assert told_otherwise(told, log, tolerance=1e-9) == 2
    assert told_otherwise(told.head(1), log, tolerance=0.0) == 0


def test_labels_enter_the_log_once_and_only_for_flights_that_landed(tmp_path):
    at = datetime(2013, 10, 1, 9, tzinfo=UTC)
    table = pl.DataFrame(
        {
            "flight_id": ["one", "two"],
            "prediction_time": [at, at],
            "available_at": [at, at],
            "late": [1.0, None],
        }
    )
    home = Home.open(tmp_path / "home")
    home.model("flights").mkdir()
    assert (add_labels(table, home), add_labels(table, home)) == (1, 0)


def test_the_definition_is_named_for_the_block_only():
    assert load_settings().models == {}
    with named_definition():
        assert load_settings().models == {"flights": "mlworkbench.examples.flights:flights"}
    assert "MLWORKBENCH_MODELS_FLIGHTS" not in os.environ


def test_other_names_stay_and_come_back(monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_MODELS_CARS", "definition:cars")
    with named_definition():
        assert set(load_settings().models) == {"cars", "flights"}
    assert load_settings().models == {"cars": "definition:cars"}
