"""The online store and its filling: refusals, several processes, and kill -9."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import FeatureError
from mlworkbench.features.offline.join import join_views, view_table
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import encode_rows, materialize
from mlworkbench.features.online.sqlite import open_database
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView

VIEW = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"})
NOTED = {"n": Total("count"), "most": Recent("max", "wind"), "skies": Recent("distinct", "sky")}
NOTED |= {"last": Recent("last", "sky", kind="category"), "quiet": Recent("time_since_last")}
LANDED = WindowView("landed", "weather", ("origin",), timedelta(microseconds=50), NOTED)


def table(rows):
    origin, moment, wind, sky = zip(*rows, strict=True)
    return pa.table(
        {
            "origin": pa.array(origin, pa.string()),
            "available_at": pa.array(moment, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "wind": pa.array(wind, pa.float64()),
            "sky": pa.array(sky, pa.string()),
        }
    )


@pytest.fixture
def lake(tmp_path):
    made = Lake(tmp_path / "lake")
    made.append("weather", table([("JFK", 10, 1.5, "clear"), ("JFK", 20, None, None), ("EWR", 10, 3.0, "rain")]))
    return made


@pytest.fixture
def store(place):
    with OnlineStore(place) as made:
        yield made


def test_unchanged_lake_writes_nothing_and_a_new_row_writes_one(lake, store):
    assert materialize([VIEW, LANDED], lake, store) == {"weather": 3, "landed": 3}
    assert materialize([VIEW, LANDED], lake, store) == {"weather": 0, "landed": 0}
    lake.append("weather", table([("EWR", 15, 9.0, "fog")]))
    assert materialize([VIEW, LANDED], lake, store) == {"weather": 1, "landed": 1}
    assert store.watermark() == {name: {"lake_version": 1, "newest": 20} for name in ("weather", "landed")}
    assert store.get(VIEW, ("EWR",), 15) == {"wind": 9.0, "sky": "fog"}


def test_a_late_event_changes_all_later_totals_of_its_key(lake, store):
    materialize([LANDED], lake, store)
    lake.append("weather", table([("JFK", 5, 9.0, "fog")]))
    assert materialize([LANDED], lake, store) == {"landed": 3}
    quiet = [store.get(LANDED, ("JFK",), at)["quiet"] for at in (5, 6, 55, 71)]
    assert quiet == [None, 0.000001, 0.000035, None]
    assert [store.get(LANDED, ("JFK",), at)["n"] for at in (5, 6, 11, 21, 55, 56, 61, 71)] == [0, 1, 2, 3, 3, 2, 1, 0]


def test_rows_that_left_the_lake_leave_the_store(lake, store):
    materialize([VIEW, LANDED], lake, store)
    lake.overwrite("weather", table([("JFK", 10, 1.5, "clear")]))
    assert materialize([VIEW, LANDED], lake, store) == {"weather": 2, "landed": 2}
    assert store.stored(VIEW) == [('["JFK"]', 10, '[1.5,"clear"]')]
    assert store.watermark()["weather"]["newest"] == 10


def test_progress_is_reported_to_the_last_row(lake, store):
    seen = []
    materialize([VIEW], lake, store, progress=lambda *step: seen.append(step))
    assert seen[0] == ("weather", 0, 3) and seen[-1] == ("weather", 3, 3)


def test_get_tells_no_row_from_a_row_of_nulls(lake, store):
    materialize([VIEW], lake, store)
    assert store.get(VIEW, ("JFK",), 25) == {"wind": None, "sky": None}
    assert store.get(VIEW, ("JFK",), 9) is None and store.get(VIEW, (None,), 99) is None
    brief = AsOfView("weather", "weather", ("origin",), VIEW.kinds, ttl=timedelta(microseconds=5))
    assert store.get(brief, ("JFK",), 25) is not None and store.get(brief, ("JFK",), 26) is None


def test_two_declarations_of_one_name_live_side_by_side(lake, store):
    other = AsOfView("weather", "weather", ("origin",), {"wind": "number"})
    materialize([VIEW], lake, store)
    with pytest.raises(FeatureError) as refused:
        store.lookup([other], {"origin": np.array(["JFK"], dtype=object)}, np.array([10]))
    assert refused.value.code == "features.view_not_stored"
    materialize([other], lake, store)
    for view in (VIEW, other):
        assert store.get(view, ("JFK",), 10)["wind"] == 1.5


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (AsOfView("v", "wether", ("origin",), ("wind",)), "'wether' is not in the lake; did you mean 'weather'"),
        (AsOfView("v", "weather", ("origin",), ("wnd",)), "'wnd' is not in table 'weather'; did you mean 'wind'"),
        (AsOfView("v", "weather", ("airport",), ("wind",)), "'airport' is not in table"),
        (AsOfView("v", "weather", ("wind",), ("sky",)), "a key is text, integer or boolean"),
        (AsOfView("v", "weather", ("origin",), ("sky",)), "declared number"),
        (AsOfView("v", "weather", ("origin",), {"wind": "text"}), "declared text"),
        (WindowView("v", "weather", ("origin",), timedelta(1), {"x": Total("share", "wind")}), "0 and 1; got"),
        (WindowView("v", "weather", ("origin",), timedelta(1), {"x": Total("sum", "sky")}), "numbers or booleans"),
        (WindowView("v", "weather", ("origin",), timedelta(1), {"x": Recent("max", "sky")}), "declared number"),
        (WindowView("v", "weather", ("origin",), timedelta(1), {"x": Recent("last", "wind", "text")}), "declared text"),
        (WindowView("v", "weather", (), timedelta(1), {"x": Recent("distinct", "available_at")}), "distinct counts"),
        (WindowView("v", "weather", (), timedelta(1), {"x": Recent("min", "wnd")}), "did you mean 'wind'"),
    ],
)
def test_views_that_do_not_fit_the_lake_are_refused_in_one_line(lake, store, view, words):
    with pytest.raises(FeatureError, match=words) as caught:
        materialize([view], lake, store)
    assert "\n" not in str(caught.value) and store.watermark() == {}


def test_two_rows_of_one_key_and_time_are_refused_offline_and_online(lake, store):
    materialize([VIEW], lake, store)
    lake.append("weather", table([("JFK", 10, 7.0, "fog")]))
    with pytest.raises(FeatureError, match="one row for each key and time; got 2 at origin=JFK"):
        view_table(VIEW, lake)
    with pytest.raises(FeatureError) as refused:
        materialize([VIEW], lake, store)
    assert refused.value.code == "features.rows_not_unique"
    assert store.get(VIEW, ("JFK",), 10)["wind"] == 1.5


def test_totals_that_would_leave_64_bits_are_refused(lake, store):
    lake.append("weather", table([("JFK", 30, 1e12, "x")]))
    view = WindowView("v", "weather", ("origin",), timedelta(1), {"x": Total("sum", "wind", 9)})
    with pytest.raises(FeatureError) as refused:
        materialize([view], lake, store)
    assert refused.value.code == "features.total_overflow"


def requests(**columns):
    return pl.DataFrame(columns).with_columns(pl.col("prediction_time").cast(pl.Datetime("us", "UTC")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"origin": [1], "prediction_time": [10]}, "must agree|convert"),
        ({"origin": [1.5], "prediction_time": [10]}, "text, integer or boolean"),
        ({"airport": ["JFK"], "prediction_time": [10]}, "'origin'"),
    ],
)
def test_requests_that_do_not_fit_are_refused_offline_and_online(lake, store, asked, words):
    materialize([VIEW], lake, store)
    with pytest.raises(FeatureError, match=words):
        join_views(requests(**asked), [VIEW], lake)
    columns = {name: np.array(values) for name, values in asked.items()}
    with pytest.raises(FeatureError, match=r"convert|not a column"):
        store.lookup([VIEW], columns, columns.pop("prediction_time"))


def test_join_refuses_missing_times_naive_times_and_columns_given_twice(lake):
    good = requests(origin=["JFK"], prediction_time=[10])
    with pytest.raises(FeatureError) as refused:
        join_views(requests(origin=["JFK"], prediction_time=pl.Series([None], dtype=pl.Int64)), [VIEW], lake)
    assert refused.value.code == "features.time_invalid" and "row 0" in str(refused.value)
    with pytest.raises(FeatureError) as refused:
        join_views(good.with_columns(pl.col("prediction_time").dt.replace_time_zone(None)), [VIEW], lake)
    assert refused.value.code == "features.time_invalid"
    with pytest.raises(FeatureError) as refused:
        join_views(good, [VIEW], lake, time="prediction_tim")
    assert refused.value.code == "features.column_missing" and "did you mean 'prediction_time'" in str(refused.value)
    with pytest.raises(FeatureError) as refused:
        join_views(good.with_columns(wind=1.0), [VIEW], lake)
    assert refused.value.code == "features.column_twice" and "'wind'" in str(refused.value)
    with pytest.raises(FeatureError) as refused:
        join_views(good, [VIEW, AsOfView("w", "weather", ("origin",), ("wind",))], lake)
    assert refused.value.code == "features.column_twice" and "'wind'" in str(refused.value)


def test_row_order_and_request_columns_are_kept(lake):
    asked = requests(origin=["EWR", None, "JFK", "JFK"], prediction_time=[99, 10, 25, 10], extra=[4, 3, 2, 1])
    found = join_views(asked, [VIEW, LANDED], lake)
    assert found.select(asked.columns).equals(asked)
    assert found["n"].to_list() == [0, 0, 2, 0] and found["wind"].fill_nan(-1.0).to_list() == [3.0, -1.0, -1.0, 1.5]


def test_lookup_refuses_times_that_are_no_microseconds(lake, store):
    materialize([VIEW], lake, store)
    origin = {"origin": np.array(["JFK"], dtype=object)}
    for wrong in (np.array([1.0]), np.array([[1]]), np.array([np.iinfo(np.int64).min])):
        with pytest.raises(FeatureError) as refused:
            store.lookup([VIEW], origin, wrong)
        assert refused.value.code == "features.time_invalid"


def test_an_outdated_store_refuses_to_answer(lake, store):
    view = AsOfView("weather", "weather", ("origin",), VIEW.kinds, max_lag=timedelta(microseconds=10))
    materialize([view], lake, store)
    assert store.get(view, ("JFK",), 30) is not None
    with pytest.raises(FeatureError) as refused:
        store.get(view, ("JFK",), 31)
    assert refused.value.code == "features.store_behind"


def test_a_file_that_is_missing_or_no_store_or_newer_is_refused(tmp_path):
    with pytest.raises(FeatureError) as refused:
        OnlineStore(tmp_path / "none.sqlite", read_only=True)
    assert refused.value.code == "features.store_missing"
    (tmp_path / "text.sqlite").write_text("not a database, only some text that is long enough" * 40)
    with pytest.raises(FeatureError, match=r"^cannot open the online store "):
        OnlineStore(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "newer.sqlite") as newer:
        newer.execute("PRAGMA user_version=9")
    newer.close()
    with pytest.raises(FeatureError) as refused:
        OnlineStore(tmp_path / "newer.sqlite")
    assert refused.value.code == "features.store_format"


def test_whoever_reads_for_an_answer_waits_two_seconds_for_a_lock_and_a_writer_a_minute(tmp_path):
    for read_only, expected in ((False, 60_000), (True, 2_000)):
        with closing(open_database(tmp_path / "store.sqlite", read_only=read_only)) as connection:
            assert connection.execute("PRAGMA busy_timeout").fetchone() == (expected,)


def test_a_read_only_store_refuses_to_write_and_sees_what_others_write(lake, store, place):
    materialize([VIEW], lake, store)
    with OnlineStore(place, read_only=True) as reader:
        assert reader.get(VIEW, ("EWR",), 30) == {"wind": 3.0, "sky": "rain"}
        with pytest.raises(FeatureError, match="readonly"):
            reader.put(VIEW, [('["EWR"]', 30, '[4.0,"fog"]')])
        store.put(VIEW, [('["EWR"]', 30, '[4.0,"fog"]')])
        assert reader.get(VIEW, ("EWR",), 30) == {"wind": 4.0, "sky": "fog"}
        assert reader.watermark()["weather"]["newest"] == 30


def test_a_read_only_store_opens_after_the_last_writer_has_closed(lake, place):
    with OnlineStore(place) as store:
        materialize([VIEW], lake, store)
    with OnlineStore(place, read_only=True) as reader:
        assert reader.get(VIEW, ("EWR",), 30) is not None


def test_threads_share_one_store(lake, store):
    materialize([VIEW, LANDED], lake, store)
    asked, times = {"origin": np.array(["JFK", "EWR"] * 10, dtype=object)}, np.arange(20, dtype=np.int64)
    expected = store.lookup([VIEW, LANDED], asked, times)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: store.lookup([VIEW, LANDED], asked, times), range(80)):
            assert found["n"].tolist() == expected["n"].tolist() and found["sky"].tolist() == expected["sky"].tolist()


SCRIPT = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import numpy as np
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.views import Recent, Total
from mlworkbench.features.views import WindowView
columns = {"n": Total("count"), "s": Total("sum", "x"), "m": Recent("max", "x")}
view = WindowView("turn", "t", ("k",), timedelta(microseconds=10), columns)
path = sys.argv[1]
"""

WRITER = (
    SCRIPT
    + """
rows = 3000
store = OnlineStore(path)
turn = 0
while True:
    turn += 1
    with store.transaction():
        store.put(view, (('["a"]', i, f"[{turn * i},{turn * i},{turn * i},{turn}]") for i in range(rows)))
        store.mark(view, turn)
        if turn == 1 or turn % 5 == 0:
            print(turn, flush=True)
"""
)

READER = (
    SCRIPT
    + """
store = OnlineStore(path, read_only=True)
keys, times = {"k": np.array(["a"] * 20, dtype=object)}, np.linspace(50, 2900, 20).astype(np.int64)
seen = set()
for _ in range(150):
    found = store.lookup([view], keys, times)
    assert len(set(found["n"].tolist())) == 1, found["n"]
    assert (found["n"] == 10 * found["m"]).all(), (found["n"], found["m"])
    seen.add(int(found["n"][0]))
print(len(seen))
"""
)


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_readers_in_other_processes_never_see_half_a_rewrite(place):
    writer = start(WRITER, place)
    try:
        assert writer.stdout.readline()
        wait_for_rows(place)
        readers = [start(READER, place) for _ in range(2)]
        answers = [reader.communicate(timeout=120)[0] for reader in readers]
        assert [reader.returncode for reader in readers] == [0, 0]
        assert all(int(answer) > 1 for answer in answers)
    finally:
        writer.kill()
        writer.communicate()


def wait_for_rows(path):
    for _ in range(600):
        with OnlineStore(path, read_only=True) as store:
            if store.watermark():
                return
        time.sleep(0.05)
    raise AssertionError("nothing was ever written")


KILLED = """
import sys, time
from pathlib import Path
from datetime import UTC, datetime, timedelta
from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.online.materialize import encode_rows, materialize
from mlworkbench.features.online.sqlite import open_database
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.views import AsOfView
view = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"})
def report(name, done, total):
    print(done, flush=True)
    if done >= 20_000:
        time.sleep(600)
materialize([view], Lake(Path(sys.argv[1])), OnlineStore(sys.argv[2]), progress=report)
"""


def test_kill_9_in_the_middle_leaves_the_old_rows_and_the_next_run_succeeds(lake, place):
    with OnlineStore(place) as store:
        materialize([VIEW], lake, store)
        before = store.stored(VIEW), store.watermark()
    lake.append("weather", table([("LGA", 100 + i, float(i), "new") for i in range(50_000)]))
    process = start(KILLED, lake.path, place)
    while int(process.stdout.readline()) < 20_000:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with OnlineStore(place) as store:
        assert (store.stored(VIEW), store.watermark()) == before
        assert materialize([VIEW], lake, store) == {"weather": 50_000}
        assert store.get(VIEW, ("LGA",), 10**6) == {"wind": 49_999.0, "sky": "new"}


KILLED_ANYWHERE = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.online.materialize import encode_rows, materialize
from mlworkbench.features.online.sqlite import open_database
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.views import Recent, Total
from mlworkbench.features.views import AsOfView, WindowView
view = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"})
noted = {"n": Total("count"), "most": Recent("max", "wind"), "skies": Recent("distinct", "sky")}
noted |= {"last": Recent("last", "sky", kind="category"), "quiet": Recent("time_since_last")}
landed = WindowView("landed", "weather", ("origin",), timedelta(microseconds=50), noted)
print("ready", flush=True)
materialize([view, landed], Lake(Path(sys.argv[1])), OnlineStore(sys.argv[2]))
"""


def test_kill_9_at_random_moments_loses_and_doubles_nothing(lake, store, place, kills):
    rng, alive = np.random.default_rng(9), 0
    for turn in range(kills):
        lake.append("weather", table([(f"K{i % 7}", 100 + 4_000 * turn + i, float(i), "new") for i in range(4_000)]))
        before = {view.name: (store.stored(view), store.watermark([view])) for view in (VIEW, LANDED)}
        process = start(KILLED_ANYWHERE, lake.path, place)
        assert process.stdout.readline() == "ready\n"
        time.sleep(float(rng.uniform(0, 0.25)))
        alive += process.poll() is None
        process.kill()
        process.communicate()
        for view in (VIEW, LANDED):
            whole = encode_rows(view, view_table(view, lake)).rows()
            assert store.stored(view) in (before[view.name][0], whole)
            came = {"lake_version": turn + 1, "newest": 4_099 + 4_000 * turn}
            expected = {view.name: came} if store.stored(view) == whole else before[view.name][1]
            assert store.watermark([view]) == expected
        if turn % 3 == 2:
            materialize([VIEW, LANDED], lake, store)
    assert alive >= kills // 4, "too few were killed on the way"
    materialize([VIEW, LANDED], lake, store)
    for view in (VIEW, LANDED):
        assert store.stored(view) == encode_rows(view, view_table(view, lake)).rows()
    assert len(store.stored(VIEW)) == 3 + kills * 4_000


def test_two_processes_that_materialize_at_once_take_turns(lake, place):
    lake.append("weather", table([("LGA", 100 + i, float(i), "new") for i in range(15_000)]))
    both = [start(KILLED, lake.path, place) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    assert [process.returncode for process in both] == [0, 0]
    with OnlineStore(place, read_only=True) as store:
        assert len(store.stored(VIEW)) == 15_003


def hours(*of_day, year=2024):
    return [int(datetime(year, 6, 1, hour, tzinfo=UTC).timestamp() * 1e6) for hour in of_day]


@pytest.mark.parametrize("window", [False, True])
def test_a_row_of_the_future_does_not_make_a_store_young(tmp_path, store, window):
    """A lake of before may hold one: the store answers as of the time of the request."""
    never = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000  # Redis ends in 2255
    rows = pl.DataFrame({"k": ["a"] * 3, "x": [1.0, 2.0, 3.0], "available_at": [*hours(10, 11), never]})
    lake = Lake(tmp_path / "young")
    lake.append("t", rows.with_columns(pl.col("available_at").cast(pl.Datetime("us", "UTC"))).to_arrow())
    hour = timedelta(hours=1)
    view = AsOfView("v", "t", ("k",), ("x",), max_lag=hour)
    if window:
        view = WindowView("v", "t", ("k",), timedelta(days=1), {"n": Total("count")}, max_lag=hour)
    materialize([view], lake, store)
    key = {"k": np.array(["a"], dtype=object)}
    for at in hours(10, 11, 12):
        assert store.lookup([view], key, np.array([at]))
    words = r"is 9:00:00 behind \(a row that is available only from 2200-01-01.*at most 1:00:00 behind a request"
    for _ in range(2):
        with pytest.raises(FeatureError, match=words):
            store.lookup([view], key, np.array(hours(20)))
    with pytest.raises(FeatureError) as refused:
        store.get(view, ("a",), hours(9)[0])
    assert refused.value.code == "features.store_behind" and "without a row" in str(refused.value)
    more = rows[:1].with_columns(available_at=pl.Series(hours(19)).cast(pl.Datetime("us", "UTC")))
    lake.append("t", more.to_arrow())
    materialize([view], lake, store)
    assert store.lookup([view], key, np.array(hours(20))), "the next row is noticed"
