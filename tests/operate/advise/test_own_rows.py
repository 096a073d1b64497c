"""What stands out in rows of one's own: each doubt where it belongs, and none where all is well."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mlworkbench.contract.learn import learn_contract
from mlworkbench.operate.advise.own_rows import describe_columns, find_doubts, find_refused

ROWS = 400
DRAWS = np.random.default_rng(0)
CALM = {"distance": DRAWS.uniform(1, 400, ROWS), "carrier": DRAWS.choice(["post", "bike"], ROWS).astype(object)}
LABELS = DRAWS.integers(0, 2, ROWS).astype(float)


def kind_of(values) -> str:
    columns = {**CALM, "seen": values}
    doubts = {one.column: one.kind for one in find_doubts(columns, learn_contract(columns), LABELS)}
    assert doubts.keys() <= {"seen"}, "a calm column is doubted"
    return doubts.get("seen", "")


def texts(make) -> np.ndarray:
    return np.array([make(k) for k in range(ROWS)], dtype=object)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("", DRAWS.normal(size=ROWS)),
        ("", DRAWS.permutation(10_000)[:ROWS] * 7),
        ("", texts(lambda k: ["red", "green", None][k % 3])),
        ("", texts(lambda k: str(k % 40))),
        ("key", np.arange(ROWS) + 7001),
        ("key", texts(lambda k: f"A{k}")),
        ("person", texts(lambda k: f"ada{k % 90}@shop.example")),
        ("constant", np.full(ROWS, 3.5)),
        ("constant", np.full(ROWS, np.nan)),
        ("constant", np.full(ROWS, None, dtype=object)),
        ("time", texts(lambda k: f"2013-10-{k % 28 + 1:02} 08:00:00")),
        ("time", np.arange(ROWS).astype("datetime64[h]")),
        ("number", texts(lambda k: f"{k % 50 + 1000:,}")),
        ("number", texts(lambda k: f"{k % 30}.5 %")),
        ("spelling", texts(lambda k: ["card", "cash", "Card "][k % 3])),
        ("unusual", np.where(np.arange(ROWS) == 9, 1e6, DRAWS.normal(20, 1, ROWS))),
        ("sparse", np.where(np.arange(ROWS) % 3 > 0, np.nan, DRAWS.normal(size=ROWS))),
        ("leak", LABELS * 10 + DRAWS.uniform(0, 1, ROWS)),
    ],
)
def test_a_column_is_doubted_for_what_it_is(kind: str, values) -> None:
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
        columns = {**CALM, "seen": values}
        contract = learn_contract(columns)
        found = find_doubts({**columns, "seen": values.astype(np.int64)}, contract, LABELS)
        assert [one.kind for one in found] == [kind]
        return
    assert kind_of(values) == kind


@pytest.mark.parametrize(("name", "kind"), [("phone", "person"), ("first_name", "person"), ("product_name", "")])
def test_a_name_tells_of_persons(name: str, kind: str) -> None:
    columns = {name: texts(lambda k: f"x{k % 50}")}
    found = find_doubts(columns, learn_contract(columns), LABELS)
    assert [one.kind for one in found] == ([kind] if kind else [])


def test_each_doubt_is_one_line_with_a_way_out() -> None:
    columns = {"order_id": np.arange(ROWS), "paid\nby": texts(lambda k: ["card", "card "][k % 2])}
    for doubt in find_doubts(columns, learn_contract(columns), LABELS):
        assert doubt.way_out and doubt.line().startswith(doubt.column)


def test_what_register_would_refuse_is_named_all_at_once() -> None:
    table = pl.DataFrame({"when": ["2013-10-01"], "what": [["a"]], "distance": [762]})
    found = find_refused(table.with_columns(pl.col("when").str.to_datetime()))
    assert [(one.column, one.kind) for one in found] == [("when", "refused"), ("what", "refused")]
    assert all("convert or drop it" in one.line() for one in found)


def test_columns_are_described_with_what_they_lack_and_what_is_usual() -> None:
    columns = {"n": np.array([1.0, np.nan] * 30), "t": texts(lambda k: "xy"[k % 2])[:60]}
    number, word = describe_columns(columns, learn_contract(columns))
    assert (number["kind"], number["missing"]) == ("number", 30)
    assert word == {"column": "t", "kind": "category", "missing": 0, "learned": "usually one of x, y"}


def test_no_rows_are_no_reason_to_fall() -> None:
    columns = {"n": np.array([], dtype=float), "t": np.array([], dtype=object)}
    assert find_doubts(columns, learn_contract(columns), np.array([])) == []
