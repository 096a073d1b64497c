"""What a micro-batch of a stream is worth, as ratios measured in the same run.

A model like that of the flights (words to codes, 150 boosted trees, no views), its events scored by the worker's own
step - read, check, predict, log, answer - one at a time and 512 at a time, with the compiled scorer and with the
pipeline itself; the floor is the scorer alone on the same 512 rows.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from compiled import ROUNDS, build, seconds

from mlworkbench.deploy.streaming.events import Event
from mlworkbench.deploy.streaming.lines import BATCH
from mlworkbench.deploy.streaming.worker import Streaming
from mlworkbench.evaluation.log.writer import PredictionLog
from mlworkbench.scoring.frame import FeatureFrame
from mlworkbench.scoring.version.version import Version, open_version, with_reference


def events_of(frame: FeatureFrame) -> list[Event]:
    """Give rows as events."""
    records = zip(*(column.tolist() for column in frame.columns.values()), strict=True)
    texts = [json.dumps(dict(zip(frame.columns, record, strict=True))).encode() for record in records]
    return [Event(k * 1000, k + 1, text, len(text)) for k, text in enumerate(texts)]


def measure(version: Version, frame: FeatureFrame, folder: Path) -> tuple[float, float, float]:
    """Seconds of one event, of a micro-batch of 512, and of the scorer alone on these; medians of the rounds."""
    events, taken = events_of(frame), []
    with closing(Streaming(version, PredictionLog(folder / f"{version.scorer.kind}.sqlite"))) as worker:
        for number in range(ROUNDS):
            one = seconds(lambda: worker.outcomes(events[:1], f"one-{number}"))  # noqa: B023
            many = seconds(lambda: worker.outcomes(events, f"many-{number}"))  # noqa: B023
            taken.append((one, many, seconds(lambda: version.score(frame))))
    one, many, floor = (statistics.median(side) for side in zip(*taken, strict=True))
    return one, many, floor


def main() -> int:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as name:
        frame = build(Path(name, "version")).take(range(BATCH))
        opened = open_version(Path(name, "version"))
        version = dataclasses.replace(opened, declaration={**opened.declaration, "deployments": ["streaming"]})
        for scored in (with_reference(version), version):
            one, many, floor = measure(scored, frame, Path(name))
            print(f"{scored.scorer.kind:9} {BATCH} events take {many / one:.0f} times as long as one,"
                  f" {many / floor:.1f} times as long as the scorer alone; {BATCH / many:,.0f} events/s")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
