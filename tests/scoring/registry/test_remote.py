"""A shared place holds each object once, under the name of its content, whatever kind of storage it is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mlworkbench.errors import IngestError, VersionError
from mlworkbench.scoring.registry import remote
from mlworkbench.scoring.registry.remote import Remote, RemoteObjects, digest_of

A, B, C = ("late:" + letter * 32 for letter in "abc")


def named(content: bytes, folder: str = "late/files") -> str:
    return f"{folder}/{hashlib.sha256(content).hexdigest()}"


def move(
    day: int, new: str | None, *, old: str | None = None, alias: str = "champion", who: str = "Ada"
) -> dict[str, Any]:
    told = {"at": f"2013-10-{day:02}T12:00:00.000000+00:00", "alias": alias, "verb": "moved", "from": old, "to": new}
    return {**told, "who": who, "why": "better", "basis": ""}


def add_version(remote: Remote, tag: str, content: bytes = b"{}") -> None:
    model, _, ident = tag.partition(":")
    remote.objects.write(f"{model}/versions/{ident}-{digest_of(content)}.json", content)


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("s3").url("models")
    return str(tmp_path / "models") if request.param == "folder" else f"memory://shared-{os.urandom(4).hex()}/models"


def spoil(place: str, name: str, content: bytes) -> None:
    """Put other bytes under a name, as a bad disk or a killed writer would."""
    objects = RemoteObjects(place)
    with objects._new(name) as target:
        target.write(content)


def test_an_object_is_written_once_and_read_as_it_was(place: str) -> None:
    objects, content = RemoteObjects(place), os.urandom(3_000_000)
    assert objects.list("late/files") == []
    assert [objects.write(named(content), content) for _ in range(2)] == [True, False]
    assert objects.read(named(content)) == content
    assert objects.list("late/files") == [named(content).rpartition("/")[2]], "nothing else is left there"


def test_other_bytes_under_a_name_are_refused_by_it_and_healed_by_the_next_push(place: str, tmp_path: Path) -> None:
    objects, content = RemoteObjects(place), b"the pipeline"
    (tmp_path / "file").write_bytes(content)
    objects.write(named(content), tmp_path / "file")
    for other in (b"the pipelinf", b"the pipe", b""):
        spoil(place, named(content), other)
        with pytest.raises(VersionError, match=f"{named(content)} at .* was altered") as raised:
            objects.read(named(content))
        assert raised.value.code == "version.altered"
    assert objects.write(named(content), tmp_path / "file")
    assert objects.read(named(content)) == content


def test_what_never_ends_or_is_too_large_is_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = RemoteObjects(tmp_path)
    objects.write(named(b"a page"), b"a page")
    os.mkfifo(tmp_path / named(b"a pipe"))
    (tmp_path / named(b"a device")).symlink_to("/dev/zero")
    for content in (b"a pipe", b"a device"):
        with pytest.raises(VersionError, match="a file; got something else; remove it"):
            objects.read(named(content))
    monkeypatch.setattr(remote, "LARGEST_PAGE", 5)
    with pytest.raises(VersionError, match="at most 5 bytes; got more"):
        objects.read(named(b"a page"))


def test_models_and_versions_are_found_by_their_manifests_alone(place: str) -> None:
    remote = Remote(place)
    assert remote.models() == []
    with pytest.raises(VersionError, match="one model to choose from; got 0; push one first"):
        remote.choose("")
    remote.objects.write(named(b"half a version"), b"half a version")
    remote.objects.write(named(b"{}", "Other/versions"), b"{}")
    assert remote.models() == []
    add_version(remote, A)
    assert (remote.models(), remote.choose(""), [*remote.versions("late")]) == (["late"], "late", ["a" * 32])
    with pytest.raises(VersionError, match="got 'lade'; did you mean 'late'"):
        remote.choose("lade")


def test_a_version_is_found_by_alias_id_and_default(place: str) -> None:
    remote = Remote(place)
    add_version(remote, A)
    assert remote.find("late") == "a" * 32, "the only one, without a champion"
    add_version(remote, B)
    with pytest.raises(VersionError, match="got no champion and 2 versions; known: aaaaaaaa, bbbbbbbb"):
        remote.find("late")
    for line in (move(3, B, alias="challenger"), move(2, A), move(1, B)):
        remote.write_move("late", line)
    found = [remote.find("late", ref) for ref in (None, "champion", "challenger", "bbbb", B)]
    assert found == ["a" * 32, "a" * 32, "b" * 32, "b" * 32, "b" * 32]
    for wrong in ("cccc", "aaa", "*"):
        with pytest.raises(VersionError) as raised:
            remote.find("late", wrong)
        assert raised.value.code == "remote.unknown"


def test_an_id_is_itself_whatever_alias_has_its_name(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    for tag in (A, B):
        add_version(remote, tag)
    remote.write_move("late", move(1, B, alias="a" * 32))
    assert [remote.find("late", ref) for ref in ("a" * 32, A)] == ["a" * 32] * 2


def test_a_champion_that_is_not_there_is_no_version(place: str) -> None:
    remote = Remote(place)
    add_version(remote, A)
    remote.write_move("late", move(1, C))
    with pytest.raises(VersionError, match="no champion and 0 versions"):
        remote.find("late")
    remote.write_move("late", move(2, None, old=C))
    assert remote.find("late") == "a" * 32


def test_of_two_manifests_of_one_id_none_is_taken(place: str) -> None:
    remote = Remote(place)
    for content in (b"{}", b"[]"):
        add_version(remote, A, content)
    with pytest.raises(VersionError, match=f"one manifest for {A}; got .* and .*; remove the wrong one") as raised:
        remote.find("late")
    assert raised.value.code == "remote.two_manifests"


def test_two_who_move_an_alias_at_once_lose_no_move(place: str) -> None:
    lines = [move(day, B, who=who) for day in range(1, 9) for who in ("Ada", "Grace")]

    def write(part: list[dict[str, Any]]) -> None:
        for line in part:
            Remote(place).write_move("late", line)

    threads = [threading.Thread(target=write, args=(part,)) for part in (lines[::2], lines[1::2], lines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Remote(place).moves("late")
    assert sorted(found, key=lambda line: (line["at"], line["who"])) == sorted(
        lines, key=lambda line: (line["at"], line["who"])
    )
    assert [line["at"] for line in found] == sorted(line["at"] for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        [],
        {"at": "2013"},
        {**move(1, A), "more": 1},
        {**move(1, A), "alias": "../../keys"},
        {**move(1, A), "to": "other:" + "a" * 32},
        {**move(1, A), "at": "soon"},
        {**move(1, A), "at": "2999"},
        {**move(1, A), "at": "2999-01-01T12:00:00.000000+00:00"},
        {**move(1, A), "at": "2013-02-30T12:00:00.000000+00:00"},
        {**move(1, A), "at": "2013-10-01T12:00:00.000000+02:00"},
        {**move(1, A), "at": "20131001T120000+0000"},
        {**move(1, A), "who": None},
    ],
)
def test_what_is_no_move_is_refused_by_name(tmp_path: Path, line: object) -> None:
    content = json.dumps(line).encode()
    Remote(tmp_path).objects.write(f"late/moves/20131001-{digest_of(content)}.json", content)
    with pytest.raises(VersionError, match=r"late/moves/20131001-.* at .*: a move of an alias; got something else"):
        Remote(tmp_path).moves("late")


def test_hidden_and_foreign_files_of_the_place_are_no_objects(tmp_path: Path) -> None:
    remote = Remote(tmp_path)
    add_version(remote, A)
    for name in (".git/config", "README.md", "late/versions/README.md", "late/moves/.x.part", "late/versions/ab.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not ours")
    assert ([*remote.versions("late")], remote.moves("late"), remote.models()) == (["a" * 32], [], ["late"])


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("s3://key:secret@shared/models", "address.secret"),
        ("https://shared/models?sig=1", "address.secret"),
        ("nothing://shared/models", "source.unreachable"),
    ],
)
def test_a_wrong_address_is_one_line_without_its_secret(address: str, code: str) -> None:
    with pytest.raises(IngestError) as raised:
        Remote(address).models()
    assert raised.value.code == code and "secret@" not in str(raised.value)


def test_a_store_that_may_only_be_read_is_one_line(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    add_version(Remote(s3.url("models")), A)
    for name, value in s3.reader.items():
        monkeypatch.setenv(name, value)
    remote = Remote(s3.url("models"))
    assert remote.models() == ["late"]
    with pytest.raises(IngestError) as raised:
        add_version(remote, B)
    assert raised.value.code == "source.unreachable" and "\n" not in str(raised.value)
    assert [*remote.versions("late")] == ["a" * 32]


class FullDisk:
    """What a file on a full disk does."""

    def write(self, block: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_may_be_tried_again_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = RemoteObjects(tmp_path / "models")
    objects.write(named(b"{}"), b"{}")
    (tmp_path / "file").write_bytes(b"the pipeline")
    with pytest.raises(VersionError) as pulled:
        objects.copy(named(b"{}"), FullDisk())  # type: ignore[arg-type]
    monkeypatch.setattr("shutil.copyfileobj", lambda source, target, size: FullDisk().write(b""))
    with pytest.raises(VersionError) as pushed:
        objects.write(named(b"the pipeline"), tmp_path / "file")
    for raised in (pulled, pushed):
        assert (raised.value.code, raised.value.exit_code) == ("version.disk_full", 75)
    assert objects.list("late/files") == [named(b"{}").rpartition("/")[2]], "nothing half is left"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "late").write_text("a file where a folder must be")
    with pytest.raises((VersionError, IngestError)) as raised:
        add_version(Remote(tmp_path), A)
    assert "\n" not in str(raised.value)
