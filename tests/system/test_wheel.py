"""With only the wheel installed and no checkout, an empty folder becomes a workbench that answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from mlworkbench.client import Client
from mlworkbench.deploy.realtime.process import free_port

ROOT = Path(__file__).parents[2]
OWN_LINES = """
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from mlworkbench import ModelDefinition


def load_rows():
    rows = load_wine(as_frame=True).frame
    return rows.rename(columns={"od280/od315_of_diluted_wines": "dilution"})


wine = ModelDefinition(
    name="wine",
    estimator=RandomForestClassifier(n_estimators=30, random_state=0),
    data=load_rows,
    label="target",
    gates={"accuracy": (">=", 0.9)},
)
""".strip()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel alone; its libraries are this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    (Path(where) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin"


def clean_environment(bentoml: Path) -> dict[str, str]:
    """Give the environment of a shell that knows nothing of other workbenches."""
    rest = {key: value for key, value in os.environ.items() if not key.startswith("MLWORKBENCH_")}
    return {**rest, "BENTOML_HOME": str(bentoml), "PYTHONSAFEPATH": "1"}


def workbench(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(folder.parent / "bentoml")
    command = [str(installed / "mlworkbench"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_wheel_carries_run_notebooks_explore_pages_and_services(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "mlworkbench/templates/runs/train.ipynb",
        "mlworkbench/templates/runs/batch_score.ipynb",
        "mlworkbench/templates/runs/evaluate.ipynb",
        "mlworkbench/templates/runs/retrain.ipynb",
        "mlworkbench/templates/explore/data.ipynb",
        "mlworkbench/templates/explore/model.ipynb",
        "mlworkbench/templates/docs_page/page.html",
        "mlworkbench/templates/services/realtime/service.py",
        "mlworkbench/py.typed",
    } <= names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "mlworkbench").rglob("*.py") if path.stem != "_modidx"}
    assert {name for name in modules if "templates" not in name} <= names
    assert not [name for name in names if name.startswith(("nbs/", "services/", "tests/"))]


def packed(wheel: Path) -> dict[str, bytes]:
    """Give the files of a wheel, without the list of them, whose order is nobody's promise."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(("/RECORD", "/"))}


def test_an_empty_folder_becomes_a_workbench_that_answers(installed: Path, wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wine"
    asked = [installed / "python", "-Pc", "import mlworkbench; print(mlworkbench.__file__)"]
    where = subprocess.run(asked, capture_output=True, check=True)
    assert where.stdout.decode().startswith(str(installed.parent)), "not the wheel's package"
    made = workbench(installed, tmp_path, "new", "wine")
    assert made.returncode == 0, made.stderr
    (folder / "definition.py").write_text(OWN_LINES + "\n", encoding="utf-8")
    assert len([line for line in OWN_LINES.splitlines() if line.strip()]) <= 20

    trained = workbench(installed, folder, "train", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout.splitlines()[-1])["gates"]["verdict"] == "pass"

    shipped = workbench(installed, folder, "ship", "image", "--auth", "none", "--out", "../image", "--json")
    assert shipped.returncode == 0, shipped.stderr
    again = next((tmp_path / "image/wheels").iterdir())
    assert again.name == wheel.name and packed(again) == packed(wheel)

    with (folder / "settings.ini").open("a", encoding="utf-8") as settings:
        settings.write("\n[schedule]\nnightly = 30 2 * * * Europe/Berlin: models list\n")
    night = workbench(
        installed, folder, "schedule", "start", "--from", "2013-10-26T00:00Z", "--until", "2013-10-27T00:00Z"
    )
    assert night.stdout == "2013-10-26T02:30+02:00 nightly: done\n", night.stderr

    port = free_port()
    environment = clean_environment(tmp_path / "bentoml")
    command = [str(installed / "mlworkbench"), "serve", "--port", str(port)]
    service = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait(120)
        answer = client.score(record())
    finally:
        service.send_signal(signal.SIGINT)
        output, _ = service.communicate(timeout=60)
    assert answer[0]["decision"] in (0, 1, 2)
    assert abs(sum(answer[0]["scores"].values()) - 1) < 1e-9
    assert b"Traceback" not in output


def record() -> dict[str, float]:
    from sklearn.datasets import load_wine

    rows = load_wine(as_frame=True).data.rename(columns={"od280/od315_of_diluted_wines": "dilution"})
    return {name: float(value) for name, value in rows.iloc[0].items()}
