"""A version answers as the very pipeline that was fitted, on the user's own rows, or there is a word about it."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlworkbench import register
from mlworkbench.core.home import Home
from mlworkbench.errors import RefusedError, ScoringError, VersionError
from mlworkbench.operate.certify.certificate import certify
from mlworkbench.operate.training import publish
from mlworkbench.operate.training import register as registering
from mlworkbench.operate.training.anchor import anchor
from mlworkbench.operate.training.anchor.anchor import describe_anchor, read_anchor
from mlworkbench.operate.training.anchor.process import answer_part, ask_in_new_process
from mlworkbench.operate.training.anchor.rows import GivenRows, choose_places
from mlworkbench.operate.training.anchor.variants import make_variants
from mlworkbench.operate.training.train import train
from mlworkbench.scoring.compiled.proof import prove
from mlworkbench.scoring.definition import ModelDefinition
from mlworkbench.scoring.registry.registry import Registry
from mlworkbench.scoring.version.version import open_version, with_reference

GENERATOR = np.random.default_rng(0)
X = pd.DataFrame({"a": GENERATOR.normal(size=400), "b": GENERATOR.normal(size=400)})
Y = (X.a + 0.5 * GENERATOR.normal(size=400) > 0).astype(int)
PROGRAM = Path(__file__).with_name("planted.py")
PLANTED = run_path(str(PROGRAM))["PLANTED"]
TARGET = (X.a + X.b).rename("late")
FIRST = OneHotEncoder(handle_unknown="ignore")


def less_mean(rows):
    return rows - rows.mean()


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Start the process, which other tests do without."""
    monkeypatch.setattr(anchor, "ask_in_new_process", ask_in_new_process)


@pytest.fixture
def in_process(monkeypatch, new_process):
    """Open the version in this very process: quicker, where the process is not the point."""

    def ask(folder, parts, *, trusted=(), opened_by=()):
        opened = open_version(folder, trusted=trusted, check_golden=False)  # a planted error breaks them, too
        return [answer_part(opened, part) for part in parts]

    monkeypatch.setattr(anchor, "ask_in_new_process", ask)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A version with a column of each kind, and what its pipeline said."""
    place, kept = tmp_path_factory.mktemp("held"), SimpleNamespace()
    texts = pd.Series(GENERATOR.choice(np.array(["x", "y", "z", np.nan], dtype=object), 400), dtype=object)
    rows = X.assign(t=texts, k=np.arange(400) * 5)
    rows.loc[::9, "b"] = np.nan
    first = make_column_transformer(
        (FIRST, ["t"]), (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["a", "b", "k"])
    )
    pipeline = make_pipeline(first, GaussianProcessClassifier(random_state=0))  # what compiles never meets pandas
    pipeline.fit(rows, ((rows.t == "x") | (rows.a + rows.k / 2000 + rows.b.fillna(2) > 1)).astype(int))

    def keep(own, folder, anchoring, fields):
        kept.own, kept.anchoring, kept.fields = own, anchoring, fields
        shutil.copytree(folder, place / "version")
        return fields["verdict"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(place / "bentoml"))
        patch.setattr(publish, "anchor_version", keep)
        register(pipeline, rows, pipeline.predict(rows), name="held", home=place / "home")
    return SimpleNamespace(folder=place / "version", **vars(kept))


def test_a_version_that_translates_well_is_equal(held, in_process) -> None:
    found = anchor.check_against_pipeline(held.own, held.folder, held.anchoring)
    assert (found["verdict"], found["rows"], found["predict_differs"], found["differences"]) == ("equal", 400, 0, 0)
    assert found["max_difference"] <= 1e-12 and found["source"] == "as given" and found["variants"] >= 10


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_translation_error_is_found_and_named(name, held, in_process, monkeypatch) -> None:
    plant, place = PLANTED[name]
    monkeypatch.setattr(*plant())
    with pytest.raises(RefusedError, match=place) as caught:
        anchor.check_against_pipeline(held.own, held.folder, held.anchoring)
    assert "rows differ, first row" in str(caught.value) and "accept_differences" in str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found_in_a_process_of_its_own(name, held) -> None:
    opened_by = (sys.executable, str(PROGRAM), name)
    asked = anchor.Anchoring(**{**vars(held.anchoring), "opened_by": opened_by})
    with pytest.raises(RefusedError, match=PLANTED[name][1]):
        anchor.check_against_pipeline(held.own, held.folder, asked)


def test_register_asks_a_new_process_and_adds_nothing_that_differs(home: Home, monkeypatch) -> None:
    opened_by = (sys.executable, str(PROGRAM), "a cast to float32")
    monkeypatch.setattr(registering, "Anchoring", partial(anchor.Anchoring, opened_by=opened_by))
    line = make_pipeline(StandardScaler(), LinearRegression()).fit(X, TARGET)
    with pytest.raises(RefusedError, match=r"400 rows differ, first row .*column 'a' reaches the version"):
        register(line, X, TARGET, name="line", home=home)
    assert Registry(home).models() == []


@pytest.mark.parametrize("first", [FunctionTransformer(less_mean), make_pipeline(FunctionTransformer(less_mean))])
def test_an_answer_that_depends_on_the_other_rows_is_refused_by_step(first, home: Home) -> None:
    centred = make_pipeline(first, LogisticRegression()).fit(X, Y)
    with pytest.raises(RefusedError, match=r"row \d+ scores .*; step '\w+' changes") as raised:
        register(centred, X, Y, name="centred", home=home)
    assert raised.value.code == "anchor.batch_single"
    assert Registry(home).models() == []


def test_chance_is_refused_by_name(home: Home) -> None:
    with pytest.raises(RefusedError, match=r"two calls.*DummyClassifier.*random_state") as raised:
        register(DummyClassifier(strategy="stratified").fit(X, Y), X, Y, name="dummy", home=home)
    assert raised.value.code == "anchor.batch_single"
    holes = X.mask(np.arange(800).reshape(400, 2) % 7 == 0)
    drawn = make_pipeline(IterativeImputer(sample_posterior=True), LogisticRegression()).fit(holes, Y)
    with pytest.raises(RefusedError, match=r"chance: step 'iterativeimputer' changes '[ab]'.*sample_posterior=False"):
        register(drawn, holes, Y, name="drawn", home=home)


def test_none_in_a_text_column_is_given_back_as_none_or_refused_by_column(home: Home, in_process) -> None:
    rows = X.assign(t=GENERATOR.choice(np.array(["x", "y", None], dtype=object), 400))
    label = ((rows.t == "x") | (rows.a > 1)).astype(int)
    pipeline = make_pipeline(make_column_transformer((FIRST, ["t"]), remainder="passthrough"), LogisticRegression())
    pipeline.fit(rows, label)
    try:
        result = register(pipeline, rows, label, name="nones", home=home)
    except RefusedError as error:
        assert "column 't' reaches the version as something else" in str(error)
    else:
        assert result.anchor["verdict"] == "equal"


def test_an_accepted_difference_is_unproved_and_never_serves(home: Home, in_process, monkeypatch) -> None:
    line = LinearRegression().fit(X, TARGET)
    with monkeypatch.context() as patch:
        patch.setattr(*PLANTED["a cast to float32"][0]())
        result = register(line, X, TARGET, name="line", home=home, accept_differences="a trial of ours")
    registry = Registry(home)
    assert result.gates["verdict"] == "unproved" and "a trial of ours: " in result.anchor["reason"]
    with pytest.raises(VersionError, match="unproved"):
        registry.serving("line")
    opened = registry.open("line", result.tag)
    certificate = certify(opened, home=home)
    assert certificate.verdict == "undecided" and "unproved, because a trial of ours" in certificate.refusal
    assert "unproved, because a trial of ours" in certificate.page.read_text()
    assert "unproved, because a trial of ours" in (result.folder / "card.md").read_text()
    with pytest.raises(RefusedError, match="unproved"):
        registry.promote("line", result.tag, who="we", why="to see")
    registry.promote("line", result.tag, who="we", why="to see", override="for a day")
    assert registry.serving("line")[0] == result.tag


def test_what_was_made_before_the_anchor_stays_valid_and_is_undecided(home: Home, in_process, monkeypatch) -> None:
    monkeypatch.setattr(anchor, "amend_version", lambda *parts, **named: None)
    result = register(LinearRegression().fit(X, TARGET), X, TARGET, name="old", home=home)
    assert result.anchor == {"verdict": "undecided", "reason": "made before the anchor"}
    assert Registry(home).serving("old")[0] == result.tag
    certificate = certify(Registry(home).open("old"), home=home)
    assert certificate.verdict == "undecided" and "made before the anchor" in certificate.refusal
    assert {row["verdict"] for row in certificate.fields["deployments"]} == {"equal"}


def test_the_certificate_is_equal_with_the_counts_of_the_anchor(home: Home, in_process) -> None:
    result = register(LinearRegression().fit(X, TARGET), X, TARGET, name="line", home=home)
    certificate = certify(Registry(home).open("line"), home=home)
    assert certificate.verdict == "equal" and certificate.fields["anchor"] == result.anchor
    assert "equal, 400 rows as given, 4 odd cells" in certificate.page.read_text()
    assert "Anchor: equal, 400 rows as given" in (result.folder / "card.md").read_text()


@pytest.mark.parametrize("off", [1.4, 1.01, 1.0001])
def test_a_wrong_intercept_of_large_targets_is_not_proved(off: float, home: Home, in_process) -> None:
    target = (1e9 + 1e8 * X.a).rename("price")
    result = register(LinearRegression().fit(X, target), X, target, name="large", home=home)
    opened = open_version(result.folder)
    reference, model = with_reference(opened).scorer, opened.scorer.program["model"]
    wrong = {**opened.scorer.program, "model": {**model, "intercepts": [model["intercepts"][0] * off]}}
    frame = opened.features({"a": X.a.to_numpy(), "b": X.b.to_numpy()})
    with pytest.raises(ScoringError, match="scores differ"):
        prove(type(opened.scorer)(wrong), reference, frame.take(range(50)), frame)


def test_a_definition_from_a_frame_is_as_given_and_one_from_a_file_is_not(home: Home, tmp_path, in_process) -> None:
    as_given = train(ModelDefinition("framed", LogisticRegression(), X.assign(late=Y), "late"), home=home)
    assert as_given.anchor["verdict"] == "equal" and as_given.anchor["source"] == "as given"
    X.assign(late=Y).to_parquet(tmp_path / "rows.parquet")
    read = train(ModelDefinition("filed", LogisticRegression(), str(tmp_path / "rows.parquet"), "late"), home=home)
    assert read.anchor["verdict"] == "equal" and read.anchor["source"] == "read by the workbench"


def test_a_sample_holds_each_missing_rare_and_extreme_value() -> None:
    count = 50_000
    rows = pd.DataFrame({"word": ["often"] * count, "number": np.arange(float(count)), "code": np.zeros(count, int)})
    rows.loc[[7, 11], "word"] = ["once", None]
    rows.loc[13, "number"], rows.loc[17, "code"] = np.nan, 9
    for container in (rows, pl.from_pandas(rows)):
        found = set(choose_places(GivenRows(container, "frame", tuple(rows.columns)), 100).tolist())
        assert {0, 7, 11, 13, 17, count - 1} <= found and len(found) == 100


@pytest.mark.parametrize(
    ("rows", "takes"),
    [
        (pl.DataFrame({"a": [1.0, None], "t": ["x", None]}), "frame"),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), "array"),
        (np.array([[1, 2], [3, 4]], dtype=np.int8), "array"),
        (np.array([["x", None], ["y", "z"]], dtype=object), "array"),
        ([[1.0, "x"], [2.0, "y"]], "array"),
        (pd.Series(["a word", "two"]), "series"),
        (["a word", "two"], "series"),
    ],
)
def test_odd_cells_are_made_in_the_container_of_the_user(rows, takes) -> None:
    names = ("text",) if takes == "series" else ("a", "t")
    given = GivenRows(rows, takes, names)
    for one in make_variants(given, given.take([0])):
        assert type(one.given.question) in (type(rows), np.ndarray) and len(one.given) == 1
        assert set(one.given.request()) == set(names)


def test_an_old_manifest_says_that_it_was_made_before() -> None:
    assert describe_anchor(read_anchor({})) == "undecided: made before the anchor"
