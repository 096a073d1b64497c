"""Real BentoML services over a real port: started, asked, starved, killed, and never left behind."""

from __future__ import annotations

import http.client
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mlworkbench.client import Client, RequestError
from mlworkbench.core.files import hold_lock, is_locked
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime import process
from mlworkbench.deploy.realtime.process import (
    FINISH,
    Service,
    free_port,
    is_ready,
    leave,
    service_folder,
    start_service,
    stop,
)
from mlworkbench.errors import DeploymentError, VersionError, WorkbenchError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.scoring.registry.registry import Registry

pytestmark = pytest.mark.system
BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}


def ask(service: Service, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        named = {"Content-Type": "application/json", **headers} if body is not None else headers
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def count_scored(service: Service) -> float:
    lines = ask(service, "/metrics")[2].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("mlworkbench_rows_total{"))


def family(service: Service) -> list[psutil.Process]:
    supervisor = psutil.Process(service.process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def gone(processes: list[psutil.Process], seconds: float = 15) -> bool:
    psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module", params=["uvicorn", "bentoml"])
def service(workshop, request) -> Iterator[Service]:
    workers = {"MLWORKBENCH_WORKERS": "2"}
    with start_service("birds", home=workshop.home, env=workers, server=request.param) as running:
        yield running


def test_a_service_answers_one_record_and_a_list(service: Service, workshop) -> None:
    status, headers, told = ask(service, "/score", json.dumps(BIRD).encode(), **{"X-Request-Id": "first"})
    assert status == 200 and headers["x-request-id"] == "first"
    assert json.loads(told)["version"] == service.version == workshop.open("birds").version
    status, headers, told = ask(service, "/score", json.dumps([BIRD] * 100).encode())
    assert status == 200 and len(json.loads(told)) == 100 and len(headers["x-request-id"]) == 32


def test_a_service_lists_every_fault(service: Service) -> None:
    wrong = [{"bill": "x"}, {**BIRD, "bill": 391}]
    status, headers, told = ask(service, "/score?partial=false", json.dumps([*wrong, BIRD]).encode())
    assert status == 422 and len(json.loads(told)["faults"]) == 4
    assert headers["content-type"] == "application/problem+json"


def test_a_service_answers_the_good_records_of_a_list(service: Service) -> None:
    wrong = [{"bill": "x"}, {**BIRD, "bill": 391}]
    status, headers, told = ask(service, "/score", json.dumps([*wrong, BIRD]).encode())
    assert (status, headers["x-refused"]) == (200, "2")
    assert ["score" in one for one in json.loads(told)] == [False, False, True]
    with Client(service.url) as client:
        assert client.score([*wrong, BIRD], partial=True)[2]["decision"] == json.loads(told)[2]["decision"]
        assert [one["index"] for one in client.score(wrong, partial=True)] == [0, 1]
        with pytest.raises(RequestError, match="bill") as refused:
            client.score([*wrong, BIRD])
    assert len(refused.value.faults) == 4


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b'{"bill": NaN}', {}, 400),
        (b"bill=3", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"[" + b" " * (17 << 20) + b"]", {}, 413),
        (json.dumps([BIRD] * 1001).encode(), {}, 413),
    ],
)
def test_a_service_refuses_in_one_line(service: Service, body: bytes, headers: dict[str, str], status: int) -> None:
    got, _, told = ask(service, "/score", body, **headers)
    assert got == status and "\n" not in json.loads(told)["detail"]


def test_the_documentation_shows_an_example_that_works(service: Service) -> None:
    document = json.loads(ask(service, "/docs.json")[2])["paths"]["/score"]["post"]
    schema = document["requestBody"]["content"]["application/json"]["schema"]
    assert schema["oneOf"][0]["required"] == ["bill", "island", "ring"]
    assert ask(service, "/score", json.dumps(schema["example"]).encode())[0] == 200


def test_a_service_answers_on_the_routes_of_other_servers(service: Service) -> None:
    body = {"dataframe_split": {"columns": list(BIRD), "data": [list(BIRD.values())] * 2}}
    status, headers, told = ask(service, "/invocations", json.dumps(body).encode(), **{"X-Request-Id": "drop-in"})
    assert (status, headers["x-request-id"]) == (200, "drop-in")
    found, plain = json.loads(told), json.loads(ask(service, "/score", json.dumps(BIRD).encode())[2])
    assert found["predictions"] == [plain["decision"]] * 2 and found["answers"][0]["score"] == plain["score"]
    status, headers, told = ask(service, "/invocations", b'{"rows": []}')
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert ask(service, "/invocations", b"a,b", **{"Content-Type": "text/csv"})[0] == 415
    assert [ask(service, path)[0] for path in ("/ping", "/healthz", "/readyz")] == [200, 200, 200]
    schema = json.loads(ask(service, "/docs.json")[2])["paths"]["/invocations"]["post"]["requestBody"]
    example = schema["content"]["application/json"]["schema"]["example"]
    with Client(service.url) as client:
        assert len(client.invoke(example)["predictions"]) == 1


def test_the_client_that_a_service_gives_out_works_alone(service: Service, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_bytes(ask(service, "/client.py")[2])
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import client
asked = client.Client({service.url!r})
print(asked.ready(), len(asked.score([{BIRD!r}] * 2)), len(asked.invoke({{"instances": [{BIRD!r}]}})["predictions"]))
try:
    asked.score({{"bill": 391}})
except client.DeploymentError:
    print("a bad record is no failure of the service")
except client.ContractError as error:
    print(type(error).__name__, len(error.faults), "mlworkbench" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["True 2 1", "RequestError 3 False"], done.stderr


def test_many_callers_are_all_answered_and_all_logged(service: Service, workshop) -> None:
    before = read_log(workshop.home.log("birds"), deployment="realtime").height
    counted = count_scored(service)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: ask(service, "/score", json.dumps([BIRD] * 5).encode()), range(60)))
    assert {status for status, _, _ in told} == {200}
    assert read_log(workshop.home.log("birds"), deployment="realtime").height == before + 300
    assert {count_scored(service) for _ in range(8)} == {counted + 300}  # whichever worker is asked
    lines = ask(service, "/metrics")[2].count(b"\n")
    for number in range(200):
        assert ask(service, f"/unknown/{number}")[0] == 404
    assert ask(service, "/metrics")[2].count(b"\n") == lines


def test_a_worker_that_is_killed_is_started_again(service: Service) -> None:
    whole = len(family(service))
    family(service)[-1].kill()
    for _ in range(100):
        time.sleep(0.1)
        if len(family(service)) == whole and is_ready(service.port):
            break
    assert ask(service, "/score", json.dumps(BIRD).encode())[0] == 200


def test_a_port_in_use_is_refused_before_anything_starts(workshop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(DeploymentError, match=f"port {port}") as caught:
            free_port(port)
        assert caught.value.code == "service.port_in_use"
        with pytest.raises(DeploymentError, match="--port"), start_service("birds", home=workshop.home, port=port):
            pytest.fail("it started")
    assert not (workshop.home.model("birds") / "services" / f"{port}.log").exists()


def test_a_service_does_what_settings_ini_beside_its_starter_says(
    workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.ini").write_text("[serve]\naccess_log = all\nsynchronous = full\n")
    monkeypatch.chdir(tmp_path)
    with start_service("birds", home=workshop.home) as running:
        assert ask(running, "/score", json.dumps(BIRD).encode())[0] == 200
        told = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    assert [one["status"] for one in told if one.get("route") == "/score"] == [200]


def test_an_unknown_model_or_version_is_refused_in_one_line(workshop) -> None:
    for model, version in (("brids", None), ("birds", "ffff")):
        with pytest.raises(VersionError), start_service(model, home=workshop.home, version=version):
            pytest.fail("it started")


def test_a_service_with_views_reads_the_store_and_leaves_nothing_when_its_block_ends_by_an_error(workshop) -> None:
    asked = {"trip": "T1", "origin": "JFK", "asked": "2013-10-01T18:00:00Z", "distance": 500}
    processes: list[psutil.Process] = []
    with pytest.raises(ZeroDivisionError), start_service("delays", home=workshop.home) as running:
        assert ask(running, "/score", json.dumps(asked).encode(), **{"X-Request-Id": "views"})[0] == 200
        processes += family(running)
        _ = 1 / 0
    assert processes and gone(processes)
    assert free_port(running.port) == running.port
    log = read_log(workshop.home.log("delays"), deployment="realtime")
    assert [json.loads(f)["wind"] for f, r in log.select("features", "request_id").rows() if r == "views"] == [12.0]


def test_a_service_ends_when_its_starter_is_killed(workshop) -> None:
    code = (
        "import time, sys; from mlworkbench.core.home import Home\n"
        "from mlworkbench.deploy.realtime.process import start_service\n"
        f"with start_service('birds', home=Home.open({str(workshop.home.path)!r})) as s:\n"
        "    print(s.process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as starter:
        supervisor = psutil.Process(int(starter.stdout.readline()))
        processes = [supervisor, *supervisor.children(recursive=True)]
        starter.send_signal(signal.SIGKILL)
    assert processes and gone(processes)


@pytest.fixture
def altered(workshop, elsewhere: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model store, in which a version may be spoilt; of a home that no other service notes seals in."""
    shutil.copytree(workshop.folder / "bentoml", tmp_path / "bentoml")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return Registry(elsewhere).folder("birds")


def test_an_altered_version_never_becomes_ready_and_says_so_once(elsewhere: Home, altered: Path) -> None:
    (altered / "golden.jsonl").write_text((altered / "golden.jsonl").read_text().replace("Dream", "Biscoe"))
    two = {"MLWORKBENCH_WORKERS": "2"}
    with (
        pytest.raises(DeploymentError, match=r"golden\.jsonl was altered") as caught,
        start_service("birds", home=elsewhere, env=two),
    ):
        pytest.fail("it became ready")
    assert "code 2" in str(caught.value)
    logs = sorted((elsewhere.model("birds") / "services").glob("*.log"), key=lambda path: path.stat().st_mtime)
    text = logs[-1].read_text()
    assert text.count("Error: ") == 1 and "Traceback" not in text


def test_a_version_that_does_not_reproduce_its_golden_rows_is_not_served(elsewhere: Home, altered: Path) -> None:
    from mlworkbench.scoring.artifacts.manifest import read_manifest, write_manifest

    lines = [json.loads(line) for line in (altered / "golden.jsonl").read_text().splitlines()]
    lines[0]["score"] += 0.25
    (altered / "golden.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    manifest, kept = read_manifest(altered), (altered / "model.yaml").read_bytes()
    (altered / "model.yaml").unlink()  # BentoML's own, no file of the version
    write_manifest(altered, {key: value for key, value in manifest.items() if key not in ("files", "format")})
    (altered / "model.yaml").write_bytes(kept)
    Registry(elsewhere).seals.forget(f"birds:{altered.name}")
    with pytest.raises(DeploymentError, match="golden row 0 differs"), start_service("birds", home=elsewhere):
        pytest.fail("it became ready")


def test_bentoml_serve_typed_by_hand_says_one_line_for_an_unknown_version(workshop, tmp_path: Path) -> None:
    environment = {**os.environ, "MLWORKBENCH_MODEL": "birds", "MLWORKBENCH_VERSION": "ffffffff"}
    command = [sys.executable, "-m", "bentoml", "serve", "service:Scoring", "--port", str(free_port())]
    run = subprocess.run(command, cwd=service_folder(), env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "Error: birds: one version" in run.stderr and "Traceback" not in run.stderr


def test_bentoml_can_name_a_service_that_the_package_made(workshop) -> None:
    """`bentoml build` and other processes import it by this name; BentoML would look in the module that called it."""
    code = "import service; print(service.Scoring.import_string, *service.Scoring.apis)"
    environment = {**os.environ, "MLWORKBENCH_HOME": str(workshop.home.path), "MLWORKBENCH_MODEL": "birds"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=service_folder(), env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["service:Scoring", "invocations", "score"], run.stderr


def test_a_service_that_is_too_slow_is_stopped(workshop) -> None:
    soon = {"MLWORKBENCH_READY_SECONDS": "0.2"}
    with (
        pytest.raises(WorkbenchError, match=r"within 0\.2 s") as caught,
        start_service("birds", home=workshop.home, env=soon),
    ):
        pytest.fail("it became ready")
    assert caught.value.code == "service.not_ready"


def test_the_service_comes_with_the_package() -> None:
    assert {"service.py", "README.md"} <= {path.name for path in service_folder().iterdir()}


@pytest.mark.parametrize("step", ["process import supervise as begin", "server import make_application as begin"])
def test_a_worker_whose_supervisor_died_before_it_began_ends(step: str) -> None:
    gone_long = subprocess.Popen([sys.executable, "-c", ""])
    gone_long.wait(60)
    environment = {**os.environ, "MLWORKBENCH_SUPERVISOR": str(gone_long.pid)}
    command = [sys.executable, "-c", f"from mlworkbench.deploy.realtime.{step}; begin(); print('serves')"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, ""), run.stderr


def test_a_younger_process_with_the_supervisors_id_is_not_it() -> None:
    code = (
        "import os, subprocess, sys; from mlworkbench.deploy.realtime.process import SUPERVISOR, supervise\n"
        "with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE) as other:\n"
        "    os.environ[SUPERVISOR] = str(other.pid); supervise(); print('serves')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, ""), run.stderr


def test_what_killed_supervisors_left_goes_and_what_others_begin_or_hold_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, begun, held = (tmp_path / f"mlworkbench-service-{name}" for name in ("left", "begun", "held"))
    for folder in (left, begun, held):
        folder.mkdir()
        (folder / "lock").touch()
        os.utime(folder, (past := time.time() - (0 if folder == begun else 3600), past))
    with hold_lock(held / "lock"), ThreadPoolExecutor(8) as pool:
        made = [*pool.map(lambda _: process._make_folder(), range(16))]
        assert {*tmp_path.iterdir()} == {begun, held, *made} and all(is_locked(one / "lock") for one in made)


def test_workers_end_when_their_supervisor_is_killed(service: Service) -> None:
    """The last of this file: the service that its tests share is gone after it."""
    processes = family(service)
    service.process.kill()
    assert gone(processes)


def test_nobody_ends_a_service_before_its_running_requests_have_had_their_time() -> None:
    assert all(inspect.signature(one).parameters["seconds"].default > FINISH for one in (stop, leave))
