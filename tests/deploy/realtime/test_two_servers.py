"""One application on uvicorn and on BentoML: the same answers to whatever is sent, and nothing breaks one of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.process import SERVERS, Service, start_service, stop
from mlworkbench.scoring.registry.registry import Registry

pytestmark = pytest.mark.system
SECONDS = 20.0  # an answer that takes longer is a hang
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
ODD = [
    *(None, True, False, 0, -1, 391, 1e300, 10**400, 39.1, "39.1", "", " ", "NaN", "Dream", "dream", "x" * 5000),
    *("\u00e4\U0001f427", "\x00", "\ud800", [], {}, [1], {"a": 1}, [[]], -0.0, 2**63, 5e-324),
]
BROKEN = [
    *(
        b"",
        b" ",
        b"{",
        b"[",
        b"null",
        b"1",
        b'"a"',
        b"[]",
        b"{}",
        b"[1]",
        b"[[]]",
        b"[{}]",
        b"true",
        b"\xff\xfe",
        b"\x00",
    ),
    *(
        b'{"bill": NaN}',
        b'{"bill": 1e999}',
        b'{"bill": 1, "bill": 2}',
        b'{"a": "\\ud800"}',
        b"[" * 5000,
        b"\xef\xbb\xbf{}",
    ),
    *(
        b'{"bill": 01}',
        b"{'bill': 1}",
        b'{"bill": 1,}',
        b'{"bill": -}',
        b'{"island": "\xe9"}',
        b"[" + b"{}," * 1000 + b"{}]",
    ),
]
TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "text/csv",
    "text/plain",
    "",
    "x" * 300,
]
NAMES = ["order-17", "order-18", "a b", "x" * 128, "x" * 129, "\u00e4", "", "\t", '"', "<script>"]
PAGES = ["/model", "/openapi.json", "/docs.json", "/client.py", "/ping", "/livez", "/healthz", "/readyz", "/metrics"]
PAGES += ["/docs", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/birds", "/v2/models/birds/ready"]
INFER = "/v2/models/birds/infer"
POSTS = ["/score", "/invocations", "/feedback", INFER]
PATHS = [
    "/",
    "/score/",
    "//score",
    "/Score",
    "/scores",
    "/%73core",
    "/score%00",
    "/x" * 300,
    "/../model",
    "/static",
    "/docs.json/",
]
OWN_BODY = ("/livez", "/healthz", "/readyz", "/schema.json")  # BentoML asks ours, and answers in its own words
ALIKE = ("content-type", "content-length", "x-request-id", "x-refused", "connection", "allow", "retry-after")
ALIASES = {"/healthz", "/docs.json"}  # of /livez and /openapi.json


@dataclass(frozen=True)
class Asked:
    """A request; `pieces` are the sizes of its chunks, none for a body that is sent whole."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    pieces: tuple[int, ...] = ()

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    def parts(self) -> Iterator[bytes]:
        """Give what is sent, in the portions in which it is sent."""
        length = [("Transfer-Encoding", "chunked")] if self.pieces else [("Content-Length", str(len(self.body or b"")))]
        listed = [("Host", "127.0.0.1"), *self.headers, *(length if self.body is not None else [])]
        head = "".join(f"{name}: {value}\r\n" for name, value in listed)
        yield f"{self.method} {self.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1", "replace")
        if not self.pieces:
            yield self.body or b""
            return
        left = self.body or b""
        for size in (*self.pieces, len(left)):
            if part := left[:size]:
                yield f"{len(part):x}\r\n".encode() + part + b"\r\n"
            left = left[size:]
        yield b"0\r\n\r\n"


def spoil(record: dict[str, Any], draw: Random) -> dict[str, Any]:
    """Change a record: a value, a name, one more, one less."""
    spoilt, name = dict(record), draw.choice([*record])
    match draw.randrange(4):
        case 0:
            del spoilt[name]
        case 1:
            spoilt[draw.choice(["wing", "", "Bill", "\x00", "prediction_id"])] = draw.choice(ODD)
        case _:
            spoilt[name] = draw.choice(ODD)
    return spoilt


def draw_record(draw: Random) -> dict[str, Any]:
    island = draw.choice(["Dream", "Biscoe", "Torgersen"])
    good = {"bill": round(draw.uniform(30, 60), 1), "island": island, "ring": f"R{draw.randrange(99)}"}
    return spoil(good, draw) if draw.random() < 0.2 else good


def draw_invocation(draw: Random) -> dict[str, Any]:
    rows = [draw_record(draw) for _ in range(draw.randint(1, 5))]
    lists = [[*row.values()] for row in rows]
    shapes = {
        "dataframe_records": rows,
        "dataframe_split": {"columns": [*rows[0]], "data": lists},
        "instances": draw.choice([rows, lists]),
        "inputs": {name: [row.get(name) for row in rows] for name in rows[0]},
    }
    name = draw.choice([*shapes])
    body = {name: shapes[name]}
    return body if draw.random() < 0.85 else {**body, draw.choice(["params", "instances", ""]): draw.choice(ODD)}


def draw_inference(draw: Random) -> dict[str, Any]:
    rows = [draw_record(draw) for _ in range(draw.randint(1, 5))]
    kinds, shape = {"bill": "FP64"}, [len(rows) if draw.random() < 0.95 else draw.choice([0, -1, 1001, 10**12])]
    tensors = [
        {"name": name, "shape": shape, "datatype": kinds.get(name, "BYTES"), "data": [row.get(name) for row in rows]}
        for name in rows[0]
    ]
    more = draw.choice(
        [{}, {}, {"id": "i1"}, {"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "x"}]}]
    )
    return {"inputs": tensors, **more}


def draw_label(draw: Random) -> dict[str, Any]:
    label = {"prediction_id": f"{draw.randrange(99):02x}", "value": draw.choice(["Adelie", "Gentoo"])}
    return spoil(label, draw) if draw.random() < 0.2 else label


def draw_body(draw: Random, path: str) -> bytes:
    if draw.random() < 0.15:
        return draw.choice(BROKEN)
    if path == "/invocations":
        told: Any = draw_invocation(draw)
    elif path == INFER:
        told = draw_inference(draw)
    else:
        make = draw_label if path == "/feedback" else draw_record
        many = [make(draw) for _ in range(draw.choice([1, 1, 2, 5, 20]))]
        told = many if draw.random() < 0.6 else many[0]
    text = json.dumps(told)
    return text[: draw.randrange(len(text))].encode() if draw.random() < 0.03 else text.encode()


def draw_request(draw: Random) -> Asked:
    """Make a request of a kind, good ones more often than others."""
    kind = draw.random()
    if kind < 0.12:
        return Asked(
            draw.choice(["GET", "GET", "HEAD", "POST", "PUT"]), draw.choice(PAGES), body=draw.choice([None, b"{}"])
        )
    if kind < 0.2:
        return Asked(draw.choice(["GET", "POST", "OPTIONS", "DELETE", "PATCH"]), draw.choice([*PATHS, *POSTS]))
    path = draw.choice(["/score", "/score", "/score", *POSTS])
    body = draw_body(draw, path)
    odd = draw.random() < 0.1
    headers = [("Content-Type", draw.choice(TYPES) if odd else "application/json")]
    if draw.random() < 0.4:
        made = f"r{draw.randrange(10**9)}"
        headers.append(
            (draw.choice(["X-Request-Id", "x-request-id"]), draw.choice(NAMES) if draw.random() < 0.2 else made)
        )
    partial = draw.choice(
        ["", "", "", "?partial=false", "?partial=true", "?partial=maybe", "?partial", "?a=%zz&partial=0"]
    )
    pieces = tuple(draw.randint(1, 300) for _ in range(draw.randint(1, 4))) if draw.random() < 0.3 else ()
    return Asked("POST", path + partial, tuple(headers), body, pieces)


class Line:
    """A connection that is kept, and opened again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self.port, self.socket = port, None

    def ask(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        """Send a request in its portions, and read the answer."""
        for attempt in range(2):  # a server may have closed a connection that it kept
            if fresh := self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                return self._ask(asked)
            except (ConnectionError, HTTPException):
                self.close()
                if fresh or attempt:
                    raise
        raise AssertionError

    def _ask(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        with suppress(ConnectionError):  # answered before all was sent
            for part in asked.parts():
                self.socket.sendall(part)
        with HTTPResponse(self.socket, method=asked.method) as answer:
            answer.begin()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            told = answer.status, headers, answer.read()
            if answer.will_close:
                self.close()
        return told

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


@dataclass(frozen=True)
class Pair:
    """A service on each server, with a home each."""

    services: dict[str, Service]
    processes: dict[str, set[int]]

    def alive(self) -> bool:
        return self.processes == {name: family(service) for name, service in self.services.items()}

    def said(self) -> str:
        return "".join(service.log.read_text(errors="replace") for service in self.services.values())


def family(service: Service) -> set[int]:
    return {one.pid for one in psutil.Process(service.process.pid).children(recursive=True)}


@pytest.fixture(scope="module")
def pair(workshop, tmp_path_factory) -> Iterator[Pair]:
    with ExitStack() as stack:
        services = {}
        for server in SERVERS:
            home = Home.open(tmp_path_factory.mktemp(server) / "home")
            version, registry = workshop.open("birds"), Registry(home)
            tag = registry.add(version.folder, "birds", version.content_id)
            registry.promote("birds", tag, who="test", why="shared store", override="a test")
            services[server] = stack.enter_context(start_service("birds", home=home, server=server))
        yield Pair(services, {name: family(service) for name, service in services.items()})


def without_chance(told: Any) -> Any:
    """Leave out of an answer what is drawn for a request that its caller did not name, and the time of a label."""
    if isinstance(told, list):
        return [without_chance(one) for one in told]
    if isinstance(told, dict):
        if told.get("name") == "prediction_id":  # a tensor
            return {name: value for name, value in told.items() if name != "data"}
        drawn = ("prediction_id", "id", "available_at")
        return {name: without_chance(value) for name, value in told.items() if name not in drawn}
    return told


def compare_of(asked: Asked, answer: tuple[int, dict[str, str], bytes]) -> tuple[Any, ...]:
    """Give of an answer what must be alike on both servers."""
    status, headers, body = answer
    if asked.path in OWN_BODY:
        return (status,)
    kept = {name: headers[name] for name in ALIKE if name in headers}
    if asked.path == "/metrics" and status == 200:
        return status, kept["content-type"]
    named = any(name.lower() == "x-request-id" and value.strip() for name, value in asked.headers)
    if not named and "x-request-id" in kept:
        kept["x-request-id"] = f"{len(kept['x-request-id'])} characters"
    if headers.get("content-type", "").endswith("json") and body:
        told = json.loads(body)
        return status, kept, told if named and asked.path != "/feedback" else without_chance(told)
    if headers.get("content-type") == "application/octet-stream":
        return status, kept, len(body) if named else None
    return status, kept, body


def described(service: Service) -> dict[str, dict[str, Any]]:
    status, _, body = Line(service.port).ask(Asked("GET", "/openapi.json"))
    assert status == 200
    return json.loads(body)["paths"]


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_both_servers_answer_alike(pair: Pair, count: int) -> None:
    draw = Random(14)
    asked = [draw_request(draw) for _ in range(count)]

    def answers(service: Service) -> list[tuple[Any, ...]]:
        line = Line(service.port)
        return [compare_of(one, line.ask(one)) for one in asked]

    with ThreadPoolExecutor(2) as pool:
        uvicorn, bentoml = pool.map(answers, pair.services.values())
    other = [(one, left, right) for one, left, right in zip(asked, uvicorn, bentoml, strict=True) if left != right]
    assert not other, f"{len(other)} of {count}: {[str(one)[:1500] for one in other[:3]]}"
    statuses = Counter(one[0] for one in uvicorn)
    assert {200, 400, 404, 405, 413, 415, 422} <= {*statuses} and max(statuses) < 500 and pair.alive()
    assert statuses[200] > count / 3
    if count < 1000:
        return
    paths = described(pair.services["uvicorn"])
    seen = {
        (one.path, one.method, told[0]) for one, told in zip(asked, uvicorn, strict=True) if told[0] not in (404, 405)
    }
    missing = {one for one in seen if one[0] not in ALIASES and not is_described(paths, *one)}
    assert not missing


def is_described(paths: dict[str, dict[str, Any]], path: str, method: str, status: int) -> bool:
    operation = paths.get(path, {}).get({"HEAD": "get"}.get(method, method.lower()))
    return operation is not None and str(status) in operation["responses"]


def test_every_page_is_described(pair: Pair) -> None:
    for service in pair.services.values():
        paths, line = described(service), Line(service.port)
        for path in {*POSTS, *PAGES} - ALIASES:
            method = "post" if path in POSTS else "get"
            assert method in paths[path], path
        for path, operations in paths.items():
            if "get" in operations and "{" not in path:
                status = line.ask(Asked("GET", path))[0]
                assert str(status) in operations["get"]["responses"], path


def test_bentoml_asks_ours_and_its_own_pages_are_gone(pair: Pair) -> None:
    line = Line(pair.services["bentoml"].port)
    assert [line.ask(Asked("GET", path))[0] for path in OWN_BODY] == [200] * 4
    status, headers, body = line.ask(Asked("GET", "/metrics"))
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"mlworkbench_requests_total" in body and b"bentoml_service" not in body
    assert line.ask(Asked("GET", "/"))[0] == 404 and line.ask(Asked("GET", "/static_content/index.css"))[0] == 404


def mutate(sent: bytes, draw: Random) -> bytes:
    """Change the bytes of a request in some places."""
    for _ in range(draw.choice([1, 1, 2, 5])):
        if not sent:
            break
        at = draw.randrange(len(sent))
        upto = min(len(sent), at + draw.choice([1, 1, 4, 40]))
        junk = draw.choice(
            [draw.randbytes(draw.randint(1, 8)), b"\r\n", b"\x00", b"\r\n\r\n", b":", b" ", b"-1", b"9" * 30]
        )
        match draw.randrange(6):
            case 0:
                sent = sent[:at] + sent[upto:]
            case 1:
                sent = sent[:at] + junk + sent[at:]
            case 2:
                sent = sent[:at] + sent[at:upto] * draw.randint(2, 50) + sent[upto:]
            case 3:
                sent = sent[:at] + draw.randbytes(upto - at) + sent[upto:]
            case 4:
                sent = sent[:at]
            case _:
                sent = sent[:at] + bytes([sent[at] ^ (1 << draw.randrange(8))]) + sent[at + 1 :]
    return sent


def send_raw(port: int, sent: bytes) -> bytes:
    """Send bytes, wait for what comes, say that no more will come, and read to the end."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as line, suppress(ConnectionError):
        line.sendall(sent)
        line.settimeout(0.25)
        with suppress(TimeoutError):
            while part := line.recv(65536):
                found += part
            return found
        line.settimeout(SECONDS)
        line.shutdown(socket.SHUT_WR)
        while part := line.recv(65536):
            found += part
    return found


@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.long)])
def test_mutated_requests_end_nothing(pair: Pair, count: int) -> None:
    draw = Random(15)
    plain = [
        replace(one, headers=(*one.headers, ("Connection", "close")))
        for one in (draw_request(draw) for _ in range(count))
    ]
    sent = [mutate(b"".join(one.parts()), draw) for one in plain]
    found: Counter[int] = Counter()
    for service in pair.services.values():
        with ThreadPoolExecutor(16) as pool:
            for told in pool.map(lambda one, port=service.port: send_raw(port, one), sent):
                found.update(int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3})", told, re.MULTILINE))
        status, _, body = Line(service.port).ask(
            Asked("POST", "/score", body=json.dumps(BIRD).encode(), headers=(("Content-Type", "application/json"),))
        )
        assert (status, json.loads(body)["model"]) == (200, "birds")
    assert max(found) < 500 and sum(found.values()) > count / 2 and {200, 400} <= {*found}
    assert pair.alive() and not re.search(r'Traceback|"level": "error"', pair.said())


def test_what_is_told_holds_no_value_of_a_caller(pair: Pair) -> None:
    secret = {"bill": "Smith-4711", "island": "Smithland", "ring": "Smith"}
    json_type = (("Content-Type", "application/json"), ("X-Request-Id", "told-1"))
    time.sleep(1.1)  # refused requests of the tests before used up the lines of their second
    for service in pair.services.values():
        line = Line(service.port)
        assert line.ask(Asked("POST", "/score", json_type, json.dumps(secret).encode()))[0] == 422
        assert line.ask(Asked("POST", "/score", json_type, b'{"ring": "Smith'))[0] == 400
        assert line.ask(Asked("GET", "/Smith?Smith=Smith"))[0] == 404
        wait_for(lambda service=service: "told-1" in service.log.read_text())
        text = service.log.read_text()
        assert "Smith" not in text
        told = [json.loads(line) for line in text.splitlines() if line.startswith("{") and "told-1" in line]
        assert {one["code"] for one in told} == {"request.rows_refused", "request.json"}
        assert all(one["route"] == "/score" and one["level"] == "warning" and one["version"] for one in told)


def wait_for(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.long
def test_schemathesis_finds_no_answer_that_is_not_described(pair: Pair, tmp_path: Path) -> None:
    program = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if program is None:
        pytest.skip("there is no schemathesis here: install it into an environment of its own, name it in SCHEMATHESIS")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    found = {}
    for name, service in pair.services.items():
        words = ["run", f"{service.url}/openapi.json", "--checks", checks, "--max-examples", "300", "--seed", "14"]
        words += ["--request-timeout", "20", "--generation-database", "none"]
        done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=900)
        if done.returncode:
            found[name] = done.stdout.partition(" FAILURES ")[2][:4000]
    assert not found, "\n".join(found.values())
    assert pair.alive()


def test_both_end_at_once_after_all_that(pair: Pair) -> None:
    """The last of this file: a request whose caller has left in the middle of it is held by none of them."""
    for service in pair.services.values():
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", service.port), timeout=SECONDS) as line:
                line.sendall(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        begun = time.monotonic()
        stop(service.process)
        assert time.monotonic() - begun < 9
