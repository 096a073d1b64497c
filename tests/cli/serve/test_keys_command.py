"""Keys of callers in the shell: made once, listed without secrets, revoked; and what `serve` and `ship` ask for."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlworkbench.cli.app import run
from mlworkbench.core.settings_file import read_setting
from mlworkbench.deploy.realtime.access import KeyRing, read_callers

KEY = re.compile(r"mlwb_[0-9a-f]{8}_[\w-]{43}")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the keys in a home of its own."""
    monkeypatch.setenv("MLWORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home/keys/callers.json"


def test_a_key_is_printed_once_and_alone_on_standard_output(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "add", "web", "--scope", "score", "--scope", "metrics", "--expires", "90d"]) == 0
    told = capsys.readouterr()
    key = told.out.strip()
    assert KEY.fullmatch(key) and "good for score, metrics until 20" in told.err and key not in told.err
    (kept,) = read_callers(file)
    days = (datetime.fromisoformat(kept.expires) - datetime.now(UTC)).total_seconds() / 86400
    assert KeyRing(file).find(key.encode()) == kept and 89.9 < days <= 90
    assert run(["keys", "list"]) == 0
    told = capsys.readouterr()
    assert re.search(rf"web +{kept.id} +good +score metrics", told.out)
    assert key not in told.out and kept.sha256 not in told.out and "sha256" not in told.out


def test_programs_read_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"keys": []}
    assert run(["keys", "add", "web", "--scope", "score,feedback", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert KEY.fullmatch(made["key"]) and made["scopes"] == ["score", "feedback"] and made["expires"] == ""
    assert run(["keys", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["keys"]
    assert listed == {name: value for name, value in made.items() if name != "key"} and "sha256" not in listed


def test_a_key_is_changed_by_adding_one_and_revoking_the_other(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert run(["keys", "add", "web", "--scope", "score"]) == 0
    old, new = read_callers(file)
    capsys.readouterr()
    assert run(["keys", "revoke", "web", "--id", old.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "web", "revoked": [old.id]}
    assert read_callers(file) == (new,)
    assert run(["keys", "revoke", "web"]) == 0 and capsys.readouterr().out == f"web: revoked {new.id}\n"
    assert run(["keys", "revoke", "web"]) == 2 and run(["keys", "list"]) == 0
    told = capsys.readouterr()
    assert told.out == "there is no key\n" and len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["add", "web"], "--scope: one or more of score, feedback, metrics"),
        (["add", "web", "--scope", "scores"], "did you mean 'score'?"),
        (["add", "Web", "--scope", "score"], "a small letter, then"),
        (["add", "web", "--scope", "score", "--expires", "soon"], "--expires: 'soon' is no span of time"),
        (["add", "web", "--scope", "score", "--expires", "0d"], "no span of time"),
        (["revoke", "web"], "mlworkbench keys add"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_key(
    file: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["keys", *words]) == 2
    told = capsys.readouterr()
    assert line in told.err and len(told.err.splitlines()) == 1 and "Traceback" not in told.err and not told.out
    assert not file.exists()


def test_keys_may_lie_in_a_file_that_is_mounted(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLWORKBENCH_SERVE_KEYS_FILE", str(tmp_path / "mounted/callers.json"))
    assert run(["keys", "add", "web", "--scope", "score"]) == 0
    assert not file.exists() and len(read_callers(tmp_path / "mounted/callers.json")) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "0.0.0.0"], "who may ask is chosen: [serve] auth = keys, or none for all"),
        (["--host", "models.example"], "--host: an IP address of this machine"),
        (["--host", ""], "no model"),
    ],
)
def test_serve_takes_no_address_that_others_reach_without_a_choice(
    file: Path, words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *words]) == 2
    told = capsys.readouterr().err
    assert line in told and len(told.splitlines()) == 1


def test_half_of_tls_in_the_settings_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.ini").write_text("[serve]\ntls_certificate = server.pem\n")
    assert run(["serve"]) == 2
    assert "tls_certificate and tls_key: both of them, or none" in capsys.readouterr().err


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """The inside of an image; gives what is run there, and what the workers are told."""
    from mlworkbench.deploy.realtime import server

    (tmp_path / "src").mkdir()
    (tmp_path / "src/settings.ini").write_text("[serve]\nport = 3005\nworkers = 2\n")
    variables = ("MLWORKBENCH_SERVE_WORKERS", "MLWORKBENCH_SERVE_ROOT_PATH", "MLWORKBENCH_FOLDER", "PORT")
    for name in variables:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MLWORKBENCH_FOLDER", str(tmp_path / "src"))
    monkeypatch.setenv("MLWORKBENCH_SHIPPED", "birds:1 0")
    ran: list[tuple[object, ...]] = []
    told = ("serve.workers", "serve.root_path")
    monkeypatch.setattr(
        server, "run_server", lambda *given: ran.append((*given[:2], *(read_setting(one).value for one in told)))
    )
    return ran


@pytest.mark.parametrize(
    ("words", "port", "does"),
    [
        ([], "", ("127.0.0.1", 3005, 2, "")),
        ([], "8080", ("127.0.0.1", 8080, 2, "")),
        (["--port", "3001", "--workers", "3"], "8080", ("127.0.0.1", 3001, 3, "")),
        (["--root-path", "/birds", "--host", "127.0.0.2", "--server", "uvicorn"], "", ("127.0.0.2", 3005, 2, "/birds")),
    ],
)
def test_serve_in_an_image_does_what_its_options_say(
    image: list[tuple[object, ...]], words: list[str], port: str, does: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", port)
    assert run(["serve", *words]) == 0 and image == [does]


@pytest.mark.parametrize(
    ("words", "port", "line"),
    [
        (["--server", "bentoml"], "", "--server: not in an image"),
        (["--model", "birds"], "", "--model: not in an image"),
        (["--version", "1"], "", "--version: not in an image"),
        (["--from", "/srv/shared"], "", "--from: not in an image"),
        (["--json"], "", "--json: not in an image"),
        (["--port", "0"], "", "--port: a whole number from 1 to 65535"),
        ([], "abc", "environment PORT: a whole number from 1 to 65535"),
    ],
)
def test_serve_in_an_image_refuses_in_one_line_what_it_cannot_do(
    image: list[tuple[object, ...]],
    words: list[str],
    port: str,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", port)
    assert run(["serve", *words]) == 2 and not image
    told = capsys.readouterr().err
    assert line in told and len(told.splitlines()) == 1
