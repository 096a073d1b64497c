"""On entry: no name reaches lake, spool or quarantine; a table never holds one person under two names."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.pseudonym import VARIABLE, Pseudonyms, is_pseudonym, open_pseudonyms
from mlworkbench.contract.times import parse_time
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.privacy import check_stored, pseudonym_array, pseudonymise_frame
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources import spool
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.data.sources.source import WholeSource
from mlworkbench.errors import IngestError, SettingsError, UserCodeError
from mlworkbench.features.checks.leakage import compute_event_times

MARK = "Zaphodia-Quxx-7731"
CONTRACT = Contract(
    (Column("rider", "text", nullable=True, pseudonym=True), Column("at", "time"), Column("fare", "number", lower=0)),
    key=("rider", "at"),
)
NOON = "2024-03-01T12:00:00+00:00"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv(VARIABLE, raising=False)
    return Home.open(tmp_path / "home")


def rides(source: object, contract: Contract = CONTRACT, **fields: object) -> Table:
    return Table("rides", source, contract, available_at="at", limit=1.0, **fields)  # type: ignore[arg-type]


def frame(*riders: str | None, fare: float = 3.0) -> pl.DataFrame:
    times = [f"2024-03-01T{hour:02}:00:00+00:00" for hour in range(len(riders))]
    columns = {"rider": riders, "at": times, "fare": [fare] * len(riders)}
    return pl.DataFrame(columns, schema_overrides={"rider": pl.String})


def files_with(home: Home, text: str) -> list[str]:
    held = [path for path in home.path.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
    tables = [path for path in home.path.rglob("*.parquet") if text in pl.read_parquet(path).write_ndjson()]
    return sorted({str(path.relative_to(home.path)) for path in (*held, *tables)})


def test_rows_are_stored_by_pseudonym_and_missing_stays_missing(home: Home) -> None:
    report = ingest(rides(frame(MARK, None, MARK, "Bob")), home=home)
    stored, named = Lake(home.lake).read("rides").sort("at")["rider"].to_list(), open_pseudonyms(home)
    assert report.appended == 4 and stored == [named.of(MARK), None, named.of(MARK), named.of("Bob")]
    assert files_with(home, MARK) == []


def test_rows_come_in_once_whether_they_bring_the_name_or_the_pseudonym(home: Home) -> None:
    ingest(rides(frame(MARK, "Bob")), home=home)
    again = pl.from_arrow(Lake(home.lake).read("rides").sort("at").to_arrow())
    assert isinstance(again, pl.DataFrame)
    report = ingest(rides(again.select("rider", "at", "fare")), home=home)
    assert (report.appended, report.skipped) == (0, 2) and Lake(home.lake).read("rides").height == 2


def test_one_key_twice_is_known_by_its_pseudonym_and_told_without_a_name(home: Home) -> None:
    twice = pl.concat([frame(MARK), frame(MARK, fare=9.0)])
    report = ingest(rides(twice), home=home)
    assert (report.appended, report.quarantined) == (1, 1)
    assert files_with(home, MARK) == []


def test_the_spool_on_disk_never_holds_a_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    written = list[pa.RecordBatch]()
    right = spool.Spool.write

    def spy(self: spool.Spool, batch: pa.RecordBatch) -> None:
        written.append(batch)
        right(self, batch)

    monkeypatch.setattr(spool.Spool, "write", spy)
    ingest(rides(pl.concat([frame(MARK, "Bob"), frame(MARK, fare=-1.0)])), home=home)
    assert written and not any(MARK in str(batch.to_pylist()) for batch in written)


def test_a_row_with_a_pseudonym_of_another_key_goes_to_quarantine(home: Home) -> None:
    foreign = Pseudonyms(bytes(32)).of(MARK)
    report = ingest(rides(frame(foreign, "Bob")), home=home)
    lines = Lake(home.quarantine).read("rides")
    assert (report.appended, report.quarantined) == (1, 1) and foreign not in lines.write_ndjson()
    assert lines["rule"].to_list() == ["a value, or a pseudonym of this key"]


def test_a_number_that_names_a_person_is_read_from_csv_as_the_text_that_it_is(home: Home, tmp_path: Path) -> None:
    (tmp_path / "rides.csv").write_text(f"rider,at,fare\n007,{NOON},3\n7,{NOON},3\n")
    ingest(rides(tmp_path / "rides.csv"), home=home)
    named = open_pseudonyms(home)
    assert {*Lake(home.lake).read("rides")["rider"]} == {named.of("007"), named.of("7")}
    numbers = frame("7").with_columns(pl.col("rider").cast(pl.Int64))
    with pytest.raises(IngestError, match="'rider' must be text; got int64; convert it in the table's transform"):
        ingest(rides(numbers), home=home)


def test_a_table_from_before_the_declaration_is_refused_before_anything_is_written(home: Home) -> None:
    plain = Contract(tuple(replace(c, pseudonym=False, personal=False) for c in CONTRACT.columns), key=("rider", "at"))
    ingest(rides(frame(MARK), plain), home=home)
    with pytest.raises(IngestError, match=r"must hold pseudonyms; got plain values.*remove the table") as refused:
        ingest(rides(frame("Bob")), home=home)
    assert MARK not in str(refused.value) and Lake(home.lake).version("rides") == 0


def test_a_lost_key_is_not_replaced_by_a_new_one(home: Home) -> None:
    ingest(rides(frame(MARK)), home=home)
    key = home.keys / "pseudonym"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(SettingsError) as caught:
        ingest(rides(frame("Bob")), home=home)
    assert caught.value.code == "settings.key_missing"
    assert not key.exists() and Lake(home.lake).version("rides") == 0
    key.write_text("00" * 32)
    key.chmod(0o600)
    with pytest.raises(IngestError, match=r"must hold pseudonyms of key .*; got those of .*; put the old key back"):
        ingest(rides(frame("Bob")), home=home)
    key.write_text(kept)
    assert ingest(rides(frame("Bob")), home=home).appended == 1


def test_a_table_that_names_nobody_needs_and_makes_no_key(home: Home) -> None:
    contract = Contract(tuple(replace(c, pseudonym=False) for c in CONTRACT.columns))
    ingest(rides(frame("Bob"), contract), home=home)
    assert not (home.keys / "pseudonym").exists()


def test_the_user_sees_values_in_a_transform_and_pseudonyms_in_what_is_allowed(home: Home) -> None:
    seen: dict[str, list[str]] = {"transform": [], "allowed": []}

    def transform(rows: pl.DataFrame) -> pl.DataFrame:
        seen["transform"] += rows["rider"].to_list()
        return rows.drop("source_row")

    def allowed(rows: pl.DataFrame, lake: Lake) -> pl.Series:
        seen["allowed"] += rows["rider"].to_list()
        return pl.Series([True] * rows.height)

    ingest(rides(frame(MARK), transform=transform, allowed={"any": allowed}), home=home)
    assert seen["transform"] == [MARK] and all(map(is_pseudonym, seen["allowed"])) and seen["allowed"]


def test_a_frame_refuses_numbers_other_keys_and_no_key_each_in_one_line() -> None:
    ours = Pseudonyms(bytes(range(32)))
    numbers = pl.DataFrame({"rider": [7731]})
    for wrong, key, words in (
        (numbers, ours, "names a person, and a pseudonym is made of text; got Int64"),
        (pl.DataFrame({"rider": [Pseudonyms(bytes(32)).of(MARK)]}), ours, "row 0: a value, or a pseudonym of this key"),
        (pl.DataFrame({"rider": [MARK]}), None, "needs the key of pseudonyms"),
    ):
        with pytest.raises(IngestError, match=words) as refused:
            pseudonymise_frame(wrong, ["rider"], key, what="rows of tips")
        assert MARK not in str(refused.value) and "7731" not in str(refused.value)
    coded = pl.DataFrame({"rider": pl.Series([MARK, None], dtype=pl.Categorical), "empty": pl.Series([None, None])})
    made = pseudonymise_frame(coded, ["rider", "empty"], ours, what="rows")
    assert made.to_dict(as_series=False) == {"rider": [ours.of(MARK), None], "empty": [None, None]}


def test_a_table_that_is_empty_or_not_there_is_nobodys(home: Home) -> None:
    lake = Lake(home.lake)
    check_stored(lake, "nothing", ["rider"], Pseudonyms(bytes(32)))
    lake.append("rides", pa.table({"rider": pa.array([None, None], pa.string()), "fare": [1.0, 2.0]}))
    check_stored(lake, "rides", ["rider", "unknown"], Pseudonyms(bytes(32)))


def test_a_column_costs_by_its_persons_and_not_by_its_rows() -> None:
    named = Pseudonyms(bytes(32))
    few = pa.array([f"rider {n % 100}" for n in range(200_000)])
    many = pa.array([f"rider {n}" for n in range(200_000)])

    def best(values: pa.Array) -> float:
        times = []
        for _ in range(3):
            begun = time.process_time()
            pseudonym_array(values, named)
            times.append(time.process_time() - begun)
        return min(times)

    assert 5 * best(few) < best(many)


PERSONAL = Contract((Column("rider", "text", personal=True), *CONTRACT.columns[1:]), key=("rider", "at"))


def shown(error: BaseException) -> str:
    """What a console and a run notebook show of an error, with whatever caused it."""
    return "".join(traceback.format_exception(error))


def quotes(rows: pl.DataFrame, *more: object) -> pl.Series:
    raise ValueError(f"who is {rows['rider'].to_list()}?")


def parses(rows: pl.DataFrame, *more: object) -> pl.Series:
    return pl.Series([parse_time(text) for text in rows["rider"]])


@pytest.mark.parametrize("function", [quotes, parses])
@pytest.mark.parametrize("where", ["transform", "allowed", "available_at", "new_columns"])
def test_an_error_of_the_users_own_function_keeps_a_personal_value_to_itself(
    home: Home, where: str, function: Callable[..., pl.Series]
) -> None:
    merging = {"transform": function, "new_columns": "merge"}
    fields = {"allowed": {"any": function}, "transform": function, "available_at": function}
    declared = {"available_at": "at", **(merging if where == "new_columns" else {where: fields[where]})}
    table = Table("rides", frame(MARK), PERSONAL, limit=1.0, **declared)  # type: ignore[arg-type]
    with pytest.raises(UserCodeError, match=r"Error: \(withheld: personal\); at .*test_privacy.py") as failure:
        ingest(table, home=home)
    assert MARK not in shown(failure.value)


def test_when_something_happened_is_told_without_a_word_of_whom(home: Home) -> None:
    table = rides(frame(MARK), PERSONAL, happened_at=quotes)
    with pytest.raises(UserCodeError, match=r"happened_at: ValueError: \(withheld: personal\)") as failure:
        compute_event_times(table, frame(MARK))
    assert MARK not in shown(failure.value)


class OwnSource(WholeSource):
    """A source that fails while it is read."""

    name, fingerprint, rows = "own", "0" * 32, None

    def columns(self) -> list[str]:
        return [*frame(MARK).columns]

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield frame(MARK).to_arrow().to_batches()[0]
        raise LookupError(MARK)


def failing() -> pl.DataFrame:
    raise LookupError(MARK)


@pytest.mark.parametrize("source", [failing, OwnSource()])
def test_a_source_that_fails_names_nobody_where_its_table_is_of_persons(home: Home, source: object) -> None:
    with pytest.raises(
        UserCodeError, match=r"source: LookupError: \(withheld: personal\); at .*_privacy.py"
    ) as failure:
        ingest(rides(source), home=home)
    assert MARK not in shown(failure.value)
    nobody = Contract(tuple(replace(c, pseudonym=False, personal=False) for c in CONTRACT.columns))
    with pytest.raises(UserCodeError, match=f"source: LookupError: .*{MARK}"):
        ingest(rides(source, nobody), home=home)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("wide.csv", f"rider,at,fare\nAda,{NOON},3\n{MARK},{NOON},3,4\n", "Expected 3 columns, got 4; give each row"),
        ("torn.csv", f'rider,at,fare\n"Ada,{NOON},3\n{MARK},{NOON},3\n', "Expected 3 columns, got 1; give each row"),
        ("torn.jsonl", f'{{"rider": "{MARK}", \n', "line 1: one JSON object"),
        ("mixed.jsonl", f'{{"rider": 1}}\n{{"rider": "{MARK}"}}\n', "changed from number to string"),
    ],
)
def test_a_broken_file_is_told_without_its_rows(home: Home, tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(IngestError, match=said) as failure:
        ingest(rides(tmp_path / name), home=home)
    assert MARK not in shown(failure.value)


def test_a_frame_that_cannot_be_read_is_told_by_column() -> None:
    for values, said in (([1, MARK], "column rider"), ([MARK, 1], "column rider")):
        with pytest.raises(IngestError, match=said) as failure:
            open_source(pd.DataFrame({"rider": values}))
        assert MARK not in shown(failure.value)
    number = 2**63 + 7731
    with pytest.raises(IngestError, match="column 'rider' must be int64; got uint64 with a value") as failure:
        open_source(pa.table({"rider": pa.array([number], pa.uint64())}))
    assert str(number) not in shown(failure.value)
