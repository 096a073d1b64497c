"""Make the packed home: a workbench with its model store, as the package wrote it at the commit that README.md names.

The package is imported inside functions alone, by the names that it had then.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

PLACE = Path("/tmp/old-home/workbench")  # the one path of a machine that the state holds
PACKED = Path(__file__).with_name("home.tar.gz")
LITTER = ("prometheus_multiproc_dir", "__pycache__")
DEFINITION = """
from datetime import timedelta
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mlworkbench import AsOfView, ModelDefinition, RowFunction, Total, WindowView
from mlworkbench.contract import Column, Contract
from mlworkbench.data.table import Table
from mlworkbench.features.view import Recent

HERE = Path(__file__).parent
COLUMNS = (
    Column("rider", "text", pseudonym=True),
    Column("street", "text", personal=True),
    Column("asked", "time"),
    Column("fare", "number", lower=0),
)
RIDES = Table("rides", HERE / "rides.csv", Contract((*COLUMNS, Column("tip", "integer")), key=("rider", "asked")),
              available_at="asked", limit=0.5)
RIDERS = Table("riders", HERE / "riders.csv",
               Contract((Column("person", "text", pseudonym=True), Column("since", "time"), Column("stars", "number"))),
               available_at="since")


def rows(lake):
    return lake.read("rides", columns=["rider", "street", "asked", "fare", "tip"])


def lengths(rider, fare):
    named = np.array([float(len(name or "")) for name in rider])
    return {"named": named, "dear": np.where(np.asarray(fare) > 10, 1.0, 0.0)}


tips = ModelDefinition(
    "tips", make_pipeline(SimpleImputer(), LogisticRegression(max_iter=2000)), rows, "tip",
    entity=("rider",), prediction_time="asked",
    views=(
        AsOfView("known", "riders", {"rider": "person"}, {"stars": "number"}),
        WindowView("rides", "rides", ("rider",), timedelta(days=30), {"taken": Total("count"),
                   "paid": Total("mean", "fare", 2), "most": Recent("max", "fare")}),
        RowFunction(lengths),
    ),
    features=("fare", "stars", "taken", "paid", "most", "named", "dear"), personal=("street",),
    tables=(RIDES, RIDERS), deployments=("one_off", "batch", "realtime", "streaming"),
)
"""
STEPS = """
import numpy as np

from bird_sizes import LARGEST
from mlworkbench.contract import Column

MASS = Column("mass", "number", unit="g")


def in_kilograms(frame):
    return frame.assign(**{MASS.name: np.minimum(frame[MASS.name], LARGEST) / 1000})
"""
SETTINGS = (
    "[workbench]\nhome = home\n\n[models]\ntips = tips_definition:tips\n\n[trust]\ntypes = bird_steps.in_kilograms\n"
)
PAGE = (
    'home = ""\nmodel = ""\nrun_id = ""\nstart = ""\nend = ""\nversion = ""\nrows: int = 3',
    'from mlworkbench.operate.runs import begin_run, finish_run\n\nrun = begin_run(globals(), also=("rows",))',
    'finish_run(run, {"verdict": "pass", "metrics": {"rows": rows}})',
)


def birds() -> pd.DataFrame:
    """Give birds as one measures them, made up: islands, sexes, bills, masses, some of them missing."""
    draws = np.random.default_rng(11)
    species = draws.choice(["Adelie", "Chinstrap", "Gentoo"], 150)
    place = pd.Series(species).map({"Adelie": 38.8, "Chinstrap": 48.8, "Gentoo": 47.5}).to_numpy()
    rows = pd.DataFrame({"island": draws.choice(["Biscoe", "Dream", "Torgersen"], 150)})
    rows["sex"] = draws.choice(["female", "male", None], 150, p=[0.45, 0.45, 0.1])
    rows["bill"] = np.where(draws.uniform(size=150) < 0.05, np.nan, draws.normal(place, 2.5).round(1))
    rows["mass"] = draws.normal(place * 90, 300).round()
    return rows.assign(ring=[f"R{number:04}" for number in range(150)], species=species)


def rides(count: int = 160) -> pl.DataFrame:
    """Give rides of riders that are nobody."""
    hours = pl.datetime_range(pl.datetime(2024, 3, 1), pl.datetime(2024, 5, 1), "1h", time_zone="UTC", eager=True)
    number = pl.int_range(count, eager=True)
    return pl.DataFrame(
        {
            "rider": [f"Rider-{n % 9:03}" for n in number],
            "street": [f"Street {n % 7}" for n in number],
            "asked": hours[:count].dt.to_string("iso:strict"),
            "fare": [3.0 + n % 17 for n in number],
            "tip": [n * n % 3 % 2 for n in number],
        }
    )


def write_sources(folder: Path) -> None:
    """Write what the user has: tables, modules, settings, a notebook, and the files that are scored."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    broken = rides(8).with_columns(fare=pl.lit(-1.0), asked=pl.lit("2024-02-01T00:00:00+00:00"))
    pl.concat([rides(), broken]).write_csv(folder / "rides.csv")
    since = [f"2023-01-{n + 1:02}T00:00:00+00:00" for n in range(9)]
    riders = {"person": [f"Rider-{n:03}" for n in range(9)], "since": since, "stars": [float(n % 5) for n in range(9)]}
    pl.DataFrame(riders).write_csv(folder / "riders.csv")
    sources = {"tips_definition.py": DEFINITION, "bird_steps.py": STEPS, "bird_sizes.py": "LARGEST = 6500.0\n"}
    for name, text in {**sources, "settings.ini": SETTINGS}.items():
        (folder / name).write_text(text.lstrip())
    cells = [new_code_cell(text) for text in PAGE]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells), folder / "count.ipynb")
    rides(20).drop("tip").write_csv(folder / "asked_tips.csv")
    birds().drop(columns="species").head(40).to_csv(folder / "asked_birds.csv", index=False)


def register_birds(home: object) -> None:
    """Register one model that compiles, and one that only its own pipeline answers, by a function of the user's."""
    from bird_steps import in_kilograms
    from mlworkbench.operate.register import register

    rows = birds()
    encoded = (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["island", "sex"])
    trees = HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=5, random_state=0)
    species = make_pipeline(make_column_transformer(encoded, remainder="passthrough"), trees)
    species.fit(rows[["island", "sex", "bill", "mass"]], rows["species"])
    asked = rows[["island", "sex", "bill", "mass", "ring"]]
    register(species, asked, rows["species"], name="penguins", key="ring", home=home)
    bills = make_pipeline(FunctionTransformer(in_kilograms), SimpleImputer(), StandardScaler(), LinearRegression())
    known = rows[rows["bill"].notna()].assign(flipper=lambda frame: frame["mass"] / 20)
    bills.fit(known[["mass", "flipper"]], known["bill"])
    register(bills, known[["mass", "flipper"]], known["bill"], name="bills", home=home)


def train_tips(home: object) -> list[str]:
    """Ingest, train twice, fill the online store."""
    from dataclasses import replace

    from mlworkbench.operate.way_streaming import bring_up
    from sklearn.linear_model import LogisticRegression
    from tips_definition import tips

    from mlworkbench.operate.training import train
    from mlworkbench.scoring.registry import Registry

    newer = replace(tips, estimator=make_pipeline(SimpleImputer(), LogisticRegression(C=0.1, max_iter=2000)))
    tags = [train(definition, home=home).tag for definition in (tips, newer)]
    bring_up(Registry(home).open("tips", tags[0]), home=home)
    return tags


def ask_everywhere(model: str, home: object, folder: Path) -> None:
    """Let a model answer as a file, as a batch, as a service and as a stream, and on a device where it can."""
    from mlworkbench.deploy.one_off import score_file
    from mlworkbench.deploy.serving import start_service
    from mlworkbench.operate.way_edge import edge_rows
    from mlworkbench.operate.way_streaming import stream_rows

    from mlworkbench.client import Client
    from mlworkbench.deploy.batch import batch_requests, score_batch
    from mlworkbench.scoring.registry import Registry

    version = Registry(home).open(model)
    file = folder / f"asked_{'tips' if model == 'tips' else 'birds'}.csv"
    if model == "bills":
        pl.read_csv(file).select("mass", flipper=pl.col("mass") / 20).write_csv(file := folder / "asked_bills.csv")
    score_file(version, file, home=home, out=folder / f"scored_{model}.csv")
    score_batch(version, batch_requests(model, home=home), home=home)
    records = pl.read_csv(file).select(version.request.names).to_dicts()
    with start_service(model, home=home) as service, Client(service.url) as client:
        client.score(records[0], request_id="one")
        answers = client.score(records[:12], request_id="list")
    (folder / f"answered_{model}.json").write_text(json.dumps({"asked": records[:12], "answers": answers}, indent=1))
    asked = batch_requests(model, home=home).head(15)
    stream_rows(version, asked, folder / f"events_{model}.jsonl", home=home)
    if "edge" in version.declaration["deployments"]:
        place = folder / f"device_{model}"
        place.mkdir()
        edge_rows(version, asked.head(10), place, home=home)


def make(folder: Path) -> None:
    """Make everything below a folder that is the current one."""
    from mlworkbench.evaluation.labels import read_log, write_labels
    from mlworkbench.operate.certificate import certify
    from mlworkbench.operate.runs import run_notebook

    from mlworkbench.core.home import Home
    from mlworkbench.scoring.registry import Registry

    home = Home.open(folder / "home")
    register_birds(home)
    tags = train_tips(home)
    registry = Registry(home)
    for model in ("penguins", "bills", "tips"):
        version = registry.open(model, tags[0] if model == "tips" else None)
        assert certify(version, home=home).verdict == "equal", model
        registry.promote(model, version.version, who="maker", why="first")
    registry.promote("tips", tags[1], who="maker", why="newer", override="to have two")
    registry.promote("tips", tags[1], who="maker", why="to be watched", alias="challenger")
    registry.rollback("tips", who="maker", why="back again")
    for model in ("penguins", "bills", "tips"):
        ask_everywhere(model, home, folder)
        ids = read_log(home.log(model), deployment="one_off")["prediction_id"].to_list()
        values = {"penguins": "Gentoo", "bills": 41.5, "tips": 1}
        known = {"value": values[model], "available_at": 1_717_200_000_000_000}
        write_labels(registry.open(model), [{"prediction_id": one, **known} for one in ids[:10]], home=home)
    done = run_notebook(folder / "count.ipynb", {"model": "penguins", "rows": 5, "run_id": "count-first"}, home=home)
    assert done.state == "done", done.error


def pack(folder: Path) -> None:
    """Pack a folder without who made it and when, each database one file."""
    for path in folder.rglob("*.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, path

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if Path(member.name).name in LITTER or member.name.endswith(("-wal", "-shm")):
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(PACKED, "w:gz", compresslevel=9) as archive:
        archive.add(folder, arcname="workbench", filter=plain)


def main() -> None:
    """Make the workbench at its one place, and pack it."""
    PLACE.mkdir(parents=True)
    os.chdir(PLACE)
    os.environ |= {"BENTOML_HOME": str(PLACE / "bentoml"), "MLWORKBENCH_HOME": str(PLACE / "home")}
    sys.path.insert(0, str(PLACE))
    write_sources(PLACE)
    make(PLACE)
    pack(PLACE)


if __name__ == "__main__":
    main()
