"""What a version needs: named by its files, followed to the end, and proved to be all."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import DeploymentError
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.ship.lock import Lock, find_needs, lay_out, lock_needs, prove_lock
from mlworkbench.scoring.registry.registry import Registry

HEAVY = {"pandas", "scikit-learn", "polars", "pyarrow", "deltalake", "skops", "scipy", "cryptography", "onnxruntime"}


def test_a_compiled_version_needs_no_table_and_no_scikit_learn(shop: Home) -> None:
    version = Registry(shop).open("line")
    lock = lock_needs(find_needs(version))
    assert version.scorer.kind == "compiled" and not HEAVY & lock.pins.keys()
    assert {"bentoml", "numpy", "starlette", "uvicorn"} <= lock.pins.keys() and "mlworkbench" not in lock.pins
    prove_lock(lock, version)


def test_a_reference_version_brings_its_pipeline_and_its_kind_of_table(shop: Home) -> None:
    version = Registry(shop).open("near")
    lock = lock_needs(find_needs(version))
    assert HEAVY & lock.pins.keys() == {"pandas", "scikit-learn", "skops", "scipy"}
    assert "polars" in find_needs(replace(version, declaration={**version.declaration, "input": "polars"}))


def test_trees_need_onnxruntime_and_helpers_and_batch_what_they_name(shop: Home, tmp_path: Path) -> None:
    version = Registry(shop).open("line")
    (tmp_path / "scorer.onnx").touch()
    assert "onnxruntime" in find_needs(replace(version, folder=tmp_path))
    helped = Registry(shop).open("near")
    helped = replace(helped, manifest={**helped.manifest, "helpers": {"prettytable": {"version": "3"}}})
    assert "prettytable" in find_needs(helped)
    batch = lock_needs(find_needs(version, batch=True))
    assert {"pandas", "polars", "pyarrow", "deltalake", "papermill", "typer"} <= batch.pins.keys()


def test_a_model_with_views_brings_what_asks_a_store_outside_the_container(shop: Home) -> None:
    version = Registry(shop).open("line")
    weather = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6))
    assert {"redis"} == set(find_needs(replace(version, views=(weather,)))) - set(find_needs(version))


def test_a_row_function_brings_what_its_module_imports(shop: Home, tmp_path: Path) -> None:
    version = Registry(shop).open("line")
    (tmp_path / "own.py").write_text("import math\nfrom scipy import stats\nfrom mlworkbench import View\n")
    entry = {"file": "own.py", "module": "own", "name": "speed", "pandas": False}
    asked = replace(version, folder=tmp_path, declaration={**version.declaration, "row_functions": [entry]})
    assert {"scipy"} == set(find_needs(asked)) - set(find_needs(version))


def test_pins_are_what_is_installed_and_requirements_are_followed_with_their_markers() -> None:
    lock = lock_needs(["scikit-learn", "uvicorn[standard]"])
    assert {"numpy", "scipy", "joblib", "threadpoolctl", "httptools", "h11"} <= lock.pins.keys()
    assert all(version == metadata.version(name) for name, version in lock.pins.items())
    assert "colorama" not in lock.pins or sys.platform == "win32"
    assert lock.text.splitlines() == sorted(lock.text.splitlines()) and lock.size > 50e6


def test_what_is_not_installed_is_told_by_name() -> None:
    with pytest.raises(DeploymentError, match="no-such-thing") as refused:
        lock_needs(["numpy", "no-such-thing"])
    assert refused.value.code == "ship.not_installed"


def test_a_lock_without_something_is_refused_by_its_name(shop: Home) -> None:
    version = Registry(shop).open("line")
    lock = lock_needs(find_needs(version))
    pins = {name: pin for name, pin in lock.pins.items() if name != "starlette"}
    with pytest.raises(DeploymentError, match="starlette") as refused:
        prove_lock(Lock(pins, 0), version)
    assert refused.value.code == "ship.lock" and "\n" not in str(refused.value)


def test_the_libraries_laid_out_are_those_of_the_lock_and_this_package(tmp_path: Path) -> None:
    lay_out(lock_needs(["prettytable", "opentelemetry-api", "opentelemetry-sdk"]), tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    assert {"prettytable", "wcwidth", "opentelemetry", "mlworkbench"} <= found and "numpy" not in found
    assert (tmp_path / "mlworkbench/py.typed").is_file()
