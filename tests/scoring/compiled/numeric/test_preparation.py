"""Transformers that bend, cut, multiply or scale each column by itself: to the bit, but for logarithms of scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import prove_alike
from scipy import special
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from test_compile import FRAME, NUMBERS, fitted, rows
from transforming import compile_steps, refuse_alike, table, transform_alike, with_holes

from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.numeric.quantiles import find_normal

TABLE, UNSEEN = table(), table(1, spread=2.0)


def binned(**options: Any) -> KBinsDiscretizer:
    return KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf", random_state=0, **options)


SCALED = {
    **{f"normalizer {norm}": Normalizer(norm=norm) for norm in ("l1", "l2", "max")},
    **{
        f"bins {encode} {strategy}": binned(encode=encode, strategy=strategy)
        for encode in ("ordinal", "onehot", "onehot-dense")
        for strategy in ("uniform", "quantile", "kmeans")
    },
    "binarizer": Binarizer(),
    "binarizer above": Binarizer(threshold=0.3),
    **{
        f"polynomial {degree} {alone} {bias}": PolynomialFeatures(degree, interaction_only=alone, include_bias=bias)
        for degree in (1, 2, 3, (2, 3), (0, 2))
        for alone in (False, True)
        for bias in (False, True)
    },
    "yeo-johnson": PowerTransformer(),
    "yeo-johnson as it is": PowerTransformer(standardize=False),
    **{f"quantiles {count}": QuantileTransformer(n_quantiles=count) for count in (5, 50, 200)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCALED)
def test_a_transformer_gives_the_same_bits_together_and_alone(name: str) -> None:
    transformer = SCALED[name].fit(TABLE)
    transform_alike(transformer, np.concatenate([UNSEEN, TABLE[:20]]))
    refuse_alike(transformer, UNSEEN[0])


NEARLY = {
    "box-cox": (PowerTransformer(method="box-cox"), np.abs(TABLE) + 0.01),
    "box-cox as it is": (PowerTransformer(method="box-cox", standardize=False), np.abs(TABLE) + 0.01),
    "normal quantiles": (QuantileTransformer(n_quantiles=50, output_distribution="normal"), with_holes(TABLE)),
    "quantiles of equal values": (
        QuantileTransformer(n_quantiles=50, output_distribution="normal"),
        np.round(TABLE / 50),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEARLY)
def test_logarithms_of_another_library_differ_in_the_last_digit(name: str) -> None:
    transformer, training = NEARLY[name]
    transformer.fit(training)
    unseen = training * 1.1
    transform_alike(transformer, np.concatenate([unseen, training[:20]]), bound=1e-14)
    refuse_alike(transformer, np.nan_to_num(unseen[0], nan=1.0))


EDGES = binned(strategy="quantile", encode="onehot-dense").fit(TABLE)
REACHED = sorted({float(edge) for edges in EDGES.bin_edges_ for edge in edges})
NEAR = [value for edge in REACHED for value in (edge, np.nextafter(edge, -np.inf), np.nextafter(edge, np.inf))]
RANKS = QuantileTransformer(n_quantiles=20).fit(TABLE)
BENT = PowerTransformer().fit(TABLE)
CUBES = PolynomialFeatures(3).fit(TABLE)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(NEAR), st.floats(-1e150, 1e150)), min_size=4, max_size=4))
def test_any_row_is_prepared_alike(row: list[float]) -> None:
    for transformer in (EDGES, RANKS, CUBES):
        transform_alike(transformer, np.array([row]))
    transform_alike(BENT, np.array([row]), bound=1e-14)


def test_powers_of_none_are_logarithms() -> None:
    values = np.abs(TABLE) + 0.5
    for method, power in (("yeo-johnson", 0.0), ("yeo-johnson", 2.0), ("box-cox", 0.0), ("box-cox", 1e-15)):
        bent = PowerTransformer(method=method, standardize=False).fit(values)
        bent.lambdas_ = np.full(4, power)
        transform_alike(bent, values if method == "box-cox" else UNSEEN, bound=1e-14)


def test_normal_quantiles_have_all_their_digits() -> None:
    random = np.random.default_rng(0)
    tails = 10.0 ** -np.linspace(0, 307, 4000)
    shares = np.concatenate([random.random(20_000), tails, 1 - 10.0 ** -np.linspace(0, 16, 400), [0, 1, 0.5]])
    assert np.allclose(find_normal(shares), special.ndtri(shares), rtol=4e-16, atol=1e-15)
    assert np.isnan(find_normal(np.array([-0.1, 1.1, np.nan]))).all()


@pytest.mark.filterwarnings("ignore")
def test_pipelines_of_prepared_numbers_are_proved() -> None:
    for prepared in (
        (PowerTransformer(),),
        (QuantileTransformer(n_quantiles=100, output_distribution="normal"),),
        (StandardScaler(), PolynomialFeatures(2), Normalizer()),
        (binned(encode="onehot"),),
    ):
        steps = make_pipeline(SimpleImputer(strategy="median"), *prepared)
        reference = fitted(make_pipeline(make_column_transformer((steps, NUMBERS)), Ridge()), "regression")
        prove_alike(reference, FRAME, rows(seed=7, n=100), alone=5)


@pytest.mark.filterwarnings("ignore")
def test_what_is_not_reproduced_is_refused_by_name() -> None:
    with pytest.raises(NoRuleError, match="float32"):
        compile_steps(binned(dtype=np.float32).fit(TABLE), 4)
    with pytest.raises(NoRuleError, match="degree 0"):
        compile_steps(PolynomialFeatures(0).fit(TABLE), 4)
    empty = TABLE.copy()
    empty[:, 0] = np.nan
    with pytest.raises(NoRuleError, match="hold some value"):
        compile_steps(QuantileTransformer(n_quantiles=20).fit(empty), 4)
