"""The second door: what the explore pages import, to look at models and to edit contracts.

Lazy as the first one; most names need the extra ``[lab]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlworkbench.contract.file import compare_contracts, read_revision, write_revision
    from mlworkbench.lab.model.record import Record
    from mlworkbench.lab.model.widgets import ModelPage, WhatIf, open_model
    from mlworkbench.lab.model.what_if import ask, sweep
    from mlworkbench.lab.data.rules import learn_rules
    from mlworkbench.lab.data.widgets import DataPage, open_data
    from mlworkbench.lab.features.widgets import FeaturesPage, open_features
    from mlworkbench.lab.certificate.served import deployments_panel
    from mlworkbench.lab.certificate.widgets import open_certificate
    from mlworkbench.lab.monitor.widgets import open_monitor
    from mlworkbench.lab.running.widgets import RunsPage, open_runs
    from mlworkbench.lab.start.widgets import StartPage, open_start
    from mlworkbench.lab.versions.widgets import open_versions
    from mlworkbench.contract.learn_relations import enforce_rules

_WHERE = {
    "DataPage": "lab.data.widgets",
    "FeaturesPage": "lab.features.widgets",
    "ModelPage": "lab.model.widgets",
    "Record": "lab.model.record",
    "RunsPage": "lab.running.widgets",
    "StartPage": "lab.start.widgets",
    "WhatIf": "lab.model.widgets",
    "ask": "lab.model.what_if",
    "compare_contracts": "contract.file",
    "deployments_panel": "lab.certificate.served",
    "enforce_rules": "contract.learn_relations",
    "learn_rules": "lab.data.rules",
    "open_certificate": "lab.certificate.widgets",
    "open_data": "lab.data.widgets",
    "open_features": "lab.features.widgets",
    "open_model": "lab.model.widgets",
    "open_monitor": "lab.monitor.widgets",
    "open_runs": "lab.running.widgets",
    "open_start": "lab.start.widgets",
    "open_versions": "lab.versions.widgets",
    "read_revision": "contract.file",
    "sweep": "lab.model.what_if",
    "write_revision": "contract.file",
}

__all__ = [
    "DataPage",
    "FeaturesPage",
    "ModelPage",
    "Record",
    "RunsPage",
    "StartPage",
    "WhatIf",
    "ask",
    "compare_contracts",
    "deployments_panel",
    "enforce_rules",
    "learn_rules",
    "open_certificate",
    "open_data",
    "open_features",
    "open_model",
    "open_monitor",
    "open_runs",
    "open_start",
    "open_versions",
    "read_revision",
    "sweep",
    "write_revision",
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
