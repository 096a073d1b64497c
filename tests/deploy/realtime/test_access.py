"""Who may ask: keys, hosts, addresses, limits; what a stranger tries, on both servers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http.client
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from mlworkbench.core.home import Home
from mlworkbench.deploy.realtime import access
from mlworkbench.deploy.realtime.access import (
    Address,
    Gate,
    KeyRing,
    add_caller,
    check_exposure,
    open_gate,
    read_callers,
    revoke_callers,
)
from mlworkbench.deploy.realtime.application import Application, send_reply
from mlworkbench.deploy.realtime.call import Reply
from mlworkbench.deploy.realtime.http import MAX_TEXT, problem, read_json
from mlworkbench.deploy.realtime.process import Service, free_port, service_folder, start_service
from mlworkbench.deploy.realtime.service import Realtime
from mlworkbench.errors import ContractError, DeploymentError, FeatureError, LogError, SettingsError, WorkbenchError
from mlworkbench.evaluation.log.writer import PredictionLog

BIRD = {"bill": 39.1, "island": "Dream", "ring": "R1"}
BODY = json.dumps(BIRD).encode()
ALL = ("score", "feedback", "metrics")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "callers.json"


def knock(gate: Gate, path: str = "/score", *headers: tuple[str, str], server: object = ("127.0.0.1", 80)) -> str:
    """Ask a gate; give status and code of its refusal, or an empty text."""
    listed = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    reply = gate.check({"method": "POST", "headers": listed, "server": server}, path)
    assert reply is None or ("\n" not in json.loads(reply.body)["detail"] and reply.status >= 400)
    return f"{reply.status} {reply.code}" if reply else ""


# keys ---------------------------------------------------------------------------------------------------------------


def test_a_key_is_kept_as_its_hash_in_a_file_of_its_owner(file: Path) -> None:
    key, kept = add_caller(file, "web", ["metrics", "score"])
    assert re.fullmatch(r"mlwb_[0-9a-f]{8}_[\w-]{43}", key)
    assert key not in file.read_text() and key.rpartition("_")[2] not in repr(kept) and kept.sha256 not in repr(kept)
    assert [file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777] == [0o600, 0o700]
    assert read_callers(file) == (kept,) and kept.scopes == ("score", "metrics")


def test_a_caller_may_have_two_keys_and_lose_one(file: Path) -> None:
    (old, first), (new, second) = (add_caller(file, "web", ["score"]) for _ in range(2))
    other, _ = add_caller(file, "shop", ["score"])
    ring = KeyRing(file, every=0)
    assert ring.find(old.encode()) == first and ring.find(new.encode()) == second
    assert revoke_callers(file, "web", number=first.id) == [first]
    assert ring.find(old.encode()) is None and ring.find(new.encode()) == second
    revoke_callers(file, "web")
    assert ring.find(new.encode()) is None and ring.find(other.encode()) is not None
    with pytest.raises(SettingsError, match="key of 'web': one that is there") as refused:
        revoke_callers(file, "web")
    assert refused.value.code == "access.key_unknown"


@pytest.mark.parametrize(
    ("name", "scopes", "code"),
    [
        ("Web", ["score"], "access.name"),
        ("", ["score"], "access.name"),
        ("w" * 41, ["score"], "access.name"),
        ("web\n", ["score"], "access.name"),
        ("web", [], "access.scope_unknown"),
        ("web", ["score", "admin"], "access.scope_unknown"),
    ],
)
def test_a_wrong_name_or_scope_makes_no_key(file: Path, name: str, scopes: list[str], code: str) -> None:
    with pytest.raises(SettingsError) as refused:
        add_caller(file, name, scopes)
    assert refused.value.code == code and not file.exists()


def good(**more: object) -> str:
    entry = {"name": "web", "id": "0" * 8, "sha256": "0" * 64, "scopes": ["score"], "created": "", "expires": ""}
    return json.dumps({"format": 1, "keys": [{**entry, **more}]})


BROKEN = {
    "nothing": "",
    "half": good()[:50],
    "list": "[]",
    "newer": '{"format": 2, "keys": []}',
    "more": '{"format": 1, "keys": [], "open": true}',
    "no list": '{"format": 1, "keys": 3}',
    "no entry": '{"format": 1, "keys": ["web"]}',
    "unknown field": good(admin=True),
    "scope": good(scopes=["admin"]),
    "scopes": good(scopes=[]),
    "scopes as text": good(scopes="score"),
    "hash": good(sha256="0" * 63),
    "hash as a number": good(sha256=0),
    "id": good(id="zz"),
    "no date": good(expires="2013-13-01T00:00:00+00:00"),
    "no offset": good(expires="2013-10-01T00:00:00"),
    "a date as a number": good(expires=0),
    "deep": "[" * 100_000,
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_lets_nobody_in_and_is_never_written_over(
    file: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _ = add_caller(file, "web", ALL)
    gate = Gate(KeyRing(file, every=0))
    shown = ("authorization", f"Bearer {key}")
    assert knock(gate, "/score", shown) == ""
    kept = file.read_text()
    file.write_text(text)
    assert {knock(gate, "/score", shown), knock(gate), knock(gate, "/metrics", shown)} == {"503 access.keys_broken"}
    assert knock(gate, "/readyz") == ""
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "nobody is let in" in told and key not in told
    with pytest.raises(SettingsError) as refused:
        add_caller(file, "web", ["score"])
    assert refused.value.code == "access.keys_broken" and file.read_text() == text
    with pytest.raises(SettingsError):
        KeyRing(file)
    file.write_text(kept)
    assert knock(gate, "/score", shown) == ""


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ValueError("I/O operation on closed file")]
)
def test_a_broken_file_lets_nobody_in_where_that_cannot_be_told(
    file: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = add_caller(file, "web", ALL)
    gate, shown = Gate(KeyRing(file, every=0)), ("authorization", f"Bearer {key}")
    file.write_text("{")
    monkeypatch.setattr(sys, "stderr", type("Full", (), {"write": raise_it(failure), "flush": raise_it(failure)})())
    assert [knock(gate, "/score", shown) for _ in range(3)] == ["503 access.keys_broken"] * 3


def test_whatever_a_file_says_it_is_read_or_refused_in_one_line(file: Path) -> None:
    add_caller(file, "web", ["score"], expires=datetime.now(UTC))
    told, draws = json.loads(file.read_text()), random.Random(14)
    values = [
        None,
        True,
        -1,
        1e400,
        "",
        "x",
        "\ud800",
        [],
        [[]],
        {},
        {"scopes": 1},
        "2013-10-01",
        "0" * 64,
        ["score", 1],
    ]
    for _ in range(500):
        made = json.loads(json.dumps(told))
        place: Any = draws.choice([made, made["keys"][0], made["keys"]])
        if draws.random() < 0.2 and isinstance(place, dict):
            place.pop(draws.choice(sorted(place)))
        elif isinstance(place, dict):
            place[draws.choice([*sorted(place), "new"])] = draws.choice(values)
        else:
            place.append(draws.choice([*values, place[0]]))
        file.write_text(json.dumps(made))
        with contextlib.suppress(SettingsError):
            assert all(isinstance(one.is_over(0.0), bool) and {*one.scopes} <= {*ALL} for one in read_callers(file))
    text = json.dumps(told)
    for _ in range(300):
        at = draws.randrange(len(text))
        file.write_bytes(
            text[:at].encode() + draws.randbytes(draws.randrange(3)) + text[at + draws.randrange(3) :].encode()
        )
        with contextlib.suppress(SettingsError):
            read_callers(file)


def test_a_file_that_is_gone_or_that_others_may_write_lets_nobody_in(file: Path) -> None:
    key, _ = add_caller(file, "web", ALL)
    gate, shown = Gate(KeyRing(file, every=0)), ("authorization", f"Bearer {key}")
    file.chmod(0o620)
    assert knock(gate, "/score", shown) == "503 access.keys_broken"
    file.chmod(0o644)  # as secrets are mounted: a hash of 256 random bits may be read
    assert knock(gate, "/score", shown) == ""
    file.rename(file.with_name("away"))
    assert knock(gate, "/score", shown) == "503 access.keys_broken"
    file.with_name("away").rename(file)
    assert knock(gate, "/score", shown) == ""


def test_a_change_in_the_same_tick_of_the_clock_is_seen(file: Path) -> None:
    key, _ = add_caller(file, "web", ALL)
    ring, text = KeyRing(file, every=0), file.read_bytes()
    for _ in range(20):
        file.write_bytes(text.replace(b'"web"', b'"bew"'))
        assert ring.find(key.encode()).name == "bew"
        file.write_bytes(text)
        assert ring.find(key.encode()).name == "web"


def test_a_file_that_rests_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = add_caller(file, "web", ALL)
    ring, reads = KeyRing(file, every=0), []
    monkeypatch.setattr(access, "read_callers", lambda path: reads.append(path) or read_callers(path))
    monkeypatch.setattr(access.time, "time", lambda: datetime.now(UTC).timestamp() + 10)
    for _ in range(5):
        assert ring.find(key.encode()) is not None
    assert len(reads) == 1


def test_a_key_ends_at_its_time_without_a_look_at_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    key, _ = add_caller(file, "web", ["score"], expires=now + timedelta(hours=1))
    gate, shown = Gate(KeyRing(file)), ("authorization", f"Bearer {key}")
    assert knock(gate, "/score", shown) == ""
    monkeypatch.setattr(access.time, "time", lambda: now.timestamp() + 3600)
    assert knock(gate, "/score", shown) == "401 access.key_expired"


def test_an_unknown_key_takes_the_same_steps_as_a_known_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = add_caller(file, "web", ["score"])
    ring, compared = KeyRing(file), []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b))
    tried = [key, key[:-1] + "!", f"mlwb_00000000_{'A' * 43}", "", "x" * 10_000]
    assert [ring.find(text.encode()) is not None for text in tried] == [True, False, False, False, False]
    assert compared == [(64, 64)] * 5


ADD = "import sys; from pathlib import Path; from mlworkbench.deploy.realtime.access import add_caller\n"


def test_processes_that_add_keys_at_once_lose_none(file: Path) -> None:
    code = ADD + "for k in range(5): print(add_caller(Path(sys.argv[1]), sys.argv[2], ['score'])[0])"

    def run(name: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code, file, name], capture_output=True, text=True, check=True)
        return done.stdout.split()

    with ThreadPoolExecutor(3) as pool:
        keys = [key for part in pool.map(run, "abc") for key in part]
    ring = KeyRing(file)
    assert len(keys) == 15 == len(read_callers(file)) and all(ring.find(key.encode()) for key in keys)


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(file: Path, kills: int) -> None:
    first, _ = add_caller(file, "first", ["score"])
    code = ADD + "while True: print(add_caller(Path(sys.argv[1]), 'more', ['score'])[0], flush=True)"
    told: list[str] = []
    for number in range(kills):
        with subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE, text=True) as writer:
            told.append(writer.stdout.readline().strip())
            time.sleep(0.003 * number)
            writer.kill()
            told += [line.strip() for line in writer.stdout if len(line) > 50 and line.endswith("\n")]
    ring = KeyRing(file)
    assert all(ring.find(key.encode()) for key in (first, *told))
    assert add_caller(file, "last", ["score"]) and not list(file.parent.glob(".*.part"))


# the gate -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("localhost", True),
        ("LocalHost:3000", True),
        ("127.0.0.1:3000", True),
        ("[::1]:3000", True),
        ("[::1]", True),
        ("evil.example", False),
        ("evil.example:3000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("127.0.0.1:3000@evil.example", False),
        ("evil.example#127.0.0.1", False),
        ("localhost ", False),
        ("localhost:", False),
        ("localhost:123456", False),
        ("localhost:x", False),
        ("0.0.0.0", False),
        ("127.1", False),
        ("::1", False),
        ("löcalhost", False),
        ("localhost\x00", False),
        ("l" * 100_000, False),
    ],
)
def test_a_service_of_this_machine_answers_to_the_names_of_this_machine(host: str, passes: bool) -> None:
    assert knock(Gate(), "/score", ("host", host)) == ("" if passes else "421 access.host")
    assert knock(Gate(), "/readyz", ("host", host)) == ""


def test_a_header_that_decides_stands_there_once(file: Path) -> None:
    twice = [("host", "127.0.0.1"), ("host", "evil.example")]
    assert knock(Gate(), "/score", *twice) == knock(Gate(), "/score", *twice[::-1]) == "400 access.header_twice"
    key, _ = add_caller(file, "web", ["score"])
    shown = [("authorization", "Bearer x"), ("authorization", f"Bearer {key}")]
    gate = Gate(KeyRing(file))
    assert knock(gate, "/score", *shown) == knock(gate, "/score", *shown[::-1]) == "400 access.header_twice"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "key_missing"),
        ("{key}", "key_missing"),
        ("Basic {key}", "key_missing"),
        ("Bearer", "key_unknown"),
        ("Bearer ", "key_unknown"),
        ("Bearer {key} {key}", "key_unknown"),
        ("Bearer {key},{key}", "key_unknown"),
        ("Bearer {upper}", "key_unknown"),
        ("Bearer {key}=", "key_unknown"),
        ("Bearer {short}", "key_unknown"),
        ("Bearer \xff\xfe", "key_unknown"),
        ("Bearer " + "A" * 1_000_000, "key_unknown"),
        ("bearer {key}", ""),
        ("BEARER  {key} ", ""),
    ],
)
def test_what_is_no_key_is_refused(file: Path, value: str, code: str) -> None:
    key, _ = add_caller(file, "web", ["score"])
    shown = value.replace("{key}", key).replace("{upper}", key.upper()).replace("{short}", key[:-1])
    expected = f"401 access.{code}" if code else ""
    assert knock(Gate(KeyRing(file)), "/score", ("authorization", shown)) == expected


PATHS = {
    "score": [
        "/score",
        "/invocations",
        "/v2/models/birds/infer",
        "/v2",
        "/model",
        "/docs",
        "/openapi.json",
        "/docs.json",
    ],
    "metrics": ["/metrics"],
    "feedback": ["/feedback"],
}
PATHS["score"] += ["/client.py", "/schema.json", "/", "/unknown", "/livez/", "/livez/../score", "//livez", "/LIVEZ", ""]
PATHS["score"] += ["/v2/health", "/v2/health/live/", "/metrics/", "/readyz;/score", "/v2/models/birds/ready"]


@pytest.mark.parametrize("scope", ALL)
def test_a_key_is_good_for_its_scope_alone(file: Path, scope: str) -> None:
    key, _ = add_caller(file, "web", [scope])
    gate = Gate(KeyRing(file))
    for needed, paths in PATHS.items():
        for path in paths:
            expected = "" if needed == scope else "403 access.scope"
            assert knock(gate, path, ("authorization", f"Bearer {key}")) == expected, path
            assert knock(gate, path) == "401 access.key_missing"
    for path in access.PROBES:
        assert knock(gate, path) == knock(gate, path, ("host", "10.1.2.3:8080")) == ""


def test_a_key_is_asked_for_by_its_scheme(file: Path) -> None:
    add_caller(file, "web", ["score"])
    gate = Gate(KeyRing(file))
    scope = {"method": "GET", "headers": []}
    assert gate.check(scope, "/score").headers == {"WWW-Authenticate": 'Bearer realm="mlworkbench"'}
    scope["headers"] = [(b"authorization", b"Bearer x")]
    assert gate.check(scope, "/score").headers["WWW-Authenticate"].endswith('error="invalid_token"')


@pytest.mark.parametrize(
    ("server", "passes"),
    [
        (("127.0.0.1", 80), True),
        (("127.0.0.2", 80), True),
        (("::1", 80), True),
        (("/run/score.sock", None), True),
        (None, True),
        (("10.0.0.7", 80), False),
        (("::ffff:10.0.0.7", 80), False),
        (("fe80::1%eth0", 80), False),
        (("example", 80), False),
    ],
)
def test_where_nobody_chose_only_this_machine_is_answered(server: object, passes: bool) -> None:
    assert knock(Gate(local=True), server=server) == ("" if passes else "403 access.not_chosen")
    assert knock(Gate(), server=server) == "" == knock(Gate(local=True), "/livez", server=server)


def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **values: str) -> None:
    lines = "\n".join(f"{name} = {value}" for name, value in values.items())
    (tmp_path / "settings.ini").write_text(f"[serve]\n{lines}\n")
    monkeypatch.setenv("MLWORKBENCH_FOLDER", str(tmp_path))


def test_the_settings_say_who_may_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    everywhere = Address("0.0.0.0")
    serve(monkeypatch, tmp_path)
    with pytest.raises(DeploymentError, match=r"\[serve\] auth = keys, or none for all; got neither") as refused:
        open_gate(everywhere, home=home)
    assert refused.value.code == "access.not_chosen"
    assert knock(open_gate(Address(), home=home), server=("10.0.0.7", 80)) == "403 access.not_chosen"
    serve(monkeypatch, tmp_path, auth="none")
    assert knock(open_gate(everywhere, home=home), "/score", ("host", "any.example"), server=("10.0.0.7", 80)) == ""
    assert knock(open_gate(Address(), home=home), "/score", ("host", "any.example")) == "421 access.host"
    serve(monkeypatch, tmp_path, auth="none", hosts="models.example, score.example")
    gate = open_gate(everywhere, home=home)
    asked = ["Models.example", "score.example:443", "127.0.0.1:3000", "any.example"]
    assert [knock(gate, "/score", ("host", host)) for host in asked] == ["", "", "", "421 access.host"]
    assert knock(gate) == "421 access.host"  # no name at all
    serve(monkeypatch, tmp_path, auth="keys", keys_file="callers.json")
    with pytest.raises(SettingsError, match="mlworkbench keys add"):
        open_gate(Address(), home=home)
    key, _ = add_caller(tmp_path / "callers.json", "web", ["score"])
    gate = open_gate(everywhere, home=home)
    assert (knock(gate), knock(gate, "/score", ("authorization", f"Bearer {key}"))) == ("401 access.key_missing", "")
    serve(monkeypatch, tmp_path, hosts="https://models.example")
    with pytest.raises(SettingsError, match="names without port or scheme"):
        open_gate(Address(), home=home)


# addresses and TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Address:
    """A certificate for 127.0.0.1 that signs itself, as an address of TLS."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "models.example")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain, other = serialization.NoEncryption(), ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(b"secret")
    for file, one, how in (("server.key", key, plain), ("other.key", other, plain), ("locked.key", key, locked)):
        text = one.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        (folder / file).write_bytes(text)
        (folder / file).chmod(0o600)
    (folder / "open.key").write_bytes((folder / "server.key").read_bytes())
    (folder / "open.key").chmod(0o644)
    return Address(certificate=str(folder / "server.pem"), key=str(folder / "server.key"))


@pytest.mark.parametrize("key", ["other.key", "locked.key", "open.key", "none.key", "server.pem", ""])
def test_files_of_tls_that_do_not_fit_are_one_line(tls: Address, key: str) -> None:
    check_exposure(tls, "")
    place = str(Path(tls.key).with_name(key)) if key else ""
    with pytest.raises(DeploymentError) as refused:
        check_exposure(Address(certificate=tls.certificate, key=place), "")
    assert refused.value.code == "access.tls" and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "::ffff:127.0.0.1", "example"])
def test_an_address_that_others_reach_needs_a_choice(host: str) -> None:
    with pytest.raises(DeploymentError) as refused:
        check_exposure(Address(host), "")
    assert refused.value.code == "access.not_chosen"
    check_exposure(Address(host), "keys")
    check_exposure(Address(host), "none")


def test_a_service_is_not_started_where_others_reach_it_and_nobody_chose(workshop) -> None:
    with (
        pytest.raises(DeploymentError, match="who may ask is chosen"),
        start_service("birds", home=workshop.home, address=Address("0.0.0.0")),
    ):
        pytest.fail("it started")


def test_what_bentoml_was_told_or_listens_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    app = pytest.importorskip("mlworkbench.deploy.realtime.app")
    assert app._find_address() == Address()
    with click.Context(click.Command("serve")) as context:
        context.params = {"host": "0.0.0.0"}
        assert app._find_address() == Address("0.0.0.0")
    monkeypatch.setattr(app.guard, "in_worker", lambda: True)
    for host in ("127.0.0.1", "0.0.0.0"):  # bound, and listened on by nobody
        with socket.socket() as bound, click.Context(click.Command("worker")) as context:
            bound.bind((host, 0))
            context.params = {"fd": bound.fileno(), "host": "127.0.0.1"}
            assert app._find_address() == Address(host)


@pytest.mark.system
@pytest.mark.parametrize("told", [["--host", "0.0.0.0"], ["BENTOML_HOST=0.0.0.0"]], ids=["option", "variable"])
def test_bentoml_serve_typed_by_hand_is_held_to_the_same_rule(workshop, told: list[str]) -> None:
    environment = {**os.environ, "MLWORKBENCH_MODEL": "birds", "MLWORKBENCH_HOME": str(workshop.home.path)}
    environment |= dict([told[0].split("=")]) if len(told) == 1 else {}
    words = ["serve", "service:Scoring", "--port", str(free_port()), *(told if len(told) == 2 else ())]
    command = [sys.executable, "-m", "bentoml", *words]
    run = subprocess.run(command, cwd=service_folder(), env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "who may ask is chosen" in run.stderr and "Traceback" not in run.stderr


# limits -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def birds(workshop, elsewhere: Home) -> Iterator[Realtime]:
    realtime = Realtime(workshop.open("birds"), PredictionLog(elsewhere.log("birds")))
    yield realtime
    realtime.close()


def test_more_than_fit_are_sent_away_before_their_body_is_read(birds: Realtime) -> None:
    application = Application(birds, Gate(most=3))
    read, sent = [], []

    async def play() -> list[tuple[int, dict[bytes, bytes]]]:
        opened = asyncio.Event()

        async def ask(number: int) -> tuple[int, dict[bytes, bytes]]:
            told: list[dict[str, Any]] = []

            async def receive() -> dict[str, Any]:
                read.append(number)
                await opened.wait()
                return {"type": "http.request", "body": BODY}

            async def send(message: dict[str, Any]) -> None:
                told.append(message)
                sent.append(number)

            scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b"", "server": None}
            scope["headers"] = [(b"content-type", b"application/json"), (b"host", b"localhost")]
            await application(scope, receive, send)
            return told[0]["status"], dict(told[0]["headers"])

        waiting = [asyncio.create_task(ask(number)) for number in range(10)]
        await asyncio.sleep(0.05)
        assert sorted(set(sent)) == list(range(3, 10)) and sorted(read) == [0, 1, 2]
        opened.set()
        return [*await asyncio.gather(*waiting), await ask(10)]

    answers = asyncio.run(play())
    assert [status for status, _ in answers] == [200] * 3 + [429] * 7 + [200]
    assert answers[5][1][b"retry-after"] == b"1" and application.gate.in_flight == 0


def request_of(path: str, method: str = "POST", **headers: str) -> dict[str, Any]:
    listed = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "server": None, "headers": listed}


def status_of_request(application: Application, scope: dict[str, Any], *parts: bytes) -> int:
    """Ask an application in parts; give the status."""
    left, told = [*parts], []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    asyncio.run(application(scope, receive, send))
    return int(told[0]["status"])


@pytest.mark.parametrize("path", ["/score", "/invocations", "/feedback", "/v2/models/birds/infer"])
def test_bodies_in_flight_are_weighed_together(birds: Realtime, path: str) -> None:
    application = Application(birds, Gate(most_bytes=1000))
    scope = request_of(path, content_type="application/json")
    assert status_of_request(application, scope, b"[" * 600, b"[" * 600) == 429 and application.gate.held == 0
    assert status_of_request(application, scope, b"[" * 500, b"[" * 500) == 400 and application.gate.held == 0
    application.gate.held = 990
    assert status_of_request(application, scope, b"[" * 20) == 429 and application.gate.held == 990
    assert status_of_request(application, scope, b"[" * 10) == 400 and application.gate.held == 990


def test_pages_are_read_where_nothing_more_is_scored_and_not_without_end(birds: Realtime) -> None:
    application = Application(birds, Gate(most=3))
    for busy, statuses in ((2, [200] * 3), (3, [200] * 3), (5, [200] * 3), (6, [200, 429, 429])):
        application.gate.in_flight = busy
        paths = ("/readyz", "/metrics", "/model")
        assert [status_of_request(application, request_of(path, "GET")) for path in paths] == statuses
        assert application.gate.in_flight == busy


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "none"}]
)
def test_a_page_writes_no_predictions_by_a_body_without_type(birds: Realtime, headers: dict[str, str]) -> None:
    application, body = Application(birds), b'{"inputs": []}'
    for path in ("/score", "/invocations", "/feedback", "/v2/models/birds/infer"):
        for kind in ({}, {"content_type": ""}, {"content_type": "text/plain"}):
            assert status_of_request(application, request_of(path, **kind, **headers), body) == 415
    asked = request_of("/v2/models/birds/infer")
    assert status_of_request(application, asked, body) == 400
    assert (
        status_of_request(
            application,
            {**asked, "headers": [*asked["headers"], (b"content-type", b"application/json"), (b"origin", b"null")]},
            body,
        )
        == 400
    )


def test_only_probes_of_the_service_need_no_key(birds: Realtime, file: Path) -> None:
    add_caller(file, "web", ["score"])
    application, named = Application(birds, Gate(KeyRing(file))), birds.version.version.partition(":")[2]
    free = ("/livez", "/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")
    assert {status_of_request(application, request_of(path, "GET")) for path in free} == {200}
    model = "/v2/models/birds"
    for path in ("/v2", model, f"{model}/ready", f"{model}/versions/{named}", f"{model}/versions/{named}/ready"):
        assert status_of_request(application, request_of(path, "GET")) == 401, path


@pytest.mark.parametrize(
    "make",
    [
        lambda text: {"ring": text},
        lambda text: [{"ring": "R1"}] * 3 + [{"ring": text}],
        lambda text: {"dataframe_split": {"columns": ["ring"], "data": [["R1"], [text]]}},
        lambda text: {text: 1},
        lambda text: [text],
    ],
)
def test_a_text_that_no_table_holds_is_refused(make: Callable[[str], object]) -> None:
    assert read_json(json.dumps(make("x" * MAX_TEXT)))
    with pytest.raises(ContractError, match=f"at most {MAX_TEXT} characters; got 10000000; shorten it") as refused:
        read_json(json.dumps(make("x" * 10_000_000)))
    assert refused.value.code == "request.text_too_long" and len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cannot write the log /srv/wb/late/log.sqlite: full", "cannot write the log log.sqlite: full"),
        ("cannot write /home/Ada Lovelace/.workbench/log.sqlite: full", "cannot write log.sqlite: full"),
        ("cannot open '/a/b/c.sqlite'; see /a/b/d", "cannot open 'c.sqlite'; see d"),
        ("cannot open C:\\Users\\Ada\\log.sqlite: gone", "cannot open log.sqlite: gone"),
        ("cannot use redis://store:6379/0: away; ask n/a", "cannot use redis://store:6379/0: away; ask n/a"),
    ],
)
def test_an_answer_tells_no_folder_of_the_machine(line: str, told: str) -> None:
    assert problem(LogError(line))["detail"] == problem(WorkbenchError(line))["detail"] == told


def test_whatever_fails_inside_tells_no_folder(
    birds: Realtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret, path = "Ada Lovelace", f"{tmp_path}/x/log.sqlite"
    failures = [LogError(f"cannot write {path}: full"), FeatureError(f"cannot open {path}: gone"), WorkbenchError(path)]
    for failure in failures:
        for place, name in ((birds.log, "write"), (birds.log, "find")):
            with monkeypatch.context() as patch:
                patch.setattr(place, name, raise_it(failure))
                call = json.dumps({**BIRD, "ring": secret}).encode()
                for reply in (birds.respond(call, "asked-before"), birds.respond(call)):
                    assert "log.sqlite" in reply.body.decode() or reply.status == 200
                    assert str(tmp_path).encode() not in reply.body and secret.encode() not in reply.body, reply.body
    assert secret not in "".join(capfd.readouterr())


def raise_it(error: Exception) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


# real servers -------------------------------------------------------------------------------------------------------


def say(port: int, text: bytes, *, seconds: float = 5) -> bytes:
    """Send bytes as they are; give all that comes back within some seconds, or until the server closes."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as line, contextlib.suppress(OSError):
        line.sendall(text)
        line.settimeout(seconds)
        while part := line.recv(65536):
            got += part
    return got


def ask(
    service: Service, path: str, key: str = "", body: bytes | None = None, **headers: str
) -> tuple[int, Mapping[str, str], dict[str, Any]]:
    named = {**({"Authorization": f"Bearer {key}"} if key else {}), **headers}
    named |= {"Content-Type": "application/json"} if body is not None and "Content-Type" not in named else {}
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body, {k: v for k, v in named.items() if v})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    with contextlib.suppress(ValueError):
        return answer.status, dict(answer.getheaders()), json.loads(text)
    return answer.status, dict(answer.getheaders()), {}


class Guarded:
    """A running service with keys, and its file of keys."""

    def __init__(self, service: Service, file: Path, key: str) -> None:
        self.service, self.file, self.key = service, file, key

    def wait(self, wanted: int, *, seconds: float = 2.0) -> float:
        """Wait until `/score` answers with this status; give how long it took."""
        begun = time.monotonic()
        while ask(self.service, "/score", self.key, BODY)[0] != wanted:
            assert time.monotonic() - begun < seconds, f"no {wanted} within {seconds} s"
            time.sleep(0.05)
        return time.monotonic() - begun


@pytest.fixture(scope="module", params=["uvicorn", "bentoml"])
def guarded(workshop, request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("mounted") / "callers.json"
    key, _ = add_caller(file, "web", ["score"])
    told = {"MLWORKBENCH_SERVE_AUTH": "keys", "MLWORKBENCH_SERVE_KEYS_FILE": str(file)}
    with start_service("birds", home=workshop.home, env=told, server=request.param) as service:
        yield Guarded(service, file, key)


@pytest.mark.system
def test_a_real_service_asks_for_keys_everywhere_but_at_its_probes(guarded: Guarded) -> None:
    service, key = guarded.service, guarded.key
    watch, _ = add_caller(guarded.file, "watch", ["metrics"])
    time.sleep(0.6)
    assert ask(service, "/score", key, BODY)[0] == 200
    status, headers, told = ask(service, "/score", "", BODY)
    assert (status, told["code"], headers["www-authenticate"][:6]) == (401, "access.key_missing", "Bearer")
    for path in (
        "/model",
        "/openapi.json",
        "/docs.json",
        "/client.py",
        "/schema.json",
        "/",
        "/unknown",
        "/static_content/",
    ):
        assert ask(service, path)[0] == 401, path
        assert ask(service, path, watch)[0] == 403, path
        assert ask(service, path, key)[0] in (200, 404), path
    assert [ask(service, "/metrics", one)[0] for one in ("", key, watch)] == [401, 403, 200]
    assert ask(service, "/score", watch, BODY)[0] == 403
    for path in ("/livez", "/healthz", "/readyz", "/ping"):
        assert ask(service, path, Host="10.3.2.1")[0] == 200, path
    assert ask(service, "/score", key, BODY, Host="evil.example")[0] == 421
    for path in (f"/score?key={key}", f"/score?authorization=Bearer%20{key}", f"/score?access_token={key}"):
        assert ask(service, path, "", BODY)[0] == 401
    assert ask(service, "/score", "", BODY, **{"X-API-Key": key, "Proxy-Authorization": f"Bearer {key}"})[0] == 401


@pytest.mark.system
def test_a_running_service_sees_keys_come_and_go(guarded: Guarded) -> None:
    text = guarded.file.read_bytes()
    second, kept = add_caller(guarded.file, "web", ["score"])
    first, guarded.key = guarded.key, second
    assert guarded.wait(200) < 2
    revoke_callers(guarded.file, "web", number=kept.id)
    assert guarded.wait(401) < 2
    guarded.key = first
    guarded.file.write_text("{")
    assert guarded.wait(503) < 2
    _, headers, told = ask(guarded.service, "/score", first, BODY)
    assert told["code"] == "access.keys_broken" and headers["retry-after"] and "/" not in told["detail"]
    assert ask(guarded.service, "/readyz")[0] == 200
    guarded.file.write_bytes(text)
    assert guarded.wait(200) < 2
    log = guarded.service.log.read_text()
    assert log.count("nobody is let in") == 1 and "Traceback" not in log


HEAD = "POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SMUGGLED = f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"


def raw(*more: str, body: bytes = BODY, head: str = HEAD) -> bytes:
    return (head + "".join(f"{line}\r\n" for line in more) + "\r\n").encode("latin-1") + body


ODD = {
    "length and chunks": lambda key: raw(key, f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"),
    "two lengths": lambda key: raw(key, f"Content-Length: {len(BODY)}", "Content-Length: 3"),
    "a length that is none": lambda key: raw(key, "Content-Length: -1"),
    "a length with a sign": lambda key: raw(key, f"Content-Length: +{len(BODY)}"),
    "a folded header": lambda key: raw(key[:14], f" {key[14:]}", f"Content-Length: {len(BODY)}"),
    "a blank before the colon": lambda key: raw(key.replace(":", " :"), f"Content-Length: {len(BODY)}"),
    "a null in the key": lambda key: raw(key + "\x00", f"Content-Length: {len(BODY)}"),
    "two keys": lambda key: raw(key, key, f"Content-Length: {len(BODY)}"),
    "two hosts": lambda key: raw(key, "Host: evil.example", f"Content-Length: {len(BODY)}"),
    "no key": lambda key: raw(f"Content-Length: {len(BODY)}"),
    "chunks of nothing": lambda key: raw(key, "Transfer-Encoding: chunked", body=b"zz\r\n"),
}


@pytest.mark.system
@pytest.mark.parametrize("odd", ODD)
def test_a_request_of_two_meanings_is_refused(guarded: Guarded, odd: str) -> None:
    """Behind a proxy that reads it another way, what follows would pass for a request of somebody else."""
    got = say(guarded.service.port, ODD[odd](f"Authorization: Bearer {guarded.key}"), seconds=0.2)
    statuses = [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3})", got)]
    assert 1 <= len(statuses) <= 2 and all(400 <= one < 500 for one in statuses), got[:300]
    assert guarded.key.encode() not in got and b"Traceback" not in got


@pytest.mark.system
def test_a_body_that_was_refused_is_no_request(guarded: Guarded) -> None:
    """The server reads past the body of a request that the gate sent away; a request hidden there stays a body."""
    inner = f"{SMUGGLED}\r\nAuthorization: Bearer {guarded.key}\r\n\r\n".encode() + BODY
    got = say(guarded.service.port, raw(f"Content-Length: {len(inner)}", body=inner), seconds=0.5)
    assert re.findall(rb"HTTP/1\.1 (\d{3})", got) == [b"401"]


@pytest.mark.system
def test_a_caller_without_a_key_who_sends_much_reads_why(guarded: Guarded) -> None:
    body = b"[" + b" " * (8 << 20) + b"]"
    assert ask(guarded.service, "/score", "", body)[0] == 401
    for kind in ("", "text/plain", "application/json, text/plain"):
        status, _, told = ask(guarded.service, "/score", guarded.key, BODY, **{"Content-Type": kind})
        assert (status, told["code"]) == (415, "request.content_type")
        assert "Content-Type: application/json" in told["detail"]
    status, _, told = ask(
        guarded.service, "/score", guarded.key, json.dumps({**BIRD, "ring": "x" * 10_000_000}).encode()
    )
    assert (status, told["code"]) == (400, "request.text_too_long")


@pytest.mark.system
def test_a_head_without_end_is_ended(guarded: Guarded) -> None:
    """Without a key, and behind BentoML, too, which starts uvicorn itself."""
    supervisor = psutil.Process(guarded.service.process.pid)
    worker = next(iter(supervisor.children()), supervisor)
    before, sent = worker.memory_info().rss, 0
    with socket.create_connection(("127.0.0.1", guarded.service.port), timeout=5) as line:
        line.sendall(b"GET /score HTTP/1.1\r\nX-Long: ")
        with contextlib.suppress(OSError):
            for _ in range(100):
                line.sendall(b"x" * 1_000_000)
                sent += 1
        with contextlib.suppress(OSError):
            assert line.recv(100).startswith(b"HTTP/1.1 431")
    assert sent < 20 and worker.memory_info().rss - before < 20e6
    many = [f"X-{k}: {'y' * 100}" for k in range(500)]
    got = say(guarded.service.port, raw(*many, f"Content-Length: {len(BODY)}"), seconds=0.5)
    assert got.startswith(b"HTTP/1.1 401")


def hurry(app: Any, play: Callable[[int], Any]) -> Any:
    """Run `app` on a server that waits for a fifth of a second, and `play` with its port."""
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from mlworkbench.deploy.realtime.server import GatheringProtocol

    class Hasty(GatheringProtocol):
        seconds = 0.2

    async def run() -> Any:
        config = Config(app, access_log=False, timeout_keep_alive=75)
        config.load()
        make = lambda: Hasty(config=config, server_state=ServerState(), app_state={})  # noqa: E731
        async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0) as server:
            return await play(server.sockets[0].getsockname()[1])

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def drop(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts, each after a pause, until the server closes; give what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        if reader.at_eof():
            break
        writer.write(part)
        await asyncio.sleep(pause)
    got = b""
    with contextlib.suppress(OSError):  # closed with bytes on their way
        while found := await asyncio.wait_for(reader.read(1000), 3):
            got += found
    writer.close()
    return got


WHOLE = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_connection_that_asks_nothing_is_ended_and_a_slow_answer_is_not(birds: Realtime) -> None:
    application = Application(birds, Gate(hosts=[b"x"], keys=Nobody()))

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.7)
        await application(scope, receive, send)

    async def play(port: int) -> list[bytes]:
        drip = [WHOLE[k : k + 1] for k in range(20)]
        refused = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"
        lines = ((), drip, (WHOLE,), (WHOLE, b"\r\n"), (refused, b" "))
        pauses = (0.0, 0.05, 0.0, 0.8, 0.8)
        return await asyncio.gather(
            *(drop(port, *parts, pause=pause) for parts, pause in zip(lines, pauses, strict=True))
        )

    silent, dripped, *answered = hurry(slow, play)
    assert silent == dripped == b""
    assert [got[:12] for got in answered] == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 401"]


class Nobody(KeyRing):
    """Keys of nobody."""

    def __init__(self) -> None:
        pass

    def find(self, key: bytes) -> None:
        return None


def test_answers_that_nobody_reads_are_given_up(birds: Realtime, caplog: pytest.LogCaptureFixture) -> None:
    application = Application(birds, Gate(hosts=[b"x"]))

    async def play(port: int) -> tuple[int, int]:
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(line, ("127.0.0.1", port))
            await loop.sock_sendall(line, WHOLE.replace(b"ping", b"client.py") * 1000)
            await asyncio.sleep(0.15)
            waiting = application.served.asked
            await asyncio.sleep(0.8)
            return waiting, application.served.asked

    assert hurry(application, play) == (1, 0) and not caplog.records


def test_trailers_without_end_are_ended_and_a_body_in_small_chunks_is_not() -> None:
    scopes = []

    async def count(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        got, more = b"", True
        while more:
            message = await receive()
            got, more = got + message.get("body", b""), message.get("more_body", False)
        await send_reply(send, Reply(200, str(len(got)).encode()))

    async def play(port: int) -> list[bytes]:
        head = b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks, trailer = b"5\r\nxxxxx\r\n" * 50_000 + b"0\r\n", b"a: %s\r\n" % (b"b" * 1000)
        texts = [head + chunks + trailer * 3 + b"\r\n", head + chunks + trailer * 20_000]
        texts += [head + b"0\r\na: " + b"b" * 20_000_000, WHOLE + b"\r\n" * 10_000_000]
        return await asyncio.gather(*(asyncio.to_thread(say, port, text) for text in texts))

    got = hurry(count, play)
    assert got[0].endswith(b"250000") and not any(one.endswith((b"250000", b"\r\n\r\n0")) for one in got[1:3])
    assert all(len(scope["headers"]) < 1000 for scope in scopes)


@pytest.mark.system
def test_what_is_no_request_writes_no_line(guarded: Guarded) -> None:
    before = guarded.service.log.read_text()
    odd = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: odd\r\n\r\n"
    for text in (b"odd\r\n\r\n", odd) * 3:
        assert say(guarded.service.port, text, seconds=0.2).startswith(b"HTTP/1.1 ")
    assert guarded.service.log.read_text() == before


@pytest.mark.system
def test_headers_of_a_megabyte_are_survived(guarded: Guarded) -> None:
    say(guarded.service.port, raw("X-Long: " + "x" * 1_000_000, f"Content-Length: {len(BODY)}"), seconds=0.5)
    many = [f"X-{k}: {'y' * 100}" for k in range(5000)]
    say(guarded.service.port, raw(*many, f"Content-Length: {len(BODY)}"), seconds=0.5)
    say(guarded.service.port, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", seconds=0.5)
    assert ask(guarded.service, "/score", guarded.key, BODY)[0] == 200


@pytest.mark.system
def test_neither_keys_nor_rows_nor_folders_come_out(guarded: Guarded) -> None:
    """Runs after the others of this service: what they did left no key in its log."""
    secret = {**BIRD, "ring": "Ada Lovelace", "island": "the moon"}
    told = json.dumps(ask(guarded.service, "/score", guarded.key, json.dumps(secret).encode())[2])
    pages = [json.dumps(ask(guarded.service, path, guarded.key)[2]) for path in ("/model", "/openapi.json", "/nothing")]
    log = guarded.service.log.read_text()
    folders = {str(Path.home()), str(guarded.file.parent), str(service_folder().parent), sys.prefix}
    assert not [folder for folder in folders for page in (told, *pages) if folder in page]
    assert guarded.key not in log and "Ada" not in log and "mlwb_" not in log.replace("nobody is let in", "")


@pytest.mark.system
@pytest.mark.parametrize("server", ["uvicorn", pytest.param("bentoml", marks=pytest.mark.long)])
def test_a_service_speaks_tls_by_its_files(workshop, tls: Address, server: str) -> None:
    with start_service("birds", home=workshop.home, address=tls, server=server) as service:
        assert service.url == f"https://127.0.0.1:{service.port}"
        trusted = ssl.create_default_context(cafile=tls.certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", service.port, timeout=30, context=trusted)
        connection.request("POST", "/score", BODY, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        assert b"HTTP/1.1 200" not in say(service.port, raw(f"Content-Length: {len(BODY)}"), seconds=1)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line, pytest.raises(OSError):
            old.wrap_socket(line)


@pytest.mark.system
def test_the_command_passes_on_what_the_settings_say(workshop, tls: Address, tmp_path: Path) -> None:
    """Keys, TLS and two workers by a settings file with relative paths, from a folder below it."""
    key, _ = add_caller(tmp_path / "callers.json", "web", ["score"])
    for file in (tls.certificate, tls.key):
        (tmp_path / Path(file).name).write_bytes(Path(file).read_bytes())
    (tmp_path / "server.key").chmod(0o600)
    lines = [
        "[serve]",
        "auth = keys",
        "keys_file = callers.json",
        "tls_certificate = server.pem",
        "tls_key = server.key",
    ]
    (tmp_path / "settings.ini").write_text("\n".join([*lines, "max_in_flight = 5", "workers = 2"]))
    (tmp_path / "below").mkdir()
    environment = {**os.environ, "MLWORKBENCH_HOME": str(workshop.home.path)}
    words = ["-c", "from mlworkbench.cli.app import main; main()", "serve", "--model", "birds", "--json"]
    command = [sys.executable, *words, "--port", str(port := free_port())]
    with subprocess.Popen(command, cwd=tmp_path / "below", env=environment, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert json.loads(run.stdout.readline())["url"] == f"https://127.0.0.1:{port}"
            for shown, status in ((f"Bearer {key}", 200), ("", 401)):
                trusted = ssl.create_default_context(cafile=tls.certificate)
                connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trusted)
                headers = {"Content-Type": "application/json", **({"Authorization": shown} if shown else {})}
                connection.request("POST", "/score", BODY, headers)
                assert connection.getresponse().status == status
                connection.close()
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(20)
    assert run.returncode == 130


@pytest.mark.system
def test_a_service_whose_keys_cannot_be_read_does_not_start(workshop, file: Path) -> None:
    told = {"MLWORKBENCH_SERVE_AUTH": "keys", "MLWORKBENCH_SERVE_KEYS_FILE": str(file)}
    with (
        pytest.raises(WorkbenchError, match="make one by mlworkbench keys add"),
        start_service("birds", home=workshop.home, env=told),
    ):
        pytest.fail("it became ready")


@pytest.mark.system
def test_what_a_service_writes_is_read_by_its_owner_alone(guarded: Guarded, workshop) -> None:
    ask(guarded.service, "/score", guarded.key, BODY)
    ask(guarded.service, "/score", guarded.key, b'{"bill": "x"}')
    model = workshop.home.model("birds")
    written = [path for path in (*model.glob("*"), *model.glob("services/*")) if path.is_file()]
    assert guarded.service.log in written and any(path.suffix == ".sqlite" for path in written)
    assert not [path for path in written if path.stat().st_mode & 0o077]


def test_a_signal_stops_nothing_of_this(guarded: Guarded) -> None:
    """A service that was asked all this ends as any other, at once: no request of those hangs in it."""
    guarded.service.process.send_signal(signal.SIGTERM)
    assert guarded.service.process.wait(8) in (0, -signal.SIGTERM)
