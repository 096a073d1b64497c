"""The model trains, passes its gates, and the same rows give the same version."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlworkbench import Home, train

from definition import mymodel


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the versions of a test out of the user's model store."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))


def test_training_passes_the_gates_and_is_repeatable(tmp_path: Path) -> None:
    """Train twice: one version, and its gates do not fail."""
    home = Home.open(tmp_path / "home")
    first, second = train(mymodel, home=home), train(mymodel, home=home)
    assert first.gates["verdict"] != "fail"
    assert first.content_id == second.content_id
