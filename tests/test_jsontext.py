"""JSON that nests without end, comes in another encoding or holds half a character is one line, never a crash."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import pytest

from mlworkbench.deploy.door import read_json
from mlworkbench.deploy.stream_events import Event, read_event
from mlworkbench.errors import ContractError
from mlworkbench.jsontext import DEPTH, JsonTextError, all_readable, is_readable, read_text, too_deep


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, dict | list) else 0


def any_value(draw, level):
    kind = draw.choice("lodts" if level < 9 else "ts")
    if kind in "lo":
        items = [any_value(draw, level + 1) for _ in range(draw.randrange(4))]
        return items if kind == "l" else {f'{draw.choice("[]{}")}"\\{k}': item for k, item in enumerate(items)}
    if kind == "d":
        return [any_value(draw, level + 1)]
    return "".join(draw.choice('[]{}"\\, ü') for _ in range(draw.randrange(12))) if kind == "t" else draw.random()


def test_the_depth_is_that_of_the_parsed_value():
    draw = random.Random(7)
    for _ in range(400):
        value = any_value(draw, 0)
        text, depth = json.dumps(value, ensure_ascii=draw.random() < 0.5), depth_of(value)
        assert not too_deep(text, depth=depth)
        assert depth == 0 or too_deep(text, depth=depth - 1)


HOSTILE = {
    "brackets": b"[" * 20_000,
    "a thousand, closed": b"[" * 1_000 + b"]" * 1_000,
    "objects": b'{"a":' * 20_000,
    "closed in texts": b'["]]]]",' * 20_000,
    "behind a text without end": b"[" * 100 + b'"' + b'\\"' * 100,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_nests_without_end_is_refused_before_it_is_parsed(text):
    with pytest.raises(ContractError, match=rf"^body: values nested at most {DEPTH} deep; got deeper ones; "):
        read_json(text)
    with pytest.raises(ContractError, match=r"^event: values nested"):
        read_event(Event(0, 1, text, len(text)))


def test_a_long_hostile_text_costs_no_time():
    began = time.perf_counter()
    assert not too_deep(b'"' + b'\\"' * 4_000_000 + b"[" * 100)
    assert time.perf_counter() - began < 2


def test_other_encodings_are_no_json_and_a_byte_order_mark_is():
    record = {"distance": 760, "gate": "ü"}
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        with pytest.raises(ContractError, match=r"^body: must be JSON in UTF-8; got UTF-16 or UTF-32; send one record"):
            read_json(json.dumps(record, ensure_ascii=False).encode(encoding))
    with pytest.raises(ContractError, match="must be JSON in UTF-8; got byte 0xfc at 27"):
        read_json(json.dumps(record, ensure_ascii=False).encode("latin-1"))
    assert read_json(json.dumps(record).encode("utf-8-sig")) == record


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}}', '{"a": ' + "1" * 5000 + "}", "\ufeff{}", "nul"])
def test_what_is_no_json_is_one_line(text):
    with pytest.raises(JsonTextError, match=r"^must be JSON; [^\n]+$"):
        read_text(text)


def test_half_a_character_is_no_text():
    halves = ["\ud800", "a\udc00", "\ude00\ud83d", json.loads('"\\udbff"')]
    assert not any(map(is_readable, halves))
    assert all(map(is_readable, ["", "JFK", "Zürich", "\U0001f600", json.loads('"\\ud83d\\ude00"')]))
    assert all_readable(["\U0001f600", None, ""]) and not all_readable(["JFK", "\ud83d", "\ude00"])


def test_a_name_with_half_a_character_is_one_line():
    with pytest.raises(ContractError, match=r"each name text in Unicode, not half a character; got '\\ud800'"):
        read_json(b'[{"a": 1}, {"\\ud800": 2}]')


def test_no_deep_text_brings_a_process_down(tmp_path):
    files = {"deep": b'{"a":' * 20_000, "lines": b'{"a":\n' * 20_000, "array": b'{"a": ' + b"[" * 20_000 + b"\n"}
    files["closed"] = b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}\n"
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b'{"a": 1}\n' + text)
    code = (
        "import sys; from mlworkbench.data.source import open_source; from mlworkbench.errors import IngestError\n"
        "for name in sys.argv[1:]:\n"
        "    try: [list(open_source(name).batches())]\n"
        "    except IngestError as error: print(error)\n"
    )
    names = [str(tmp_path / f"{name}.jsonl") for name in files]
    run = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-400:]
    lines = run.stdout.splitlines()
    assert len(lines) == len(files) and all(", line 2: " in line for line in lines)
