import json
import os
import subprocess
import sys

import pytest

from mlworkbench.cli.app import run
from mlworkbench.cli.scaffold import write_workbench


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """No settings, no home, no store but those of the test."""
    for name in [name for name in os.environ if name.startswith("MLWORKBENCH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("definition", None)
    yield tmp_path
    sys.modules.pop("definition", None)


@pytest.fixture
def workbench(clean, monkeypatch):
    """A workbench as `mlworkbench new cars` writes it."""
    write_workbench(clean / "cars")
    monkeypatch.chdir(clean / "cars")
    return clean / "cars"


@pytest.fixture
def tell(capsys):
    """Run a command; exit code, standard output, standard error."""

    def told(*words):
        capsys.readouterr()
        code = run([str(word) for word in words])
        found = capsys.readouterr()
        return code, found.out, found.err

    return told


@pytest.fixture
def facts(tell):
    """Run a command that must succeed; what it says in JSON."""

    def told(*words):
        code, out, err = tell(*words, "--json")
        assert code == 0, err
        return json.loads(out.strip().splitlines()[-1])

    return told


@pytest.fixture
def shell():
    """Run the command as a shell does."""

    def ran(*words, **more):
        command = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, **more)

    return ran
