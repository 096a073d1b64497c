"""A version that one pushes and another pulls is the very version, with its proof, its history, and no secret."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.contract.pseudonym import open_pseudonyms
from mlworkbench.core.home import Home
from mlworkbench.errors import IngestError, RefusedError, VersionError
from mlworkbench.operate.certify.certificate import verify_certificate
from mlworkbench.scoring.artifacts.manifest import MANIFEST, json_digest, read_manifest
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.hand_over import HandedOver, pull, push
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.remote import Remote, digest_of
from mlworkbench.scoring.registry.signature import key_name, read_known_keys, signed, signing_key
from mlworkbench.scoring.registry.store import put_version
from mlworkbench.scoring.registry.tables import read_record
from mlworkbench.scoring.version.build import build_version

CONTRACT = Contract((Column("distance", "number"),))
ROWS = FeatureFrame({"distance": np.arange(1.0, 21.0)})
WAYS = ("one_off", "batch")
Person = Callable[[str], Registry]


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Give the registry of somebody with a home and a model store of his own."""

    def of(name: str) -> Registry:
        monkeypatch.setenv("BENTOML_HOME", str(tmp_path / name / "bentoml"))
        return Registry(Home.open(tmp_path / name / "home"))

    return of


@pytest.fixture
def shared(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "shared")


def add(registry: Registry, slope: float, **more: Any) -> str:
    folder = registry.home.path.parent / f"built-{slope}"
    table, few = frame_to_pandas(ROWS, CONTRACT), ROWS.take(range(5))
    parts = {"model": "price", "task": "regression", "classes": [], "request": CONTRACT, "frame": CONTRACT, **more}
    line = LinearRegression().fit(table, slope * table["distance"])
    golden = (few.columns, {}, few)
    options = {"pipeline": line, "golden": golden, "training": ROWS, "deployments": WAYS}
    options["verdict"] = {"verdict": "pass"}
    return registry.add(folder, "price", build_version(folder, **{**options, **parts}))


def folder_of(registry: Registry, tag: str) -> Path:
    return registry.store.joinpath(*tag.split(":"))


def certify(registry: Registry, tag: str, name: str = "c1", **fields: object) -> Path:
    """Sign a certificate of a version, with a page, and note its line, as `certify` does."""
    manifest = read_manifest(folder_of(registry, tag))
    equal = [{"deployment": way, "verdict": "equal"} for way in WAYS]
    told = {"name": name, "version": tag, "content_id": manifest["content_id"], "verdict": "equal", "rows": 5000}
    told |= {"issued_at": "2013-11-01T00:00:00+00:00", "rejected": 0, "available": 300_000, "deployments": equal}
    page = f"<h1>{name}</h1>".encode()
    told |= {"hashes": {"version": json_digest(manifest)}, "page": digest_of(page), **fields}
    path = registry.home.path / "price" / "certificates" / name / "certificate.json"
    path.parent.mkdir(parents=True)
    path.with_suffix(".html").write_bytes(page)
    path.write_text(json.dumps(signed(told, signing_key(registry.home)), indent=1), encoding="utf-8")
    registry.certificates.add(read_record(path, home=registry.home))
    return path


def certified(registry: Registry, slope: float = 2.0, name: str = "c1") -> str:
    tag = add(registry, slope)
    certify(registry, tag, name)
    registry.promote("price", tag, who="Ada", why="first")
    return tag


def scores(registry: Registry, ref: str | None = None) -> list[float]:
    return registry.open("price", ref).score(ROWS).round(6).tolist()


def test_another_user_gets_the_very_version_with_certificate_card_and_history(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = certified(ada)
    done = push(shared, "price", home=ada.home)
    assert (done.version, done.champion, done.certificates, done.moves, done.remarks) == (tag, tag, 1, 1, ())
    grace = person("grace")
    got = pull(shared, home=grace.home)
    assert (got.version, got.champion, got.certificates, got.moves) == (tag, tag, 1, 1)
    assert grace.serving("price") == (tag, "champion")
    assert scores(grace) == [2.0 * value for value in range(1, 21)]
    assert grace.history("price") == ada.history("price")
    for name in (MANIFEST, "card.md", "pipeline.skops"):
        assert (folder_of(grace, tag) / name).read_bytes() == (folder_of(ada, tag) / name).read_bytes()


def test_the_certificate_verifies_there_and_is_told_to_be_of_another_home(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = certified(ada)
    (key,) = map(key_name, read_known_keys(ada.home))
    push(shared, "price", home=ada.home)
    grace = person("grace")
    signing_key(grace.home)
    (remark,) = pull(shared, home=grace.home).remarks
    assert remark.startswith(f"certificate c1 is signed by key {key}, which is not this home's")
    path = grace.home.path / grace.certificates.of(tag)[0].file
    status, line = verify_certificate(path, home=grace.home)
    assert status == "valid" and line.endswith(f"signed by {key}, a key that is not this home's")
    assert verify_certificate(certify(grace, tag, "own"), home=grace.home)[1].endswith(
        key_name(signing_key(grace.home).public_key().public_bytes_raw())
    )
    path.with_suffix(".html").write_text("another page")
    assert verify_certificate(path, home=grace.home)[0] == "altered"


def test_no_secret_goes_along(person: Person, shared: Remote, tmp_path: Path) -> None:
    ada = person("ada")
    named = open_pseudonyms(ada.home, create=True)
    secrets = [(ada.home.keys / name).read_bytes().strip() for name in ("pseudonym",)]
    tag = add(ada, 2.0, extras={"pseudonym_key": named.name})
    certify(ada, tag)
    secrets.append((ada.home.keys / "certificate.pem").read_bytes().splitlines()[1])
    needs = f"{tag[:18]} needs the key of pseudonyms {named.name}"
    assert push(shared, "price", tag, home=ada.home).remarks == (f"{needs}, which stays: bring it apart",)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "shared").rglob("*") if path.is_file())
    assert not [secret for secret in secrets if secret in everything]
    grace = person("grace")
    assert (
        f"{needs}, which is not here: bring it to {grace.home.keys / 'pseudonym'}"
        in pull(shared, home=grace.home).remarks
    )
    (grace.home.keys / "pseudonym").write_bytes(secrets[0])
    (grace.home.keys / "pseudonym").chmod(0o600)
    assert pull(shared, home=grace.home).remarks == ()


def test_what_is_there_or_here_is_not_brought_again(person: Person, shared: Remote, tmp_path: Path) -> None:
    ada = person("ada")
    certified(ada)
    push(shared, "price", home=ada.home)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")}
    again = push(shared, "price", home=ada.home)
    assert (again.objects, again.certificates, again.moves) == (0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")} == before
    grace = person("grace")
    pull(shared, home=grace.home)
    got = pull(shared, "price", home=grace.home)
    assert (got.objects, got.certificates, got.moves, got.remarks) == (0, 0, 0, ())


def test_every_altered_byte_is_refused_by_name_and_nothing_of_it_comes(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = certified(ada)
    push(shared, "price", home=ada.home)
    objects = sorted(path for path in (Path(shared.address) / "price").rglob("*") if path.is_file())
    kinds = {path.parent.name for path in objects}
    assert kinds == {"files", "versions", "certificates", "moves"}
    for number, path in enumerate(objects):
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1 if whole else 0]) + whole[middle + 1 :])
        victim = person(f"victim-{number}")
        with pytest.raises(VersionError, match=path.name) as raised:
            pull(shared, home=victim.home)
        assert raised.value.code == "version.altered"
        assert victim.aliases.get("price") == {}
        path.write_bytes(whole)
    assert pull(shared, home=person("grace").home).version == tag


def test_a_file_that_was_altered_here_is_not_pushed(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = certified(ada)
    for name in ("golden.jsonl", MANIFEST):
        file = folder_of(ada, tag) / name
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"0", b"1", 1))
        with pytest.raises(VersionError, match=f"{name} was altered"):
            push(shared, "price", home=ada.home)
        file.write_bytes(whole)
    certificate = ada.home.path / ada.certificates.of(tag)[0].file
    for file in (certificate, certificate.with_suffix(".html")):
        whole = file.read_bytes()
        file.write_bytes(whole + b" ")
        with pytest.raises(VersionError) as raised:
            push(shared, "price", home=ada.home)
        assert raised.value.code == "registry.certificate_altered" and "c1" in str(raised.value)
        file.write_bytes(whole)
    assert push(shared, "price", home=ada.home).champion == tag


def test_two_homes_have_one_history_whoever_moves(person: Person, shared: Remote) -> None:
    ada = person("ada")
    first = certified(ada)
    push(shared, "price", home=ada.home)
    grace = person("grace")
    pull(shared, home=grace.home)
    second = certified(grace, 3.0, "c2")
    assert push(shared, "price", home=grace.home).champion == second
    ada = person("ada")
    third = add(ada, 4.0)
    ada.promote("price", third, who="Ada", why="to try", alias="challenger")
    done = push(shared, "price", third, home=ada.home)
    assert done.champion == second, "hers is the later move"
    got = pull(shared, "price", home=ada.home)
    assert (got.version, ada.champion("price")) == (second, second)
    assert scores(ada) == [3.0 * value for value in range(1, 21)]
    assert ada.rollback("price", who="Ada", why="worse") == first
    assert push(shared, "price", home=ada.home).champion == first
    grace = person("grace")
    pull(shared, home=grace.home)
    assert grace.champion("price") == first
    assert grace.history("price") == person("ada").history("price")
    assert [line["verb"] for line in grace.history("price")] == ["moved", "moved", "moved", "rolled back"]


def test_a_later_move_of_ones_own_outlives_a_pull(person: Person, shared: Remote) -> None:
    ada = person("ada")
    first = certified(ada)
    push(shared, "price", home=ada.home)
    grace = person("grace")
    pull(shared, home=grace.home)
    own = certified(grace, 3.0, "c2")
    got = pull(shared, home=grace.home)
    assert (got.version, got.champion) == (first, own)


def test_a_move_follows_the_moves_that_are_known_whatever_the_clock_says(person: Person, shared: Remote) -> None:
    ada = person("ada")
    first, second = add(ada, 2.0), add(ada, 3.0)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="microseconds")
    ada.take_over("price", [told(first, at=ahead, why="her clock is ahead")])
    ada.promote("price", second, who="Ada", why="better", override="a test")
    assert [line["to"] for line in ada.history("price")] == [first, second]
    assert push(shared, "price", home=ada.home).champion == second


def test_an_alias_whose_version_is_not_here_stays_where_it_is(person: Person, shared: Remote) -> None:
    ada = person("ada")
    first, second = certified(ada), add(ada, 3.0)
    ada.promote("price", second, who="Ada", why="to try", alias="challenger")
    push(shared, "price", home=ada.home)
    assert sorted(shared.versions("price")) == sorted(tag.partition(":")[2] for tag in (first, second))
    grace = person("grace")
    pull(shared, home=grace.home)
    assert grace.aliases.get("price") == {"champion": first}
    assert pull(shared, "price", "challenger", home=grace.home).version == second
    assert grace.aliases.get("price") == {"challenger": second, "champion": first}


def test_a_champion_without_proof_is_not_taken_over(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    told = {"alias": "champion", "verb": "moved", "from": None, "to": tag, "who": "Eve", "why": "she can write there"}
    push(shared, "price", tag, home=ada.home)
    shared.write_move("price", {"at": "2013-11-01T00:00:00.000000+00:00", **told, "basis": "certificate c1, 9 rows"})
    grace = person("grace")
    with pytest.raises(RefusedError, match=r"a champion has a certificate of one_off, batch; got none") as raised:
        pull(shared, home=grace.home)
    assert raised.value.code == "refused.not_certified"
    assert grace.aliases.get("price") == {} and grace.history("price") == []


def test_a_champion_by_override_comes_with_its_reason(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    ada.promote("price", tag, who="Ada", why="first", override="shown to nobody yet")
    push(shared, "price", home=ada.home)
    grace = person("grace")
    assert pull(shared, home=grace.home).champion == tag
    assert grace.history("price")[0]["basis"] == "override: shown to nobody yet"


def told(tag: str, **fields: object) -> dict[str, Any]:
    line = {"at": "2013-11-01T00:00:00.000000+00:00", "alias": "champion", "verb": "moved", "from": None, "to": tag}
    return {**line, "who": "Eve", "why": "she can write there", "basis": "override: x", **fields}


def test_a_version_that_failed_its_gates_is_no_champion_here_by_whatever_reason(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = add(ada, 2.0, verdict={"verdict": "fail"})
    push(shared, "price", tag, home=ada.home)
    shared.write_move("price", told(tag))
    grace = person("grace")
    with pytest.raises(RefusedError) as raised:
        pull(shared, home=grace.home)
    assert raised.value.code == "refused.gates_failed"
    assert grace.aliases.get("price") == {} and grace.history("price") == []


def test_a_version_asked_for_by_its_id_moves_no_alias(person: Person, shared: Remote) -> None:
    ada = person("ada")
    first = certified(ada)
    push(shared, "price", home=ada.home)
    grace = person("grace")
    assert pull(shared, home=grace.home).champion == first
    ada = person("ada")
    second = add(ada, 3.0)
    ada.promote("price", second, who="Ada", why="steeper", override="a test")
    push(shared, "price", home=ada.home)
    grace = person("grace")
    for ref in (second, second.partition(":")[2], second[6:18]):
        got = pull(shared, "price", ref, home=grace.home)
        assert (got.version, got.champion, got.moves, got.remarks) == (second, first, 0, ())
    got = pull(shared, home=grace.home)
    assert (got.champion, got.moves) == (second, 1)
    assert got.remarks == (f"champion was {first}", f"{second} is champion without a certificate: override: a test")
    assert pull(shared, home=grace.home).remarks == ()


def test_the_same_version_built_by_two_stays_as_the_first_pushed_it(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    push(shared, "price", tag, home=ada.home)
    grace = person("grace")
    assert add(grace, 2.0, metrics={"mae": {"value": 1.0}}) == tag
    done = push(shared, "price", tag, home=grace.home)
    same = read_manifest(folder_of(person("ada"), tag)) == read_manifest(folder_of(person("grace"), tag))
    assert not same and done.objects == 0
    assert done.remarks == (f"{tag[:18]} is there as another home made it: that one stays",)
    assert len(list((Path(shared.address) / "price" / "versions").iterdir())) == 1


@pytest.mark.parametrize("name", ["../../keys/evil", "", "a/b", "x" * 200])
def test_a_certificate_whose_name_is_no_folder_is_refused(person: Person, shared: Remote, name: str) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    push(shared, "price", tag, home=ada.home)
    fields = signed({"name": name, "version": tag, "page": digest_of(b"")}, signing_key(ada.home))
    content = json.dumps(fields).encode()
    shared.objects.write(f"price/certificates/{tag.partition(':')[2]}-{digest_of(content)}.json", content)
    grace = person("grace")
    with pytest.raises(VersionError, match=r"a certificate of .*; got something else; remove it"):
        pull(shared, home=grace.home)
    assert not [path for path in grace.home.path.rglob("*") if "evil" in path.name]
    assert read_known_keys(grace.home) == set()


@pytest.mark.parametrize(
    "fields",
    [
        {"deployments": None},
        {"deployments": [{"deployment": "batch"}]},
        {"deployments": ["batch"]},
        {"rows": "5000"},
        {"available": "5000"},
        {"verdict": None},
        {"issued_at": "9999"},
        {"page": "0" * 64},
    ],
)
def test_the_key_of_what_is_no_certificate_is_not_known(
    person: Person, shared: Remote, fields: dict[str, object]
) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    path = certify(ada, tag)
    push(shared, "price", tag, home=ada.home)
    (there,) = (Path(shared.address) / "price" / "certificates").iterdir()
    there.unlink()
    content = json.dumps(signed({**json.loads(path.read_text()), **fields}, signing_key(ada.home))).encode()
    shared.objects.write(f"price/certificates/{tag.partition(':')[2]}-{digest_of(content)}.json", content)
    grace = person("grace")
    with pytest.raises((VersionError, IngestError)) as raised:
        pull(shared, home=grace.home)
    assert raised.value.code in ("remote.malformed", "source.unreachable")
    assert read_known_keys(grace.home) == set() and grace.certificates.of(tag) == []


def test_a_certificate_takes_the_place_of_no_other_and_its_key_is_not_known(person: Person, shared: Remote) -> None:
    ada, grace = person("ada"), person("grace")
    other = add(grace, 3.0)
    certify(grace, other)
    ada = person("ada")
    tag = add(ada, 2.0)
    certify(ada, tag)
    push(shared, "price", tag, home=ada.home)
    known = read_known_keys(grace.home)
    grace = person("grace")
    with pytest.raises(VersionError, match="a name that is new here; got one that is taken"):
        pull(shared, home=grace.home)
    assert read_known_keys(grace.home) == known and grace.certificates.of(tag) == []


def test_a_forged_manifest_brings_no_file_out_of_its_folder(person: Person, shared: Remote, tmp_path: Path) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    manifest = read_manifest(folder_of(ada, tag))
    evil = b"stolen"
    manifest["files"]["../../evil.txt"] = digest_of(evil)
    content = json.dumps(manifest).encode()
    shared.objects.write(f"price/files/{digest_of(evil)}", evil)
    shared.objects.write(f"price/versions/{tag.partition(':')[2]}-{digest_of(content)}.json", content)
    with pytest.raises(VersionError, match=r"manifest\.json: files is a digest for each file"):
        pull(shared, home=person("grace").home)
    assert not list(tmp_path.rglob("evil.txt"))


def forge(shared: Remote, files: dict[str, bytes], **fields: Any) -> None:
    """Put another manifest in the place of the one that was pushed, under its id, as whoever writes there may."""
    (path,) = (Path(shared.address) / "price" / "versions").iterdir()
    manifest = json.loads(path.read_bytes()) | fields
    for name, data in files.items():
        shared.objects.write(f"price/files/{digest_of(data)}", data)
        manifest["files"][name] = digest_of(data)
    content = json.dumps(manifest).encode()
    path.unlink()
    shared.objects.write(f"price/versions/{path.name[:32]}-{digest_of(content)}.json", content)


class Opened:
    """What makes a file when it comes out of a pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def test_no_pickle_that_lies_there_is_opened(person: Person, shared: Remote, tmp_path: Path) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    push(shared, "price", tag, home=ada.home)
    data = pickle.dumps(Opened(tmp_path / "opened"))
    forge(shared, {"custom_objects.pkl": data})
    with pytest.raises(VersionError) as raised:
        pull(shared, home=person("grace").home)
    assert raised.value.code == "version.malformed"
    built = tmp_path / "built"
    built.mkdir()
    (built / "custom_objects.pkl").write_bytes(data)
    put_version(built, "price:0123abcd", tmp_path / "bentoml" / "models")
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("name", ["", "a\0b.json", MANIFEST, "model.yaml", "evil.py", "code/a/b.py", "code/../a.py"])
def test_a_name_that_no_version_has_is_refused(person: Person, shared: Remote, name: str) -> None:
    ada = person("ada")
    push(shared, "price", add(ada, 2.0), home=ada.home)
    forge(shared, {name: b"more"})
    with pytest.raises(VersionError, match=r"^manifest\.json: files is "):
        pull(shared, home=person("grace").home)


def test_half_a_character_in_a_manifest_is_one_line(person: Person, shared: Remote) -> None:
    ada = person("ada")
    push(shared, "price", add(ada, 2.0), home=ada.home)
    forge(shared, {}, origin={"who": "\ud800"})
    with pytest.raises(VersionError, match=r"^manifest\.json: not as it was written") as raised:
        pull(shared, home=person("grace").home)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("modules", [{"evil": "evil.json"}, {"evil": "code/own/evil.py"}, {"json": "card.md"}])
def test_modules_are_files_of_the_code_that_the_id_is_made_of(
    person: Person, shared: Remote, modules: dict[str, str]
) -> None:
    ada = person("ada")
    push(shared, "price", add(ada, 2.0), home=ada.home)
    forge(shared, {"evil.json": b"raise SystemExit"}, modules=modules)
    with pytest.raises(VersionError, match=r"^manifest\.json: modules is "):
        pull(shared, home=person("grace").home)


@pytest.mark.parametrize("name", ["pipeline.skops", "code/own/evil.py", "declaration.json"])
def test_what_is_not_of_the_id_does_not_come_in(person: Person, shared: Remote, tmp_path: Path, name: str) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    push(shared, "price", tag, home=ada.home)
    other = folder_of(ada, add(ada, 3.0)) / "pipeline.skops"
    declared = json.loads((folder_of(ada, tag) / "declaration.json").read_bytes()) | {"entity": "evil"}
    files = {"pipeline.skops": other.read_bytes(), "declaration.json": json.dumps(declared).encode()}
    forge(shared, {name: files.get(name, b"raise SystemExit")})
    grace = person("grace")
    with pytest.raises(VersionError, match="it is not the one of its content id"):
        pull(shared, home=grace.home)
    assert grace.holdings.tags("price") == []


def test_a_manifest_of_another_version_leaves_nothing_here(person: Person, shared: Remote) -> None:
    ada = person("ada")
    push(shared, "price", add(ada, 2.0), home=ada.home)
    (path,) = (Path(shared.address) / "price" / "versions").iterdir()
    path.rename(path.with_name("0" * 32 + path.name[32:]))
    grace = person("grace")
    with pytest.raises(VersionError) as raised:
        pull(shared, home=grace.home)
    assert raised.value.code == "version.wrong_tag" and grace.holdings.tags("price") == []


def test_a_file_that_is_missing_there_is_one_line(person: Person, shared: Remote) -> None:
    ada = person("ada")
    tag = add(ada, 2.0)
    push(shared, "price", tag, home=ada.home)
    digest = read_manifest(folder_of(ada, tag))["files"]["golden.jsonl"]
    (Path(shared.address) / "price" / "files" / digest).unlink()
    with pytest.raises(IngestError, match=digest):
        pull(shared, home=person("grace").home)
    assert push(shared, "price", tag, home=person("ada").home).objects == 1, "the next push heals it"
    assert pull(shared, home=person("grace").home).version == tag


# A process that forks for each order, so that none pays for imports: it prints the child's id, and how that ended.
DRIVER = """
import os, sys
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.scoring.registry.hand_over import push
from mlworkbench.scoring.registry.remote import Remote
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        code = 1
        try:
            push(Remote(line.strip()), "price", home=Home(Path(sys.argv[1])))
            code = 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def start_driver(registry: Registry) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(registry.home.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "BENTOML_HOME": str(registry.store.parent)}
    return subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def order(driver: subprocess.Popen[str], place: Path, after: float | None = None) -> int:
    """Let a child push; kill it after some seconds; give how it ended."""
    assert driver.stdin and driver.stdout
    driver.stdin.write(f"{place}\n")
    driver.stdin.flush()
    child = int(driver.stdout.readline())
    if after is not None:
        time.sleep(after)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(driver.stdout.readline())


def timed(driver: subprocess.Popen[str], place: Path) -> float:
    began = time.perf_counter()
    assert order(driver, place) == 0
    return time.perf_counter() - began


@pytest.mark.system
def test_a_push_killed_at_any_moment_leaves_no_half_version(person: Person, tmp_path: Path, kills: int) -> None:
    ada, dice, killed = person("ada"), random.Random(12), 0
    tag = certified(ada)
    driver = start_driver(ada)
    try:
        assert driver.stdout and driver.stdout.readline() == "ready\n"
        took = min(timed(driver, tmp_path / f"whole-{turn}") for turn in range(3))
        for turn in range(kills):
            place = tmp_path / f"shared-{turn // 2}"
            killed += order(driver, place, dice.uniform(0, took)) == signal.SIGKILL
            remote = Remote(place)
            for name in remote.versions("price").values():
                manifest = json.loads(remote.objects.read(name))
                for digest in manifest["files"].values():
                    remote.objects.read(f"price/files/{digest}")  # refuses one that is missing or half
            moves = remote.moves("price")
            assert not moves or remote.versions("price"), "an alias never comes before its version"
        assert killed >= kills // 4, "too few were killed on the way"
        for turn in range(3):
            assert order(driver, tmp_path / f"shared-{turn}") == 0
    finally:
        driver.kill()
        driver.communicate()
    for turn in range(3):
        assert pull(Remote(tmp_path / f"shared-{turn}"), home=person(f"grace-{turn}").home).champion == tag
        assert not list((tmp_path / f"shared-{turn}").rglob("*.part")), "what the killed left is cleared away"


@pytest.mark.system
def test_two_pushes_at_once_lose_nothing(person: Person, s3: Any) -> None:
    place = s3.url("models")
    people = [(person(name), slope) for name, slope in (("ada", 2.0), ("grace", 3.0))]
    tags = []
    for registry, slope in people:
        os.environ["BENTOML_HOME"] = str(registry.store.parent)
        tags.append(certified(registry, slope, f"c{slope:.0f}"))
    drivers = [start_driver(registry) for registry, _ in people]
    try:
        assert [driver.stdout.readline() for driver in drivers if driver.stdout] == ["ready\n"] * 2
        for driver in drivers:
            assert driver.stdin
            driver.stdin.write(f"{place}\n" * 3)
            driver.stdin.flush()
        ends = [[int(driver.stdout.readline()) for _ in range(6)][1::2] for driver in drivers if driver.stdout]
        assert ends == [[0, 0, 0]] * 2
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()
    remote = Remote(place)
    assert sorted(remote.versions("price")) == sorted(tag.partition(":")[2] for tag in tags)
    assert [line["to"] for line in remote.moves("price")] == tags
    alan = person("alan")
    got: HandedOver = pull(remote, "price", home=alan.home)
    assert (got.champion, got.moves) == (tags[1], 2) and scores(alan) == [3.0 * value for value in range(1, 21)]
    name = next(iter(remote.versions("price").values()))
    s3.write(f"models/{name}", b"{}")
    with pytest.raises(VersionError, match=name):
        pull(remote, "price", name.rpartition("/")[2][:32], home=person("eve").home)
