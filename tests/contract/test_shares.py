"""Rules of a whole table: what is missing, where numbers lie, how texts look, how many rows are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlworkbench.contract.check import check_columns
from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.learn_relations import enforce_rules, learn_relations
from mlworkbench.contract.table_check import FEWEST_ROWS, check_shares, find_shape


def objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def rows(count: int = 3000, seed: int = 0) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(seed)
    delay = draws.exponential(20, count).round()
    delay[draws.random(count) < 0.02] = np.nan
    dest = objects([["BOS", "MIA", "LAX"][k] for k in draws.integers(0, 3, count)])
    return {"delay": delay, "dest": dest, "month": draws.integers(1, 7, count)}


def contract() -> Contract:
    columns = (
        Column("delay", "number", nullable=True, lower=0, upper=1000, unit="minutes"),
        Column("dest", "category", categories=("BOS", "LAX", "MIA")),
        Column("month", "integer"),
    )
    return enforce_rules(learn_relations(rows(), Contract(columns)))


def told(table: dict[str, np.ndarray]) -> list[str]:
    faults = check_shares(table, contract(), check_columns(table, contract()))
    assert all(fault.severe and fault.row == -1 for fault in faults)
    return [fault.line() for fault in faults]


def test_a_table_like_the_learned_one_passes_and_so_does_one_too_small_to_judge() -> None:
    assert told(rows(500, seed=1)) == []
    hours = {name: values[: FEWEST_ROWS - 1] for name, values in rows().items()}
    assert told({**hours, "delay": hours["delay"] / 60}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"delay": t["delay"] / 60}, "looks like hours instead of minutes"),
        (lambda t: {"delay": t["delay"] * 60}, "looks like seconds instead of minutes"),
        (lambda t: {"delay": np.full(len(t["delay"]), np.nan)}, "is its source empty?"),
        (lambda t: {"dest": objects([f"K{value}" for value in t["dest"]])}, "shaped otherwise"),
        (lambda t: {"delay": np.where(t["delay"] > 40, 2400.0, t["delay"])}, "such as: from 0 to 1000 minutes"),
    ],
)
def test_what_happened_to_a_whole_column_refuses_the_table_with_the_likely_cause(change: Any, words: str) -> None:
    table = rows(500, seed=1)
    assert any(words in line for line in told({**table, **change(table)}))


def test_a_part_of_the_calendar_and_new_categories_of_the_old_shape_move_freely() -> None:
    table = rows(500, seed=1)
    assert told({**table, "month": table["month"] + 6, "dest": objects(["SEA"] * 500)}) == []


def test_a_learned_contract_flags_and_a_personal_column_keeps_its_values() -> None:
    secret = contract().edited("dest", personal=True).edited("delay", learned=True)
    table = rows(500, seed=1)
    faults = check_shares({**table, "delay": table["delay"] / 60, "dest": objects(["k1234"] * 500)}, secret)
    assert [fault.severe for fault in faults] == [False, True]
    assert "k1234" not in repr(faults)


def test_the_shape_of_a_text_keeps_what_stands_where() -> None:
    assert [find_shape(text) for text in ("JFK", "N1a ", "")] == ["AAA", "A9a ", ""]
