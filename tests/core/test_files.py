"""Locks and replacement of files: safe for two processes, after a kill, on a full disk, without fcntl."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from mlworkbench.core import files
from mlworkbench.core.files import hold_lock, is_locked, make_private, place_file, replace_file, write_file
from mlworkbench.errors import IngestError, RunError, SettingsError


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# locks --------------------------------------------------------------------------------------------------------------


def test_a_lock_is_freed_when_its_block_fails(tmp_path):
    with pytest.raises(ValueError, match="inside"), hold_lock(tmp_path / "a.lock"):
        raise ValueError("inside")
    with hold_lock(tmp_path / "a.lock", seconds=0):
        assert is_locked(tmp_path / "a.lock")
    assert not is_locked(tmp_path / "a.lock") and mode(tmp_path / "a.lock") == 0o600


def test_threads_exclude_each_other(tmp_path):
    inside, most = [], []

    def work():
        with hold_lock(tmp_path / "a.lock"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_a_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from mlworkbench.core.files import hold_lock\n"
        "with hold_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.lock"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        taken = pytest.raises(SettingsError, match=r"another held it for 0\.05 s; wait for its holder")
        with taken as caught, hold_lock(tmp_path / "a.lock", seconds=0.05):
            pass
        assert caught.value.exit_code == 75 and caught.value.code == "settings.locked"
        assert is_locked(tmp_path / "a.lock")
        other.kill()
        other.wait()
    with hold_lock(tmp_path / "a.lock", seconds=5):
        pass


def test_the_caller_says_what_a_taken_lock_means(tmp_path):
    again = hold_lock(tmp_path / "a", seconds=0, busy=RunError("it runs already"))
    with hold_lock(tmp_path / "a"), pytest.raises(RunError, match="runs already"), again:
        pass


def test_a_lock_nobody_made_is_free_and_is_not_made(tmp_path):
    assert not is_locked(tmp_path / "a") and left(tmp_path) == []


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def none(descriptor, flags):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", none)
    with pytest.raises(SettingsError, match=r"^cannot lock a: No locks available; "), hold_lock(tmp_path / "a"):
        pass
    write_file(tmp_path / "b", b"replaced all the same")
    assert left(tmp_path) == ["a", "b"]


def test_windows_locks_a_byte_behind_the_end_and_the_place_in_the_file_stays(tmp_path, monkeypatch):
    held: set[tuple[int, int]] = set()

    def locking(descriptor, how, size):
        status = os.fstat(descriptor)
        place = (status.st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if place in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.add(place)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    (tmp_path / "a").write_text("text")
    with (tmp_path / "a").open("r+") as file:
        file.seek(2)
        assert files.try_lock(file.fileno()) and not files.try_lock(file.fileno(), seconds=0.03)
        assert file.read() == "xt" and all(place > 1 << 20 for _, place in held)


def test_where_there_are_no_locks_at_all_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    with pytest.raises(SettingsError, match="this system has no locks of files"), hold_lock(tmp_path / "a"):
        pass
    write_file(tmp_path / "b", b"42")
    assert (tmp_path / "b").read_bytes() == b"42"


# replacement --------------------------------------------------------------------------------------------------------


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    write_file(tmp_path / "a", b"old")
    with replace_file(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new" and left(tmp_path) == ["a"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_file(tmp_path / "a", b"old")
    with pytest.raises(OSError, match="of the caller"), replace_file(tmp_path / "a") as file:
        file.write(b"ne")
        raise OSError("of the caller")
    assert (tmp_path / "a").read_bytes() == b"old" and left(tmp_path) == ["a"]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from mlworkbench.core.files import replace_file\n"
        "with replace_file(Path(sys.argv[1])) as file:\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a[1]"])
    (abandoned,) = left(tmp_path)
    with replace_file(tmp_path / "a[1]") as one:
        assert abandoned not in left(tmp_path) and len(left(tmp_path)) == 1
        with replace_file(tmp_path / "a[1]") as other:
            other.write(b"second")
        one.write(b"first ends last")
    assert left(tmp_path) == ["a[1]"] and (tmp_path / "a[1]").read_bytes() == b"first ends last"


def test_permissions_are_as_asked_for_less_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "open", b"")
        write_file(tmp_path / "new" / "closed", b"", mode=0o600)
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("open", "new", "new/closed")] == [0o640, 0o700, 0o600]


def test_a_full_disk_is_one_line_that_may_be_tried_again(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_file(tmp_path / "a", b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(IngestError, match=r"^cannot write \S+/a: No space left on device; free some space") as caught:
        write_file(tmp_path / "a", b"new", error=IngestError)
    assert caught.value.exit_code == 75 and IngestError.exit_code == 2 and caught.value.code == "ingest.disk_full"
    assert (tmp_path / "a").read_bytes() == b"old" and left(tmp_path) == ["a"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    write_file(tmp_path / "a", b"")
    with pytest.raises(RunError, match=r"^cannot write \S+: (Not a directory|File exists); ") as caught:
        write_file(tmp_path / "a" / "b", b"", error=RunError)
    assert caught.value.exit_code == 2 and caught.value.code == "run.file_failed"


def test_of_two_that_place_a_file_the_first_wins(tmp_path):
    made = []
    threads = [
        threading.Thread(target=lambda k=k: made.append(place_file(tmp_path / "key", b"%d" % k * 1000)))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True] and left(tmp_path) == ["key"]
    assert mode(tmp_path / "key") == 0o600 and len(set((tmp_path / "key").read_bytes())) == 1


def test_a_file_that_others_could_read_is_closed(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o644)
    assert mode(make_private(tmp_path / "a")) == 0o600 and (tmp_path / "a").read_text() == "x"
