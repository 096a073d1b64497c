"""Pages, paths and connections of real services, on both servers, with and without a path before all routes."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.deploy.realtime.call import refuse_call
from mlworkbench.deploy.realtime.docs_page import write_docs_page
from mlworkbench.deploy.realtime.http import HttpError, read_body
from mlworkbench.deploy.realtime.openapi import describe_operation, describe_service
from mlworkbench.deploy.realtime.process import Service, start_service

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
PREFIX = "/models/birds"
JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Asked:
    """A running service, a connection that idles since its start, and its description."""

    server: str
    service: Service
    idle: http.client.HTTPConnection
    since: float

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def post(self, path: str, value: object) -> Answer:
        return self.ask("POST", path, json.dumps(value).encode(), Content_Type="application/json")

    def raw(self, text: bytes, *, seconds: float = 10) -> bytes:
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=seconds) as line:
            line.sendall(text)
            return read_all(line)


def read_all(line: socket.socket) -> bytes:
    found = b""
    while part := line.recv(65536):
        found += part
    return found


@pytest.fixture(scope="module", params=["uvicorn", "bentoml"])
def served(workshop, request: pytest.FixtureRequest) -> Iterator[Asked]:
    environment = {"MLWORKBENCH_SERVE_ROOT_PATH": PREFIX}
    with start_service("birds", home=workshop.home, env=environment, server=request.param) as service:
        idle = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        idle.request("GET", "/livez")
        idle.getresponse().read()
        yield Asked(request.param, service, idle, time.monotonic())
        idle.close()


pytestmark = pytest.mark.system
PAGES = ["/livez", "/healthz", "/readyz", "/ping", "/model", "/metrics", "/docs", "/openapi.json", "/docs.json"]
PAGES += ["/client.py"]
MODEL = "/v2/models/birds"
V2 = ["/v2", "/v2/health/live", "/v2/health/ready", MODEL, f"{MODEL}/ready"]


def test_every_page_is_there_with_and_without_the_path_before_it(served: Asked) -> None:
    for path in PAGES:
        plain, behind = (served.ask("GET", f"{before}{path}") for before in ("", PREFIX))
        assert (plain.status, behind.status) == (200, 200), path
        assert plain.headers["content-type"] == behind.headers["content-type"]
        head = served.ask("HEAD", f"{PREFIX}{path}")
        assert (head.status, head.body) == (200, b"") and head.headers["content-type"] == plain.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == str(len(plain.body))


def test_what_takes_records_is_there_behind_the_path(served: Asked) -> None:
    for before in ("", PREFIX):
        told = served.post(f"{before}/score", BIRD)
        assert told.status == 200
        assert served.post(f"{before}/invocations", {"instances": [BIRD]}).status == 200
        label = {"prediction_id": json.loads(told.body)["prediction_id"], "value": "Adelie"}
        assert json.loads(served.post(f"{before}/feedback", label).body)["label"] == "new"


def test_what_is_none_says_so(served: Asked) -> None:
    for path in (
        "/",
        "/nothing",
        f"{PREFIX}x/score",
        f"{PREFIX}{PREFIX}/score",
        PREFIX,
        "/score/",
        "//score",
        "/schema",
    ):
        for method in ("GET", "POST", "DELETE"):
            told = served.ask(method, path)
            assert told.status == 404 and json.loads(told.body)["code"] == "request.path", (method, path)
    for method, path, allowed in (
        ("GET", "/score", "POST"),
        ("PUT", f"{PREFIX}/feedback", "POST"),
        ("OPTIONS", "/invocations", "POST"),
        ("POST", "/model", "GET, HEAD"),
        ("DELETE", "/docs", "GET, HEAD"),
        ("PATCH", "/ping", "GET, HEAD"),
    ):
        told = served.ask(method, path)
        assert (told.status, told.headers["allow"]) == (405, allowed)
        assert json.loads(told.body)["code"] == "request.method"


def test_the_card_and_the_contract_are_given_out(served: Asked) -> None:
    told = json.loads(served.ask("GET", "/model").body)
    assert told["version"] == served.service.version and told["model"] == "birds"
    assert [column["name"] for column in told["request"]["columns"]] == list(BIRD)


def describe(served: Asked) -> dict[str, Any]:
    return json.loads(served.ask("GET", "/openapi.json").body)


def test_the_description_is_one_of_openapi_3_1(served: Asked) -> None:
    described = describe(served)
    assert described["openapi"].startswith("3.1.") and described["servers"] == [{"url": PREFIX}]
    named = f"{MODEL}/versions/{served.service.version.partition(':')[2]}"
    own = {*PAGES, "/score", "/feedback", "/invocations"}
    assert {*described["paths"]} == own | {*V2, f"{MODEL}/infer", named, f"{named}/ready", f"{named}/infer"}
    schemas = list(described["components"]["schemas"].values())
    for methods in described["paths"].values():
        for operation in methods.values():
            assert operation["summary"] and "200" in operation["responses"]
            contents = [one["content"] for one in operation["responses"].values()]
            contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
            schemas += [kind["schema"] for content in contents for kind in content.values()]
    for schema in schemas:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        assert "nullable" not in json.dumps(schema)


def statuses(described: dict[str, Any], path: str, method: str = "post") -> set[str]:
    return {*described["paths"][path][method]["responses"]}


def test_the_description_names_every_status(served: Asked) -> None:
    described = describe(served)
    always = {"200", "500"}
    guard = always | {"400", "401", "403", "421", "429", "503"}
    asked = guard | {"408", "413", "415", "422"}
    for path in ("/score", "/invocations", f"{MODEL}/infer"):
        assert statuses(described, path) == asked | {"409"}
    assert statuses(described, "/feedback") == asked
    for before in ("", "/v2/health"):
        ready, live = f"{before}/ready{'' if before else 'z'}", f"{before}/live{'' if before else 'z'}"
        assert statuses(described, ready, "get") == always | {"503"} and statuses(described, live, "get") == always
    assert all(statuses(described, path, "get") == guard for path in ("/model", "/v2", MODEL, f"{MODEL}/ready"))


def check(described: dict[str, Any], method: str, path: str, told: Answer) -> None:
    """Hold an answer against the description: status, media type, schema."""
    response = described["paths"][path.partition("?")[0]][method.lower()]["responses"][str(told.status)]
    kind = told.headers["content-type"].partition(";")[0]
    schema = {**response["content"][kind]["schema"], "components": described["components"]}
    value = json.loads(told.body) if kind.endswith("json") else told.body.decode(errors="replace")
    Draft202012Validator(schema).validate(value)


def test_every_answer_is_as_described(served: Asked) -> None:
    described = describe(served)
    for path in [*PAGES, *V2]:
        check(described, "GET", path, served.ask("GET", path))
    tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [BIRD[name]]} for name in ("island", "ring")]
    tensors += [{"name": "bill", "shape": [1, 1], "datatype": "FP64", "data": [BIRD["bill"]]}]
    binary = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    label = {"prediction_id": "0a", "value": "Gentoo"}
    example = described["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]["example"]
    posts = [
        ("/score", example, 200),
        ("/score", BIRD, 200),
        ("/score", [BIRD, {"bill": "x"}], 200),
        ("/score", [{"bill": "x"}], 422),
        ("/score", {"bill": "x"}, 422),
        ("/score?partial=perhaps", BIRD, 400),
        ("/score", [BIRD] * 1001, 413),
        ("/score", 7, 400),
        ("/invocations", {"instances": [BIRD]}, 200),
        ("/invocations", {"rows": [BIRD]}, 400),
        ("/invocations", {"instances": [{}]}, 422),
        ("/feedback", label, 200),
        ("/feedback", [label, {}], 200),
        ("/feedback", [{}], 422),
        ("/feedback", {}, 422),
        ("/feedback", [], 400),
        (f"{MODEL}/infer", {"inputs": tensors}, 200),
        (f"{MODEL}/infer", binary, 200),
        (f"{MODEL}/infer", {"inputs": tensors[:1]}, 422),
        (f"{MODEL}/infer", {"inputs": []}, 400),
        (f"{MODEL}/infer", {"inputs": [{**tensors[0], "shape": [1001]}]}, 413),
    ]
    for path, value, status in posts:
        told = served.post(path, value)
        assert told.status == status, (path, value)
        check(described, "POST", path, told)
    for path in ("/score", "/invocations", "/feedback", f"{MODEL}/infer"):
        check(described, "POST", path, served.ask("POST", path, b"a,b", Content_Type="text/csv"))


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_loads_nothing_from_anybody_else(served: Asked) -> None:
    told = served.ask("GET", f"{PREFIX}/docs")
    rules = told.headers["content-security-policy"]
    assert "default-src 'none'" in rules and "unsafe" not in rules and "http" not in rules
    assert (told.headers["x-content-type-options"], told.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    tags = Tags(told.body.decode()).found
    places = [attributes.get("src") or attributes.get("href") or "" for _, attributes in tags]
    assert {place for place in places if place} == {"data:,", "./openapi.json", "./client.py", "./model"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name == "style"]
    assert all("data-kind" in attributes for tag, attributes in tags if tag in ("input", "select"))  # no key is asked
    values = {one["name"]: one["value"] for tag, one in tags if tag == "input" and "name" in one}
    assert values["bill"] and float(values["bill"]) > 0 and values["ring"] == ""


def test_chunked_bodies_are_read(served: Asked) -> None:
    body = json.dumps([BIRD] * 50).encode()
    parts = [body[at : at + 97] for at in range(0, len(body), 97)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    told = served.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert told.startswith(b"HTTP/1.1 200") and told.count(b"prediction_id") == 50


def test_chunked_bodies_keep_to_the_limit(served: Asked) -> None:
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", served.service.port), timeout=20) as line:
        line.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(17):
            line.sendall(chunk)
        line.sendall(b"0\r\n\r\n")
        told = read_all(line)  # and the connection is closed
    assert told.startswith(b"HTTP/1.1 413") and b"request.too_large" in told


def test_a_caller_that_leaves_half_way_stops_nobody(served: Asked) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.service.port), timeout=5) as line:
            line.sendall(b"POST /feedback HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
            line.sendall(b"Content-Length: 100\r\n\r\n{")
    assert served.post("/score", BIRD).status == 200


@pytest.mark.long
def test_a_slow_sender_is_told_and_its_connection_ends(served: Asked) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.service.port), timeout=60) as line:
        line.sendall(
            b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        for _ in range(5):
            line.sendall(b" ")
            time.sleep(1)
        assert served.post("/score", BIRD).status == 200
        told = read_all(line)
    assert told.startswith(b"HTTP/1.1 408") and b"request.slow" in told and 28 < time.monotonic() - began < 40


def test_a_body_that_does_not_come_in_time_is_408() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    headers = {b"content-type": b"application/json"}
    for some in (headers, {b"content-type": b"text/csv"}):
        with pytest.raises(HttpError) as slow:
            asyncio.run(read_body(some, receive, seconds=0.1))
        assert (slow.value.status, slow.value.code) == (408, "request.slow")
        assert refuse_call(slow.value).status == 408


def test_a_page_escapes_whatever_a_contract_holds(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"'&{{ 7 * 7 }}"
    (tmp_path / "card.md").write_text(f"# {evil}\n")
    contract = Contract(
        (
            Column(evil, "number", unit="</td>"),
            Column("kind", "category", categories=(evil, "b"), closed=True, nullable=True),
            Column("secret", "category", categories=("Ada", "Ben"), closed=True, personal=True, nullable=True),
            Column("whole", "integer", lower=2**53 + 1),
            Column("at", "time"),
            Column("yes", "boolean"),
            Column("image", "vector", size=3),
        )
    )
    golden = [{"request": {"kind": evil, "whole": 2**53 + 1}}]
    odd = SimpleNamespace(
        model="birds", version=f"birds:{evil}", declaration={"task": evil}, scorer=SimpleNamespace(kind="compiled"),
        request=contract, golden=golden, folder=tmp_path,
    )  # fmt: skip
    text = write_docs_page(odd).body.decode()
    tags = [tag for tag, _ in Tags(text).found]
    assert tags.count("script") == 1 and "img" not in tags and "49" not in text
    assert text.count("onerror=alert(1)&gt;") >= 4 and "Ada" not in text and str(2**53 + 1) in text


def test_a_description_takes_routes_of_others(workshop) -> None:
    more = {"/v2": {"get": describe_operation("what it is", {"application/json": {"type": "object"}}, {"429": "busy"})}}
    described = describe_service(workshop.open("birds").folder, more)
    assert statuses(described, "/v2", "get") == {"200", "429", "500"} and "/score" in described["paths"]


FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


def test_the_form_scores_a_real_record_in_a_browser(served: Asked) -> None:
    """Wide and narrow; in BentoML's service the same bytes are shown."""
    if served.server == "bentoml":
        pytest.skip("the page is the same")
    missing = "playwright is not installed: pip install 'mlworkbench[dev]'"
    api = pytest.importorskip("playwright.sync_api", reason=missing)
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    said: list[str] = []
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=FLAGS.split())
        for width in (1200, 360):
            page = opened.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: said.append(request.url))
            page.goto(f"{served.service.url}{PREFIX}/docs")
            page.click("button")
            page.wait_for_selector("#answer:has-text('HTTP 200')")
            assert re.match(r"decision (Adelie|Gentoo), score [\d.e-]+$", page.inner_text("#result"))
            page.fill("[name=bill]", "a lot")
            page.click("button")
            page.wait_for_selector("#answer:has-text('HTTP 422')")
            assert "bill" in page.inner_text("#result") and page.text_content("#sent").count('"a lot"') == 1
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.close()
        opened.close()
    own = f"{served.service.url}{PREFIX}"
    rest = [line for line in said if line not in (f"{own}/docs", f"{own}/score")]
    assert not [line for line in rest if "422" not in line], rest


@pytest.mark.long
def test_idle_connections_are_kept_longer_than_a_balancer_keeps_its_own(served: Asked) -> None:
    """BentoML ends them after five seconds of itself."""
    time.sleep(max(0.0, 6.5 - (time.monotonic() - served.since)))
    served.idle.request("GET", "/livez")
    assert served.idle.getresponse().read() == b"\n"
