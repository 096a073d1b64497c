"""JSON that nests without end, comes in another encoding or holds half a character is one line, never a crash."""

from __future__ import annotations

import datetime
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlworkbench.core.jsontext import (
    DEPTH,
    JsonTextError,
    all_readable,
    count_nested,
    encode_plain,
    encode_rows,
    is_readable,
    is_too_deep,
    parse_json,
    to_json,
    to_plain,
    to_plain_list,
)
from mlworkbench.deploy.realtime.http import read_json
from mlworkbench.deploy.streaming.events import Event, read_event
from mlworkbench.errors import ContractError, LogError


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
        assert not is_too_deep(text, depth=depth)
        assert depth == 0 or is_too_deep(text, depth=depth - 1)


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
    assert not is_too_deep(b'"' + b'\\"' * 4_000_000 + b"[" * 100)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("one", [b"{}", b"[]", b'{"a":[]}'])
def test_more_lists_and_objects_than_records_need_cost_no_time(one):
    body, began = b"[" + one + b"," + (one + b",") * (8_000_000 // len(one)) + one + b"]", time.perf_counter()
    with pytest.raises(ContractError, match=r"^body: at most \d+ lists and objects; got \d+; send them in parts$"):
        read_json(body)
    assert time.perf_counter() - began < 1


def test_brackets_in_texts_are_no_lists_and_objects():
    text = '{"a": [{}]}\\' * 80_000
    record = {"note": text, "more": text + '"'}
    assert count_nested(json.dumps(record)) == 1 and read_json(json.dumps(record).encode()) == record


def test_other_encodings_are_no_json_and_a_byte_order_mark_is():
    record = {"distance": 760, "gate": "ü"}
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        with pytest.raises(ContractError, match=r"^body: JSON in UTF-8; got UTF-16 or UTF-32; send one record"):
            read_json(json.dumps(record, ensure_ascii=False).encode(encoding))
    with pytest.raises(ContractError, match="JSON in UTF-8; got byte 0xfc at 27"):
        read_json(json.dumps(record, ensure_ascii=False).encode("latin-1"))
    assert read_json(json.dumps(record).encode("utf-8-sig")) == record


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}}', '{"a": ' + "1" * 5000 + "}", "\ufeff{}", "nul"])
def test_what_is_no_json_is_one_line(text):
    with pytest.raises(JsonTextError, match=r"^not JSON: [^\n]+$"):
        parse_json(text)


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
        "import sys; from mlworkbench.data.sources.open_source import open_source\n"
        "from mlworkbench.errors import IngestError\n"
        "for name in sys.argv[1:]:\n"
        "    try: [list(open_source(name).batches())]\n"
        "    except IngestError as error: print(error)\n"
    )
    names = [str(tmp_path / f"{name}.jsonl") for name in files]
    run = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-400:]
    lines = run.stdout.splitlines()
    assert len(lines) == len(files) and all(", line 2: " in line for line in lines)


# what is written ----------------------------------------------------------------------------------------------------

INF = math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        (INF, '"Infinity"'),
        (-INF, '"-Infinity"'),
        (np.float64("nan"), "null"),
        (np.float32("-inf"), '"-Infinity"'),
        (np.array([[1.5, np.nan], [INF, -0.0]]), '[[1.5,null],["Infinity",-0.0]]'),
        (np.array([None, np.nan, "a", True, 2**62], dtype=object), f'[null,null,"a",true,{2**62}]'),
        (pd.Series([0.1, np.nan]), "[0.1,null]"),
        (np.bool_(False), "false"),
        (np.str_("ü"), '"\\u00fc"'),
        ((1, [2.5, {"b": INF, "a": np.int8(3)}]), '[1,[2.5,{"a":3,"b":"Infinity"}]]'),
        ({1: np.uint64(2**64 - 1)}, f'{{"1":{2**64 - 1}}}'),
    ],
)
def test_one_policy_for_what_json_does_not_know(value, text):
    assert to_json(value) == text


def test_every_double_reads_back_to_the_last_bit():
    draw = np.random.default_rng(7)
    bits = draw.integers(0, 2**64, size=20_000, dtype=np.uint64).view(np.float64)
    values = np.concatenate([bits, [0.1 + 0.2, 5e-324, -0.0, 1.7976931348623157e308, INF, -INF, np.nan]])
    for texts in (to_json(values), encode_plain(to_plain_list(values))):
        back = np.array([math.nan if item is None else float(item) for item in json.loads(texts)])
        same = back.view(np.uint64) == values.view(np.uint64)
        assert (same | (np.isnan(back) & np.isnan(values))).all()


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "u1", "?", "U3", "O"])
def test_a_column_is_the_same_as_its_values_one_by_one(kind):
    values = [1, 0, 1] if kind != "O" else [1.5, None, INF]
    for column in (np.array(values, dtype=kind), np.array([values, values], dtype=kind)):
        expected = [to_plain(item) for item in column]
        assert to_plain_list(column) == expected
        assert list(map(type, to_plain_list(column))) == list(map(type, expected))
    with_nan = np.array([1.0, np.nan, -INF], dtype="f4")
    assert to_plain_list(with_nan) == [1.0, None, "-Infinity"]


def test_rows_have_sorted_names_and_vectors_are_lists():
    columns = {"b": np.array([1.0, np.nan]), "a": np.array([[1, 2], [3, 4]])}
    assert encode_rows(columns, 2) == ['{"a":[1,2],"b":1.0}', '{"a":[3,4],"b":null}']
    assert encode_rows({}, 3) == ["{}"] * 3


@pytest.mark.parametrize("value", [datetime.date(2013, 10, 1), {1}, pd.NaT, np.longdouble(1), 1j, object()])
def test_what_is_no_value_of_json_is_refused_by_name(value):
    for write in (to_json, encode_plain):
        with pytest.raises(LogError, match=r"Object of type \w+ is not") as caught:
            write({"a": to_plain(value)})
        assert caught.value.code == "log.not_json"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (INF, "Infinity"),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([1, 2]), [1, 2]),
        (Path("a/b"), "a/b"),
        ({"x": {1}}, {"x": [1]}),
        (None, None),
        (True, True),
    ],
)
def test_every_value_becomes_one_that_json_can_say(value, expected):
    assert to_plain(value, as_text=True) == expected
    json.dumps(to_plain(value, as_text=True), allow_nan=False)


def test_as_text_is_for_people():
    at = datetime.datetime(2013, 10, 1, 9, 30, tzinfo=datetime.UTC)
    missing = [pd.NaT, pd.NA, math.nan, -INF]
    values = {"at": at, "day": at.date(), "stamp": pd.Timestamp(at), "none": missing, "set": {1}}
    assert to_plain(values, as_text=True) == {
        "at": "2013-10-01T09:30:00+00:00",
        "day": "2013-10-01",
        "stamp": "2013-10-01T09:30:00+00:00",
        "none": [None, None, None, "-Infinity"],
        "set": [1],
    }
    assert to_plain({"path": Path("a/b"), "one": np.longdouble(1)}, as_text=True) == {"path": "a/b", "one": "1.0"}


def test_writing_json_needs_no_heavy_library():
    code = "import sys, mlworkbench.core.jsontext; print(sorted({'numpy', 'pandas'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
