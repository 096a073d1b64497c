"""The run notebooks train and retrain, executed with real kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlworkbench.operate.running.notebooks import RUN_NAMES, declared_parameters, find_notebook
from mlworkbench.operate.running.runner import run_notebook
from mlworkbench.scoring.registry.registry import Registry

MODULE = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from mlworkbench.scoring.definition import ModelDefinition


def rows():
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draws.normal(size=200), "z": draws.normal(size=200)})
    return frame.assign(y=(frame["x"] + 0.3 * draws.normal(size=200) > 0))


small = ModelDefinition("small", LogisticRegression(), rows, "y", features=FEATURES, gates={"accuracy": (">=", 0.5)})
"""


@pytest.mark.parametrize("name", ["train", "retrain"])
def test_a_run_notebook_declares_the_shared_parameters(name, tmp_path) -> None:
    assert set(RUN_NAMES) <= set(declared_parameters(find_notebook(name, tmp_path)))


@pytest.mark.system
def test_training_and_retraining_run_as_notebooks_and_compare_with_who_serves(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[models]\nsmall = own_model:small\n")
    (tmp_path / "own_model.py").write_text(MODULE.replace("FEATURES", "('z',)"))
    first = run_notebook("train", {"model": "small"}, home=home)
    assert (first.state, first.error) == ("done", "")
    old = first.result["version"]
    (tmp_path / "own_model.py").write_text(MODULE.replace("FEATURES", "('x', 'z')"))
    second = run_notebook("retrain", {"version": old}, home=home)
    assert (second.state, second.error, second.verdict) == ("done", "", "pass")
    new = second.result["version"]
    assert second.result["before"] == old != new
    compared = second.result["compared"]
    assert compared[new]["accuracy"]["value"] > compared[old]["accuracy"]["value"]
    pages = {name: Path(path).is_file() for name, path in second.result["reports"].items()}
    assert pages == {"card": True, "comparison": True, "certificate": True}
    assert "proposed (asked for); to promote it: mlworkbench models promote small:" in second.result["said"][0]
    assert Registry(home).aliases.get("small") == {"challenger": new}
    cells = [cell for cell in json.loads(second.output.read_text())["cells"] if cell.get("outputs")]
    first = "".join(cells[0]["outputs"][0]["data"]["text/markdown"])
    assert first.startswith(f"**small:{new.partition(':')[2][:12]}: proposed"), "the page begins with what came of it"
    assert json.loads(second.result_path.read_text())["verdict"] == "pass"


@pytest.mark.system
def test_a_model_that_nobody_defined_is_a_failed_run_with_one_line(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[models]\nsmall = own_model:small\n")
    failed = run_notebook("train", {"model": "smal"}, home=home)
    assert failed.state == "failed"
    assert "DefinitionError: unknown model 'smal'" in failed.error
