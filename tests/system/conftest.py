"""Helpers of these tests are imported by their own name, also from processes that they start."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent / "planted"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
