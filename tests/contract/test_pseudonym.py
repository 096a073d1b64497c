"""Pseudonyms and their key: equal everywhere, through the same door twice, refused under another key, never shown."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.pseudonym import (
    VARIABLE,
    Pseudonyms,
    is_pseudonym,
    open_pseudonyms,
    pseudonymise,
    pseudonymise_record,
)
from mlworkbench.core.files import place_file
from mlworkbench.core.home import Home
from mlworkbench.core.keys import read_key
from mlworkbench.errors import ContractError, SettingsError

OURS, THEIRS = Pseudonyms(bytes(range(32))), Pseudonyms(bytes(32))
RIDERS = Contract((Column("rider", "text", nullable=True, pseudonym=True), Column("fare", "number")))


def words(*values: object) -> np.ndarray:
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv(VARIABLE, raising=False)
    return Home.open(tmp_path / "home")


@given(st.text())
def test_any_text_has_one_pseudonym_and_it_stays(value: str) -> None:
    made = OURS.of(value)
    assert is_pseudonym(made) and OURS.of(made) == made == OURS.of(value)
    assert OURS.of_many([value, None, value]) == [made, None, made]


@given(st.text(), st.text())
def test_two_texts_share_one_only_if_they_are_the_same_text(one: str, other: str) -> None:
    import unicodedata

    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (OURS.of(one) == OURS.of(other)) == same


ODD = ["", "\ud800", "a\0b", "~", "~0a1b2c3d-", "\n" + OURS.of("Ada"), OURS.of("Ada") + "\n"]


@pytest.mark.parametrize("value", ODD)
def test_odd_texts_and_near_forms_are_values_like_any_other(value: str) -> None:
    assert is_pseudonym(OURS.of(value)) and not is_pseudonym(value) and OURS.of(value) != value


def test_a_pseudonym_of_another_key_is_a_fault_of_its_row_alone_and_names_nothing() -> None:
    foreign = THEIRS.of("Ada")
    columns, faults = pseudonymise({"rider": words("Ada", foreign, None), "fare": np.zeros(3)}, RIDERS, OURS)
    assert [(fault.row, fault.severe) for fault in faults] == [(1, True)] and foreign not in faults[0].line()
    assert columns["rider"].tolist() == [OURS.of("Ada"), foreign, None]


def test_without_a_key_nothing_passes_in_clear_and_what_names_nobody_needs_none() -> None:
    asked = {"rider": words("Ada"), "fare": np.zeros(1)}
    with pytest.raises(ContractError) as refused:
        pseudonymise(asked, RIDERS, None)
    assert refused.value.code == "contract.no_pseudonym_key"
    assert "Ada" not in str(refused.value)
    assert pseudonymise(asked, Contract((Column("fare", "number"),)), None)[0]["rider"].tolist() == ["Ada"]


def test_the_columns_that_were_given_are_not_changed() -> None:
    given_ = {"rider": words("Ada"), "fare": np.zeros(1)}
    pseudonymise(given_, RIDERS, OURS)
    assert given_["rider"].tolist() == ["Ada"]


def test_a_record_goes_the_same_way_and_a_number_is_refused() -> None:
    assert pseudonymise_record({"rider": "Ada", "n": 1}, ["rider"], OURS) == {"rider": OURS.of("Ada"), "n": 1}
    assert pseudonymise_record({"n": 1}, ["rider"], None) == {"n": 1}
    with pytest.raises(ContractError, match="text; got \\(withheld: personal\\)") as refused:
        pseudonymise_record({"rider": 4839201}, ["rider"], OURS)
    assert "4839201" not in str(refused.value)
    with pytest.raises(ContractError) as caught:
        pseudonymise_record({"rider": THEIRS.of("Ada")}, ["rider"], OURS)
    assert caught.value.code == "contract.fault"


def test_a_single_value_costs_little_beside_reading_its_request() -> None:
    record, n = json.dumps({"rider": "Ada Lovelace", "fare": 3.5}), 2000
    asked = {"rider": words("Ada Lovelace"), "fare": np.zeros(1)}

    def best(call: object) -> float:
        times = []
        for _ in range(5):
            begun = time.process_time()
            for _ in range(n):
                call()  # type: ignore[operator]
            times.append(time.process_time() - begun)
        return min(times)

    assert best(lambda: pseudonymise(asked, RIDERS, OURS)) < 25 * best(lambda: json.loads(record))


# the key --------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_alone(home: Home) -> None:
    with pytest.raises(SettingsError) as caught:
        open_pseudonyms(home)
    assert caught.value.code == "settings.key_missing"
    assert not list(home.keys.iterdir())
    name = open_pseudonyms(home, create=True).name
    path = home.keys / "pseudonym"
    assert path.stat().st_mode & 0o777 == 0o600 and [*home.keys.iterdir()] == [path]
    assert open_pseudonyms(home, create=True).name == open_pseudonyms(home).name == name


def _named(folder: str) -> str:
    return open_pseudonyms(Home.open(folder), create=True).name


def test_processes_that_make_it_at_once_agree(home: Home) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len({*pool.map(_named, [str(home.path)] * 8)}) == 1
    assert [path.name for path in home.keys.iterdir()] == ["pseudonym"]


def test_the_variable_wins_and_makes_no_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, bytes(range(32)).hex().upper())
    assert open_pseudonyms(home, create=True).name == OURS.name and not list(home.keys.iterdir())


@pytest.mark.parametrize("wrong", ["secret words", "ab" * 31, "ab" * 33, "zz" * 32])
def test_a_wrong_key_is_refused_and_not_repeated(home: Home, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    place_file(home.keys / "pseudonym", wrong.encode())
    with pytest.raises(SettingsError) as refused:
        open_pseudonyms(home)
    assert refused.value.code == "settings.key_damaged"
    assert wrong not in str(refused.value)
    monkeypatch.setenv(VARIABLE, wrong)
    with pytest.raises(SettingsError, match=VARIABLE) as refused:
        open_pseudonyms(home)
    assert wrong not in str(refused.value)


def test_a_key_that_others_may_read_is_none(home: Home) -> None:
    open_pseudonyms(home, create=True)
    (home.keys / "pseudonym").chmod(0o640)
    with pytest.raises(SettingsError) as caught:
        open_pseudonyms(home)
    assert caught.value.code == "settings.key_not_private"
    with pytest.raises(SettingsError) as caught:
        read_key(home.keys / "nothing")
    assert caught.value.code == "settings.key_unreadable"


def test_what_holds_a_key_does_not_show_it() -> None:
    secret = bytes(range(32))
    shown = f"{OURS!r} {OURS!s} {OURS.name} {OURS.of('Ada')}"
    assert secret.hex() not in shown and OURS.name not in secret.hex()


def test_it_works_where_neither_polars_nor_pyarrow_is_installed() -> None:
    heavy = "{'polars', 'pyarrow', 'pandas', 'sklearn', 'cryptography'}"
    code = f"import sys, mlworkbench.contract.pseudonym; print({heavy} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert ran.stdout.strip() == "set()"
