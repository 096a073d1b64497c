"""Opening a program imports the families that it names: the register knows all of them, each in its place."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sklearn.feature_extraction import FeatureHasher
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.neighbors import LocalOutlierFactor

from mlworkbench.scoring.compiled import operations
from mlworkbench.scoring.compiled.base.layout import KINDS, OPERATIONS
from mlworkbench.scoring.compiled.base.rules import MODELS, TRANSFORMERS, NoRuleError, Question, Site, full_name
from mlworkbench.scoring.compiled.compile import ProgramCompiler
from mlworkbench.scoring.compiled.operations import FAMILIES, find_families, import_families

PLACE = "mlworkbench.scoring.compiled."
OPENED = """
import json, sys
from mlworkbench.scoring.compiled.operations import ProgramMaker
before = set(sys.modules)
ProgramMaker().step(json.loads(sys.argv[1]))
print(json.dumps(sorted(name for name in set(sys.modules) - before if name.startswith("mlworkbench"))))
"""


def registered() -> dict[str, str]:
    """Read from the sources what each module registers by `operation` and `kind`."""
    found: dict[str, str] = {}
    root = Path(operations.__file__).parent
    for path in sorted(root.rglob("*.py")):
        module = PLACE + ".".join(path.relative_to(root).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("operation", "kind"):
                assert isinstance(node.args[0], ast.Constant) and node.args[0].value not in found
                found[node.args[0].value] = module
    return found


def test_the_register_names_every_family_and_its_place() -> None:
    assert registered() == FAMILIES
    import_families()
    assert {*OPERATIONS, *KINDS} == {*FAMILIES} and not {*OPERATIONS} & {*KINDS}


def test_the_families_of_a_program_are_found_however_deep_they_lie() -> None:
    steps = [{"op": "parts", "parts": [{"take": [0], "steps": [{"op": "fill", "by": [7.0]}]}]}]
    program = {"steps": steps, "model": {"kind": "linear", "coefficients": [[1.0]]}, "kind": ["no name"]}
    expected = {"meta.columns", "numeric.imputers", "models.linear"}
    assert find_families(program) == {PLACE + one for one in expected}
    assert all(find_spec(module) for module in FAMILIES.values())


def test_a_step_imports_its_own_family_alone() -> None:
    words = [sys.executable, "-c", OPENED, json.dumps({"op": "fill", "by": [7.0]})]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    found = {*json.loads(ran.stdout)} & {*FAMILIES.values()}
    assert found - {f"{PLACE}base.types"} == {f"{PLACE}numeric.imputers"}


def test_what_is_refused_by_its_name_says_what_to_take_instead() -> None:
    question, site = Question("predict_proba"), Site((None,))
    words = {GaussianProcessClassifier: "a process; take SVC", LocalOutlierFactor: "take IsolationForest"}
    for estimator, said in words.items():
        with pytest.raises(NoRuleError, match=said):
            MODELS[full_name(estimator())](estimator(), question, site, ProgramCompiler())
    with pytest.raises(NoRuleError, match="FeatureHasher has no rule: it takes dictionaries"):
        TRANSFORMERS[full_name(FeatureHasher())](FeatureHasher(), site, ProgramCompiler())
