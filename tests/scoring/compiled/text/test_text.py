"""Texts: cut, counted, hashed and weighed as scikit-learn does it, alone and beside numbers, without it."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proving import answer, prove_alike, refuse_alike
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import murmurhash3_32

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.scoring.compiled.base.rules import TRANSFORMERS, NoRuleError, Site, full_name
from mlworkbench.scoring.compiled.base.sparse import WIDEST, SparseBlock
from mlworkbench.scoring.compiled.compile import compile_scorer
from mlworkbench.scoring.compiled.operations import ProgramMaker
from mlworkbench.scoring.compiled.text.hashes import make_places, murmur
from mlworkbench.scoring.data_frame import frame_to_pandas
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.reference import ReferenceScorer, list_classes

BASE = [
    "gate",
    "crew",
    "late",
    "early",
    "café",
    "Äußerst",
    "fog",
    "x",
    "a",
    "the",
    "7",
    "737",
    "naïve",
    "İstanbul",
    "straße",
]
TEXTS = Contract((Column("remark", "text"),))
MIXED = Contract((Column("carrier", "category"), Column("remark", "text"), Column("distance", "number")))


def texts(n: int, seed: int = 0, more: tuple[str, ...] = ()) -> FeatureFrame:
    random = np.random.default_rng(seed)
    remarks = [" ".join(random.choice([*BASE, *more], random.integers(0, 12))) for _ in range(n)]
    remarks[:4] = ["", "  \t crew,\n\n late!! ", "CREW late", "unheard of"]
    carriers = random.choice(np.array(["AA", "UA", "WN"], dtype=object), n)
    columns = {"carrier": carriers, "remark": np.array(remarks, dtype=object), "distance": random.normal(size=n)}
    return FeatureFrame(columns)


FRAME, UNSEEN = texts(150), texts(120, seed=1, more=("new", "Crew"))
LATE = np.array(["late" in text for text in FRAME.columns["remark"]])
LEVEL = np.array([min(text.count("crew"), 2) for text in FRAME.columns["remark"]])


def of_texts(pipeline: Any, target: Any = LATE, task: str = "binary") -> ReferenceScorer:
    series = frame_to_pandas(FeatureFrame({"remark": FRAME.columns["remark"]}), TEXTS).iloc[:, 0]
    pipeline = pipeline.fit(series, target)
    return ReferenceScorer(pipeline, TEXTS, task, list_classes(pipeline), input="series")


def prove_texts(pipeline: Any, **more: Any) -> Any:
    frames = [FeatureFrame({"remark": frame.columns["remark"]}) for frame in (FRAME, UNSEEN)]
    return prove_alike(of_texts(pipeline, **more), *frames, alone=8)


VECTORIZERS = {
    "counts": CountVectorizer(),
    "counts of one and two words": CountVectorizer(ngram_range=(1, 2), min_df=2),
    "pairs alone": CountVectorizer(ngram_range=(2, 3)),
    "presence": CountVectorizer(binary=True, dtype=np.float64),
    "stop words": CountVectorizer(stop_words="english", strip_accents="unicode"),
    "own stop words": TfidfVectorizer(stop_words=["crew", "the"], strip_accents="ascii", lowercase=False),
    "own words": CountVectorizer(vocabulary=["late", "crew", "new"]),
    "an own pattern": TfidfVectorizer(token_pattern=r"(?u)\b(\w)\w+\b", max_features=20),
    "weights": TfidfVectorizer(),
    "damped weights": TfidfVectorizer(sublinear_tf=True, norm="l1", smooth_idf=False),
    "weights without rarity": TfidfVectorizer(use_idf=False, norm=None, binary=True),
    "characters": TfidfVectorizer(analyzer="char", ngram_range=(1, 3)),
    "long characters": TfidfVectorizer(analyzer="char", ngram_range=(3, 5), lowercase=False),
    "characters within words": TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), strip_accents="unicode"),
    "hashes": HashingVectorizer(n_features=64),
    "hashes that only add": HashingVectorizer(n_features=32, alternate_sign=False, norm="l1", ngram_range=(1, 2)),
    "hashed presence": HashingVectorizer(n_features=16, binary=True, norm=None, analyzer="char"),
    "very many hashes": HashingVectorizer(n_features=2**16),
}


def rule_steps(vectorizer: Any) -> list[Any]:
    steps, _ = TRANSFORMERS[full_name(vectorizer)](vectorizer, Site((TEXTS.columns[0],), "series"), None)
    return [ProgramMaker().step(one) for one in steps]


def run(steps: list[Any], column: Any) -> SparseBlock:
    table: Any = [np.array([*column], dtype=object)]
    for step in steps:
        table = step(table)
    return table


@pytest.mark.parametrize("name", VECTORIZERS)
def test_a_vectorizer_leaves_the_same_entries_in_the_same_order_to_the_bit(name: str) -> None:
    vectorizer = VECTORIZERS[name].fit(FRAME.columns["remark"])
    unseen = UNSEEN.columns["remark"]
    found, expected = run(rule_steps(vectorizer), unseen), vectorizer.transform(unseen)
    assert found.shape == expected.shape[::-1]
    assert (found.columns == expected.indices).all() and (found.values == expected.data).all()
    assert (np.bincount(found.rows, minlength=len(UNSEEN)) == np.diff(expected.indptr)).all()
    weights = np.random.default_rng(0).normal(size=(3, expected.shape[1]))
    assert (found.multiply(weights) == expected @ weights.T).all()


@pytest.mark.parametrize("name", VECTORIZERS)
def test_a_pipeline_of_one_text_column_compiles(name: str) -> None:
    prove_texts(make_pipeline(VECTORIZERS[name], LogisticRegression(C=10)))


def test_several_classes_and_numbers_of_texts_compile() -> None:
    counts = make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True))
    prove_texts(make_pipeline(counts, LogisticRegression()), target=LEVEL, task="multiclass")
    prove_texts(make_pipeline(TfidfVectorizer(), LinearSVC()), target=LEVEL, task="multiclass")
    prove_texts(make_pipeline(TfidfVectorizer(), Ridge()), target=LEVEL * 1.5, task="regression")
    prove_texts(make_pipeline(HashingVectorizer(n_features=2**14), SGDClassifier(random_state=0)))


def test_a_union_of_words_and_characters_compiles() -> None:
    parts = [("w", TfidfVectorizer()), ("c", CountVectorizer(analyzer="char"))]
    both = FeatureUnion(parts, transformer_weights={"w": 0.5})
    prove_texts(make_pipeline(both, LogisticRegression(max_iter=2000)))


def test_what_is_no_product_takes_few_words_dense_and_refuses_many_by_name() -> None:
    prove_texts(make_pipeline(TfidfVectorizer(), RandomForestClassifier(5, random_state=0)))
    prove_texts(make_pipeline(CountVectorizer(), MaxAbsScaler(), StandardScaler(with_mean=False), LogisticRegression()))
    many = HashingVectorizer(n_features=WIDEST * 8)
    prove_texts(make_pipeline(many, MaxAbsScaler(), StandardScaler(with_mean=False), LogisticRegression()))
    with pytest.raises(NoRuleError, match="16,384 columns of words only multiplies"):
        compile_scorer(of_texts(make_pipeline(many, MaxAbsScaler(clip=True), LogisticRegression())))
    wide = make_pipeline(HashingVectorizer(n_features=WIDEST + 1), RandomForestClassifier(2, random_state=0))
    with pytest.raises(NoRuleError, match=r"2,048 are made dense .*; set max_features"):
        compile_scorer(of_texts(wide))


def mixed(sparse_threshold: float = 0.3, **more: Any) -> ColumnTransformer:
    groups = [
        ("text", TfidfVectorizer(**more), "remark"),
        ("carrier", OneHotEncoder(), ["carrier"]),
        ("number", StandardScaler(), ["distance"]),
    ]
    return ColumnTransformer(groups, sparse_threshold=sparse_threshold, transformer_weights={"text": 2.0})


@pytest.mark.parametrize("sparse_threshold", [0.0, 1.0])
@pytest.mark.parametrize("input", ["frame", "array"])
def test_a_text_column_beside_numbers_compiles(sparse_threshold: float, input: str) -> None:
    columns = mixed(sparse_threshold)
    if input == "array":
        groups = [("t", TfidfVectorizer(), 1), ("c", OneHotEncoder(), [0]), ("n", StandardScaler(), [2])]
        columns = ColumnTransformer(groups, sparse_threshold=sparse_threshold)
    table = frame_to_pandas(FRAME, MIXED)
    given = table if input == "frame" else table.to_numpy()
    pipeline = make_pipeline(columns, LogisticRegression()).fit(given, LATE)
    reference = ReferenceScorer(pipeline, MIXED, "binary", [False, True], input=input)
    compiled = prove_alike(reference, FRAME, UNSEEN, alone=8)
    absent = FeatureFrame({**UNSEEN.columns, "distance": UNSEEN.columns["distance"] * np.nan}).take(range(3))
    refuse_alike(reference, compiled, absent)


def test_a_matrix_of_very_many_words_beside_a_number_stays_sparse() -> None:
    hashed = [("t", HashingVectorizer(n_features=2**16), "remark"), ("n", StandardScaler(), ["distance"])]
    pipeline = make_pipeline(ColumnTransformer(hashed), LinearSVC()).fit(frame_to_pandas(FRAME, MIXED), LATE)
    reference = ReferenceScorer(pipeline, MIXED, "binary", [False, True])
    compiled = prove_alike(reference, FRAME, UNSEEN, alone=8)
    assert (compiled.score(UNSEEN) == reference.score(UNSEEN)).all(), "sums in scipy's order"


def test_a_missing_text_is_refused_as_the_pipeline_refuses_it() -> None:
    nullable = Contract((Column("remark", "text", nullable=True),))
    reference = of_texts(make_pipeline(TfidfVectorizer(), LogisticRegression()))
    reference = ReferenceScorer(reference.pipeline, nullable, "binary", [False, True], input="series")
    frame = FeatureFrame({"remark": np.array(["late", None, ""], dtype=object)})
    compiled = compile_scorer(reference)
    refuse_alike(reference, compiled, frame)
    assert answer(compiled, frame) is None and answer(reference, frame) is None


REFUSED = [
    (CountVectorizer(tokenizer=str.split, token_pattern=None), "a tokenizer has no rule; got split"),
    (CountVectorizer(preprocessor=str.upper), "a preprocessor has no rule; got upper"),
    (CountVectorizer(analyzer=str.split), "analyzer by name; got split"),
    (CountVectorizer(strip_accents=str.title), "strip_accents by name; got title"),
    (TfidfVectorizer(dtype=np.float32), "dtype float64 or int64; got float32"),
    (HashingVectorizer(n_features=16, dtype=np.float32), "dtype float64 or int64; got float32"),
    (CountVectorizer(dtype=np.int8), "dtype float64 or int64; got int8"),
]  # fmt: skip


@pytest.mark.parametrize(("vectorizer", "words"), REFUSED, ids=lambda one: str(one)[:30])
def test_an_own_function_or_another_type_is_refused_by_name(vectorizer: Any, words: str) -> None:
    with pytest.raises(NoRuleError, match=words):
        compile_scorer(of_texts(make_pipeline(vectorizer, LogisticRegression())))


LETTERS = st.text(alphabet=string.ascii_letters + " \t\n.,'éßİﬁ７Ⅷ́\u2028中", max_size=40)


@pytest.mark.parametrize(
    "name", ["counts of one and two words", "own stop words", "long characters", "characters within words"]
)
@settings(max_examples=25, deadline=None)
@given(column=st.lists(LETTERS, min_size=1, max_size=5))
def test_any_text_is_cut_as_scikit_learn_cuts_it(name: str, column: list[str]) -> None:
    vectorizer = VECTORIZERS[name]
    steps = HashingVectorizer(n_features=256, norm=None, **_cutting(vectorizer))
    found, expected = run(rule_steps(steps), column), steps.transform(column)
    assert (found.columns == expected.indices).all() and (found.values == expected.data).all()


def _cutting(vectorizer: Any) -> dict[str, Any]:
    names = ("analyzer", "ngram_range", "lowercase", "strip_accents", "stop_words", "token_pattern")
    return {name: getattr(vectorizer, name) for name in names}


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=40))
def test_a_hash_is_that_of_scikit_learn(data: bytes) -> None:
    assert murmur(data) == murmurhash3_32(data, seed=0)


def test_the_place_of_the_one_hash_without_a_positive_twin() -> None:
    assert all(abs(-(2**31)) % count == (2147483647 - (count - 1)) % count for count in (2, 7, 1000, 2**20))
    down = next(word for word in "abcdefgh" if murmur(word.encode()) < 0)
    assert make_places(7, signed=True)(down) == ~make_places(7, signed=False)(down) < 0
