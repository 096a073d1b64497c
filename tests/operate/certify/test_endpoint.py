"""A service that is not ours is held against a version: a right one, wrong ones, slow, protected and broken ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import uvicorn
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mlworkbench.core.home import Home
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import DeploymentError, RefusedError, find_exit_code
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.certify.certificate import verify_certificate
from mlworkbench.operate.certify.endpoint import ask_endpoint, open_endpoint
from mlworkbench.operate.certify.endpoint_certificate import (
    certify_endpoint,
    draw_asked_rows,
    find_parting_column,
    make_reference_ask,
    write_records,
)
from mlworkbench.operate.certify.reference import predict_reference
from mlworkbench.operate.certify.wire import ModelAnswers
from mlworkbench.operate.training.register import register
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.artifacts.skops_file import dump_pipeline
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.evidence import find_objection
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.registry.tables import read_record

COUNT = 120


def rows_and_labels() -> tuple[pd.DataFrame, pd.Series]:
    draws = np.random.default_rng(5)
    X = pd.DataFrame(
        {
            "distance": draws.uniform(1, 25, COUNT),
            "carrier": draws.choice(["AA", "UA", "DL"], COUNT),
            "wind": draws.uniform(0, 40, COUNT),
        }
    )
    X.loc[::8, "wind"] = np.nan
    noise = draws.normal(0, 4, COUNT)
    return X, pd.Series(X["distance"] + X["wind"].fillna(20) + 9 * (X["carrier"] == "UA") + noise > 36, name="late")


def fitted() -> object:
    X, y = rows_and_labels()
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), (SimpleImputer(), ["distance", "wind"])
    )
    return make_pipeline(columns, LogisticRegression(max_iter=2000)).fit(X, y)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for all tests: a certificate of an address changes nothing for the next one."""
    folder = tmp_path_factory.mktemp("endpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        patch.setenv("MLWORKBENCH_HOME", str(folder / "home"))
        yield Home.open(folder / "home")


@pytest.fixture(scope="module")
def version(home):
    X, y = rows_and_labels()
    return Registry(home).open("late", register(fitted(), X, y, name="late", home=home).tag)


class Services:
    """Many services behind one port, each at its own path; what was asked is counted."""

    def __init__(self, pipeline) -> None:
        self.pipeline, self.asked, self.headers, self.url = pipeline, [], [], ""
        paths = ["{name}", "v2/models/late/infer", "slow/{name}"]
        self.app = Starlette(routes=[Route(f"/{path}", self.answer, methods=["POST", "GET"]) for path in paths])

    async def answer(self, request) -> Response:
        name = request.path_params.get("name", "infer")
        body = json.loads(await request.body() or "null")
        self.asked.append(name)
        self.headers.append(dict(request.headers))
        return getattr(self, name)(body)

    def frame(self, rows) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=["distance", "carrier", "wind"]).astype({"distance": float, "wind": float})

    def right(self, rows):
        return JSONResponse([{"score": one} for one in self.pipeline.predict_proba(self.frame(rows))[:, 1]])

    def probabilities(self, rows):
        return JSONResponse({"predictions": self.pipeline.predict_proba(self.frame(rows)).tolist()})

    def labels(self, rows):
        return JSONResponse(self.pipeline.predict(self.frame(rows)).tolist())

    def zeros(self, rows):
        return JSONResponse(self.pipeline.predict_proba(self.frame(rows).fillna({"wind": 0}))[:, 1].tolist())

    def cased(self, rows):
        frame = self.frame(rows)
        frame["carrier"] = frame["carrier"].replace("UA", "ua")
        return JSONResponse(self.pipeline.predict_proba(frame)[:, 1].tolist())

    def miles(self, rows):
        frame = self.frame(rows)
        frame["distance"] *= 1.609
        return JSONResponse(self.pipeline.predict_proba(frame)[:, 1].tolist())

    def turned(self, rows):
        frame = self.frame(rows)
        frame["carrier"] = "AA"
        return JSONResponse(self.pipeline.predict(frame).tolist())

    def other(self, rows):
        return JSONResponse([0.1 + 0.5 * one for one in self.pipeline.predict_proba(self.frame(rows))[:, 1]])

    def rounded(self, rows):
        return JSONResponse(self.pipeline.predict_proba(self.frame(rows))[:, 1].round(3).tolist())

    def single(self, rows):
        return JSONResponse(self.pipeline.predict_proba(self.frame(rows))[:, 1].astype(np.float32).tolist())

    def invocations(self, body):
        split = body["dataframe_split"]
        rows = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
        return JSONResponse({"predictions": self.pipeline.predict(self.frame(rows)).tolist()})

    def infer(self, body):
        columns = {one["name"]: one["data"] for one in body["inputs"]}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        scores = self.pipeline.predict_proba(self.frame(rows))
        labels = {"name": "predict", "datatype": "BYTES", "shape": [len(rows)], "data": ["no"] * len(rows)}
        data = {"name": "predict_proba", "datatype": "FP64", "shape": list(scores.shape)}
        return JSONResponse({"outputs": [labels, {**data, "data": scores.ravel().tolist()}]})

    def busy(self, rows):
        if self.asked.count("busy") < 3:
            return PlainTextResponse("later", 503)
        return self.right(rows)

    def down(self, rows):
        return PlainTextResponse("later", 503)

    def picky(self, rows):
        if any(row["wind"] is None for row in rows):
            return JSONResponse({"detail": f"no wind of {rows[0]['carrier']}"}, 422)
        return self.right(rows)

    def never(self, rows):
        return JSONResponse({"detail": "field required"}, 422)

    def nan(self, rows):
        scores = self.pipeline.predict_proba(self.frame(rows))[:, 1]
        texts = ["NaN" if row["wind"] is None else repr(float(one)) for row, one in zip(rows, scores, strict=True)]
        return Response(f"[{', '.join(texts)}]", media_type="application/json")

    def text(self, rows):
        return PlainTextResponse("<html>welcome</html>")

    def short(self, rows):
        return JSONResponse([0.5] * (len(rows) - 1))

    def two(self, rows):
        return JSONResponse({"a": [0.5] * len(rows), "b": [0.5] * len(rows)})

    def deep(self, rows):
        return Response("[" * 100_000, media_type="application/json")

    def moved(self, rows):
        return Response(status_code=307, headers={"Location": "/right"})

    def locked(self, rows):
        good = self.headers[-1].get("authorization") == "Bearer of-ada"
        return self.right(rows) if good else JSONResponse({"detail": "who are you?"}, 401)


@pytest.fixture(scope="module")
def services():
    made = Services(fitted())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(made.app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    made.url = f"http://127.0.0.1:{port}"
    yield made
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture(autouse=True)
def forgotten(services) -> None:
    services.asked.clear()
    services.headers.clear()


def held(version, home, url, wire="records", *, rows=None, **more):
    endpoint = open_endpoint(url, wire, model="late", **more)
    return certify_endpoint(version, endpoint, draw_asked_rows(version, home=home, rows=rows), home=home)


@pytest.mark.parametrize(
    ("path", "wire", "compared"),
    [
        ("/right", "records", "scores and decisions"),
        ("/probabilities", "records", "scores and decisions"),
        ("/labels", "records", "decisions"),
        ("", "mlflow", "decisions"),
        ("/invocations", "mlflow", "decisions"),
        ("", "v2", "scores and decisions"),
        ("/v2/models/late/infer", "v2", "scores and decisions"),
        ("/right#", "records", "scores and decisions"),
    ],
)
def test_a_right_model_behind_a_service_is_equal_in_each_format(version, home, services, path, wire, compared) -> None:
    found = held(version, home, services.url + path, wire)
    assert (found.verdict, found.refusal, found.first) == ("equal", "", {})
    row = found.fields["deployments"][0]
    assert (row["rows"], row["missing"], row["mismatches"], row["finding"]) == (COUNT, 0, 0, "")
    assert found.fields["compared"] == compared and found.fields["address"].startswith(services.url)
    assert row["max_difference"] is None if compared == "decisions" else row["max_difference"] <= version.tolerance
    assert row["latency_rows"] == 1 and row["latency_us"] > 0


@pytest.mark.parametrize(
    ("path", "finding"),
    [
        ("zeros", "step features, wind, row 0"),
        ("cased", "step features, carrier, row"),
        ("turned", "step features, carrier, row"),
        ("miles", "step features, distance, row 0"),
        ("other", "step answer, score, row 0"),
        ("rounded", "step answer, score rounded to 3 decimals, row 0"),
        ("single", "step answer, score in single precision, row 0"),
    ],
)
def test_a_wrong_model_is_refused_with_the_row_and_the_column_where_it_can_be_named(
    version, home, services, path, finding
) -> None:
    found = held(version, home, f"{services.url}/{path}")
    row = found.fields["deployments"][0]
    assert found.verdict == "refused" and row["finding"].startswith(finding)
    assert 0 < row["mismatches"] <= COUNT and found.refusal.startswith(f"{services.url}/{path} does not answer")
    first = found.first
    assert f"row {first['row']}" in row["finding"] and first["expected"] != first["answered"]
    assert set(first["sent"]) == {"distance", "carrier", "wind"}
    assert (found.summary["turned"] > 0) == (path in ("zeros", "cased", "turned", "miles", "other"))
    assert f"({found.summary['turned']} decisions turned)" in found.page.read_text()
    assert str(first["sent"]["distance"]) not in found.path.read_text() + found.page.read_text()


def test_rows_that_a_service_refuses_are_missing_and_the_others_are_compared(version, home, services) -> None:
    found = held(version, home, f"{services.url}/picky")
    row = found.fields["deployments"][0]
    missing = COUNT // 8
    assert (row["verdict"], row["missing"], row["mismatches"]) == ("refused", missing, 0)
    assert row["reason"] == "row 0: refused with status 422"
    assert "no wind of" not in found.path.read_text() + found.page.read_text()


def test_a_score_that_is_no_number_is_a_missing_answer(version, home, services) -> None:
    row = held(version, home, f"{services.url}/nan").fields["deployments"][0]
    assert (row["missing"], row["mismatches"]) == (COUNT // 8, 0)
    assert row["reason"] == "row 0: a finite score is needed; got null"


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("text", "endpoint.not_json", "an answer in JSON is needed"),
        ("deep", "endpoint.not_json", "an answer in JSON is needed"),
        ("short", "endpoint.answer_form", "a list of 1 answers for 1 rows is needed; got 0"),
        ("two", "endpoint.answer_form", "got no list that is the only one"),
        ("never", "endpoint.no_row", "answered no row: status 422: {"),
        ("moved", "endpoint.status", "answers 307"),
        ("locked", "endpoint.status", "answers 401 Unauthorized; check the address, --format and --header-env"),
        ("nowhere/at/all", "endpoint.status", "answers 404 Not Found"),
    ],
)
def test_a_service_that_cannot_be_compared_is_one_line(version, home, services, path, code, said) -> None:
    before = list((home.model("late") / "certificates").glob("endpoint-*"))
    with pytest.raises(DeploymentError) as error:
        held(version, home, f"{services.url}/{path}")
    assert error.value.code == code and said in str(error.value) and find_exit_code(error.value) == 2
    assert list((home.model("late") / "certificates").glob("endpoint-*")) == before
    assert len(services.asked) <= 60


def test_a_busy_service_is_asked_again_and_one_that_stays_down_may_be_tried_later(version, home, services) -> None:
    assert held(version, home, f"{services.url}/busy", rows=5).verdict == "equal"
    with pytest.raises(DeploymentError) as error:
        held(version, home, f"{services.url}/down", rows=5)
    assert (error.value.code, find_exit_code(error.value)) == ("endpoint.no_answer", 75)
    assert services.asked.count("down") == 4
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(DeploymentError, match="does not answer") as error:
        held(version, home, nobody, rows=5)
    assert find_exit_code(error.value) == 75


def test_a_header_comes_from_the_environment_and_stands_nowhere(version, home, services, monkeypatch) -> None:
    monkeypatch.setenv("LATE_HEADER", "Authorization: Bearer of-ada")
    found = held(version, home, f"{services.url}/locked?key=of-ada", header="LATE_HEADER", rows=20)
    assert found.verdict == "equal" and found.fields["address"] == f"{services.url}/locked"
    told = found.path.read_text() + found.page.read_text()
    assert "of-ada" not in told + repr(open_endpoint(services.url, header="LATE_HEADER"))
    for value in ("", "Bearer of-ada", "Autho rization: x", "Authorization:", "Authorization: Bearer of-ada\u00c9"):
        monkeypatch.setenv("LATE_HEADER", value)
        with pytest.raises(DeploymentError, match="LATE_HEADER holds no header") as error:
            open_endpoint(services.url, header="LATE_HEADER")
        assert "of-ada" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "more", "code"),
    [
        ("scores.example", {}, "endpoint.url"),
        ("ftp://scores.example", {}, "endpoint.url"),
        ("http://", {}, "endpoint.url"),
        ("http://host:99999/x", {}, "endpoint.url"),
        ("http://ada:secret@host/x", {}, "endpoint.secret"),
        ("ada:secret@host/x", {}, "endpoint.secret"),
        ("https:/ada:secret@host/x", {}, "endpoint.secret"),
        ("//ada:secret@host/x", {}, "endpoint.secret"),
        ("https://h\u2100ada:secret@x/", {}, "endpoint.secret"),
        ("ftp://host/x?token=secret", {}, "endpoint.url"),
        ("http://[::1/x?token=secret", {}, "endpoint.url"),
        ("http://host/x", {"wire": "grpc"}, "endpoint.format"),
        ("http://host/x", {"sent": "labels"}, "endpoint.sent"),
    ],
)
def test_what_is_no_address_is_refused_and_a_password_is_not_repeated(url, more, code) -> None:
    with pytest.raises(DeploymentError) as error:
        open_endpoint(url, **more)
    assert error.value.code == code and "secret" not in str(error.value)


def test_a_certificate_of_an_address_is_signed_lies_beside_the_others_and_promotes_nothing(
    version, home, services
) -> None:
    found = held(version, home, f"{services.url}/right")
    assert found.path.parent.parent == home.model("late") / "certificates"
    status, line = verify_certificate(found.path, home=home)
    assert status == "valid" and f"{services.url}/right against {version.version}, equal, {COUNT} rows" in line
    assert "it allows no promotion" in found.page.read_text()
    registry = Registry(home)
    assert registry.certificates.of(version.version) == []
    with pytest.raises(RefusedError, match="has a certificate"):
        registry.promote("late", version.version, who="Ada", why="the service is equal")
    registry.certificates.add(read_record(found.path, home=home))  # forced into the registry it counts as little
    with pytest.raises(RefusedError, match="is of an address, not of the version's deployments"):
        registry.promote("late", version.version, who="Ada", why="the service is equal")
    forged = {**found.fields, "deployments": [{"deployment": "batch", "verdict": "equal"}]}
    assert "is of an address" in find_objection(forged, version.manifest, ["batch"])
    page = found.page
    page.write_text(page.read_text().replace("equal", "splendid"))
    assert verify_certificate(found.path, home=home)[0] == "altered"


def test_rows_of_a_file_are_asked_and_those_that_break_the_contract_are_left_out(
    version, home, services, tmp_path
) -> None:
    X, y = rows_and_labels()
    file = tmp_path / "october.csv"
    X.assign(late=y).to_csv(file, index=False)
    text = file.read_text().splitlines()
    text[3] = text[3].replace(text[3].split(",")[0], "far", 1)
    file.write_text("\n".join(text) + "\n")
    for path in ("right", "labels"):
        found = held(version, home, f"{services.url}/{path}", rows=str(file))
        assert (found.verdict, found.fields["rows"], found.fields["rejected"]) == ("equal", COUNT - 1, 1)
    found = held(version, home, f"{services.url}/zeros", rows=str(file), sent="request")
    assert found.verdict == "refused" and found.fields["deployments"][0]["finding"] == "step request, wind, row 0"
    X.drop(columns="wind").to_csv(file, index=False)
    with pytest.raises(Exception, match="column 'wind' is needed") as error:
        held(version, home, f"{services.url}/right", rows=str(file))
    assert find_exit_code(error.value) == 2


def test_a_row_of_persons_is_not_shown(version, home, services) -> None:
    hidden = replace(version.request, columns=tuple(replace(one, personal=True) for one in version.request.columns))
    found = held(replace(version, request=hidden), home, f"{services.url}/zeros")
    assert found.verdict == "refused" and "sent" not in found.first


@pytest.mark.long
def test_our_own_service_is_certified_like_any_other(version, home) -> None:
    from mlworkbench.deploy.realtime.process import start_service

    with start_service("late", home=home, version=version.version) as service:
        found = held(version, home, f"{service.url}/score", rows=60, sent="request")
    assert (found.verdict, found.fields["compared"]) == ("equal", "scores and decisions")


def test_the_column_is_found_by_asking_again_and_none_is_named_where_all_differ() -> None:
    records = [{"a": float(k), "b": float(k % 3)} for k in range(30)]

    def model(weight):
        def ask(rows):
            scores = [row["a"] + (weight if row["b"] == 2 else 1) * row["b"] for row in rows]
            return ModelAnswers(list(range(len(rows))), np.array(scores), None)

        return ask

    found = find_parting_column(records[2::3], records[:2], asks=(model(1), model(2)), tolerance=1e-9)
    assert found == ("b", 1.0)

    def shifted(rows):
        return replace(model(1)(rows), scores=model(1)(rows).scores + 1)

    assert find_parting_column(records[:2], records[5:7], asks=(model(1), shifted), tolerance=1e-9) == ("", 0.0)

    def refuses(rows):
        raise DeploymentError("no", code="endpoint.no_row")

    assert find_parting_column(records[:2], records[2:3], asks=(model(1), refuses), tolerance=1e-9) == ("", 0.0)


def test_a_list_that_is_refused_is_halved_and_one_that_refuses_all_is_left_alone(services) -> None:
    declaration = {"task": "binary", "classes": [False, True], "positive": True}
    rows = [{"distance": 3.0, "carrier": "AA", "wind": None if k % 50 == 49 else 4.0} for k in range(600)]
    found = ask_endpoint(open_endpoint(f"{services.url}/picky"), rows, declaration)
    assert len(found.rows) == 588 and found.refused == "row 49: refused with status 422"
    assert len(services.asked) < 124 + 12 * 14
    services.asked.clear()
    with pytest.raises(DeploymentError, match="answered no row"):
        ask_endpoint(open_endpoint(f"{services.url}/never"), rows, declaration)
    assert len(services.asked) < 50


def test_what_a_service_says_of_rows_of_persons_is_not_repeated(services) -> None:
    declaration = {"task": "binary", "classes": [False, True], "positive": True, "personal": ["carrier"]}
    with pytest.raises(DeploymentError, match="answered no row: status 422; check") as error:
        ask_endpoint(open_endpoint(f"{services.url}/never"), [{"carrier": "Ada"}], declaration)
    assert "field required" not in str(error.value)


def test_an_answer_without_end_is_left(services, monkeypatch) -> None:
    from mlworkbench.operate.certify import endpoint

    monkeypatch.setattr(endpoint, "LARGEST", 100)
    declaration = {"task": "binary", "classes": [False, True], "positive": True}
    rows = [{"distance": 3.0, "carrier": "AA", "wind": 4.0}] * 20
    with pytest.raises(DeploymentError, match="got more; is it the right address") as error:
        ask_endpoint(open_endpoint(f"{services.url}/right"), rows, declaration)
    assert error.value.code == "endpoint.too_large"
    monkeypatch.setattr(endpoint, "WHOLE", -1.0)
    with pytest.raises(DeploymentError, match="an answer took over") as error:
        ask_endpoint(open_endpoint(f"{services.url}/right"), rows, declaration)
    assert find_exit_code(error.value) == 75


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "xn--a.example"])
def test_a_host_that_is_no_name_is_one_line_without_the_query(host) -> None:
    with pytest.raises(DeploymentError) as error:
        ask_endpoint(
            open_endpoint(f"http://{host}/x?token=secret"), [{"x": 1.0}], {"task": "regression", "classes": []}
        )
    assert (error.value.code, find_exit_code(error.value)) == ("endpoint.url", 2) and "secret" not in str(error.value)


def test_headers_that_drip_have_an_end_too(monkeypatch) -> None:
    from mlworkbench.operate.certify import endpoint

    monkeypatch.setattr(endpoint, "WHOLE", 0.5)
    monkeypatch.setattr(endpoint, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            with contextlib.suppress(OSError), listening.accept()[0] as asked:
                asked.sendall(b"HTTP/1.1 200 OK\r\nX-A: ")
                for _ in range(50):
                    asked.sendall(b"a")
                    time.sleep(0.1)

        thread, began = threading.Thread(target=drip, daemon=True), time.monotonic()
        thread.start()
        with pytest.raises(DeploymentError, match="an answer took over"):
            ask_endpoint(
                open_endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}"),
                [{"x": 1.0}],
                {"task": "regression", "classes": []},
            )
        assert time.monotonic() - began < 3
        thread.join(timeout=10)


def test_a_certificate_of_tls_that_nobody_knows_ends_it(tmp_path) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def greet():
            with contextlib.suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True):
                pass

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        with pytest.raises(DeploymentError, match="its TLS certificate does not hold") as error:
            ask_endpoint(
                open_endpoint(f"https://127.0.0.1:{port}/x"), [{"x": 1.0}], {"task": "regression", "classes": []}
            )
        thread.join(timeout=10)
    assert (error.value.code, find_exit_code(error.value)) == ("endpoint.tls", 2)


def test_values_of_views_are_sent_as_features_and_times_of_a_request_as_text(home) -> None:
    start = datetime(2013, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(48)]
    draws = np.random.default_rng(2)
    wind = {"origin": ["JFK"] * 48, "available_at": hours, "wind": draws.uniform(0, 30, 48)}
    Lake(home.lake).append("weather", pl.DataFrame(wind).to_arrow())
    times = [start + timedelta(minutes=15 * n) for n in range(150)]
    data = pl.DataFrame({"at": times, "origin": ["JFK"] * 150, "distance": draws.uniform(1, 25, 150)})
    data = data.with_columns(late=pl.Series(draws.integers(0, 2, 150)))
    view = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=3))
    fields = {"prediction_time": "at", "views": (view,), "features": ("distance", "wind")}
    model = make_pipeline(SimpleImputer(), LogisticRegression())
    definition = ModelDefinition("windy", model, data, "late", **fields)
    windy = Registry(home).open("windy", train(definition, home=home).tag)
    asked = draw_asked_rows(windy, home=home, rows=40, definition=definition)
    reference = predict_reference(windy, asked.requests(windy), home=home)
    features = write_records(windy, asked, reference)
    assert list(features[0]) == ["distance", "wind"] and isinstance(features[5]["wind"], float)
    requests = write_records(windy, asked, reference, sent="request")
    assert set(requests[0]) == set(windy.request.names) and requests[0]["at"].endswith("+00:00")
    for sent, records in (("features", features), ("request", requests)):
        again = make_reference_ask(windy, home=home, sent=sent)(records)
        assert np.allclose(again.scores, reference.scores, atol=1e-12, rtol=0)


SERVICE = """
import os
import bentoml
import pandas as pd
import skops.io

PATH = os.environ["LATE_PIPELINE"]
PIPELINE = skops.io.load(PATH, trusted=skops.io.get_untrusted_types(file=PATH))


def read(rows):
    return pd.DataFrame(rows).astype({"distance": float, "wind": float})


@bentoml.service
class Late:
    @bentoml.api
    def predict(self, rows: list[dict]) -> list[float]:
        return PIPELINE.predict_proba(read(rows))[:, 1].tolist()

    @bentoml.api
    def wrong(self, rows: list[dict], /) -> list[float]:
        return PIPELINE.predict_proba(read(rows).fillna(0))[:, 1].tolist()

    @bentoml.api
    def two(self, rows: list[dict], limit: int) -> list[float]:
        return PIPELINE.predict_proba(read(rows))[:, 1].tolist()
"""


def wait_for(url, process) -> None:
    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def bento(tmp_path):
    """`bentoml serve` of a plain service of twenty lines."""
    dump_pipeline(fitted(), tmp_path / "late.skops")
    (tmp_path / "plain.py").write_text(SERVICE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("bentoml")
    words = [program, "serve", "plain:Late", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LATE_PIPELINE": str(tmp_path / "late.skops"), "BENTOML_HOME": str(tmp_path / "bento")}
    environment |= {"BENTOML_DO_NOT_TRACK": "true"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.system
def test_a_typed_service_of_bentoml_says_itself_how_its_argument_is_called(version, home, bento) -> None:
    found = held(version, home, f"{bento}/predict", "bento", rows=120)
    assert (found.verdict, found.fields["compared"]) == ("equal", "scores and decisions")
    assert held(version, home, f"{bento}/predict#rows", "bento", rows=20).verdict == "equal"
    wrong = held(version, home, f"{bento}/wrong", "bento", rows=120)
    assert wrong.verdict == "refused" and "step features, wind, row" in wrong.fields["deployments"][0]["finding"]
    with pytest.raises(DeploymentError, match="takes rows, limit; name the one that takes rows, as /two#rows"):
        held(version, home, f"{bento}/two", "bento", rows=20)
    with pytest.raises(DeploymentError, match="describes no API at /; write the API's path into the URL"):
        held(version, home, bento, "bento", rows=20)
    with pytest.raises(DeploymentError, match="answered no row: status 400"):
        held(version, home, f"{bento}/predict#lines", "bento", rows=20)


MLFLOW = """
import sys
import mlflow.sklearn
import skops.io

source, folder, how = sys.argv[1:]
pipeline = skops.io.load(source, trusted=skops.io.get_untrusted_types(file=source))
mlflow.sklearn.save_model(pipeline, folder, serialization_format="cloudpickle", pyfunc_predict_fn=how)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "compared", "verdict"),
    [
        ("predict", "decisions", "equal"),
        ("predict_proba", "scores and decisions", "equal"),
        ("predict_proba", "scores and decisions", "refused"),
    ],
)
def test_the_real_server_of_mlflow_is_certified(version, home, tmp_path_factory, how, compared, verdict) -> None:
    place = tmp_path_factory.getbasetemp() / "mlflow"
    python = place / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        needed = [f"{name}=={metadata.version(name)}" for name in ("scikit-learn", "skops")]
        done = subprocess.run([python, "-m", "pip", "install", "-q", "mlflow", *needed], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mlflow cannot be installed: {done.stderr[-200:]}")
    model = fitted()
    if verdict == "refused":
        model[-1].intercept_ += 0.1
    dump_pipeline(model, place / "late.skops")
    (place / "save.py").write_text(MLFLOW)
    subprocess.run([python, place / "save.py", place / "late.skops", place / verdict / how, how], check=True, cwd=place)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        place / "bin/mlflow",
        "models",
        "serve",
        "-m",
        place / verdict / how,
        "--env-manager",
        "local",
        "-h",
        "127.0.0.1",
    ]
    environment = {**os.environ, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen([*words, "-p", str(port)], cwd=place, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", process)
        found = held(version, home, f"http://127.0.0.1:{port}", "mlflow", rows=60)
        assert (found.verdict, found.fields["compared"]) == (verdict, compared)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
