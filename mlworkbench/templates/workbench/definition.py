"""The model of this workbench, said once; training and every deployment read it from here."""

from __future__ import annotations

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mlworkbench import ModelDefinition


def load_rows() -> pd.DataFrame:
    """Your rows: one column per input, and the label."""
    rows = load_iris(as_frame=True).frame
    return rows.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))


def build_pipeline() -> Pipeline:
    """Your pipeline, not fitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))


mymodel = ModelDefinition(
    name="mymodel",
    estimator=build_pipeline,
    data=load_rows,
    label="target",
    gates={"accuracy": (">=", 0.8)},
)
