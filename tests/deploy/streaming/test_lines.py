"""Bytes become events with positions, however they come."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlworkbench.deploy.streaming.events import HEAD, LINE_LIMIT, Event, dead_letter_body, read_event
from mlworkbench.deploy.streaming.lines import BATCH, Batches, FileReader, Lines, PipeReader
from mlworkbench.errors import ContractError, DeploymentError


def expected(data: bytes) -> list[tuple[int, int, bytes]]:
    found, offset = [], 0
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        if text.strip():
            found.append((offset, number, text.removesuffix(b"\r")))
        offset += len(text) + 1
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"{}", b"", b"  ", b"\r", b'{"a": 1}\r', b"\xff", "Zürich".encode()])),
    st.lists(st.integers(1, 7), min_size=1),
    st.integers(1, 4),
)
def test_positions_do_not_depend_on_the_pieces_that_bytes_come_in(texts, sizes, count) -> None:
    data = b"".join(text + b"\n" for text in texts)
    lines, found, at, step = Lines(), [], 0, 0
    while at < len(data):
        size = sizes[step % len(sizes)]
        lines.feed(data[at : at + size])
        at, step = at + size, step + 1
        while events := lines.take(count):
            found += [(event.offset, event.line, event.data) for event in events]
    assert found == expected(data)
    assert lines.offset == len(data) and lines.unfinished == b""


def test_a_line_beyond_the_limit_is_not_kept_but_counted() -> None:
    lines = Lines(limit=5000)
    lines.feed(b"{}\n")
    for _ in range(40):
        lines.feed(b"x" * 1000)
        assert not [event for event in lines.take(9) if event.line > 1]
        assert len(lines.unfinished) <= 6000
    lines.feed(b"\n{}\n")
    long, last = lines.take(9)
    assert (long.offset, long.size, len(long.data)) == (3, 40_000, HEAD)
    assert (last.offset, last.line) == (40_004, 3)


def test_an_event_beyond_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(ContractError, match=f"at most {LINE_LIMIT} bytes; got {LINE_LIMIT + 1}"):
        read_event(Event(0, 1, b"x" * HEAD, LINE_LIMIT + 1))


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"3", b"null", b"[{}]", b"{", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff{}", b"[" * 100_000),
        b'{"a": ' + b"9" * 5000 + b"}",
        "{}".encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        read_event(Event(0, 2, data, len(data)))
    assert str(refused.value).startswith("event: ") and "\n" not in str(refused.value)


def test_a_byte_order_mark_is_allowed_where_a_file_begins() -> None:
    data = b"\xef\xbb\xbf" + b'{"a": 1}'
    assert read_event(Event(0, 1, data, len(data))) == {"a": 1}
    with pytest.raises(ContractError):
        read_event(Event(20, 2, data, len(data)))


def test_a_dead_letter_holds_the_event_as_it_came() -> None:
    import base64

    data = b'{"a": "\xff"'
    assert base64.b64decode(dead_letter_body(Event(0, 1, data, len(data)), "no")["event_base64"]) == data


# micro-batches


def test_a_lone_event_is_given_out_after_five_milliseconds() -> None:
    reading, writing = os.pipe()
    waits: list[float] = []

    class Watched(PipeReader):
        def chunk(self, seconds: float) -> bytes | None:
            waits.append(seconds)
            return super().chunk(seconds)

    batches = Batches(Watched(reading), Lines())
    os.write(writing, b'{"a": 1}\n{"a": 2}\n{"a"')
    assert [event.line for event in batches.read() or ()] == [1, 2]
    assert len(waits) > 1 and max(waits) <= 0.005
    assert batches.read() == []
    os.write(writing, b": 3}")
    os.close(writing)
    assert [event.data for event in batches.read() or batches.read() or ()] == [b'{"a": 3}']
    assert batches.read() is None
    os.close(reading)


def test_events_that_come_together_go_together() -> None:
    reading, writing = os.pipe()
    batches = Batches(PipeReader(reading), Lines())
    thread = threading.Thread(target=lambda: (os.write(writing, b"{}\n" * 2000), os.close(writing)))
    thread.start()
    sizes = []
    while (events := batches.read()) is not None:
        sizes += [len(events)] * bool(events)
    thread.join()
    assert sizes == [BATCH, BATCH, BATCH, 2000 - 3 * BATCH]
    os.close(reading)


def test_what_was_taken_from_a_pipe_is_given_out_after_a_stop() -> None:
    reading, writing = os.pipe()
    batches = Batches(PipeReader(reading), Lines())
    os.write(writing, b"{}\n" * 1500 + b"{")
    first = batches.read()
    batches.stopped = True
    rest = []
    while (events := batches.read()) is not None:
        rest += events
    assert len(first) == BATCH and len(first) + len(rest) == 1501
    assert rest[-1].data == b"{"  # half a line, which nobody could read again
    os.close(reading)
    os.close(writing)


def test_a_file_is_left_at_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n" * 1500)
    descriptor = os.open(path, os.O_RDONLY)
    batches = Batches(FileReader(path, descriptor), Lines())
    assert len(batches.read()) == BATCH
    batches.stopped = True
    assert batches.read() is None
    os.close(descriptor)


@pytest.fixture
def growing(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n{}\n")
    descriptor = os.open(path, os.O_RDONLY)
    batches = Batches(FileReader(path, descriptor), Lines())
    assert len(batches.read()) == 2
    yield path, batches
    os.close(descriptor)


def test_a_growing_file_is_followed(growing) -> None:
    path, batches = growing
    assert batches.read() == []
    with path.open("ab") as file:
        file.write(b'{"a": 1}\n{"a"')
    assert [event.line for event in batches.read()] == [3]
    with path.open("ab") as file:
        file.write(b": 2}\n")
    assert [event.data for event in batches.read()] == [b'{"a": 2}']


def test_a_file_that_becomes_shorter_or_another_is_refused(growing) -> None:
    path, batches = growing
    os.truncate(path, 3)
    with pytest.raises(DeploymentError, match="only grows; got 3 bytes after 6"):
        batches.read()
    path.rename(path.with_suffix(".1"))
    with pytest.raises(DeploymentError, match="got none under its name"):
        batches.read()
    path.write_bytes(b"{}\n" * 9)
    with pytest.raises(DeploymentError, match="another file under its name"):
        batches.read()


@pytest.mark.parametrize(("tail", "taken"), [(b'{"a": 1}', 1), (b'{"a": 1', 0), (b"12", 0), (b" ", 0), (b"", 0)])
def test_a_last_line_without_an_end_counts_when_it_is_whole(tmp_path: Path, tail: bytes, taken: int) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n" + tail)
    descriptor = os.open(path, os.O_RDONLY)
    batches = Batches(FileReader(path, descriptor, once=True), Lines())
    assert len(batches.read()) == 1
    assert len(batches.read() or ()) == taken
    assert batches.read() is None
    assert batches.lines.unfinished == (b"" if taken else tail)
    os.close(descriptor)
