"""What is particular to tables of databases, and to a service that is told by POST."""

import hashlib
import hmac
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from urllib.parse import quote

import polars as pl
import pytest

from mlworkbench.data.sinks import webhook as outbox
from mlworkbench.data.sinks.open_sink import open_sink
from mlworkbench.data.sinks.webhook import Hook, WebhookSink, exponential_backoff
from mlworkbench.errors import IngestError

FIRST = "m-1f3a-2013-10-01"
ROWS = pl.DataFrame({"prediction_id": ["a1", "b2", "c3"], "score": [0.25, 0.5, None]})
NOON = datetime(2013, 10, 1, 12, 0, 0, 250_000, tzinfo=UTC)
EVERY = pl.DataFrame(
    {
        "prediction_id": ["a1", "b2"],
        "n": [2**62, None],
        "x": [0.1 + 0.2, float("nan")],
        "ok": [True, None],
        "at": [NOON, None],
        "day": [date(2013, 10, 1), None],
        "name": ['O\'Hare "late"; DROP TABLE predictions; --\n', "é 日本"],
        "vector": [[0.1, 0.2], None],
        "words": [["a", "b"], None],
    }
)
tables = pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
HOSTILE = ['p"; DROP TABLE predictions; --', "select", "Größe 日", "a'b", "per%20cent"]


@tables
def test_every_type_arrives_and_a_repetition_finds_it_equal(place):
    place.sink().write(FIRST, EVERY)
    before = place.mark()
    place.sink().write(FIRST, EVERY[::-1])
    assert place.mark() == before
    names = ", ".join(EVERY.columns)
    first, second = place.ask(f"SELECT {names} FROM predictions ORDER BY prediction_id")
    assert first[:4] == ("a1", 2**62, 0.30000000000000004, True) and first[6] == EVERY["name"][0]
    if place.kind == "sqlite":
        assert first[4:6] == ("2013-10-01T12:00:00.250000+00:00", "2013-10-01")
        assert [json.loads(text) for text in first[7:]] == [[0.1, 0.2], ["a", "b"]]
    else:
        assert first[4:6] == (NOON, date(2013, 10, 1)) and list(map(list, first[7:])) == [[0.1, 0.2], ["a", "b"]]
    assert second[1] is None and second[6] == "é 日本"


@tables
def test_a_table_made_before_there_were_flags_gets_the_column(place):
    place.sink().write(FIRST, ROWS)
    later = ROWS.with_columns(prediction_id=pl.Series(["d", "e", "f"]), flags=pl.lit("temp above 38"))
    place.sink().write("m-1f3a-2013-10-02", later)
    place.sink().write(FIRST, ROWS.with_columns(flags=pl.Series(["odd", None, None])))
    found = place.ask("SELECT prediction_id, flags FROM predictions ORDER BY prediction_id")
    assert [flags for _, flags in found] == ["odd", None, None, *["temp above 38"] * 3]


@tables
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_of_a_column_is_a_name(place, name):
    place.sink().write(FIRST, ROWS)
    place.to = place.to.replace("table=predictions", f"table={quote('t ' + name, safe='')}")
    rows = ROWS.with_columns(pl.lit("x").alias(name), pl.lit("y").alias(name + "2"))
    if place.kind == "postgresql":
        place.ask('DROP TABLE IF EXISTS "t {}"'.format(name.replace('"', '""')), fetch=False)
    for _ in range(2):
        place.sink().write(FIRST, rows)
    quoted = f"t {name}".replace('"', '""')
    assert place.ask(f'SELECT count(*) FROM "{quoted}"') == [(3,)]
    assert place.ask("SELECT count(*) FROM predictions") == [(3,)]


@tables
@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("prediction_id TEXT PRIMARY KEY, partition TEXT", "no column 'score'"),
        (
            "prediction_id TEXT PRIMARY KEY, score {double}, partition TEXT, x TEXT",
            "has a column 'x' that the rows lack",
        ),
        ("prediction_id TEXT PRIMARY KEY, score TEXT, partition TEXT", "column 'score' is text; got {double}"),
        ("prediction_id TEXT, score {double}, partition TEXT", "ON CONFLICT"),
    ],
)
def test_a_table_of_other_columns_is_refused_by_name_and_keeps_what_it_has(place, declared, said):
    double = {"sqlite": "real", "postgresql": "double precision"}[place.kind]
    place.ask(f"CREATE TABLE predictions ({declared.format(double=double)})", fetch=False)
    with pytest.raises(IngestError, match=said.format(double=double)) as found:
        place.sink().write(FIRST, ROWS)
    assert "table 'predictions' in" in str(found.value) and "pa:ss" not in str(found.value)
    assert place.ask("SELECT count(*) FROM predictions") == [(0,)]


@tables
def test_a_row_that_changes_its_partition_is_there_once(place):
    place.sink().write(FIRST, ROWS)
    place.sink().write("m-1f3a-2013-10-02", ROWS[:1])
    place.sink().write(FIRST, ROWS[1:])
    assert [row[:2] for row in place.rows()] == [(FIRST, "b2"), (FIRST, "c3"), ("m-1f3a-2013-10-02", "a1")]


def test_a_schema_of_postgresql_is_named_before_a_dot(postgres, tmp_path):
    from adbc_driver_postgresql import dbapi

    from mlworkbench.data.sources.address import Address, fill_address

    url = fill_address(Address(postgres), {"SHOP_PASSWORD": "pa:ss/w@rd"})
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute('DROP SCHEMA IF EXISTS "Marts" CASCADE')
        cursor.execute('CREATE SCHEMA "Marts"')
        connection.commit()
        open_sink(f"{postgres}?table=Marts.daily", folder=tmp_path).write(FIRST, ROWS)
        cursor.execute('SELECT count(*) FROM "Marts".daily')
        assert cursor.fetchone() == (3,)
    with pytest.raises(IngestError, match=r'schema "nowhere" does not exist'):
        open_sink(f"{postgres}?table=nowhere.daily", folder=tmp_path).write(FIRST, ROWS)


def test_a_server_that_is_not_there_and_a_wrong_password_are_one_line(postgres, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "wrong:p@ss")
    for url in (postgres, "postgresql://ada:${SHOP_PASSWORD}@127.0.0.1:9/shop"):
        with pytest.raises(IngestError, match="cannot write partition m-1f3a-2013-10-01 to table 'p' in") as found:
            open_sink(f"{url}?table=p", folder=tmp_path).write(FIRST, ROWS)
        assert "wrong" not in str(found.value) and "\n" not in str(found.value)


def test_a_table_that_another_program_made_with_our_columns_is_taken(tmp_path):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE p (partition TEXT, score REAL, prediction_id TEXT NOT NULL PRIMARY KEY)")
        shop.execute("INSERT INTO p VALUES ('theirs', 1.0, 'x9')")
        shop.commit()
    open_sink(f"sqlite:///{tmp_path}/shop.db?table=p", folder=tmp_path).write(FIRST, ROWS)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        found = shop.execute("SELECT prediction_id, score, partition FROM p ORDER BY 1").fetchall()
    assert found == [("a1", 0.25, FIRST), ("b2", 0.5, FIRST), ("c3", None, FIRST), ("x9", 1.0, "theirs")]


def webhook(receiver, folder, to="", **retry):
    waits = []
    sink = open_sink(to or receiver.url, folder=folder)
    return replace(sink, retrying=partial(exponential_backoff, sleep=waits.append, **retry)), waits


def drawn_from(waits, *wholes):
    """Say whether each wait lies between the half of a time and its whole."""
    return all(whole / 2 <= wait <= whole for wait, whole in zip(waits, wholes, strict=True))


def test_what_fails_for_a_time_is_repeated_with_one_key_after_growing_waits(receiver, tmp_path):
    receiver.answers = ["drop", "drop after", 503, (429, None), 500]
    sink, waits = webhook(receiver, tmp_path)
    sink.write(FIRST, ROWS)
    assert drawn_from(waits, 0.5, 1.0, 2.0, 4.0, 8.0)
    keys, bodies = {key for key, *_ in receiver.calls}, {body for _, body, *_ in receiver.calls}
    assert len(receiver.calls) == 6 and len(keys) == len(bodies) == 1
    assert len(receiver.rows) == 3


def test_retry_after_is_obeyed_and_too_long_a_one_ends_the_run(receiver, tmp_path):
    receiver.answers = [(429, "7"), (503, "soon"), (429, "301")]
    sink, waits = webhook(receiver, tmp_path)
    with pytest.raises(IngestError, match=r"to webhook 127\.0\.0\.1: status 429; what is left waits in the outbox"):
        sink.write(FIRST, ROWS)
    assert waits[0] == 7.0 and drawn_from(waits[1:], 1.0) and receiver.rows == {}
    sink.write(FIRST, ROWS)
    assert len(receiver.rows) == 3 and len({key for key, *_ in receiver.calls}) == 1


def test_retry_after_may_be_a_date_and_the_waits_end_at_the_longest(receiver, tmp_path):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    receiver.answers = [(503, soon), (503, "Tue, 01 Oct 2013 12:00:30 GMT"), 503, 503]
    sink, waits = webhook(receiver, tmp_path, longest=3)
    sink.write(FIRST, ROWS)
    assert 60 < waits[0] <= 100 and drawn_from(waits[1:], 1.0, 2.0, 3.0)


@pytest.mark.parametrize("answer", [400, 401, 404, 413, 422, (302, "http://127.0.0.1:1/elsewhere"), (308, "/other")])
def test_what_will_not_be_taken_later_is_refused_at_once(receiver, tmp_path, answer):
    receiver.answers = [answer]
    sink, waits = webhook(receiver, tmp_path)
    with pytest.raises(IngestError, match=r"cannot send a batch of m-1f3a-2013-10-01 to webhook \S+: status") as found:
        sink.write(FIRST, ROWS)
    assert waits == [] and len(receiver.calls) == 1 and "a1" not in str(found.value)


def test_attempts_are_bounded(receiver, tmp_path):
    receiver.answers = [500] * 20
    sink, waits = webhook(receiver, tmp_path, attempts=3)
    with pytest.raises(IngestError, match="status 500"):
        sink.write(FIRST, ROWS)
    assert len(receiver.calls) == 3 and len(waits) == 2
    silent, _ = webhook(receiver, tmp_path, to="http://127.0.0.1:9/", attempts=2)
    with pytest.raises(IngestError, match=r": no answer \(ConnectionRefusedError\)"):
        silent.write(FIRST, ROWS)


def test_a_batch_refused_in_the_middle_keeps_those_before_it_and_the_next_run_sends_the_rest(
    receiver, tmp_path, monkeypatch
):
    monkeypatch.setattr(outbox, "ROWS", 1)
    receiver.answers = [200, 422]
    sink, _ = webhook(receiver, tmp_path)
    with pytest.raises(IngestError, match="status 422"):
        sink.write(FIRST, ROWS)
    assert list(receiver.rows) == ["a1"]
    sink.write(FIRST, ROWS)
    assert list(receiver.rows) == ["a1", "b2", "c3"]
    ids = [[row["prediction_id"] for row in json.loads(body)["rows"]] for _, body, *_ in receiver.calls]
    assert ids == [["a1"], ["b2"], ["b2"], ["c3"]]
    assert receiver.calls[1][0] == receiver.calls[2][0], "the same batch has the same key"


def test_a_day_that_is_corrected_and_corrected_back_is_not_taken_for_its_first_edition(receiver, tmp_path):
    sink, _ = webhook(receiver, tmp_path)
    for rows in (ROWS, ROWS.with_columns(pl.col("score") + 1), ROWS):
        sink.write(FIRST, rows)
    assert receiver.rows["a1"][2] == 0.25 and len(receiver.calls) == 3


def test_what_may_have_arrived_is_sent_again_or_withdrawn(receiver, tmp_path):
    receiver.answers = ["drop after"]
    sink, _ = webhook(receiver, tmp_path, attempts=1)
    with pytest.raises(IngestError, match="no answer"):
        sink.write(FIRST, ROWS)
    sink.write(FIRST, ROWS[1:].with_columns(pl.col("score") + 1))
    assert sorted(receiver.rows) == ["b2", "c3"] and receiver.rows["b2"][2] == 1.5


def test_batches_are_bounded_in_rows_and_bytes(receiver, tmp_path):
    many = pl.DataFrame({"prediction_id": [f"{n:04}" for n in range(1_201)], "score": [0.5] * 1_201})
    sink, _ = webhook(receiver, tmp_path)
    sink.write(FIRST, many)
    wide = pl.DataFrame({"prediction_id": ["a", "b", "c"], "score": [1.0] * 3, "text": ["x" * 200_000] * 3})
    sink.write("m-1f3a-2013-10-02", wide)
    sizes = [(len(json.loads(body)["rows"]), len(body)) for _, body, *_ in receiver.calls]
    assert [rows for rows, _ in sizes] == [500, 500, 201, 1, 1, 1] and len(receiver.rows) == 1_204
    assert max(size for _, size in sizes) < 270_000


def test_the_signature_is_over_key_and_body_and_the_secret_stays_here(receiver, tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "hunter2")
    monkeypatch.setenv("HOOK_TOKEN", "T0/b 1")
    sink, _ = webhook(receiver, tmp_path, to=receiver.url + "/${HOOK_TOKEN}?by=ml#secret=${HOOK_SECRET}")
    sink.write(FIRST, ROWS)
    key, body, headers, _ = receiver.calls[0]
    digest = hmac.new(b"hunter2", f"{key}.{body}".encode(), hashlib.sha256).hexdigest()
    assert headers["X-Mlworkbench-Signature"] == f"sha256={digest}"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hunter2" not in kept and "hunter2" not in repr(sink)


def test_a_token_in_the_address_is_in_no_log_and_no_error(receiver, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOOK_TOKEN", "hunter2")
    caplog.set_level("DEBUG")
    receiver.answers = [200, 401]
    sink, _ = webhook(receiver, tmp_path, to=receiver.url + "/${HOOK_TOKEN}?t=${HOOK_TOKEN}")
    sink.write(FIRST, ROWS)
    with pytest.raises(IngestError, match="status 401") as found:
        sink.write("m-1f3a-2013-10-02", ROWS)
    silent, _ = webhook(receiver, tmp_path, to="http://127.0.0.1:9/${HOOK_TOKEN}", attempts=1)
    with pytest.raises(IngestError, match="no answer") as refused:
        silent.write(FIRST, ROWS)
    assert "hunter2" not in caplog.text + str(found.value) + str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__


def test_numbers_that_json_lacks_and_times_have_a_form(receiver, tmp_path):
    rows = EVERY.with_columns(pl.lit(float("-inf")).alias("low"), pl.lit(1.0).alias("score"))
    sink, _ = webhook(receiver, tmp_path)
    sink.write(FIRST, rows)
    first, second = json.loads(receiver.calls[0][1])["rows"]
    assert first["at"] == "2013-10-01T12:00:00.250000+00:00" and first["vector"] == [0.1, 0.2]
    assert second["x"] is None and second["low"] == "-Infinity" and first["n"] == 2**62
    sink.write(FIRST, rows)
    assert len(receiver.calls) == 1


def test_a_process_killed_between_taking_and_noting_repeats_the_batch_under_its_key(webhook_place):
    place = webhook_place
    worker = place.worker("1", FIRST, 20, "before noting")
    worker.communicate(timeout=60)
    assert len(place.receiver.calls) == 1
    worker = place.worker("1", FIRST, 20, "")
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert [call[0] for call in place.receiver.calls] == [place.receiver.calls[0][0]] * 2
    assert len(place.receiver.rows) == 18


def test_the_outbox_is_private_and_keeps_no_row_that_was_sent(receiver, tmp_path):
    sink, _ = webhook(receiver, tmp_path / "home")
    sink.write(FIRST, ROWS.with_columns(pl.lit("Ada Lovelace").alias("name")))
    path = sink.outbox.path
    assert path.stat().st_mode & 0o077 == 0
    assert isinstance(sink, WebhookSink) and Hook(receiver.url).local
    assert b"Lovelace" not in path.read_bytes()
