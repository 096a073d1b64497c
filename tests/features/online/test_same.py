"""Offline join, online store and a plain reading of the rules give the same bits."""

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.offline.join import join_views
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
TIME = pl.Datetime("us", "UTC")
START = 1_380_000_000_000_000


class MemoryLake:
    """Tables in memory, with the part of the lake's interface that features read."""

    def __init__(self, tables):
        self.held = tables
        self.count = 0

    def tables(self):
        return sorted(self.held)

    def exists(self, name):
        return name in self.held

    def version(self, name):
        return self.count

    def scan(self, name, *, version=None):
        return self.held[name].lazy()

    def read(self, name, *, columns=None, version=None):
        return self.held[name].select(columns or pl.all())

    def overwrite(self, name, table):
        self.held[name] = table
        self.count += 1


def us(span):
    return timedelta(microseconds=span)


def as_times(values):
    return pl.Series([START + value for value in values], dtype=pl.Int64).cast(TIME)


AS_OF_KINDS = {"number": "number", "whole": "number", "flag": "number", "sky": "category", "note": "text"}
TOTALS = {
    "rows": Total("count"),
    "known": Total("count", "number"),
    "total": Total("sum", "whole"),
    "tenths": Total("sum", "number", 1),
    "mean": Total("mean", "number", 3),
    "share": Total("share", "flag"),
}
RECENT = {
    "least": Recent("min", "number"),
    "most": Recent("max", "whole"),
    "any": Recent("max", "flag"),
    "numbers": Recent("distinct", "number"),
    "wholes": Recent("distinct", "whole"),
    "flags": Recent("distinct", "flag"),
    "skies": Recent("distinct", "sky"),
    "last": Recent("last", "number"),
    "last_sky": Recent("last", "sky", kind="category"),
    "last_note": Recent("last", "note", kind="text"),
    "quiet": Recent("time_since_last"),
    "silent": Recent("time_since_last", "number"),
}
ALL = TOTALS | RECENT
numbers = st.one_of(st.none(), st.just(math.nan), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 0.5, 1.5, 1e-300]))
texts = st.one_of(st.none(), st.sampled_from(["", "a", '"', "é", "日本", "],[", "null", "NaN", "\x00x", "🛫"]))
text_keys = st.one_of(st.none(), st.sampled_from(["JFK", "jfk", "", '["', "é"]))
int_keys = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from([2**62, -(2**63)]))
flag_keys = st.one_of(st.none(), st.booleans())
moments = st.integers(0, 12)


def rows_of(key):
    return st.tuples(
        key,
        moments,
        numbers,
        st.one_of(st.none(), st.integers(-9, 9)),
        st.one_of(st.none(), st.booleans()),
        texts,
        texts,
    )


def frame(rows, key_type):
    names = ["key", "available_at", "number", "whole", "flag", "sky", "note"]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    types = [key_type, None, pl.Float64, pl.Int64, pl.Boolean, pl.String, pl.String]
    made = [
        as_times(values).alias(name) if name == "available_at" else pl.Series(name, values, dtype=dtype)
        for name, values, dtype in zip(names, columns, types, strict=True)
    ]
    return pl.DataFrame(made).with_columns(second=pl.col("whole") % 2)


def first_of_each(rows):
    """Keep one row for each key and time: what an as-of view asks of its table."""
    return list({(row[0], row[1]): row for row in rows}.values())


def request_columns(requests):
    found = {}
    for name in requests.columns:
        if requests[name].dtype == pl.String or requests[name].null_count():
            values = np.empty(requests.height, dtype=object)
            values[:] = requests[name].to_list()
            found[name] = values
        elif requests[name].dtype != TIME:
            found[name] = requests[name].to_numpy()
    return found


def same_bits(offline, online, views):
    for view in views:
        for name, kind in view.kinds.items():
            left, right = offline[name], online[name]
            if kind in ("number", "integer"):
                assert left.null_count() == 0
                values = left.to_numpy()
                assert values.dtype == right.dtype == (np.float64 if kind == "number" else np.int64)
                nan = np.isnan(values) if kind == "number" else np.zeros(len(values), dtype=bool)
                assert (nan == (np.isnan(right) if kind == "number" else nan)).all(), name
                assert values[~nan].tobytes() == right[~nan].tobytes(), (name, values, right)
            else:
                assert right.dtype == object
                assert left.to_list() == right.tolist(), name


def plainly_as_of(view, table, key, t):
    """Read the rule as it is written: the newest row at or before t, unless it is too old."""
    rows = [row for row in table.iter_rows(named=True) if key is not None and row["key"] == key]
    known = [row for row in rows if micros(row["available_at"]) <= t]
    if not known:
        return dict.fromkeys(view.outputs)
    row = max(known, key=lambda row: row["available_at"])
    if view.ttl is not None and t - micros(row["available_at"]) > view.ttl // us(1):
        return dict.fromkeys(view.outputs)
    return {name: row[view.source[name]] for name in view.outputs}


def plainly_window(view, table, key, t):
    """Fold the events of [t - w, t) one by one, in fractions."""
    w = view.window // us(1)
    rows = [
        row for row in table.iter_rows(named=True) if not view.key_columns or (key is not None and row["key"] == key)
    ]
    rows = [row for row in rows if row["key"] is not None or not view.key_columns]
    rows = [row for row in rows if t - w <= micros(row["available_at"]) < t]
    return {
        name: (plainly_total if isinstance(one, Total) else plainly_recent)(one, rows, t)
        for name, one in view.columns.items()
    }


def held_by(one, rows):
    """Give time and value of the events that have one."""
    pairs = [(micros(row["available_at"]), row[one.column] if one.column else 1.0) for row in rows]
    return [(time, value) for time, value in pairs if value is not None and value == value]


def plainly_total(one, rows, t):
    held = [value for _, value in held_by(one, rows)]
    fixed = [round(Fraction(float(value) * 10.0**one.decimals)) for value in held]
    if one.how == "count":
        return len(held)
    if one.how == "sum":
        return float(Fraction(sum(fixed), 10**one.decimals))
    return float(Fraction(sum(fixed), len(held) * 10**one.decimals)) if held else None


def plainly_recent(one, rows, t):
    held = held_by(one, rows)
    if one.how == "distinct":
        return len({value for _, value in held})
    if not held:
        return None
    if one.how in ("min", "max"):
        return (min if one.how == "min" else max)(value for _, value in held)
    time = max(time for time, _ in held)
    return (t - time) / 10**6 if one.how == "time_since_last" else max(v for when, v in held if when == time)


def micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // us(1)


def check_plainly(offline, requests, views, tables):
    times = requests["prediction_time"].cast(pl.Int64).to_list()
    for view in views:
        plainly = plainly_as_of if isinstance(view, AsOfView) else plainly_window
        for row, (key, t) in enumerate(zip(requests["key"].to_list(), times, strict=True)):
            for name, expected in plainly(view, tables[view.table], key, t).items():
                got = offline[name][row]
                missing = expected is None or expected != expected
                assert (got is None or got != got) if missing else got == expected, (view.name, name, key, t)


KEYS = {"text": (text_keys, pl.String), "integer": (int_keys, pl.Int64), "boolean": (flag_keys, pl.Boolean)}


@st.composite
def worlds(draw):
    key, key_type = KEYS[draw(st.sampled_from(sorted(KEYS)))]
    rows = st.lists(rows_of(key), max_size=14)
    tables = {
        "states": frame(first_of_each(draw(rows)), key_type),
        "events": frame(draw(rows), key_type),
    }
    asked = draw(st.lists(st.tuples(key, moments), max_size=10))
    requests = pl.DataFrame(
        [
            pl.Series("key", [key for key, _ in asked], dtype=key_type),
            as_times([moment for _, moment in asked]).alias("prediction_time"),
        ]
    )
    ttl = draw(st.one_of(st.none(), st.integers(0, 8).map(us)))
    window = us(draw(st.integers(1, 8)))
    views = [
        AsOfView(
            "state",
            "states",
            ("key",),
            {f"s_{n}": k for n, k in AS_OF_KINDS.items()},
            source={f"s_{n}": n for n in AS_OF_KINDS},
            ttl=ttl,
        ),
        WindowView("recent", "events", ("key",), window, {f"w_{n}": t for n, t in ALL.items()}),
        WindowView("folded", "events", ("key",), window * 2, {f"f_{n}": t for n, t in RECENT.items()}),
        WindowView("whole", "events", (), window, {f"a_{n}": t for n, t in ALL.items()}),
        WindowView("longer", "events", ("key",), window * 2, {f"l_{n}": t for n, t in TOTALS.items()}),
    ]
    return tables, requests, views, draw(rows), key_type


def check_all_agree(new_place, world):
    tables, requests, views, late, key_type = world
    lake = MemoryLake(dict(tables))
    times = requests["prediction_time"].cast(pl.Int64).to_numpy()
    with OnlineStore(new_place()) as store:
        for step in range(2):
            materialize(views, lake, store)
            offline = join_views(requests, views, lake)
            same_bits(offline, store.lookup(views, request_columns(requests), times), views)
            check_plainly(offline, requests, views, lake.held)
            if not step:
                lake.overwrite("events", pl.concat([tables["events"], frame(late, key_type)]))
                rows = {(row["key"], row["available_at"]): row for row in tables["states"].iter_rows(named=True)}
                new = frame(first_of_each(late), key_type)
                rows |= {(row["key"], row["available_at"]): row for row in new.iter_rows(named=True)}
                lake.overwrite("states", pl.DataFrame(list(rows.values()), schema=new.schema))


@given(world=worlds())
@settings(max_examples=30, deadline=None, suppress_health_check=CHECKS)
def test_offline_online_and_the_rule_itself_agree_and_go_on_agreeing_after_late_rows(new_place, world):
    check_all_agree(new_place, world)


@pytest.mark.long
@given(world=worlds())
@settings(max_examples=400, deadline=None, suppress_health_check=CHECKS)
def test_many_more_worlds_agree_as_well(new_place, world):
    check_all_agree(new_place, world)


@given(world=worlds(), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=CHECKS)
def test_events_in_any_batches_and_order_with_a_restart_after_each_end_up_the_same(new_place, world, data):
    tables, requests, views, _, _ = world
    events, place = tables["events"], new_place()
    order = data.draw(st.permutations(range(events.height)))
    cuts = sorted(data.draw(st.lists(st.integers(0, events.height), max_size=3)))
    lake, times = MemoryLake(dict(tables)), requests["prediction_time"].cast(pl.Int64).to_numpy()
    for cut in [*cuts, events.height]:
        lake.overwrite("events", events[order[:cut]])
        with OnlineStore(place) as store:
            materialize(views, lake, store)
        with OnlineStore(place, read_only=True) as store:
            found = store.lookup(views, request_columns(requests), times)
        offline = join_views(requests, views, lake)
        same_bits(offline, found, views)
        check_plainly(offline, requests, views, lake.held)
    assert join_views(requests, views, MemoryLake(tables)).equals(offline)


@given(world=worlds())
@settings(max_examples=25, deadline=None, suppress_health_check=CHECKS)
def test_one_request_at_a_time_gets_the_same_bits_as_all_together(new_place, world):
    tables, requests, views, _, _ = world
    lake = MemoryLake(tables)
    with OnlineStore(new_place()) as store:
        materialize(views, lake, store)
        offline = join_views(requests, views, lake)
        times = requests["prediction_time"].cast(pl.Int64).to_numpy()
        for row in range(requests.height):
            one = store.lookup(views, request_columns(requests[row : row + 1]), times[row : row + 1])
            same_bits(offline[row : row + 1], one, views)


def test_delivery_order_does_not_matter():
    rng = np.random.default_rng(7)
    rows = [
        ("a", int(t), float(v), 1, True, "x", "y")
        for t, v in zip(rng.integers(0, 50, 200), rng.normal(size=200), strict=True)
    ]
    view = WindowView("recent", "events", ("key",), us(9), ALL)
    requests = pl.DataFrame({"key": ["a"] * 60, "prediction_time": as_times(range(60))})
    answers = []
    for order in (rows, rows[::-1], [rows[i] for i in rng.permutation(200)]):
        answers.append(join_views(requests, [view], MemoryLake({"events": frame(order, pl.String)})))
    assert answers[0].equals(answers[1]) and answers[0].equals(answers[2])


def test_totals_of_years_ago_do_not_change_todays_window():
    old = [("a", t, 0.1 * t, 3, True, "", "") for t in range(12)] * 50
    new = [("a", 5_000, 0.3, 1, False, "", ""), ("a", 5_001, 0.1, 1, True, "", "")]
    view = WindowView("recent", "events", ("key",), us(100), ALL)
    requests = pl.DataFrame({"key": ["a"], "prediction_time": as_times([5_010])})
    long, short = (join_views(requests, [view], MemoryLake({"events": frame(r, pl.String)})) for r in (old + new, new))
    assert long.equals(short)
    assert long["mean"].to_list() == [0.2]


@pytest.mark.parametrize("seed", [1, 2])
def test_several_views_and_several_keys_over_a_real_lake_agree_bit_for_bit(tmp_path, place, seed):
    rng = np.random.default_rng(seed)
    n, hour = 3_000, 3_600_000_000
    origins, carriers = np.array(["JFK", "EWR", "LGA"]), np.array(["AA", "UA", "DL", "B6"])
    delay = np.round(rng.normal(5, 40, n), 1)
    flights = pl.DataFrame(
        {
            "origin": origins[rng.integers(0, 3, n)],
            "carrier": carriers[rng.integers(0, 4, n)],
            "flight": rng.integers(1, 40, n).astype(np.int32),
            "available_at": as_times(rng.integers(0, 200, n) * (hour // 8)),
            "arr_delay": pl.Series([None if rng.random() < 0.1 else float(d) for d in delay]),
            "late": delay > 15,
        }
    )
    weather = pl.DataFrame(
        [
            (o, START + h * hour, float(rng.normal()), None if h % 7 == 0 else "rain")
            for o in origins
            for h in range(24)
            if h % 5
        ],
        schema={"airport": pl.String, "available_at": pl.Int64, "wind": pl.Float64, "sky": pl.String},
        orient="row",
    ).with_columns(pl.col("available_at").cast(TIME))
    lake = Lake(tmp_path / "lake")
    lake.append("flights", flights.to_arrow())
    lake.append("weather", weather.to_arrow())
    totals = {"n": Total("count"), "late": Total("share", "late"), "delay": Total("mean", "arr_delay", 1)}
    totals |= {"worst": Recent("max", "arr_delay"), "carriers": Recent("distinct", "carrier")}
    totals |= {"last": Recent("last", "carrier", kind="text"), "quiet": Recent("time_since_last", "arr_delay")}
    views = [
        AsOfView(
            "weather", "weather", {"origin": "airport"}, {"wind": "number", "sky": "category"}, ttl=timedelta(hours=2)
        ),
        AsOfView("arrival", "weather", {"dest": "airport"}, {"dest_wind": "number"}, source={"dest_wind": "wind"}),
        WindowView("by_origin", "flights", ("origin",), timedelta(hours=3), {f"o_{k}": v for k, v in totals.items()}),
        WindowView(
            "by_pair", "flights", ("carrier", "origin"), timedelta(hours=1), {f"p_{k}": v for k, v in totals.items()}
        ),
        WindowView("by_flight", "flights", ("flight",), timedelta(hours=9), {f"f_{k}": v for k, v in totals.items()}),
        WindowView("all", "flights", (), timedelta(minutes=30), {f"a_{k}": v for k, v in totals.items()}),
    ]
    m = 400
    requests = pl.DataFrame(
        {
            "origin": pl.Series([None if rng.random() < 0.05 else str(o) for o in origins[rng.integers(0, 3, m)]]),
            "dest": np.append(origins, ["BOS"])[rng.integers(0, 4, m)],
            "carrier": np.append(carriers, ["??"])[rng.integers(0, 5, m)],
            "flight": rng.integers(1, 45, m),
            "prediction_time": as_times(rng.integers(-5, 210, m) * (hour // 8) + rng.integers(-1, 2, m)),
        }
    )
    with OnlineStore(place) as store:
        materialize(views, lake, store)
        offline = join_views(requests, views, lake)
        times = requests["prediction_time"].cast(pl.Int64).to_numpy()
        same_bits(offline, store.lookup(views, request_columns(requests), times), views)
    assert offline.select(requests.columns).equals(requests)
    assert offline["o_n"].max() > 3 and offline["p_delay"].is_nan().any() and offline["sky"].null_count() > 0
