import os
from datetime import UTC, datetime

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import load_settings
from mlworkbench.demo.demo import OCTOBER, add_labels, interval, named_definition


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
    assert (add_labels(table, home=home), add_labels(table, home=home)) == (1, 0)


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
