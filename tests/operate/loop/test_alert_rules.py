"""The rules for Prometheus: `promtool` accepts them, and each fires when it should and not before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mlworkbench.operate.loop.alert_rules import format_alert_metrics, write_alert_rules
from mlworkbench.operate.loop.alerts import Finding, report_findings

ROOT = Path(__file__).parents[3]
FILE = ROOT / "services/monitoring/rules.yml"
SCORE = 'job="mlworkbench",instance="a:3000",model="flights",version="flights:1f"'
LABELS = {"job": "mlworkbench", "instance": "a:3000"}


@pytest.fixture(scope="module")
def promtool() -> str:
    return shutil.which("promtool") or pytest.skip("there is no promtool here: apt-get install prometheus")


def ran(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rate(code: int, per_minute: str) -> dict[str, str]:
    return {"series": f'mlworkbench_requests_total{{{SCORE},code="{code}"}}', "values": per_minute}


def rows(outcome: str, per_minute: str) -> dict[str, str]:
    return {"series": f'mlworkbench_rows_total{{{SCORE},outcome="{outcome}"}}', "values": per_minute}


def waits(bound: str, per_minute: str) -> dict[str, str]:
    return {"series": f'mlworkbench_request_seconds_bucket{{{SCORE},le="{bound}"}}', "values": per_minute}


def gauge(name: str, values: str) -> dict[str, str]:
    return {"series": f'mlworkbench_{name}{{job="mlworkbench",instance="a:3000"}}', "values": values}


def follows(how: str, values: str) -> dict[str, str]:
    labels = f'job="mlworkbench",instance="a:3000",model="flights",version="flights:1f",follows="{how}"'
    return {"series": f"mlworkbench_model_info{{{labels}}}", "values": values}


ALERT = 'mlworkbench_alert{model="flights",source="monitor",alert="3",subject="scores",severity="warning"}'
REPORT = 'mlworkbench_report_timestamp_seconds{model="flights",source="monitor"}'
LIVE = '{model="flights",version="flights:1f",deployment="batch"}'
CASES = {  # series, time, and the labels that fire then; none where it must be silent
    "ModelAlert": ([{"series": ALERT, "values": "1x9"}], "5m", {
        "severity": "warning", "model": "flights", "source": "monitor", "alert": "3", "subject": "scores"}),
    "ModelAlert, over": ([{"series": ALERT, "values": "1 1 stale"}], "9m", None),
    "ModelNotWatched": ([{"series": REPORT, "values": "0x3000"}], "37h", {
        "severity": "warning", "model": "flights", "source": "monitor"}),
    "ModelNotWatched, yesterday": ([{"series": REPORT, "values": "0x3000"}], "35h", None),
    "ModelAnswersDiffer": ([{"series": f"mlworkbench_live_equal{LIVE}", "values": "0x9"},
                            {"series": f"mlworkbench_live_rows{LIVE}", "values": "30x9"}], "1m", {
        "severity": "critical", "model": "flights", "version": "flights:1f", "deployment": "batch"}),
    "ModelAnswersDiffer, equal": ([{"series": f"mlworkbench_live_equal{LIVE}", "values": "1x9"},
                                   {"series": f"mlworkbench_live_rows{LIVE}", "values": "30x9"}], "1m", None),
    "ModelServiceDown": ([{"series": 'up{job="mlworkbench",instance="a:3000"}', "values": "0x9"}], "5m", {
        "severity": "critical", **LABELS}),
    "ModelServiceDown, nobody is scraped": ([{"series": 'up{job="others"}', "values": "1x9"}], "5m", {
        "severity": "critical", "job": "mlworkbench"}),
    "ModelServiceDown, up": ([{"series": 'up{job="mlworkbench",instance="a:3000"}', "values": "1x9"}], "5m", None),
    "ModelServiceFails": ([rate(200, "0+96x40"), rate(500, "0+4x40")], "30m", {"severity": "critical", **LABELS}),
    "ModelServiceFails, one in a thousand": ([rate(200, "0+999x40"), rate(503, "0+1x40")], "30m", None),
    "ModelServiceFails, nothing is asked": ([rate(200, "5x40"), rate(500, "5x40")], "30m", None),
    "ModelServiceRefuses": ([rows("scored", "0+80x40"), rows("flagged", "0+10x40"), rows("refused", "0+10x40")],
                            "35m", {"severity": "warning", **LABELS}),
    "ModelServiceRefuses, not JSON": ([rate(200, "0+90x40"), rate(400, "0+10x40")], "35m", {
        "severity": "warning", **LABELS}),
    "ModelServiceRefuses, all well": ([rate(200, "0+90x40"), rate(400, "3x40"), rows("scored", "0+90x40"),
                                       rows("refused", "3x40")], "35m", None),
    "ModelServiceSlow": ([waits("0.1", "0+90x40"), waits("0.5", "0+100x40"), waits("+Inf", "0+100x40")], "35m", {
        "severity": "warning", **LABELS}),
    "ModelServiceSlow, fast": ([waits("0.1", "0+100x40"), waits("0.5", "0+100x40"), waits("+Inf", "0+100x40")],
                               "35m", None),
    "ModelChampionNotServed": ([follows("behind", "1x40")], "30m", {
        "severity": "warning", **LABELS, "model": "flights", "version": "flights:1f"}),
    "ModelChampionNotServed, taken over in a minute": (
        [follows("behind", "1x1 stale"), follows("champion", "_x1 1x40")], "30m", None),
    "ModelLogNotMoved": ([gauge("log_lag_seconds", "220000x60")], "45m", {"severity": "warning", **LABELS}),
    "ModelLogNotMoved, moved each night": ([gauge("log_lag_seconds", "172800x60")], "45m", None),
    "ModelStoreDown": ([gauge("store_up", "1 0x9")], "5m", {"severity": "critical", **LABELS}),
    "ModelStoreDown, back": ([gauge("store_up", "1 0 1x9")], "5m", None),
}  # fmt: skip


def test_the_file_is_what_the_function_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == write_alert_rules()


def test_promtool_accepts_the_rules(promtool) -> None:
    assert "10 rules found" in ran(promtool, "check", "rules", FILE)


def test_each_rule_fires_when_it_should_and_not_before(promtool, tmp_path) -> None:
    shutil.copy(FILE, tmp_path / "rules.yml")
    tests = []
    for case, (series, at, labels) in CASES.items():
        expected = {"eval_time": at, "alertname": case.partition(",")[0]}
        if labels is not None:
            expected["exp_alerts"] = [{"exp_labels": labels}]
        tests.append({"name": case, "interval": "1m", "input_series": series, "alert_rule_test": [expected]})
    written = yaml.safe_load((tmp_path / "rules.yml").read_text())
    for rule in written["groups"][0]["rules"]:
        del rule["annotations"]  # promtool compares them word for word; they are looked at below
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(written))
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    assert "SUCCESS" in ran(promtool, "test", "rules", tmp_path / "test.yml")


def test_the_texts_are_filled_from_the_labels(promtool, tmp_path) -> None:
    (tmp_path / "rules.yml").write_text(write_alert_rules())
    where = "Alert 3, found by monitor. See mlworkbench alerts list."
    notes = {"summary": "flights: scores", "description": where}
    fires = {"exp_labels": CASES["ModelAlert"][2], "exp_annotations": notes}
    check = {"eval_time": "5m", "alertname": "ModelAlert", "exp_alerts": [fires]}
    series = [{"series": ALERT, "values": "1x9"}]
    tests = [{"interval": "1m", "input_series": series, "alert_rule_test": [check]}]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    assert "SUCCESS" in ran(promtool, "test", "rules", tmp_path / "test.yml")


def test_the_numbers_are_read_by_prometheus_whatever_a_subject_is_called(promtool) -> None:
    evil = 'a"} 1\nfake{x="\\'
    alert = {"model": "m", "source": "s", "alert": 3, "subject": evil, "severity": "warning"}
    text = format_alert_metrics([alert], [("m", "s", "2013-10-02T03:00:00+00:00")])
    (first, second) = text_string_to_metric_families(text)
    assert [sample.labels["subject"] for sample in first.samples] == [evil] and second.samples[0].value == 1380682800
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_report_writes_what_is_open_and_when_it_looked(home) -> None:
    found = Finding(model="flights", source="monitor", subject="scores", state="fail", what="w", since="s")
    report_findings([found], model="flights", source="monitor", home=home)
    text = (home.path / "alerts.prom").read_text()
    assert 'subject="scores",severity="critical"} 1' in text and 'report_timestamp_seconds{model="flights"' in text
    report_findings([], model="flights", source="monitor", home=home)
    assert "severity" not in (home.path / "alerts.prom").read_text()
