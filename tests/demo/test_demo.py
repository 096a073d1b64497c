import json
import os
import subprocess
import sys

import pytest

from mlworkbench.cli.console import shorten_versions
from mlworkbench.demo.memory import PeakMemory
from mlworkbench.demo.report import Demo, gate_line
from mlworkbench.operate.certify.verdict import DeploymentVerdict
from mlworkbench.scoring.definition import DEPLOYMENTS

PASSED = {"verdict": "pass", "gates": []}


def demo_with(verdict="equal", **more):
    fields = {"rows": 9, "rows_per_second": 3.0, **more}
    return Demo(version="flights:1", gates=PASSED, deployments=[DeploymentVerdict("batch", verdict, **fields)])


def test_a_promise_that_holds_is_not_refused():
    assert demo_with().refusal == ""


@pytest.mark.parametrize(
    "broken",
    [
        {"verdict": "refused", "mismatches": 1},
        {"verdict": "refused", "missing": 1},
        {"verdict": "undecided", "rows": 0},
        {"verdict": "refused", "duplicated": 1},
        {"verdict": "refused", "feature_mismatches": {"distance": 1}},
        {"verdict": "refused", "missing": 9, "reason": "batch: it did not start"},
    ],
)
def test_whatever_is_not_equal_is_refused_in_one_line_that_says_why(broken):
    line = demo_with(**broken).refusal
    assert line.startswith("deployment batch:") and "\n" not in line
    for name in ("mismatches", "missing", "duplicated"):
        assert (f"1 {name}" in line) == (broken.get(name) == 1)
    assert ("distance" in line) == ("feature_mismatches" in broken)
    assert broken.get("reason", "") in line


def test_failed_gates_and_no_deployment_are_refused():
    assert "gates" in Demo(gates={"verdict": "fail"}).refusal
    assert "none" in Demo(gates=PASSED).refusal


def test_facts_have_the_promised_form():
    facts = demo_with(max_difference=float("inf")).facts
    assert list(facts) == ["model", "version", "gates", "deployments", "reports", "seconds", "peak_memory_mb"]
    columns = ["deployment", "rows", "rows_per_second", "max_difference", "mismatches", "missing", "verdict"]
    assert list(facts["deployments"][0]) == columns
    json.dumps(facts, allow_nan=False)


def test_lines_say_whether_an_earlier_run_was_reused():
    demo = demo_with()
    assert "trained and promoted" in "\n".join(demo.lines)
    demo.reused = True
    assert "of an earlier run, reused" in "\n".join(demo.lines)


def test_a_gate_that_was_not_measured_says_so():
    gate = {"metric": "roc_auc", "value": None, "rule": ">=", "bound": 0.72, "verdict": "undecided"}
    assert gate_line(gate) == "gate roc_auc: not measured >= 0.72: undecided"


def test_memory_of_children_counts():
    code = "block = bytearray(200_000_000); import time; time.sleep(1.5)"
    with PeakMemory(every=0.05) as memory:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert memory.megabytes > 200


def run_demo(folder, *words):
    """Run the demo as a shell runs it, in a folder of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLWORKBENCH_")}
    environment["BENTOML_HOME"] = str(folder / "bentoml")
    command = [sys.executable, "-c", "from mlworkbench.cli.app import main; main()", "demo", "--rows", "400", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, "--json")


@pytest.mark.system
def test_the_demo_works_in_an_empty_folder(demo):
    folder, first = demo
    assert first.returncode == 0, first.stderr
    facts = json.loads(first.stdout.strip().splitlines()[-1])
    assert facts["model"] == "flights" and facts["gates"]["verdict"] == "pass"
    assert [line["deployment"] for line in facts["deployments"]] == list(DEPLOYMENTS)
    for line in facts["deployments"]:
        assert line["mismatches"] == line["missing"] == 0
        assert line["rows"] >= 400 and line["verdict"] == "equal"
        assert line["rows_per_second"] > 0
    assert all((folder / path).exists() for path in facts["reports"].values())


@pytest.mark.long
@pytest.mark.system
def test_a_second_run_reuses_data_and_version_and_measures_again(demo):
    folder, first = demo
    second = run_demo(folder)
    assert second.returncode == 0, second.stderr
    version = json.loads(first.stdout.strip().splitlines()[-1])["version"]
    assert f"version {shorten_versions(version)}: data and version of an earlier run, reused" in second.stdout
    assert "table flights: 0 rows new, 336,776 already there" in second.stdout
    assert second.stdout.count(" equal ") == len(DEPLOYMENTS)
