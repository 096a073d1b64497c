"""A Bento that holds the model answers where nothing else is: in an empty home, and as a container.

The containers are long tests and need an engine, buildah and podman. They build on ``python:3.x-slim``, or on the image
that MLWORKBENCH_TEST_BASE names, where none can be pulled.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlworkbench import register
from mlworkbench.client import Client
from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime.process import free_port, is_ready
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.ship.image import ShippedImage, ship_image
from mlworkbench.operate.ship.lock import Lock, lay_out
from mlworkbench.scoring.registry.registry import Registry

pytestmark = pytest.mark.system
BASE = os.environ.get("MLWORKBENCH_TEST_BASE") or f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"


def boosted() -> object:
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=20, linear_tree=True, verbose=-1)


LASTS = {
    "trees": lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0),
    "near": lambda: KNeighborsClassifier(algorithm="brute"),
    "boosted": boosted,
}


@dataclass(frozen=True)
class Yard:
    """A home whose models are registered when they are asked for: trees compiles, near and boosted do not."""

    home: Home
    rows: pd.DataFrame
    state: pd.Series
    environment: dict[str, str]
    pipelines: dict[str, Pipeline] = field(default_factory=dict)

    @property
    def asked(self) -> pd.DataFrame:
        return self.rows.head(200)

    @property
    def records(self) -> list[dict[str, Any]]:
        return json.loads(self.asked.to_json(orient="records"))

    def ship(self, model: str, folder: Path, *, batch: bool = False) -> ShippedImage:
        if model not in self.pipelines:
            encode = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
            prepare = make_column_transformer((encode, ["carrier"]), (StandardScaler(), ["distance", "seats"]))
            self.pipelines[model] = make_pipeline(prepare, LASTS[model]()).fit(self.rows, self.state)
            register(self.pipelines[model], self.rows, self.state, name=model, home=self.home)
        return ship_image(Registry(self.home).open(model), folder, auth="none", batch=batch)

    def differences(self, model: str, url: str) -> tuple[float, int]:
        """Ask for 200 rows one way and the other; give the largest difference of a score and the flipped decisions."""
        pipeline = self.pipelines[model]
        expected, decided = pipeline.predict_proba(self.asked)[:, 1], pipeline.predict(self.asked).tolist()
        with Client(url) as client:
            told = client.score(self.records)
            columns, data = list(self.asked.columns), [list(record.values()) for record in self.records]
            split = client.invoke({"dataframe_split": {"columns": columns, "data": data}})
        apart = np.abs(np.array([[one["score"] for one in part] for part in (told, split["answers"])]) - expected).max()
        assert len(told) == len(split["predictions"]) == 200
        got = [*(one["decision"] for one in told), *split["predictions"]]
        return float(apart), sum(one != other for one, other in zip(got, [*decided, *decided], strict=True))


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    draws = np.random.default_rng(5)
    rows = pd.DataFrame(
        {
            "distance": draws.uniform(50, 3000, 600).round(1),
            "carrier": draws.choice(["AA", "DL", "UA"], 600),
            "seats": draws.integers(50, 400, 600),
        }
    )
    state = pd.Series(np.where((rows["distance"] > 1000) ^ (draws.random(600) < 0.2), "late", "fine"), name="state")
    environment = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
    (folder / "uv").write_text("#!/bin/sh\n")  # BentoML installs one where there is none, and asks it for nothing here
    (folder / "uv").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        patch.chdir(folder)
        yield Yard(Home.open(folder / "home"), rows, state, environment)


def bentoml(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentoml", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def build_bento(folder: Path) -> str:
    """Type `bentoml build` in a build folder, and give the tag."""
    return bentoml("build", "-o", "tag", cwd=folder).stdout.strip().splitlines()[-1].removeprefix("__tag__:")


def install_lock(shipped: ShippedImage, folder: Path) -> Path:
    """Make an environment of the wheel and the lock alone; give its Python."""
    venv.create(folder / "venv", with_pip=False)
    libraries = next((folder / "venv/lib").glob("python*/site-packages"))
    lines = (shipped.folder / "requirements.txt").read_text().splitlines()
    (folder / "linked").mkdir()
    lay_out(Lock(dict(line.split("==") for line in lines[1:]), 0), folder / "linked")
    (folder / "linked/mlworkbench").unlink()
    zipfile.ZipFile(shipped.folder / lines[0]).extractall(libraries)
    (libraries / "linked.pth").write_text(f"{folder / 'linked'}\n")
    return folder / "venv/bin/python"


def test_a_bento_answers_in_an_empty_home_with_its_own_model_and_its_lock_alone(yard: Yard, tmp_path: Path) -> None:
    shipped = yard.ship("trees", tmp_path / "build")
    name, _, version = build_bento(shipped.folder).partition(":")
    store = Path(yard.environment["BENTOML_HOME"])
    bento = shutil.copytree(store / "bentos" / name / version, tmp_path / "bento")  # as it lies in a container
    shutil.copytree(store / "models/trees", bento / "models/trees")
    python = install_lock(shipped, tmp_path)
    lacking = (
        "import importlib.util as u; print([n for n in ('pandas', 'sklearn', 'polars', 'pyarrow') if u.find_spec(n)])"
    )
    assert subprocess.run([python, "-c", lacking], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    port, state = free_port(), tmp_path / "state/workbench"
    empty = {"HOME": str(tmp_path / "nobody"), "BENTOML_HOME": str(tmp_path / "empty"), "MLWORKBENCH_HOME": str(state)}
    environment = {"PATH": os.environ["PATH"], "BENTOML_DO_NOT_TRACK": "true", **empty}
    chosen = (
        "import click, sys; from _bentoml_impl.loader import load\n"
        "with click.Context(click.Command('serve')) as told:\n"
        "    told.params = {'host': '0.0.0.0'}; print(load(sys.argv[1]).name)"
    )  # as its container's command line says; the choice of `ship image --auth` is found in the Bento
    read = subprocess.run([python, "-c", chosen, bento], env=environment, capture_output=True, text=True, check=False)
    assert read.stdout.strip() == "scoring", read.stderr
    told = {entry["name"]: entry["value"] for entry in yaml.safe_load((bento / "bento.yaml").read_text())["envs"]}
    inside = {"MLWORKBENCH_SHIPPED": told["MLWORKBENCH_SHIPPED"], "BENTO_PATH": str(bento)}
    workbench = ["-c", "from mlworkbench.cli.app import main; main()", "serve", "--host", "127.0.0.1"]
    for words, more in ((["-m", "bentoml", "serve", str(bento)], {}), (workbench, inside)):
        command = [str(python), *words, "--port", str(port)]
        output = ask_service(yard, command, {**environment, **more}, f"http://127.0.0.1:{port}")
        assert "Traceback" not in output and "Error" not in output, output
    assert read_log(state / "trees/log.sqlite").height == 800


def ask_service(yard: Yard, command: list[str], environment: dict[str, str], url: str) -> str:
    """Start a service, hold its answers against the pipeline, and end it; give what it printed."""
    service = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        Client(url).wait(60)
        apart, flipped = yard.differences("trees", url)
        assert apart <= 1e-6 and flipped == 0
    finally:
        service.send_signal(signal.SIGTERM)
        output, _ = service.communicate(timeout=60)
    assert service.returncode in (0, -signal.SIGTERM) and "Traceback" not in output, output
    assert "(shipped); pinned, what is promoted does not reach it" in output
    return output


# --- containers


def podman(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["podman", *map(str, words)], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def engine() -> None:
    """An engine that runs a container here, or the reason why none does."""
    if not shutil.which("podman") or not shutil.which("buildah"):
        pytest.skip("no podman and buildah here")
    probe = podman("run", "--rm", "--network", "host", BASE, "python3", "-V", check=False)
    if probe.returncode:
        pytest.skip(f"no container runs here: {(probe.stderr.strip().splitlines() or ['?'])[-1][:200]}")


@dataclass(frozen=True)
class Container:
    """A container of an image, on a read-only root file system, with a volume."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start(image: str, volume: str, name: str) -> Container:
    port = free_port()
    writable = (
        "--read-only",
        "--tmpfs",
        "/tmp",
        "-e",
        "BENTOML_HOME=/tmp/bentoml",
        "-v",
        f"{volume}:/home/bentoml/state",
    )
    podman("run", "-d", "--name", name, "--network", "host", *writable, "-e", f"PORT={port}", image)
    end = time.monotonic() + 60
    while not is_ready(port):
        assert time.monotonic() < end, podman("logs", name).stdout
        time.sleep(0.2)
    return Container(name, port)


def ask(container: Container, body: str) -> int:
    """Ask for a list; give how many were answered, or the status that refused it, below zero."""
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=60)
    connection.request("POST", "/score", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return len(json.loads(answer.read())) if answer.status == 200 else -answer.status


@pytest.fixture
def clean() -> Iterator[list[str]]:
    """Names whose container, volume and image are removed in the end."""
    names = list[str]()
    yield names
    for name in names:
        podman("rm", "-f", "-t", "1", name, check=False)
        podman("volume", "rm", "-f", f"{name}-state", check=False)
        podman("rmi", "-f", f"localhost/{name}:test", check=False)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "batch", "most"),
    [("trees", False, 450), ("near", False, 750), ("boosted", False, 750), ("near", True, 1500)],
    ids=str,
)
def test_a_container_answers_as_the_pipeline_and_keeps_its_log(
    yard: Yard, tmp_path: Path, clean: list[str], engine: None, model: str, batch: bool, most: int
) -> None:
    shipped = yard.ship(model, tmp_path / "build", batch=batch)
    bentofile = shipped.folder / "bentofile.yaml"
    text = bentofile.read_text()
    bentofile.write_text(text.replace(f"python:{sys.version_info.major}.{sys.version_info.minor}-slim", BASE))
    tag, name = build_bento(shipped.folder), f"mlworkbench-{model}-{os.getpid()}"
    clean.append(name)
    bentoml("containerize", tag, "--backend", "buildah", "-t", f"{name}:test")
    size = int(podman("image", "inspect", f"{name}:test", "--format", "{{.Size}}").stdout) / 1e6
    print(f"\n{model} ({shipped.scorer}{', with batch' if batch else ''}): image {size:.0f} MB")
    assert size <= most

    container = start(f"{name}:test", f"{name}-state", name)
    apart, flipped = yard.differences(model, container.url)
    assert apart <= 1e-6 and flipped == 0
    assert podman("exec", name, "id", "-u").stdout.strip() == "1034"
    assert podman("exec", name, "touch", "/home/bentoml/bento/x", check=False).returncode != 0
    if batch:
        assert "ingest" in podman("exec", name, "mlworkbench", "--help-all").stdout
    many = json.dumps(yard.records * 5)
    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(ask, container, many) for _ in range(16)]
        wait(running, return_when=FIRST_COMPLETED)
        assert not all(one.done() for one in running)
        podman("stop", "-t", "30", name)
        assert [one.result() for one in running] == [1000] * 16
    assert podman("inspect", name, "--format", "{{.State.ExitCode}}").stdout.strip() == "0"

    podman("rm", name)
    again = start(f"{name}:test", f"{name}-state", name)
    assert ask(again, json.dumps(yard.records)) == 200
    podman("stop", "-t", "30", name)
    mount = Path(podman("volume", "inspect", f"{name}-state", "--format", "{{.Mountpoint}}").stdout.strip())
    assert read_log(mount / f"workbench/{model}/log.sqlite").height == 400 + 16_000 + 200
