"""The demo's table for the models that need neither time nor entity: no mismatch, nothing missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.examples.diabetes import diabetes
from mlworkbench.examples.penguins import penguins
from mlworkbench.operate.certify.examine import compare_deployments
from mlworkbench.operate.certify.requests import draw_requests
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry


@pytest.mark.parametrize(("definition", "rows"), [(penguins, 344), (diabetes, 442)], ids=["penguins", "diabetes"])
def test_all_deployments_of_a_plain_example_answer_alike(
    definition: ModelDefinition, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    home = Home.open(tmp_path / "home")
    trained = train(definition, home=home)
    assert trained.gates["verdict"] == "pass"
    version = Registry(home).open(definition.name, trained.tag)
    asked = draw_requests(definition, Lake(home.lake))
    table = [row for row in compare_deployments(version, asked, home=home)[1] if row.verdict != "not_declared"]
    assert [row.deployment for row in table] == ["one_off", "batch", "realtime"]
    for row in table:
        assert (row.verdict, row.rows, row.mismatches, row.missing) == ("equal", rows, 0, 0)
        assert row.max_difference <= row.tolerance
