"""From a scikit-learn notebook to production in five deployments that prove they give the same answer.

The one door: definitions, run notebooks, services and notebooks of one's own import from here and from nowhere below,
so that what stands below may move. The names are loaded when they are first used: ``import mlworkbench`` costs next to
nothing, and a service loads what it serves with.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlworkbench.client import Client
    from mlworkbench.core.home import Home
    from mlworkbench.contract.contract import Column, Contract
    from mlworkbench.data.ingest.ingest import ingest
    from mlworkbench.data.ingest.table import Table
    from mlworkbench.data.lake.lake import Lake
    from mlworkbench.data.sources.sql import SqlSource
    from mlworkbench.deploy.realtime.app import realtime_service
    from mlworkbench.deploy.batch.batch import batch_requests, score_batch
    from mlworkbench.deploy.selection import open_model
    from mlworkbench.deploy.batch.one_off import score_file
    from mlworkbench.deploy.realtime.process import start_service
    from mlworkbench.deploy.streaming.command import streaming_worker
    from mlworkbench.errors import WorkbenchError
    from mlworkbench.evaluation.monitoring.evaluate import evaluate
    from mlworkbench.evaluation.log.label_writer import write_labels
    from mlworkbench.features.online.materialize import materialize
    from mlworkbench.features.offline.join import join_views
    from mlworkbench.features.online.lookup import OnlineStore
    from mlworkbench.features.views import Recent, Total
    from mlworkbench.features.views import AsOfView, WindowView
    from mlworkbench.features.row_functions import RowFunction
    from mlworkbench.operate.certify.certificate import certify
    from mlworkbench.operate.replay.passport import replay
    from mlworkbench.operate.training.register import register
    from mlworkbench.operate.loop.challenger import retrain
    from mlworkbench.operate.loop.monitor import monitor
    from mlworkbench.operate.running.cells import begin_run, finish_run
    from mlworkbench.operate.running.runner import run_notebook
    from mlworkbench.operate.training.train import find_definition, train
    from mlworkbench.scoring.definition import ModelDefinition
    from mlworkbench.scoring.registry.registry import Registry
    from mlworkbench.scoring.version.version import Version, predict

__version__ = "0.1.0"

_WHERE = {
    "AsOfView": "features.views",
    "Client": "client",
    "Column": "contract.contract",
    "Contract": "contract.contract",
    "Home": "core.home",
    "Lake": "data.lake.lake",
    "ModelDefinition": "scoring.definition",
    "OnlineStore": "features.online.lookup",
    "Recent": "features.views",
    "Registry": "scoring.registry.registry",
    "RowFunction": "features.row_functions",
    "SqlSource": "data.sources.sql",
    "Table": "data.ingest.table",
    "Total": "features.views",
    "Version": "scoring.version.version",
    "WindowView": "features.views",
    "WorkbenchError": "errors",
    "batch_requests": "deploy.batch.batch",
    "begin_run": "operate.running.cells",
    "certify": "operate.certify.certificate",
    "evaluate": "evaluation.monitoring.evaluate",
    "find_definition": "operate.training.train",
    "finish_run": "operate.running.cells",
    "ingest": "data.ingest.ingest",
    "join_views": "features.offline.join",
    "materialize": "features.online.materialize",
    "monitor": "operate.loop.monitor",
    "open_model": "deploy.selection",
    "predict": "scoring.version.version",
    "realtime_service": "deploy.realtime.app",
    "register": "operate.training.register",
    "replay": "operate.replay.passport",
    "retrain": "operate.loop.challenger",
    "run_notebook": "operate.running.runner",
    "score_batch": "deploy.batch.batch",
    "score_file": "deploy.batch.one_off",
    "start_service": "deploy.realtime.process",
    "streaming_worker": "deploy.streaming.command",
    "train": "operate.training.train",
    "write_labels": "evaluation.log.label_writer",
}

__all__ = [
    "AsOfView",
    "Client",
    "Column",
    "Contract",
    "Home",
    "Lake",
    "ModelDefinition",
    "OnlineStore",
    "Recent",
    "Registry",
    "RowFunction",
    "SqlSource",
    "Table",
    "Total",
    "Version",
    "WindowView",
    "WorkbenchError",
    "batch_requests",
    "begin_run",
    "certify",
    "evaluate",
    "find_definition",
    "finish_run",
    "ingest",
    "join_views",
    "materialize",
    "monitor",
    "open_model",
    "predict",
    "realtime_service",
    "register",
    "replay",
    "retrain",
    "run_notebook",
    "score_batch",
    "score_file",
    "start_service",
    "streaming_worker",
    "train",
    "write_labels",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    """Load a public name from its module when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mlworkbench.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
