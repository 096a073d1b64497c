"""The schedule for other schedulers, held against their own checkers where they are there."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from mlworkbench.errors import WorkbenchError
from mlworkbench.operate.schedule.export import Workplace, export_schedule, list_calendars
from mlworkbench.operate.schedule.line import GRACE, find_due, iterate_times, read_schedule

LINES = {
    "nightly": "30 2 * * * Europe/Berlin: ingest, batch --last day, label 'my 5 % file.csv'",
    "work_days": "*/20 9-17 * * MON-FRI America/New_York: batch --last hour",
    "either": "0 3 1,15 * 7 UTC skip: lake compact",
    "quarters": "5 4 1 */3 * Asia/Kolkata: retrain",
}
PLACE = Workplace(folder=Path("/srv/my bench 50%"), program="/srv/my bench 50%/.venv/bin/mlworkbench")


def lines():
    return read_schedule(LINES)


def test_a_crontab_has_each_line_with_its_zone_and_quoted_place() -> None:
    text = export_schedule(lines(), "cron", PLACE)["mlworkbench.cron"]
    assert "CRON_TZ=Europe/Berlin\n30 2 * * * cd '/srv/my bench 50\\%' && " in text
    assert "schedule start nightly --due\n" in text
    entries = [row for row in text.splitlines() if row[:1] not in ("", "#") and "=" not in row.split(" ")[0]]
    assert [row.split(" cd ")[0] for row in entries] == [
        "*/5 * * * *" if line.skip else line.fields for line in lines()
    ]


def test_a_line_that_skips_is_woken_often_enough_by_a_cron_that_does_not_know_its_zone() -> None:
    (line,) = read_schedule({"nightly": "30 2 * * * Asia/Tokyo skip: ingest"})
    text = export_schedule([line], "cron", PLACE)["mlworkbench.cron"]
    entry = next(row for row in text.splitlines() if " cd " in row)
    (by_machine,) = read_schedule({"woken": f"{entry.partition(' cd ')[0]} America/New_York: ingest"})
    now = datetime(2026, 1, 10, tzinfo=UTC)
    at = next(iterate_times(line, now))
    woken = next(iterate_times(by_machine, at - timedelta(microseconds=1)))
    assert timedelta(0) <= woken - at <= GRACE / 2
    assert find_due(line, after=now, now=woken).run == (at,)


@pytest.mark.skipif(shutil.which("crontab") is None, reason="no crontab here")
def test_crontab_accepts_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cron"
    file.write_text(export_schedule(lines(), "cron", PLACE)["mlworkbench.cron"])
    run = subprocess.run(["crontab", "-n", str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", LINES)
def test_systemd_reads_the_times_that_we_run(name: str) -> None:
    line = next(line for line in lines() if line.name == name)
    start = datetime(2026, 1, 10, 5, tzinfo=UTC)
    found = set()
    for calendar in list_calendars(line):
        words = [ANALYZE, "calendar", "--iterations=12", f"--base-time={start:%Y-%m-%d %H:%M:%S} UTC", calendar]
        run = subprocess.run(words, capture_output=True, text=True, env={"TZ": "UTC", "LC_ALL": "C"})
        assert run.returncode == 0, run.stderr
        said = re.findall(r"[A-Z][a-z]{2} ([0-9]{4}-[0-9-]{5} [0-9:]{8}) UTC$", run.stdout, flags=re.MULTILINE)
        found |= {datetime.fromisoformat(f"{one}+00:00") for one in said}
    times = iterate_times(line, start)
    assert sorted(found)[:10] == [next(times) for _ in range(10)]


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = tmp_path / "my bench 50%" / "mlworkbench"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    place = Workplace(folder=program.parent, program=str(program))
    units = export_schedule(lines(), "systemd", place)
    assert {name.partition(".")[2] for name in units} == {"timer", "service"}
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    run = subprocess.run([ANALYZE, "verify", *(tmp_path / name for name in units)], capture_output=True, text=True)
    ours = [row for row in run.stderr.splitlines() if "mlworkbench" in row]
    assert not ours
    assert run.returncode == 0, run.stderr


def test_a_cronjob_forbids_two_at_once_and_names_its_zone() -> None:
    jobs = list(yaml.safe_load_all(export_schedule(lines(), "kubernetes", PLACE)["mlworkbench-cronjobs.yaml"]))
    assert [job["metadata"]["name"] for job in jobs] == [f"mlworkbench-{name.replace('_', '-')}" for name in LINES]
    for job, line in zip(jobs, lines(), strict=True):
        spec = job["spec"]
        assert (spec["timeZone"], spec["concurrencyPolicy"]) == (line.zone, "Forbid")
        assert spec["schedule"].split()[:4] == line.fields.split()[:4]
        (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["command"][-2:] == [line.name, "--due"]
        assert len(job["metadata"]["name"]) <= 52


@pytest.mark.parametrize(
    ("weekdays", "written"),
    [
        ("7", "0"),
        ("5-7", "0,5,6"),
        ("1,7", "0,1"),
        ("0-7", "0-6"),
        ("*", "*"),
        ("*/2", "*/2"),
        ("MON-FRI", "1,2,3,4,5"),
    ],
)
def test_a_cluster_knows_the_weekdays_from_0_to_6(weekdays: str, written: str) -> None:
    found = read_schedule({"a" * 40: f"0 3 1 * {weekdays} UTC: ingest"})
    job = yaml.safe_load(export_schedule(found, "kubernetes", PLACE)["mlworkbench-cronjobs.yaml"])
    assert job["spec"]["schedule"] == f"0 3 1 * {written}"
    assert len(job["metadata"]["name"]) <= 52
    now = datetime(2026, 1, 10, tzinfo=UTC)
    times = [iterate_times(read_schedule({"a": f"0 3 1 * {one} UTC: ingest"})[0], now) for one in (weekdays, written)]
    assert [next(times[0]) for _ in range(60)] == [next(times[1]) for _ in range(60)]


def test_another_format_is_one_line() -> None:
    with pytest.raises(WorkbenchError, match="FORMAT: one of cron, systemd, kubernetes; got 'crno'; did you mean"):
        export_schedule(lines(), "crno", PLACE)
