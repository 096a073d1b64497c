"""A newcomer's model file becomes a version: by one command, and a pickle only with the word that allows it."""

from __future__ import annotations

import pickle
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

RANDOM = np.random.default_rng(0)
ROWS = pd.DataFrame({"weight": RANDOM.normal(size=200), "power": RANDOM.normal(size=200)})
ROWS["price"] = 2 * ROWS.weight + ROWS.power


class Planted:
    """Writes a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'a').write('ran')",)


@pytest.fixture
def rows(clean):
    ROWS.to_csv(clean / "cars.csv", index=False)
    return clean


DATA = ("--data", "cars.csv", "--label", "price")


def test_a_pickle_is_never_opened_without_the_flag(rows, tell):
    (rows / "cars.pkl").write_bytes(pickle.dumps(Planted(rows / "ran")))
    code, _, err = tell("register", "cars.pkl", *DATA)
    assert code == 2 and "--trust-pickle" in err and err.count("\n") == 1
    (rows / "cars").mkdir()
    (rows / "cars/model.pkl").write_bytes((rows / "cars.pkl").read_bytes())
    (rows / "cars/MLmodel").write_text("flavors:\n  sklearn:\n    pickled_model: model.pkl\n")
    code, _, err = tell("register", "cars", *DATA)
    assert code == 2 and "--trust-pickle" in err and not (rows / "ran").exists()
    code, _, err = tell("register", "cars.pkl", *DATA, "--trust-pickle")
    assert code == 2 and "a fitted estimator" in err and (rows / "ran").read_text() == "ran"


def test_a_joblib_file_answers_as_the_object_in_it(rows, facts, tell):
    model = LinearRegression().fit(ROWS[["weight", "power"]], ROWS.price)
    joblib.dump(model, rows / "2024 Cars.joblib")
    made = facts("register", "2024 Cars.joblib", *DATA, "--trust-pickle")
    assert made["model"] == "cars" and made["anchor"]["verdict"] == "equal"
    assert "opened once" in made["notes"][-1]
    facts("score", "cars.csv", "--model", "cars", "--out", "scored.csv")
    assert np.abs(pd.read_csv("scored.csv").score - model.predict(ROWS[["weight", "power"]])).max() < 1e-9
    kept = [path.name for path in (rows / "bentoml").rglob("*") if path.is_file()]
    assert "pipeline.skops" in kept and not [name for name in kept if name.endswith((".pkl", ".joblib"))]


def test_a_type_of_ones_own_names_the_line_to_write(rows, tell):
    (rows / "own.py").write_text(
        "from sklearn.linear_model import LinearRegression\n\n\nclass Own(LinearRegression):\n    pass\n"
    )
    code = "import own, joblib, pandas as pd; rows = pd.read_csv('cars.csv')"
    exec(f"import sys; sys.path.insert(0, '.'); {code}", scope := {})
    scope["joblib"].dump(scope["own"].Own().fit(ROWS[["weight", "power"]], ROWS.price), "own.joblib")
    code, _, err = tell("register", "own.joblib", *DATA, "--trust-pickle")
    assert code == 2 and "[trust] types = own.Own" in err


def test_a_booster_fitted_on_categories_comes_with_parquet_and_not_with_csv(rows, facts, tell):
    lightgbm = pytest.importorskip("lightgbm")
    table = ROWS[["weight"]].assign(maker=pd.Categorical(RANDOM.choice(["seat", "fiat", "ford"], len(ROWS))))
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(table, ROWS.price)
    skops.io.dump(model, "makers.skops")
    whole = table.assign(price=ROWS.price)
    whole.to_csv("makers.csv", index=False)
    whole.to_parquet("makers.parquet")
    told = ("--label", "price")
    code, _, err = tell("register", "makers.skops", "--data", "makers.csv", *told)
    assert code == 2 and "to_parquet" in err and err.count("\n") == 1
    made = facts("register", "makers.skops", "--data", "makers.parquet", *told)
    assert made["anchor"]["verdict"] == "equal"
    facts("score", "makers.csv", "--model", "makers", "--out", "scored.csv")
    assert np.abs(pd.read_csv("scored.csv").score - model.predict(table)).max() < 1e-9
