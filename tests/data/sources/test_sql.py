"""Queries as sources: streamed, incremental by a cursor, without a word about the password."""

import re
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.address import Address, mask_secrets, public_address
from mlworkbench.data.sources.drivers import CursorQuery
from mlworkbench.data.sources.source import is_source
from mlworkbench.data.sources.sql import SqlSource
from mlworkbench.errors import IngestError

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
COLUMNS = (Column("id", "integer"), Column("flight", "text"), Column("delay", "number", upper=100))
QUERY = "SELECT * FROM landings"


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def landings(shop, cursor="id", key=("id", "flight"), limit=1.0, query=QUERY, overlap=0):
    def known(frame):
        return pl.repeat(NOON, frame.height, eager=True)

    source = SqlSource(shop.url, query, cursor=cursor, overlap=overlap)
    return Table("landings", source, Contract(COLUMNS, key=key), available_at=known, limit=limit)


def counts(report):
    return report.read, report.appended, report.skipped, report.quarantined


def flights(home):
    return sorted(Lake(home.lake).read("landings")["flight"])


def rows_of(source):
    return [row for batch in source.batches() for row in batch.to_pylist()]


def test_a_query_is_a_source_like_any_other(shop):
    shop.land((1, "UA1", 3.5), (2, "UA2", None))
    source = SqlSource(shop.url, f"{QUERY} ORDER BY id;\n")
    assert is_source(source)
    assert source.columns() == ["id", "flight", "delay"]
    assert rows_of(source) == rows_of(source)
    assert rows_of(source) == [{"id": 1, "flight": "UA1", "delay": 3.5}, {"id": 2, "flight": "UA2", "delay": None}]
    again = SqlSource(shop.url, f"{QUERY} ORDER BY id").fingerprint
    assert again == source.fingerprint
    shop.land((3, "UA3", 1.0))
    assert SqlSource(shop.url, f"{QUERY} ORDER BY id").fingerprint != again
    assert source.fingerprint == again and source.rows == 2, "the source is the answer it read"


def test_only_what_is_newer_is_read_and_rows_at_the_last_value_come_once(shop, home):
    shop.land((1, "UA1", 1.0), (2, "UA2", 2.0))
    assert counts(ingest(landings(shop), home=home)) == (2, 2, 0, 0)
    assert counts(ingest(landings(shop), home=home)) == (1, 0, 1, 0)
    shop.land((2, "UA2b", 2.0), (3, "UA3", 3.0), (1, "late", 3.0))
    assert counts(ingest(landings(shop), home=home)) == (3, 2, 1, 0)
    assert flights(home) == ["UA1", "UA2", "UA2b", "UA3"]
    assert counts(ingest(landings(shop), home=home)) == (1, 0, 1, 0)


def test_an_overlap_finds_what_was_committed_late(shop, home):
    shop.land((1, "UA1", 1.0), (5, "UA5", 2.0))
    ingest(landings(shop), home=home)
    shop.land((3, "late", 2.0))
    assert counts(ingest(landings(shop, overlap=2), home=home)) == (2, 1, 1, 0)
    with pytest.raises(IngestError, match=r"overlap goes with the cursor 'id', so it is a whole number; got"):
        ingest(landings(shop, overlap=timedelta(hours=1)), home=home)


def test_rows_without_a_value_of_the_cursor_are_not_lost(shop, home):
    table = landings(shop, key=("flight",))
    table = Table(
        **{**vars(table), "contract": Contract((Column("id", "number", nullable=True), *COLUMNS[1:]), key=("flight",))}
    )
    shop.land((1, "UA1", 1.0), (None, "UA0", 1.0))
    assert counts(ingest(table, home=home)) == (2, 2, 0, 0)
    shop.land((None, "UAx", 1.0))
    assert counts(ingest(table, home=home)) == (3, 1, 2, 0)


def test_a_bad_row_at_the_last_value_is_neither_doubled_nor_held_against_the_limit(shop, home):
    shop.land(*((number, f"UA{number}", 1.0) for number in range(99)), (99, "UA99", 999.0))
    assert counts(ingest(landings(shop, limit=0.05), home=home)) == (100, 99, 0, 1)
    again = ingest(landings(shop, limit=0.05), home=home)
    assert (counts(again), again.still_refused) == ((1, 0, 0, 0), 1)
    shop.land((100, "UA100", 1.0))
    assert counts(ingest(landings(shop, limit=0.05), home=home)) == (2, 1, 0, 0)
    assert counts(ingest(landings(shop, limit=0.05), home=home)) == (1, 0, 1, 0)
    shop.land((101, "UA101", 999.0))
    with pytest.raises(IngestError, match=r"1 of 2 rows \(50.0%\) break the contract"):
        ingest(landings(shop, limit=0.05), home=home)
    assert Lake(home.quarantine).read("landings").height == 1


def test_a_sample_first_takes_the_rest_later(shop, home):
    shop.land(*((number, f"UA{number}", 1.0) for number in (4, 2, 3, 1, 0)))
    assert counts(ingest(landings(shop), home=home, rows=2)) == (2, 2, 0, 0)
    assert flights(home) == ["UA0", "UA1"]
    assert counts(ingest(landings(shop), home=home)) == (4, 3, 1, 0)


def test_another_query_begins_anew_and_doubles_nothing(shop, home):
    shop.land((1, "UA1", 1.0), (2, "UA2", 1.0))
    ingest(landings(shop, query=f"{QUERY} WHERE flight = 'UA2'"), home=home)
    assert counts(ingest(landings(shop), home=home)) == (2, 1, 1, 0)


def test_without_a_cursor_all_is_read_and_each_key_taken_once(shop, home):
    shop.land((1, "UA1", 1.0), (2, "UA2", 1.0))
    ingest(landings(shop, cursor=""), home=home)
    shop.land((0, "UA0", 1.0))
    assert counts(ingest(landings(shop, cursor="", query=f"{QUERY} ORDER BY id"), home=home)) == (3, 1, 2, 0)


def test_a_query_needs_a_key_and_a_cursor_that_is_not_personal(shop, home):
    shop.land((1, "UA1", 1.0))
    with pytest.raises(IngestError, check=lambda error: error.code == "ingest.key_missing"):
        ingest(landings(shop, key=()), home=home)
    table = landings(shop)
    contract = Contract((Column("id", "integer", personal=True), *COLUMNS[1:]), key=("id",))
    with pytest.raises(IngestError, check=lambda error: error.code == "ingest.cursor_personal"):
        ingest(Table(**{**vars(table), "contract": contract}), home=home)


@pytest.mark.parametrize("point", ["reading", "quarantined", "writing", "written"])
def test_a_process_killed_at_a_known_point_loses_and_doubles_nothing(shop, tmp_path, point):
    shop.run(
        f"INSERT INTO landings {shop.serial.format(70_000)} "
        "SELECT n, 'F' || n, CASE WHEN n % 100 = 7 THEN 999 ELSE 1 END FROM s"
    )
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    first = run(worker, shop, tmp_path / "home", point)
    assert first.returncode == -signal.SIGKILL, first.stderr
    shop.land((69_999, "same serial", 1.0), (70_000, "new", 1.0), (70_001, "new and bad", 999.0))
    second = run(worker, shop, tmp_path / "home", "")
    assert second.returncode == 0, second.stderr
    rows = Lake(Home.open(tmp_path / "home").lake).read("landings", columns=["id", "flight"])
    assert rows.height == rows.n_unique() == 70_000 - 700 + 2
    lines = Lake(Home.open(tmp_path / "home").quarantine).read("landings", columns=["record"])
    assert lines.height == lines.n_unique() == 701
    third = run(worker, shop, tmp_path / "home", "")
    assert third.stdout.split() == ["1", "0", "0", "1"]


def run(worker, shop, home, point):
    return subprocess.run([sys.executable, worker, shop.url, home, point], capture_output=True, text=True, timeout=120)


WORKER = """
import os, signal, sys
import polars as pl
from datetime import UTC, datetime
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest import ingest as module
from mlworkbench.data.lake import lake
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.sources.sql import SqlSource

url, home, point = sys.argv[1:4]
columns = (Column("id", "integer"), Column("flight", "text"), Column("delay", "number", upper=100))
source = SqlSource(url, "SELECT * FROM landings", cursor="id")
known = lambda frame: pl.repeat(datetime(2013, 10, 1, tzinfo=UTC), frame.height, eager=True)
table = Table("landings", source, Contract(columns, key=("id", "flight")), available_at=known, limit=1.0)


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


if point == "quarantined":
    write = module.write_quarantine
    module.write_quarantine = lambda *args, **more: (write(*args, **more), die())
elif point == "writing":
    whole = module.select_new_rows

    def half(*args, **more):
        yield next(iter(whole(*args, **more)))
        die()

    module.select_new_rows = half
elif point == "written":
    append = lake.Lake.append
    lake.Lake.append = lambda self, *args, **more: (append(self, *args, **more), self.path.name == "lake" and die())[0]
report = ingest(table, home=Home.open(home), progress=die if point == "reading" else None)
print(report.read, report.appended, report.skipped, report.still_refused)
"""


def test_memory_does_not_grow_with_the_table(shop, tmp_path):
    shop.run(f"INSERT INTO landings {shop.serial.format(1_000_000)} SELECT n, 'flight number ' || n, 1.5 FROM s")
    code = (
        "import re, sys; from pathlib import Path; from mlworkbench.data.sources.sql import SqlSource;"
        "source = SqlSource(sys.argv[1], f'SELECT * FROM landings WHERE id < {sys.argv[2]}');"
        "rows = sum(batch.num_rows for batch in source.batches());"
        "print(rows, int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)"
    )
    peaks = {}
    for wanted in (200_000, 1_000_000):
        done = subprocess.run(
            [sys.executable, "-c", code, shop.url, str(wanted)], capture_output=True, text=True, check=True
        )
        rows, peaks[wanted] = map(int, done.stdout.split())
        assert rows == wanted
    print(f"{shop.url[:8]}: peak MB by rows {peaks}")
    assert peaks[1_000_000] < peaks[200_000] + 40, peaks


@pytest.mark.parametrize("shop", ["postgresql", "postgresql+psycopg", "duckdb"], indirect=True)
def test_times_days_and_texts_can_be_cursors_of_a_database_with_types(shop, home):
    query = "SELECT * FROM (VALUES ('UA1', {0} '2013-10-01'), ('O''2', {0} '2013-10-02')) v(flight, \"at\")"
    for kind, last in (
        ("timestamptz", datetime(2013, 10, 2, tzinfo=UTC)),
        ("timestamp", datetime(2013, 10, 2)),
        ("date", date(2013, 10, 2)),
        ("text", "2013-10-02"),
    ):
        source = SqlSource(shop.url, query.format(kind), cursor="at")
        rest = source.since(source.mark(source.rows), home.path)
        assert rest.after == last
        assert [row["flight"] for row in rows_of(rest)] == ["O'2"]
    by_flight = SqlSource(shop.url, query.format("text"), cursor="flight")
    assert by_flight.since(by_flight.mark(2), home.path).rows == 1
    late = SqlSource(shop.url, query.format("timestamptz"), cursor="at", overlap=timedelta(days=1))
    assert late.since(late.mark(2), home.path).rows == 2


def test_types_of_postgresql_become_plain_or_are_refused_by_name(postgres):
    query = "SELECT 1::smallint AS n, 1.25::numeric AS price, '{\"a\": 1}'::json AS doc, true AS ok, 'NaN'::float8 AS x"
    assert rows_of(SqlSource(postgres, query)) == [{"n": 1, "price": 1.25, "doc": '{"a": 1}', "ok": True, "x": None}]
    with pytest.raises(IngestError, match=r"column 'key' must be text, a number, a time; got .*uuid.*key::text"):
        SqlSource(postgres, "SELECT gen_random_uuid() AS key").columns()
    with pytest.raises(IngestError, match="names column 'a' twice"):
        SqlSource(postgres, "SELECT 1 AS a, 2 AS a").columns()


@pytest.mark.parametrize("statement", ["DELETE FROM landings RETURNING *", "DROP TABLE landings", "nonsense"])
@pytest.mark.parametrize("cursor", ["", "id"])
def test_a_source_never_writes(shop, statement, cursor):
    shop.land((1, "UA1", 1.0))
    with pytest.raises(IngestError, check=lambda error: error.code == "source.query"):
        SqlSource(shop.url, statement, cursor=cursor).columns()
    assert SqlSource(shop.url, QUERY).rows == 1


@pytest.mark.parametrize("shop", ["duckdb", "postgresql+psycopg"], indirect=True)
def test_types_of_any_database_become_plain_or_are_refused_by_name(shop):
    query = (
        "SELECT CAST(1 AS SMALLINT) AS n, CAST(1.25 AS DECIMAL(5, 2)) AS price, '100% :x a:b' AS text, true AS ok, "
        "DATE '2013-10-01' AS day, TIMESTAMP '2013-10-01 12:30:00' AS at, CAST('NaN' AS DOUBLE PRECISION) AS x"
    )
    day = {"day": date(2013, 10, 1), "at": datetime(2013, 10, 1, 12, 30)}
    plain = {"n": 1, "price": 1.25, "text": "100% :x a:b", "ok": True, **day, "x": None}
    assert rows_of(SqlSource(shop.url, query)) == [plain]
    with pytest.raises(IngestError, match=r"column 'key' must hold text, numbers, times or days; got UUID; cast it in"):
        SqlSource(shop.url, "SELECT gen_random_uuid() AS key").columns()
    with pytest.raises(IngestError, match="names column 'a' twice"):
        SqlSource(shop.url, "SELECT 1 AS a, 2 AS a").columns()


@pytest.mark.parametrize("shop", ["duckdb"], indirect=True)
def test_a_number_too_large_for_the_lake_is_refused_by_its_column(shop):
    with pytest.raises(IngestError, match=r"shop.duckdb: column 'n' must hold whole numbers of 64 bits; got a larger"):
        SqlSource(shop.url, "SELECT 18446744073709551615::UBIGINT AS n").columns()


@pytest.mark.parametrize("dialect", ["sqlite", "sqlite+pysqlite"])
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_only_late_rows_hold_widens_a_column_alike_however_rows_come(tmp_path, monkeypatch, dialect, batch):
    import sqlite3

    monkeypatch.setattr("mlworkbench.data.sources.drivers.BATCH", batch)
    with sqlite3.connect(tmp_path / "late.db") as connection:
        connection.execute("CREATE TABLE landings (id, delay, gate, hole)")
        rows = [(1, None, 3.0), (2, 3, 1e20), (3, 4, 7), (4, 2.5, None), (5, None, "B")]
        connection.executemany("INSERT INTO landings VALUES (?, ?, ?, NULL)", rows)
    source = SqlSource(f"{dialect}:///{tmp_path}/late.db", QUERY)
    found = rows_of(source)
    assert [row["delay"] for row in found] == [None, 3.0, 4.0, 2.5, None]
    assert [row["gate"] for row in found] == ["3.0", "1e+20", "7", None, "B"]
    schema = source.answer.spool.schema
    assert [str(field.type) for field in schema] == ["int64", "double", "string", "null"]
    assert [field.name for field in schema if field.metadata] == ["gate"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysqll://db/shop", "a dialect that SQLAlchemy knows; got mysqll; did you mean 'mysql'"),
        ("mysql+pymysql://ada:${PW}@db/shop", r"shop on db: mysql.pymysql needs its driver; got no pymysql"),
        ("duckdb:///none.duckdb", "none.duckdb: no such file as none.duckdb; correct it"),
        ("s3://shop/2013", "a dialect that SQLAlchemy knows; got s3"),
    ],
)
def test_what_is_missing_behind_an_address_is_one_line(monkeypatch, tmp_path, url, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PW", "x")
    with pytest.raises(IngestError, match=said):
        SqlSource(url, QUERY).columns()
    assert not list(tmp_path.iterdir())


def test_a_question_is_written_in_the_dialect_of_its_database():
    from sqlalchemy.dialects import mssql, mysql, oracle

    question = CursorQuery(" SELECT `a:b` FROM t; ", "at", datetime(2013, 10, 1, tzinfo=UTC))
    where = {
        mysql: "source.`at` >= %s OR source.`at` IS NULL ORDER BY source.`at`",
        mssql: "source.[at] >= :param_1 OR source.[at] IS NULL ORDER BY source.[at]",
        oracle: "source.at >= :param_1 OR source.at IS NULL ORDER BY source.at",
    }
    for module, expected in where.items():
        dialect = module.dialect()
        asked = " ".join(question.bound(dialect)[0].split())
        assert asked.partition(" WHERE ")[2] == expected


def test_a_mixed_column_of_sqlite_costs_its_bad_rows_only(home, tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "mixed.db") as connection:
        connection.execute("CREATE TABLE landings (id, flight, delay)")
        rows = [(1, "UA1", 3), (2, "UA2", "late"), (3, "UA3", 2.5)]
        connection.executemany("INSERT INTO landings VALUES (?, ?, ?)", rows)
    shop = type("Shop", (), {"url": f"sqlite:///{tmp_path}/mixed.db"})
    assert counts(ingest(landings(shop), home=home)) == (3, 2, 0, 1)
    with pytest.raises(IngestError, match=r"cursor 'delay' must hold whole numbers.*text mixed with numbers"):
        SqlSource(shop.url, QUERY, cursor="delay").columns()
    with pytest.raises(IngestError, match="must hold text, numbers, times or days; got bytes"):
        SqlSource(shop.url, "SELECT x'00' AS picture").columns()


def test_a_missing_file_is_refused_and_not_made(tmp_path):
    with pytest.raises(IngestError, check=lambda error: error.code == "source.not_found"):
        SqlSource(f"sqlite:///{tmp_path}/none.db", QUERY).columns()
    assert not list(tmp_path.iterdir())


def test_a_missing_driver_is_one_line_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    monkeypatch.setenv("PW", "x")
    with pytest.raises(IngestError, match=r"needs the extra \[postgres\].*pip install 'mlworkbench\[postgres\]'"):
        SqlSource("postgresql://ada:${PW}@127.0.0.1/shop", QUERY).columns()


SECRETS = ["pa:ss/w@rd", "simple", "100%", "ü ß", "a'b\"c"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("dialect", ["postgresql", "postgresql+psycopg"])
def test_the_password_is_in_no_message_fingerprint_or_repr(postgres, monkeypatch, dialect, secret):
    monkeypatch.setenv("SHOP_PASSWORD", secret)
    url = postgres.replace("postgresql", dialect, 1)
    source = SqlSource(url, "SELECT 1 AS a", cursor="a")
    told = [repr(source), source.identity, source.name, str(Address(url))]
    if secret != "pa:ss/w@rd":
        with pytest.raises(IngestError) as failure:
            source.columns()
        told.append(str(failure.value))
        assert failure.value.__cause__ is None and failure.value.__suppress_context__
    else:
        told += [source.fingerprint, str(source.mark(1))]
    assert not [text for text in told if secret in text or secret.split()[0] in text]


def test_the_identity_of_a_database_does_not_hang_on_its_password(monkeypatch):
    monkeypatch.setenv("PW", "one")
    monkeypatch.setenv("HOST", "staging")
    before = SqlSource("postgresql://ada:${PW}@${HOST}/shop", QUERY).identity
    monkeypatch.setenv("PW", "two")
    assert SqlSource("postgresql://ada:${PW}@${HOST}/shop", QUERY).identity == before
    token = SqlSource("trino://ada@db/shop?access_token=${PW}", QUERY).identity
    monkeypatch.setenv("PW", "three")
    assert SqlSource("trino://ada@db/shop?access_token=${PW}", QUERY).identity == token
    monkeypatch.setenv("HOST", "production")
    assert SqlSource("postgresql://ada:${PW}@${HOST}/shop", QUERY).identity != before


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret@db/shop",
        "postgresql://ada:se/cret@db/shop",
        "postgresql://ada:${PW}secret@db/shop",
        "postgresql://db/shop?password=secret",
        "postgresql://db/shop?sslmode=require&sslpassword=secret",
        "mysql://ada:secret@db/shop",
        "mysql+pymysql://ada:se/cret@db/shop",
        "snowflake://ada@account/shop?token=secret&warehouse=small",
        "bigquery://project/shop?credentials_base64=secret",
        "mssql+pyodbc://?odbc_connect=Driver%3Dx%3BPWD%3Dsecret",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url):
    with pytest.raises(IngestError) as failure:
        SqlSource(url, QUERY)
    assert "secret" not in str(failure.value)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(IngestError, match="NOT_SET", check=lambda error: error.code == "address.variable_unset"):
        public_address(Address("postgresql://ada@${NOT_SET}/shop"), {})
    token = Address("trino://ada@db/shop?access_token=${PW}&zone=${ZONE}")
    assert mask_secrets("no secret in Berlin", token, {"PW": "secret", "ZONE": "Berlin"}) == "no ${PW} in ${ZONE}"
    assert mask_secrets("a b", Address("postgresql://ada:${PW}@db/shop"), {}) == "a b"


def test_a_text_is_quoted_and_a_nul_refused():
    text = CursorQuery("SELECT 1", "flight", "'; DROP TABLE landings; --").text
    assert re.search(r">= '(''|[^'])*' OR", text)
    with pytest.raises(IngestError, check=lambda error: error.code == "source.cursor"):
        _ = CursorQuery("SELECT 1", "flight", "a\0b").text


@pytest.mark.parametrize("value", ["'; DROP TABLE landings; --", "back\\slash", "100% :x", "é 日", "\\", '"'])
def test_a_hostile_cursor_value_stays_a_value(shop, home, value):
    shop.land((1, "x", 1.0))
    shop.run("UPDATE landings SET flight = '{}'".format(value.replace("'", "''")))
    source = SqlSource(shop.url, QUERY, cursor="flight")
    rest = source.since(source.mark(1), home.path)
    assert rest.after == value and rest.rows == 1
    assert SqlSource(shop.url, QUERY).rows == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_without_room_for_the_rows_is_one_line_that_says_so(monkeypatch, tmp_path):
    import sqlite3

    sqlite3.connect(tmp_path / "shop.db").close()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "w+b", buffering=0))  # noqa: PTH123, SIM115
    with pytest.raises(IngestError, match=r"cannot keep rows on the disk of the home.*No space left.*free some space"):
        SqlSource(f"sqlite:///{tmp_path}/shop.db", "SELECT 1 AS a").columns()
