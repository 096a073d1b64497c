"""Will an order come late? A model that looks things up in two tables of the lake, as they were known at the time."""

from datetime import timedelta
from pathlib import Path

import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from mlworkbench import AsOfView, Column, Contract, Lake, ModelDefinition, Table, Total, WindowView

DATA = Path(__file__).parent / "data"
KNOWN_LATER = {"known_at": "available_at"}  # 2. for a column that is filled in after its row was asked about

STOCK = Table(
    "stock",
    DATA / "stock.csv",
    Contract((Column("place", "category"), Column("pieces", "number", lower=0), Column("counted_at", "time"))),
    available_at="counted_at",  # 1. in every table: from when a row could be used; a count is known at once
)
ORDERS = Table(
    "orders",
    DATA / "orders.csv",
    Contract(
        (
            Column("order_id", "text"),
            Column("shop", "category"),
            Column("depot", "category"),
            Column("carrier", "category"),
            Column("weight", "number", lower=0, unit="kg"),
            Column("ordered_at", "time"),
            Column("delivered_at", "time", **KNOWN_LATER),
            Column("late", "number", lower=0, upper=1, **KNOWN_LATER),
        ),
        key=("order_id",),
    ),
    available_at="reported_at",  # a delivery is known when the carrier reports it, hours after it
    happened_at="delivered_at",  # 3. a witness: no row can have been known before what it tells of had happened
)
PIECES = {"ttl": timedelta(days=2), "table": "stock"}
VIEWS = (
    AsOfView("shop", keys={"shop": "place"}, columns=("shop_pieces",), source={"shop_pieces": "pieces"}, **PIECES),
    AsOfView("depot", keys={"depot": "place"}, columns=("depot_pieces",), source={"depot_pieces": "pieces"}, **PIECES),
    WindowView("shop_week", "orders", ("shop",), timedelta(days=7), {"shop_late": Total("share", "late")}),
    WindowView("carrier_days", "orders", ("carrier",), timedelta(days=3), {"carrier_late": Total("share", "late")}),
)


def load_rows(lake: Lake) -> pl.DataFrame:
    """Your rows: what is known when the question is asked, the label, and the time the label was known."""
    asked = ["order_id", "shop", "depot", "carrier", "weight", "ordered_at"]
    return lake.read("orders", columns=[*asked, "late", "available_at"])


def build_pipeline() -> Pipeline:
    """Your pipeline, not fitted; where a view knows nothing its columns are missing."""
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((codes, ["shop", "depot", "carrier"]), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=8, random_state=0))


mymodel = ModelDefinition(
    name="mymodel",
    estimator=build_pipeline,
    data=load_rows,
    label="late",
    entity=("order_id",),
    prediction_time="ordered_at",  # 4. in every model with views: when the question is asked
    label_available_at="available_at",  # 5. where labels come later: none teaches before it was known
    views=VIEWS,
    tables=(STOCK, ORDERS),
    gates={"roc_auc": (">=", 0.7)},
)
