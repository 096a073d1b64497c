"""What was known then: two clocks, versions that are gone, and the same answers as the ordinary join."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import FeatureError
from mlworkbench.features.offline.as_known import find_readable, join_views_as_known, logged_versions
from mlworkbench.features.offline.join import TIME, join_views
from mlworkbench.features.views import AsOfView, Recent, Total, WindowView

START = datetime(2024, 5, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", "UTC")
WEATHER = AsOfView("weather", "weather", ("place",), {"wind": "number", "sky": "text"}, ttl=timedelta(hours=4))
SEEN = {"seen": Total("count"), "blow": Total("mean", "wind", 1), "worst": Recent("max", "wind")}
SEEN |= {"skies": Recent("distinct", "sky"), "last_sky": Recent("last", "sky", kind="text")}
GUSTS = WindowView("gusts", "weather", ("place",), timedelta(hours=3), SEEN)


def table(rows: list[tuple[str, float, int, int]]) -> pa.Table:
    place, wind, available, ingested = zip(*rows, strict=True)
    return pa.table(
        {
            "place": pa.array(place),
            "wind": pa.array(wind, pa.float64()),
            "sky": pa.array([f"sky {value}" for value in wind]),
            "available_at": pa.array([START + timedelta(hours=h) for h in available], MOMENT),
            "ingested_at": pa.array([START + timedelta(hours=h) for h in ingested], MOMENT),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    found.append("weather", table([("A", 1.0, 0, 1), ("B", 2.0, 1, 1)]))
    found.append("weather", table([("A", 3.0, 2, 5), ("A", 4.0, 1, 5)]))
    found.append("weather", table([("A", 9.0, 3, 6)]))
    return found


def requests(hours: list[int], places: list[str]) -> pl.DataFrame:
    times = pl.Series([START + timedelta(hours=h) for h in hours], dtype=TIME)
    return pl.DataFrame({"place": places, "prediction_time": times})


def log(hours: list[float], versions: list[int | None]) -> pl.DataFrame:
    marks = [
        json.dumps({name: {"lake_version": v} for name in ("weather", "gusts")}) if v is not None else "null"
        for v in versions
    ]
    return pl.DataFrame(
        {"logged_at": pl.Series([START + timedelta(hours=h) for h in hours], dtype=TIME), "watermark": marks}
    )


def test_the_version_of_the_watermark_decides_what_was_known(lake: Lake) -> None:
    found = join_views_as_known(requests([4] * 3, ["A"] * 3), [WEATHER, GUSTS], lake, known=log([9] * 3, [0, 1, 2]))
    assert found["wind"].to_list() == [1.0, 3.0, 9.0]
    assert found["seen"].to_list() == [0, 2, 3]
    assert found["sky"].to_list() == ["sky 1.0", "sky 3.0", "sky 9.0"]


def test_without_a_watermark_arrival_decides(lake: Lake) -> None:
    hours = [0.5, 1, 4.9, 5, 5.5, 6]
    found = join_views_as_known(requests([4] * 6, ["A"] * 6), [WEATHER], lake, known=log(hours, [None] * 6))
    wind = found["wind"].to_numpy()
    np.testing.assert_array_equal(wind, [np.nan, 1.0, 1.0, 3.0, 3.0, 9.0])


def test_a_row_that_arrived_after_the_prediction_does_not_count_even_in_its_version(lake: Lake) -> None:
    known = log([5.5], [2])
    found = join_views_as_known(requests([4], ["A"]), [WEATHER], lake, known=known)
    assert found["wind"].to_list() == [3.0]
    assert find_readable(WEATHER, lake, known).tolist() == [False]


def test_the_order_of_the_requests_is_kept_whatever_they_knew(lake: Lake) -> None:
    rng = np.random.default_rng(3)
    hours, versions = rng.integers(0, 6, 60).tolist(), rng.choice([0, 1, 2, -1], 60).tolist()
    asked = requests(hours, rng.choice(["A", "B", "C"], 60).tolist())
    known = log([9] * 60, [None if v < 0 else v for v in versions])
    together = join_views_as_known(asked, [WEATHER, GUSTS], lake, known=known)
    alone = [join_views_as_known(asked[i], [WEATHER, GUSTS], lake, known=known[i]) for i in range(60)]
    assert together.equals(pl.concat(alone))


def test_what_is_known_now_is_the_ordinary_join(lake: Lake) -> None:
    asked = requests([0, 1, 2, 3, 4, 7], ["A", "A", "B", "A", "B", "A"])
    now = join_views_as_known(asked, [WEATHER, GUSTS], lake, known=log([100] * 6, [2] * 6))
    assert now.equals(join_views(asked, [WEATHER, GUSTS], lake))


def test_a_version_whose_files_are_gone_is_answered_from_the_newest_and_not_held(lake: Lake) -> None:
    whole = lake.read("weather").sort("available_at").to_arrow()
    lake.overwrite("weather", whole)
    lake.overwrite("weather", whole.slice(0, 4))
    import deltalake

    deltalake.DeltaTable(str(lake.path / "weather")).vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert not lake.holds("weather", 2)
    assert lake.holds("weather", 4)
    known = log([9, 9], [2, 4])
    assert find_readable(WEATHER, lake, known).tolist() == [False, True]
    found = join_views_as_known(requests([4, 4], ["B", "B"]), [WEATHER], lake, known=known)
    assert found["wind"].to_list() == [2.0, 2.0]


def test_a_table_that_was_made_again_after_the_prediction_is_not_held(lake: Lake) -> None:
    shutil.rmtree(lake.path / "weather")
    lake.append("weather", table([("A", 1.0, 0, 8)]))
    assert find_readable(WEATHER, lake, log([6, 8], [0, 0])).tolist() == [False, True]


def test_a_table_that_is_gone_is_not_held(lake: Lake) -> None:
    shutil.rmtree(lake.path / "weather")
    assert find_readable(WEATHER, lake, log([6], [0])).tolist() == [False]
    with pytest.raises(FeatureError) as refused:
        join_views_as_known(requests([4], ["A"]), [WEATHER], lake, known=log([6], [0]))
    assert refused.value.code == "features.table_missing"


def test_a_table_that_does_not_say_when_rows_came_keeps_all(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "plain")
    lake.append("weather", table([("A", 1.0, 0, 8)]).drop_columns(["ingested_at"]))
    known = log([1], [0])
    assert join_views_as_known(requests([1], ["A"]), [WEATHER], lake, known=known)["wind"].to_list() == [1.0]
    assert find_readable(WEATHER, lake, known).tolist() == [True]


def test_no_requests_give_no_rows(lake: Lake) -> None:
    found = join_views_as_known(requests([], []).cast({"place": pl.String}), [WEATHER], lake, known=log([], []))
    assert found.columns == ["place", "prediction_time", "wind", "sky"]
    assert found.height == 0


def test_a_watermark_of_another_shape_names_no_version() -> None:
    marks = pl.Series(['"carried by the event"', "null", '{"other":{}}', '{"weather":{"lake_version":null}}', ""])
    assert logged_versions(WEATHER, marks).to_list() == [-1] * 5


def test_another_number_of_log_rows_is_refused(lake: Lake) -> None:
    with pytest.raises(FeatureError) as refused:
        join_views_as_known(requests([4], ["A"]), [WEATHER], lake, known=log([9, 9], [0, 0]))
    assert refused.value.code == "features.log_rows_mismatch" and "2 log rows for 1 requests" in str(refused.value)
