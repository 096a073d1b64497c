"""The servers that `realtime.py` holds the workbench against, each as its users write it; none of them logs anything.

What they need lies in the folder that the variable ``PEER`` names: the graph of the trees as the workbench compiled it,
the codes of the words, and the pipeline. uvicorn starts a function of this file (``--factory``), BentoML a service.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["PEER"])
KNOWN = json.loads((FOLDER / "peer.json").read_text(encoding="utf-8"))


class Graph:
    """The trees in ONNX Runtime, called by hand."""

    def __init__(self) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(FOLDER / "scorer.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.array, self.kind = np.array, np.float64

    def score(self, record: dict[str, Any]) -> float:
        """Put codes to words, and ask."""
        row = [codes.get(record[name], math.nan) for name, codes in KNOWN["words"].items()]
        row += [math.nan if (value := record[name]) is None else value for name in KNOWN["numbers"]]
        raw = self.session.run(None, {"features": self.array([row], self.kind)})[0]
        return 1 / (1 + math.exp(-(float(raw[0][0]) / KNOWN["divisor"] + KNOWN["base"])))


def open_pipeline() -> Any:
    """Load the pipeline, and give what scores a record with it."""
    import pandas as pd
    import skops.io

    file = FOLDER / "pipeline.skops"
    pipeline = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    return lambda record: float(pipeline.predict_proba(pd.DataFrame([record]))[0, 1])


def make_record() -> Any:
    """Make the type of a record: words and numbers."""
    from pydantic import create_model

    words, numbers = dict.fromkeys(KNOWN["words"], (str, ...)), dict.fromkeys(KNOWN["numbers"], (float | None, ...))
    return create_model("Record", **words, **numbers)


def bare() -> Any:
    """Nothing but uvicorn and the graph: the floor."""
    graph = Graph()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        score = graph.score(json.loads(body)) if body else 0.0
        text = json.dumps({"score": score, "decision": score > 0.5}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return answer


def empty() -> Any:
    """Answer "ok"."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    return answer


def by_hand() -> Any:
    """FastAPI with a typed record, and the graph."""
    from fastapi import FastAPI

    graph, record_type, app = Graph(), make_record(), FastAPI()

    async def score(record: record_type) -> dict[str, Any]:  # type: ignore[valid-type]
        found = graph.score(record.model_dump())  # type: ignore[attr-defined]
        return {"score": found, "decision": found > 0.5}

    score.__annotations__["record"] = record_type
    app.post("/score")(score)
    return app


def pipeline_by_hand() -> Any:
    """FastAPI with a typed record, and the pipeline in its thread pool."""
    from fastapi import FastAPI

    ask, record_type, app = open_pipeline(), make_record(), FastAPI()

    def score(record: record_type) -> dict[str, Any]:  # type: ignore[valid-type]
        found = ask(record.model_dump())  # type: ignore[attr-defined]
        return {"score": found, "decision": found > 0.5}

    score.__annotations__["record"] = record_type
    app.post("/score")(score)
    return app


def make_service(name: str) -> Any:
    """Make a service of BentoML with a typed record."""
    import bentoml

    record_type = make_record()

    class Typed:
        def __init__(self) -> None:
            self.graph = Graph()

        async def score(self, record: record_type, /) -> dict[str, Any]:  # type: ignore[valid-type]
            found = self.graph.score(record.model_dump())  # type: ignore[attr-defined]
            return {"score": found, "decision": found > 0.5}

    class Pipeline:
        def __init__(self) -> None:
            self.ask = open_pipeline()

        def score(self, record: record_type, /) -> dict[str, Any]:  # type: ignore[valid-type]
            found = self.ask(record.model_dump())  # type: ignore[attr-defined]
            return {"score": found, "decision": found > 0.5}

    class Empty:
        def score(self, record: record_type, /) -> dict[str, Any]:  # type: ignore[valid-type]
            return {}

    made = {"typed": Typed, "pipeline": Pipeline, "empty": Empty}[name]
    made.score.__annotations__["record"] = record_type  # type: ignore[attr-defined]
    made.score = bentoml.api(made.score, route="/score")  # type: ignore[attr-defined]
    service = bentoml.service(name=name, logging={"access": {"enabled": False}})(made)
    service._caller_module = __name__
    return service


if name := os.environ.get("PEER_SERVICE"):
    served = make_service(name)
