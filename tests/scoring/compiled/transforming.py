"""What the tests of transformers of numbers do: compile one, and hold its columns to what it gives itself."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlworkbench.scoring.compiled.base.blocks import RowError
from mlworkbench.scoring.compiled.base.layout import Step
from mlworkbench.scoring.compiled.base.rules import Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.compiled.plan import RowPlan

Table = NDArray[np.float64]
ODD = (np.nan, np.inf, -np.inf, 1e39, -1e308, 0.0, -0.0, 1e-310)


def table(seed: int = 0, n: int = 200, columns: int = 4, *, spread: float = 1.0) -> Table:
    """Numbers of several sizes, the third column whole."""
    random = np.random.default_rng(seed)
    made = random.normal(size=(n, columns)) * spread * np.resize([1.0, 100.0, 3.0, 1e4], columns) + 1.0
    made[:, 2] = np.round(made[:, 2])
    return made


def with_holes(values: Table, share: float = 0.15) -> Table:
    """The same with missing values."""
    random = np.random.default_rng(len(values))
    return np.where(random.random(values.shape) < share, np.nan, values)


def compile_steps(transformer: Any, columns: int) -> tuple[list[Step], int]:
    """Compile a fitted transformer, by way of its JSON; say how many columns it declares to leave."""
    specs, site = ProgramCompiler().steps([transformer], Site((None,) * columns))
    return [ProgramMaker().step(spec) for spec in json.loads(json.dumps(specs, allow_nan=False))], len(site.columns)


def run(steps: list[Step], values: Table) -> Table:
    """Send rows through steps."""
    block = np.ascontiguousarray(values.T)
    before = block.tobytes()
    found: Any = block
    for step in steps:
        found = step(found)
    assert block.tobytes() == before, "a step wrote into what it was given"
    return np.asarray(found.T)


def expect(transformer: Any, values: Table) -> Table:
    """What the transformer itself gives."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = transformer.transform(values.copy())
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)


def apart(got: Table, expected: Table) -> float:
    """The largest difference, of the numbers' own scale; NaN and infinity must be in the same places."""
    assert got.shape == expected.shape
    with np.errstate(invalid="ignore"):
        gap = np.abs(got - expected) / np.maximum(1.0, np.abs(expected))
    gap[(got == expected) | (np.isnan(got) & np.isnan(expected))] = 0.0
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0))


def transform_alike(transformer: Any, unseen: Table, *, bound: float = 0.0, alone: float = 0.0) -> None:
    """Both give the same within `bound`, a row by its plan the same as among others within `alone`."""
    steps, width = compile_steps(transformer, unseen.shape[1])
    got = run(steps, unseen)
    assert got.shape[1] == width
    assert apart(got, expect(transformer, unseen)) <= bound
    plan = RowPlan(steps, lambda block: block.T.copy(), unseen.shape[1])
    for row in range(min(15, len(unseen))):
        assert apart(plan(unseen[row].tolist()), got[[row]]) <= alone


def refuse_alike(transformer: Any, row: Table, *, bound: float = 1e-12) -> None:
    """An odd value in any column is refused by both, or transformed alike."""
    steps, _ = compile_steps(transformer, len(row))
    for column in range(len(row)):
        for value in ODD:
            values = np.array([row, row])  # two: alone scikit-learn sums products otherwise
            values[:, column] = value
            try:
                expected = expect(transformer, values)
            except (ValueError, TypeError):
                expected = None
            try:
                with np.errstate(all="ignore"):
                    got = run(steps, values)
            except RowError:
                got = None
            assert (got is None) == (expected is None), (column, value)
            assert got is None or apart(got, expected) <= bound, (column, value)
