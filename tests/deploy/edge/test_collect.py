"""What comes home from a device: a line that no device wrote is refused, and then nothing is imported."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.deploy.edge.collect import collect
from mlworkbench.deploy.edge.device import open_export, score_source
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.errors import LogError, VersionError, WorkbenchError
from mlworkbench.evaluation.log.mover import move_log
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.evaluation.log.rows import prediction_id
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.build import build_version
from mlworkbench.scoring.version.version import Version, open_version

CONTRACT = Contract((Column("length", "number"), Column("mass", "number", nullable=True)))
Line = dict[str, Any]


def trained(folder: Path, registry: Registry, model: str, classes: int, *, shift: float = 0.0, last: Any = None) -> str:
    generator = np.random.default_rng(0)
    frame = FeatureFrame({"length": generator.uniform(0, 9, 90), "mass": generator.uniform(0, 9, 90) + shift})
    labels = (frame.columns["length"] / 9.001 * classes).astype(int)
    line = (last or LogisticRegression(max_iter=5000)).fit(frame_to_pandas(frame, CONTRACT), labels)
    task = "binary" if classes == 2 else "multiclass"
    parts = {"model": model, "task": task, "classes": list(range(classes)), "request": CONTRACT, "frame": CONTRACT}
    golden = {"golden": (frame.columns, {}, frame), "training": frame, "labels": labels, "deployments": ("edge",)}
    build_version(folder, pipeline=line, **parts, **golden)
    return registry.add(folder, model, open_version(folder).content_id)


class Till:
    """Two models in a registry; the device has one of them, with three classes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home.open(folder / "home")
        registry = Registry(self.home)
        self.tag = trained(folder / "version", registry, "birds", 3)
        self.other = trained(folder / "other", registry, "fish", 2)
        self.registry = registry
        self.device: Version = open_export(
            export_edge(registry.open("birds", self.tag), folder / "device").folder / "model"
        )


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    folder = tmp_path_factory.mktemp("till")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        yield Till(folder)


@pytest.fixture
def home(till: Till, tmp_path: Path) -> Home:
    """A home of its own that names the same versions."""
    home = Home.open(tmp_path / "home")
    for model, tag in (("birds", till.tag), ("fish", till.other)):
        version = till.registry.open(model, tag)
        Registry(home).add(version.folder, model, version.content_id)
    return home


@pytest.fixture
def file(till: Till, tmp_path: Path) -> Path:
    events = b"".join(b'{"length": %d.5, "mass": %s}\n' % (k, b"null" if k == 3 else b"4") for k in (1, 2, 4))
    assert score_source(till.device, events, tmp_path / "p.jsonl").scored == 3
    return tmp_path / "p.jsonl"


def rewritten(file: Path, change: Callable[[Line], object], line: int = 2) -> Path:
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    change(lines[line - 1])
    file.write_text("".join(json.dumps(found) + "\n" for found in lines))
    return file


def log(**told: Any) -> Callable[[Line], object]:
    return lambda line: line["log"].update(told)


def text(**told: Any) -> Callable[[Line], object]:
    """Change values inside a field that holds JSON text."""

    def change(line: Line) -> None:
        for field, values in told.items():
            line["log"][field] = json.dumps({**json.loads(line["log"][field]), **values})

    return change


def refused(file: Path, home: Home, column: str) -> str:
    """Collect, and give the one line of the refusal; nothing is imported."""
    with pytest.raises(WorkbenchError) as told:
        collect(file, home=home)
    assert f"p.jsonl, line 2, {column}: " in str(told.value) and "nothing was imported" in str(told.value)
    assert not home.log("birds").exists()
    return str(told.value)


FORGED = {
    "scores that are no JSON": ("scores", log(scores="garbage")),
    "scores that are not finite": ("scores", log(scores="[NaN,1,1]")),
    "scores beyond a double": ("scores", log(scores="[1e999,1,1]")),
    "scores that are truths": ("scores", log(scores="[true,1,1]")),
    "a score too few": ("scores", log(scores="[0.5,0.5]")),
    "no score": ("scores", log(scores="[]")),
    "features that are no JSON": ("features", log(features="not json")),
    "features that are a list": ("features", log(features="[1,2]")),
    "a feature too few": ("features", log(features='{"length":1.5}')),
    "a feature too many": ("features", text(features={"wing": 3.0})),
    "a feature of another kind": ("features", text(features={"length": "long"})),
    "a feature that is too large for a number": ("features", text(features={"length": 10**400})),
    "a decision that is no class": ("decision", log(decision="7")),
    "a decision that is no JSON": ("decision", log(decision="maybe")),
    "a decision that is a list": ("decision", log(decision="[1]")),
    "an entity that is a list": ("entity", log(entity="[1,2]")),
    "an entity that is not declared": ("entity", log(entity='{"ring":"R1"}')),
    "faults that are an object": ("faults", log(faults="{}")),
    "faults that are texts": ("faults", log(faults='["too long"]')),
    "a request that is no JSON": ("request", log(request="?")),
    "a request with an unknown column": ("request", log(request='{"wing":3.0}')),
    "a watermark that is no JSON": ("watermark", log(watermark="")),
    "a moment before the year 1": ("logged_at", log(logged_at=-(10**18))),
    "a moment after the year 9999": ("prediction_time", log(prediction_time=2**62)),
    "a moment that is a truth": ("logged_at", log(logged_at=True)),
    "another role": ("role", log(role="hacker")),
    "another scorer": ("scorer", log(scorer="x")),
    "another deployment": ("deployment", log(deployment="realtime")),
    "a schema below 1": ("schema_version", log(schema_version=-5)),
    "a newer schema": ("schema_version", log(schema_version=99)),
    "a latency beyond 64 bits": ("latency_us", log(latency_us=10**30)),
    "a latency below 0": ("latency_us", log(latency_us=-1)),
    "half a character": ("request_id", log(request_id="\ud800")),
    "a request of another name": ("request_id", log(request_id="mine")),
    "line 0": ("line", lambda line: line.update(line=0)),
    "a line beyond 64 bits": ("line", lambda line: line.update(line=2**63)),
    "a log that is a list": ("request_id", lambda line: line.update(log=[1])),
    "features nested too deeply": ("features", log(features="[" * 200_000)),
    "a model that is a pattern": ("model", lambda line: line.update(model="*")),
    "a number as id": ("prediction_id", lambda line: line.update(prediction_id=7)),
    "a forged id": ("prediction_id", lambda line: line.update(prediction_id="0" * 32)),
    "the id of another line": ("prediction_id", lambda line: line.update(line=77)),
    "the id of another source": ("prediction_id", log(request_id="0" * 32)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_line_that_no_device_wrote_is_refused_by_line_and_column(
    till: Till, file: Path, home: Home, name: str
) -> None:
    column, change = FORGED[name]
    refused(rewritten(file, change), home, column)


@pytest.mark.parametrize("reference", ["champion", "birds:champion", "short", "birds:short"])
def test_a_version_is_named_by_its_whole_tag(till: Till, file: Path, home: Home, reference: str) -> None:
    Registry(home).promote("birds", till.tag, who="me", why="test", alias="challenger", override="test")
    named = reference.replace("short", till.tag.partition(":")[2][:8]).replace("champion", "challenger")

    def change(line: Line) -> None:
        source = f"{line['log']['request_id']}:{line['line'] - 1}"
        line.update(version=named, prediction_id=prediction_id("birds", named, "edge", source))

    assert "whole tag" in refused(rewritten(file, change), home, "version")


def test_a_version_that_the_registry_does_not_have_is_refused(till: Till, file: Path, home: Home) -> None:
    named = "birds:" + "f" * 32

    def change(line: Line) -> None:
        source = f"{line['log']['request_id']}:{line['line'] - 1}"
        line.update(version=named, prediction_id=prediction_id("birds", named, "edge", source))

    refused(rewritten(file, change), home, "version")


def test_a_file_holds_predictions_of_one_model(till: Till, file: Path, home: Home) -> None:
    def change(line: Line) -> None:
        source = f"{line['log']['request_id']}:{line['line'] - 1}"
        line.update(model="fish", version=till.other, prediction_id=prediction_id("fish", till.other, "edge", source))

    assert "collect them apart" in refused(rewritten(file, change), home, "model")


@pytest.mark.parametrize("line", [b"[" * 200_000, b"\xff", b"[1]", b'{"line": NaN}', b'{"line": 1e999}', b"",
                                  b"1" * 5000], ids=range(7))  # fmt: skip
def test_a_line_that_is_no_record_is_refused_by_number(till: Till, file: Path, home: Home, line: bytes) -> None:
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(LogError, match=r"p\.jsonl, line 4: a line of JSON that a device wrote"):
        collect(file, home=home)
    assert not home.log("birds").exists()


def test_a_file_without_a_prediction_is_refused(tmp_path: Path, home: Home) -> None:
    (tmp_path / "p.jsonl").write_text('{"torn')
    with pytest.raises(LogError, match="at least one prediction"):
        collect(tmp_path / "p.jsonl", home=home)


def test_an_altered_version_judges_no_line(till: Till, file: Path, home: Home, tmp_path: Path) -> None:
    folder = till.registry.folder("birds", till.tag)
    whole = (folder / "declaration.json").read_bytes()
    (folder / "declaration.json").write_bytes(whole + b" ")
    try:
        with pytest.raises(VersionError, match=r"line 1, version: declaration\.json was altered"):
            collect(file, home=home)
    finally:
        (folder / "declaration.json").write_bytes(whole)


ANOTHER = {
    "other scores": log(scores="[0.1,0.1,0.8]"),
    "another decision": log(decision="2"),
    "other features": text(features={"length": 7.0}),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_a_known_prediction_with_another_answer_is_refused(till: Till, file: Path, home: Home, name: str) -> None:
    collect(file, home=home)
    before = read_log(home.log("birds"))
    rewritten(file, ANOTHER[name])
    with pytest.raises(LogError, match=rf"line 2, (scores|decision): what {till.tag} gives for these features"):
        collect(file, home=home)
    assert read_log(home.log("birds")).equals(before)


def test_two_lines_of_one_id_in_a_file_say_the_same(till: Till, file: Path, home: Home) -> None:
    file.write_text(file.read_text() * 2)
    assert (collect(file, home=home).rows, len(read_log(home.log("birds")))) == (6, 3)
    rewritten(file, ANOTHER["other scores"], line=4)
    with pytest.raises(LogError, match="line 4, scores: what"):
        collect(file, home=home)


def test_the_same_file_scored_again_elsewhere_adds_nothing(till: Till, file: Path, home: Home, tmp_path: Path) -> None:
    assert collect(file, home=home).new == 3
    rewritten(file, log(logged_at=7, latency_us=1))
    rewritten(
        file, lambda line: line["log"].update(scores=json.dumps([s + 1e-15 for s in json.loads(line["log"]["scores"])]))
    )
    assert collect(file, home=home).new == 0


def test_what_a_device_wrote_is_imported_and_can_be_read(till: Till, file: Path, home: Home) -> None:
    assert collect(file, home=home).new == 3
    found = read_log(home.log("birds"))
    assert [len(scores) for scores in found["scores"]] == [3, 3, 3]
    assert set(found["version"]) == {till.tag}


def test_what_a_model_decides_by_a_rule_of_its_own_comes_home_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    own = Home.open(tmp_path / "home")
    tag = trained(tmp_path / "version", Registry(own), "birds", 3, last=GaussianNB())
    version = Registry(own).open("birds", tag)
    assert version.declaration["decision"] == {"rule": "predict"} and version.scorer.kind == "compiled"
    device = open_export(export_edge(version, tmp_path / "device").folder / "model")
    events = b"".join(b'{"length": %d.5, "mass": 4}\n' % k for k in (1, 4, 7))
    assert score_source(device, events, tmp_path / "p.jsonl").scored == 3
    first = (tmp_path / "p.jsonl").read_bytes()
    changed = rewritten(tmp_path / "p.jsonl", lambda line: line["log"].update(decision="0"))
    assert "decision" in refused(changed, own, "decision")
    (tmp_path / "p.jsonl").write_bytes(first)
    assert collect(tmp_path / "p.jsonl", home=own).new == 3
    assert read_log(own.log("birds")).sort("logged_at")["decision"].to_list() == ["0", "1", "2"]


INVENTED = {
    "another score": ("scores", log(scores="[0.2,0.3,0.5]")),
    "another decision": ("decision", lambda line: log(decision=str((int(line["log"]["decision"]) + 1) % 3))(line)),
    "the score of other features": ("scores", text(features={"length": 8.5})),
}


@pytest.mark.parametrize("name", INVENTED)
def test_a_forged_file_is_refused_and_the_honest_one_that_comes_later_is_not(
    file: Path, home: Home, tmp_path: Path, name: str
) -> None:
    column, change = INVENTED[name]
    honest = tmp_path / "honest" / "p.jsonl"
    honest.parent.mkdir()
    honest.write_bytes(file.read_bytes())
    assert ":" in refused(rewritten(file, change), home, column)
    assert collect(honest, home=home).new == 3


def test_a_file_that_comes_again_after_its_rows_left_the_log_adds_nothing(
    file: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLWORKBENCH_LOG_KEEP", "36500 days")
    assert collect(file, home=home).new == 3
    assert move_log("birds", home=home, now=2 * time.time_ns() // 1000).rows == 3
    assert collect(file, home=home).new == 0 and read_log(home.log("birds")).height == 3
    first = json.loads(file.read_text().splitlines()[0])["log"]
    told = {name: first[name] for name in ("features", "scores", "decision", "request")}
    with pytest.raises(LogError, match=r"line 2, prediction_id: .*altered"):
        collect(rewritten(file, log(**told)), home=home)
