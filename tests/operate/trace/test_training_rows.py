"""Training rows back to the very line of the file that they came from."""

import csv
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.maintenance import compact, vacuum
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.errors import VersionError
from mlworkbench.features.views import AsOfView, Total, WindowView
from mlworkbench.operate.trace.training_rows import rebuild_training_rows, trace_training_rows
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

START = datetime(2013, 1, 1, tzinfo=UTC)


def iso(minutes):
    return (START + timedelta(minutes=minutes)).isoformat()


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def flights_rows(lake):
    return lake.read("flights", columns=["flight", "at", "origin", "distance", "late"])


def tables(folder):
    columns = (Column("flight", "text"), Column("at", "time"), Column("origin", "text"), Column("distance", "number"))
    flights = Contract((*columns, Column("late", "integer")), key=("flight",))
    weather = Contract((Column("origin", "text"), Column("at", "time"), Column("wind", "number")))
    landings = Contract((Column("origin", "text"), Column("at", "time"), Column("delay", "number")))
    return (
        Table("flights", str(folder / "flights-*.csv"), flights, available_at="at"),
        Table("weather", str(folder / "weather.csv"), weather, available_at="at"),
        Table("landings", str(folder / "landings.csv"), landings, available_at="at"),
    )


@pytest.fixture
def folder(tmp_path):
    folder, draws = tmp_path / "files", np.random.default_rng(4)
    folder.mkdir()
    for day in (0, 1):
        rows = [
            {
                "flight": f"UA {day}-{n}",
                "at": iso(600 * day + 5 * n),
                "origin": ("JFK", "LGA")[int(draws.integers(0, 2))],
                "distance": round(float(draws.uniform(100, 2500)), 1),
                "late": int(draws.integers(0, 2)),
            }
            for n in range(100)
        ]
        write(folder / f"flights-{day}.csv", rows)
    hours = [{"origin": "JFK", "at": iso(60 * n), "wind": n} for n in range(20)]
    write(folder / "weather.csv", hours)
    write(folder / "landings.csv", [{"origin": "LGA", "at": iso(7 * n), "delay": n % 11} for n in range(150)])
    return folder


@pytest.fixture
def definition(folder):
    views = (
        AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=3)),
        WindowView("recent", "landings", ("origin",), timedelta(hours=2), {"landed": Total("count")}),
    )
    return ModelDefinition(
        "late_flights",
        LogisticRegression(),
        flights_rows,
        "late",
        entity=("flight",),
        prediction_time="at",
        views=views,
        tables=tables(folder),
        features=("distance", "landed"),
    )


@pytest.fixture
def trained(definition, home, made_once):
    made_once("taught", home, lambda: train(definition, home=home))
    return Registry(home).open(definition.name)


def file_of(folder, fingerprint):
    return next(path for path in sorted(folder.iterdir()) if open_source(path).fingerprint == fingerprint)


def test_each_training_row_is_the_line_of_its_file(trained, definition, home, folder):
    rows, _ = rebuild_training_rows(trained, definition, home=home)
    found = trace_training_rows(trained, definition, home=home)
    assert len(found) == rows.height == trained.manifest["training_rows"]
    for facts, row in zip(found, rows.iter_rows(named=True), strict=True):
        (own,) = facts["tables"]
        line = lines(file_of(folder, own["source"]))[own["source_row"]]
        assert (own["table"], own["lake_version"], own["alike"]) == ("flights", 0, 1)
        assert (line["flight"], float(line["distance"])) == (row["flight"], row["distance"])


def test_each_view_value_is_the_line_that_answered(trained, definition, home, folder):
    rows, _ = rebuild_training_rows(trained, definition, home=home)
    weather, landings = lines(folder / "weather.csv"), lines(folder / "landings.csv")
    seen = {"wind": 0, "landed": 0}
    for facts, row in zip(trace_training_rows(trained, definition, home=home), rows.iter_rows(named=True), strict=True):
        wind, recent = facts["views"]
        if row["origin"] == "JFK":
            line = weather[wind["source_row"]]
            assert datetime.fromisoformat(line["at"]) <= row["at"]
            assert row["at"] - datetime.fromisoformat(line["at"]) < timedelta(hours=1)
            seen["wind"] += 1
        else:
            assert wind["source_row"] is None
        within = [
            n
            for n, line in enumerate(landings)
            if line["origin"] == row["origin"]
            and row["at"] - timedelta(hours=2) <= datetime.fromisoformat(line["at"]) < row["at"]
        ]
        ends = (within[0], within[-1]) if within else (None, None)
        assert (recent["rows"], recent["first_source_row"], recent["last_source_row"]) == (len(within), *ends)
        seen["landed"] += bool(within)
    assert min(seen.values()) > 20


def test_a_version_says_from_which_versions_of_the_lake_it_was_made(trained):
    assert trained.manifest["origin"] == {"lake": {"flights": 0, "landings": 0, "weather": 0}, "rows": None}


def test_rows_that_came_later_and_a_compaction_change_nothing(trained, definition, home, folder):
    before = trace_training_rows(trained, definition, home=home)
    more = [{"flight": f"AA {n}", "at": iso(n), "origin": "JFK", "distance": 5.5, "late": 1} for n in range(40)]
    write(folder / "flights-2.csv", more)
    ingest(definition.tables[0], home=home)
    compact(Lake(home.lake), "flights")
    assert trace_training_rows(trained, definition, home=home) == before


def test_a_part_of_the_rows_is_that_part(trained, definition, home):
    whole = trace_training_rows(trained, definition, home=home)
    assert trace_training_rows(trained, definition, home=home, start=3, stop=5) == whole[3:5]
    with pytest.raises(VersionError, match="9000 to the last") as raised:
        trace_training_rows(trained, definition, home=home, start=9000)
    assert raised.value.code == "trace.range"


def test_a_definition_that_reads_other_rows_now_is_refused(trained, definition, home):
    from dataclasses import replace

    with pytest.raises(VersionError) as raised:
        trace_training_rows(trained, replace(definition, data=lambda lake: flights_rows(lake).head(150)), home=home)
    assert raised.value.code == "trace.rows_differ"


def test_a_version_of_the_lake_that_was_vacuumed_is_told(trained, definition, home, folder):
    write(folder / "flights-2.csv", [{"flight": "AA", "at": iso(1), "origin": "JFK", "distance": 5.5, "late": 1}])
    ingest(definition.tables[0], home=home)
    compact(Lake(home.lake), "flights")
    vacuum(Lake(home.lake), "flights", hours=0, force=True)
    with pytest.raises(VersionError, match="table 'flights': rows of version 0 were vac") as raised:
        trace_training_rows(trained, definition, home=home)
    assert raised.value.code == "trace.rows_lost"


def test_a_sample_is_traced_too(definition, home):
    result = train(definition, home=home, rows=90)
    version = Registry(home).open(definition.name, result.tag)
    rows, _ = rebuild_training_rows(version, definition, home=home)
    found = trace_training_rows(version, definition, home=home)
    assert version.manifest["origin"]["rows"] == 90
    assert len(found) == rows.height < 90
    assert all(facts["tables"][0]["alike"] == 1 for facts in found)


def test_data_from_files_are_traced_without_a_lake(home, folder):
    source = [str(folder / "flights-0.csv"), str(folder / "flights-1.csv")]
    frame = pl.concat([pl.read_csv(path) for path in source])
    definition = ModelDefinition("plain", LogisticRegression(), frame.select("distance", "late"), "late")
    result = train(definition, home=home)
    found = trace_training_rows(Registry(home).open("plain", result.tag), definition, home=home, stop=4)
    rows, _ = rebuild_training_rows(Registry(home).open("plain", result.tag), definition, home=home)
    for facts, distance in zip(found, rows["distance"].to_list(), strict=False):
        (own,) = facts["tables"]
        assert (own["table"], own["source_row"]) == (None, facts["position"])
        assert frame["distance"][own["source_row"]] == distance
