"""`import mlworkbench` costs nothing and offers the public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mlworkbench

HEAVY = ("numpy", "pandas", "sklearn", "polars", "pyarrow", "pydantic", "bentoml", "papermill")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, mlworkbench; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", mlworkbench.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mlworkbench, name) is getattr(mlworkbench, name)
    assert name in dir(mlworkbench)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'regsiter'"):
        _ = mlworkbench.regsiter
