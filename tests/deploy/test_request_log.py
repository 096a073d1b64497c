"""The log of requests and their traces: what is told, what never is, and what happens where nobody listens."""

from __future__ import annotations

import asyncio
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.deploy.request_log import LINES, RequestLog
from mlworkbench.deploy.tracing import COLLECTORS, open_tracing
from mlworkbench.evaluation.log.writer import PredictionLog

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
EXPORTER = importlib.util.find_spec("opentelemetry") and importlib.util.find_spec("opentelemetry.exporter")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def application(workshop, elsewhere: Home) -> Iterator[Application]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    with closing(Application(realtime)) as made:
        yield made


async def ask(application: Application, body: bytes, path: str = "/score", **headers: str) -> int:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    listed.append((b"content-type", b"application/json"))
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": listed}
    await application(scope, receive, send)
    return int(sent[0]["status"])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(("told", "statuses"), [("off", []), ("errors", [404, 503]), ("all", [200, 404, 503])])
def test_the_setting_says_which_requests_are_told(
    capfd: pytest.CaptureFixture[str], told: str, statuses: list[int]
) -> None:
    log = RequestLog(told)
    for status in (200, 404, 503):
        log.tell(status, 0.0012345, request_id="r1", code="", rows=None)
    found = lines(capfd.readouterr().err)
    assert [one["status"] for one in found] == statuses
    assert all(one.keys() == {"time", "level", "status", "milliseconds", "request_id"} for one in found)


def test_a_flood_of_wrong_requests_does_not_fill_the_disk(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, now, most = RequestLog(), [1000.0], LINES["warning"]
    monkeypatch.setattr("mlworkbench.deploy.request_log.time.time", lambda: now[0])
    for _ in range(5000):
        log.tell(400, 0.001)
    log.tell_failure(ValueError())  # no stranger keeps this from being told
    now[0] += 1
    log.tell(400, 0.001)
    found = lines(capfd.readouterr().err)
    assert [one["level"] for one in found] == [*["warning"] * most, "error", "warning"]
    assert found[most]["left_out"] == 5000 - most


def test_a_request_is_answered_where_nobody_can_read_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    RequestLog().tell(400, 0.001)


def test_a_failure_inside_costs_its_own_request_and_is_told_without_what_was_sent(
    application: Application, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, calls = application.served.waiting, []

    def respond(asked: list[Any]) -> Any:
        calls.append(len(asked))
        if any(b"Smith" in call.body for call in asked):
            raise ValueError("could not convert string to float: 'Smith'")
        return application.served.realtime.respond_together(asked)

    monkeypatch.setattr(waiting, "_respond", respond)
    good, bad = json.dumps(BIRD).encode(), b'{"bill": "Smith"}'

    async def together() -> list[int]:
        return await asyncio.gather(*(ask(application, body) for body in (good, bad, good, good)))

    assert asyncio.run(together()) == [200, 500, 200, 200] and max(calls) == 4
    assert asyncio.run(ask(application, good)) == 200  # the next turn is taken
    text = capfd.readouterr().err
    failed = [one for one in lines(text) if one["level"] == "error"]
    assert "Smith" not in text and failed[0]["error"] == "ValueError" and failed[0]["frames"][-1].endswith(" respond")
    assert failed[1]["status"] == 500 and failed[1]["code"] == "service.failed"
    page = application.metrics.write_page()[0].decode()
    assert 'reason="service.failed"' in page and 'code="500"' in page


def test_a_line_names_the_request_and_no_path_that_is_none(
    application: Application, capfd: pytest.CaptureFixture[str]
) -> None:
    assert asyncio.run(ask(application, b"{", x_request_id="order-17")) == 400
    assert asyncio.run(ask(application, b"{", x_request_id="a\x07b")) == 400
    assert asyncio.run(ask(application, b"{}", "/Smith")) == 404
    first, second, third = lines(capfd.readouterr().err)
    assert (first["request_id"], first["route"], first["code"]) == ("order-17", "/score", "request.json")
    assert "request_id" not in second and "route" not in third and third["code"] == "request.path"


def test_no_trace_is_made_and_nothing_is_imported_where_no_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from mlworkbench.deploy import tracing; tracing.open_tracing(1, 2)"
    code += "; print('opentelemetry' in sys.modules)"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n", done.stderr
    monkeypatch.setenv(COLLECTORS[0], "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracing(None, None) is None


def test_a_missing_exporter_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(COLLECTORS[0], "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert open_tracing(None, None) is None
    text = capfd.readouterr().err
    assert "mlworkbench[traces]" in text and text.count("\n") == 1


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A collector of OpenTelemetry on a port of this machine, named in the environment."""
    found: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(COLLECTORS[0], f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield found
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not EXPORTER, reason="needs mlworkbench[traces]")
def test_a_request_is_a_span_of_its_callers_trace(collector: list[bytes], workshop, elsewhere: Home) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    with closing(Application(realtime, root_path="/models")) as application:
        sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert asyncio.run(ask(application, json.dumps(BIRD).encode(), **sent)) == 200
        assert asyncio.run(ask(application, b"{}", "/Smith", traceparent="nonsense")) == 404
        path = f"/models/v2/models/birds/versions/{realtime.version.version.partition(':')[2]}/infer"
        assert asyncio.run(ask(application, b"{}", path)) == 400
        assert asyncio.run(ask(application, b"{}", "/models/v2/health/live")) == 405
    spans = [
        span
        for body in collector
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    first, second, *others = spans
    assert [one.name for one in others] == ["POST /v2/models/birds/infer", "POST /livez"]
    said = {one.key: one.value.string_value or one.value.int_value for one in first.attributes}
    assert (first.name, first.trace_id.hex(), first.parent_span_id.hex()) == ("POST /score", TRACE, "00f067aa0ba902b7")
    assert said["http.response.status_code"] == 200 and said["http.route"] == "/score"
    assert said["mlworkbench.version"] == realtime.version.version
    assert second.name == "POST" and b"Smith" not in b"".join(collector) and b"39.1" not in b"".join(collector)
