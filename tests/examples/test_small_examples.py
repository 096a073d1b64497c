import numpy as np
import pytest

from mlworkbench.core.home import Home
from mlworkbench.examples.diabetes import diabetes, diabetes_data
from mlworkbench.examples.penguins import penguins, penguins_data
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import predict


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)


@pytest.mark.parametrize("definition", [penguins, diabetes], ids=["penguins", "diabetes"])
def test_the_example_passes_its_gates_and_is_repeatable(definition, tmp_path):
    home = Home.open(tmp_path / "home")
    first, second = train(definition, home=home), train(definition, home=home)
    assert first.gates["verdict"] == "pass"
    assert (first.created, second.created) == (True, False)
    assert first.content_id == second.content_id


def test_penguins_score_like_the_pipeline_of_the_version(tmp_path):
    home = Home.open(tmp_path / "home")
    train(penguins, home=home)
    version = Registry(home).open("penguins", Registry(home).serving("penguins")[0])
    rows = penguins_data().drop(columns="species")
    columns = {}
    for name in version.request.names:
        values = rows[name]
        text = version.request.column(name).kind in ("category", "text")
        columns[name] = values.astype(object).where(values.notna(), None).to_numpy() if text else values.to_numpy(float)
    found = predict(version, columns, {})
    assert found.scores.shape == (344, 3)
    assert np.mean(np.asarray(found.decisions) == penguins_data()["species"]) > 0.95


def test_neither_example_knows_time_entity_or_views():
    for definition in (penguins, diabetes):
        assert definition.prediction_time is None
        assert not definition.entity and not definition.views


def test_the_tables_are_the_published_ones():
    assert penguins_data()["species"].value_counts().to_dict() == {"Adelie": 152, "Gentoo": 124, "Chinstrap": 68}
    assert diabetes_data()["progression"].agg(["min", "max"]).tolist() == [25.0, 346.0]
