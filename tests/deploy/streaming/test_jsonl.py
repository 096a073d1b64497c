"""The output is the position: killed at any byte of any write, a stream goes on as if nothing had been."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mlworkbench.deploy.streaming import appender as stream_append
from mlworkbench.deploy.streaming import lines as stream_lines
from mlworkbench.deploy.streaming.appender import Appender, complete_size, lines_backward
from mlworkbench.deploy.streaming.checkpoint import Writer
from mlworkbench.deploy.streaming.events import Event, Outcome, dead_letter_body
from mlworkbench.deploy.streaming.jsonl import JsonLines, Places
from mlworkbench.errors import DeploymentError
from mlworkbench.evaluation.log.rows import prediction_id

WRITER = Writer("minutes", "minutes:0a1b")


class KilledError(BaseException):
    """The process is gone."""


def outcome(event: Event, source: str) -> Outcome:
    if b"bad" in event.data:
        return Outcome(event, dead_letter_body(event, "bad"), False)
    name = prediction_id(WRITER.model, WRITER.version, "streaming", f"{source}:{event.offset}")
    body = {"prediction_id": name, "version": WRITER.version, "line": event.line, "offset": event.offset}
    return Outcome(event, body, True)


def work(places: Places, seen: list[int] | None = None) -> None:
    with closing(JsonLines(places, WRITER)) as channel:
        while (events := channel.read()) is not None:
            if seen is not None:
                seen += [event.line for event in events]
            channel.publish([outcome(event, channel.source) for event in events])
            channel.acknowledge(events)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    source = tmp_path / "events.jsonl"
    texts = [b'{"n": %d%s}\r' % (k, b', "bad": 1' if k % 3 == 1 or k > 8 else b"") for k in range(12)]
    source.write_bytes(b"\n".join([*texts[:5], b"", *texts[5:]]) + b"\n")
    return Places(str(source), str(tmp_path / "out.jsonl"), once=True)


def lines_of(path: str | Path) -> list[int]:
    return [json.loads(line)["line"] for line in Path(path).read_text().splitlines()]


class DyingOs:
    """The operating system of a process that is killed after so many bytes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, descriptor: int, data: memoryview) -> int:
        written = os.write(descriptor, data[: self.left])
        self.left -= written
        if self.left <= 0:
            raise KilledError
        return written


def test_killed_at_any_byte_nothing_is_lost_and_nothing_doubled(places, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stream_lines, "BATCH", 4)
    work(places)
    whole = Path(places.out).read_bytes(), places.dead_path.read_bytes()
    assert sorted(lines_of(places.out) + lines_of(places.dead_path)) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13]
    for left in range(1, sum(map(len, whole)), 7):
        for path in (Path(places.out), places.dead_path):
            path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(stream_append, "os", DyingOs(left))
            patch.setattr(Appender, "close", lambda self, **_: os.close(self._descriptor))  # the kernel does no more
            with pytest.raises(KilledError):
                work(places)
        work(places)
        assert (Path(places.out).read_bytes(), places.dead_path.read_bytes()) == whole, left


def test_an_event_is_not_read_again_once_it_is_in_the_output(places) -> None:
    work(places)
    seen: list[int] = []
    work(places, seen)
    assert seen == []
    with Path(places.source).open("ab") as file:
        file.write(b'{"n": 12}\n')
    work(places, seen)
    assert seen == [14] and lines_of(places.out)[-1] == 14


def test_a_last_line_that_gets_its_end_later_is_not_predicted_twice(places) -> None:
    with Path(places.source).open("ab") as file:
        file.write(b'{"n": 12}')
    work(places)
    with Path(places.source).open("ab") as file:
        file.write(b'\n{"n": 13}\n')
    work(places)
    assert lines_of(places.out)[-2:] == [14, 15]


def test_half_of_a_last_line_waits_for_the_other(places) -> None:
    with Path(places.source).open("ab") as file:
        file.write(b'{"n": 1')
    work(places)
    with Path(places.source).open("ab") as file:
        file.write(b"2}\n")
    work(places)
    assert lines_of(places.out)[-1] == 14 and 14 not in lines_of(places.dead_path)


def test_with_standard_output_dead_letters_are_still_written_once(places, tmp_path) -> None:
    for _ in range(2):
        with (tmp_path / "standard").open("wb") as file:
            piped = Places(places.source, "-", str(tmp_path / "dead.jsonl"), once=True)
            with closing(JsonLines(piped, WRITER, descriptor=file.fileno())) as channel:
                while (events := channel.read()) is not None:
                    channel.publish([outcome(event, channel.source) for event in events])
        assert lines_of(tmp_path / "standard") == [1, 3, 4, 7, 8, 10]
    assert lines_of(tmp_path / "dead.jsonl") == [2, 5, 9, 11, 12, 13]


@pytest.fixture
def channel(places) -> Iterator[JsonLines]:
    with closing(JsonLines(places, WRITER)) as opened:
        yield opened


def test_two_workers_on_one_output_or_one_file_of_dead_letters_are_refused(channel, places, tmp_path) -> None:
    with pytest.raises(DeploymentError, match="one worker writes it at a time"):
        JsonLines(places, WRITER)
    with pytest.raises(DeploymentError, match="one worker writes it at a time"):
        JsonLines(Places(places.source, str(tmp_path / "other.jsonl"), str(places.dead_path)), WRITER)
    channel.close()
    JsonLines(places, WRITER).close()


def refusal(places: Places, writer: Writer = WRITER) -> str:
    with pytest.raises(DeploymentError) as refused:
        JsonLines(places, writer)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_an_output_of_another_version_or_input_is_refused_and_left_alone(places, tmp_path) -> None:
    work(places)
    before = Path(places.out).read_bytes()
    assert "predictions of minutes:77f3; got those of minutes:0a1b" in refusal(
        places, Writer("minutes", "minutes:77f3")
    )
    other = tmp_path / "other.jsonl"
    other.write_bytes(Path(places.source).read_bytes())
    assert "the output of this input" in refusal(Places(str(other), places.out))
    Path(places.source).write_bytes(b'{"n": 99}\n' * 20)
    assert "the output of this input" in refusal(places)
    assert "what came through a pipe" in refusal(Places("-", places.out))
    assert Path(places.out).read_bytes() == before


def test_dead_letters_of_another_input_are_refused(places, tmp_path) -> None:
    work(places)
    other = tmp_path / "other.jsonl"
    other.write_bytes(Path(places.source).read_bytes())
    wrong = Places(str(other), str(tmp_path / "new.jsonl"), str(places.dead_path))
    assert "the dead letters of this input" in refusal(wrong)


def test_an_input_that_was_cut_or_changed_behind_its_first_line_is_refused(places) -> None:
    work(places)
    data = Path(places.source).read_bytes()
    Path(places.source).write_bytes(data[:20])
    assert "an input with a line at byte" in refusal(places)
    Path(places.source).write_bytes(data[:11] + b"x" + data[11:])
    assert "an input with a line at byte" in refusal(places)


@pytest.mark.parametrize(
    "text",
    [
        b"prediction_id,score\n", b"{}\n", b"3\n", b'{"version": 1, "offset": "x"}\n', b"\0\0\n",
        b"my notes", b"two lines\nof notes", b'{"json": 1}', b'{"prediction_id": 3}\nnotes',
    ],
)  # fmt: skip
def test_an_output_that_no_stream_wrote_is_refused_and_left_alone(places, text: bytes) -> None:
    Path(places.out).write_bytes(text)
    assert places.out in refusal(places)
    assert Path(places.out).read_bytes() == text


def test_a_file_of_ones_own_is_left_alone_where_dead_letters_should_go(places, tmp_path) -> None:
    for text in (b"my notes", b"my notes\n"):
        (tmp_path / "notes").write_bytes(text)
        assert "or one that this wrote" in refusal(Places(places.source, places.out, str(tmp_path / "notes")))
        assert (tmp_path / "notes").read_bytes() == text
    good = tmp_path / "good.jsonl"
    good.write_bytes(b'{"n": 1}\n')
    (tmp_path / "empty").write_bytes(b"")
    work(Places(str(good), str(tmp_path / "good.out"), str(tmp_path / "empty"), once=True))
    assert (tmp_path / "empty").exists()


def test_a_rotated_input_is_given_out_and_can_be_gone_on_with_under_its_new_name(tmp_path) -> None:
    source, out = tmp_path / "events.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"".join(b'{"n": %d}\n' % k for k in range(700)))
    with closing(JsonLines(Places(str(source), str(out)), WRITER)) as channel:
        for _ in range(2):
            events = channel.read()
            channel.publish([outcome(event, channel.source) for event in events])
        with source.open("ab") as file:
            file.write(b'{"n": 700}\n')
        source.rename(tmp_path / "events.1")
        events = channel.read()
        channel.publish([outcome(event, channel.source) for event in events])
        with pytest.raises(DeploymentError, match=f"--name {channel.source}"):
            channel.read()
        name = channel.source
    with (tmp_path / "events.1").open("ab") as file:
        file.write(b'{"n": 701}\n')
    work(Places(str(tmp_path / "events.1"), str(out), once=True, name=name))
    assert lines_of(out) == list(range(1, 703))


def test_places_that_cannot_be_used_are_refused_in_one_line(places, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    for wrong, said in (
        (Places(str(tmp_path / "none.jsonl"), "o.jsonl"), "a file of events that exists; got none"),
        (Places(str(tmp_path), "o.jsonl"), "got a folder"),
        (Places("events.csv", "o.jsonl"), "a stream reads JSON lines"),
        (Places(places.source, places.source), "one file for the input"),
        (Places(places.source, places.out, places.out), "one file for the output"),
        (Places(places.source, "-"), "dead letters: a file"),
        (Places(places.source, "-", "-"), "dead letters: a file"),
        (Places(places.source, places.out, name="a\udcffb"), "printable characters"),
        (Places(places.source, "/dev/null"), "got a pipe or a device"),
        (Places(places.source, str(tmp_path / "folder")), "a file that can be written; Is a directory"),
    ):
        assert said in refusal(wrong)
    assert not Path(places.out).exists() and not places.dead_path.exists()


def test_a_full_disk_stops_the_worker_in_one_line_and_leaves_whole_lines(tmp_path, monkeypatch) -> None:
    class FullOs(DyingOs):
        def write(self, descriptor: int, data: memoryview) -> int:
            if self.left <= 0:
                raise OSError(28, "No space left on device")
            self.left -= len(data[: self.left])
            return os.write(descriptor, data[: self.left + 5][:5])

    with closing(Appender(tmp_path / "out.jsonl", begins=b'{"line":')) as file:
        file.append([{"line": 1}])
        monkeypatch.setattr(stream_append, "os", FullOs(5))
        with pytest.raises(DeploymentError, match="No space left on device; free some space"):
            file.append([{"line": 2}])
        monkeypatch.undo()
        file.append([{"line": 2}])
    assert lines_of(tmp_path / "out.jsonl") == [1, 2]


def test_lines_are_read_backward_over_any_block(tmp_path) -> None:
    texts = [b"", *(b"x" * (k * 37 % 90_000) for k in range(200)), b"y" * 65_535, b"z" * 65_536, b"x" * 1_000_000, b""]
    path = tmp_path / "lines"
    path.write_bytes(b"".join(text + b"\n" for text in texts) + b"torn")
    descriptor = os.open(path, os.O_RDONLY)
    end = complete_size(descriptor)
    assert end == path.stat().st_size - 4
    assert list(lines_backward(descriptor, end)) == texts[::-1]
    os.close(descriptor)


def test_dead_letters_are_for_the_owner_alone_and_gone_where_there_are_none(places, tmp_path) -> None:
    work(places)
    assert places.dead_path.stat().st_mode & 0o077 == 0
    good = tmp_path / "good.jsonl"
    good.write_bytes(b'{"n": 1}\n')
    work(Places(str(good), str(tmp_path / "good.out"), once=True))
    assert not (tmp_path / "good.out.dead.jsonl").exists()
