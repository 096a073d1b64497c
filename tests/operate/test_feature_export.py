"""Features for others: those that training sees, each row once, whole days."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract.pseudonym import Pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sinks.open_sink import open_sink
from mlworkbench.deploy.batch.batch import Job
from mlworkbench.errors import DeploymentError, FeatureError
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.feature_export import ROW_ID, build_feature_table, build_features
from mlworkbench.operate.training.assembly import assemble
from mlworkbench.scoring.definition import ModelDefinition

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number", "sky": "category"}, ttl=timedelta(hours=6))


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


@pytest.fixture
def lake(home):
    made = Lake(home.lake)
    hours = [NOON + timedelta(hours=k) for k in range(0, 48, 2)]
    rows = {"origin": ["JFK"] * 24, "available_at": hours, "wind": [float(k) for k in range(24)], "sky": ["clear"] * 24}
    made.append("weather", pl.DataFrame(rows).with_columns(pl.col("available_at").dt.cast_time_unit("us")).to_arrow())
    return made


def trips(**more):
    rows = {
        "trip": [f"T{k}" for k in range(30)],
        "origin": ["JFK"] * 30,
        "asked": [NOON + timedelta(hours=k) for k in range(30)],
        "distance": [None if k == 3 else 100.0 * k for k in range(30)],
        "minutes": [10.0 * k for k in range(30)],
    }
    fields = {"entity": ("trip",), "prediction_time": "asked", "views": (WEATHER,), **more}
    return ModelDefinition("trips", LinearRegression(), pl.DataFrame(rows), "minutes", **fields)


def test_the_features_are_those_of_training(lake):
    definition = trips()
    assembled = assemble(definition, lake)
    table = build_feature_table(definition, assembled)
    assert table.columns == [ROW_ID, "trip", "asked", *assembled.frame.columns]
    for name, values in assembled.frame.columns.items():
        found = table[name].to_list()
        wanted = [None if isinstance(v, float) and np.isnan(v) else v for v in values.tolist()]
        assert found == wanted, name
    assert table[ROW_ID].n_unique() == 30 and table["distance"][3] is None


def test_days_are_written_whole_and_a_repetition_changes_nothing(lake, home, tmp_path):
    definition, sink = trips(), open_sink(f"delta:{tmp_path}/f", folder=tmp_path, key=ROW_ID)
    evening = Job("2013-10-01T18:00:00Z", "2013-10-01T20:00:00Z")
    report = build_features(definition, sink, home=home, job=evening)
    assert (report.rows, report.partitions) == (12, ("trips-features-2013-10-01",))
    report = build_features(definition, sink, home=home)
    assert report.rows == 30 and len(report.partitions) == 2
    from deltalake import DeltaTable

    version = DeltaTable(f"{tmp_path}/f").version()
    later = trips(until="2013-10-01T18:00:00Z")
    assert build_features(later, sink, home=home).rows == 30, "until ends training, not features"
    table = DeltaTable(f"{tmp_path}/f")
    assert table.version() == version == 1 and table.to_pyarrow_table().num_rows == 30


def test_rows_from_the_lake_keep_the_identity_that_their_predictions_have(lake):
    rows = trips().data.with_columns(pl.lit("9f3c").alias("source"), pl.int_range(30).alias("source_row"))
    definition = trips(views=())
    object.__setattr__(definition, "data", rows)
    table = build_feature_table(definition, assemble(definition, lake))
    assert table[ROW_ID].to_list() == [f"9f3c:{k}" for k in range(30)]


def test_a_personal_entity_stays_at_home_and_rows_after_until_are_left_out(lake):
    definition = trips(personal=("trip",), until="2013-10-02T00:00:00Z")
    table = build_feature_table(definition, assemble(definition, lake, pseudonyms=Pseudonyms(bytes(32))))
    assert "trip" not in table.columns and table.height == 12


def test_an_interval_without_rows_and_a_feature_called_row_id_are_refused(lake, home, tmp_path):
    sink = open_sink(f"{tmp_path}/f", folder=tmp_path, key=ROW_ID)
    with pytest.raises(DeploymentError, match="at least one row"):
        build_features(trips(), sink, home=home, job=Job("2014-01-01T00:00:00Z"))
    definition = trips(views=())
    object.__setattr__(definition, "data", definition.data.with_columns(pl.lit(1.0).alias(ROW_ID)))
    with pytest.raises(FeatureError) as raised:
        build_feature_table(definition, assemble(definition, lake))
    assert raised.value.code == "features.row_id"
