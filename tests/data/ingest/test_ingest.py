import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import IngestError, UserCodeError

COLUMNS = (
    Column("flight", "text"),
    Column("at", "time"),
    Column("delay", "number", nullable=True, lower=-180, upper=2880),
)
KEYED = Contract(COLUMNS, key=("flight",))
KEYLESS = Contract(COLUMNS)
NOW = datetime(2013, 11, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


def frame(flights, delay=1.0):
    delays = delay if isinstance(delay, list) else [delay] * len(flights)
    return pl.DataFrame({"flight": flights, "at": ["2013-10-01T12:00:00Z"] * len(flights), "delay": delays})


def landings(source, contract=KEYED, limit=1.0, **more):
    return Table("landings", source, contract, available_at="at", limit=limit, **more)


def counts(report):
    refused, waiting = report.quarantined + report.still_refused, report.held + report.dropped
    assert report.read + report.taken_up == report.appended + report.skipped + report.changed + refused + waiting
    return report.appended, report.skipped, report.quarantined


def flights(home):
    return sorted(Lake(home.lake).read("landings")["flight"])


def quarantine(home):
    return Lake(home.quarantine).read("landings").sort("source_row", "column").to_dicts()


@pytest.mark.parametrize("contract", [KEYED, KEYLESS])
def test_a_second_run_appends_nothing_and_writes_nothing(home, contract):
    table = landings(frame(["A", "B", "C"], [1.0, 9999.0, None]), contract)
    assert counts(ingest(table, home=home, now=NOW)) == (2, 0, 1)
    again = ingest(table, home=home, now=NOW)
    assert counts(again) == (0, 2, 0)
    assert again.still_refused == 1, "a row in quarantine is no row of the table"
    assert Lake(home.lake).version("landings") == Lake(home.quarantine).version("landings") == 0
    assert flights(home) == ["A", "C"]


def test_every_row_says_when_it_was_known_when_it_came_and_from_where(home):
    ingest(landings(frame(["A"])), home=home, now=NOW)
    row = Lake(home.lake).read("landings").to_dicts()[0]
    assert row["available_at"] == datetime(2013, 10, 1, 12, tzinfo=UTC)
    assert row["ingested_at"] == NOW
    assert row["source_row"] == 0
    assert len(row["source"]) == 32
    schema = Lake(home.lake).schema("landings")
    assert {str(schema.field(name).type) for name in ("at", "available_at", "ingested_at")} == {"timestamp[us, tz=UTC]"}


def test_rows_of_an_overlapping_source_are_the_same_rows_when_there_is_a_key(home):
    assert counts(ingest(landings(frame(["A", "B"])), home=home)) == (2, 0, 0)
    assert counts(ingest(landings(frame(["B", "C"])), home=home)) == (1, 1, 0)
    assert flights(home) == ["A", "B", "C"]


def test_equal_rows_are_two_rows_where_there_is_no_key(home):
    assert counts(ingest(landings(frame(["A", "A"]), KEYLESS), home=home)) == (2, 0, 0)
    assert counts(ingest(landings(frame(["A", "A", "A"]), KEYLESS), home=home)) == (3, 0, 0)


def test_a_key_that_repeats_within_a_source_goes_to_quarantine_whatever_was_there_before(home):
    rows = frame(["A", "B", "A", "A"], [1.0, 2.0, 3.0, 1.0])
    assert counts(ingest(landings(rows), home=home, rows=2)) == (2, 0, 0)
    for expected in ((0, 2, 2), (0, 2, 0)):
        assert counts(ingest(landings(rows), home=home)) == expected
    assert [(line["source_row"], line["rule"], line["hint"]) for line in quarantine(home)] == [
        (2, "each key once", "row 0 has it"),
        (3, "each key once", "row 0 has it"),
    ]
    other = Home.open(home.path.parent / "other")
    assert counts(ingest(landings(rows), home=other)) == (2, 0, 2)
    assert quarantine(other)[0]["value"] == "A"


def test_a_sample_first_and_all_later_is_all_once(home):
    rows = frame([str(number) for number in range(100)])
    for contract in (KEYED, KEYLESS):
        place = Home.open(home.path.parent / f"home_{len(contract.key)}")
        assert counts(ingest(landings(rows, contract), home=place, rows=30)) == (30, 0, 0)
        assert counts(ingest(landings(rows, contract), home=place)) == (70, 30, 0)
        assert counts(ingest(landings(rows, contract), home=place, rows=0)) == (0, 0, 0)


@pytest.mark.parametrize("contract", [KEYED, KEYLESS])
def test_a_file_added_to_a_folder_is_what_is_new(home, tmp_path, contract):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    frame(["A", "B"]).write_csv(inbox / "b.csv")
    assert counts(ingest(landings(inbox, contract), home=home)) == (2, 0, 0)
    frame(["C"]).write_csv(inbox / "a.csv")
    (inbox / "b.csv").rename(inbox / "z.csv")
    (inbox / "copy.csv").write_bytes((inbox / "z.csv").read_bytes())
    assert counts(ingest(landings(inbox, contract), home=home)) == (1, 4, 0)
    assert flights(home) == ["A", "B", "C"]


def test_two_files_of_one_folder_that_overlap_give_each_key_once(home, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    frame(["A", "B"]).write_csv(inbox / "1.csv")
    frame(["B", "C"], 2.0).write_csv(inbox / "2.csv")
    for expected in ((3, 0, 0), (0, 3, 0)):
        report = ingest(landings(inbox), home=home)
        assert counts(report) == expected
        assert report.changed == 1, "the second file says something else of B"
        assert report.first_change == "flight 'B', delay 1 kept, 2 dropped"


def test_a_key_of_several_columns_may_hold_missing_values(home):
    contract = Contract((*COLUMNS, Column("origin", "category", nullable=True)), key=("flight", "origin"))
    rows = frame(["A", "A", "B", "B"]).with_columns(origin=pl.Series(["X", None, None, None]))
    assert counts(ingest(landings(rows, contract), home=home)) == (3, 0, 1)
    assert counts(ingest(landings(rows, contract), home=home)) == (0, 3, 0)


def test_many_batches_are_one_commit(home):
    seen = []
    rows = frame([str(number) for number in range(150_000)], 1.0)
    report = ingest(landings(rows), home=home, progress=lambda *step: seen.append(step))
    assert report.appended == 150_000
    assert report.version == 0
    assert seen == [("landings", done, 150_000) for done in (65_536, 131_072, 150_000)]
    assert Lake(home.lake).read("landings")["source_row"].n_unique() == 150_000


def test_quarantine_says_column_rule_value_hint_and_the_record(home):
    contract = Contract((Column("carrier", "category", categories=("AA", "UA"), closed=True), *COLUMNS))
    rows = frame(["A", "B"], [1.0, 5000.0]).with_columns(carrier=pl.Series(["AA", "ua"]))
    assert counts(ingest(landings(rows, contract), home=home, now=NOW)) == (1, 0, 1)
    carrier, delay = quarantine(home)
    assert (carrier["column"], carrier["value"]) == ("carrier", "ua")
    assert "'UA'" in carrier["hint"]
    assert (delay["rule"], delay["value"], delay["source_row"]) == ("from -180 to 2880", "5000.0", 1)
    assert json.loads(delay["record"]) == {
        "flight": "B",
        "at": "2013-10-01T12:00:00Z",
        "delay": 5000.0,
        "carrier": "ua",
    }
    assert delay["ingested_at"] == NOW


def test_personal_values_are_nowhere_in_quarantine_or_message(home):
    contract = Contract(
        (
            Column("name", "text", personal=True, categories=("Ada",), closed=True),
            Column("age", "integer", personal=True, lower=0, upper=120),
            Column("at", "time"),
        ),
        key=("name",),
    )
    rows = pl.DataFrame({"name": ["Ada", "Zoltan", "Ada"], "age": [36, 4711, 37], "at": ["2013-10-01T12:00:00Z"] * 3})
    assert counts(ingest(landings(rows, contract), home=home)) == (1, 0, 2)
    written = str(quarantine(home))
    for value in ("Ada", "Zoltan", "4711"):
        assert value not in written
    assert {line["value"] for line in quarantine(home)} == {None}
    for file in home.quarantine.rglob("*.json"):
        assert "Zoltan" not in file.read_text()
    log = (home.lake / "landings" / "_delta_log" / "00000000000000000000.json").read_text()
    assert "Ada" not in log
    assert "36" not in json.dumps([json.loads(line).get("add", {}).get("stats") for line in log.splitlines()])
    with pytest.raises(IngestError) as caught:
        ingest(landings(rows, contract, limit=0.0), home=Home.open(home.path.parent / "other"))
    assert not any(value in str(caught.value) for value in ("Ada", "Zoltan", "4711"))


def test_a_corrected_contract_lets_the_quarantined_row_in(home):
    rows = frame(["A", "B"], [1.0, 5000.0])
    assert counts(ingest(landings(rows), home=home)) == (1, 0, 1)
    wide = Contract((*COLUMNS[:2], Column("delay", "number", lower=-180, upper=10_000)), key=("flight",))
    assert counts(ingest(landings(rows, wide), home=home)) == (1, 1, 0)
    assert flights(home) == ["A", "B"]


def test_too_many_bad_rows_stop_before_anything_is_written(home):
    rows = frame([str(number) for number in range(20)], [9999.0] * 2 + [1.0] * 18)
    with pytest.raises(IngestError) as caught:
        ingest(landings(rows, limit=0.09), home=home)
    assert "2 of 20 rows (10.0%) break the contract, limit 9.0%: delay from -180 to 2880 (2)" in str(caught.value)
    assert "row 0, column 'delay'" in str(caught.value)
    assert Lake(home.lake).tables() == Lake(home.quarantine).tables() == []
    assert not home.lake.exists()
    assert counts(ingest(landings(rows, limit=0.1), home=home)) == (18, 0, 2)


def test_a_hopeless_source_is_not_read_to_its_end(home):
    steps = []
    rows = frame([str(number) for number in range(200_000)], 9999.0)
    with pytest.raises(
        IngestError, match="65536 of 200000 rows", check=lambda error: error.code == "ingest.too_many_bad"
    ):
        ingest(landings(rows, limit=0.1), home=home, progress=lambda *step: steps.append(step))
    assert len(steps) <= 1


def test_repeated_keys_count_as_bad_rows(home):
    with pytest.raises(IngestError, match="each key once"):
        ingest(landings(frame(["A", "A"]), limit=0.4), home=home)
    assert not home.lake.exists()


def test_what_is_allowed_is_counted_over_the_appended_rows(home):
    Lake(home.lake).append("register", frame(["A"]).to_arrow())

    def not_registered(rows, lake):
        return ~rows["flight"].is_in(lake.read("register")["flight"].to_list())

    unknown = {"flights unknown to the register": not_registered}
    contract = Contract((*COLUMNS[:2], Column("delay", "number", nullable=True, allow="not landed")), key=("flight",))
    table = landings(frame(["A", "B", "C"], [None, None, 1.0]), contract, allowed=unknown)
    assert ingest(table, home=home).allowed == {"flights unknown to the register": 2, "not landed": 2}
    assert ingest(table, home=home).allowed == {"flights unknown to the register": 0, "not landed": 0}


def test_the_first_row_that_a_rule_flags_is_named_by_its_position_in_the_source(home):
    usual = Contract((*COLUMNS[:2], Column("delay", "number", upper=60, learned=True)), key=("flight",))
    table = landings(frame(["A", "B", "C"], [1.0, 2.0, 99.0]), usual, transform=lambda rows: rows.tail(1))
    assert "row 2, column 'delay'" in next(iter(ingest(table, home=home, now=NOW).first_flagged.values()))


def test_a_columns_words_count_its_flagged_values(home):
    open_category = Column("flight", "category", categories=("A",), allow="flights of other airlines")
    table = landings(frame(["A", "B", "C"]), Contract((open_category, *COLUMNS[1:])))
    assert ingest(table, home=home).allowed == {"flights of other airlines": 2}


def test_an_error_in_an_allowing_rule_is_the_users_and_nothing_is_written(home):
    def broken(rows, lake):
        raise KeyError("tail")

    with pytest.raises(UserCodeError, match="allowed 'odd': KeyError"):
        ingest(landings(frame(["A"]), allowed={"odd": broken}), home=home)
    assert not home.lake.exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (frame(["C"]).with_columns(x=1), "column 'x' is new"),
        (frame(["C"]).drop("delay"), "column 'delay' of the contract is missing"),
        (frame(["C"]).with_columns(delay=pl.lit("1")), "column 'delay' must be number; got string"),
        (pd.DataFrame({"flight": ["C"], "at": pd.to_datetime(["2013-10-01"]), "delay": [1.0]}), "names no zone"),
    ],
)
def test_changed_columns_are_refused_by_name_and_nothing_is_written(home, rows, words):
    ingest(landings(frame(["A"])), home=home)
    with pytest.raises(IngestError, match=words) as caught:
        ingest(landings(rows), home=home)
    assert "\n" not in str(caught.value)
    assert Lake(home.lake).version("landings") == 0


def test_a_changed_contract_is_refused_before_the_source_is_read(home):
    ingest(landings(frame(["A"])), home=home)
    wider = Contract((*COLUMNS, Column("x", "number")), key=("flight",))
    with pytest.raises(IngestError, match="table 'landings': column 'x' is new"):
        ingest(landings("no_such_file.csv", wider), home=home)


def test_pandas_times_with_a_zone_become_microseconds_in_utc(home):
    at = pd.to_datetime(["2013-10-01 08:00"]).tz_localize("America/New_York")
    ingest(landings(pd.DataFrame({"flight": ["A"], "at": at, "delay": [np.nan]})), home=home)
    row = Lake(home.lake).read("landings").to_dicts()[0]
    assert row["at"] == datetime(2013, 10, 1, 12, tzinfo=UTC)
    assert row["delay"] is None


def test_a_bad_cell_of_a_csv_file_costs_its_row_only(home, tmp_path):
    path = tmp_path / "landings.csv"
    path.write_text("flight,at,delay\n007,2013-10-01T12:00:00Z,3\n8,noon,4\n9,2013-10-01T12:00:00Z,late\n")
    assert counts(ingest(landings(path), home=home)) == (1, 0, 2)
    assert flights(home) == ["007"]
    assert [(line["column"], line["value"]) for line in quarantine(home)] == [("at", "noon"), ("delay", "late")]


def test_rows_that_a_transform_drops_are_told(home):
    table = landings(frame(["A", "B"]), transform=lambda rows: rows.filter(pl.col("flight") != "A"))
    report = ingest(table, home=home)
    assert (report.read, report.appended, report.dropped) == (2, 1, 1)
    assert Lake(home.lake).read("landings")["source_row"].to_list() == [1]


def test_a_source_without_rows_writes_nothing(home, tmp_path):
    (tmp_path / "none.csv").write_text("flight,at,delay\n")
    for source in (tmp_path / "none.csv", frame(["A"])[:0]):
        report = ingest(landings(source), home=home)
        assert (report.read, report.appended, report.version) == (0, 0, None)


def test_the_source_may_be_a_function_and_its_error_is_the_users(home):
    assert ingest(landings(lambda: frame(["A"])), home=home).appended == 1

    def broken():
        raise OSError("no answer")

    with pytest.raises(UserCodeError, match=r"source: OSError: no answer; at .*test_ingest\.py, line"):
        ingest(landings(broken), home=home)


def test_a_report_is_ready_for_json(home):
    report = json.loads(json.dumps(ingest(landings(frame(["A"])), home=home).to_dict()))
    assert report["table"] == "landings"
    assert report["version"] == 0


def test_any_split_into_overlapping_files_gives_each_row_once(tmp_path):
    random = np.random.default_rng(7)
    for trial in range(5):
        home = Home.open(tmp_path / f"home{trial}")
        names = [f"F{number}" for number in range(200)]
        for _ in range(6):
            start, stop = sorted(random.integers(0, 201, 2))
            ingest(landings(frame(names[start:stop])), home=home)
        ingest(landings(frame(names)), home=home)
        assert flights(home) == sorted(names)
