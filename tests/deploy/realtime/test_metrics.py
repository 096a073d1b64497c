"""The counts: right over workers, kills, restarts and neighbours, and read by Prometheus' own tools."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.application import Application
from mlworkbench.deploy.realtime.call import Reply
from mlworkbench.deploy.realtime.metrics import METRICS_TYPE, OPEN_METRICS, Metrics, measure_log
from mlworkbench.deploy.realtime.process import Service, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import DeploymentError
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.tables import CertificateRecord

ROOT = Path(__file__).parents[3]
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
BODY = json.dumps(BIRD).encode()
WHO = ("flights", "flights:3f2a")
NAMES = {
    *("mlworkbench_requests", "mlworkbench_rows", "mlworkbench_errors", "mlworkbench_request_seconds"),
    *("mlworkbench_certificate_timestamp_seconds", "mlworkbench_log_lag_seconds"),
    *("mlworkbench_store_up", "mlworkbench_store_age_seconds"),
}


def values(page: bytes | str, name: str, **labels: str) -> list[float]:
    """Give the values of a metric's samples that have these labels."""
    text = page if isinstance(page, str) else page.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]


def total(page: bytes | str, name: str, **labels: str) -> float:
    return sum(values(page, name, **labels))


async def get(application: Application, **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    async def send(message: dict) -> None:
        sent.append(message)

    listed = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": listed}
    await application(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.fixture
def delays(workshop, elsewhere: Home) -> Iterator[Application]:
    """A model with views, with certificates, counts of two requests."""
    version = workshop.open("delays")
    store = OnlineStore(workshop.home.online_place, read_only=True)
    realtime = Realtime(version, PredictionLog(elsewhere.log("delays")), store=store)
    realtime.home = elsewhere
    for day, verdict in ((1, "equal"), (2, "equal"), (3, "refused")):
        named = {"name": f"c{day}", "tag": version.version, "at": f"2013-10-0{day}T00:00:00+00:00", "file": f"c{day}"}
        record = CertificateRecord(**named, verdict=verdict, deployments=(), rows=1, digest="")
        Registry(elsewhere).certificates.add(record)
    with closing(Application(realtime)) as application:
        application.metrics.count("delays", version.version, Reply(200, b"", rows=3, refused=1, flagged=1), 0.0004)
        application.metrics.count("delays", version.version, Reply(422, b"", rows=1, refused=1, code="request.x"), 3.0)
        yield application


def test_every_name_is_ours_and_is_there(delays: Application) -> None:
    status, headers, page = asyncio.run(get(delays))
    assert (status, headers[b"content-type"].decode()) == (200, METRICS_TYPE)
    assert {one.name for one in text_string_to_metric_families(page.decode())} == NAMES | {"mlworkbench_model_info"}
    assert [total(page, "mlworkbench_rows_total", outcome=one) for one in ("scored", "flagged", "refused")] == [1, 1, 2]
    assert values(page, "mlworkbench_errors_total", reason="request.x") == [1]
    assert values(page, "mlworkbench_certificate_timestamp_seconds") == [1380672000]  # the newest that says equal
    assert values(page, "mlworkbench_store_up") == [1] and values(page, "mlworkbench_store_age_seconds")[0] > 0


def test_the_buckets_go_from_a_quarter_of_a_millisecond_to_ten_seconds(delays: Application) -> None:
    page = asyncio.run(get(delays))[2].decode()
    bounds = re.findall(r'request_seconds_bucket{le="([^"]+)"', page)
    assert (bounds[0], bounds[-2:]) == ("0.00025", ["10.0", "+Inf"])
    assert [*map(float, bounds)] == sorted(map(float, bounds))
    assert values(page, "mlworkbench_request_seconds_bucket", le="0.0005") == [1]
    assert values(page, "mlworkbench_request_seconds_count") == [2]


@pytest.mark.parametrize("version", ["version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.3", " version=\u00e4"])
def test_who_asks_for_open_metrics_gets_it(delays: Application, version: str) -> None:
    status, headers, page = asyncio.run(get(delays, accept=f"application/openmetrics-text;{version}"))
    assert (status, headers[b"content-type"].decode()) == (200, OPEN_METRICS)
    assert {one.name for one in read_open_metrics(page.decode())} == NAMES | {"mlworkbench_model"}


def test_promtool_has_nothing_to_say(delays: Application) -> None:
    promtool = shutil.which("promtool") or pytest.skip("there is no promtool here: apt-get install prometheus")
    page = asyncio.run(get(delays))[2]
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_metric_of_the_dashboard_is_on_the_page(delays: Application) -> None:
    dashboard = json.loads((ROOT / "services/monitoring/dashboard.json").read_text())
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    asked |= {one["query"]["query"] for one in dashboard["templating"]["list"] if one["name"] in ("job", "model")}
    families = [*text_string_to_metric_families(asyncio.run(get(delays))[2].decode())]
    samples = [(one.name, set(one.labels)) for family in families for one in family.samples]
    for text in asked:
        names, labels = set(re.findall(r"mlworkbench_\w+", text)), set(re.findall(r"(\w+)=~?\"", text))
        labels |= {name for part in re.findall(r"by \(([^)]*)\)", text) for name in part.split(", ")}
        assert names and all(
            (name, True) in {(n, labels - {"job", "instance"} <= there) for n, there in samples} for name in names
        )
    shown = {name for text in asked for name in re.findall(r"mlworkbench_\w+?(?=_bucket|\W)", text)}
    assert shown == {one.name + ("_total" if one.type == "counter" else "") for one in families}  # nothing is left out


def test_the_rules_ask_for_what_is_on_the_page(delays: Application) -> None:
    page = asyncio.run(get(delays))[2].decode()
    there = {one.name for family in text_string_to_metric_families(page) for one in family.samples}
    asked = set(re.findall(r"mlworkbench_\w+", (ROOT / "services/monitoring/rules.yml").read_text()))
    elsewhere = {"alert", "live_equal", "live_rows", "report_timestamp_seconds"}  # files of node exporter
    assert asked - there == {f"mlworkbench_{name}" for name in elsewhere}


@pytest.mark.parametrize("place", ["services/monitoring/README.md", "nbs/deploy/realtime/07_metrics.ipynb"])
def test_the_tables_name_the_labels_that_are_on_the_page(delays: Application, place: str) -> None:
    families = text_string_to_metric_families(asyncio.run(get(delays))[2].decode())
    there = {one.name: set(one.labels) - {"le"} for family in families for one in family.samples}
    text = (ROOT / place).read_text(encoding="utf-8")
    rows = re.findall(r"\| (`mlworkbench_[^|]*) \|([\w, ]*)\|", text)
    assert len(rows) >= 8
    for names, labels in rows:
        for name in re.findall(r"\w+", names):
            found = [given for one, given in there.items() if one.startswith(name)]
            assert {*re.findall(r"\w+", labels)} in found, name


def test_a_store_that_is_away_is_said_and_the_page_is_there(delays: Application) -> None:
    delays.served.realtime.store.close()
    status, _, page = asyncio.run(get(delays))
    assert status == 200 and values(page, "mlworkbench_store_up") == [0]
    assert not values(page, "mlworkbench_store_age_seconds")


def test_a_gauge_that_cannot_be_read_is_left_out(delays: Application) -> None:
    realtime = delays.served.realtime
    realtime.home.registry.write_bytes(b"no database" * 100)
    realtime.log.path.with_name("log-7.sqlite").write_bytes(b"no database" * 100)
    status, _, page = asyncio.run(get(delays))
    assert status == 200 and total(page, "mlworkbench_rows_total") == 4
    assert not values(page, "mlworkbench_certificate_timestamp_seconds") + values(page, "mlworkbench_log_lag_seconds")


def test_the_log_lags_by_the_age_of_its_oldest_answer(workshop, elsewhere: Home) -> None:
    path, open_now = elsewhere.log("birds"), []
    for minutes in (90, 30):  # none is closed: two workers, a file each
        log = PredictionLog(path, own=True)
        realtime = Realtime(workshop.open("birds"), log, clock=lambda at=minutes: 10**15 - at * 60_000_000)
        assert realtime.respond(BODY).status == 200
        open_now.append(realtime)
    assert [family.samples[0].value for family in measure_log(path, 10**15)] == [90 * 60]
    assert [family.samples[0].value for family in measure_log(elsewhere.log("none"), 10**15)] == [0]
    for realtime in open_now:
        realtime.close()


def test_a_worker_counts_on_where_a_dead_one_stopped_and_files_do_not_grow(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from mlworkbench.deploy.realtime.call import Reply
from mlworkbench.deploy.realtime.metrics import Metrics
metrics = Metrics(folder=Path({str(tmp_path)!r}))
for _ in range(100):
    metrics.count(*{WHO!r}, Reply(200, b"", rows=2), 0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""
    living = Metrics(folder=tmp_path)
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert total(living.write_page()[0], "mlworkbench_requests_total") == 300
    files = [file.stat() for file in tmp_path.glob("*.db")]
    assert len(files) == 4  # of two workers
    assert all(one.st_blocks * 512 >= one.st_size for one in files)  # a full disk ends none of them later
    living.close()


def test_no_count_is_lost_while_the_page_is_written(tmp_path: Path) -> None:
    workers = [Metrics(folder=tmp_path) for _ in range(3)]

    def count(metrics: Metrics) -> None:
        for _ in range(2000):
            metrics.count(*WHO, Reply(200, b"", rows=1), 0.001)

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(count, one) for one in workers]
        seen = [total(workers[0].write_page()[0], "mlworkbench_requests_total") for _ in range(30)]
        assert [one.result() for one in done] == [None] * 3
    assert seen == sorted(seen) and total(workers[1].write_page()[0], "mlworkbench_requests_total") == 6000


def test_a_page_of_many_versions_and_workers_does_not_hold_up_the_loop(workshop, elsewhere: Home) -> None:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    with closing(Application(realtime)) as application:
        for metrics in (application.metrics, *(Metrics(folder=application.metrics.folder) for _ in range(3))):
            for version in range(100):
                metrics.begin("birds", f"birds:{version:032x}")

        async def watch() -> tuple[float, int]:
            page, longest, last = asyncio.create_task(get(application)), 0.0, time.perf_counter()
            began = last
            while not page.done():
                await asyncio.sleep(0)
                longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
            return longest / (last - began), len(page.result()[2])

        share, size = min(asyncio.run(watch()) for _ in range(5))
    assert size > 200_000 and share < 0.5  # written in the loop, the page is one pause


def ask(connection: HTTPConnection, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"} if body is not None else {}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def ask_many(service: Service, count: int, callers: int = 8) -> list[int]:
    """Ask at the same time over some connections, each anew every ten requests, so that all workers are reached."""

    def ask_some(number: int) -> list[int]:
        found: list[int] = []
        while len(found) < number:
            with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
                found += [ask(connection, "/score", BODY)[0] for _ in range(min(10, number - len(found)))]
        return found

    with ThreadPoolExecutor(callers) as pool:
        return [status for part in pool.map(ask_some, [count // callers] * callers) for status in part]


def page_of(service: Service) -> str:
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        status, page = ask(connection, "/metrics")
    assert status == 200
    return page.decode()


@pytest.fixture(scope="module", params=["uvicorn", pytest.param("bentoml", marks=pytest.mark.long)])
def service(workshop, request) -> Iterator[Service]:
    four = {"MLWORKBENCH_WORKERS": "4"}
    with start_service("birds", home=workshop.home, env=four, server=request.param) as running:
        yield running


@pytest.mark.system
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_so_many_requests_to_four_workers_are_so_many(service: Service, count: int) -> None:
    before = total(page_of(service), "mlworkbench_requests_total", code="200")
    assert set(ask_many(service, count)) == {200}
    after = {total(page_of(service), "mlworkbench_requests_total", code="200") for _ in range(6)}
    assert after == {before + count}  # whichever worker is asked


@pytest.mark.system
@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_unknown_paths_and_wrong_methods_grow_nothing(service: Service, count: int) -> None:
    before = page_of(service)
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        statuses = {ask(connection, f"/unknown/{number}?key={number}")[0] for number in range(count)}
        statuses |= {ask(connection, f"/score/{number}", BODY)[0] for number in range(50)} | {
            ask(connection, "/score")[0]
        }
    assert statuses == {404, 405} and page_of(service).count("\n") == before.count("\n")


@pytest.mark.system
def test_a_killed_workers_counts_stay_and_another_counts_on(service: Service) -> None:
    supervisor = psutil.Process(service.process.pid)
    assert set(ask_many(service, 80)) == {200}
    before, whole = total(page_of(service), "mlworkbench_requests_total"), len(supervisor.children(recursive=True))
    supervisor.children(recursive=True)[-1].kill()
    for _ in range(100):
        time.sleep(0.1)
        if len(supervisor.children(recursive=True)) == whole:
            break
    assert total(page_of(service), "mlworkbench_requests_total") == before
    assert set(ask_many(service, 80)) == {200}
    assert total(page_of(service), "mlworkbench_requests_total") == before + 80


@pytest.mark.system
def test_a_neighbour_and_a_stranger_change_nothing(service: Service, workshop) -> None:
    """A second service of the same home, and Prometheus' own variable in the environment."""
    before = total(page_of(service), "mlworkbench_requests_total")
    with start_service("birds", home=workshop.home, env={"PROMETHEUS_MULTIPROC_DIR": str(workshop.folder)}) as second:
        assert total(page_of(second), "mlworkbench_requests_total") == 0
        assert set(ask_many(second, 16, callers=2)) == {200}
        assert total(page_of(second), "mlworkbench_requests_total") == 16
    assert total(page_of(service), "mlworkbench_requests_total") == before


def test_a_folder_that_cannot_be_written_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError, match=r"cannot count requests in .*file/metrics: "):
        Metrics(folder=tmp_path / "file" / "metrics")


def test_supervisors_that_are_killed_leave_no_more_than_one_folder(tmp_path: Path) -> None:
    code = """
import os, signal
from mlworkbench.deploy.realtime.metrics import Metrics
from mlworkbench.deploy.realtime.process import find_shared, supervise
supervise()
Metrics(folder=find_shared("metrics"))
print(*os.listdir(os.environ["TMPDIR"]), flush=True)
os.kill(os.getpid(), int(os.environ["SIGNAL"]))
"""
    found = []
    for ending in ("9", "9", "0"):
        environment = {**os.environ, "TMPDIR": str(tmp_path), "SIGNAL": ending}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        found.append(done.stdout.split())
        for folder in tmp_path.iterdir():
            os.utime(folder, (0, 0))  # a young one may be about to take its lock
    assert [len(one) for one in found] == [1, 1, 1] and len({*map(tuple, found)}) == 3
    assert not [*tmp_path.iterdir()]  # the last one ended by itself


def test_a_page_is_written_while_another_worker_makes_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pages = Metrics(folder=tmp_path), []
    allocate = os.posix_fallocate

    def look_first(*arguments: int) -> None:
        pages.append(first.write_page()[0])
        allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", look_first)
    second = Metrics(folder=tmp_path)
    assert len(pages) == 2 and len({*pages}) == 1
    for one in (first, second):
        one.close()
