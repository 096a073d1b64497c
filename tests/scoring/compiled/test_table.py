"""The scorer's table: each ordinary pipeline compiled or refused, and the compiled ones asked where no scikit-learn is.

`nbs/scoring/compiled/table.json` holds what came out; a change is seen here. It is renewed, with the figures that the
notebook beside it shows, by `RENEW_TABLE=1 python -m pytest -m long tests/scoring/compiled/test_table.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ordinary import ALL, Case, available, fit_case
from sklearn.base import clone
from sklearn.utils import all_estimators

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import WorkbenchError
from mlworkbench.scoring.compiled import made_rows, proof, tree_edges
from mlworkbench.scoring.compiled.compile import scorer_files
from mlworkbench.scoring.compiled.proof import compile_and_prove, measure_unit
from mlworkbench.scoring.decision import decide
from mlworkbench.scoring.decision_rule import settle
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

pytestmark = pytest.mark.filterwarnings("ignore")
STORED = Path(__file__).parents[3] / "nbs/scoring/compiled/table.json"
RENEW = bool(os.environ.get("RENEW_TABLE"))
NAMES = [*available()]

ALONE = """
import json, sys, time
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sklearn", "pandas", "scipy", "polars", "pyarrow"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from pathlib import Path
import numpy as np
from mlworkbench.scoring.compiled.scorer import CompiledScorer
from mlworkbench.scoring.frame import FeatureFrame
for folder in sorted(Path(sys.argv[1]).iterdir()):
    words = json.loads((folder / "words.json").read_text())
    numbers = np.load(folder / "numbers.npz")
    columns = {k: np.array(v, dtype=object) for k, v in words.items()} | {k: numbers[k] for k in numbers.files}
    scorer, frame = CompiledScorer.open(folder), FeatureFrame(columns)
    scorer.answer(frame.take(range(100)))
    start = time.perf_counter()
    scores, decisions = scorer.answer(frame)
    taken = time.perf_counter() - start
    decisions = None if decisions is None else decisions.tolist()
    np.save(folder / "scores.npy", scores)
    (folder / "answer.json").write_text(json.dumps({"seconds": taken, "decisions": decisions}))
"""


def quick(patch: pytest.MonkeyPatch) -> None:
    """Prove on fewer rows: what is proved in earnest is proved by the long run."""
    for module, name, value in (
        (proof, "PROOF_SECONDS", 0.1),
        (proof, "LEAST_ROWS", 200),
        (proof, "ALONE", 10),
        (proof, "POOL", 200),
        (made_rows, "MADE", 300),
        (tree_edges, "EDGES", 40),
    ):
        patch.setattr(module, name, value)


def write(case: Case, scorer: Any, folder: Path) -> None:
    """Write a compiled scorer and the rows that it is to answer."""
    folder.mkdir(parents=True)
    for name, data in scorer_files(scorer).items():
        (folder / name).write_bytes(data)
    words = {k: v.tolist() for k, v in case.asked.columns.items() if v.dtype == object}
    (folder / "words.json").write_text(json.dumps(words))
    np.savez(folder / "numbers.npz", **{k: v for k, v in case.asked.columns.items() if v.dtype != object})


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Hold what was answered without scikit-learn to the pipeline's own answers."""
    told = json.loads((folder / "answer.json").read_text())
    start = time.perf_counter()
    expected, decided = case.reference.answer(case.asked)
    taken = time.perf_counter() - start
    got = np.load(folder / "scores.npy")
    unit = measure_unit(expected, single=proof.scores_in_single(case.reference, case.asked))
    rule = {name: getattr(case.reference, name) for name in ("task", "classes", "positive", "decision")}
    rule["threshold"] = case.threshold
    sides = [decide(s, rule) if d is None else d for s, d in ((expected, decided), (got, told["decisions"]))]
    return {
        "difference": float(np.abs(got - expected).max() / unit),
        "mismatches": int(sum(a != b for a, b in zip(*(list(side) for side in sides), strict=True))),
        "rows_per_second": round(len(got) / told["seconds"]),
        "pipeline_rows_per_second": round(len(got) / taken),
        "single": bool(proof.scores_in_single(case.reference, case.asked)),
    }


def make_table(folder: Path, rows: int, asked: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Compile all, ask the compiled ones in one process without scikit-learn, and compare."""
    table: dict[str, dict[str, Any]] = {}
    cases: dict[str, Case] = {}
    for place, name in enumerate(names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = fit_case(name, rows, asked)
            start = time.perf_counter()
            scorer, facts = compile_and_prove(
                case.reference, case.training.take(range(40)), case.training, threshold=case.threshold
            )
        table[name] = {"compiled": scorer is not None, "reason": facts.get("reason", "")}
        table[name]["seconds"] = round(time.perf_counter() - start, 1)
        if scorer is not None:
            cases[f"{place:02d}"] = case
            write(case, scorer, folder / f"{place:02d}")
    run = subprocess.run([sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    for place, case in cases.items():
        table[case.name] |= compare(case, folder / place)
    return table


def check(row: dict[str, Any]) -> None:
    if row["compiled"]:
        assert row["difference"] <= (1e-6 if row["single"] else 1e-9) and row["mismatches"] == 0
    else:
        assert row["reason"]


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


SLOW = ("GaussianProcessRegressor", "SVC, calibrated", "KNN imputer", "iterative imputer", "LassoCV with polynomials")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        names = [name for name in NAMES if name not in SLOW]
        return make_table(tmp_path_factory.mktemp("table"), 1500, 1000, names)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
def test_an_ordinary_pipeline_gives_its_own_scores_without_scikit_learn_or_says_why_not(
    table: dict[str, dict[str, Any]], name: str
) -> None:
    check(table[name])
    expected = stored()["pipelines"].get(name)
    way = "renew the table: RENEW_TABLE=1 python -m pytest -m long tests/scoring/compiled/test_table.py"
    assert expected and expected["compiled"] == table[name]["compiled"], f"{table[name]['reason']}; {way}"


def test_the_stored_table_names_every_ordinary_pipeline() -> None:
    assert [*stored()["pipelines"]] == [*ALL]


@pytest.mark.long
def test_the_whole_table_on_ten_thousand_rows(tmp_path: Path) -> None:
    table = make_table(tmp_path, 3000, 10_000, NAMES)
    for row in table.values():
        check(row)
    before = stored() if STORED.exists() else {}
    if RENEW:
        rows = {name: table.get(name) or before.get("pipelines", {}).get(name, {}) for name in ALL}
        STORED.write_text(json.dumps({**before, "pipelines": rows}, indent=1) + "\n", encoding="utf-8")
    changed = {name: row["reason"] for name, row in table.items()
               if row["compiled"] != stored()["pipelines"][name]["compiled"]}  # fmt: skip
    assert not changed


NOT_ROWS = {"IsotonicRegression", "DummyClassifier", "DummyRegressor"}


def scan() -> dict[str, Any]:
    """Fit every classifier and regressor of scikit-learn that takes a small table, and compile it."""
    random = np.random.default_rng(0)
    numbers = random.gamma(2.0, size=(400, 5)).round(3)
    names = list("abcde")
    fresh = FeatureFrame(dict(zip(names, random.gamma(2.0, size=(5, 500)), strict=True)))
    frame, contract = FeatureFrame(dict(zip(names, numbers.T.copy(), strict=True))), Contract(
        tuple(Column(name, "number") for name in names)
    )  # fmt: skip
    labels = {"classifier": numbers[:, 0] + numbers[:, 1] > 4, "regressor": numbers @ np.arange(5.0) + 1}
    found: dict[str, Any] = {}
    for kind, task in (("classifier", "binary"), ("regressor", "regression")):
        for name, made in all_estimators(type_filter=kind):
            if name in NOT_ROWS:
                continue
            try:
                pipeline = clone(made()).fit(pd.DataFrame(numbers, columns=names), labels[kind])
                plain = ReferenceScorer(pipeline, contract, task, list_classes(pipeline))
                ruling = settle(plain, [frame])
                expected = plain.score(fresh)
            except (TypeError, ValueError, WorkbenchError, AttributeError):
                continue  # it needs another estimator, or other rows
            given: Any = {"positive": ruling.positive, "decision": ruling.decision}
            reference = ReferenceScorer(pipeline, contract, task, plain.classes, **given)
            scorer, facts = compile_and_prove(reference, frame.take(range(40)), frame, threshold=ruling.threshold)
            found[name] = {"compiled": scorer is not None, "reason": facts.get("reason", "")}
            if scorer is not None:
                apart = np.abs(scorer.score(fresh) - expected).max() / measure_unit(expected)
                found[name]["difference"] = float(apart)
    return found


@pytest.mark.long
def test_every_classifier_and_regressor_that_fits_a_table_is_compiled_or_refused_and_none_differs() -> None:
    found = scan()
    for name, row in found.items():
        assert row["reason"] or row["difference"] <= 1e-9, name
    if RENEW:
        before = stored() if STORED.exists() else {}
        STORED.write_text(json.dumps({**before, "scan": found}, indent=1) + "\n", encoding="utf-8")
    assert {name for name, row in found.items() if row["compiled"]} >= {
        name for name, row in stored()["scan"].items() if row["compiled"]
    }
