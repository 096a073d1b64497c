"""`certify endpoint` and `compare` as a release script sees them: JSON, exit codes, one line for each mistake."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pandas as pd
import pytest
import skops.io

from mlworkbench.cli.console import shorten_versions
from mlworkbench.core.home import Home
from mlworkbench.scoring.registry.registry import Registry


@pytest.fixture
def service(workbench, facts):
    """The trained pipeline of a new workbench behind two addresses, the second of which answers a hundredth more."""
    tag = facts("train")["version"]
    file = Registry(Home.open()).folder("cars", tag) / "pipeline.skops"
    pipeline = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))

    class Served(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = pd.DataFrame(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            more = 0.01 if self.path == "/wrong" else 0.0
            told = pipeline.predict_proba(rows) + more
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told.tolist()).encode())

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tag, file
    server.shutdown()
    server.server_close()


@pytest.mark.system
def test_a_service_and_two_models_are_held_against_each_other(service, facts, tell) -> None:
    url, tag, file = service
    found = facts("certify", "endpoint", f"{url}/right", "--rows", 60)
    assert (found["verdict"], found["rows"], found["first"]) == ("equal", 60, {})
    assert facts("certify", "verify", found["certificate"])["status"] == "valid"
    code, out, err = tell("certify", "endpoint", f"{url}/wrong", "--rows", 60)
    assert code == 1 and err.count("\n") == 1 and "does not answer every row like" in err
    assert (
        f"{url}/wrong against {shorten_versions(tag)}: refused on 60 rows" in out
        and "first parted at step" in out
        and "page: " in out
    )
    code, out, err = tell("models", "promote", tag, "--why", "the service is equal")
    assert code == 1 and "has a certificate" in err
    assert facts("compare", tag, file, "--rows", 60)["verdict"] == "equal"
    assert facts("compare", f"{url}/right", file, "--model", "cars", "--rows", 60)["verdict"] == "equal"
    code, out, err = tell("compare", tag, f"{url}/wrong", "--rows", 60, "--json")
    told = json.loads(out)
    assert code == 1 and (told["verdict"], told["mismatches"]) == ("refused", 60) and err.count("\n") == 1
    code, out, err = tell("compare", tag, f"{url}/wrong", "--rows", 60)
    assert code == 1 and "not equal on 60 rows" in out and "scores: 60 of 60 differ" in out and "page: " in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["certify", "endpoint"], 2, "URL"),
        (["certify", "endpoint", "http://host/x", "--model", "carz"], 2, "did you mean 'cars'?"),
        (["compare", "cars"], 2, "B"),
        (["compare", "carz", "cars"], 2, "did you mean 'cars'?"),
        (["compare", "http://host/x", "b.skops", "--model", "carz"], 2, "did you mean 'cars'?"),
    ],
)
def test_mistakes_are_one_line_each(workbench, tell, words, code, said) -> None:
    Home.open()
    got, out, err = tell(*words)
    assert got == code and said in err and err.count("\n") == 1 and out == ""


@pytest.mark.system
def test_mistakes_about_a_service_are_one_line_each(service, tell) -> None:
    url, tag, _ = service
    for words, code, said in (
        (["certify", "endpoint", "host/x"], 2, "is no address of a service"),
        (
            ["certify", "endpoint", url, "--format", "rest"],
            2,
            "--format: one of records, mlflow, v2, bento; got 'rest'",
        ),
        (["certify", "endpoint", url, "--send", "all"], 2, "--send: features or request; got 'all'"),
        (["certify", "endpoint", url, "--header-env", "NOT_SET"], 2, "NOT_SET holds no header"),
        (["certify", "endpoint", url, "--rows", "0"], 2, "--rows: at least 1, or a file; got 0"),
        (["certify", "endpoint", url, "--rows", "none.csv"], 2, "none.csv"),
        (["certify", "endpoint", "http://127.0.0.1:9", "--rows", "3"], 75, "does not answer"),
        (["compare", tag, "none.skops"], 2, "there is no such file"),
        (["compare", tag, "cars:none"], 2, "none"),
    ):
        got, out, err = tell(*words)
        assert got == code and said in err and err.count("\n") == 1 and out == "", words
