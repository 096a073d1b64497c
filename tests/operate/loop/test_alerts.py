"""People are told once, again when it gets worse, and when it is over; real servers, two processes, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import read_settings
from mlworkbench.errors import RunError, SettingsError
from mlworkbench.operate.loop.alert_sinks import CommandSink, FileSink, open_alert_sinks
from mlworkbench.operate.loop.alerts import (
    Finding,
    acknowledge_alert,
    list_alerts,
    list_undelivered,
    report_findings,
    send_messages,
)

TOKEN = "xoxb-hunter2"
EVIL = "a\x1b[2J\r\nb\u202e \ud800\x00 <script>'; DROP TABLE alerts;--" + "x" * 5000


@pytest.fixture
def told(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that tells a file."""
    path = home.path.parent / "told.jsonl"
    monkeypatch.setenv("MLWORKBENCH_ALERTS_FILE", str(path))
    return path


def finding(subject: str = "scores", state: str = "warn", **more: object) -> Finding:
    facts = {"model": "flights", "source": "monitor", "what": "lower than in training", "since": "2013-10-01", **more}
    return Finding(subject=subject, state=state, **facts)  # type: ignore[arg-type]


def report(*findings: Finding, home: Home, source: str = "monitor"):
    return report_findings(findings, model="flights", source=source, home=home)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def events(path: Path) -> list[tuple[str, str]]:
    return [(one["event"], one["subject"]) for one in read(path)]


@contextmanager
def desk(*statuses: int):
    """A server that keeps what is posted to it; answers with these statuses, then always with the last one."""
    got: list[tuple[str, object]] = []
    left = [*statuses] or [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            got.append((self.path, json.loads(body)))
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()


def test_what_is_found_every_night_is_told_once_and_closed_when_it_is_gone(home, told) -> None:
    for _ in range(3):
        (alert,) = report(finding(), home=home)
        assert alert.state == "told"
    (over,) = report(home=home)
    assert over.state == "closed" and over.closed and report(home=home) == []
    assert events(told) == [("opened", "scores"), ("closed", "scores")]
    report(finding(), home=home)
    assert [one["alert"] for one in read(told)] == [1, 1, 2]
    assert told.stat().st_mode & 0o777 == 0o600


def test_it_is_told_again_when_its_measure_is_half_again_as_large_or_a_warning_fails(home, told) -> None:
    for measure in (2.0, 2.5, 2.9, 3.0, 4.0, 1.0, 4.4, 4.5):
        report(finding(measure=measure), home=home)
    assert [one["measure"] for one in read(told)] == [2.0, 3.0, 4.5]
    for state in ("fail", "warn", "fail"):
        (alert,) = report(finding(state=state, measure=4.5), home=home)
    assert alert.state == "worse"
    last = read(told)[-1]
    assert (len(read(told)), last["event"], last["state"], last["was"]) == (4, "worse", "fail", "warn")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf"), -3.0, 0.0, 1e308])
def test_an_odd_measure_is_stored_and_told_once(home, told, odd) -> None:
    for _ in range(3):
        report(finding(measure=odd), home=home)
    assert events(told) == [("opened", "scores")]


def test_an_acknowledged_alert_is_silent_until_it_fails_or_is_over(home, told) -> None:
    (alert,) = report(finding(measure=0.1), home=home)
    known = acknowledge_alert(alert.number, who="Ada", why="the source\nis told", home=home)
    assert (known.state, known.why) == ("acknowledged", "the source is told")
    report(finding(measure=9.0), home=home)
    assert len(read(told)) == 1
    (alert,) = report(finding(state="fail", measure=9.0), home=home)
    assert alert.state == "worse" and len(read(told)) == 2
    acknowledge_alert(alert.number, who="Ada", why="yes", home=home)
    report(finding(state="fail", measure=90.0), home=home)
    report(home=home)
    assert [one["event"] for one in read(told)] == ["opened", "worse", "closed"]


def test_an_alert_that_is_not_there_or_is_over_cannot_be_acknowledged(home, told) -> None:
    for number, code in ((1, "alerts.unknown"), (-5, "alerts.unknown"), (10**30, "alerts.unknown")):
        with pytest.raises(RunError) as caught:
            acknowledge_alert(number, who="Ada", why="", home=home)
        assert caught.value.code == code
    report(finding(), home=home)
    report(home=home)
    with pytest.raises(RunError, match="is over since") as caught:
        acknowledge_alert(1, who="Ada", why="", home=home)
    assert caught.value.code == "alerts.closed"


def test_each_source_and_model_closes_its_own_alerts_alone(home, told) -> None:
    report(finding(), home=home)
    late = finding("command ingest", source="schedule:nightly")
    report(late, home=home, source="schedule:nightly")
    report_findings([finding(model="penguins")], model="penguins", source="monitor", home=home)
    report(home=home)
    assert [(a.finding.model, a.finding.source) for a in list_alerts(home=home)] == [
        ("penguins", "monitor"),
        ("flights", "schedule:nightly"),
    ]
    assert len(list_alerts(closed=True, home=home)) == 3 and len(list_alerts(model="penguins", home=home)) == 1


def test_one_subject_of_two_deployments_is_two_alerts_and_of_one_the_worse_counts(home, told) -> None:
    report(
        finding(deployment="batch"),
        finding(deployment="realtime"),
        finding(deployment="batch", state="fail"),
        home=home,
    )
    states = {a.finding.deployment: a.finding.state for a in list_alerts(home=home)}
    assert states == {"batch": "fail", "realtime": "warn"}


WAYS = ("batch", "edge", "realtime")


def alike(*ways: str, share: int = 30, **more: object) -> list[Finding]:
    """Findings of the same rows that were scored by several ways."""
    more = {"cause": f"{share}% of it goes with 'wind'", **more}
    return [finding(deployment=way, version="flights:1f", **more) for way in ways]


def opened(home: Home) -> list[tuple[int, str, str]]:
    found = sorted(list_alerts(home=home), key=lambda alert: alert.number)
    return [(alert.number, alert.finding.deployment, alert.finding.state) for alert in found]


def test_what_several_deployments_have_alike_is_one_alert_with_one_message_that_names_them(home, told) -> None:
    other = finding(deployment="one_off", cause="another table")
    report(*alike("batch", "edge"), *alike("realtime", share=31, since="2013-09-30"), other, home=home)
    assert opened(home) == [(1, "one_off", "warn"), (2, "batch, edge, realtime", "warn")]
    message = read(told)[1]
    assert message["title"] == "flights batch, edge, realtime: warn: scores" and message["version"] == "flights:1f"
    assert "Deployment: batch, edge, realtime" in message["text"] and "Since: 2013-09-30" in message["text"]
    for text in (message["what"], read(told)[0]["what"]):
        assert text == "lower than in training"
    report(*alike(*WAYS), other, home=home)
    report(home=home)
    assert [one["event"] for one in read(told)] == ["opened", "opened", "closed", "closed"]


def test_the_worst_of_those_that_are_alike_is_told_and_named(home, told) -> None:
    few, many = (alike(way, what=f"{n} of 60 differ", measure=n) for way, n in (("batch", 3), ("edge", 5)))
    report(*few, *many, home=home)
    assert read(told)[0]["what"] == "5 of 60 differ (edge, the worst)" and read(told)[0]["measure"] == 5
    report(*few, *alike("edge", measure=7.5), home=home)
    assert [one["event"] for one in read(told)] == ["opened", "worse"]


def test_a_deployment_that_joins_drops_out_or_differs_later_opens_and_closes_nothing(home, told) -> None:
    nights = [alike("batch", "edge"), alike(*WAYS), alike("realtime"), alike(*WAYS)]
    nights += [alike(*WAYS, cause="another table")]
    for night in nights:
        report(*night, home=home)
        assert opened(home) == [(1, ", ".join(one.deployment for one in night), "warn")]
    report(*alike("batch", share=31), *alike("edge", state="fail"), home=home)
    assert opened(home) == [(1, "batch, edge", "fail")]
    assert read(told)[-1]["what"] == "lower than in training (edge, the worst)"
    report(home=home)
    assert [one["event"] for one in read(told)] == ["opened", "worse", "closed"]


def test_alerts_that_were_opened_apart_go_on_as_the_oldest_when_they_are_alike(home, told) -> None:
    report(*(one for way in WAYS for one in alike(way, cause=f"of {way}")), home=home)
    assert [number for number, *_ in opened(home)] == [1, 2, 3]
    for _ in range(2):
        report(*alike(*WAYS), home=home)
        assert opened(home) == [(1, "batch, edge, realtime", "warn")]
    assert [(one["event"], one["alert"]) for one in read(told)[3:]] == [("closed", 2), ("closed", 3)]
    assert read(told)[3]["what"] == "the same as alert 1, which goes on"


def test_what_was_one_alert_parts_when_its_causes_do_and_each_is_told_with_its_own(home, told) -> None:
    report(*alike("batch", "edge"), home=home)
    for _ in range(2):
        report(*alike("batch", cause="a table"), *alike("edge", cause="wind", state="fail", measure=9), home=home)
        assert opened(home) == [(1, "edge", "fail"), (2, "batch", "warn")]
    report(*alike("batch", cause="a table"), home=home)
    news = [(one["event"], one["alert"], one["deployment"], one["state"], one["cause"]) for one in read(told)[1:]]
    assert news == [
        ("worse", 1, "edge", "fail", "wind"),
        ("opened", 2, "batch", "warn", "a table"),
        ("closed", 1, "edge", "fail", "wind"),
    ]


@pytest.mark.parametrize("state", ["told", "acknowledged"])
@pytest.mark.parametrize(("level", "measure"), [("fail", 1), ("warn", 9), ("warn", 1)])
def test_of_alerts_that_become_alike_that_goes_on_of_which_people_know_the_worse(
    home, told, level, measure, state
) -> None:
    report(*alike("batch", cause="a table", measure=1), home=home)
    report(*alike("batch", cause="a table", measure=1), *alike("edge", state=level, measure=measure), home=home)
    if state == "acknowledged":
        acknowledge_alert(2, who="Ada", why="known", home=home)
    report(*alike("batch", "edge", state=level, measure=measure), home=home)
    (alert,) = list_alerts(home=home)
    first = (level, measure, state) == ("warn", 1, "told")  # equal in all: the older one
    assert (alert.number, alert.state) == (1 if first else 2, state)
    assert [one["event"] for one in read(told)] == ["opened", "opened", "closed"]


def test_an_acknowledged_alert_stays_silent_when_another_deployment_joins(home, told) -> None:
    (alert,) = report(*alike("batch"), home=home)
    acknowledge_alert(alert.number, who="Ada", why="known", home=home)
    (alert,) = report(*alike("batch", "edge"), home=home)
    assert alert.state == "acknowledged" and len(read(told)) == 1


def test_an_alertmanager_has_one_alarm_whoever_joins_or_drops_out(home, monkeypatch) -> None:
    with desk() as (address, got):
        monkeypatch.setenv("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://{address}")
        for ways in (("batch",), WAYS, ("edge",), ()):
            report(*alike(*ways), home=home)
    assert len({json.dumps(one["labels"]) for _, body in got for one in body}) == 1  # type: ignore[attr-defined]
    assert got[-1][1][0]["endsAt"] < got[0][1][0]["endsAt"]  # type: ignore[index]


def test_a_finding_of_somebody_else_or_of_no_state_is_refused_and_nothing_changes(home, told) -> None:
    report(finding(), home=home)
    with pytest.raises(RunError) as caught:
        report(finding(model="penguins"), home=home)
    assert caught.value.code == "alerts.foreign" and len(list_alerts(home=home)) == 1
    with pytest.raises(RunError) as caught:
        finding(state="bad")
    assert caught.value.code == "alerts.state"


def test_hostile_texts_become_one_printable_line_everywhere(home, told) -> None:
    (alert,) = report(finding(EVIL, what=EVIL, cause=EVIL, link=EVIL), home=home)
    for text in (alert.finding.subject, read(told)[0]["title"], *read(told)[0]["text"].splitlines()):
        assert text.isprintable() and len(text) < 1200
    assert alert.finding.subject.startswith("a [2J b <script>'; DROP TABLE")
    assert report(finding(EVIL, what=EVIL), home=home)[0].number == alert.number
    assert len(read(told)) == 1


def test_a_message_says_what_since_when_how_sure_the_cause_what_to_do_and_where(home, told) -> None:
    words = {"sure": "1 a month", "cause": "distance in km", "action": "ask the source", "link": "file:///page.html"}
    report(finding(deployment="batch", version="flights:1f3a", **words), home=home)
    (message,) = read(told)
    assert message["title"] == "flights batch: warn: scores"
    lines = ["What: lower than in training", "Since: 2013-10-01", "How sure: 1 a month", "Likely cause: distance in km"]
    lines += ["What to do: ask the source", "See: file:///page.html", "Deployment: batch", "Version: flights:1f3a"]
    assert message["text"].splitlines()[:8] == lines and "mlworkbench alerts ack 1" in message["text"]


def test_a_sink_that_fails_raises_nothing_keeps_its_messages_in_order_and_is_shown(home, monkeypatch, tmp_path) -> None:
    page = tmp_path / "page.sh"
    page.write_text("#!/bin/sh\nexit 3\n")
    page.chmod(0o755)
    monkeypatch.setenv("MLWORKBENCH_ALERTS_COMMAND", str(page))
    (alert,) = report(finding(), home=home)
    report(home=home)
    assert alert.state == "open"
    (waiting,) = list_undelivered(home=home)
    assert (waiting["sink"], waiting["messages"]) == ("command", 2)
    assert "ended with code 3" in waiting["error"] and str(tmp_path) not in waiting["error"]
    page.write_text(f"#!/bin/sh\ncat >> {tmp_path}/got\n")
    report(home=home)
    assert events(tmp_path / "got") == [("opened", "scores"), ("closed", "scores")] and not list_undelivered(home=home)


def test_one_sink_that_fails_does_not_keep_the_others_from_telling(home, told, monkeypatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_ALERTS_COMMAND", "/no/such/program")
    (alert,) = report(finding(), home=home)
    assert alert.state == "told" and len(read(told)) == 1
    assert [one["sink"] for one in list_undelivered(home=home)] == ["command"]


def test_without_a_way_to_tell_it_is_kept_and_listed(home) -> None:
    (alert,) = report(finding(), home=home)
    assert alert.state == "open" and not list_undelivered(home=home)


@pytest.mark.parametrize("content", ["my notes\n", '{"other": 1}\n', '{"message":"a'])
def test_a_file_that_holds_something_else_is_left_alone_and_a_torn_line_is_mended(home, told, content) -> None:
    told.write_text(content)
    report(finding(), home=home)
    if content.startswith('{"message"'):
        assert events(told) == [("opened", "scores")] and not list_undelivered(home=home)
    else:
        assert told.read_text() == content
        assert "a new file, or one that this wrote" in list_undelivered(home=home)[0]["error"]


def test_a_command_gets_json_without_a_shell_and_is_ended_with_its_family(tmp_path) -> None:
    CommandSink("tee 'a;b $HOME'", tmp_path).send({"title": "$(touch evil); `touch evil`"})
    assert json.loads((tmp_path / "a;b $HOME").read_text()) == {"title": "$(touch evil); `touch evil`"}
    assert not (tmp_path / "evil").exists()
    began = time.monotonic()
    line = "sh -c 'sleep 60 & echo $! > child; wait'"
    with pytest.raises(Exception, match="took longer than 1 s"):
        CommandSink(line, tmp_path, seconds=1.0).send({"title": "x" * 1_000_000})
    assert time.monotonic() - began < 20
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        stat = Path(f"/proc/{child}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("what the command started still runs")


REPORT = """
import sys
from mlworkbench.core.home import Home
from mlworkbench.operate.loop.alerts import Finding, report_findings
home = Home.open(create=False)
def report(*subjects):
    more = {"model": "flights", "source": "monitor", "state": "warn", "what": "w", "since": "s"}
    report_findings([Finding(subject=s, **more) for s in subjects], model="flights", source="monitor", home=home)
"""


def start(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", REPORT + code], env=dict(os.environ), start_new_session=True)


def test_of_four_processes_that_report_the_same_one_tells(home, told) -> None:
    processes = [start("report('scores', 'accuracy')") for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert sorted(events(told)) == [("opened", "accuracy"), ("opened", "scores")]


KILLER = """
import os, random, signal, time
from pathlib import Path

def count():
    return len(Path("{told}").read_bytes().splitlines()) if Path("{told}").exists() else 0

draws = random.Random({kills})
for _ in range({kills}):
    before, child = count(), os.fork()
    while not child:
        report("scores", "accuracy")
        report()
    while count() < before + 3:
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    time.sleep(draws.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_kills_lose_nothing_repeat_nothing_in_a_file_and_at_most_one_message_of_a_command(
    home, told, kills, monkeypatch, tmp_path
) -> None:
    got = tmp_path / "got.jsonl"
    monkeypatch.setenv("MLWORKBENCH_ALERTS_COMMAND", f"tee -a {got}")
    assert start(KILLER.format(kills=kills, told=str(told))).wait(timeout=300) == 0
    report(home=home)
    with sqlite3.connect(home.alerts) as base:
        wanted = [json.loads(body)["message"] for (body,) in base.execute("SELECT body FROM messages ORDER BY number")]
    names = [one["message"] for one in read(told)]
    assert names == wanted and len(set(names)) == len(names)
    arrived = [one["message"] for one in read(got)]
    assert list(dict.fromkeys(arrived)) == wanted and len(arrived) - len(wanted) <= kills
    each: dict[int, list[str]] = {}
    for one in read(told):
        each.setdefault(one["alert"], []).append(one["event"])
    assert set(map(tuple, each.values())) == {("opened", "closed")}
    assert not list_alerts(home=home) and not list_undelivered(home=home)


def test_a_process_killed_between_sending_and_noting_repeats_that_message_to_a_command_alone(
    home, told, monkeypatch, tmp_path
) -> None:
    got = tmp_path / "got.jsonl"
    monkeypatch.setenv("MLWORKBENCH_ALERTS_COMMAND", f"tee -a {got}")
    code = "from mlworkbench.operate.loop.alerts import AlertTable\nimport os, signal\n"
    code += "AlertTable.note = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\nreport('scores')"
    assert start(code).wait(timeout=60) == -signal.SIGKILL
    assert len(read(told)) == 1 and not got.exists()
    send_messages(open_alert_sinks(read_settings()), home=home)
    assert len(read(told)) == 1 and len(read(got)) == 1 and not list_undelivered(home=home)


def test_a_table_that_is_damaged_or_locked_is_one_line(home, told) -> None:
    home.alerts.write_bytes(b"no database at all, but long enough to be read as one" * 20)
    with pytest.raises(RunError) as caught:
        report(finding(), home=home)
    assert caught.value.code == "run.damaged" and "\n" not in str(caught.value)


def test_an_alertmanager_gets_labels_a_life_and_an_end_and_is_reminded_of_what_is_open(home, monkeypatch) -> None:
    with desk() as (address, got):
        monkeypatch.setenv("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://{address}/alertmanager")
        report(finding(deployment="batch", cause="distance in km"), home=home)
        report(finding(deployment="batch"), home=home)
        report(finding(deployment="batch", state="fail"), home=home)
        report(home=home)
    assert [path for path, _ in got] == ["/alertmanager/api/v2/alerts"] * 4
    first, again, worse, over = (body for _, body in got)
    labels = {"alertname": "ModelAlert", "model": "flights", "source": "monitor", "alert": "1"}
    assert first[0]["labels"] == {**labels, "subject": "scores", "severity": "warning"}
    assert first[0]["annotations"]["cause"] == "distance in km" and first[0]["endsAt"] > first[0]["startsAt"]
    assert first[0]["annotations"]["deployment"] == "batch"
    assert again[0]["labels"] == first[0]["labels"] and again[0]["startsAt"] == first[0]["startsAt"]
    assert [one["labels"]["severity"] for one in worse] == ["critical", "warning"]
    assert worse[1]["endsAt"] <= worse[0]["endsAt"] and over[0]["labels"] == worse[0]["labels"]
    assert over[0]["endsAt"] < first[0]["endsAt"]


def test_an_alertmanager_that_is_down_is_retried_and_hears_it_at_the_next_report(home, monkeypatch) -> None:
    with desk(503, 503, 503, 200) as (address, got):
        monkeypatch.setenv("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://{address}")
        report(finding(), home=home)
        assert len(got) == 3 and "status 503" in list_undelivered(home=home)[0]["error"]
        (alert,) = report(finding(), home=home)
    assert alert.state == "told" and len(got) == 4 and not list_undelivered(home=home)
    report(finding(), home=home)
    assert "no answer (ConnectError)" in list_undelivered(home=home)[0]["error"]


def test_a_real_alertmanager_shows_what_is_open_and_ends_what_is_over(home, monkeypatch, tmp_path) -> None:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        pytest.skip("there is no Alertmanager here: apt-get install prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [program, "--config.file=am.yml", f"--web.listen-address={address}", "--cluster.listen-address="]
    server = subprocess.Popen([*words, f"--storage.path={tmp_path / 'am'}"], cwd=tmp_path, stderr=subprocess.DEVNULL)

    def ask(name: str) -> object:
        for _ in range(100):
            try:
                return httpx.get(f"http://{address}/{name}", trust_env=False).raise_for_status().json()
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("Alertmanager does not answer")

    try:
        ask("api/v2/status")
        monkeypatch.setenv("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://{address}")
        report(finding(EVIL), finding("accuracy"), home=home)
        report(finding(EVIL, state="fail"), home=home)
        (alert,) = ask("api/v2/alerts")  # type: ignore[misc]
        assert alert["labels"]["severity"] == "critical" and alert["labels"]["subject"].startswith("a [2J b <script>")
        assert alert["annotations"]["since"] == "2013-10-01" and not list_undelivered(home=home)
        report(home=home)
        assert ask("api/v2/alerts") == []
    finally:
        server.kill()
        server.wait()


def test_apprise_takes_the_message_to_a_webhook_and_its_address_stays_secret(home, monkeypatch, capfd) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed: pip install 'mlworkbench[loop]'")
    monkeypatch.setenv("MLWORKBENCH_ALERTS_TO", "TEAM_CHAT")
    with desk(500, 500, 500, 200) as (address, got):
        monkeypatch.setenv("TEAM_CHAT", f"json://user:{TOKEN}@{address}/{TOKEN}")
        report(finding(what="<b>&</b>"), home=home)
        (waiting,) = list_undelivered(home=home)
        assert waiting["sink"] == "to TEAM_CHAT" and TOKEN not in json.dumps(waiting)
        report(home=home)
    assert [body["title"] for _, body in got[3:]] == ["flights: warn: scores", "flights: over, was warn: scores"]
    assert "What: <b>&</b>" in got[0][1]["message"] and [body["type"] for _, body in got[3:]] == ["warning", "success"]
    found = capfd.readouterr()
    assert TOKEN not in found.out + found.err + home.alerts.read_bytes().decode("utf-8", "replace")


def test_a_mail_arrives_at_a_mail_server(home, monkeypatch) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed: pip install 'mlworkbench[loop]'")
    said: list[str] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as lines:
            lines.write(b"220 here\r\n")
            lines.flush()
            data = False
            for line in lines:
                said.append(line.decode().rstrip())
                done = data and said[-1] == "."
                if said[-1].upper() == "DATA":
                    data, answer = True, b"354 go\r\n"
                elif data and not done:
                    continue
                elif said[-1].upper() == "QUIT":
                    return
                else:
                    data, answer = False, b"250 ok\r\n"
                lines.write(answer)
                lines.flush()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        monkeypatch.setenv("MLWORKBENCH_ALERTS_TO", "MAIL")
        monkeypatch.setenv("MAIL", f"mailto://127.0.0.1:{port}?from=ops@example.org&to=team@example.org&mode=insecure")
        (alert,) = report(finding(), home=home)
        thread.join(timeout=20)
    assert alert.state == "told" and any("flights: warn: scores" in line for line in said)
    assert any(line.upper().startswith("RCPT TO:<TEAM@EXAMPLE.ORG>") for line in said)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLWORKBENCH_ALERTS_TO", f"slack://{TOKEN}"),
        ("MLWORKBENCH_ALERTS_TO", f"TEAM_CHAT, {TOKEN}"),
        ("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://user:{TOKEN}@host:9093"),
        ("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://host:9093/?key={TOKEN}"),
        ("MLWORKBENCH_ALERTS_ALERTMANAGER", "host:9093"),
    ],
)
def test_an_address_in_the_settings_is_refused_and_not_shown(home, monkeypatch, variable, value) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        report(finding(), home=home)
    assert caught.value.code == "settings.wrong_value" and TOKEN not in str(caught.value)


def test_a_secret_may_be_mounted_as_a_file_and_one_that_is_missing_waits(home, monkeypatch, tmp_path) -> None:
    pytest.importorskip("apprise", reason="apprise is not installed: pip install 'mlworkbench[loop]'")
    monkeypatch.setenv("MLWORKBENCH_ALERTS_TO", "TEAM_CHAT")
    report(finding(), home=home)
    assert "is not set" in list_undelivered(home=home)[0]["error"]
    with desk() as (address, got):
        (tmp_path / "secret").write_text(f"json://{address}\n")
        monkeypatch.setenv("TEAM_CHAT_FILE", str(tmp_path / "secret"))
        report(finding(), home=home)
    assert len(got) == 1 and not list_undelivered(home=home)
    (tmp_path / "secret").unlink()
    report(home=home)
    assert "cannot read the file with the secret" in list_undelivered(home=home)[0]["error"]
    monkeypatch.setenv("TEAM_CHAT", f"nosuchscheme://{TOKEN}")
    report(home=home)
    error = list_undelivered(home=home)[0]["error"]
    assert "is no address that apprise knows" in error and TOKEN not in error


def test_paths_of_the_settings_file_are_beside_it(home, tmp_path, monkeypatch) -> None:
    (tmp_path / "settings.ini").write_text("[alerts]\nfile = told.jsonl\ncommand = tee got.json\nto = A, B\n")
    monkeypatch.chdir(home.path)
    sinks = open_alert_sinks(read_settings())
    assert [sink.name for sink in sinks] == ["to A", "to B", "file", "command"]
    assert isinstance(sinks[2], FileSink) and sinks[2].path == tmp_path / "told.jsonl"


def test_a_message_that_a_sink_refuses_keeps_no_other_alert_from_being_told(home, monkeypatch) -> None:
    with desk(400, 400, 400, 200) as (address, got):
        monkeypatch.setenv("MLWORKBENCH_ALERTS_ALERTMANAGER", f"http://{address}")
        report(finding("bad"), finding("good"), home=home)
    assert {body[0]["labels"]["subject"] for _, body in got} == {"bad", "good"}  # type: ignore[index]


def test_a_variable_that_is_named_twice_is_told_once(home, monkeypatch) -> None:
    monkeypatch.setenv("MLWORKBENCH_ALERTS_TO", "TEAM, TEAM")
    assert read_settings().alerts_to == ("TEAM",)
    report(finding(), home=home)
    assert [(one["sink"], one["messages"]) for one in list_undelivered(home=home)] == [("to TEAM", 1)]
