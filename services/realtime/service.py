"""Real-time scoring: `bentoml serve service:Scoring` in this folder, or `mlworkbench serve` anywhere.

The environment says what is served (README.md); nothing here computes.
"""

from __future__ import annotations

import os

import bentoml
from pydantic import RootModel
from starlette.responses import Response

from mlworkbench.deploy import guard
from mlworkbench.deploy.choice import choose
from mlworkbench.deploy.door import Door
from mlworkbench.deploy.realtime import Realtime
from mlworkbench.deploy.schema import schemas_of

guard.supervise()
CHOICE = guard.attempt(choose)
REQUEST, ANSWER = schemas_of(CHOICE.folder)


class Records(RootModel[object]):
    """One record (a JSON object) or a list of records, as it came."""

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **_: object) -> Records:
        """Keep the text: the version's contract judges it, and names every fault."""
        return cls.model_construct(root=json_data)

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> dict[str, object]:
        """Describe the records of this version."""
        return REQUEST


class Answers(RootModel[object]):
    """One answer or a list of answers."""

    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> dict[str, object]:
        """Describe the answers of this version."""
        return ANSWER


@bentoml.service(
    name="scoring",
    workers=int(os.environ.get("MLWORKBENCH_WORKERS", "1")),
    http={"host": "127.0.0.1"},
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Scoring:
    """Scores with one version of one model."""

    def __init__(self) -> None:
        """Open the version; it must reproduce its golden rows before the service is ready."""
        try:
            self.realtime = Realtime.open(CHOICE)
        except Exception as error:
            guard.give_up(error)

    @bentoml.api(route="/score")
    def score(self, records: Records, /, ctx: bentoml.Context) -> Answers:
        """Score one record or a list; every prediction is logged before it is answered."""
        asked = ctx.request
        reply = self.realtime.respond(
            records.root, asked.headers.get("x-request-id"), asked.query_params.get("partial")
        )
        ctx.response.status_code = reply.status
        for name, value in reply.headers.items():
            ctx.response.headers[name] = value
        return Response(reply.body, media_type=reply.media_type)  # type: ignore[return-value]

    @bentoml.on_shutdown
    def close(self) -> None:
        """Close log and store."""
        self.realtime.close()


Scoring.add_asgi_middleware(Door)
