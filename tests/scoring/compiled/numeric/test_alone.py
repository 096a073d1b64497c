"""Steps of numbers run where scikit-learn, scipy and pandas cannot be imported, to the same bits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
)
from transforming import run, table, with_holes

from mlworkbench.scoring.compiled.base.layout import OPERATIONS
from mlworkbench.scoring.compiled.base.rules import Site
from mlworkbench.scoring.compiled.compile import ProgramCompiler
from mlworkbench.scoring.compiled.operations import ProgramMaker, import_families

TRANSFORMERS: list[Any] = [
    *(SimpleImputer(add_indicator=True), MissingIndicator(), IterativeImputer(max_iter=2), KNNImputer()),
    *(FunctionTransformer(np.cbrt), PCA(2), Nystroem(n_components=9), RBFSampler(), Normalizer(), Binarizer()),
    *(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), PolynomialFeatures(), SplineTransformer()),
    *(PowerTransformer(), QuantileTransformer(n_quantiles=50, output_distribution="normal"), VarianceThreshold()),
]
CODE = """
import json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("sklearn", "scipy", "pandas", "polars", "pyarrow"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import numpy as np
from mlworkbench.scoring.compiled.operations import ProgramMaker
given = json.load(open(sys.argv[1]))
for specs in given["steps"]:
    block = np.array(given[specs["table"]], dtype=np.float64).T.copy()
    for spec in specs["steps"]:
        block = ProgramMaker().step(spec)(block)
    print(json.dumps([value.hex() for value in block.T.ravel().tolist()]))
"""


@pytest.mark.filterwarnings("ignore")
def test_every_step_of_numbers_needs_numpy_alone(tmp_path: Path) -> None:
    whole = table(n=60)
    tables = {"whole": whole, "holes": with_holes(whole)}
    programs, expected = [], []
    for transformer in TRANSFORMERS:
        name = "holes" if "Imput" in type(transformer).__name__ or "Missing" in type(transformer).__name__ else "whole"
        specs = ProgramCompiler().steps([transformer.fit(tables[name])], Site((None,) * 4))[0]
        programs.append({"table": name, "steps": specs})
        found = run([ProgramMaker().step(spec) for spec in specs], tables[name])
        expected.append([value.hex() for value in found.ravel().tolist()])
    used = set(re.findall(r'"op": "(\w+)"', json.dumps(programs)))
    import_families()
    made = {name for name, make in OPERATIONS.items() if ".numeric." in getattr(make, "__module__", "")}
    assert made <= used, made - used
    holes = [[None if value != value else value for value in row] for row in tables["holes"].tolist()]
    path = tmp_path / "steps.json"
    path.write_text(json.dumps({"whole": whole.tolist(), "holes": holes, "steps": programs}))
    ran = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == expected
