"""Name the tests that belong to what was changed since a commit: those of a notebook's module, and its doctests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def changed(since: str) -> list[Path]:
    """List the files that differ from a commit, or that git does not know yet."""
    words = (["diff", "--name-only", since, "--"], ["ls-files", "--others", "--exclude-standard"])
    told = [subprocess.run(["git", *one], cwd=ROOT, capture_output=True, text=True, check=True).stdout for one in words]
    return [Path(line) for line in "".join(told).splitlines() if (ROOT / line).is_file()]


def tests_of(path: Path) -> list[Path]:
    """Give a test itself, a module with the tests of its name, and nothing for anything else."""
    if path.parts[0] == "tests":
        return [path] if path.match("test_*.py") else []
    if path.parts[0] != "mlworkbench" or path.suffix != ".py" or path.stem.startswith("_") or "templates" in path.parts:
        return []
    return [path, *sorted(found.relative_to(ROOT) for found in (ROOT / "tests").rglob(f"test_{path.stem}.py"))]


if __name__ == "__main__":
    since = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    print(*dict.fromkeys(str(test) for path in changed(since) for test in tests_of(path)), sep="\n")
