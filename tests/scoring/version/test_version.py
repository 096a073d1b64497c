"""A version: what is in it, that it answers alike everywhere, that nothing in it can be altered unseen."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.errors import ContractError, DefinitionError, ScoringError, UserCodeError, VersionError
from mlworkbench.features.row_functions import RowFunction
from mlworkbench.features.views import AsOfView
from mlworkbench.scoring.artifacts.manifest import MANIFEST, VERSION_FILES, file_digests, read_manifest, write_manifest
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame, frame_from_columns
from mlworkbench.scoring.version.build import Parts, build_version
from mlworkbench.scoring.version.version import open_version, predict

N = 60
RANDOM = np.random.default_rng(0)
START = 1_380_000_000_000_000
REQUEST = Contract(
    (
        Column("flight", "text"),
        Column("asked_at", "time"),
        Column("origin", "category", categories=("EWR", "JFK"), learned=True),
        Column("distance", "number", lower=0, unit="miles"),
        Column("email", "text", nullable=True, personal=True),
    )
)
FRAME = Contract(
    (
        Column("origin", "category"),
        Column("distance", "number"),
        Column("wind", "number", nullable=True),
        Column("hour", "integer"),
        Column("hours", "number"),
    )
)
WEATHER = AsOfView("weather", "weather", ("origin",), {"wind": "number"}, ttl=timedelta(hours=6))
COLUMNS: dict[str, np.ndarray] = {
    "flight": np.array([f"UA {k}" for k in range(N)], dtype=object),
    "asked_at": START + np.arange(N) * 3_600_000_000,
    "origin": RANDOM.choice(np.array(["EWR", "JFK"], dtype=object), N),
    "distance": RANDOM.uniform(100, 2500, N),
    "email": np.array([f"person{k}@example.org" for k in range(N)], dtype=object),
}
VALUES = {"wind": np.where(np.arange(N) % 7 == 0, np.nan, RANDOM.normal(10, 3, N))}
LATE = COLUMNS["distance"] + RANDOM.normal(0, 300, N) > 1200

CODE = """
import numpy as np

def clock(asked_at):
    return {"hour": asked_at // 3_600_000_000 % 24}

def route(distance):
    if (distance > 9000).any():
        raise ValueError("too far")
    return {"hours": distance / 500.0}
"""


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "features_of_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "features_of_mine", raising=False)
    import features_of_mine

    return features_of_mine


def given(features: Any, **changed: Any) -> dict[str, Any]:
    functions = (RowFunction(features.clock), RowFunction(features.route))
    outputs = {**COLUMNS, **VALUES, **features.clock(COLUMNS["asked_at"]), **features.route(COLUMNS["distance"])}
    frame = frame_from_columns(outputs, FRAME)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["origin"]), remainder="passthrough")
    boosting = HistGradientBoostingClassifier(max_iter=10, random_state=0)
    pipeline = make_pipeline(encode, boosting).fit(frame_to_pandas(frame, FRAME), LATE)
    few = slice(0, 12)
    golden = ({n: v[few] for n, v in COLUMNS.items()}, {n: v[few] for n, v in VALUES.items()}, frame.take(few))
    parts = {
        "model": "late",
        "pipeline": pipeline,
        "task": "binary",
        "classes": np.array([False, True]),
        "request": REQUEST,
        "frame": FRAME,
        "golden": golden,
        "training": frame,
        "labels": LATE,
        "row_functions": functions,
        "views": (WEATHER,),
        "entity": ("flight",),
        "personal": ("email",),
        "prediction_time": "asked_at",
        "threshold": 0.3,
        "card": "# late\n",
        "trusted": (),
    }
    return {**parts, **changed}


BUILT: list[Path] = []
SCORER = ("scorer.json", "scorer.onnx", "reasons.json", "scorer_trees.npz")


@pytest.fixture
def built(tmp_path: Path, features: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of its own for each test, built once."""
    if not BUILT:
        BUILT.append(tmp_path_factory.mktemp("built") / "version")
        build_version(BUILT[0], **given(features))
    return Path(shutil.copytree(BUILT[0], tmp_path / "version"))


def test_the_folder_holds_what_the_architecture_says(built: Path) -> None:
    names = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert names == {*VERSION_FILES, MANIFEST, "code/features_of_mine.py", *SCORER}
    manifest = read_manifest(built)
    assert set(manifest["files"]) == names - {MANIFEST}
    assert {"python", "numpy", "scikit-learn", "skops"} <= set(manifest["environment"])
    declaration = json.loads((built / "declaration.json").read_text())
    assert declaration["classes"] == [False, True] and declaration["positive"] is True
    assert declaration["threshold"] == 0.3 and declaration["tolerance"] == 1e-9
    assert declaration["scorer"] == "compiled"
    assert list(json.loads((built / "contract.json").read_text())) == ["frame", "request", "source"]


def test_golden_rows_and_profile_hold_no_entity_and_no_personal_value(built: Path) -> None:
    text = "".join((built / name).read_text() for name in ("golden.jsonl", "profile.json", "card.md"))
    assert "UA " not in text and "person" not in text
    row = json.loads((built / "golden.jsonl").read_text().splitlines()[0])
    assert set(row["request"]) == {"asked_at", "origin", "distance"} and row["values"] == {"wind": None}
    assert row["request"]["asked_at"].endswith("+00:00") and isinstance(row["score"], float)


def test_an_opened_version_predicts_what_the_pipeline_does(built: Path, features: Any) -> None:
    version = open_version(built)
    answer = predict(version, COLUMNS, VALUES)
    pipeline = given(features)["pipeline"]
    expected = pipeline.predict_proba(frame_to_pandas(answer.frame, FRAME))[:, 1]
    assert (answer.scores == expected).all()
    assert answer.decisions.tolist() == (expected >= 0.3).tolist()
    assert version.version == f"late:{version.content_id[:32]}" and version.views == (WEATHER,)


def test_a_batch_equals_its_rows_one_by_one(built: Path) -> None:
    version = open_version(built)
    batch = predict(version, COLUMNS, VALUES)
    for k in range(0, N, 4):
        one = predict(version, {n: v[k : k + 1] for n, v in COLUMNS.items()}, {"wind": VALUES["wind"][k : k + 1]})
        assert abs(one.scores[0] - batch.scores[k]) <= version.tolerance
        assert one.decisions[0] == batch.decisions[k]


def test_a_stated_rule_refuses_and_a_learned_one_flags(built: Path) -> None:
    version = open_version(built)
    few = {n: v[:2] for n, v in COLUMNS.items()}
    wind = {"wind": np.zeros(2)}
    with pytest.raises(ContractError, match="row 1, column 'distance'"):
        predict(version, {**few, "distance": np.array([1.0, -1.0])}, wind)
    flagged = predict(version, {**few, "origin": np.array(["EWR", "LGA"], dtype=object)}, wind)
    assert [(fault.row, fault.column, fault.severe) for fault in flagged.faults] == [(1, "origin", False)]


def test_an_error_in_a_row_function_names_the_copied_file_and_the_row(built: Path) -> None:
    far = {**COLUMNS, "distance": np.where(np.arange(N) == 33, 9999.0, COLUMNS["distance"])}
    with pytest.raises(UserCodeError, match=r"too far.*code/features_of_mine\.py, line 9.*row 33"):
        predict(open_version(built), far, VALUES)


def test_a_later_edit_of_the_row_functions_changes_nothing(built: Path, features: Any) -> None:
    before = predict(open_version(built), COLUMNS, VALUES).scores
    Path(features.__file__).write_text(CODE.replace("500.0", "1.0"))
    assert (predict(open_version(built), COLUMNS, VALUES).scores == before).all()
    Path(features.__file__).unlink()
    assert (predict(open_version(built), COLUMNS, VALUES).scores == before).all()


def test_opening_writes_nothing_into_the_folder(built: Path) -> None:
    before = file_digests(built)
    open_version(built)
    assert file_digests(built) == before


@pytest.mark.parametrize("name", [*VERSION_FILES, "code/features_of_mine.py"])
def test_one_changed_byte_is_refused_by_the_name_of_the_file(built: Path, name: str) -> None:
    data = bytearray((built / name).read_bytes())
    data[len(data) // 2] ^= 1
    (built / name).write_bytes(bytes(data))
    with pytest.raises(VersionError, match=f"^{name} was altered: .*; restore it or retrain$"):
        open_version(built)


@pytest.mark.parametrize("name", ["pipeline.skops", "golden.jsonl", MANIFEST])
def test_a_missing_file_is_refused(built: Path, name: str) -> None:
    (built / name).unlink()
    with pytest.raises(VersionError, match=name.replace(".", r"\.")):
        open_version(built)


def test_an_altered_manifest_is_refused(built: Path) -> None:
    text = (built / MANIFEST).read_text()
    manifest = json.loads(text)
    (built / MANIFEST).write_text(text.replace(manifest["parts"]["code"], "0" * 64))
    with pytest.raises(VersionError, match=r"manifest\.json was altered"):
        open_version(built)
    (built / MANIFEST).write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(VersionError) as raised:
        open_version(built)
    assert raised.value.code == "version.format"


def test_a_version_whose_format_is_lowered_is_held_against_its_id_the_earlier_way(built: Path) -> None:
    text = (built / MANIFEST).read_text()
    (built / MANIFEST).write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(VersionError, match="not the one of its content id") as raised:
        open_version(built)
    assert raised.value.code == "version.altered"


def rewritten(built: Path, change: Any) -> None:
    """Change golden rows and make the manifest fit, as a pipeline computing otherwise would look."""
    rows = [json.loads(line) for line in (built / "golden.jsonl").read_text().splitlines()]
    change(rows)
    (built / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {k: v for k, v in read_manifest(built).items() if k not in ("files", "format")}
    write_manifest(built, fields)


def test_a_version_that_answers_otherwise_is_refused(built: Path) -> None:
    rewritten(built, lambda rows: rows[3].update(score=rows[3]["score"] + 1e-4))
    with pytest.raises(VersionError, match=r"golden scores: golden row 3 differs by 0.0001.*install scikit-learn"):
        open_version(built)
    open_version(built, check_golden=False)


def test_a_version_whose_features_come_out_otherwise_is_refused(built: Path) -> None:
    rewritten(built, lambda rows: rows[2]["request"].update(distance=rows[2]["request"]["distance"] + 1))
    with pytest.raises(VersionError, match=r"does not reproduce feature 'distance' of golden row 2"):
        open_version(built)


def test_the_same_parts_give_the_same_id_and_any_other_part_another(tmp_path: Path, features: Any) -> None:
    base = given(features)
    one = build_version(tmp_path / "one", **base)
    assert build_version(tmp_path / "two", **given(features, card="another", profile={"x": 1})) == one
    others = {
        "threshold": 0.4,
        "labels": ~LATE,
        "training": base["training"].take(range(N - 1)),
        "row_functions": base["row_functions"][::-1],
        "request": Contract((*REQUEST.columns, Column("extra", "number", nullable=True))),
    }
    for k, (name, value) in enumerate(others.items()):
        assert build_version(tmp_path / f"other-{k}", **{**base, name: value}) != one, name


EXPORTED = """# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/{number}_routes.ipynb.

# %% auto #0
__all__ = ['clock', 'route']

# %% ../nbs/{number}_routes.ipynb #{cell}
"""


def test_code_from_a_notebook_with_another_number_gives_the_same_id(
    tmp_path: Path, features: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = Path(features.__file__), set()
    for number, cell, code in (("03", "1f2e", CODE), ("17", "9a", CODE), ("17", "9a", CODE + "\n# a thought\n")):
        path.write_text(EXPORTED.format(number=number, cell=cell) + code)
        monkeypatch.delitem(sys.modules, "features_of_mine")
        importlib.invalidate_caches()
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        folder = tmp_path / f"built-{len(list(tmp_path.iterdir()))}"
        ids.add(build_version(folder, **{**given(features), "row_functions": of_module("features_of_mine")}))
        assert open_version(folder).row_functions[1].function.__code__.co_filename == str(folder / "code" / path.name)
    assert len(ids) == 2


def of_module(name: str) -> tuple[RowFunction, ...]:
    module = importlib.import_module(name)
    return RowFunction(module.clock), RowFunction(module.route)


def test_the_kind_of_scorer_stands_outside_the_id(tmp_path: Path, features: Any) -> None:
    compiled = build_version(tmp_path / "compiled", **given(features))
    assert build_version(tmp_path / "plain", **given(features), proved=(None, {"reason": "no onnx here"})) == compiled
    kinds = [open_version(tmp_path / name).scorer.kind for name in ("compiled", "plain")]
    assert kinds == ["compiled", "reference"]


TRAIN = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {modules!r}]
import features_of_mine
import test_version as t
print(t.build_version(Path(sys.argv[1]), **t.given(features_of_mine)))
"""


def test_two_processes_give_one_id(tmp_path: Path, features: Any) -> None:
    here = build_version(tmp_path / "here", **given(features))
    script = TRAIN.format(tests=str(Path(__file__).parent), modules=str(Path(features.__file__).parent))
    for seed in ("1",):
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert run.stdout.strip() == here
        assert open_version(tmp_path / seed).content_id == here


def test_opening_a_version_module_brings_in_no_heavy_library() -> None:
    code = "import sys, mlworkbench.scoring.version.version, mlworkbench.scoring.registry.registry; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"sklearn", "pandas", "polars", "pyarrow", "skops", "bentoml"}
    assert not heavy & {name.partition(".")[0] for name in run.stdout.split()}


# --- code that cannot travel -------------------------------------------------------------------------------------


def test_a_row_function_of_main_or_of_a_module_with_helpers_is_refused(tmp_path: Path, features: Any) -> None:
    features.route.__module__ = "__main__"
    with pytest.raises(DefinitionError) as raised:
        build_version(tmp_path / "a", **given(features))
    assert raised.value.code == "definition.not_importable"
    features.route.__module__ = "features_of_mine"
    Path(features.__file__).with_name("helpers_of_mine.py").write_text("")
    Path(features.__file__).write_text(f"import helpers_of_mine\n{CODE}")
    with pytest.raises(DefinitionError, match=r"features_of_mine: .*got 'helpers_of_mine'"):
        build_version(tmp_path / "b", **given(features))
    Path(features.__file__).write_text(f"from . import helpers_of_mine\n{CODE}")
    with pytest.raises(DefinitionError) as raised:
        build_version(tmp_path / "c", **given(features))
    assert raised.value.code == "definition.own_import"
    assert not any((tmp_path / name / MANIFEST).exists() for name in "abc")


STEPS = "import numpy as np\n\ndef logs(X):\n    return np.log1p(np.asarray(X, dtype=float))\n"


def own_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    module = tmp_path / "transform_of_mine.py"
    module.write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "transform_of_mine", raising=False)
    import transform_of_mine

    contract = Contract((Column("distance", "number"),))
    frame = FeatureFrame({"distance": COLUMNS["distance"]})
    line = make_pipeline(FunctionTransformer(transform_of_mine.logs), StandardScaler(), LinearRegression())
    line.fit(frame_to_pandas(frame, contract), COLUMNS["distance"])
    few = frame.take(range(5))
    parts = {
        "model": "miles",
        "pipeline": line,
        "task": "regression",
        "classes": [],
        "request": contract,
        "frame": contract,
    }
    return module, {**parts, "golden": (few.columns, {}, few), "training": frame}


def test_a_transformer_of_ones_own_is_trusted_by_name_and_its_source_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, parts = own_transformer(tmp_path, monkeypatch)
    with pytest.raises(VersionError, match=r"\[trust\] types = transform_of_mine\.logs"):
        build_version(tmp_path / "refused", **parts)
    trusted = ("transform_of_mine.logs",)
    build_version(tmp_path / "version", **parts, trusted=trusted)
    assert (tmp_path / "version/code/own/transform_of_mine.py").read_text() == STEPS
    with pytest.raises(VersionError) as raised:
        open_version(tmp_path / "version")
    assert raised.value.code == "version.untrusted_type"
    open_version(tmp_path / "version", trusted=trusted)
    frame = parts["golden"][2]
    before = open_version(tmp_path / "version", trusted=trusted).score(frame)
    module.write_text(STEPS.replace("log1p", "log2"))
    assert np.array_equal(open_version(tmp_path / "version", trusted=trusted).score(frame), before)
    module.unlink()
    assert np.array_equal(open_version(tmp_path / "version", trusted=trusted).score(frame), before)


# --- what cannot become a version --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": [True]}, "binary needs 2 classes"),
        ({"task": "regression"}, "regression needs 0 classes"),
        ({"positive": "maybe"}, "positive: one of"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, features: Any, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        build_version(tmp_path / "version", **given(features, **changed))
    assert not (tmp_path / "version" / MANIFEST).exists()


def test_a_version_without_golden_rows_or_in_a_full_folder_is_refused(built: Path, features: Any) -> None:
    none = ({n: v[:0] for n, v in COLUMNS.items()}, {}, FeatureFrame({"x": np.empty(0)}))
    with pytest.raises(ScoringError) as raised:
        Parts(**given(features, golden=none))
    assert raised.value.code == "scoring.golden_missing"
    with pytest.raises(ScoringError) as raised:
        build_version(built, **given(features))
    assert raised.value.code == "scoring.folder_not_empty"


def test_margins_have_the_threshold_zero_and_a_scale_of_their_own(tmp_path: Path) -> None:
    from sklearn.svm import LinearSVC

    contract = Contract((Column("distance", "number"),))
    frame = FeatureFrame({"distance": COLUMNS["distance"]})
    few = frame.take(range(10))
    model = make_pipeline(StandardScaler(), LinearSVC()).fit(frame_to_pandas(frame, contract), LATE)
    parts = {
        "model": "late",
        "pipeline": model,
        "task": "binary",
        "classes": model.classes_,
        "request": contract,
        "frame": contract,
    }
    build_version(tmp_path / "v", **parts, golden=(few.columns, {}, few), training=frame, trials=[{"rank": 1}])
    version = open_version(tmp_path / "v")
    scores = version.score(few)
    assert version.declaration["threshold"] == 0.0 and version.declaration["method"] == "decision_function"
    assert version.declaration["scale"] == pytest.approx(np.abs(scores).max())
    assert version.decide(scores).tolist() == model.predict(frame_to_pandas(few, contract)).tolist()
    assert version.declaration["predict_differs"] == 0
    assert json.loads((tmp_path / "v/trials.json").read_text()) == [{"rank": 1}]


def test_rows_where_predict_decides_otherwise_are_counted(tmp_path: Path) -> None:
    contract = Contract((Column("distance", "number"),))
    frame = FeatureFrame({"distance": COLUMNS["distance"]})
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame_to_pandas(frame, contract), LATE)
    parts = {
        "model": "late",
        "pipeline": model,
        "task": "binary",
        "classes": [False, True],
        "request": contract,
        "frame": contract,
    }
    build_version(tmp_path / "v", **parts, golden=(frame.columns, {}, frame), training=frame, threshold=0.9)
    scores = model.predict_proba(frame_to_pandas(frame, contract))[:, 1]
    expected = int(((scores >= 0.5) & (scores < 0.9)).sum())
    assert open_version(tmp_path / "v").declaration["predict_differs"] == expected > 0


def test_a_copy_of_the_folder_is_the_same_version(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    assert open_version(tmp_path / "copy").version == open_version(built).version


# --- modules of one's own ---------------------------------------------------------------------------------------


STEPS_OF = {
    "outer/__init__.py": "",
    "outer/steps.py": (
        "from outer.inner import cap\nfrom . import names\n\n\n"
        "def shorten(x):\n    assert names.SIDE == 'x'\n    return cap(x)\n"
    ),
    "outer/inner.py": "from limits import UPPER\n\n\ndef cap(x):\n    return x.clip(upper=UPPER)\n",
    "outer/names.py": "SIDE = 'x'\n",
    "limits.py": "UPPER = 1000.0\n",
}


def written(folder: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    for module in [name for name in sys.modules if name.partition(".")[0] in ("outer", "limits", "acme_helper")]:
        monkeypatch.delitem(sys.modules, module)
    return folder


def shortened(function: Any) -> dict[str, Any]:
    """Give the parts of a version whose pipeline doubles a width, cut by a function."""
    widths = FeatureFrame({"width": np.linspace(10.0, 900.0, 50)})
    contract = Contract((Column("width", "number"),))
    table = frame_to_pandas(widths, contract)
    pipeline = make_pipeline(FunctionTransformer(function), LinearRegression()).fit(table, 2 * table.width)
    parts = {"model": "widths", "pipeline": pipeline, "task": "regression", "classes": []}
    contracts = {"request": contract, "frame": contract}
    few = widths.take(slice(5))
    return {**parts, **contracts, "golden": (few.columns, {}, few), "training": widths}


@pytest.mark.parametrize("edited", ["outer/inner.py", "limits.py"])
def test_a_helper_of_a_helper_is_kept_and_its_edit_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    folder = written(tmp_path / "own", STEPS_OF, monkeypatch)
    steps = importlib.import_module("outer.steps")
    trusted = ("outer.steps.shorten",)
    build_version(tmp_path / "version", **shortened(steps.shorten), trusted=trusted)
    source = (folder / edited).read_text()
    (folder / edited).write_text(source.replace("upper=UPPER", "upper=4000.0").replace("1000.0", "4000.0"))
    code = (
        "import sys; from pathlib import Path; import numpy as np; "
        "from mlworkbench.scoring.version.version import open_version"
    )
    code += "; from mlworkbench.scoring.frame import FeatureFrame"
    code += f"; version = open_version(Path({str(tmp_path / 'version')!r}), trusted={trusted!r})"
    code += "; print(version.score(FeatureFrame({'width': np.array([5000.0])})).round(6).tolist())"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "[2000.0]"


def test_more_helpers_than_can_be_kept_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"outer/part_{k}.py": "" for k in range(60)}
    steps = "".join(f"from outer import part_{k}\n" for k in range(60)) + "\n\ndef shorten(x):\n    return x\n"
    written(tmp_path / "own", {**many, "outer/__init__.py": "", "outer/steps.py": steps}, monkeypatch)
    parts = shortened(importlib.import_module("outer.steps").shorten)
    with pytest.raises(ScoringError, match=r"at most 50 files of your own .* got 62: outer, outer.part_0"):
        build_version(tmp_path / "version", **parts, trusted=("outer.steps.shorten",))


def test_an_installed_helper_is_bound_by_version_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    about = {"acme_helper-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-helper\nVersion: 1.2\n"}
    about["acme_helper-1.2.dist-info/top_level.txt"] = "acme_helper\n"
    source = {"acme_helper.py": "def shorten(x):\n    return x.clip(upper=1000.0)\n"}
    written(site, {**about, **source}, monkeypatch)
    parts = shortened(importlib.import_module("acme_helper").shorten)
    trusted = ("acme_helper.shorten",)
    build_version(tmp_path / "version", **parts, trusted=trusted)
    open_version(tmp_path / "version", trusted=trusted)
    (site / "acme_helper.py").write_text(source["acme_helper.py"].replace("1000.0", "4000.0"))
    with pytest.raises(VersionError, match=r"acme-helper: module 'acme_helper' as trained with; .* acme-helper==1\.2"):
        open_version(tmp_path / "version", trusted=trusted)
    (site / "acme_helper-1.2.dist-info/METADATA").write_text(about["acme_helper-1.2.dist-info/METADATA"][:-2] + "3\n")
    with pytest.raises(VersionError, match=r"version 1\.2, as trained with; got 1\.3"):
        open_version(tmp_path / "version", trusted=trusted)
