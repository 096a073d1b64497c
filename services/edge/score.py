"""Score events on this device: python score.py FILE [--out predictions.jsonl].

Before anything of this folder is imported or run, every file is compared with the manifest; what follows is the code
of all other deployments, carried in lib/.
"""

import hashlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def altered() -> str:
    """Name a file that is missing, altered or not part of the export; empty where there is none."""
    try:
        files = json.loads((FOLDER / "edge.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"edge.json cannot be read ({type(error).__name__})"
    for name, digest in files.items():
        path = FOLDER / name
        if not path.is_file():
            return f"{name} is missing"
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return f"{name} was altered"
    for part in ("lib", "model"):
        for path in (FOLDER / part).rglob("*"):
            if not path.is_dir() and path.relative_to(FOLDER).as_posix() not in files:
                return f"{path.relative_to(FOLDER).as_posix()} is no file of the export"
    return ""


def run() -> int:
    """Verify, then score."""
    reason = altered()
    if reason:
        print(f"error: {reason}; nothing was scored; copy the export again", file=sys.stderr)
        return 2
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(FOLDER / "lib"))
    try:
        from mlworkbench.deploy.device_command import main
    except ImportError as error:
        print(f"error: {error}; pip install -r requirements.txt", file=sys.stderr)
        return 2
    return main(FOLDER, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
