"""A key of the user's own, declared by `register` and by a definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlworkbench.contract.pseudonym import is_pseudonym
from mlworkbench.core.home import Home
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.errors import DefinitionError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bento"))
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    return Home.open(tmp_path / "home")


def orders(count: int = 60) -> pd.DataFrame:
    names = [f"A-{k:03}" for k in range(count)]
    return pd.DataFrame({"order": names, "size": np.arange(float(count)) % 7, "big": (np.arange(count) % 7 > 3) * 1})


def test_register_asks_the_pipeline_without_the_key_and_requests_have_it(home, tmp_path):
    rows = orders()
    fitted = LogisticRegression().fit(rows[["size"]], rows["big"])
    tag = register(fitted, rows[["order", "size"]], rows["big"], name="orders", key="order", home=home).tag
    version = Registry(home).open("orders", tag)
    assert (version.declaration["key"], version.request.names) == ("order", ("order", "size"))
    assert not version.request.column("order").nullable and not version.request.column("order").categories
    assert version.frame.names == ("size",)
    rows[["order", "size"]].head(3).to_csv(tmp_path / "today.csv", index=False)
    score_file(version, tmp_path / "today.csv", home=home)
    assert read_log(home.log("orders"))["key"].to_list() == ["A-000", "A-001", "A-002"]
    assert "A-000" not in "".join(p.read_text() for p in version.folder.rglob("*.json*"))


def test_a_pipeline_that_was_fitted_on_the_key_is_refused(home):
    rows = orders().assign(order=np.arange(60))
    fitted = LogisticRegression().fit(rows[["order", "size"]], rows["big"])
    with pytest.raises(DefinitionError, match="without 'order'") as raised:
        register(fitted, rows[["order", "size"]], rows["big"], name="orders", key="order", home=home)
    assert raised.value.code == "register.names_learned"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"order": [None] * 2 + ["x"] * 58}, "2 rows have no key 'order'"),
        ({"order": np.arange(60) / 2}, "text or whole numbers; got Float64"),
        ({"order": [True] * 60}, "text or whole numbers; got Boolean"),
    ],
)
def test_a_key_is_text_or_a_whole_number_in_every_row(home, change, said):
    rows = orders().assign(**change)
    fitted = LogisticRegression().fit(rows[["size"]], rows["big"])
    with pytest.raises(DefinitionError, match=said):
        register(fitted, rows[["order", "size"]], rows["big"], name="orders", key="order", home=home)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("big", "'big', the label"),
        ("row", "a column of every output"),
        ("score_1", "a column of its own"),
        ("", "the name of a column"),
        (["order"], "the name of a column"),
    ],
)
def test_what_no_key_can_be_is_refused_when_it_is_written(key, said):
    with pytest.raises(DefinitionError, match=said):
        ModelDefinition("orders", LogisticRegression(), orders(), "big", key=key)


def test_a_key_is_no_feature():
    with pytest.raises(DefinitionError, match="no key column among the features"):
        ModelDefinition("orders", LogisticRegression(), orders(), "big", features=("order", "size"), key="order")


def test_a_key_that_names_persons_is_known_by_pseudonym(home, tmp_path):
    definition = ModelDefinition("orders", LogisticRegression(), orders(), "big", key="order", personal=("order",))
    version = Registry(home).open("orders", train(definition, home=home).tag)
    orders().head(2).to_csv(tmp_path / "today.csv", index=False)
    score_file(version, tmp_path / "today.csv", home=home, out=tmp_path / "out.csv")
    kept = read_log(home.log("orders"))["key"].to_list()
    assert all(map(is_pseudonym, kept)) and pd.read_csv(tmp_path / "out.csv")["order"].to_list() == kept
