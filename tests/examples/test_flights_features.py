import numpy as np
import pytest

from mlworkbench.examples.flights_features import calendar, route


def test_a_row_depends_on_that_row_alone():
    random = np.random.default_rng(0)
    departure = random.integers(0, 1440, 500)
    arrival = random.integers(0, 1440, 500)
    weekday = random.integers(1, 8, 500)
    distance = random.uniform(17, 4983, 500)
    together = calendar(departure, weekday) | route(distance, departure, arrival)
    for i in range(500):
        one = slice(i, i + 1)
        alone = calendar(departure[one], weekday[one]) | route(distance[one], departure[one], arrival[one])
        for name, column in together.items():
            assert alone[name][0] == column[i]


def test_every_feature_is_float64_and_finite():
    minutes = np.arange(1440)
    columns = calendar(minutes, minutes % 7 + 1) | route(minutes + 1.0, minutes, minutes[::-1])
    assert {column.dtype for column in columns.values()} == {np.dtype(np.float64)}
    assert all(np.isfinite(column).all() for column in columns.values())


def test_the_clock_lies_on_a_circle():
    columns = calendar(np.arange(1440), np.ones(1440))
    radius = columns["departure_sin"] ** 2 + columns["departure_cos"] ** 2
    assert abs(radius - 1).max() < 1e-8


@pytest.mark.parametrize(
    ("leaves", "lands", "planned"), [(0, 0, 0.0), (1430, 20, 30.0), (540, 725, 185.0), (1439, 0, 1.0)]
)
def test_planned_minutes_never_run_backwards(leaves, lands, planned):
    found = route(np.array([100.0]), np.array([leaves]), np.array([lands]))
    assert found["planned_minutes"].tolist() == [planned]
