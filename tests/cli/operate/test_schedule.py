"""`mlworkbench schedule` as a shell starts it, and the moment that its commands count back from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlworkbench.cli.context import find_moment, resolve_interval
from mlworkbench.errors import WorkbenchError

START = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", "schedule", "start"]


@pytest.fixture
def schedule(clean: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the lines of ``[schedule]`` of a workbench without models."""

    def write(**lines: str) -> None:
        text = "\n".join(f"{name} = {line}" for name, line in lines.items())
        (clean / "settings.ini").write_text(f"[workbench]\nhome = home\n[schedule]\n{text}\n")

    monkeypatch.delenv("MLWORKBENCH_HOME", raising=False)
    return write


def test_a_span_by_hand_runs_each_night_and_list_shows_last_and_next(schedule, tell, facts) -> None:
    schedule(nightly="30 2 * * * Europe/Berlin: lake list")
    code, out, err = tell("schedule", "start", "--from", "2013-10-26", "--until", "2013-10-28")
    assert code == 0
    assert out.splitlines() == ["2013-10-26T02:30+02:00 nightly: done", "2013-10-27T02:30+02:00 nightly: done"]
    assert err.startswith("a bare date is midnight UTC")
    assert tell("schedule", "start", "--from", "2013-10-26", "--until", "2013-10-28")[:2] == (0, "")
    (line,) = facts("schedule", "list")["lines"]
    assert (line["last"], line["state"], line["zone"]) == ("2013-10-27T02:30+02:00", "done", "Europe/Berlin")
    assert datetime.fromisoformat(line["next"]) > datetime.now(UTC)
    assert Path(line["log"]).stat().st_size > 0


def test_a_bad_turn_is_exit_1_in_one_line(schedule, tell) -> None:
    schedule(nightly="30 2 * * * UTC: lake history nothing, lake list")
    code, out, err = tell("schedule", "start", "--from", "2013-10-26T00:00Z", "--until", "2013-10-27T00:00Z", "--json")
    assert code == 1
    (turn,) = [json.loads(line) for line in out.splitlines()]
    assert (turn["line"], turn["state"], turn["answers"][0]["code"]) == ("nightly", "failed", 2)
    assert err.splitlines()[-1].startswith("error: 1 of 1 times ended badly, the last for: lake history nothing: ")
    code, out, _ = tell("schedule", "list")
    assert code == 0
    assert "failed" in out


def test_due_runs_what_another_scheduler_woke_it_for(schedule, tell) -> None:
    schedule(often="*/5 * * * * UTC: lake list")
    code, out, _ = tell("schedule", "start", "often", "--due")
    assert code == 0
    assert 2 <= len(out.splitlines()) <= 3  # of the last ten minutes
    again = tell("schedule", "start", "often", "--due")[1]
    assert len(again.splitlines()) <= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(schedule, clean, number) -> None:
    schedule(often="* * * * * UTC skip: lake list")
    process = subprocess.Popen(START, cwd=clean, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().endswith("often: done\n")
    process.send_signal(number)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


@pytest.mark.parametrize(
    "words",
    [["often", "other", "--due"], ["often", "other", "--from", "2013-10-01T00:00Z", "--until", "2013-10-01T12:00Z"]],
)
def test_a_signal_before_the_end_of_a_bounded_run_is_exit_75_and_starts_no_other_line(schedule, clean, words) -> None:
    schedule(often="* * * * * UTC: lake list", other="* * * * * UTC: lake list")
    process = subprocess.Popen([*START, *words], cwd=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().endswith("often: done\n")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert len(out.splitlines()) <= 2
    assert err.splitlines()[-1] == "error: stopped; what is left runs at the next start"


@pytest.mark.parametrize(
    ("line", "words", "said"),
    [
        ("30 2 * * *: ingest", ["list"], "five fields and a zone"),
        ("30 2 * * * UTC: ingset", ["list"], "No such command 'ingset'"),
        ("30 2 * * * UTC: batch --lsat day", ["start"], "No such option"),
        ("30 2 * * * UTC: runs", ["list"], "where runs is a group"),
        ("30 2 * * * UTC: schedule start", ["start"], "no other schedule"),
        ("30 2 * * * UTC: batch --help", ["list"], "works by itself"),
        ("30 2 * * * UTC: ingest", ["start", "nihgtly"], "did you mean 'nightly'?"),
        ("30 2 * * * UTC: ingest", ["start", "--from", "2013-10-01T00:00:00"], "with an offset"),
        ("30 2 * * * UTC: ingest", ["start", "--until", "2013-10-01"], "only with --from"),
        ("30 2 * * * UTC: ingest", ["start", "--from", "2013-10-01", "--until", "2913-10-01"], "a time that has come"),
        (
            "30 2 * * * UTC: ingest",
            ["start", "--from", "0001-01-01T00:00Z"],
            "a time since 1970; got 0001-01-01",
        ),
        ("30 2 * * * UTC: ingest", ["start", "--due", "--from", "2013-10-01"], "--due"),
        ("30 2 * * * UTC: ingest", ["export", "crno"], "did you mean 'cron'?"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_runs(schedule, tell, line, words, said) -> None:
    schedule(nightly=line)
    code, out, err = tell("schedule", *words)
    assert code == 2
    assert out == ""
    assert said in err.splitlines()[-1]


def test_without_a_line_list_says_so_and_start_says_how(clean, tell) -> None:
    (clean / "settings.ini").write_text("[workbench]\nhome = home\n")
    assert tell("schedule", "list")[:2] == (0, "no line in [schedule] of settings.ini\n")
    for words in (["start"], ["export", "cron"]):
        code, _, err = tell("schedule", *words)
        assert code == 2
        assert "write one, as nightly = 30 2 * * *" in err


def test_export_writes_files_or_prints_them(schedule, tell, facts, clean) -> None:
    schedule(nightly="30 2 * * * UTC: lake list")
    assert "30 2 * * * cd " in tell("schedule", "export", "cron")[1]
    files = facts("schedule", "export", "systemd", "--out", str(clean / "units"))["files"]
    assert sorted(Path(file).name for file in files) == ["mlworkbench-nightly.service", "mlworkbench-nightly.timer"]


def test_a_line_can_come_from_the_environment(schedule, facts, monkeypatch) -> None:
    schedule(nightly="30 2 * * * UTC: lake list")
    monkeypatch.setenv("MLWORKBENCH_SCHEDULE_NIGHTLY", "30 3 * * * UTC: lake list")
    (line,) = facts("schedule", "list")["lines"]
    assert line["next"].endswith("T03:30+00:00")


@pytest.mark.parametrize(
    ("at", "zone", "last", "since"),
    [
        ("2013-10-02T02:30+02:00", "Europe/Berlin", "day", "2013-10-01T00:30:00+00:00"),
        ("2013-10-28T02:30+01:00", "Europe/Berlin", "day", "2013-10-27T00:30:00+00:00"),  # a day of 25 hours
        ("2013-03-31T03:00+02:00", "Europe/Berlin", "day", "2013-03-30T01:00:00+00:00"),
        ("2013-04-01T02:30+02:00", "Europe/Berlin", "day", "2013-03-31T00:30:00+00:00"),
        ("2013-11-04T02:15-05:00", "America/New_York", "1d", "2013-11-03T07:15:00+00:00"),
        ("2013-11-04T00:15-05:00", "America/New_York", "1d", "2013-11-03T04:15:00+00:00"),  # a day of 25 hours
        ("2013-11-03T01:00-05:00", "America/New_York", "hour", "2013-11-03T05:00:00+00:00"),
        ("2013-10-28T02:30+01:00", "", "day", "2013-10-27T01:30:00+00:00"),
    ],
)
def test_last_counts_back_from_the_time_of_the_schedule(monkeypatch, at, zone, last, since) -> None:
    monkeypatch.setenv("MLWORKBENCH_SCHEDULED_AT", at)
    monkeypatch.setenv("MLWORKBENCH_SCHEDULED_ZONE", zone)
    found = resolve_interval("", "", last)
    assert found == (since, datetime.fromisoformat(at).astimezone(UTC).isoformat())


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_no_hour_of_a_year_falls_between_two_nights(monkeypatch, zone) -> None:
    from mlworkbench.operate.schedule.line import find_span, read_line

    line = read_line("nightly", f"30 2 * * * {zone}: batch")
    reached = None
    for moment in find_span(line, start=datetime(2013, 1, 1, tzinfo=UTC), end=datetime(2014, 1, 1, tzinfo=UTC)):
        monkeypatch.setenv("MLWORKBENCH_SCHEDULED_AT", line.show(moment))
        monkeypatch.setenv("MLWORKBENCH_SCHEDULED_ZONE", zone)
        since, until = map(datetime.fromisoformat, resolve_interval("", "", "day"))
        assert until == moment
        assert reached is None or since <= reached
        reached = until


@pytest.mark.parametrize("wrong", ["2013-10-02T02:30", "soon"])
def test_a_wrong_moment_is_one_line(monkeypatch, wrong) -> None:
    monkeypatch.setenv("MLWORKBENCH_SCHEDULED_AT", wrong)
    with pytest.raises(WorkbenchError) as raised:
        find_moment()
    assert raised.value.code == "usage.scheduled_at"
