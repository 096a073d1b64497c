"""`mlworkbench features check`: exit 0 where store and lake agree, 1 with view, column and key where not."""

import json
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from mlworkbench.contract.pseudonym import open_pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.online.lookup import OnlineStore

DEFINITION = """
from datetime import timedelta
import polars as pl
from sklearn.linear_model import LinearRegression
from mlworkbench import AsOfView, ModelDefinition, Total, WindowView

def rows(lake):
    seen = lake.read("trips")
    return pl.from_arrow(seen) if not isinstance(seen, pl.DataFrame) else seen

trips = ModelDefinition(
    "trips", LinearRegression(), rows, "late", entity=("trip",), prediction_time="asked", personal=("driver",),
    views=(
        AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6)),
        WindowView("rides", "weather", ("driver",), timedelta(hours=3), {"ridden": Total("count")}),
    ),
)
"""


@pytest.fixture
def trips(clean, monkeypatch, facts):
    (clean / "settings.ini").write_text("[workbench]\nhome = home\n[models]\ntrips = trips_definition:trips\n")
    (clean / "trips_definition.py").write_text(DEFINITION)
    monkeypatch.syspath_prepend(str(clean))
    home = Home.open(clean / "home")
    hours = pl.Series([datetime(2013, 10, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(49)]).dt.cast_time_unit(
        "us"
    )
    n = len(hours)
    weather = {"origin": ["JFK"] * n, "available_at": hours, "wind": [float(k) for k in range(n)]}
    lake, driver = Lake(home.lake), open_pseudonyms(home, create=True).of("Ada Lovelace")
    lake.append("weather", pl.DataFrame({**weather, "driver": [driver] * n}).to_arrow())
    asked = {"trip": [f"T{k}" for k in range(n)], "origin": ["JFK", "EWR", "JFK"] * (n // 3) + ["JFK"] * (n % 3)}
    more = {"asked": hours.dt.offset_by("30m"), "driver": ["Ada Lovelace"] * n, "late": [1.0] * n}
    lake.append("trips", pl.DataFrame({**asked, **more}).to_arrow())
    facts("features", "materialize")
    yield home
    sys.modules.pop("trips_definition", None)


def view_named(name):
    return next(v for v in sys.modules["trips_definition"].trips.time_views if v.name == name)


def test_a_store_that_agrees_says_so_with_exit_code_0(trips, tell, facts):
    found = facts("features", "check")
    assert (found["rows"], found["values"], found["mismatches"]) == (49, 98, 0)
    assert found["counts"] == {"weather": {"wind": 0}, "rides": {"ridden": 0}}
    assert facts("features", "check", "--rows", 7)["rows"] == 7 and facts("features", "check", "--all")["rows"] == 49
    code, out, err = tell("features", "check", "--model", "trips")
    assert code == 0 and "49 rows, 98 values compared, 0 mismatches" in out and not err


def test_a_planted_value_is_exit_code_1_with_column_and_key(trips, tell):
    with OnlineStore(trips.online) as store:
        view = view_named("weather")
        key, moment, _ = store.stored(view)[5]
        store.put(view, [(key, moment, "[77.5]")])
    code, out, err = tell("features", "check")
    assert code == 1 and err.count("\n") == 1
    for word in ("view 'weather', column 'wind'", "origin='JFK'", "2013-10-01T05:30:00", "offline 5.0, online 77.5"):
        assert word in err and word in out
    code, out, _ = tell("features", "check", "--json")
    assert code == 1 and json.loads(out)["counts"]["weather"] == {"wind": 1}


def test_a_personal_key_is_never_told(trips, tell):
    with OnlineStore(trips.online) as store:
        view = view_named("rides")
        key, moment, _ = store.stored(view)[5]
        store.put(view, [(key, moment, "[99]")])
    for more in ((), ("--json",)):
        code, out, err = tell("features", "check", *more)
        assert code == 1 and "rides" in out + err and "Ada" not in out + err


def test_without_a_store_the_way_out_is_named(clean, trips, tell):
    trips.online.unlink()
    code, _, err = tell("features", "check")
    assert code == 2 and "features materialize" in err
