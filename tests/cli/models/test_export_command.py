"""`models export` writes a copy for others, and what it wrote comes in again."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

ROWS = pd.DataFrame({"weight": np.arange(60.0), "power": np.arange(60.0) % 7})
ROWS["price"] = 2 * ROWS.weight + ROWS.power


def test_a_model_leaves_as_a_file_and_comes_in_again(clean, facts, tell):
    ROWS.to_csv("cars.csv", index=False)
    joblib.dump(LinearRegression().fit(ROWS[["weight", "power"]], ROWS.price), "cars.joblib")
    data = ("--data", "cars.csv", "--label", "price")
    facts("register", "cars.joblib", *data, "--trust-pickle")
    done = facts("models", "export", "cars", "--format", "skops", "--out", "out/cars.skops")
    assert (done["rows"], done["format"], done["path"]) == (60, "skops", "out/cars.skops") and done["difference"] < 1e-9
    assert facts("register", "out/cars.skops", *data)["created"] is False
    code, out, _ = tell("models", "export", "cars", "--format", "mlflow", "--out", "out/cars")
    assert code == 0 and "60 golden rows asked again" in out and "mlflow.pyfunc.load_model" in out
    back = facts("register", "out/cars", *data, "--name", "back")
    assert back["anchor"]["verdict"] == "equal"
    for kind, said in (("onnx", "no graph"), ("pmml", "one of mlflow, skops, onnx")):
        code, _, err = tell("models", "export", "cars", "--format", kind, "--out", "more")
        assert code == 2 and said in err and err.count("\n") == 1
    code, _, err = tell("models", "export", "cars", "--format", "skops", "--out", "out/cars.skops")
    assert code == 2 and "out/cars.skops" in err
