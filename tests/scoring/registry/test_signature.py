"""A key that only its owner reads, one per home; a certificate is valid, altered, or of an unknown key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import SettingsError, VersionError
from mlworkbench.operate.certify.page import render_certificate
from mlworkbench.scoring.registry.signature import (
    KEY,
    PUBLIC,
    check_signature,
    read_known_keys,
    read_signed,
    signed,
    signing_key,
)

FIELDS = {"model": "late", "rows": 5000, "deployments": [{"deployment": "batch", "max_difference": 1.5e-16}]}


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def test_the_key_is_made_once_and_only_its_owner_reads_it(place: Home) -> None:
    signing_key(place)
    before = (place.keys / KEY).read_bytes()
    signing_key(place)
    assert (place.keys / KEY).read_bytes() == before
    assert (place.keys / KEY).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.keys.iterdir()) == [KEY, PUBLIC]


MAKE = """
import sys
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.scoring.registry.signature import signing_key
print(signing_key(Home(Path(sys.argv[1]))).public_key().public_bytes_raw().hex())
"""


def test_processes_that_ask_at_once_agree_on_one_key(place: Home) -> None:
    command = [sys.executable, "-c", MAKE, str(place.path)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert len(found) == 1 and len(found.pop()) == 64
    assert sorted(path.name for path in place.keys.iterdir()) == [KEY, PUBLIC]


def test_a_key_that_others_may_read_is_refused(place: Home) -> None:
    signing_key(place)
    (place.keys / KEY).chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        signing_key(place)
    assert caught.value.code == "settings.key_not_private" and "got mode 644; chmod 600" in str(caught.value)


def test_a_damaged_key_is_refused_and_not_replaced(place: Home) -> None:
    (place.keys / KEY).write_text("-----BEGIN PRIVATE KEY-----\nhalf")
    (place.keys / KEY).chmod(0o600)
    with pytest.raises(VersionError) as raised:
        signing_key(place)
    assert raised.value.code == "registry.signing_key"
    assert (place.keys / KEY).read_text().endswith("half")


def test_what_was_signed_is_valid_after_a_journey_through_json_in_any_layout(place: Home) -> None:
    told = signed(FIELDS, signing_key(place))
    assert check_signature(told, home=place) == "valid"
    again = json.loads(json.dumps(dict(reversed(told.items())), indent=7))
    assert check_signature(again, home=place) == "valid"


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(rows=5001),
        lambda told: told.update(more=1),
        lambda told: told.pop("model"),
        lambda told: told["deployments"][0].update(max_difference=1.6e-16),
        lambda told: told["signature"].update(value="AAAA"),
        lambda told: told["signature"].update(value=7),
        lambda told: told["signature"].update(key="not base64!"),
        lambda told: told["signature"].update(key_name="0" * 16),
        lambda told: told["signature"].update(algorithm="none"),
        lambda told: told.pop("signature"),
        lambda told: told.update(signature=[]),
        lambda told: told["signature"].update(more=1),
        lambda told: told["signature"].update(value=told["signature"]["value"].rstrip("=")),
    ],
)
def test_every_change_is_seen(place: Home, change) -> None:
    told = json.loads(json.dumps(signed(FIELDS, signing_key(place))))
    change(told)
    assert check_signature(told, home=place) == "altered"


def test_a_forgery_under_another_key_is_of_an_unknown_key_until_that_key_is_trusted(
    place: Home, tmp_path: Path
) -> None:
    other = Home.open(tmp_path / "other")
    forged = signed({**FIELDS, "rows": 9}, signing_key(other))
    assert check_signature(forged, home=place) == "unknown key"
    signing_key(place)
    assert check_signature(forged, home=place) == "unknown key"
    (place.keys / "other.pub").write_bytes((other.keys / PUBLIC).read_bytes())
    (place.keys / "junk.pub").write_text("nothing")
    assert check_signature(forged, home=place) == "valid"
    assert len(read_known_keys(place)) == 2


def test_a_key_that_was_moved_away_is_followed_by_one_that_is_known_too(place: Home) -> None:
    before = signed(FIELDS, signing_key(place))
    (place.keys / KEY).rename(place.keys / "old.pem")
    after = signed(FIELDS, signing_key(place))
    assert before["signature"]["key_name"] != after["signature"]["key_name"]
    assert check_signature(after, home=place) == check_signature(before, home=place) == "valid"
    names = {KEY, PUBLIC, "old.pem", f"{after['signature']['key_name']}.pub"}
    assert {path.name for path in place.keys.iterdir()} == names


def test_a_file_with_a_name_twice_or_nested_without_end_is_altered(place: Home) -> None:
    text = json.dumps(signed(FIELDS, signing_key(place)))
    assert read_signed(text.encode(), home=place)[1] == "valid"
    for other in (
        text.replace('"model": "late"', '"model": "early", "model": "late"'),
        text.replace('"deployment": "batch"', '"deployment": "edge", "deployment": "batch"'),
        text.replace('"algorithm"', '"key_name": "", "algorithm"'),
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        "7",
        "",
    ):
        assert read_signed(other.encode(), home=place) == ({}, "altered")
    assert read_signed(b"\xff\xfe\x00", home=place) == ({}, "altered")


def test_a_page_is_whole_and_escapes_what_others_wrote() -> None:
    row = {"deployment": "batch", "verdict": "refused", "rows": 3, "missing": 3, "duplicated": 0, "mismatches": 0}
    row |= {"max_difference": "Infinity", "ties": 0, "tolerance": 1e-6, "latency_us": None, "reason": "<b>no</b> & so"}
    row |= {"feature_mismatches": {"<script>alert(1)</script>": 2}, "feature_differences": {'"x"': 1}}
    none = {"deployment": "edge", "verdict": "not_declared"}
    certificate = {"version": "late:<i>", "verdict": "refused", "rows": 3, "issued_at": "2013", "rejected": 2}
    certificate |= {"deployments": [row, none], "hashes": {"code": "9f"}, "environment": {"numpy": "2"}, "name": "c"}
    page = render_certificate(certificate)
    for harm in ("<script", "<b>", "<i>", "http://", "https://", 'src="'):
        assert harm not in page
    assert "&lt;b&gt;no&lt;/b&gt; &amp; so" in page and "Infinity" in page and "not declared" in page
    assert "2 rows that break the contract were left out" in page
    assert "&#34;x&#34;: 1 values differ in their last digits alone" in page
    assert page.startswith("<!doctype html>") and page.count("<tr>") == 3
