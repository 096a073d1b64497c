"""A Python that has what a device has, and the predictions that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def bare_python(folder: Path) -> list[str]:
    """Give the words for a Python that has numpy, onnxruntime and the standard library, and no network."""
    libraries = folder / "libraries"
    if not libraries.exists():
        libraries.mkdir()
        site = Path(np.__file__).parents[1]
        for name in ("numpy", "numpy.libs", "onnxruntime"):
            if (site / name).exists():
                (libraries / name).symlink_to(site / name)
    start = f"import sys, runpy; sys.path.append({str(libraries)!r}); sys.argv = sys.argv[1:]; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    apart = subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    return [*(["unshare", "-rn"] if apart else []), sys.executable, "-I", "-S", "-c", start]


def run(folder: Path, device: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*bare_python(folder), str(device / "score.py"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
