"""Two models are compared on the same rows: versions, files, services; equal or not, by how much, and where."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlworkbench.errors import DefinitionError, DeploymentError, WorkbenchError
from mlworkbench.operate.certify.endpoint import open_endpoint
from mlworkbench.operate.certify.endpoint_certificate import draw_asked_rows
from mlworkbench.operate.loop.compare import compare_models
from mlworkbench.operate.loop.sides import open_ground
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.artifacts.skops_file import dump_pipeline
from mlworkbench.scoring.registry.registry import Registry

COUNT = 400


def flights() -> tuple[pd.DataFrame, pd.Series]:
    draws = np.random.default_rng(7)
    X = pd.DataFrame({"distance": draws.uniform(1, 25, COUNT), "carrier": draws.choice(["AA", "UA", "DL"], COUNT)})
    return X, pd.Series(X["distance"] + 9 * (X["carrier"] == "UA") + draws.normal(0, 4, COUNT) > 15, name="late")


def fitted(rows=slice(None)) -> object:
    X, y = flights()
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), ["carrier"]), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=20)).fit(X[rows], y[rows])


@pytest.fixture
def home_of_two(home, made_once):
    """A home with two versions: the second never saw a long flight of UA."""
    X, y = flights()
    seen = ~((X["carrier"] == "UA") & (X["distance"] > 6))

    def make() -> None:
        tags = [register(model, X, y, name="late", home=home).tag for model in (fitted(), fitted(seen))]
        (home.path / "tags.json").write_text(json.dumps(tags))

    made_once("compared", home, make)
    return home


@pytest.fixture
def versions(home_of_two):
    tags = json.loads((home_of_two.path / "tags.json").read_text())
    found = [Registry(home_of_two).open("late", tag) for tag in tags]
    return [replace(one, declaration={**one.declaration, "groups": ["carrier"]}) for one in found]


@pytest.fixture
def ground(versions, home):
    return open_ground(versions[0], draw_asked_rows(versions[0], home=home), home=home)


@pytest.fixture
def some(versions, home):
    """Fewer rows, for services."""
    return open_ground(versions[0], draw_asked_rows(versions[0], home=home, rows=100), home=home)


@pytest.fixture
def serve():
    """Serve functions of a data frame, each at its name; a function that raises refuses the rows."""
    servers = []

    def served(**functions):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                rows = pd.DataFrame(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                try:
                    status, told = 200, functions[self.path[1:]](rows)
                except ValueError:
                    status, told = 422, {"detail": "no"}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(told).encode())

            def log_message(self, *words):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return {name: open_endpoint(f"http://127.0.0.1:{server.server_port}/{name}") for name in functions}

    yield served
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_file_that_holds_the_same_pipeline_is_equal_in_either_order(versions, ground, tmp_path) -> None:
    dump_pipeline(fitted(), tmp_path / "copy.skops")
    for sides in ((versions[0], tmp_path / "copy.skops"), (tmp_path / "copy.skops", versions[0])):
        found = compare_models(*sides, ground)
        facts = found.facts
        assert (found.verdict, found.refusal, facts["mismatches"], facts["rows"]) == ("equal", "", 0, COUNT)
        assert facts["scores"]["differing"] == 0 and facts["turned"] == facts["places"] == []
        assert "copy.skops" in (facts["first"], facts["second"])
        page = found.page.read_text()
        assert page.count("<img") == 1 and '<span class="verdict equal">' in page


def test_a_retrained_version_differs_where_it_saw_nothing_else(versions, ground) -> None:
    found = compare_models(*versions, ground)
    facts = found.facts
    json.dumps(facts, allow_nan=False)
    assert found.verdict == "refused" and "are not proved equal on 400 rows" in found.refusal
    assert facts["compared"] == "scores and decisions" and facts["mismatches"] == facts["scores"]["differing"] > 0
    assert 0 < facts["scores"]["50 %"] < facts["scores"]["99 %"] <= facts["scores"]["largest"]
    assert {place["column"] for place in facts["places"]} == {"carrier", "distance"}
    assert next(place["where"] for place in facts["places"] if place["column"] == "carrier") == "UA"
    assert {one["group"]: one["rows"] for one in facts["groups"]}.keys() == {"AA", "UA", "DL"}
    assert sum(one["turned"] for one in facts["groups"]) == sum(one["rows"] for one in facts["turned"]) > 20
    assert max(facts["groups"], key=lambda one: one["turned"])["group"] == "UA"
    tags = [version.version for version in versions]
    metrics = {side: found["value"] for side, found in facts["metrics"]["log_loss"].items()}
    assert list(metrics) == tags and metrics[tags[0]] < metrics[tags[1]]
    page = found.page.read_text()
    assert page.count("<img") == 2 and '<span class="verdict not_equal">not equal</span>' in page
    assert all(
        f"<h2>{title}" in page for title in ("Decisions that are turned", "Where they part", "By group", "Metrics")
    )
    assert not re.search(r"<(script|link)|https?://(?!www\.w3)", page)
    back = compare_models(*reversed(versions), ground).facts
    assert (back["mismatches"], back["scores"]) == (facts["mismatches"], facts["scores"])
    mirrored = [{"from": one["to"], "to": one["from"], "rows": one["rows"]} for one in back["turned"]]
    assert sorted(mirrored, key=str) == sorted(facts["turned"], key=str)


def test_a_version_is_equal_to_itself(versions, ground) -> None:
    found = compare_models(versions[0], versions[0], ground)
    assert found.verdict == "equal" and found.facts["second"].endswith("(second)")
    accuracy = found.facts["metrics"]["accuracy"]
    assert len(accuracy) == 2 and len({one["value"] for one in accuracy.values()}) == 1


def test_two_services_are_compared_on_the_rows_of_a_model(some, serve) -> None:
    model = fitted()
    served = serve(
        right=lambda rows: model.predict_proba(rows).tolist(),
        again=lambda rows: [{"score": one} for one in model.predict_proba(rows)[:, 1]],
        wrong=lambda rows: model.predict_proba(rows.assign(carrier="AA"))[:, 1].tolist(),
        short=lambda rows: model.predict_proba(rows)[:, 1].round(2).tolist(),
        labels=lambda rows: model.predict(rows).tolist(),
        others=lambda rows: model.predict(rows.assign(carrier="AA")).tolist(),
    )
    assert compare_models(served["right"], served["again"], some).verdict == "equal"
    found = compare_models(served["right"], served["wrong"], some)
    assert found.verdict == "refused" and found.facts["places"][0]["column"] == "carrier"
    assert found.facts["places"][0]["where"] == "UA" and "AA" not in found.facts["places"][0]["where"]
    for sides in (("right", "short"), ("short", "right")):
        found = compare_models(*(served[name] for name in sides), some)
        told = f"scores of {served['short'].address} are those of {served['right'].address}, rounded to 2 decimals"
        assert found.verdict == "refused" and found.facts["remarks"] == [told]
    alike = compare_models(served["right"], served["labels"], some)
    assert (alike.verdict, alike.facts["compared"], alike.facts["scores"]) == ("equal", "decisions", None)
    assert list(alike.facts["metrics"]["accuracy"]) == [served["right"].address]  # labels alone are not measured
    found = compare_models(served["labels"], served["others"], some)
    assert (found.verdict, found.facts["compared"], found.facts["metrics"]) == ("refused", "decisions", {})
    assert found.facts["mismatches"] == sum(one["rows"] for one in found.facts["turned"]) > 0
    assert "<img" not in found.page.read_text()


def test_rows_that_one_side_does_not_answer_make_two_unequal(versions, some, serve) -> None:
    model = fitted()

    def picky(rows):
        if (rows["distance"] > 22).any():
            raise ValueError
        return model.predict_proba(rows).tolist()

    side = serve(picky=picky)["picky"]
    long = int((some.asked.table["distance"] > 22).sum())
    found = compare_models(versions[0], side, some)
    assert (found.verdict, found.facts["missing"], found.facts["mismatches"]) == ("refused", long, 0)
    assert found.facts["scores"]["rows"] == 100 - long and "refused with status 422" in found.facts["remarks"][0]
    back = compare_models(side, versions[0], some)
    assert (back.verdict, back.facts["missing"], back.facts["unexpected"]) == ("refused", 0, long)


def test_rows_of_a_file_bring_their_labels(versions, home, tmp_path) -> None:
    X, y = flights()
    X.assign(late=y)[:50].to_csv(tmp_path / "some.csv", index=False)
    asked = draw_asked_rows(versions[0], home=home, rows=str(tmp_path / "some.csv"))
    found = compare_models(*versions, open_ground(versions[0], asked, home=home))
    assert (found.facts["rows"], found.facts["metrics"]["accuracy"][versions[0].version]["n"]) == (50, 50)
    bare = replace(asked, table=asked.table.drop("late"))
    assert compare_models(*versions, open_ground(versions[0], bare, home=home)).facts["metrics"] == {}
    odd = replace(asked, table=asked.table.with_columns(pl.lit("perhaps").alias("late")))
    found = compare_models(*versions, open_ground(versions[0], odd, home=home))
    assert found.facts["metrics"] == {} and "metrics were not measured: label 'perhaps'" in found.facts["remarks"][0]


def test_personal_columns_are_named_nowhere(versions, home) -> None:
    hidden = [
        replace(
            one,
            request=replace(one.request, columns=tuple(replace(c, personal=True) for c in one.request.columns)),
            frame=replace(one.frame, columns=tuple(replace(c, personal=True) for c in one.frame.columns)),
        )
        for one in versions
    ]
    found = compare_models(*hidden, open_ground(hidden[0], draw_asked_rows(hidden[0], home=home), home=home))
    assert found.verdict == "refused" and found.facts["places"] == found.facts["groups"] == []


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_several_classes_and_regressions_are_compared(home, tmp_path, serve) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    other = LogisticRegression(max_iter=500, C=0.1).fit(X, y)
    dump_pipeline(other, tmp_path / "other.skops")
    model = LogisticRegression(max_iter=500).fit(X, y)
    iris = Registry(home).open("iris", register(model, X, y, name="iris", home=home).tag)
    found = compare_models(
        iris, tmp_path / "other.skops", open_ground(iris, draw_asked_rows(iris, home=home), home=home)
    )
    assert found.verdict == "refused" and found.facts["scores"]["differing"] == 150
    assert len(found.facts["metrics"]["roc_auc"]) == 2 and found.page.read_text().count("<img") == 1
    width = X.pop("petal width (cm)")
    dump_pipeline(LinearRegression().fit(X[:70], width[:70]), tmp_path / "line.skops")
    line = Registry(home).open(
        "width", register(LinearRegression().fit(X, width), X, width, name="width", home=home).tag
    )
    ground = open_ground(line, draw_asked_rows(line, home=home), home=home)
    found = compare_models(line, tmp_path / "line.skops", ground)
    assert (found.verdict, found.facts["compared"], found.facts["turned"]) == ("refused", "scores", [])
    assert set(found.facts["metrics"]) == {"mae", "rmse", "r2"} and found.page.read_text().count("<img") == 2
    huge = serve(huge=lambda rows: [1.5e308 * (-1) ** k for k in range(len(rows))])["huge"]
    assert compare_models(line, huge, ground).verdict == "refused"
    assert compare_models(huge, huge, ground).verdict == "equal"
    with pytest.raises(DefinitionError, match="has the task 'multiclass'"):
        compare_models(line, iris, ground)
    with pytest.raises(DefinitionError, match=r"other\.skops has the classes \[0, 1, 2\]"):
        compare_models(line, tmp_path / "other.skops", ground)


def test_what_cannot_be_compared_is_one_line(versions, some, tmp_path, serve) -> None:
    X, y = flights()
    dump_pipeline(LogisticRegression().fit(X[["distance"]].assign(wind=1.0), y), tmp_path / "wind.skops")
    (tmp_path / "text.skops").write_text("no zip")
    model = fitted()
    served = serve(labels=lambda rows: model.predict(rows).tolist())
    asks = {**versions[0].declaration, "decision": {"rule": "predict"}}
    strange = replace(some, version=replace(versions[0], declaration=asks))
    scores = serve(scores=lambda rows: model.predict_proba(rows)[:, 1].tolist())["scores"]
    cases = [
        (some, versions[0], tmp_path / "none.skops", "there is no such file"),
        (some, versions[0], tmp_path / "text.skops", "text.skops: pipeline.skops, archive: a skops file"),
        (some, versions[0], tmp_path / "wind.skops", "wind.skops cannot be asked for the features of late:"),
        (strange, scores, served["labels"], "nothing can be compared: one says scores, the other decisions"),
    ]
    for where, first, second, said in cases:
        with pytest.raises(WorkbenchError) as error:
            compare_models(first, second, where)
        assert said in str(error.value)
    with pytest.raises(DeploymentError, match="does not answer"):
        compare_models(versions[0], open_endpoint("http://127.0.0.1:9"), some)
