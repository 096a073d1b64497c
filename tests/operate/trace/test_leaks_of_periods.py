"""A day's mean that is stamped as known at the day's beginning is named; a table that begins late is not accused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from mlworkbench.cli.app import run
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.trace.leaks import find_leaks
from mlworkbench.scoring.definition import ModelDefinition

START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 40


def sales(seed=0, per_day=24):
    """Hourly sales of two shops, with how many visitors came."""
    random = np.random.default_rng(seed)
    count = DAYS * per_day
    at = [START + timedelta(minutes=int(place * 1440 / per_day)) for place in range(count)]
    frames = [
        pl.DataFrame(
            {
                "shop": [shop] * count,
                "at": at,
                "visitors": random.poisson(20, count),
                "sold": random.gamma(2, level, count),
            }
        )
        for shop, level in (("a", 5.0), ("b", 9.0))
    ]
    rows = pl.concat(frames).sort("at", "shop").with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    return rows.with_columns(many=(pl.col("sold") > 12).cast(pl.Int64), known=pl.col("at") + timedelta(hours=1))


def period(rows, column, how, every="1d", late=timedelta(0), offset=timedelta(0)):
    """Aggregate over calendar periods, and say when each is said to be known."""
    begin = (pl.col("at") - offset).dt.truncate(every) + offset
    told = {"mean": pl.col(column).mean(), "sum": pl.col(column).sum(), "number": pl.len()}[how]
    made = rows.group_by("shop", begin.alias("available_at"), maintain_order=True).agg(usual=told.cast(pl.Float64))
    return made.with_columns(pl.col("available_at") + late)


def report(tmp_path, sold, daily, *, label="sold", **more):
    lake = Lake(tmp_path / "lake")
    contract = Contract((Column("shop", "text"), Column("usual", "number")))
    ingest(Table("daily", daily, contract), home=(home := Home.open(tmp_path / "home")), now=NOW)
    ingest(table := Table("sales", sold, _contract(sold), available_at="known", limit=0.0), home=home, now=NOW)
    lake = Lake(home.lake)
    names, estimator = sold.columns, LinearRegression() if label == "sold" else LogisticRegression()
    model = ModelDefinition(
        name="shops", estimator=estimator, data=lambda lake: lake.read("sales")[names], label=label,
        entity=("shop",), prediction_time="at", label_available_at="known", tables=(table,),
        features=("visitors", "usual"), views=(AsOfView("daily", "daily", ("shop",), ("usual",)),),
    )  # fmt: skip
    return find_leaks(model, lake, **more)


def _contract(rows):
    kinds = {"text": pl.String, "integer": pl.Int64, "number": pl.Float64, "time": pl.Datetime("us", "UTC")}
    kind = {dtype: name for name, dtype in kinds.items()}
    return Contract(tuple(Column(name, kind[dtype]) for name, dtype in rows.schema.items()))


@pytest.mark.parametrize(
    ("column", "how", "every", "word"),
    [
        ("sold", "mean", "1d", "mean of label 'sold' over the day"),
        ("sold", "sum", "1d", "sum of label 'sold' over the day"),
        ("sold", "mean", "1w", "mean of label 'sold' over the week"),
        ("visitors", "mean", "1d", "mean of visitors over the day"),
    ],
)
def test_an_aggregate_stamped_with_the_beginning_of_its_period_is_named(tmp_path, column, how, every, word):
    rows = sales()
    found = report(tmp_path, rows, period(rows, column, how, every))
    assert {leak.column for leak in found.leaks} == {"usual"}
    assert word in found.leaks[0].line()
    assert "view daily" in found.leaks[0].line()


@pytest.mark.parametrize("late", [timedelta(days=1), timedelta(days=1, hours=3)])
def test_the_same_table_stamped_with_the_end_of_the_day_is_not_accused(tmp_path, late):
    rows = sales()
    found = report(tmp_path, rows, period(rows, "sold", "mean", late=late))
    assert found.leaks == ()
    assert found.unwitnessed == ("daily",)
    said = "\n".join(found.lines())
    assert "table daily: for a sharper answer declare Table.happened_at" in said
    assert "Column.known_at" in said


def test_days_of_a_local_calendar_and_rounded_values_are_found(tmp_path):
    rows = sales()
    daily = period(rows, "sold", "mean", offset=timedelta(hours=5)).with_columns(pl.col("usual").round(2))
    assert {leak.column for leak in report(tmp_path, rows, daily).leaks} == {"usual"}


def test_a_share_of_a_class_is_found_in_a_sample_as_well(tmp_path):
    rows = sales()
    found = report(tmp_path, rows, period(rows, "many", "mean"), label="many", rows=300)
    assert "mean of label 'many' over the day" in found.leaks[0].line()


def test_a_table_that_begins_later_is_not_accused_for_the_rows_before(tmp_path):
    """Where nothing could be known yet the value is missing; that all of these rows have one label is no leak."""
    rows = sales().with_columns(
        many=pl.when(pl.col("at") < START + timedelta(days=2)).then(0).otherwise("many").cast(pl.Int64)
    )
    daily = period(rows, "visitors", "mean", late=timedelta(days=1)).filter(
        pl.col("available_at") >= START + timedelta(days=2)
    )
    assert report(tmp_path, rows, daily, label="many").leaks == ()


def test_what_is_constant_for_a_key_is_no_leak(tmp_path):
    rows = sales().with_columns(visitors=pl.when(pl.col("shop") == "a").then(20).otherwise(30).cast(pl.Int64))
    assert report(tmp_path, rows, period(rows, "visitors", "mean")).leaks == ()


def test_the_command_names_it_and_exits_with_one(tmp_path, monkeypatch, capsys):
    rows = sales()
    for name, late in (("early", 0), ("right", 1)):
        folder = tmp_path / name
        folder.mkdir()
        rows.write_parquet(folder / "sales.parquet")
        period(rows, "sold", "mean", late=timedelta(days=late)).write_parquet(folder / "daily.parquet")
        (folder / f"shops_{name}.py").write_text(
            "from pathlib import Path\n"
            "from sklearn.linear_model import LinearRegression\n"
            "from mlworkbench.contract.contract import Column, Contract\n"
            "from mlworkbench.data.ingest.table import Table\n"
            "from mlworkbench.features.views import AsOfView\n"
            "from mlworkbench.scoring.definition import ModelDefinition\n"
            "here = Path(__file__).parent\n"
            "means = Contract((Column('shop', 'text'), Column('usual', 'number')))\n"
            "daily = Table('daily', here / 'daily.parquet', means)\n"
            "columns = Contract((Column('shop', 'text'), Column('at', 'time'), Column('visitors', 'integer'),\n"
            "    Column('sold', 'number'), Column('many', 'integer'), Column('known', 'time')))\n"
            "sales = Table('sales', here / 'sales.parquet', columns, available_at='known')\n"
            "def rows(lake):\n"
            "    return lake.read('sales', columns=['shop', 'at', 'visitors', 'sold', 'known'])\n"
            "model = ModelDefinition(name='shops', estimator=LinearRegression(), data=rows, label='sold',\n"
            "    prediction_time='at', label_available_at='known', tables=(daily, sales), entity=('shop',),\n"
            "    features=('visitors', 'usual'),\n"
            "    views=(AsOfView('daily', 'daily', ('shop',), ('usual',)),))\n"
        )
        (folder / "settings.ini").write_text(f"[workbench]\nhome = home\n[models]\nshops = shops_{name}:model\n")
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
        monkeypatch.syspath_prepend(str(folder))
        assert run(["ingest"]) == 0
        capsys.readouterr()
        assert run(["features", "leaks"]) == (1 if name == "early" else 0)
        said = capsys.readouterr().out
        assert ("the mean of label 'sold' over the day" in said) == (name == "early")
        assert "for a sharper answer declare Table.happened_at" in said
