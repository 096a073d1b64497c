"""A model that asks about persons, in every way; and a search of every file for what should not be there."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

START = datetime(2024, 3, 1, tzinfo=UTC)
PERSON, BORN, STRANGER = "Zaphodia-Quxx-7731", "Wyrmgate-Lane-0099", "Eccentrica-Gallumb-4242"
DEFINITION = """
from datetime import timedelta
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mlworkbench import AsOfView, ModelDefinition, RowFunction, Total, WindowView
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.data.ingest.table import Table

HERE = Path(__file__).parent
COLUMNS = (
    Column("rider", "text", pseudonym=True),
    Column("street", "text", personal=True),
    Column("asked", "time"),
    Column("fare", "number", lower=0),
)
RIDES = Table("rides", HERE / "rides.csv", Contract((*COLUMNS, Column("tip", "integer")), key=("rider", "asked")),
              available_at="asked", limit=0.5)
RIDERS = Table("riders", HERE / "riders.csv",
               Contract((Column("person", "text", pseudonym=True), Column("since", "time"), Column("stars", "number"))),
               available_at="since")


def rows(lake):
    return lake.read("rides", columns=["rider", "street", "asked", "fare", "tip"])


def lengths(rider):
    return {"named": np.array([float(len(name or "")) for name in rider])}


tips = ModelDefinition(
    "tips", make_pipeline(SimpleImputer(), LogisticRegression(max_iter=2000)), rows, "tip",
    entity=("rider",), prediction_time="asked",
    views=(
        AsOfView("known", "riders", {"rider": "person"}, {"stars": "number"}),
        WindowView("rides", "rides", ("rider",), timedelta(days=30), {"taken": Total("count")}),
        RowFunction(lengths),
    ),
    features=("fare", "stars", "taken", "named"), personal=("street",),
    tables=(RIDES, RIDERS), deployments=("one_off", "batch", "realtime", "streaming"),
)
"""


def names(count: int = 12) -> list[str]:
    return [PERSON, *(f"Rider-{number:03}" for number in range(1, count))]


def rides(count: int = 240) -> pl.DataFrame:
    riders = names()
    return pl.DataFrame(
        {
            "rider": [riders[n % len(riders)] for n in range(count)],
            "street": [BORN if n % len(riders) == 0 else f"Street {n % 7}" for n in range(count)],
            "asked": [(START + timedelta(hours=n)).isoformat() for n in range(count)],
            "fare": [3.0 + n % 17 for n in range(count)],
            "tip": [n * n % 3 % 2 for n in range(count)],
        }
    )


def write_sources(folder: Path) -> None:
    """Write what the user has: two CSV files with names in clear, some rows of them broken, and the definition."""
    table = rides()
    broken = table.head(12).with_columns(fare=pl.lit(-1.0), asked=pl.lit("2024-02-01T00:00:00+00:00"))
    pl.concat([table, broken]).write_csv(folder / "rides.csv")
    since = [(START - timedelta(days=400 + n)).isoformat() for n in range(12)]
    riders = pl.DataFrame({"person": names(), "since": since, "stars": [float(n % 5) for n in range(12)]})
    riders.write_csv(folder / "riders.csv")
    (folder / "tips_definition.py").write_text(DEFINITION)
    (folder / "settings.ini").write_text("[workbench]\nhome = home\n[models]\ntips = tips_definition:tips\n")


def asked(**changes: object) -> dict[str, object]:
    record = {"rider": PERSON, "street": BORN, "asked": "2024-03-09T12:00:00+00:00", "fare": 7.0}
    return {**record, **changes}


def events() -> bytes:
    """Events: a good one, one of a stranger, and bad ones of every sort, each with a name in it."""
    good = [asked(), asked(rider=STRANGER, street=BORN)]
    wrong = [asked(fare=-1), asked(fare="much"), asked(asked="noon"), {"ridr": PERSON, **asked(rider=None)}, [PERSON]]
    lines = [json.dumps(record).encode() for record in (*good, *wrong)]
    torn, not_text = f'{{"rider": "{PERSON}", '.encode(), f'{{"rider": "{PERSON} '.encode() + b'\xff"}'
    twice = f'{{"rider": "{PERSON}", "rider": "{STRANGER}"}}'.encode()
    return b"\n".join([*lines, torn, not_text, twice, b""])


def found(text: bytes, marks: tuple[str, ...]) -> set[str]:
    return {mark for mark in marks if mark.encode() in text}


def decoded(path: Path) -> Iterator[bytes]:
    """Give the bytes of a file as they lie there, and what they mean: tables, databases, archives."""
    content = path.read_bytes()
    yield from decoded_bytes(path.name, content)
    if content.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                yield repr(database.execute(f'SELECT * FROM "{table}"').fetchall()).encode()
        database.close()


def decoded_bytes(name: str, content: bytes) -> Iterator[bytes]:
    yield content
    if content.startswith(b"PAR1"):
        table = pl.read_parquet(io.BytesIO(content))
        yield table.write_ndjson().encode()
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from decoded_bytes(member, archive.read(member))
    elif content.startswith(b"\x1f\x8b"):
        yield from decoded_bytes(name, gzip.decompress(content))


def places(folder: Path, marks: tuple[str, ...], *, given: set[str]) -> dict[str, set[str]]:
    """Give the files below a folder that hold a mark, without the sources that the user gave."""
    result: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name not in given:
            hits = set().union(*(found(text, marks) for text in decoded(path)))
            if hits:
                result[str(path.relative_to(folder))] = hits
    return result
