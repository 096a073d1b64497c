"""From a scikit-learn notebook to production in five deployments that prove they give the same answer.

The names below are loaded when they are first used, so that ``import mlworkbench`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlworkbench.client import Client
    from mlworkbench.core.home import Home
    from mlworkbench.data.ingest import Table, ingest
    from mlworkbench.data.lake import Lake
    from mlworkbench.data.sql import SqlSource
    from mlworkbench.errors import WorkbenchError
    from mlworkbench.features.view import AsOfView, Recent, RowFunction, Total, WindowView
    from mlworkbench.operate.publish import TrainResult
    from mlworkbench.operate.register import register
    from mlworkbench.operate.runs import run_notebook
    from mlworkbench.operate.training import train
    from mlworkbench.scoring.definition import ModelDefinition
    from mlworkbench.scoring.registry import Registry
    from mlworkbench.scoring.version import Version, open_version, predict

__version__ = "0.1.0"

_WHERE = {
    "AsOfView": "features.view",
    "Client": "client",
    "Home": "home",
    "Lake": "data.lake",
    "ModelDefinition": "scoring.definition",
    "Registry": "scoring.registry",
    "Recent": "features.view",
    "RowFunction": "features.view",
    "SqlSource": "data.sql",
    "Table": "data.ingest",
    "Total": "features.view",
    "TrainResult": "operate.publish",
    "Version": "scoring.version",
    "WindowView": "features.view",
    "WorkbenchError": "errors",
    "ingest": "data.ingest",
    "open_version": "scoring.version",
    "predict": "scoring.version",
    "register": "operate.register",
    "run_notebook": "operate.runs",
    "train": "operate.training",
}

__all__ = [
    "AsOfView",
    "Client",
    "Home",
    "Lake",
    "ModelDefinition",
    "Registry",
    "Recent",
    "RowFunction",
    "SqlSource",
    "Table",
    "Total",
    "TrainResult",
    "Version",
    "WindowView",
    "WorkbenchError",
    "ingest",
    "open_version",
    "predict",
    "register",
    "run_notebook",
    "train",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
