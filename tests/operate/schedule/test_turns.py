"""Turns of the schedule in real processes: order, answers, retries, limits, kills, two schedulers, what is told."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import RunError
from mlworkbench.operate.loop.alerts import list_alerts
from mlworkbench.operate.schedule import runner
from mlworkbench.operate.schedule.line import ScheduleLine, read_line
from mlworkbench.operate.schedule.runner import Scheduler, describe_line, keep_schedule, run_due, run_span
from mlworkbench.operate.schedule.turns import ScheduleTable, Turn

FIRST = datetime(2013, 10, 2, 2, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SCHEDULER = """
import sys, threading, time
from datetime import datetime
from pathlib import Path
from mlworkbench.core.home import Home
from mlworkbench.operate.schedule.line import read_line
from mlworkbench.operate.schedule.runner import Scheduler, keep_schedule
from mlworkbench.operate.schedule.turns import ScheduleTable
from mlworkbench.operate.running import command
command._PROGRAM = Path(sys.argv[1]).read_text()
now = datetime.fromisoformat(sys.argv[4])
home = Home.open(sys.argv[2])
scheduler = Scheduler(home=home, folder=home.path, clock=lambda: now, waits=(0.01, 0.01))
def watch():
    last = []
    while not (last and last[-1].at == now and last[-1].state != "running"):
        time.sleep(0.05)
        last = ScheduleTable(home).turns("nightly")
    scheduler.stop.set()
threading.Thread(target=watch, daemon=True).start()
keep_schedule([read_line("nightly", sys.argv[3])], scheduler, look=0.05)
"""


def line(what: str, *, name: str = "nightly", skip: str = "") -> ScheduleLine:
    return read_line(name, f"30 2 * * * UTC {skip}: {what}".replace(" :", ":"))


def make(home: Home, now: datetime = FIRST, **more) -> Scheduler:
    return Scheduler(home=home, folder=home.path, clock=lambda: now, **{"waits": (0.01, 0.01), "seconds": 60, **more})


def test_commands_run_in_order_with_the_time_of_the_schedule_and_a_verdict_lets_the_line_go_on(home, small) -> None:
    (turn,) = run_due(line("ingest, batch exit=1, monitor"), make(home, FIRST + timedelta(minutes=3)))
    assert [(what, name) for what, name, *_ in small()] == [
        (what, name) for name in ("ingest", "batch", "monitor") for what in ("begin", "end")
    ]
    assert {at for _, _, at, _ in small()} == {"2013-10-02T02:30+00:00"}
    assert (turn.state, [answer.code for answer in turn.answers]) == ("refused", [0, 1, 0])
    (alert,) = list_alerts(home=home)
    assert (alert.finding.state, alert.finding.subject, alert.finding.since) == (
        "warn",
        "batch exit=1",
        "2013-10-02T02:30+00:00",
    )
    assert "said no: it ended badly" in alert.finding.what


def test_an_error_stops_the_line_until_its_next_time_and_is_told_and_closed(home, small) -> None:
    bad, good = line("ingest exit=2, batch"), line("ingest, batch")
    (turn,) = run_due(bad, make(home))
    assert (turn.state, len(turn.answers), turn.answers[0].tries) == ("failed", 1, 1)
    assert turn.reason == "ingest exit=2: it ended badly; 1 after it did not run"
    assert [name for _, name, *_ in small()] == ["ingest", "ingest"]
    (alert,) = list_alerts(home=home)
    assert alert.finding.state == "fail"
    assert "schedule start nightly --from 2013-10-02T02:30Z" in alert.finding.action
    assert run_due(bad, make(home)) == []
    (turn,) = run_due(good, make(home, FIRST + DAY))
    assert turn.state == "done"
    assert list_alerts(home=home) == []


def test_only_75_and_a_kill_are_tried_again_and_not_for_ever(home, small) -> None:
    (turn,) = run_due(line("ingest until=2"), make(home))
    assert (turn.state, turn.answers[0].tries) == ("done", 3)
    (turn,) = run_due(line("ingest kill=9, batch", name="killed"), make(home))
    assert (turn.state, turn.answers[0].code, turn.answers[0].tries) == ("failed", -9, 3)
    assert "was killed by signal 9" in turn.reason
    (turn,) = run_due(line("ingest exit=75", name="busy"), make(home))
    assert (turn.state, turn.answers[0].tries) == ("failed", 3)
    assert {alert.finding.source for alert in list_alerts(home=home)} == {"schedule:killed", "schedule:busy"}


def test_a_command_past_its_limit_is_ended_with_what_it_started_and_told(home, small) -> None:
    (turn,) = run_due(line("ingest child=60 sleep=60"), make(home, seconds=2.0))
    assert turn.state == "failed"
    assert "passed the limit of 2 s" in turn.reason
    child = next(int(what.split()[1]) for what, *_ in small() if what.startswith("child"))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_missed_nights_are_caught_up_in_order_each_for_its_own_day(home, small) -> None:
    run_due(line("ingest"), make(home))
    turns = run_due(line("ingest"), make(home, FIRST + 3 * DAY + timedelta(hours=5)))
    assert [turn.at for turn in turns] == [FIRST + k * DAY for k in (1, 2, 3)]
    assert [at[:10] for what, _, at, _ in small() if what == "begin"] == [f"2013-10-0{k}" for k in (2, 3, 4, 5)]
    assert run_due(line("ingest"), make(home, FIRST + 4 * DAY - timedelta(seconds=1))) == []


def test_a_line_that_skips_keeps_what_it_left_out(home, small) -> None:
    skips = line("ingest", skip="skip")
    run_due(skips, make(home))
    assert run_due(skips, make(home, FIRST + 3 * DAY + timedelta(hours=5))) == []
    assert len(small()) == 2
    told = describe_line(skips, FIRST + 3 * DAY + timedelta(hours=5), home=home)
    assert (told["state"], told["last"]) == ("skipped", "2013-10-05T02:30+00:00")
    assert told["reason"].startswith("3 missed until then: skipped, as the line says")


def test_times_beyond_the_limit_are_told(home, small, monkeypatch) -> None:
    monkeypatch.setattr("mlworkbench.operate.schedule.line.MOST_MISSED", 1)
    run_due(line("ingest"), make(home))
    (turn,) = run_due(line("ingest exit=1"), make(home, FIRST + 5 * DAY))
    assert turn.at == FIRST + 5 * DAY
    skipped = ScheduleTable(home).at("nightly", FIRST + 4 * DAY)
    assert skipped.state == "skipped"
    assert skipped.reason.startswith("4 missed until then: skipped, at most")
    told = {alert.finding.subject: alert for alert in list_alerts(home=home, closed=True)}
    assert [*sorted(told)] == ["ingest exit=1", "missed times"]
    assert told["missed times"].finding.what == f"nightly: {skipped.reason}"


def test_a_line_counts_from_when_it_was_first_seen_ten_minutes_back(home, small) -> None:
    assert run_due(line("ingest"), make(home, FIRST + timedelta(minutes=11))) == []
    (turn,) = run_due(line("ingest", name="other"), make(home, FIRST + timedelta(minutes=9)))
    assert turn.at == FIRST


def test_a_span_by_hand_runs_what_is_not_done_in_the_order_of_time(home, small) -> None:
    lines = [line("ingest"), read_line("noon", "0 12 * * * UTC: batch exit=2")]
    scheduler = make(home, FIRST + 400 * DAY)
    run_span(lines[:1], scheduler, start=FIRST + DAY, end=FIRST + 2 * DAY)
    turns = run_span(lines, scheduler, start=FIRST, end=FIRST + 2 * DAY + timedelta(hours=12))
    noon = FIRST.replace(hour=12, minute=0)
    assert [(turn.line, turn.at) for turn in turns] == [
        ("nightly", FIRST),
        ("noon", noon),
        ("noon", noon + DAY),
        ("nightly", FIRST + 2 * DAY),
        ("noon", noon + 2 * DAY),
    ]
    again = run_span(lines, scheduler, start=FIRST, end=FIRST + 2 * DAY)
    assert [(turn.line, turn.at) for turn in again] == [("noon", noon), ("noon", noon + DAY)]
    assert [at[:10] for what, name, at, _ in small() if (what, name) == ("begin", "ingest")] == [
        "2013-10-03",
        "2013-10-02",
        "2013-10-04",
    ]


def test_a_failed_turn_goes_on_with_the_command_that_failed(home, small) -> None:
    failing = line("ingest, batch exit=2, monitor")
    run_due(failing, make(home))
    assert [name for what, name, *_ in small() if what == "begin"] == ["ingest", "batch"]
    mended = line("ingest, batch, monitor")
    (turn,) = run_span([mended], make(home, FIRST + DAY), start=FIRST, end=FIRST + DAY)
    assert turn.state == "done"
    assert [name for what, name, *_ in small() if what == "begin"] == ["ingest", "batch", "batch", "monitor"]


def test_an_edited_line_begins_its_broken_off_turn_anew(home, small) -> None:
    table = ScheduleTable(home)
    run_due(line("ingest, batch"), make(home))
    (turn,) = table.turns("nightly")
    table.write(Turn(line="nightly", at=FIRST + DAY, answers=turn.answers[:1]))
    run_due(line("label, batch"), make(home, FIRST + DAY))
    assert [name for what, name, *_ in small() if what == "begin"] == ["ingest", "batch", "label", "batch"]


def test_a_stop_ends_the_command_and_the_next_start_goes_on_with_it(home, small) -> None:
    scheduler = make(home)
    slow = line("ingest, batch sleep=60")
    threading.Timer(1.5, scheduler.stop.set).start()
    begun = time.monotonic()
    keep_schedule([slow], scheduler, look=0.05)
    assert time.monotonic() - begun < 20
    assert describe_line(slow, FIRST, home=home)["state"] == "broken off"
    done = [name for what, name, *_ in small() if what == "end"]
    assert "batch" not in done
    quick = line("ingest, batch sleep=0")
    run_due(quick, make(home))
    assert ScheduleTable(home).turns("nightly")[0].state == "done"


def test_another_scheduler_that_runs_a_line_is_said(home, small) -> None:
    scheduler = make(home)
    running = threading.Thread(target=run_due, args=(line("ingest sleep=60"), scheduler))
    running.start()
    while not small():
        time.sleep(0.02)
    with pytest.raises(RunError) as raised:
        run_due(line("ingest"), make(home))
    assert (raised.value.code, raised.value.exit_code) == ("schedule.busy", 75)
    assert describe_line(line("ingest"), FIRST, home=home)["state"] == "running"
    scheduler.stop.set()
    running.join(timeout=20)
    assert not running.is_alive()


def start(tmp_path: Path, home: Home, text: str, now: datetime) -> subprocess.Popen[bytes]:
    from mlworkbench.operate.running import command

    (tmp_path / "small.py").write_text(command._PROGRAM)
    words = [sys.executable, "-c", textwrap.dedent(SCHEDULER), tmp_path / "small.py", home.path, text, now.isoformat()]
    return subprocess.Popen([str(word) for word in words], cwd=tmp_path)


def test_two_schedulers_run_each_time_once(tmp_path, home, small) -> None:
    ScheduleTable(home).begin_line("nightly", FIRST)
    text, now = "30 2 * * * UTC: ingest, batch sleep=0.05", FIRST + 2 * DAY
    both = [start(tmp_path, home, text, now) for _ in range(2)]
    assert [one.wait(timeout=60) for one in both] == [0, 0]
    begun = [(name, at[:10]) for what, name, at, _ in small() if what == "begin"]
    assert begun == [(name, f"2013-10-0{day}") for day in (2, 3, 4) for name in ("ingest", "batch")]
    assert not [what for what, *_ in small() if what == "not alone"]


def test_kill_9_of_the_scheduler_at_any_moment_loses_nothing_and_starts_nothing_twice(
    tmp_path, home, small, kills
) -> None:
    ScheduleTable(home).begin_line("nightly", FIRST)
    chance, nights = random.Random(7), 3 + kills // 2
    times = [FIRST + k * DAY for k in range(nights)]
    text = "30 2 * * * UTC: ingest sleep=0.05, batch exit=1, monitor child=60 sleep=0.1"
    for _ in range(kills):
        scheduler = start(tmp_path, home, text, times[-1])
        time.sleep(chance.uniform(0.4, 1.2))
        scheduler.kill()
        scheduler.wait()
    assert start(tmp_path, home, text, times[-1]).wait(timeout=90) == 0
    notes = small()
    assert not [note for note in notes if note[0] == "not alone"]
    turns = ScheduleTable(home).turns("nightly")
    assert [(turn.at, turn.state) for turn in turns] == [(at, "refused") for at in times]
    begun = [(at, name) for what, name, at, _ in notes if what == "begin"]
    names = ("ingest", "batch", "monitor")
    order = [(at.isoformat(timespec="minutes"), name) for at in times for name in names]
    assert list(dict.fromkeys(begun)) == order
    assert begun == sorted(begun, key=order.index)  # a step is begun again only before the next one
    assert len(begun) <= len(order) + kills
    for what, *_ in notes:
        if what.startswith("child"):
            pid = int(what.split()[1])
            assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    (alert,) = list_alerts(home=home)
    assert alert.finding.subject == "batch exit=1"


def test_a_table_that_cannot_be_written_is_told_and_the_schedule_goes_on(home, small, capsys, monkeypatch) -> None:
    real, failures = ScheduleTable.write, [2]

    def write(self, turn):
        if failures[0]:
            failures[0] -= 1
            raise RunError("cannot write the schedule's table: database or disk is full", code="run.disk_full").again()
        return real(self, turn)

    monkeypatch.setattr(ScheduleTable, "write", write)
    monkeypatch.setattr(runner, "_AFTER_TROUBLE", 0.05)
    scheduler = make(home, report=lambda line, turn: scheduler.stop.set())
    keep_schedule([line("ingest")], scheduler, look=0.05)
    assert capsys.readouterr().err.count("nightly cannot be run: cannot write the schedule's table") == 2
    assert [turn.state for turn in ScheduleTable(home).turns("nightly")] == ["done"]
    assert list_alerts(home=home) == []
    (closed,) = list_alerts(home=home, closed=True)
    assert closed.finding.subject == "the schedule"


def test_the_log_of_a_turn_is_private_bounded_and_holds_no_secret(home, small, monkeypatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "correct horse battery")
    said = " ".join(f"'say={'x' * 60_000}'" for _ in range(8))
    (turn,) = run_due(line(f"ingest 'say=the correct horse battery staple' {said} say=last"), make(home))
    log = Path(turn.log)
    text = log.read_text()
    assert "correct horse" not in text
    assert "the *** staple" in text
    assert text.rstrip().endswith("last")
    assert log.stat().st_size < 2 * 256 * 1024 + 1000
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.parent.parent == home.path / "logs"


def test_logs_of_old_turns_are_removed(home, small) -> None:
    folder = home.path / "logs" / "schedule" / "nightly"
    folder.mkdir(parents=True)
    for day in range(80):
        (folder / f"20120101T{day:04d}Z.log").write_text("old")
    run_due(line("ingest say=hello"), make(home))
    assert len(list(folder.glob("*.log"))) == 60


def test_the_logs_of_old_nights_that_were_run_just_now_are_kept(home, small) -> None:
    folder = home.path / "logs" / "schedule" / "nightly"
    folder.mkdir(parents=True)
    for day in range(80):
        (folder / f"20190101T{day:04d}Z.log").write_text("newer by name")
        os.utime(folder / f"20190101T{day:04d}Z.log", (1e9, 1e9))
    turns = run_span([line("ingest say=hello")], make(home, FIRST + 9 * DAY), start=FIRST, end=FIRST + 2 * DAY)
    assert [Path(turn.log).read_text() for turn in turns] == ["hello\n", "hello\n"]
    assert len(list(folder.glob("*.log"))) == 60


def test_what_is_told_names_the_model_where_it_is_one(home, small) -> None:
    run_due(line("ingest --model=x, batch --model penguins exit=1"), make(home))
    (alert,) = list_alerts(home=home)
    assert (alert.finding.model, alert.finding.source) == ("penguins", "schedule:nightly")


def test_the_table_of_another_home_is_not_touched(tmp_path, home, small) -> None:
    other = Home.open(tmp_path / "other")
    run_due(line("ingest"), make(home))
    run_due(line("ingest"), make(other))
    assert [len(ScheduleTable(one).turns("nightly")) for one in (home, other)] == [1, 1]
    assert json.loads(json.dumps(small()))
    assert os.environ["MLWORKBENCH_HOME"] == str(home.path)


def test_a_run_by_hand_makes_no_missed_night_forgotten_and_is_not_run_again(home, small) -> None:
    nightly = line("ingest")
    run_due(nightly, make(home))
    later = make(home, FIRST + 3 * DAY + timedelta(hours=5))
    by_hand = run_span([nightly], later, start=FIRST + 3 * DAY, end=FIRST + 4 * DAY)
    assert [turn.at for turn in by_hand] == [FIRST + 3 * DAY]
    assert [turn.at for turn in run_due(nightly, later)] == [FIRST + DAY, FIRST + 2 * DAY]
    assert run_due(nightly, later) == []
    assert [at[:10] for what, _, at, _ in small() if what == "begin"] == [f"2013-10-0{k}" for k in (2, 5, 3, 4)]


def test_what_is_due_is_kept_with_the_mark_so_that_a_stop_between_two_nights_forgets_none(home, small) -> None:
    nightly = line("ingest")
    run_due(nightly, make(home))
    scheduler = make(home, FIRST + 3 * DAY)
    scheduler.stop.set()
    assert run_due(nightly, scheduler) == []
    assert [turn.at for turn in ScheduleTable(home).open_turns("nightly")] == [FIRST + k * DAY for k in (1, 2, 3)]
    assert [turn.at for turn in run_due(nightly, make(home, FIRST + 3 * DAY))] == [FIRST + k * DAY for k in (1, 2, 3)]


def test_a_clock_that_jumped_ahead_and_back_is_told_and_silences_no_line(home, small) -> None:
    nightly = line("ingest")
    run_due(nightly, make(home))
    run_due(nightly, make(home, FIRST + 4000 * DAY))
    ran = len(small())
    assert run_due(nightly, make(home, FIRST + timedelta(hours=1))) == []
    told = {alert.finding.subject: alert for alert in list_alerts(home=home)}
    assert [*told] == ["the clock"]
    assert "the clock was set back from 2024-09-14T02:30+00:00 to 2013-10-02T03:30" in told["the clock"].finding.what
    assert len(small()) == ran
    (turn,) = run_due(nightly, make(home, FIRST + DAY))
    assert (turn.at, turn.state) == (FIRST + DAY, "done")
    assert list_alerts(home=home) == []


def test_a_failed_command_is_not_started_again_where_the_scheduler_dies_while_people_are_told(
    home, small, monkeypatch
) -> None:
    class Killed(BaseException):
        """In place of kill -9."""

    def die(*words, **more):
        raise Killed

    failing = line("ingest, batch exit=2, monitor")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("mlworkbench.operate.schedule.runner.report_findings", die)
        run_due(failing, make(home))
    assert ScheduleTable(home).turns("nightly")[0].state == "running"
    (turn,) = run_due(failing, make(home))
    assert (turn.state, [answer.code for answer in turn.answers]) == ("failed", [0, 2])
    assert [name for what, name, *_ in small() if what == "begin"] == ["ingest", "batch"]
    (alert,) = list_alerts(home=home)
    assert alert.finding.subject == "batch exit=2"


def test_a_stop_starts_no_other_turn_of_a_span_and_writes_nothing_of_it(home, small) -> None:
    scheduler = make(home, FIRST + 5 * DAY, report=lambda line, turn: scheduler.stop.set())
    lines = [line("ingest"), line("batch", name="other")]
    (turn,) = run_span(lines, scheduler, start=FIRST, end=FIRST + 2 * DAY)
    assert (turn.line, turn.at) == ("nightly", FIRST)
    assert [len(ScheduleTable(home).turns(name)) for name in ("nightly", "other")] == [1, 0]


def test_an_answer_that_a_full_disk_refuses_waits_and_people_are_sent_it_once_past_the_table(
    home, small, monkeypatch, tmp_path
) -> None:
    full, real, tries = RunError("the disk is full", code="run.disk_full").again(), ScheduleTable.write, [0]

    def write(self, turn):
        tries[0] += 1
        if 2 <= tries[0] <= 4:
            raise full
        return real(self, turn)

    def report(findings, *, real=runner.report_findings, **more):
        if 2 <= tries[0] <= 4:
            raise full
        return real(findings, **more)

    monkeypatch.setattr(ScheduleTable, "write", write)
    monkeypatch.setattr(runner, "report_findings", report)
    monkeypatch.setattr(runner, "_AFTER_TROUBLE", 0.05)
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[alerts]\nfile = told.jsonl\n")
    (turn,) = run_due(line("ingest, batch"), make(home))
    assert turn.state == "done"
    assert [name for what, name, *_ in small() if what == "begin"] == ["ingest", "batch"]
    told = [json.loads(row) for row in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [(one["event"], one["source"], one["subject"]) for one in told] == [
        ("opened", "schedule:nightly:times", "the schedule"),
        ("closed", "schedule:nightly:times", "the schedule"),
    ]
    assert "the disk is full" in told[0]["what"]
    assert "Alert 0" not in told[0]["text"]


def test_a_stop_ends_the_wait_for_a_disk(home, small, monkeypatch) -> None:
    real, scheduler = ScheduleTable.write, make(home)

    def write(self, turn):
        if turn.answers:
            threading.Timer(0.2, scheduler.stop.set).start()
            raise RunError("the disk is full", code="run.disk_full").again()
        return real(self, turn)

    monkeypatch.setattr(ScheduleTable, "write", write)
    assert run_due(line("ingest"), scheduler) == []
    assert ScheduleTable(home).open_turns("nightly")


def test_what_is_still_wrong_when_the_table_can_be_written_again_is_not_called_over(
    home, small, monkeypatch, tmp_path
) -> None:
    def refuse(findings, **more):
        raise RunError("the disk is full", code="run.disk_full").again()

    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[alerts]\nfile = told.jsonl\n")
    scheduler, failing = make(home), line("ingest exit=2")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "report_findings", refuse)
        run_due(failing, scheduler)
    run_span([failing], scheduler, start=FIRST, end=FIRST + DAY)
    told = [json.loads(row) for row in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [(one["event"], one["subject"], one["alert"]) for one in told] == [
        ("opened", "ingest exit=2", 0),
        ("opened", "ingest exit=2", 1),
    ]
