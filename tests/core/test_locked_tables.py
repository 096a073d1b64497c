"""Every table of a home that another process holds is one line that says what failed, and may be tried again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from mlworkbench.core import sqlite
from mlworkbench.core.home import Home
from mlworkbench.errors import LogError, RunError, VersionError
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.operate.running.table import RunRow, RunTable
from mlworkbench.scoring.registry.seals import Seals
from mlworkbench.scoring.registry.tables import Aliases, CertificateRecord, Certificates, NamedVersions

LINE = CertificateRecord("c1", "late:1f", "2013-11-01T00:00:00+00:00", "equal", ("batch",), 5, "9f3c", "late/c1.json")
MOVED = {"who": "Ada", "why": "first"}
TABLES = {
    "run table": (RunError, "run_table", lambda path: RunTable(Home(path.parent)).write(RunRow("r", "late", "train"))),
    "table of aliases": (
        VersionError,
        "registry",
        lambda path: Aliases(path).move("late", "champion", "late:1f", **MOVED),
    ),
    "table of this home's versions": (
        VersionError,
        "registry",
        lambda path: NamedVersions(path).add(["late:1f"], ("/home", "/store")),
    ),
    "seals of versions": (VersionError, "registry", lambda path: Seals(path).note("late:1f", {})),
    "table of certificates": (VersionError, "registry", lambda path: Certificates(path).add(LINE)),
    "prediction log": (LogError, "registry", lambda path: PredictionLog(path, wait=0)),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_locked_table_is_one_line_with_what_failed(tmp_path: Path, monkeypatch, what: str) -> None:
    error, place, write = TABLES[what]
    path: Path = getattr(Home(tmp_path), place)
    monkeypatch.setattr(sqlite, "open_sqlite", partial(_at_once, sqlite.open_sqlite))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE something (one INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(error) as caught:
            write(path)
    verb = "open" if what == "prediction log" else "write"
    assert str(caught.value).startswith(f"cannot {verb} the {what} {path}: database is locked; another ")
    assert caught.value.exit_code == 75
    write(path)


def _at_once(opened, path, *, seconds=0, **options):
    return opened(path, seconds=0, **options)
