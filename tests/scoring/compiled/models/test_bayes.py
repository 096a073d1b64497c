"""Naive Bayes: logarithms that are summed up as the library sums them up, and codes that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_only import fit, framed, hold, labels, numbers, steps
from proving import refuse_alike
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB

from mlworkbench.scoring.compiled.base.rules import NoRuleError
from mlworkbench.scoring.compiled.compile import compile_scorer

COUNTED: dict[str, Any] = {
    "marks": BernoulliNB,
    "marks above a number": lambda: BernoulliNB(binarize=1.5),
    "marks as they are": lambda: BernoulliNB(binarize=None),
    "counts": MultinomialNB,
    "counts, even classes": lambda: MultinomialNB(fit_prior=False),
    "complements": ComplementNB,
    "complements, weighed": lambda: ComplementNB(norm=True),
    "codes": CategoricalNB,
    "codes with room": lambda: CategoricalNB(min_categories=7),
    "bells of whole numbers": GaussianNB,
}


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("name", COUNTED)
def test_counts_and_codes_are_the_pipelines(name: str, task: str) -> None:
    cut = (lambda table: (table > 1.0).astype(float)) if name == "marks as they are" else np.array
    hold(COUNTED[name](), task, cut(steps()), cut(steps(3)), target=labels(steps(), task))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("priors", [None, "stated"])
def test_bells_are_the_pipelines(task: str, priors: str | None) -> None:
    count = 2 if task == "binary" else 3
    model = GaussianNB(priors=None if priors is None else np.arange(1, count + 1) / sum(range(count + 1)))
    compiled = hold(model, task, numbers(), numbers(3))
    frame = framed(numbers(9))
    alone = [compiled.answer(frame.take([row]))[0][0] for row in range(20)]
    assert np.array_equal(alone, compiled.answer(frame)[0][:20])  # no product: the same bits


CODES = fit(CategoricalNB(min_categories=5), "multiclass", steps())
COMPILED_CODES = compile_scorer(CODES)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.floats(-2, 7) | st.sampled_from([-0.5, -1e-9, 4.999999, 5.0, 1e18, 1e300, np.nan]), min_size=3, max_size=3
    )
)
def test_a_code_is_cut_to_a_whole_number_or_refused_as_the_library_does(row: list[float]) -> None:
    refuse_alike(CODES, COMPILED_CODES, framed([row]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [MultinomialNB(alpha=0, force_alpha=True), BernoulliNB(alpha=0, force_alpha=True)])
def test_what_training_never_saw_has_no_logarithm_and_no_rule(model: Any) -> None:
    table = np.abs(np.round(numbers()))
    late = labels(table, "binary")
    table[late, 0] = 0.0
    with pytest.raises(NoRuleError, match="alpha"):
        compile_scorer(fit(model, "binary", table, late))
