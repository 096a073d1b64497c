"""`features check`: nothing where store and lake agree, view, column and key where something was planted."""

import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import FeatureError
from mlworkbench.features.checks.consistency import check_views
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView

TIME = pl.Datetime("us", "UTC")
WEATHER = AsOfView(
    "weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(microseconds=25)
)
LANDED = WindowView(
    "landed",
    "flights",
    ("origin",),
    timedelta(microseconds=40),
    {"n": Total("count"), "delay": Total("mean", "delay", 1)},
)
NOTED = {"most": Recent("max", "delay"), "different": Recent("distinct", "delay")}
NOTED |= {"last": Recent("last", "delay"), "quiet": Recent("time_since_last")}
RECENT = WindowView("recent", "flights", ("origin",), timedelta(microseconds=40), NOTED)
VIEWS = (WEATHER, LANDED, RECENT)


def timed(columns):
    return pl.DataFrame(columns).with_columns(pl.col("available_at").cast(TIME)).to_arrow()


def weather(rows):
    return timed(
        {name: list(values) for name, values in zip(("origin", "available_at", "wind", "sky"), rows, strict=True)}
    )


@pytest.fixture
def lake(tmp_path):
    """Tables with gaps (no rows from 40 to 90), ties of key and time, and missing values."""
    made = Lake(tmp_path / "lake")
    moments = [10, 20, 30, 90, 100]
    made.append("weather", weather((["JFK"] * 5, moments, [1.0, None, 3.0, -0.0, 5.0], ["rain", None, "a", "b", "c"])))
    made.append("weather", weather((["EWR"] * 2, [15, 95], [7.0, 8.0], ["x", "y"])))
    flights = {"origin": ["JFK", "JFK", "JFK", "EWR"], "available_at": [10, 10, 60, 60], "delay": [1.5, 2.5, None, 4.0]}
    made.append("flights", timed(flights))
    return made


@pytest.fixture
def store(place, lake):
    with OnlineStore(place) as made:
        materialize(VIEWS, lake, made)
        yield made


@pytest.fixture
def requests():
    asked = [(origin, moment) for origin in ("JFK", "EWR", "LGA", None) for moment in range(0, 140, 5)]
    origins, moments = zip(*asked, strict=True)
    table = pl.DataFrame({"origin": list(origins), "prediction_time": list(moments)})
    return table.with_columns(pl.col("prediction_time").cast(TIME))


def found_in(lake, store, requests, **more):
    return check_views(requests, VIEWS, lake, store, **more)


def test_store_and_lake_agree_over_gaps_ties_missing_values_and_time_to_live(lake, store, requests):
    found = found_in(lake, store, requests)
    assert (found.rows, found.values, found.mismatches, found.first, found.behind) == (112, 896, 0, (), {})
    landed, recent = {"n": 0, "delay": 0}, dict.fromkeys(NOTED, 0)
    assert found.counts == {"weather": {"wind": 0, "sky": 0}, "landed": landed, "recent": recent}


def test_late_rows_leave_the_store_behind_but_not_wrong_and_the_next_materialize_takes_them_in(lake, store, requests):
    lake.append("flights", timed({"origin": ["JFK"], "available_at": [12], "delay": [9.0]}))
    lake.append("weather", weather((["JFK"], [70], [2.0], ["late"])))
    late = found_in(lake, store, requests)
    assert (late.mismatches, late.behind) == (0, {"weather": 1, "landed": 1, "recent": 1})
    materialize(VIEWS, lake, store)
    again = found_in(lake, store, requests)
    assert (again.mismatches, again.behind) == (0, {})


def test_a_store_made_of_a_version_whose_files_are_gone_is_compared_with_the_newest(lake, store, requests):
    lake.overwrite("weather", weather((["JFK"], [10], [1.0], ["rain"])))
    kept = {file.name for file in (lake.path / "weather").glob("*.parquet")}
    newest = {os.path.basename(uri) for uri in files_of(lake, "weather")}  # noqa: PTH119
    for name in kept - newest:
        (lake.path / "weather" / name).unlink()
    found = found_in(lake, store, requests)
    assert found.counts["weather"]["wind"] > 0 and found.behind == {"weather": 1}


def files_of(lake, table):
    import deltalake

    return deltalake.DeltaTable(str(lake.path / table)).file_uris()


class Forgetful(OnlineStore):
    """A store whose reader has lost the time-to-live."""

    def lookup(self, views, columns, times):
        return super().lookup([replace(v, ttl=None) if isinstance(v, AsOfView) else v for v in views], columns, times)


def plant(kind, store):
    if kind == "value":
        store.put(WEATHER, [('["JFK"]', 20, "[2.5,null]")])
    elif kind == "sign of zero":
        store.put(WEATHER, [('["JFK"]', 90, '[0.0,"b"]')])
    elif kind == "text":
        store.put(WEATHER, [('["EWR"]', 15, '[7.0,"X"]')])
    elif kind == "total":
        store.put(LANDED, [('["EWR"]', 60, "[1,1,41]")])
    elif kind == "event":
        store.put(RECENT, [('["EWR"]', 60, "[60,41.0,60,41.0,[41.0]]")])
    elif kind == "row removed":
        store.remove(WEATHER, [('["JFK"]', 30)])
    elif kind == "totals removed":
        store.remove(LANDED, [('["JFK"]', 10)])
    elif kind == "later row added":
        store.put(WEATHER, [('["EWR"]', 20, '[7.5,"x"]')])


PLANTED = {
    "value": ("weather", {"wind"}, "JFK", 20),
    "sign of zero": ("weather", {"wind"}, "JFK", 90),
    "text": ("weather", {"sky"}, "EWR", 15),
    "total": ("landed", {"delay"}, "EWR", 65),
    "event": ("recent", {"most", "last"}, "EWR", 65),
    "row removed": ("weather", {"wind", "sky"}, "JFK", 30),
    "totals removed": ("landed", {"n", "delay"}, "JFK", 15),
    "later row added": ("weather", {"wind", "sky"}, "EWR", 20),
    "time-to-live lost": ("weather", {"wind", "sky"}, "JFK", 60),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_found_with_view_column_key_and_time(lake, store, requests, kind, place):
    plant(kind, store)
    view, columns, key, at = PLANTED[kind]
    lost = Forgetful(place) if kind == "time-to-live lost" else None
    with lost or nullcontext(store) as asked:
        found = found_in(lake, asked, requests)
    counts = {(name, column) for name, held in found.counts.items() for column, count in held.items() if count}
    assert counts == {(view, column) for column in columns}
    first = found.first[0]
    assert (first.view, first.key, first.time) == (view, {"origin": key}, at)
    assert first.offline != first.online or str(first.offline) != str(first.online)
    assert f"view '{view}'" in str(first) and f"origin='{key}'" in str(first)
    assert {mismatch.column for mismatch in found.first} == columns


@pytest.mark.parametrize("personal", [("origin",), ("wind",), ("origin", "wind", "sky", "delay")])
def test_personal_keys_and_values_stay_out_of_the_report(lake, store, requests, personal):
    plant("value", store)
    plant("total", store)
    found = found_in(lake, store, requests, personal=personal)
    told = " ".join(map(str, found.first))
    assert found.mismatches and "withheld" in told
    assert ("JFK" in told) == ("origin" not in personal) and ("2.5" in told) == ("wind" not in personal)


def test_a_personal_column_of_the_table_is_withheld_under_every_name(lake, store, requests):
    view = AsOfView("weather", "weather", {"place": "origin"}, {"speed": "number"}, source={"speed": "wind"})
    asked = requests.rename({"origin": "place"})
    materialize([view], lake, store)
    store.put(view, [('["JFK"]', 10, "[99.5]")])
    found = check_views(asked, [view], lake, store, personal=("origin", "wind"))
    assert found.mismatches and "JFK" not in str(found.first[0]) and "99.5" not in str(found.first[0])


def test_a_view_that_is_not_in_the_store_or_a_key_that_is_not_in_the_requests_is_refused(lake, store, requests):
    other = AsOfView("other", "weather", ("origin",), {"gust": "number"}, source={"gust": "wind"})
    with pytest.raises(FeatureError) as refused:
        check_views(requests, [other], lake, store)
    assert refused.value.code == "features.view_not_stored"
    with pytest.raises(FeatureError) as refused:
        check_views(requests.rename({"origin": "place"}), VIEWS, lake, store)
    assert refused.value.code == "features.column_missing" and "'origin'" in str(refused.value)


def test_a_view_that_would_refuse_an_outdated_request_is_still_compared(lake, store, requests):
    strict = replace(WEATHER, max_lag=timedelta(microseconds=1))
    assert check_views(requests, [strict], lake, store).mismatches == 0
