"""A forged version is one line: trees that never end, files that claim too much, numbers that are none."""

from __future__ import annotations

import io
import json
import sqlite3
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io as sio
from scipy.sparse import csr_matrix
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, SplineTransformer
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

from mlworkbench.core.home import Home
from mlworkbench.errors import VersionError
from mlworkbench.operate.training.register import register
from mlworkbench.scoring.artifacts.inspection import check_archive, check_sound
from mlworkbench.scoring.artifacts.manifest import MANIFEST, MEASURED, content_id, json_digest, json_text
from mlworkbench.scoring.artifacts.skops_file import dump_pipeline, load_pipeline
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import open_version

ROWS = np.random.default_rng(0).normal(size=(80, 3))
SIDES = (ROWS[:, 0] > 0) * 1

HONEST = {
    "forest": RandomForestClassifier(3, max_depth=3, random_state=0),
    "behind more columns": make_pipeline(PolynomialFeatures(3), DecisionTreeClassifier(max_depth=4)),
    "boosted": GradientBoostingRegressor(n_estimators=3),
    "histograms": HistGradientBoostingClassifier(max_iter=3, categorical_features=[2]),
    "isolation": IsolationForest(n_estimators=3, max_features=2),
    "kd": KNeighborsClassifier(3, algorithm="kd_tree", leaf_size=5),
    "ball": KNeighborsClassifier(3, algorithm="ball_tree", leaf_size=5, metric="minkowski", p=3),
    "vectors": SVC(),
    "a line of vectors": SVR(),
    "splines": make_pipeline(SplineTransformer(), LogisticRegression()),
}


@pytest.mark.parametrize("model", HONEST.values(), ids=HONEST)
def test_an_honest_pipeline_is_loaded(tmp_path: Path, model: Any) -> None:
    rows = ROWS.copy()
    rows[:, 2] = np.arange(80) % 4
    dump_pipeline(model.fit(rows, SIDES), tmp_path / "pipeline.skops")
    loaded = load_pipeline(tmp_path / "pipeline.skops")
    assert np.array_equal(loaded.predict(rows), model.predict(rows))


def edited(folder: Path, model: Any, change: Any) -> Path:
    """Write a model whose arrays were changed in the file, where only a forger could."""
    archive = zipfile.ZipFile(io.BytesIO(sio.dumps(model)))
    path = folder / "pipeline.skops"
    with zipfile.ZipFile(path, "w") as out:
        for member in archive.infolist():
            data = archive.read(member)
            if member.filename.endswith(".npy"):
                array = np.load(io.BytesIO(data))
                change(array)
                file = io.BytesIO()
                np.save(file, array)
                data = file.getvalue()
            out.writestr(member.filename, data)
    return path


def node(field: str, value: Any, row: int = 0) -> Any:
    def change(array: np.ndarray) -> None:
        if array.dtype.names and field in array.dtype.names:
            array[field][row] = value

    return change


def order(array: np.ndarray) -> None:
    if array.dtype == np.int64 and array.shape == (80,) and sorted(array) == list(range(80)):
        array[0] = 10**6


FORGED = {
    "a child of itself": ("forest", node("left_child", 0)),
    "a child before": ("forest", node("right_child", 0, 1)),
    "a child far away": ("forest", node("right_child", 10**6)),
    "a feature far away": ("forest", node("feature", 10**6)),
    "a negative feature": ("forest", node("feature", -5)),
    "boosted feature": ("boosted", node("feature", 10**6)),
    "histogram child": ("histograms", node("left", 0)),
    "histogram far child": ("histograms", node("right", 10**6)),
    "histogram feature": ("histograms", node("feature_idx", 10**6)),
    "histogram bits": ("histograms", lambda a: (node("is_categorical", 1)(a), node("bitset_idx", 10**6)(a))),
    "range of neighbours": ("kd", node("idx_end", 10**6)),
    "balls": ("ball", node("idx_start", -(10**6))),
    "no leaf": ("ball", node("is_leaf", 0, -1)),
    "order of neighbours": ("kd", order),
}


@pytest.mark.parametrize(("name", "change"), FORGED.values(), ids=FORGED)
def test_a_forged_structure_is_refused_before_it_is_followed(tmp_path: Path, name: str, change: Any) -> None:
    rows = ROWS.copy()
    rows[:, 2] = np.arange(80) % 4
    path = edited(tmp_path, HONEST[name].fit(rows, SIDES), change)
    with pytest.raises(VersionError, match=r"^pipeline\.skops: [^\n]+; got [^\n]+; restore the file or train again$"):
        load_pipeline(path)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    machine, line = SVC().fit(ROWS, SIDES), make_pipeline(SplineTransformer()).fit(ROWS)
    machine._n_support = np.array([10**6, 1], dtype=np.int32)
    line[0].bsplines_[0].t = line[0].bsplines_[0].t[:4]
    forest = RandomForestClassifier(2, random_state=0, max_features=None).fit(ROWS[:, ::-1], SIDES)
    forest.estimators_[0].n_features_in_ = 1
    matrix = csr_matrix(np.eye(3))
    matrix.indices[0] = 10**6
    near = KNeighborsClassifier().fit(csr_matrix(ROWS), SIDES)
    near._fit_X = matrix
    for wrong in (machine, line, forest, near):
        with pytest.raises(VersionError, match=r"^pipeline\.skops: "):
            check_sound(wrong)


def with_members(path: Path, members: dict[str, bytes], *, packed: bool = True) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    return path


def array(shape: str, descr: str = "<f8") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(8)


def test_a_file_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.skops"
    for members in (
        {"schema.json": b" " * (32 << 20)},
        {"1.npy": array("(1000000000000,)"), "schema.json": b"{}"},
        {"1.npy": array("(2,)", "<U1000000"), "schema.json": b"{}"},
        {"1.npy": b"no array", "schema.json": b"{}"},
        {"schema.json": b'{"a":' * 50_000},
        {"1.npz": b"no zip", "schema.json": b"{}"},
    ):
        with pytest.raises(VersionError, match=r"^pipeline\.skops, [^\n]+$"):
            load_pipeline(with_members(path, members))
    path.write_bytes(b"no zip")
    with pytest.raises(VersionError) as raised:
        check_archive(path)
    assert raised.value.code == "version.malformed"


def test_a_tree_with_more_outputs_than_classes_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(io.BytesIO(sio.dumps(DecisionTreeClassifier(max_depth=2).fit(ROWS, SIDES))))
    members = {member.filename: archive.read(member) for member in archive.infolist()}
    schema = json.loads(members["schema.json"])
    schema["content"]["content"]["tree_"]["__reduce__"]["args"]["content"][2]["content"] = "1000000"
    members["schema.json"] = json.dumps(schema).encode()
    with pytest.raises(VersionError, match="features, classes and outputs that fit"):
        load_pipeline(with_members(tmp_path / "pipeline.skops", members, packed=False))


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("forged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        home = Home.open(folder / "home")
        frame = pd.DataFrame(ROWS, columns=list("abc"))
        line = LogisticRegression().fit(frame, SIDES)
        yield home, register(line, frame, SIDES, name="late", home=home).tag


@pytest.fixture
def place(registered: Any) -> Any:
    """The version's folder; what a test changes is put back."""
    home, tag = registered
    folder = Registry(home).folder("late", tag)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield home, tag, folder
    for path, data in before.items():
        path.chmod(0o644)
        path.write_bytes(data)


def forge(folder: Path, name: str, data: bytes, **fields: Any) -> None:
    """Change a file and the manifest, so that the folder agrees with itself."""
    (folder / name).chmod(0o644)
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text()) | fields
    import hashlib

    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_text(json_text(manifest))


NO_JSON = [b"", b"no", b"[]", b"null", b"[" * 20_000, b'{"a": NaN}', b"{}", "{}".encode("utf-16"), b"\xff"]


@pytest.mark.parametrize("name", ["scorer.json", "golden.jsonl", "declaration.json", "contract.json", MANIFEST])
@pytest.mark.parametrize("data", NO_JSON, ids=range(len(NO_JSON)))
def test_a_file_that_is_not_what_it_should_be_is_one_line(place: Any, name: str, data: bytes) -> None:
    _, _, folder = place
    if name == MANIFEST:
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(data)
    else:
        forge(folder, name, data)
    with pytest.raises(VersionError) as caught:
        open_version(folder)
    assert "\n" not in str(caught.value)


WRONG = [None, 7, "text", [], {}, [1], {"a": None}, -1, 1e308]


@pytest.mark.parametrize("name", ["scorer.json", "declaration.json", "contract.json", MANIFEST])
def test_a_field_of_another_type_is_one_line(place: Any, name: str) -> None:
    _, _, folder = place
    kept = json.loads((folder / name).read_text())
    manifest = json.loads((folder / MANIFEST).read_text())
    for field in kept:
        for value in WRONG:
            changed = {**kept, field: value}
            data = json_text(changed).encode()
            if name == MANIFEST:
                (folder / name).chmod(0o644)
                (folder / name).write_bytes(data)
            else:
                parts = dict(manifest["parts"])
                measured = manifest["measured"]
                if name == "declaration.json":
                    parts["declaration"] = json_digest({k: v for k, v in changed.items() if k not in measured})
                if name == "contract.json":
                    parts["contract"] = json_digest(changed)
                forge(folder, name, data, parts=parts, content_id=content_id(parts))
            try:
                version = open_version(folder)
            except VersionError as error:
                assert "\n" not in str(error), (field, value)
            else:
                assert version.tolerance >= 0


def test_a_tolerance_that_lets_everything_pass_is_no_tolerance(place: Any) -> None:
    _, _, folder = place
    text = (folder / "declaration.json").read_text()
    tolerance = json.loads(text)["tolerance"]
    for value in ("1e999", "NaN", "-1.0", "null", "true"):
        forge(folder, "declaration.json", text.replace(f'"tolerance": {tolerance}', f'"tolerance": {value}').encode())
        with pytest.raises(VersionError, match=r"declaration\.json"):
            open_version(folder)


def test_declaration_contract_code_and_pipeline_are_held_against_the_content_id(place: Any) -> None:
    _, _, folder = place
    for name, old, new in (("declaration.json", '"owner": ""', '"owner": "me"'), ("contract.json", '"a"', '"A"')):
        before = (folder / name).read_bytes()
        forge(folder, name, before.replace(old.encode(), new.encode()))
        with pytest.raises(VersionError, match="was altered: it is not the one of its content id"):
            open_version(folder)
        forge(folder, name, before)
    other = sio.dumps(LogisticRegression(C=0.01).fit(pd.DataFrame(ROWS, columns=list("abc")), SIDES))
    forge(folder, "pipeline.skops", other)
    with pytest.raises(VersionError, match="pipeline was altered: it is not the one of its content id"):
        open_version(folder)


def test_a_row_function_outside_of_the_code_is_refused(place: Any) -> None:
    _, _, folder = place
    declared = json.loads((folder / "declaration.json").read_text())
    manifest = json.loads((folder / MANIFEST).read_text())
    declared["row_functions"] = [{"file": "usual.json", "module": "evil", "name": "run", "pandas": False}]
    kept = {name: value for name, value in declared.items() if name not in (*MEASURED, "scorer")}
    parts = {**manifest["parts"], "declaration": json_digest(kept)}
    forge(folder, "declaration.json", json_text(declared).encode(), parts=parts, content_id=content_id(parts))
    with pytest.raises(VersionError, match=r"declaration\.json: .*row functions outside of code: usual\.json"):
        open_version(folder)


def test_an_edit_of_a_file_and_the_manifest_is_refused_by_the_registry(place: Any) -> None:
    home, tag, folder = place
    assert Registry(home).open("late", tag).version == tag
    text = (folder / "declaration.json").read_text()
    tolerance = json.loads(text)["tolerance"]
    forge(folder, "declaration.json", text.replace(f'"tolerance": {tolerance}', '"tolerance": 0.5').encode())
    assert open_version(folder).tolerance == 0.5  # the folder agrees with itself
    for ask in (lambda: Registry(home).open("late", tag), lambda: promote(home, tag)):
        with pytest.raises(VersionError, match=r"manifest\.json was altered: its SHA-256 is not the one"):
            ask()


def promote(home: Home, tag: str) -> None:
    Registry(home).promote("late", tag, who="me", why="better", override="a test")


def test_a_version_of_before_is_noted_when_it_is_first_opened_and_never_rewritten(place: Any) -> None:
    home, tag, folder = place
    with sqlite3.connect(home.registry) as table:
        table.execute("DROP TABLE seals")
    table.close()
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["measured"]
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_text(json_text(manifest))
    before = (folder / MANIFEST).read_bytes()
    registry = Registry(home)
    assert not registry.seals.hold(tag, manifest)
    registry.open("late", tag)
    assert registry.seals.hold(tag, manifest) and (folder / MANIFEST).read_bytes() == before
    with pytest.raises(VersionError) as raised:
        registry.seals.note(tag, {**manifest, "verdict": "pass"})
    assert raised.value.code == "version.altered"
    registry.seals.forget(tag)


def test_a_version_that_was_removed_and_built_again_has_a_new_seal(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    home, frame = Home.open(tmp_path / "home"), pd.DataFrame(ROWS, columns=list("abc"))
    tags = []
    for _ in range(2):
        tags.append(register(LogisticRegression().fit(frame, SIDES), frame, SIDES, name="late", home=home).tag)
        Registry(home).open("late", tags[-1])
        Registry(home).remove("late", tags[-1])
    assert tags[0] == tags[1]
