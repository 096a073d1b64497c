"""The page that shows the rules of rows, and keeps what a person makes of them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

from mlworkbench.contract.file import read_revision

NOTEBOOK = Path(__file__).parents[3] / "nbs" / "explore" / "data.ipynb"


def run(folder: Path, **parameters: str) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in parameters.items())])
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=place).execute()


def test_the_page_learns_states_and_keeps_a_contract_and_a_look_alone_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, who="ada")
    kept = read_revision(tmp_path / "contract.json")
    assert [relation.name for relation in kept.contract.relations] == ["distance: as known for dest"]
    assert not any(relation.learned for relation in kept.contract.relations)
    assert kept.contract.column("distance").unit == "miles"
    assert [entry["who"] for entry in kept.history] == ["ada"]
