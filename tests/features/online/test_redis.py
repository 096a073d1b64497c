"""The store in a server: what is its own - the address, the password, one state for one answer, giving way."""

import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

import numpy as np
import pytest

from mlworkbench.core.home import Home
from mlworkbench.core.settings import read_settings
from mlworkbench.core.settings_file import make_online_environment, read_setting
from mlworkbench.errors import FeatureError, SettingsError
from mlworkbench.features.online import redis
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.redis import mask_url
from mlworkbench.features.online.store import ConflictError
from mlworkbench.features.views import AsOfView, Total, WindowView

VIEW = AsOfView("weather", "weather", ("origin",), {"wind": "number"})
LANDED = WindowView("landed", "flights", ("origin",), timedelta(microseconds=50), {"n": Total("count")})
JFK = {"origin": np.array(["JFK"], dtype=object)}
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("MLWORKBENCH_ONLINE", raising=False)
    monkeypatch.chdir(tmp_path)


def test_settings_name_the_server_and_the_environment_wins(tmp_path, monkeypatch):
    home = Home.open(tmp_path / "home")
    assert home.online_place == home.online and make_online_environment() == {}
    (tmp_path / "settings.ini").write_text("[workbench]\nonline = redis://server:6379/0\n")
    assert home.online_place == "redis://server:6379/0" == read_settings().online
    assert make_online_environment() == {"MLWORKBENCH_ONLINE": "redis://server:6379/0"}
    monkeypatch.setenv("MLWORKBENCH_ONLINE", f"redis://:{SECRET}@other:6379/1")
    assert home.online_place == f"redis://:{SECRET}@other:6379/1" and SECRET not in repr(read_settings())


@pytest.mark.parametrize(
    "line", [f"redis://:{SECRET}@server/0", f"redis://server/0?password={SECRET}", f"my://{SECRET}", SECRET]
)
def test_a_password_or_no_address_in_settings_is_refused_and_not_shown(tmp_path, line, monkeypatch):
    (tmp_path / "settings.ini").write_text(f"[workbench]\nonline = {line}\n")
    with pytest.raises(SettingsError, match="online") as caught:
        read_setting("workbench.online")
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "settings.ini").unlink()
    if not line.startswith("redis"):
        monkeypatch.setenv("MLWORKBENCH_ONLINE", line)
        for ask in (lambda: read_setting("workbench.online"), read_settings):
            with pytest.raises(SettingsError) as caught:
                ask()
            assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://me:{SECRET}@host:1/2", "redis://host:1/2"),
        (f"rediss://host/0?password={SECRET}", "rediss://host/0"),
        (f"redis://[{SECRET}", "redis://..."),
    ],
)
def test_an_address_is_shown_without_its_secret(url, shown):
    assert mask_url(url) == shown


def test_a_service_waits_for_a_server_that_hangs_once_and_not_long(monkeypatch):
    monkeypatch.setattr(redis, "SERVE_WAIT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(FeatureError, match="Timeout"):
            redis.RedisRows(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", read_only=True)
        assert time.monotonic() - begun >= 0.3
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_server_that_refuses_or_is_not_there_is_one_line_without_the_password(empty_redis):
    address = empty_redis.removeprefix("redis://")
    for url in (f"redis://:{SECRET}@127.0.0.1:1/0", f"redis://me:{SECRET}@{address}", f"redis://:{SECRET}@x:y/0"):
        with pytest.raises(FeatureError) as caught:
            OnlineStore(url)
        assert SECRET not in str(caught.value) and "\n" not in str(caught.value) and "online store" in str(caught.value)
        assert caught.value.__cause__ is None


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(FeatureError, match=r"pip install 'mlworkbench\[redis\]'"):
        OnlineStore("redis://127.0.0.1:1/0")


def test_a_server_that_holds_nothing_or_a_newer_format_is_refused(empty_redis):
    import redis

    with pytest.raises(FeatureError) as refused:
        OnlineStore(empty_redis, read_only=True)
    assert refused.value.code == "features.store_missing" and "mlworkbench features materialize" in str(refused.value)
    with redis.Redis.from_url(empty_redis) as client:
        client.set("mlworkbench:format", 9)
    with pytest.raises(FeatureError) as refused:
        OnlineStore(empty_redis)
    assert refused.value.code == "features.store_format"


def test_of_two_writers_the_second_gives_way_and_changes_nothing(empty_redis):
    with OnlineStore(empty_redis) as first, OnlineStore(empty_redis) as second:
        with pytest.raises(ConflictError, match="nothing was changed"), second.transaction():
            second.put(VIEW, [('["JFK"]', 20, "[2.0]")])
            first.put(VIEW, [('["JFK"]', 10, "[1.0]")])
        assert first.stored(VIEW) == second.stored(VIEW) == [('["JFK"]', 10, "[1.0]")]


def test_a_transaction_that_raises_changes_nothing(empty_redis):
    with OnlineStore(empty_redis) as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.put(VIEW, [('["JFK"]', 10, "[1.0]")])
            1 / 0  # noqa: B018
        assert store.stored(VIEW) == [] and store.watermark() == {}


def test_a_reader_takes_up_what_another_wrote_between_its_question_and_its_answer(empty_redis):
    with OnlineStore(empty_redis) as writer, OnlineStore(empty_redis) as reader:
        writer.put(LANDED, [('["JFK"]', 10, "[1]")])
        assert reader.lookup([LANDED], JFK, np.array([20]))["n"].tolist() == [1]
        asked = reader.rows._read_once

        def late(*words):
            writer.put(LANDED, [('["JFK"]', 10, "[5]"), ('["JFK"]', 15, "[7]")])
            reader.rows._read_once = asked
            return asked(*words)

        reader.rows._read_once = late
        assert reader.lookup([LANDED], JFK, np.array([20]))["n"].tolist() == [7]


def test_a_view_that_another_process_added_is_found_by_a_reader_that_knew_less(empty_redis):
    with OnlineStore(empty_redis) as writer, OnlineStore(empty_redis) as reader:
        writer.put(LANDED, [('["JFK"]', 10, "[1]")])
        reader.lookup([LANDED], JFK, np.array([20]))
        writer.put(VIEW, [('["JFK"]', 10, "[1.5]")])
        assert reader.lookup([VIEW, LANDED], JFK, np.array([20]))["wind"].tolist() == [1.5]


def test_rows_of_one_key_and_time_are_replaced_however_they_come(empty_redis):
    with OnlineStore(empty_redis) as store:
        store.put(VIEW, [('["A"]', 10, "[1]"), ('["B"]', 10, "[2]"), ('["A"]', 10, "[3]"), ('["A"]', 10, "[4]")])
        with store.transaction():
            store.put(VIEW, [('["B"]', 10, "[5]")])
            store.put(VIEW, [('["B"]', 10, "[6]")])
        assert store.stored(VIEW) == [('["A"]', 10, "[4]"), ('["B"]', 10, "[6]")]
        store.remove(VIEW, [('["A"]', 10)])
        assert store.stored(VIEW) == [('["B"]', 10, "[6]")]
        many = [('["C"]', 1_000 + i, f"[{i}]") for i in range(2_345)]
        assert store.put(VIEW, many) == 2_345 and store.stored(VIEW)[1:] == many


def test_a_time_that_a_score_cannot_hold_is_refused(empty_redis):
    with OnlineStore(empty_redis) as store:
        store.put(VIEW, [('["A"]', 2**53, "[1]"), ('["A"]', 2**53 - 1, "[2]")])
        assert store.get(VIEW, ("A",), 2**53 - 1) == {"wind": 2}
        with pytest.raises(FeatureError) as refused:
            store.put(VIEW, [('["A"]', 2**53 + 1, "[1]")])
        assert refused.value.code == "features.time_invalid" and "2255" in str(refused.value)


def test_serving_from_a_server_brings_in_no_table_library(empty_redis):
    with OnlineStore(empty_redis) as store:
        store.put(VIEW, [('["JFK"]', 10, "[1.5]")])
    code = (
        "import sys; import numpy as np; from mlworkbench.features.online.lookup import OnlineStore;"
        "from mlworkbench.features.views import AsOfView;"
        "view = AsOfView('weather', 'weather', ('origin',), {'wind': 'number'});"
        "found = OnlineStore(sys.argv[1], read_only=True).get(view, ('JFK',), 20);"
        "heavy = {'pandas', 'polars', 'pyarrow', 'sklearn', 'deltalake'} & set(sys.modules);"
        "print(found, sorted(heavy))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, empty_redis], capture_output=True, text=True, env=dict(os.environ)
    )
    assert ran.stdout.strip() == "{'wind': 1.5} []", ran.stderr
