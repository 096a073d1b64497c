"""The CronJobs of a schedule against the schema of Kubernetes, by a checker in an environment of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlworkbench.operate.schedule.export import Workplace, export_schedule
from mlworkbench.operate.schedule.line import read_schedule

pytestmark = [pytest.mark.system, pytest.mark.long]
LINES = {"nightly": "30 2 * * * Europe/Berlin: ingest, batch --last day", "work_days": "0 9 * * 1-5 UTC: monitor"}


def test_kubernetes_knows_each_field(install, tmp_path: Path) -> None:
    place = Workplace(folder=Path("/workbench"), program="mlworkbench")
    text = export_schedule(read_schedule(LINES), "kubernetes", place)["mlworkbench-cronjobs.yaml"]
    tool = install("kubernetes-validate", "setuptools<81") / "kubernetes-validate"
    file = tmp_path / "jobs.yaml"
    for content, accepted in ((text, True), (text.replace("timeZone", "timezone"), False)):
        file.write_text(content)
        run = subprocess.run([tool, "--strict", file], capture_output=True, text=True)
        assert (run.returncode == 0) is accepted, run.stdout + run.stderr
