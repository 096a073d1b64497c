"""A source of one's own, whole or incremental, is one class: nobody asks what is behind its members."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import polars as pl
import pytest

from mlworkbench.contract.contract import Column, Contract
from mlworkbench.core.home import Home
from mlworkbench.data.ingest.ingest import ingest
from mlworkbench.data.ingest.table import Table
from mlworkbench.data.lake.lake import Lake
from mlworkbench.data.sources.open_source import open_source
from mlworkbench.data.sources.source import WholeSource, is_source, missing_members
from mlworkbench.errors import IngestError

NOON = datetime(2013, 10, 1, 12, tzinfo=UTC)
CONTRACT = Contract((Column("number", "integer"), Column("delay", "number", upper=60)), key=("number",))


@dataclass(frozen=True)
class Queue:
    """Messages with a number that only grows; a reading begins after the last one that was acknowledged."""

    messages: list = field(default_factory=list)
    after: int = -1

    name, typed, stable, cursor, rows = "queue", True, False, "number", None

    @property
    def fingerprint(self):
        return f"{hash(json.dumps(self._left())) & (2**128 - 1):032x}"

    @property
    def parts(self):
        return (self,)

    def _left(self):
        return [message for message in self.messages if message[0] > self.after]

    def columns(self):
        return ["number", "delay"]

    def batches(self):
        frame = pl.DataFrame(self._left(), schema={"number": pl.Int64, "delay": pl.Float64}, orient="row")
        yield from frame.to_arrow().to_batches()

    def since(self, mark, folder, *, latest=None):
        return replace(self, after=-1 if mark is None else int(mark))

    def mark(self, rows, *, without=(), latest=None):
        seen = [number for place, (number, _) in enumerate(self._left()[:rows]) if place not in without]
        return str(max(seen, default=self.after))


def delays(queue, contract=CONTRACT):
    known = lambda frame: pl.repeat(NOON, frame.height, eager=True)  # noqa: E731
    return Table("delays", queue, contract, available_at=known, limit=1.0)


def test_an_incremental_source_of_ones_own_is_read_from_its_mark_on(tmp_path):
    home, queue = Home.open(tmp_path / "home"), Queue([(0, 3.0), (1, 999.0)])
    first = ingest(delays(queue), home=home, now=NOON)
    queue.messages.append((2, 4.0))
    second = ingest(delays(queue), home=home, now=NOON)
    again = ingest(delays(queue), home=home, now=NOON)
    assert [(r.read, r.appended, r.quarantined) for r in (first, second, again)] == [(2, 1, 1), (1, 1, 0), (0, 0, 0)]
    assert Lake(home.lake).read("delays")["number"].sort().to_list() == [0, 2]


def test_its_rows_need_a_key_and_its_cursor_names_nobody(tmp_path):
    home, queue = Home.open(tmp_path / "home"), Queue([(0, 3.0)])
    with pytest.raises(IngestError, check=lambda error: error.code == "ingest.key_missing"):
        ingest(delays(queue, Contract(CONTRACT.columns)), home=home, now=NOON)
    hidden = Contract((Column("number", "integer", personal=True), CONTRACT.columns[1]), key=("number",))
    with pytest.raises(IngestError, match="cursor 'number' must not be personal"):
        ingest(delays(queue, hidden), home=home, now=NOON)


def test_what_lacks_a_member_is_refused_by_the_name_of_it():
    class Half(WholeSource):
        """Rows whose number nobody told."""

        name, fingerprint = "half", "0" * 32

        def columns(self):
            return []

        def batches(self):
            return iter(())

    assert missing_members(Half()) == ["rows"] and not is_source(Half())
    with pytest.raises(IngestError, match="got Half, which has no rows; inherit WholeSource and add what is missing"):
        open_source(Half())
    Half.rows = None
    assert open_source(Half()).mark(5) is None and open_source(Half()).since("7", None).cursor == ""


def test_the_members_are_looked_for_and_not_asked():
    class Costly(Queue):
        @property
        def fingerprint(self):
            raise AssertionError("a query would run")

    assert is_source(Costly())
