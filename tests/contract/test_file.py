"""A contract in a file: exact both ways, named by content, changed in words, never overwritten unseen."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.file import compare_contracts, compute_contract_version, read_revision, write_revision
from mlworkbench.contract.relation import Relation
from mlworkbench.errors import ContractError

FIRST = Contract(
    (
        Column("carrier", "category", categories=("AA", "UA"), learned=True),
        Column("distance", "number", lower=0.1, upper=4983, unit="miles"),
        Column("passport", "text", categories=("P1",), personal=True),
        Column("at", "time", nullable=True),
    ),
    key=("passport",),
    relations=(
        Relation("depends", ("distance", "carrier"), known=(("AA", 100, 2500.5),), learned=True),
        Relation("missing", ("carrier", "at"), learned=True),
    ),
    evidence={"distance": {"rows": 3, "missing": 0, "quantiles": [0.1, 1 / 3, 5e-324, 1e308, 2.0]}},
)
WHO = {"who": "ada", "why": "learned from 2013"}


def test_a_contract_comes_back_exactly_with_its_evidence(tmp_path: Path) -> None:
    written = write_revision(tmp_path / "c.json", FIRST, **WHO)
    again = read_revision(tmp_path / "c.json")
    assert again == written
    assert again.contract.evidence == FIRST.evidence
    assert again.contract.to_dict() == FIRST.to_dict()
    assert compute_contract_version(again.contract) == again.version == compute_contract_version(FIRST)


def test_changes_are_told_rule_by_rule_and_no_personal_value_is() -> None:
    after = FIRST.edited("carrier", categories=("AA", "XX"), learned=False).edited("passport", categories=("P2",))
    after = replace(after, key=(), relations=(replace(FIRST.relations[0], learned=False, known=(("AA", 1, 2),)),))
    after = replace(after, columns=(*after.columns[:3], Column("gate", "text")))
    lines = compare_contracts(FIRST, after)
    assert "column carrier: categories - 'UA', + 'XX'; learned True -> False" in lines
    assert "relation distance: as known for carrier: flags -> refuses; known 1 -> 1, 1 new" in lines
    assert "key: passport -> none" in lines
    assert not [line for line in lines if "P1" in line or "P2" in line]
    assert compare_contracts(FIRST, FIRST) == []


def test_the_history_keeps_who_changed_what_and_why_and_saying_the_same_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    first = write_revision(file, FIRST, **WHO)
    assert write_revision(file, FIRST, who="ben", why="again") == first
    second = write_revision(file, FIRST.edited("distance", upper=5000), who="ben", why="Hawaii", after=first.version)
    assert [entry["who"] for entry in second.history] == ["ada", "ben"]
    assert second.history[-1]["changes"] == ["column distance: upper 4983 -> 5000"]


def test_an_edit_of_an_older_version_overwrites_nothing_and_of_ten_at_once_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    first = write_revision(file, FIRST, **WHO)

    def edit(upper: int) -> bool:
        try:
            write_revision(file, FIRST.edited("distance", upper=upper), who="ben", why="wider", after=first.version)
        except ContractError as refusal:
            assert "read it and edit again" in str(refusal)
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(edit, range(5000, 5010))) == 1
    assert len(read_revision(file).history) == 2


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": "1", "contract": {"columns": 3}, "history": []}'])
def test_what_is_no_contract_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ContractError) as caught:
        read_revision(tmp_path / "c.json")
    assert caught.value.code == "contract.file_form"
    with pytest.raises(ContractError) as caught:
        read_revision(tmp_path / "none.json")
    assert caught.value.code == "contract.file_unreadable"


def test_an_edit_past_the_history_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    write_revision(file, FIRST, **WHO)
    kept = json.loads(file.read_text())
    kept["contract"]["columns"][1]["upper"] = 9999
    file.write_text(json.dumps(kept))
    with pytest.raises(ContractError) as caught:
        read_revision(file)
    assert caught.value.code == "contract.file_edited"


def test_an_infinite_bound_and_an_edit_without_reason_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        write_revision(tmp_path / "c.json", FIRST.edited("distance", upper=float("inf")), **WHO)
    assert caught.value.code == "contract.not_json"
    with pytest.raises(ContractError) as caught:
        write_revision(tmp_path / "c.json", FIRST, who="ada", why=" ")
    assert caught.value.code == "contract.no_reason"
    assert not (tmp_path / "c.json").exists()
