"""Training: the same rows, code and seeds give the same version; what cannot teach is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlworkbench.core.settings import load_settings
from mlworkbench.data.lake.lake import Lake
from mlworkbench.errors import DefinitionError, UserCodeError
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView
from mlworkbench.operate.training.assembly import assemble
from mlworkbench.operate.training.split import clean_labels, infer_task, split_rows
from mlworkbench.operate.training.train import find_definition, train
from mlworkbench.scoring.artifacts.manifest import read_document
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import predict

UTC = timezone.utc  # noqa: UP017
DAY = 86_400_000_000


def birds(count: int = 120) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    species = draws.choice(["a", "b", "c"], count)
    mass = draws.normal(3700, 300, count) + np.where(species == "c", 1300, 0)
    return pd.DataFrame({"island": draws.choice(["x", "y"], count), "mass": mass, "species": species})


def classifier() -> object:
    steps = make_column_transformer((StandardScaler(), ["mass"]), (OneHotEncoder(), ["island"]))
    return make_pipeline(steps, LogisticRegression())


def definition(**fields: object) -> ModelDefinition:
    given = {"name": "birds", "estimator": classifier, "data": birds(), "label": "species"}
    return ModelDefinition(**{**given, **fields})


def doubled(mass: np.ndarray) -> dict[str, np.ndarray]:
    return {"doubled": mass * 2}


def broken(mass: np.ndarray) -> dict[str, np.ndarray]:
    if (mass > 4900).any():
        raise ValueError("too heavy")
    return {"light": mass}


def strict(table: pd.DataFrame) -> pd.DataFrame:
    raise KeyError("no such column")


def test_the_same_rows_code_and_seed_give_the_same_version_and_say_so(home) -> None:
    first, again = train(definition(), home=home), train(definition(), home=home)
    assert (first.created, again.created) == (True, False)
    assert first.content_id == again.content_id
    assert first.tag == f"birds:{first.content_id[:32]}"
    assert "nothing written" in again.line
    assert len(Registry(home).versions("birds")) == 1
    assert first.rows == {"train": 96, "validation": 24, "unlabelled": 0, "unknown_at_cut": 0}


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(early_stopping=True, max_iter=20),
        RandomForestClassifier(n_estimators=10, n_jobs=2),
        GridSearchCV(RandomForestClassifier(n_estimators=5), {"max_depth": [2, 3]}, cv=3),
    ],
)
def test_open_seeds_are_set_so_that_random_estimators_repeat(home, estimator) -> None:
    only = definition(estimator=estimator, features=("mass",))
    assert train(only, home=home).content_id == train(only, home=home).content_id
    assert train(replace(only, seed=1), home=home).content_id != train(only, home=home).content_id


def test_other_rows_give_another_version(home) -> None:
    changed = birds()
    changed.loc[3, "mass"] += 1
    assert train(definition(), home=home).content_id != train(definition(data=changed), home=home).content_id


def test_a_sample_of_rows_is_drawn_by_the_seed(home) -> None:
    one, two = train(definition(), home=home, rows=60), train(definition(), home=home, rows=60)
    assert one.rows["train"] + one.rows["validation"] == 60
    assert one.content_id == two.content_id


def test_the_trials_of_a_search_stay_with_the_version(home) -> None:
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    result = train(definition(estimator=search, features=("mass",)), home=home)
    assert (result.folder / "trials.json").is_file()


def test_a_version_answers_on_its_own_and_reproduces_its_golden_rows(home) -> None:
    result = train(definition(views=(RowFunction(doubled),)), home=home)
    version = Registry(home).open("birds", result.tag)
    assert len(version.golden) == 100
    assert set(version.golden[0]["frame"]) == {"island", "mass", "doubled"}
    found = predict(version, {"island": np.array(["x"], dtype=object), "mass": np.array([5000.0])}, {})
    assert found.scores.shape == (1, 3)
    assert "# birds" in (result.folder / "card.md").read_text()


def test_golden_rows_and_profile_hold_neither_entity_nor_personal_columns(home) -> None:
    data = birds().assign(ring=[f"ring-{number}" for number in range(120)], owner=[f"owner-{n}" for n in range(120)])
    result = train(definition(data=data, entity=("ring",), personal=("owner",)), home=home)
    for file in result.folder.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            assert b"ring-1" not in text, file
            assert b"owner-1" not in text, file


def test_a_failed_gate_is_a_verdict_not_an_error(home) -> None:
    result = train(definition(gates={"accuracy": (">=", 0.999)}), home=home)
    assert result.gates["verdict"] == "fail"
    assert Registry(home).versions("birds")[0]["verdict"] == "fail"


def test_boolean_and_whole_number_classes_keep_their_kind(home) -> None:
    data = birds().assign(heavy=lambda table: table["mass"] > 4000).drop(columns="species")
    islands = make_pipeline(OneHotEncoder(), LogisticRegression())
    tag = train(definition(data=data, label="heavy", features=("island",), estimator=islands), home=home).tag
    assert Registry(home).open("birds", tag).declaration["classes"] == [False, True]
    holes = data.assign(heavy=data["heavy"].astype(float)).astype({"heavy": "object"})
    holes.loc[::10, "heavy"] = None
    holes["heavy"] = holes["heavy"].astype(float)
    result = train(definition(name="holes", data=holes, label="heavy"), home=home)
    assert Registry(home).open("holes", result.tag).declaration["classes"] == [0, 1]
    assert result.rows["unlabelled"] == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": birds(3)}, ["at least 20", "3 of 3 rows"]),
        ({"data": birds().assign(species="a")}, ["two classes", "'a'"]),
        ({"label": "specie"}, ["'specie'", "did you mean 'species'"]),
        ({"features": ("mas",)}, ["feature", "'mas'", "did you mean 'mass'"]),
        ({"data": birds()[["species"]]}, ["no feature"]),
        (
            {"data": birds().assign(y=[*[1.0] * 119, np.inf]), "label": "y", "estimator": LinearRegression()},
            ["finite", "inf", "row 119"],
        ),
        ({"data": birds().assign(species=np.linspace(0, 1, 120))}, ["whole numbers"]),
        ({"data": birds().assign(seen=pd.Timestamp("2013-01-01"))}, ["'seen'", "offset"]),
        ({"estimator": StandardScaler()}, ["neither classifier, regressor nor outlier detector"]),
        ({"task": "regression"}, ["task", "'regression'"]),
        ({"data": birds().assign(mass=np.nan), "features": ("mass",), "estimator": LogisticRegression()}, ["NaN"]),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line_and_nothing_is_written(home, change, words) -> None:
    with pytest.raises(DefinitionError) as refusal:
        train(definition(**change), home=home)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert Registry(home).models() == []


def test_an_error_in_the_users_row_function_names_file_line_and_row(home) -> None:
    with pytest.raises(UserCodeError, match=r"broken: ValueError: too heavy; .*test_train.py, line \d+.*row \d+"):
        train(definition(views=(RowFunction(broken),)), home=home)


def test_an_error_in_the_users_transformer_names_file_and_line(home) -> None:
    estimator = make_pipeline(FunctionTransformer(strict), LogisticRegression())
    with pytest.raises(UserCodeError, match=r"test_train.py, line \d+, in strict"):
        train(definition(estimator=estimator), home=home)


# rows with time


def flights(days: int = 40, each: int = 10) -> pl.DataFrame:
    draws = np.random.default_rng(1)
    count = days * each
    asked = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=n // each, minutes=n % each) for n in range(count)]
    delay = draws.normal(0, 1, count)
    return pl.DataFrame(
        {
            "flight": [f"UA {n}" for n in range(count)],
            "at": asked,
            "landed": [moment + timedelta(hours=30) for moment in asked],
            "origin": draws.choice(["JFK", "LGA"], count),
            "delay": delay,
            "late": (delay + draws.normal(0, 1, count) > 0).astype(int),
        }
    )


def weather(lake: Lake) -> None:
    hours = [datetime(2012, 12, 31, tzinfo=UTC) + timedelta(hours=6 * n) for n in range(200)]
    rows = pl.DataFrame({"origin": ["JFK"] * 200, "available_at": hours, "wind": np.arange(200.0)})
    lake.append("weather", rows.to_arrow(), transaction=None)


WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=12))


def timed(**fields: object) -> ModelDefinition:
    given = {
        "name": "late",
        "estimator": HistGradientBoostingClassifier(max_iter=5),
        "data": flights(),
        "label": "late",
        "entity": ("flight",),
        "prediction_time": "at",
        "label_available_at": "landed",
        "features": ("delay",),
    }
    return ModelDefinition(**{**given, **fields})


def test_a_label_must_be_known_before_the_cut_to_teach(home) -> None:
    result = train(timed(split="2013-02-01T00:00:00+00:00"), home=home)
    assert result.rows == {"train": 300, "validation": 90, "unlabelled": 0, "unknown_at_cut": 10}


def test_without_a_stated_split_the_last_fifth_judges(home) -> None:
    rows = train(timed(label_available_at=None), home=home).rows
    assert (rows["train"], rows["validation"]) == (320, 80)


def test_rows_at_or_after_until_neither_teach_nor_judge(home) -> None:
    rows = train(timed(split="2013-01-20T00:00:00+00:00", until="2013-01-25T00:00:00+00:00"), home=home).rows
    assert rows["train"] + rows["unknown_at_cut"] == 190
    assert rows["validation"] == 50


def test_a_split_that_leaves_nothing_is_refused(home) -> None:
    with pytest.raises(DefinitionError, match="after the cut") as raised:
        train(timed(split="2014-01-01T00:00:00+00:00"), home=home)
    assert raised.value.code == "definition.split_empty"
    with pytest.raises(DefinitionError, match="before the cut") as raised:
        train(timed(split="2012-01-01T00:00:00+00:00"), home=home)
    assert raised.value.code == "definition.split_empty"


def test_a_version_keeps_the_counts_of_each_training_day_and_knows_which_judged(home) -> None:
    result = train(timed(split="2013-02-01T00:00:00+00:00"), home=home)
    profile = read_document(result.folder, "profile.json")
    days = {block["day"]: block["judged"] for block in profile["blocks"]}
    cut = (datetime(2013, 2, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert list(days) == sorted(days) and all(judged == (day >= cut) for day, judged in days.items())
    counts = [block["counts"] for block in profile["blocks"]]
    assert sum(one["rows"] for one in counts) == sum(one["labels"]["n"] for one in counts) == profile["rows"] == 390
    assert counts[0]["columns"].keys() == profile["columns"].keys() == {"delay"}


def test_views_are_joined_as_of_the_prediction_time(home) -> None:
    weather(Lake(home.lake))
    seen = timed(views=(WEATHER,), features=("delay", "wind"))
    assembled = assemble(seen, Lake(home.lake))
    wind, origin = assembled.values["wind"], assembled.columns["origin"]
    hours = (assembled.times - int(datetime(2012, 12, 31, tzinfo=UTC).timestamp() * 1e6)) // (6 * DAY // 24)
    expected = np.where((origin == "JFK"), hours.astype(float), np.nan)
    assert np.array_equal(wind, expected, equal_nan=True)
    assert assembled.contract.column("wind").nullable
    result = train(seen, home=home)
    assert [view.name for view in Registry(home).open("late", result.tag).views] == ["weather"]


def test_a_view_column_that_the_request_has_already_is_refused(home) -> None:
    weather(Lake(home.lake))
    data = flights().with_columns(wind=pl.lit(1.0))
    with pytest.raises(DefinitionError, match="'wind'") as raised:
        train(timed(data=data, views=(WEATHER,), features=None), home=home)
    assert raised.value.code == "definition.view_column_taken"


def test_the_frame_leaves_out_entity_personal_times_and_label(home) -> None:
    assembled = assemble(timed(features=None, personal=("delay",)), Lake(home.lake))
    assert assembled.frame.names == ("origin",)
    assert assembled.request.names == ("flight", "at", "origin", "delay")
    assert assembled.request.column("delay").personal
    assert assembled.request.column("flight").categories is None


# the parts


def test_each_class_keeps_its_share_for_any_seed() -> None:
    labels = np.array(["a"] * 90 + ["b"] * 10, dtype=object)
    for seed in range(5):
        split = split_rows(definition(seed=seed), labels, np.ones(100, dtype=bool))
        assert sorted(labels[split.validation].tolist()).count("b") == 2
        assert len(np.intersect1d(split.train, split.validation)) == 0
        assert len(split.train) + len(split.validation) == 100


def test_tasks_follow_the_estimator_and_the_number_of_classes() -> None:
    two, three = np.array([0.0, 1.0, np.nan]), np.array(["a", "b", "c", None], dtype=object)
    assert infer_task(definition(), LogisticRegression(), two) == "binary"
    assert infer_task(definition(), LogisticRegression(), three) == "multiclass"
    assert infer_task(definition(), LinearRegression(), two) == "regression"
    assert infer_task(definition(task="binary"), StandardScaler(), two) == "binary"


def test_text_labels_are_no_regression() -> None:
    with pytest.raises(DefinitionError) as raised:
        clean_labels(np.array(["a", None], dtype=object), "regression")
    assert raised.value.code == "definition.label_type"


def test_a_name_without_definition_says_where_to_put_one(home, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[workbench]\nhome = home\n[models]\nbirds = nowhere:birds\n")
    settings = load_settings()
    with pytest.raises(DefinitionError, match="did you mean 'birds'"):
        find_definition("brids", home=home, settings=settings)


# kill -9

SCRIPT = """
import sys, time
import numpy as np, pandas as pd
from sklearn.linear_model import LogisticRegression
from mlworkbench.core.home import Home
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.artifacts.manifest import read_document
from mlworkbench.scoring.definition import ModelDefinition

draws = np.random.default_rng(0)
data = pd.DataFrame({"x": draws.normal(size=4000), "y": draws.integers(0, 2, 4000)})

def tell(what, done, total):
    print(what, done, flush=True)

definition = ModelDefinition("killed", LogisticRegression(), data, "y")
print(train(definition, home=Home.open(sys.argv[1]), progress=tell).tag)
"""


@pytest.mark.parametrize("step", ["fit 0", "version 0"])
def test_kill_9_during_training_leaves_nothing_visible_and_the_next_run_succeeds(home, tmp_path: Path, step) -> None:
    script = tmp_path / "train_it.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(home.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == step:
            time.sleep(0.15 if step == "version 0" else 0)
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    before = Registry(home).versions("killed")
    assert len(before) <= 1
    for row in before:
        Registry(home).open("killed", row["tag"])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tag = done.stdout.split()[-1]
    assert [row["tag"] for row in Registry(home).versions("killed")] == [tag]
    Registry(home).open("killed", tag)
