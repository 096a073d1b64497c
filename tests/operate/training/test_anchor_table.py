"""Every pipeline of a long list is compiled, kept as it is, or refused with a reason; none answers otherwise.

``UPDATE=1 python -m pytest tests/operate/training/test_anchor_table.py -m long`` writes ``anchor_table.md`` anew.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from mlworkbench import register
from mlworkbench.core.home import Home
from mlworkbench.errors import RefusedError, WorkbenchError
from mlworkbench.operate.training import register as registering
from mlworkbench.operate.training.anchor import anchor
from mlworkbench.operate.training.anchor.process import answer_part
from mlworkbench.scoring.reference import global_settings
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import open_version

TABLE = Path(__file__).with_name("anchor_table.md")
CASES = run_path(str(Path(__file__).with_name("anchor_cases.py")))["all_cases"]()
OUTCOMES = ("compiled", "reference", "refused", "differs")
QUICK = [name for place, name in enumerate(CASES) if place % 9 == 0]


@pytest.fixture
def light(monkeypatch, home: Home) -> Home:
    """Build, open and hold a version as `register` does, in this process and without a registry."""

    def ask(folder, parts, *, trusted=(), opened_by=()):
        opened = open_version(folder, trusted=trusted)
        return [answer_part(opened, part) for part in parts]

    def publish(fields, *, home, rows, anchoring):
        own = anchor.ask_pipeline(anchoring)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "version"
            parts = {name: value for name, value in fields.items() if name != "notes"}
            build_version(folder, **parts, config=global_settings(), measured=own.spread.difference)
            found = anchor.check_against_pipeline(own, folder, anchoring, trusted=fields["trusted"])
            return SimpleNamespace(anchor=found, scorer=open_version(folder).scorer.kind)

    monkeypatch.setattr(anchor, "ask_in_new_process", ask)
    monkeypatch.setattr(anchor, "SECONDS", 1.0)
    monkeypatch.setattr(registering, "publish", publish)
    monkeypatch.setattr(registering.Lake, "overwrite", lambda *parts, **named: None)
    return home


def judged(name: str, home: Home) -> tuple[str, str]:
    """Say what becomes of a case: the outcome, and why."""
    pipeline, rows, labels = CASES[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pipeline.fit(rows, labels)
        except Exception as error:
            return "not fitted", type(error).__name__
        try:
            result = register(pipeline, rows, labels, name="case", home=home)
        except RefusedError as error:
            differs = "must answer as the pipeline" in str(error)
            return ("differs" if differs else "refused"), _short(str(error))
        except WorkbenchError as error:
            return "refused", _short(str(error))
    if result.anchor["predict_differs"]:
        return "differs", f"predict differs in {result.anchor['predict_differs']} rows"
    return result.scorer, ""


def _short(text: str) -> str:
    return text.replace("|", "\\|").replace("case: ", "").partition("; or keep it")[0][:200]


def read_table() -> dict[str, str]:
    """Give the outcome of each case of the table."""
    lines = [line.strip("| ").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines() if "|" in line]
    return {line[0]: line[1].strip() for line in lines[2:]}


def write_table(found: dict[str, tuple[str, str]]) -> None:
    counts = Counter(outcome for outcome, _ in found.values())
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in (*OUTCOMES, "not fitted"))
    lines = [f"| {name} | {outcome} | {why} |" for name, (outcome, why) in found.items()]
    head = ["# Pipelines held against themselves", "", f"{len(found)} pipelines: {told}.", ""]
    TABLE.write_text("\n".join([*head, "| pipeline | outcome | why |", "| --- | --- | --- |", *lines]) + "\n")


@pytest.mark.parametrize("name", QUICK)
def test_a_pipeline_is_what_the_table_says(name: str, light: Home) -> None:
    outcome, why = judged(name, light)
    assert outcome != "differs", why
    assert outcome == read_table()[name], why


@pytest.mark.long
def test_all_pipelines_are_what_the_table_says(light: Home) -> None:
    found = {}
    for name in CASES:
        found[name] = judged(name, light)
        print(name, *found[name])
    if os.environ.get("UPDATE"):
        write_table(found)
    assert {name: outcome for name, (outcome, _) in found.items()} == read_table()


def test_nothing_differs() -> None:
    table = read_table()
    assert set(table) == set(CASES), "write the table anew: UPDATE=1, -m long"
    assert not [name for name, outcome in table.items() if outcome == "differs"]
