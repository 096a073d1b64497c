"""Write README.md from nbs/index.ipynb, or check that it is in step (--check)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written from nbs/index.ipynb by `make readme`; edit the notebook. -->\n\n"


def readme() -> str:
    """Render the index notebook as Markdown, without nbdev's directive lines."""
    notebook = nbformat.read(ROOT / "nbs/index.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|"))
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    target, text = ROOT / "README.md", readme()
    if "--check" not in sys.argv:
        target.write_text(text, encoding="utf-8")
    elif target.read_text(encoding="utf-8") != text:
        sys.exit("README.md is not what nbs/index.ipynb gives; run `make readme` and commit it")
