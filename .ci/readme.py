"""Write README.md from nbs/index.ipynb, or check that it is in step (--check)."""

from __future__ import annotations

import re
import sys
from os.path import normpath
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written from nbs/index.ipynb by `make readme`; edit the notebook. -->\n\n"


def readme() -> str:
    """Render the index notebook as Markdown, hidden cells left out, pictures and pages found from the root."""
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("#| hide")]
    notebook.metadata["language_info"] = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    text = re.sub(r"\]\((?![a-z]+:|[#/])([^)]+)\)", lambda found: f"]({normpath(f'nbs/{found[1]}')})", text)
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    target, text = ROOT / "README.md", readme()
    if "--check" not in sys.argv:
        target.write_text(text, encoding="utf-8")
    elif target.read_text(encoding="utf-8") != text:
        sys.exit("README.md is not what nbs/index.ipynb gives; run `make readme` and commit it")
