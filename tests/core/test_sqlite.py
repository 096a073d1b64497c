"""One opener of SQLite: private, patient, whole after a kill, and a locked file is one line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress

import pytest

from mlworkbench.core.sqlite import SqliteFile, checkpoint, copy_sqlite, open_sqlite, sqlite_error, transaction
from mlworkbench.errors import LogError, RunError, VersionError

SCHEMA = "CREATE TABLE IF NOT EXISTS numbers (one INTEGER)"


def numbers(path, **options):
    return SqliteFile(path, "table of numbers", RunError, **options)


def test_a_file_is_made_private_with_what_sqlite_puts_beside_it(tmp_path):
    before = os.umask(0)
    try:
        with closing(open_sqlite(tmp_path / "home" / "log.sqlite", wal=True)) as connection:
            connection.execute(SCHEMA)
            found = [tmp_path / "home", *(tmp_path / "home").iterdir()]
            assert len(found) == 4 and [path for path in found if path.stat().st_mode & 0o077] == []
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    finally:
        os.umask(before)


def test_a_locked_file_says_what_failed_and_may_be_tried_again(tmp_path):
    table = numbers(tmp_path / "a.sqlite", seconds=0)
    with table.write(SCHEMA), pytest.raises(RunError) as caught, table.write():
        pass
    line = f"cannot write the table of numbers {table.path}: database is locked; another process writes it; "
    assert str(caught.value).startswith(line) and caught.value.code == "run.locked"
    assert caught.value.exit_code == 75 and RunError.exit_code == 2


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "a.sqlite").write_text("no database at all, but long enough to be looked at" * 40)
    with pytest.raises(RunError, match=r"^cannot read the table .*: file is not a database; .*move it away") as caught:
        numbers(tmp_path / "a.sqlite").rows("SELECT 1 FROM numbers")
    assert caught.value.exit_code == 2 and caught.value.code == "run.damaged"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match="unable to open database file; see the path"),
        numbers(tmp_path / "file" / "a.sqlite").write(),
    ):
        pass


@pytest.mark.parametrize(
    ("reason", "way", "code", "exit_code"),
    [
        ("database or disk is full", "nothing was written; free some space and repeat", "log.disk_full", 75),
        ("disk I/O error", "nothing was written; see whether the disk has space", "log.file_failed", 2),
        ("attempt to write a readonly database", "allow writing to the file and its folder", "log.no_permission", 2),
        ("no such column: key", "see the path and its permissions", "log.database_failed", 2),
    ],
)
def test_each_reason_has_its_code_and_way_out(tmp_path, reason, way, code, exit_code):
    error = sqlite_error("write the log", tmp_path, sqlite3.OperationalError(reason), LogError)
    assert isinstance(error, LogError) and f"{reason}; {way}" in str(error)
    assert (error.code, error.exit_code) == (code, exit_code)


def test_a_transaction_is_whole_or_nothing_and_the_callers_error_passes(tmp_path):
    table = numbers(tmp_path / "a.sqlite")
    with pytest.raises(KeyError), table.write(SCHEMA) as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        raise KeyError("of the caller")
    assert table.rows("SELECT one FROM numbers") == []


def test_nothing_is_there_before_it_was_written_and_asking_makes_no_file(tmp_path):
    table = numbers(tmp_path / "a.sqlite")
    assert table.rows("SELECT one FROM numbers") == [] and not table.path.exists()
    with table.write():
        pass
    assert table.rows("SELECT one FROM numbers") == []
    with pytest.raises(RunError, match="no such column"):
        with table.write(SCHEMA):
            pass
        table.rows("SELECT two FROM numbers")


def test_a_reader_writes_nothing(tmp_path):
    with numbers(tmp_path / "a.sqlite").write(SCHEMA):
        pass
    refused = pytest.raises(sqlite3.OperationalError, match="readonly")
    with closing(open_sqlite(tmp_path / "a.sqlite", read_only=True)) as connection, refused:
        connection.execute("INSERT INTO numbers VALUES (1)")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_sqlite(tmp_path / "b.sqlite", read_only=True)


def test_after_a_killed_writer_the_next_reader_finds_the_last_whole_state(tmp_path):
    table = numbers(tmp_path / "a.sqlite")
    with table.write(SCHEMA) as connection:
        connection.executemany("INSERT INTO numbers VALUES (?)", [(k,) for k in range(20_000)])
    code = (
        "import os, sys; from pathlib import Path; from mlworkbench.core.sqlite import open_sqlite\n"
        "connection = open_sqlite(Path(sys.argv[1]))\n"
        "connection.execute('PRAGMA cache_size=5'); connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('UPDATE numbers SET one = -1'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, table.path])
    assert (tmp_path / "a.sqlite-journal").stat().st_size > 0  # a journal that is to be played back
    assert table.rows("SELECT min(one), max(one), count(*) FROM numbers") == [(0, 19_999, 20_000)]


def test_writers_wait_for_each_other_and_lose_nothing(tmp_path):
    table = numbers(tmp_path / "a.sqlite")

    def work():
        for _ in range(10):
            with table.write(SCHEMA) as connection:
                (newest,) = connection.execute("SELECT coalesce(max(one), 0) FROM numbers").fetchone()
                time.sleep(0.001)
                connection.execute("INSERT INTO numbers VALUES (?)", (newest + 1,))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.rows("SELECT one FROM numbers ORDER BY one") == [(k,) for k in range(1, 41)]


def test_a_failed_statement_of_a_transaction_takes_everything_back(tmp_path):
    with closing(open_sqlite(tmp_path / "a.sqlite")) as connection:
        connection.execute("CREATE TABLE numbers (one INTEGER PRIMARY KEY)")
        with pytest.raises(sqlite3.IntegrityError), transaction(connection):
            connection.executemany("INSERT INTO numbers VALUES (?)", [(1,), (1,)])
        assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (0,) and not connection.in_transaction


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_who_may_only_read_reads(tmp_path):
    with numbers(tmp_path / "a.sqlite").write(SCHEMA):
        pass
    tmp_path.joinpath("a.sqlite").chmod(0o400)
    table = SqliteFile(tmp_path / "a.sqlite", "table of numbers", VersionError)
    assert table.rows("SELECT * FROM numbers") == []


@pytest.mark.parametrize("wal", [True, False])
def test_a_copy_holds_what_was_committed_and_nothing_half(tmp_path, wal):
    with closing(open_sqlite(tmp_path / "log.sqlite", wal=wal)) as writer:
        writer.execute(SCHEMA)
        with transaction(writer):
            writer.executemany("INSERT INTO numbers VALUES (?)", [(k,) for k in range(1000)])
        if wal:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("INSERT INTO numbers VALUES (-1)")
        copy_sqlite(tmp_path / "log.sqlite", tmp_path / "copies" / "log.sqlite")
    (copy,) = (tmp_path / "copies").iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(open_sqlite(copy, read_only=True)) as reader:
        assert reader.execute("SELECT count(*), min(one) FROM numbers").fetchone() == (1000, 0)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_is_no_database_cannot_be_copied(tmp_path):
    (tmp_path / "log.sqlite").write_text("no database at all, and long enough to be looked at as one")
    with pytest.raises(LogError) as caught:
        copy_sqlite(tmp_path / "log.sqlite", tmp_path / "copy.sqlite", LogError)
    assert caught.value.code == "log.damaged" and "\n" not in str(caught.value)


WRITES = """
import sys, time
from pathlib import Path
from mlworkbench.core.sqlite import open_sqlite
log = open_sqlite(Path(sys.argv[1]), wal=True)
log.execute("PRAGMA wal_autocheckpoint=0")
end = time.monotonic() + 3
while time.monotonic() < end:
    log.execute("INSERT INTO rows VALUES (hex(randomblob(400)))")
"""


def test_the_log_of_a_writer_that_never_rests_stays_short(tmp_path) -> None:
    file = tmp_path / "log.sqlite"
    with closing(open_sqlite(file, wal=True)) as made:
        made.execute("CREATE TABLE rows (value TEXT)")
    writer, longest = subprocess.Popen([sys.executable, "-c", WRITES, str(file)]), 0
    while writer.poll() is None:
        checkpoint(file, longest=100)
        with suppress(FileNotFoundError):  # until the writer begins
            longest = max(longest, (tmp_path / "log.sqlite-wal").stat().st_size)
    assert writer.returncode == 0
    with closing(open_sqlite(file, read_only=True)) as read:
        (rows,) = read.execute("SELECT count(*) FROM rows").fetchone()
    assert longest < rows * 4096 / 4
