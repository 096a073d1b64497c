"""The lake in an object store: settings, keys, and the whole way of a row."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.core.settings import read_settings
from mlworkbench.core.settings_file import read_setting
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.lake.place import LakePlace
from mlworkbench.errors import IngestError, SettingsError
from mlworkbench.features.offline.join import join_views
from mlworkbench.features.online.lookup import OnlineStore
from mlworkbench.features.online.materialize import materialize
from mlworkbench.features.views import AsOfView

SECRET = "hunter2"


def settings(folder, text):
    (folder / "settings.ini").write_text(f"[workbench]\n{text}\n")


def test_settings_and_environment_name_the_lake_and_the_environment_wins(tmp_path, monkeypatch):
    monkeypatch.delenv("MLWORKBENCH_LAKE", raising=False)
    monkeypatch.chdir(tmp_path)
    home = Home.open(tmp_path / "home")
    assert (home.lake, home.quarantine) == (home.path / "lake", home.path / "quarantine")
    settings(tmp_path, "lake = s3://company/lake/")
    assert (home.lake, home.quarantine) == ("s3://company/lake", "s3://company/lake-quarantine")
    assert read_settings().lake == "s3://company/lake"
    monkeypatch.setenv("MLWORKBENCH_LAKE", "s3://other/one/lake")
    assert home.lake == read_setting("workbench.lake").value == read_settings().lake == "s3://other/one/lake"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@company/lake",
        f"s3://company/lake?secret={SECRET}",
        f"https://{SECRET}.company/lake",
        "s3://company",
        f"/mnt/{SECRET}",
        "s3://company/../lake",
    ],
)
def test_an_address_with_a_key_or_of_another_kind_is_refused_without_being_repeated(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    settings(tmp_path, f"lake = {url}")
    monkeypatch.setenv("MLWORKBENCH_LAKE", url)
    for ask in (lambda: read_setting("workbench.lake"), read_settings, lambda: Home(tmp_path).lake):
        with pytest.raises(SettingsError) as caught:
            ask()
        assert SECRET not in str(caught.value) and "lake" in str(caught.value).lower()


def test_tables_and_files_of_a_store_are_listed_like_those_of_a_folder(s3, tmp_path):
    rows = pl.DataFrame({"n": [1, 2]}).to_arrow()
    for place in (s3.url("lake"), tmp_path / "lake"):
        lake = Lake(place)
        assert lake.tables() == []
        for name in ("b", "a", "a"):
            lake.append(name, rows)
        assert lake.tables() == ["a", "b"]
        assert len(LakePlace.of(place).files("a")) == 2
        assert lake.read("a").height == 4 and lake.read("a", version=0).height == 2
        with pytest.raises(IngestError, match=r"did you mean 'a'|known: a, b"):
            lake.read("aa")


def test_a_wrong_key_and_a_server_that_is_not_there_are_one_line_without_keys(s3, monkeypatch):
    Lake(s3.url("lake")).append("t", pl.DataFrame({"n": [1]}).to_arrow())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(IngestError, match="table 't': cannot be reached: 403 Forbidden; see") as caught:
        Lake(s3.url("lake")).read("t")
    assert SECRET not in str(caught.value) and s3.environment["AWS_ACCESS_KEY_ID"] not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(IngestError, match=r"cannot be reached: Connection refused \(os error 111\); see"):
        Lake(s3.url("lake")).read("t")


def test_who_may_only_read_is_refused_when_writing(s3, monkeypatch):
    Lake(s3.url("lake")).append("t", pl.DataFrame({"n": [1]}).to_arrow())
    for name, value in s3.reader.items():
        monkeypatch.setenv(name, value)
    assert Lake(s3.url("lake")).read("t").height == 1
    with pytest.raises(IngestError, match="table 't'"):
        Lake(s3.url("lake")).append("t", pl.DataFrame({"n": [2]}).to_arrow())
    assert Lake(s3.url("lake")).read("t").height == 1


def weather(folder):
    columns = (Column("origin", "text"), Column("at", "time"), Column("wind", "number", upper=100))
    rows = [f"JFK,2013-10-01T{hour:02}:00:00Z,{hour}" for hour in range(20)]
    if not (folder / "weather.csv").exists():
        lines = ["origin,at,wind", *rows, "JFK,2013-10-02T00:00:00Z,900"]
        (folder / "weather.csv").write_text("\n".join(lines) + "\n")
    return Table("weather", str(folder / "weather.csv"), Contract(columns), available_at="at")


def test_rows_go_from_a_file_through_a_shared_lake_into_the_online_store_and_the_join(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_LAKE", s3.url("lake"))
    table = weather(tmp_path)
    one, other = Home.open(tmp_path / "one"), Home.open(tmp_path / "other")
    report = ingest(table, home=one)
    assert (report.appended, report.quarantined) == (20, 1)
    again = ingest(table, home=other)  # another machine's home, the same lake
    assert (again.appended, again.skipped, again.quarantined) == (0, 20, 0)
    assert not (one.path / "lake").exists()
    view = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=2))
    asked = pl.DataFrame({"origin": ["JFK", "LGA"], "prediction_time": ["2013-10-01T05:30:00+00:00"] * 2})
    asked = asked.with_columns(pl.col("prediction_time").str.to_datetime(time_unit="us", time_zone="UTC"))
    joined = join_views(asked, [view], Lake(other.lake))
    assert joined["wind"].to_list()[0] == 5.0
    with OnlineStore(other.online) as store:
        assert materialize([view], Lake(other.lake), store)["weather"] == 20
        times = asked["prediction_time"].cast(pl.Int64).to_numpy()
        found = store.lookup([view], {"origin": asked["origin"].to_numpy()}, times)
    assert found["wind"][0] == 5.0


INGEST = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_place import weather
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
home, table = Home.open(sys.argv[1]), weather(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
report = ingest(table, home=home)
print(report.appended, report.quarantined)
"""


def test_ingests_of_two_machines_at_once_append_each_row_once(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("MLWORKBENCH_LAKE", s3.url("lake"))
    weather(tmp_path)
    here = str(Path(__file__).parent)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    homes = [str(tmp_path / f"home-{number}") for number in range(3)]  # no lock between them
    running = [subprocess.Popen([sys.executable, "-c", INGEST, home, str(tmp_path), here], **pipes) for home in homes]
    for worker in running:
        assert worker.stdout.readline() == "ready\n"
    said = []
    for worker in running:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in running:
        said.append(list(map(int, worker.communicate(timeout=120)[0].split())))
    assert [worker.returncode for worker in running] == [0, 0, 0]
    assert [sum(column) for column in zip(*said, strict=True)] == [20, 1]
    lake = Lake(s3.url("lake"))
    assert lake.read("weather")["source_row"].sort().to_list() == list(range(20))
    assert Lake(s3.url("lake-quarantine")).read("weather").height == 1
