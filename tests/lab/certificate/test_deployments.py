"""What a home knows of a version's deployments: the last measurement, and the prediction log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlworkbench.core.home import Home
from mlworkbench.errors import LogError
from mlworkbench.lab.certificate.deployments import bin_scores, read_last_measurement, summarize_deployments
from mlworkbench.lab.certificate.served import deployments_panel, render_deployments
from mlworkbench.operate.certify.verdict import DeploymentVerdict


def log_of(scores: list[list[float]], decisions: list[Any], waits: list[int], names: list[str]) -> pl.DataFrame:
    table = {"deployment": names, "scores": scores, "decision": [json.dumps(d) for d in decisions], "latency_us": waits}
    at = pl.Series("logged_at", range(len(names))).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(table).with_columns(at)


def test_the_log_is_summed_up_by_deployment() -> None:
    log = log_of([[0.5], [0.25], [1.0]], ["late", "on time", "late"], [1000, 3000, 500], ["b", "b", "a"])
    rows = summarize_deployments(log, {"task": "binary", "classes": ["on time", "late"]}).to_dicts()
    assert [row["deployment"] for row in rows] == ["a", "b"]
    assert rows[1]["rows"] == 2 and rows[1]["mean score"] == 0.375 and rows[1]["median wait, ms"] == 2.0
    assert rows[1]["share of late"] == 0.5 and rows[0]["share of on time"] == 0.0
    assert rows[1]["last logged"].microsecond == 1


def test_boolean_and_numeric_classes_are_counted_and_a_regression_has_no_shares() -> None:
    log = log_of([[0.5], [0.25]], [True, False], [1, 1], ["a", "a"])
    assert summarize_deployments(log, {"task": "binary", "classes": [False, True]})["share of True"].to_list() == [0.5]
    log = log_of([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]], [0, 2], [1, 1], ["a", "a"])
    table = summarize_deployments(log, {"task": "multiclass", "classes": [0, 1, 2]})
    assert table["share of 1"].to_list() == [0.0] and table["mean score of 2"].to_list() == [0.5]
    log = log_of([[5.0], [7.0]], [None, None], [1, 1], ["a", "a"])
    table = summarize_deployments(log, {"task": "regression", "classes": []})
    assert table.columns == ["deployment", "rows", "mean score", "median wait, ms", "last logged"]


def test_shapes_share_their_edges_and_sum_to_one() -> None:
    log = log_of([[0.0], [1.0], [0.9], [math.inf]], [None] * 4, [1] * 4, ["b", "b", "a", "a"])
    shapes = bin_scores(log, bins=10)
    assert list(shapes.shares) == ["a", "b"] and shapes.rows == {"a": 1, "b": 2}
    assert shapes.edges[0] == 0.0 and shapes.edges[-1] == 1.0
    assert all(share.sum() == pytest.approx(1.0) for share in shapes.shares.values())


def test_equal_scores_have_a_shape_too_and_no_score_is_refused() -> None:
    log = log_of([[0.5], [0.5]], [None] * 2, [1] * 2, ["a", "a"])
    assert bin_scores(log, bins=4).shares["a"].tolist() == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(LogError) as raised:
        bin_scores(log.clear())
    assert raised.value.code == "log.no_scores"


def certified(home: Home, name: str, *, rows: int) -> Path:
    """Put a certificate of another version, without signature, into a home."""
    file = home.model("birds") / "certificates" / name / "certificate.json"
    file.parent.mkdir(parents=True)
    deployments = [DeploymentVerdict("batch", "equal", rows=rows), DeploymentVerdict("edge", "not_declared")]
    told = {"version": "birds:old", "issued_at": "2013-11-01", "deployments": [one.to_dict() for one in deployments]}
    file.write_text(json.dumps(told))
    return file


def test_the_last_measurement_is_read_and_a_broken_one_refused(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    assert read_last_measurement("birds", home=home) is None
    file = certified(home, "20131101T000000-1", rows=3)
    certified(home, "20131031T000000-0", rows=2)
    certified(home, ".part-new", rows=4)
    (row,) = read_last_measurement("birds", home=home).deployments
    assert (row["deployment"], row["verdict"], row["rows"]) == ("batch", "equal", 3)
    for broken in ("[]", "{", '{"version": 1}', '{"version": 1, "issued_at": "", "deployments": [3]}'):
        file.write_text(broken)
        with pytest.raises(LogError, match=r"20131101T000000-1 of 'birds'.*certify the version again"):
            read_last_measurement("birds", home=home)


def test_a_measurement_of_another_version_says_so(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    certified(home, "20131101T000000-1", rows=3)
    version = SimpleNamespace(model="birds", version="birds:new", declaration={"task": "regression"})
    page = render_deployments(version, home=home)
    assert "of another version, birds:old" in page and ">batch</td>" in page and "Nothing logged yet" in page


def test_the_deployments_of_the_log_are_shown_and_looked_at_again(rooms) -> None:
    version = rooms.open("birds")
    body, again = deployments_panel(version, home=rooms.home).children
    assert all(part in body.value for part in (">one_off</td>", ">40</td>", "share of Gentoo", "svg"))
    body.value = ""
    again.click()
    assert "one_off" in body.value
