"""`batch --to` and `features build --to`, as a person types them."""

import os
import sqlite3
from contextlib import closing

import polars as pl


def test_features_are_built_into_the_home_and_to_a_sink(workbench, facts, tell):
    found = facts("features", "build")
    assert found["model"] == "cars" and found["rows"] > 0
    files = list((workbench / ".workbench" / "cars" / "features").glob("*.parquet"))
    assert sum(pl.read_parquet(file).height for file in files) == found["rows"]
    to = "sqlite:///shop.db?table=features"
    for _ in range(2):
        assert facts("features", "build", "--to", to)["sink"] == "table 'features' in shop.db"
    with closing(sqlite3.connect(workbench / "shop.db")) as shop:
        assert shop.execute("SELECT count(*), count(DISTINCT row_id) FROM features").fetchone() == (found["rows"],) * 2
    code, _, err = tell("features", "build", "--to", "ftp://ada:hunter2@host")
    assert code == 2 and err.startswith("error: to: one of a folder") and "hunter2" not in err


def test_batch_refuses_a_wrong_sink_before_a_kernel_starts_and_delivers_to_a_right_one(workbench, facts, tell):
    assert tell("train")[0] == 0
    for to, said in (("sqlite:///shop.db", "name one table, as"), ("https://h/#secret=hunter2", "not repeated")):
        code, _, err = tell("batch", "--to", to)
        assert code == 2 and said in err and "hunter2" not in err and len(err.splitlines()) == 1
    assert not list((workbench / ".workbench" / "cars" / "runs").glob("batch*"))
    (workbench / "deep").mkdir()
    os.chdir(workbench / "deep")  # a path is meant from where the command is typed
    found = facts("batch", "--to", "delta:predictions")
    assert found["reports"]["sink"] == "predictions"
    assert pl.read_delta(str(workbench / "deep/predictions")).height == found["metrics"]["scored"]
