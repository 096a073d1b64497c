"""Which deployments a version declares, and what it decides in each of them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC

from mlworkbench.data.lake.lake import Lake
from mlworkbench.deploy.batch.one_off import score_file
from mlworkbench.deploy.edge.export import export_edge
from mlworkbench.deploy.request import require_deployment
from mlworkbench.errors import DefinitionError
from mlworkbench.evaluation.log.reader import read_log
from mlworkbench.operate.certify.reference import predict_reference
from mlworkbench.operate.replay.recompute import replay_rows
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry

FOUR = ["one_off", "batch", "realtime", "streaming"]
BARRED = "GradientBoostingClassifier upon a first model (LogisticRegression) that is no constant has no rule"


def rows(count: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({"a": random.normal(size=count), "b": random.normal(size=count)})


X = rows()
NOISY = X.a + np.random.default_rng(2).normal(size=400)
TWO = pd.Series(np.where(NOISY > 0, "yes", "no"), name="label")
FOUR_CLASSES = pd.Series([f"k{k}" for k in pd.qcut(NOISY, 4, labels=False)], name="label")


def test_a_registered_pipeline_that_compiles_can_go_everywhere_and_does(home, tmp_path) -> None:
    result = register(LogisticRegression().fit(X, TWO), X, TWO, name="late", home=home)
    version = Registry(home).open("late", result.tag)
    assert version.declaration["deployments"] == [*FOUR, "edge"] and result.notes == ()
    require_deployment(version, "streaming")
    assert export_edge(version, tmp_path / "device").files > 0


def test_what_does_not_compile_stays_off_the_device_with_the_reason_told_and_on_the_card(home) -> None:
    model = GradientBoostingClassifier(init=LogisticRegression(), n_estimators=3)
    result = register(model.fit(X, TWO), X, TWO, name="late", home=home)
    version = Registry(home).open("late", result.tag)
    assert version.declaration["deployments"] == FOUR
    card = (result.folder / "card.md").read_text()
    for told in (result.line, card):
        assert f"not deployable to edge: {BARRED}" in told
    assert "edge" in result.line and "not deployable to edge" in card


def test_deployments_narrow_and_one_that_cannot_be_is_refused_before_anything_is_written(home) -> None:
    pipeline = KNeighborsClassifier(algorithm="brute").fit(X, TWO)
    asked = {"name": "near", "home": home}
    with pytest.raises(DefinitionError, match="set algorithm='kd_tree'") as raised:
        register(pipeline, X, TWO, deployments=("batch", "edge"), **asked)
    assert raised.value.code == "definition.not_compilable"
    with pytest.raises(DefinitionError, match=r"deployments: one of one_off.*got 'stream'"):
        register(pipeline, X, TWO, deployments=("stream",), **asked)
    with pytest.raises(DefinitionError) as raised:
        register(pipeline, X, TWO, deployments=(), **asked)
    assert raised.value.code == "definition.no_deployments"
    assert Registry(home).models() == [] and not Lake(home.lake).exists("near_rows")
    result = register(pipeline, X, TWO, deployments=("batch",), **asked)
    assert Registry(home).open("near", result.tag).declaration["deployments"] == ["batch"]


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [(NearestCentroid(), TWO), (SVC(decision_function_shape="ovo"), FOUR_CLASSES), (RandomForestClassifier(4), TWO)],
    ids=["by distance", "by votes", "a forest of four"],
)
def test_file_log_replay_and_certificate_decide_as_predict_does(home, tmp_path, estimator, labels) -> None:
    pipeline = estimator.fit(X, labels)
    result = register(pipeline, X, labels, name="own", home=home)
    version, fresh = Registry(home).open("own", result.tag), rows(500, seed=1)
    assert version.declaration["predict_differs"] == 0
    fresh.to_csv(tmp_path / "fresh.csv", index=False)
    score_file(version, tmp_path / "fresh.csv", home=home, out=tmp_path / "scored.csv")
    wanted = pipeline.predict(fresh).tolist()
    with (tmp_path / "scored.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["decision"] for row in found] == wanted
    if labels is FOUR_CLASSES:
        assert {"score_k0", "score_k1", "score_k2", "score_k3"} <= set(found[0])
    log = read_log(home.log("own"))
    assert [json.loads(text) for text in log["decision"].to_list()] == wanted
    assert {one.verdict for one in replay_rows(log[:50], version, Lake(home.lake))} == {"equal"}
    assert predict_reference(version, pl.from_pandas(fresh), home=home).decisions.tolist() == wanted


class Counting(ClassifierMixin, BaseEstimator):
    """Remembers how many rows each fit was given."""

    seen: list[int] = []  # noqa: RUF012 - shared on purpose

    def fit(self, X, y):
        self.seen.append(len(X))
        self.inner_ = LogisticRegression().fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict_proba(self, X):
        return self.inner_.predict_proba(X)

    def predict(self, X):
        return self.inner_.predict(X)


def test_a_device_that_cannot_be_is_refused_on_a_small_fit_and_never_after_the_long_one(home) -> None:
    many = rows(5000)
    data = many.assign(label=np.where(many.a > 0, "yes", "no"))
    Counting.seen.clear()
    with pytest.raises(DefinitionError, match=r"slow to edge: .*fit of 3\d\d rows") as raised:
        train(ModelDefinition("slow", Counting(), data, "label", deployments=("batch", "edge")), home=home)
    assert raised.value.code == "definition.not_compilable"
    assert len(Counting.seen) == 1 and Counting.seen[0] < 400 and Registry(home).models() == []


def test_a_device_and_persons_exclude_each_other_when_they_are_declared() -> None:
    with pytest.raises(DefinitionError, match=r"deployments: edge: a device has no key.*got personal rider"):
        ModelDefinition("m", LogisticRegression(), X, "label", personal=("rider",), deployments=("edge",))


def test_a_stated_threshold_that_decides_otherwise_than_predict_is_told_and_on_the_card(home) -> None:
    data = X.assign(label=TWO)
    result = train(ModelDefinition("strict", LogisticRegression(), data, "label", threshold=0.9), home=home)
    differs = Registry(home).open("strict", result.tag).declaration["predict_differs"]
    line = f"decides otherwise than predict on {differs:,} of 400 rows (threshold 0.9 as stated)"
    assert differs > 0 and line in result.line and line in (result.folder / "card.md").read_text()
