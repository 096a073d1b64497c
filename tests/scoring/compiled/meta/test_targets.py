"""Labels that were transformed: each inverse is the library's, and refuses what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from few_columns import WIDE, codes, hold, refer, words
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import refuse_alike
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from mlworkbench.scoring.compiled.base.blocks import RowError
from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import ProgramCompiler, compile_scorer
from mlworkbench.scoring.compiled.meta.targets import invert
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.frame import FeatureFrame

LABELS = np.random.default_rng(0).gamma(2.0, 3.0, size=(120, 1)) + 0.5
INVERSES: dict[str, Any] = {
    "standard": StandardScaler(),
    "standard without mean": StandardScaler(with_mean=False),
    "robust": RobustScaler(),
    "range": MinMaxScaler((-1, 2)),
    "largest": MaxAbsScaler(),
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson alone": PowerTransformer(standardize=False),
    "box-cox": PowerTransformer("box-cox"),
    "quantiles": QuantileTransformer(n_quantiles=20),
    "quantiles of the normal": QuantileTransformer(n_quantiles=20, output_distribution="normal"),
    "logarithm": FunctionTransformer(np.log1p, np.expm1, validate=True),
    "one after another": make_pipeline(FunctionTransformer(np.sqrt, np.square), StandardScaler()),
}
VALUE = st.one_of(st.floats(-6, 6), st.sampled_from([0.0, -0.0, 1.0, 1e-300, 40.0, -40.0, 1e6, -1e6]))


@pytest.mark.filterwarnings("ignore:Some values in column")
@pytest.mark.parametrize("name", INVERSES)
@settings(max_examples=15, deadline=None)
@given(values=st.lists(VALUE, min_size=1, max_size=12))
def test_an_inverse_is_that_of_the_library(name: str, values: list[float]) -> None:
    fitted = INVERSES[name].fit(LABELS)
    steps = [ProgramMaker().step(spec) for spec in invert(fitted, ProgramCompiler())]
    table: Any = np.array([values])
    with np.errstate(all="ignore"):
        expected = fitted.inverse_transform(table.T.copy())[:, 0]
    for step in steps:
        table = step(table)
    assert (np.isfinite(table[0]) == np.isfinite(expected)).all()
    good = np.isfinite(expected)
    assert np.allclose(table[0][good], expected[good], rtol=1e-13, atol=1e-15)


@pytest.mark.filterwarnings("ignore:Some values in column")
@pytest.mark.parametrize("power", [-2.0, 0.0, 1e-20, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("method", ["yeo-johnson", "box-cox"])
def test_every_power_has_its_own_branch(method: str, power: float) -> None:
    fitted = PowerTransformer(method, standardize=False).fit(LABELS)
    fitted.lambdas_ = np.array([power])
    values = np.array([[-1e308, -3.0, -0.5, -0.0, 0.0, 0.5, 3.0, 1e308]])
    steps, table = invert(fitted, ProgramCompiler()), values
    for step in (ProgramMaker().step(spec) for spec in steps):
        table = step(table)
    with np.errstate(all="ignore"):
        expected = fitted.inverse_transform(values.T.copy())[:, 0]
    assert (np.isfinite(table[0]) == np.isfinite(expected)).all()
    good = np.isfinite(expected)
    assert np.allclose(table[0][good], expected[good], rtol=1e-12, atol=1e-15)


CASES: dict[str, Any] = {
    "logarithm": {"func": np.log1p, "inverse_func": np.expm1},
    "root": {"func": np.sqrt, "inverse_func": np.square},
    "nothing": {},
    "powers": {"transformer": PowerTransformer()},
    "quantiles of the normal": {"transformer": QuantileTransformer(n_quantiles=20, output_distribution="normal")},
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_of_a_transformed_label_answers_as_its_pipeline(name: str) -> None:
    trees = name in ("logarithm", "powers")
    boosted = make_pipeline(codes(), HistGradientBoostingRegressor(max_iter=5, random_state=0))
    inside = boosted if trees else make_pipeline(words(), Ridge())
    hold(refer(TransformedTargetRegressor(inside, **CASES[name]), "regression"), same_bits=trees)


def test_the_same_values_are_refused() -> None:
    inside = TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp)
    reference = refer(make_pipeline(StandardScaler(), inside), "regression", WIDE)
    odd = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e7, -1e7, 0.0]
    frame = FeatureFrame({"distance": np.array(odd), "minute": np.full(len(odd), 600.0)})
    refuse_alike(reference, compile_scorer(reference), frame)


def test_what_is_not_finite_has_no_inverse() -> None:
    steps = invert(INVERSES["logarithm"].fit(LABELS), ProgramCompiler())
    with pytest.raises(RowError, match="NaN"):
        ProgramMaker().step(steps[0])(np.array([[np.nan]]))


REFUSED = {
    "an own function": ({"func": np.log1p, "inverse_func": lambda label: label}, "inverse_func: .* got <lambda>"),
    "arguments": (
        {"transformer": FunctionTransformer(np.log, np.exp, inv_kw_args={"casting": "safe"})},
        "with arguments has no rule",
    ),
    "bins": ({"transformer": KBinsDiscretizer(5, encode="ordinal")}, "inverse of KBinsDiscretizer has no rule"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_an_inverse_without_a_rule_is_refused_by_name(name: str) -> None:
    options, reason = REFUSED[name]
    reference = refer(TransformedTargetRegressor(make_pipeline(words(), Ridge()), **options), "regression")
    with pytest.raises(NoRuleError, match=reason):
        compile_scorer(reference)
