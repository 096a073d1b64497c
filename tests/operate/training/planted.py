"""Translation errors to plant between a request and a pipeline; as a program, the process that opens a version."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mlworkbench.operate.training.anchor import process as anchor_process
from mlworkbench.scoring import reference
from mlworkbench.scoring.version import version


def of_frame(change: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[object, str, Any]:
    """Change the columns of the feature frame."""
    real = version.frame_from_columns

    def planted(columns, contract):
        return version.FeatureFrame({**(found := real(columns, contract)).columns, **change(found.columns)})

    return version, "frame_from_columns", planted


def of_pandas(change: Callable[[Any], Any]) -> tuple[object, str, Any]:
    """Change the pandas frame that the pipeline gets."""
    real = reference.frame_to_pandas
    return reference, "frame_to_pandas", lambda frame, contract: change(real(frame, contract))


def of_scores(change: Callable[[Any], Any]) -> tuple[object, str, Any]:
    """Change the scores."""
    real = version.Version.answer

    def planted(self, frame):
        scores, decisions = real(self, frame)
        return change(scores), decisions

    return version.Version, "answer", planted


def moved_threshold() -> tuple[object, str, Any]:
    """Decide by another threshold."""
    real = version.Version.answer

    def planted(self, frame):
        scores = real(self, frame)[0]
        return scores, np.array([0, 1])[(scores >= 0.7).astype(int)]

    return version.Version, "answer", planted


def swapped_missing(frame):
    return frame.assign(t=frame.t.astype(object).where(frame.t.notna(), None))


def words(change: Callable[[str], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda columns: {"t": np.array([change(word) for word in columns["t"]], dtype=object)}


PLANTED: dict[str, tuple[Callable[[], tuple[object, str, Any]], str]] = {
    "a cast to float32": (lambda: of_frame(lambda c: {"a": c["a"].astype(np.float32).astype(float)}), "column 'a'"),
    "None for NaN": (lambda: of_pandas(swapped_missing), "column 't'"),
    "a lost category": (lambda: of_frame(words(lambda word: "lost" if word == "y" else word)), "column 't'"),
    "a category read as missing": (lambda: of_frame(words(lambda w: None if w == "z" else w)), "column 't'"),
    "swapped columns": (lambda: of_frame(lambda c: {"a": c["b"], "b": c["a"]}), "column 'a', 'b'"),
    "a wrapped integer": (lambda: of_frame(lambda c: {"k": c["k"].astype(np.int8).astype(np.int64)}), "column 'k'"),
    "a filled default": (lambda: of_frame(lambda c: {"b": np.nan_to_num(c["b"])}), "column 'b'"),
    "the other class": (lambda: of_scores(lambda scores: 1 - scores), "other class"),
    "a rounded score": (lambda: of_scores(lambda scores: scores.round(4)), "scores are rounded"),
    "a moved threshold": (
        moved_threshold,
        "rule of the decision",
    ),
}

if __name__ == "__main__":
    setattr(*PLANTED[sys.argv[1]][0]())
    anchor_process.open_version = partial(version.open_version, check_golden=False)  # the error breaks them, too
    anchor_process.answer_job()
