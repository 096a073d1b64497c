import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlworkbench.contract.check import check_columns
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.learn import learn_contract
from mlworkbench.contract.learn_relations import enforce_rules, learn_relations
from mlworkbench.contract.relation import Relation
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.conform import ACCEPTED, STORED, check_table_shares, conform, convert, to_checkable
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import IngestError


def contract(*columns, key=()):
    return Contract(columns, key)


def faults_of(column, values, *, typed=True):
    batch = pa.RecordBatch.from_pydict({column.name: values})
    result = conform(batch, contract(column), "rows", typed=typed)
    return result.batch.column(0).to_pylist(), [(fault.row, fault.rule) for fault in result.faults]


def test_each_kind_has_a_stored_type_and_words_for_a_misfit():
    assert set(ACCEPTED) == set(STORED)


@pytest.mark.parametrize(
    ("kind", "values", "kept", "bad"),
    [
        ("number", pa.array([1, 2]), [1.0, 2.0], []),
        ("number", pa.array([1.5, None]), [1.5, None], [1]),
        ("integer", pa.array([1, None]), [1, None], [1]),
        ("integer", pa.array([1.0, 2.5, None]), [1, None, None], [1, 2]),
        ("integer", pa.array([1e300, 2.0**60]), [None, None], [0, 1]),
        ("boolean", pa.array([True, None]), [True, None], [1]),
        ("text", pa.array(["a", None]), ["a", None], [1]),
        ("time", pa.array(["2013-10-01T12:00:00", None], pa.string()), [None, None], [0, 1]),
        ("number", pa.nulls(2), [None, None], [0, 1]),
    ],
)
def test_a_value_that_does_not_fit_is_one_fault_of_its_row(kind, values, kept, bad):
    got, faults = faults_of(Column("c", kind), values)
    assert got == kept
    assert sorted(row for row, _ in faults) == bad


@pytest.mark.parametrize("kind", ["number", "category", "text", "time"])
def test_missing_is_no_fault_where_it_is_declared(kind):
    assert faults_of(Column("c", kind, nullable=True), pa.nulls(2))[1] == []


@pytest.mark.parametrize(
    ("kind", "texts", "kept"),
    [
        ("number", ["1", "x", "NA", "1e3", "007"], [1.0, None, None, 1000.0, None]),
        ("integer", ["1", "2.5", "2.0", ""], [1, None, 2, None]),
        ("boolean", ["0", "1", "true", "yes"], [False, True, True, None]),
    ],
)
def test_texts_of_a_csv_file_are_read_as_the_kind_says(kind, texts, kept):
    assert convert(pa.array(texts), Column("c", kind), "rows", typed=False)[0].to_pylist() == kept


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", pa.array(["1"])),
        ("number", pa.array([True])),
        ("integer", pa.array(["1"])),
        ("boolean", pa.array([1])),
        ("text", pa.array([1])),
        ("category", pa.array([1.5])),
        ("time", pa.array([0])),
        ("time", pa.array([0], pa.date32())),
        ("time", pa.array([0], pa.timestamp("us"))),
        ("vector", pa.array([1.0])),
    ],
)
def test_a_type_that_can_never_be_of_the_kind_is_refused_by_column(kind, values):
    with pytest.raises(IngestError) as caught:
        convert(values, Column("c", kind), "f.parquet")
    assert str(caught.value).startswith(f"f.parquet: column 'c' must be {kind}; got {values.type}; ")


def test_a_naive_time_is_refused_with_the_way_to_say_its_zone():
    with pytest.raises(IngestError, match="replace_time_zone"):
        convert(pa.array([0], pa.timestamp("us")), Column("c", "time"), "f.parquet")


def test_one_instant_written_with_two_offsets_is_one_instant():
    texts = pa.array(["2013-10-01T12:00:00Z", "2013-10-01T14:00:00+02:00"])
    values, misfits = convert(texts, Column("c", "time"), "rows")
    assert len(set(values.to_pylist())) == 1
    assert not any(misfits.to_pylist())


def test_a_misfit_is_told_once_and_not_again_as_missing_or_out_of_range():
    got, faults = faults_of(Column("c", "integer", lower=5, upper=9), pa.array([7.0, 2.5, None, 3.0]))
    assert got == [7, None, None, 3]
    assert [row for row, _ in faults] == [1, 2, 3]


def test_nan_is_missing():
    assert faults_of(Column("c", "number", nullable=True), pa.array([np.nan, 1.0]))[0] == [None, 1.0]


def test_infinity_is_a_fault_unless_it_is_allowed():
    values = pa.array([np.inf, 1.0])
    assert [row for row, _ in faults_of(Column("c", "number"), values)[1]] == [0]
    assert faults_of(Column("c", "number", infinite=True), values) == ([np.inf, 1.0], [])


def test_vectors_have_one_length_and_no_gaps():
    vectors = pa.array([[1.0, 2.0], [1.0], None, [3.0, None], [5, 6]], pa.list_(pa.float64()))
    values, misfits = convert(vectors, Column("c", "vector"), "rows")
    assert misfits.to_pylist() == [False, True, False, True, False]
    assert values.to_pylist() == [[1.0, 2.0], None, None, None, [5.0, 6.0]]
    got = conform(pa.RecordBatch.from_pydict({"c": vectors}), contract(Column("c", "vector")), "rows")
    assert sorted({fault.row for fault in got.faults}) == [1, 2, 3]


def test_learned_rules_flag_and_stated_rules_refuse():
    values = pa.array([500.0])
    for learned in (True, False):
        batch = pa.RecordBatch.from_pydict({"c": values})
        column = Column("c", "number", lower=0, upper=9, learned=learned)
        assert [fault.severe for fault in conform(batch, contract(column), "rows").faults] == [not learned]


@pytest.mark.parametrize(
    ("names", "words"),
    [(["a"], "column 'b' of the contract is missing"), (["a", "b", "c"], "column 'c' is new")],
)
def test_missing_and_new_columns_are_refused_by_name(names, words):
    batch = pa.RecordBatch.from_pydict({name: [1.0] for name in names})
    with pytest.raises(IngestError, match=words):
        conform(batch, contract(Column("a", "number"), Column("b", "number")), "f.csv")


def test_values_of_a_personal_column_are_in_no_fault():
    column = Column("c", "integer", personal=True)
    batch = pa.RecordBatch.from_pydict({"c": [1234.5]})
    assert "1234" not in conform(batch, contract(column), "rows").faults[0].line()


def test_no_rows_are_no_faults():
    columns = [Column(kind, kind) for kind in STORED]
    batch = pa.RecordBatch.from_pydict({kind: pa.array([], stored) for kind, stored in STORED.items()})
    result = conform(batch, contract(*columns), "rows")
    assert result.faults == []
    assert result.batch.schema.types == list(STORED.values())


def test_vectors_of_another_length_than_declared_refuse_the_source():
    with pytest.raises(IngestError, match="rows: column 'v': vectors of 3 numbers; got 2"):
        faults_of(Column("v", "vector", size=3), pa.array([[1.0, 2.0], [3.0, 4.0]]))


def unscreened(batch, declared):
    """The faults that the check finds when it is asked about every row."""
    columns = {column.name: to_checkable(batch.column(column.name), column) for column in declared.columns}
    return check_columns(columns, declared)


@pytest.mark.parametrize("seed", range(20))
def test_the_screen_lets_no_fault_pass_that_the_check_would_find(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 200))

    def holes(values, share):
        return pa.array([None if rng.random() < share else value for value in values])

    number = holes(rng.choice([-1.0, 0.0, 5.0, np.inf, 1e300], rows).tolist(), 0.1)
    batch = pa.RecordBatch.from_pydict(
        {
            "closed": holes(rng.choice(["AA", "UA", "aa ", ""], rows).tolist(), 0.1).cast(pa.string()),
            "open": holes(rng.choice(["AA", "UA", "aa ", "ZZ"], rows).tolist(), 0.1).cast(pa.string()),
            "text": holes(rng.choice(["a", "b"], rows).tolist(), 0.1).cast(pa.string()),
            "number": number.cast(pa.float64()),
            "flagged": pa.array(rng.normal(size=rows)),
            "whole": pa.array(rng.integers(-3, 9, rows)),
            "truth": pa.array(rng.random(rows) < 0.5),
            "at": holes(rng.integers(0, 2**50, rows).tolist(), 0.1).cast(pa.timestamp("us", "UTC")),
            "vector": holes([[float(x), np.nan] for x in rng.integers(0, 3, rows)], 0.1).cast(pa.list_(pa.float64())),
        }
    )
    known = {"categories": ("AA", "UA")}
    nullable = bool(seed % 2)
    declared = Contract(
        (
            Column("closed", "category", closed=True, nullable=nullable, **known),
            Column("open", "category", **known, nullable=not nullable),
            Column("text", "text", nullable=nullable),
            Column("number", "number", lower=0, infinite=nullable),
            Column("flagged", "number", lower=-1, upper=1, learned=True),
            Column("whole", "integer", lower=0),
            Column("truth", "boolean"),
            Column("at", "time", lower=2**40, nullable=nullable),
            Column("vector", "vector", lower=1, nullable=not nullable),
        ),
        relations=(
            Relation("difference", ("number", "whole"), lower=0),
            Relation("missing", ("text", "closed")),
            Relation("depends", ("whole", "open"), known=[("AA", 0, 5)]),
        ),
    )
    found = conform(batch, declared, "rows").faults
    told = {(fault.row, fault.column) for fault in found if fault.rule == "not missing"}
    wanted = [fault.line() for fault in unscreened(batch, declared) if (fault.row, fault.column) not in told]
    assert [fault.line() for fault in found if fault.rule != "not missing"] == wanted
    assert found or rows < 3


def humidity():
    values = np.random.default_rng(0).uniform(30, 95, 700)
    learned = learn_contract({"humid": values}).edited("humid", unit="percent")
    return values, learn_relations({"humid": values}, learned)


def test_a_table_unlike_the_one_that_taught_a_stated_contract_is_refused_before_anything_is_written(tmp_path):
    values, learned = humidity()
    contract = Contract((*enforce_rules(learned).columns, Column("at", "time")), evidence=learned.evidence)
    home = Home.open(tmp_path / "home")

    def table(some):
        rows = {"humid": some, "at": ["2013-10-01T12:00:00Z"] * len(some)}
        return Table("weather", pl.DataFrame(rows), contract, available_at="at")

    with pytest.raises(IngestError, match="looks like shares instead of percent; nothing was written"):
        ingest(table(values / 100), home=home)
    assert Lake(home.lake).tables() == Lake(home.quarantine).tables() == []
    assert ingest(table(values), home=home).appended == 700
    assert ingest(table(values), home=home).skipped == 700
    assert ingest(table(values[:99] / 100 + 35), home=home).appended == 99, "few rows are not judged"


def test_a_contract_that_is_only_learned_or_has_no_evidence_judges_no_table():
    values, learned = humidity()
    batch = pa.RecordBatch.from_pydict({"humid": values / 100})
    check_table_shares(batch, learned, "rows")
    check_table_shares(batch, Contract(enforce_rules(learned).columns), "rows")
